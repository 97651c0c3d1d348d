/* A daemon's mirror, mapped into this process.
 *
 * A mirror is mapped once for all handles of the process that read the same
 * image and epoch; each shared mirror has a pin table of its own, on its own
 * connection.  What came from the daemon is checked, not believed: that the
 * memory cannot be cut short under us, and that it is what the daemon says.
 *
 * A shared mirror belongs to a handle's thread; the table of mappings is
 * shared, and locked inside. */
#ifndef CLIENT_REMOTE_SHARED_MIRROR_H
#define CLIENT_REMOTE_SHARED_MIRROR_H

#include <stdint.h>

#include "cache/shared_pins.h"
#include "client/shared_view.h"

#ifdef __cplusplus
extern "C" {
#endif

struct shared_mirror {
  struct shared_view base;
  struct pin_table table;
  struct pin_page *page;
  uint64_t number; /* what the daemon calls the table; 0: nothing */
};

/* What a daemon says of the memory that it gives. */
struct shared_mirror_offer {
  uint64_t size, epoch; /* of the image */
  unsigned page_shift;
  uint64_t table;
  uint32_t page_slots, range_capacity, read_ahead;
};

enum {
  SHARED_MIRROR_FD_PAGES,
  SHARED_MIRROR_FD_WORDS,
  SHARED_MIRROR_FD_TOUCHED,
  SHARED_MIRROR_FD_PINS
};
enum { SHARED_MIRROR_N_FDS = 4 };

/* Maps what a daemon gave: takes the descriptors over, also on failure.  0;
 * -EPROTO if it is not what it should be; or another negative errno, when it
 * cannot be mapped here. */
int shared_mirror_new(const int fds[SHARED_MIRROR_N_FDS],
                      const struct shared_mirror_offer *offer,
                      struct shared_mirror **out);

#ifdef __cplusplus
}
#endif

#endif

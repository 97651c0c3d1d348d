/* A daemon's mirror, mapped into this process.
 *
 * A mirror is mapped once for all handles of the process that read the same
 * image and epoch.  Each shared mirror has a pin table of its own, on its own
 * connection.  The library checks what the daemon sends: that the memory cannot
 * be shortened later, and that it matches its description.
 *
 * A shared mirror belongs to the thread of a handle.  All threads share the
 * table of mappings, which has a lock. */
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
  uint64_t number; /* the daemon's number of the table; 0: it has none */
};

/* The description of the memory by the daemon. */
struct shared_mirror_offer {
  uint64_t size, epoch; /* of the image */
  unsigned page_shift;
  uint64_t table;
  uint32_t page_slots, range_capacity, read_ahead;
};

enum {
  SHARED_MIRROR_FD_PAGES,
  SHARED_MIRROR_FD_STATES,
  SHARED_MIRROR_FD_ACCESSED,
  SHARED_MIRROR_FD_PINS
};
enum { SHARED_MIRROR_N_FDS = 4 };

/* Maps the memory of a daemon.  Takes ownership of the descriptors, also on
 * failure. 0; -EPROTO if the memory does not match its description; or another
 * negative errno if it cannot be mapped here. */
int shared_mirror_new(const int fds[SHARED_MIRROR_N_FDS],
                      const struct shared_mirror_offer *offer,
                      struct shared_mirror **out);

#ifdef __cplusplus
}
#endif

#endif

/* Attachments: a daemon's mirror, mapped into this process.
 *
 * A mirror is mapped once for all handles of the process that read the same
 * image and epoch; each shared mirror has a pin table of its own, on its own
 * connection.  What came from the daemon is checked, not believed: that the
 * memory cannot be cut short under us, and that it is what the daemon says.
 *
 *   A1  While a shared mirror lives the daemon honours its table, whatever
 * became of the connection.  The end of it tells the daemon so. A2  Once an
 * Attach has named its table, to have it replaced, the daemon honours the pins
 * that stood there then and no others.  From before that message on the shared
 * mirror `is_given_up`: no pin is stored in the table that anything relies on,
 * and no page is looked at under one.
 *
 * A shared mirror belongs to a handle's thread; the table of mappings is
 * shared, and locked inside. */
#ifndef CLIENT_REMOTE_SHARED_MIRROR_H
#define CLIENT_REMOTE_SHARED_MIRROR_H

#include <stdint.h>

#include "cache/shared_pins.h"
#include "cache/view.h"

#ifdef __cplusplus
extern "C" {
#endif

struct shared_mirror {
  struct view view;
  struct mirror *mirror; /* referenced */
  struct pin_table table;
  struct pin_page *page;
  uint64_t number; /* what the daemon calls the table; 0: nothing */
  uint32_t read_ahead;
  bool is_given_up; /* A2 */
  bool is_growing;  /* the daemon was asked for a larger share */
  unsigned n_refs;
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

static inline struct shared_mirror *shared_mirror_ref(struct shared_mirror *a) {
  a->n_refs++;
  return a;
}

/* NULL is fine. */
void shared_mirror_unref(struct shared_mirror *a);

#ifdef __cplusplus
}
#endif

#endif

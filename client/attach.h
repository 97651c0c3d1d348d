/* Attachments: a daemon's mirror, mapped into this process.
 *
 * A mirror is mapped once for all handles of the process that read the same
 * image and epoch; each attachment has a pin table of its own, on its own
 * connection.  What came from the daemon is checked, not believed: that the
 * memory cannot be cut short under us, and that it is what the daemon says.
 *
 *   A1  While an attachment lives the daemon honours its table, whatever became
 *       of the connection.  The end of it tells the daemon so.
 *   A2  Once an Attach has named its table, to have it replaced, the daemon
 *       honours the pins that stood there then and no others.  From before that
 *       message on the attachment `is_given_up`: no pin is stored in the table
 *       that anything relies on, and no page is looked at under one.
 *
 * An attachment belongs to a handle's thread; the table of mappings is shared,
 * and locked inside. */
#ifndef CLIENT_ATTACH_H
#define CLIENT_ATTACH_H

#include <stdint.h>

#include "cache/shared_pins.h"
#include "cache/view.h"

#ifdef __cplusplus
extern "C" {
#endif

struct attachment {
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
struct attach_offer {
  uint64_t size, epoch; /* of the image */
  unsigned page_shift;
  uint64_t table;
  uint32_t page_slots, range_capacity, read_ahead;
};

enum { ATTACH_FD_PAGES, ATTACH_FD_WORDS, ATTACH_FD_TOUCHED, ATTACH_FD_PINS };
enum { ATTACH_N_DESCRIPTORS = 4 };

/* Maps what a daemon gave: takes the descriptors over, also on failure.  0;
 * -EPROTO if it is not what it should be; or another negative errno, when it
 * cannot be mapped here. */
int attachment_new(const int fds[ATTACH_N_DESCRIPTORS],
                   const struct attach_offer *offer, struct attachment **out);

static inline struct attachment *attachment_ref(struct attachment *a) {
  a->n_refs++;
  return a;
}

/* NULL is fine. */
void attachment_unref(struct attachment *a);

#ifdef __cplusplus
}
#endif

#endif

/* An image reader: one thread's view of one image.
 *
 * It follows the image from epoch to epoch: the thread opens it on the present
 * mirror when it needs it, and again when that mirror was retired.  Its pins
 * protect bytes from the moment when they are found resident until the kernel
 * has them, or they are copied, and never longer: see send_batch.h.
 *
 * That thread only. */
#ifndef DAEMON_ENGINE_IMAGE_READER_H
#define DAEMON_ENGINE_IMAGE_READER_H

#include "cache/fetch.h"
#include "cache/image.h"
#include "cache/view.h"
#include "daemon/engine/fill_dispatch.h"
#include "daemon/engine/images.h"

struct image_reader {
  struct served_image *served;
  struct mirror *mirror; /* the view's, which references it; NULL: not open */
  struct view view;
  unsigned n_pages, n_ranges; /* pin slots in use, of either kind */
  unsigned n_paid;            /* hits that misses have paid for: see read.c */
  struct image_reader
      *next_pinned; /* the output's list of those that hold pins */
  struct fill_dispatch_image *fills; /* runs those of its misses */
};

/* Whether the image reader looks at the image's present epoch. */
static inline bool image_reader_is_current(const struct image_reader *l) {
  return l->mirror && image_is_current(l->served->image, l->mirror);
}

/* Makes a reader that is not open; it uses its thread's dispatch.  0 or
 * -ENOMEM. */
int image_reader_init(struct image_reader *l, struct served_image *served,
                      struct fill_dispatch *dispatch);

/* The reader is closed.  Fills that it has started may go on. */
void image_reader_fini(struct image_reader *l);

/* Opens the view on the present epoch, whatever it was on before.  The reader
 * holds no pins.  0 or a negative errno. */
int image_reader_open(struct image_reader *l);

/* Closes the view, so that it keeps no mirror alive.  The reader holds no pins.
 */
void image_reader_close(struct image_reader *l);

/* Whether `count` pages (at most FETCH_MAX_PAGES) can be pinned now, in any
 * number of calls of image_reader_pin().  After image_reader_unpin() it is
 * always true. */
bool image_reader_has_room(const struct image_reader *l, unsigned count);

/* Pins the leading resident pages of first .. first+count-1, marks their
 * accessed bytes, and returns their number. */
unsigned image_reader_pin(struct image_reader *l, uint64_t first,
                          unsigned count);

static inline bool image_reader_has_pins(const struct image_reader *l) {
  return l->n_pages || l->n_ranges;
}

/* Ends all its pins. */
void image_reader_unpin(struct image_reader *l);

#endif

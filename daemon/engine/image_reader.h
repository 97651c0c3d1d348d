/* An image reader: one thread's view of one image.
 *
 * It follows the image from epoch to epoch: it is opened on the present mirror
 * when it is needed and reopened when that one was retired.  Its pins protect
 * bytes from the moment they are found resident until the kernel has them (or
 * they are copied), never longer: see send_batch.h.
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
  struct image_reader
      *next_pinned; /* the output's list of those that hold pins */
  struct fill_dispatch_image *fills; /* runs those of its misses */
};

/* Whether the image reader looks at the image's present epoch. */
static inline bool image_reader_is_current(const struct image_reader *l) {
  return l->mirror && image_is_current(l->served->image, l->mirror);
}

/* One that is not open yet; it uses its thread's dispatch.  0 or -ENOMEM. */
int image_reader_init(struct image_reader *l, struct served_image *served,
                      struct fill_dispatch *dispatch);

/* Of one that is closed.  Fills that it has begun may go on. */
void image_reader_fini(struct image_reader *l);

/* Looks at the present epoch, whatever it looked at before.  It holds no pins.
 * 0 or a negative errno. */
int image_reader_open(struct image_reader *l);

/* Looks at nothing, and so keeps no mirror alive.  It holds no pins. */
void image_reader_close(struct image_reader *l);

/* Whether `count` pages (at most FETCH_MAX_PAGES) can be pinned now, by
 * whatever calls of image_reader_pin(); after image_reader_unpin() they always
 * can. */
bool image_reader_has_room(const struct image_reader *l, unsigned count);

/* Pins the leading pages of first .. first+count-1 that are resident, notes
 * that they were used, and returns how many they are. */
unsigned image_reader_pin(struct image_reader *l, uint64_t first,
                          unsigned count);

static inline bool image_reader_has_pins(const struct image_reader *l) {
  return l->n_pages || l->n_ranges;
}

/* Ends all its pins. */
void image_reader_unpin(struct image_reader *l);

#endif

#include "daemon/engine/image_reader.h"

#include <assert.h>
#include <errno.h>

_Static_assert((unsigned)PIN_N_PAGE_SLOTS >= (unsigned)FETCH_MAX_PAGES,
               "an empty table must have room for the pages of a piece");

int image_reader_init(struct image_reader *l, struct served_image *served,
                      struct fill_dispatch *dispatch) {
  *l = (struct image_reader){.served = served};
  l->fills = fill_dispatch_image_new(dispatch, served);
  return l->fills ? 0 : -ENOMEM;
}

void image_reader_fini(struct image_reader *l) {
  assert(!l->mirror);
  fill_dispatch_image_unref(l->fills);
}

int image_reader_open(struct image_reader *l) {
  image_reader_close(l);
  struct mirror *m = image_mirror(l->served->image);
  int r = view_open(&l->view, m);
  if (r == 0)
    l->mirror = m;
  mirror_unref(m); /* the view has a reference of its own */
  return r;
}

void image_reader_close(struct image_reader *l) {
  assert(!image_reader_has_pins(l));
  if (l->mirror)
    view_close(&l->view);
  l->mirror = NULL;
}

bool image_reader_has_room(const struct image_reader *l, unsigned count) {
  return l->n_pages + count <= PIN_N_PAGE_SLOTS;
}

/* By one slot for the run.  A pin names the whole run at first, absent pages
 * included, and is cut down to what turned out to be there. */
static unsigned image_reader_pin_range(struct image_reader *l, uint64_t first,
                                       unsigned count) {
  unsigned slot = PIN_SLOT_RANGE + l->n_ranges;
  unsigned n = 0;
  view_pin(&l->view, slot, first, count);
  while (n < count && view_is_resident(&l->view, first + n))
    view_mark_accessed(&l->view, first + n++);
  if (n == 0) {
    view_unpin(&l->view, slot);
    return 0;
  }
  if (n < count)
    view_pin(&l->view, slot, first, n);
  l->n_ranges++;
  return n;
}

static unsigned image_reader_pin_pages(struct image_reader *l, uint64_t first,
                                       unsigned count) {
  for (unsigned n = 0; n < count; n++) {
    unsigned slot = PIN_SLOT_PAGE + l->n_pages;
    if (!view_pin_page(&l->view, slot, first + n)) {
      view_unpin(&l->view, slot);
      return n;
    }
    l->n_pages++;
  }
  return count;
}

unsigned image_reader_pin(struct image_reader *l, uint64_t first,
                          unsigned count) {
  if (count > 1 && l->n_ranges < PIN_N_RANGE_SLOTS &&
      count <= pin_capacity(l->view.table, PIN_SLOT_RANGE))
    return image_reader_pin_range(l, first, count);
  assert(image_reader_has_room(l, count));
  return image_reader_pin_pages(l, first, count);
}

void image_reader_unpin(struct image_reader *l) {
  while (l->n_pages)
    view_unpin(&l->view, PIN_SLOT_PAGE + --l->n_pages);
  while (l->n_ranges)
    view_unpin(&l->view, PIN_SLOT_RANGE + --l->n_ranges);
}

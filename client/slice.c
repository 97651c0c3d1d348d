/* Slices: what load, next and map hand out, and how it is given back.
 *
 * slice.pin is {generation, place + 1}: a zeroed slice names no place, and one
 * that was released, or a copy of it, does not match the place's generation
 * any more. */
#include "client/handle.h"

#include <assert.h>

#include "client/request.h"

#define PLACE_BITS 8

static uint64_t pin_of(const cachet *c, int place) {
  return c->slices[place].generation << PLACE_BITS | (uint64_t)(place + 1);
}

int slice_reserve(cachet *c) {
  if (!c->free_slices)
    return -1;
  int place = __builtin_ctzll(c->free_slices);
  c->free_slices &= ~(1ull << place);
  return place;
}

void slice_unreserve(cachet *c, int place) {
  assert(!(c->free_slices & 1ull << place));
  c->free_slices |= 1ull << place;
}

void slot_release(struct epoch *e, unsigned slot) {
  view_unpin(&e->view, slot);
  if (slot >= PIN_SLOT_RANGE)
    e->held_ranges &= ~(1u << (slot - PIN_SLOT_RANGE));
}

/* Pinned in the place's own slot: what a hit does. */
static inline void slice_fill_page(cachet *c, int place, struct epoch *epoch,
                                   unsigned slot, struct cachet_slice *out) {
  struct held *h = &c->slices[place];
  h->epoch = epoch;
  h->slot = slot;
  h->generation++;
  out->data = view_page(&epoch->view, 0, out->offset);
  out->pin = pin_of(c, place);
  out->reserved = 0;
}

void slice_fill(cachet *c, int place, struct epoch *epoch, unsigned slot,
                uint8_t *copy, struct cachet_slice *out) {
  slice_fill_page(c, place, epoch, slot, out);
  if (copy) {
    struct held *h = &c->slices[place];
    epoch_unref(epoch);
    h->epoch = NULL;
    h->copy = copy;
    out->data = copy;
  }
}

static inline void slice_release(cachet *c, int place) {
  struct held *h = &c->slices[place];
  h->generation++; /* before anything: the slice is void from here */
  if (h->epoch) {
    slot_release(h->epoch, h->slot);
    epoch_unref(h->epoch);
    h->epoch = NULL;
  } else {
    free(h->copy);
    h->copy = NULL;
  }
  slice_unreserve(c, place);
}

void cachet_release(cachet *c, struct cachet_slice *slice) {
  if (!slice || *c->alive == 0)
    return; /* in a child the pin is the parent's */
  uint64_t place = (slice->pin & ((1u << PLACE_BITS) - 1)) - 1;
  if (place < N_SLICES && !(c->free_slices & 1ull << place) &&
      slice->pin == pin_of(c, (int)place))
    slice_release(c, (int)place);
  slice->pin = 0;
}

void slice_release_all(cachet *c) {
  for (int place = 0; place < N_SLICES; place++)
    if (!(c->free_slices & 1ull << place))
      slice_release(c, place);
}

size_t cachet_pin_limit(const cachet *c) {
  (void)c;
  return N_SLICES;
}

/* ---- Loading ------------------------------------------------------------- */

static enum cachet_status load_slow(cachet *c, uint64_t addr, size_t min_len,
                                    struct cachet_slice *out) {
  struct cachet_request r = {
      .c = c, .kind = REQUEST_LOAD, .addr = addr, .len = min_len};
  enum cachet_status status = request_run(&r, NULL, 0);
  if (status == CACHET_OK)
    *out = r.slice;
  return status;
}

enum cachet_status cachet_load(cachet *c, uint64_t addr, size_t min_len,
                               struct cachet_slice *out) {
  if (!handle_enter(c))
    return handle_fail_forked(c);
  struct epoch *e = c->epoch;
  const struct mirror *m = e->mirror;
  uint64_t mask = mirror_page_size(m) - 1, in_page = addr & mask;
  /* The first two cannot overflow: `addr` is within the image. */
  if (addr >= m->size || min_len > m->size - addr ||
      min_len > mask + 1 - in_page || !handle_is_trusted(c))
    return load_slow(c, addr, min_len, out);
  int place = slice_reserve(c);
  if (place < 0)
    return load_slow(c, addr, min_len, out);
  unsigned slot = PIN_SLOT_PAGE + (unsigned)place;
  uint64_t page = addr >> m->page_shift;
  if (!view_pin_page(&e->view, slot, page)) {
    view_unpin(&e->view, slot);
    slice_unreserve(c, place);
    return load_slow(c, addr, min_len, out);
  }
  c->n_hits++;
  out->offset = addr - in_page;
  out->length = mirror_page_len(m, page);
  slice_fill_page(c, place, epoch_ref(e), slot, out);
  return CACHET_OK;
}

enum cachet_status cachet_next(cachet *c, const struct cachet_slice *slice,
                               struct cachet_slice *out) {
  uint64_t addr;
  if (__builtin_add_overflow(slice->offset, slice->length, &addr))
    return handle_fail(c, CACHET_E_INVAL, 0, "next: not a slice");
  return cachet_load(c, addr, 0, out);
}

enum cachet_status cachet_map(cachet *c, uint64_t addr, uint64_t len,
                              struct cachet_slice *out) {
  if (!handle_enter(c))
    return handle_fail_forked(c);
  if (len == 0)
    return handle_fail(c, CACHET_E_INVAL, 0, "map of 0 bytes");
  struct cachet_request r = {
      .c = c, .kind = REQUEST_MAP, .addr = addr, .len = len};
  enum cachet_status status = request_run(&r, NULL, 0);
  if (status == CACHET_OK)
    *out = r.slice;
  return status;
}

/* Slices: what load, next and map hand out, and how it is given back.
 *
 * slice.pin is {generation, place + 1}: a zeroed slice names no place, and one
 * that was released, or a copy of it, does not match the place's generation
 * any more. */
#include "client/handle.h"

#include <assert.h>

#include "client/call.h"

#define PLACE_BITS 8

static inline uint64_t pin_of(const cachet *c, int place) {
  return c->slices[place].generation << PLACE_BITS | (uint64_t)(place + 1);
}

static inline unsigned page_slot(int place) {
  return PIN_SLOT_PAGE + (unsigned)place;
}

void slice_init(cachet *c) {
  static_assert(N_SLICES == 64, "free_slices has a bit for each");
  c->free_slices = ~0ull;
  for (int place = 0; place < N_SLICES; place++)
    c->slices[place].slot = page_slot(place);
}

int slice_reserve(cachet *c) {
  if (!c->free_slices)
    return -1;
  int place = __builtin_ctzll(c->free_slices);
  c->free_slices &= ~(1ull << place);
  c->slices[place].epoch = NULL; /* none yet: the call has its own (H3) */
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

void slice_fill(cachet *c, int place, struct epoch *epoch, unsigned slot,
                uint8_t *copy, struct cachet_slice *out) {
  struct held *h = &c->slices[place];
  h->epoch = epoch;
  h->slot = copy ? NO_SLOT : slot;
  h->copy = copy;
  if (copy || epoch == c->epoch) /* H3 */
    epoch_unref(epoch);
  out->data = copy ? copy : view_page(&epoch->view, 0, out->offset);
  out->pin = pin_of(c, place);
}

void slice_count_references(cachet *c) {
  for (int place = 0; place < N_SLICES; place++) {
    struct held *h = &c->slices[place];
    if (!(c->free_slices & 1ull << place) && h->epoch == c->epoch && !h->copy)
      epoch_ref(c->epoch);
  }
}

/* Any slice but one page of the present epoch. */
static void __attribute__((noinline)) release_other(cachet *c, int place) {
  struct held *h = &c->slices[place];
  if (h->copy) {
    free(h->copy);
  } else {
    slot_release(h->epoch, h->slot);
    if (h->epoch != c->epoch)
      epoch_unref(h->epoch);
  }
  h->epoch = NULL;
  h->copy = NULL;
  h->slot = page_slot(place);
}

static inline __attribute__((always_inline)) void slice_release(cachet *c,
                                                                int place) {
  struct held *h = &c->slices[place];
  h->generation++; /* before anything: the slice is void from here */
  if (__builtin_expect(h->slot == page_slot(place) && h->epoch == c->epoch, 1))
    view_unpin(&h->epoch->view, h->slot);
  else
    release_other(c, place);
  c->free_slices |= 1ull << place;
}

void cachet_release(cachet *c, struct cachet_slice *slice) {
  if (!slice || *c->alive == 0)
    return; /* in a child the pin is the parent's */
  uint64_t place = (slice->pin & ((1u << PLACE_BITS) - 1)) - 1;
  if (place < N_SLICES && !(c->free_slices & 1ull << place) &&
      slice->pin == pin_of(c, (int)place))
    slice_release(c, (int)place);
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

/* A hit: few stores, since a store buffer that is full is what keeps the misses
 * of neighbouring loads from going on at once.  False: no hit, nothing done. */
static inline __attribute__((always_inline)) bool
load_hit(cachet *c, uint64_t addr, size_t min_len, struct cachet_slice *out) {
  struct epoch *e = c->epoch;
  const struct mirror *m = e->mirror;
  uint64_t in_page = addr & (mirror_page_size(m) - 1);
  uint64_t page = addr >> m->page_shift;
  /* Nothing can overflow: `addr` is within the image. */
  if (addr >= m->size || min_len > m->size - addr ||
      min_len > mirror_page_size(m) - in_page || !c->free_slices)
    return false;
  int place = __builtin_ctzll(c->free_slices);
  struct held *h = &c->slices[place];
  if (!view_pin_page(&e->view, page_slot(place), page)) {
    view_unpin(&e->view, page_slot(place));
    return false;
  }
  c->free_slices &= c->free_slices - 1;
  c->n_hits++;
  if (h->epoch != e)
    h->epoch = e;
  out->offset = addr - in_page;
  out->length = mirror_page_len(m, page);
  out->data = view_page(&e->view, m->page_shift, page);
  out->pin = pin_of(c, place);
  return true;
}

static enum cachet_status __attribute__((noinline))
load_carefully(cachet *c, uint64_t addr, size_t min_len,
               struct cachet_slice *out) {
  if (!handle_enter(c))
    return handle_fail_forked(c);
  if (handle_is_trusted(c) && load_hit(c, addr, min_len, out))
    return CACHET_OK;
  struct cachet_request r = {
      .c = c, .kind = CALL_LOAD, .addr = addr, .len = min_len};
  enum cachet_status status = call_run(&r, NULL, 0);
  if (status == CACHET_OK)
    *out = r.slice;
  return status;
}

enum cachet_status cachet_load(cachet *c, uint64_t addr, size_t min_len,
                               struct cachet_slice *out) {
  if (handle_is_plain(c) && load_hit(c, addr, min_len, out))
    return CACHET_OK;
  return load_carefully(c, addr, min_len, out);
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
      .c = c, .kind = CALL_MAP, .addr = addr, .len = len};
  enum cachet_status status = call_run(&r, NULL, 0);
  if (status == CACHET_OK)
    *out = r.slice;
  return status;
}

/* Slices: what load, next and map hand out, and how it is given back.
 *
 * slice.pin is {generation, place + 1}: a zeroed slice names no place, and one
 * that was released, or a copy of it, does not match the place's generation
 * any more. */
#include "client/handle.h"

#include <assert.h>

#include "client/call.h"

#define PLACE_BITS 8

static inline unsigned page_slot(int place) {
  return PIN_SLOT_PAGE + (unsigned)place;
}

void slice_init(cachet *c) {
  static_assert(N_SLICES == 64, "free_slices has a bit for each");
  c->free_slices = ~0ull;
  for (int place = 0; place < N_SLICES; place++) {
    c->slices[place].pin = (uint64_t)(place + 1);
    c->slices[place].epoch = c->epoch;
  }
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
  c->slices[place].epoch = c->epoch;
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
  h->copy = copy;
  if (!copy && slot == page_slot(place)) {
    h->epoch = epoch;
  } else if (!copy) {
    h->range_epoch = epoch;
    h->slot = slot;
  }
  if (copy || h->epoch == c->epoch) /* H3 */
    epoch_unref(epoch);
  out->data = copy ? copy : view_page(&epoch->view, 0, out->offset);
  out->pin = h->pin;
}

void slice_move(cachet *c, struct epoch *next) {
  for (int place = 0; place < N_SLICES; place++) {
    struct held *h = &c->slices[place];
    if (c->free_slices & 1ull << place)
      h->epoch = next;
    else if (h->epoch == c->epoch)
      epoch_ref(c->epoch);
  }
}

/* Any slice but one page of the present epoch. */
static void __attribute__((noinline)) release_other(cachet *c, int place) {
  struct held *h = &c->slices[place];
  if (h->epoch) {
    view_unpin(&h->epoch->view, page_slot(place));
    epoch_unref(h->epoch);
  } else if (h->range_epoch) {
    slot_release(h->range_epoch, h->slot);
    epoch_unref(h->range_epoch);
    h->range_epoch = NULL;
  } else {
    free(h->copy);
    h->copy = NULL;
  }
  h->epoch = c->epoch;
}

static inline __attribute__((always_inline)) void slice_release(cachet *c,
                                                                int place) {
  struct held *h = &c->slices[place];
  h->pin += 1ull << PLACE_BITS; /* first of all: the slice is void from here */
  if (__builtin_expect(h->epoch == c->epoch, 1))
    view_unpin(&c->view, page_slot(place));
  else
    release_other(c, place);
  c->free_slices |= 1ull << place;
}

void cachet_release(cachet *c, struct cachet_slice *slice) {
  if (!slice || *c->alive == 0)
    return; /* in a child the pin is the parent's */
  uint64_t place = (slice->pin & ((1u << PLACE_BITS) - 1)) - 1;
  if (place < N_SLICES && slice->pin == c->slices[place].pin &&
      !(c->free_slices & 1ull << place))
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
load_hit(cachet *c, uint64_t addr, size_t min_len, struct cachet_slice *out,
         bool plain) {
  uint64_t free_slices = c->free_slices, page = addr >> c->shift;
  uint64_t start = page << c->shift, end = start + (1ull << c->shift);
  if (end > c->size) /* sizes are far from where this could overflow */
    end = c->size;
  if (addr >= end || min_len > end - addr || !free_slices)
    return false;
  int place = __builtin_ctzll(free_slices);
  if (!(plain ? handle_pin_plain(c, page_slot(place), page)
              : view_pin_page(&c->view, page_slot(place), page))) {
    view_unpin(&c->view, page_slot(place));
    return false;
  }
  c->free_slices = free_slices & (free_slices - 1);
  c->n_hits++;
  out->offset = start;
  out->length = end - start;
  out->data = c->view.base + start;
  out->pin = c->slices[place].pin;
  return true;
}

static enum cachet_status __attribute__((noinline))
load_carefully(cachet *c, uint64_t addr, size_t min_len,
               struct cachet_slice *out) {
  if (!handle_enter(c))
    return handle_fail_forked(c);
  if (handle_is_trusted(c) && load_hit(c, addr, min_len, out, false))
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
  if (handle_is_plain(c) && load_hit(c, addr, min_len, out, true))
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

/* Slices: what load, next and map hand out, and how it is given back.
 *
 * slice.pin is a token, {generation, place}.  Generations start at 1, so a
 * zeroed slice matches no place; a place's generation goes up when its slice
 * is released, so neither does a slice that was, or a copy of it.  A free place
 * has the token that its next slice will get, which nobody has yet. */
#include "client/handle.h"

#include <assert.h>

#define PLACE_BITS 6
#define PLACE_MASK ((1u << PLACE_BITS) - 1)

static_assert(N_SLICES == 1 << PLACE_BITS && N_SLICES == 64,
              "a token has room for a place, free_slices a bit for each");

static inline unsigned page_slot(unsigned place) {
  return PIN_SLOT_PAGE + place;
}

bool slice_has_slot(const struct epoch *e, int place) {
  return page_slot((unsigned)place) < e->view.table->page_slots;
}

/* NULL: it does not count. */
static uint64_t *own_slot(const struct epoch *e, unsigned place) {
  return slice_has_slot(e, (int)place) ? &e->view.slots[page_slot(place)]
                                       : NULL;
}

static uint64_t all_free(const cachet *c) {
  return c->free_slices | c->free_copies;
}

/* H1 and H3, for a place that is not in use. */
static void set_free(cachet *c, unsigned place, const struct epoch *e) {
  struct held *h = &c->slices[place];
  uint64_t bit = 1ull << place;
  *h = (struct held){.token = h->token, .own = own_slot(e, place)};
  c->free_slices = h->own ? c->free_slices | bit : c->free_slices & ~bit;
  c->free_copies = h->own ? c->free_copies & ~bit : c->free_copies | bit;
}

void slice_init(cachet *c) {
  for (unsigned place = 0; place < N_SLICES; place++) {
    c->slices[place].token = 1ull << PLACE_BITS | place;
    set_free(c, place, c->epoch);
  }
}

void slice_grow(cachet *c) {
  for (unsigned place = 0; place < N_SLICES; place++)
    if (c->free_copies & 1ull << place)
      set_free(c, place, c->epoch);
}

int slice_reserve(cachet *c) {
  uint64_t from = c->free_slices ? c->free_slices : c->free_copies;
  if (!from)
    return -1;
  int place = __builtin_ctzll(from);
  c->free_slices &= ~(1ull << place);
  c->free_copies &= ~(1ull << place);
  c->slices[place].own = NULL; /* the call has an epoch of its own */
  return place;
}

void slice_unreserve(cachet *c, int place) {
  assert(!(all_free(c) & 1ull << place));
  set_free(c, (unsigned)place, c->epoch);
}

void slice_fill(cachet *c, int place, struct epoch *epoch, unsigned slot,
                uint8_t *copy, struct cachet_slice *out) {
  struct held *h = &c->slices[place];
  bool is_own =
      !copy && epoch == c->epoch && slot == page_slot((unsigned)place);
  if (is_own)
    h->own = own_slot(epoch, (unsigned)place);
  else if (!copy)
    *h = (struct held){.token = h->token, .epoch = epoch, .slot = slot};
  else
    h->copy = copy;
  out->data = copy ? copy : view_page(&epoch->view, 0, out->offset);
  out->pin = h->token;
  if (is_own || copy)
    epoch_unref(epoch); /* H3 */
}

void slice_move(cachet *c, struct epoch *next) {
  for (unsigned place = 0; place < N_SLICES; place++) {
    struct held *h = &c->slices[place];
    if (all_free(c) & 1ull << place) {
      set_free(c, place, next);
    } else if (h->own) {
      h->own = NULL;
      h->epoch = epoch_ref(c->epoch);
      h->slot = page_slot(place);
    }
  }
}

/* Any slice but one page of the present epoch. */
static void __attribute__((noinline)) release_other(cachet *c, unsigned place) {
  struct held *h = &c->slices[place];
  if (h->epoch) {
    epoch_release_slot(h->epoch, h->slot);
    epoch_unref(h->epoch);
  }
  free(h->copy);
  set_free(c, place, c->epoch);
}

static inline __attribute__((always_inline)) void
slice_release(cachet *c, unsigned place) {
  struct held *h = &c->slices[place];
  h->token += 1u << PLACE_BITS; /* first of all: the slice is void from here */
  if (__builtin_expect(h->own == NULL, 0)) {
    release_other(c, place);
    return;
  }
  pin_clear(h->own);
  c->free_slices |= 1ull << place;
}

void cachet_release(cachet *c, struct cachet_slice *slice) {
  if (!slice || *c->alive == 0)
    return; /* in a child the pin is the parent's */
  unsigned place = slice->pin & PLACE_MASK;
  if (slice->pin == c->slices[place].token)
    slice_release(c, place);
}

void slice_release_all(cachet *c) {
  for (unsigned place = 0; place < N_SLICES; place++)
    if (!(all_free(c) & 1ull << place))
      slice_release(c, place);
}

size_t cachet_pin_limit(const cachet *c) {
  (void)c;
  return N_SLICES;
}

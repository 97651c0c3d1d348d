#include "client/slice.h"

#include <assert.h>
#include <stdlib.h>

static_assert(N_SLICES == 1 << SLICE_PLACE_BITS && N_SLICES == 64,
              "a token has room for a place, `free` a bit for each");

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

static uint64_t all_free(const struct slices *s) {
  return s->free | s->free_copies;
}

/* S1 and S2, for a place that is not in use. */
static void set_free(struct slices *s, unsigned place, const struct epoch *e) {
  struct held *h = &s->held[place];
  uint64_t bit = 1ull << place;
  *h = (struct held){.token = h->token, .own = own_slot(e, place)};
  s->free = h->own ? s->free | bit : s->free & ~bit;
  s->free_copies = h->own ? s->free_copies & ~bit : s->free_copies | bit;
}

static bool has_ready(const struct slices *s) {
  return s->ready_slot != &s->never_free;
}

void slice_check(const struct slices *s, const struct epoch *now) {
  assert(!(s->free & s->free_copies));
  assert(s->never_free && (has_ready(s) || s->ready_token == SLICE_NO_TOKEN));
  for (unsigned place = 0; place < N_SLICES; place++) {
    const struct held *h = &s->held[place];
    const uint64_t *own = own_slot(now, place);
    bool is_free = all_free(s) & 1ull << place;
    assert((h->token & SLICE_PLACE_MASK) == place);
    assert(!h->own || (h->own == own && !h->epoch && !h->copy));
    assert(!h->epoch || h->epoch->n_refs > 0);
    if (!is_free)
      continue;
    assert(!h->epoch && !h->copy);
    assert(!(s->free & 1ull << place) == !h->own);
    assert(h->own == s->ready_slot || now->view.slots[page_slot(place)] == 0);
  }
}

void slice_init(struct slices *s, const struct epoch *now) {
  s->never_free = 1;
  s->ready_slot = &s->never_free;
  s->ready_token = SLICE_NO_TOKEN;
  for (unsigned place = 0; place < N_SLICES; place++) {
    s->held[place].token = SLICE_NEXT | place;
    set_free(s, place, now);
  }
}

void slice_grow(struct slices *s, const struct epoch *now) {
  for (unsigned place = 0; place < N_SLICES; place++)
    if (s->free_copies & 1ull << place)
      set_free(s, place, now);
}

/* No place is ready any more: S1 is true of all. */
static void end_ready(struct slices *s) {
  if (!has_ready(s))
    return;
  unsigned place = s->ready_token & SLICE_PLACE_MASK;
  struct held *h = &s->held[place];
  assert(h->own == s->ready_slot);
  h->token = s->ready_token;
  if (slice_is_ready(s))
    h->token += SLICE_NEXT;
  else
    s->free &= ~(1ull << place);
  s->ready_slot = &s->never_free;
  s->ready_token = SLICE_NO_TOKEN;
}

/* A place in `free`, and not the ready one. */
static void set_ready(struct slices *s, unsigned place) {
  const struct held *h = &s->held[place];
  end_ready(s);
  s->ready_slot = h->own;
  s->ready_token = h->token - SLICE_NEXT;
}

void slice_make_ready(struct slices *s) {
  if (slice_is_ready(s))
    return;
  end_ready(s);
  if (s->free)
    set_ready(s, (unsigned)__builtin_ctzll(s->free));
}

int slice_reserve(struct slices *s) {
  end_ready(s);
  uint64_t from = s->free ? s->free : s->free_copies;
  if (!from)
    return -1;
  int place = __builtin_ctzll(from);
  s->free &= ~(1ull << place);
  s->free_copies &= ~(1ull << place);
  s->held[place].own = NULL; /* the call has an epoch of its own */
  return place;
}

void slice_unreserve(struct slices *s, const struct epoch *now, int place) {
  assert(!(all_free(s) & 1ull << place));
  set_free(s, (unsigned)place, now);
}

void slice_fill(struct slices *s, const struct epoch *now, int place,
                struct epoch *epoch, unsigned slot, uint8_t *copy,
                struct cachet_slice *out) {
  struct held *h = &s->held[place];
  bool is_own = !copy && epoch == now && slot == page_slot((unsigned)place);
  if (is_own)
    h->own = own_slot(epoch, (unsigned)place);
  else if (!copy)
    *h = (struct held){.token = h->token, .epoch = epoch, .slot = slot};
  else
    h->copy = copy;
  out->data = copy ? copy : view_page(&epoch->view, 0, out->offset);
  out->pin = h->token;
  if (is_own || copy)
    epoch_unref(epoch); /* S2 */
}

void slice_move(struct slices *s, struct epoch *now, const struct epoch *next) {
  end_ready(s);
  for (unsigned place = 0; place < N_SLICES; place++) {
    struct held *h = &s->held[place];
    if (all_free(s) & 1ull << place) {
      set_free(s, place, next);
    } else if (h->own) {
      h->own = NULL;
      h->epoch = epoch_ref(now);
      h->slot = page_slot(place);
    }
  }
}

static void release_place(struct slices *s, const struct epoch *now,
                          unsigned place) {
  struct held *h = &s->held[place];
  h->token += SLICE_NEXT; /* first of all: the slice is void from here */
  if (h->own) {
    pin_clear(h->own);
    s->free |= 1ull << place;
    return;
  }
  if (h->epoch) {
    epoch_release_slot(h->epoch, h->slot);
    epoch_unref(h->epoch);
  }
  free(h->copy);
  set_free(s, place, now);
}

void slice_release_held(struct slices *s, const struct epoch *now,
                        uint64_t token) {
  unsigned place = token & SLICE_PLACE_MASK;
  const struct held *h = &s->held[place];
  if (token != h->token || h->own == s->ready_slot)
    return;
  release_place(s, now, place);
  /* A reader that releases a page after it has loaded the next one changes
   * between two places. */
  if (h->own && !slice_is_ready(s))
    set_ready(s, place);
}

void slice_release_all(struct slices *s, const struct epoch *now) {
  end_ready(s);
  for (unsigned place = 0; place < N_SLICES; place++)
    if (!(all_free(s) & 1ull << place))
      release_place(s, now, place);
}

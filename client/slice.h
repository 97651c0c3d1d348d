/* Slices: what is handed out, where, and on what it stands.
 *
 * A handle has N_SLICES places.  slice.pin is a token, {generation, place}.
 * Generations start at 1, so a zeroed slice matches no place; a place's
 * generation goes up when its slice is released, so neither does a slice that
 * was, or a copy of it.  A free place has the token that its next slice will
 * get, which nobody has yet.
 *
 *   S1  Bit i of `free` or of `free_copies` is set if and only if held[i] is
 *       not in use, and then page slot i of every epoch's pin table is 0.  It
 *       is in `free` if that slot counts in the table of the present epoch.
 *   S2  One page's slice refers to the present epoch for nothing; any other,
 *       and any once the handle has left its epoch, by a counted reference.  A
 *       place in `free` has `own` set, so that a hit finds it ready.
 *
 * The present epoch is the handle's, and passed in: `now`. */
#ifndef CLIENT_SLICE_H
#define CLIENT_SLICE_H

#include <cachet/cachet.h>

#include "client/epoch.h"

#ifdef __cplusplus
extern "C" {
#endif

#define N_SLICES PIN_N_PAGE_SLOTS
#define SLICE_PLACE_BITS 6
#define SLICE_PLACE_MASK ((1u << SLICE_PLACE_BITS) - 1)

/* A place for a slice, and what that stands on: one page's pin in the handle's
 * epoch (`own`), any other pin (`epoch`), or a private copy. */
struct held {
  uint64_t token; /* of the slice that is, or will be next, in this place */
  /* The place's own page slot in the table of the handle's epoch.  NULL: the
   * slot does not count, or the slice stands on something else, or is being
   * made. */
  uint64_t *own;
  struct epoch *epoch; /* referenced, with the pin in its slot `slot` */
  unsigned slot;
  uint8_t *copy;
};

struct slices {
  uint64_t free;
  uint64_t free_copies; /* for slices that cannot be pinned */
  struct held held[N_SLICES];
};

/* All places are free. */
void slice_init(struct slices *s, const struct epoch *now);

/* Asserts S1 and S2, as far as the present epoch shows them. */
void slice_check(const struct slices *s, const struct epoch *now);

/* Takes a place for a slice; -1 if all are in use. */
int slice_reserve(struct slices *s);
void slice_unreserve(struct slices *s, const struct epoch *now, int place);

/* Describes a slice in a reserved place.  It stands on a pin of `epoch` in
 * `slot`, or, with `copy` not NULL, on that memory; the place takes over the
 * one or the other, and the reference to `epoch`. */
void slice_fill(struct slices *s, const struct epoch *now, int place,
                struct epoch *epoch, unsigned slot, uint8_t *copy,
                struct cachet_slice *out);

/* Whether a slice in a place can be pinned in its own slot of `e`. */
bool slice_has_slot(const struct epoch *e, int place);

/* The table of the present epoch has grown. */
void slice_grow(struct slices *s, const struct epoch *now);

/* The handle leaves its epoch for `next`: see S2. */
void slice_move(struct slices *s, struct epoch *now, const struct epoch *next);

/* Any slice but one page of the present epoch. */
void slice_release_other(struct slices *s, const struct epoch *now,
                         unsigned place);

static inline __attribute__((always_inline)) void
slice_release(struct slices *s, const struct epoch *now, unsigned place) {
  struct held *h = &s->held[place];
  /* First of all: the slice is void from here. */
  h->token += 1u << SLICE_PLACE_BITS;
  if (__builtin_expect(h->own == NULL, 0)) {
    slice_release_other(s, now, place);
    return;
  }
  pin_clear(h->own);
  s->free |= 1ull << place;
}

void slice_release_all(struct slices *s, const struct epoch *now);

#ifdef __cplusplus
}
#endif

#endif

/* Slices: what is handed out, where, and on what it stands.
 *
 * A handle has N_SLICES places.  slice.pin is a token, {generation, place}.
 * Generations start at 1, so a zeroed slice matches no place; a place's
 * generation goes up with each slice, so neither does a slice that was
 * released, or a copy of it.  A free place has the token that its next slice
 * will get, which nobody has yet.
 *
 *   S1  Bit i of `free` or of `free_copies` is set if and only if held[i] is
 *       not in use, and then page slot i of every epoch's pin table is 0.  It
 *       is in `free` if that slot counts in the table of the present epoch.
 *       For the ready place see S3.
 *   S2  One page's slice refers to the present epoch for nothing; any other,
 *       and any once the handle has left its epoch, by a counted reference.  A
 *       place in `free` has `own` set, so that a hit finds it ready.
 *   S3  At most one place is ready, for the next hit.  Its bit in `free` is
 *       set, and it is in use if and only if its page slot, `ready_slot`, is
 *       not 0.  `ready_token` is the token of its present or else of its
 *       previous slice; the one in held[] means nothing.
 *
 * So a load and a release there store the pin, the token and 0, and nothing
 * more.  The previous slice, released once more, only has 0 stored over 0.
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
#define SLICE_NEXT (1u << SLICE_PLACE_BITS) /* from a token to the next */
#define SLICE_NO_TOKEN SLICE_PLACE_MASK     /* generation 0: no slice's */

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
  uint64_t *ready_slot; /* S3.  `never_free`: no place is ready */
  uint64_t ready_token; /* SLICE_NO_TOKEN: the same */
  uint64_t never_free;  /* not 0 */
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

/* Releases the slice with this token, if it is in the ready place.  False: it
 * is not there. */
static inline bool slice_release_ready(struct slices *s, uint64_t token) {
  if (token != s->ready_token)
    return false;
  pin_clear(s->ready_slot);
  return true;
}

/* Releases the slice with this token elsewhere.  Does nothing if no slice has
 * it. */
void slice_release_held(struct slices *s, const struct epoch *now,
                        uint64_t token);

/* If the ready place is in use, makes a free one that can be pinned the ready
 * one.  If there is none, no place is ready. */
void slice_make_ready(struct slices *s);

static inline bool slice_is_ready(const struct slices *s) {
  return *s->ready_slot == 0;
}

void slice_release_all(struct slices *s, const struct epoch *now);

#ifdef __cplusplus
}
#endif

#endif

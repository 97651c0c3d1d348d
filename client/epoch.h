/* An epoch of the image as a handle sees it: a mirror and a view of it.
 *
 * The handle's thread only.  A slice that is read from an epoch which the
 * handle has left holds a reference: the bytes stay although the image has
 * moved on. */
#ifndef CLIENT_EPOCH_H
#define CLIENT_EPOCH_H

#include <limits.h>
#include <stdbool.h>

#include "cache/image.h"
#include "client/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

#define NO_SLOT UINT_MAX

struct epoch {
  struct view view;
  struct mirror *mirror;      /* referenced */
  struct shared_view *shared; /* referenced; NULL: of the image cache */
  unsigned n_refs;
  unsigned held_ranges; /* bit i: range slot i is in use */
};

/* A view of what the backend knows as the image's present epoch. */
enum cachet_status epoch_new(struct backend *b, struct epoch **out,
                             struct cachet_error *err);

static inline struct epoch *epoch_ref(struct epoch *e) {
  e->n_refs++;
  return e;
}
void epoch_unref(struct epoch *e);

/* Clears the pin in a slot of `e`, and frees the slot if it is for ranges. */
void epoch_release_slot(struct epoch *e, unsigned slot);

/* Whether pins in the epoch's table hold no more pages than they did: A2 in
 * shared_view.h. */
static inline bool epoch_is_given_up(const struct epoch *e) {
  return e->shared && e->shared->is_given_up;
}

#ifdef __cplusplus
}
#endif

#endif

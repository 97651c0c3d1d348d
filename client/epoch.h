/* An epoch of the image for a handle: a mirror and a view of it.
 *
 * Only the handle's thread uses it.  A slice of an epoch that the handle has
 * left holds a reference, so its bytes stay although the image has a newer
 * epoch. */
#ifndef CLIENT_EPOCH_H
#define CLIENT_EPOCH_H

#include <limits.h>
#include <stdbool.h>

#include "base/cleanup.h"
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

/* Opens a view of the image's current epoch, as far as the backend knows it. */
enum cachet_status epoch_new(struct backend *b, struct epoch **out,
                             struct cachet_error *err);

static inline struct epoch *epoch_ref(struct epoch *e) {
  e->n_refs++;
  return e;
}
void epoch_unref(struct epoch *e);
CLEANUP_FUNCTION(struct epoch *, epoch_unref)

/* Clears the pin in a slot of `e`, and frees the slot if it is for ranges. */
void epoch_release_slot(struct epoch *e, unsigned slot);

/* Whether the table of the epoch was replaced, so that new pins in it have no
 * effect: A2 in shared_view.h. */
static inline bool epoch_is_given_up(const struct epoch *e) {
  return e->shared && e->shared->is_given_up;
}

#ifdef __cplusplus
}
#endif

#endif

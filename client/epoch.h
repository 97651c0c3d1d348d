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

/* The groups of pages that a handle copied from after a miss.  A fault maps a
 * group at once: the kernel maps the resident pages around it, 64 KiB by
 * default. */
enum { EPOCH_GROUP_SHIFT = 16, EPOCH_N_GROUPS = 256 };

struct epoch {
  struct view view;
  struct mirror *mirror;      /* referenced */
  struct shared_view *shared; /* referenced; NULL: of the image cache */
  unsigned n_refs;
  unsigned held_ranges; /* bit i: range slot i is in use */
  /* Group g, if it was visited last of those with the same remainder, is at
   * [g % EPOCH_N_GROUPS], plus 1. */
  uint32_t visited[EPOCH_N_GROUPS];
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

/* Notes that the handle reads byte `at` of the image.  True: it is the first
 * visit of that group, as far as is known, so this process may have to fault
 * to read it. */
static inline bool epoch_visits_first(struct epoch *e, uint64_t at) {
  uint32_t tag = (uint32_t)(at >> EPOCH_GROUP_SHIFT) + 1;
  uint32_t *known = &e->visited[tag % EPOCH_N_GROUPS];
  bool is_first = *known != tag;
  *known = tag;
  return is_first;
}

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

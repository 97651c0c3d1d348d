/* A view of memory that another process owns and lends.
 *
 * What a handle needs to know of such memory to read it; how it came here is
 * the business of the backend that made it, which embeds this.
 *
 *   A1  While a shared view lives its owner honours its pin table, whatever
 *       became of the connection.  The end of it tells the owner so.
 *   A2  Once the backend has asked for another table in the place of this one,
 *       the owner honours the pins that stood there then and no others.  From
 *       before that request on the view `is_given_up`: no pin is stored in the
 *       table that anything relies on, and no page is looked at under one.
 *
 * The handle's thread only. */
#ifndef CLIENT_SHARED_VIEW_H
#define CLIENT_SHARED_VIEW_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/view.h"

#ifdef __cplusplus
extern "C" {
#endif

struct shared_view {
  struct view view;
  struct mirror *mirror; /* referenced */
  uint32_t read_ahead;   /* pages: the longest window its cache has room for */
  bool is_given_up;      /* A2 */
  bool is_growing;       /* its owner was asked for a larger table */
  struct pin_counts *counts; /* of its table, for the owner to see */
  unsigned n_refs;
  void (*free)(struct shared_view *v); /* the last reference is gone */
};

static inline struct shared_view *shared_view_ref(struct shared_view *v) {
  v->n_refs++;
  return v;
}

/* NULL is fine. */
static inline void shared_view_unref(struct shared_view *v) {
  if (v && --v->n_refs == 0)
    v->free(v);
}

#ifdef __cplusplus
}
#endif

#endif

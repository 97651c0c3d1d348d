/* A view of memory that another process owns and lends.
 *
 * It has what a handle needs to read such memory.  The backend that obtained
 * the memory embeds this struct.
 *
 *   A1  While a shared view lives, the owner honours its pin table, whatever
 *       happens to the connection.  Freeing the view tells the owner that it
 *       has ended.
 *   A2  After the backend has asked for another table in place of this one, the
 *       owner honours only the pins that were in it then.  Before that request
 *       is sent, the view becomes `is_given_up`: from then on the handle relies
 *       on no new pin in the table, and reads no page under one.
 *
 * Only the handle's thread uses it. */
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
  uint32_t read_ahead;   /* pages: the longest window that its cache can hold */
  bool is_given_up;      /* A2 */
  bool is_growing;       /* its owner was asked for a larger table */
  struct pin_counts *counts; /* in its table, for the owner's statistics */
  unsigned n_refs;
  void (*free)(struct shared_view *v); /* with the last reference */
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

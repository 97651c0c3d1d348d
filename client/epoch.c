#include "client/epoch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "client/error.h"
#include "client/image_cache.h"

/* 0 or a negative errno. */
static int open_view(struct epoch *e, const struct backend *b) {
  if (!b->shared) {
    e->mirror = image_mirror(b->image_cache->image);
    return view_open(&e->view, e->mirror);
  }
  e->shared = b->shared;
  shared_view_ref(e->shared);
  e->mirror = mirror_ref(e->shared->mirror);
  e->view = e->shared->view;
  return 0;
}

enum cachet_status epoch_new(struct backend *b, struct epoch **out,
                             struct cachet_error *err) {
  CLEANUP(epoch_unrefp) struct epoch *e = calloc(1, sizeof *e);
  if (e)
    e->n_refs = 1;
  int r = e ? open_view(e, b) : -ENOMEM;
  if (r < 0)
    return error_set(err, error_from_errno(-r), -r,
                     "image \"%.100s\": open a view", b->image_cache->name);
  *out = STEAL(e);
  return CACHET_OK;
}

void epoch_unref(struct epoch *e) {
  assert(e->n_refs > 0);
  if (--e->n_refs)
    return;
  if (e->shared)
    shared_view_unref(e->shared);
  else
    view_close(&e->view);
  mirror_unref(e->mirror);
  free(e);
}

void epoch_release_slot(struct epoch *e, unsigned slot) {
  view_unpin(&e->view, slot);
  if (slot >= PIN_SLOT_RANGE)
    e->held_ranges &= ~(1u << (slot - PIN_SLOT_RANGE));
}

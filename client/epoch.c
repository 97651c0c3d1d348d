#include "client/epoch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "client/error.h"
#include "client/image_cache.h"

enum cachet_status epoch_new(struct backend *b, struct epoch **out,
                             struct cachet_error *err) {
  struct epoch *e = calloc(1, sizeof *e);
  int r = e ? 0 : -ENOMEM;
  if (r == 0) {
    e->n_refs = 1;
    e->shared = b->shared;
  }
  if (r == 0 && e->shared) {
    shared_view_ref(e->shared);
    e->mirror = mirror_ref(e->shared->mirror);
    e->view = e->shared->view;
  } else if (r == 0) {
    e->mirror = image_mirror(b->image_cache->image);
    r = view_open(&e->view, e->mirror);
  }
  if (r == 0) {
    *out = e;
    return CACHET_OK;
  }
  if (e)
    mirror_unref(e->mirror);
  free(e);
  return error_set(err, error_from_errno(-r), -r,
                   "image \"%.100s\": open a view", b->image_cache->name);
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

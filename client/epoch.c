/* What a handle reads from: a view of one epoch of the image, and the pins
 * that were stored through it. */
#include "client/handle.h"

#include <assert.h>
#include <errno.h>

enum cachet_status epoch_new(struct backend *b, struct epoch **out,
                             struct cachet_error *err) {
  struct epoch *e = calloc(1, sizeof *e);
  int r = e ? 0 : -ENOMEM;
  if (r == 0) {
    e->n_refs = 1;
    e->shared_mirror = b->shared_mirror;
  }
  if (r == 0 && e->shared_mirror) {
    shared_mirror_ref(e->shared_mirror);
    e->mirror = mirror_ref(e->shared_mirror->mirror);
    e->view = e->shared_mirror->view;
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
  if (e->shared_mirror)
    shared_mirror_unref(e->shared_mirror);
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

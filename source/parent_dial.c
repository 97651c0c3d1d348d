#include "source/parent_dial.h"

#include <errno.h>
#include <stdlib.h>

#include "base/container_of.h"
#include "source/offload.h"

struct parent_dial {
  struct parent_target *target;
  unsigned i;
  struct connection_owner owner;
  void (*done)(void *arg, struct connection *c, const struct cachet_error *why);
  struct offload work;
  /* The thread's, until it has ended. */
  struct connection *made;
  struct cachet_error why;
};

static struct parent_dial *dial_of(struct offload *o) {
  return container_of(o, struct parent_dial, work);
}

static void dial_free(struct offload *o) {
  struct parent_dial *d = dial_of(o);
  connection_free(d->made);
  parent_target_unref(d->target);
  free(d);
}

static void dial_run(struct offload *o) {
  struct parent_dial *d = dial_of(o);
  if (connection_new(&d->target->uris[d->i], true, d->target->timeout_ms,
                     d->target->timeout_ms, &d->owner, &d->made,
                     &d->why) != CACHET_OK)
    d->made = NULL;
}

static void dial_ended(struct offload *o) {
  struct parent_dial *d = dial_of(o);
  struct connection *made = d->made;
  d->made = NULL;
  d->done(d->owner.arg, made, &d->why);
}

int parent_dial_start(struct reactor *reactor, struct parent_target *target,
                      unsigned i, const struct connection_owner *owner,
                      void (*done)(void *arg, struct connection *c,
                                   const struct cachet_error *why),
                      struct parent_dial **out) {
  struct parent_dial *d = calloc(1, sizeof *d);
  if (!d)
    return -ENOMEM;
  d->target = parent_target_ref(target);
  d->i = i;
  d->owner = *owner;
  d->done = done;
  d->work = (struct offload){.name = "parent-dial",
                             .run = dial_run,
                             .ended = dial_ended,
                             .free_it = dial_free};
  int r = offload_begin(&d->work, reactor);
  if (r < 0)
    dial_free(&d->work);
  else
    *out = d;
  return r;
}

void parent_dial_give_up(struct parent_dial *d) { offload_give_up(&d->work); }

#include "client/remote/renew.h"

#include <stdlib.h>

#include "client/remote/attach.h"
#include "client/remote/internal.h"
#include "client/remote/pending.h"

/* It ends when its turn to be sent has come.  The connection is ready then and
 * no Attach under way: what the daemon shares of the image is here. */
static bool renew_prepare(struct remote *r, struct pending *x) {
  pending_end(r, x);
  return false;
}

static const struct pending_ops renew_ops = {.prepare = renew_prepare};

struct backend_job *remote_renew(struct backend *b, struct mirror *m,
                                 void (*done)(struct backend_job *),
                                 void *owner) {
  struct remote *r = remote_of(b);
  struct pending *x = calloc(1, sizeof *x);
  if (!x)
    return NULL;
  x->ops = &renew_ops;
  if (b->shared && b->shared->mirror == m && remote_is_ready(r))
    remote_attach_renew(r);
  pending_submit(r, x, done, owner);
  return &x->job;
}

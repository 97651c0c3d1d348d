#include "client/remote/warm.h"

#include <errno.h>
#include <stdlib.h>

#include "client/error.h"
#include "client/remote/internal.h"
#include "client/remote/pending.h"

struct warm {
  struct pending base; /* first */
  uint64_t offset, len;
};

/* Another connection may have another limit. */
static bool warm_prepare(struct remote *r, struct pending *x) {
  if (((struct warm *)x)->len <= connection_limits(r->connection)->max_read)
    return true;
  error_set(&x->job.error, CACHET_E_CHANGED, 0,
            "daemon at %.150s: it takes shorter ranges now",
            connection_place(r->connection));
  pending_end(r, x);
  return false;
}

static void warm_send(struct remote *r, struct pending *x) {
  const struct warm *w = (const struct warm *)x;
  Cachet__Wire__Range range = CACHET__WIRE__RANGE__INIT, *ranges[] = {&range};
  Cachet__Wire__Warm warm = CACHET__WIRE__WARM__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  range.offset = w->offset;
  range.length = w->len;
  warm.image = r->image_id;
  warm.n_ranges = 1;
  warm.ranges = ranges;
  msg.id = x->id;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_WARM;
  msg.warm = &warm;
  connection_send(r->connection, &msg);
}

static int warm_answered(struct pending *x, const wire_message *msg) {
  (void)x;
  return msg->body_case == CACHET__WIRE__MESSAGE__BODY_DONE ? 0 : -EPROTO;
}

static const struct pending_ops warm_ops = {
    .prepare = warm_prepare,
    .send = warm_send,
    .answered = warm_answered,
};

struct backend_job *remote_warm(struct backend *b, struct mirror *m,
                                uint64_t first, uint64_t count,
                                void (*done)(struct backend_job *),
                                void *owner) {
  struct remote *r = remote_of(b);
  struct warm *w = calloc(1, sizeof *w);
  if (!w)
    return NULL;
  uint64_t most = connection_limits(r->connection)->max_read >> m->page_shift;
  if (most == 0)
    most = 1; /* the daemon's pages are smaller now: it is refused as changed */
  uint64_t end = (first + (count < most ? count : most)) << m->page_shift;
  w->base.ops = &warm_ops;
  w->base.job.mirror = mirror_ref(m);
  w->base.job.first = first;
  w->base.job.count = (uint32_t)(count < most ? count : most);
  w->offset = first << m->page_shift;
  w->len = (end < m->size ? end : m->size) - w->offset;
  pending_submit(r, &w->base, done, owner);
  return &w->base.job;
}

/* Warming: a run of pages that the daemon is to load into its own cache.  Of
 * the answer nothing but how it ended is of use. */
#include "client/remote/internal.h"

#include <errno.h>
#include <stdlib.h>

#include "client/error.h"

/* Another connection may have another limit. */
static bool warm_prepare(struct remote *r, struct pending *x) {
  if (x->ranges[0].len <= connection_limits(r->channel)->max_read)
    return true;
  error_set(&x->job.error, CACHET_E_CHANGED, 0,
            "daemon at %.150s: it takes shorter ranges now",
            connection_place(r->channel));
  pending_end(r, x);
  return false;
}

static void warm_send(struct remote *r, struct pending *x) {
  Cachet__Wire__Range range = CACHET__WIRE__RANGE__INIT, *ranges[] = {&range};
  Cachet__Wire__Warm warm = CACHET__WIRE__WARM__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  range.offset = x->ranges[0].offset;
  range.length = x->ranges[0].len;
  warm.image = r->image_id;
  warm.n_ranges = x->n_ranges;
  warm.ranges = ranges;
  msg.id = x->id;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_WARM;
  msg.warm = &warm;
  connection_send(r->channel, &msg);
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

static void owner_unknown(struct backend_job *j) { (void)j; }

struct backend_job *remote_warm(struct backend *b, struct mirror *m,
                                uint64_t first, uint64_t count,
                                void (*done)(struct backend_job *),
                                void *owner) {
  struct remote *r = remote_of(b);
  struct pending *x = calloc(1, sizeof *x);
  if (!x)
    return NULL;
  uint64_t most = connection_limits(r->channel)->max_read >> m->page_shift;
  uint64_t end = (first + (count < most ? count : most)) << m->page_shift;
  x->ops = &warm_ops;
  x->job.mirror = mirror_ref(m);
  x->job.first = first;
  x->job.count = (uint32_t)(count < most ? count : most);
  x->n_ranges = 1;
  x->ranges[0].offset = first << m->page_shift;
  x->ranges[0].len = (end < m->size ? end : m->size) - x->ranges[0].offset;
  x->job.owner = owner;
  x->job.done = owner_unknown;
  pending_queue(r, x);
  x->job.done = done;
  return &x->job;
}

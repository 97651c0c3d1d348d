#include "daemon/serve/invalidation.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "daemon/serve/notices.h"
#include "daemon/serve/request.h"

struct invalidation {
  struct pool_job job;
  struct request *request; /* not touched between job and last notice */
  struct served_image *served;
  uint64_t from, to;     /* bytes */
  atomic_bool abandoned; /* relaxed: seen late it costs work, no more */
  atomic_uint n_left;    /* notices that have not ended; acq_rel: the last one
                            sees what the others did */
  struct invalidation_notice {
    struct notice notice; /* the first member */
    struct invalidation *invalidation;
  } notices[]; /* one for each service */
};

/* The last one posts the request back; from there the invalidation may be freed
 * at any time. */
static void notice_ended(struct notice *notice) {
  struct invalidation *inv =
      ((struct invalidation_notice *)notice)->invalidation;
  if (atomic_fetch_sub_explicit(&inv->n_left, 1, memory_order_acq_rel) == 1)
    loop_post(inv->request->service->loop, &inv->request->task);
}

/* On the pool.  The notices go out even if it failed: part of it may be done,
 * and to drop too much is harmless. */
static void invalidation_run(struct pool_job *job) {
  struct invalidation *inv = (struct invalidation *)job; /* its first member */
  struct request *r = inv->request;
  unsigned n_services = r->service->context->n_services;
  unsigned shift = image_page_shift(inv->served->image);
  uint64_t first = inv->from >> shift;
  uint64_t last = (inv->to - 1) >> shift;
  if (atomic_load_explicit(&inv->abandoned, memory_order_relaxed)) {
    loop_post(r->service->loop, &r->task);
    return;
  }
  r->status = image_invalidate(inv->served->image, first, last - first + 1);
  for (unsigned i = 0; i < n_services; i++)
    notices_post(&inv->notices[i].notice);
}

bool invalidation_may_begin(const struct session *s) {
  const struct limits *limits = &s->service->context->limits;
  return s->n_invalidations < limits->max_conn_invalidations &&
         s->service->n_invalidations < limits->max_worker_invalidations;
}

int invalidation_new(struct request *r, uint64_t from, uint64_t to) {
  struct server_context *context = r->service->context;
  struct invalidation *inv =
      calloc(1, sizeof *inv + context->n_services * sizeof inv->notices[0]);
  if (!inv)
    return -ENOMEM;
  inv->job.run = invalidation_run;
  inv->request = r;
  inv->served = r->image->reader.served;
  inv->from = from;
  inv->to = to;
  atomic_init(&inv->abandoned, false);
  atomic_init(&inv->n_left, context->n_services);
  for (unsigned i = 0; i < context->n_services; i++) {
    inv->notices[i].invalidation = inv;
    inv->notices[i].notice =
        (struct notice){.notices = &context->services[i]->notices,
                        .image = inv->served,
                        .from = from,
                        .to = to,
                        .ended = notice_ended};
  }
  r->invalidation = inv;
  r->session->n_invalidations++;
  r->service->n_invalidations++;
  return 0;
}

void invalidation_start(struct invalidation *inv) {
  pool_submit(inv->served->images->invalidation_lane, &inv->job);
}

void invalidation_abandon(struct invalidation *inv) {
  atomic_store_explicit(&inv->abandoned, true, memory_order_relaxed);
}

void invalidation_free(struct invalidation *inv) {
  inv->request->service->n_invalidations--;
  free(inv);
}

#include "daemon/serve/invalidation.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "base/container_of.h"
#include "daemon/serve/access.h"
#include "daemon/serve/notices.h"
#include "daemon/serve/request.h"
#include "proto/status.h"

struct invalidation {
  struct request_job job; /* its request is not touched between the pool's job
                             and the last notice */
  struct pool_job work;
  struct service *service; /* the request's; NULL: there is none, and the image
                              is referenced */
  struct served_image *served;
  uint64_t from, to;     /* bytes */
  atomic_bool abandoned; /* relaxed: a thread that sees it late works in vain */
  atomic_uint n_left;    /* notices that have not ended; acq_rel: the last one
                            sees what the others did */
  unsigned n_notices;    /* one for each service */
  struct invalidation_notice {
    struct notice notice; /* the first member */
    struct invalidation *invalidation;
  } notices[];
};

/* The last notice posts the request back.  From then on another thread may free
 * the invalidation. */
static void notice_ended(struct notice *notice) {
  struct invalidation *inv =
      ((struct invalidation_notice *)notice)->invalidation;
  if (atomic_fetch_sub_explicit(&inv->n_left, 1, memory_order_acq_rel) > 1)
    return;
  if (inv->service) {
    request_post(inv->job.request);
    return;
  }
  images_unref(inv->served);
  free(inv);
}

/* Drops the pages.  The notices are sent even if it fails: some pages may be
 * dropped already, and a client that drops more than necessary is still right.
 */
static int drop_pages(struct invalidation *inv) {
  unsigned shift = image_page_shift(inv->served->image);
  uint64_t first = inv->from >> shift;
  uint64_t last = (inv->to - 1) >> shift;
  int status = image_invalidate(inv->served->image, first, last - first + 1);
  struct mirror *m = image_mirror(inv->served->image);
  for (unsigned i = 0; i < inv->n_notices; i++) {
    struct notice *notice = &inv->notices[i].notice;
    notice->epoch = m->epoch;
    notice->n_of_epoch = mirror_mark(m); /* one comes behind the other */
  }
  mirror_unref(m);
  return status;
}

/* Posts a notice to each service.  After the last one this must not touch the
 * invalidation, which may have been freed. */
static void post_notices(struct invalidation *inv) {
  unsigned n_notices = inv->n_notices;
  for (unsigned i = 0; i < n_notices; i++)
    notices_post(&inv->notices[i].notice);
}

/* Runs on a thread of the pool. */
static void invalidation_run(struct pool_job *job) {
  struct invalidation *inv = container_of(job, struct invalidation, work);
  struct request *r = inv->job.request;
  if (atomic_load_explicit(&inv->abandoned, memory_order_relaxed)) {
    request_post(r);
    return;
  }
  r->status = drop_pages(inv);
  post_notices(inv);
}

/* ---- The request ----------------------------------------------------------
 */

static struct invalidation *invalidation_of(struct request_job *job) {
  return container_of(job, struct invalidation, job);
}

static void invalidation_start(struct request_job *job) {
  struct invalidation *inv = invalidation_of(job);
  pool_submit(inv->served->images->invalidation_lane, &inv->work);
}

/* An invalidation that has not begun will drop nothing. */
static void invalidation_abandon(struct request_job *job) {
  atomic_store_explicit(&invalidation_of(job)->abandoned, true,
                        memory_order_relaxed);
}

static void invalidation_free(struct request_job *job) {
  struct invalidation *inv = invalidation_of(job);
  inv->service->n_invalidations--;
  free(inv);
}

/* Makes an invalidation of the bytes [from, to) of the image.  `from` < `to`.
 * NULL: no memory. */
static struct invalidation *invalidation_new(struct server_context *context,
                                             struct served_image *served,
                                             uint64_t from, uint64_t to) {
  unsigned n = context->n_services;
  struct invalidation *inv =
      calloc(1, sizeof *inv + n * sizeof inv->notices[0]);
  if (!inv)
    return NULL;
  inv->served = served;
  inv->from = from;
  inv->to = to;
  inv->n_notices = n;
  atomic_init(&inv->abandoned, false);
  atomic_init(&inv->n_left, n);
  for (unsigned i = 0; i < n; i++) {
    inv->notices[i].invalidation = inv;
    inv->notices[i].notice =
        (struct notice){.notices = &context->services[i]->notices,
                        .image = served,
                        .from = from,
                        .to = to,
                        .ended = notice_ended};
  }
  return inv;
}

/* Makes one that is the job of a request. */
static struct invalidation *invalidation_of_request(struct service *service,
                                                    struct served_image *served,
                                                    uint64_t from,
                                                    uint64_t to) {
  struct invalidation *inv =
      invalidation_new(service->context, served, from, to);
  if (!inv)
    return NULL;
  inv->job = (struct request_job){.start = invalidation_start,
                                  .abandon = invalidation_abandon,
                                  .free = invalidation_free};
  inv->work.run = invalidation_run;
  inv->service = service;
  service->n_invalidations++;
  return inv;
}

/* Cuts a range at the image's end.  False: nothing is left. */
static bool cut_range(const struct served_image *served, uint64_t offset,
                      uint64_t len, uint64_t *from, uint64_t *to) {
  struct mirror *m = image_mirror(served->image);
  uint64_t size = m->size;
  mirror_unref(m);
  if (offset >= size || len == 0)
    return false;
  *from = offset;
  *to = len > size - offset ? size : offset + len;
  return true;
}

static bool may_begin(const struct service *service) {
  return service->n_invalidations <
         service->context->limits.max_worker_invalidations;
}

void invalidation_begin(struct session *s, uint64_t id,
                        const Cachet__Wire__Invalidate *invalidate) {
  uint64_t from, to;
  const Cachet__Wire__Range *range = invalidate->range;
  struct subscription *sub =
      request_find_subscription(s, id, invalidate->image);
  if (!sub)
    return;
  if (!range) {
    request_refuse(s, id, sub, WIRE_E_INVAL, "invalidate: no range is given");
    return;
  }
  if (!access_may_invalidate(s->service->context, &s->conn)) {
    request_refuse(s, id, sub, WIRE_E_ACCESS,
                   "invalidate: only for root, the daemon's user and peers "
                   "that [admin] allows, else the Unix socket's group");
    return;
  }
  if (!may_begin(s->service)) {
    request_refuse(s, id, sub, WIRE_E_BUSY,
                   "invalidate: too many invalidations are under way");
    return;
  }
  struct served_image *served = sub->image->reader.served;
  struct invalidation *inv = NULL;
  if (!cut_range(served, range->offset, range->length, &from, &to))
    request_begin(s, id, REQUEST_INVALIDATE, invalidate->image, 0, 0, NULL);
  else if ((inv = invalidation_of_request(s->service, served, from, to)))
    request_begin_job(s, id, REQUEST_INVALIDATE, sub, &inv->job);
  else
    request_refuse(s, id, sub, WIRE_E_NOMEM, "invalidate: out of memory");
}

/* ---- A source's word ----------------------------------------------------- */

/* Without memory for notices the image gets a new epoch instead, of which
 * clients are told anyway. */
void invalidation_by_source(struct server_context *context,
                            struct served_image *served, uint64_t from,
                            uint64_t to) {
  if (!cut_range(served, from, to - from, &from, &to))
    return;
  struct invalidation *inv = invalidation_new(context, served, from, to);
  if (!inv) {
    image_renew(served->image);
    return;
  }
  images_ref(served);
  drop_pages(inv);
  post_notices(inv);
}

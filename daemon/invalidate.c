#include "daemon/invalidate.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "daemon/conn.h"
#include "daemon/session.h"

struct invalidation {
  struct job job;
  struct request *request; /* not touched between job and last mail */
  struct hosted *hosted;
  uint64_t from, to;  /* bytes */
  atomic_uint n_left; /* notices not acted on; acq_rel: the last one sees what
                         the others did */
  struct notice {
    struct mail mail;
    struct invalidation *invalidation;
  } notices[]; /* one for each worker */
};

/* On each worker.  Whoever is last posts the request back; from there the
 * invalidation may be freed at any time. */
static void notice_run(struct worker *w, struct mail *mail) {
  struct notice *notice = (struct notice *)mail; /* its first member */
  struct invalidation *inv = notice->invalidation;
  for (struct conn *c = w->conns, *next; c; c = next) {
    next = c->next;
    session_invalidated(c, inv->hosted->index, inv->from, inv->to);
    conn_settle(c);
  }
  if (atomic_fetch_sub_explicit(&inv->n_left, 1, memory_order_acq_rel) == 1)
    worker_post(inv->request->worker, &inv->request->mail);
}

/* On the pool.  The notices go out even if it failed: part of it may be done,
 * and to drop too much is harmless. */
static void invalidation_run(struct job *job) {
  struct invalidation *inv = (struct invalidation *)job; /* its first member */
  struct host *host = inv->hosted->host;
  unsigned shift = image_page_shift(inv->hosted->image);
  uint64_t first = inv->from >> shift;
  uint64_t last = (inv->to - 1) >> shift;
  inv->request->status =
      image_invalidate(inv->hosted->image, first, last - first + 1);
  for (unsigned i = 0, n = host->n_workers; i < n; i++)
    worker_post(host->workers[i], &inv->notices[i].mail);
}

int invalidation_start(struct request *r, uint64_t from, uint64_t to) {
  struct host *host = r->worker->host;
  struct invalidation *inv =
      calloc(1, sizeof *inv + host->n_workers * sizeof inv->notices[0]);
  if (!inv)
    return -ENOMEM;
  inv->job.run = invalidation_run;
  inv->request = r;
  inv->hosted = &host->images[r->image];
  inv->from = from;
  inv->to = to;
  atomic_init(&inv->n_left, host->n_workers);
  for (unsigned i = 0; i < host->n_workers; i++) {
    inv->notices[i].mail.run = notice_run;
    inv->notices[i].invalidation = inv;
  }
  r->invalidation = inv;
  pool_submit(host->pool, host_lane(host), &inv->job);
  return 0;
}

void invalidation_free(struct invalidation *inv) { free(inv); }

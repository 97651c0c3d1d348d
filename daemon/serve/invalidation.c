#include "daemon/serve/invalidation.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/container_of.h"
#include "daemon/log.h"
#include "daemon/serve/session.h"

/* An invalidation, as one service sees it. */
struct notice {
  struct task task;
  struct service *service;
  struct invalidation *invalidation;
  struct notice *next;  /* the service's list, from here on */
  uint64_t serial;      /* its number at the service, rising */
  uint64_t deadline_ms; /* who is owed it then is closed */
};

struct invalidation {
  struct pool_job job;
  struct request *request; /* not touched between job and last notice */
  struct served_image *served;
  uint64_t from, to;       /* bytes */
  atomic_bool abandoned;   /* relaxed: seen late it costs work, no more */
  atomic_uint n_left;      /* notices not acted on; acq_rel: the last one sees
                              what the others did */
  struct notice notices[]; /* one for each service */
};

/* ---- On each service ----------------------------------------------------- */

/* Whoever is last posts the request back; from there the invalidation may be
 * freed at any time. */
static void notice_end(struct notice *notice) {
  struct invalidation *inv = notice->invalidation;
  if (atomic_fetch_sub_explicit(&inv->n_left, 1, memory_order_acq_rel) == 1)
    loop_post(inv->request->service->loop, &inv->request->task);
}

static void set_owed_timer(struct service *service) {
  if (!service->owed_head) {
    event_del(&service->owed_timer);
    return;
  }
  loop_set_timer(&service->owed_timer, service->owed_head->deadline_ms);
}

void notices_check(struct service *service) {
  uint64_t oldest = UINT64_MAX;
  if (!service->owed_head)
    return;
  for (struct connection *c = service->net.conns; c; c = c->next) {
    const struct session *s = session_of(c);
    if (s->oldest_owed && s->oldest_owed < oldest)
      oldest = s->oldest_owed;
  }
  while (service->owed_head && service->owed_head->serial < oldest) {
    struct notice *notice = service->owed_head;
    service->owed_head = notice->next;
    if (!service->owed_head)
      service->owed_tail = &service->owed_head;
    notice_end(notice);
  }
  set_owed_timer(service);
}

void notices_recheck(struct service *service) {
  if (service->owed_head)
    loop_post(service->loop, &service->owed_task);
}

static void owed_run(struct task *task) {
  notices_check(container_of(task, struct service, owed_task));
}

/* Closes those who did not take a notice in time: the end of a connection is
 * as good as a notice, and nobody who invalidates waits for ever. */
static void on_owed_timer(evutil_socket_t fd, short what, void *arg) {
  struct service *service = arg;
  uint64_t now = clock_now_ms(), expired = 0;
  (void)fd;
  (void)what;
  for (const struct notice *n = service->owed_head; n && n->deadline_ms <= now;
       n = n->next)
    expired = n->serial;
  for (struct connection *c = service->net.conns, *next; c; c = next) {
    struct session *s = session_of(c);
    next = c->next;
    if (!s->oldest_owed || s->oldest_owed > expired)
      continue;
    log_peer_event(LEVEL_WARN, "conn-closed", LOG_NUMBER("conn", c->serial),
                   LOG_TEXT("reason", "it does not take its notices"));
    connection_drop(c);
  }
  notices_check(service);
}

static void notice_run(struct task *task) {
  struct notice *notice = (struct notice *)task; /* its first member */
  struct service *service = notice->service;
  const struct invalidation *inv = notice->invalidation;
  notice->serial = ++service->n_notices;
  notice->deadline_ms =
      clock_now_ms() + (uint64_t)service->context->limits.notice_timeout_ms;
  for (struct connection *c = service->net.conns, *next; c; c = next) {
    struct session *s = session_of(c);
    next = c->next;
    session_invalidated(s, inv->served->index, inv->from, inv->to,
                        notice->serial);
    connection_settle(c);
  }
  notice->next = NULL;
  *service->owed_tail = notice;
  service->owed_tail = &notice->next;
  notices_check(service);
}

void notices_init(struct service *service) {
  service->owed_tail = &service->owed_head;
  service->owed_task.run = owed_run;
  event_assign(&service->owed_timer, service->loop->base, -1, 0, on_owed_timer,
               service);
}

/* ---- Off their threads --------------------------------------------------- */

/* On the pool.  The notices go out even if it failed: part of it may be done,
 * and to drop too much is harmless. */
static void invalidation_run(struct pool_job *job) {
  struct invalidation *inv = (struct invalidation *)job; /* its first member */
  struct request *r = inv->request;
  struct server_context *context = inv->request->service->context;
  unsigned shift = image_page_shift(inv->served->image);
  uint64_t first = inv->from >> shift;
  uint64_t last = (inv->to - 1) >> shift;
  if (atomic_load_explicit(&inv->abandoned, memory_order_relaxed)) {
    loop_post(r->service->loop, &r->task);
    return;
  }
  r->status = image_invalidate(inv->served->image, first, last - first + 1);
  for (unsigned i = 0, n = context->n_services; i < n; i++)
    loop_post(context->services[i]->loop, &inv->notices[i].task);
}

int invalidation_new(struct request *r, uint64_t from, uint64_t to) {
  struct server_context *context = r->service->context;
  struct invalidation *inv =
      calloc(1, sizeof *inv + context->n_services * sizeof inv->notices[0]);
  if (!inv)
    return -ENOMEM;
  inv->job.run = invalidation_run;
  inv->request = r;
  inv->served = &context->images.list[r->image];
  inv->from = from;
  inv->to = to;
  atomic_init(&inv->abandoned, false);
  atomic_init(&inv->n_left, context->n_services);
  for (unsigned i = 0; i < context->n_services; i++) {
    inv->notices[i].task.run = notice_run;
    inv->notices[i].service = context->services[i];
    inv->notices[i].invalidation = inv;
  }
  r->invalidation = inv;
  return 0;
}

void invalidation_start(struct invalidation *inv) {
  struct server_context *context = inv->request->service->context;
  pool_submit(context->images.pool, images_invalidation_lane(&context->images),
              &inv->job);
}

void invalidation_abandon(struct invalidation *inv) {
  atomic_store_explicit(&inv->abandoned, true, memory_order_relaxed);
}

void invalidation_free(struct invalidation *inv) { free(inv); }

#include "daemon/serve/fetch_quota.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/container_of.h"
#include "daemon/serve/session.h"

/* On whatever thread ended the last fill. */
static void fetch_done(struct fetch *fetch) {
  struct request_fetch *f =
      container_of(fetch, struct request_fetch, dispatched.fetch);
  loop_post(f->request->service->loop, &f->request->task);
}

/* Whether a request may fetch. */
enum allowance {
  ALLOWED,
  OVER_IMAGE, /* the image has its part of what the worker may */
  OVER_CONN,
};

static struct opened *request_opened(const struct request *r) {
  return session_opened_image(r->session, r->image);
}

/* For what it lacks.  (F2) */
static enum allowance request_allowance(const struct request *r) {
  const struct limits *limits = &r->service->context->limits;
  const struct image_reader *l = request_reader(r);
  uint64_t len = (uint64_t)r->n_missing << image_page_shift(l->served->image);
  uint64_t all = limits->max_worker_fetch, used = r->service->fetching;
  uint64_t left = used < all ? all - used : 0;
  if (l->fetching && l->fetching + len > left)
    return OVER_IMAGE;
  if (request_opened(r)->fetching &&
      r->session->fetching + len > limits->max_conn_fetch)
    return OVER_CONN;
  return ALLOWED;
}

static void request_charge(struct request_fetch *f) {
  f->dispatched.reader->fetching += f->len;
  f->request->service->fetching += f->len;
  f->request->session->fetching += f->len;
  request_opened(f->request)->fetching += f->len;
}

void fetch_quota_orphan(struct request *r) {
  r->session->fetching -= r->fetch->len;
  request_opened(r)->fetching -= r->fetch->len;
}

void fetch_quota_drop(struct request *r) {
  struct request_fetch *f = r->fetch;
  if (!f)
    return;
  assert(r->state != REQUEST_WAITING);
  if (r->session)
    fetch_quota_orphan(r);
  r->fetch = NULL;
  f->dispatched.reader->fetching -= f->len;
  r->service->fetching -= f->len;
  fetch_fini(&f->dispatched.fetch);
  free(f);
}

/* ---- Throttled requests (F1) --------------------------------------------- */

static void turns_push(struct request *r) {
  struct image_reader *l = request_reader(r);
  r->next_turn = NULL;
  r->prev_turn = l->last_turn;
  *(l->last_turn ? &l->last_turn->next_turn : &l->first_turn) = r;
  l->last_turn = r;
  l->n_turns++;
  r->service->n_turns++;
}

static void turns_remove(struct request *r) {
  struct image_reader *l = request_reader(r);
  *(r->prev_turn ? &r->prev_turn->next_turn : &l->first_turn) = r->next_turn;
  *(r->next_turn ? &r->next_turn->prev_turn : &l->last_turn) = r->prev_turn;
  l->n_turns--;
  r->service->n_turns--;
}

static void request_throttle(struct request *r) {
  struct opened *o = request_opened(r);
  r->state = REQUEST_THROTTLED;
  r->next_queued = NULL;
  if (o->throttled)
    o->last_throttled->next_queued = r;
  else
    o->throttled = r;
  o->last_throttled = r;
  if (o->throttled == r)
    turns_push(r);
}

/* Takes the first of a queue out; the next one has its turn later. */
static void request_unthrottle(struct request *r) {
  struct opened *o = request_opened(r);
  turns_remove(r);
  o->throttled = r->next_queued;
  if (o->throttled)
    turns_push(o->throttled);
}

void fetch_quota_unthrottle(struct session *s) {
  for (unsigned i = 0; i < s->n_opened; i++) {
    if (s->opened[i].throttled)
      turns_remove(s->opened[i].throttled);
    s->opened[i].throttled = NULL;
  }
}

void fetch_quota_restart(struct request *r) {
  fetch_quota_drop(r);
  if (++r->n_restarts > r->service->context->limits.max_restarts)
    r->status = -ESTALE;
}

/* Whether the fetch failed for a later page than its first.  Then what is good
 * before that page is sent, and a fetch that begins with it tells its error. */
static bool has_good_pages_first(const struct request *r) {
  uint64_t bad = fetch_first_bad(&r->fetch->dispatched.fetch);
  return bad > r->missing && bad < r->missing + r->n_missing;
}

void fetch_quota_ended(struct request *r) {
  const struct fetch *f = &r->fetch->dispatched.fetch;
  r->state = REQUEST_ACTIVE;
  r->service->n_waiting--;
  request_count(r, STAT_MISSES, f->n_missed);
  request_count(r, STAT_JOINS, f->n_joined);
  r->counted = r->missing + r->n_missing;
  if (f->status == -ESTALE)
    fetch_quota_restart(r);
  else if (!has_good_pages_first(r))
    r->status = f->status;
}

bool fetch_quota_start(struct request *r) {
  struct image_reader *l = request_reader(r);
  uint64_t len = (uint64_t)r->n_missing << l->mirror->page_shift;
  assert(!r->fetch);
  if (request_allowance(r) != ALLOWED) {
    request_throttle(r);
    return true;
  }
  struct request_fetch *f = calloc(1, sizeof *f);
  if (!f) {
    r->status = -ENOMEM;
    return false;
  }
  f->dispatched.fetch.done = fetch_done;
  f->dispatched.dispatch = r->service->dispatch;
  f->request = r;
  f->dispatched.reader = l;
  f->mirror = l->mirror;
  f->len = len;
  r->fetch = f;
  request_charge(f);
  r->state = REQUEST_WAITING;
  r->service->n_waiting++;
  if (fetch_start(&f->dispatched.fetch, l->mirror, r->missing, r->n_missing) ==
      FETCH_WAIT)
    return true;
  /* The pool was faster than us, or it failed at once. */
  fetch_quota_ended(r);
  return false;
}

/* Connections have turns, a request each, until the image has its part, or each
 * connection that is left has: then a fetch is in flight, and its end brings us
 * back here. */
static void image_reader_admit(struct image_reader *l) {
  struct request *r;
  for (unsigned n_refused = 0; n_refused < l->n_turns;) {
    r = l->first_turn;
    enum allowance allowance = request_allowance(r);
    if (allowance == OVER_IMAGE)
      return;
    if (allowance == OVER_CONN) {
      turns_remove(r);
      turns_push(r);
      n_refused++;
      continue;
    }
    struct session *s = r->session;
    n_refused = 0;
    request_unthrottle(r);
    request_go_on(r);
    connection_settle(&s->conn);
  }
}

void fetch_quota_admit(struct service *service) {
  for (unsigned i = 0; service->n_turns && i < service->context->images.n; i++)
    image_reader_admit(&service->readers[i]);
}

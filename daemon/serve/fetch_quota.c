#include "daemon/serve/fetch_quota.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/container_of.h"
#include "daemon/serve/request.h"
#include "daemon/serve/session.h"
#include "daemon/serve/subscription.h"

/* Runs on the thread that ended the last fill. */
static void fetch_done(struct fetch *fetch) {
  struct request_fetch *f = container_of(fetch, struct request_fetch, fetch);
  loop_post(f->request->service->loop, &f->request->task);
}

/* Whether a request may fetch. */
enum allowance {
  ALLOWED,
  OVER_IMAGE, /* the image has its part of the bytes of the worker */
  OVER_CONN,
};

void fetch_quota_init(struct fetch_quota *quota) {
  *quota = (struct fetch_quota){0};
  TAILQ_INIT(&quota->turning);
}

static struct image_quota *request_quota(const struct request *r) {
  return &r->image->quota;
}

/* Whether the request may fetch its missing pages.  (F2) */
static enum allowance request_allowance(const struct request *r) {
  const struct limits *limits = &r->service->context->limits;
  const struct image_quota *q = request_quota(r);
  const struct image *image = request_reader(r)->served->image;
  uint64_t len = (uint64_t)r->n_missing << image_page_shift(image);
  uint64_t all = limits->max_worker_fetch, used = r->service->quota.fetching;
  uint64_t left = used < all ? all - used : 0;
  if (q->fetching && q->fetching + len > left)
    return OVER_IMAGE;
  if (r->subscription->fetching &&
      r->session->fetching + len > limits->max_conn_fetch)
    return OVER_CONN;
  return ALLOWED;
}

static void request_charge(struct request_fetch *f) {
  request_quota(f->request)->fetching += f->len;
  f->request->service->quota.fetching += f->len;
  f->request->session->fetching += f->len;
  f->request->subscription->fetching += f->len;
}

void fetch_quota_orphan(struct request *r) {
  r->session->fetching -= r->fetch->len;
  r->subscription->fetching -= r->fetch->len;
}

static void fetch_free(struct request_fetch *f) {
  fetch_fini(&f->fetch);
  free(f);
}

static void fetch_returned(struct send_batch_fetch *lent) {
  struct request_fetch *f = container_of(lent, struct request_fetch, lent);
  f->is_lent = false;
  if (f->is_dropped)
    fetch_free(f);
}

void fetch_quota_lend(const struct request *r, struct send_batch *batch) {
  struct request_fetch *f = r->fetch;
  if (f->is_lent)
    return;
  f->is_lent = true;
  f->lent.sent = fetch_returned;
  f->lent.len = f->len;
  send_batch_fetched(batch, &f->lent);
}

void fetch_quota_drop(struct request *r) {
  struct request_fetch *f = r->fetch;
  if (!f)
    return;
  assert(r->state != REQUEST_WAITING);
  if (r->session)
    fetch_quota_orphan(r);
  r->fetch = NULL;
  request_quota(r)->fetching -= f->len;
  r->service->quota.fetching -= f->len;
  f->is_dropped = true;
  if (!f->is_lent)
    fetch_free(f);
}

/* ---- Throttled requests (F1) --------------------------------------------- */

static void turns_push(struct request *r) {
  struct image_quota *q = request_quota(r);
  r->next_turn = NULL;
  r->prev_turn = q->last_turn;
  *(q->last_turn ? &q->last_turn->next_turn : &q->first_turn) = r;
  q->last_turn = r;
  if (q->n_turns++ == 0)
    TAILQ_INSERT_TAIL(&r->service->quota.turning, q, link);
}

static void turns_remove(struct request *r) {
  struct image_quota *q = request_quota(r);
  *(r->prev_turn ? &r->prev_turn->next_turn : &q->first_turn) = r->next_turn;
  *(r->next_turn ? &r->next_turn->prev_turn : &q->last_turn) = r->prev_turn;
  if (--q->n_turns == 0)
    TAILQ_REMOVE(&r->service->quota.turning, q, link);
}

static void request_throttle(struct request *r) {
  struct subscription *sub = r->subscription;
  request_count(r, COUNTER_QUEUED, 1);
  r->state = REQUEST_THROTTLED;
  r->next_queued = NULL;
  if (sub->throttled)
    sub->last_throttled->next_queued = r;
  else
    sub->throttled = r;
  sub->last_throttled = r;
  if (sub->throttled == r)
    turns_push(r);
}

/* Takes the first request out of a queue. */
static void request_unthrottle(struct request *r) {
  struct subscription *sub = r->subscription;
  turns_remove(r);
  sub->throttled = r->next_queued;
  if (sub->throttled)
    turns_push(sub->throttled);
}

void fetch_quota_unthrottle(struct session *s) {
  struct subscription *sub;
  LIST_FOREACH(sub, &s->subscriptions, of_session) {
    if (sub->throttled)
      turns_remove(sub->throttled);
    sub->throttled = NULL;
  }
}

void fetch_quota_restart(struct request *r) {
  fetch_quota_drop(r);
  if (++r->n_restarts > r->service->context->limits.max_restarts)
    r->status = -ESTALE;
}

/* Whether the fetch failed for a later page than its first.  Then the good
 * pages before that one are sent, and a fetch that begins with the bad page
 * gives the error. */
static bool has_good_pages_first(const struct request *r) {
  uint64_t bad = fetch_first_bad(&r->fetch->fetch);
  return bad > r->missing && bad < r->missing + r->n_missing;
}

/* The fetch may be given back before there is room for the Error. */
static void request_fail_fetch(struct request *r, int status) {
  const struct mirror *m = r->fetch->mirror;
  r->status = status;
  r->bad = (struct range){r->missing << m->page_shift,
                          mirror_page_len(m, r->missing)};
}

void fetch_quota_ended(struct request *r) {
  const struct fetch *f = &r->fetch->fetch;
  assert(r->service->n_waiting > 0); /* V1 */
  r->state = REQUEST_ACTIVE;
  r->service->n_waiting--;
  request_count(r, COUNTER_MISSES, f->n_missed);
  request_count(r, COUNTER_JOINS, f->n_joined);
  r->plan.counted = r->missing + r->n_missing;
  if (f->status == -ESTALE)
    fetch_quota_restart(r);
  else if (f->status < 0 && !has_good_pages_first(r))
    request_fail_fetch(r, f->status);
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
  f->fetch.done = fetch_done;
  f->fetch.runner = &l->fills->runner;
  f->request = r;
  f->mirror = l->mirror;
  f->len = len;
  r->fetch = f;
  request_charge(f);
  r->state = REQUEST_WAITING;
  r->service->n_waiting++;
  if (image_fetch(&f->fetch, l->mirror, r->missing, r->n_missing) == FETCH_WAIT)
    return true;
  /* The pool has ended all fills already, or the fetch failed at once. */
  fetch_quota_ended(r);
  return false;
}

/* Sessions take turns, with one request each, until the image has its part, or
 * until each session with requests has its part.  In both cases a fetch is in
 * flight, and its end calls this again. */
static struct request *image_quota_next(struct image_quota *q) {
  for (unsigned n_refused = 0; n_refused < q->n_turns; n_refused++) {
    struct request *r = q->first_turn;
    enum allowance allowance = request_allowance(r);
    if (allowance == OVER_IMAGE)
      return NULL;
    if (allowance == ALLOWED) {
      request_unthrottle(r);
      return r;
    }
    turns_remove(r);
    turns_push(r);
  }
  return NULL;
}

struct request *fetch_quota_next(struct fetch_quota *quota, uint64_t round) {
  for (struct image_quota *q = TAILQ_FIRST(&quota->turning), *next; q;
       q = next) {
    next = TAILQ_NEXT(q, link);
    struct request *r = q->round != round ? image_quota_next(q) : NULL;
    if (r)
      return r;
    q->round = round;
  }
  return NULL;
}

#include "daemon/serve/check.h"

#include <assert.h>

#include "daemon/serve/request.h"
#include "daemon/serve/session.h"
#include "daemon/serve/subscription.h"

/* What the requests of a session, or of a service, come to. */
struct sums {
  unsigned n, n_waiting, n_throttled, n_runnable, n_ended, n_jobs, n_ranges;
  uint64_t fetching;
  uint64_t held; /* bytes */
};

/* R1 to R3 of one that waits. */
static void check_request(const struct request *r, struct sums *sums) {
  assert(r->state != REQUEST_ACTIVE);
  assert(!r->fetch || r->state == REQUEST_WAITING || r->state == REQUEST_ENDED);
  assert(!r->image == !r->subscription);
  read_plan_check(&r->plan);
  sums->n++;
  sums->n_waiting += r->state == REQUEST_WAITING;
  sums->n_throttled += r->state == REQUEST_THROTTLED;
  sums->n_runnable += r->state == REQUEST_RUNNABLE;
  sums->n_ended += r->state == REQUEST_ENDED;
  sums->n_jobs += r->job != NULL;
  sums->n_ranges += r->plan.n_ranges;
  sums->fetching += r->fetch ? r->fetch->len : 0;
  sums->held += request_held(r);
}

/* A queue, by next_queued. */
static unsigned count_queue(const struct request_queue *q,
                            enum request_state state) {
  struct request *const *tail = &q->head;
  unsigned n = 0;
  for (; *tail; tail = &(*tail)->next_queued, n++)
    assert((*tail)->state == state);
  assert(q->tail == tail);
  return n;
}

/* F1. */
static unsigned count_throttled(const struct subscription *sub) {
  const struct request *last = NULL;
  unsigned n = 0;
  for (const struct request *r = sub->throttled; r; r = r->next_queued, n++) {
    assert(r->state == REQUEST_THROTTLED && r->subscription == sub);
    last = r;
  }
  assert(n == 0 || sub->last_throttled == last);
  return n;
}

/* How many of a session's requests are for a subscription. */
static unsigned count_requests(const struct session *s,
                               const struct subscription *sub) {
  unsigned n = 0;
  for (const struct request *r = s->requests; r; r = r->next)
    n += r->subscription == sub;
  return n;
}

static void check_session(const struct service *service,
                          const struct session *s, struct sums *all) {
  struct sums sums = {0};
  uint64_t of_subscriptions = 0;
  unsigned n_throttled = 0;
  for (const struct request *r = s->requests; r; r = r->next) {
    assert(r->session == s && r->service == service);
    check_request(r, &sums);
  }
  const struct subscription *sub;
  LIST_FOREACH(sub, &s->subscriptions, of_session) {
    assert(sub->session == s && sub->image->n_uses > 0);
    of_subscriptions += sub->fetching;
    assert(sub->n_requests == count_requests(s, sub));
    assert(!sub->ended || sub->n_requests > 0);
    n_throttled += count_throttled(sub);
    sums.held += sizeof *sub;
  }
  assert(sums.n == s->conn.n_requests);
  assert(sums.n_jobs == s->n_jobs);
  assert(sums.n_ranges == s->n_held_ranges);
  assert(sums.fetching == s->fetching && of_subscriptions == s->fetching);
  assert(sums.n_throttled == n_throttled);
  assert(sums.n_runnable == count_queue(&s->small, REQUEST_RUNNABLE) +
                                count_queue(&s->large, REQUEST_RUNNABLE));
  assert(sums.n_ended == count_queue(&s->ended, REQUEST_ENDED)); /* R5 */
  all->fetching += sums.fetching;
  all->n_waiting += sums.n_waiting;
  all->held += sums.held;
}

/* M1, and F1: the turns of an image are the first ones of the queues of its
 * subscribers. */
static void check_image(const struct service_image *si) {
  const struct image_quota *q = &si->quota;
  const struct subscription *sub;
  unsigned n_turns = 0, n_queues = 0, n_uses = 0;
  for (const struct request *r = q->first_turn; r; r = r->next_turn) {
    assert(r->image == si && r->subscription->throttled == r);
    assert(r->next_turn || r == q->last_turn);
    n_turns++;
  }
  LIST_FOREACH(sub, &si->subscribers, of_image) {
    assert(sub->image == si);
    n_queues += sub->throttled != NULL;
    n_uses += 1 + sub->n_requests;
  }
  assert(n_uses <= si->n_uses); /* the others are orphans */
  assert(!si->is_leaving || si->n_uses == 0);
  assert(n_turns == q->n_turns && n_queues == q->n_turns);
}

static void check_images(const struct service *service, uint64_t *fetching) {
  const struct service_image *si;
  const struct image_quota *q;
  unsigned n_turning = 0;
  LIST_FOREACH(si, &service->images.all, link) {
    check_image(si);
    *fetching += si->quota.fetching;
    n_turning += si->quota.n_turns > 0;
  }
  TAILQ_FOREACH(q, &service->quota.turning, link)
    n_turning--;
  assert(n_turning == 0);
}

/* N4. */
static void check_owing(const struct notices *notices, unsigned n_owing) {
  const struct session *s;
  LIST_FOREACH(s, &notices->owing, owing) {
    assert(s->oldest_owed);
    n_owing--;
  }
  assert(n_owing == 0);
}

void check_service(struct service *service) {
  struct sums all = {0};
  uint64_t of_images = 0;
  unsigned n_owing = 0;
  for (struct connection *c = service->net.conns; c; c = c->next) {
    const struct session *s = session_of(c);
    check_session(service, s, &all);
    n_owing += s->oldest_owed != 0;
  }
  check_images(service, &of_images);
  assert(of_images == service->quota.fetching); /* F3: with those of orphans */
  assert(all.fetching <= of_images);
  assert(all.n_waiting <= service->n_waiting); /* V1: with orphans */
  connection_check_all(&service->net, all.held);
  check_owing(&service->notices, n_owing);
}

void check_service_quietly(struct service *service) {
#ifdef CACHETD_DEBUG_CHECKS
  enum { EVERY = 16 };
  static _Thread_local unsigned n_calls;
  if (n_calls++ % EVERY == 0)
    check_service(service);
#else
  (void)service;
#endif
}

#include "source/timeouts.h"

#include <assert.h>

#include <event2/event.h>

#include "base/deadline.h"
#include "source/reactor.h"

void timeouts_init(struct timeouts *t, struct event_base *base,
                   void (*due)(evutil_socket_t fd, short what, void *arg),
                   void *arg) {
  TAILQ_INIT(&t->list);
  evtimer_assign(&t->timer, base, due, arg);
}

void timeouts_fini(struct timeouts *t) {
  assert(TAILQ_EMPTY(&t->list));
  event_del(&t->timer);
}

void timeouts_add(struct timeouts *t, struct timeout *one) {
  struct timeout *before = TAILQ_LAST(&t->list, timeout_list);
  while (before && before->deadline > one->deadline)
    before = TAILQ_PREV(before, timeout_list, link);
  if (before)
    TAILQ_INSERT_AFTER(&t->list, before, one, link);
  else
    TAILQ_INSERT_HEAD(&t->list, one, link);
  if (!before || !event_pending(&t->timer, EV_TIMEOUT, NULL))
    timeouts_set_timer(t);
}

void timeouts_remove(struct timeouts *t, struct timeout *one) {
  TAILQ_REMOVE(&t->list, one, link);
}

struct timeout *timeouts_next_due(const struct timeouts *t,
                                  const struct timeout *one) {
  struct timeout *next = one ? TAILQ_NEXT(one, link) : TAILQ_FIRST(&t->list);
  return next && deadline_has_passed(next->deadline) ? next : NULL;
}

void timeouts_set_timer(struct timeouts *t) {
  struct timeout *first = TAILQ_FIRST(&t->list);
  if (first)
    reactor_set_timer(&t->timer, (uint64_t)deadline_left_ms(first->deadline));
  else
    event_del(&t->timer);
}

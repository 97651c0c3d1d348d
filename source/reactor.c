#include "source/reactor.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <event2/event.h>

#include "base/container_of.h"
#include "base/latch.h"

struct reactor {
  struct loop loop;
  pthread_t thread; /* set before the first post, which it is seen by */
  struct task end;  /* leaves the loop */

  struct task pulse;
  _Atomic uint64_t asked, answered; /* relaxed */
};

void reactor_post(struct reactor *r, struct task *task) {
  loop_post(&r->loop, task);
}

/* A task that its poster waits for. */
struct awaited_task {
  struct task task;
  struct task *asked;
  struct latch ended;
};

static void awaited_run(struct task *task) {
  struct awaited_task *a = container_of(task, struct awaited_task, task);
  a->asked->run(a->asked);
  latch_open(&a->ended);
}

void reactor_run(struct reactor *r, struct task *task) {
  struct awaited_task a = {
      .task = {.run = awaited_run}, .asked = task, .ended = LATCH_INITIALIZER};
  assert(!reactor_is_current(r));
  reactor_post(r, &a.task);
  latch_wait(&a.ended);
}

/* ---- Alarms -------------------------------------------------------------- */

static void alarm_rings(evutil_socket_t fd, short what, void *arg) {
  struct reactor_alarm *alarm = arg;
  (void)fd;
  (void)what;
  alarm->ring(alarm);
}

static void alarm_set(struct task *task) {
  struct reactor_alarm *alarm = container_of(task, struct reactor_alarm, task);
  evtimer_assign(&alarm->timer, alarm->reactor->loop.base, alarm_rings, alarm);
  if (reactor_set_timer(&alarm->timer, alarm->after_ms) < 0)
    alarm->ring(alarm); /* no memory for a timer: it rings early instead */
}

void reactor_after(struct reactor *r, struct reactor_alarm *alarm,
                   uint64_t ms) {
  alarm->reactor = r;
  alarm->after_ms = ms;
  alarm->task.run = alarm_set;
  reactor_post(r, &alarm->task);
}

int reactor_set_timer(struct event *timer, uint64_t ms) {
  const struct timeval after = {.tv_sec = (time_t)(ms / 1000),
                                .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
  return evtimer_add(timer, &after);
}

/* ---- Signs of life ------------------------------------------------------- */

static void pulse_run(struct task *task) {
  struct reactor *r = container_of(task, struct reactor, pulse);
  uint64_t asked = atomic_load_explicit(&r->asked, memory_order_relaxed);
  atomic_store_explicit(&r->answered, asked, memory_order_relaxed);
}

void reactor_ask(struct reactor *r, uint64_t question) {
  /* Relaxed: the lock of the mailbox makes the task see the store. */
  atomic_store_explicit(&r->asked, question, memory_order_relaxed);
  reactor_post(r, &r->pulse);
}

bool reactor_has_answered(const struct reactor *r, uint64_t question) {
  return atomic_load_explicit(&r->answered, memory_order_relaxed) >= question;
}

/* ---- The thread ---------------------------------------------------------- */

struct event_base *reactor_base(struct reactor *r) {
  assert(reactor_is_current(r));
  return r->loop.base;
}

bool reactor_is_current(const struct reactor *r) {
  return pthread_equal(r->thread, pthread_self());
}

static void reactor_end(struct task *task) {
  struct reactor *r = container_of(task, struct reactor, end);
  event_base_loopbreak(r->loop.base);
}

static void *reactor_thread(void *arg) {
  struct reactor *r = arg;
  pthread_setname_np(pthread_self(), "reactor");
  event_base_loop(r->loop.base, EVLOOP_NO_EXIT_ON_EMPTY);
  return NULL;
}

/* The thread blocks all signals, because the library may run in any program. */
static int start_thread(struct reactor *r) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int failed = pthread_create(&r->thread, NULL, reactor_thread, r);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return -failed;
}

/* Frees a reactor that has no thread, or whose thread has ended. */
static void reactor_destroy(struct reactor *r) {
  loop_fini(&r->loop);
  free(r);
}

int reactor_new(struct reactor **out) {
  struct reactor *r = calloc(1, sizeof *r);
  if (!r)
    return -ENOMEM;
  r->end.run = reactor_end;
  r->pulse.run = pulse_run;
  int failed = loop_init(&r->loop, NULL, NULL);
  if (failed == 0)
    failed = start_thread(r);
  if (failed < 0)
    reactor_destroy(r);
  else
    *out = r;
  return failed;
}

void reactor_free(struct reactor *r) {
  if (!r)
    return;
  assert(!reactor_is_current(r));
  reactor_post(r, &r->end);
  pthread_join(r->thread, NULL);
  reactor_destroy(r);
}

#include "daemon/worker.h"

#include <assert.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/container_of.h"
#include "daemon/engine/busy_poll.h"
#include "daemon/log.h"
#include "daemon/sandbox.h"
#include "daemon/serve/request.h"

/* ---- Tasks --------------------------------------------------------------- */

/* Runs after tasks: fetches may have ended, so others have room. */
static void worker_tasks_ran(void *arg) {
  struct worker *w = arg;
  request_go_on_ended(&w->service);
  request_admit_throttled(&w->service);
  if (w->quitting && w->service.n_waiting == 0)
    event_base_loopbreak(w->loop.base);
}

/* Calls `drained` if it is time to. */
static void worker_check_drained(void *arg) {
  struct worker *w = arg;
  const struct net_thread *net = &w->service.net;
  if (!net->stopping || net->conns || w->told_drained)
    return;
  w->told_drained = true;
  fill_dispatch_hand_over(&w->dispatch); /* before the pool is stopped */
  w->drained(w->drained_arg);
}

static void stop_run(struct task *task) {
  struct worker *w = container_of(task, struct worker, stop_task);
  connection_stop_all(&w->service.net);
  worker_check_drained(w);
}

static void close_run(struct task *task) {
  struct worker *w = container_of(task, struct worker, close_task);
  service_close_all(&w->service);
}

static void quit_run(struct task *task) {
  struct worker *w = container_of(task, struct worker, quit_task);
  service_close_all(&w->service); /* a connection may have arrived since */
  w->quitting = true;
}

static void pulse_run(struct task *task) {
  struct worker *w = container_of(task, struct worker, pulse_task);
  uint64_t asked = atomic_load_explicit(&w->asked, memory_order_relaxed);
  atomic_store_explicit(&w->answered, asked, memory_order_relaxed);
}

void worker_ask(struct worker *w, uint64_t question) {
  /* Relaxed: the lock of the mailbox makes the task see the store. */
  atomic_store_explicit(&w->asked, question, memory_order_relaxed);
  loop_post(&w->loop, &w->pulse_task);
}

bool worker_has_answered(struct worker *w, uint64_t question) {
  return atomic_load_explicit(&w->answered, memory_order_relaxed) >= question;
}

void worker_stop(struct worker *w, void (*drained)(void *arg), void *arg) {
  w->drained = drained; /* the mailbox's lock hands them over */
  w->drained_arg = arg;
  loop_post(&w->loop, &w->stop_task);
}

void worker_close_all(struct worker *w) { loop_post(&w->loop, &w->close_task); }

void worker_join(struct worker *w) {
  loop_post(&w->loop, &w->quit_task);
  pthread_join(w->thread, NULL);
  w->started = false;
}

/* ---- The thread ---------------------------------------------------------- */

static void worker_count_ring(struct worker *w, unsigned n) {
  atomic_fetch_add_explicit(&w->service.context->n_rings, n,
                            memory_order_relaxed);
}

/* Goes on without its ring, which has given up (G2 in uring.h). */
static void worker_lose_ring(struct worker *w) {
  w->dispatch.ring = NULL;
  worker_count_ring(w, -1u);
  log_event(LEVEL_WARN, "ring-lost", LOG_TEXT("thread", w->name));
}

/* Runs the loop once, then what it has begun, and then the tasks: those of
 * reads that have ended are among them.  True: something of that has ended. */
static bool worker_turn(struct worker *w, int flags) {
  loop_turn(&w->loop, flags);
  bool any = uring_turn(&w->uring);
  if (w->dispatch.ring && !uring_ring(&w->uring))
    worker_lose_ring(w);
  any |= fill_dispatch_try(&w->dispatch);
  return loop_run_tasks(&w->loop) || any;
}

/* Whether something would be forgotten in a sleep. */
static bool worker_has_begun(struct worker *w) {
  return !fill_dispatch_is_empty(&w->dispatch) ||
         !uring_is_submitted(&w->uring);
}

/* Looks for events and for reads that were begun, without sleeping.  True:
 * there were some. */
static bool worker_look_around(struct worker *w) {
  uint64_t seen = w->loop.n_events;
  uint64_t end = clock_now_ns() + BUSY_POLL_US * UINT64_C(1000);
  do {
    bool came = worker_turn(w, EVLOOP_ONCE | EVLOOP_NONBLOCK);
    if (came || w->loop.n_events != seen || event_base_got_break(w->loop.base))
      return true;
    sched_yield(); /* a sender may have no other processor */
  } while (worker_has_begun(w) || clock_now_ns() < end);
  return false;
}

static void worker_loop(struct worker *w) {
  struct busy_poll spin = {0};
  while (!event_base_got_break(w->loop.base)) {
    bool due = busy_poll_is_due(&spin);
    bool look = due || worker_has_begun(w);
    bool found = look && worker_look_around(w);
    if (due)
      busy_poll_ended(&spin, found);
    if (!found)
      worker_turn(w, EVLOOP_ONCE);
  }
}

static void *worker_thread(void *arg) {
  struct worker *w = arg;
  pthread_setname_np(pthread_self(), w->name);
  sandbox_enter(SANDBOX_WORKER);
  worker_loop(w);
  service_close_readers(&w->service);
  return NULL;
}

/* ---- Life ---------------------------------------------------------------- */

/* Before the thread starts, so that a daemon that is ready has all descriptors
 * of its workers.  Without a ring, fill_dispatch.h has other ways. */
static void worker_open_ring(struct worker *w) {
  int r = uring_init(&w->uring, &w->loop);
  fill_dispatch_init(&w->dispatch, uring_ring(&w->uring));
  if (r == 0)
    worker_count_ring(w, 1);
  else
    log_event(LEVEL_DEBUG, "no-ring", LOG_TEXT("thread", w->name),
              LOG_TEXT("reason", strerror(-r)));
}

static bool worker_init(struct worker *w, struct server_context *context,
                        unsigned number, uint64_t max_held) {
  w->stop_task.run = stop_run;
  w->close_task.run = close_run;
  w->quit_task.run = quit_run;
  w->pulse_task.run = pulse_run;
  snprintf(w->name, sizeof w->name, "worker-%u", number % 1000);
  w->service = (struct service){
      .context = context,
      .loop = &w->loop,
      .images = {.loop = &w->loop,
                 .dispatch = &w->dispatch,
                 .number = number,
                 .totals = &context->images.totals[number]},
      .net = {.loop = &w->loop,
              .limits = &context->limits,
              .closer = context->closer,
              .users = &context->users,
              .emptied = worker_check_drained,
              .arg = w},
  };
  if (loop_init(&w->loop, worker_tasks_ran, w) < 0 ||
      service_init(&w->service, max_held) < 0)
    return false;
  worker_open_ring(w);
  return true;
}

struct worker *worker_new(struct server_context *context, unsigned number,
                          uint64_t max_held) {
  struct worker *w = calloc(1, sizeof *w);
  if (!w)
    return NULL;
  if (!worker_init(w, context, number, max_held)) {
    worker_free(w);
    return NULL;
  }
  return w;
}

int worker_start(struct worker *w) {
  int r = pthread_create(&w->thread, NULL, worker_thread, w);
  if (r)
    return -r;
  w->started = true;
  return 0;
}

void worker_free(struct worker *w) {
  if (!w)
    return;
  assert(!w->started && fill_dispatch_is_empty(&w->dispatch));
  service_fini(&w->service);
  uring_fini(&w->uring);
  loop_fini(&w->loop);
  free(w);
}

#include "daemon/worker.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/container_of.h"
#include "daemon/engine/busy_poll.h"
#include "daemon/log.h"
#include "daemon/net/connection.h"
#include "daemon/serve/attachment.h"
#include "daemon/serve/fetch_quota.h"
#include "daemon/serve/invalidation.h"
#include "daemon/serve/session.h"

enum {
  /* Several requests of the largest kind, or thousands of small ones. */
  RX_LEN = 256 << 10,
};

/* ---- Tasks --------------------------------------------------------------- */

static void changed_run(struct task *task) {
  struct image_task *changed = (struct image_task *)task; /* its first member */
  struct worker *w = changed->worker;
  struct image_reader *l = &w->readers[changed->image];
  if (!image_reader_is_current(l))
    image_reader_close(l); /* lest it keeps the retired mirror */
  for (struct connection *c = w->conns, *next; c; c = next) {
    next = c->next;
    if (connection_may_send(c))
      session_push_notices(c);
    connection_settle(c);
  }
}

void worker_post_changed(struct worker *w, unsigned image) {
  loop_post(&w->loop, &w->changed[image].task);
}

void worker_check_drained(struct worker *w) {
  if (!w->stopping || w->conns || w->told_drained)
    return;
  w->told_drained = true;
  fill_dispatch_hand_over(&w->begun); /* while it takes some */
  w->drained(w->drained_arg);
}

static void stop_run(struct task *task) {
  struct worker *w = container_of(task, struct worker, stop_task);
  w->stopping = true;
  for (struct connection *c = w->conns, *next; c; c = next) {
    next = c->next;
    connection_settle(c);
  }
  worker_check_drained(w);
}

static void worker_close_now(struct worker *w) {
  while (w->conns)
    connection_drop(w->conns);
  notices_check(w); /* no connection is left that is owed one */
}

static void close_run(struct task *task) {
  worker_close_now(container_of(task, struct worker, close_task));
}

static void quit_run(struct task *task) {
  struct worker *w = container_of(task, struct worker, quit_task);
  worker_close_now(w); /* one that arrived since */
  w->quitting = true;
}

/* Fetches may have ended, and leave room for others. */
static void worker_tasks_ran(void *arg) {
  struct worker *w = arg;
  fetch_quota_admit(w);
  if (w->quitting && w->n_waiting == 0)
    event_base_loopbreak(w->loop.base);
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

/* ---- Life ---------------------------------------------------------------- */

/* Looks for events, and for what was begun, without sleeping.  True: there was
 * something. */
static bool worker_look_around(struct worker *w) {
  uint64_t seen = w->loop.n_events;
  uint64_t end = clock_now_ns() + SPIN_US * UINT64_C(1000);
  do {
    event_base_loop(w->loop.base, EVLOOP_NONBLOCK);
    bool came = fill_dispatch_try(&w->begun);
    if (came || w->loop.n_events != seen || event_base_got_break(w->loop.base))
      return true;
    sched_yield(); /* who would send one may have no other processor */
  } while (!fill_dispatch_is_empty(&w->begun) || clock_now_ns() < end);
  return false;
}

static void worker_loop(struct worker *w) {
  struct busy_poll spin = {0};
  while (!event_base_got_break(w->loop.base)) {
    bool due = busy_poll_is_due(&spin);
    bool look = due || !fill_dispatch_is_empty(&w->begun);
    bool found = look && worker_look_around(w);
    if (due)
      busy_poll_ended(&spin, found);
    if (!found)
      event_base_loop(w->loop.base, EVLOOP_ONCE);
  }
}

static void *worker_thread(void *arg) {
  struct worker *w = arg;
  worker_loop(w);
  for (unsigned i = 0; i < w->host->n_images; i++)
    image_reader_close(&w->readers[i]);
  return NULL;
}

/* What it needs for each image.  False: out of memory. */
static bool worker_init_images(struct worker *w) {
  struct host *host = w->host;
  w->readers = calloc(host->n_images, sizeof *w->readers);
  w->changed = calloc(host->n_images, sizeof *w->changed);
  w->counters = calloc(host->n_images, sizeof *w->counters);
  if (!w->readers || !w->changed || !w->counters)
    return false;
  for (unsigned i = 0; i < host->n_images; i++) {
    w->readers[i].served = &host->images[i];
    w->changed[i].task.run = changed_run;
    w->changed[i].worker = w;
    w->changed[i].image = i;
  }
  return true;
}

/* A turn leaves behind a batch of answers, a piece more, and a buffer of input
 * at most. */
static void worker_limit_held(struct worker *w, uint64_t max_held) {
  const struct limits *limits = &w->host->limits;
  uint64_t piece = 1ull << image_page_shift(w->host->images[0].image);
  if (piece < limits->piece_len)
    piece = limits->piece_len;
  uint64_t turn = limits->batch_len + piece + RX_LEN;
  w->max_held = max_held;
  w->crowded_from = turn < max_held / 2 ? max_held / 2 - turn : 0;
}

static bool worker_init(struct worker *w) {
  if (loop_init(&w->loop, worker_tasks_ran, w) < 0)
    return false;
  fill_dispatch_init(&w->begun);
  w->stop_task.run = stop_run;
  w->close_task.run = close_run;
  w->quit_task.run = quit_run;
  notices_init(w);
  w->rx_cap = RX_LEN;
  w->rx = malloc(w->rx_cap);
  w->arena = frame_arena_new(FRAME_ARENA_LEN);
  w->ranges = calloc(w->host->limits.max_ranges, sizeof *w->ranges);
  return w->rx && w->arena && w->ranges && send_batch_init(&w->out) == 0 &&
         worker_init_images(w);
}

struct worker *worker_new(struct host *host, unsigned index,
                          uint64_t max_held) {
  struct worker *w = calloc(1, sizeof *w);
  if (!w)
    return NULL;
  w->host = host;
  w->index = index;
  worker_limit_held(w, max_held);
  if (!worker_init(w)) {
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
  assert(!w->started && !w->conns && fill_dispatch_is_empty(&w->begun));
  attachment_free_all(w);
  send_batch_fini(&w->out);
  frame_arena_free(w->arena);
  free(w->rx);
  free(w->ranges);
  free(w->readers);
  free(w->changed);
  free(w->counters);
  loop_fini(&w->loop);
  free(w);
}

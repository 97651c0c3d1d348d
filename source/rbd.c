#include "source/rbd.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/container_of.h"
#include "base/deadline.h"
#include "cache/source.h"
#include "source/ceph_image.h"
#include "source/kinds.h"
#include "source/rbd_target.h"
#include "source/reactor.h"
#include "source/timeouts.h"

struct rbd_source {
  struct source base;
  struct reactor *reactor; /* fixed, as the two below */
  struct rbd_target *target;
  struct ceph_image *image;
  struct timeouts attempts; /* the reactor's thread */
  struct task begin, close;
};

/* Which side owns an attempt.  librbd's thread moves it to CAME, and the
 * reactor's to GIVEN_UP.  Both may do so at the same moment; the one that comes
 * second finds what the first has stored, and so exactly one side frees the
 * attempt. */
enum progress {
  WITH_LIBRBD,
  CAME,     /* librbd has ended it; it is posted to the reactor */
  GIVEN_UP, /* it timed out; on_read() frees it */
};

/* A read, from start() to its end, and beyond if that was its deadline. */
struct attempt {
  struct rbd_source *source; /* not used after it was given up */
  struct source_read *asked; /* likewise */
  struct task task;          /* begins it, and then ends it */
  struct ceph_read read;
  atomic_int progress; /* acq_rel: the second of both sees what the first did */
  struct timeout due;
  uint8_t bytes[];
};

static struct rbd_source *rbd_of(struct source *src) {
  return container_of(src, struct rbd_source, base);
}

/* ---- Threads that wait for the cluster ----------------------------------- */

/* How many of these threads exist or are about to.  At the end of the process
 * librados frees its global state, which must not happen while they run. */
static struct {
  pthread_mutex_t lock; /* a leaf */
  pthread_cond_t none;
  unsigned n; /* guarded by lock */
} waiters = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};

static void waiters_add(int n) {
  pthread_mutex_lock(&waiters.lock);
  waiters.n += (unsigned)n;
  if (waiters.n == 0)
    pthread_cond_broadcast(&waiters.none);
  pthread_mutex_unlock(&waiters.lock);
}

static void await_waiters(void) {
  pthread_mutex_lock(&waiters.lock);
  while (waiters.n > 0)
    pthread_cond_wait(&waiters.none, &waiters.lock);
  pthread_mutex_unlock(&waiters.lock);
}

/* A child process has none of these threads. */
static void forget_waiters(void) {
  pthread_mutex_init(&waiters.lock, NULL);
  pthread_cond_init(&waiters.none, NULL);
  waiters.n = 0;
}

static void watch_forks(void) { pthread_atfork(NULL, NULL, forget_waiters); }

static void await_waiters_at_exit(void) { atexit(await_waiters); }

/* Functions that are registered later are called earlier.  librados registers
 * its own when it is loaded, and when the first connection is made.  So this is
 * done before and after the first connection, and the wait comes before all of
 * them. */
static void register_waiters(pthread_once_t *once) {
  pthread_once(once, await_waiters_at_exit);
}

/* A call that may wait for the cluster, on a thread of its own.  The caller
 * that began it may give it up; the thread then frees it. */
struct visit {
  struct task task;
  void (*run)(struct visit *v);
  struct rbd_target *target; /* to open */
  struct ceph_image *image;  /* that was opened; or that is checked or closed */
  bool is_other;
  int status;
  struct source_fault fault;

  pthread_mutex_t lock; /* a leaf */
  pthread_cond_t cond;
  bool has_ended, is_given_up; /* guarded by lock */
};

static void visit_free(struct visit *v) {
  rbd_target_free(v->target);
  ceph_image_unref(v->image); /* it may wait */
  pthread_cond_destroy(&v->cond);
  pthread_mutex_destroy(&v->lock);
  free(v);
}

static struct visit *visit_new(void (*run)(struct visit *v)) {
  struct visit *v = calloc(1, sizeof *v);
  if (!v)
    return NULL;
  v->run = run;
  pthread_mutex_init(&v->lock, NULL);
  pthread_cond_init(&v->cond, NULL);
  return v;
}

static void *visit_thread(void *arg) {
  struct visit *v = arg;
  v->run(v);
  pthread_mutex_lock(&v->lock);
  bool is_given_up = v->is_given_up;
  v->has_ended = true;
  /* With the lock held: the waiter may free `v` as soon as the lock is free. */
  pthread_cond_signal(&v->cond);
  pthread_mutex_unlock(&v->lock);
  if (is_given_up)
    visit_free(v);
  waiters_add(-1);
  return NULL;
}

/* Begins the thread.  It is called on the reactor's thread, because the new one
 * inherits its blocked signals and its filter of system calls.  False: no
 * thread could be made. */
static bool visit_begin(struct visit *v) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_t thread;
  pthread_once(&once, watch_forks);
  waiters_add(1);
  if (pthread_create(&thread, NULL, visit_thread, v) != 0) {
    waiters_add(-1);
    return false;
  }
  pthread_detach(thread);
  return true;
}

static void visit_on_reactor(struct task *task) {
  struct visit *v = container_of(task, struct visit, task);
  if (visit_begin(v))
    return;
  pthread_mutex_lock(&v->lock);
  v->status = -EAGAIN;
  v->has_ended = true;
  pthread_cond_signal(&v->cond);
  pthread_mutex_unlock(&v->lock);
}

/* Runs a visit, and waits for its end.  False: it was given up, and must not be
 * used any more. */
static bool visit_await(struct reactor *r, struct visit *v,
                        const struct timespec *deadline) {
  v->task.run = visit_on_reactor;
  reactor_run(r, &v->task);
  pthread_mutex_lock(&v->lock);
  int late = 0;
  while (!v->has_ended && late == 0)
    late =
        pthread_cond_clockwait(&v->cond, &v->lock, CLOCK_MONOTONIC, deadline);
  bool has_ended = v->has_ended;
  v->is_given_up = !has_ended;
  pthread_mutex_unlock(&v->lock);
  return has_ended;
}

/* ---- The ends of reads --------------------------------------------------- */

/* The source may be gone when the reactor runs its next task. */
static void end_attempt(struct attempt *a, int status) {
  struct source_read *asked = a->asked;
  timeouts_remove(&a->source->attempts, &a->due);
  free(a);
  asked->status = status;
  asked->done(asked);
}

/* Runs on the reactor's thread.  A read that ends after the image was reported
 * as changed may have bytes of the new content, so it is stale. */
static void take_attempt(struct task *task) {
  struct attempt *a = container_of(task, struct attempt, task);
  int status = a->read.status;
  if (status == 0 && ceph_image_is_doubted(a->source->image))
    status = -ESTALE;
  if (status == 0)
    memcpy(a->asked->buf, a->bytes, a->read.len);
  end_attempt(a, status);
}

/* Called on a thread of librbd. */
static void on_read(struct ceph_read *r) {
  struct attempt *a = container_of(r, struct attempt, read);
  a->task.run = take_attempt;
  if (atomic_exchange_explicit(&a->progress, CAME, memory_order_acq_rel) ==
      GIVEN_UP)
    free(a);
  else
    reactor_post(a->source->reactor, &a->task);
}

static void give_up(struct attempt *a) {
  struct source_read *asked = a->asked;
  struct rbd_source *s = a->source;
  if (atomic_load_explicit(&a->progress, memory_order_acquire) == CAME)
    return; /* take_attempt() ends it */
  /* It is removed first: as soon as it is GIVEN_UP, on_read() may free it. */
  timeouts_remove(&s->attempts, &a->due);
  if (atomic_exchange_explicit(&a->progress, GIVEN_UP, memory_order_acq_rel) ==
      CAME)
    timeouts_add(&s->attempts, &a->due);
  else {
    asked->status = -ETIMEDOUT;
    asked->done(asked);
  }
}

static void on_timer(evutil_socket_t fd, short what, void *arg) {
  struct rbd_source *s = arg;
  struct timeout *due, *next;
  (void)fd, (void)what;
  for (due = timeouts_next_due(&s->attempts, NULL); due; due = next) {
    next = timeouts_next_due(&s->attempts, due);
    give_up(container_of(due, struct attempt, due));
  }
  timeouts_set_timer(&s->attempts);
}

/* ---- A source's calls ---------------------------------------------------- */

static void begin_attempt(struct task *task) {
  struct attempt *a = container_of(task, struct attempt, task);
  struct rbd_source *s = a->source;
  a->due.deadline = deadline_after(s->target->timeout_ms);
  if (a->asked->deadline_ms)
    a->due.deadline =
        deadline_earlier(a->due.deadline, (int64_t)a->asked->deadline_ms);
  timeouts_add(&s->attempts, &a->due);
  int r = ceph_image_is_doubted(s->image) ? -ESTALE
                                          : ceph_image_read(s->image, &a->read);
  if (r < 0)
    end_attempt(a, r);
}

static bool knows_zeros(struct source *src, uint64_t offset, uint64_t len) {
  return ceph_image_is_zeros(rbd_of(src)->image, offset, len);
}

static enum source_outcome start(struct source *src, struct source_read *r) {
  struct rbd_source *s = rbd_of(src);
  if (knows_zeros(src, r->offset, r->len)) {
    r->status = SOURCE_ZEROS;
    return SOURCE_DONE;
  }
  struct attempt *a = malloc(sizeof *a + r->len);
  if (!a) {
    r->status = -ENOMEM;
    return SOURCE_DONE;
  }
  a->source = s;
  a->asked = r;
  a->task = (struct task){.run = begin_attempt};
  a->read = (struct ceph_read){
      .offset = r->offset, .buf = a->bytes, .len = r->len, .done = on_read};
  atomic_init(&a->progress, WITH_LIBRBD);
  /* The last step: the read may end, and the source be closed, at once. */
  reactor_post(s->reactor, &a->task);
  return SOURCE_PENDING;
}

static void identify(struct source *src, struct source_identity *out) {
  const char *text = ceph_image_identity(rbd_of(src)->image);
  source_identity_add(out, text, strlen(text));
  out->content_len = out->len;
}

/* ---- Closing ------------------------------------------------------------- */

static void close_image(struct visit *v) {
  (void)v; /* visit_free() closes it */
}

/* Runs on the reactor's thread, which must not wait.  So a visit closes the
 * image, unless no thread can be made. */
static void close_on_reactor(struct task *task) {
  struct rbd_source *s = container_of(task, struct rbd_source, close);
  timeouts_fini(&s->attempts);
  struct visit *v = visit_new(close_image);
  if (v) {
    v->image = s->image;
    v->is_given_up = true;
    if (!visit_begin(v))
      visit_free(v);
  } else {
    ceph_image_unref(s->image);
  }
  rbd_target_free(s->target);
  free(s);
  waiters_add(-1);
}

/* Counts as a waiter already, because the process may end before the reactor
 * runs the task. */
static void close_source(struct source *src) {
  struct rbd_source *s = rbd_of(src);
  waiters_add(1);
  reactor_post(s->reactor, &s->close);
}

/* ---- Opening, and checking ----------------------------------------------- */

static void open_image(struct visit *v) {
  static pthread_once_t before = PTHREAD_ONCE_INIT, after = PTHREAD_ONCE_INIT;
  register_waiters(&before);
  v->status = ceph_image_open(v->target, &v->image, &v->fault);
  register_waiters(&after);
}

static void look_at_image(struct visit *v) {
  v->status = ceph_image_look(v->image, &v->is_other);
}

static void set_up_timer(struct task *task) {
  struct rbd_source *s = container_of(task, struct rbd_source, begin);
  timeouts_init(&s->attempts, reactor_base(s->reactor), on_timer, s);
}

static const struct source_ops rbd_ops;

/* Makes a source of what a visit has opened. */
static int make_source(struct reactor *r, struct visit *v,
                       struct source **out) {
  struct rbd_source *s = calloc(1, sizeof *s);
  if (!s)
    return -ENOMEM;
  s->base.ops = &rbd_ops;
  s->base.size = ceph_image_size(v->image);
  s->reactor = r;
  s->target = STEAL(v->target);
  s->image = STEAL(v->image);
  s->begin.run = set_up_timer;
  s->close.run = close_on_reactor;
  reactor_run(r, &s->begin);
  *out = &s->base;
  return 0;
}

/* Takes over the target, also on failure. */
static int open_target(struct reactor *r, struct rbd_target *target,
                       const struct timespec *deadline, struct source **out,
                       struct source_fault *fault) {
  struct visit *v = visit_new(open_image);
  if (!v) {
    rbd_target_free(target);
    return remote_fault(fault, -ENOMEM, "%s", strerror(ENOMEM));
  }
  v->target = target;
  if (!visit_await(r, v, deadline))
    return remote_fault(fault, -ETIMEDOUT,
                        "the cluster did not answer in time");
  int status = v->status;
  *fault = v->fault;
  if (status == 0)
    status = make_source(r, v, out);
  visit_free(v);
  if (status < 0 && !fault->text[0])
    remote_fault(fault, status, "%s", strerror(-status));
  return status;
}

/* Asks the cluster whether the image is another one by now. */
static int ask(struct rbd_source *s, bool *is_other) {
  struct timespec deadline = clock_after_ms(s->target->timeout_ms);
  struct visit *v = visit_new(look_at_image);
  if (!v)
    return -ENOMEM;
  v->image = ceph_image_ref(s->image);
  if (!visit_await(s->reactor, v, &deadline))
    return -ETIMEDOUT;
  int status = v->status;
  *is_other = v->is_other;
  visit_free(v); /* `s` has another reference to the image, so this is quick */
  return status;
}

static int reopen(struct source *src, struct source **out) {
  struct rbd_source *s = rbd_of(src);
  struct source_fault fault = {""};
  bool is_other = false;
  *out = NULL;
  if (!ceph_image_wants_look(s->image))
    return 0;
  int r = ask(s, &is_other);
  if (r < 0 || !is_other)
    return r;
  struct rbd_target *target = rbd_target_copy(s->target);
  if (!target)
    return -ENOMEM;
  struct timespec deadline = clock_after_ms(target->timeout_ms);
  return open_target(s->reactor, target, &deadline, out, &fault);
}

static const struct source_ops rbd_ops = {
    .kind = "rbd",
    .start = start,
    .knows_zeros = knows_zeros,
    .reopen = reopen,
    .identify = identify,
    .resume = source_is_identity,
    .close = close_source,
};

/* ---- The kind ------------------------------------------------------------ */

static int check(const struct source_uri *uri, struct source_fault *fault) {
  struct rbd_target *target;
  int r = rbd_target_new(uri, &target, fault);
  if (r == 0)
    rbd_target_free(target);
  return r;
}

static int open_uri(struct reactor *r, const struct source_uri *uri,
                    const struct timespec *deadline, struct source **out,
                    struct source_fault *fault) {
  struct rbd_target *target;
  int failed = rbd_target_new(uri, &target, fault);
  return failed < 0 ? failed : open_target(r, target, deadline, out, fault);
}

const struct source_kind rbd_source_kind = {
    RBD_KIND,
    .check = check,
    .open = open_uri,
};

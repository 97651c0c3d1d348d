#include "source/reactor.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <event2/event.h>

#include "base/container_of.h"
#include "base/fd.h"

enum {
  /* Tasks run before sockets and timers get a turn. */
  TASK_BATCH = 256,
};

struct reactor {
  struct event_base *base;
  struct event wake;       /* wake_fd is readable */
  int wake_fd;             /* an eventfd */
  pthread_t thread;        /* set before the first post, which it is seen by */
  struct reactor_task end; /* leaves the loop */

  pthread_mutex_t lock;
  struct reactor_task *head, **tail; /* guarded by lock */
};

static void reactor_wake(struct reactor *r) {
  int failed = eventfd_write(r->wake_fd, 1);
  assert(!failed); /* the counter cannot overflow: it is read first */
  (void)failed;
}

void reactor_post(struct reactor *r, struct reactor_task *task) {
  bool wakes = false;
  pthread_mutex_lock(&r->lock);
  if (!task->posted) {
    wakes = r->head == NULL;
    task->posted = true;
    task->next = NULL;
    *r->tail = task;
    r->tail = &task->next;
  }
  pthread_mutex_unlock(&r->lock); /* R2: the task may be gone from here on */
  if (wakes)
    reactor_wake(r);
}

/* NULL: none is posted. */
static struct reactor_task *reactor_take(struct reactor *r) {
  pthread_mutex_lock(&r->lock);
  struct reactor_task *task = r->head;
  if (task) {
    r->head = task->next;
    if (!r->head)
      r->tail = &r->head;
    task->posted = false;
  }
  pthread_mutex_unlock(&r->lock);
  return task;
}

static bool reactor_has_tasks(struct reactor *r) {
  pthread_mutex_lock(&r->lock);
  bool has = r->head != NULL;
  pthread_mutex_unlock(&r->lock);
  return has;
}

static void reactor_on_wake(evutil_socket_t fd, short what, void *arg) {
  struct reactor *r = arg;
  struct reactor_task *task;
  uint64_t count;
  (void)what;
  ssize_t n = read(fd, &count, sizeof count);
  (void)n; /* nothing to read: a wake-up without need, which does no harm */
  for (int i = 0; i < TASK_BATCH && (task = reactor_take(r)); i++)
    task->run(task);
  if (reactor_has_tasks(r))
    reactor_wake(r);
}

/* A task that its poster waits for. */
struct awaited_task {
  struct reactor_task task;
  struct reactor_task *asked;
  pthread_mutex_t lock;
  pthread_cond_t cond;
  bool ended; /* guarded by lock */
};

static void awaited_run(struct reactor_task *task) {
  struct awaited_task *a = container_of(task, struct awaited_task, task);
  a->asked->run(a->asked);
  pthread_mutex_lock(&a->lock);
  a->ended = true;
  pthread_cond_signal(&a->cond); /* with the lock: then `a` is gone */
  pthread_mutex_unlock(&a->lock);
}

void reactor_run(struct reactor *r, struct reactor_task *task) {
  struct awaited_task a = {.task = {.run = awaited_run},
                           .asked = task,
                           .lock = PTHREAD_MUTEX_INITIALIZER,
                           .cond = PTHREAD_COND_INITIALIZER};
  assert(!reactor_is_current(r));
  reactor_post(r, &a.task);
  pthread_mutex_lock(&a.lock);
  while (!a.ended)
    pthread_cond_wait(&a.cond, &a.lock);
  pthread_mutex_unlock(&a.lock);
  pthread_cond_destroy(&a.cond);
  pthread_mutex_destroy(&a.lock);
}

/* ---- Alarms -------------------------------------------------------------- */

static void alarm_rings(evutil_socket_t fd, short what, void *arg) {
  struct reactor_alarm *alarm = arg;
  (void)fd;
  (void)what;
  alarm->ring(alarm);
}

static void alarm_set(struct reactor_task *task) {
  struct reactor_alarm *alarm = container_of(task, struct reactor_alarm, task);
  const struct timeval after = {
      .tv_sec = (time_t)(alarm->after_ms / 1000),
      .tv_usec = (suseconds_t)(alarm->after_ms % 1000 * 1000)};
  evtimer_assign(&alarm->timer, alarm->reactor->base, alarm_rings, alarm);
  if (evtimer_add(&alarm->timer, &after) < 0)
    alarm->ring(alarm); /* no memory: better early than never */
}

void reactor_after(struct reactor *r, struct reactor_alarm *alarm,
                   uint64_t ms) {
  alarm->reactor = r;
  alarm->after_ms = ms;
  alarm->task.run = alarm_set;
  reactor_post(r, &alarm->task);
}

/* ---- The thread ---------------------------------------------------------- */

struct event_base *reactor_base(struct reactor *r) {
  assert(reactor_is_current(r));
  return r->base;
}

bool reactor_is_current(const struct reactor *r) {
  return pthread_equal(r->thread, pthread_self());
}

static void reactor_end(struct reactor_task *task) {
  struct reactor *r = container_of(task, struct reactor, end);
  event_base_loopbreak(r->base);
}

static void *reactor_thread(void *arg) {
  struct reactor *r = arg;
  pthread_setname_np(pthread_self(), "reactor");
  event_base_loop(r->base, EVLOOP_NO_EXIT_ON_EMPTY);
  return NULL;
}

/* One thread owns the base, so that libevent needs no locks. */
static struct event_base *make_base(void) {
  struct event_config *config = event_config_new();
  if (!config)
    return NULL;
  event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
  struct event_base *base = event_base_new_with_config(config);
  event_config_free(config);
  return base;
}

/* No signal is for this thread: its process may be any program. */
static int start_thread(struct reactor *r) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int failed = pthread_create(&r->thread, NULL, reactor_thread, r);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return -failed;
}

static int start(struct reactor *r) {
  r->wake_fd = fd_above_std(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (r->wake_fd < 0)
    return -errno;
  r->base = make_base();
  if (!r->base)
    return -ENOMEM;
  event_assign(&r->wake, r->base, r->wake_fd, EV_READ | EV_PERSIST,
               reactor_on_wake, r);
  if (event_add(&r->wake, NULL) < 0)
    return -ENOMEM;
  return start_thread(r);
}

/* Of one whose thread is not there. */
static void reactor_destroy(struct reactor *r) {
  if (r->base) {
    if (event_initialized(&r->wake))
      event_del(&r->wake);
    event_base_free(r->base);
  }
  if (r->wake_fd >= 0)
    close(r->wake_fd);
  pthread_mutex_destroy(&r->lock);
  free(r);
}

int reactor_new(struct reactor **out) {
  struct reactor *r = calloc(1, sizeof *r);
  if (!r)
    return -ENOMEM;
  pthread_mutex_init(&r->lock, NULL);
  r->tail = &r->head;
  r->end.run = reactor_end;
  int failed = start(r);
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

#include "base/loop.h"

#include <assert.h>
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"

enum {
  /* Tasks run before sockets get a turn. */
  TASK_BATCH = 256,
};

static void loop_wake(struct loop *loop) {
  int r = eventfd_write(loop->wake_fd, 1);
  assert(r == 0); /* the counter cannot overflow: it is read first */
  (void)r;
}

void loop_post(struct loop *loop, struct task *task) {
  bool wake = false;
  pthread_mutex_lock(&loop->lock);
  if (!task->posted) {
    wake = !loop->head && !loop->is_awake;
    task->posted = true;
    task->next = NULL;
    *loop->tail = task;
    loop->tail = &task->next;
  }
  pthread_mutex_unlock(&loop->lock); /* T2: the task may be gone from here on */
  if (wake)
    loop_wake(loop);
}

static struct task *loop_take(struct loop *loop) {
  pthread_mutex_lock(&loop->lock);
  struct task *task = loop->head;
  if (task) {
    assert(task->posted); /* T2 */
    loop->head = task->next;
    if (!loop->head)
      loop->tail = &loop->head;
    task->posted = false;
  }
  pthread_mutex_unlock(&loop->lock);
  return task;
}

static bool loop_has_tasks(struct loop *loop) {
  pthread_mutex_lock(&loop->lock);
  bool has = loop->head != NULL;
  pthread_mutex_unlock(&loop->lock);
  return has;
}

bool loop_run_tasks(struct loop *loop) {
  struct task *task;
  int n = 0;
  for (; n < TASK_BATCH && (task = loop_take(loop)); n++)
    task->run(task);
  if (n == 0)
    return false;
  loop->n_events++;
  if (loop->tasks_ran)
    loop->tasks_ran(loop->arg);
  return true;
}

static void loop_on_wake(evutil_socket_t fd, short what, void *arg) {
  struct loop *loop = arg;
  uint64_t count;
  (void)what;
  ssize_t n = read(fd, &count, sizeof count);
  (void)n; /* nothing to read: a wake-up without need, which does no harm */
  loop_run_tasks(loop);
  if (loop_has_tasks(loop))
    loop_wake(loop);
}

/* Whether the thread may sleep.  From then on a post wakes it. */
static bool loop_may_sleep(struct loop *loop) {
  pthread_mutex_lock(&loop->lock);
  loop->is_awake = loop->head != NULL;
  bool may = !loop->is_awake;
  pthread_mutex_unlock(&loop->lock);
  return may;
}

static void loop_stay_awake(struct loop *loop) {
  pthread_mutex_lock(&loop->lock);
  loop->is_awake = true;
  pthread_mutex_unlock(&loop->lock);
}

void loop_turn(struct loop *loop, int flags) {
  bool sleeps = !(flags & EVLOOP_NONBLOCK) && loop_may_sleep(loop);
  event_base_loop(loop->base, sleeps ? flags : flags | EVLOOP_NONBLOCK);
  if (sleeps)
    loop_stay_awake(loop);
}

void loop_set_timer(struct event *timer, uint64_t at_ms) {
  uint64_t now = clock_now_ms();
  uint64_t left = at_ms > now ? at_ms - now : 0;
  struct timeval tv = {.tv_sec = (time_t)(left / 1000),
                       .tv_usec = (suseconds_t)(left % 1000 * 1000)};
  event_add(timer, &tv);
}

struct event_base *loop_make_base(int flag) {
  struct event_config *config = event_config_new();
  if (!config)
    return NULL;
  event_config_set_flag(config, flag);
  struct event_base *base = event_base_new_with_config(config);
  event_config_free(config);
  return base;
}

int loop_init(struct loop *loop, void (*tasks_ran)(void *arg), void *arg) {
  *loop = (struct loop){.tasks_ran = tasks_ran, .arg = arg};
  pthread_mutex_init(&loop->lock, NULL);
  loop->tail = &loop->head;
  loop->wake_fd = fd_above_std(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  /* One thread owns the base, so that libevent needs no locks. */
  loop->base = loop_make_base(EVENT_BASE_FLAG_NOLOCK);
  if (loop->wake_fd < 0 || !loop->base)
    return -ENOMEM;
  event_assign(&loop->wake, loop->base, loop->wake_fd, EV_READ | EV_PERSIST,
               loop_on_wake, loop);
  return event_add(&loop->wake, NULL) < 0 ? -ENOMEM : 0;
}

void loop_fini(struct loop *loop) {
  if (loop->base) {
    if (event_initialized(&loop->wake))
      event_del(&loop->wake);
    event_base_free(loop->base);
  }
  if (loop->wake_fd >= 0)
    close(loop->wake_fd);
  pthread_mutex_destroy(&loop->lock);
}

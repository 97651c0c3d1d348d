#include "daemon/pressure.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "daemon/log.h"
#include "daemon/memory_limit.h"
#include "daemon/sandbox.h"

#define GROW_PARTS 16

/* ---- When to do what ----------------------------------------------------- */

void pressure_plan_init(struct pressure_plan *plan, uint64_t size,
                        uint64_t least) {
  *plan = (struct pressure_plan){
      .size = size, .least = least, .now = size, .target = size};
}

static void pressure_plan_check(const struct pressure_plan *plan) {
  assert(plan->least <= plan->target && plan->target <= plan->size);
  assert(plan->least <= plan->now && plan->now <= plan->size);
}

void pressure_plan_event(struct pressure_plan *plan, uint64_t now_ms) {
  uint64_t above = plan->target > plan->least ? plan->target - plan->least : 0;
  /* The last part is given up in one step, because half of the rest each time
   * would never end. */
  plan->target = above > (plan->size - plan->least) / GROW_PARTS
                     ? plan->least + above / 2
                     : plan->least;
  if (plan->now > plan->target) {
    plan->step = (plan->now - plan->target) / PRESSURE_STEPS + 1;
    plan->next_ms = now_ms;
  } else {
    plan->next_ms = now_ms + PRESSURE_QUIET_MS;
  }
  pressure_plan_check(plan);
}

int pressure_plan_step(struct pressure_plan *plan, uint64_t now_ms) {
  if (plan->now == plan->size && plan->target == plan->size)
    return -1;
  if (now_ms < plan->next_ms)
    return (int)(plan->next_ms - now_ms);
  int wait_ms = PRESSURE_GROW_MS;
  if (plan->now > plan->target) {
    uint64_t left = plan->now - plan->target;
    plan->now -= left < plan->step ? left : plan->step;
    wait_ms = plan->now > plan->target ? PRESSURE_STEP_MS : PRESSURE_QUIET_MS;
  } else {
    uint64_t missing = plan->size - plan->now;
    uint64_t part = (plan->size - plan->least) / GROW_PARTS + 1;
    plan->now += missing < part ? missing : part;
    plan->target = plan->now;
  }
  plan->next_ms = now_ms + (uint64_t)wait_ms;
  pressure_plan_check(plan);
  return plan->now == plan->size ? -1 : wait_ms;
}

/* ---- The trigger --------------------------------------------------------- */

static int set_trigger(const char *root, const char *path) {
  /* The window is 2 s, because any other than a multiple of 2 s needs a
   * privilege. */
  static const char trigger[] = "some 100000 2000000";
  char full[PATH_MAX];
  if ((size_t)snprintf(full, sizeof full, "%s%s", root, path) >= sizeof full)
    return -ENAMETOOLONG;
  int fd = open(full, O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0)
    return -errno;
  if (write(fd, trigger, sizeof trigger) == (ssize_t)sizeof trigger)
    return fd;
  int r = -errno;
  close(fd);
  return r;
}

int pressure_open(const char *root) {
  char group[PATH_MAX];
  int fd = -ENOENT;
  if (memory_limit_group(root, group, sizeof group) &&
      strlen(group) + sizeof "/memory.pressure" <= sizeof group)
    fd = set_trigger(root, strcat(group, "/memory.pressure"));
  return fd >= 0 ? fd : set_trigger(root, "/proc/pressure/memory");
}

/* ---- The thread ---------------------------------------------------------- */

struct pressure {
  struct pressure_options options;
  struct pressure_plan plan; /* the thread's */
  int stop_fd;               /* an eventfd */
  pthread_t thread;
};

static void tell(const struct pressure *p, const char *event) {
  log_event(LEVEL_INFO, event, LOG_NUMBER("size", p->plan.target),
            LOG_NUMBER("least", p->plan.least),
            LOG_NUMBER("most", p->plan.size));
}

/* False: the group of the trigger is gone, so no event will come any more. */
static bool take_event(struct pressure *p, short revents) {
  uint64_t count;
  if (revents & p->options.events) {
    if (p->options.events & POLLIN && read(p->options.fd, &count, 8) < 0)
      return false;
    pressure_plan_event(&p->plan, clock_now_ms());
    tell(p, "memory-pressure");
  }
  return !(revents & (POLLERR | POLLNVAL | POLLHUP));
}

static void take_step(struct pressure *p, int *wait_ms) {
  uint64_t before = p->plan.now;
  *wait_ms = pressure_plan_step(&p->plan, clock_now_ms());
  if (p->plan.now == before)
    return;
  p->options.set(p->options.arg, p->plan.now);
  if (p->plan.now == p->plan.size)
    tell(p, "memory-pressure-over");
}

static void *pressure_main(void *arg) {
  struct pressure *p = arg;
  int wait_ms = -1;
  pthread_setname_np(pthread_self(), "pressure");
  sandbox_enter(SANDBOX_PRESSURE);
  struct pollfd fds[] = {{.fd = p->stop_fd, .events = POLLIN},
                         {.fd = p->options.fd, .events = p->options.events}};
  for (;;) {
    int n = poll(fds, 2, wait_ms);
    if (n > 0 && fds[0].revents)
      return NULL;
    if (n > 0 && !take_event(p, fds[1].revents)) {
      log_event(LEVEL_WARN, "memory-pressure-lost",
                LOG_TEXT("meaning", "the cache keeps its size"));
      fds[1].fd = -1;
    }
    take_step(p, &wait_ms);
  }
}

static void pressure_free(struct pressure *p) {
  if (p->stop_fd >= 0)
    close(p->stop_fd);
  close(p->options.fd);
  free(p);
}

struct pressure *pressure_start(const struct pressure_options *options) {
  struct pressure *p = calloc(1, sizeof *p);
  if (!p) {
    close(options->fd);
    return NULL;
  }
  p->options = *options;
  pressure_plan_init(&p->plan, options->size, options->least);
  p->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (p->stop_fd >= 0 &&
      pthread_create(&p->thread, NULL, pressure_main, p) == 0)
    return p;
  pressure_free(p);
  return NULL;
}

void pressure_stop(struct pressure *p) {
  if (!p)
    return;
  eventfd_write(p->stop_fd, 1); /* one that is 0 takes it */
  pthread_join(p->thread, NULL);
  pressure_free(p);
}

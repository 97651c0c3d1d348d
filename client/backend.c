#include "client/backend.h"

#include <limits.h>
#include <poll.h>
#include <time.h>

int64_t clock_now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t clock_deadline(int timeout_ms) {
  return timeout_ms < 0 ? -1 : clock_now_ms() + timeout_ms;
}

int64_t clock_earlier(int64_t a, int64_t b) {
  if (a < 0 || b < 0)
    return a < 0 ? b : a;
  return a < b ? a : b;
}

int clock_left_ms(int64_t deadline) {
  if (deadline < 0)
    return -1;
  int64_t left = deadline - clock_now_ms();
  if (left <= 0)
    return 0;
  return left < INT_MAX ? (int)left : INT_MAX;
}

bool backend_wait(struct backend *b, int64_t deadline) {
  if (clock_has_passed(deadline))
    return false;
  struct pollfd p = {.fd = b->ops->fd(b), .events = b->ops->events(b)};
  int64_t timeout =
      clock_earlier(b->ops->timeout_ms(b), clock_left_ms(deadline));
  /* A failed poll is an interrupted one (or a lack of kernel memory, which
   * passes): progress() finds out by itself what there is to do. */
  poll(&p, 1, (int)timeout);
  b->ops->progress(b);
  return true;
}

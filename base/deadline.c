#include "base/deadline.h"

#include <limits.h>
#include <time.h>

int64_t deadline_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t deadline_after(int timeout_ms) {
  return timeout_ms < 0 ? -1 : deadline_now() + timeout_ms;
}

int64_t deadline_earlier(int64_t a, int64_t b) {
  if (a < 0 || b < 0)
    return a < 0 ? b : a;
  return a < b ? a : b;
}

int deadline_left_ms(int64_t deadline) {
  if (deadline < 0)
    return -1;
  int64_t left = deadline - deadline_now();
  if (left <= 0)
    return 0;
  return left < INT_MAX ? (int)left : INT_MAX;
}

bool deadline_has_passed(int64_t deadline) {
  return deadline >= 0 && deadline_now() >= deadline;
}

/* A capped count: reads a counter that a client writes, with any value.
 *
 *   Y1  The sum that is taken from it never decreases.
 *   Y2  That sum is at most CAPPED_COUNT_PER_US for each microsecond since
 *       the capped count began, whatever the counter says. */
#ifndef DAEMON_ENGINE_CAPPED_COUNT_H
#define DAEMON_ENGINE_CAPPED_COUNT_H

#include <stdint.h>

/* A hit takes a nanosecond at least. */
enum { CAPPED_COUNT_PER_US = 1000 };

struct capped_count {
  uint64_t seen;     /* the last value of the counter */
  uint64_t begun_us; /* on one clock */
  uint64_t taken;    /* so far */
};

/* Begins with what the counter says now. */
static inline struct capped_count capped_count_begin(uint64_t counter,
                                                     uint64_t now_us) {
  return (struct capped_count){.seen = counter, .begun_us = now_us, .taken = 0};
}

/* How much the counter has grown since the last call.  If it went back, it
 * counts from there on. */
static inline uint64_t capped_count_take(struct capped_count *t,
                                         uint64_t counter, uint64_t now_us) {
  uint64_t more = counter > t->seen ? counter - t->seen : 0;
  uint64_t most = (now_us - t->begun_us) * CAPPED_COUNT_PER_US;
  uint64_t room = most > t->taken ? most - t->taken : 0;
  if (more > room)
    more = room;
  t->seen = counter;
  t->taken += more;
  return more;
}

#endif

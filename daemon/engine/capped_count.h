/* A capped count: reads a counter that a client writes.  The client may write
 * any value.
 *
 *   Y1  The sum of the increases that were taken never decreases.
 *   Y2  That sum is at most CAPPED_COUNT_PER_US for each microsecond since
 *       capped_count_begin(), whatever the client writes. */
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

/* Begins with the present value of the counter. */
static inline struct capped_count capped_count_begin(uint64_t counter,
                                                     uint64_t now_us) {
  return (struct capped_count){.seen = counter, .begun_us = now_us, .taken = 0};
}

/* Takes the increase of the counter since the last call, as far as Y2 allows,
 * and returns it.  If the counter has decreased, returns 0, and the next call
 * counts from the new value on. */
static inline uint64_t capped_count_take(struct capped_count *count,
                                         uint64_t counter, uint64_t now_us) {
  uint64_t more = counter > count->seen ? counter - count->seen : 0;
  uint64_t most = (now_us - count->begun_us) * CAPPED_COUNT_PER_US;
  uint64_t room = most > count->taken ? most - count->taken : 0;
  if (more > room)
    more = room;
  count->seen = counter;
  count->taken += more;
  return more;
}

#endif

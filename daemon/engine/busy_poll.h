/* Busy polling: whether to poll for a little while before a sleep, for events
 * and for bytes that the disk was asked for.
 *
 * To wake a halted processor takes about 50 us, more than most requests.  A
 * poll that finds the next request saves that; one that finds nothing doubles
 * the number of sleeps that go without, up to BUSY_POLL_MAX_SKIPS.  An idle
 * thread then loses less than a microsecond a sleep. */
#ifndef DAEMON_ENGINE_BUSY_POLL_H
#define DAEMON_ENGINE_BUSY_POLL_H

#include <stdbool.h>

enum {
  BUSY_POLL_US = 50, /* about a wake-up: what is gained at most */
  BUSY_POLL_MAX_SKIPS = 64,
};

/* All zeroes at first. */
struct busy_poll {
  unsigned n_skips; /* sleeps to go without after the next failure, by half */
  unsigned left;    /* of those that are under way */
};

/* Before a sleep: whether to look first. */
static inline bool busy_poll_is_due(struct busy_poll *s) {
  if (s->left == 0)
    return true;
  s->left--;
  return false;
}

/* It was looked; `found` when something came. */
static inline void busy_poll_ended(struct busy_poll *s, bool found) {
  if (found)
    s->n_skips = 0;
  else if (s->n_skips == 0)
    s->n_skips = 1;
  else if (s->n_skips < BUSY_POLL_MAX_SKIPS)
    s->n_skips *= 2;
  s->left = s->n_skips;
}

#endif

/* Whether to stay awake for a little while for what may come soon, rather than
 * sleep: for events, and for bytes that the disk was asked for.
 *
 * To be woken on a processor that was halted takes some 50 us, more than most
 * requests.  So it pays to look around where the next request comes sooner, and
 * is lost where it does not: each time that nothing came, twice as many sleeps
 * go without, up to SPIN_MAX_SKIPS.  What is lost is then less than a
 * microsecond a sleep, and who is idle only sleeps. */
#ifndef DAEMON_ENGINE_BUSY_POLL_H
#define DAEMON_ENGINE_BUSY_POLL_H

#include <stdbool.h>

enum {
  SPIN_US = 50, /* about a wake-up: what is gained at most */
  SPIN_MAX_SKIPS = 64,
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
  else if (s->n_skips < SPIN_MAX_SKIPS)
    s->n_skips *= 2;
  s->left = s->n_skips;
}

#endif

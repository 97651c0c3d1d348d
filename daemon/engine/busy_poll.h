/* Busy polling: whether to poll for a little while before a sleep, for events
 * and for bytes that the disk was asked for.
 *
 * Waking a halted processor takes about 50 us, more than most requests.  A poll
 * that finds the next request saves that time.  A poll that finds nothing
 * doubles the number of sleeps without a poll, up to BUSY_POLL_MAX_SKIPS: so an
 * idle thread loses less than a microsecond for each sleep. */
#ifndef DAEMON_ENGINE_BUSY_POLL_H
#define DAEMON_ENGINE_BUSY_POLL_H

#include <stdbool.h>

enum {
  BUSY_POLL_US = 50, /* about a wake-up: the most that a poll saves */
  BUSY_POLL_MAX_SKIPS = 64,
};

/* All zeroes at first. */
struct busy_poll {
  unsigned n_skips; /* sleeps without a poll after the last failure */
  unsigned left;    /* of these, the ones that are still to come */
};

/* Before a sleep: whether to poll first. */
static inline bool busy_poll_is_due(struct busy_poll *s) {
  if (s->left == 0)
    return true;
  s->left--;
  return false;
}

/* After a poll; `found`: it found something. */
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

/* How a fill gets its bytes.  One of:
 *
 *   at once      the kernel had them;
 *   begun        the kernel has begun to read them, and the thread that asked
 *                tries again until it has: two changes of threads are saved;
 *   by the pool  a pool thread performs a blocking read.
 *
 *   J1  A fill is in one place: a thread's list of those begun, or the pool.
 *   J2  A thread that has some begun does not sleep, and after BEGUN_MAX_US it
 *       gives a fill to the pool: so it is awake that much longer at most.
 *   J3  A source that is too slow for that is tried less and less often: see
 *       busy_poll.h.
 *
 * The thread of a fill_dispatch only. */
#ifndef DAEMON_ENGINE_FILL_DISPATCH_H
#define DAEMON_ENGINE_FILL_DISPATCH_H

#include "cache/fetch.h"
#include "cache/fill.h"
#include "daemon/engine/busy_poll.h"

struct fill_job;
struct image_reader;

/* A thread's fills that are begun.  The images have turns: one that is slow
 * delays no other's. */
struct fill_dispatch {
  struct fill_job *head, **tail; /* oldest first */
  unsigned n;
  uint64_t n_rounds;
};

/* Of one image.  All zeroes at first. */
struct fill_dispatch_image {
  struct busy_poll spin;
  uint64_t failed_round; /* the last in which a try failed */
};

void fill_dispatch_init(struct fill_dispatch *d);

static inline bool fill_dispatch_is_empty(const struct fill_dispatch *d) {
  return !d->head;
}

/* Tries those that may be there.  True: some were. */
bool fill_dispatch_try(struct fill_dispatch *d);

/* Gives all to the pool. */
void fill_dispatch_hand_over(struct fill_dispatch *d);

/* A fetch whose fills go this way; its thread calls image_fetch(). */
struct dispatched_fetch {
  struct fetch fetch; /* the first member */
  struct image_reader *reader;
  struct fill_dispatch *dispatch; /* the thread's */
};

/* For struct image_ops; `fetch` is a dispatched_fetch. */
void fill_dispatch_submit(void *arg, struct fetch *fetch, struct fill *fill);

#endif

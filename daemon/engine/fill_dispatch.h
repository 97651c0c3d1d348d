/* How a fill of a worker's fetch gets its bytes.  One of:
 *
 *   at once      the source has them;
 *   pending      the source reads them, and calls back, perhaps by the thread's
 *                ring (source/ring.h);
 *   begun        the source will have them soon (the kernel reads the file).
 *                The thread tries again until it has: that saves two thread
 *                switches;
 *   by the pool  a pool thread performs a blocking read.
 *
 *   J1  A fill is in one place: with its source, on a thread's list of begun
 *       fills, or in the pool.
 *   J2  A thread with begun fills does not sleep.  It gives a fill to the pool
 *       after BEGUN_MAX_US, so it stays awake no longer than that.
 *   J3  The thread tries a slow source less and less often, see busy_poll.h.
 *   J4  Each fill references its fill_dispatch_image, and so the image, until
 *       it has ended.  By then no fetch may wait for it, and the thread may
 *       have closed the image.
 *
 * Only the thread of a fill_dispatch may call these functions, unless they say
 * otherwise. */
#ifndef DAEMON_ENGINE_FILL_DISPATCH_H
#define DAEMON_ENGINE_FILL_DISPATCH_H

#include <stdatomic.h>

#include "cache/fill.h"
#include "daemon/engine/busy_poll.h"

struct fill_job;
struct served_image;

/* A thread's begun fills.  The images take turns, so a slow image does not
 * delay the fills of others. */
struct fill_dispatch {
  struct fill_job *head, **tail; /* oldest first */
  unsigned n;
  uint64_t n_rounds;
  struct ring *ring; /* the thread's; NULL: it has none */
};

/* Runs the fills of a thread's fetches of one image. */
struct fill_dispatch_image {
  struct fill_runner runner; /* for struct fetch */
  atomic_uint n_refs; /* J4; acq_rel: the last one sees what the others did */
  /* Relaxed: fills that a source has, by the ring or a thread of its own. */
  atomic_uint n_pending;
  struct fill_dispatch *dispatch;
  struct served_image *served; /* referenced */
  struct busy_poll spin;
  uint64_t failed_round; /* the last round in which a try failed */
};

/* `ring` may be NULL. */
void fill_dispatch_init(struct fill_dispatch *d, struct ring *ring);

/* With a reference for the image reader; each fill takes its own.  NULL: out of
 * memory. */
struct fill_dispatch_image *
fill_dispatch_image_new(struct fill_dispatch *d, struct served_image *served);

/* Gives a reference back.  NULL is fine.  Any thread. */
void fill_dispatch_image_unref(struct fill_dispatch_image *image);

static inline bool fill_dispatch_is_empty(const struct fill_dispatch *d) {
  return !d->head;
}

/* Tries the begun fills again.  True: some of them ended. */
bool fill_dispatch_try(struct fill_dispatch *d);

/* Gives all begun fills to the pool. */
void fill_dispatch_hand_over(struct fill_dispatch *d);

#endif

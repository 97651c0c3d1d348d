/* How a fill of a worker's fetch gets its bytes.  One of:
 *
 *   at once      the source had them;
 *   pending      the source reads them, and calls back;
 *   begun        the source is about to have them (a file: the kernel reads),
 *                and the thread that asked tries again until it has: two
 *                changes of threads are saved;
 *   by the pool  a pool thread performs a blocking read.
 *
 *   J1  A fill is in one place: with its source, on a thread's list of those
 *       begun, or in the pool.
 *   J2  A thread that has some begun does not sleep, and after BEGUN_MAX_US it
 *       gives a fill to the pool: so it is awake that much longer at most.
 *   J3  A source that is too slow for that is tried less and less often: see
 *       busy_poll.h.
 *   J4  Each fill keeps what its image is to the thread, and the image, until
 *       it has ended: nobody may wait for it any more, and the thread may have
 *       let go of the image.
 *
 * The thread of a fill_dispatch only, but for what says otherwise. */
#ifndef DAEMON_ENGINE_FILL_DISPATCH_H
#define DAEMON_ENGINE_FILL_DISPATCH_H

#include <stdatomic.h>

#include "cache/fill.h"
#include "daemon/engine/busy_poll.h"

struct fill_job;
struct served_image;

/* A thread's fills that are begun.  The images have turns: one that is slow
 * delays no other's. */
struct fill_dispatch {
  struct fill_job *head, **tail; /* oldest first */
  unsigned n;
  uint64_t n_rounds;
};

/* Runs the fills of a thread's fetches of one image. */
struct fill_dispatch_image {
  struct fill_runner runner; /* for struct fetch */
  atomic_uint n_refs; /* J4; acq_rel: the last one sees what the others did */
  struct fill_dispatch *dispatch;
  struct served_image *served; /* referenced */
  struct busy_poll spin;
  uint64_t failed_round; /* the last in which a try failed */
};

void fill_dispatch_init(struct fill_dispatch *d);

/* With a reference for the reader; fills have theirs.  NULL: no memory. */
struct fill_dispatch_image *
fill_dispatch_image_new(struct fill_dispatch *d, struct served_image *served);

/* Gives a reference back.  NULL is fine.  Any thread. */
void fill_dispatch_image_unref(struct fill_dispatch_image *image);

static inline bool fill_dispatch_is_empty(const struct fill_dispatch *d) {
  return !d->head;
}

/* Tries those that may be there.  True: some were. */
bool fill_dispatch_try(struct fill_dispatch *d);

/* Gives all to the pool. */
void fill_dispatch_hand_over(struct fill_dispatch *d);

#endif

/* A worker's ring (source/ring.h), by io_uring(7).
 *
 * Reads that are given to it in one turn of the loop go to the kernel by one
 * system call.  Their ends are found in shared memory.  While the loop sleeps,
 * the ring's descriptor is one of those that it sleeps on.
 *
 *   G1  The kernel accepts nothing from the ring but reads, and no call that
 *       would change the ring (IORING_REGISTER_RESTRICTIONS): a filter of
 *       system calls does not see what a ring does.
 *   G2  A thread with reads that the kernel does not have yet does not sleep.
 *   G3  No read waits for a thread of the kernel's if its caller sets
 *       RWF_NOWAIT.
 *
 * It needs Linux 5.19, and that io_uring(7) is permitted: see uring_init().
 * Only the thread that called uring_init() may use it. */
#ifndef DAEMON_ENGINE_URING_H
#define DAEMON_ENGINE_URING_H

#include <liburing.h>
#include <stdbool.h>

#include "base/loop.h"
#include "source/ring.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
  /* More than clients with a usual queue depth have in flight.  Takes 16 KiB.
   */
  URING_MAX_READS = 128,
};

struct uring {
  struct ring base;
  struct io_uring io;
  bool is_open;
  unsigned n_reads;    /* in flight, also those that the kernel has not yet */
  struct event *event; /* the ring's descriptor is readable */
  struct loop *loop;
};

/* Makes a ring for a thread and its loop.  0 or a negative errno: -ENOSYS,
 * -EINVAL or -EPERM where there is no io_uring, or it is too old or forbidden.
 * The thread must not be confined yet (daemon/sandbox.h). */
int uring_init(struct uring *u, struct loop *loop);

/* No read is in flight.  Also after a failed uring_init(), and if `u` is
 * zeroed. */
void uring_fini(struct uring *u);

/* The ring for sources; NULL: there is none. */
static inline struct ring *uring_ring(struct uring *u) {
  return u->is_open ? &u->base : NULL;
}

/* Gives the kernel what was read from the ring, and calls `ended` of the reads
 * that have ended.  True: there were some. */
bool uring_turn(struct uring *u);

/* Whether the kernel has all reads: see G2. */
bool uring_is_submitted(struct uring *u);

#ifdef __cplusplus
}
#endif

#endif

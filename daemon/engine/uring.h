/* A worker's ring (source/ring.h), by io_uring(7).
 *
 * The ring collects the reads of one turn of the loop, and gives them to the
 * kernel by one system call.  The kernel writes the result of each read to
 * shared memory, where the ring finds it.  While the loop sleeps, a read that
 * ends wakes it, because the ring's descriptor becomes readable.
 *
 *   G1  The kernel accepts only reads from the ring, and refuses every call
 *       that would change the ring (IORING_REGISTER_RESTRICTIONS).  That is
 *       necessary because a filter of system calls does not see what a ring
 *       does.
 *   G2  A thread does not sleep while the ring has reads that the kernel does
 *       not have yet.
 *       If the kernel refuses them URING_MAX_FAILED times in a row, the ring
 *       gives up for good: it ends these reads with -ECANCELED and accepts no
 *       others.  It still ends those that the kernel has.
 *   G3  The kernel gives a read with RWF_NOWAIT to none of its threads.  If the
 *       read would have to wait before it reaches the disk, it fails.
 *
 * It needs Linux 5.19, and permission for io_uring(7): see uring_init().
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
  /* Clients with a usual queue depth have fewer in flight.  The ring takes
   * 16 KiB of memory. */
  URING_MAX_READS = 128,
  /* Of these, the fills of one image: so an image whose disk hangs leaves half
   * of the ring to the others (fill_dispatch.c). */
  URING_MAX_OF_IMAGE = URING_MAX_READS / 2,
  /* The loop tries again at once, so this takes less than a millisecond. */
  URING_MAX_FAILED = 100,
};

struct uring {
  struct ring base;
  struct io_uring io;
  bool is_open;
  bool has_given_up;   /* G2 */
  unsigned n_failed;   /* calls in a row that gave the kernel no read */
  unsigned n_reads;    /* accepted, and not ended yet */
  struct event *event; /* the ring's descriptor is readable */
  struct loop *loop;
};

/* Makes a ring for a loop, whose thread alone uses it then.  Returns 0 or a
 * negative errno: -ENOSYS if the kernel has no io_uring, -EINVAL if the kernel
 * is too old, and -EPERM if io_uring is forbidden.  The calling thread must not
 * be confined yet (daemon/sandbox.h). */
int uring_init(struct uring *u, struct loop *loop);

/* Frees the ring, which must have no read in flight.  It may be called after a
 * failed uring_init() too, and for a zeroed `u`. */
void uring_fini(struct uring *u);

/* The ring for sources; NULL: there is none, or it has given up. */
static inline struct ring *uring_ring(struct uring *u) {
  return u->is_open && !u->has_given_up ? &u->base : NULL;
}

/* To be called once in each turn of the loop.  Gives the kernel the reads that
 * it does not have yet, and calls `ended` of some reads that have ended.
 * Returns false if none has ended. */
bool uring_turn(struct uring *u);

/* Whether the kernel has all reads that have not ended: see G2. */
bool uring_is_submitted(struct uring *u);

#ifdef __cplusplus
}
#endif

#endif

/* A ring: reads of open files that the kernel makes while their thread goes on.
 *
 * A thread that must not wait may have one.  It gives the ring to a source with
 * each read that it starts (`ring` in struct source_read), and calls the ring
 * once in each turn of its loop.  daemon/engine/uring.h is such a ring.
 *
 *   K1  Only the ring's thread uses it.  `ended` is called on that thread, from
 *       the ring's turn, and never from within ring_give().
 *   K2  The ring calls `ended` once for each read that ring_give() accepted.
 *       Until then the kernel writes to the buffer, and the file stays open.
 *   K3  In each turn, the ring first collects the reads that have ended, and
 *       then calls `ended` of each of them.  So what a source finds out about
 *       its file in the first of these calls is true of all these reads: see
 *       `checked`. */
#ifndef SOURCE_RING_H
#define SOURCE_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One read, with the meaning of preadv2(2).  The caller owns it, and may free
 * it in `ended`. */
struct ring_read {
  int fd;
  int flags; /* RWF_* */
  uint64_t offset;
  void *buf;
  size_t len; /* at most RING_MAX_LEN */
  /* `n`: how many bytes were read, or a negative errno. */
  void (*ended)(struct ring_read *read, ssize_t n);
};

#define RING_MAX_LEN ((size_t)1 << 30)

struct ring {
  /* See ring_give(). */
  bool (*read)(struct ring *ring, struct ring_read *read);
  /* Sources set these in `ended`: which source has last checked its file in
   * this turn, and with what result.  The ring sets `checked` to NULL in each
   * turn, before the first `ended`. */
  const void *checked;
  int checked_status;
};

/* Gives a read to the ring.  False: the ring is full or has failed, and does
 * nothing.  The source must not wait for room, because the reads in the ring
 * may be those of a disk that hangs. */
static inline bool ring_give(struct ring *ring, struct ring_read *read) {
  return ring->read(ring, read);
}

#ifdef __cplusplus
}
#endif

#endif

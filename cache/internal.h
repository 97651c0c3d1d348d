/* The page cache's inside, for the files of cache/ only.
 *
 * One lock, page_cache.lock, guards everything that misses, evictions and
 * epochs change.  Hits do not take it.  Under it no callback runs, and no
 * system call but fstat.  No thread holds it for longer than it takes to go
 * through a batch of pages, a block of states, or the pin tables of a mirror.
 * It is a leaf but for image.refresh_lock, which is taken before it.
 *
 * True whenever the lock is free:
 *
 *   C1  A page that is RESIDENT is in the policy's SMALL or MAIN queue, and a
 *       page that is there is RESIDENT.
 *   C2  A state is FILLING if and only if a fill of its mirror owns it, and
 *       then that fill is in `fills`.
 *   C3  A state is STALE if and only if its page is in the mirror's `stale`
 *       runs, or the reclaimer is looking at it.
 *   C4  A fetch that waits has `waiter.n_pending` links or outcomes
 * outstanding.
 *
 * The budget's invariants are in budget.c. */
#ifndef CACHE_INTERNAL_H
#define CACHE_INTERNAL_H

#include <pthread.h>

#include "cache/fill_buffers.h"
#include "cache/image.h"
#include "cache/s3fifo.h"
#include "cache/stats.h"

#define FILL_BUCKETS 1024
#define SHARED_PINS_BUCKETS 64

struct page_cache {
  uint64_t budget;
  uint64_t limit; /* of `used`: a little less */
  bool membarrier;
  struct fill_buffers buffers; /* with threads, which trim them; else none */
  pthread_mutex_t lock;

  /* guarded by lock */
  struct s3fifo policy;
  uint64_t used, garbage; /* bytes, see budget.c */
  uint64_t leased; /* bytes that other processes may pin, see shared_pins.c */
  struct shared_pins_user *shared_pins_users[SHARED_PINS_BUCKETS];
  struct mirror **mirrors;
  uint32_t n_mirrors; /* slots; a free one is NULL */
  struct fill *fills;
  struct fill_node *by_page[FILL_BUCKETS];
  struct waiter *await_outcome; /* see waiter.h */
  struct page_cache_stats stats;

  /* The evictor and the reclaimer, if any; guarded by lock. */
  bool has_threads, stop;
  pthread_t evictor, reclaimer;
  pthread_cond_t wanted; /* the evictor's: room is */
  struct {
    pthread_cond_t wake;  /* there is work */
    pthread_cond_t ended; /* a round has */
    uint64_t n_rounds;
    bool is_due;     /* a round is to begin now */
    bool is_ticking; /* rounds come by themselves */
    bool is_active;  /* something was reserved since the last of those */
    struct mirror *dead;
  } reclaim;
};

struct image {
  struct page_cache *cache;
  char *name;
  unsigned page_shift;
  unsigned n_refs; /* atomic: the owner, and each mirror */
  struct image_ops ops;

  /* Serialises looks at the source; taken before the cache's lock. */
  pthread_mutex_t refresh_lock;
  int64_t looked_ms; /* guarded by refresh_lock */

  /* Written under the cache's lock; read atomically (acquire) anywhere. */
  struct mirror *mirror; /* NULL once the image is freed */
  uint64_t generation;

  uint64_t next_epoch; /* guarded by the cache's lock */
};

/* ---- fetch.c */

/* Hands the outcome of a fill to the fetches that wait for it; returns those
 * whose last wait it was, for waiter_wake(). */
struct waiter *fetch_notify_locked(struct fill *fill);

/* ---- fill.c */

/* Ends a fill.  `reserved` bytes of the budget are its own, and if that is not
 * 0 its good pages are written. */
void fill_finish(struct fill *fill, uint64_t reserved);

/* ---- image.c */

/* Gives the image a new mirror over the same source, because a page of `old`
 * cannot be invalidated any other way.  Does nothing if `old` is not current
 * any more.  Without memory for a new one it is made when somebody asks. */
void image_renew(struct image *img, struct mirror *old);

/* A mirror without references goes: its account, its memory, its source. */
void image_end_mirror(struct mirror *m);

#endif

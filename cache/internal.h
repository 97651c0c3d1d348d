/* The state of a page cache, for the files of cache/ only.
 *
 * One lock, page_cache.lock, guards everything that misses, evictions and
 * epochs change.  Hits do not take it.  Under it no callback runs, and no
 * system call except fstat and lseek, one mremap when the budget grows, and the
 * futex that wakes a thread.  A thread holds it at most for the time to process
 * a part of a batch of pages or a block of states.  The reclaimer also lists
 * the pins of a retired mirror under it.  No other lock is taken under it.
 * source.refresh_lock is taken before it, and so is pins_lock.
 *
 * True whenever the lock is free:
 *
 *   C1  A page is RESIDENT if and only if the policy has it: it is fresh, or in
 *       a queue other than as a ghost.
 *   C2  A state is FILLING if and only if a fill of its mirror owns it; that
 *       fill is in `fills`.
 *   C3  A state is STALE if and only if its page is in the mirror's `stale`
 *       runs, or the reclaimer is checking it.
 *   C4  A fetch that waits has as many links and outcomes outstanding as the
 *       `n_pending` of its waiter.
 *
 * The budget's invariants are in budget.c. */
#ifndef CACHE_INTERNAL_H
#define CACHE_INTERNAL_H

#include <pthread.h>
#include <sys/queue.h>

#include "cache/fill_buffers.h"
#include "cache/s3fifo.h"
#include "cache/stats.h"

/* All images together may have twice as many pages in fills. */
#define FILL_BUCKETS 8192
#define SHARED_PINS_BUCKETS 64

/* A user with leases; see shared_pins.c. */
struct shared_pins_user {
  uint32_t number;
  LIST_HEAD(, shared_pins) leases;
  uint64_t len; /* the sum of their shares, in bytes */
  struct shared_pins_user *next;
};

struct page_cache {
  /* Written under the lock.  Read under it, or by internal_budget() if a change
   * need not be seen at once. */
  uint64_t budget;
  uint64_t limit; /* of `used`: a little less */
  bool membarrier;
  struct mirror_keeper *keeper; /* NULL: nobody */
  bool is_left; /* see page_cache_leave(); set while no other thread runs */
  void (*thread_began)(bool is_evictor); /* or NULL */
  struct fill_buffers buffers; /* with threads, which trim them; else none */
  /* Guards the lists of pin tables and the capacities of the tables of leases.
   * A thread that changes them takes it and then `lock`, and a thread that
   * reads them takes either.  The evictor holds it while it reads all pins of a
   * mirror. */
  pthread_mutex_t pins_lock;
  pthread_mutex_t lock;

  /* guarded by lock */
  struct s3fifo policy;
  uint64_t used, garbage; /* bytes, see budget.c */
  uint64_t n_kept;        /* consecutive pinned pages, see evictor.c */
  uint64_t mapped;        /* of mirrors, see budget_allows_writing_mapped() */
  uint64_t leased; /* bytes that other processes may pin, see shared_pins.c */
  struct shared_pins_user *shared_pins_users[SHARED_PINS_BUCKETS];
  struct mirror **mirrors;
  uint32_t n_mirrors; /* slots; a free one is NULL */
  struct fill *fills;
  uint64_t filling; /* the sum of those of the mirrors */
  struct fill_node *by_page[FILL_BUCKETS];
  struct waiter *await_outcome; /* see waiter.h */
  struct page_cache_stats stats;

  /* The evictor and the reclaimer, if any; guarded by lock. */
  bool has_threads, stop;
  pthread_t evictor, reclaimer;
  pthread_cond_t wanted; /* wakes the evictor: room is wanted */
  struct {
    pthread_cond_t wake;  /* there is work */
    pthread_cond_t ended; /* a round has ended */
    uint64_t n_rounds;
    bool is_due;     /* a round is to begin now */
    bool is_ticking; /* rounds begin every 100 ms */
    bool is_active;  /* something was reserved since the last such round */
    struct mirror *dead;
  } reclaim;
  struct {
    uint64_t asked, evictor, reclaimer; /* the last question, and the last one
                                           that each has answered */
  } pulse;
};

/* Relaxed: it orders nothing. */
static inline uint64_t internal_budget(const struct page_cache *pc) {
  return __atomic_load_n(&pc->budget, __ATOMIC_RELAXED);
}

#endif

/* The log of a mirror's invalidations, from which a reader that copies several
 * pages learns whether one of them was invalidated meanwhile.
 *
 * It is in the page of the mirror's header, which every reader maps.  Readers
 * in other processes get no message about invalidations, and use only the log.
 *
 *   N1  An invalidation is in the log before the first of its pages leaves
 *       RESIDENT, and has not ended before the last one has left it.
 *   N2  `n_over` is the number of the oldest invalidation in progress, or
 *       `n_begun` if there is none.  So every invalidation with a lower number
 *       has ended.
 *
 *     reader                            the invalidating thread
 *     1 mark = n_over (acquire)         1 ranges[n_begun] = its pages
 *     2 copy pages                      2 n_begun + 1 (release)
 *     3 n_begun == mark (acquire):      3 RESIDENT -> EVICTING, page by page
 *       nothing was invalidated;        4 n_over advances (release)
 *       else compare the ranges
 *
 * If a reader copied one page from before step 3 and another from after it, it
 * finds that n_begun has changed: it loaded the state of the second page, or
 * received its bytes, after step 2.
 *
 * The log keeps the latest INVALIDATION_LOG_LEN ranges.  A reader that finds
 * more new ones assumes that its pages were invalidated. */
#ifndef CACHE_INVALIDATION_LOG_H
#define CACHE_INVALIDATION_LOG_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define INVALIDATION_LOG_LEN 64

/* In shared memory: its layout is fixed, see docs/shared-memory.md. */
struct invalidation_log {
  uint64_t n_begun;
  uint64_t n_over;
  struct {
    uint64_t first, count;        /* pages */
  } ranges[INVALIDATION_LOG_LEN]; /* invalidation i is at i % the length */
};

/* An invalidation in progress; in the stack frame of its thread. */
struct invalidation_entry {
  uint64_t number;
  struct invalidation_entry *newer;
};

/* The invalidations in progress, oldest first.  Zeroed: none. */
struct invalidation_list {
  struct invalidation_entry *oldest, *newest;
};

/* The log's one writer at a time: under the cache's lock. */
void invalidation_log_begin(struct invalidation_log *log,
                            struct invalidation_list *list,
                            struct invalidation_entry *inv, uint64_t first,
                            uint64_t count);
void invalidation_log_end(struct invalidation_log *log,
                          struct invalidation_list *list,
                          struct invalidation_entry *inv);

/* To be called before the first page state is loaded. */
static inline uint64_t
invalidation_log_mark(const struct invalidation_log *log) {
  return __atomic_load_n(&log->n_over, __ATOMIC_ACQUIRE);
}

/* Whether one of the pages was being invalidated at any time since `mark` was
 * taken.  It may also return true if there were more invalidations than the log
 * keeps. */
bool invalidation_log_overlaps(const struct invalidation_log *log,
                               uint64_t mark, uint64_t first, uint64_t count);

/* The same; fast if nothing was invalidated. */
static inline bool invalidation_log_hit(const struct invalidation_log *log,
                                        uint64_t mark, uint64_t first,
                                        uint64_t count) {
  return __atomic_load_n(&log->n_begun, __ATOMIC_ACQUIRE) != mark &&
         invalidation_log_overlaps(log, mark, first, count);
}

#ifdef __cplusplus
}
#endif

#endif

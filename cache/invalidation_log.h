/* The log of a mirror's invalidations, from which a reader that copies several
 * pages learns whether one of them was invalidated meanwhile.
 *
 * It lies in the page of the mirror's header, where every reader sees it; those
 * of other processes get no message about invalidations and have nothing else.
 *
 *   N1  An invalidation is in the log before the first of its pages leaves
 *       RESIDENT, and is not over before the last one has.
 *   N2  `n_over` is the number of the oldest one that is under way, or
 *       `n_begun` if none is.  So what began before `n_over` is over.
 *
 *     reader                            the invalidating thread
 *     1 mark = n_over (acquire)         1 ranges[n_begun] = its pages
 *     2 copy pages                      2 n_begun + 1 (release)
 *     3 n_begun == mark (acquire):      3 RESIDENT -> EVICTING, page by page
 *       nothing was invalidated;        4 n_over moves on (release)
 *       else look at the ranges
 *
 * A reader that copied a page from before step 3 and another from after it
 * finds n_begun moved: the look at the second page's state, or the answer that
 * brought its bytes, came after step 2.
 *
 * Only the latest INVALIDATION_LOG_LEN ranges are kept.  A reader that was
 * overtaken by more takes its pages for invalidated. */
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

/* An invalidation under way; in its thread's stack frame. */
struct invalidation_entry {
  uint64_t number;
  struct invalidation_entry *newer;
};

/* Those under way, oldest first.  All zeroes: none. */
struct invalidation_list {
  struct invalidation_entry *oldest, *newest;
};

/* The log's one writer at a time: under the cache's lock. */
void invalidation_begin_locked(struct invalidation_log *log,
                               struct invalidation_list *list,
                               struct invalidation_entry *inv, uint64_t first,
                               uint64_t count);
void invalidation_end_locked(struct invalidation_log *log,
                             struct invalidation_list *list,
                             struct invalidation_entry *inv);

/* To be taken before the first look at a page. */
static inline uint64_t
invalidation_log_mark(const struct invalidation_log *log) {
  return __atomic_load_n(&log->n_over, __ATOMIC_ACQUIRE);
}

/* Whether one of the pages was being invalidated at any time since `mark` was
 * taken.  It may also say so when more were than the log keeps. */
bool invalidation_log_overlaps(const struct invalidation_log *log,
                               uint64_t mark, uint64_t first, uint64_t count);

/* The same; quick where nothing was invalidated at all. */
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

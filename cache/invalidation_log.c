#include "cache/invalidation_log.h"

#include <assert.h>
#include <stddef.h>

void invalidation_log_begin(struct invalidation_log *log,
                            struct invalidation_list *list,
                            struct invalidation_entry *inv, uint64_t first,
                            uint64_t count) {
  uint64_t n = log->n_begun, at = n % INVALIDATION_LOG_LEN;
  *inv = (struct invalidation_entry){.number = n};
  if (list->newest)
    list->newest->newer = inv;
  else
    list->oldest = inv;
  list->newest = inv;
  /* A reader that finds the new values in this place finds `n_begun` at least
   * at n as well, so that it does not take them for an older range's: pairs
   * with its fence. */
  __atomic_thread_fence(__ATOMIC_RELEASE);
  __atomic_store_n(&log->ranges[at].first, first, __ATOMIC_RELAXED);
  __atomic_store_n(&log->ranges[at].count, count, __ATOMIC_RELAXED);
  /* Release: the range comes before the number that names it.  And the caller
   * moves page states after this, with release. */
  __atomic_store_n(&log->n_begun, n + 1, __ATOMIC_RELEASE);
}

void invalidation_log_end(struct invalidation_log *log,
                          struct invalidation_list *list,
                          struct invalidation_entry *inv) {
  struct invalidation_entry **at = &list->oldest, *older = NULL;
  while (*at != inv) {
    older = *at;
    at = &older->newer;
  }
  *at = inv->newer;
  if (list->newest == inv)
    list->newest = older;
  assert(!list->oldest == !list->newest);
  /* Release: the pages have left RESIDENT. */
  __atomic_store_n(&log->n_over,
                   list->oldest ? list->oldest->number : log->n_begun,
                   __ATOMIC_RELEASE);
}

/* Whether the range of number `i` is still in the log.  The oldest place may be
 * being overwritten. */
static bool is_kept(uint64_t n_begun, uint64_t i) {
  return n_begun - i < INVALIDATION_LOG_LEN;
}

bool invalidation_log_overlaps(const struct invalidation_log *log,
                               uint64_t mark, uint64_t first, uint64_t count) {
  uint64_t n = __atomic_load_n(&log->n_begun, __ATOMIC_ACQUIRE);
  if (n == mark)
    return false;
  if (!is_kept(n, mark))
    return true;
  for (uint64_t i = mark; i != n; i++) {
    uint64_t at = i % INVALIDATION_LOG_LEN;
    uint64_t from = __atomic_load_n(&log->ranges[at].first, __ATOMIC_RELAXED);
    uint64_t len = __atomic_load_n(&log->ranges[at].count, __ATOMIC_RELAXED);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (!is_kept(__atomic_load_n(&log->n_begun, __ATOMIC_RELAXED), i))
      return true;
    if (from < first ? first - from < len : from - first < count)
      return true;
  }
  return false;
}

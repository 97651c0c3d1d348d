/* Waiting for pages: the common part of all kinds of waits.
 *
 * A waiter counts its waits, and is woken when the last of them has ended.  The
 * functions that end in _locked are called under the cache's lock.  `wake` is
 * not, so the waiters to wake are first collected in a list.
 *
 * The owner begins with a wait of its own, which it ends by waiter_end() when
 * it has added all others.  Nothing is woken before that.  If that was the last
 * wait, nothing is woken at all.
 *
 * Some waiters wait for the outcome of an eviction or a sweep, in which a
 * thread owns a page state for a short time and cannot be joined.  There are
 * few such waiters, and every outcome wakes all of them to check again. */
#ifndef CACHE_WAITER_H
#define CACHE_WAITER_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct page_cache;

struct waiter {
  /* Set by the owner.  Runs once, on the thread that ended the last wait and
   * under no lock.  Then the waiter belongs to its owner again. */
  void (*wake)(struct waiter *w);
  uint32_t n_pending;  /* atomic */
  struct waiter *next; /* the lock; then the list's of those to wake */
};

/* Adds a wait. */
static inline void waiter_add(struct waiter *w) {
  __atomic_fetch_add(&w->n_pending, 1, __ATOMIC_RELAXED);
}

/* Whether some wait has not ended. */
static inline bool waiter_is_waiting(const struct waiter *w) {
  return __atomic_load_n(&w->n_pending, __ATOMIC_RELAXED) > 0;
}

/* Ends a wait.  True: it was the last one.  Otherwise the waiter may be woken,
 * and freed, before the call has returned.  acq_rel: the thread that ends the
 * last wait sees the results of all. */
static inline bool waiter_end(struct waiter *w) {
  return __atomic_fetch_sub(&w->n_pending, 1, __ATOMIC_ACQ_REL) == 1;
}

/* One wait is over; if it was the last one, `w` goes into the list. */
void waiter_end_locked(struct page_cache *pc, struct waiter *w,
                       struct waiter **woken);

/* Adds a wait for the next outcome, of any page. */
void waiter_await_outcome_locked(struct page_cache *pc, struct waiter *w);

/* Ends the waits for an outcome.  The caller passes the result to
 * waiter_wake(). */
struct waiter *waiter_take_locked(struct page_cache *pc);

/* Wakes the waiters in a list.  Under no lock. */
void waiter_wake(struct waiter *list);

#ifdef __cplusplus
}
#endif

#endif

/* Waiting for pages: what all kinds of waits have in common.
 *
 * A waiter counts what it waits for, and is woken when the last of that is
 * over.  All but waiter_wake() is called under the cache's lock; `wake` is not,
 * so those whose last wait is over are collected in a list first.
 *
 * Some wait for the outcome of an eviction or of a sweep: a page whose state is
 * owned for a short time, by nothing that could be joined.  There are few, and
 * every outcome wakes all of them to look again. */
#ifndef CACHE_WAITER_H
#define CACHE_WAITER_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct page_cache;

struct waiter {
  /* Set by its owner; runs once, under no lock, on the thread that ended the
   * last wait.  The waiter is its owner's again then. */
  void (*wake)(struct waiter *w);
  uint32_t n_pending;  /* the lock */
  struct waiter *next; /* the lock; then the list's of those to wake */
};

/* One wait is over; if it was the last one, `w` goes into the list. */
static inline void waiter_end_locked(struct waiter *w, struct waiter **woken) {
  if (--w->n_pending > 0)
    return;
  w->next = *woken;
  *woken = w;
}

/* One wait more: for the next outcome, whatever page's it is. */
void waiter_await_outcome_locked(struct page_cache *pc, struct waiter *w);

/* There is an outcome: ends those waits.  The result goes to waiter_wake(). */
struct waiter *waiter_take_locked(struct page_cache *pc);

/* Wakes a list, under no lock. */
void waiter_wake(struct waiter *list);

#ifdef __cplusplus
}
#endif

#endif

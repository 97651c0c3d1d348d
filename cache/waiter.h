/* Waiting for pages: the common part of all kinds of waits.
 *
 * A waiter counts its waits, and is woken when the last of them has ended.  All
 * functions except waiter_wake() are called under the cache's lock.  `wake` is
 * not, so the waiters to wake are first collected in a list.
 *
 * Some waiters wait for the outcome of an eviction or a sweep, in which a
 * thread owns a page state for a short time and cannot be joined.  There are
 * few such waiters, and every outcome wakes all of them to check again. */
#ifndef CACHE_WAITER_H
#define CACHE_WAITER_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct page_cache;

struct waiter {
  /* Set by the owner.  Runs once, on the thread that ended the last wait and
   * under no lock.  Then the waiter belongs to its owner again. */
  void (*wake)(struct waiter *w);
  uint32_t n_pending;  /* the lock */
  struct waiter *next; /* the lock; then the list's of those to wake */
};

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

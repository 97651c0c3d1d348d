#include "cache/waiter.h"

#include <stddef.h>

#include "base/lock.h"
#include "cache/internal.h"

void waiter_end_locked(struct page_cache *pc, struct waiter *w,
                       struct waiter **woken) {
  lock_assert_held(&pc->lock);
  if (!waiter_end(w))
    return;
  w->next = *woken;
  *woken = w;
}

void waiter_await_outcome_locked(struct page_cache *pc, struct waiter *w) {
  lock_assert_held(&pc->lock);
  waiter_add(w);
  w->next = pc->await_outcome;
  pc->await_outcome = w;
}

struct waiter *waiter_take_locked(struct page_cache *pc) {
  lock_assert_held(&pc->lock);
  struct waiter *woken = NULL, *next;
  for (struct waiter *w = pc->await_outcome; w; w = next) {
    next = w->next;
    waiter_end_locked(pc, w, &woken);
  }
  pc->await_outcome = NULL;
  return woken;
}

void waiter_wake(struct waiter *list) {
  while (list) {
    struct waiter *w = list;
    list = w->next; /* `w` is its owner's from wake() on */
    w->wake(w);
  }
}

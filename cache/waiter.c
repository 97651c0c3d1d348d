#include "cache/waiter.h"

#include <stddef.h>

#include "cache/internal.h"

void waiter_await_outcome_locked(struct page_cache *pc, struct waiter *w) {
  w->n_pending++;
  w->next = pc->await_outcome;
  pc->await_outcome = w;
}

struct waiter *waiter_take_locked(struct page_cache *pc) {
  struct waiter *woken = NULL, *next;
  for (struct waiter *w = pc->await_outcome; w; w = next) {
    next = w->next;
    waiter_end_locked(w, &woken);
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

/* The evictor: a thread that keeps room ahead of need, and takes the cache down
 * to a budget that was set lower.
 *
 * For the latter it goes on past pinned pages until it has met all there are.
 * Then the reclaimer wakes it now and then, as pins end without a word, and it
 * looks at one batch each time, until a page goes: clients that pin more than
 * the budget cost little. */
#include "cache/evictor.h"

#include "base/lock.h"
#include "cache/budget.h"
#include "cache/evict.h"
#include "cache/internal.h"
#include "cache/rounds.h"

/* Evicts until there is room.  The lock is held, but for the evictions. */
static void make_room_locked(struct page_cache *pc) {
  lock_assert_held(&pc->lock);
  uint64_t high_free = budget_high_free(pc);
  while (!pc->stop && budget_wants_room_locked(pc, high_free)) {
    uint64_t before = budget_lasting_locked(pc);
    pc->pulse.evictor = pc->pulse.asked;
    uint64_t want = before + high_free - pc->limit;
    bool is_over = budget_is_over_locked(pc);
    enum evict_order order = pc->n_kept ? EVICT_IN_TURN : EVICT_BY_POLICY;
    pthread_mutex_unlock(&pc->lock);
    size_t n = evict(pc, want, order);
    pthread_mutex_lock(&pc->lock);
    high_free = budget_high_free(pc); /* the budget may have been set */
    if (budget_lasting_locked(pc) < before)
      pc->n_kept = 0;
    else if (!is_over)
      break; /* pinned, or taken at once: the next miss asks again */
    else if ((pc->n_kept += n) >= s3fifo_len(&pc->policy))
      break; /* all are pinned */
  }
}

void *evictor_main(void *arg) {
  struct page_cache *pc = arg;
  pthread_setname_np(pthread_self(), "evictor");
  if (pc->thread_began)
    pc->thread_began(true);
  pthread_mutex_lock(&pc->lock);
  while (!pc->stop) {
    pc->pulse.evictor = pc->pulse.asked; /* a request from here on wakes it */
    pthread_cond_wait(&pc->wanted, &pc->lock);
    make_room_locked(pc);
    if (budget_is_over_locked(pc))
      rounds_note_activity_locked(pc);
  }
  pthread_mutex_unlock(&pc->lock);
  return NULL;
}

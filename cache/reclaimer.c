/* The reclaimer's thread: rounds, one after the other. */
#include "cache/reclaimer.h"

#include <errno.h>
#include <time.h>

#include "base/clock.h"
#include "base/lock.h"
#include "cache/budget.h"
#include "cache/check.h"
#include "cache/internal.h"
#include "cache/reclaim.h"

#define ROUND_MS 100

/* A check goes through the whole cache, so it comes with one round of so many.
 */
#define ROUNDS_TO_CHECK 16

/* Waits for the next round.  True: the clock has come to it. */
static bool await_round_locked(struct page_cache *pc,
                               const struct timespec *next) {
  lock_assert_held(&pc->lock);
  int r = 0;
  pc->pulse.reclaimer = pc->pulse.asked; /* a request from here on wakes it */
  while (!pc->stop && !pc->reclaim.is_due && r != ETIMEDOUT) {
    r = pc->reclaim.is_ticking
            ? pthread_cond_timedwait(&pc->reclaim.wake, &pc->lock, next)
            : pthread_cond_wait(&pc->reclaim.wake, &pc->lock);
    pc->pulse.reclaimer = pc->pulse.asked;
  }
  return r == ETIMEDOUT;
}

void *reclaimer_main(void *arg) {
  struct page_cache *pc = arg;
  struct timespec next = clock_after_ms(ROUND_MS);
  pthread_setname_np(pthread_self(), "reclaimer");
  if (pc->thread_began)
    pc->thread_began(false);
  pthread_mutex_lock(&pc->lock);
  while (!pc->stop) {
    bool is_tick = await_round_locked(pc, &next);
    bool was_active = pc->reclaim.is_active;
    pc->reclaim.is_due = false;
    if (is_tick)
      pc->reclaim.is_active = false;
    pthread_mutex_unlock(&pc->lock);
    bool waits = reclaim_round(pc, is_tick);
    if (is_tick)
      next = clock_after_ms(ROUND_MS);
    pthread_mutex_lock(&pc->lock);
    if (++pc->reclaim.n_rounds % ROUNDS_TO_CHECK == 0)
      check_quietly_locked(pc);
    pthread_cond_broadcast(&pc->reclaim.ended);
    if (budget_is_over_locked(pc)) { /* pins may have ended */
      pthread_cond_signal(&pc->wanted);
      waits = true;
    }
    if (is_tick || waits)
      pc->reclaim.is_ticking = waits || was_active || pc->reclaim.is_active;
  }
  pthread_mutex_unlock(&pc->lock);
  return NULL;
}

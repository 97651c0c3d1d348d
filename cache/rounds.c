#include "cache/rounds.h"

#include <errno.h>
#include <time.h>

#include "base/clock.h"
#include "base/lock.h"
#include "cache/internal.h"

void rounds_wake_locked(struct page_cache *pc) {
  lock_assert_held(&pc->lock);
  if (!pc->has_threads || pc->reclaim.is_due)
    return;
  pc->reclaim.is_due = true;
  pthread_cond_signal(&pc->reclaim.wake);
}

void rounds_note_activity_locked(struct page_cache *pc) {
  lock_assert_held(&pc->lock);
  pc->reclaim.is_active = true;
  if (pc->has_threads && !pc->reclaim.is_ticking) {
    pc->reclaim.is_ticking = true;
    pthread_cond_signal(&pc->reclaim.wake);
  }
}

void rounds_note_activity(struct page_cache *pc) {
  pthread_mutex_lock(&pc->lock);
  rounds_note_activity_locked(pc);
  pthread_mutex_unlock(&pc->lock);
}

/* How long a thread that may wait does so for the reclaimer. */
#define PATIENCE_MS 20

bool rounds_await_garbage(struct page_cache *pc) {
  struct timespec until = clock_after_ms(PATIENCE_MS);
  int r = 0;
  pthread_mutex_lock(&pc->lock);
  uint64_t before = pc->garbage;
  rounds_wake_locked(pc);
  while (pc->garbage >= before && !pc->stop && r != ETIMEDOUT)
    r = pthread_cond_timedwait(&pc->reclaim.ended, &pc->lock, &until);
  bool is_less = pc->garbage < before;
  pthread_mutex_unlock(&pc->lock);
  return is_less;
}

bool rounds_await(struct page_cache *pc) {
  struct timespec until = clock_after_ms(10 * PATIENCE_MS);
  int r = 0;
  pthread_mutex_lock(&pc->lock);
  /* One may be under way that does not see what came since it began. */
  uint64_t enough = pc->reclaim.n_rounds + 2;
  while (pc->has_threads && !pc->stop && pc->reclaim.n_rounds < enough &&
         r != ETIMEDOUT) {
    rounds_wake_locked(pc);
    r = pthread_cond_timedwait(&pc->reclaim.ended, &pc->lock, &until);
  }
  bool has_ended = pc->reclaim.n_rounds >= enough;
  pthread_mutex_unlock(&pc->lock);
  return has_ended;
}

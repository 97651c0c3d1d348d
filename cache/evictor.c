/* The evictor: a thread that keeps room ahead of need. */
#include "cache/evictor.h"

#include "cache/budget.h"
#include "cache/evict.h"
#include "cache/internal.h"

/* Evicts until there is room.  The lock is held, but for the evictions. */
static void make_room_locked(struct page_cache *pc) {
  uint64_t high_free = budget_high_free(pc);
  while (!pc->stop && budget_wants_room_locked(pc, high_free)) {
    uint64_t before = pc->used - pc->garbage;
    pc->pulse.evictor = pc->pulse.asked;
    pthread_mutex_unlock(&pc->lock);
    evict(pc, before + high_free - pc->limit);
    pthread_mutex_lock(&pc->lock);
    if (pc->used - pc->garbage >= before)
      break; /* pinned, or taken at once: the next miss asks again */
  }
}

void *evictor_main(void *arg) {
  struct page_cache *pc = arg;
  pthread_setname_np(pthread_self(), "evictor");
  pthread_mutex_lock(&pc->lock);
  while (!pc->stop) {
    pthread_cond_wait(&pc->wanted, &pc->lock);
    pc->pulse.evictor = pc->pulse.asked;
    make_room_locked(pc);
  }
  pthread_mutex_unlock(&pc->lock);
  return NULL;
}

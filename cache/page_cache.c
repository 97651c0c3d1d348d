#include "cache/page_cache.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "base/lock.h"
#include "cache/barrier.h"
#include "cache/budget.h"
#include "cache/evict.h"
#include "cache/evictor.h"
#include "cache/image.h"
#include "cache/internal.h"
#include "cache/reclaim.h"
#include "cache/reclaimer.h"

/* Both or none.  0 or a negative errno. */
static int start_threads(struct page_cache *pc) {
  int r = pthread_create(&pc->evictor, NULL, evictor_main, pc);
  if (r)
    return -r;
  r = pthread_create(&pc->reclaimer, NULL, reclaimer_main, pc);
  if (r) {
    pthread_mutex_lock(&pc->lock);
    pc->stop = true;
    pthread_cond_signal(&pc->wanted);
    pthread_mutex_unlock(&pc->lock);
    pthread_join(pc->evictor, NULL);
    return -r;
  }
  fill_buffers_init(&pc->buffers);
  pthread_mutex_lock(&pc->lock);
  pc->has_threads = true;
  pthread_mutex_unlock(&pc->lock);
  return 0;
}

CLEANUP_FUNCTION(struct page_cache *, page_cache_free)

int page_cache_new(const struct page_cache_options *options,
                   struct page_cache **out) {
  CLEANUP(page_cache_freep) struct page_cache *pc = calloc(1, sizeof *pc);
  if (!pc)
    return -ENOMEM;
  pc->membarrier = barrier_register();
  pc->thread_began = options->thread_began;
  lock_init(&pc->lock);
  lock_init(&pc->pins_lock);
  pthread_condattr_t attr;
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&pc->wanted, &attr);
  pthread_cond_init(&pc->reclaim.wake, &attr);
  pthread_cond_init(&pc->reclaim.ended, &attr);
  pthread_condattr_destroy(&attr);
  int r = s3fifo_init(&pc->policy, 0, evict_take_used, evict_unused_pages, pc);
  pc->policy.expect = evict_expect;
  if (r == 0 && getrandom(&pc->policy.factor, sizeof pc->policy.factor,
                          GRND_NONBLOCK) < 0)
    pc->policy.factor = S3FIFO_FACTOR;
  pc->policy.factor |= 1;
  if (r == 0)
    r = budget_set(pc, options->budget);
  if (r == 0 && options->evictor)
    r = start_threads(pc);
  if (r < 0)
    return r;
  *out = STEAL(pc);
  return 0;
}

void page_cache_stop_threads(struct page_cache *pc) {
  if (!pc->has_threads)
    return;
  pthread_mutex_lock(&pc->lock);
  pc->stop = true;
  pthread_cond_signal(&pc->wanted);
  pthread_cond_signal(&pc->reclaim.wake);
  pthread_mutex_unlock(&pc->lock);
  pthread_join(pc->evictor, NULL);
  pthread_join(pc->reclaimer, NULL);
  reclaim_finish(pc); /* while mirrors without tables are punched */
  pthread_mutex_lock(&pc->lock);
  pc->has_threads = false;
  pthread_mutex_unlock(&pc->lock);
}

void page_cache_set_keeper(struct page_cache *pc,
                           struct mirror_keeper *keeper) {
  pc->keeper = keeper;
}

void page_cache_leave(struct page_cache *pc) {
  assert(!pc->has_threads);
  pc->is_left = true;
}

void page_cache_ask(struct page_cache *pc, uint64_t question) {
  pthread_mutex_lock(&pc->lock);
  pc->pulse.asked = question;
  pthread_cond_signal(&pc->wanted);
  pthread_cond_signal(&pc->reclaim.wake);
  pthread_mutex_unlock(&pc->lock);
}

const char *page_cache_silent(struct page_cache *pc, unsigned i,
                              uint64_t question) {
  pthread_mutex_lock(&pc->lock);
  const struct {
    const char *name;
    uint64_t answered;
  } threads[PAGE_CACHE_N_THREADS] = {{"evictor", pc->pulse.evictor},
                                     {"reclaimer", pc->pulse.reclaimer}};
  bool silent = pc->has_threads && threads[i].answered < question;
  const char *name = silent ? threads[i].name : NULL;
  pthread_mutex_unlock(&pc->lock);
  return name;
}

void page_cache_free(struct page_cache *pc) {
  if (!pc)
    return;
  page_cache_stop_threads(pc);
  for (uint32_t i = 0; i < pc->n_mirrors; i++)
    assert(!pc->mirrors[i]);
  assert(!pc->fills && pc->used == 0 && pc->leased == 0);
  free(pc->mirrors);
  fill_buffers_fini(&pc->buffers);
  s3fifo_fini(&pc->policy);
  pthread_cond_destroy(&pc->wanted);
  pthread_cond_destroy(&pc->reclaim.wake);
  pthread_cond_destroy(&pc->reclaim.ended);
  pthread_mutex_destroy(&pc->pins_lock);
  pthread_mutex_destroy(&pc->lock);
  free(pc);
}

int page_cache_set_budget(struct page_cache *pc, uint64_t budget) {
  return budget_set(pc, budget);
}

void page_cache_get_stats(struct page_cache *pc, struct page_cache_stats *out) {
  pthread_mutex_lock(&pc->lock);
  *out = pc->stats;
  out->budget = pc->budget;
  out->used = pc->used;
  pthread_mutex_unlock(&pc->lock);
}

uint64_t page_cache_allocated(struct page_cache *pc) {
  uint64_t sum = 0;
  pthread_mutex_lock(&pc->lock);
  for (uint32_t i = 0; i < pc->n_mirrors; i++)
    if (pc->mirrors[i])
      sum +=
          mirror_page_bytes(pc->mirrors[i]) + mirror_meta_bytes(pc->mirrors[i]);
  pthread_mutex_unlock(&pc->lock);
  return sum;
}

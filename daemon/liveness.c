#include "daemon/liveness.h"

#include <sys/eventfd.h>

#include "cache/page_cache.h"
#include "daemon/worker.h"

void liveness_init(struct liveness *l, int wake_fd,
                   struct worker *const *workers, unsigned n_workers,
                   struct page_cache *cache,
                   const struct liveness_thread *other) {
  *l = (struct liveness){.wake_fd = wake_fd,
                         .workers = workers,
                         .n_workers = n_workers,
                         .cache = cache,
                         .other = *other};
  pthread_mutex_init(&l->lock, NULL);
}

void liveness_fini(struct liveness *l) { pthread_mutex_destroy(&l->lock); }

void liveness_main_turned(struct liveness *l) {
  uint64_t asked = atomic_load_explicit(&l->main_asked, memory_order_relaxed);
  atomic_store_explicit(&l->main_answered, asked, memory_order_relaxed);
}

static void ask_main(struct liveness *l, uint64_t question) {
  /* The eventfd orders it before the loop's look. */
  atomic_store_explicit(&l->main_asked, question, memory_order_relaxed);
  eventfd_write(l->wake_fd, 1); /* a full counter wakes, too */
}

uint64_t liveness_ask(struct liveness *l) {
  pthread_mutex_lock(&l->lock);
  uint64_t question = ++l->last;
  ask_main(l, question);
  for (unsigned i = 0; i < l->n_workers; i++)
    worker_ask(l->workers[i], question);
  page_cache_ask(l->cache, question);
  if (l->other.name)
    l->other.ask(l->other.arg, question);
  pthread_mutex_unlock(&l->lock);
  return question;
}

/* The same for one loop alone. */
static const char *silent_one(struct liveness *l, uint64_t question,
                              unsigned i) {
  if (i == 0) {
    uint64_t answered =
        atomic_load_explicit(&l->main_answered, memory_order_relaxed);
    return answered < question ? "main" : NULL;
  }
  i--;
  if (i < l->n_workers) {
    struct worker *w = l->workers[i];
    return worker_has_answered(w, question) ? NULL : w->name;
  }
  i -= l->n_workers;
  if (i < PAGE_CACHE_N_THREADS)
    return page_cache_silent(l->cache, i, question);
  const struct liveness_thread *other = &l->other;
  return !other->name || other->has_answered(other->arg, question)
             ? NULL
             : other->name;
}

const char *liveness_silent(struct liveness *l, uint64_t question,
                            unsigned *next) {
  unsigned n = 1 + l->n_workers + PAGE_CACHE_N_THREADS + 1;
  const char *name = NULL;
  while (!name && *next < n)
    name = silent_one(l, question, (*next)++);
  return name;
}

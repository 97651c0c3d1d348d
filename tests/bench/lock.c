/* lock: how long threads hold the cache's lock, for each miss and for each page
 * that is evicted.
 *
 *   lock [--seconds N]
 *
 * The lock is the only thing that all workers of a daemon share, so the time
 * under it bounds what further processors bring.  One thread misses random
 * pages of an image that is 64 times the cache; the cache's own evictor makes
 * room.  The source is memory, and is read outside the lock.  Rows differ in
 * how many pages a miss asks for, and how many pin tables the evictor scans.
 *
 * The linker replaces the calls of the mutex and of its condition variables by
 * those below (--wrap), which read the clock around a hold.  A thread that
 * waits for a condition does not hold the lock.  What the clock itself takes is
 * measured, shown, and taken off.
 *
 * Targets are reported and judge nothing: exit status 0 unless something
 * failed, then 1; 2 for a bad command line. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cache/internal.h"
#include "cache/view.h"
#include "tests/bench/card.h"
#include "tests/bench/memory_cache.h"
#include "tests/bench/rig.h"

enum {
  PAGE_SHIFT = 12,
  CACHE_PAGES = 1 << 14,
  IMAGE_PAGES = CACHE_PAGES * 64,
  MAX_TABLES = 1024,
  TURN = 1000, /* misses between two looks at the clock */
};

#define MISS_MOST_US 1.0
#define EVICTED_MOST_US 0.3

/* ---- The lock ------------------------------------------------------------ */

/* The holds of a thread.  Only that thread writes them.  A row reads those of
 * the evictor between its batches, and may miss the last one. */
struct holds {
  double begun_ns, sum_ns, longest_ns;
  uint64_t n;
};

static pthread_mutex_t *watched;
static struct holds evictor, reclaimer, misser;
static __thread struct holds *mine;
static double clock_ns; /* what a hold of nothing seems to take */

static bool is_timed(const pthread_mutex_t *m) { return m == watched && mine; }

static void begin_hold(void) { mine->begun_ns = rig_now_ns(CLOCK_MONOTONIC); }

static void end_hold(void) {
  double ns = rig_now_ns(CLOCK_MONOTONIC) - mine->begun_ns - clock_ns;
  mine->sum_ns += ns;
  mine->n++;
  if (ns > mine->longest_ns)
    mine->longest_ns = ns;
}

int __real_pthread_mutex_lock(pthread_mutex_t *m);
int __real_pthread_mutex_unlock(pthread_mutex_t *m);
int __real_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int __real_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m,
                                  const struct timespec *until);

int __wrap_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *m);
int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m);
int __wrap_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m,
                                  const struct timespec *until);

int __wrap_pthread_mutex_lock(pthread_mutex_t *m) {
  int r = __real_pthread_mutex_lock(m);
  if (r == 0 && is_timed(m))
    begin_hold();
  return r;
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *m) {
  if (is_timed(m))
    end_hold();
  return __real_pthread_mutex_unlock(m);
}

/* A wait for a condition lies between two holds. */
#define WAIT(call)                                                             \
  do {                                                                         \
    if (is_timed(m))                                                           \
      end_hold();                                                              \
    int r = call;                                                              \
    if (is_timed(m))                                                           \
      begin_hold();                                                            \
    return r;                                                                  \
  } while (0)

int __wrap_pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m) {
  WAIT(__real_pthread_cond_wait(c, m));
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m,
                                  const struct timespec *until) {
  WAIT(__real_pthread_cond_timedwait(c, m, until));
}

/* ---- The cache ----------------------------------------------------------- */

static void began(bool is_evictor) {
  mine = is_evictor ? &evictor : &reclaimer;
}

struct rows {
  struct memory_cache memory;
  struct view views[MAX_TABLES];
  unsigned n_views;
};

static void open_cache(struct rows *b) {
  memory_cache_open(&b->memory, PAGE_SHIFT, CACHE_PAGES, IMAGE_PAGES, began);
  watched = &b->memory.cache->lock;
}

static void close_cache(struct rows *b) {
  while (b->n_views)
    view_close(&b->views[--b->n_views]);
  memory_cache_close(&b->memory);
}

/* ---- Measuring ----------------------------------------------------------- */

/* What the clock takes of a hold. */
static double measure_clock(void) {
  double times[1001];
  for (int i = 0; i < 1001; i++) {
    double begin = rig_now_ns(CLOCK_MONOTONIC);
    times[i] = rig_now_ns(CLOCK_MONOTONIC) - begin;
  }
  return rig_median(times, 1001);
}

static void run(struct rows *b, uint32_t n_pages, double seconds) {
  struct page_cache_stats before, after;
  double end = rig_now_ns(CLOCK_MONOTONIC) + seconds * 1e9;
  uint64_t n_misses = 0;
  page_cache_get_stats(b->memory.cache, &before);
  struct holds of_evictor = evictor;
  misser = (struct holds){0};
  mine = &misser;
  for (; rig_now_ns(CLOCK_MONOTONIC) < end; n_misses += TURN)
    for (int i = 0; i < TURN; i++)
      memory_cache_miss(&b->memory, n_pages);
  mine = NULL;
  page_cache_get_stats(b->memory.cache, &after);
  double n_evicted = (double)(after.n_evicted_pages - before.n_evicted_pages);
  double evicting_ns = evictor.sum_ns - of_evictor.sum_ns;
  double miss_us = misser.sum_ns / (double)n_misses / 1e3;
  double evicted_us = n_evicted > 0 ? evicting_ns / n_evicted / 1e3 : 0;
  printf("| %u | %u | %.0f | %.2f | %.2f | %.0f | %s | %.2f | %.2f | %s |\n",
         n_pages, b->n_views, (double)n_misses / seconds / 1e3, miss_us,
         (double)misser.n / (double)n_misses, misser.longest_ns / 1e3,
         miss_us <= MISS_MOST_US ? "reached" : "**missed**", evicted_us,
         n_evicted > 0 ? (double)(evictor.n - of_evictor.n) / n_evicted : 0,
         evicted_us <= EVICTED_MOST_US ? "reached" : "**missed**");
}

static void measure(struct rows *b, double seconds) {
  static const unsigned n_tables[] = {0, 64, MAX_TABLES};
  printf("| pages a miss | pin tables | thousand misses/s | us a miss "
         "| holds a miss | longest, us | at most %.1f us "
         "| us an evicted page | holds a page | at most %.1f us |\n"
         "| ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: "
         "| --- |\n",
         MISS_MOST_US, EVICTED_MOST_US);
  run(b, 16, seconds); /* fills the cache */
  for (size_t i = 0; i < sizeof n_tables / sizeof *n_tables; i++) {
    for (; b->n_views < n_tables[i]; b->n_views++)
      memory_cache_check(view_open(&b->views[b->n_views], b->memory.mirror),
                         "pin table");
    run(b, 1, seconds);
    run(b, 16, seconds);
  }
}

int main(int argc, char **argv) {
  static struct rows b;
  double seconds = 3;
  char none[] = "", *end = none;
  if (argc == 3 && strcmp(argv[1], "--seconds") == 0)
    seconds = strtod(argv[2], &end);
  if ((argc != 1 && argc != 3) || *end || !(seconds > 0)) {
    fputs("usage: lock [--seconds N]\n", stderr);
    return 2;
  }
  card_print(rig_make(RIG_CHUNK * UINT64_C(64), RIG_CHUNK));
  clock_ns = measure_clock();
  printf("\nTime under the cache's lock, without the %.0f ns of the clock\n\n",
         clock_ns);
  open_cache(&b);
  measure(&b, seconds);
  close_cache(&b);
  return 0;
}

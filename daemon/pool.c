/* Idle threads lie on a stack, and each sleeps on a semaphore of its own.  No
 * runnable job waits while a thread sleeps:
 *
 *   - a thread sleeps only when it finds none, and says so under the lock;
 *   - a submit takes a sleeper off the stack and wakes it;
 *   - a job that ends makes at most one other runnable, and its thread looks
 *     next; if it takes another, a submit woke someone for that, who looks too.
 *
 * It is no condition variable because glibc's loses wake-ups where several
 * threads wait, up to 2.40 (sourceware.org/bugzilla, 25847). */
#include "daemon/pool.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdlib.h>

struct lane {
  struct job *head, **tail; /* first in, first out */
  unsigned n_running;
};

struct pool {
  /* A leaf: nothing is called under it. */
  pthread_mutex_t lock;
  struct idle *idle; /* a stack; guarded by lock, as is all below */
  struct lane *lanes;
  unsigned n_lanes;    /* fixed */
  unsigned n_blocking; /* threads that run jobs of lanes but the last */
  unsigned next_lane;  /* whose turn it is */
  unsigned lane_limit; /* threads that a lane but the last may have, */
  unsigned all_limit;  /* and all of those together; fixed */
  bool stopping;

  pthread_t *threads; /* the starter's */
  unsigned n_threads, n_started;
};

/* A thread that sleeps; on its stack. */
struct idle {
  struct idle *next;
  sem_t wake;
};

struct pool *pool_new(unsigned n_threads, unsigned n_lanes) {
  struct pool *pool = calloc(1, sizeof *pool);
  if (!pool)
    return NULL;
  pthread_mutex_init(&pool->lock, NULL);
  pool->lanes = calloc(n_lanes, sizeof *pool->lanes);
  pool->threads = calloc(n_threads, sizeof *pool->threads);
  if (!pool->lanes || !pool->threads) {
    pool_free(pool);
    return NULL;
  }
  for (unsigned i = 0; i < n_lanes; i++)
    pool->lanes[i].tail = &pool->lanes[i].head;
  pool->n_lanes = n_lanes;
  pool->n_threads = n_threads;
  pool->all_limit = n_threads > 1 ? n_threads - 1 : n_threads;
  pool->lane_limit = n_lanes > 2 && pool->all_limit > 1 ? pool->all_limit - 1
                                                        : pool->all_limit;
  return pool;
}

static struct job *lane_pop(struct lane *lane) {
  struct job *job = lane->head;
  lane->head = job->next;
  if (!lane->head)
    lane->tail = &lane->head;
  return job;
}

static bool pool_lane_is_last(const struct pool *pool,
                              const struct lane *lane) {
  return lane == &pool->lanes[pool->n_lanes - 1];
}

static bool pool_lane_may_run(const struct pool *pool,
                              const struct lane *lane) {
  return lane->head && (pool_lane_is_last(pool, lane) ||
                        (lane->n_running < pool->lane_limit &&
                         pool->n_blocking < pool->all_limit));
}

/* A thread begins (`by` is 1) or ends (-1) a job of the lane. */
static void pool_count(struct pool *pool, struct lane *lane, int by) {
  lane->n_running += (unsigned)by;
  if (!pool_lane_is_last(pool, lane))
    pool->n_blocking += (unsigned)by;
}

/* The lane whose turn it is among those that may run; NULL: none. */
static struct lane *pool_next_lane_locked(struct pool *pool) {
  for (unsigned i = 0; i < pool->n_lanes; i++) {
    struct lane *lane = &pool->lanes[(pool->next_lane + i) % pool->n_lanes];
    if (pool_lane_may_run(pool, lane))
      return lane;
  }
  return NULL;
}

/* The thread cannot be gone before the post is over: it needs the lock. */
static void pool_wake_one_locked(struct pool *pool) {
  struct idle *idle = pool->idle;
  if (!idle)
    return;
  pool->idle = idle->next;
  sem_post(&idle->wake);
}

/* Gives back the lock while it sleeps. */
static void pool_sleep_locked(struct pool *pool, struct idle *self) {
  self->next = pool->idle;
  pool->idle = self;
  pthread_mutex_unlock(&pool->lock);
  while (sem_wait(&self->wake) < 0 && errno == EINTR)
    ;
  pthread_mutex_lock(&pool->lock);
}

/* Takes the lane's first job and runs it. */
static void pool_run_locked(struct pool *pool, struct lane *lane) {
  struct job *job = lane_pop(lane);
  pool->next_lane = (unsigned)(lane - pool->lanes) + 1;
  pool_count(pool, lane, 1);
  pthread_mutex_unlock(&pool->lock);
  job->run(job);
  pthread_mutex_lock(&pool->lock);
  pool_count(pool, lane, -1);
}

static void *pool_thread(void *arg) {
  struct pool *pool = arg;
  struct idle self;
  sem_init(&self.wake, 0, 0);
  pthread_mutex_lock(&pool->lock);
  while (!pool->stopping) {
    struct lane *lane = pool_next_lane_locked(pool);
    if (lane)
      pool_run_locked(pool, lane);
    else
      pool_sleep_locked(pool, &self);
  }
  pthread_mutex_unlock(&pool->lock);
  sem_destroy(&self.wake);
  return NULL;
}

int pool_start(struct pool *pool) {
  for (; pool->n_started < pool->n_threads; pool->n_started++) {
    int r = pthread_create(&pool->threads[pool->n_started], NULL, pool_thread,
                           pool);
    if (r)
      return -r;
  }
  return 0;
}

void pool_submit(struct pool *pool, unsigned lane, struct job *job) {
  assert(lane < pool->n_lanes);
  job->next = NULL;
  pthread_mutex_lock(&pool->lock);
  assert(!pool->stopping);
  *pool->lanes[lane].tail = job;
  pool->lanes[lane].tail = &job->next;
  pool_wake_one_locked(pool);
  pthread_mutex_unlock(&pool->lock);
}

static void pool_abandon_all(struct pool *pool) {
  for (unsigned i = 0; i < pool->n_lanes;) {
    pthread_mutex_lock(&pool->lock);
    struct job *job = pool->lanes[i].head ? lane_pop(&pool->lanes[i]) : NULL;
    pthread_mutex_unlock(&pool->lock);
    if (!job)
      i++;
    else if (job->abandon)
      job->abandon(job);
    else
      job->run(job);
  }
}

void pool_stop(struct pool *pool) {
  pthread_mutex_lock(&pool->lock);
  pool->stopping = true;
  while (pool->idle)
    pool_wake_one_locked(pool);
  pthread_mutex_unlock(&pool->lock);
  /* Before the join too: whoever waits for a queued fill need not wait for
   * the running ones. */
  pool_abandon_all(pool);
  for (unsigned i = 0; i < pool->n_started; i++)
    pthread_join(pool->threads[i], NULL);
  pool->n_started = 0;
  pool_abandon_all(pool);
}

void pool_free(struct pool *pool) {
  if (!pool)
    return;
  assert(pool->n_started == 0);
  pthread_mutex_destroy(&pool->lock);
  free(pool->lanes);
  free(pool->threads);
  free(pool);
}

#include "daemon/pool.h"

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

struct lane {
  struct job *head, **tail; /* first in, first out */
  unsigned n_running;
};

struct pool {
  /* A leaf: nothing is called under it. */
  pthread_mutex_t lock;
  pthread_cond_t work; /* a lane may have become runnable, or `stopping` */
  struct lane *lanes;  /* guarded by lock, as is all below */
  unsigned n_lanes;    /* fixed */
  unsigned next_lane;  /* whose turn it is */
  unsigned lane_limit; /* threads that one lane may have; fixed */
  bool stopping;

  pthread_t *threads; /* the starter's */
  unsigned n_threads, n_started;
};

struct pool *pool_new(unsigned n_threads, unsigned n_lanes) {
  struct pool *pool = calloc(1, sizeof *pool);
  if (!pool)
    return NULL;
  pthread_mutex_init(&pool->lock, NULL);
  pthread_cond_init(&pool->work, NULL);
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
  pool->lane_limit = n_lanes > 1 && n_threads > 1 ? n_threads - 1 : n_threads;
  return pool;
}

static struct job *lane_pop(struct lane *lane) {
  struct job *job = lane->head;
  lane->head = job->next;
  if (!lane->head)
    lane->tail = &lane->head;
  return job;
}

/* The next job in turn, and its lane; NULL if there is none that may run. */
static struct job *pool_take_locked(struct pool *pool, struct lane **out) {
  for (unsigned i = 0; i < pool->n_lanes; i++) {
    unsigned at = (pool->next_lane + i) % pool->n_lanes;
    struct lane *lane = &pool->lanes[at];
    if (!lane->head || lane->n_running >= pool->lane_limit)
      continue;
    pool->next_lane = at + 1;
    lane->n_running++;
    *out = lane;
    return lane_pop(lane);
  }
  return NULL;
}

static void *pool_thread(void *arg) {
  struct pool *pool = arg;
  struct lane *lane;
  pthread_mutex_lock(&pool->lock);
  while (!pool->stopping) {
    struct job *job = pool_take_locked(pool, &lane);
    if (!job) {
      pthread_cond_wait(&pool->work, &pool->lock);
      continue;
    }
    pthread_mutex_unlock(&pool->lock);
    job->run(job);
    pthread_mutex_lock(&pool->lock);
    /* A lane that was at its limit and has more: this thread takes it itself
     * on its next round, so nobody needs waking. */
    lane->n_running--;
  }
  pthread_mutex_unlock(&pool->lock);
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
  *pool->lanes[lane].tail = job;
  pool->lanes[lane].tail = &job->next;
  pthread_cond_signal(&pool->work);
  pthread_mutex_unlock(&pool->lock);
}

/* A job that is run at the stop may submit another: until none is left. */
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
  pthread_cond_broadcast(&pool->work);
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
  pthread_cond_destroy(&pool->work);
  pthread_mutex_destroy(&pool->lock);
  free(pool->lanes);
  free(pool->threads);
  free(pool);
}

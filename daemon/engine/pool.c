/* A job is given to a thread under the lock, before that thread runs: to one
 * that is idle, or to one that is made for it.  So the counts of what runs are
 * exact at any time, however long a thread takes to wake up, and P3 needs two
 * rules:
 *
 *   - A submit gives the jobs that may run to threads, as long as there are
 *     any.
 *   - A thread whose job has ended takes a job that may run, and then gives the
 *     others that may run to threads: when one lane runs fewer jobs, two other
 *     lanes may be allowed one more each.
 *
 * Idle threads are on a stack, and each sleeps on a semaphore of its own.  A
 * condition variable of glibc up to 2.40 may lose a wake-up when several
 * threads wait on it (sourceware.org/bugzilla, 25847).
 *
 * A thread of the pool, the maker, makes all the others.  The thread that needs
 * one waits for that.  The reason: a thread inherits the sandbox of its maker,
 * and the threads that submit jobs may do less than those that run them
 * (sandbox.h).
 *
 * A thread that ends joins the one that ended before it.  pool_stop() joins the
 * last one and the maker. */
#include "daemon/engine/pool.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <time.h>

#include "base/clock.h"
#include "base/lock.h"
#include "daemon/sandbox.h"

/* There may be many threads, and no job needs a deep stack.  With
 * vm.overcommit_memory = 2 the whole of each stack counts as used memory. */
#define STACK_LEN ((size_t)512 << 10)

/* But for what is fixed, under the pool's lock. */
struct pool_lane {
  struct pool *pool;                 /* fixed */
  struct pool_job *head, **tail;     /* first in, first out */
  TAILQ_ENTRY(pool_lane) in_waiting; /* while it has a job that is queued */
  unsigned n_running;                /* jobs that threads were given */
  unsigned n_own;                    /* threads */
  bool shares;                       /* fixed */
  bool is_freed;                     /* it goes with its last job */
};

TAILQ_HEAD(lane_queue, pool_lane);

/* A thread; its own, but for what is under the pool's lock. */
struct pool_thread {
  struct pool *pool;
  sem_t wake; /* posted once it is taken off the stack */
  /* Guarded by the lock. */
  bool is_idle;                     /* on the stack */
  struct pool_thread *above, *next; /* there */
  struct pool_lane *lane;           /* of the job that it was given */
  struct pool_job *job;             /* NULL: none */
};

/* A thread that the maker is to make, and for which another thread waits. */
struct making {
  struct pool_thread *thread;
  int result;
  sem_t done;
  STAILQ_ENTRY(making) in;
};

struct pool {
  /* A leaf: nothing is called under it. */
  pthread_mutex_t lock;
  pthread_attr_t attr; /* of the threads; fixed */
  int idle_ms;         /* fixed */
  pthread_t maker;     /* fixed, while it has one */
  sem_t make;          /* posted for each `making`, and for the maker's end */
  /* Guarded by lock. */
  STAILQ_HEAD(, making) makings;
  bool has_maker;
  struct lane_queue waiting; /* lanes with queued jobs, by their turns */
  unsigned n_lanes;
  unsigned n_shared;        /* fixed: shared threads, */
  unsigned n_taken;         /* and how many of them run jobs */
  struct pool_thread *idle; /* a stack */
  unsigned n_threads;
  bool started, stopping;
  bool has_ended; /* a thread that is not joined yet: */
  pthread_t ended;
  sem_t all_ended; /* posted when the last one ends at the stop */
};

struct pool *pool_new(const struct pool_options *options) {
  struct pool *pool = calloc(1, sizeof *pool);
  if (!pool)
    return NULL;
  if (pthread_attr_init(&pool->attr) != 0) {
    free(pool);
    return NULL;
  }
  pthread_attr_setstacksize(&pool->attr, STACK_LEN);
  lock_init(&pool->lock);
  sem_init(&pool->all_ended, 0, 0);
  sem_init(&pool->make, 0, 0);
  TAILQ_INIT(&pool->waiting);
  STAILQ_INIT(&pool->makings);
  pool->n_shared = options->n_shared;
  pool->idle_ms = options->idle_ms;
  return pool;
}

/* ---- Lanes --------------------------------------------------------------- */

struct pool_lane *pool_lane_new(struct pool *pool, unsigned n_own,
                                bool shares) {
  struct pool_lane *lane = malloc(sizeof *lane);
  if (!lane)
    return NULL;
  *lane = (struct pool_lane){
      .pool = pool, .tail = &lane->head, .n_own = n_own, .shares = shares};
  pthread_mutex_lock(&pool->lock);
  pool->n_lanes++;
  pthread_mutex_unlock(&pool->lock);
  return lane;
}

static void lane_push_locked(struct pool_lane *lane, struct pool_job *job) {
  lock_assert_held(&lane->pool->lock);
  if (!lane->head)
    TAILQ_INSERT_TAIL(&lane->pool->waiting, lane, in_waiting);
  job->next = NULL;
  *lane->tail = job;
  lane->tail = &job->next;
}

/* Takes the first job out of a lane.  The lane goes behind the others, so that
 * each has its turn. */
static struct pool_job *lane_pop_locked(struct pool_lane *lane) {
  lock_assert_held(&lane->pool->lock);
  struct pool_job *job = lane->head;
  TAILQ_REMOVE(&lane->pool->waiting, lane, in_waiting);
  lane->head = job->next;
  if (lane->head)
    TAILQ_INSERT_TAIL(&lane->pool->waiting, lane, in_waiting);
  else
    lane->tail = &lane->head;
  return job;
}

/* Undoes lane_pop_locked(): the lane is the first again. */
static void lane_unpop_locked(struct pool_lane *lane, struct pool_job *job) {
  lock_assert_held(&lane->pool->lock);
  if (lane->head)
    TAILQ_REMOVE(&lane->pool->waiting, lane, in_waiting);
  else
    lane->tail = &job->next;
  TAILQ_INSERT_HEAD(&lane->pool->waiting, lane, in_waiting);
  job->next = lane->head;
  lane->head = job;
}

/* Frees a lane if its owner has freed it and its last job has ended. */
static void lane_check_locked(struct pool_lane *lane) {
  lock_assert_held(&lane->pool->lock);
  if (!lane->is_freed || lane->head || lane->n_running)
    return;
  lane->pool->n_lanes--;
  free(lane);
}

void pool_lane_free(struct pool_lane *lane) {
  if (!lane)
    return;
  struct pool *pool = lane->pool;
  pthread_mutex_lock(&pool->lock);
  lane->is_freed = true;
  lane_check_locked(lane);
  pthread_mutex_unlock(&pool->lock);
}

static bool lane_may_run_locked(const struct pool_lane *lane) {
  lock_assert_held(&lane->pool->lock);
  const struct pool *pool = lane->pool;
  if (lane->n_running < lane->n_own)
    return true;
  return lane->shares &&
         lane->n_running - lane->n_own < pool->n_shared - pool->n_taken;
}

/* The lane whose turn it is among those that may run; NULL: none. */
static struct pool_lane *pool_next_lane_locked(struct pool *pool) {
  lock_assert_held(&pool->lock);
  struct pool_lane *lane;
  TAILQ_FOREACH(lane, &pool->waiting, in_waiting)
    if (lane_may_run_locked(lane))
      return lane;
  return NULL;
}

/* ---- Giving jobs to threads ---------------------------------------------- */

/* Gives the lane's first job to a thread that has none. */
static void pool_give_locked(struct pool *pool, struct pool_thread *t,
                             struct pool_lane *lane) {
  lock_assert_held(&pool->lock);
  pool->n_taken += lane->shares && lane->n_running >= lane->n_own;
  lane->n_running++;
  t->lane = lane;
  t->job = lane_pop_locked(lane);
}

/* The thread's job is over, or was not begun. */
static void pool_take_back_locked(struct pool *pool, struct pool_thread *t) {
  lock_assert_held(&pool->lock);
  t->lane->n_running--;
  pool->n_taken -= t->lane->shares && t->lane->n_running >= t->lane->n_own;
  t->job = NULL;
}

static void idle_push_locked(struct pool *pool, struct pool_thread *t) {
  lock_assert_held(&pool->lock);
  t->is_idle = true;
  t->above = NULL;
  t->next = pool->idle;
  if (t->next)
    t->next->above = t;
  pool->idle = t;
}

static void idle_remove_locked(struct pool *pool, struct pool_thread *t) {
  lock_assert_held(&pool->lock);
  t->is_idle = false;
  *(t->above ? &t->above->next : &pool->idle) = t->next;
  if (t->next)
    t->next->above = t->above;
}

/* The lock is held during the post: the woken thread needs it before it can
 * end, so the semaphore exists until the post has returned. */
static void pool_wake_locked(struct pool *pool, struct pool_thread *t) {
  lock_assert_held(&pool->lock);
  idle_remove_locked(pool, t);
  sem_post(&t->wake);
}

static void *pool_thread(void *arg);

/* Makes a thread each time it is woken.  It ends when it is woken and has none
 * to make. */
static void *maker_thread(void *arg) {
  struct pool *pool = arg;
  struct making *making;
  pthread_t id; /* not in the thread, which is its own to free */
  pthread_setname_np(pthread_self(), "pool-maker");
  sandbox_enter(SANDBOX_POOL);
  for (;;) {
    while (sem_wait(&pool->make) < 0 && errno == EINTR)
      ;
    pthread_mutex_lock(&pool->lock);
    making = STAILQ_FIRST(&pool->makings);
    if (making)
      STAILQ_REMOVE_HEAD(&pool->makings, in);
    pthread_mutex_unlock(&pool->lock);
    if (!making)
      return NULL;
    making->result =
        -pthread_create(&id, &pool->attr, pool_thread, making->thread);
    sem_post(&making->done);
  }
}

/* Has the maker make it, which waits for nothing.  0 or a negative errno. */
static int pool_have_made(struct pool *pool, struct pool_thread *t) {
  struct making making = {.thread = t};
  sem_init(&making.done, 0, 0);
  pthread_mutex_lock(&pool->lock);
  STAILQ_INSERT_TAIL(&pool->makings, &making, in);
  pthread_mutex_unlock(&pool->lock);
  sem_post(&pool->make);
  while (sem_wait(&making.done) < 0 && errno == EINTR)
    ;
  sem_destroy(&making.done);
  return making.result;
}

/* Makes a thread for the lane's first job, or an idle one; gives back the lock
 * meanwhile.  0, or a negative errno: then the job is where it was. */
static int pool_make_thread_locked(struct pool *pool, struct pool_lane *lane) {
  lock_assert_held(&pool->lock);
  struct pool_thread *t = calloc(1, sizeof *t);
  if (!t)
    return -ENOMEM;
  t->pool = pool;
  sem_init(&t->wake, 0, 0);
  if (lane)
    pool_give_locked(pool, t, lane);
  else
    idle_push_locked(pool, t);
  pool->n_threads++;
  pthread_mutex_unlock(&pool->lock);
  int r = pool_have_made(pool, t);
  pthread_mutex_lock(&pool->lock);
  if (r == 0)
    return 0;
  pool->n_threads--;
  if (lane) {
    lane_unpop_locked(lane, t->job);
    pool_take_back_locked(pool, t);
  } else {
    idle_remove_locked(pool, t);
  }
  sem_destroy(&t->wake);
  free(t);
  return r;
}

/* Gives the jobs that may run to threads. */
static void pool_dispatch_locked(struct pool *pool) {
  lock_assert_held(&pool->lock);
  struct pool_lane *lane;
  bool can_make = true;
  while (!pool->stopping && (lane = pool_next_lane_locked(pool))) {
    struct pool_thread *t = pool->idle;
    if (t) {
      pool_give_locked(pool, t, lane);
      pool_wake_locked(pool, t);
    } else if (can_make) {
      /* If not, one may have become idle meanwhile. */
      can_make = pool_make_thread_locked(pool, lane) == 0;
    } else {
      return;
    }
  }
}

void pool_submit(struct pool_lane *lane, struct pool_job *job) {
  struct pool *pool = lane->pool;
  pthread_mutex_lock(&pool->lock);
  assert(!pool->stopping && !lane->is_freed);
  lane_push_locked(lane, job);
  if (pool->started)
    pool_dispatch_locked(pool);
  pthread_mutex_unlock(&pool->lock);
}

void pool_lane_set_own(struct pool_lane *lane, unsigned n_own) {
  struct pool *pool = lane->pool;
  assert(!lane->shares && n_own > 0);
  pthread_mutex_lock(&pool->lock);
  lane->n_own = n_own;
  if (pool->started)
    pool_dispatch_locked(pool);
  pthread_mutex_unlock(&pool->lock);
}

unsigned pool_n_threads(struct pool *pool) {
  pthread_mutex_lock(&pool->lock);
  unsigned n = pool->n_threads;
  pthread_mutex_unlock(&pool->lock);
  return n;
}

/* ---- A thread ------------------------------------------------------------ */

/* Sleeps until it is woken; if `until` is not NULL, no longer than that. */
static void thread_sleep(struct pool_thread *t, const struct timespec *until) {
  int r;
  do
    r = until ? sem_clockwait(&t->wake, CLOCK_MONOTONIC, until)
              : sem_wait(&t->wake);
  while (r < 0 && errno == EINTR);
}

/* Called when a thread is about to sleep: no job that may run is queued
 * then. */
static void pool_check_locked(const struct pool *pool) {
  lock_assert_held(&pool->lock);
#ifdef CACHETD_DEBUG_CHECKS
  unsigned n_idle = 0;
  const struct pool_thread *above = NULL;
  for (const struct pool_thread *t = pool->idle; t; above = t, t = t->next) {
    assert(t->is_idle && !t->job && t->above == above);
    n_idle++;
  }
  assert(n_idle <= pool->n_threads && pool->n_taken <= pool->n_shared);
  const struct pool_lane *lane;
  TAILQ_FOREACH(lane, &pool->waiting, in_waiting) {
    assert(lane->head && lane->pool == pool);
    assert(!n_idle || !pool->started || pool->stopping ||
           !lane_may_run_locked(lane)); /* P3 */
  }
#endif
}

/* Idle until it is given a job.  False: it is to end.  Gives back the lock
 * while it sleeps. */
static bool thread_await_job_locked(struct pool_thread *t) {
  lock_assert_held(&t->pool->lock);
  struct pool *pool = t->pool;
  while (!t->job && !pool->stopping) {
    bool stays = pool->n_threads == 1;
    struct timespec until = clock_after_ms(pool->idle_ms);
    if (!t->is_idle) {
      sem_trywait(&t->wake); /* it may have been woken before it slept */
      idle_push_locked(pool, t);
    }
    pool_check_locked(pool);
    pthread_mutex_unlock(&pool->lock);
    thread_sleep(t, stays ? NULL : &until);
    pthread_mutex_lock(&pool->lock);
    if (t->is_idle && pool->n_threads > 1) {
      idle_remove_locked(pool, t);
      return false;
    }
  }
  return t->job != NULL;
}

/* Runs what it was given, and what may run next, until there is nothing. */
static void thread_run_locked(struct pool_thread *t) {
  lock_assert_held(&t->pool->lock);
  struct pool *pool = t->pool;
  struct pool_lane *lane;
  while (t->job) {
    struct pool_job *job = t->job;
    pthread_mutex_unlock(&pool->lock);
    job->run(job);
    pthread_mutex_lock(&pool->lock);
    struct pool_lane *ended = t->lane;
    pool_take_back_locked(pool, t);
    lane_check_locked(ended);
    if (!pool->stopping && (lane = pool_next_lane_locked(pool)))
      pool_give_locked(pool, t, lane);
    pool_dispatch_locked(pool);
  }
}

/* Gives back the lock, for good. */
static void thread_end_locked(struct pool_thread *t) {
  lock_assert_held(&t->pool->lock);
  struct pool *pool = t->pool;
  bool joins = pool->has_ended;
  pthread_t before = pool->ended;
  pool->has_ended = true;
  pool->ended = pthread_self();
  if (--pool->n_threads == 0)
    sem_post(&pool->all_ended);
  pthread_mutex_unlock(&pool->lock);
  if (joins)
    pthread_join(before, NULL);
  sem_destroy(&t->wake);
  free(t);
}

static void *pool_thread(void *arg) {
  struct pool_thread *t = arg;
  pthread_setname_np(pthread_self(), "pool");
  pthread_mutex_lock(&t->pool->lock);
  while (thread_await_job_locked(t))
    thread_run_locked(t);
  thread_end_locked(t);
  return NULL;
}

/* ---- Start and stop ------------------------------------------------------ */

int pool_start(struct pool *pool) {
  int r = -pthread_create(&pool->maker, &pool->attr, maker_thread, pool);
  if (r < 0)
    return r;
  pthread_mutex_lock(&pool->lock);
  pool->has_maker = true;
  r = pool_make_thread_locked(pool, NULL);
  pool->started = r == 0;
  if (pool->started)
    pool_dispatch_locked(pool);
  pthread_mutex_unlock(&pool->lock);
  return r;
}

/* Ends the maker.  All other threads have ended, and none is to be made. */
static void pool_end_maker(struct pool *pool) {
  pthread_mutex_lock(&pool->lock);
  bool has_maker = pool->has_maker;
  pool->has_maker = false;
  pthread_mutex_unlock(&pool->lock);
  if (!has_maker)
    return;
  sem_post(&pool->make);
  pthread_join(pool->maker, NULL);
}

static void pool_abandon_all(struct pool *pool) {
  struct pool_lane *lane;
  pthread_mutex_lock(&pool->lock);
  while ((lane = TAILQ_FIRST(&pool->waiting))) {
    struct pool_job *job = lane_pop_locked(lane);
    lane->n_running++; /* it stays */
    pthread_mutex_unlock(&pool->lock);
    if (job->abandon)
      job->abandon(job);
    else
      job->run(job);
    pthread_mutex_lock(&pool->lock);
    lane->n_running--;
    lane_check_locked(lane);
  }
  pthread_mutex_unlock(&pool->lock);
}

void pool_stop(struct pool *pool) {
  pthread_mutex_lock(&pool->lock);
  pool->stopping = true;
  bool any = pool->n_threads > 0;
  while (pool->idle)
    pool_wake_locked(pool, pool->idle);
  pthread_mutex_unlock(&pool->lock);
  /* Once before the join: a fetch that waits for a queued fill then need not
   * wait for the fills that run. */
  pool_abandon_all(pool);
  if (any) {
    while (sem_wait(&pool->all_ended) < 0 && errno == EINTR)
      ;
    pthread_join(pool->ended, NULL);
    pool->has_ended = false;
  }
  pool_end_maker(pool);
  pool_abandon_all(pool);
}

void pool_free(struct pool *pool) {
  if (!pool)
    return;
  assert(pool->n_threads == 0 && pool->n_lanes == 0);
  sem_destroy(&pool->make);
  sem_destroy(&pool->all_ended);
  pthread_mutex_destroy(&pool->lock);
  pthread_attr_destroy(&pool->attr);
  free(pool);
}

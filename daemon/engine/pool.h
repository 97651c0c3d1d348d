/* The pool: threads that may block on sources.
 *
 * Jobs belong to lanes, for example one lane for each image.  A lane has
 * threads of its own, which no other lane can take, and may use shared threads
 * too.  So however many lanes hang, each of the others continues.  A lane takes
 * a shared thread only while it has fewer shared threads than are free.  So one
 * lane that hangs gets half of them, two get a third each, and some are always
 * left.
 *
 * The pool makes a thread when a job needs one, and ends a thread that has had
 * no job for a while; the first thread stays.  There are never more threads
 * than all lanes own, and share, together.
 *
 * If the system refuses to make a thread (a limit of processes, or memory), the
 * job waits for an existing thread, and each further submit tries again to make
 * one.  So no job is lost.  But while that lasts, a lane that hangs can delay
 * others.
 *
 *   P1  A job is run exactly once, or abandoned exactly once, never both.
 *   P2  After pool_stop() no job is queued or running.
 *   P3  A job waits only while its lane has all the threads that it may have,
 *       or while no thread can be made.
 *
 * Any thread may submit, until pool_stop() is called. */
#ifndef DAEMON_ENGINE_POOL_H
#define DAEMON_ENGINE_POOL_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct pool;
struct pool_lane;

/* Embedded in the caller's struct.  Once `run` or `abandon` has begun, the pool
 * does not use it any more: both may free it. */
struct pool_job {
  void (*run)(struct pool_job *job);
  void (*abandon)(struct pool_job *job); /* NULL: pool_stop() runs it */
  struct pool_job *next;                 /* private */
};

struct pool_options {
  unsigned n_shared; /* threads */
  int idle_ms;       /* how long a thread waits for a job before it ends */
};

/* NULL: out of memory. */
struct pool *pool_new(const struct pool_options *options);

/* A lane with `n_own` threads of its own.  `shares`: it may use shared threads.
 * NULL: out of memory.  Any thread. */
struct pool_lane *pool_lane_new(struct pool *pool, unsigned n_own, bool shares);

/* Changes how many threads of its own a lane has.  Any thread. */
void pool_lane_set_own(struct pool_lane *lane, unsigned n_own);

/* The caller submits nothing to the lane any more; the pool still runs jobs
 * that were submitted.  NULL is fine.  Any thread, including one that runs a
 * job of the lane; before pool_free(). */
void pool_lane_free(struct pool_lane *lane);

/* Makes the first thread, and the thread that makes the others.  0 or a
 * negative errno. */
int pool_start(struct pool *pool);

/* May wait until a thread is made; never waits for a job. */
void pool_submit(struct pool_lane *lane, struct pool_job *job);

/* How many threads there are.  Any thread. */
unsigned pool_n_threads(struct pool *pool);

/* Abandons queued jobs, waits for running jobs, ends the threads. */
void pool_stop(struct pool *pool);

/* After pool_stop(), or if the pool was not started.  NULL is fine. */
void pool_free(struct pool *pool);

#ifdef __cplusplus
}
#endif

#endif

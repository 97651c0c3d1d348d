/* The pool: threads that may block on sources.
 *
 * Work comes in lanes, such as one for each image.  A lane has threads of its
 * own, which no other lane can take, and may use shared threads beside them:
 * so however many lanes hang, each of the others goes on.  A lane takes a
 * shared thread only while it has fewer of them than are free: one that hangs
 * gets half of them, two get a third each, and some are always left.
 *
 * Threads are made when there is a job for them, and end when there has been
 * none for a while; the first one stays.  There are never more than all lanes
 * own and share together.
 *
 * Where the system gives no more threads (a limit of processes, or memory) a
 * job waits for a thread that is there, and each further submit tries again to
 * make one.  So no job is lost, but while that lasts a lane that hangs can
 * delay others.
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

/* Embedded by what is to be done.  After `run` or `abandon` began it is no
 * longer the pool's: either may free it. */
struct pool_job {
  void (*run)(struct pool_job *job);
  void (*abandon)(struct pool_job *job); /* NULL: run it at the stop, too */
  struct pool_job *next;                 /* private */
};

struct pool_options {
  unsigned n_shared; /* threads */
  int idle_ms;       /* how long a thread waits for a job before it ends */
};

/* NULL: out of memory. */
struct pool *pool_new(const struct pool_options *options);

/* A lane with so many threads of its own, which may use shared ones if it
 * `shares`.  NULL: out of memory.  Any thread. */
struct pool_lane *pool_lane_new(struct pool *pool, unsigned n_own, bool shares);

/* From here on it has so many of its own.  Any thread. */
void pool_lane_set_own(struct pool_lane *lane, unsigned n_own);

/* Nothing is submitted to the lane any more; what was is run.  NULL is fine.
 * Any thread, also one that runs a job of the lane; before pool_free(). */
void pool_lane_free(struct pool_lane *lane);

/* Makes the first thread, and the one that makes the others.  0 or a negative
 * errno. */
int pool_start(struct pool *pool);

/* May have a thread made, and waits for that; for no job. */
void pool_submit(struct pool_lane *lane, struct pool_job *job);

/* How many threads there are.  Any thread. */
unsigned pool_n_threads(struct pool *pool);

/* Abandons what is queued, waits for what is running, ends the threads. */
void pool_stop(struct pool *pool);

/* After pool_stop(), or without a start.  NULL is fine. */
void pool_free(struct pool *pool);

#ifdef __cplusplus
}
#endif

#endif

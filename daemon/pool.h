/* The pool: threads that may block on sources.
 *
 * Work comes in lanes, such as one for each image, and threads take from the
 * lanes in turn: an image with a long queue delays its own work only.  No lane
 * has all threads where there are several of both, so that a source that hangs
 * leaves one to the others.  The last lane is for jobs that do not block; the
 * others leave a thread to it, so that no number of hanging sources delays it.
 *
 *   P1  A job is run exactly once, or abandoned exactly once, never both.
 *   P2  After pool_stop() no job is queued or running.
 *
 * Any thread may submit, until pool_stop() is called. */
#ifndef DAEMON_POOL_H
#define DAEMON_POOL_H

#ifdef __cplusplus
extern "C" {
#endif

struct pool;

/* Embedded by what is to be done.  After `run` or `abandon` began it is no
 * longer the pool's: either may free it. */
struct job {
  void (*run)(struct job *job);
  void (*abandon)(struct job *job); /* NULL: run it at the stop, too */
  struct job *next;                 /* private */
};

/* NULL: out of memory. */
struct pool *pool_new(unsigned n_threads, unsigned n_lanes);

/* Starts the threads.  0 or a negative errno. */
int pool_start(struct pool *pool);

void pool_submit(struct pool *pool, unsigned lane, struct job *job);

/* Abandons what is queued, waits for what is running, ends the threads. */
void pool_stop(struct pool *pool);

/* After pool_stop(), or without a start.  NULL is fine. */
void pool_free(struct pool *pool);

#ifdef __cplusplus
}
#endif

#endif

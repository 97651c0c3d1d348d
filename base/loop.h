/* A loop: one thread's event base, and the mailbox by which other threads hand
 * it tasks.
 *
 *   T1  A task runs once for each post that found it unposted, on the loop's
 *       thread, in the order in which they were posted.
 *   T2  Between post and run a task is the loop's.  It may be freed from the
 *       moment at which it runs: the poster does not touch it afterwards.
 *   T3  The mailbox's lock is a leaf: nothing is called under it.
 *   T4  A post wakes the thread, unless the mailbox has a task already, or the
 *       thread is awake and runs tasks before it sleeps.  Only a thread that
 *       takes all its turns by loop_turn() and loop_run_tasks() says that it is
 *       awake.
 *
 * The loop's thread only, but for loop_post() and loop_make_base(). */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Something for a loop's thread to do.  Embedded in the object that it is
 * about; zeroed, but for `run`, before the first post. */
struct task {
  void (*run)(struct task *task);
  struct task *next; /* under the mailbox's lock, as is `posted` */
  bool posted;
};

struct loop {
  struct event_base *base;
  uint64_t n_events; /* of sockets and the mailbox, not of timers: tells a busy
                        poll whether one came */

  /* After a batch of tasks, which may have made room for other work; or NULL.
   */
  void (*tasks_ran)(void *arg);
  void *arg;

  struct event wake; /* wake_fd is readable */
  int wake_fd;       /* an eventfd */
  pthread_mutex_t lock;
  struct task *head, **tail; /* guarded by lock, */
  bool is_awake;             /* as is this: T4 */
};

/* Makes an event base with a flag of event_config_set_flag(), also for what is
 * no loop.  NULL: there is no memory.  Any thread. */
struct event_base *loop_make_base(int flag);

/* 0 or a negative errno; either way loop_fini() is due. */
int loop_init(struct loop *loop, void (*tasks_ran)(void *arg), void *arg);

/* All other events of the base have been deleted, or are never touched again.
 */
void loop_fini(struct loop *loop);

/* Has the task run.  One that is posted already stays where it is.  Any
 * thread. */
void loop_post(struct loop *loop, struct task *task);

/* A turn of a thread that does other work as well: event_base_loop() with these
 * flags.  It does not sleep while there are tasks.  After that other work, and
 * before the next turn, the thread calls loop_run_tasks(). */
void loop_turn(struct loop *loop, int flags);

/* Runs a batch of the tasks that are posted.  False: there were none. */
bool loop_run_tasks(struct loop *loop);

/* Sets a timer of this loop `at_ms` on the clock of clock_now_ms(), or in the
 * past and so at once. */
void loop_set_timer(struct event *timer, uint64_t at_ms);

#ifdef __cplusplus
}
#endif

#endif

/* The reactor: one thread with an event base, which all remote sources share.
 *
 * Their connections and timers run on this thread, which also calls done() of
 * their reads.  So nothing on it may wait, neither for a lock that is held for
 * long nor for another thread.
 *
 * Work for the reactor is a task, as for any loop (base/loop.h), with the rules
 * T1 to T3 there.
 *
 * Any thread may call these functions, unless a comment says otherwise. */
#ifndef SOURCE_REACTOR_H
#define SOURCE_REACTOR_H

#include <stdbool.h>
#include <stdint.h>

#include <event2/event_struct.h>

#include "base/loop.h"

#ifdef __cplusplus
extern "C" {
#endif

struct event_base;
struct reactor;

/* Work to do later.  Embedded; to be zeroed, except for `ring`, before it is
 * set. */
struct reactor_alarm {
  void (*ring)(struct reactor_alarm *alarm);
  struct task task; /* the reactor's, as is the rest */
  struct reactor *reactor;
  struct event timer;
  uint64_t after_ms;
};

/* Starts the thread, with all signals blocked.  0 or a negative errno. */
int reactor_new(struct reactor **out);

/* Runs the tasks that were posted, ends the thread and joins it.  No event may
 * be left on the base, and nobody may post any more.  NULL is allowed.  Not on
 * the reactor's thread. */
void reactor_free(struct reactor *r);

/* The event base.  Only the reactor's thread may use it. */
struct event_base *reactor_base(struct reactor *r);

/* Posts a task, which the reactor then runs.  A task that is posted already
 * keeps its place.  Allocates nothing and cannot fail.  The reactor's thread
 * may post as well: the task runs after the current one has returned. */
void reactor_post(struct reactor *r, struct task *task);

/* Posts a task and waits until it has run.  Not on the reactor's thread. */
void reactor_run(struct reactor *r, struct task *task);

/* Makes the alarm ring on the reactor's thread in `ms` milliseconds.  It may be
 * freed when it rings.  Before that it must not be set again, and cannot be
 * cancelled.  Allocates nothing and cannot fail. */
void reactor_after(struct reactor *r, struct reactor_alarm *alarm, uint64_t ms);

/* Sets a timer of the reactor, or sets it again. 0; or -1: there is no memory.
 * Only the reactor's thread may call it. */
int reactor_set_timer(struct event *timer, uint64_t ms);

/* Whether the calling thread is the reactor's. */
bool reactor_is_current(const struct reactor *r);

/* reactor_ask() asks the thread for a sign of life. reactor_has_answered()
 * returns whether the thread has given one since that question, or since one
 * with a higher number. */
void reactor_ask(struct reactor *r, uint64_t question);
bool reactor_has_answered(const struct reactor *r, uint64_t question);

#ifdef __cplusplus
}
#endif

#endif

/* The reactor: one thread with an event base, which all remote sources share.
 *
 * They have their connections and timers there, and call done() of their reads
 * from there.  So nothing in it waits: not for a lock that is held for long,
 * and not for another thread.
 *
 * What it is to do is a task, as of any loop (base/loop.h): T1 to T3 are its
 * rules, too.
 *
 * Any thread, where nothing else is said. */
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

/* Something to do later.  Embedded; zeroed, but for `ring`, before it is set.
 */
struct reactor_alarm {
  void (*ring)(struct reactor_alarm *alarm);
  struct task task; /* the reactor's, as is the rest */
  struct reactor *reactor;
  struct event timer;
  uint64_t after_ms;
};

/* Starts the thread, with all signals blocked.  0 or a negative errno. */
int reactor_new(struct reactor **out);

/* Runs what is posted already, ends the thread and joins it.  No event is left
 * on the base, and nobody posts any more.  NULL is fine.  Not on the reactor's
 * thread. */
void reactor_free(struct reactor *r);

/* For events: the reactor's thread only. */
struct event_base *reactor_base(struct reactor *r);

/* Has the task run.  One that is posted already stays where it is.  Allocates
 * nothing, and cannot fail.  The reactor's thread may post as well: the task
 * runs after the present one has returned. */
void reactor_post(struct reactor *r, struct task *task);

/* Posts it, and waits until it has run.  Not on the reactor's thread. */
void reactor_run(struct reactor *r, struct task *task);

/* Has the alarm ring on the reactor's thread, so many milliseconds from now. It
 * may be freed from the moment at which it rings; before that it is not set
 * again, and cannot be taken back.  Allocates nothing, and cannot fail. */
void reactor_after(struct reactor *r, struct reactor_alarm *alarm, uint64_t ms);

/* Sets a timer of the reactor's, also one that is set already.  0; -1: there is
 * no memory.  The reactor's thread only. */
int reactor_set_timer(struct event *timer, uint64_t ms);

/* Whether the calling thread is the reactor's. */
bool reactor_is_current(const struct reactor *r);

/* Asks the thread for a sign of life; and whether it has given one since that
 * question, or since one with a higher number. */
void reactor_ask(struct reactor *r, uint64_t question);
bool reactor_has_answered(const struct reactor *r, uint64_t question);

#ifdef __cplusplus
}
#endif

#endif

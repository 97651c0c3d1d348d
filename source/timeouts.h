/* Time-outs of reads, in order, with a timer for the first of them.
 *
 * The timer may come too early: nobody sets it anew when a read ends.  Its
 * callback goes through those that are due, and calls timeouts_set_timer().
 *
 * The reactor's thread only. */
#ifndef SOURCE_TIMEOUTS_H
#define SOURCE_TIMEOUTS_H

#include <stdint.h>
#include <sys/queue.h>

#include <event2/event_struct.h>

#ifdef __cplusplus
extern "C" {
#endif

struct event_base;

/* Embedded in what has it. */
struct timeout {
  int64_t deadline; /* base/deadline.h; set before it is added */
  TAILQ_ENTRY(timeout) link;
};

struct timeouts {
  TAILQ_HEAD(timeout_list, timeout) list;
  struct event timer;
};

/* None; `due` is called with `arg` by the timer. */
void timeouts_init(struct timeouts *t, struct event_base *base,
                   void (*due)(evutil_socket_t fd, short what, void *arg),
                   void *arg);

/* There is none any more. */
void timeouts_fini(struct timeouts *t);

void timeouts_add(struct timeouts *t, struct timeout *one);
void timeouts_remove(struct timeouts *t, struct timeout *one);

/* The one behind `one`, or, of NULL, the first, if its time is over; else NULL.
 */
struct timeout *timeouts_next_due(const struct timeouts *t,
                                  const struct timeout *one);

void timeouts_set_timer(struct timeouts *t);

#ifdef __cplusplus
}
#endif

#endif

/* An opener: a thread that waits until the reactor's has opened a source. */
#ifndef SOURCE_OPENER_H
#define SOURCE_OPENER_H

#include <time.h>

#include "base/latch.h"
#include "base/loop.h"
#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

/* On the stack of that thread. */
struct opener {
  struct opener **at; /* where the source has it; the reactor's thread only */
  struct latch told;
  int status; /* with the next, the reactor's until it is told */
  struct source_fault fault;
  struct task forget;
};

/* Puts it into the source, before the reactor knows of that source. */
void opener_init(struct opener *o, struct opener **at);

/* Tells the opener that the source has: it has none from here on.  The
 * reactor's thread. */
void opener_tell(struct opener **at, int status,
                 const struct source_fault *fault);

/* Waits until it is told, or until `deadline` (CLOCK_MONOTONIC): then it is
 * -ETIMEDOUT, `late` is what `fault` says, and the source has no opener any
 * more.  Returns the status, with `fault` set. */
int opener_await(struct opener *o, struct reactor *r,
                 const struct timespec *deadline, const char *late,
                 struct source_fault *fault);

#ifdef __cplusplus
}
#endif

#endif

/* Work for the reactor that waits, on a thread of its own: the look-up of a
 * name, the reading of a file, a library that goes on for as long as it likes.
 *
 *   O1  run() is called on that thread, which ends with it, and has the signals
 *       that the reactor's blocks.
 *   O2  Then ended() comes, once, on the reactor's thread; unless the work was
 *       given up before: then it never does.
 *   O3  A caller that gives work up waits for nothing.  The thread touches
 *       neither the caller nor the reactor any more.
 *   O4  free_it() comes last, once, on either of the two threads.
 *
 * The reactor's thread only, where nothing else is said. */
#ifndef SOURCE_OFFLOAD_H
#define SOURCE_OFFLOAD_H

#include <pthread.h>
#include <stdbool.h>

#include "base/loop.h"

#ifdef __cplusplus
extern "C" {
#endif

struct reactor;

/* Embedded in what the work is about. */
struct offload {
  /* Set by the caller. */
  const char *name; /* of the thread */
  void (*run)(struct offload *o);
  void (*ended)(struct offload *o);
  void (*free_it)(struct offload *o);
  /* Has run() return soon: under the lock, when the work is given up.  Or
   * NULL. */
  void (*cut)(struct offload *o);

  /* run() may guard by it what cut() looks at. */
  pthread_mutex_t lock; /* that of the reactor's mailbox is taken under it */
  bool is_given_up;     /* guarded by lock */

  /* private */
  struct reactor *reactor;
  struct task task;
};

/* Begins it.  0; or a negative errno: there is no thread, and nothing of the
 * above comes. */
int offload_begin(struct offload *o, struct reactor *r);

/* Gives it up, before ended(). */
void offload_give_up(struct offload *o);

#ifdef __cplusplus
}
#endif

#endif

/* Reads of sources that are PENDING, counted so that a stop waits for them:
 * nothing cancels one, and it writes to memory of the page cache.
 *
 * Any thread. */
#ifndef DAEMON_ENGINE_PENDING_H
#define DAEMON_ENGINE_PENDING_H

#include <pthread.h>

struct pending {
  pthread_mutex_t lock; /* a leaf */
  pthread_cond_t none;
  unsigned n; /* guarded by lock */
};

void pending_init(struct pending *p);
void pending_fini(struct pending *p);

/* One may be from here on, until pending_end(). */
void pending_begin(struct pending *p);
void pending_end(struct pending *p);

/* Waits until there is none.  None begins any more. */
void pending_await_none(struct pending *p);

#endif

/* The number of PENDING reads of sources, so that a stop waits for them: they
 * cannot be cancelled, and write to memory of the page cache.
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

/* From here on one read may be PENDING, until pending_end(). */
void pending_begin(struct pending *p);
void pending_end(struct pending *p);

/* Waits until no read is PENDING.  No further read begins. */
void pending_await_none(struct pending *p);

#endif

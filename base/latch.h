/* A latch: a thread waits for it until another one has opened it.  Once. */
#ifndef BASE_LATCH_H
#define BASE_LATCH_H

#include <pthread.h>
#include <stdbool.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

struct latch {
  pthread_mutex_t lock; /* a leaf */
  pthread_cond_t cond;
  bool is_open; /* guarded by lock */
};

#define LATCH_INITIALIZER                                                      \
  { .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER }

/* The thread that waits may free the latch from here on: this touches it no
 * more. */
void latch_open(struct latch *l);

/* Waits until it is open, and destroys it. */
void latch_wait(struct latch *l);

/* Waits until it is open, or until `deadline` (CLOCK_MONOTONIC): false, and it
 * may be opened still.  latch_fini() is due. */
bool latch_wait_until(struct latch *l, const struct timespec *deadline);

/* Destroys it, which nobody opens any more.  Returns whether it is open. */
bool latch_fini(struct latch *l);

#ifdef __cplusplus
}
#endif

#endif

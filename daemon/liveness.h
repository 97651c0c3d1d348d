/* Liveness: whether the loops that must not hang still turn: the main loop, the
 * workers, the evictor, the reclaimer and the reactor.  None of them waits for
 * a source, so one that does not answer a question has a fault.
 *
 * A question goes to all of them, and each answers when it turns.  So an idle
 * daemon wakes only when it is asked.
 *
 * Any thread, except for the calls that make and end it. */
#ifndef DAEMON_LIVENESS_H
#define DAEMON_LIVENESS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "daemon/liveness_thread.h"

struct page_cache;
struct worker;

struct liveness {
  int wake_fd; /* an eventfd that wakes the main loop */
  struct worker *const *workers;
  unsigned n_workers;
  struct page_cache *cache;
  struct liveness_thread other;

  _Atomic uint64_t main_asked, main_answered; /* relaxed */

  pthread_mutex_t lock; /* those of the mailboxes and the cache are taken under
                           it */
  uint64_t last;        /* question; guarded by lock */
};

/* For loops that exist; the caller owes a liveness_fini() before they end.  An
 * eventfd wakes the main loop, which then calls liveness_main_turned(). */
void liveness_init(struct liveness *l, int wake_fd,
                   struct worker *const *workers, unsigned n_workers,
                   struct page_cache *cache,
                   const struct liveness_thread *other);
void liveness_fini(struct liveness *l);

/* The main loop has turned: its thread only. */
void liveness_main_turned(struct liveness *l);

/* Asks all of them.  Returns the question's number, not 0. */
uint64_t liveness_ask(struct liveness *l);

/* The name of the next loop, from the `*next`th on, that has not answered the
 * question; NULL: there is none. */
const char *liveness_silent(struct liveness *l, uint64_t question,
                            unsigned *next);

#endif

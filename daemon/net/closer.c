#include "daemon/net/closer.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/lock.h"
#include "daemon/sandbox.h"

struct closer {
  pthread_mutex_t lock;      /* a leaf, but for `closed` */
  pthread_cond_t filled;     /* or stopping; the thread waits */
  pthread_cond_t ended_cond; /* closer_free() waits */
  pthread_t thread;
  struct closing *head, **tail; /* guarded by lock, as are the rest */
  bool stopping;                /* the thread ends when nothing waits */
  bool ended;                   /* it has */
  bool alone;                   /* it frees the closer */
  struct spare {
    struct closing closing;
    bool taken;
  } spares[CLOSER_SPARE];
};

static void closer_destroy(struct closer *closer) {
  pthread_cond_destroy(&closer->filled);
  pthread_cond_destroy(&closer->ended_cond);
  pthread_mutex_destroy(&closer->lock);
  free(closer);
}

/* `closed` runs under the lock: closer_free() does not return in the middle of
 * it, and what it needs is there. */
static void *closer_thread(void *arg) {
  struct closer *closer = arg;
  pthread_setname_np(pthread_self(), "closer");
  sandbox_enter(SANDBOX_CLOSER);
  pthread_mutex_lock(&closer->lock);
  while (closer->head || !closer->stopping) {
    struct closing *c = closer->head;
    if (!c) {
      pthread_cond_wait(&closer->filled, &closer->lock);
      continue;
    }
    if (!(closer->head = c->next))
      closer->tail = &closer->head;
    pthread_mutex_unlock(&closer->lock);
    close(c->fd);
    pthread_mutex_lock(&closer->lock);
    c->closed(c, closer->alone);
  }
  closer->ended = true;
  bool alone = closer->alone;
  pthread_cond_signal(&closer->ended_cond);
  pthread_mutex_unlock(&closer->lock);
  if (alone)
    closer_destroy(closer);
  return NULL;
}

struct closer *closer_new(void) {
  struct closer *closer = calloc(1, sizeof *closer);
  if (!closer)
    return NULL;
  pthread_condattr_t attr;
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&closer->filled, NULL);
  pthread_cond_init(&closer->ended_cond, &attr);
  pthread_condattr_destroy(&attr);
  lock_init(&closer->lock);
  closer->tail = &closer->head;
  if (pthread_create(&closer->thread, NULL, closer_thread, closer)) {
    closer_destroy(closer);
    return NULL;
  }
  return closer;
}

static void closer_add_locked(struct closer *closer, struct closing *c) {
  lock_assert_held(&closer->lock);
  assert(!closer->stopping);
  c->next = NULL;
  *closer->tail = c;
  closer->tail = &c->next;
  pthread_cond_signal(&closer->filled);
}

void closer_add(struct closer *closer, struct closing *c) {
  pthread_mutex_lock(&closer->lock);
  closer_add_locked(closer, c);
  pthread_mutex_unlock(&closer->lock);
}

/* Under the lock: see closer_thread(). */
static void spare_closed(struct closing *c, bool alone) {
  (void)alone;
  ((struct spare *)c)->taken = false; /* its first member */
}

static struct spare *find_spare_locked(struct closer *closer) {
  lock_assert_held(&closer->lock);
  for (int i = 0; i < CLOSER_SPARE; i++)
    if (!closer->spares[i].taken)
      return &closer->spares[i];
  return NULL;
}

bool closer_is_full(struct closer *closer) {
  pthread_mutex_lock(&closer->lock);
  bool full = !find_spare_locked(closer);
  pthread_mutex_unlock(&closer->lock);
  return full;
}

void closer_add_socket(struct closer *closer, int fd) {
  pthread_mutex_lock(&closer->lock);
  struct spare *spare = find_spare_locked(closer);
  if (spare) {
    spare->taken = true;
    spare->closing = (struct closing){.fd = fd, .closed = spare_closed};
    closer_add_locked(closer, &spare->closing);
  }
  pthread_mutex_unlock(&closer->lock);
}

void closer_free(struct closer *closer) {
  if (!closer)
    return;
  struct timespec until = clock_after_ms(CLOSER_STOP_MS);
  pthread_mutex_lock(&closer->lock);
  closer->stopping = true;
  pthread_cond_signal(&closer->filled);
  int r = 0;
  while (!closer->ended && r != ETIMEDOUT)
    r = pthread_cond_timedwait(&closer->ended_cond, &closer->lock, &until);
  bool ended = closer->ended;
  closer->alone = !ended;
  pthread_t thread = closer->thread; /* the closer may be freed from here on */
  pthread_mutex_unlock(&closer->lock);
  if (!ended) {
    pthread_detach(thread);
    return;
  }
  pthread_join(thread, NULL);
  closer_destroy(closer);
}

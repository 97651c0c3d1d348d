#include "base/latch.h"

void latch_open(struct latch *l) {
  pthread_mutex_lock(&l->lock);
  l->is_open = true;
  pthread_cond_signal(&l->cond); /* with the lock: then the latch is gone */
  pthread_mutex_unlock(&l->lock);
}

void latch_wait(struct latch *l) {
  pthread_mutex_lock(&l->lock);
  while (!l->is_open)
    pthread_cond_wait(&l->cond, &l->lock);
  pthread_mutex_unlock(&l->lock);
  latch_fini(l);
}

bool latch_wait_until(struct latch *l, const struct timespec *deadline) {
  int r = 0;
  pthread_mutex_lock(&l->lock);
  while (!l->is_open && r == 0)
    r = pthread_cond_clockwait(&l->cond, &l->lock, CLOCK_MONOTONIC, deadline);
  bool is_open = l->is_open;
  pthread_mutex_unlock(&l->lock);
  return is_open;
}

bool latch_fini(struct latch *l) {
  bool is_open = l->is_open;
  pthread_cond_destroy(&l->cond);
  pthread_mutex_destroy(&l->lock);
  return is_open;
}

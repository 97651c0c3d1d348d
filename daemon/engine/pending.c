#include "daemon/engine/pending.h"

#include <assert.h>

void pending_init(struct pending *p) {
  pthread_mutex_init(&p->lock, NULL);
  pthread_cond_init(&p->none, NULL);
  p->n = 0;
}

void pending_fini(struct pending *p) {
  pthread_cond_destroy(&p->none);
  pthread_mutex_destroy(&p->lock);
}

void pending_begin(struct pending *p) {
  pthread_mutex_lock(&p->lock);
  p->n++;
  pthread_mutex_unlock(&p->lock);
}

void pending_end(struct pending *p) {
  pthread_mutex_lock(&p->lock);
  assert(p->n > 0);
  if (--p->n == 0)
    pthread_cond_signal(&p->none); /* with the lock: then `p` may be gone */
  pthread_mutex_unlock(&p->lock);
}

void pending_await_none(struct pending *p) {
  pthread_mutex_lock(&p->lock);
  while (p->n)
    pthread_cond_wait(&p->none, &p->lock);
  pthread_mutex_unlock(&p->lock);
}

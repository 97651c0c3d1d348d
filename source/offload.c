#include "source/offload.h"

#include "base/container_of.h"
#include "source/reactor.h"

static void offload_free(struct offload *o) {
  pthread_mutex_destroy(&o->lock);
  o->free_it(o);
}

static void *offload_thread(void *arg) {
  struct offload *o = arg;
  pthread_setname_np(pthread_self(), o->name);
  o->run(o);
  pthread_mutex_lock(&o->lock);
  bool is_wanted = !o->is_given_up;
  if (is_wanted)
    reactor_post(o->reactor, &o->task); /* with the lock: then it may be gone */
  pthread_mutex_unlock(&o->lock);
  if (!is_wanted)
    offload_free(o);
  return NULL;
}

static void offload_ended(struct task *task) {
  struct offload *o = container_of(task, struct offload, task);
  pthread_mutex_lock(&o->lock); /* the thread has done with it */
  bool is_wanted = !o->is_given_up;
  pthread_mutex_unlock(&o->lock);
  if (is_wanted)
    o->ended(o);
  offload_free(o);
}

/* Nobody waits for the thread. */
int offload_begin(struct offload *o, struct reactor *r) {
  pthread_attr_t attr;
  pthread_t thread;
  o->reactor = r;
  o->task.run = offload_ended;
  o->is_given_up = false;
  pthread_mutex_init(&o->lock, NULL);
  pthread_attr_init(&attr);
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  int failed = pthread_create(&thread, &attr, offload_thread, o);
  pthread_attr_destroy(&attr);
  if (failed)
    pthread_mutex_destroy(&o->lock);
  return -failed;
}

void offload_give_up(struct offload *o) {
  pthread_mutex_lock(&o->lock);
  o->is_given_up = true;
  if (o->cut)
    o->cut(o);
  pthread_mutex_unlock(&o->lock);
}

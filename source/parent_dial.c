#include "source/parent_dial.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/container_of.h"
#include "source/reactor.h"

struct parent_dial {
  struct parent_target *target;
  unsigned i;
  struct connection_owner owner;
  struct reactor *reactor;
  struct task ended;
  void (*done)(void *arg, struct connection *c, const struct cachet_error *why);
  /* The thread's, until `ended` is posted. */
  struct connection *made;
  struct cachet_error why;

  pthread_mutex_t lock; /* that of the mailbox may be taken under it */
  bool is_given_up;     /* guarded by lock */
};

static void dial_free(struct parent_dial *d) {
  connection_free(d->made);
  parent_target_unref(d->target);
  pthread_mutex_destroy(&d->lock);
  free(d);
}

static void *dial_thread(void *arg) {
  struct parent_dial *d = arg;
  pthread_setname_np(pthread_self(), "parent-dial");
  if (connection_new(&d->target->uris[d->i], true, d->target->timeout_ms,
                     d->target->timeout_ms, &d->owner, &d->made,
                     &d->why) != CACHET_OK)
    d->made = NULL;
  pthread_mutex_lock(&d->lock);
  bool is_wanted = !d->is_given_up;
  if (is_wanted)
    reactor_post(d->reactor,
                 &d->ended); /* with the lock: then it may be gone */
  pthread_mutex_unlock(&d->lock);
  if (!is_wanted)
    dial_free(d);
  return NULL;
}

static void dial_ended(struct task *task) {
  struct parent_dial *d = container_of(task, struct parent_dial, ended);
  pthread_mutex_lock(&d->lock); /* the thread has done with it */
  bool is_wanted = !d->is_given_up;
  pthread_mutex_unlock(&d->lock);
  if (is_wanted) {
    struct connection *made = d->made;
    d->made = NULL;
    d->done(d->owner.arg, made, &d->why);
  }
  dial_free(d);
}

/* Nobody waits for the thread.  It has no signals, as the reactor's. */
static int start_thread(struct parent_dial *d) {
  pthread_attr_t attr;
  pthread_t thread;
  pthread_attr_init(&attr);
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  int failed = pthread_create(&thread, &attr, dial_thread, d);
  pthread_attr_destroy(&attr);
  return -failed;
}

int parent_dial_start(struct reactor *reactor, struct parent_target *target,
                      unsigned i, const struct connection_owner *owner,
                      void (*done)(void *arg, struct connection *c,
                                   const struct cachet_error *why),
                      struct parent_dial **out) {
  struct parent_dial *d = calloc(1, sizeof *d);
  if (!d)
    return -ENOMEM;
  d->reactor = reactor;
  d->target = parent_target_ref(target);
  d->i = i;
  d->owner = *owner;
  d->done = done;
  d->ended.run = dial_ended;
  pthread_mutex_init(&d->lock, NULL);
  int r = start_thread(d);
  if (r < 0)
    dial_free(d);
  else
    *out = d;
  return r;
}

void parent_dial_give_up(struct parent_dial *d) {
  pthread_mutex_lock(&d->lock);
  d->is_given_up = true;
  pthread_mutex_unlock(&d->lock);
}

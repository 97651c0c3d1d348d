#include "daemon/opening.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/lock.h"
#include "source/file.h"

static pthread_mutex_t lock = LOCK_INITIALIZER;
static pthread_cond_t any_ended = PTHREAD_COND_INITIALIZER;

struct opening {
  atomic_int n_refs; /* the thread, and its maker; acq_rel: the last one
                        sees what the other did */
  bool has_ended;    /* guarded by lock; what follows is there then */
  int result;
  const char *format;
  struct source_fault fault;
  struct source *source; /* NULL: not open, or handed over */
  struct remote *remote; /* NULL: it is a file, at `path` */
  struct timespec deadline;
  char path[];
};

static void opening_unref(struct opening *o) {
  if (atomic_fetch_sub_explicit(&o->n_refs, 1, memory_order_acq_rel) > 1)
    return;
  if (o->source)
    o->source->ops->close(o->source);
  remotes_unref(o->remote);
  free(o);
}

static void open_file(struct opening *o) {
  o->result = file_source_open(o->path, FILE_DONTCACHE, &o->source);
  if (o->result == 0)
    o->format = file_source_format(o->source); /* it reads */
}

static void *opening_run(void *arg) {
  struct opening *o = arg;
  if (o->remote)
    o->result = remotes_open(o->remote, &o->deadline, &o->source, &o->fault);
  else
    open_file(o);
  pthread_mutex_lock(&lock);
  o->has_ended = true;
  pthread_cond_broadcast(&any_ended);
  pthread_mutex_unlock(&lock);
  opening_unref(o);
  return NULL;
}

static struct opening *opening_new(const char *path) {
  size_t path_len = strlen(path) + 1;
  struct opening *o = calloc(1, sizeof *o + path_len);
  if (!o)
    return NULL;
  memcpy(o->path, path, path_len);
  atomic_init(&o->n_refs, 2);
  return o;
}

static void opening_start(struct opening *o) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, opening_run, o) == 0)
    pthread_detach(thread);
  else
    opening_run(o);
}

struct opening *opening_begin(const char *path) {
  struct opening *o = opening_new(path);
  if (o)
    opening_start(o);
  return o;
}

struct opening *opening_begin_remote(struct remote *remote,
                                     const struct timespec *deadline) {
  struct opening *o = opening_new("");
  if (!o)
    return NULL;
  o->remote = remotes_ref(remote);
  o->deadline = *deadline;
  opening_start(o);
  return o;
}

/* Their number: none has ended. */
static size_t find_ended_locked(struct opening *const *all, size_t n) {
  lock_assert_held(&lock);
  size_t i = 0;
  while (i < n && !all[i]->has_ended)
    i++;
  return i;
}

size_t opening_await_any(struct opening *const *all, size_t n,
                         const struct timespec *deadline) {
  size_t i;
  int r = 0;
  pthread_mutex_lock(&lock);
  while ((i = find_ended_locked(all, n)) == n && r == 0)
    r = pthread_cond_clockwait(&any_ended, &lock, CLOCK_MONOTONIC, deadline);
  pthread_mutex_unlock(&lock);
  return i;
}

int opening_end(struct opening *o, struct source **out, const char **format,
                struct source_fault *fault) {
  pthread_mutex_lock(&lock);
  bool has_ended = o->has_ended;
  pthread_mutex_unlock(&lock);
  int r = has_ended ? o->result : -ETIMEDOUT;
  *fault = has_ended ? o->fault : (struct source_fault){.text = ""};
  if (r == 0) {
    *out = o->source;
    *format = o->format;
    o->source = NULL;
  }
  opening_unref(o);
  return r;
}

#include "daemon/opening.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "source/file.h"

struct opening {
  atomic_int n_refs;   /* the thread, and its maker; acq_rel: the last one
                          sees what the other did */
  sem_t done;          /* posted once what follows is there, */
  atomic_bool is_done; /* and set before (release, acquire): the semaphore
                          orders as much, but not every checker knows it */
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
  sem_destroy(&o->done);
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
  atomic_store_explicit(&o->is_done, true, memory_order_release);
  sem_post(&o->done);
  opening_unref(o);
  return NULL;
}

static struct opening *opening_new(const char *path) {
  size_t path_len = strlen(path) + 1;
  struct opening *o = calloc(1, sizeof *o + path_len);
  if (!o)
    return NULL;
  memcpy(o->path, path, path_len);
  sem_init(&o->done, 0, 0);
  atomic_init(&o->n_refs, 2);
  atomic_init(&o->is_done, false);
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

int opening_end(struct opening *o, const struct timespec *deadline,
                struct source **out, const char **format,
                struct source_fault *fault) {
  int r;
  do
    r = sem_clockwait(&o->done, CLOCK_MONOTONIC, deadline);
  while (r < 0 && errno == EINTR);
  r = r < 0 ? -errno : 0;
  if (atomic_load_explicit(&o->is_done, memory_order_acquire))
    r = o->result; /* perhaps just after the deadline */
  *fault = (struct source_fault){.text = ""};
  if (atomic_load_explicit(&o->is_done, memory_order_acquire))
    *fault = o->fault;
  if (r == 0) {
    *out = o->source;
    *format = o->format;
    o->source = NULL;
  }
  opening_unref(o);
  return r;
}

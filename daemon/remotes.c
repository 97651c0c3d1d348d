#include "daemon/remotes.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/container_of.h"
#include "base/latch.h"
#include "daemon/engine/pending.h"
#include "daemon/log.h"
#include "daemon/sandbox.h"
#include "source/reactor.h"
#include "source/retrying.h"
#include "source/uri.h"

enum {
  /* For one that was not there before: a thread of the pool waits for it. */
  OPEN_LATER_MS = 5000,
};

struct remotes {
  struct reactor *reactor;
  struct pending named; /* each of them counts as one */
};

struct remote {
  atomic_uint n_refs; /* acq_rel: the last one sees what the others did */
  struct remotes *all;
  const struct source_kind *kind;
  struct source_uri uri; /* ours */
  struct retrying *retrying;
};

/* ---- The reactor --------------------------------------------------------- */

static void confine(struct task *task) {
  (void)task;
  sandbox_enter(SANDBOX_REACTOR);
}

int remotes_new(struct remotes **out) {
  struct task task = {.run = confine};
  struct remotes *all = calloc(1, sizeof *all);
  int r = all ? reactor_new(&all->reactor) : -ENOMEM;
  if (r < 0) {
    free(all);
    return r;
  }
  reactor_run(all->reactor, &task);
  pending_init(&all->named);
  *out = all;
  return 0;
}

void remotes_free(struct remotes *all) {
  if (!all)
    return;
  pending_await_none(&all->named);
  pending_fini(&all->named);
  reactor_free(all->reactor);
  free(all);
}

/* ---- Modules ------------------------------------------------------------- */

struct loading {
  struct task task;
  void (*load)(void *what);
  void *what;
  struct latch ended;
};

static void *loading_run(void *arg) {
  struct loading *l = arg;
  l->load(l->what);
  latch_open(&l->ended);
  return NULL;
}

/* On the reactor's thread: one that it begins has its filter. */
static void loading_begin(struct task *task) {
  struct loading *l = container_of(task, struct loading, task);
  pthread_t thread;
  if (pthread_create(&thread, NULL, loading_run, l) == 0)
    pthread_detach(thread);
  else
    loading_run(l);
}

void remotes_load(void *arg, void (*load)(void *what), void *what) {
  struct remotes *all = arg;
  struct loading l = {.task = {.run = loading_begin},
                      .load = load,
                      .what = what,
                      .ended = LATCH_INITIALIZER};
  reactor_post(all->reactor, &l.task);
  latch_wait(&l.ended);
}

/* ---- What is opened ------------------------------------------------------ */

static int copy_options(struct source_uri *to, const struct source_uri *from) {
  struct source_option *options =
      calloc(from->n_options + 1, sizeof(struct source_option));
  to->options = options;
  if (!options)
    return -ENOMEM;
  for (size_t i = 0; i < from->n_options; i++) {
    to->n_options++;
    options[i].key = strdup(from->options[i].key);
    options[i].value = strdup(from->options[i].value);
    if (!options[i].key || !options[i].value)
      return -ENOMEM;
  }
  return 0;
}

static void source_turned(const char *name, bool answers) {
  if (answers)
    log_event(LEVEL_INFO, "source-back", LOG_TEXT("source", name));
  else
    log_event(LEVEL_WARN, "source-silent", LOG_TEXT("source", name));
}

struct remote *remotes_name(struct remotes *all, const struct source_kind *kind,
                            const struct source_uri *uri) {
  struct remote *r = calloc(1, sizeof *r);
  if (!r)
    return NULL;
  pending_begin(&all->named);
  atomic_init(&r->n_refs, 1);
  const struct retrying_clock clock = retrying_clock_of(all->reactor);
  r->all = all;
  r->kind = kind;
  r->uri.text = strdup(uri->text);
  char *shown = source_uri_shown(uri->text);
  r->retrying = shown ? retrying_new(&clock, shown, source_turned) : NULL;
  free(shown);
  if (r->uri.text && r->retrying && copy_options(&r->uri, uri) == 0)
    return r;
  remotes_unref(r);
  return NULL;
}

void remotes_unref(struct remote *r) {
  if (!r || atomic_fetch_sub_explicit(&r->n_refs, 1, memory_order_acq_rel) > 1)
    return;
  struct remotes *all = r->all;
  for (size_t i = 0; i < r->uri.n_options; i++) {
    free((char *)r->uri.options[i].key);
    free((char *)r->uri.options[i].value);
  }
  free((struct source_option *)r->uri.options);
  free((char *)r->uri.text);
  retrying_unref(r->retrying);
  free(r);
  pending_end(&all->named);
}

struct remote *remotes_ref(struct remote *r) {
  atomic_fetch_add_explicit(&r->n_refs, 1, memory_order_relaxed);
  return r;
}

int remotes_open(struct remote *r, const struct timespec *deadline,
                 struct source **out, struct source_fault *fault) {
  struct source *below;
  int e = r->kind->open(r->all->reactor, &r->uri, deadline, &below, fault);
  if (e < 0)
    return e;
  e = retrying_source_new(r->retrying, below, out);
  if (e < 0)
    below->ops->close(below);
  return e;
}

struct retrying *remotes_retrying(const struct remote *r) {
  return r->retrying;
}

/* ---- What is opened later ------------------------------------------------ */

struct later_source {
  struct source base;
  struct remote *remote;
};

static enum source_outcome later_start(struct source *src,
                                       struct source_read *read) {
  (void)src;
  read->status = -ENXIO; /* it has no bytes to ask for */
  return SOURCE_DONE;
}

static int later_reopen(struct source *src, struct source **out) {
  struct later_source *s = container_of(src, struct later_source, base);
  struct source_fault fault;
  struct timespec deadline = clock_after_ms(OPEN_LATER_MS);
  *out = NULL;
  return remotes_open(s->remote, &deadline, out, &fault);
}

static void later_close(struct source *src) {
  struct later_source *s = container_of(src, struct later_source, base);
  remotes_unref(s->remote);
  free(s);
}

static const struct source_ops later_ops = {
    .kind = "later",
    .start = later_start,
    .reopen = later_reopen,
    .close = later_close,
};

int remotes_open_later(struct remote *r, struct source **out) {
  struct later_source *s = calloc(1, sizeof *s);
  if (!s)
    return -ENOMEM;
  s->base.ops = &later_ops;
  s->remote = remotes_ref(r);
  *out = &s->base;
  return 0;
}

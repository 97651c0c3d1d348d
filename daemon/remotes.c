#include "daemon/remotes.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/container_of.h"
#include "base/latch.h"
#include "base/shown_uri.h"
#include "daemon/engine/pending.h"
#include "daemon/log.h"
#include "daemon/sandbox.h"
#include "source/file.h"
#include "source/reactor.h"
#include "source/retrying.h"
#include "source/threaded.h"
#include "source/verifier.h"

enum {
  /* The time limit for a source that could not be opened before.  A thread of
   * the pool waits so long. */
  OPEN_LATER_MS = 5000,
  /* The pauses between two looks at a source whose content is hashed as a
   * whole.  Each is twice as long as the one before, until the content changes
   * or was read to its end. */
  PAUSE_FIRST_MS = 1000,
  LOOK_PAUSE_MOST_MS = 60 * 1000,
  HASH_PAUSE_MOST_MS = 5 * 60 * 1000,
};

struct remotes {
  struct reactor *reactor;
  struct pending named; /* each of them counts as one */
};

struct remote {
  atomic_uint n_refs; /* acq_rel: the last one sees what the others did */
  struct remotes *all;
  const struct source_kind *kind; /* NULL: a file, at the URI's text */
  struct source_uri uri;          /* ours */
  struct retrying *retrying;
  const struct verifier *verifier; /* NULL: it is not verified */
  struct verified_options verified;
  bool is_whole; /* the root is the hash of all of it, and there is no tree */
  char *image;   /* its name, where it is verified */
  struct remote *tree; /* NULL: there is none, or it is inside */
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

/* Runs on the thread of the reactor, because the thread that it begins inherits
 * the filter of that one. */
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

static void ask_reactor(void *arg, uint64_t question) {
  struct remotes *all = arg;
  reactor_ask(all->reactor, question);
}

static bool reactor_answered(void *arg, uint64_t question) {
  const struct remotes *all = arg;
  return reactor_has_answered(all->reactor, question);
}

struct liveness_thread remotes_thread(struct remotes *all) {
  return (struct liveness_thread){.name = "reactor",
                                  .ask = ask_reactor,
                                  .has_answered = reactor_answered,
                                  .arg = all};
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
  r->uri.text = kind ? strdup(uri->text) : file_source_absolute(uri->text);
  char *shown = kind ? shown_uri_of(uri->text) : NULL;
  r->retrying = shown ? retrying_new(&clock, shown, source_turned) : NULL;
  free(shown);
  if (r->uri.text && (r->retrying || !kind) && copy_options(&r->uri, uri) == 0)
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
  remotes_unref(r->tree);
  free(r->image);
  free(r);
  pending_end(&all->named);
}

struct remote *remotes_ref(struct remote *r) {
  atomic_fetch_add_explicit(&r->n_refs, 1, memory_order_relaxed);
  return r;
}

static void tell_of_corruption(const char *image, uint64_t offset,
                               uint64_t len) {
  log_peer_event(LEVEL_WARN, "image-corrupt", LOG_TEXT("image", image),
                 LOG_NUMBER("offset", offset), LOG_NUMBER("length", len));
}

int remotes_verify(struct remote *r, const struct verifier *verifier,
                   const char *image, const uint8_t *root, size_t root_len,
                   struct remote *tree, uint64_t tree_offset) {
  r->image = strdup(image);
  if (!r->image)
    return -ENOMEM;
  r->verifier = verifier;
  r->verified = (struct verified_options){.name = r->image,
                                          .root_len = root_len,
                                          .tree_offset = tree_offset,
                                          .corrupt = tell_of_corruption};
  memcpy(r->verified.root, root, root_len);
  r->tree = tree ? remotes_ref(tree) : NULL;
  return 0;
}

int remotes_verify_whole(struct remote *r, const struct verifier *verifier,
                         const char *image, const uint8_t sha256[32]) {
  r->is_whole = true;
  return remotes_verify(r, verifier, image, sha256, DIGESTS_LEN, NULL, 0);
}

/* Opens it without verification. */
static int open_plainly(struct remote *r, const struct timespec *deadline,
                        struct source **out, struct source_fault *fault) {
  /* A hash tree is kept in the kernel's cache, because only a part of it is
   * kept here. */
  enum file_reading how = r->image ? FILE_DONTCACHE : FILE_CACHED;
  *fault = (struct source_fault){.text = ""};
  return r->kind ? r->kind->open(r->all->reactor, &r->uri, deadline, out, fault)
                 : file_source_open(r->uri.text, how, out);
}

/* Adds to an error that it concerns the hash tree. */
static void tell_of_tree(int error, struct source_fault *fault) {
  const struct source_fault of_tree = *fault;
  snprintf(fault->text, sizeof fault->text, "its hash tree: %.200s",
           *of_tree.text ? of_tree.text : strerror(-error));
}

/* Opens a hash tree.  It must call back if the source of the image does. */
static int open_tree(struct remote *tree, bool calls_back,
                     const struct timespec *deadline, struct source **out,
                     struct source_fault *fault) {
  int e = remotes_open(tree, deadline, out, fault);
  return e == 0 && calls_back && !tree->kind
             ? threaded_source_new(*out, tree->all->reactor, out)
             : e;
}

/* Opens it, with verification if that is configured. */
static int open_once(struct remote *r, const struct timespec *deadline,
                     struct source **out, struct source_fault *fault) {
  struct verified_options options = r->verified;
  struct source *below;
  int e = open_plainly(r, deadline, &below, fault);
  if (e < 0)
    return e;
  if (!r->verifier) {
    *out = below;
    return 0;
  }
  if (r->tree && (e = open_tree(r->tree, r->kind != NULL, deadline,
                                &options.tree, fault)) < 0)
    tell_of_tree(e, fault);
  else
    e = r->verifier->open(&options, below, out, fault);
  if (e < 0)
    below->ops->close(below);
  return e;
}

/* Takes `below` over, also on failure. */
static int try_again(struct remote *r, struct source *below,
                     struct source **out) {
  if (!r->retrying) {
    *out = below;
    return 0;
  }
  int e = retrying_source_new(r->retrying, below, out);
  if (e < 0)
    below->ops->close(below);
  return e;
}

int remotes_open(struct remote *r, const struct timespec *deadline,
                 struct source **out, struct source_fault *fault) {
  struct source *below;
  assert(!r->is_whole);
  int e = open_once(r, deadline, &below, fault);
  return e < 0 ? e : try_again(r, below, out);
}

struct retrying *remotes_retrying(const struct remote *r) {
  return r->retrying;
}

/* ---- What is opened later ------------------------------------------------ */

struct later_source {
  struct source base;
  struct remote *remote;
  struct hashing *hashing; /* of one that is compared as a whole; or NULL */
  bool differs;            /* what `hashing` is of, which the log says */
  int failed;              /* why `hashing` failed; 0: it has not */
  uint64_t pause_ms;       /* until again_ms (clock_now_ms()); 0: none yet */
  uint64_t again_ms;
  int told; /* why it could not be opened, which the log says */
};

static enum source_outcome later_start(struct source *src,
                                       struct source_read *read) {
  (void)src;
  read->status = -ENXIO; /* its size is 0, so no caller reads it */
  return SOURCE_DONE;
}

static void put_off(struct later_source *s, uint64_t most_ms) {
  s->pause_ms = s->pause_ms ? s->pause_ms * 2 : PAUSE_FIRST_MS;
  s->pause_ms = s->pause_ms < most_ms ? s->pause_ms : most_ms;
  s->again_ms = clock_now_ms() + s->pause_ms;
}

static bool is_put_off(const struct later_source *s) {
  return s->pause_ms && clock_now_ms() < s->again_ms;
}

static void hashing_ended(void *arg) { remotes_unref(arg); }

/* Takes `below` over, also on failure. */
static int begin_hashing(struct later_source *s, struct source *below) {
  /* A file needs no reference to the remote, so the end of the daemon does not
   * wait for a file that hangs. */
  struct remote *r = s->remote->kind ? remotes_ref(s->remote) : NULL;
  int e = s->remote->verifier->hashing_begin(below, s->remote->verified.root,
                                             hashing_ended, r, &s->hashing);
  s->differs = false;
  if (e == 0)
    return -EINPROGRESS;
  below->ops->close(below);
  remotes_unref(r);
  return e;
}

/* Logs why it could not be opened, once for each reason. */
static void tell_of_missing(struct later_source *s, int error,
                            const struct source_fault *fault) {
  if (s->told != error)
    log_event(
        LEVEL_ERROR, "image-missing", LOG_TEXT("image", s->remote->image),
        LOG_TEXT("reason", *fault->text ? fault->text : strerror(-error)));
  s->told = error;
}

static int open_and_hash(struct later_source *s) {
  struct source_fault fault;
  struct timespec deadline = clock_after_ms(OPEN_LATER_MS);
  struct source *below;
  int e = open_plainly(s->remote, &deadline, &below, &fault);
  if (e == 0)
    e = begin_hashing(s, below);
  if (e < 0 && e != -EINPROGRESS)
    tell_of_missing(s, e, &fault);
  return e;
}

/* Reads a byte, because some sources notice a new content only by a read.  A
 * file needs none. */
static void look_at(struct later_source *s, struct source *below) {
  uint8_t byte;
  if (!s->remote->kind || below->size == 0 || is_put_off(s))
    return;
  source_read_until(below, 0, &byte, 1, clock_now_ms() + OPEN_LATER_MS);
  put_off(s, LOOK_PAUSE_MOST_MS);
}

/* The content is not the expected one.  Begins to hash the next content, once
 * the source has one. */
static int hash_successor(struct later_source *s) {
  const struct verifier *verifier = s->remote->verifier;
  struct source *below = verifier->hashing_source(s->hashing), *next = NULL;
  if (!s->differs) {
    log_event(LEVEL_WARN, "image-corrupt", LOG_TEXT("image", s->remote->image),
              LOG_NUMBER("offset", 0), LOG_NUMBER("length", below->size));
    s->pause_ms = 0;
    s->failed = 0;
  }
  s->differs = true;
  look_at(s, below);
  int e = source_reopen(below, &next);
  if (!next)
    return e < 0 ? e : -EBADMSG;
  verifier->hashing_end(s->hashing);
  s->hashing = NULL;
  return begin_hashing(s, next);
}

static int take_hashed(struct later_source *s, struct source **out) {
  struct remote *r = s->remote;
  struct source *below, *verified;
  struct digests *digests;
  r->verifier->hashing_take(s->hashing, &below, &digests);
  int e = r->verifier->open_by_digests(&r->verified, digests, below, &verified);
  if (e < 0) {
    r->verifier->free_digests(digests);
    below->ops->close(below);
  } else {
    e = try_again(r, verified, out);
  }
  r->verifier->hashing_end(s->hashing);
  s->hashing = NULL;
  return e;
}

static int reopen_whole(struct later_source *s, struct source **out) {
  const struct verifier *verifier = s->remote->verifier;
  if (!s->hashing)
    return s->failed && is_put_off(s) ? s->failed : open_and_hash(s);
  switch (verifier->hashing_state(s->hashing)) {
  case HASHING_READS:
    return -EINPROGRESS;
  case HASHING_MATCHES:
    return take_hashed(s, out);
  case HASHING_DIFFERS:
    return hash_successor(s);
  default:
    break;
  }
  int e = verifier->hashing_status(s->hashing);
  tell_of_missing(s, e, &(struct source_fault){.text = ""});
  verifier->hashing_end(s->hashing);
  s->hashing = NULL;
  s->failed = e;
  put_off(s, HASH_PAUSE_MOST_MS);
  return e;
}

static int later_reopen(struct source *src, struct source **out) {
  struct later_source *s = container_of(src, struct later_source, base);
  struct source_fault fault;
  struct timespec deadline = clock_after_ms(OPEN_LATER_MS);
  *out = NULL;
  if (s->remote->is_whole)
    return reopen_whole(s, out);
  return remotes_open(s->remote, &deadline, out, &fault);
}

static void later_close(struct source *src) {
  struct later_source *s = container_of(src, struct later_source, base);
  if (s->hashing)
    s->remote->verifier->hashing_end(s->hashing);
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

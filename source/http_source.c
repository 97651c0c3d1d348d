#include "source/http_source.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "base/clock.h"
#include "base/container_of.h"
#include "base/latch.h"
#include "cache/source.h"
#include "source/reactor.h"
#include "source/remote.h"

/* The state that all versions of one object share. */
struct shared_target {
  struct http_target target;
  struct reactor *reactor;
  struct http_client *client;
  /* How many sources use it.  Relaxed when one is added, by an owner.  Acquire
   * and release when one leaves: the last one sees what the others did. */
  _Atomic unsigned n_refs;
};

struct http_source {
  struct source source;
  struct shared_target *shared;
  struct http_object object;
  /* A read found that the object has changed or is gone.  The reactor stores it
   * (release); reopen() takes it (acquire), and then asks the server. */
  atomic_bool is_doubted;
  uint64_t asked_ms; /* clock_now_ms(); reopen()'s alone, once it is open */
};

static struct http_source *http_source_of(struct source *src) {
  return container_of(src, struct http_source, source);
}

/* ---- The target ---------------------------------------------------------- */

void http_target_fini(struct http_target *target) {
  if (target->ops.free)
    target->ops.free(target->arg);
  free((char *)target->client.ca);
  free(target->url);
  free(target->shown);
}

static void shared_unref(struct shared_target *shared) {
  if (atomic_fetch_sub_explicit(&shared->n_refs, 1, memory_order_acq_rel) > 1)
    return;
  http_client_free(shared->client);
  http_target_fini(&shared->target);
  free(shared);
}

static struct shared_target *shared_ref(struct shared_target *shared) {
  atomic_fetch_add_explicit(&shared->n_refs, 1, memory_order_relaxed);
  return shared;
}

static int shared_new(struct reactor *r, const struct http_target *target,
                      struct shared_target **out) {
  struct shared_target *shared = calloc(1, sizeof *shared);
  if (!shared)
    return -ENOMEM;
  int failed = http_client_new(r, &target->client, &shared->client);
  if (failed) {
    free(shared);
    return failed;
  }
  shared->target = *target;
  shared->reactor = r;
  atomic_init(&shared->n_refs, 1);
  *out = shared;
  return 0;
}

/* ---- Gets ---------------------------------------------------------------- */

struct target_get {
  struct http_get get;
  struct shared_target *shared;
  struct task begin;
  struct http_pause pause;
  bool was_asked_again;
  void (*ended)(struct target_get *get);
};

static int target_add_headers(struct http_get *get,
                              struct curl_slist **headers) {
  struct shared_target *shared =
      container_of(get, struct target_get, get)->shared;
  const struct http_target *target = &shared->target;
  return target->ops.add_headers
             ? target->ops.add_headers(target->arg, get, headers)
             : 0;
}

static void target_over(struct http_pause *pause, bool again) {
  struct target_get *get = container_of(pause, struct target_get, pause);
  if (again && !get->was_asked_again) {
    get->was_asked_again = true;
    http_client_start(get->shared->client, &get->get);
    return;
  }
  get->ended(get);
}

static void target_ended(struct http_get *get) {
  struct target_get *of_target = container_of(get, struct target_get, get);
  const struct http_target *target = &of_target->shared->target;
  enum http_advice advice = HTTP_GIVE_UP;
  of_target->pause.over = target_over;
  if (get->status && target->ops.failed)
    advice = target->ops.failed(target->arg, get, &of_target->pause);
  if (advice != HTTP_PAUSE)
    target_over(&of_target->pause, advice == HTTP_ASK_AGAIN);
}

static void target_begin(struct task *task) {
  struct target_get *get = container_of(task, struct target_get, begin);
  http_client_start(get->shared->client, &get->get);
}

/* Starts a get on the reactor.  All of it is zero except its range. */
static void target_start(struct shared_target *shared, struct target_get *get,
                         unsigned timeout_ms) {
  get->shared = shared;
  get->begin.run = target_begin;
  get->get.url = shared->target.url;
  get->get.follows = shared->target.follows_redirects;
  get->get.timeout_ms = timeout_ms;
  get->get.add_headers = target_add_headers;
  get->get.ended = target_ended;
  reactor_post(shared->reactor, &get->begin);
}

/* ---- Reads --------------------------------------------------------------- */

struct http_read {
  struct target_get get;
  struct http_source *source;
  struct source_read *read;
};

static void read_ended(struct target_get *get) {
  struct http_read *h = container_of(get, struct http_read, get);
  struct source_read *r = h->read;
  r->status = get->get.status;
  r->sent_ns = get->get.sent_ns;
  r->first_ns = get->get.first_ns;
  if (r->status == -ESTALE || r->status == -ENOENT)
    atomic_store_explicit(&h->source->is_doubted, true, memory_order_release);
  free(h);
  r->done(r); /* last, because it may close the source */
}

static enum source_outcome http_source_start(struct source *src,
                                             struct source_read *r) {
  struct http_source *s = http_source_of(src);
  struct http_read *h = r->len ? calloc(1, sizeof *h) : NULL;
  if (!h) {
    r->status = r->len ? -ENOMEM : 0;
    return SOURCE_DONE;
  }
  h->read = r;
  h->source = s;
  h->get.ended = read_ended;
  h->get.get.object = &s->object;
  h->get.get.offset = r->offset;
  h->get.get.buf = r->buf;
  h->get.get.len = r->len;
  h->get.get.anew = r->anew;
  h->get.get.deadline_ms = r->deadline_ms;
  target_start(s->shared, &h->get, s->shared->target.timeout_ms);
  return SOURCE_PENDING;
}

/* ---- Opening ------------------------------------------------------------- */

/* A question about the object, for which a thread waits. */
struct http_question {
  struct target_get get;
  struct latch ended;
};

static void question_ended(struct target_get *get) {
  latch_open(&container_of(get, struct http_question, get)->ended);
}

static void question_ask(struct http_question *q, struct shared_target *shared,
                         unsigned timeout_ms) {
  q->ended = (struct latch)LATCH_INITIALIZER;
  q->get.ended = question_ended;
  q->get.get.len = 1;
  target_start(shared, &q->get, timeout_ms);
  latch_wait(&q->ended);
}

/* Whether a HEAD proves that the object is unchanged.  It costs the server less
 * than a GET, but some servers state no version in the answer. */
static bool head_proves(struct http_source *s) {
  struct http_question *q = calloc(1, sizeof *q);
  if (!q)
    return false;
  q->get.get.is_head = true;
  q->get.get.object = &s->object;
  question_ask(q, s->shared, s->shared->target.timeout_ms);
  bool proves = q->get.get.status == 0;
  free(q);
  return proves;
}

/* Asks the server once about the object.  Returns 0, or a negative errno with
 * `fault` set, if that is not NULL.  `*settles`: it failed only because the
 * object was modified this moment, so its stamp may not show a further
 * change. */
static int ask_once(struct shared_target *shared, unsigned timeout_ms,
                    struct http_object *out, bool *settles,
                    struct source_fault *fault) {
  struct http_question *q = calloc(1, sizeof *q);
  if (!q)
    return -ENOMEM;
  question_ask(q, shared, timeout_ms);
  const struct http_get *get = &q->get.get;
  int status = get->status;
  *out = get->learned;
  *settles = status == -EAGAIN && get->answer.code < 300;
  if (status && fault && get->answer.code >= 300)
    snprintf(fault->text, sizeof fault->text, "%.100s: %.120s (HTTP status %d)",
             shared->target.shown, get->why, get->answer.code);
  else if (status && fault)
    snprintf(fault->text, sizeof fault->text, "%.100s: %.120s",
             shared->target.shown, get->why);
  free(q);
  return status;
}

/* Asks the server about the object.  If the object was modified this moment it
 * asks again a second or two later, when its stamp shows every further
 * change. */
static int ask(struct shared_target *shared, unsigned timeout_ms,
               struct http_object *out, struct source_fault *fault) {
  const uint64_t until = clock_now_ms() + timeout_ms;
  const struct timespec second = {.tv_sec = 1};
  bool settles;
  int status;
  for (;;) {
    status = ask_once(shared, timeout_ms, out, &settles, fault);
    uint64_t now = clock_now_ms();
    if (!settles || now + 1000 >= until)
      return status;
    clock_nanosleep(CLOCK_MONOTONIC, 0, &second, NULL);
    timeout_ms = (unsigned)(until - now - 1000);
  }
}

/* Adds the hash of some texts to an identity.  If that fails, the identity is
 * empty. */
static void add_hash(struct source_identity *id, const char *const *parts,
                     size_t n_parts) {
  uint8_t digest[EVP_MAX_MD_SIZE];
  unsigned len = 0;
  EVP_MD_CTX *hash = EVP_MD_CTX_new();
  bool done = hash && EVP_DigestInit_ex(hash, EVP_sha256(), NULL);
  for (size_t i = 0; done && i < n_parts; i++)
    done = EVP_DigestUpdate(hash, parts[i], strlen(parts[i]) + 1);
  if (done && EVP_DigestFinal_ex(hash, digest, &len))
    source_identity_add(id, digest, len);
  EVP_MD_CTX_free(hash);
}

/* The identity is what proves the reads, so it is the same for every process
 * that reads the object.  The part for other machines contains no hash of a
 * secret, because a secret may be guessed from its hash. */
static void http_source_identify(struct source *src,
                                 struct source_identity *out) {
  struct http_source *s = http_source_of(src);
  const struct http_target *target = &s->shared->target;
  char size[24];
  snprintf(size, sizeof size, "%" PRIu64, src->size);
  const char *word[] = {"http", target->url};
  const char *content[] = {"http", target->shown, size, s->object.etag,
                           s->object.last_modified};
  add_hash(out, word, sizeof word / sizeof *word);
  uint32_t word_len = out->len;
  add_hash(out, content, sizeof content / sizeof *content);
  if (word_len == 0 || out->len == word_len)
    *out = (struct source_identity){0};
  else
    out->content_len = out->len - word_len;
}

static int http_source_reopen(struct source *src, struct source **out);

static void http_source_close(struct source *src) {
  struct http_source *s = http_source_of(src);
  shared_unref(s->shared);
  free(s);
}

static const struct source_ops http_source_ops = {
    .kind = "http",
    .start = http_source_start,
    .reopen = http_source_reopen,
    .identify = http_source_identify,
    .resume = source_is_identity,
    .close = http_source_close,
};

static int make_source(struct shared_target *shared,
                       const struct http_object *object, struct source **out) {
  struct http_source *s = calloc(1, sizeof *s);
  if (!s)
    return -ENOMEM;
  s->source.ops = &http_source_ops;
  s->source.size = object->size;
  s->shared = shared_ref(shared);
  s->object = *object;
  atomic_init(&s->is_doubted, false);
  s->asked_ms = clock_now_ms();
  *out = &s->source;
  return 0;
}

static bool is_time_to_ask(const struct http_source *s) {
  unsigned watch_ms = s->shared->target.watch_ms;
  return watch_ms && clock_now_ms() - s->asked_ms >= watch_ms;
}

/* Whether the object need not be asked for.  Each read proves the version, so
 * only a failed read or the clock is a reason to ask. */
static bool is_as_it_was(struct http_source *s) {
  if (atomic_exchange_explicit(&s->is_doubted, false, memory_order_acquire))
    return false;
  if (!is_time_to_ask(s))
    return true;
  bool proves = head_proves(s);
  if (proves)
    s->asked_ms = clock_now_ms();
  return proves;
}

static int http_source_reopen(struct source *src, struct source **out) {
  struct http_source *s = http_source_of(src);
  struct http_object object;
  *out = NULL;
  if (is_as_it_was(s))
    return 0;
  int failed = ask(s->shared, s->shared->target.timeout_ms, &object, NULL);
  s->asked_ms = clock_now_ms();
  if (failed) /* the next call asks again */
    atomic_store_explicit(&s->is_doubted, true, memory_order_release);
  if (failed || http_object_same(&object, &s->object))
    return failed;
  return make_source(s->shared, &object, out);
}

/* From now until `deadline`; 0: it has passed. */
static unsigned left_ms(const struct timespec *deadline) {
  int64_t now = (int64_t)clock_now_ns() / 1000000;
  int64_t then = (int64_t)deadline->tv_sec * 1000 + deadline->tv_nsec / 1000000;
  if (then <= now)
    return 0;
  return then - now < UINT32_MAX ? (unsigned)(then - now) : UINT32_MAX;
}

int http_source_open(struct reactor *r, const struct http_target *target,
                     const struct timespec *deadline, struct source **out,
                     struct source_fault *fault) {
  struct shared_target *shared;
  struct http_object object;
  unsigned timeout_ms = left_ms(deadline);
  if (timeout_ms > target->timeout_ms)
    timeout_ms = target->timeout_ms;
  snprintf(fault->text, sizeof fault->text, "%.100s: %s", target->shown,
           strerror(timeout_ms ? ENOMEM : ETIMEDOUT));
  int failed = timeout_ms ? shared_new(r, target, &shared) : -ETIMEDOUT;
  if (failed) {
    struct http_target unused = *target;
    http_target_fini(&unused);
    return failed;
  }
  failed = ask(shared, timeout_ms, &object, fault);
  if (!failed)
    failed = make_source(shared, &object, out);
  shared_unref(shared);
  return failed;
}

#include "source/hashing.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "cache/source.h"

enum {
  /* A multiple of every block size (digests.h), so that no block is split. */
  READ_LEN = 2 << 20,
  /* After so many failed reads of one range it gives up.  The pause after the
   * first one doubles with each: so a store that is back within 7.5 seconds
   * does no harm. */
  MAX_FAILURES = 5,
  PAUSE_MS = 500,
};

struct hashing {
  struct source *below; /* the thread's; then the owner's */
  uint8_t expected[DIGESTS_LEN];
  struct digests *digests;
  void (*ended)(void *arg);
  void *arg;
  pthread_mutex_t lock; /* a leaf */
  pthread_cond_t changed;
  /* Guarded by lock. */
  enum hashing_state state;
  int status;
  bool is_given_up;
  unsigned n_refs; /* the thread's, and the owner's */
};

static void hashing_free(struct hashing *h) {
  if (h->below)
    h->below->ops->close(h->below);
  digests_free(h->digests);
  pthread_cond_destroy(&h->changed);
  pthread_mutex_destroy(&h->lock);
  free(h);
}
CLEANUP_FUNCTION(struct hashing *, hashing_free)

/* `ended` is called last: its caller may then end what the source needs. */
static void hashing_unref(struct hashing *h) {
  pthread_mutex_lock(&h->lock);
  bool last = --h->n_refs == 0;
  pthread_mutex_unlock(&h->lock);
  if (!last)
    return;
  void (*ended)(void *arg) = h->ended;
  void *arg = h->arg;
  hashing_free(h);
  ended(arg);
}

/* Waits for `wait_ms`, or until the owner gives it up.  Returns whether the
 * owner has. */
static bool is_given_up(struct hashing *h, unsigned wait_ms) {
  const struct timespec until = clock_after_ms(wait_ms);
  pthread_mutex_lock(&h->lock);
  while (wait_ms && !h->is_given_up &&
         pthread_cond_clockwait(&h->changed, &h->lock, CLOCK_MONOTONIC,
                                &until) == 0)
    ;
  bool is = h->is_given_up;
  pthread_mutex_unlock(&h->lock);
  return is;
}

/* Reads a range again if that fails, unless the content has changed. */
static int read_part(struct hashing *h, uint64_t offset, void *buf,
                     size_t len) {
  unsigned pause_ms = PAUSE_MS;
  for (int n = 1;; n++, pause_ms *= 2) {
    int r = source_read_blocking(h->below, offset, buf, len);
    if (r == SOURCE_ZEROS)
      memset(buf, 0, len);
    if (r >= 0 || r == -ESTALE || n == MAX_FAILURES)
      return r < 0 ? r : 0;
    if (is_given_up(h, pause_ms))
      return -ECANCELED;
  }
}

static int read_all(struct hashing *h, void *buf) {
  uint64_t size = h->below->size;
  for (uint64_t at = 0; at < size; at += READ_LEN) {
    size_t len = size - at < READ_LEN ? (size_t)(size - at) : READ_LEN;
    int r = is_given_up(h, 0) ? -ECANCELED : read_part(h, at, buf, len);
    if (r == 0 && !digests_add(h->digests, buf, len))
      r = -ENOMEM;
    if (r < 0)
      return r;
  }
  return 0;
}

static void *hashing_run(void *arg) {
  struct hashing *h = arg;
  uint8_t hash[DIGESTS_LEN];
  void *buf = malloc(READ_LEN);
  int r = buf ? read_all(h, buf) : -ENOMEM;
  free(buf);
  if (r == 0 && !digests_end(h->digests, hash))
    r = -ENOMEM;
  pthread_mutex_lock(&h->lock);
  h->status = r;
  h->state = r < 0                                         ? HASHING_FAILED
             : memcmp(hash, h->expected, sizeof hash) == 0 ? HASHING_MATCHES
                                                           : HASHING_DIFFERS;
  pthread_mutex_unlock(&h->lock);
  hashing_unref(h);
  return NULL;
}

int hashing_begin(struct source *below, const uint8_t expected[DIGESTS_LEN],
                  void (*ended)(void *arg), void *arg, struct hashing **out) {
  CLEANUP(hashing_freep) struct hashing *h = calloc(1, sizeof *h);
  if (!h)
    return -ENOMEM;
  pthread_mutex_init(&h->lock, NULL);
  pthread_cond_init(&h->changed, NULL);
  int r = digests_new(below->size, &h->digests);
  if (r < 0)
    return r;
  pthread_t thread;
  memcpy(h->expected, expected, sizeof h->expected);
  h->below = below;
  h->ended = ended;
  h->arg = arg;
  h->n_refs = 2;
  r = pthread_create(&thread, NULL, hashing_run, h);
  if (r != 0) {
    h->below = NULL; /* it stays the caller's */
    return -r;
  }
  pthread_detach(thread);
  *out = STEAL(h);
  return 0;
}

enum hashing_state hashing_state(struct hashing *h) {
  pthread_mutex_lock(&h->lock);
  enum hashing_state state = h->state;
  pthread_mutex_unlock(&h->lock);
  return state;
}

int hashing_status(const struct hashing *h) { return h->status; }

struct source *hashing_source(const struct hashing *h) {
  return h->below;
}

void hashing_take(struct hashing *h, struct source **below,
                  struct digests **digests) {
  *below = h->below;
  *digests = h->digests;
  h->below = NULL;
  h->digests = NULL;
}

void hashing_end(struct hashing *h) {
  if (!h)
    return;
  pthread_mutex_lock(&h->lock);
  h->is_given_up = true;
  pthread_cond_signal(&h->changed);
  pthread_mutex_unlock(&h->lock);
  hashing_unref(h);
}

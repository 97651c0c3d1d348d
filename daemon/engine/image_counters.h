/* Counters of an image's requests.  Each thread has counters of its own, and
 * writes only these.  A reader adds up the counters of all threads.
 * daemon/serve/metrics.c does this.  It also lists all other counters, and
 * collects their values from the modules that keep them. */
#ifndef DAEMON_ENGINE_IMAGE_COUNTERS_H
#define DAEMON_ENGINE_IMAGE_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum image_counter {
  COUNTER_HITS,     /* pages that were resident when asked for */
  COUNTER_MISSES,   /* pages whose fill a request started */
  COUNTER_JOINS,    /* pages whose fill was in flight */
  COUNTER_REQUESTS, /* Read, Warm, Attach, Invalidate */
  COUNTER_QUEUED,   /* requests that waited for their turn to fetch */
  COUNTER_ERRORS,   /* requests that ended in an Error */
  COUNTER_BYTES,    /* of payload, sent */
  N_COUNTERS,
};

/* The counters of one image and one thread.  Only this thread writes them, so a
 * plain add between two relaxed accesses loses no count. */
struct image_counters {
  _Alignas(64) _Atomic uint64_t values[N_COUNTERS];
};
_Static_assert(sizeof(struct image_counters) == 64, "a cache line");

/* Counters of `n` threads, all 0, for free(3).  NULL: out of memory. */
static inline struct image_counters *image_counters_new(unsigned n) {
  struct image_counters *c =
      aligned_alloc(_Alignof(struct image_counters), n * sizeof *c);
  return c ? memset(c, 0, n * sizeof *c) : NULL;
}

static inline void image_counters_add(struct image_counters *c,
                                      enum image_counter which, uint64_t n) {
  uint64_t now = atomic_load_explicit(&c->values[which], memory_order_relaxed);
  atomic_store_explicit(&c->values[which], now + n, memory_order_relaxed);
}

static inline uint64_t image_counters_get(const struct image_counters *c,
                                          enum image_counter which) {
  return atomic_load_explicit(&c->values[which], memory_order_relaxed);
}

#endif

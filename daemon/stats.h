/* Counters: each worker has its own, and nobody else writes them; they are
 * summed when somebody asks. */
#ifndef DAEMON_STATS_H
#define DAEMON_STATS_H

#include <stdint.h>

#include "daemon/serve/context.h"
#include "proto/cachet.pb-c.h"

enum stat_id {
  STAT_HITS,     /* pages that were resident when asked for */
  STAT_MISSES,   /* pages whose fill a request started */
  STAT_JOINS,    /* pages whose fill was in flight */
  STAT_REQUESTS, /* Read, Warm, Invalidate */
  STAT_ERRORS,   /* requests that ended in an Error */
  STAT_BYTES,    /* of payload, sent */
  N_STATS,
};

/* One image's, at one worker.  Written by the worker alone, so a plain add
 * between two relaxed accesses loses nothing. */
struct counters {
  _Atomic uint64_t values[N_STATS];
};

static inline void counters_add(struct counters *c, enum stat_id which,
                                uint64_t n) {
  uint64_t now = atomic_load_explicit(&c->values[which], memory_order_relaxed);
  atomic_store_explicit(&c->values[which], now + n, memory_order_relaxed);
}

/* Makes the answer to GetStats; NULL: out of memory.  One block from
 * malloc(3), names included, for the caller to free(). */
Cachet__Wire__Stats *stats_collect(const struct server_context *context);

#endif

/* The sum of the counts of all clients that read an image's memory.
 *
 * It lives as long as the image and each pin table whose counts it sums: a
 * table may outlive its image. */
#ifndef DAEMON_ENGINE_READER_COUNTS_H
#define DAEMON_ENGINE_READER_COUNTS_H

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

struct reader_counts {
  _Atomic uint64_t n_hits, n_misses; /* relaxed: statistics */
  atomic_uint n_refs;
};

/* With one reference.  NULL: out of memory. */
static inline struct reader_counts *reader_counts_new(void) {
  struct reader_counts *c = calloc(1, sizeof *c);
  if (c)
    atomic_init(&c->n_refs, 1);
  return c;
}

static inline struct reader_counts *reader_counts_ref(struct reader_counts *c) {
  atomic_fetch_add_explicit(&c->n_refs, 1, memory_order_relaxed);
  return c;
}

/* NULL is fine. */
static inline void reader_counts_unref(struct reader_counts *c) {
  if (c && atomic_fetch_sub_explicit(&c->n_refs, 1, memory_order_acq_rel) == 1)
    free(c);
}

static inline void reader_counts_add(struct reader_counts *c, uint64_t n_hits,
                                     uint64_t n_misses) {
  atomic_fetch_add_explicit(&c->n_hits, n_hits, memory_order_relaxed);
  atomic_fetch_add_explicit(&c->n_misses, n_misses, memory_order_relaxed);
}

#endif

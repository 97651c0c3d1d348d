/* histogram: percentiles of latencies, to within 1.6 %, whatever their range.
 */
#ifndef TESTS_BENCH_HISTOGRAM_H
#define TESTS_BENCH_HISTOGRAM_H

#include <stdint.h>
#include <string.h>

#include "base/buckets.h"

enum { HISTOGRAM_CUT = 6, HISTOGRAM_LEN = BUCKETS_LEN(64, HISTOGRAM_CUT) };

struct histogram {
  uint64_t n;
  uint64_t counts[HISTOGRAM_LEN];
};

static inline void histogram_clear(struct histogram *h) {
  memset(h, 0, sizeof *h);
}

static inline void histogram_add(struct histogram *h, uint64_t value) {
  h->counts[buckets_find(value, HISTOGRAM_CUT)]++;
  h->n++;
}

/* The least value of the bucket that holds this part of all values. */
static inline uint64_t histogram_value(const struct histogram *h, double part) {
  uint64_t want = (uint64_t)(part * (double)h->n), seen = 0, bucket = 0;
  while (bucket + 1 < HISTOGRAM_LEN && (seen += h->counts[bucket]) <= want)
    bucket++;
  return buckets_least(bucket, HISTOGRAM_CUT);
}

#endif

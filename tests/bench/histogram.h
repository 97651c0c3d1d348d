/* histogram: percentiles of latencies, to within 1.6 %, whatever their range.
 *
 * Bucket b < 64 holds the value b; from there on each power of two is cut into
 * 64 buckets. */
#ifndef TESTS_BENCH_HISTOGRAM_H
#define TESTS_BENCH_HISTOGRAM_H

#include <stdint.h>
#include <string.h>

enum { HISTOGRAM_CUT = 6, HISTOGRAM_LEN = 64 << HISTOGRAM_CUT };

struct histogram {
  uint64_t n;
  uint64_t counts[HISTOGRAM_LEN];
};

static inline void histogram_clear(struct histogram *h) {
  memset(h, 0, sizeof *h);
}

static inline void histogram_add(struct histogram *h, uint64_t value) {
  unsigned shift = 0;
  if (value >> HISTOGRAM_CUT)
    shift = 63 - (unsigned)__builtin_clzll(value) - HISTOGRAM_CUT;
  /* With a shift, the value's highest bit is the 64 that the next row begins
   * at. */
  h->counts[((uint64_t)shift << HISTOGRAM_CUT) + (value >> shift)]++;
  h->n++;
}

/* The least value of the bucket that holds this part of all values. */
static inline uint64_t histogram_value(const struct histogram *h, double part) {
  uint64_t want = (uint64_t)(part * (double)h->n), seen = 0, bucket = 0;
  while (bucket + 1 < HISTOGRAM_LEN && (seen += h->counts[bucket]) <= want)
    bucket++;
  uint64_t row = bucket >> HISTOGRAM_CUT;
  if (row < 2)
    return bucket;
  return (bucket - ((row - 1) << HISTOGRAM_CUT)) << (row - 1);
}

#endif

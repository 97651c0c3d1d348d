/* Buckets of a histogram whose values may have any range: the values below
 * 2^(cut + 1) have one each, and from there on each power of two is cut into
 * 2^cut of them.  So a value is known to within that part of itself. */
#ifndef BASE_BUCKETS_H
#define BASE_BUCKETS_H

#include <stdint.h>

/* How many buckets the values below 2^bits need. */
#define BUCKETS_LEN(bits, cut) (((bits) - (cut) + 1) << (cut))

static inline uint64_t buckets_find(uint64_t value, unsigned cut) {
  unsigned shift = 0;
  if (value >> cut)
    shift = 63 - (unsigned)__builtin_clzll(value) - cut;
  /* With a shift, the value's highest bit is the 2^cut that the next row
   * begins at. */
  return ((uint64_t)shift << cut) + (value >> shift);
}

/* The least value in a bucket. */
static inline uint64_t buckets_least(uint64_t bucket, unsigned cut) {
  uint64_t row = bucket >> cut;
  return row < 2 ? bucket : (bucket - ((row - 1) << cut)) << (row - 1);
}

#endif

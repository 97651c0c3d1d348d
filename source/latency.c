#include "source/latency.h"

#include "base/buckets.h"

_Static_assert((int)LATENCY_LEN == (int)BUCKETS_LEN(LATENCY_BITS, LATENCY_CUT),
               "the header says how many there are");

static void fade(struct latency *l) {
  l->n = 0;
  for (unsigned i = 0; i < LATENCY_LEN; i++) {
    l->counts[i] /= 2;
    l->n += l->counts[i];
  }
}

void latency_add(struct latency *l, uint64_t ns) {
  uint64_t us = ns / 1000, most = (UINT64_C(1) << LATENCY_BITS) - 1;
  if (l->n >= 2 * LATENCY_FRESH)
    fade(l);
  l->counts[buckets_find(us < most ? us : most, LATENCY_CUT)]++;
  l->n++;
}

uint64_t latency_us(const struct latency *l, unsigned percent) {
  uint64_t want = ((uint64_t)l->n * percent + 99) / 100, seen = 0;
  unsigned bucket = 0;
  if (l->n == 0)
    return 0;
  while (bucket + 1 < LATENCY_LEN && (seen += l->counts[bucket]) < want)
    bucket++;
  return buckets_least(bucket, LATENCY_CUT);
}

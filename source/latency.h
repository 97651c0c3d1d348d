/* Latencies: percentiles of how long something took of late, to within an
 * eighth.  Not thread-safe. */
#ifndef SOURCE_LATENCY_H
#define SOURCE_LATENCY_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Microseconds up to two minutes; more counts as that. */
enum { LATENCY_CUT = 3, LATENCY_BITS = 27, LATENCY_LEN = 200 };

/* Of so many the older ones count half as much. */
enum { LATENCY_FRESH = 4096 };

/* Zeroed there are none. */
struct latency {
  uint32_t n;
  uint32_t counts[LATENCY_LEN];
};

void latency_add(struct latency *l, uint64_t ns);

/* Microseconds: so many percent took no longer, but for the width of a bucket.
 * 0: there are none. */
uint64_t latency_us(const struct latency *l, unsigned percent);

#ifdef __cplusplus
}
#endif

#endif

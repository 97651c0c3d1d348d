/* Latencies: percentiles of recent durations, with a precision of an eighth.
 * Not thread-safe. */
#ifndef SOURCE_LATENCY_H
#define SOURCE_LATENCY_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Microseconds, up to two minutes; longer durations count as that. */
enum { LATENCY_CUT = 3, LATENCY_BITS = 27, LATENCY_LEN = 200 };

/* After this many durations, the counts of the older ones are halved. */
enum { LATENCY_FRESH = 4096 };

/* Zeroed: there are none. */
struct latency {
  uint32_t n;
  uint32_t counts[LATENCY_LEN];
};

void latency_add(struct latency *l, uint64_t ns);

/* The duration in microseconds that `percent` percent did not exceed, with the
 * precision of a bucket. 0: there are none. */
uint64_t latency_us(const struct latency *l, unsigned percent);

#ifdef __cplusplus
}
#endif

#endif

/* The pace of a source: the time to the first byte of a read, and the time for
 * each further byte, computed from the durations of reads.
 *
 * A read of n bytes takes about a + n * b. a and b are those of the line that
 * fits recent reads best; each read counts a little less with every new one.  A
 * source that knows when the first byte arrived provides two points, one of
 * them at 0 bytes.  Otherwise reads of different lengths are needed.
 *
 * It uses neither sources nor clocks. */
#ifndef SOURCE_PACE_H
#define SOURCE_PACE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Sums over points (bytes, nanoseconds).  Zeroed: there are none. */
struct pace {
  double n, x, y, xx, xy;
};

/* Adds a point: `bytes` bytes of a read had arrived after `ns`. */
void pace_add(struct pace *p, uint64_t bytes, uint64_t ns);

/* How many bytes a read should have: as many as arrive in the time to the first
 * byte, so that at least half of the time is spent receiving. 0: unknown.  If
 * all reads had about the same length, it is twice that length, so that the
 * next reads provide more information. */
uint64_t pace_worth(const struct pace *p);

#ifdef __cplusplus
}
#endif

#endif

/* The pace of a source: how long one waits for its first byte, and how long for
 * each that follows, from how long reads took.
 *
 * A read of n bytes takes about a + n * b.  Both are those of the line that is
 * nearest to the reads of late; each counts a little less with every one that
 * comes.  A source that knows when the first byte came gives two points of it,
 * one of them at no bytes; of another, reads of several lengths have to do.
 *
 * It knows neither sources nor clocks. */
#ifndef SOURCE_PACE_H
#define SOURCE_PACE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Sums over points (bytes, nanoseconds).  Zeroed there are none. */
struct pace {
  double n, x, y, xx, xy;
};

/* After `ns` so many bytes of a read were there. */
void pace_add(struct pace *p, uint64_t bytes, uint64_t ns);

/* How many bytes a read is worth: as many as come in the time that one waits
 * for the first of them, so that half of the time at least is spent receiving.
 * 0: it is not known yet.  Where all reads were alike it is twice as many as
 * they had, so that the next ones show more. */
uint64_t pace_worth(const struct pace *p);

#ifdef __cplusplus
}
#endif

#endif

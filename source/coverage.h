/* Coverage: which bytes of a range have come, when they come in pieces.
 *
 * For what a peer says: pieces may come in any order, and each byte once. */
#ifndef SOURCE_COVERAGE_H
#define SOURCE_COVERAGE_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  /* So many runs may be apart from each other: pieces in order are one. */
  COVERAGE_MAX_RUNS = 16,
};

struct coverage_run {
  uint64_t begin, end;
};

/* All zeros: nothing has come. */
struct coverage {
  unsigned n;
  struct coverage_run runs[COVERAGE_MAX_RUNS]; /* ascending, and apart */
};

/* Adds a piece.  False: some of it was there, or there are too many runs. */
bool coverage_add(struct coverage *c, uint64_t begin, uint64_t end);

/* Whether all bytes from `begin` to `end` have come, and no others. */
bool coverage_is(const struct coverage *c, uint64_t begin, uint64_t end);

#ifdef __cplusplus
}
#endif

#endif

/* Coverage: which bytes of a range have arrived, if they arrive in pieces.
 *
 * It checks what a peer sends: pieces may arrive in any order, and each byte
 * once. */
#ifndef SOURCE_COVERAGE_H
#define SOURCE_COVERAGE_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  /* The most separate runs; pieces in order are one run. */
  COVERAGE_MAX_RUNS = 16,
};

struct coverage_run {
  uint64_t begin, end;
};

/* Zeroed: nothing has arrived. */
struct coverage {
  unsigned n;
  struct coverage_run runs[COVERAGE_MAX_RUNS]; /* ascending, separate */
};

/* Adds a piece.  False: a part of it has arrived before, or there are too many
 * runs. */
bool coverage_add(struct coverage *c, uint64_t begin, uint64_t end);

/* Whether all bytes from `begin` to `end` have arrived, and no others. */
bool coverage_is(const struct coverage *c, uint64_t begin, uint64_t end);

#ifdef __cplusplus
}
#endif

#endif

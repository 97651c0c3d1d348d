/* The choice between several parents for a range: pure functions.
 *
 * The blocks of an image are distributed over its parents by rendezvous
 * hashing: each parent has a score for each block, computed from its address,
 * and the parent with the highest score is used.  So daemons that name the same
 * parents, in any order, use the same parent for the same bytes.  If a parent
 * is unreachable, its blocks are distributed over all others, and no other
 * block moves. */
#ifndef SOURCE_PARENT_CHOICE_H
#define SOURCE_PARENT_CHOICE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  /* The block size of the distribution: at least what a parent itself reads at
   * once. */
  PARENT_CHOICE_BLOCK = 1 << 20,
  PARENT_CHOICE_TIMES = 64,  /* that are remembered */
  PARENT_CHOICE_ENOUGH = 16, /* before which they say nothing */
  /* A parent that must read the bytes from its own source is not slow yet. */
  PARENT_CHOICE_LEAST_MS = 250,
};

/* The seed of a parent, from its address and the name of the image there. */
uint64_t parent_choice_seed(const char *place, const char *image);

/* The score of that parent for the block that contains the byte. */
uint64_t parent_choice_score(uint64_t seed, uint64_t offset);

/* The durations of the last answers of a parent.  Zeroed: there were none. */
struct parent_times {
  uint32_t ms[PARENT_CHOICE_TIMES];
  unsigned n, next;
};

void parent_choice_took(struct parent_times *t, uint64_t ms);

/* The time after which an answer is late: the 95th percentile of the last ones,
 * within those bounds. */
uint32_t parent_choice_patience(const struct parent_times *t, uint32_t most_ms);

#ifdef __cplusplus
}
#endif

#endif

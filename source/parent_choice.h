/* Which of several parents is asked for a range: pure functions.
 *
 * Blocks of an image are spread over its parents by rendezvous hashing: each
 * parent has a score for each block, by its address, and the highest is asked.
 * So daemons that name the same parents ask the same one for the same bytes, in
 * whatever order they name them; and a parent that is gone leaves its blocks to
 * all the others, and no other block moves. */
#ifndef SOURCE_PARENT_CHOICE_H
#define SOURCE_PARENT_CHOICE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  /* Of the spread: not less than what a parent itself reads at once. */
  PARENT_CHOICE_BLOCK = 1 << 20,
  PARENT_CHOICE_TIMES = 64,  /* that are remembered */
  PARENT_CHOICE_ENOUGH = 16, /* before which they say nothing */
  /* A parent that has to ask for the bytes itself is not slow yet. */
  PARENT_CHOICE_LEAST_MS = 250,
};

/* Of a parent, by where it listens and what the image is called there. */
uint64_t parent_choice_seed(const char *place, const char *image);

/* Of that parent, for the block that the byte lies in. */
uint64_t parent_choice_score(uint64_t seed, uint64_t offset);

/* How long the last answers of a parent took.  All zeros: there were none. */
struct parent_times {
  uint32_t ms[PARENT_CHOICE_TIMES];
  unsigned n, next;
};

void parent_choice_took(struct parent_times *t, uint64_t ms);

/* After how long an answer is late: when 95 of 100 of the last ones had come,
 * within those bounds. */
uint32_t parent_choice_patience(const struct parent_times *t, uint32_t most_ms);

#ifdef __cplusplus
}
#endif

#endif

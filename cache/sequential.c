#include "cache/sequential.h"

#include <stdbool.h>
#include <stddef.h>

struct sequential_reader *sequential_find(struct sequential_readers *s,
                                          uint64_t first) {
  for (unsigned i = 0; i < SEQUENTIAL_N; i++) {
    struct sequential_reader *st = &s->all[i];
    if (st->used_at && first >= st->start && first <= st->end &&
        first + SEQUENTIAL_BEHIND >= st->asked)
      return st;
  }
  return NULL;
}

static struct sequential_reader *oldest(struct sequential_readers *s) {
  struct sequential_reader *st = &s->all[0];
  for (unsigned i = 1; i < SEQUENTIAL_N; i++)
    if (s->all[i].used_at < st->used_at)
      st = &s->all[i];
  return st;
}

/* Whether a fetch leaves out pages of a block that is being read. */
static bool jumps(const struct sequential_reader *st, uint64_t first,
                  uint64_t block) {
  return first > st->asked && first < st->end && (first & (block - 1));
}

struct sequential_reader *sequential_note(struct sequential_readers *s,
                                          uint64_t first, uint64_t count,
                                          uint64_t block) {
  struct sequential_reader *st = sequential_find(s, first);
  if (!st) {
    st = oldest(s);
    *st = (struct sequential_reader){
        .start = first, .asked = first, .end = first + count};
  }
  if (first + count > st->asked && !jumps(st, first, block))
    st->asked = first + count;
  sequential_begun(st, st->asked);
  st->used_at = ++s->clock;
  return st;
}

uint64_t sequential_block(const struct sequential_reader *st, uint64_t at,
                          uint64_t least, uint64_t most) {
  uint64_t n = least;
  while (n < most && 2 * n <= at - st->start)
    n *= 2;
  return n;
}

#include "cache/scan.h"

#include <stdbool.h>
#include <stddef.h>

struct scan *scan_find(struct scans *s, uint64_t first) {
  for (unsigned i = 0; i < SCAN_N; i++) {
    struct scan *st = &s->all[i];
    if (st->used_at && first >= st->start && first <= st->end &&
        first + SCAN_BEHIND >= st->asked)
      return st;
  }
  return NULL;
}

static struct scan *oldest(struct scans *s) {
  struct scan *st = &s->all[0];
  for (unsigned i = 1; i < SCAN_N; i++)
    if (s->all[i].used_at < st->used_at)
      st = &s->all[i];
  return st;
}

/* Whether a fetch leaves out pages of a block that is being read. */
static bool jumps(const struct scan *st, uint64_t first, uint64_t block) {
  return first > st->asked && first < st->end && (first & (block - 1));
}

struct scan *scan_note(struct scans *s, uint64_t first, uint64_t count,
                       uint64_t block) {
  struct scan *st = scan_find(s, first);
  if (!st) {
    st = oldest(s);
    *st = (struct scan){.start = first, .asked = first, .end = first + count};
  }
  if (first + count > st->asked && !jumps(st, first, block))
    st->asked = first + count;
  scan_begun(st, st->asked);
  st->used_at = ++s->clock;
  return st;
}

uint64_t scan_block(const struct scan *st, uint64_t at, uint64_t least,
                    uint64_t most) {
  uint64_t n = least;
  while (n < most && 2 * n <= at - st->start)
    n *= 2;
  return n;
}

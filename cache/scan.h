/* Scans: readers that go from front to back, as their misses show them.
 *
 * A scan begins with a fetch of pages that no scan comes to.  A fetch goes on
 * with one if it begins between what was asked for of it last and the end of
 * what was begun for it: for a miss behind a block that was read, that is the
 * very next page.  So a reader that jumps about goes on with one by chance
 * alone; and processes that read the same side by side are one scan.
 *
 *   T1  start <= asked and start < end.  What was asked for lies between the
 *       first two, what was begun ends at the third.
 *   T2  The scan that was used last goes last.
 *
 * Pure bookkeeping, in pages: the caller serialises. */
#ifndef CACHE_SCAN_H
#define CACHE_SCAN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Of one image; and how far behind the first reader of a scan the others may
 * be. */
#define SCAN_N 8
#define SCAN_BEHIND 1024

struct scan {
  uint64_t start, asked, end;
  uint64_t used_at; /* 0: there is none */
};

struct scans {
  struct scan all[SCAN_N];
  uint64_t clock;
};

/* Which scan a fetch from page `first` on goes on with; NULL: none. */
struct scan *scan_find(struct scans *s, uint64_t first);

/* Notes a fetch of pages first .. first+count-1, in the scan that it goes on
 * with or begins, which it returns. */
struct scan *scan_note(struct scans *s, uint64_t first, uint64_t count);

/* Pages up to `end` are there, or under way. */
static inline void scan_begun(struct scan *st, uint64_t end) {
  if (end > st->end)
    st->end = end;
}

/* How long a block is to be that page `at` of the scan is in: a power of two
 * from `least` to `most`, both such, and no longer than the way to that page.
 * So of what is read no more than half is read in vain. */
uint64_t scan_block(const struct scan *st, uint64_t at, uint64_t least,
                    uint64_t most);

/* How far ahead of what was asked for there may be something under way, at most
 * `most`. */
static inline uint64_t scan_ahead(const struct scan *st, uint64_t most) {
  uint64_t way = st->asked - st->start;
  return way < most ? way : most;
}

#ifdef __cplusplus
}
#endif

#endif

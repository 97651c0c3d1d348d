/* Scans: sequential readers, recognised by their misses.
 *
 * A fetch continues a scan if it begins between the end of the pages that were
 * last requested in that scan and the end of the pages that were begun for it.
 * After a miss that read a block, this is the page after the block.  Any other
 * fetch begins a scan.  So a random reader continues a scan only by chance.
 * Several processes that read the same pages at the same time are one scan.
 *
 *   T1  start <= asked and start < end.  Requested pages are between `start`
 *       and `asked`; pages that were begun end at `end`.
 *   T2  The scan that was used last is replaced last.
 *
 * Only bookkeeping, in pages.  The caller serialises the calls. */
#ifndef CACHE_SCAN_H
#define CACHE_SCAN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The number of scans of one image; and how far the other readers of a scan may
 * be behind its first one, in pages. */
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

/* The scan that a fetch from page `first` on continues; NULL: none. */
struct scan *scan_find(struct scans *s, uint64_t first);

/* Records a fetch of pages first to first + count - 1 in the scan that it
 * continues or begins, and returns that scan.  The source is read in blocks of
 * `block` pages, a power of two.  A fetch in the middle of a block that is
 * being read is no progress if it leaves out pages that nobody requested:
 * several random readers of one block look like that. */
struct scan *scan_note(struct scans *s, uint64_t first, uint64_t count,
                       uint64_t block);

/* Records that pages up to `end` are cached or being read. */
static inline void scan_begun(struct scan *st, uint64_t end) {
  if (end > st->end)
    st->end = end;
}

/* The length of the block that contains page `at` of the scan: a power of two
 * from `least` to `most`, which are powers of two, and at most the distance
 * from the scan's start to that page.  So at most half of what is read is read
 * in vain. */
uint64_t scan_block(const struct scan *st, uint64_t at, uint64_t least,
                    uint64_t most);

/* How far ahead of the requested pages reads may be in progress, at most
 * `most`. */
static inline uint64_t scan_ahead(const struct scan *st, uint64_t most) {
  uint64_t way = st->asked - st->start;
  return way < most ? way : most;
}

#ifdef __cplusplus
}
#endif

#endif

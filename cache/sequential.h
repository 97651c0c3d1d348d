/* Sequential readers, recognised by their misses.
 *
 * A fetch continues a sequential reader if it begins between the end of the
 * pages that this reader requested last and the end of the pages that were
 * begun for it.  After a miss that read a block, this is the page after the
 * block.  Any other fetch begins a sequential reader.  So a random reader
 * continues one only by chance.  Several processes that read the same pages at
 * the same time are one sequential reader.
 *
 *   T1  start <= asked and start < end.  Requested pages are between `start`
 *       and `asked`; pages that were begun end at `end`.
 *   T2  The reader that was used last is replaced last.
 *
 * Only bookkeeping, in pages.  The caller serialises the calls. */
#ifndef CACHE_SEQUENTIAL_H
#define CACHE_SEQUENTIAL_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The number of sequential readers of one image; and how far the processes that
 * are one may be behind the first of them, in pages. */
#define SEQUENTIAL_N 8
#define SEQUENTIAL_BEHIND 1024

struct sequential_reader {
  uint64_t start, asked, end;
  uint64_t used_at; /* 0: there is none */
};

struct sequential_readers {
  struct sequential_reader all[SEQUENTIAL_N];
  uint64_t clock;
};

/* The reader that a fetch from page `first` on continues; NULL: none. */
struct sequential_reader *sequential_find(struct sequential_readers *s,
                                          uint64_t first);

/* Records a fetch of pages first to first + count - 1 in the reader that it
 * continues or begins, and returns that reader.  The source is read in blocks
 * of `block` pages, a power of two.  A fetch in the middle of a block that is
 * being read is no progress if it leaves out pages that nobody requested:
 * several random readers of one block look like that. */
struct sequential_reader *sequential_note(struct sequential_readers *s,
                                          uint64_t first, uint64_t count,
                                          uint64_t block);

/* Records that pages up to `end` are cached or being read. */
static inline void sequential_begun(struct sequential_reader *st,
                                    uint64_t end) {
  if (end > st->end)
    st->end = end;
}

/* The length of the block that contains page `at` of the reader: a power of two
 * from `least` to `most`, which are powers of two, and at most the distance
 * from the reader's start to that page.  So at most half of what is read is
 * read in vain. */
uint64_t sequential_block(const struct sequential_reader *st, uint64_t at,
                          uint64_t least, uint64_t most);

/* How far ahead of the requested pages reads may be in progress, at most
 * `most`. */
static inline uint64_t sequential_ahead(const struct sequential_reader *st,
                                        uint64_t most) {
  uint64_t way = st->asked - st->start;
  return way < most ? way : most;
}

#ifdef __cplusplus
}
#endif

#endif

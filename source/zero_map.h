/* A zero map: which ranges of a source's content are known to be zeros, and
 * which to hold data, as far as somebody has asked.
 *
 *   Z1  Runs ascend, are not empty, and do not overlap; neighbours of one kind
 *       are one run.
 *   Z2  There are at most ZERO_MAP_MAX.  Where there would be more, those that
 *       are short count as data, with what is unknown between them, until half
 *       as many are left: data is read, and nobody is asked of it again.
 *
 * What is said of a range first is kept: it is of one content, which does not
 * change.  Where it may have changed all the same its owner forgets all.  Not
 * thread-safe. */
#ifndef SOURCE_ZERO_MAP_H
#define SOURCE_ZERO_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* With 24 bytes each that is 192 KiB. */
#define ZERO_MAP_MAX 8192

struct zero_run {
  uint64_t begin, end;
  bool is_zero;
};

/* All zeros: nothing is known. */
struct zero_map {
  struct zero_run *runs;
  size_t n, max;
  uint64_t grain; /* shorter runs were made data; 0: none was */
};

void zero_map_fini(struct zero_map *m);

enum zero_answer {
  ZERO_UNKNOWN,
  ZERO_ALL,
  ZERO_NOT, /* some of it may be data */
};

/* What is known of the bytes from `begin` to `end`; `*at`, if UNKNOWN: the
 * first of which nothing is. */
enum zero_answer zero_map_look(const struct zero_map *m, uint64_t begin,
                               uint64_t end, uint64_t *at);

/* Adds a range.  False: there is no memory for all of it. */
bool zero_map_add(struct zero_map *m, uint64_t begin, uint64_t end,
                  bool is_zero);

#ifdef __cplusplus
}
#endif

#endif

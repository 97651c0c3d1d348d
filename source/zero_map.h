/* A zero map: which ranges of a source's content are known to be zeros, and
 * which are known to hold data.
 *
 *   Z1  Runs ascend, are not empty, and do not overlap.  Adjacent runs of one
 *       kind are one run.
 *   Z2  There are at most ZERO_MAP_MAX runs.  If there would be more, short
 *       runs become data, together with unknown ranges between them, until half
 *       as many are left.  Data is read, and nobody asks about it again.
 *
 * The first answer for a range is kept, because the content of a source does
 * not change.  If it may have changed, the owner forgets everything.  Not
 * thread-safe. */
#ifndef SOURCE_ZERO_MAP_H
#define SOURCE_ZERO_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* 192 KiB, with 24 bytes each. */
#define ZERO_MAP_MAX 8192

struct zero_run {
  uint64_t begin, end;
  bool is_zero;
};

/* All zeros: nothing is known. */
struct zero_map {
  struct zero_run *runs;
  size_t n, max;
  uint64_t grain; /* shorter runs have become data; 0: none has */
};

void zero_map_fini(struct zero_map *m);

/* Asserts Z1 and Z2. */
void zero_map_check(const struct zero_map *m);

enum zero_answer {
  ZERO_UNKNOWN,
  ZERO_ALL,
  ZERO_NOT, /* some of it may be data */
};

/* What is known about the bytes from `begin` to `end`.  If it is UNKNOWN, `*at`
 * is the first byte about which nothing is known. */
enum zero_answer zero_map_look(const struct zero_map *m, uint64_t begin,
                               uint64_t end, uint64_t *at);

/* Adds a range.  False: there is no memory for all of it. */
bool zero_map_add(struct zero_map *m, uint64_t begin, uint64_t end,
                  bool is_zero);

#ifdef __cplusplus
}
#endif

#endif

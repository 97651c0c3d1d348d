#include "source/zero_map.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define MIN_GRAIN 8192 /* a page, or so little that it is not worth a run */

void zero_map_fini(struct zero_map *m) {
  zero_map_check(m);
  free(m->runs);
  *m = (struct zero_map){0};
}

/* The first run that ends behind `at`. */
static size_t find(const struct zero_map *m, uint64_t at) {
  size_t lo = 0, hi = m->n;
  while (lo < hi) {
    size_t mid = (lo + hi) / 2;
    if (m->runs[mid].end <= at)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

enum zero_answer zero_map_look(const struct zero_map *m, uint64_t begin,
                               uint64_t end, uint64_t *at) {
  bool is_known = true;
  for (size_t i = find(m, begin); begin < end; i++) {
    const struct zero_run *run = i < m->n ? &m->runs[i] : NULL;
    if (is_known && (!run || run->begin > begin)) {
      is_known = false;
      *at = begin;
    }
    if (!run || run->begin >= end)
      break;
    if (!run->is_zero)
      return ZERO_NOT;
    begin = run->end;
  }
  return is_known ? ZERO_ALL : ZERO_UNKNOWN;
}

static bool make_room(struct zero_map *m) {
  if (m->n < m->max)
    return true;
  size_t max = m->max ? 2 * m->max : 16;
  struct zero_run *runs = realloc(m->runs, max * sizeof *runs);
  if (!runs)
    return false;
  m->runs = runs;
  m->max = max;
  return true;
}

static void remove_run(struct zero_map *m, size_t i) {
  m->n--;
  memmove(&m->runs[i], &m->runs[i + 1], (m->n - i) * sizeof m->runs[0]);
}

/* Adds a run of which nothing is known, before number `i`. */
static bool insert(struct zero_map *m, size_t i, struct zero_run run) {
  bool joins_before = i > 0 && m->runs[i - 1].end == run.begin &&
                      m->runs[i - 1].is_zero == run.is_zero;
  bool joins_behind = i < m->n && m->runs[i].begin == run.end &&
                      m->runs[i].is_zero == run.is_zero;
  if (joins_before && joins_behind) {
    m->runs[i - 1].end = m->runs[i].end;
    remove_run(m, i);
  } else if (joins_before) {
    m->runs[i - 1].end = run.end;
  } else if (joins_behind) {
    m->runs[i].begin = run.begin;
  } else {
    if (!make_room(m))
      return false;
    memmove(&m->runs[i + 1], &m->runs[i], (m->n - i) * sizeof m->runs[0]);
    m->runs[i] = run;
    m->n++;
  }
  return true;
}

/* Whether a run is a part of the one before it, with what lies between. */
static bool is_one(const struct zero_run *before, const struct zero_run *run,
                   uint64_t grain) {
  uint64_t gap = run->begin - before->end;
  return before->is_zero == run->is_zero &&
         (gap == 0 || (gap < grain && !run->is_zero));
}

static void merge_short(struct zero_map *m) {
  size_t n = 0;
  for (size_t i = 0; i < m->n; i++) {
    struct zero_run run = m->runs[i];
    run.is_zero &= run.end - run.begin >= m->grain;
    if (n > 0 && is_one(&m->runs[n - 1], &run, m->grain))
      m->runs[n - 1].end = run.end;
    else
      m->runs[n++] = run;
  }
  m->n = n;
}

void zero_map_check(const struct zero_map *m) {
  assert(m->n <= ZERO_MAP_MAX && m->n <= m->max); /* Z2 */
  for (size_t i = 0; i < m->n; i++) {
    const struct zero_run *run = &m->runs[i], *next = run + 1;
    assert(run->begin < run->end);
    if (i + 1 < m->n) /* Z1 */
      assert(run->end < next->begin ||
             (run->end == next->begin && run->is_zero != next->is_zero));
  }
}

/* In the end all is one run. */
static void coarsen(struct zero_map *m) {
  if (!m->grain)
    m->grain = MIN_GRAIN;
  merge_short(m);
  for (; m->n > ZERO_MAP_MAX / 2; merge_short(m))
    m->grain *= 2;
  zero_map_check(m);
}

bool zero_map_add(struct zero_map *m, uint64_t begin, uint64_t end,
                  bool is_zero) {
  while (begin < end) {
    if (m->n == ZERO_MAP_MAX)
      coarsen(m);
    size_t i = find(m, begin);
    uint64_t next = i < m->n ? m->runs[i].begin : end;
    if (next > begin) {
      if (next > end)
        next = end;
      if (!insert(m, i, (struct zero_run){begin, next, is_zero}))
        return false;
      begin = next;
    } else {
      begin = m->runs[i].end;
    }
  }
  return true;
}

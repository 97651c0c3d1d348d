#include "source/coverage.h"

#include <string.h>

static void remove_run(struct coverage *c, unsigned i) {
  c->n--;
  memmove(&c->runs[i], &c->runs[i + 1], (c->n - i) * sizeof c->runs[0]);
}

static bool insert_run(struct coverage *c, unsigned i, uint64_t begin,
                       uint64_t end) {
  if (c->n == COVERAGE_MAX_RUNS)
    return false;
  memmove(&c->runs[i + 1], &c->runs[i], (c->n - i) * sizeof c->runs[0]);
  c->runs[i] = (struct coverage_run){begin, end};
  c->n++;
  return true;
}

bool coverage_add(struct coverage *c, uint64_t begin, uint64_t end) {
  unsigned i = 0; /* of the first run that is not wholly before the piece */
  if (begin >= end)
    return begin == end;
  while (i < c->n && c->runs[i].end <= begin)
    i++;
  if (i < c->n && c->runs[i].begin < end)
    return false;
  bool joins_before = i > 0 && c->runs[i - 1].end == begin;
  bool joins_behind = i < c->n && c->runs[i].begin == end;
  if (joins_before && joins_behind) {
    c->runs[i - 1].end = c->runs[i].end;
    remove_run(c, i);
  } else if (joins_before) {
    c->runs[i - 1].end = end;
  } else if (joins_behind) {
    c->runs[i].begin = begin;
  } else {
    return insert_run(c, i, begin, end);
  }
  return true;
}

bool coverage_is(const struct coverage *c, uint64_t begin, uint64_t end) {
  if (begin == end)
    return c->n == 0;
  return c->n == 1 && c->runs[0].begin == begin && c->runs[0].end == end;
}

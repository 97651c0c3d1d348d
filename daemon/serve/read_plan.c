#include "daemon/serve/read_plan.h"

#include <assert.h>

/* Goes on to the next range that is not done. */
static void plan_skip_done(struct read_plan *plan) {
  while (plan->range < plan->n_ranges &&
         plan->range_done == plan->ranges[plan->range].length) {
    plan->range++;
    plan->range_done = 0;
    plan->counted = 0;
  }
}

void read_plan_check(const struct read_plan *plan) {
  uint64_t left = 0;
  assert(plan->range <= plan->n_ranges);
  for (unsigned i = plan->range; i < plan->n_ranges; i++)
    left += plan->ranges[i].length;
  assert(plan->range_done == 0 || plan->range < plan->n_ranges);
  assert(plan->range == plan->n_ranges ||
         plan->range_done < plan->ranges[plan->range].length); /* P4 */
  assert(plan->left == left - plan->range_done);               /* P3 */
}

struct read_plan read_plan_of(const struct range *ranges, unsigned n_ranges) {
  struct read_plan plan = {.ranges = ranges, .n_ranges = n_ranges};
  for (unsigned i = 0; i < n_ranges; i++)
    plan.left += ranges[i].length;
  plan_skip_done(&plan);
  return plan;
}

bool read_plan_is_within(const struct read_plan *plan, uint64_t size) {
  for (unsigned i = plan->range; i < plan->n_ranges; i++) {
    const struct range *range = &plan->ranges[i];
    if (range->length &&
        (range->offset > size || range->length > size - range->offset))
      return false;
  }
  return true;
}

bool read_plan_next(const struct read_plan *plan, unsigned page_shift,
                    unsigned most, struct piece *p) {
  assert(most > 0);
  if (plan->range == plan->n_ranges)
    return false;
  const struct range *range = &plan->ranges[plan->range];
  p->page_shift = page_shift;
  p->offset = range->offset + plan->range_done;
  p->first = p->offset >> page_shift;
  p->end = range->offset + range->length;
  uint64_t n = ((p->end - 1) >> page_shift) - p->first + 1;
  p->count = n < most ? (unsigned)n : most;
  if (n > most)
    p->end = (p->first + most) << page_shift;
  return true;
}

void read_plan_advance(struct read_plan *plan, const struct piece *p) {
  assert(p->count > 0 && p->end - p->offset <= read_plan_range_left(plan));
  plan->range_done += p->end - p->offset;
  plan->left -= p->end - p->offset;
  plan_skip_done(plan);
}

uint64_t read_plan_range_left(const struct read_plan *plan) {
  return plan->range < plan->n_ranges
             ? plan->ranges[plan->range].length - plan->range_done
             : 0;
}

bool read_plan_ends_with(const struct read_plan *plan, const struct piece *p) {
  return p->end - p->offset == plan->left;
}

bool read_plan_range_ends_with(const struct read_plan *plan,
                               const struct piece *p) {
  return p->end - p->offset == read_plan_range_left(plan);
}

bool read_plan_is_within_page(const struct read_plan *plan,
                              const struct piece *p) {
  return plan->range_done && p->offset & ((1ull << p->page_shift) - 1);
}

uint64_t read_plan_count(struct read_plan *plan, uint64_t first, unsigned n) {
  uint64_t from = first < plan->counted ? plan->counted : first;
  if (first + n <= from)
    return 0;
  plan->counted = first + n;
  return first + n - from;
}

void piece_cut(struct piece *p, unsigned n) {
  uint64_t end = (p->first + n) << p->page_shift;
  if (n < p->count && end < p->end)
    p->end = end;
  p->count = n;
}

void piece_shorten(struct piece *p, size_t len) {
  if (p->end - p->offset > len) {
    p->end = p->offset + len;
    p->count = (unsigned)(((p->end - 1) >> p->page_shift) - p->first + 1);
  }
}

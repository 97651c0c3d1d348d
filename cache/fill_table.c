#include "cache/fill_table.h"

#include <assert.h>
#include <stdlib.h>

#include "base/lock.h"
#include "cache/internal.h"
#include "cache/states.h"

static struct fill_node **bucket(struct page_cache *pc, const struct mirror *m,
                                 uint64_t page) {
  uint32_t hash = s3fifo_hash(pc->policy.factor, s3fifo_key(m->id, page));
  return &pc->by_page[hash % FILL_BUCKETS];
}

struct fill *fill_table_find_locked(struct page_cache *pc,
                                    const struct mirror *m, uint64_t page) {
  lock_assert_held(&pc->lock);
  struct fill_node *n = *bucket(pc, m, page);
  while (n && !(n->page == page && n->fill->mirror == m))
    n = n->next;
  return n ? n->fill : NULL;
}

struct fill *fill_table_joinable_locked(struct page_cache *pc,
                                        const struct mirror *m, uint64_t page) {
  lock_assert_held(&pc->lock);
  struct fill *fill = fill_table_find_locked(pc, m, page);
  return fill && !fill->stale ? fill : NULL;
}

struct fill *fill_table_begin_locked(struct page_cache *pc, struct mirror *m,
                                     uint64_t first, uint32_t count,
                                     bool installs) {
  lock_assert_held(&pc->lock);
  /* calloc(3) of glibc before 2.41 does not use what this thread has freed. */
  struct fill *fill = malloc(sizeof *fill + count * sizeof *fill->nodes);
  if (!fill)
    return NULL;
  *fill = (struct fill){.mirror = mirror_ref(m),
                        .first = first,
                        .count = count,
                        .n_refs = 1,
                        .installs = installs,
                        .is_sparse = m->n_zero > 0};
  for (uint32_t i = 0; i < count; i++) {
    bool moved = !installs ||
                 states_move_locked(m, first + i, PAGE_ABSENT, PAGE_FILLING);
    assert(moved); /* only under the lock, and it was ABSENT */
    (void)moved;
    struct fill_node *n = &fill->nodes[i], **at = bucket(pc, m, first + i);
    *n = (struct fill_node){.next = *at, .fill = fill, .page = first + i};
    *at = n;
  }
  fill->next = pc->fills;
  fill->link = &pc->fills;
  if (fill->next)
    fill->next->link = &fill->next;
  pc->fills = fill;
  if (installs) {
    m->filling += (uint64_t)count << m->page_shift;
    pc->filling += (uint64_t)count << m->page_shift;
  } else {
    m->n_uncached++;
  }
  pc->stats.n_fills++;
  return fill;
}

void fill_table_leave_locked(struct page_cache *pc, struct fill *fill) {
  lock_assert_held(&pc->lock);
  for (uint32_t i = 0; i < fill->count; i++) {
    struct fill_node *n = &fill->nodes[i];
    struct fill_node **at = bucket(pc, fill->mirror, n->page);
    while (*at != n)
      at = &(*at)->next;
    *at = n->next;
  }
  *fill->link = fill->next;
  if (fill->next)
    fill->next->link = fill->link;
  uint64_t len = (uint64_t)fill->count << fill->mirror->page_shift;
  if (fill->installs) {
    fill->mirror->filling -= len;
    pc->filling -= len;
  } else {
    fill->mirror->n_uncached--;
  }
}

/* Page i of a fill: it is in the table, and owns its state if the fill installs
 * (F2).  A fill that is dropped has moved all of them on to EVICTING. */
static bool check_page_locked(struct page_cache *pc, const struct fill *fill,
                              uint32_t i) {
  lock_assert_held(&pc->lock);
  const struct mirror *m = fill->mirror;
  const struct fill_node *node = &fill->nodes[i];
  bool is_there = false;
  assert(node->fill == fill && node->page == fill->first + i);
  for (const struct fill_node *n = *bucket(pc, m, node->page); n; n = n->next) {
    is_there |= n == node;
    assert(n == node || n->page != node->page || n->fill->mirror != m ||
           n->fill->stale || fill->stale); /* F1 */
  }
  assert(is_there);
  if (!fill->installs)
    return false;
  enum page_state state = page_state_look(&m->states[node->page]);
  assert(state == PAGE_FILLING || state == PAGE_EVICTING);
  return state == PAGE_FILLING;
}

uint64_t fill_table_check_locked(struct page_cache *pc,
                                 const struct mirror *m) {
  lock_assert_held(&pc->lock);
  uint64_t n_filling = 0, n_installed = 0, n_uncached = 0;
  struct fill *const *at = &pc->fills;
  for (const struct fill *f; (f = *at); at = &f->next) {
    assert(f->link == at);
    if (f->mirror != m)
      continue;
    for (uint32_t i = 0; i < f->count; i++)
      n_filling += check_page_locked(pc, f, i);
    n_installed += f->installs ? f->count : 0;
    n_uncached += !f->installs;
  }
  assert(m->filling == n_installed << m->page_shift);
  assert(m->n_uncached == n_uncached);
  return n_filling;
}

/* acq_rel: the last one sees what the others did. */
bool fill_table_unref(struct fill *fill) {
  return __atomic_fetch_sub(&fill->n_refs, 1, __ATOMIC_ACQ_REL) == 1;
}

void fill_table_free(struct fill *fill) {
  fill_buffers_put(&fill->mirror->cache->buffers, fill->bytes);
  mirror_unref(fill->mirror);
  free(fill);
}

void fill_table_mark_stale_locked(struct page_cache *pc, struct mirror *m,
                                  uint64_t first, uint64_t count) {
  lock_assert_held(&pc->lock);
  for (struct fill *f = pc->fills; f; f = f->next)
    if (f->mirror == m && f->first < first + count &&
        first < f->first + f->count)
      f->stale = true;
}

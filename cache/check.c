#include "cache/check.h"

#include <assert.h>

#include "base/lock.h"
#include "cache/fetch.h"
#include "cache/fill_table.h"
#include "cache/internal.h"
#include "cache/shared_pins.h"
#include "cache/states.h"

/* Over all mirrors. */
struct sums {
  uint64_t n_resident, n_evicting, n_zero;
  uint64_t charged, garbage, filling; /* bytes */
  uint64_t n_tables, mapped;
};

/* ---- A mirror ------------------------------------------------------------ */

/* N2. */
static void check_invalidations_locked(const struct mirror *m) {
  lock_assert_held(&m->cache->lock);
  const struct invalidation_log *log = &m->header->log;
  const struct invalidation_entry *inv = m->invalidations.oldest, *last = NULL;
  if (m->states_gone) /* another process may have ended within one */
    return;
  assert(log->n_over == (inv ? inv->number : log->n_begun));
  for (; inv; inv = inv->newer) {
    assert(inv->number < log->n_begun);
    assert(!last || last->number < inv->number);
    last = inv;
  }
  assert(m->invalidations.newest == last);
}

/* T1. */
static void check_scans_locked(const struct mirror *m) {
  lock_assert_held(&m->cache->lock);
  for (unsigned i = 0; i < SEQUENTIAL_N; i++) {
    const struct sequential_reader *st = &m->sequential.all[i];
    assert(!st->used_at || (st->start <= st->asked && st->start < st->end));
    assert(st->used_at <= m->sequential.clock);
  }
}

/* What a reader of this process has pinned: pages of the mirror, no more than
 * the slot may name.  The reader may store and withdraw pins meanwhile. */
static void check_pins_locked(const struct mirror *m,
                              const struct pin_table *t) {
  lock_assert_held(&m->cache->lock);
  for (unsigned i = 0; i < PIN_N_SLOTS; i++) {
    uint64_t word = __atomic_load_n(&t->slots[i], __ATOMIC_ACQUIRE);
    assert(!word || pin_count(word) > 0);
    assert(pin_count(word) <= pin_capacity(t, i));
    assert(pin_first(word) + pin_count(word) <= m->n_pages);
  }
}

static uint64_t check_tables_locked(struct mirror *m) {
  lock_assert_held(&m->cache->lock);
  uint64_t n = 0, n_lent = 0;
  struct pin_table **at = &m->tables;
  for (struct pin_table *t; (t = *at); at = &t->next, n++) {
    assert(t->link == at && t->mirror == m);
    n_lent += t->is_lent;
    if (!t->is_lent)
      check_pins_locked(m, t);
  }
  assert(__atomic_load_n(&m->n_lent, __ATOMIC_RELAXED) == n_lent);
  return n;
}

/* Each table, and each fill in flight, has a reference; so has the reclaimer of
 * a retired mirror. */
static void check_refs_locked(const struct mirror *m, uint64_t n_tables) {
  lock_assert_held(&m->cache->lock);
  uint64_t n_refs = n_tables + m->has_retire_ref;
  for (const struct fill *f = m->cache->fills; f; f = f->next)
    n_refs += f->mirror == m;
  assert(__atomic_load_n(&m->n_refs, __ATOMIC_RELAXED) >= n_refs);
}

/* C1: each page that is RESIDENT is in the policy. */
static void check_policy_has_locked(const struct mirror *m) {
  lock_assert_held(&m->cache->lock);
  const struct s3fifo *policy = &m->cache->policy;
  for (size_t i = 0; i < m->n_blocks; i++) {
    uint64_t page = (uint64_t)i * STATES_PER_BLOCK;
    uint64_t end = page + STATES_PER_BLOCK;
    for (; m->blocks[i].n_live > 0 && page < end && page < m->n_pages; page++)
      assert(page_state_look(&m->states[page]) != PAGE_RESIDENT ||
             s3fifo_has(policy, s3fifo_key(m->id, page)));
  }
}

static uint64_t count_stale_locked(const struct mirror *m) {
  lock_assert_held(&m->cache->lock);
  uint64_t n = 0;
  for (size_t i = 0; i < m->n_stale; i++)
    n += m->stale[i].count;
  return n;
}

/* Compares the account of a mirror with its states, which were counted. */
static void check_counts_locked(const struct mirror *m,
                                const uint64_t n[STATES_N_KINDS]) {
  lock_assert_held(&m->cache->lock);
  uint64_t pages = m->charged_pages >> m->page_shift;
  assert(m->evicting <= n[PAGE_EVICTING]);
  if (m->states_gone) { /* the rest changes no more; the reclaimer frees it */
    assert(n[PAGE_RESIDENT] == 0); /* M3 */
    return;
  }
  assert(n[PAGE_STALE] == count_stale_locked(m)); /* C3 */
  /* A page that is EVICTING may never have been charged: a fill was dropped, or
   * the reclaimer punches a hole that has memory. */
  assert(pages >= n[PAGE_RESIDENT] + n[PAGE_STALE]);
  assert(pages <= n[PAGE_RESIDENT] + n[PAGE_STALE] + n[PAGE_EVICTING]);
}

static void check_mirror_locked(struct mirror *m, struct sums *all) {
  struct page_cache *pc = m->cache;
  lock_assert_held(&pc->lock);
  uint64_t n[STATES_N_KINDS] = {0};
  states_check_locked(m, n);
  check_counts_locked(m, n);
  check_policy_has_locked(m);
  check_invalidations_locked(m);
  check_scans_locked(m);
  assert(n[PAGE_FILLING] == fill_table_check_locked(pc, m)); /* C2 */
  all->n_resident += n[PAGE_RESIDENT];
  all->n_evicting += m->evicting;
  all->n_zero += m->n_zero;
  all->charged += m->charged_pages + m->charged_meta;
  all->garbage += m->garbage;
  all->filling += m->filling;
  uint64_t n_tables = check_tables_locked(m);
  check_refs_locked(m, n_tables);
  all->n_tables += n_tables;
  all->mapped += m->is_mapping_counted ? m->pages_len : 0;
}

/* ---- The cache ----------------------------------------------------------- */

/* F3, and C4 as far as the fills in flight show it. */
static void check_links_locked(const struct page_cache *pc) {
  lock_assert_held(&pc->lock);
  for (const struct fill *fill = pc->fills; fill; fill = fill->next) {
    unsigned n = 1; /* its runner */
    for (const struct fetch_link *l = fill->links; l; l = l->next, n++)
      assert(l->fill == fill && l->fetch->mirror == fill->mirror &&
             waiter_is_waiting(&l->fetch->waiter));
    assert(__atomic_load_n(&fill->n_refs, __ATOMIC_RELAXED) == n);
  }
  for (const struct waiter *w = pc->await_outcome; w; w = w->next)
    assert(waiter_is_waiting(w));
}

static struct sums check_all_locked(struct page_cache *pc) {
  lock_assert_held(&pc->lock);
  struct sums all = {0};
  for (uint32_t i = 0; i < pc->n_mirrors; i++) {
    struct mirror *m = pc->mirrors[i];
    assert(!m || (m->cache == pc && m->id == i));
    if (m)
      check_mirror_locked(m, &all);
  }
  s3fifo_check(&pc->policy);
  check_links_locked(pc);
  shared_pins_check_locked(pc);
  /* C1: the policy has no page that is not RESIDENT. */
  assert(s3fifo_len(&pc->policy) == all.n_resident);
  assert(pc->garbage == all.garbage && pc->filling == all.filling);
  assert(pc->stats.n_zero_pages == all.n_zero && pc->mapped == all.mapped);
  assert(pc->used >= all.charged); /* B1, with what is reserved */
  return all;
}

void check_cache_locked(struct page_cache *pc) {
  lock_assert_held(&pc->lock);
  check_all_locked(pc);
}

void check_quietly_locked(struct page_cache *pc) {
  lock_assert_held(&pc->lock);
#ifdef CACHETD_DEBUG_CHECKS
  if (!pc->is_left) /* else another process may move its states */
    check_cache_locked(pc);
#endif
}

void check_cache(struct page_cache *pc) {
  pthread_mutex_lock(&pc->lock);
  check_cache_locked(pc);
  pthread_mutex_unlock(&pc->lock);
}

void check_cache_idle(struct page_cache *pc) {
  pthread_mutex_lock(&pc->lock);
  struct sums all = check_all_locked(pc);
  assert(!pc->fills && !pc->await_outcome);
  assert(all.n_evicting == 0 && pc->policy.n_out == 0);
  assert(pc->used - all.charged <= all.n_tables * PIN_PAGE_LEN);
  pthread_mutex_unlock(&pc->lock);
}

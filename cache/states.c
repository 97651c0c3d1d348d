#include "cache/states.h"

#include <assert.h>

#include "base/lock.h"
#include "cache/budget.h"
#include "cache/internal.h"
#include "cache/waiter.h"

/* ---- Blocks -------------------------------------------------------------- */

static struct state_block *block_of(struct mirror *m, uint64_t page) {
  return &m->blocks[page / STATES_PER_BLOCK];
}

bool states_charge_locked(struct mirror *m, uint64_t first, uint64_t count) {
  lock_assert_held(&m->cache->lock);
  struct page_cache *pc = m->cache;
  struct state_block *last = block_of(m, first + count - 1);
  for (struct state_block *b = block_of(m, first); b <= last; b++) {
    if (b->is_charged || m->is_solid)
      continue;
    if (pc->used + STATE_BLOCK_LEN > pc->limit)
      return false;
    b->is_charged = true;
    budget_charge_meta_locked(m, STATE_BLOCK_LEN);
    budget_add_garbage_locked(m);
  }
  return true;
}

bool states_need_charge(struct mirror *m, uint64_t first, uint64_t count) {
  if (m->is_pageless || m->is_solid)
    return false;
  pthread_mutex_lock(&m->cache->lock);
  bool need = m->n_blocks > 0 && /* else it is retired */
              (!block_of(m, first)->is_charged ||
               !block_of(m, first + count - 1)->is_charged);
  pthread_mutex_unlock(&m->cache->lock);
  return need;
}

static bool is_garbage(const struct state_block *b) {
  return b->n_live == b->n_zero;
}

/* Counts a state that was `from` and is `to`, in a block that is charged. */
static void count_locked(struct mirror *m, struct state_block *b,
                         enum page_state from, enum page_state to) {
  lock_assert_held(&m->cache->lock);
  bool was_garbage = is_garbage(b);
  int more_zero = (to == PAGE_ZERO) - (from == PAGE_ZERO);
  b->n_live += (to != PAGE_ABSENT) - (from != PAGE_ABSENT);
  b->n_zero += more_zero;
  m->n_zero += (uint64_t)more_zero;
  m->cache->stats.n_zero_pages += (uint64_t)more_zero;
  if (was_garbage && !is_garbage(b))
    budget_remove_garbage_locked(m, STATE_BLOCK_LEN);
  if (!was_garbage && is_garbage(b))
    budget_add_garbage_locked(m);
}

bool states_move_locked(struct mirror *m, uint64_t page, enum page_state from,
                        enum page_state to) {
  lock_assert_held(&m->cache->lock);
  struct state_block *b = block_of(m, page);
  if (!page_state_move(&m->states[page], from, to))
    return false;
  assert(from != PAGE_ABSENT || b->is_charged || m->is_solid); /* B2 */
  count_locked(m, b, from, to);
  return true;
}

bool states_take_locked(struct mirror *m, uint64_t page) {
  lock_assert_held(&m->cache->lock);
  enum page_state state = page_state_look(&m->states[page]);
  if (state == PAGE_ZERO)
    states_move_locked(m, page, PAGE_ZERO, PAGE_ABSENT);
  if (state != PAGE_RESIDENT)
    return false;
  states_move_locked(m, page, PAGE_RESIDENT, PAGE_EVICTING);
  s3fifo_remove(&m->cache->policy, s3fifo_key(m->id, page));
  return true;
}

void states_adopt_locked(struct mirror *m, uint64_t page,
                         enum page_state state) {
  lock_assert_held(&m->cache->lock);
  struct state_block *b = block_of(m, page);
  if (!b->is_charged && !m->is_solid) {
    b->is_charged = true;
    budget_charge_meta_locked(m, STATE_BLOCK_LEN);
    budget_add_garbage_locked(m);
  }
  count_locked(m, b, PAGE_ABSENT, state);
}

uint64_t states_next_live_locked(const struct mirror *m, uint64_t page,
                                 uint64_t most) {
  lock_assert_held(&m->cache->lock);
  uint64_t block = page / STATES_PER_BLOCK, end = block + most;
  if (block >= m->n_blocks)
    return m->n_pages;
  if (m->blocks[block].n_live > 0)
    return page;
  if (end > m->n_blocks)
    end = m->n_blocks;
  do
    block++;
  while (block < end && m->blocks[block].n_live == 0);
  page = block * STATES_PER_BLOCK;
  return page < m->n_pages ? page : m->n_pages;
}

/* Subtracts `n` ZERO states whose memory is gone. */
static void forget_zeros_locked(struct mirror *m, uint64_t n) {
  lock_assert_held(&m->cache->lock);
  m->n_zero -= n;
  m->cache->stats.n_zero_pages -= n;
}

struct state_block *states_drop_locked(struct mirror *m) {
  lock_assert_held(&m->cache->lock);
  struct state_block *blocks = m->blocks;
  budget_remove_garbage_locked(m, m->garbage);
  budget_uncharge_meta_locked(m, m->charged_meta - MIRROR_HEADER_LEN);
  forget_zeros_locked(m, m->n_zero);
  m->blocks = NULL;
  m->n_blocks = 0;
  return blocks;
}

/* ---- Sweeping ------------------------------------------------------------ */

/* A sweep runs without the lock, between sweep_begin() and sweep_end().  The
 * blocks from swept_first to swept_end belong to it meanwhile: no state in them
 * leaves ABSENT, and a miss there waits for the end. */

/* The most blocks of one sweep, because a miss may have to wait for it. */
#define SWEEP_MOST 1024

/* How many blocks one step of states_sweep() looks at. */
#define SWEEP_LOOKS 64

/* Begins a sweep of the blocks from that of `page` on that hold only ABSENT and
 * ZERO states.  False: that block holds others, or a sweep is in progress. */
static bool sweep_begin(struct mirror *m, uint64_t page) {
  pthread_mutex_lock(&m->cache->lock);
  uint64_t first = page / STATES_PER_BLOCK, end = first;
  while (end < m->n_blocks && end - first < SWEEP_MOST &&
         is_garbage(&m->blocks[end]))
    end++;
  bool any = end > first && m->swept_end == 0;
  if (any) {
    m->swept_first = first * STATES_PER_BLOCK;
    m->swept_end = end * STATES_PER_BLOCK;
  }
  pthread_mutex_unlock(&m->cache->lock);
  return any;
}

static void sweep_end(struct mirror *m, bool is_punched) {
  struct page_cache *pc = m->cache;
  pthread_mutex_lock(&pc->lock);
  uint64_t end = m->swept_end / STATES_PER_BLOCK;
  for (uint64_t i = m->swept_first / STATES_PER_BLOCK; i < end; i++) {
    struct state_block *b = &m->blocks[i];
    if (!b->is_charged || !is_punched)
      continue;
    forget_zeros_locked(m, b->n_zero);
    *b = (struct state_block){0};
    budget_uncharge_meta_locked(m, STATE_BLOCK_LEN);
    budget_remove_garbage_locked(m, STATE_BLOCK_LEN);
  }
  m->swept_first = m->swept_end = 0;
  struct waiter *woken = waiter_take_locked(pc);
  pthread_mutex_unlock(&pc->lock);
  waiter_wake(woken);
}

uint64_t states_sweep_at(struct mirror *m, uint64_t page,
                         enum sweep_what what) {
  if (!sweep_begin(m, page))
    return 0;
  uint64_t first = m->swept_first, end = m->swept_end;
  if (end > m->n_pages)
    end = m->n_pages;
  if (what == SWEEP_STATES_AND_PAGES)
    mirror_punch(m, first, end - first);
  bool is_punched = !m->is_solid && mirror_punch_states(m, first, end) == 0;
  sweep_end(m, is_punched);
  return end;
}

bool states_sweep(struct mirror *m) {
  if (m->is_solid || m->is_pageless)
    return false;
  /* Relaxed: two threads may look at the same blocks, which only costs time. */
  uint64_t at = __atomic_load_n(&m->sweep_at, __ATOMIC_RELAXED), end = 0;
  for (int looks = 0; looks < SWEEP_LOOKS && end == 0; looks++) {
    at = mirror_next_states(m, at);
    if (at >= m->n_pages) {
      __atomic_store_n(&m->sweep_at, 0, __ATOMIC_RELAXED);
      return false;
    }
    end = states_sweep_at(m, at, SWEEP_STATES);
    at = end ? end : (at / STATES_PER_BLOCK + 1) * STATES_PER_BLOCK;
  }
  __atomic_store_n(&m->sweep_at, at, __ATOMIC_RELAXED);
  return true; /* there is more to look at */
}

/* ---- Checking ------------------------------------------------------------ */

/* Counts the states of a block.  It takes the counts of the block as they are
 * in two cases: the states of a block that is being swept may have any value,
 * and a look at an empty block would make memory for it. */
static struct state_block look_at_block_locked(const struct mirror *m, size_t i,
                                               uint64_t count[STATES_N_KINDS]) {
  lock_assert_held(&m->cache->lock);
  struct state_block seen = m->blocks[i];
  uint64_t page = (uint64_t)i * STATES_PER_BLOCK;
  uint64_t end = page + STATES_PER_BLOCK;
  if (seen.n_live == 0 || states_are_swept_locked(m, page))
    return seen;
  seen.n_live = seen.n_zero = 0;
  for (; page < end && page < m->n_pages; page++) {
    enum page_state state = page_state_look(&m->states[page]);
    assert((unsigned)state < STATES_N_KINDS);
    count[state]++;
    seen.n_live += state != PAGE_ABSENT;
    seen.n_zero += state == PAGE_ZERO;
  }
  return seen;
}

void states_check_locked(const struct mirror *m,
                         uint64_t count[STATES_N_KINDS]) {
  lock_assert_held(&m->cache->lock);
  uint64_t n_zero = 0, garbage = 0;
  uint64_t meta = m->is_solid ? mirror_meta_len(m) : MIRROR_HEADER_LEN;
  for (size_t i = 0; i < m->n_blocks; i++) {
    const struct state_block *b = &m->blocks[i];
    struct state_block seen = look_at_block_locked(m, i, count);
    assert(seen.n_live == b->n_live && seen.n_zero == b->n_zero);
    assert(b->n_live == 0 || b->is_charged || m->is_solid); /* B2 */
    n_zero += b->n_zero;
    meta += b->is_charged ? STATE_BLOCK_LEN : 0;
    garbage += b->is_charged && is_garbage(b) ? STATE_BLOCK_LEN : 0; /* B3 */
  }
  assert(m->n_zero == n_zero && m->garbage == garbage);
  assert(m->charged_meta == meta);
}

/* The budget: an account of the memory of all mirrors, and what makes room.
 *
 *   B1  `used` is the sum of: the pages that are charged to mirrors, a page for
 *       each mirror's header, the state blocks that are charged, what is
 *       reserved for fills, and a page for each table of another process.
 *   B2  A state block (see mirror.h) is charged before a state in it leaves
 *       ABSENT, and until the block is swept.
 *   B3  `garbage` is what those blocks take whose states are all ABSENT: it is
 *       in `used`, and a sweep frees it.
 *
 * Memory that a reader of another process makes by looking at holes is in no
 * account: reclaim.c compares what the kernel has allocated.  So is, for a
 * moment, a state block that a miss has looked at and not charged yet.  For
 * those, and for the tables, a part of the budget is held back. */
#include <assert.h>
#include <errno.h>

#include "cache/internal.h"

/* ---- Reserving ----------------------------------------------------------- */

uint64_t budget_limit(uint64_t budget) {
  uint64_t most = 1 << 20;
  return budget - (budget / 16 < most ? budget / 16 : most);
}

/* How much the evictor keeps free, and from where on it starts. */
uint64_t budget_high_free(const struct page_cache *pc) {
  uint64_t most = 8 << 20;
  return pc->budget / 32 < most ? pc->budget / 32 : most;
}

/* How much garbage may gather before it is swept. */
static uint64_t most_garbage(const struct page_cache *pc) {
  uint64_t most = 4 << 20;
  return pc->budget / 64 < most ? pc->budget / 64 : most;
}

bool budget_has_much_garbage(const struct page_cache *pc, uint64_t len) {
  return len > most_garbage(pc);
}

bool budget_wants_room_locked(const struct page_cache *pc, uint64_t free_len) {
  return pc->used - pc->garbage + free_len > pc->limit &&
         s3fifo_len(&pc->policy) > 0;
}

/* How much is missing; 0: it is reserved. */
static uint64_t reserve_or_miss(struct page_cache *pc, uint64_t len,
                                bool *is_garbage) {
  pthread_mutex_lock(&pc->lock);
  bool fits = pc->used + len <= pc->limit;
  uint64_t over = fits ? 0 : pc->used + len - pc->limit;
  *is_garbage = !fits && over <= pc->garbage;
  if (fits)
    pc->used += len;
  if (pc->has_threads && budget_wants_room_locked(pc, budget_high_free(pc) / 2))
    pthread_cond_signal(&pc->wanted);
  if (!fits && pc->garbage > 0)
    reclaim_wake_locked(pc);
  reclaim_note_activity_locked(pc);
  pthread_mutex_unlock(&pc->lock);
  return over;
}

bool budget_try_reserve(struct page_cache *pc, uint64_t len) {
  bool is_garbage;
  return reserve_or_miss(pc, len, &is_garbage) == 0;
}

bool budget_reserve(struct page_cache *pc, unsigned page_shift, uint64_t len) {
  bool is_garbage;
  if (len > pc->limit)
    return false;
  /* At least a group, so that a small cache too batches its barriers. */
  uint64_t group = (uint64_t)S3FIFO_GROUP << page_shift;
  uint64_t least = group <= pc->budget / 16 ? group : 0;
  /* Others may take what we freed, and victims may be pinned: ask for more
   * each time, and after a while do without. */
  for (int tries = 0; tries < 8; tries++) {
    uint64_t over = reserve_or_miss(pc, len, &is_garbage);
    if (!over)
      return true;
    bool any = is_garbage
                   ? reclaim_garbage(pc)
                   : evict(pc, (over > least ? over : least) << tries) > 0;
    if (!any)
      return false; /* there is nothing left that could go */
  }
  return false;
}

bool budget_reserve_table(struct page_cache *pc, uint64_t len) {
  pthread_mutex_lock(&pc->lock);
  bool fits = pc->used + len <= pc->budget;
  if (fits)
    pc->used += len;
  reclaim_note_activity_locked(pc);
  pthread_mutex_unlock(&pc->lock);
  return fits;
}

void budget_release(struct page_cache *pc, uint64_t len) {
  pthread_mutex_lock(&pc->lock);
  assert(pc->used >= len);
  pc->used -= len;
  pthread_mutex_unlock(&pc->lock);
}

void budget_uncharge_pages_locked(struct mirror *m, uint64_t len) {
  struct page_cache *pc = m->cache;
  assert(m->charged_pages >= len && pc->used >= len);
  m->charged_pages -= len;
  pc->used -= len;
}

/* ---- State blocks -------------------------------------------------------- */

static struct state_block *block_of(struct mirror *m, uint64_t page) {
  return &m->blocks[page / STATES_PER_BLOCK];
}

static void meta_charge_locked(struct mirror *m, uint64_t len) {
  m->charged_meta += len;
  m->cache->used += len;
}

static void meta_uncharge_locked(struct mirror *m, uint64_t len) {
  assert(m->charged_meta >= len && m->cache->used >= len);
  m->charged_meta -= len;
  m->cache->used -= len;
}

/* The states of a solid mirror are there for good, and in its account. */
static void garbage_add_locked(struct mirror *m) {
  struct page_cache *pc = m->cache;
  if (m->is_solid)
    return;
  m->garbage += STATE_BLOCK_LEN;
  pc->garbage += STATE_BLOCK_LEN;
  if (pc->garbage > most_garbage(pc))
    reclaim_wake_locked(pc);
}

static void garbage_remove_locked(struct mirror *m, uint64_t len) {
  if (m->is_solid)
    return;
  assert(m->garbage >= len && m->cache->garbage >= len);
  m->garbage -= len;
  m->cache->garbage -= len;
}

bool states_charge_locked(struct mirror *m, uint64_t first, uint64_t count) {
  struct page_cache *pc = m->cache;
  struct state_block *last = block_of(m, first + count - 1);
  for (struct state_block *b = block_of(m, first); b <= last; b++) {
    if (b->is_charged || m->is_solid)
      continue;
    if (pc->used + STATE_BLOCK_LEN > pc->limit)
      return false;
    b->is_charged = true;
    meta_charge_locked(m, STATE_BLOCK_LEN);
    garbage_add_locked(m);
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

bool states_move_locked(struct mirror *m, uint64_t page, enum page_state from,
                        enum page_state to) {
  struct state_block *b = block_of(m, page);
  if (!page_state_move(&m->words[page], from, to))
    return false;
  if (from == PAGE_ABSENT) {
    assert(b->is_charged || m->is_solid); /* B2 */
    if (b->n_live++ == 0)
      garbage_remove_locked(m, STATE_BLOCK_LEN);
  }
  if (to == PAGE_ABSENT && --b->n_live == 0)
    garbage_add_locked(m);
  return true;
}

uint64_t states_next_live_locked(const struct mirror *m, uint64_t page,
                                 uint64_t most) {
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

/* ---- Sweeping ------------------------------------------------------------ */

/* Blocks in one sweep: readers that miss in them wait for its end. */
#define SWEEP_MOST 1024

/* Blocks to look at before the next step. */
#define SWEEP_LOOKS 64

/* Takes all blocks from the one of `page` on that hold only ABSENT states for
 * being swept: from here on none of them leaves ABSENT.  False: that one does
 * not, or a sweep is under way. */
static bool sweep_begin(struct mirror *m, uint64_t page) {
  pthread_mutex_lock(&m->cache->lock);
  uint64_t first = page / STATES_PER_BLOCK, end = first;
  while (end < m->n_blocks && end - first < SWEEP_MOST &&
         m->blocks[end].n_live == 0)
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
    if (!m->blocks[i].is_charged || !is_punched)
      continue;
    m->blocks[i].is_charged = false;
    meta_uncharge_locked(m, STATE_BLOCK_LEN);
    garbage_remove_locked(m, STATE_BLOCK_LEN);
  }
  m->swept_first = m->swept_end = 0;
  struct fetch *woken = verdicts_take_locked(pc);
  pthread_mutex_unlock(&pc->lock);
  fetches_done(woken);
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
  /* Relaxed: two threads may find the same place, which costs them a look. */
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

/* ---- Mirrors ------------------------------------------------------------- */

void budget_add_mirror_locked(struct mirror *m) {
  meta_charge_locked(m, m->is_solid ? mirror_meta_len(m) : MIRROR_HEADER_LEN);
}

struct state_block *budget_drop_states_locked(struct mirror *m) {
  struct state_block *blocks = m->blocks;
  garbage_remove_locked(m, m->garbage);
  meta_uncharge_locked(m, m->charged_meta - MIRROR_HEADER_LEN);
  m->blocks = NULL;
  m->n_blocks = 0;
  return blocks;
}

void budget_remove_mirror_locked(struct mirror *m) {
  garbage_remove_locked(m, m->garbage);
  m->cache->used -= m->charged_pages + m->charged_meta;
}

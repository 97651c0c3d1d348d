/* The budget: an account of the memory of all mirrors, see room.h for what
 * makes some.
 *
 *   B1  `used` is the sum of: the pages that are charged to mirrors, a page for
 *       each mirror's header, the state blocks that are charged, what is
 *       reserved for fills, and a page for each table of another process.
 *   B2  A state block (see mirror.h) is charged before a state in it leaves
 *       ABSENT, and until the block is swept.
 *   B3  `garbage` is the memory of the blocks whose states are all ABSENT or
 *       ZERO.  It is in `used`, and a sweep frees it.
 *
 * Two kinds of memory are in no account.  A reader of another process makes
 * memory when it reads a hole; reclaim.c finds it, because it compares the
 * account with what the kernel has allocated.  A miss makes memory when it
 * looks at a state block, a moment before it charges the block.  A part of the
 * budget is held back for both, and for the tables.
 *
 * The budget may be set at any time.  A larger one applies at once.  After it
 * was made smaller, `used` exceeds it until the evictor has evicted enough
 * pages, if necessary all that are not pinned.  The rounds of the reclaimer
 * look whether the pins that stopped the evictor have ended.  Until then
 * nothing is reserved: a miss passes its bytes to its readers and keeps
 * none. */
#include "cache/budget.h"

#include <assert.h>

#include "base/lock.h"
#include "cache/internal.h"
#include "cache/rounds.h"

/* ---- The budget itself --------------------------------------------------- */

/* How much of the budget may be used: all but a part that is held back. */
static uint64_t limit_of(uint64_t budget) {
  uint64_t most = 1 << 20;
  return budget - (budget / 16 < most ? budget / 16 : most);
}

bool budget_is_over_locked(const struct page_cache *pc) {
  lock_assert_held(&pc->lock);
  return pc->used > pc->budget;
}

int budget_set(struct page_cache *pc, uint64_t budget) {
  pthread_mutex_lock(&pc->lock);
  int r = s3fifo_grow(&pc->policy, budget >> PAGE_SHIFT_MIN);
  if (r == 0) {
    __atomic_store_n(&pc->budget, budget, __ATOMIC_RELAXED);
    pc->limit = limit_of(budget);
    pc->n_kept = 0;
    pthread_cond_signal(&pc->wanted);
    rounds_note_activity_locked(pc);
  }
  pthread_mutex_unlock(&pc->lock);
  return r;
}

/* ---- Reserving ----------------------------------------------------------- */

/* How much the evictor keeps free, and from where on it starts. */
uint64_t budget_high_free(const struct page_cache *pc) {
  uint64_t most = 8 << 20;
  return pc->budget / 32 < most ? pc->budget / 32 : most;
}

/* How much garbage there may be before it is swept. */
static uint64_t most_garbage(const struct page_cache *pc) {
  uint64_t most = 4 << 20;
  return pc->budget / 64 < most ? pc->budget / 64 : most;
}

bool budget_has_much_garbage(const struct page_cache *pc, uint64_t len) {
  return len > most_garbage(pc);
}

uint64_t budget_lasting_locked(const struct page_cache *pc) {
  lock_assert_held(&pc->lock);
  bool is_swept = budget_has_much_garbage(pc, pc->garbage);
  return pc->used - (is_swept ? pc->garbage : 0);
}

bool budget_wants_room_locked(const struct page_cache *pc, uint64_t free_len) {
  lock_assert_held(&pc->lock);
  return budget_lasting_locked(pc) + free_len > pc->limit &&
         s3fifo_len(&pc->policy) > 0;
}

uint64_t budget_reserve_or_miss(struct page_cache *pc, uint64_t len,
                                bool *is_garbage) {
  pthread_mutex_lock(&pc->lock);
  bool fits = pc->used + len <= pc->limit;
  bool never =
      len > pc->limit || (pc->has_threads && budget_is_over_locked(pc));
  uint64_t over = fits ? 0 : pc->used + len - pc->limit;
  /* The reclaimer leaves a little garbage alone: then evict instead. */
  *is_garbage = !fits && over <= pc->garbage &&
                (!pc->has_threads || budget_has_much_garbage(pc, pc->garbage));
  if (fits)
    pc->used += len;
  bool is_little =
      pc->has_threads && budget_wants_room_locked(pc, budget_high_free(pc) / 2);
  if (*is_garbage)
    rounds_wake_locked(pc);
  rounds_note_activity_locked(pc);
  pthread_mutex_unlock(&pc->lock);
  if (is_little) /* without the lock: to wake a thread takes microseconds */
    pthread_cond_signal(&pc->wanted);
  return never ? BUDGET_NEVER_FITS : over;
}

bool budget_try_reserve(struct page_cache *pc, uint64_t len) {
  bool is_garbage;
  return budget_reserve_or_miss(pc, len, &is_garbage) == 0;
}

bool budget_reserve_table(struct page_cache *pc, uint64_t len) {
  pthread_mutex_lock(&pc->lock);
  bool fits = pc->used + len <= pc->budget;
  if (fits)
    pc->used += len;
  rounds_note_activity_locked(pc);
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
  lock_assert_held(&m->cache->lock);
  struct page_cache *pc = m->cache;
  assert(m->charged_pages >= len && pc->used >= len);
  m->charged_pages -= len;
  pc->used -= len;
}

/* ---- Metadata ------------------------------------------------------------ */

void budget_charge_meta_locked(struct mirror *m, uint64_t len) {
  lock_assert_held(&m->cache->lock);
  m->charged_meta += len;
  m->cache->used += len;
}

void budget_uncharge_meta_locked(struct mirror *m, uint64_t len) {
  lock_assert_held(&m->cache->lock);
  assert(m->charged_meta >= len && m->cache->used >= len);
  m->charged_meta -= len;
  m->cache->used -= len;
}

void budget_add_garbage_locked(struct mirror *m) {
  lock_assert_held(&m->cache->lock);
  struct page_cache *pc = m->cache;
  if (m->is_solid)
    return;
  m->garbage += STATE_BLOCK_LEN;
  pc->garbage += STATE_BLOCK_LEN;
  if (pc->garbage > most_garbage(pc))
    rounds_wake_locked(pc);
}

void budget_remove_garbage_locked(struct mirror *m, uint64_t len) {
  lock_assert_held(&m->cache->lock);
  if (m->is_solid)
    return;
  assert(m->garbage >= len && m->cache->garbage >= len);
  m->garbage -= len;
  m->cache->garbage -= len;
}

/* ---- Mirrors ------------------------------------------------------------- */

void budget_add_mirror_locked(struct mirror *m) {
  lock_assert_held(&m->cache->lock);
  budget_charge_meta_locked(m, m->is_solid ? mirror_meta_len(m)
                                           : MIRROR_HEADER_LEN);
}

void budget_remove_mirror_locked(struct mirror *m) {
  lock_assert_held(&m->cache->lock);
  budget_remove_garbage_locked(m, m->garbage);
  m->cache->used -= m->charged_pages + m->charged_meta;
  m->cache->stats.n_zero_pages -= m->n_zero;
  if (m->is_mapping_counted)
    m->cache->mapped -= m->pages_len;
}

/* The page tables of a mapping take a 512th of its length.  So these mappings
 * take at most a 128th of the cache, which is within the reserve beside it
 * (daemon/cache_size.c). */
bool budget_allows_writing_mapped(struct mirror *m) {
  struct page_cache *pc = m->cache;
  pthread_mutex_lock(&pc->lock);
  if (!m->is_mapping_counted && pc->mapped + m->pages_len <= 4 * pc->budget) {
    m->is_mapping_counted = true;
    pc->mapped += m->pages_len;
  }
  bool may = m->is_mapping_counted;
  pthread_mutex_unlock(&pc->lock);
  return may;
}

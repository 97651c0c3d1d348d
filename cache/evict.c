/* Evicting: letting pages go, for space or because they are stale.
 *
 * Every page goes the same way, a batch at a time, over any number of mirrors:
 *
 *   1 under the lock: RESIDENT -> EVICTING, and out of the policy
 *   2 barrier_run(): every reader's pin is visible, or it sees EVICTING
 *   3 under the lock: read every pin of the mirrors; a pinned page goes on to
 *     RESIDENT, or, if it was invalidated, to STALE; wake the fetches that wait
 *   4 punch what is not pinned, neighbours together, under no lock
 *   5 under the lock: punched pages -> ABSENT, uncharged; wake again
 *
 * Between 1 and 5 the batch owns the states.  Never one barrier or one punch
 * for one page where there are more.
 *
 * An invalidation may come to a page that a batch has taken.  It finds the page
 * EVICTING and leaves it to the batch, which then must not restore it.  So
 * before the batch restores a page, it looks in the mirror's log for
 * invalidations that were under way when it took the page or that began later.
 *
 * The order of 1, 2 and 3 is what protects a reader: architecture.md, "The life
 * of a page", has the argument.  If barrier_run() fails, the batch treats every
 * page as pinned, and evicts none. */
#include "cache/evict.h"

#include <assert.h>
#include <stdlib.h>

#include "base/lock.h"
#include "cache/barrier.h"
#include "cache/budget.h"
#include "cache/internal.h"
#include "cache/pin.h"
#include "cache/states.h"
#include "cache/view.h"
#include "cache/waiter.h"

/* The most runs of stale pages that a mirror may have.  A page stays stale only
 * while a pin holds it, and a pin is one run.  So only a client that keeps
 * moving its pins can make more; its image then gets a new epoch. */
#define MAX_STALE_RUNS 16384

/* ---- Stale pages --------------------------------------------------------- */

bool evict_note_stale_locked(struct mirror *m, uint64_t page) {
  lock_assert_held(&m->cache->lock);
  struct page_run *last = m->n_stale ? &m->stale[m->n_stale - 1] : NULL;
  if (last && last->first + last->count == page) {
    last->count++;
    return true;
  }
  if (m->n_stale == m->max_stale) {
    size_t n = m->max_stale ? 2 * m->max_stale : 16;
    struct page_run *grown =
        n > MAX_STALE_RUNS ? NULL : realloc(m->stale, n * sizeof *grown);
    if (!grown)
      return false;
    m->stale = grown;
    m->max_stale = n;
  }
  m->stale[m->n_stale++] = (struct page_run){.first = page, .count = 1};
  return true;
}

/* Takes up to `most` pages off the end of the runs. */
static struct page_run stale_take_locked(struct mirror *m, uint64_t most) {
  lock_assert_held(&m->cache->lock);
  struct page_run *last = &m->stale[m->n_stale - 1], run = *last;
  if (run.count > most) {
    last->count -= most;
    run = (struct page_run){last->first + last->count, most};
  } else {
    m->n_stale--;
  }
  return run;
}

/* ---- One batch ----------------------------------------------------------- */

struct victim {
  struct mirror *mirror; /* referenced */
  uint64_t page;
  uint64_t mark; /* of the mirror's log, when the page was taken */
  bool pinned;
  bool is_lost; /* it is pinned and invalidated, and there is no memory to
                   remember it */
};

/* Victims by mirror, and by ascending page. */
struct batch {
  bool from_policy; /* s3fifo_restore() or s3fifo_gone() is due for each */
  bool is_drop;     /* they are invalidated: a pinned one becomes STALE */
  size_t n;
  struct victim victims[EVICT_MAX_BATCH];
};

static void batch_add_locked(struct batch *b, struct mirror *m, uint64_t page) {
  lock_assert_held(&m->cache->lock);
  m->evicting++;
  b->victims[b->n++] = (struct victim){
      .mirror = mirror_ref(m), .page = page, .mark = mirror_mark(m)};
}

/* The end of the victims that share the mirror of number `i`. */
static size_t end_of_mirror(const struct batch *b, size_t i) {
  size_t end = i;
  while (end < b->n && b->victims[end].mirror == b->victims[i].mirror)
    end++;
  return end;
}

/* The first victim in [lo, hi) from `page` on. */
static size_t first_from(const struct batch *b, size_t lo, size_t hi,
                         uint64_t page) {
  while (lo < hi) {
    size_t mid = (lo + hi) / 2;
    if (b->victims[mid].page < page)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

/* Marks the victims that one pin holds.  A client may write any value into its
 * slot: a pin of more than the capacity is ignored, and page numbers beyond the
 * image match no victim. */
static void scan_pin(struct batch *b, size_t lo, size_t hi, uint64_t word,
                     uint32_t capacity) {
  uint64_t first = pin_first(word);
  uint32_t count = pin_count(word);
  if (count == 0 || count > capacity)
    return;
  for (size_t i = first_from(b, lo, hi, first);
       i < hi && b->victims[i].page - first < count; i++)
    b->victims[i].pinned = true;
}

static void scan_pins_locked(struct page_cache *pc, struct batch *b) {
  lock_assert_held(&pc->lock);
  for (size_t lo = 0, hi; lo < b->n; lo = hi) {
    hi = end_of_mirror(b, lo);
    for (struct pin_table *t = b->victims[lo].mirror->tables; t; t = t->next)
      for (unsigned i = 0; (i = pin_skip(t, i)) < PIN_N_SLOTS; i++) {
        /* Acquire: pairs with pin_clear() and with the store of a pin. */
        uint64_t word = __atomic_load_n(&t->slots[i], __ATOMIC_ACQUIRE);
        if (word)
          scan_pin(b, lo, hi, word, pin_capacity(t, i));
      }
  }
}

/* Step 3 for one page that is pinned.  False: its mirror must be retired. */
static bool settle_pinned_locked(const struct batch *b,
                                 const struct victim *v) {
  lock_assert_held(&v->mirror->cache->lock);
  struct mirror *m = v->mirror;
  struct page_cache *pc = m->cache;
  m->evicting--;
  bool is_over = mirror_is_retired(m);
  bool is_stale =
      is_over || b->is_drop || mirror_dropped_since(m, v->mark, v->page, 1);
  if (b->from_policy && is_stale)
    s3fifo_gone(&pc->policy);
  if (is_over)
    return true;
  if (is_stale && !evict_note_stale_locked(m, v->page))
    return false;
  if (!is_stale)
    s3fifo_restore(&pc->policy, s3fifo_key(m->id, v->page));
  bool moved = states_move_locked(m, v->page, PAGE_EVICTING,
                                  is_stale ? PAGE_STALE : PAGE_RESIDENT);
  assert(moved);
  return moved;
}

/* Step 3.  False: some of their mirrors must be retired. */
static bool settle_all_pinned_locked(struct page_cache *pc, struct batch *b) {
  lock_assert_held(&pc->lock);
  bool all = true;
  for (size_t i = 0; i < b->n; i++) {
    struct victim *v = &b->victims[i];
    v->is_lost = v->pinned && !settle_pinned_locked(b, v);
    all &= !v->is_lost;
  }
  return all;
}

/* Retires the mirrors in which an invalidated page could not be made STALE. */
static void renew_lost(const struct batch *b) {
  for (size_t i = 0; i < b->n; i++) {
    struct mirror *m = b->victims[i].mirror;
    if (b->victims[i].is_lost && !mirror_is_retired(m))
      m->on_conflict(m);
  }
}

/* Step 4. */
static void punch_unpinned(const struct batch *b) {
  const struct victim *v = b->victims;
  for (size_t i = 0, n; i < b->n; i += n) {
    for (n = 0; i + n < b->n && !v[i + n].pinned &&
                v[i + n].mirror == v[i].mirror &&
                v[i + n].page == v[i].page + n;)
      n++;
    if (n > 0)
      mirror_punch(v[i].mirror, v[i].page, n);
    else
      n = 1;
  }
}

/* Step 5. */
static void settle_gone_locked(struct page_cache *pc, const struct batch *b) {
  lock_assert_held(&pc->lock);
  for (size_t i = 0; i < b->n; i++) {
    const struct victim *v = &b->victims[i];
    if (v->pinned)
      continue;
    bool moved =
        states_move_locked(v->mirror, v->page, PAGE_EVICTING, PAGE_ABSENT);
    assert(moved);
    (void)moved;
    if (!v->mirror->states_gone) /* else the reclaimer does it */
      budget_uncharge_pages_locked(v->mirror, mirror_page_size(v->mirror));
    v->mirror->evicting--;
    if (b->from_policy)
      s3fifo_gone(&pc->policy);
    pc->stats.n_evicted_pages++;
  }
}

/* Step 3; `*all` as settle_all_pinned_locked(). */
static struct waiter *settle_locked(struct page_cache *pc, struct batch *b,
                                    bool is_seen, bool *all) {
  lock_assert_held(&pc->lock);
  pc->stats.n_batches++;
  /* Without a barrier a pin may exist that this thread cannot see yet. */
  for (size_t i = 0; i < b->n; i++)
    b->victims[i].pinned = !is_seen;
  if (is_seen)
    scan_pins_locked(pc, b);
  *all = settle_all_pinned_locked(pc, b);
  return waiter_take_locked(pc);
}

/* Steps 2 to 5.  False: an invalidated page could not be made STALE; its image
 * has a new epoch now. */
static bool run_batch(struct page_cache *pc, struct batch *b) {
  bool all, is_seen = barrier_run();
  pthread_mutex_lock(&pc->lock);
  struct waiter *woken = settle_locked(pc, b, is_seen, &all);
  pthread_mutex_unlock(&pc->lock);
  waiter_wake(woken);
  punch_unpinned(b);
  pthread_mutex_lock(&pc->lock);
  settle_gone_locked(pc, b);
  woken = waiter_take_locked(pc);
  pthread_mutex_unlock(&pc->lock);
  waiter_wake(woken);
  if (!all)
    renew_lost(b);
  for (size_t i = 0; i < b->n; i++)
    mirror_unref(b->victims[i].mirror);
  return all;
}

/* ---- For space ----------------------------------------------------------- */

/* A reader may mark the byte between the load and the store, and its mark is
 * then lost.  The page is evicted one round earlier than it should be; nothing
 * else depends on it. */
bool evict_page_used(void *arg, uint64_t key, bool clear) {
  struct page_cache *pc = arg;
  uint8_t *accessed =
      &pc->mirrors[s3fifo_key_mirror(key)]->accessed[s3fifo_key_page(key)];
  bool used = __atomic_load_n(accessed, __ATOMIC_RELAXED) == ACCESSED;
  if (used && clear)
    __atomic_store_n(accessed, ACCESSED_NOT, __ATOMIC_RELAXED);
  return used;
}

static int compare_keys(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

/* Picks victims until they make up `want` bytes. */
static size_t pick_keys_locked(struct page_cache *pc, uint64_t want,
                               enum evict_order order, uint64_t *keys) {
  lock_assert_held(&pc->lock);
  unsigned chances = S3FIFO_SECOND_CHANCES;
  uint64_t got = 0;
  size_t n = 0;
  while (got < want && n < EVICT_MAX_BATCH) {
    size_t more = order == EVICT_IN_TURN
                      ? s3fifo_pick_oldest(&pc->policy, keys + n)
                      : s3fifo_pick(&pc->policy, 1, keys + n,
                                    EVICT_MAX_BATCH - n, &chances);
    if (!more)
      break;
    for (size_t i = n; i < n + more; i++)
      got += mirror_page_size(pc->mirrors[s3fifo_key_mirror(keys[i])]);
    n += more;
  }
  return n;
}

/* Step 1. */
static void pick_locked(struct page_cache *pc, uint64_t want,
                        enum evict_order order, struct batch *b) {
  lock_assert_held(&pc->lock);
  uint64_t keys[EVICT_MAX_BATCH];
  size_t n = pick_keys_locked(pc, want, order, keys);
  qsort(keys, n, sizeof *keys, compare_keys);
  for (size_t i = 0; i < n; i++) {
    struct mirror *m = pc->mirrors[s3fifo_key_mirror(keys[i])];
    uint64_t page = s3fifo_key_page(keys[i]);
    bool moved = states_move_locked(m, page, PAGE_RESIDENT, PAGE_EVICTING);
    assert(moved); /* C1 */
    (void)moved;
    batch_add_locked(b, m, page);
  }
}

size_t evict(struct page_cache *pc, uint64_t want, enum evict_order order) {
  struct batch b = {.from_policy = true};
  pthread_mutex_lock(&pc->lock);
  pick_locked(pc, want, order, &b);
  pthread_mutex_unlock(&pc->lock);
  if (b.n > 0)
    run_batch(pc, &b);
  return b.n;
}

/* ---- Because they are stale ---------------------------------------------- */

/* How many empty blocks of states one hold of the lock may skip. */
#define LOOK_BLOCKS 4096

/* Step 1 for a range: takes the RESIDENT pages from `*next` on, as many as fit
 * into the batch, within one block of states.  ZERO pages become ABSENT at
 * once, because no reader has their bytes.  The range is taken in steps, so
 * that the lock is never held for a whole image. */
static void pick_range_locked(struct mirror *m, struct batch *b, uint64_t *next,
                              uint64_t end) {
  lock_assert_held(&m->cache->lock);
  uint64_t page = states_next_live_locked(m, *next, LOOK_BLOCKS);
  uint64_t stop = (page / STATES_PER_BLOCK + 1) * STATES_PER_BLOCK;
  if (stop > end)
    stop = end;
  for (; page < stop && b->n < EVICT_MAX_BATCH; page++) {
    if (states_take_locked(m, page))
      batch_add_locked(b, m, page);
  }
  *next = page;
}

bool evict_range(struct mirror *m, uint64_t first, uint64_t count) {
  struct page_cache *pc = m->cache;
  uint64_t end = first + count;
  for (uint64_t next = first; next < end;) {
    struct batch b = {.is_drop = true};
    pthread_mutex_lock(&pc->lock);
    pick_range_locked(m, &b, &next, end);
    pthread_mutex_unlock(&pc->lock);
    if (b.n > 0 && !run_batch(pc, &b))
      return false;
  }
  return true;
}

static int compare_pages(const void *a, const void *b) {
  uint64_t x = ((const struct victim *)a)->page;
  uint64_t y = ((const struct victim *)b)->page;
  return x < y ? -1 : x > y;
}

bool evict_stale(struct mirror *m) {
  struct page_cache *pc = m->cache;
  struct batch b = {.is_drop = true};
  pthread_mutex_lock(&pc->lock);
  while (m->n_stale > 0 && b.n < EVICT_MAX_BATCH && !mirror_is_retired(m)) {
    struct page_run run = stale_take_locked(m, EVICT_MAX_BATCH - b.n);
    for (uint64_t page = run.first; page < run.first + run.count; page++) {
      states_move_locked(m, page, PAGE_STALE, PAGE_EVICTING);
      batch_add_locked(&b, m, page);
    }
  }
  pthread_mutex_unlock(&pc->lock);
  qsort(b.victims, b.n, sizeof b.victims[0], compare_pages);
  if (b.n > 0)
    run_batch(pc, &b);
  return b.n > 0;
}

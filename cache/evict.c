/* Evicting: letting pages go, for space or because they are stale.
 *
 * Every page goes the same way, a batch at a time, over any number of mirrors:
 *
 *   1 under the lock: RESIDENT -> EVICTING, and out of the policy
 *   2 barrier_run(): every reader's pin is visible, or it sees EVICTING
 *   3 under `pins_lock`: read every pin of the mirrors.  If any page is pinned,
 *     under the lock: it goes on to RESIDENT, or, if it was invalidated, to
 *     STALE; wake the fetches that wait
 *   4 punch what is not pinned, neighbours together, under no lock
 *   5 under the lock: punched pages -> ABSENT, uncharged; wake again
 *
 * Step 5, and step 1 for space, release the lock after every few pages, so that
 * no miss waits for a whole batch.
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
#include <endian.h>
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

/* About how many pages one hold of the lock moves. */
#define PAGES_A_HOLD 32

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
  struct mirror *mirror; /* referenced, by one of its victims at least */
  uint64_t page;
  uint64_t mark; /* of the mirror's log, when the page was taken */
  bool has_ref;
  bool pinned;
  bool is_lost; /* it is pinned and invalidated, and there is no memory to
                   remember it */
};

/* From step 2 on, its victims are sorted by mirror and page. */
struct batch {
  bool from_policy; /* s3fifo_restore() or s3fifo_gone() is due for each */
  bool is_drop;     /* they are invalidated: a pinned one becomes STALE */
  size_t n;
  struct victim victims[EVICT_MAX_BATCH];
};

static void batch_add_locked(struct batch *b, struct mirror *m, uint64_t page) {
  lock_assert_held(&m->cache->lock);
  bool has_ref = b->n == 0 || b->victims[b->n - 1].mirror != m;
  m->evicting++;
  b->victims[b->n++] = (struct victim){.mirror = has_ref ? mirror_ref(m) : m,
                                       .page = page,
                                       .mark = mirror_mark(m),
                                       .has_ref = has_ref};
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

static void scan_table_locked(struct page_cache *pc, struct batch *b, size_t lo,
                              size_t hi, const struct pin_table *t) {
  lock_assert_held(&pc->pins_lock);
  for (unsigned i = 0; (i = pin_skip(t, i)) < PIN_N_SLOTS; i++) {
    /* Acquire: pairs with pin_clear() and with the store of a pin. */
    uint64_t word = __atomic_load_n(&t->slots[i], __ATOMIC_ACQUIRE);
    if (word)
      scan_pin(b, lo, hi, word, pin_capacity(t, i));
  }
}

/* Returns whether any victim is pinned.  It goes through all tables of the
 * mirrors, which takes long if there are many, so it does not take the lock
 * that misses take.  A table that is listed later has no pin from before the
 * victims were EVICTING. */
static bool scan_pins(struct page_cache *pc, struct batch *b) {
  bool any = false;
  pthread_mutex_lock(&pc->pins_lock);
  for (size_t lo = 0, hi; lo < b->n; lo = hi) {
    hi = end_of_mirror(b, lo);
    for (struct pin_table *t = b->victims[lo].mirror->tables; t; t = t->next)
      scan_table_locked(pc, b, lo, hi, t);
  }
  pthread_mutex_unlock(&pc->pins_lock);
  for (size_t i = 0; i < b->n; i++)
    any |= b->victims[i].pinned;
  return any;
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

/* Whether a punch takes so long that a write is faster through a mapping: each
 * process that has the mirror mapped adds 0.1 to 0.6 us to it. */
static bool is_punch_slow(struct mirror *m) {
  return __atomic_load_n(&m->n_lent, __ATOMIC_RELAXED) >= EVICT_MANY_LENT &&
         budget_allows_writing_mapped(m);
}

/* Punches the victims [lo, hi), of one mirror. */
static void punch_runs(const struct batch *b, size_t lo, size_t hi) {
  const struct victim *v = b->victims;
  for (size_t i = lo, n; i < hi; i += n) {
    for (n = 0;
         i + n < hi && !v[i + n].pinned && v[i + n].page == v[i].page + n;)
      n++;
    if (n > 0)
      mirror_punch(v[i].mirror, v[i].page, n);
    else
      n = 1;
  }
}

/* Step 4. */
static void punch_unpinned(const struct batch *b) {
  for (size_t lo = 0, hi; lo < b->n; lo = hi) {
    hi = end_of_mirror(b, lo);
    struct mirror *m = b->victims[lo].mirror;
    bool is_slow = is_punch_slow(m);
    if (is_slow)
      mirror_begin_slow_punches(m);
    punch_runs(b, lo, hi);
    if (is_slow)
      mirror_end_slow_punches(m);
  }
}

/* Step 5 for the victims [lo, hi). */
static void settle_gone_locked(struct page_cache *pc, const struct batch *b,
                               size_t lo, size_t hi) {
  lock_assert_held(&pc->lock);
  for (size_t i = lo; i < hi; i++) {
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

/* Step 5. */
static void settle_gone(struct page_cache *pc, const struct batch *b) {
  for (size_t lo = 0, hi; lo < b->n; lo = hi) {
    hi = b->n - lo > PAGES_A_HOLD ? lo + PAGES_A_HOLD : b->n;
    pthread_mutex_lock(&pc->lock);
    settle_gone_locked(pc, b, lo, hi);
    pc->stats.n_batches += hi == b->n;
    struct waiter *woken = waiter_take_locked(pc);
    pthread_mutex_unlock(&pc->lock);
    waiter_wake(woken);
  }
}

/* Step 3; returns as settle_all_pinned_locked(). */
static bool settle_pinned(struct page_cache *pc, struct batch *b) {
  pthread_mutex_lock(&pc->lock);
  bool all = settle_all_pinned_locked(pc, b);
  struct waiter *woken = waiter_take_locked(pc);
  pthread_mutex_unlock(&pc->lock);
  waiter_wake(woken);
  return all;
}

static int compare_victims(const void *a, const void *b) {
  const struct victim *x = a, *y = b;
  if (x->mirror != y->mirror)
    return x->mirror->id < y->mirror->id ? -1 : 1;
  return x->page < y->page ? -1 : x->page > y->page;
}

/* Sorts the victims, and does steps 2 to 5.  False: an invalidated page could
 * not be made STALE; its image has a new epoch now. */
static bool run_batch(struct page_cache *pc, struct batch *b) {
  qsort(b->victims, b->n, sizeof b->victims[0], compare_victims);
  bool all = true, is_seen = barrier_run();
  /* Without a barrier a pin may exist that this thread cannot see yet. */
  for (size_t i = 0; i < b->n; i++)
    b->victims[i].pinned = !is_seen;
  if (!is_seen || scan_pins(pc, b))
    all = settle_pinned(pc, b);
  punch_unpinned(b);
  settle_gone(pc, b);
  if (!all)
    renew_lost(b);
  for (size_t i = 0; i < b->n; i++)
    if (b->victims[i].has_ref)
      mirror_unref(b->victims[i].mirror);
  return all;
}

/* ---- For space ----------------------------------------------------------- */

/* A reader may mark the byte between the load and the store, and its mark is
 * then lost.  The page is evicted one round earlier than it should be; nothing
 * else depends on it. */
bool evict_take_used(void *arg, uint64_t key) {
  struct page_cache *pc = arg;
  uint8_t *accessed =
      &pc->mirrors[s3fifo_key_mirror(key)]->accessed[s3fifo_key_page(key)];
  bool used = __atomic_load_n(accessed, __ATOMIC_RELAXED) == ACCESSED;
  if (used)
    __atomic_store_n(accessed, ACCESSED_NOT, __ATOMIC_RELAXED);
  return used;
}

void evict_expect(void *arg, uint64_t key) {
  struct page_cache *pc = arg;
  const struct mirror *m = pc->mirrors[s3fifo_key_mirror(key)];
  uint64_t page = s3fifo_key_page(key);
  __builtin_prefetch(&m->accessed[page], 1);
  __builtin_prefetch(&m->states[page], 1);
}

/* Eight page states or accessed bytes, as one word. */
typedef uint64_t __attribute__((may_alias)) eight_bytes;

/* Bit n says whether byte n in memory is `byte`. */
static uint32_t bytes_equal(const uint8_t *eight, uint8_t byte) {
  uint32_t bits = 0;
  uint64_t word = __atomic_load_n((const eight_bytes *)eight, __ATOMIC_RELAXED);
  word = le64toh(word);
  for (unsigned i = 0; i < 8; i++)
    bits |= (uint32_t)((uint8_t)(word >> 8 * i) == byte) << i;
  return bits;
}

/* Relaxed: the states of pages in the policy change under the lock alone (C1),
 * and for an accessed byte see evict_take_used().  Both arrays are rounded up
 * to whole pages of memory, so a group never ends behind them. */
uint32_t evict_unused_pages(void *arg, uint64_t first) {
  struct page_cache *pc = arg;
  const struct mirror *m = pc->mirrors[s3fifo_key_mirror(first)];
  const uint8_t *states = &m->states[s3fifo_key_page(first)];
  const uint8_t *accessed = &m->accessed[s3fifo_key_page(first)];
  uint32_t unused = 0;
  for (unsigned i = 0; i < S3FIFO_GROUP; i += 8)
    unused |= (bytes_equal(states + i, PAGE_RESIDENT) &
               ~bytes_equal(accessed + i, ACCESSED))
              << i;
  return unused;
}

/* What is to be picked for a batch. */
struct pick {
  enum evict_order order;
  uint64_t left; /* bytes; 0 also when the policy has no more pages */
  unsigned chances;
};

/* Step 1 for the next victims of the policy: one, or a group. */
static void pick_next_locked(struct page_cache *pc, struct pick *pick,
                             struct batch *b) {
  lock_assert_held(&pc->lock);
  uint64_t keys[S3FIFO_GROUP], len = 0;
  size_t room = EVICT_MAX_BATCH - b->n;
  size_t n = pick->order == EVICT_IN_TURN
                 ? s3fifo_pick_oldest(&pc->policy, keys)
                 : s3fifo_pick(&pc->policy, 1, keys,
                               room < S3FIFO_GROUP ? room : S3FIFO_GROUP,
                               &pick->chances);
  for (size_t i = 0; i < n; i++) {
    struct mirror *m = pc->mirrors[s3fifo_key_mirror(keys[i])];
    uint64_t page = s3fifo_key_page(keys[i]);
    bool moved = states_move_locked(m, page, PAGE_RESIDENT, PAGE_EVICTING);
    assert(moved); /* C1 */
    (void)moved;
    batch_add_locked(b, m, page);
    len += mirror_page_size(m);
  }
  pick->left -= n > 0 && len < pick->left ? len : pick->left;
}

/* Step 1.  Misses may take the lock between its holds. */
static void pick_victims(struct page_cache *pc, struct pick *pick,
                         struct batch *b) {
  while (pick->left > 0 && b->n < EVICT_MAX_BATCH) {
    size_t stop = b->n + PAGES_A_HOLD;
    if (stop > EVICT_MAX_BATCH)
      stop = EVICT_MAX_BATCH;
    uint64_t pages = pick->left >> PAGE_SHIFT_MIN; /* at most */
    pthread_mutex_lock(&pc->lock);
    s3fifo_expect_picks(&pc->policy,
                        pages < PAGES_A_HOLD ? (unsigned)pages : PAGES_A_HOLD);
    while (pick->left > 0 && b->n < stop)
      pick_next_locked(pc, pick, b);
    pthread_mutex_unlock(&pc->lock);
  }
}

size_t evict(struct page_cache *pc, uint64_t want, enum evict_order order) {
  struct batch b = {.from_policy = true};
  struct pick pick = {
      .order = order, .left = want, .chances = S3FIFO_SECOND_CHANCES};
  pick_victims(pc, &pick, &b);
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
  if (b.n > 0)
    run_batch(pc, &b);
  return b.n > 0;
}

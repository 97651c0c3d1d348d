/* Evicting: letting pages go, for space or because they are stale.
 *
 * Every page goes the same way, a batch at a time:
 *
 *   1 under the lock: RESIDENT -> EVICTING, and out of the policy
 *   2 barrier_run(): every reader's pin is visible, or it sees EVICTING
 *   3 under the lock: read every pin of the mirror
 *   4 punch what is not pinned, neighbours together, under no lock
 *   5 under the lock: punched pages -> ABSENT, uncharged; pinned ones back to
 *     RESIDENT, unless they are stale; wake who waits for a verdict
 *
 * Between 1 and 5 the batch owns the words.  Never one barrier or one punch
 * for one page where there are more. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cache/barrier.h"
#include "cache/page_cache_impl.h"

#define JANITOR_MS 100

/* ---- One batch ----------------------------------------------------------- */

struct victim {
  uint64_t page;
  bool pinned;  /* the last scan found a pin on it */
  bool punched; /* final */
};

/* Victims of one mirror, by ascending page. */
struct batch {
  struct mirror *mirror; /* referenced */
  uint64_t n_drops;      /* of the cache when they were picked */
  size_t n;
  struct victim victims[EVICT_MAX_BATCH];
};

static size_t first_from(const struct batch *b, uint64_t page) {
  size_t lo = 0, hi = b->n;
  while (lo < hi) {
    size_t mid = (lo + hi) / 2;
    if (b->victims[mid].page < page)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

/* Marks what one pin word holds.  The word is hostile: a client wrote it. */
static void scan_pin(struct batch *b, uint64_t word, uint32_t capacity) {
  uint64_t first = pin_first(word);
  uint32_t count = pin_count(word);
  if (count == 0 || count > capacity)
    return;
  for (size_t i = first_from(b, first);
       i < b->n && b->victims[i].page - first < count; i++)
    b->victims[i].pinned = true;
}

static void scan_pins_locked(struct batch *b) {
  for (struct pin_table *t = b->mirror->tables; t; t = t->next)
    for (unsigned i = 0; i < PIN_N_SLOTS; i++) {
      /* Acquire: pairs with pin_clear() and with the store of a pin. */
      uint64_t word = __atomic_load_n(&t->slots[i], __ATOMIC_ACQUIRE);
      if (word)
        scan_pin(b, word, pin_capacity(t, i));
    }
}

static bool to_punch(const struct victim *v) {
  return !v->pinned && !v->punched;
}

static void punch_unpinned(struct batch *b) {
  for (size_t i = 0; i < b->n;) {
    size_t j = i;
    while (j < b->n && to_punch(&b->victims[j]) &&
           b->victims[j].page == b->victims[i].page + (j - i))
      b->victims[j++].punched = true;
    if (j > i)
      mirror_punch(b->mirror, b->victims[i].page, j - i);
    i = j > i ? j : i + 1;
  }
}

static void uncharge_locked(struct page_cache *pc, struct mirror *m,
                            uint64_t len) {
  assert(m->charged_pages >= len && pc->used >= len);
  m->charged_pages -= len;
  pc->used -= len;
}

/* What becomes of a victim that is pinned. */
enum pinned_fate { PINNED_RESTORE, PINNED_STAY };

/* Step 5.  Returns how many are pinned. */
static size_t settle_locked(struct page_cache *pc, struct batch *b,
                            enum pinned_fate fate) {
  struct mirror *m = b->mirror;
  size_t n_pinned = 0;
  for (size_t i = 0; i < b->n; i++) {
    uint64_t page = b->victims[i].page;
    if (b->victims[i].punched) {
      bool moved = residency_move(&m->words[page], PAGE_EVICTING, PAGE_ABSENT);
      assert(moved);
      (void)moved;
      continue;
    }
    n_pinned++;
    if (fate == PINNED_RESTORE)
      residency_move(&m->words[page], PAGE_EVICTING, PAGE_RESIDENT);
  }
  uint64_t n_gone = b->n - n_pinned;
  uncharge_locked(pc, m, n_gone << m->page_shift);
  m->evicting -= b->n;
  pc->stats.n_evicted_pages += n_gone;
  pc->stats.n_batches++;
  return n_pinned;
}

/* Steps 2 to 4, for what is not punched yet. */
static void judge(struct page_cache *pc, struct batch *b) {
  /* Without a barrier nobody knows what is pinned: nothing is punched. */
  bool is_seen = barrier_run();
  for (size_t i = 0; i < b->n; i++)
    b->victims[i].pinned = !is_seen;
  if (!is_seen)
    return;
  pthread_mutex_lock(&pc->lock);
  scan_pins_locked(b);
  pthread_mutex_unlock(&pc->lock);
  punch_unpinned(b);
}

/* ---- For space ----------------------------------------------------------- */

static bool page_used(void *arg, uint64_t key, bool clear) {
  struct page_cache *pc = arg;
  uint8_t *touched =
      &pc->mirrors[policy_key_mirror(key)]->touched[policy_key_page(key)];
  bool used = __atomic_load_n(touched, __ATOMIC_RELAXED) == ACCESSED;
  if (used && clear)
    __atomic_store_n(touched, ACCESSED_NOT, __ATOMIC_RELAXED);
  return used;
}

static int compare_keys(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

/* Tells the policy what became of its victims. */
static void settle_policy_locked(struct page_cache *pc, const struct batch *b,
                                 enum pinned_fate fate) {
  for (size_t i = 0; i < b->n; i++)
    if (!b->victims[i].punched && fate == PINNED_RESTORE)
      policy_restore(&pc->policy,
                     policy_key(b->mirror->id, b->victims[i].page));
    else
      policy_gone(&pc->policy);
}

static bool any_pinned(const struct batch *b) {
  for (size_t i = 0; i < b->n; i++)
    if (!b->victims[i].punched)
      return true;
  return false;
}

/* Evicts one mirror's share of a batch: steps 2 to 5. */
static void evict_batch(struct page_cache *pc, struct batch *b) {
  struct mirror *m = b->mirror;
  judge(pc, b);
  pthread_mutex_lock(&pc->lock);
  /* A pinned page that was invalidated since it was picked must not come back:
   * then the image needs a new epoch, as image_invalidate() would give it. */
  while (any_pinned(b) && m->dropped > b->n_drops && !mirror_is_retired(m) &&
         !m->abandoned) {
    pthread_mutex_unlock(&pc->lock);
    image_renew(m->image, m);
    pthread_mutex_lock(&pc->lock);
  }
  bool is_over = mirror_is_retired(m) || m->abandoned;
  enum pinned_fate fate = is_over ? PINNED_STAY : PINNED_RESTORE;
  settle_policy_locked(pc, b, fate);
  settle_locked(pc, b, fate);
  struct fetch *woken = verdicts_take_locked(pc);
  pthread_mutex_unlock(&pc->lock);
  fetches_done(woken);
}

/* Step 1: takes victims until they make up `want` bytes, and moves their
 * words.  `keys` come out sorted, each with a reference to its mirror. */
static size_t pick_locked(struct page_cache *pc, uint64_t want,
                          uint64_t *keys) {
  size_t n = 0;
  uint64_t got = 0;
  while (got < want && n < EVICT_MAX_BATCH) {
    size_t more = policy_pick(&pc->policy, 1, keys + n, EVICT_MAX_BATCH - n,
                              page_used, pc);
    if (!more)
      break;
    for (size_t i = n; i < n + more; i++) {
      struct mirror *m = mirror_ref(pc->mirrors[policy_key_mirror(keys[i])]);
      bool moved = residency_move(&m->words[policy_key_page(keys[i])],
                                  PAGE_RESIDENT, PAGE_EVICTING);
      assert(moved); /* C1 */
      (void)moved;
      m->evicting++;
      got += mirror_page_size(m);
    }
    n += more;
  }
  qsort(keys, n, sizeof *keys, compare_keys);
  return n;
}

/* Tries to evict about `want` bytes; returns how many pages it looked at, some
 * of which may have turned out to be pinned. */
static size_t evict(struct page_cache *pc, uint64_t want) {
  uint64_t keys[EVICT_MAX_BATCH];
  struct batch b;
  pthread_mutex_lock(&pc->lock);
  size_t n = pick_locked(pc, want, keys);
  b.n_drops = pc->n_drops; /* now: the lock is let go between mirrors */
  for (size_t i = 0; i < n;) {
    b.mirror = pc->mirrors[policy_key_mirror(keys[i])];
    b.n = 0;
    for (; i < n && policy_key_mirror(keys[i]) == b.mirror->id; i++)
      b.victims[b.n++] = (struct victim){.page = policy_key_page(keys[i])};
    pthread_mutex_unlock(&pc->lock);
    evict_batch(pc, &b);
    for (size_t k = 0; k < b.n; k++)
      mirror_unref(b.mirror);
    pthread_mutex_lock(&pc->lock);
  }
  pthread_mutex_unlock(&pc->lock);
  return n;
}

/* ---- Because they are stale ---------------------------------------------- */

/* Step 1 for a range: the RESIDENT pages from `*next` on, as many as fit. */
static void pick_range_locked(struct page_cache *pc, struct batch *b,
                              uint64_t *next, uint64_t end) {
  struct mirror *m = b->mirror;
  b->n = 0;
  /* With the look, not before it: a batch that owns one of these words was
   * picked earlier, and must not restore it any more. */
  m->dropped = ++pc->n_drops;
  /* Bounds the time under the lock. */
  uint64_t stop = *next + 16384;
  while (*next < end && *next < stop && b->n < EVICT_MAX_BATCH) {
    if (*next % 4096 == 0)
      *next = mirror_next_words(m, *next);
    uint64_t page = *next;
    if (page >= end)
      break;
    ++*next;
    if (!residency_move(&m->words[page], PAGE_RESIDENT, PAGE_EVICTING))
      continue;
    policy_remove(&pc->policy, policy_key(m->id, page));
    m->evicting++;
    b->victims[b->n++] = (struct victim){.page = page};
  }
}

uint64_t evict_range(struct page_cache *pc, struct mirror *m, uint64_t first,
                     uint64_t count) {
  struct batch b = {.mirror = m};
  uint64_t n_pinned = 0;
  uint64_t end = first + count;
  for (uint64_t next = first; next < end;) {
    pthread_mutex_lock(&pc->lock);
    pick_range_locked(pc, &b, &next, end);
    pthread_mutex_unlock(&pc->lock);
    if (!b.n)
      continue;
    judge(pc, &b);
    pthread_mutex_lock(&pc->lock);
    n_pinned += settle_locked(pc, &b, PINNED_STAY);
    struct fetch *woken = verdicts_take_locked(pc);
    pthread_mutex_unlock(&pc->lock);
    fetches_done(woken);
  }
  return n_pinned;
}

void evict_unpinned(struct mirror *m, uint64_t first, uint64_t count) {
  struct batch b = {.mirror = m};
  for (uint64_t page = first; page < first + count;) {
    for (b.n = 0; b.n < EVICT_MAX_BATCH && page < first + count; page++)
      b.victims[b.n++] = (struct victim){.page = page};
    judge(m->cache, &b);
  }
}

/* ---- The budget ---------------------------------------------------------- */

/* Bytes that fills may use up before the kernel is asked again. */
#define META_CREDIT_MOST (1u << 20)

/* Words and touched bytes are sparse and grow when they are read, so what they
 * take is asked of the kernel.  Some is charged beforehand, a sixteenth of the
 * budget for all mirrors together: then the sum does not creep over the budget
 * between two looks. */
static void charge_meta_locked(struct page_cache *pc, struct mirror *m) {
  uint64_t advance = pc->budget / META_SHARE / pc->n_live_mirrors;
  uint64_t charge = mirror_meta_bytes(m) + advance;
  if (charge > mirror_meta_len(m))
    charge = mirror_meta_len(m);
  pc->used += charge - m->charged_meta;
  m->charged_meta = charge;
  /* The other half is for readers, who make words grow as well. */
  m->meta_credit =
      advance / 2 < META_CREDIT_MOST ? advance / 2 : META_CREDIT_MOST;
}

/* Before a fill, which makes no more than two pages of words and two of touched
 * bytes: asks the kernel when what was charged beforehand may be used up. */
static void charge_fill_meta_locked(struct page_cache *pc, struct mirror *m) {
  const uint64_t most = 4 * MIRROR_WORDS_PAGE;
  if (m->meta_credit >= most)
    m->meta_credit -= most;
  else
    charge_meta_locked(pc, m);
}

void budget_recharge(struct mirror *m) {
  pthread_mutex_lock(&m->cache->lock);
  charge_meta_locked(m->cache, m);
  pthread_mutex_unlock(&m->cache->lock);
}

/* How much the evictor keeps free, and from where on it starts. */
static uint64_t high_free(const struct page_cache *pc) {
  uint64_t most = 8 << 20;
  return pc->budget / 32 < most ? pc->budget / 32 : most;
}

static bool wants_room_locked(const struct page_cache *pc, uint64_t free_len) {
  return pc->used + free_len > pc->budget && policy_len(&pc->policy) > 0;
}

/* How much is missing; 0: it is reserved. */
static uint64_t reserve_or_miss(struct page_cache *pc, struct mirror *m,
                                uint64_t len) {
  pthread_mutex_lock(&pc->lock);
  charge_fill_meta_locked(pc, m);
  bool fits = pc->used + len <= pc->budget;
  uint64_t over = fits ? 0 : pc->used + len - pc->budget;
  if (fits)
    pc->used += len;
  if (pc->has_evictor && wants_room_locked(pc, high_free(pc) / 2))
    pthread_cond_signal(&pc->wanted);
  pthread_mutex_unlock(&pc->lock);
  return over;
}

bool budget_try_reserve(struct page_cache *pc, struct mirror *m, uint64_t len) {
  return reserve_or_miss(pc, m, len) == 0;
}

bool budget_reserve(struct page_cache *pc, struct mirror *m, uint64_t len) {
  if (len > pc->budget)
    return false;
  /* At least a group, so that a small cache too batches its barriers. */
  uint64_t group = (uint64_t)POLICY_GROUP << m->page_shift;
  uint64_t least = group <= pc->budget / 16 ? group : 0;
  /* Others may take what we freed, and victims may be pinned: ask for more
   * each time, and after a while do without. */
  for (int tries = 0; tries < 8; tries++) {
    uint64_t over = reserve_or_miss(pc, m, len);
    if (!over)
      return true;
    if (!evict(pc, (over > least ? over : least) << tries) &&
        !janitor_sweep_words(m))
      return false; /* there is nothing left that could go */
  }
  return false;
}

void budget_release(struct page_cache *pc, uint64_t len) {
  pthread_mutex_lock(&pc->lock);
  assert(pc->used >= len);
  pc->used -= len;
  pthread_mutex_unlock(&pc->lock);
}

/* Evicts until there is room ahead of need.  The lock is held, but for the
 * evictions. */
static void make_room_locked(struct page_cache *pc) {
  while (!pc->stop && wants_room_locked(pc, high_free(pc))) {
    uint64_t before = pc->used;
    pthread_mutex_unlock(&pc->lock);
    evict(pc, before + high_free(pc) - pc->budget);
    pthread_mutex_lock(&pc->lock);
    if (pc->used >= before)
      break; /* pinned, or taken at once: the next miss asks again */
  }
}

static struct timespec after_ms(long ms) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  t.tv_nsec += ms * 1000000;
  t.tv_sec += t.tv_nsec / 1000000000;
  t.tv_nsec %= 1000000000;
  return t;
}

void *evictor_main(void *arg) {
  struct page_cache *pc = arg;
  pthread_mutex_lock(&pc->lock);
  struct timespec next_round = after_ms(JANITOR_MS);
  while (!pc->stop) {
    int r = pthread_cond_timedwait(&pc->wanted, &pc->lock, &next_round);
    make_room_locked(pc);
    if (r != ETIMEDOUT)
      continue;
    pthread_mutex_unlock(&pc->lock);
    janitor_round(pc);
    buffers_trim(&pc->buffers);
    next_round = after_ms(JANITOR_MS);
    pthread_mutex_lock(&pc->lock);
  }
  pthread_mutex_unlock(&pc->lock);
  return NULL;
}

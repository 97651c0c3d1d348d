#include "cache/fetch.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>

#include "base/lock.h"
#include "cache/fill_table.h"
#include "cache/internal.h"
#include "cache/sequential.h"
#include "cache/source.h"
#include "cache/states.h"

/* Limits of reads that nobody has asked for.  They keep such reads a small part
 * of the cache: bytes that turn out to be useless then push out little else. */
enum {
  BLOCK_PART = 8,          /* of the cache is more than a block, */
  MAX_WIDENING = 32 << 20, /* and what an image has under way, if some of it was
                               not asked for; */
  MAX_ALL_WIDENING = 64 << 20, /* and what all images have so, or */
  WIDENING_PART = 4,           /* this part of the cache */
  AHEAD_PART = 16,             /* is more than what is ahead of a reader, */
  AHEAD_BLOCKS = 8,            /* which is so many of the longest blocks */
};

static void woken(struct waiter *w) {
  struct fetch *f =
      (struct fetch *)((char *)w - offsetof(struct fetch, waiter));
  f->done(f);
}

/* Makes `f` wait for `fill`, once. */
static void link_locked(struct fetch *f, struct fill *fill) {
  lock_assert_held(&f->mirror->cache->lock);
  if (f->n_links > 0 && f->links[f->n_links - 1].fill == fill)
    return;
  assert(f->n_links < FETCH_MAX_PAGES);
  struct fetch_link *l = &f->links[f->n_links++];
  *l = (struct fetch_link){.fetch = f, .fill = fill, .next = fill->links};
  fill->links = l;
  __atomic_fetch_add(&fill->n_refs, 1, __ATOMIC_RELAXED);
  waiter_add(&f->waiter);
}

static void await_outcome_locked(struct page_cache *pc, struct fetch *f,
                                 bool *waits) {
  lock_assert_held(&pc->lock);
  if (*waits)
    return;
  *waits = true;
  waiter_await_outcome_locked(pc, &f->waiter);
}

/* Joins a fill that reads the page but does not own it. */
static bool join_uncached_locked(struct page_cache *pc, struct fetch *f,
                                 uint64_t page) {
  lock_assert_held(&pc->lock);
  struct mirror *m = f->mirror;
  struct fill *fill =
      m->n_uncached ? fill_table_joinable_locked(pc, m, page) : NULL;
  if (!fill)
    return false;
  link_locked(f, fill);
  f->n_joined++;
  pc->stats.n_joins++;
  return true;
}

/* Whether the page is in that state, has no fill, and one may be begun. */
static bool may_begin_locked(struct page_cache *pc, const struct mirror *m,
                             uint64_t page, enum page_state state) {
  lock_assert_held(&pc->lock);
  return page_state_look(&m->states[page]) == state &&
         !states_are_swept_locked(m, page) &&
         !(m->n_uncached && fill_table_joinable_locked(pc, m, page));
}

/* How many pages from `page` on, which may be begun, may be begun together. */
static uint32_t run_locked(struct page_cache *pc, const struct mirror *m,
                           uint64_t page, uint64_t end, enum page_state state) {
  lock_assert_held(&pc->lock);
  uint32_t n = 1;
  while (page + n < end && may_begin_locked(pc, m, page + n, state))
    n++;
  return n;
}

/* The blocks of a mirror's source, in pages: powers of two.  source_worth() may
 * be called under no lock, so a fetch asks for them before it takes it. */
struct blocks {
  uint64_t least, most;
};

static uint64_t block_pages(const struct mirror *m, uint64_t len) {
  uint64_t n = 1, least = len >> m->page_shift;
  uint64_t most = (internal_budget(m->cache) / BLOCK_PART) >> m->page_shift;
  while (n < least && n < FILL_MAX_PAGES && 2 * n <= most)
    n *= 2;
  return n;
}

static struct blocks blocks_of(const struct mirror *m) {
  struct source *src = m->source;
  if (!src)
    return (struct blocks){1, 1};
  return (struct blocks){block_pages(m, src->fetch_size.least),
                         block_pages(m, source_worth(src))};
}

static bool grows(const struct mirror *m) {
  const struct source *src = m->source;
  return src && src->fetch_size.most > src->fetch_size.least;
}

/* Whether a read may be widened to `len` bytes: see the limits above. */
static bool may_widen_locked(const struct page_cache *pc,
                             const struct mirror *m, uint64_t len) {
  lock_assert_held(&pc->lock);
  uint64_t all = pc->budget / WIDENING_PART;
  if (all > MAX_ALL_WIDENING)
    all = MAX_ALL_WIDENING;
  return m->filling + len <= MAX_WIDENING && pc->filling + len <= all;
}

/* Widens a run of ABSENT pages to the blocks of `n` pages that it lies in.  It
 * stops at the first page on each side that is cached or being read.  The added
 * pages enter the cache like any page, and are evicted first if no reader uses
 * them. */
static void widen_locked(struct page_cache *pc, const struct mirror *m,
                         uint64_t n, uint64_t *first, uint32_t *count) {
  lock_assert_held(&pc->lock);
  if (n == 1 || !may_widen_locked(pc, m, n << m->page_shift))
    return;
  uint64_t begin = *first & ~(n - 1);
  uint64_t end = (*first + *count + n - 1) & ~(n - 1);
  if (end > m->n_pages)
    end = m->n_pages;
  uint64_t from = *first, to = *first + *count;
  while (to - from < FILL_MAX_PAGES && to < end &&
         may_begin_locked(pc, m, to, PAGE_ABSENT))
    to++;
  while (to - from < FILL_MAX_PAGES && from > begin &&
         may_begin_locked(pc, m, from - 1, PAGE_ABSENT))
    from--;
  *first = from;
  *count = (uint32_t)(to - from);
}

/* Where `f` is in the image. */
struct place {
  struct blocks blocks;
  struct sequential_reader *reader; /* NULL: the blocks do not grow */
};

static uint64_t block_at(const struct place *at, uint64_t page) {
  return at->reader ? sequential_block(at->reader, page, at->blocks.least,
                                       at->blocks.most)
                    : at->blocks.least;
}

/* Begins a fill for a run of pages that have none.  Returns how many they are;
 * 0: no memory. */
static uint32_t begin_run_locked(struct page_cache *pc, struct fetch *f,
                                 const struct place *at, uint64_t page,
                                 enum page_state state, struct fill **begun) {
  lock_assert_held(&pc->lock);
  struct mirror *m = f->mirror;
  uint32_t n = run_locked(pc, m, page, f->first + f->count, state), count = n;
  uint64_t first = page;
  bool installs = state == PAGE_ABSENT && !m->is_pageless;
  if (installs)
    widen_locked(pc, m, block_at(at, page), &first, &count);
  if (installs && !states_charge_locked(m, first, count)) {
    first = page; /* there is no room: read only what was asked for */
    count = n;
    installs = states_charge_locked(m, first, count);
  }
  struct fill *fill = fill_table_begin_locked(pc, m, first, count, installs);
  if (!fill)
    return 0;
  fill->deadline_ms = f->deadline_ms;
  link_locked(f, fill);
  if (at->reader)
    sequential_begun(at->reader, first + count);
  f->n_missed += n;
  *begun = fill;
  return n;
}

/* Waits for the owner of a page: joins the fill that reads it, or waits until
 * the batch that evicts it is done.  A stale fill began before an invalidation,
 * so its bytes are too old for `f`, which looks at the page again after it. */
static void wait_for_owner_locked(struct page_cache *pc, struct fetch *f,
                                  uint64_t page, enum page_state state,
                                  bool *waits) {
  lock_assert_held(&pc->lock);
  struct fill *fill = NULL;
  if (state == PAGE_FILLING) {
    fill = fill_table_find_locked(pc, f->mirror, page);
    assert(fill && fill->installs); /* F2 */
  }
  if (!fill || fill->stale) {
    await_outcome_locked(pc, f, waits);
    return;
  }
  link_locked(f, fill);
  f->n_joined++;
  pc->stats.n_joins++;
}

/* Goes through the pages of `f`: joins the fills of pages that are being read,
 * and begins fills for those that are absent.  Returns how many it began;
 * `begun` has a reference to each. */
static uint32_t plan_locked(struct page_cache *pc, struct fetch *f,
                            const struct place *at, struct fill **begun) {
  lock_assert_held(&pc->lock);
  struct mirror *m = f->mirror;
  uint32_t n_begun = 0;
  bool waits = false;
  uint64_t end = f->first + f->count;
  for (uint64_t page = f->first; page < end;) {
    enum page_state state = page_state_look(&m->states[page]);
    uint32_t n = 1;
    if (state == PAGE_FILLING || state == PAGE_EVICTING) {
      wait_for_owner_locked(pc, f, page, state, &waits);
    } else if (state != PAGE_RESIDENT && state != PAGE_ZERO &&
               !join_uncached_locked(pc, f, page)) {
      if (states_are_swept_locked(m, page)) {
        await_outcome_locked(pc, f, &waits);
      } else {
        n = begin_run_locked(pc, f, at, page, state, &begun[n_begun]);
        if (n == 0) {
          f->status = -ENOMEM;
          break;
        }
        n_begun++;
      }
    }
    page += n;
  }
  return n_begun;
}

/* Reads the states and accessed bytes of the pages before the lock is taken:
 * the kernel may have to make memory for the first read of a page of them, and
 * no other thread should wait for that.  The pages lie in at most two blocks of
 * states, so both ends are enough. */
static void touch_states(const struct mirror *m, uint64_t first,
                         uint64_t count) {
  if (m->is_pageless)
    return;
  const uint64_t ends[] = {first, first + count - 1};
  for (int i = 0; i < 2; i++) {
    page_state_look(&m->states[ends[i]]);
    __atomic_load_n(&m->accessed[ends[i]], __ATOMIC_RELAXED);
  }
}

/* Does so for the blocks of `n` pages that the pages lie in. */
static void touch_blocks(const struct mirror *m, uint64_t n, uint64_t first,
                         uint64_t count) {
  uint64_t begin = first & ~(n - 1), end = (first + count + n - 1) & ~(n - 1);
  touch_states(m, begin, (end < m->n_pages ? end : m->n_pages) - begin);
}

/* ---- Ahead of a reader --------------------------------------------------- */

/* Passes by what is there, or under way, from the end of a sequential reader
 * on. */
static void pass_by_locked(struct page_cache *pc, const struct mirror *m,
                           struct sequential_reader *st) {
  lock_assert_held(&pc->lock);
  for (int i = 0; i < FILL_MAX_PAGES && st->end < m->n_pages &&
                  !may_begin_locked(pc, m, st->end, PAGE_ABSENT);
       i++)
    st->end++;
}

/* The block that is to be begun ahead of the sequential reader of `f`, in
 * `*first`.  Returns how many pages it has; 0: none is. */
static uint32_t next_ahead_locked(struct page_cache *pc, const struct fetch *f,
                                  const struct blocks *blocks,
                                  uint64_t *first) {
  lock_assert_held(&pc->lock);
  struct mirror *m = f->mirror;
  struct sequential_reader *st = sequential_find(&m->sequential, f->first);
  if (!st || mirror_is_retired(m))
    return 0;
  pass_by_locked(pc, m, st);
  uint64_t most = (pc->budget / AHEAD_PART) >> m->page_shift;
  if (most > AHEAD_BLOCKS * blocks->most)
    most = AHEAD_BLOCKS * blocks->most;
  uint64_t n = sequential_block(st, st->asked, blocks->least, blocks->most);
  uint64_t end = (st->end & ~(n - 1)) + n;
  if (end > m->n_pages)
    end = m->n_pages;
  *first = st->end;
  return end > st->end && end - st->asked <= sequential_ahead(st, most) &&
                 may_widen_locked(pc, m, (end - st->end) << m->page_shift)
             ? (uint32_t)(end - st->end)
             : 0;
}

/* As many of those pages as may be begun.  NULL: none. */
static struct fill *begin_ahead_locked(struct page_cache *pc,
                                       const struct fetch *f, uint64_t first,
                                       uint32_t most) {
  lock_assert_held(&pc->lock);
  struct mirror *m = f->mirror;
  struct sequential_reader *st = sequential_find(&m->sequential, f->first);
  if (!st || mirror_is_retired(m) ||
      !may_begin_locked(pc, m, first, PAGE_ABSENT))
    return NULL;
  uint32_t n = run_locked(pc, m, first, first + most, PAGE_ABSENT);
  if (!states_charge_locked(m, first, n))
    return NULL;
  sequential_begun(st, first + n);
  return fill_table_begin_locked(pc, m, first, n, true);
}

/* Begins the fills ahead of a scan, each under a hold of the lock of its own,
 * because a block has many pages.
 *
 * Between the two holds, for touch_states(), another thread may begin the same
 * pages or retire the mirror.  begin_ahead_locked() looks again, and then
 * begins nothing. */
static uint32_t begin_ahead(struct fetch *f, const struct blocks *blocks,
                            struct fill **begun) {
  struct mirror *m = f->mirror;
  struct page_cache *pc = m->cache;
  uint32_t n = 0;
  while (n < FETCH_MAX_AHEAD) {
    uint64_t first;
    pthread_mutex_lock(&pc->lock);
    uint32_t count = next_ahead_locked(pc, f, blocks, &first);
    pthread_mutex_unlock(&pc->lock);
    if (count == 0)
      break;
    touch_states(m, first, count);
    pthread_mutex_lock(&pc->lock);
    struct fill *fill = begin_ahead_locked(pc, f, first, count);
    pthread_mutex_unlock(&pc->lock);
    if (!fill)
      break;
    begun[n++] = fill;
  }
  return n;
}

/* ---- A fetch ------------------------------------------------------------- */

uint32_t fetch_begin(struct fetch *f, struct mirror *m, uint64_t first,
                     uint32_t count, struct fill *begun[FETCH_MAX_FILLS]) {
  struct page_cache *pc = m->cache;
  struct place at = {.blocks = blocks_of(m)};
  uint32_t n_begun = 0;
  assert(count <= FETCH_MAX_PAGES && first + count <= m->n_pages);
  f->mirror = mirror_ref(m);
  f->first = first;
  f->count = count;
  f->waiter.wake = woken;
  /* One for the caller: a fill that ends before fetch_begun() wakes nobody. */
  f->waiter.n_pending = 1;
  if (count > 0)
    touch_blocks(m, at.blocks.most, first, count);
  bool may_grow = count > 0 && grows(m) && !m->is_pageless;
  pthread_mutex_lock(&pc->lock);
  if (may_grow)
    at.reader = sequential_note(&m->sequential, first, count, at.blocks.least);
  if (mirror_is_retired(m))
    f->status = -ESTALE;
  else
    n_begun = plan_locked(pc, f, &at, begun);
  pthread_mutex_unlock(&pc->lock);
  if (may_grow && f->runner)
    n_begun += begin_ahead(f, &at.blocks, begun + n_begun);
  return n_begun;
}

enum fetch_outcome fetch_begun(struct fetch *f) {
  return waiter_end(&f->waiter) ? FETCH_READY : FETCH_WAIT;
}

/* The first bad page of a fill that is one of `f`; the page behind the last of
 * `f` if none is. */
static uint64_t first_bad_of(const struct fetch *f, const struct fill *fill) {
  uint64_t end = f->first + f->count, to = fill->first + fill->count;
  uint64_t page = f->first > fill->first ? f->first : fill->first;
  for (; fill->n_bad > 0 && page < end && page < to; page++)
    if (fill_is_bad(fill, (uint32_t)(page - fill->first)))
      return page;
  return end;
}

struct waiter *fetch_notify_locked(struct fill *fill) {
  lock_assert_held(&fill->mirror->cache->lock);
  struct waiter *list = NULL;
  for (struct fetch_link *l = fill->links, *next; l; l = next) {
    struct fetch *f = l->fetch;
    next = l->next; /* with its last wait the fetch is its owner's */
    if (!f->status && first_bad_of(f, fill) < f->first + f->count)
      f->status = fill->status;
    waiter_end_locked(fill->mirror->cache, &f->waiter, &list);
  }
  fill->links = NULL;
  return list;
}

const uint8_t *fetch_zeros(void) {
  /* Not const: the bytes would then be in the program's file. */
  static uint8_t bytes[1 << PAGE_SHIFT_MAX];
  return bytes;
}

const uint8_t *fetch_bytes(const struct fetch *f, uint64_t page) {
  for (uint32_t i = 0; i < f->n_links; i++) {
    const struct fill *fill = f->links[i].fill;
    uint64_t at = page - fill->first;
    if (at < fill->count && !fill_is_bad(fill, (uint32_t)at))
      return fill_is_zero(fill, (uint32_t)at)
                 ? fetch_zeros() /* the source need not have written any */
                 : fill->bytes + (at << f->mirror->page_shift);
  }
  return NULL;
}

uint64_t fetch_first_bad(const struct fetch *f) {
  uint64_t first = f->first + f->count;
  for (uint32_t i = 0; i < f->n_links; i++) {
    uint64_t bad = first_bad_of(f, f->links[i].fill);
    if (bad < first)
      first = bad;
  }
  return first;
}

void fetch_fini(struct fetch *f) {
  if (!f->mirror)
    return;
  for (uint32_t i = 0; i < f->n_links; i++)
    if (fill_table_unref(f->links[i].fill))
      fill_table_free(f->links[i].fill);
  f->n_links = 0;
  mirror_unref(f->mirror);
  f->mirror = NULL;
}

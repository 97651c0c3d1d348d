#include "cache/fetch.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>

#include "cache/fill_table.h"
#include "cache/internal.h"
#include "cache/source.h"
#include "cache/states.h"

enum {
  BLOCK_PART = 8,          /* of the cache is more than a block, */
  MAX_WIDENING = 32 << 20, /* and what an image has under way, if some of it was
                               not asked for */
};

static void woken(struct waiter *w) {
  struct fetch *f =
      (struct fetch *)((char *)w - offsetof(struct fetch, waiter));
  f->done(f);
}

/* Makes `f` wait for `fill`, once. */
static void link_locked(struct fetch *f, struct fill *fill) {
  if (f->n_links > 0 && f->links[f->n_links - 1].fill == fill)
    return;
  assert(f->n_links < FETCH_MAX_PAGES);
  struct fetch_link *l = &f->links[f->n_links++];
  *l = (struct fetch_link){.fetch = f, .fill = fill, .next = fill->links};
  fill->links = l;
  fill->n_refs++;
  f->waiter.n_pending++;
}

static void await_outcome_locked(struct page_cache *pc, struct fetch *f,
                                 bool *waits) {
  if (*waits)
    return;
  *waits = true;
  waiter_await_outcome_locked(pc, &f->waiter);
}

/* Joins a fill that reads the page but does not own it. */
static bool join_uncached_locked(struct page_cache *pc, struct fetch *f,
                                 uint64_t page) {
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
  return page_state_look(&m->words[page]) == state &&
         !states_are_swept_locked(m, page) &&
         !(m->n_uncached && fill_table_joinable_locked(pc, m, page));
}

/* How many pages from `page` on, which may be begun, may be begun together. */
static uint32_t run_locked(struct page_cache *pc, const struct mirror *m,
                           uint64_t page, uint64_t end, enum page_state state) {
  uint32_t n = 1;
  while (page + n < end && may_begin_locked(pc, m, page + n, state))
    n++;
  return n;
}

/* How many pages are in an aligned block of the source's. */
static uint64_t block_pages(const struct mirror *m) {
  uint64_t n = m->source ? m->source->fetch_size >> m->page_shift : 0;
  return n == 0 ? 1 : n < FETCH_MAX_PAGES ? n : FETCH_MAX_PAGES;
}

/* Widens a run of ABSENT pages to the blocks that it lies in, as far as nobody
 * has or reads their other pages.  Those enter the cache like any page, and
 * leave it first if nobody uses them.  But a block is a small part of the
 * cache, and what is read without being asked for is limited as well. */
static void widen_locked(struct page_cache *pc, const struct mirror *m,
                         uint64_t *first, uint32_t *count) {
  uint64_t n = block_pages(m);
  while (n > 1 && n << m->page_shift > pc->budget / BLOCK_PART)
    n /= 2;
  if (n == 1 || m->filling + (n << m->page_shift) > MAX_WIDENING)
    return;
  uint64_t begin = *first & ~(n - 1);
  uint64_t end = (*first + *count + n - 1) & ~(n - 1);
  if (end > m->n_pages)
    end = m->n_pages;
  uint64_t from = *first, to = *first + *count;
  while (to - from < FETCH_MAX_PAGES && to < end &&
         may_begin_locked(pc, m, to, PAGE_ABSENT))
    to++;
  while (to - from < FETCH_MAX_PAGES && from > begin &&
         may_begin_locked(pc, m, from - 1, PAGE_ABSENT))
    from--;
  *first = from;
  *count = (uint32_t)(to - from);
}

/* Begins a fill for a run of pages that have none.  Returns how many they are;
 * 0: no memory. */
static uint32_t begin_run_locked(struct page_cache *pc, struct fetch *f,
                                 uint64_t page, enum page_state state,
                                 struct fill **begun) {
  struct mirror *m = f->mirror;
  uint32_t n = run_locked(pc, m, page, f->first + f->count, state), count = n;
  uint64_t first = page;
  bool installs = state == PAGE_ABSENT && !m->is_pageless;
  if (installs)
    widen_locked(pc, m, &first, &count);
  installs = installs && states_charge_locked(m, first, count);
  struct fill *fill = fill_table_begin_locked(pc, m, first, count, installs);
  if (!fill)
    return 0;
  link_locked(f, fill);
  f->n_missed += n;
  *begun = fill;
  return n;
}

/* A page whose state is owned: by a fill, which is joined, or by a batch. */
static void wait_for_owner_locked(struct page_cache *pc, struct fetch *f,
                                  uint64_t page, enum page_state state,
                                  bool *waits) {
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

/* Goes through the pages of `f`: joins and begins what they need.  Returns how
 * many fills it began; `begun` has a reference to each. */
static uint32_t plan_locked(struct page_cache *pc, struct fetch *f,
                            struct fill **begun) {
  struct mirror *m = f->mirror;
  uint32_t n_begun = 0;
  bool waits = false;
  uint64_t end = f->first + f->count;
  for (uint64_t page = f->first; page < end;) {
    enum page_state state = page_state_look(&m->words[page]);
    uint32_t n = 1;
    if (state == PAGE_FILLING || state == PAGE_EVICTING) {
      wait_for_owner_locked(pc, f, page, state, &waits);
    } else if (state != PAGE_RESIDENT && !join_uncached_locked(pc, f, page)) {
      if (states_are_swept_locked(m, page)) {
        await_outcome_locked(pc, f, &waits);
      } else {
        n = begin_run_locked(pc, f, page, state, &begun[n_begun]);
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

/* Before the lock is taken: the first look at a state or an accessed byte may
 * have to make memory for it. */
static void touch_states(const struct mirror *m, uint64_t first,
                         uint64_t count) {
  if (m->is_pageless)
    return;
  const uint64_t ends[] = {first, first + count - 1};
  for (int i = 0; i < 2; i++) {
    page_state_look(&m->words[ends[i]]);
    __atomic_load_n(&m->touched[ends[i]], __ATOMIC_RELAXED);
  }
}

static void touch_blocks(const struct mirror *m, uint64_t first,
                         uint64_t count) {
  uint64_t n = block_pages(m), begin = first & ~(n - 1);
  uint64_t end = (first + count + n - 1) & ~(n - 1);
  touch_states(m, begin, (end < m->n_pages ? end : m->n_pages) - begin);
}

uint32_t fetch_begin(struct fetch *f, struct mirror *m, uint64_t first,
                     uint32_t count, struct fill *begun[FETCH_MAX_PAGES]) {
  struct page_cache *pc = m->cache;
  uint32_t n_begun = 0;
  assert(count <= FETCH_MAX_PAGES && first + count <= m->n_pages);
  f->mirror = mirror_ref(m);
  f->first = first;
  f->count = count;
  f->waiter.wake = woken;
  f->waiter.n_pending = 1; /* the caller, until fetch_begun() */
  if (count > 0)
    touch_blocks(m, first, count);
  pthread_mutex_lock(&pc->lock);
  if (mirror_is_retired(m))
    f->status = -ESTALE;
  else
    n_begun = plan_locked(pc, f, begun);
  pthread_mutex_unlock(&pc->lock);
  return n_begun;
}

enum fetch_outcome fetch_begun(struct fetch *f) {
  struct page_cache *pc = f->mirror->cache;
  pthread_mutex_lock(&pc->lock);
  bool ready = --f->waiter.n_pending == 0;
  pthread_mutex_unlock(&pc->lock);
  return ready ? FETCH_READY : FETCH_WAIT;
}

struct waiter *fetch_notify_locked(struct fill *fill) {
  struct waiter *list = NULL;
  for (struct fetch_link *l = fill->links; l; l = l->next) {
    struct fetch *f = l->fetch;
    for (uint32_t i = 0; i < fill->count; i++)
      if (fill_is_bad(fill, i) && fill->first + i - f->first < f->count &&
          !f->status)
        f->status = fill->status;
    waiter_end_locked(&f->waiter, &list);
  }
  fill->links = NULL;
  return list;
}

const uint8_t *fetch_bytes(const struct fetch *f, uint64_t page) {
  for (uint32_t i = 0; i < f->n_links; i++) {
    const struct fill *fill = f->links[i].fill;
    uint64_t at = page - fill->first;
    if (at < fill->count && !fill_is_bad(fill, (uint32_t)at))
      return fill->bytes + (at << f->mirror->page_shift);
  }
  return NULL;
}

uint64_t fetch_first_bad(const struct fetch *f) {
  uint64_t first = f->first + f->count;
  for (uint32_t i = 0; i < f->n_links; i++) {
    const struct fill *fill = f->links[i].fill;
    for (uint32_t k = 0; k < fill->count; k++)
      if (fill_is_bad(fill, k) && fill->first + k >= f->first &&
          fill->first + k < first)
        first = fill->first + k;
  }
  return first;
}

void fetch_fini(struct fetch *f) {
  if (!f->mirror)
    return;
  struct page_cache *pc = f->mirror->cache;
  for (uint32_t i = 0; i < f->n_links; i++) {
    struct fill *fill = f->links[i].fill;
    pthread_mutex_lock(&pc->lock);
    bool last = fill_table_unref_locked(fill);
    pthread_mutex_unlock(&pc->lock);
    if (last)
      fill_table_free(fill);
  }
  f->n_links = 0;
  mirror_unref(f->mirror);
  f->mirror = NULL;
}

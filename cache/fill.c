/* Fills: bringing missing pages in, once.
 *
 * A fill exists from the first miss on a run of pages until its outcome has
 * been handed to every waiter.  True whenever the cache's lock is free:
 *
 *   F1  At most one fill per page and mirror is in `fills` and `by_page` that
 *       is not stale.
 *   F2  A fill in there that installs owns its pages' states: they say FILLING.
 *       One that does not is for pages that cannot be resident now: they are
 *       STALE, or there is no room for their states.  Its bytes go to the
 *       fetches that wait.
 *   F3  A fetch link is on exactly one fill's list until that fill is done.
 *   F4  A fill's bytes are fixed once it is done, and live until the last
 *       fetch that links it: nobody depends on the pages staying resident.
 *
 *     (none) --fetch_start--> in flight --fill_run--> installed --> (none)
 *                                 `--failed, stale, no room--> dropped
 *
 * An invalidation does not cancel a fill: who waits already asked before it,
 * and gets what is read.  Who comes later waits for it to be dropped. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cache/internal.h"

/* How old the last look at an image may be when this process has no timer. */
#define LOOK_INTERVAL_MS 1000

/* ---- The table of fills -------------------------------------------------- */

static struct fill_node **bucket(struct page_cache *pc, const struct mirror *m,
                                 uint64_t page) {
  uint64_t h = s3fifo_key(m->id, page) * 0x9e3779b97f4a7c15ull;
  return &pc->by_page[(h >> 32) % FILL_BUCKETS];
}

static struct fill *find_locked(struct page_cache *pc, const struct mirror *m,
                                uint64_t page) {
  struct fill_node *n = *bucket(pc, m, page);
  while (n && !(n->page == page && n->fill->mirror == m))
    n = n->next;
  return n ? n->fill : NULL;
}

/* A fill that a fetch of the page may wait for. */
static struct fill *joinable_locked(struct page_cache *pc,
                                    const struct mirror *m, uint64_t page) {
  struct fill *fill = find_locked(pc, m, page);
  return fill && !fill->stale ? fill : NULL;
}

/* Makes a fill, which if it installs owns the pages, which are absent.  NULL:
 * no memory. */
static struct fill *begin_locked(struct page_cache *pc, struct mirror *m,
                                 uint64_t first, uint32_t count,
                                 bool installs) {
  struct fill *fill = calloc(1, sizeof *fill + count * sizeof *fill->nodes);
  if (!fill)
    return NULL;
  fill->mirror = mirror_ref(m);
  fill->first = first;
  fill->count = count;
  fill->n_refs = 1;
  fill->installs = installs;
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
  if (installs)
    m->filling += (uint64_t)count << m->page_shift;
  else
    m->n_uncached++;
  pc->stats.n_fills++;
  return fill;
}

static void leave_table_locked(struct page_cache *pc, struct fill *fill) {
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
  if (fill->installs)
    fill->mirror->filling -= (uint64_t)fill->count << fill->mirror->page_shift;
  else
    fill->mirror->n_uncached--;
}

/* Gives a reference back; true if it was the last: then fill_free(). */
static bool unref_locked(struct fill *fill) { return --fill->n_refs == 0; }

static void fill_free(struct fill *fill) {
  fill_buffers_put(&fill->mirror->cache->buffers, fill->bytes);
  mirror_unref(fill->mirror);
  free(fill);
}

void fills_mark_stale_locked(struct page_cache *pc, struct mirror *m,
                             uint64_t first, uint64_t count) {
  for (struct fill *f = pc->fills; f; f = f->next)
    if (f->mirror == m && f->first < first + count &&
        first < f->first + f->count)
      f->stale = true;
}

/* ---- Waiting ------------------------------------------------------------- */

void fetches_done(struct fetch *list) {
  while (list) {
    struct fetch *f = list;
    list = f->next; /* `f` is its owner's from done() on */
    f->done(f);
  }
}

struct fetch *verdicts_take_locked(struct page_cache *pc) {
  struct fetch *woken = NULL, *next;
  for (struct fetch *f = pc->verdicts; f; f = next) {
    next = f->next;
    if (--f->n_pending > 0)
      continue;
    f->next = woken;
    woken = f;
  }
  pc->verdicts = NULL;
  return woken;
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
  f->n_pending++;
}

static void wait_verdict_locked(struct page_cache *pc, struct fetch *f,
                                bool *waits) {
  if (*waits)
    return;
  *waits = true;
  f->next = pc->verdicts;
  pc->verdicts = f;
  f->n_pending++;
}

/* Joins a fill that reads the page but does not own it. */
static bool join_uncached_locked(struct page_cache *pc, struct fetch *f,
                                 uint64_t page) {
  struct mirror *m = f->mirror;
  struct fill *fill = m->n_uncached ? joinable_locked(pc, m, page) : NULL;
  if (!fill)
    return false;
  link_locked(f, fill);
  f->n_joined++;
  pc->stats.n_joins++;
  return true;
}

/* How many pages from `page` on are in the same state, have no fill, and may
 * be begun together. */
static uint32_t run_locked(struct page_cache *pc, const struct mirror *m,
                           uint64_t page, uint64_t end, enum page_state state) {
  uint32_t n = 1;
  while (page + n < end && page_state_look(&m->words[page + n]) == state &&
         !states_are_swept_locked(m, page + n) &&
         !(m->n_uncached && joinable_locked(pc, m, page + n)))
    n++;
  return n;
}

/* Begins a fill for a run of pages that have none.  Returns how many they are;
 * 0: no memory. */
static uint32_t begin_run_locked(struct page_cache *pc, struct fetch *f,
                                 uint64_t page, enum page_state state,
                                 struct fill **begun) {
  struct mirror *m = f->mirror;
  uint32_t n = run_locked(pc, m, page, f->first + f->count, state);
  bool installs = state == PAGE_ABSENT && !m->is_pageless &&
                  states_charge_locked(m, page, n);
  struct fill *fill = begin_locked(pc, m, page, n, installs);
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
    fill = find_locked(pc, f->mirror, page);
    assert(fill && fill->installs); /* F2 */
  }
  if (!fill || fill->stale) {
    wait_verdict_locked(pc, f, waits);
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
        wait_verdict_locked(pc, f, &waits);
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

/* What a miss does before its pages are looked at: in a process that has no
 * threads for it, what those would have done. */
static void prepare(struct mirror *m, uint64_t first, uint64_t count) {
  struct page_cache *pc = m->cache;
  if (count == 0)
    return;
  touch_states(m, first, count);
  if (m->image->ops.submit)
    return;
  image_refresh(m->image, LOOK_INTERVAL_MS);
  if (!pc->has_threads)
    evict_stale(m);
  if (states_need_charge(m, first, count) &&
      budget_reserve(pc, m->page_shift, 2 * STATE_BLOCK_LEN))
    budget_release(pc, 2 * STATE_BLOCK_LEN);
}

static bool is_bad(const struct fill *fill, uint32_t i) {
  return fill->bad >> i & 1;
}

enum fetch_outcome fetch_start(struct fetch *f, struct mirror *m,
                               uint64_t first, uint32_t count) {
  struct page_cache *pc = m->cache;
  const struct image_ops *ops = &m->image->ops;
  struct fill *begun[FETCH_MAX_PAGES];
  uint32_t n_begun = 0;
  assert(count <= FETCH_MAX_PAGES && first + count <= m->n_pages);
  prepare(m, first, count);
  f->mirror = mirror_ref(m);
  f->first = first;
  f->count = count;
  f->n_pending = 1; /* us, so that nobody calls done() before we return */
  pthread_mutex_lock(&pc->lock);
  if (mirror_is_retired(m))
    f->status = -ESTALE;
  else
    n_begun = plan_locked(pc, f, begun);
  pthread_mutex_unlock(&pc->lock);
  for (uint32_t i = 0; i < n_begun; i++)
    if (ops->submit)
      ops->submit(ops->arg, f, begun[i]);
    else
      fill_run(begun[i]);
  pthread_mutex_lock(&pc->lock);
  bool ready = --f->n_pending == 0;
  pthread_mutex_unlock(&pc->lock);
  return ready ? FETCH_READY : FETCH_WAIT;
}

const uint8_t *fetch_bytes(const struct fetch *f, uint64_t page) {
  for (uint32_t i = 0; i < f->n_links; i++) {
    const struct fill *fill = f->links[i].fill;
    uint64_t at = page - fill->first;
    if (at < fill->count && !(fill->bad >> at & 1))
      return fill->bytes + (at << f->mirror->page_shift);
  }
  return NULL;
}

uint64_t fetch_first_bad(const struct fetch *f) {
  uint64_t first = f->first + f->count;
  for (uint32_t i = 0; i < f->n_links; i++) {
    const struct fill *fill = f->links[i].fill;
    for (uint32_t k = 0; k < fill->count; k++)
      if (is_bad(fill, k) && fill->first + k >= f->first &&
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
    bool last = unref_locked(fill);
    pthread_mutex_unlock(&pc->lock);
    if (last)
      fill_free(fill);
  }
  f->n_links = 0;
  mirror_unref(f->mirror);
  f->mirror = NULL;
}

/* ---- Running ------------------------------------------------------------- */

size_t fill_len(const struct fill *fill) {
  const struct mirror *m = fill->mirror;
  uint64_t last = fill->first + fill->count - 1;
  return ((size_t)(fill->count - 1) << m->page_shift) +
         mirror_page_len(m, last);
}

static uint64_t all_bad(const struct fill *fill) {
  return fill->count == 64 ? UINT64_MAX : (1ull << fill->count) - 1;
}

/* One bad sector among many pages is an error for its page alone. */
static void read_one_by_one(struct fill *fill, struct source *src) {
  struct mirror *m = fill->mirror;
  for (uint32_t i = 0; i < fill->count; i++) {
    uint64_t page = fill->first + i;
    int r = src->ops->read(src, page << m->page_shift,
                           fill->bytes + ((size_t)i << m->page_shift),
                           mirror_page_len(m, page));
    if (r == 0)
      continue;
    if (fill->status != -ESTALE) /* that one is looked after below */
      fill->status = r;
    fill->bad |= 1ull << i;
  }
}

static void read_source(struct fill *fill) {
  struct mirror *m = fill->mirror;
  struct source *src = m->source;
  int r = -ENOMEM;
  fill->bytes = fill_buffers_get(&m->cache->buffers,
                                 (size_t)fill->count << m->page_shift);
  if (fill->bytes)
    r = src->ops->read(src, fill->first << m->page_shift, fill->bytes,
                       fill_len(fill));
  if (r == 0)
    return;
  if (fill->bytes && fill->count > 1 && r != -ESTALE) {
    read_one_by_one(fill, src);
    return;
  }
  fill->status = r;
  fill->bad = all_bad(fill);
}

/* Writes the good pages into their holes, neighbours together. */
static int write_pages(struct fill *fill) {
  struct mirror *m = fill->mirror;
  for (uint32_t i = 0; i < fill->count;) {
    uint32_t n = 0;
    while (i + n < fill->count && !is_bad(fill, i + n))
      n++;
    if (n > 0) {
      size_t len = ((size_t)(n - 1) << m->page_shift) +
                   mirror_page_len(m, fill->first + i + n - 1);
      int r = mirror_write(m, fill->first + i,
                           fill->bytes + ((size_t)i << m->page_shift), len);
      if (r < 0)
        return r;
    }
    i += n ? n : 1;
  }
  return 0;
}

/* Hands the outcome to who waits; returns those whose last wait it was. */
static struct fetch *notify_locked(struct fill *fill) {
  struct fetch *woken = NULL;
  for (struct fetch_link *l = fill->links; l; l = l->next) {
    struct fetch *f = l->fetch;
    for (uint32_t i = 0; i < fill->count; i++)
      if (is_bad(fill, i) && fill->first + i - f->first < f->count &&
          !f->status)
        f->status = fill->status;
    if (--f->n_pending > 0)
      continue;
    f->next = woken;
    woken = f;
  }
  fill->links = NULL;
  return woken;
}

/* The good pages become RESIDENT, the bad ones ABSENT.  Returns how many are
 * good. */
static uint32_t install_locked(struct page_cache *pc, struct fill *fill) {
  struct mirror *m = fill->mirror;
  uint32_t n = 0;
  for (uint32_t i = 0; i < fill->count; i++) {
    uint64_t page = fill->first + i;
    if (is_bad(fill, i)) { /* nothing was written there */
      states_move_locked(m, page, PAGE_FILLING, PAGE_EVICTING);
      states_move_locked(m, page, PAGE_EVICTING, PAGE_ABSENT);
      continue;
    }
    /* Whatever it was in an earlier life. */
    __atomic_store_n(&m->touched[page], ACCESSED_FRESH, __ATOMIC_RELAXED);
    s3fifo_insert(&pc->policy, s3fifo_key(m->id, page));
    states_move_locked(m, page, PAGE_FILLING, PAGE_RESIDENT);
    n++;
  }
  m->charged_pages += (uint64_t)n << m->page_shift;
  pc->stats.n_filled_pages += n;
  return n;
}

static void move_all_locked(struct fill *fill, enum page_state from,
                            enum page_state to) {
  for (uint32_t i = 0; i < fill->count; i++)
    states_move_locked(fill->mirror, fill->first + i, from, to);
}

/* The pages of a fill that installs nothing become absent again; what was
 * written is punched, by the way without the lock. */
static void drop_locked(struct page_cache *pc, struct fill *fill,
                        uint64_t reserved) {
  struct mirror *m = fill->mirror;
  move_all_locked(fill, PAGE_FILLING, PAGE_EVICTING);
  if (reserved > 0) {
    pthread_mutex_unlock(&pc->lock);
    mirror_punch(m, fill->first, fill->count);
    pthread_mutex_lock(&pc->lock);
  }
  move_all_locked(fill, PAGE_EVICTING, PAGE_ABSENT);
  pc->used -= reserved;
}

/* Ends a fill.  `reserved` bytes of the budget are its own, and if that is not
 * 0 its good pages are written. */
static void finish(struct fill *fill, uint64_t reserved) {
  struct mirror *m = fill->mirror;
  struct page_cache *pc = m->cache;
  pthread_mutex_lock(&pc->lock);
  bool keep = reserved > 0 && !fill->stale && !mirror_is_retired(m) &&
              s3fifo_has_room(&pc->policy, fill->count);
  if (keep) {
    uint64_t n = install_locked(pc, fill);
    pc->used -= reserved - (n << m->page_shift);
  } else if (fill->installs) {
    drop_locked(pc, fill, reserved);
  }
  if (!keep && fill->bad != all_bad(fill))
    pc->stats.n_uncached_pages += fill->count;
  pc->stats.n_fill_errors += fill->bad != 0;
  leave_table_locked(pc, fill);
  struct fetch *woken = notify_locked(fill);
  struct fetch *verdicts = verdicts_take_locked(pc);
  bool last = unref_locked(fill);
  pthread_mutex_unlock(&pc->lock);
  if (last)
    fill_free(fill);
  fetches_done(woken);
  fetches_done(verdicts);
}

/* More than this is not copied on a thread that serves hits. */
#define TRY_MAX_LEN (64u << 10)

/* Reads and, if it installs, writes a fill's pages, if that needs no wait. */
static int try_pages(struct fill *fill) {
  struct mirror *m = fill->mirror;
  fill->bytes = fill_buffers_get(&m->cache->buffers,
                                 (size_t)fill->count << m->page_shift);
  if (!fill->bytes)
    return -ENOMEM;
  int r = m->source->ops->try_read(m->source, fill->first << m->page_shift,
                                   fill->bytes, fill_len(fill));
  if (r < 0 || !fill->installs)
    return r;
  r = write_pages(fill);
  if (r < 0)
    mirror_punch(m, fill->first, fill->count);
  return r;
}

int fill_try_run(struct fill *fill) {
  struct mirror *m = fill->mirror;
  uint64_t len = (uint64_t)fill->count << m->page_shift;
  uint64_t reserved = fill->installs ? len : 0;
  if (!m->source->ops->try_read || len > TRY_MAX_LEN ||
      (reserved > 0 && !budget_try_reserve(m->cache, reserved)))
    return -ENOTSUP;
  int r = try_pages(fill);
  if (r == 0) {
    finish(fill, reserved);
    return 0;
  }
  fill_buffers_put(&m->cache->buffers, fill->bytes);
  fill->bytes = NULL;
  budget_release(m->cache, reserved);
  return r;
}

void fill_run(struct fill *fill) {
  struct mirror *m = fill->mirror;
  struct page_cache *pc = m->cache;
  uint64_t len = (uint64_t)fill->count << m->page_shift;
  bool fits = fill->installs && budget_reserve(pc, m->page_shift, len);
  uint64_t reserved = fits ? len : 0;
  read_source(fill);
  if (fill->status == -ESTALE) {
    /* Before anybody wakes: a reader that tries again finds the new epoch. */
    int r = image_refresh(m->image, 0);
    if (r < 0)
      fill->status = r;
  }
  bool any_good = fill->bad != all_bad(fill);
  if (reserved > 0 && (!any_good || write_pages(fill) < 0)) {
    if (any_good) /* no memory for it: what was written goes again */
      mirror_punch(m, fill->first, fill->count);
    budget_release(pc, reserved);
    reserved = 0;
  }
  finish(fill, reserved);
}

void fill_abandon(struct fill *fill, int error) {
  fill->status = error;
  fill->bad = all_bad(fill);
  finish(fill, 0);
}

/* ---- Bytes that the caller brings ---------------------------------------- */

/* A fill for a page that is absent, and may be filled by bytes of that
 * generation. */
static struct fill *begin_install_locked(struct image *img, struct mirror *m,
                                         uint64_t page, uint64_t generation) {
  if (page_state_look(&m->words[page]) != PAGE_ABSENT || mirror_is_retired(m) ||
      m->is_pageless || image_generation(img) != generation ||
      states_are_swept_locked(m, page) || !states_charge_locked(m, page, 1))
    return NULL;
  return begin_locked(img->cache, m, page, 1, true);
}

bool image_install(struct image *img, struct mirror *m, uint64_t page,
                   const void *bytes, uint64_t generation) {
  struct page_cache *pc = img->cache;
  if (page >= m->n_pages || m->is_pageless)
    return false;
  uint64_t len = mirror_page_size(m);
  uint64_t more = states_need_charge(m, page, 1) ? STATE_BLOCK_LEN : 0;
  if (!budget_reserve(pc, m->page_shift, len + more))
    return false;
  budget_release(pc, more);
  pthread_mutex_lock(&pc->lock);
  struct fill *fill = begin_install_locked(img, m, page, generation);
  pthread_mutex_unlock(&pc->lock);
  if (!fill) {
    budget_release(pc, len);
  } else if (mirror_write(m, page, bytes, mirror_page_len(m, page)) < 0) {
    mirror_punch(m, page, 1);
    budget_release(pc, len);
    fill_abandon(fill, -ENOMEM);
  } else {
    finish(fill, len);
  }
  return page_state_look(&m->words[page]) == PAGE_RESIDENT;
}

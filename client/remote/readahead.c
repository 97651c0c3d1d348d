#include "client/remote/readahead.h"

#include <assert.h>

#include "base/deadline.h"
#include "client/remote/internal.h"

enum {
  FIRST_LEN = 16 << 10, /* ahead of a reader that is new, */
  FIRST_PART = 8,       /* or this part of the window if that is more */
  /* A jump that is still sequential reading; pages. */
  STRIDE = FETCH_MAX_PAGES,
};

void remote_readahead_init(struct remote *r) {
  flow_init(&r->readahead.flow);
  TAILQ_INIT(&r->readahead.store);
}

/* ---- The store ----------------------------------------------------------- */

static void store_remove(struct readahead *a, struct remote_read *x) {
  TAILQ_REMOVE(&a->store, x, stored);
  a->store_len -= remote_read_len(x);
}

static void store_drop(struct readahead *a, struct remote_read *x) {
  store_remove(a, x);
  pending_free(&x->base);
}

/* Drops those that begin at pages `from` up to `to`. */
static void store_drop_range(struct readahead *a, uint64_t from, uint64_t to) {
  struct remote_read *x = TAILQ_FIRST(&a->store), *next;
  for (; x; x = next) {
    next = TAILQ_NEXT(x, stored);
    if (x->base.job.first >= from && x->base.job.first < to)
      store_drop(a, x);
  }
}

/* Stores a Read that has ended before any reader has come to its pages. */
static bool store_add(struct remote *r, struct remote_read *x) {
  struct readahead *a = &r->readahead;
  if (x->base.job.error.code != CACHET_OK || x->base.job.mirror != a->mirror ||
      !remote_read_is_fresh(x))
    return false;
  bool was_empty = TAILQ_EMPTY(&a->store);
  x->kept_at = deadline_now();
  a->store_len += remote_read_len(x);
  TAILQ_INSERT_TAIL(&a->store, x, stored);
  if (was_empty) /* there was no deadline of the store */
    backend_changed(&r->base);
  return true;
}

static struct remote_read *store_find(const struct readahead *a,
                                      const struct mirror *m, uint64_t page) {
  struct remote_read *x;
  TAILQ_FOREACH(x, &a->store, stored)
    if (remote_read_brings(x, m, page))
      return x;
  return NULL;
}

void remote_readahead_drop_all(struct remote *r) {
  struct readahead *a = &r->readahead;
  struct remote_read *x;
  while ((x = TAILQ_FIRST(&a->store)))
    store_drop(a, x);
  for (unsigned i = 0; i < READAHEAD_N_READERS; i++)
    a->readers[i] = (struct readahead_reader){0};
}

int64_t remote_readahead_deadline(const struct remote *r) {
  const struct remote_read *x = TAILQ_FIRST(&r->readahead.store);
  return x ? x->kept_at + READAHEAD_KEPT_MS : -1;
}

void remote_readahead_expire(struct remote *r) {
  while (deadline_has_passed(remote_readahead_deadline(r)))
    store_drop(&r->readahead, TAILQ_FIRST(&r->readahead.store));
}

/* ---- Sequential readers -------------------------------------------------- */

static struct readahead_reader *reader_find(struct readahead *a,
                                            uint64_t page) {
  for (unsigned i = 0; i < READAHEAD_N_READERS; i++) {
    struct readahead_reader *s = &a->readers[i];
    if (s->used_at && page >= s->from && page <= s->to)
      return s;
  }
  return NULL;
}

/* Which of two may rather go: one that did not go on, or the older. */
static bool is_idler(const struct readahead_reader *s,
                     const struct readahead_reader *other) {
  if (s->goes_on != other->goes_on)
    return !s->goes_on;
  return s->used_at < other->used_at;
}

static struct readahead_reader *reader_begin(struct readahead *a,
                                             uint64_t page) {
  struct readahead_reader *s = &a->readers[0];
  for (unsigned i = 1; i < READAHEAD_N_READERS; i++)
    if (is_idler(&a->readers[i], s))
      s = &a->readers[i];
  store_drop_range(a, s->at, s->to);
  *s = (struct readahead_reader){.from = page, .at = page, .to = page};
  return s;
}

static void readers_check(const struct readahead *a) {
  for (unsigned i = 0; i < READAHEAD_N_READERS; i++) {
    const struct readahead_reader *s = &a->readers[i];
    assert(s->used_at <= a->clock && s->most <= READAHEAD_MOST);
    assert(s->from <= s->at && s->at <= s->to);
  }
}

void remote_readahead_check(const struct remote *r) {
  const struct readahead *a = &r->readahead;
  const struct remote_read *x;
  uint64_t len = 0, due = remote_read_due(r);
  TAILQ_FOREACH(x, &a->store, stored) {
    const struct backend_job *j = &x->base.job;
    assert(j->is_done && !j->owner && !x->base.is_sent); /* A1 */
    assert(j->mirror == a->mirror && x->transit.due == 0);
    len += remote_read_len(x);
  }
  assert(len == a->store_len && due == a->due);
  /* A4: one Read may go beyond. */
  assert(len <= READAHEAD_MOST ||
         len - READAHEAD_MOST <= (uint64_t)FETCH_MAX_PAGES
                                     << a->mirror->page_shift);
  readers_check(a);
  flow_check(&a->flow);
}

/* ---- Asking -------------------------------------------------------------- */

/* The page after the last that the handle may read. */
static uint64_t end_page(const struct remote *r, const struct mirror *m) {
  const struct window *w = &r->uri.window;
  uint64_t end = w->offset + window_size(w, m->size);
  if (end > m->size)
    end = m->size;
  return (end + (1ull << m->page_shift) - 1) >> m->page_shift;
}

/* How many pages may be cached ahead.  They must not be evicted before they are
 * read, and a tenth of a cache is for pages that were not used yet
 * (cache/s3fifo.h). */
static uint64_t cached_chunk(const struct remote *r, const struct mirror *m) {
  uint64_t n = (r->options.cache_size / 16) >> m->page_shift;
  return n < 1 ? 1 : n < FETCH_MAX_PAGES ? n : FETCH_MAX_PAGES;
}

/* How many pages one Read ahead has.  0: there are none. */
static uint64_t chunk_pages(const struct remote *r, const struct mirror *m) {
  uint64_t n = cached_chunk(r, m);
  return r->options.flags & CACHET_NO_READAHEAD || n < 2 ? 0 : n;
}

/* Whether one more Read ahead may be sent.  Some requests are left for calls
 * that wait. */
static bool may_send(const struct remote *r) {
  uint32_t most = connection_limits(r->connection)->max_requests;
  return TAILQ_EMPTY(&r->queue) && r->n_sent < most - most / 8 &&
         r->readahead.due + r->readahead.store_len < READAHEAD_MOST &&
         !connection_is_full(r->connection);
}

/* How many of the pages from the first on are asked for, or were before. */
static uint64_t ask(struct remote *r, struct mirror *m, uint64_t first,
                    uint64_t count) {
  const struct remote_read *known = remote_read_underway(r, m, first);
  if (!known)
    known = store_find(&r->readahead, m, first);
  if (known)
    return known->base.job.first + known->base.job.count - first;
  return remote_read_unowned(r, m, first, (uint32_t)count, store_add);
}

/* How much may be asked for next, beyond what a call waits for (A3); 0: no
 * more. */
static uint64_t reader_chunk(struct remote *r, const struct mirror *m,
                             const struct readahead_reader *s) {
  struct readahead *a = &r->readahead;
  uint64_t ahead = (s->to - s->at) << m->page_shift;
  if (!s->goes_on || ahead >= s->most || ahead >= 2 * a->flow.window)
    return 0;
  if (a->due >= a->flow.window) {
    flow_limited(&a->flow);
    return 0;
  }
  return chunk_pages(r, m);
}

/* Asks for bytes ahead of a reader that wants all up to `until`. */
static void reader_fill(struct remote *r, struct mirror *m,
                        struct readahead_reader *s, uint64_t until) {
  uint64_t end = end_page(r, m);
  while (s->to < end && may_send(r)) {
    uint64_t left = (s->to < until ? until : end) - s->to;
    uint64_t most = s->to < until ? FETCH_MAX_PAGES : reader_chunk(r, m, s);
    uint64_t taken = most ? ask(r, m, s->to, left < most ? left : most) : 0;
    if (!taken)
      return;
    s->to += taken;
  }
}

/* His window begins small and is three times as long when he has come through
 * it. */
static void reader_widen(struct readahead *a, struct readahead_reader *s,
                         uint64_t len) {
  uint64_t first = a->flow.window / FIRST_PART;
  if (first < FIRST_LEN)
    first = FIRST_LEN;
  s->goes_on = true;
  s->passed += len;
  s->most += 2 * len;
  if (s->most < first)
    s->most = first;
  if (s->most > READAHEAD_MOST)
    s->most = READAHEAD_MOST;
}

void remote_readahead_reached(struct remote *r, struct mirror *m,
                              uint64_t first, uint64_t count, uint64_t until,
                              bool was_asked) {
  struct readahead *a = &r->readahead;
  if (r->base.shared || !remote_is_ready(r))
    return;
  if (m != a->mirror)
    remote_readahead_drop_all(r);
  a->mirror = m;
  struct readahead_reader *s = reader_find(a, first);
  bool goes_on = s || count >= STRIDE || until > first + count;
  if (s && (first < s->at || first - s->at > STRIDE))
    return; /* a page that was evicted again, or another reader */
  if (!s)
    s = reader_begin(a, first);
  uint64_t passed = first + count - s->at;
  s->used_at = ++a->clock;
  s->from = first;
  s->at = first + count;
  if (!was_asked || s->to < s->at)
    s->to = s->at; /* pages that were asked for behind it are lost, if any */
  if (goes_on)
    reader_widen(a, s, passed << m->page_shift);
  reader_fill(r, m, s, until);
}

void remote_readahead_come_to(struct remote *r, struct remote_read *x,
                              uint64_t page, uint64_t until) {
  const struct readahead_reader *s = reader_find(&r->readahead, page);
  uint64_t end = x->base.job.first + x->base.job.count;
  uint64_t most = cached_chunk(r, x->base.job.mirror);
  bool passes_by =
      s && s->passed > r->options.cache_size && until >= end && end - page > 1;
  x->stay_from = page;
  x->stay_count = passes_by ? 0 : end - page < most ? end - page : most;
}

bool remote_readahead_has(const struct remote *r, const struct mirror *m,
                          uint64_t page) {
  const struct remote_read *x = store_find(&r->readahead, m, page);
  return x && remote_read_is_fresh(x) &&
         page_state_look(&m->states[page]) != PAGE_STALE;
}

struct remote_read *
remote_readahead_take(struct remote *r, const struct mirror *m, uint64_t page) {
  struct readahead *a = &r->readahead;
  struct remote_read *x = store_find(a, m, page);
  if (!x)
    return NULL;
  if (!remote_read_is_fresh(x)) {
    store_drop(a, x);
    return NULL;
  }
  store_remove(a, x);
  return x;
}

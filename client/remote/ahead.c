#include "client/remote/ahead.h"

#include <assert.h>

#include "base/deadline.h"
#include "client/remote/internal.h"

enum {
  FIRST_LEN = 16 << 10, /* ahead of a stream that is new, */
  FIRST_PART = 8,       /* or this part of the window if that is more */
  /* A jump within a stream that is still part of it; pages. */
  STRIDE = FETCH_MAX_PAGES,
};

void remote_ahead_init(struct remote *r) {
  flow_init(&r->ahead.flow);
  TAILQ_INIT(&r->ahead.store);
}

/* ---- The store ----------------------------------------------------------- */

static void store_remove(struct ahead *a, struct remote_read *x) {
  TAILQ_REMOVE(&a->store, x, stored);
  a->store_len -= remote_read_len(x);
}

static void store_drop(struct ahead *a, struct remote_read *x) {
  store_remove(a, x);
  pending_free(&x->base);
}

/* Drops those that begin at pages `from` up to `to`. */
static void store_drop_range(struct ahead *a, uint64_t from, uint64_t to) {
  struct remote_read *x = TAILQ_FIRST(&a->store), *next;
  for (; x; x = next) {
    next = TAILQ_NEXT(x, stored);
    if (x->base.job.first >= from && x->base.job.first < to)
      store_drop(a, x);
  }
}

/* Takes a Read that has ended, and that nobody has come for meanwhile. */
static bool store_add(struct remote *r, struct remote_read *x) {
  struct ahead *a = &r->ahead;
  if (x->base.job.error.code != CACHET_OK || x->base.job.mirror != a->mirror ||
      !remote_read_is_fresh(x))
    return false;
  x->kept_at = deadline_now();
  a->store_len += remote_read_len(x);
  TAILQ_INSERT_TAIL(&a->store, x, stored);
  return true;
}

static struct remote_read *store_find(const struct ahead *a,
                                      const struct mirror *m, uint64_t page) {
  struct remote_read *x;
  TAILQ_FOREACH(x, &a->store, stored)
    if (remote_read_brings(x, m, page))
      return x;
  return NULL;
}

void remote_ahead_drop_all(struct remote *r) {
  struct ahead *a = &r->ahead;
  struct remote_read *x;
  while ((x = TAILQ_FIRST(&a->store)))
    store_drop(a, x);
  for (unsigned i = 0; i < AHEAD_N_STREAMS; i++)
    a->streams[i] = (struct ahead_stream){0};
}

int64_t remote_ahead_deadline(const struct remote *r) {
  const struct remote_read *x = TAILQ_FIRST(&r->ahead.store);
  return x ? x->kept_at + AHEAD_KEPT_MS : -1;
}

void remote_ahead_expire(struct remote *r) {
  while (deadline_has_passed(remote_ahead_deadline(r)))
    store_drop(&r->ahead, TAILQ_FIRST(&r->ahead.store));
}

/* ---- Streams ------------------------------------------------------------- */

static struct ahead_stream *stream_find(struct ahead *a, uint64_t page) {
  for (unsigned i = 0; i < AHEAD_N_STREAMS; i++) {
    struct ahead_stream *s = &a->streams[i];
    if (s->used_at && page >= s->from && page <= s->to)
      return s;
  }
  return NULL;
}

/* Which of two may rather go: one that did not go on, or the older. */
static bool is_idler(const struct ahead_stream *s,
                     const struct ahead_stream *other) {
  if (s->goes_on != other->goes_on)
    return !s->goes_on;
  return s->used_at < other->used_at;
}

static struct ahead_stream *stream_begin(struct ahead *a, uint64_t page) {
  struct ahead_stream *s = &a->streams[0];
  for (unsigned i = 1; i < AHEAD_N_STREAMS; i++)
    if (is_idler(&a->streams[i], s))
      s = &a->streams[i];
  store_drop_range(a, s->at, s->to);
  *s = (struct ahead_stream){.from = page, .at = page, .to = page};
  return s;
}

static void streams_check(const struct ahead *a) {
  for (unsigned i = 0; i < AHEAD_N_STREAMS; i++) {
    const struct ahead_stream *s = &a->streams[i];
    assert(s->used_at <= a->clock && s->most <= AHEAD_MOST);
    assert(s->from <= s->at && s->at <= s->to);
  }
}

void remote_ahead_check(const struct remote *r) {
  const struct ahead *a = &r->ahead;
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
  assert(len <= AHEAD_MOST || len - AHEAD_MOST <= (uint64_t)FETCH_MAX_PAGES
                                                      << a->mirror->page_shift);
  streams_check(a);
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

/* They have to stay there until they were read.  A tenth of a cache is for
 * pages that were not used yet (cache/s3fifo.h). */
static uint64_t cached_chunk(const struct remote *r, const struct mirror *m) {
  uint64_t n = (r->options.cache_size / 16) >> m->page_shift;
  return n < 1 ? 1 : n < FETCH_MAX_PAGES ? n : FETCH_MAX_PAGES;
}

/* How many are asked for at once that nobody waits for.  0: none. */
static uint64_t chunk_pages(const struct remote *r, const struct mirror *m) {
  uint64_t n = cached_chunk(r, m);
  return r->options.flags & CACHET_NO_READAHEAD || n < 2 ? 0 : n;
}

/* Whether one more Read may be sent.  Some are left for calls that wait. */
static bool may_send(const struct remote *r) {
  uint32_t most = connection_limits(r->connection)->max_requests;
  return TAILQ_EMPTY(&r->queue) && r->n_sent < most - most / 8 &&
         r->ahead.due + r->ahead.store_len < AHEAD_MOST &&
         !connection_is_full(r->connection);
}

/* How many of the pages from the first on are asked for, or were before. */
static uint64_t ask(struct remote *r, struct mirror *m, uint64_t first,
                    uint64_t count) {
  const struct remote_read *known = remote_read_underway(r, m, first);
  if (!known)
    known = store_find(&r->ahead, m, first);
  if (known)
    return known->base.job.first + known->base.job.count - first;
  return remote_read_unowned(r, m, first, (uint32_t)count, store_add);
}

/* How much may be asked for next, beyond what a call waits for (A3); 0: no
 * more. */
static uint64_t stream_chunk(struct remote *r, const struct mirror *m,
                             const struct ahead_stream *s) {
  struct ahead *a = &r->ahead;
  uint64_t ahead = (s->to - s->at) << m->page_shift;
  if (!s->goes_on || ahead >= s->most || ahead >= 2 * a->flow.window)
    return 0;
  if (a->due >= a->flow.window) {
    flow_limited(&a->flow);
    return 0;
  }
  return chunk_pages(r, m);
}

/* Asks for what is ahead of a stream, whose reader wants what is up to
 * `until`. */
static void stream_fill(struct remote *r, struct mirror *m,
                        struct ahead_stream *s, uint64_t until) {
  uint64_t end = end_page(r, m);
  while (s->to < end && may_send(r)) {
    uint64_t left = (s->to < until ? until : end) - s->to;
    uint64_t most = s->to < until ? FETCH_MAX_PAGES : stream_chunk(r, m, s);
    uint64_t taken = most ? ask(r, m, s->to, left < most ? left : most) : 0;
    if (!taken)
      return;
    s->to += taken;
  }
}

/* His window begins small and is three times as long when he has come through
 * it. */
static void stream_widen(struct ahead *a, struct ahead_stream *s,
                         uint64_t len) {
  uint64_t first = a->flow.window / FIRST_PART;
  if (first < FIRST_LEN)
    first = FIRST_LEN;
  s->goes_on = true;
  s->passed += len;
  s->most += 2 * len;
  if (s->most < first)
    s->most = first;
  if (s->most > AHEAD_MOST)
    s->most = AHEAD_MOST;
}

void remote_ahead_reached(struct remote *r, struct mirror *m, uint64_t first,
                          uint64_t count, uint64_t until, bool was_asked) {
  struct ahead *a = &r->ahead;
  if (r->base.shared || !remote_is_ready(r))
    return;
  if (m != a->mirror)
    remote_ahead_drop_all(r);
  a->mirror = m;
  struct ahead_stream *s = stream_find(a, first);
  bool goes_on = s || count >= STRIDE || until > first + count;
  if (s && (first < s->at || first - s->at > STRIDE))
    return; /* a page that was lost again, or somebody else */
  if (!s)
    s = stream_begin(a, first);
  uint64_t passed = first + count - s->at;
  s->used_at = ++a->clock;
  s->from = first;
  s->at = first + count;
  if (!was_asked || s->to < s->at)
    s->to = s->at; /* what was asked for from there on is lost, if it was */
  if (goes_on)
    stream_widen(a, s, passed << m->page_shift);
  stream_fill(r, m, s, until);
}

void remote_ahead_come_to(struct remote *r, struct remote_read *x,
                          uint64_t page, uint64_t until) {
  const struct ahead_stream *s = stream_find(&r->ahead, page);
  uint64_t end = x->base.job.first + x->base.job.count;
  uint64_t most = cached_chunk(r, x->base.job.mirror);
  bool passes_by =
      s && s->passed > r->options.cache_size && until >= end && end - page > 1;
  x->stay_from = page;
  x->stay_count = passes_by ? 0 : end - page < most ? end - page : most;
}

bool remote_ahead_has(const struct remote *r, const struct mirror *m,
                      uint64_t page) {
  const struct remote_read *x = store_find(&r->ahead, m, page);
  return x && remote_read_is_fresh(x) &&
         page_state_look(&m->states[page]) != PAGE_STALE;
}

struct remote_read *remote_ahead_take(struct remote *r, const struct mirror *m,
                                      uint64_t page) {
  struct ahead *a = &r->ahead;
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

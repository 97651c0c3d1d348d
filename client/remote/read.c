/* This file keeps: R3; R5, that no reader gets bytes from before an
 * invalidation that was over when it asked; of R6 (attach.h), that an attached
 * handle asks for pages in place and installs nothing. */
#include "client/remote/read.h"

#include <stdlib.h>
#include <string.h>

#include "client/error.h"
#include "client/image_cache.h"
#include "client/remote/internal.h"

/* ---- What is asked for --------------------------------------------------- */

/* Adds a page to the pending request, joined to the range before it if it can
 * be. False: that would be more than the daemon takes. */
static bool read_add(struct remote *r, struct remote_read *x, uint64_t page) {
  const struct mirror *m = x->base.job.mirror;
  uint64_t offset = page << m->page_shift, len = mirror_page_len(m, page);
  const struct connection_limits *limits = connection_limits(r->connection);
  uint32_t n = x->n_ranges;
  bool joins = n && x->ranges[n - 1].offset + x->ranges[n - 1].len == offset;
  uint64_t total = ((uint64_t)x->n_pages + 1) << m->page_shift;
  /* The first page always fits, because a limit is at least one page. */
  if (n && (total > limits->max_read || (!joins && n == limits->max_ranges)))
    return false;
  if (joins) {
    x->ranges[n - 1].len += len;
  } else {
    x->ranges[n].offset = offset;
    x->ranges[n].len = len;
    x->n_ranges++;
  }
  x->place[page - x->base.job.first] = (uint8_t)x->n_pages++;
  return true;
}

static const struct pending_ops read_ops;

/* NULL: it is of another kind. */
static struct remote_read *read_of(struct pending *p) {
  return p->ops == &read_ops ? (struct remote_read *)p : NULL;
}

uint64_t remote_read_due(const struct remote *r) {
  const struct pending *x;
  uint64_t due = 0;
  TAILQ_FOREACH(x, &r->sent, link)
    if (x->ops == &read_ops)
      due += ((const struct remote_read *)x)->transit.due;
  return due;
}

struct remote_read *remote_read_new(struct remote *r, struct mirror *m,
                                    uint64_t first, uint32_t count) {
  struct remote_read *x = calloc(1, sizeof *x);
  if (!x)
    return NULL;
  x->base.ops = &read_ops;
  x->base.job.mirror = mirror_ref(m);
  x->base.job.first = first;
  memset(x->place, NO_PLACE, sizeof x->place);
  const struct shared_view *a = r->base.shared;
  bool trusted = a ? !a->is_given_up : remote_is_trusted(&r->base);
  for (; x->base.job.count < count; x->base.job.count++) {
    uint64_t page = first + x->base.job.count;
    enum page_state state = page_state_look(&m->states[page]);
    if (trusted && (state == PAGE_RESIDENT || state == PAGE_ZERO))
      continue;
    if (!read_add(r, x, page))
      break;
  }
  x->stay_from = first;
  x->stay_count = x->base.job.count;
  return x;
}

uint32_t remote_read_unowned(struct remote *r, struct mirror *m, uint64_t first,
                             uint32_t count,
                             bool (*keep)(struct remote *r,
                                          struct remote_read *x)) {
  struct remote_read *x = remote_read_new(r, m, first, count);
  if (!x)
    return 0;
  uint32_t taken = x->base.job.count; /* as many as one Read may name */
  if (x->n_pages == 0) {
    pending_free(&x->base);
    return taken;
  }
  x->keep = keep;
  pending_submit_unowned(r, &x->base);
  return taken;
}

void remote_read_adopt(struct remote *r, struct remote_read *x,
                       void (*done)(struct backend_job *), void *owner) {
  x->keep = NULL;
  pending_adopt(r, &x->base, done, owner);
}

bool remote_read_is_fresh(const struct remote_read *x) {
  const struct backend_job *j = &x->base.job;
  return !mirror_dropped_since(j->mirror, x->mark, j->first, j->count);
}

bool remote_read_brings(const struct remote_read *x, const struct mirror *m,
                        uint64_t page) {
  return x->base.job.mirror == m && page >= x->base.job.first &&
         page - x->base.job.first < x->base.job.count &&
         x->place[page - x->base.job.first] != NO_PLACE;
}

struct remote_read *remote_read_underway(const struct remote *r,
                                         const struct mirror *m,
                                         uint64_t page) {
  struct pending *p;
  TAILQ_FOREACH(p, &r->sent, link) {
    struct remote_read *x = read_of(p);
    if (x && !pending_is_owned(p) && remote_read_brings(x, m, page) &&
        remote_read_is_fresh(x))
      return x;
  }
  return NULL;
}

/* ---- Sending ------------------------------------------------------------- */

static void read_changed(struct remote *r, struct remote_read *x) {
  error_set(&x->base.job.error, CACHET_E_CHANGED, 0, "image \"%.100s\" changed",
            r->base.image_cache->name);
  pending_end(r, &x->base);
}

/* Whether a mirror is the one to read from, as far as is known here. */
static bool is_current(const struct remote *r, const struct mirror *m) {
  const struct shared_view *a = r->base.shared;
  if (a)
    return a->mirror == m && !mirror_is_retired(m);
  return image_is_current(r->base.image_cache->image, m);
}

/* Makes room for the bytes of its pages, if there is none yet. */
static bool read_has_room(struct remote_read *x) {
  if (!x->bytes)
    x->bytes = malloc(remote_read_len(x));
  return x->bytes != NULL;
}

static void read_no_memory(struct remote *r, struct remote_read *x) {
  struct cachet_error why;
  error_set(&why, CACHET_E_NOMEM, 0, "no memory for %u pages", x->n_pages);
  pending_fail(r, &x->base, &why);
}

/* Makes room for the answer, and notes what the answer must match.  False: the
 * request has ended instead. */
static bool read_prepare(struct remote *r, struct pending *p) {
  struct remote_read *x = read_of(p);
  struct mirror *m = x->base.job.mirror;
  const struct connection_limits *limits = connection_limits(r->connection);
  /* The mirror is not the present one, or this connection has smaller limits
   * than the last one: the reader has to ask again. */
  if (!is_current(r, m) || x->n_ranges > limits->max_ranges ||
      remote_read_len(x) > limits->max_read) {
    read_changed(r, x);
    return false;
  }
  x->in_place = r->base.shared != NULL;
  if (!x->in_place && !read_has_room(x)) {
    read_no_memory(r, x);
    return false;
  }
  x->mark = mirror_mark(m);
  x->epoch = m->epoch;
  x->at_range = 0;
  x->at_offset = x->received = 0;
  x->is_changed = x->is_partial = false;
  return true;
}

static void read_send(struct remote *r, struct pending *p) {
  struct remote_read *x = read_of(p);
  Cachet__Wire__Range ranges[FETCH_MAX_PAGES], *list[FETCH_MAX_PAGES];
  for (uint32_t i = 0; i < x->n_ranges; i++) {
    cachet__wire__range__init(&ranges[i]);
    ranges[i].offset = x->ranges[i].offset;
    ranges[i].length = x->ranges[i].len;
    list[i] = &ranges[i];
  }
  Cachet__Wire__Read read = CACHET__WIRE__READ__INIT;
  read.image = r->image_id;
  read.epoch = x->epoch;
  read.in_place = x->in_place;
  read.n_ranges = x->n_ranges;
  read.ranges = list;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  msg.id = p->id;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_READ;
  msg.read = &read;
  if (!x->in_place)
    remote_transit_sent(r, &x->transit, remote_read_len(x));
  connection_send(r->connection, &msg);
}

static void read_unsent(struct remote *r, struct pending *p) {
  struct remote_read *x = read_of(p);
  remote_transit_ended(r, &x->transit);
  if (r->incoming == x)
    r->incoming = NULL;
  if (p->job.is_done)
    return;
  free(x->bytes); /* it may be long until the next connection */
  x->bytes = NULL;
}

/* ---- Answers ------------------------------------------------------------- */

/* Notes that the next `len` bytes of the answer are resident pages.  False:
 * they are not whole pages. */
static bool piece_in_place(struct remote_read *x, uint64_t len, bool to_end) {
  unsigned shift = x->base.job.mirror->page_shift;
  uint64_t mask = (1ull << shift) - 1;
  uint64_t first = x->received >> shift, n = (len + mask) >> shift;
  if (x->received & mask || (len & mask && !to_end))
    return false;
  for (uint32_t i = 0; i < x->base.job.count; i++)
    if (x->place[i] != NO_PLACE && x->place[i] - first < n)
      x->place[i] = NO_PLACE;
  return true;
}

/* Whether a piece is the next one of the answer, and where its bytes go.  Sums
 * cannot overflow, because the piece is compared with the rest of the range
 * first. */
static bool piece_place(struct remote_read *x, const Cachet__Wire__Data *d,
                        uint64_t len, uint8_t **out) {
  if (len == 0 || x->at_range >= x->n_ranges)
    return false;
  uint64_t range_len = x->ranges[x->at_range].len;
  uint64_t left = range_len - x->at_offset;
  if (d->range != x->at_range || len > left ||
      d->offset != x->ranges[x->at_range].offset + x->at_offset)
    return false;
  bool fills = len == left && x->at_range + 1 == x->n_ranges;
  if (d->last != fills)
    return false;
  if (d->resident && !piece_in_place(x, len, len == left))
    return false;
  *out = x->bytes ? x->bytes + x->received : NULL;
  x->at_offset += len;
  x->received += len;
  if (len == left) {
    x->at_range++;
    x->at_offset = 0;
  }
  return true;
}

void remote_read_data(struct remote *r, struct pending *p,
                      const Cachet__Wire__Data *d, uint32_t len,
                      uint8_t **payload) {
  struct remote_read *x = read_of(p);
  bool fits = x && (!d->resident || (x->in_place && !len));
  if (fits && len && !read_has_room(x)) {
    connection_break(r->connection, CONNECTION_LOST_RETRY, CACHET_E_NOMEM,
                     "no memory for an answer");
    return;
  }
  if (!fits || !piece_place(x, d, d->resident ? d->resident : len, payload)) {
    remote_violation(r, "a piece of an image that was not the next one");
    return;
  }
  if (d->epoch != x->epoch)
    x->is_changed = true;
  if (!x->in_place)
    remote_transit_came(r, &x->transit, len);
  r->incoming = x;
  r->incoming_last = d->last;
}

/* How many of the pages from index `i` up to `end` are neighbours. */
static uint32_t read_run(const struct remote_read *x, uint32_t i,
                         uint32_t end) {
  uint32_t n = 1;
  while (i + n < end && x->place[i + n] == x->place[i] + n)
    n++;
  return n;
}

void remote_read_install(const struct remote_read *x) {
  struct mirror *m = x->base.job.mirror;
  uint32_t i = (uint32_t)(x->stay_from - x->base.job.first);
  uint32_t end = i + (uint32_t)x->stay_count;
  if (x->in_place)
    return;
  for (uint32_t n; i < end; i += n) {
    n = 1;
    if (x->place[i] == NO_PLACE)
      continue;
    n = read_run(x, i, end);
    image_install(m, x->base.job.first + i, n,
                  x->bytes + ((size_t)x->place[i] << m->page_shift), x->mark);
  }
}

/* Keeps the pages that came before the one that could not be read. */
static void read_keep_partial(struct remote_read *x) {
  uint64_t n_here = x->received >> x->base.job.mirror->page_shift;
  if (x->is_changed)
    return;
  for (uint32_t i = 0; i < x->base.job.count; i++)
    if (x->place[i] != NO_PLACE && x->place[i] >= n_here)
      x->place[i] = NO_PLACE;
  x->is_partial = true;
  remote_read_install(x);
}

/* Moves the cache to the epoch that the daemon has named last, after it refused
 * the epoch of a Read. */
static void read_replace_epoch(struct remote *r, const struct remote_read *x) {
  /* If there is no memory for it, the next answer leads here again. */
  if (!x->in_place && x->epoch != r->heard.epoch)
    image_cache_replace_epoch(r->base.image_cache, x->epoch, r->heard.size,
                              r->heard.epoch);
}

static void read_refused(struct remote *r, struct pending *p) {
  struct remote_read *x = read_of(p);
  if (p->job.error.code == CACHET_E_CHANGED)
    read_replace_epoch(r, x);
  if (backend_job_failed_by_page(&p->job))
    read_keep_partial(x);
}

static bool read_keep(struct remote *r, struct pending *p) {
  struct remote_read *x = read_of(p);
  return x->keep && x->keep(r, x);
}

static void read_fini(struct pending *p) { free(read_of(p)->bytes); }

static const struct pending_ops read_ops = {
    .prepare = read_prepare,
    .send = read_send,
    .refused = read_refused,
    .unsent = read_unsent,
    .keep = read_keep,
    .fini = read_fini,
};

void remote_read_payload(void *arg) {
  struct remote *r = arg;
  struct remote_read *x = r->incoming;
  r->incoming = NULL;
  if (!x || !r->incoming_last)
    return;
  r->retry_ms = 0; /* the connection was of use */
  if (x->is_changed) {
    read_replace_epoch(r, x);
    read_changed(r, x);
    return;
  }
  if (!x->keep)
    remote_read_install(x);
  pending_end(r, &x->base);
}

const uint8_t *remote_read_bytes(const struct backend_job *j, uint64_t page) {
  const struct remote_read *x = (const struct remote_read *)j;
  uint8_t place = x->place[page - j->first];
  bool failed = j->error.code != CACHET_OK && !x->is_partial;
  if (!j->is_done || failed || place == NO_PLACE)
    return NULL;
  return x->bytes + ((size_t)place << j->mirror->page_shift);
}

#include "daemon/request.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/conn.h"
#include "daemon/invalidate.h"
#include "daemon/log.h"
#include "daemon/session.h"
#include "proto/status.h"

/* A fetch of a request, and what it was charged for. */
struct request_fetch {
  struct fetch fetch;
  struct request *request;
  struct lens *lens;     /* charged */
  struct mirror *mirror; /* what it fetches for; the fetch references it */
  uint64_t len;          /* bytes charged */
};

/* What looking at a page is worth, in bytes sent. */
#define PAGE_COST 64

enum step {
  STEP_ON,      /* a piece is done, there is more */
  STEP_DONE,    /* answered, perhaps by an Error */
  STEP_MISS,    /* missing .. missing+n_missing-1 have to be fetched */
  STEP_BLOCKED, /* its connection is, or is at its end */
};

/* The part of a range that is dealt with in one go: whole pages, but for the
 * ends of the range. */
struct piece {
  uint64_t offset; /* bytes, of its beginning and of its end */
  uint64_t end;
  uint64_t first; /* page */
  unsigned count; /* pages, at most FETCH_MAX_PAGES */
};

static struct lens *request_lens(const struct request *r) {
  return &r->worker->lenses[r->image];
}

static void request_count(const struct request *r, enum stat_id which,
                          uint64_t n) {
  counters_add(&r->worker->counters[r->image], which, n);
}

/* ---- Endings ------------------------------------------------------------- */

static int status_of_errno(int r) {
  switch (r) {
  case -ENOMEM:
    return WIRE_E_NOMEM;
  case -EACCES:
  case -EPERM:
    return WIRE_E_ACCESS;
  case -ESTALE:
    return WIRE_E_CHANGED;
  case -EFBIG:
    return WIRE_E_UNSUPPORTED;
  case -ECANCELED:
    return WIRE_E_CANCELED;
  default:
    return WIRE_E_IO;
  }
}

static enum step request_refuse(struct request *r, int status,
                                const char *what) {
  request_count(r, STAT_ERRORS, 1);
  conn_reply_error(r->conn, r->id, status, 0, "image \"%s\": %s",
                   request_lens(r)->hosted->name, what);
  return STEP_DONE;
}

/* Ends it because of r->status. */
static enum step request_failed(struct request *r) {
  static const char *const acts[] = {
      [REQUEST_READ] = "read",
      [REQUEST_READ_IN_PLACE] = "read",
      [REQUEST_ATTACH] = "attach",
      [REQUEST_WARM] = "warm",
      [REQUEST_INVALIDATE] = "invalidate",
  };
  const char *name = request_lens(r)->hosted->name;
  const char *act = acts[r->kind];
  int status = status_of_errno(r->status);
  char story[128];
  if (status == WIRE_E_CHANGED)
    snprintf(story, sizeof story, "it changed again and again");
  else
    snprintf(story, sizeof story, "%s", strerror(-r->status));
  log_peer_event(LEVEL_WARN, "request-failed", LOG_TEXT("image", name),
                 LOG_TEXT("act", act), LOG_TEXT("reason", story));
  request_count(r, STAT_ERRORS, 1);
  conn_reply_error(r->conn, r->id, status, -r->status, "image \"%s\": %s: %s",
                   name, act, story);
  return STEP_DONE;
}

static enum step request_reply_done(struct request *r, uint64_t epoch) {
  Cachet__Wire__Done done = CACHET__WIRE__DONE__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  done.epoch = epoch;
  msg.id = r->id;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_DONE;
  msg.done = &done;
  conn_reply(r->conn, &msg);
  return STEP_DONE;
}

/* A piece: with `len` bytes of payload to follow, or `resident` ones that the
 * peer has. */
static void request_put_data(struct request *r, uint64_t epoch, uint64_t offset,
                             size_t len, uint64_t resident, bool last) {
  Cachet__Wire__Data data = CACHET__WIRE__DATA__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  data.epoch = epoch;
  data.range = r->range;
  data.offset = offset;
  data.last = last;
  data.resident = resident;
  msg.id = r->id;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_DATA;
  msg.data = &data;
  output_frame(&r->worker->out, &msg, len);
}

/* ---- Fetches ------------------------------------------------------------- */

/* On whatever thread ended the last fill. */
static void fetch_done(struct fetch *fetch) {
  struct request_fetch *f = (struct request_fetch *)fetch; /* first member */
  worker_post(f->request->worker, &f->request->mail);
}

/* Whether `len` more bytes may be fetched.  A first fetch always may, however
 * large a page is, so what is starved gets its turn. */
static bool request_has_allowance(const struct request *r, uint64_t len) {
  const struct limits *limits = &r->worker->host->limits;
  uint64_t all = limits->max_worker_fetch;
  uint64_t of_image = request_lens(r)->fetching;
  uint64_t of_conn = r->conn->fetching;
  return (!of_conn || of_conn + len <= limits->max_conn_fetch) &&
         (!of_image || of_image + len <= all / 2) &&
         (!r->worker->fetching || r->worker->fetching + len <= all);
}

static void request_charge(struct request_fetch *f) {
  f->lens->fetching += f->len;
  f->request->worker->fetching += f->len;
  f->request->conn->fetching += f->len;
}

/* Gives back what was fetched, and the allowance. */
static void request_drop_fetch(struct request *r) {
  struct request_fetch *f = r->fetch;
  if (!f)
    return;
  assert(r->state != REQUEST_WAITING);
  r->fetch = NULL;
  f->lens->fetching -= f->len;
  r->worker->fetching -= f->len;
  if (r->conn)
    r->conn->fetching -= f->len;
  fetch_fini(&f->fetch);
  free(f);
}

/* Puts a connection that has starved requests at the end of the worker's list,
 * unless it is in there. */
static void starved_push(struct conn *c) {
  struct worker *w = c->worker;
  if (c->is_starved)
    return;
  c->is_starved = true;
  c->next_starved = NULL;
  *w->starved_tail = c;
  w->starved_tail = &c->next_starved;
  w->n_starved++;
}

static struct conn *starved_unlink(struct worker *w, struct conn **link) {
  struct conn *c = *link;
  *link = c->next_starved;
  if (!*link)
    w->starved_tail = link;
  c->is_starved = false;
  w->n_starved--;
  return c;
}

static struct conn *starved_pop(struct worker *w) {
  return starved_unlink(w, &w->starved_head);
}

static void starved_remove(struct conn *c) {
  struct conn **link = &c->worker->starved_head;
  while (*link != c)
    link = &(*link)->next_starved;
  starved_unlink(c->worker, link);
}

static void request_starve(struct request *r) {
  r->state = REQUEST_STARVED;
  request_queue_push(&r->conn->starved, r);
  starved_push(r->conn);
}

/* A piece was lost to a new epoch.  Sets r->status when that was too often. */
static void request_restart(struct request *r) {
  request_drop_fetch(r);
  if (++r->n_restarts > r->worker->host->limits.max_restarts)
    r->status = -ESTALE;
}

/* Its fetch is done: what came of it. */
static void request_fetched(struct request *r) {
  const struct fetch *f = &r->fetch->fetch;
  r->state = REQUEST_ACTIVE;
  r->worker->n_waiting--;
  request_count(r, STAT_MISSES, f->n_missed);
  request_count(r, STAT_JOINS, f->n_joined);
  if (f->status == -ESTALE)
    request_restart(r);
  else
    r->status = f->status;
}

/* Starts to fetch what is missing.  True if the request waits now; false if it
 * can go on. */
static bool request_fetch(struct request *r) {
  struct lens *l = request_lens(r);
  uint64_t len = (uint64_t)r->n_missing << l->mirror->page_shift;
  assert(!r->fetch);
  if (!request_has_allowance(r, len)) {
    request_starve(r);
    return true;
  }
  struct request_fetch *f = calloc(1, sizeof *f);
  if (!f) {
    r->status = -ENOMEM;
    return false;
  }
  f->fetch.done = fetch_done;
  f->request = r;
  f->lens = l;
  f->mirror = l->mirror;
  f->len = len;
  r->fetch = f;
  request_charge(f);
  r->state = REQUEST_WAITING;
  r->worker->n_waiting++;
  if (fetch_start(&f->fetch, l->mirror, r->missing, r->n_missing) == FETCH_WAIT)
    return true;
  request_fetched(r); /* the pool was faster than us, or it failed at once */
  return false;
}

/* ---- Pieces -------------------------------------------------------------- */

static bool request_next_piece(struct request *r, const struct mirror *m,
                               struct piece *p) {
  while (r->range < r->n_ranges &&
         r->range_done == r->ranges[r->range].length) {
    r->range++;
    r->range_done = 0;
  }
  if (r->range == r->n_ranges)
    return false;
  const struct range *range = &r->ranges[r->range];
  uint64_t most = r->worker->host->limits.piece_len >> m->page_shift;
  if (most > FETCH_MAX_PAGES)
    most = FETCH_MAX_PAGES;
  if (most == 0)
    most = 1;
  p->offset = range->offset + r->range_done;
  p->first = p->offset >> m->page_shift;
  p->end = range->offset + range->length;
  uint64_t last = (p->end - 1) >> m->page_shift;
  p->count = (unsigned)most;
  if (last - p->first + 1 < most)
    p->count = (unsigned)(last - p->first + 1);
  else if ((p->first + most) << m->page_shift < p->end)
    p->end = (p->first + most) << m->page_shift;
  return true;
}

/* Cuts a piece down to its first `n` pages. */
static void piece_cut(struct piece *p, const struct mirror *m, unsigned n) {
  uint64_t end = (p->first + n) << m->page_shift;
  if (n < p->count && end < p->end)
    p->end = end;
  p->count = n;
}

static void request_advance(struct request *r, const struct piece *p) {
  r->range_done += p->end - p->offset;
  r->left -= p->end - p->offset;
}

static enum step request_miss(struct request *r, const struct piece *p) {
  request_drop_fetch(r);
  r->missing = p->first;
  r->n_missing = p->count;
  return STEP_MISS;
}

/* The payload of a piece: where its pages lie. */
struct segments {
  struct iovec list[FETCH_MAX_PAGES]; /* the first `n` are set */
  unsigned n;
};

static void segments_add(struct segments *s, const struct mirror *m,
                         const struct piece *p, uint64_t page, unsigned count,
                         const uint8_t *bytes) {
  uint64_t start = page << m->page_shift;
  uint64_t end = (page + count) << m->page_shift;
  uint64_t from = start < p->offset ? p->offset : start;
  if (end > p->end)
    end = p->end;
  s->list[s->n++] =
      (struct iovec){(void *)(bytes + (from - start)), end - from};
}

/* Finds a piece's leading pages that are resident, pins them, and cuts the
 * piece down to them. */
static void piece_gather_resident(struct request *r, struct lens *l,
                                  struct piece *p, struct segments *s) {
  unsigned n = lens_pin(l, p->first, p->count);
  piece_cut(p, l->mirror, n);
  if (n == 0)
    return;
  output_pinned(&r->worker->out, l);
  request_count(r, STAT_HITS, n);
  segments_add(s, l->mirror, p, p->first, n,
               view_page(&l->view, l->mirror->page_shift, p->first));
}

/* The same after a fetch: a page is in the fetch's hands, or was resident when
 * it began.  One of the latter may be gone by now: the piece ends there. */
static void piece_gather_fetched(struct request *r, struct lens *l,
                                 struct piece *p, struct segments *s) {
  unsigned n = 0;
  for (; n < p->count; n++) {
    uint64_t page = p->first + n;
    const uint8_t *bytes = fetch_bytes(&r->fetch->fetch, page);
    if (!bytes) {
      if (!lens_pin(l, page, 1))
        break;
      output_pinned(&r->worker->out, l);
      request_count(r, STAT_HITS, 1);
      bytes = view_page(&l->view, l->mirror->page_shift, page);
    }
    segments_add(s, l->mirror, p, page, 1, bytes);
  }
  piece_cut(p, l->mirror, n);
}

/* Makes room in the output for a piece.  False if that blocked the
 * connection. */
static bool piece_make_room(struct request *r, const struct lens *l,
                            const struct piece *p) {
  const struct output *out = &r->worker->out;
  if (!r->fetch && output_has_room(out, 2 * OUTPUT_SMALL_LEN, p->count) &&
      lens_has_room(l, p->count) &&
      out->payload_len < r->worker->host->limits.batch_len)
    return true;
  conn_flush(r->conn);
  return conn_may_send(r->conn);
}

static enum step request_read_piece(struct request *r, struct lens *l,
                                    struct piece *p) {
  struct piece whole = *p;
  struct segments s;
  s.n = 0;
  if (!piece_make_room(r, l, p))
    return STEP_BLOCKED;
  if (r->fetch)
    piece_gather_fetched(r, l, p, &s);
  else
    piece_gather_resident(r, l, p, &s);
  if (p->count == 0)
    return request_miss(r, &whole);
  size_t len = p->end - p->offset;
  bool last = len == r->left;
  session_announce(r->conn, l);
  request_put_data(r, l->mirror->epoch, p->offset, len, 0, last);
  for (unsigned i = 0; i < s.n; i++)
    output_payload(&r->worker->out, s.list[i].iov_base, s.list[i].iov_len);
  request_count(r, STAT_BYTES, len);
  request_advance(r, p);
  if (r->fetch) {
    conn_flush(r->conn); /* the last moment at which its bytes are there */
    request_drop_fetch(r);
  }
  return last ? STEP_DONE : STEP_ON;
}

/* The leading pages of a piece that are resident (`is`), or not. */
static unsigned leading_pages(const struct lens *l, const struct piece *p,
                              bool is) {
  unsigned n = 0;
  while (n < p->count && view_is_resident(&l->view, p->first + n) == is)
    n++;
  return n;
}

/* An attached peer pinned the pages before it asked, so what is resident now
 * stays, and it is told so.  What could not stay goes to it as bytes: the first
 * page, even if another fill just brought it in, and those behind it. */
static enum step request_place_piece(struct request *r, struct lens *l,
                                     struct piece *p) {
  unsigned n = leading_pages(l, p, true);
  if (n == 0) {
    if (!r->fetch || !fetch_bytes(&r->fetch->fetch, p->first))
      return request_miss(r, p);
    n = leading_pages(l, p, false);
    piece_cut(p, l->mirror, n ? n : 1);
    return request_read_piece(r, l, p);
  }
  conn_spend(r->conn, (uint64_t)PAGE_COST * n);
  if (!output_has_room(&r->worker->out, OUTPUT_SMALL_LEN, 0)) {
    conn_flush(r->conn);
    if (!conn_may_send(r->conn))
      return STEP_BLOCKED;
  }
  piece_cut(p, l->mirror, n);
  uint64_t len = p->end - p->offset;
  bool last = len == r->left;
  request_put_data(r, l->mirror->epoch, p->offset, 0, len, last);
  if (!r->fetch)
    request_count(r, STAT_HITS, n);
  request_advance(r, p);
  if (r->fetch && p->first + n >= r->missing + r->n_missing)
    request_drop_fetch(r);
  return last ? STEP_DONE : STEP_ON;
}

/* The output is empty, as descriptors go with a frame's first byte. */
static enum step request_attach(struct request *r, struct lens *l) {
  conn_flush(r->conn);
  if (!conn_may_send(r->conn))
    return STEP_BLOCKED;
  session_attach(r->conn, r->id, l);
  conn_flush(r->conn);
  return STEP_DONE;
}

/* Warming needs no bytes: a page that was fetched is done, also if it could not
 * stay for want of room. */
static enum step request_warm_piece(struct request *r, struct lens *l,
                                    struct piece *p) {
  bool fetched = r->fetch != NULL;
  unsigned n = 0;
  while (n < p->count &&
         ((fetched && fetch_bytes(&r->fetch->fetch, p->first + n)) ||
          view_is_resident(&l->view, p->first + n)))
    n++;
  if (n == 0)
    return request_miss(r, p);
  if (!fetched)
    request_count(r, STAT_HITS, n);
  request_drop_fetch(r);
  conn_spend(r->conn, (uint64_t)PAGE_COST * n);
  piece_cut(p, l->mirror, n);
  request_advance(r, p);
  return STEP_ON;
}

/* ---- Steps --------------------------------------------------------------- */

/* Has the lens look at the present epoch, and drops a fetch of a past one.
 * False: blocked, or r->status set. */
static bool request_focus(struct request *r, struct lens *l) {
  if (!lens_is_current(l)) {
    conn_flush(r->conn); /* its pins must be gone */
    if (!conn_may_send(r->conn))
      return false;
    r->status = lens_open(l);
  }
  if (r->status == 0 && r->fetch && r->fetch->mirror != l->mirror)
    request_restart(r);
  return r->status == 0;
}

/* Checks the ranges against the image: once for each epoch that is met. */
static bool request_is_within(struct request *r, const struct mirror *m) {
  if (r->checked_epoch == m->epoch)
    return true;
  for (unsigned i = r->range; i < r->n_ranges; i++) {
    const struct range *range = &r->ranges[i];
    if (range->length &&
        (range->offset > m->size || range->length > m->size - range->offset))
      return false;
  }
  r->checked_epoch = m->epoch;
  return true;
}

static enum step request_finish(struct request *r, struct lens *l) {
  if (r->kind != REQUEST_READ && r->kind != REQUEST_READ_IN_PLACE)
    return request_reply_done(r, l->mirror->epoch);
  /* A Read of nothing: any other ended with its last piece. */
  r->range = 0;
  if (!output_has_room(&r->worker->out, OUTPUT_SMALL_LEN, 0))
    conn_flush(r->conn);
  request_put_data(r, l->mirror->epoch, r->n_ranges ? r->ranges[0].offset : 0,
                   0, 0, true);
  return STEP_DONE;
}

/* One piece. */
static enum step request_step(struct request *r) {
  struct lens *l = request_lens(r);
  struct piece p;
  if (!conn_may_send(r->conn))
    return STEP_BLOCKED;
  if (r->status)
    return request_failed(r);
  if (!request_focus(r, l))
    return r->status ? request_failed(r) : STEP_BLOCKED;
  if (r->epoch && r->epoch != l->mirror->epoch) {
    session_announce(r->conn, l);
    return request_refuse(r, WIRE_E_CHANGED, "it has another epoch");
  }
  if (!request_is_within(r, l->mirror)) {
    session_announce(r->conn, l);
    return request_refuse(r, WIRE_E_BOUNDS, "the range reaches past its end");
  }
  if (r->kind == REQUEST_ATTACH)
    return request_attach(r, l);
  if (!request_next_piece(r, l->mirror, &p)) {
    session_announce(r->conn, l);
    return request_finish(r, l);
  }
  if (r->kind == REQUEST_READ_IN_PLACE)
    return request_place_piece(r, l, &p);
  return r->kind == REQUEST_WARM ? request_warm_piece(r, l, &p)
                                 : request_read_piece(r, l, &p);
}

static enum step request_steps(struct request *r) {
  enum step s;
  do
    s = request_step(r);
  while (s == STEP_ON);
  return s;
}

/* ---- Requests that wait -------------------------------------------------- */

static void request_link(struct request *r) {
  struct conn *c = r->conn;
  r->prev = NULL;
  r->next = c->requests;
  if (r->next)
    r->next->prev = r;
  c->requests = r;
  c->n_requests++;
  c->n_held_ranges += r->n_ranges;
}

static void request_unlink(struct request *r) {
  struct conn *c = r->conn;
  c->n_invalidations -= r->invalidation != NULL;
  *(r->prev ? &r->prev->next : &c->requests) = r->next;
  if (r->next)
    r->next->prev = r->prev;
  c->n_requests--;
  c->n_held_ranges -= r->n_ranges;
}

static void request_free(struct request *r) {
  request_drop_fetch(r);
  if (r->conn)
    request_unlink(r);
  if (r->invalidation) {
    r->worker->n_invalidations--;
    invalidation_free(r->invalidation);
  }
  free(r);
}

/* Its mail: what it waited for is over. */
static void request_posted(struct worker *w, struct mail *mail) {
  struct request *r = (struct request *)mail; /* its first member */
  struct conn *c = r->conn;
  assert(r->state == REQUEST_WAITING && r->worker == w);
  if (r->fetch) {
    request_fetched(r);
  } else {
    r->state = REQUEST_ACTIVE;
    w->n_waiting--;
  }
  if (!c) {
    request_free(r);
  } else {
    request_go_on(r);
    conn_settle(c);
  }
}

static bool request_may_wait(const struct conn *c, unsigned n_ranges) {
  const struct limits *limits = &c->worker->host->limits;
  return c->n_requests < limits->max_requests &&
         c->n_held_ranges + n_ranges <= limits->max_held_ranges;
}

/* Makes a request that can wait of one on the stack, ranges included.  NULL:
 * the peer was told why not. */
static struct request *request_keep(const struct request *probe) {
  struct conn *c = probe->conn;
  if (!request_may_wait(c, probe->n_ranges)) {
    counters_add(&c->worker->counters[probe->image], STAT_ERRORS, 1);
    conn_reply_error(c, probe->id, WIRE_E_INVAL, 0,
                     "too many requests in flight");
    return NULL;
  }
  size_t ranges_len = probe->n_ranges * sizeof(struct range);
  struct request *r = malloc(sizeof *r + ranges_len);
  if (!r) {
    conn_reply_error(c, probe->id, WIRE_E_NOMEM, ENOMEM, "out of memory");
    return NULL;
  }
  *r = *probe;
  if (ranges_len)
    memcpy(r + 1, probe->ranges, ranges_len);
  r->ranges = (const struct range *)(r + 1);
  r->mail.run = request_posted;
  request_link(r);
  return r;
}

/* Puts a request where its last step says it belongs. */
static void request_place(struct request *r, enum step s) {
  while (s == STEP_MISS) {
    if (request_fetch(r))
      return;
    s = request_steps(r);
  }
  if (s == STEP_DONE) {
    request_free(r);
    return;
  }
  request_drop_fetch(r);
  r->state = REQUEST_RUNNABLE;
  request_queue_push(&r->conn->runnable, r);
}

void request_go_on(struct request *r) {
  r->state = REQUEST_ACTIVE;
  request_place(r, request_steps(r));
}

bool request_exists(const struct conn *c, uint64_t id) {
  for (const struct request *r = c->requests; r; r = r->next)
    if (r->id == id)
      return true;
  return false;
}

void request_drop_all(struct conn *c) {
  for (struct request *r = c->requests, *next; r; r = next) {
    next = r->next;
    if (r->state != REQUEST_WAITING) {
      request_free(r);
      continue;
    }
    if (r->fetch)
      c->fetching -= r->fetch->len;
    if (r->invalidation)
      invalidation_abandon(r->invalidation);
    request_unlink(r);
    r->conn = NULL;
  }
  request_queue_init(&c->runnable);
  request_queue_init(&c->starved);
  if (c->is_starved)
    starved_remove(c);
  assert(c->n_requests == 0 && c->n_invalidations == 0 && c->fetching == 0);
}

/* Connections with starved requests are served one request each, in turn,
 * until each of those that are left was refused: then somebody's fetch is in
 * flight, and its end brings us back here. */
void request_admit(struct worker *w) {
  unsigned n_refused = 0;
  while (n_refused < w->n_starved) {
    struct conn *c = starved_pop(w);
    request_go_on(request_queue_pop(&c->starved));
    n_refused = c->is_starved ? n_refused + 1 : 0;
    if (c->starved.head)
      starved_push(c);
    conn_settle(c);
  }
}

/* ---- Beginnings ---------------------------------------------------------- */

/* Takes the ranges out of the message.  False: the peer was told what is wrong
 * with them. */
static bool take_ranges(struct conn *c, struct request *probe, size_t n_ranges,
                        Cachet__Wire__Range *const *ranges) {
  const struct limits *limits = &c->worker->host->limits;
  struct range *list = c->worker->ranges;
  if (n_ranges > limits->max_ranges) {
    conn_reply_error(c, probe->id, WIRE_E_INVAL, 0,
                     "%zu ranges in one request, at most %u are allowed",
                     n_ranges, limits->max_ranges);
    return false;
  }
  for (size_t i = 0; i < n_ranges; i++) {
    list[i] = (struct range){ranges[i]->offset, ranges[i]->length};
    if (list[i].length > limits->max_read - probe->left) {
      conn_reply_error(c, probe->id, WIRE_E_INVAL, 0,
                       "one request may ask for %llu bytes, not for more",
                       (unsigned long long)limits->max_read);
      return false;
    }
    probe->left += list[i].length;
  }
  probe->ranges = list;
  probe->n_ranges = (unsigned)n_ranges;
  return true;
}

static struct request request_of(struct conn *c, uint64_t id,
                                 enum request_kind kind,
                                 const struct opened *o) {
  struct request r = {.worker = c->worker,
                      .conn = c,
                      .id = id,
                      .kind = kind,
                      .image = o->image};
  request_count(&r, STAT_REQUESTS, 1);
  return r;
}

static struct opened *find_image(struct conn *c, uint64_t id,
                                 uint32_t image_id) {
  struct opened *o = session_opened(c, image_id);
  if (!o)
    conn_reply_error(c, id, WIRE_E_NOIMAGE, 0,
                     "image number %u: this connection did not open it",
                     image_id);
  return o;
}

void request_begin(struct conn *c, uint64_t id, enum request_kind kind,
                   uint32_t image_id, uint64_t epoch, size_t n_ranges,
                   Cachet__Wire__Range *const *ranges) {
  struct opened *o = find_image(c, id, image_id);
  if (!o)
    return;
  if (kind == REQUEST_READ_IN_PLACE && !o->attached)
    kind = REQUEST_READ;
  else if (kind == REQUEST_READ)
    session_detach(o);
  struct request probe = request_of(c, id, kind, o);
  probe.epoch = epoch;
  if (!take_ranges(c, &probe, n_ranges, ranges)) {
    request_count(&probe, STAT_ERRORS, 1);
    return;
  }
  enum step s = request_steps(&probe);
  if (s == STEP_DONE)
    return;
  struct request *r = request_keep(&probe);
  if (r)
    request_place(r, s);
}

/* Cuts a range at the image's end.  False: nothing is left. */
static bool cut_range(const struct request *probe,
                      const Cachet__Wire__Range *range, uint64_t *from,
                      uint64_t *to) {
  struct mirror *m = image_mirror(request_lens(probe)->hosted->image);
  uint64_t size = m->size;
  mirror_unref(m);
  if (range->offset >= size || range->length == 0)
    return false;
  *from = range->offset;
  *to = range->length > size - range->offset ? size
                                             : range->offset + range->length;
  return true;
}

/* Whether one more may be begun. */
static bool may_invalidate_more(const struct conn *c) {
  const struct limits *limits = &c->worker->host->limits;
  return c->n_invalidations < limits->max_conn_invalidations &&
         c->worker->n_invalidations < limits->max_worker_invalidations;
}

/* Hands the request to the pool, or fails it. */
static void request_invalidate(struct request *r, uint64_t from, uint64_t to) {
  r->status = invalidation_new(r, from, to);
  if (r->status < 0) {
    request_go_on(r);
    return;
  }
  r->conn->n_invalidations++;
  r->worker->n_invalidations++;
  r->worker->n_waiting++;
  r->state = REQUEST_WAITING; /* before the pool has it */
  invalidation_start(r->invalidation);
}

void request_begin_invalidate(struct conn *c, uint64_t id, uint32_t image_id,
                              const Cachet__Wire__Range *range) {
  uint64_t from, to;
  const struct opened *o = find_image(c, id, image_id);
  if (!o)
    return;
  struct request probe = request_of(c, id, REQUEST_INVALIDATE, o);
  if (!range) {
    request_refuse(&probe, WIRE_E_INVAL, "invalidate: no range is given");
    return;
  }
  if (!session_may_invalidate(c)) {
    request_refuse(&probe, WIRE_E_ACCESS,
                   "invalidate: only for root, the daemon's user and the "
                   "socket's group, on a Unix socket");
    return;
  }
  if (!may_invalidate_more(c)) {
    request_refuse(&probe, WIRE_E_BUSY,
                   "invalidate: too many invalidations are under way");
    return;
  }
  struct request *r = request_keep(&probe);
  if (!r)
    return;
  if (cut_range(&probe, range, &from, &to))
    request_invalidate(r, from, to);
  else
    request_go_on(r); /* nothing to do, and done */
}

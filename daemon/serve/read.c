#include "daemon/serve/read.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/log.h"
#include "daemon/missing.h"
#include "daemon/serve/attach.h"
#include "daemon/serve/fetch_quota.h"
#include "daemon/serve/notices.h"
#include "daemon/serve/reply.h"
#include "proto/status.h"

/* What looking at a page is worth, in bytes sent. */
#define PAGE_COST 64

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

enum step read_refuse(struct request *r, int status, const char *what) {
  request_count(r, COUNTER_ERRORS, 1);
  connection_reply_error(request_conn(r), r->id, status, 0, "image \"%s\": %s",
                         request_reader(r)->served->name, what);
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
  const char *name = request_reader(r)->served->name;
  const char *act = acts[r->kind];
  int status = status_of_errno(r->status);
  char at[64] = "", reason[128];
  if (status == WIRE_E_CHANGED)
    snprintf(reason, sizeof reason, "it changed again and again");
  else
    snprintf(reason, sizeof reason, "%s", lost_reason(-r->status));
  if (r->bad.length)
    snprintf(at, sizeof at, " %" PRIu64 " bytes at %" PRIu64, r->bad.length,
             r->bad.offset);
  log_peer_event(LEVEL_WARN, "request-failed", LOG_TEXT("image", name),
                 LOG_TEXT("act", act), LOG_TEXT("reason", reason));
  request_count(r, COUNTER_ERRORS, 1);
  connection_reply_error(request_conn(r), r->id, status, -r->status,
                         "image \"%s\": %s%s: %s", name, act, at, reason);
  return STEP_DONE;
}

/* A piece: with `len` bytes of payload to follow, or `resident` ones that the
 * peer has. */
static void request_put_data(struct request *r, uint64_t epoch, uint64_t offset,
                             size_t len, uint64_t resident, bool last) {
  struct reply_data piece = {.epoch = epoch,
                             .range = r->plan.range,
                             .offset = offset,
                             .len = len,
                             .resident = resident,
                             .last = last};
  reply_data(request_conn(r), r->id, &piece);
}

/* ---- Pieces -------------------------------------------------------------- */

/* The most pages of a piece. */
static unsigned piece_most(const struct request *r, unsigned page_shift) {
  uint64_t most = r->service->context->limits.piece_len >> page_shift;
  if (most > FETCH_MAX_PAGES)
    most = FETCH_MAX_PAGES;
  return most ? (unsigned)most : 1;
}

static enum step request_miss(struct request *r, const struct piece *p) {
  fetch_quota_drop(r);
  r->missing = p->first;
  r->n_missing = p->count;
  return STEP_MISS;
}

/* Pages that are resident, unless they were counted before: as fetched, and
 * then the connection was blocked; or when another part of one was sent. */
static void request_count_hits(struct request *r, uint64_t first, unsigned n) {
  request_count(r, COUNTER_HITS, read_plan_count(&r->plan, first, n));
}

/* The payload of a piece: where its pages lie. */
struct segments {
  struct iovec list[FETCH_MAX_PAGES]; /* the first `n` are set */
  unsigned n;
};

static void segments_add(struct segments *s, const struct piece *p,
                         uint64_t page, unsigned count, const uint8_t *bytes) {
  uint64_t start = page << p->page_shift;
  uint64_t end = (page + count) << p->page_shift;
  uint64_t from = start < p->offset ? p->offset : start;
  if (end > p->end)
    end = p->end;
  s->list[s->n++] =
      (struct iovec){(void *)(bytes + (from - start)), end - from};
}

/* How many of the leading pages of a piece are zeros. */
static unsigned leading_zeros(const struct image_reader *l,
                              const struct piece *p) {
  unsigned n = 0;
  while (n < p->count && view_is_zero(&l->view, p->first + n))
    n++;
  return n;
}

/* Finds a piece's leading pages that are resident, pins them, and cuts the
 * piece down to them; or those that are zeros. */
static void piece_gather_resident(struct request *r, struct image_reader *l,
                                  struct piece *p, struct segments *s) {
  unsigned n = image_reader_pin(l, p->first, p->count);
  if (n == 0 && (n = leading_zeros(l, p)) > 0) {
    piece_cut(p, n);
    request_count_hits(r, p->first, n);
    segments_add(s, p, p->first, n, fetch_zeros());
    return;
  }
  piece_cut(p, n);
  if (n == 0)
    return;
  send_batch_pinned(&r->service->net.out, l);
  request_count_hits(r, p->first, n);
  segments_add(s, p, p->first, n,
               view_page(&l->view, l->mirror->page_shift, p->first));
}

/* One page that is pinned from here on, or zeros; NULL: it is not here. */
static const uint8_t *piece_page(struct request *r, struct image_reader *l,
                                 uint64_t page) {
  if (!image_reader_pin(l, page, 1))
    return view_is_zero(&l->view, page) ? fetch_zeros() : NULL;
  send_batch_pinned(&r->service->net.out, l);
  return view_page(&l->view, l->mirror->page_shift, page);
}

/* The same after a fetch: a page is in the fetch's hands, or was resident when
 * it began.  One of the latter may be gone by now: the piece ends there. */
static void piece_gather_fetched(struct request *r, struct image_reader *l,
                                 struct piece *p, struct segments *s) {
  unsigned n = 0;
  for (; n < p->count; n++) {
    uint64_t page = p->first + n;
    const uint8_t *bytes = fetch_bytes(&r->fetch->fetch, page);
    if (!bytes) {
      bytes = piece_page(r, l, page);
      if (!bytes)
        break;
      request_count(r, COUNTER_HITS,
                    n > 0 || !read_plan_is_within_page(&r->plan, p));
    }
    segments_add(s, p, page, 1, bytes);
  }
  piece_cut(p, n);
}

/* Makes room in the output for a piece.  False if that blocked the
 * connection. */
static bool piece_make_room(struct request *r, const struct image_reader *l,
                            const struct piece *p) {
  const struct send_batch *out = &r->service->net.out;
  if (!r->fetch &&
      send_batch_has_room(out, 2 * SEND_BATCH_SMALL_LEN, p->count) &&
      image_reader_has_room(l, p->count) &&
      out->payload_len < r->service->context->limits.batch_len)
    return true;
  connection_flush(request_conn(r));
  return connection_may_send(request_conn(r));
}

/* Whether a fetch has nothing for what comes behind a piece. */
static bool fetch_ends_at(const struct request *r, const struct piece *p) {
  return p->end >= (r->missing + r->n_missing) << p->page_shift ||
         read_plan_range_ends_with(&r->plan, p);
}

static enum step request_read_piece(struct request *r, struct image_reader *l,
                                    struct piece *p) {
  struct piece whole = *p;
  struct segments s;
  s.n = 0;
  if (!piece_make_room(r, l, p))
    return STEP_BLOCKED;
  piece_shorten(p, connection_frame_room(request_conn(r), p->end - p->offset));
  if (r->fetch)
    piece_gather_fetched(r, l, p, &s);
  else
    piece_gather_resident(r, l, p, &s);
  if (p->count == 0)
    return request_miss(r, &whole);
  size_t len = p->end - p->offset;
  bool last = read_plan_ends_with(&r->plan, p);
  notices_announce(r->subscription);
  request_put_data(r, l->mirror->epoch, p->offset, len, 0, last);
  for (unsigned i = 0; i < s.n; i++)
    send_batch_payload(&r->service->net.out, s.list[i].iov_base,
                       s.list[i].iov_len);
  request_count(r, COUNTER_BYTES, len);
  read_plan_advance(&r->plan, p);
  if (r->fetch) {
    /* The last moment at which the fetch's bytes are there. */
    connection_flush(request_conn(r));
    if (fetch_ends_at(r, p))
      fetch_quota_drop(r);
  }
  return last ? STEP_DONE : STEP_ON;
}

/* The leading pages of a piece that are resident (`is`), or not.  One of zeros
 * is not: it is no pin's, and so nothing final can be said of it. */
static unsigned leading_pages(const struct image_reader *l,
                              const struct piece *p, bool is) {
  unsigned n = 0;
  while (n < p->count && view_is_resident(&l->view, p->first + n) == is)
    n++;
  return n;
}

/* An attached peer pinned the pages before it asked, so what is resident now
 * stays, and it is told so.  What could not stay goes to it as bytes: the first
 * page, even if another fill just brought it in, and those behind it.  So does
 * the rest of a page of which a part went as bytes. */
static enum step request_place_piece(struct request *r, struct image_reader *l,
                                     struct piece *p) {
  if (read_plan_is_within_page(&r->plan, p)) {
    piece_cut(p, 1);
    return request_read_piece(r, l, p);
  }
  unsigned n = leading_pages(l, p, true);
  if (n == 0) {
    bool fetched = r->fetch && fetch_bytes(&r->fetch->fetch, p->first);
    if (!fetched && !view_is_zero(&l->view, p->first))
      return request_miss(r, p);
    n = leading_pages(l, p, false);
    piece_cut(p, n ? n : 1);
    return request_read_piece(r, l, p);
  }
  connection_spend(request_conn(r), (uint64_t)PAGE_COST * n);
  if (!send_batch_has_room(&r->service->net.out, SEND_BATCH_SMALL_LEN, 0)) {
    connection_flush(request_conn(r));
    if (!connection_may_send(request_conn(r)))
      return STEP_BLOCKED;
  }
  piece_cut(p, n);
  uint64_t len = p->end - p->offset;
  bool last = read_plan_ends_with(&r->plan, p);
  request_put_data(r, l->mirror->epoch, p->offset, 0, len, last);
  if (!r->fetch)
    request_count_hits(r, p->first, n);
  read_plan_advance(&r->plan, p);
  if (r->fetch && p->first + n >= r->missing + r->n_missing)
    fetch_quota_drop(r);
  return last ? STEP_DONE : STEP_ON;
}

/* The output is empty, as descriptors go with a frame's first byte. */
static enum step request_attach(struct request *r) {
  connection_flush(request_conn(r));
  if (!connection_may_send(request_conn(r)))
    return STEP_BLOCKED;
  attach_lend(r->subscription, r->id, &r->wish);
  connection_flush(request_conn(r));
  return STEP_DONE;
}

/* Warming needs no bytes: a page that was fetched is done, also if it could not
 * stay for want of room. */
static enum step request_warm_piece(struct request *r, struct image_reader *l,
                                    struct piece *p) {
  bool fetched = r->fetch != NULL;
  unsigned n = 0;
  while (n < p->count &&
         ((fetched && fetch_bytes(&r->fetch->fetch, p->first + n)) ||
          view_is_known(&l->view, p->first + n)))
    n++;
  if (n == 0)
    return request_miss(r, p);
  if (!fetched)
    request_count_hits(r, p->first, n);
  fetch_quota_drop(r);
  connection_spend(request_conn(r), (uint64_t)PAGE_COST * n);
  piece_cut(p, n);
  read_plan_advance(&r->plan, p);
  return STEP_ON;
}

/* ---- Steps --------------------------------------------------------------- */

/* Has the image reader look at the present epoch, and drops a fetch of a past
 * one. False: blocked, or r->status set. */
static bool request_focus(struct request *r, struct image_reader *l) {
  if (!image_reader_is_current(l)) {
    connection_flush(request_conn(r)); /* its pins must be gone */
    if (!connection_may_send(request_conn(r)))
      return false;
    r->status = image_reader_open(l);
  }
  if (r->status == 0 && r->fetch && r->fetch->mirror != l->mirror)
    fetch_quota_restart(r);
  return r->status == 0;
}

/* Checks the ranges against the image: once for each epoch that is met. */
static bool request_is_within(struct request *r, const struct mirror *m) {
  if (r->checked_epoch == m->epoch)
    return true;
  if (!read_plan_is_within(&r->plan, m->size))
    return false;
  r->checked_epoch = m->epoch;
  return true;
}

static enum step request_finish(struct request *r, struct image_reader *l) {
  if (r->kind != REQUEST_READ && r->kind != REQUEST_READ_IN_PLACE) {
    reply_done(request_conn(r), r->id, l->mirror->epoch);
    return STEP_DONE;
  }
  /* A Read of nothing: any other ended with its last piece. */
  const struct read_plan *plan = &r->plan;
  r->plan.range = 0;
  if (!send_batch_has_room(&r->service->net.out, SEND_BATCH_SMALL_LEN, 0))
    connection_flush(request_conn(r));
  request_put_data(r, l->mirror->epoch,
                   plan->n_ranges ? plan->ranges[0].offset : 0, 0, 0, true);
  return STEP_DONE;
}

/* One piece. */
static enum step request_step(struct request *r) {
  struct piece p;
  if (!connection_has_room(request_conn(r)))
    return STEP_BLOCKED;
  if (r->kind == REQUEST_OF_NO_IMAGE) {
    r->job->answer(r->job);
    return STEP_DONE;
  }
  struct image_reader *l = request_reader(r);
  if (r->status)
    return request_failed(r);
  if (r->subscription->ended)
    return read_refuse(r, WIRE_E_NOIMAGE, "it is no longer served");
  if (!request_focus(r, l))
    return r->status ? request_failed(r) : STEP_BLOCKED;
  /* Now that it has the present mirror: see G5 in images.h. */
  if (!subscription_is_allowed(r->subscription))
    return read_refuse(r, WIRE_E_NOIMAGE, "it is no longer served");
  if (r->epoch && r->epoch != l->mirror->epoch) {
    notices_announce(r->subscription);
    return read_refuse(r, WIRE_E_CHANGED, "it has another epoch");
  }
  if (!request_is_within(r, l->mirror)) {
    notices_announce(r->subscription);
    return read_refuse(r, WIRE_E_BOUNDS, "the range reaches past its end");
  }
  if (r->kind == REQUEST_ATTACH)
    return request_attach(r);
  unsigned shift = l->mirror->page_shift;
  if (!read_plan_next(&r->plan, shift, piece_most(r, shift), &p)) {
    notices_announce(r->subscription);
    return request_finish(r, l);
  }
  if (r->kind == REQUEST_READ_IN_PLACE)
    return request_place_piece(r, l, &p);
  return r->kind == REQUEST_WARM ? request_warm_piece(r, l, &p)
                                 : request_read_piece(r, l, &p);
}

enum step read_steps(struct request *r) {
  enum step step;
  do
    step = request_step(r);
  while (step == STEP_ON);
  return step;
}

#include "daemon/serve/read.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/log.h"
#include "daemon/missing.h"
#include "daemon/serve/fetch_quota.h"
#include "daemon/serve/subscription.h"
#include "proto/status.h"

/* What looking at a page is worth, in bytes sent. */
#define PAGE_COST 64

/* The most hits that are paid for at a time. */
#define MAX_PAID 64

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

static enum step step_refuse(const struct request *r, struct read_answer *a,
                             int status, const char *what) {
  a->kind = READ_REFUSED;
  a->status = status;
  a->sys_errno = 0;
  snprintf(a->text, sizeof a->text, "image \"%s\": %s",
           request_reader(r)->served->name, what);
  return STEP_DONE;
}

/* Ends the request with an Error for r->status. */
static enum step step_fail(const struct request *r, struct read_answer *a) {
  static const char *const acts[] = {
      [REQUEST_READ] = "read",
      [REQUEST_READ_IN_PLACE] = "read",
      [REQUEST_ATTACH] = "attach",
      [REQUEST_WARM] = "warm",
      [REQUEST_INVALIDATE] = "invalidate",
  };
  const char *name = request_reader(r)->served->name;
  const char *act = acts[r->kind];
  char at[64] = "", reason[128];
  a->kind = READ_REFUSED;
  a->status = status_of_errno(r->status);
  a->sys_errno = -r->status;
  if (a->status == WIRE_E_CHANGED)
    snprintf(reason, sizeof reason, "it changed again and again");
  else
    snprintf(reason, sizeof reason, "%s", lost_reason(-r->status));
  if (r->bad.length)
    snprintf(at, sizeof at, " %" PRIu64 " bytes at %" PRIu64, r->bad.length,
             r->bad.offset);
  log_peer_event(LEVEL_WARN, "request-failed", LOG_TEXT("image", name),
                 LOG_TEXT("act", act), LOG_TEXT("reason", reason));
  snprintf(a->text, sizeof a->text, "image \"%s\": %s%s: %s", name, act, at,
           reason);
  return STEP_DONE;
}

/* ---- Pieces -------------------------------------------------------------- */

/* The most pages of a piece. */
static unsigned piece_most(const struct request *r, unsigned page_shift) {
  uint64_t most = r->service->context->limits.piece_len >> page_shift;
  if (most > FETCH_MAX_PAGES)
    most = FETCH_MAX_PAGES;
  return most ? (unsigned)most : 1;
}

static enum step step_miss(struct request *r, const struct piece *p) {
  struct image_reader *l = request_reader(r);
  l->n_paid += l->n_paid < MAX_PAID;
  r->missing = p->first;
  r->n_missing = p->count;
  return STEP_MISS;
}

/* Whether a Data with a payload of so many segments still goes with what is in
 * the batch.  It does if that is empty. */
static bool batch_takes(const struct request *r, unsigned n_segments) {
  const struct send_batch *batch = &r->service->net.out;
  return send_batch_has_room(batch, SEND_BATCH_SMALL_LEN, n_segments) &&
         batch->payload_len < r->service->context->limits.batch_len;
}

/* Counts pages as hits, each of them once.  A page may have been counted
 * before: as fetched, if the connection was blocked afterwards, or when another
 * part of it was sent. */
static void count_hits(struct request *r, uint64_t first, unsigned n) {
  request_count(r, COUNTER_HITS, read_plan_count(&r->plan, first, n));
}

/* Whether a fetch has no bytes for what follows a piece. */
static bool fetch_ends_with(const struct request *r, const struct piece *p) {
  return p->end >= (r->missing + r->n_missing) << p->page_shift ||
         read_plan_range_ends_with(&r->plan, p);
}

/* Puts a piece into the answer: its bytes, or a note that the peer can read
 * them in its mapping. */
static enum step step_put_data(struct request *r, struct read_answer *a,
                               const struct piece *p, bool is_payload) {
  uint64_t len = p->end - p->offset;
  bool last = read_plan_ends_with(&r->plan, p);
  a->kind = READ_DATA;
  a->data = (struct reply_data){.epoch = request_reader(r)->mirror->epoch,
                                .range = r->plan.range,
                                .offset = p->offset,
                                .len = is_payload ? len : 0,
                                .resident = is_payload ? 0 : len,
                                .last = last};
  a->ends_fetch = r->fetch && fetch_ends_with(r, p);
  read_plan_advance(&r->plan, p);
  return last ? STEP_DONE : STEP_MORE;
}

static void add_segment(struct read_answer *a, const struct piece *p,
                        uint64_t page, unsigned count, const uint8_t *bytes) {
  uint64_t start = page << p->page_shift;
  uint64_t end = (page + count) << p->page_shift;
  uint64_t from = start < p->offset ? p->offset : start;
  if (end > p->end)
    end = p->end;
  a->segments[a->n_segments++] =
      (struct iovec){(void *)(bytes + (from - start)), end - from};
}

/* How many pages at the start of a piece are zeros. */
static unsigned leading_zeros(const struct image_reader *l,
                              const struct piece *p) {
  unsigned n = 0;
  while (n < p->count && view_is_zero(&l->view, p->first + n))
    n++;
  return n;
}

/* Copies a piece of one page, which is pinned and resident, into a buffer of
 * the batch.  False: it is to be sent from the mapping.
 *
 * A load from the mapping may have a page fault, which also maps neighbours of
 * the page.  To punch one of these pages the evictor has to interrupt the
 * processors of all workers, which costs more than many copies.  So each miss
 * pays for the copy of one hit.  If most reads miss, nothing is mapped; if most
 * of them hit, most are sent without a copy. */
static bool copy_piece(struct request *r, struct read_answer *a,
                       const struct piece *p) {
  struct image_reader *l = request_reader(r);
  size_t len = p->end - p->offset;
  if (l->n_paid == 0 || p->count > 1 || len > SEND_BATCH_COPY_LEN)
    return false;
  void *copy = send_batch_copy(&r->service->net.out);
  if (!copy || !mirror_copy(l->mirror, p->offset, copy, len))
    return false;
  l->n_paid--;
  a->segments[a->n_segments++] = (struct iovec){copy, len};
  return true;
}

/* Pins the pages at the start of a piece that are resident, and cuts the piece
 * down to them.  If the first page is zeros, it cuts the piece down to the
 * pages of zeros. */
static void gather_resident(struct request *r, struct read_answer *a,
                            struct piece *p) {
  struct image_reader *l = request_reader(r);
  unsigned n = image_reader_pin(l, p->first, p->count);
  bool is_zero = n == 0 && (n = leading_zeros(l, p)) > 0;
  piece_cut(p, n);
  if (n == 0)
    return;
  count_hits(r, p->first, n);
  if (!is_zero && copy_piece(r, a, p))
    return;
  add_segment(a, p, p->first, n,
              is_zero ? fetch_zeros()
                      : view_page(&l->view, l->mirror->page_shift, p->first));
}

/* Pins a page, and returns its bytes, or those of a page of zeros.  NULL: it is
 * not resident. */
static const uint8_t *find_page(struct image_reader *l, uint64_t page) {
  if (image_reader_pin(l, page, 1))
    return view_page(&l->view, l->mirror->page_shift, page);
  return view_is_zero(&l->view, page) ? fetch_zeros() : NULL;
}

/* As gather_resident(), after a fetch.  The fetch has the bytes of some pages;
 * the others were resident when it began.  One of these may have been evicted
 * since then: the piece ends before it. */
static void gather_fetched(struct request *r, struct read_answer *a,
                           struct piece *p) {
  unsigned n = 0;
  for (; n < p->count; n++) {
    uint64_t page = p->first + n;
    const uint8_t *bytes = fetch_bytes(&r->fetch->fetch, page);
    if (!bytes) {
      bytes = find_page(request_reader(r), page);
      if (!bytes)
        break;
      request_count(r, COUNTER_HITS,
                    n > 0 || !read_plan_is_within_page(&r->plan, p));
    }
    add_segment(a, p, page, 1, bytes);
  }
  piece_cut(p, n);
}

static enum step step_read(struct request *r, size_t most,
                           struct read_answer *a, struct piece *p) {
  struct piece whole = *p;
  if (!batch_takes(r, p->count) ||
      !image_reader_has_room(request_reader(r), p->count))
    return STEP_FULL;
  size_t payload = r->service->context->limits.piece_len;
  piece_shorten(p, most < payload ? most : payload);
  if (r->fetch)
    gather_fetched(r, a, p);
  else
    gather_resident(r, a, p);
  return p->count ? step_put_data(r, a, p, true) : step_miss(r, &whole);
}

/* How many pages at the start of a piece are resident (`is`), or are not.  A
 * page of zeros counts as not resident: no pin keeps it, so the peer cannot
 * rely on it. */
static unsigned leading_pages(const struct image_reader *l,
                              const struct piece *p, bool is) {
  unsigned n = 0;
  while (n < p->count && view_is_resident(&l->view, p->first + n) == is)
    n++;
  return n;
}

/* Answers an attached peer.  It pinned the pages before it asked, so pages that
 * are resident now stay, and the answer only names them.  A page that could not
 * stay is sent as bytes, with the pages behind it, even if another fill has
 * just made it resident.  If a part of a page was sent as bytes, so is its
 * rest. */
static enum step step_read_in_place(struct request *r, size_t most,
                                    struct read_answer *a, struct piece *p) {
  struct image_reader *l = request_reader(r);
  if (read_plan_is_within_page(&r->plan, p)) {
    piece_cut(p, 1);
    return step_read(r, most, a, p);
  }
  unsigned n = leading_pages(l, p, true);
  if (n == 0) {
    bool fetched = r->fetch && fetch_bytes(&r->fetch->fetch, p->first);
    if (!fetched && !view_is_zero(&l->view, p->first))
      return step_miss(r, p);
    n = leading_pages(l, p, false);
    piece_cut(p, n ? n : 1);
    return step_read(r, most, a, p);
  }
  if (!send_batch_has_room(&r->service->net.out, SEND_BATCH_SMALL_LEN, 0))
    return STEP_FULL;
  piece_cut(p, n);
  a->cost = (uint64_t)PAGE_COST * n;
  if (!r->fetch)
    count_hits(r, p->first, n);
  return step_put_data(r, a, p, false);
}

/* Warming sends no bytes.  A page that was fetched is done, even if there was
 * no room to keep it. */
static enum step step_warm(struct request *r, struct read_answer *a,
                           struct piece *p) {
  const struct image_reader *l = request_reader(r);
  unsigned n = 0;
  while (n < p->count &&
         ((r->fetch && fetch_bytes(&r->fetch->fetch, p->first + n)) ||
          view_is_known(&l->view, p->first + n)))
    n++;
  if (n == 0)
    return step_miss(r, p);
  if (!r->fetch)
    count_hits(r, p->first, n);
  a->cost = (uint64_t)PAGE_COST * n;
  a->ends_fetch = r->fetch;
  piece_cut(p, n);
  read_plan_advance(&r->plan, p);
  return STEP_MORE;
}

/* ---- Steps --------------------------------------------------------------- */

/* Whether the peer knows the epoch of the reader, and the fetch belongs to that
 * epoch.  An answer to Attach states its epoch itself. */
static bool is_known_epoch(const struct request *r, const struct mirror *m) {
  return (!r->fetch || r->fetch->mirror == m) &&
         (r->kind == REQUEST_ATTACH ||
          subscription_knows(r->subscription, m->epoch));
}

/* Checks the ranges against the size of the image, once for each epoch. */
static bool is_within(struct request *r, const struct mirror *m) {
  if (r->checked_epoch == m->epoch)
    return true;
  if (!read_plan_is_within(&r->plan, m->size))
    return false;
  r->checked_epoch = m->epoch;
  return true;
}

/* Descriptors are sent with the first byte of a frame, so no other output may
 * stand before it. */
static enum step step_attach(const struct request *r, struct read_answer *a) {
  if (r->service->net.out.len)
    return STEP_FULL;
  a->kind = READ_LEASE;
  return STEP_DONE;
}

static enum step step_finish(struct request *r, struct read_answer *a) {
  a->data = (struct reply_data){.epoch = request_reader(r)->mirror->epoch,
                                .last = true};
  if (r->kind != REQUEST_READ && r->kind != REQUEST_READ_IN_PLACE) {
    a->kind = READ_FINISHED;
    return STEP_DONE;
  }
  /* A Read of no bytes.  Any other has ended with its last piece. */
  if (!send_batch_has_room(&r->service->net.out, SEND_BATCH_SMALL_LEN, 0))
    return STEP_FULL;
  a->kind = READ_DATA;
  a->data.offset = r->plan.n_ranges ? r->plan.ranges[0].offset : 0;
  return STEP_DONE;
}

/* A step that has the present mirror before it. */
static enum step step_on(struct request *r, size_t most,
                         struct read_answer *a) {
  const struct mirror *m = request_reader(r)->mirror;
  struct piece p;
  if (r->epoch && r->epoch != m->epoch)
    return step_refuse(r, a, WIRE_E_CHANGED, "it has another epoch");
  if (!is_within(r, m))
    return step_refuse(r, a, WIRE_E_BOUNDS, "the range reaches past its end");
  if (r->kind == REQUEST_ATTACH)
    return step_attach(r, a);
  unsigned shift = m->page_shift;
  if (!read_plan_next(&r->plan, shift, piece_most(r, shift), &p))
    return step_finish(r, a);
  if (r->kind == REQUEST_READ_IN_PLACE)
    return step_read_in_place(r, most, a, &p);
  return r->kind == REQUEST_WARM ? step_warm(r, a, &p)
                                 : step_read(r, most, a, &p);
}

enum step read_step(struct request *r, size_t most, struct read_answer *a) {
  struct image_reader *l = request_reader(r);
  a->kind = READ_NOTHING;
  a->cost = 0;
  a->ends_fetch = false;
  a->n_segments = 0;
  if (r->status)
    return step_fail(r, a);
  if (r->subscription->ended)
    return step_refuse(r, a, WIRE_E_NOIMAGE, "it is no longer served");
  if (!image_reader_is_current(l)) {
    if (image_reader_has_pins(l))
      return STEP_FULL;
    r->status = image_reader_open(l);
    if (r->status)
      return step_fail(r, a);
  }
  /* After the reader has moved to the present mirror: see G5 in images.h. */
  if (!subscription_is_allowed(r->subscription))
    return step_refuse(r, a, WIRE_E_NOIMAGE, "it is no longer served");
  if (!is_known_epoch(r, l->mirror))
    return STEP_NEW_EPOCH;
  return step_on(r, most, a);
}

/* Warming: loading a range, and waiting for it.
 *
 * It goes piece by piece.  Before each the handle takes the image's present
 * epoch, and the rest of the range is cut at that one's end.  In process a
 * piece is read by this thread.  A daemon is asked for several at once, so that
 * it is not idle while an answer and the next question are on their way:
 *
 *   P1  What is before the oldest piece is loaded, what is from `next` on was
 *       not asked for, and what is between them is under way, in order.
 *   P2  It goes on behind the oldest piece, once that has ended; so a time-out
 *       is one of a piece, and an error is that of the first page that has one.
 *   P3  How many are under way is warm_width.h's to say. */
#include <assert.h>

#include "base/clock.h"
#include "base/deadline.h"
#include "client/backend.h"
#include "client/epoch.h"
#include "client/handle.h"
#include "client/request.h"
#include "client/warm_width.h"

#define PIECE_LEN (4u << 20)

struct piece {
  struct backend_job *job;
  uint64_t asked_ns, took_ns; /* 0: it has not ended, or did so at once */
};

struct warming {
  cachet *c;
  uint64_t next; /* page */

  /* At a daemon. */
  struct warm_width width;
  struct piece pieces[WARM_WIDTH_MOST]; /* a ring */
  unsigned oldest, n;
};

static uint64_t piece_pages(const struct mirror *m, uint64_t left) {
  uint64_t most = PIECE_LEN >> m->page_shift;
  if (most == 0)
    most = 1;
  return left < most ? left : most;
}

static enum cachet_status await(cachet *c, struct backend_job *j) {
  struct backend *b = c->backend;
  int64_t deadline = deadline_after(c->options.request_timeout_ms);
  while (!j->is_done && backend_wait(b, deadline))
    ;
  if (!j->is_done)
    b->ops->explain(b, &c->error);
  else if (j->error.code != CACHET_OK)
    c->error = j->error;
  else
    return CACHET_OK;
  return c->error.code;
}

/* ---- In process ---------------------------------------------------------- */

static void job_done(struct backend_job *j) { (void)j; }

/* The next pages, on this thread or by joining another's read. */
static enum cachet_status fetch(cachet *c, struct mirror *m, uint64_t first,
                                uint64_t count) {
  struct backend *b = c->backend;
  struct backend_job *j =
      b->ops->fetch(b, m, first, (uint32_t)count, first + count, job_done, c);
  if (!j)
    return handle_fail(c, CACHET_E_NOMEM, 0, "no memory for a read");
  enum cachet_status status = await(c, j);
  b->ops->drop(b, j);
  return status;
}

/* The error of a job with several pages does not say which page is bad.  So
 * they are asked for again, one by one. */
static enum cachet_status load_here(struct warming *w, struct mirror *m,
                                    uint64_t end) {
  uint64_t n = piece_pages(m, end - w->next);
  if (n > FETCH_MAX_PAGES)
    n = FETCH_MAX_PAGES;
  enum cachet_status status = fetch(w->c, m, w->next, n);
  if (n > 1 && (status == CACHET_E_IO || status == CACHET_E_NOMEM)) {
    status = CACHET_OK;
    for (uint64_t i = 0; i < n && status == CACHET_OK; i++)
      status = fetch(w->c, m, w->next + i, 1);
  }
  if (status == CACHET_OK)
    w->next += n;
  return status;
}

/* ---- At a daemon --------------------------------------------------------- */

static void piece_done(struct backend_job *j) {
  struct piece *p = j->owner;
  p->took_ns = clock_now_ns() - p->asked_ns;
}

/* False: no memory. */
static bool piece_ask(struct warming *w, struct mirror *m, uint64_t end) {
  struct backend *b = w->c->backend;
  struct piece *p = &w->pieces[(w->oldest + w->n) % WARM_WIDTH_MOST];
  *p = (struct piece){.asked_ns = clock_now_ns()};
  p->job =
      b->ops->warm(b, m, w->next, piece_pages(m, end - w->next), piece_done, p);
  if (!p->job)
    return false;
  w->next += p->job->count;
  w->n++;
  return true;
}

static void piece_drop(struct warming *w) {
  struct backend *b = w->c->backend;
  b->ops->drop(b, w->pieces[w->oldest].job);
  w->oldest = (w->oldest + 1) % WARM_WIDTH_MOST;
  w->n--;
}

/* Gives the pieces in progress up.  A daemon continues with those that it was
 * asked for. */
static void drop_all(struct warming *w) {
  if (w->n)
    w->next = w->pieces[w->oldest].job->first;
  while (w->n)
    piece_drop(w);
}

/* P1, but for what is loaded. */
static void warming_check(const struct warming *w) {
  uint64_t at = w->n ? w->pieces[w->oldest].job->first : w->next;
  assert(w->n <= WARM_WIDTH_MOST);
  for (unsigned i = 0; i < w->n; i++) {
    const struct backend_job *j =
        w->pieces[(w->oldest + i) % WARM_WIDTH_MOST].job;
    assert(j->first == at);
    at += j->count;
  }
  assert(at == w->next);
}

static enum cachet_status load_there(struct warming *w, struct mirror *m,
                                     uint64_t end) {
  while (w->n < w->width.n && w->next < end)
    if (!piece_ask(w, m, end))
      return handle_fail(w->c, CACHET_E_NOMEM, 0, "no memory for a request");
  warming_check(w);
  const struct piece *p = &w->pieces[w->oldest];
  enum cachet_status status = await(w->c, p->job);
  if (status != CACHET_OK)
    return status;
  warm_width_ended(&w->width, p->took_ns);
  piece_drop(w);
  return CACHET_OK;
}

/* ---- Both ---------------------------------------------------------------- */

/* The page after the range, which is cut at the end of the image. */
static uint64_t end_of(const cachet *c, const struct mirror *m, uint64_t addr,
                       uint64_t len) {
  uint64_t first = 0;
  uint64_t count = handle_pages(c, m, m->page_shift, addr, len, &first);
  return first + count;
}

/* CACHET_END: all of it is loaded. */
static enum cachet_status load_piece(struct warming *w, uint64_t addr,
                                     uint64_t len) {
  struct mirror *m = w->c->epoch->mirror;
  uint64_t end = end_of(w->c, m, addr, len);
  if (w->n == 0 && w->next >= end)
    return CACHET_END;
  return w->c->backend->ops->warm ? load_there(w, m, end)
                                  : load_here(w, m, end);
}

/* In a new epoch; BOUNDS: the daemon knew of a shorter one. */
static bool may_try_again(enum cachet_status status) {
  return status == CACHET_E_CHANGED || status == CACHET_E_BOUNDS;
}

enum cachet_status cachet_warm(cachet *c, uint64_t addr, uint64_t len) {
  if (!handle_enter_to_wait(c))
    return handle_fail_forked(c);
  if (c->in_callback)
    return handle_fail(c, CACHET_E_INVAL, 0,
                       "a call that would wait, in a callback");
  struct warming w = {.c = c,
                      .next = (c->window.offset + addr) >>
                              c->epoch->mirror->page_shift,
                      .width = warm_width_begin()};
  for (unsigned n_attempts = 0;;) {
    enum cachet_status status = request_renew_epoch(c);
    bool is_final = status != CACHET_OK;
    if (status == CACHET_OK)
      status = load_piece(&w, addr, len);
    if (status == CACHET_OK)
      continue;
    drop_all(&w);
    if (status == CACHET_END)
      return CACHET_OK;
    if (is_final || !may_try_again(status) ||
        ++n_attempts == REQUEST_MAX_ATTEMPTS)
      return status;
  }
}

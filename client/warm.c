/* Warming: loading a range, and waiting for it.
 *
 * It goes piece by piece, so that a time-out is one of a piece; between pieces
 * the handle takes the image's present epoch, and the rest of the range is cut
 * at that one's end. */
#include "base/deadline.h"
#include "client/backend.h"
#include "client/epoch.h"
#include "client/handle.h"
#include "client/request.h"

#define PIECE_LEN (16u << 20) /* what one wait for a daemon may take */
#define CHUNK_LEN (4u << 20)  /* what is read, and kept aside, in process */

static void job_done(struct backend_job *j) { (void)j; }

/* The next chunk, on this thread or by joining another's read. */
static enum cachet_status fetch_chunk(cachet *c, struct mirror *m,
                                      uint64_t first, uint32_t count) {
  struct backend *b = c->backend;
  struct backend_job *j =
      b->ops->fetch(b, m, first, count, first + count, job_done, c);
  if (!j)
    return handle_fail(c, CACHET_E_NOMEM, 0, "no memory for a read");
  int64_t deadline = deadline_after(c->options.request_timeout_ms);
  while (!j->is_done && backend_wait(b, deadline))
    ;
  enum cachet_status status = j->error.code;
  if (!j->is_done) {
    b->ops->explain(b, &c->error);
    status = c->error.code;
  } else if (status != CACHET_OK) {
    c->error = j->error;
  }
  b->ops->drop(b, j);
  return status;
}

/* In process.  The error of several pages names them all: they are asked for
 * again, one by one, for the page that it is. */
static enum cachet_status fetch_piece(cachet *c, struct mirror *m,
                                      uint64_t first, uint64_t count) {
  uint64_t most = CHUNK_LEN >> m->page_shift, single_until = 0;
  if (most > FETCH_MAX_PAGES)
    most = FETCH_MAX_PAGES;
  for (uint64_t page = first; page < first + count;) {
    uint64_t n = first + count - page;
    if (n > most)
      n = most;
    if (page < single_until)
      n = 1;
    enum cachet_status status = fetch_chunk(c, m, page, (uint32_t)n);
    if (n > 1 && (status == CACHET_E_IO || status == CACHET_E_NOMEM))
      single_until = page + n;
    else if (status != CACHET_OK)
      return status;
    else
      page += n;
  }
  return CACHET_OK;
}

static enum cachet_status load_piece(cachet *c, struct mirror *m,
                                     uint64_t first, uint64_t count) {
  struct backend *b = c->backend;
  return b->ops->warm ? b->ops->warm(b, m, first, count, &c->error)
                      : fetch_piece(c, m, first, count);
}

/* The page after the last of the range, cut at the end. */
static uint64_t end_of(const cachet *c, const struct mirror *m, uint64_t addr,
                       uint64_t len) {
  uint64_t first = 0;
  uint64_t count = handle_pages(c, m, m->page_shift, addr, len, &first);
  return first + count;
}

enum cachet_status cachet_warm(cachet *c, uint64_t addr, uint64_t len) {
  if (!handle_enter_to_wait(c))
    return handle_fail_forked(c);
  if (c->in_callback)
    return handle_fail(c, CACHET_E_INVAL, 0,
                       "a call that would wait, in a callback");
  uint64_t page = (c->window.offset + addr) >> c->epoch->mirror->page_shift;
  for (unsigned n_attempts = 0;;) {
    enum cachet_status status = request_renew_epoch(c);
    if (status != CACHET_OK)
      return status;
    struct mirror *m = c->epoch->mirror;
    uint64_t end = end_of(c, m, addr, len), most = PIECE_LEN >> m->page_shift;
    if (page >= end)
      return CACHET_OK;
    uint64_t count = end - page < most ? end - page : most;
    status = load_piece(c, m, page, count);
    if (status == CACHET_OK)
      page += count;
    else if ((status != CACHET_E_CHANGED && status != CACHET_E_BOUNDS) ||
             ++n_attempts == REQUEST_MAX_ATTEMPTS)
      return status; /* BOUNDS: the daemon knew of a shorter epoch */
  }
}

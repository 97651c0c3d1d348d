/* The asynchronous calls: requests that the caller's event loop moves on.
 *
 * Callbacks run from cachet_dispatch() only (and cachet_close()), off the list
 * of completed requests, so never under anything of ours. */
#include "client/handle.h"

#include "base/deadline.h"
#include "client/request.h"

/* ---- What to watch ------------------------------------------------------- */

int cachet_fd(const cachet *c) { return c->backend->ops->fd(c->backend); }

short cachet_events(const cachet *c) {
  return c->backend->ops->events(c->backend);
}

int cachet_timeout_ms(const cachet *c) {
  if (!TAILQ_EMPTY(&c->completed) || !TAILQ_EMPTY(&c->ready))
    return 0;
  int64_t deadline = -1;
  const struct cachet_request *r;
  TAILQ_FOREACH(r, &c->waiting, link)
    deadline = deadline_earlier(deadline, r->deadline);
  return (int)deadline_earlier(deadline_left_ms(deadline),
                               c->backend->ops->timeout_ms(c->backend));
}

void cachet_set_watch(cachet *c, cachet_watch_cb fn, void *arg) {
  c->watch = fn;
  c->watch_arg = fn ? arg : NULL;
}

void *cachet_watch_arg(const cachet *c) { return c->watch_arg; }

/* ---- Submitting ---------------------------------------------------------- */

/* Takes on a copy of `given`.  It goes as far as it can without reading a
 * source on this thread: that is left to cachet_dispatch(). */
static enum cachet_status submit(cachet *c, const struct cachet_request *given,
                                 struct cachet_request **out) {
  if (!handle_enter(c))
    return handle_fail_forked(c);
  if (c->closing)
    return handle_fail(c, CACHET_E_CANCELED, 0, "the handle is being closed");
  struct cachet_request *r = malloc(sizeof *r);
  if (!r)
    return handle_fail(c, CACHET_E_NOMEM, 0, "no memory for a request");
  *r = *given;
  r->deadline = deadline_after(c->options.request_timeout_ms);
  enum cachet_status status = request_begin(r);
  if (status != CACHET_OK) {
    if (status < 0)
      c->error = r->error;
    free(r);
    return status;
  }
  TAILQ_INSERT_TAIL(&c->ready, r, link);
  c->n_requests++;
  bool holds = c->backend->holds;
  c->backend->holds = true; /* the next dispatch sends it */
  request_step(r, c->backend->ops->blocks ? REQUEST_LOOK : REQUEST_FETCH);
  c->backend->holds = holds;
  if (out)
    *out = r;
  backend_changed(c->backend);
  return CACHET_OK;
}

enum cachet_status cachet_load_async(cachet *c, uint64_t addr, size_t min_len,
                                     cachet_load_cb cb, void *arg,
                                     struct cachet_request **out) {
  if (!cb)
    return handle_fail(c, CACHET_E_INVAL, 0, "load_async: no callback");
  struct cachet_request r = {.c = c,
                             .kind = REQUEST_LOAD,
                             .addr = addr,
                             .len = min_len,
                             .load_cb = cb,
                             .arg = arg};
  return submit(c, &r, out);
}

enum cachet_status cachet_read_async(cachet *c, uint64_t addr, void *buf,
                                     size_t len, cachet_read_cb cb, void *arg,
                                     struct cachet_request **out) {
  if (!cb || (len && !buf))
    return handle_fail(c, CACHET_E_INVAL, 0, "read_async: no %s",
                       cb ? "buffer" : "callback");
  struct cachet_request r = {.c = c,
                             .kind = REQUEST_READ,
                             .addr = len ? addr : 0, /* 0 bytes are anywhere */
                             .len = len,
                             .buf = buf,
                             .read_cb = cb,
                             .arg = arg};
  return submit(c, &r, out);
}

enum cachet_status cachet_cancel(cachet *c, struct cachet_request *request) {
  if (*c->alive == 0)
    return handle_fail_forked(c);
  if (!request || request->c != c)
    return handle_fail(c, CACHET_E_INVAL, 0, "cancel: no request of this one");
  if (request->state != REQUEST_COMPLETE)
    request_fail(request, CACHET_E_CANCELED, "cancelled");
  return CACHET_OK;
}

/* ---- Dispatching --------------------------------------------------------- */

static void dispatch_late(cachet *c) {
  int64_t now = deadline_now();
  struct cachet_request *r = TAILQ_FIRST(&c->waiting), *next;
  for (; r; r = next) {
    next = TAILQ_NEXT(r, link);
    request_expire(r, now);
  }
}

enum cachet_status cachet_dispatch(cachet *c) {
  if (*c->alive == 0)
    return handle_fail_forked(c);
  if (c->in_callback)
    return handle_fail(c, CACHET_E_INVAL, 0, "dispatch, in a callback");
  struct backend *b = c->backend;
  b->ops->progress(b);
  b->holds = true;
  dispatch_late(c);
  /* What becomes ready or complete from here on is for the next time: the
   * caller's loop gets its turn.  A request moves from the list it is on. */
  const struct cachet_request *last = TAILQ_LAST(&c->ready, request_list);
  struct cachet_request *r = last ? TAILQ_FIRST(&c->ready) : NULL, *next;
  for (; r; r = next) {
    next = r == last ? NULL : TAILQ_NEXT(r, link);
    request_step(r, REQUEST_FETCH);
  }
  struct request_list due = TAILQ_HEAD_INITIALIZER(due);
  TAILQ_CONCAT(&due, &c->completed, link);
  while ((r = TAILQ_FIRST(&due))) {
    TAILQ_REMOVE(&due, r, link);
    request_deliver(r, r->error.code);
  }
  b->holds = false;
  if (b->ops->flush)
    b->ops->flush(b);
  handle_check(c);
  request_check(c);
  backend_changed(c->backend);
  return CACHET_OK;
}

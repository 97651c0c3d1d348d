/* The backend of a daemon's image: the calls of the rest of the library, and
 * how they continue when the connection is lost and made again.
 *
 * The invariants are listed in internal.h.  This file keeps: of R1, when the
 * backend tries to connect; of R2, that a dropped request is forgotten only
 * with its answer; of R4, that pages that may be stale are dropped when a
 * connection is READY; of R6, that it asks again for a mirror that is
 * retired. */
#include "client/remote/remote.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/deadline.h"
#include "client/error.h"
#include "client/image_cache.h"
#include "client/remote/attach.h"
#include "client/remote/command.h"
#include "client/remote/connection.h"
#include "client/remote/internal.h"
#include "client/remote/notice.h"
#include "client/remote/pending.h"
#include "client/remote/read.h"
#include "client/remote/readahead.h"
#include "client/remote/renew.h"
#include "client/remote/warm.h"

enum {
  RETRY_FIRST_MS = 2, /* a daemon that is replaced is back in tens of ms */
  RETRY_LAST_MS = 200,
  OPEN_MAX_CUTS = 5, /* how many daemons may end during the handshake */
  FULL_PATIENCE_MS = 80,
  /* Two of the longest readahead windows (handle.c), which have nine Reads each
   * if they are not aligned, and some Reads whose answers were not received
   * yet. */
  MAX_PREFETCHES = 24,
};

/* ---- The connection ------------------------------------------------------ */

static void on_message(void *arg, const wire_message *msg, uint32_t payload_len,
                       uint8_t **payload) {
  struct remote *r = arg;
  struct pending *x = msg->id ? pending_find(r, msg->id) : NULL;
  if (msg->id == 0 && remote_notice(r, msg))
    return;
  if (msg->id && msg->id == r->attach_id) {
    remote_attach_answer(r, msg);
    return;
  }
  if (msg->id && msg->id == r->grow_id) {
    remote_attach_grow_answer(r, msg);
    return;
  }
  if (!x)
    remote_violation(r, "an answer that nothing had asked for");
  else if (msg->body_case == CACHET__WIRE__MESSAGE__BODY_DATA)
    remote_read_data(r, x, msg->data, payload_len, payload);
  else
    pending_answered(r, x, msg);
}

static void on_ready(void *arg, const struct connection_image *image) {
  struct remote *r = arg;
  if (!image)
    return;
  debug_say(&r->base.debug, "is connected: %llu bytes, epoch %#llx",
            (unsigned long long)image->size, (unsigned long long)image->epoch);
  bool goes_on = connection_image_goes_on(&r->heard, image);
  r->image_id = image->id;
  r->heard = *image;
  struct image_cache *s = r->base.image_cache;
  remote_attach_ready(r);
  if (!s)
    return;
  /* Notices may have been missed: whatever is cached may be stale.  (R4) */
  int e = image_cache_set_epoch(s, 0, image->size, image->epoch);
  if (e == 0 && !goes_on)
    e = remote_notice_drop(r, 0, UINT64_MAX);
  if (e < 0)
    remote_notice_failed(r, e);
}

/* Whether an open tries another connection: the daemon had no room, or it ended
 * and the service manager that has its socket may start another one. */
static bool remote_opens_again(const struct remote *r) {
  return r->error.sys_errno == EAGAIN ||
         (r->n_cuts > 0 && r->n_cuts <= OPEN_MAX_CUTS);
}

static void on_lost(void *arg, enum connection_loss loss,
                    const struct cachet_error *why) {
  struct remote *r = arg;
  debug_say(&r->base.debug, "has lost the connection: %s", why->message);
  r->error = *why;
  r->attach_id = 0;
  if (r->grow_id)
    remote_attach_grow_end(r);
  r->is_final = loss == CONNECTION_LOST_FINAL;
  /* At once if the last connection was of use, and then after growing
   * pauses. */
  r->retry_at = deadline_now() + r->retry_ms;
  r->retry_ms = r->retry_ms ? r->retry_ms * 2 : RETRY_FIRST_MS;
  if (r->retry_ms > RETRY_LAST_MS)
    r->retry_ms = RETRY_LAST_MS;
  remote_readahead_drop_all(r);
  pending_unsend_all(r);
  r->n_cuts = loss == CONNECTION_LOST_CUT ? r->n_cuts + 1 : 0;
  /* An open whose connection was refused with a reason does not connect again.
   * A time-out is that of the open itself, which ends by its own deadline. */
  if (!remote_opens_again(r) && why->code != CACHET_E_TIMEOUT)
    r->is_opening = false;
  if (loss > CONNECTION_LOST_CUT)
    pending_fail_all(r, &r->error);
}

static void on_changed(void *arg) {
  backend_changed(&((struct remote *)arg)->base);
}

/* ---- Operations ---------------------------------------------------------- */

static void remote_drain(struct backend *b) {
  struct remote *r = remote_of(b);
  connection_input(r->connection);
  if (!TAILQ_EMPTY(&r->queue))
    pending_pump(r); /* there may be room, and no other call would see it */
}

/* Where no call is under way. */
static void remote_check(const struct remote *r) {
  (void)r;
#ifdef CACHETD_DEBUG_CHECKS
  pending_check(r);
  remote_readahead_check(r);
#endif
}

static void remote_progress(struct backend *b) {
  struct remote *r = remote_of(b);
  connection_progress(r->connection);
  remote_readahead_expire(r);
  pending_pump(r);
  remote_check(r);
}

/* Connects although nothing is queued.  No other call would: see R1. */
static bool remote_keep_up(struct backend *b) {
  struct remote *r = remote_of(b);
  remote_progress(b);
  if (connection_state(r->connection) == CONNECTION_DISCONNECTED && b->shared &&
      !r->is_final && deadline_now() >= r->retry_at)
    remote_start(r);
  return connection_state(r->connection) != CONNECTION_DISCONNECTED &&
         !remote_is_ready(r);
}

/* A daemon that cannot be reached may be back at another address. */
static void remote_before_wait(struct backend *b) {
  struct remote *r = remote_of(b);
  if (!remote_is_look_up_due(r))
    return;
  debug_say(&r->base.debug, "looks up %s again", r->uri.host);
  connection_look_up(r->connection, &r->uri);
}

static int remote_fd(const struct backend *b) {
  return connection_fd(remote_of_const(b)->connection);
}

static short remote_events(const struct backend *b) {
  return connection_events(remote_of_const(b)->connection);
}

static int remote_timeout_ms(const struct backend *b) {
  const struct remote *r = remote_of_const(b);
  if (connection_has_more(r->connection))
    return 0;
  if (connection_state(r->connection) != CONNECTION_DISCONNECTED)
    return deadline_left_ms(deadline_earlier(connection_deadline(r->connection),
                                             remote_readahead_deadline(r)));
  bool wanted = r->is_opening || !TAILQ_EMPTY(&r->queue);
  return wanted && !r->is_final ? deadline_left_ms(r->retry_at) : -1;
}

/* While there is no connection, or one is being made, what ended the last one
 * is the reason. */
static void remote_explain(const struct backend *b, struct cachet_error *out) {
  const struct remote *r = remote_of_const(b);
  bool was_silent = r->error.code == CACHET_E_TIMEOUT;
  const char *place = connection_place(r->connection);
  if (connection_state(r->connection) > CONNECTION_CONNECTING)
    error_set(out, CACHET_E_TIMEOUT, 0, "daemon at %.150s: no answer in time",
              place);
  else if (r->error.code != CACHET_OK)
    error_set(out, was_silent ? CACHET_E_TIMEOUT : CACHET_E_CONN, 0, "%s",
              r->error.message);
  else
    error_set(out, CACHET_E_CONN, ETIMEDOUT, "daemon at %.150s: connect",
              place);
}

static bool remote_has(const struct backend *b, const struct mirror *m,
                       uint64_t page) {
  return remote_readahead_has(remote_of_const(b), m, page);
}

/* Gives a Read that was sent ahead to a reader that has come to `page` of it,
 * and asks for the pages behind it. */
static struct backend_job *hand_over(struct remote *r, struct remote_read *x,
                                     uint64_t page, uint64_t until,
                                     void (*done)(struct backend_job *),
                                     void *owner) {
  struct backend_job *j = &x->base.job;
  remote_read_adopt(r, x, done, owner);
  remote_readahead_come_to(r, x, page, until);
  if (j->is_done)
    remote_read_install(x);
  remote_readahead_reached(r, j->mirror, page, j->first + j->count - page,
                           until, true);
  return j;
}

static struct backend_job *take(struct backend *b, struct mirror *m,
                                uint64_t page, uint64_t until, void *owner) {
  struct remote *r = remote_of(b);
  struct remote_read *x =
      remote_is_trusted(b) ? remote_readahead_take(r, m, page) : NULL;
  return x ? hand_over(r, x, page, until, NULL, owner) : NULL;
}

static struct backend_job *fetch(struct backend *b, struct mirror *m,
                                 uint64_t first, uint32_t count, uint64_t until,
                                 void (*done)(struct backend_job *),
                                 void *owner) {
  struct remote *r = remote_of(b);
  if (!b->shared)
    remote_attach_again(r);
  struct remote_read *x =
      r->n_unowned ? remote_read_underway(r, m, first) : NULL;
  if (x)
    return hand_over(r, x, first, until, done, owner);
  x = remote_read_new(r, m, first, count);
  if (!x)
    return NULL;
  struct backend_job *j = &x->base.job;
  if (x->n_pages == 0) {
    j->is_done = true;
    return j;
  }
  pending_submit(r, &x->base, done, owner);
  if (!j->is_done)
    remote_readahead_reached(r, m, first, j->count, until, false);
  return j;
}

static void remote_flush(struct backend *b) {
  connection_flush(remote_of(b)->connection);
}

/* From here to end_batch() messages are collected, and then sent together. */
static bool begin_batch(struct backend *b) {
  bool holds = b->holds;
  b->holds = true;
  return holds;
}

static void end_batch(struct backend *b, bool holds) {
  b->holds = holds;
  if (!holds)
    remote_flush(b);
}

static struct backend_job *remote_take(struct backend *b, struct mirror *m,
                                       uint64_t page, uint64_t until,
                                       void *owner) {
  bool holds = begin_batch(b);
  struct backend_job *j = take(b, m, page, until, owner);
  end_batch(b, holds);
  return j;
}

static struct backend_job *remote_fetch(struct backend *b, struct mirror *m,
                                        uint64_t first, uint32_t count,
                                        uint64_t until,
                                        void (*done)(struct backend_job *),
                                        void *owner) {
  bool holds = begin_batch(b);
  struct backend_job *j = fetch(b, m, first, count, until, done, owner);
  end_batch(b, holds);
  return j;
}

/* Whether the daemon has sent nothing at all for the time limit of a request,
 * although a request was outstanding all that time. */
static bool is_silent(const struct remote *r) {
  const struct pending *x = TAILQ_FIRST(&r->sent); /* the oldest */
  if (connection_state(r->connection) != CONNECTION_READY ||
      r->options.request_timeout_ms < 0 || (!x && !r->attach_id))
    return false;
  int64_t since = connection_heard_at(r->connection);
  int64_t asked_at = x ? x->sent_at : r->attach_at;
  if (since < asked_at)
    since = asked_at;
  return deadline_now() - since >= r->options.request_timeout_ms;
}

static void remote_drop(struct backend *b, struct backend_job *j) {
  struct remote *r = remote_of(b);
  bool was_done = j->is_done;
  pending_drop(r, (struct pending *)j);
  /* If the daemon was silent, the connection is ended together with the request
   * that timed out.  The next request then gets a new connection, and need not
   * wait for the same time-out. */
  if (!was_done && is_silent(r))
    connection_break(r->connection, CONNECTION_LOST_RETRY, CACHET_E_TIMEOUT,
                     "it does not answer");
}

/* Sends one Read.  Returns how many of the pages it covers; 0: none can be
 * asked for now. */
static uint32_t prefetch_chunk(struct remote *r, struct mirror *m,
                               uint64_t first, uint32_t count) {
  if (!remote_is_ready(r) || r->n_unowned >= MAX_PREFETCHES)
    return 0;
  return remote_read_unowned(r, m, first, count, NULL);
}

static uint32_t remote_prefetch(struct backend *b, struct mirror *m,
                                uint64_t first, uint32_t count) {
  uint32_t done = 0, taken;
  do {
    uint32_t n =
        count - done < FETCH_MAX_PAGES ? count - done : FETCH_MAX_PAGES;
    taken = prefetch_chunk(remote_of(b), m, first + done, n);
    done += taken;
  } while (taken && done < count);
  return done;
}

/* ---- Commands ------------------------------------------------------------ */

static enum cachet_status remote_invalidate(struct backend *b, uint64_t first,
                                            uint64_t count,
                                            struct cachet_error *err) {
  struct remote *r = remote_of(b);
  unsigned shift = image_page_shift(b->image_cache->image);
  Cachet__Wire__Range range = CACHET__WIRE__RANGE__INIT;
  range.offset = first << shift;
  range.length = count << shift;
  Cachet__Wire__Invalidate invalidate = CACHET__WIRE__INVALIDATE__INIT;
  invalidate.range = &range;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_INVALIDATE;
  msg.invalidate = &invalidate;
  enum cachet_status status = remote_command(
      b, &msg, CACHET__WIRE__MESSAGE__BODY_DONE, NULL, NULL, err);
  if (status != CACHET_OK || b->shared)
    return status;
  /* The notice of this invalidation was received already.  But since then a
   * copy of this handle may have installed pages that it had asked for
   * before. */
  int e = remote_notice_drop(r, range.offset, range.length);
  if (e < 0)
    return error_set(err, error_from_errno(-e), -e,
                     "image \"%.100s\": invalidate", b->image_cache->name);
  return CACHET_OK;
}

/* ---- Life ---------------------------------------------------------------- */

static const struct backend_ops remote_ops;

static void remote_free(struct remote *r) {
  connection_free(r->connection);
  uri_fini(&r->uri);
  free(r);
}
CLEANUP_FUNCTION(struct remote *, remote_free)

void remote_abandon(struct backend *b) {
  struct remote *r = remote_of(b);
  connection_abandon(r->connection);
  r->connection = NULL;
}

static void remote_close(struct backend *b) {
  struct remote *r = remote_of(b);
  if (b->image_cache && image_cache_is_forked(b->image_cache)) {
    remote_abandon(b); /* the parent uses the mirrors and the image cache */
  } else {
    remote_check(r);
    remote_readahead_drop_all(r);
    pending_free_all(r);
    shared_view_unref(b->shared);
    if (b->image_cache)
      image_cache_unref(b->image_cache);
  }
  remote_free(r);
}

static void remote_end(struct remote *r) { remote_close(&r->base); }
CLEANUP_FUNCTION(struct remote *, remote_end)

/* Not connected yet.  `image_cache` stays the caller's. */
static enum cachet_status remote_new(const struct uri *u,
                                     const struct options *options,
                                     bool open_image, struct remote **out,
                                     struct cachet_error *err) {
  CLEANUP(remote_freep) struct remote *r = calloc(1, sizeof *r);
  if (!r)
    return error_set(err, CACHET_E_NOMEM, 0, "no memory for a handle");
  r->base.ops = &remote_ops;
  r->options = *options;
  TAILQ_INIT(&r->queue);
  TAILQ_INIT(&r->sent);
  remote_readahead_init(r);
  struct connection_owner owner = {.ready = on_ready,
                                   .message = on_message,
                                   .payload = remote_read_payload,
                                   .lost = on_lost,
                                   .changed = on_changed,
                                   .arg = r};
  enum cachet_status status = uri_copy(u, &r->uri);
  debug_init(&r->base.debug, status == CACHET_OK ? r->uri.image : "");
  if (status != CACHET_OK)
    return error_set(err, status, 0, "no memory for an address");
  status =
      connection_new(u, open_image, options->connect_timeout_ms,
                     options->request_timeout_ms, &owner, &r->connection, err);
  if (status == CACHET_OK)
    *out = STEAL(r);
  return status;
}

/* A cache that is full makes room within milliseconds.  A handle that is being
 * opened waits a little for it, so that it shares memory from the start. */
static bool remote_waits_for_room(const struct remote *r) {
  return remote_is_ready(r) && r->again_at && r->is_full &&
         r->again_ms <= FULL_PATIENCE_MS;
}

/* Waits until the connection is READY.  If no daemon listens, that is an error
 * at once.  If the backlog of a daemon is full, or if it ends during the
 * handshake, this waits for it or for its successor. */
static enum cachet_status remote_wait_ready(struct remote *r,
                                            struct cachet_error *err) {
  int64_t deadline = deadline_after(r->options.connect_timeout_ms);
  r->is_opening = true;
  pending_pump(r);
  struct cachet_error why = {0};
  while (why.code == CACHET_OK &&
         (!remote_is_ready(r) || remote_waits_for_room(r))) {
    int64_t until =
        remote_is_ready(r) ? deadline_earlier(deadline, r->again_at) : deadline;
    if (connection_state(r->connection) == CONNECTION_DISCONNECTED &&
        !remote_opens_again(r))
      why = r->error;
    else if (!backend_wait(&r->base, until) && until == deadline)
      break;
    remote_attach_again(r);
  }
  if (why.code == CACHET_OK && !remote_is_ready(r))
    remote_explain(&r->base, &why);
  r->is_opening = false;
  if (why.code != CACHET_OK)
    debug_say(&r->base.debug, "gives up opening: %s", why.message);
  if (why.code != CACHET_OK && err)
    *err = why;
  return why.code;
}

enum cachet_status remote_connect(const struct uri *u,
                                  const struct options *options,
                                  struct backend **out,
                                  struct cachet_error *err) {
  CLEANUP(remote_endp) struct remote *r = NULL;
  enum cachet_status status = remote_new(u, options, false, &r, err);
  if (status == CACHET_OK)
    status = remote_wait_ready(r, err);
  if (status == CACHET_OK)
    *out = &STEAL(r)->base;
  return status;
}

enum cachet_status remote_connect_image(const struct uri *u,
                                        const struct options *options,
                                        struct backend **out,
                                        struct cachet_error *err) {
  CLEANUP(remote_endp) struct remote *r = NULL;
  enum cachet_status status = remote_new(u, options, true, &r, err);
  if (status == CACHET_OK)
    status = remote_wait_ready(r, err);
  if (status == CACHET_OK) {
    const struct connection_image *image = &r->heard;
    status = image_cache_new_remote(u->image, image->size, image->page_shift,
                                    image->epoch, options, &r->base.image_cache,
                                    err);
  }
  if (status == CACHET_OK)
    *out = &STEAL(r)->base;
  return status;
}

static enum cachet_status remote_copy(struct backend *b, struct backend **out,
                                      struct cachet_error *err) {
  struct remote *r = remote_of(b);
  CLEANUP(remote_endp) struct remote *copy = NULL;
  enum cachet_status status =
      remote_new(&r->uri, &r->options, true, &copy, err);
  if (status != CACHET_OK)
    return status;
  copy->base.image_cache = image_cache_ref(b->image_cache);
  status = remote_wait_ready(copy, err);
  if (status == CACHET_OK)
    *out = &STEAL(copy)->base;
  return status;
}

static const struct backend_ops remote_ops = {
    .invalidate_waits = true,
    .copy_waits = true,
    .has = remote_has,
    .take = remote_take,
    .fetch = remote_fetch,
    .renew = remote_renew,
    .bytes = remote_read_bytes,
    .drop = remote_drop,
    .drain = remote_drain,
    .keep_up = remote_keep_up,
    .is_trusted = remote_is_trusted,
    .progress = remote_progress,
    .before_wait = remote_before_wait,
    .flush = remote_flush,
    .fd = remote_fd,
    .events = remote_events,
    .timeout_ms = remote_timeout_ms,
    .explain = remote_explain,
    .prefetch = remote_prefetch,
    .warm = remote_warm,
    .grow = remote_attach_grow,
    .invalidate = remote_invalidate,
    .copy = remote_copy,
    .close = remote_close,
};

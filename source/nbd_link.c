#include "source/nbd_link.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libnbd.h>

#include "cache/source.h"
#include "source/nbd_dial.h"

enum {
  /* Every server has to take this much if it states no limit. */
  MAX_PIECE = 32 << 20,
  MAX_QUESTION = 1 << 30,
  MIN_ANSWER = 1 << 20, /* one that says enough, if it is not all */
  PATIENCE = 64,
};

/* ---- Pieces -------------------------------------------------------------- */

static int on_chunk(void *arg, const void *bytes, size_t len, uint64_t offset,
                    unsigned kind, int *error) {
  struct nbd_read *r = arg;
  (void)bytes;
  r->has_data |= kind == LIBNBD_READ_DATA;
  if (kind == LIBNBD_READ_ERROR || coverage_add(&r->seen, offset, offset + len))
    return 0;
  *error = EPROTO;
  return -1;
}

/* libnbd calls this under its lock, so the rest is left to settle(). */
static int on_complete(void *arg, int *error) {
  struct nbd_read *r = arg;
  struct nbd_link *l = r->link;
  r->error = *error;
  if (!r->error && !coverage_is(&r->seen, r->begin, r->end))
    r->error = EPROTO;
  TAILQ_REMOVE(&l->asked, r, entry);
  TAILQ_INSERT_TAIL(&l->answered, r, entry);
  return 1;
}

/* Finds the next piece of a read, in whole blocks.  NULL: no memory. */
static char *choose_piece(const struct nbd_link *l, struct nbd_read *r) {
  uint64_t from = r->offset + r->n_done, to = r->offset + r->len;
  uint64_t block = l->block_size;
  r->begin = from / block * block;
  r->end = (to + block - 1) / block * block;
  if (r->end > l->size) /* the export may not end with a whole block */
    r->end = l->size;
  if (r->end - r->begin > l->max_size)
    r->end = r->begin + l->max_size;
  if (r->begin == from && r->end <= to)
    return (char *)r->buf + r->n_done;
  return r->aligned = malloc(r->end - r->begin);
}

/* Asks for the next piece.  If that fails, the read is answered with the
 * error. */
static void ask(struct nbd_link *l, struct nbd_read *r) {
  r->seen = (struct coverage){0};
  char *to = choose_piece(l, r);
  nbd_chunk_callback chunk = {.callback = on_chunk, .user_data = r};
  nbd_completion_callback complete = {.callback = on_complete, .user_data = r};
  TAILQ_INSERT_TAIL(&l->asked, r, entry);
  if (to && nbd_aio_pread_structured(l->h, to, r->end - r->begin, r->begin,
                                     chunk, complete, 0) >= 0)
    return;
  r->error = to ? EINVAL : ENOMEM;
  TAILQ_REMOVE(&l->asked, r, entry);
  TAILQ_INSERT_TAIL(&l->answered, r, entry);
}

/* Takes the result of a piece.  Returns whether it was the last one. */
static bool take_piece(struct nbd_read *r) {
  uint64_t from = r->offset + r->n_done, to = r->offset + r->len;
  size_t n = (r->end < to ? r->end : to) - from;
  if (r->aligned)
    memcpy((char *)r->buf + r->n_done, (char *)r->aligned + (from - r->begin),
           n);
  free(r->aligned);
  r->aligned = NULL;
  r->n_done += n;
  return r->n_done == r->len;
}

/* ---- Questions ----------------------------------------------------------- */

/* Takes extents, each a length and flags.  One that goes on past the end of the
 * export ends there; newer versions of libnbd cut it themselves.  After an
 * impossible answer the link asks no further question. */
static int on_extents(void *arg, const char *context, uint64_t offset,
                      uint32_t *entries, size_t n, int *error) {
  struct nbd_link *l = arg;
  struct nbd_question *q = &l->question;
  (void)error;
  if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
    return 0;
  bool is_right = offset == q->at && n % 2 == 0;
  for (size_t i = 0; is_right && i < n; i += 2) {
    uint64_t rest = l->size - q->at;
    uint64_t end = q->at + (entries[i] < rest ? entries[i] : rest);
    is_right = end > q->at;
    if (is_right)
      l->calls->told(l, q->at, end, entries[i + 1] & LIBNBD_STATE_ZERO);
    q->at = end;
  }
  l->has_answers &= is_right;
  return 0;
}

/* Ends a question.  An error concerns only the question, not the link.  After
 * an answer that libnbd cannot read the link asks no further question; if the
 * answers cover little, it stops asking after some time. */
static int on_answered(void *arg, int *error) {
  struct nbd_link *l = arg;
  struct nbd_question *q = &l->question;
  bool says_enough = q->at >= q->end || q->at - q->begin >= MIN_ANSWER;
  if (*error == EPROTO || ((*error || !says_enough) && --l->patience == 0))
    l->has_answers = false;
  q->is_lost = *error == ENOTCONN;
  q->is_asked = false;
  return 1;
}

bool nbd_link_may_ask(const struct nbd_link *l) {
  return l->has_answers && !l->question.is_asked;
}

/* ---- Ends ---------------------------------------------------------------- */

/* The status of a read from the error of the server. */
static int status_of(const struct nbd_link *l, int error) {
  switch (error) {
  case 0:
    return 0;
  case ENOTCONN: /* none: the connection is gone */
    return l->status < 0 ? l->status : -ECONNRESET;
  case ESHUTDOWN:
    return -ECONNRESET;
  case EPERM:
    return -EACCES;
  case EPROTO:
    return -EPROTO;
  default:
    return -EIO;
  }
}

static void end_read(struct nbd_link *l, struct nbd_read *r, int status) {
  free(r->aligned);
  r->aligned = NULL;
  r->status = status;
  l->n_reads--;
  r->done(r);
}

static void hang_up(struct nbd_link *l) {
  event_del(&l->socket);
  event_del(&l->settle);
  nbd_close(l->h);
  l->h = NULL;
  if (l->fd >= 0)
    close(l->fd);
}

static struct nbd_read *take_first(struct nbd_reads *reads) {
  struct nbd_read *r = TAILQ_FIRST(reads);
  if (r)
    TAILQ_REMOVE(reads, r, entry);
  return r;
}

void nbd_link_end(struct nbd_link *l, int status) {
  struct nbd_read *r;
  if (!l->h)
    return;
  hang_up(l);
  l->status = status;
  while ((r = take_first(&l->answered)) || (r = take_first(&l->asked)))
    end_read(l, r, status);
}

static void lose(struct nbd_link *l, int status) {
  nbd_link_end(l, status);
  l->calls->lost(l);
}

/* ---- Events -------------------------------------------------------------- */

/* Watches the socket.  It has to be called after every call of libnbd, because
 * the direction that libnbd waits for may have changed. */
static void watch(struct nbd_link *l) {
  unsigned direction = nbd_aio_get_direction(l->h);
  short wanted = EV_PERSIST;
  if (direction & LIBNBD_AIO_DIRECTION_READ)
    wanted |= EV_READ;
  if (direction & LIBNBD_AIO_DIRECTION_WRITE)
    wanted |= EV_WRITE;
  if (wanted == l->watched)
    return;
  struct event_base *base = event_get_base(&l->socket);
  event_callback_fn callback = event_get_callback(&l->socket);
  event_del(&l->socket);
  event_assign(&l->socket, base, l->fd, wanted, callback, l);
  event_add(&l->socket, NULL);
  l->watched = wanted;
}

static bool is_over(struct nbd_link *l) {
  return nbd_aio_is_dead(l->h) || nbd_aio_is_closed(l->h);
}

/* Each read that is under way is on one of the two lists. */
static void check_reads(const struct nbd_link *l) {
  (void)l;
#ifdef CACHETD_DEBUG_CHECKS
  const struct nbd_read *r;
  unsigned n = 0;
  TAILQ_FOREACH(r, &l->asked, entry)
    n++;
  TAILQ_FOREACH(r, &l->answered, entry) {
    assert(r->link == l && r->n_done < r->len);
    n++;
  }
  assert(n == l->n_reads);
#endif
}

/* Hands on the results of a call of libnbd.  It is called by the event loop,
 * where libnbd does not hold its lock. */
static void settle(struct nbd_link *l) {
  struct nbd_read *r;
  while (!is_over(l) && (r = take_first(&l->answered))) {
    if (r->error)
      end_read(l, r, status_of(l, r->error));
    else if (take_piece(r))
      end_read(l, r, r->has_data ? 0 : SOURCE_ZEROS);
    else
      ask(l, r);
  }
  if (is_over(l)) {
    snprintf(l->fault.text, sizeof l->fault.text,
             "the server closed the connection");
    lose(l, -ECONNRESET);
  } else {
    check_reads(l);
    watch(l);
  }
}

static void on_settle(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  settle(arg);
}

/* Reads before it writes, because an answer may change what has to be
 * written. */
static void on_socket(evutil_socket_t fd, short what, void *arg) {
  struct nbd_link *l = arg;
  (void)fd;
  int r = 0;
  if (!is_over(l)) /* which a read may have found before */
    r = what & EV_READ ? nbd_aio_notify_read(l->h) : nbd_aio_notify_write(l->h);
  if (r < 0)
    lose(l, nbd_dial_failure(&l->fault));
  else
    settle(l);
}

/* ---- Links --------------------------------------------------------------- */

static int take_sizes(struct nbd_link *l) {
  int64_t size = nbd_get_size(l->h);
  int64_t block = nbd_get_block_size(l->h, LIBNBD_SIZE_MINIMUM);
  int64_t max = nbd_get_block_size(l->h, LIBNBD_SIZE_MAXIMUM);
  if (size < 0) /* or larger than any file may be */
    return -EPROTO;
  l->size = (uint64_t)size;
  l->block_size = block > 0 ? (uint32_t)block : 1;
  l->max_size = max > 0 && max < MAX_PIECE ? (uint32_t)max : MAX_PIECE;
  l->max_size -= l->max_size % l->block_size;
  return 0;
}

int nbd_link_init(struct nbd_link *l, struct event_base *base,
                  struct nbd_handle *h, const struct nbd_link_calls *calls) {
  *l = (struct nbd_link){.calls = calls, .h = h, .patience = PATIENCE};
  l->has_answers = nbd_can_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) == 1;
  TAILQ_INIT(&l->asked);
  TAILQ_INIT(&l->answered);
  event_assign(&l->socket, base, -1, EV_PERSIST, on_socket, l);
  event_assign(&l->settle, base, -1, 0, on_settle, l);
  l->fd = fcntl(nbd_aio_get_fd(h), F_DUPFD_CLOEXEC, 3);
  int r = l->fd < 0 ? -errno : take_sizes(l);
  if (r < 0) {
    snprintf(l->fault.text, sizeof l->fault.text, "%s",
             r == -EPROTO ? "the server tells a size that cannot be"
                          : strerror(-r));
    hang_up(l);
  } else {
    watch(l);
  }
  return r;
}

/* After a command: results that came at once are left to the event loop. */
static void go_on(struct nbd_link *l) {
  if (is_over(l) || !TAILQ_EMPTY(&l->answered))
    event_active(&l->settle, EV_TIMEOUT, 0);
  else
    watch(l);
}

void nbd_link_read(struct nbd_link *l, struct nbd_read *r) {
  assert(l->h && r->offset <= l->size && r->len <= l->size - r->offset);
  r->link = l;
  l->n_reads++;
  ask(l, r);
  go_on(l);
}

void nbd_link_ask(struct nbd_link *l, uint64_t offset) {
  struct nbd_question *q = &l->question;
  assert(l->h && offset < l->size);
  uint64_t begin = offset / l->block_size * l->block_size, end = l->size;
  if (end - begin > MAX_QUESTION)
    end = begin + MAX_QUESTION;
  *q = (struct nbd_question){
      .is_asked = true, .begin = begin, .end = end, .at = begin};
  nbd_extent_callback extents = {.callback = on_extents, .user_data = l};
  nbd_completion_callback answered = {.callback = on_answered, .user_data = l};
  if (nbd_aio_block_status(l->h, end - begin, begin, extents, answered, 0) < 0)
    q->is_asked = l->has_answers = false;
  go_on(l);
}

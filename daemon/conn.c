#include "daemon/conn.h"

#include <assert.h>
#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/admit.h"
#include "daemon/invalidate.h"
#include "daemon/log.h"
#include "daemon/session.h"
#include "daemon/stray_fds.h"
#include "proto/status.h"

enum {
  /* Taken in at once where memory is short. */
  CROWDED_RX_LEN = 1024,
  /* Sent without asking the socket whether it has room. */
  UNASKED_LEN = 32 << 10,
  /* A socket with less room than this is waited for, if it has more at times;
   * and with less than this left no further frame is begun. */
  ROOM_LEAST = 64 << 10,
  ROOM_LEFT = 4096,
};

/* What looking at a frame is worth, in bytes sent. */
#define FRAME_COST 1024

static const char *const state_names[] = {
    [CONN_HANDSHAKE] = "handshake",
    [CONN_OPEN] = "open",
    [CONN_DRAINING] = "draining",
    [CONN_CLOSED] = "closed",
};

static const bool moves[][4] = {
    [CONN_HANDSHAKE] =
        {[CONN_OPEN] = true, [CONN_DRAINING] = true, [CONN_CLOSED] = true},
    [CONN_OPEN] = {[CONN_DRAINING] = true, [CONN_CLOSED] = true},
    [CONN_DRAINING] = {[CONN_CLOSED] = true},
    [CONN_CLOSED] = {false},
};

void conn_move(struct conn *c, enum conn_state to) {
  assert(moves[c->state][to]);
  log_event(LEVEL_DEBUG, "conn-state", LOG_NUMBER("conn", c->serial),
            LOG_TEXT("from", state_names[c->state]),
            LOG_TEXT("to", state_names[to]));
  c->state = to;
  c->moved_ms = host_now_ms();
}

/* The connection is no good any more. */
static void conn_lost(struct conn *c, const char *why) {
  if (c->state == CONN_CLOSED)
    return;
  log_peer_event(LEVEL_DEBUG, "conn-lost", LOG_NUMBER("conn", c->serial),
                 LOG_TEXT("reason", why));
  conn_move(c, CONN_CLOSED);
}

/* ---- Output -------------------------------------------------------------- */

/* Copies what is left of the output, from byte `skip` on, behind what waits to
 * be sent already. */
static void conn_keep_unsent(struct conn *c, size_t skip) {
  const struct output *out = &c->worker->out;
  size_t more = out->len - skip;
  uint8_t *grown = NULL;
  if (worker_hold(c->worker, more)) {
    grown = realloc(c->unsent.bytes, c->unsent.len + more);
    if (!grown)
      worker_unhold(c->worker, more);
  }
  if (!grown) {
    conn_lost(c, "no memory for its answers");
    return;
  }
  if (c->unsent.len == 0) {
    c->unsent.sent = 0;
    c->progress_ms = host_now_ms();
  }
  c->unsent.bytes = grown;
  for (unsigned i = 0; i < out->n_iovs; i++) {
    const struct iovec *v = &out->iovs[i];
    if (skip < v->iov_len) {
      memcpy(grown + c->unsent.len, (const uint8_t *)v->iov_base + skip,
             v->iov_len - skip);
      c->unsent.len += v->iov_len - skip;
      skip = 0;
    } else {
      skip -= v->iov_len;
    }
  }
}

/* The descriptors have gone out (`sent`), or never will. */
static void conn_close_fds(struct conn *c, bool sent) {
  while (c->n_fds_out)
    close(c->fds_out[--c->n_fds_out]);
  if (c->sending && sent)
    attach_sent(c->sending);
  else if (c->sending)
    attach_cancel(c->sending);
}

/* How much of it the socket takes now; -1: it is broken.  Descriptors that are
 * due go along with the first byte. */
static ssize_t send_some(struct conn *c, struct iovec *iovs, size_t n_iovs) {
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof c->fds_out)];
  } control = {.bytes = {0}};
  struct msghdr msg = {.msg_iov = iovs, .msg_iovlen = n_iovs};
  if (c->n_fds_out) {
    msg.msg_control = control.bytes;
    msg.msg_controllen = sizeof control.bytes;
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof c->fds_out);
    memcpy(CMSG_DATA(cmsg), c->fds_out, sizeof c->fds_out);
  }
  ssize_t n;
  do
    n = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
  while (n < 0 && errno == EINTR);
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS))
    return 0;
  if (n > 0 && c->n_fds_out)
    conn_close_fds(c, true);
  return n;
}

void conn_spend(struct conn *c, uint64_t len) {
  c->turn_len += len;
  if (c->turn_len >= c->worker->host->limits.turn_len)
    c->yielding = true;
}

/* The socket took `n` bytes of the output, or failed. */
static void conn_sent(struct conn *c, ssize_t n) {
  struct output *out = &c->worker->out;
  c->room = 0;
  if (n < 0)
    conn_lost(c, strerror(errno));
  else if ((size_t)n < out->len)
    conn_keep_unsent(c, (size_t)n);
  else
    c->unsent_notice = 0;
  conn_spend(c, out->len);
  output_reset(out);
}

void conn_flush(struct conn *c) {
  struct output *out = &c->worker->out;
  if (out->len && c->state != CONN_CLOSED)
    conn_sent(c, c->unsent.len ? 0 : send_some(c, out->iovs, out->n_iovs));
  output_reset(out);
}

bool conn_flush_fds(struct conn *c, struct attachment *a,
                    const int fds[ATTACH_N_FDS]) {
  struct output *out = &c->worker->out;
  assert(c->n_fds_out == 0 && c->unsent.len == 0 && out->len);
  memcpy(c->fds_out, fds, sizeof c->fds_out);
  c->n_fds_out = ATTACH_N_FDS;
  c->sending = a;
  ssize_t n = send_some(c, out->iovs, out->n_iovs);
  if (n < 0 && errno == ETOOMANYREFS) {
    conn_close_fds(c, false);
    output_reset(out);
    return false;
  }
  conn_sent(c, n);
  return true;
}

static void conn_forget_unsent(struct conn *c) {
  free(c->unsent.bytes);
  worker_unhold(c->worker, c->unsent.len);
  c->unsent.bytes = NULL;
  c->unsent.len = c->unsent.sent = 0;
}

/* Sends what waits.  True if nothing is left. */
static bool conn_send_unsent(struct conn *c) {
  if (c->unsent.len == c->unsent.sent)
    return true;
  struct iovec rest = {c->unsent.bytes + c->unsent.sent,
                       c->unsent.len - c->unsent.sent};
  ssize_t n = send_some(c, &rest, 1);
  if (n < 0) {
    conn_lost(c, strerror(errno));
    return false;
  }
  if (n > 0)
    c->progress_ms = host_now_ms();
  c->unsent.sent += (size_t)n;
  if (c->unsent.sent < c->unsent.len)
    return false;
  conn_forget_unsent(c);
  c->unsent_notice = 0;
  return true;
}

/* How many bytes the socket takes at once; 0: so few that it is to be waited
 * for.  Then less than a quarter of its buffer is free, and it is not writable
 * for the loop either: that takes a third, or three quarters of a Unix socket.
 * An eighth is for what the kernel adds. */
static size_t socket_room(int fd) {
  int queued = 0, size = 0;
  socklen_t len = sizeof size;
  if (ioctl(fd, SIOCOUTQ, &queued) < 0 ||
      getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, &len) < 0 || queued >= size)
    return 0;
  size_t room = (size_t)(size - queued);
  size_t least = size / 4 < ROOM_LEAST ? (size_t)size / 4 : ROOM_LEAST;
  return room < least ? 0 : room - room / 8;
}

bool conn_has_room(struct conn *c) {
  const struct output *out = &c->worker->out;
  bool asks = c->room || worker_is_crowded(c->worker);
  if (!conn_may_send(c))
    return false;
  if (!asks && out->len + ROOM_LEFT <= UNASKED_LEN)
    return true;
  if (!c->room)
    c->room = socket_room(c->fd);
  if (out->len + ROOM_LEFT <= c->room)
    return true;
  if (out->len) {
    conn_flush(c);
    c->room = conn_may_send(c) ? socket_room(c->fd) : 0;
  }
  if (!c->room && conn_may_send(c)) {
    c->full = true;
    c->progress_ms = host_now_ms();
  }
  return conn_may_send(c);
}

size_t conn_frame_room(struct conn *c, size_t len) {
  size_t used = c->worker->out.len;
  if (!c->room && used + len > UNASKED_LEN)
    c->room = socket_room(c->fd);
  size_t room = c->room ? c->room : UNASKED_LEN;
  size_t left = room > used + ROOM_LEFT ? room - used : ROOM_LEFT;
  return len < left ? len : left;
}

void conn_reply(struct conn *c, const wire_message *msg) {
  struct output *out = &c->worker->out;
  if (!output_has_room(out, frame_packed_len(msg), 0))
    conn_flush(c);
  output_frame(out, msg, 0);
}

/* `text` may quote the peer, and may be cut short: what is not ASCII might not
 * be UTF-8, which protobuf wants. */
static void put_error(struct conn *c, uint64_t id, int status, int sys_errno,
                      char *text) {
  Cachet__Wire__Error error = CACHET__WIRE__ERROR__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  error.status = status;
  error.sys_errno = (uint32_t)sys_errno;
  error.message = text;
  for (char *at = text; *at; at++)
    if (*at < ' ' || *at > '~')
      *at = '?';
  msg.id = id;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_ERROR;
  msg.error = &error;
  conn_reply(c, &msg);
}

void conn_reply_error(struct conn *c, uint64_t id, int status, int sys_errno,
                      const char *format, ...) {
  char text[256];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  put_error(c, id, status, sys_errno, text);
}

void conn_fail(struct conn *c, uint64_t id, int status, const char *format,
               ...) {
  char text[256];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  log_peer_event(LEVEL_WARN, "conn-failed", LOG_NUMBER("conn", c->serial),
                 LOG_TEXT("listener", listener_text(c->listener)),
                 LOG_TEXT("reason", text));
  put_error(c, id, status, 0, text);
  request_drop_all(c);
  c->full = false;
  conn_move(c, CONN_DRAINING);
}

/* ---- Input --------------------------------------------------------------- */

/* Acts on the frame at the start of `bytes`.  Returns its length; 0: it is not
 * all there, failed the connection, or found it blocked. */
static size_t conn_take_frame(struct conn *c, const uint8_t *bytes,
                              size_t len) {
  struct worker *w = c->worker;
  struct frame_limits limits = {.max_message = w->host->limits.max_message,
                                .max_payload = 0};
  struct frame_header header;
  wire_message *msg;
  switch (frame_peek(bytes, len, &limits, &header)) {
  case FRAME_OK:
    break;
  case FRAME_PARTIAL:
    return 0;
  default:
    conn_fail(c, 0, WIRE_E_PROTO,
              "a frame is longer than the %u bytes of a request",
              limits.max_message);
    return 0;
  }
  if (len - FRAME_HEADER_LEN < header.message_len || !conn_has_room(c))
    return 0;
  if (frame_unpack(w->arena, bytes + FRAME_HEADER_LEN, header.message_len,
                   &msg) != FRAME_OK) {
    conn_fail(c, 0, WIRE_E_PROTO, "a frame holds no message that is known");
    return 0;
  }
  session_message(c, msg);
  conn_spend(c, header.message_len + FRAME_COST);
  return FRAME_HEADER_LEN + header.message_len;
}

static void conn_forget_rest(struct conn *c) {
  free(c->rest.bytes);
  worker_unhold(c->worker, c->rest.cap);
  c->rest.bytes = NULL;
  c->rest.len = c->rest.cap = 0;
}

/* Makes room for `len` bytes that were not looked at.  What is in there is not
 * needed any more. */
static bool conn_make_rest(struct conn *c, size_t len) {
  size_t cap = (len + 511) & ~(size_t)511;
  if (len <= c->rest.cap)
    return true;
  conn_forget_rest(c);
  if (!worker_hold(c->worker, cap))
    return false;
  c->rest.bytes = malloc(cap);
  if (c->rest.bytes)
    c->rest.cap = cap;
  else
    worker_unhold(c->worker, cap);
  return c->rest.bytes;
}

/* Keeps what was not looked at. */
static void conn_keep_rest(struct conn *c, const uint8_t *bytes, size_t len) {
  if (len == 0) {
    conn_forget_rest(c);
  } else if (conn_make_rest(c, len)) {
    memcpy(c->rest.bytes, bytes, len);
    c->rest.len = len;
  } else {
    conn_lost(c, "no memory for its requests");
  }
}

/* Acts on the frames in the first `len` bytes of the worker's receive buffer.
 * The clock of a half message starts with its first byte, but does not run
 * while it is us who do not read. */
static void conn_take_frames(struct conn *c, size_t len) {
  const uint8_t *rx = c->worker->rx;
  size_t at = 0;
  while (conn_may_send(c) && !c->worker->stopping) {
    size_t n = conn_take_frame(c, rx + at, len - at);
    if (n == 0)
      break;
    at += n;
  }
  if (c->state == CONN_DRAINING || c->state == CONN_CLOSED)
    len = at; /* nobody will look at it */
  conn_keep_rest(c, rx + at, len - at);
  if (c->rest.len == 0 || conn_is_blocked(c))
    c->partial_since_ms = 0;
  else if (at > 0 || c->partial_since_ms == 0)
    c->partial_since_ms = host_now_ms();
}

/* Nothing more will come.  What it asked for is still answered, unless there
 * is nobody left to answer: a Unix peer that closed says so. */
static void conn_ended(struct conn *c) {
  struct pollfd p = {.fd = c->fd, .events = 0};
  c->ended = true;
  c->partial_since_ms = 0;
  if (poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR)))
    conn_lost(c, "the peer closed");
}

/* recv(2).  EPROTO: the peer sent descriptors along, and all is where it was.
 */
static ssize_t conn_recv(struct conn *c, void *bytes, size_t len) {
  return c->may_bring_fds ? stray_fds_recv(c->fd, bytes, len)
                          : recv(c->fd, bytes, len, MSG_DONTWAIT);
}

/* How much to take in, of which `have` bytes are there already: where memory is
 * short what is likely to be a few whole messages, or the rest of one. */
static size_t conn_receive_len(const struct conn *c, size_t have) {
  const struct worker *w = c->worker;
  struct frame_limits limits = {.max_message = w->host->limits.max_message,
                                .max_payload = 0};
  struct frame_header header;
  size_t len = CROWDED_RX_LEN;
  if (!worker_is_crowded(w))
    return w->rx_cap - have;
  if (frame_peek(w->rx, have, &limits, &header) == FRAME_OK &&
      FRAME_HEADER_LEN + header.message_len - have > len)
    len = FRAME_HEADER_LEN + header.message_len - have;
  return len < w->rx_cap - have ? len : w->rx_cap - have;
}

static void conn_receive(struct conn *c) {
  struct worker *w = c->worker;
  size_t have = c->rest.len;
  assert(have < w->rx_cap); /* C3: less than one frame */
  if (have)
    memcpy(w->rx, c->rest.bytes, have);
  ssize_t n = conn_recv(c, w->rx + have, conn_receive_len(c, have));
  if (n > 0)
    conn_take_frames(c, have + (size_t)n);
  else if (n == 0)
    conn_ended(c);
  else if (errno == EPROTO && c->may_bring_fds)
    conn_fail(c, 0, WIRE_E_PROTO, "a request comes with descriptors");
  else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
    conn_lost(c, strerror(errno));
}

/* Reads and forgets what the peer still sends, so that a close does not reset
 * the connection before the peer has read the last answer. */
static void conn_discard(struct conn *c) {
  struct worker *w = c->worker;
  ssize_t n = conn_recv(c, w->rx, w->rx_cap);
  if (n == 0 ||
      (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
    conn_lost(c, "the peer closed");
}

/* No longer blocked: first the notices, then the requests that are ready, then
 * the frames that were not looked at. */
static void conn_pump(struct conn *c) {
  session_push_notices(c);
  while (conn_may_send(c) && c->runnable.head)
    request_go_on(request_queue_pop(&c->runnable));
  if (conn_may_send(c) && c->rest.len) {
    size_t len = c->rest.len;
    memcpy(c->worker->rx, c->rest.bytes, len);
    conn_take_frames(c, len);
  }
}

/* ---- Events -------------------------------------------------------------- */

static void conn_on_readable(evutil_socket_t fd, short what, void *arg) {
  struct conn *c = arg;
  (void)fd;
  (void)what;
  c->worker->n_events++;
  c->turn_len = 0;
  if (c->lingering)
    conn_discard(c);
  else
    conn_receive(c);
  conn_settle(c);
}

static void conn_on_writable(evutil_socket_t fd, short what, void *arg) {
  struct conn *c = arg;
  (void)fd;
  (void)what;
  c->worker->n_events++;
  c->turn_len = 0;
  c->yielding = c->full = false;
  if (conn_send_unsent(c) && c->state == CONN_OPEN)
    conn_pump(c);
  conn_settle(c);
}

/* When this state has lasted too long; 0: it may last for ever. */
static uint64_t conn_deadline(const struct conn *c) {
  const struct limits *limits = &c->worker->host->limits;
  if (c->unsent.len || c->full)
    return c->progress_ms + (uint64_t)limits->unread_timeout_ms;
  switch (c->state) {
  case CONN_HANDSHAKE:
    return c->moved_ms + (uint64_t)limits->handshake_timeout_ms;
  case CONN_OPEN:
    return c->partial_since_ms
               ? c->partial_since_ms + (uint64_t)limits->partial_timeout_ms
               : 0;
  default:
    return c->moved_ms + (uint64_t)limits->linger_ms;
  }
}

static void conn_set_timer(struct conn *c) {
  uint64_t deadline = conn_deadline(c);
  if (deadline == c->deadline_ms)
    return;
  c->deadline_ms = deadline;
  if (!deadline) {
    event_del(&c->timer);
    return;
  }
  uint64_t now = host_now_ms();
  uint64_t left = deadline > now ? deadline - now : 0;
  struct timeval tv = {.tv_sec = (time_t)(left / 1000),
                       .tv_usec = (suseconds_t)(left % 1000 * 1000)};
  event_add(&c->timer, &tv);
}

static void conn_on_timer(evutil_socket_t fd, short what, void *arg) {
  struct conn *c = arg;
  (void)fd;
  (void)what;
  c->deadline_ms = 0;
  uint64_t deadline = conn_deadline(c);
  if (deadline && deadline <= host_now_ms()) {
    if (c->unsent.len || c->full)
      conn_lost(c, "it does not read its answers");
    else if (c->state == CONN_HANDSHAKE)
      conn_fail(c, 0, WIRE_E_TIMEOUT, "no Hello in time");
    else if (c->state == CONN_OPEN)
      conn_fail(c, 0, WIRE_E_TIMEOUT, "half a message, and no more in time");
    else
      conn_lost(c, "it does not close");
  }
  conn_settle(c);
}

static void set_event(struct event *event, bool wanted) {
  bool is_set = event_pending(event, EV_READ | EV_WRITE, NULL);
  if (wanted && !is_set)
    event_add(event, NULL);
  else if (!wanted && is_set)
    event_del(event);
}

/* ---- Life ---------------------------------------------------------------- */

/* Its first turn, on its worker. */
static void conn_start(struct worker *w, struct mail *mail) {
  struct conn *c =
      (struct conn *)((char *)mail - offsetof(struct conn, arrival));
  c->next = w->conns;
  if (c->next)
    c->next->prev = c;
  w->conns = c;
  event_assign(&c->readable, w->base, c->fd, EV_READ | EV_PERSIST,
               conn_on_readable, c);
  event_assign(&c->writable, w->base, c->fd, EV_WRITE | EV_PERSIST,
               conn_on_writable, c);
  event_assign(&c->timer, w->base, -1, 0, conn_on_timer, c);
  c->moved_ms = host_now_ms();
  conn_settle(c);
}

struct conn *conn_new(struct worker *w, const struct listener *listener, int fd,
                      uint64_t serial, uint64_t user) {
  struct conn *c = calloc(1, sizeof *c);
  if (!c)
    return NULL;
  c->arrival.run = conn_start;
  c->worker = w;
  c->listener = listener;
  c->fd = fd;
  c->serial = serial;
  c->user = user;
  c->may_bring_fds = listener_is_local(listener) && stray_fds_may_come(fd);
  c->state = CONN_HANDSHAKE;
  request_queue_init(&c->runnable);
  return c;
}

/* Its descriptor is closed. */
static void conn_closed(struct closing *closing, bool alone) {
  struct conn *c = (struct conn *)closing; /* its first member */
  if (!alone)
    admit_closed(c->worker->host, c->user);
  free(c);
}

/* The last of it: here, or where closing it may take time. */
static void conn_close(struct conn *c) {
  struct worker *w = c->worker;
  c->closing = (struct closing){.fd = c->fd, .closed = conn_closed};
  if (c->may_bring_fds && !stray_fds_drain(c->fd, w->rx, w->rx_cap)) {
    closer_add(w->host->closer, &c->closing);
    return;
  }
  close(c->fd);
  conn_closed(&c->closing, false);
}

static void conn_free(struct conn *c) {
  struct worker *w = c->worker;
  request_drop_all(c);
  event_del(&c->readable);
  event_del(&c->writable);
  event_del(&c->timer);
  conn_close_fds(c, false);
  if (c->oldest_owed)
    notices_recheck(w);
  *(c->prev ? &c->prev->next : &w->conns) = c->next;
  if (c->next)
    c->next->prev = c->prev;
  /* A client that closes in good order is done with what it had attached. */
  attach_conn_closed(c);
  conn_forget_rest(c);
  conn_forget_unsent(c);
  worker_unhold(w, c->n_opened * sizeof *c->opened);
  free(c->opened);
  conn_close(c);
  worker_check_drained(w);
}

/* Whether all that it asked for is answered, and it asks for no more. */
static bool conn_is_finished(const struct conn *c) {
  return (c->state == CONN_OPEN || c->state == CONN_HANDSHAKE) &&
         (c->ended || c->worker->stopping) && !conn_is_blocked(c) &&
         c->n_requests == 0;
}

/* All is sent that will be. */
static void conn_finish(struct conn *c) {
  bool linger = c->state == CONN_DRAINING && !c->worker->stopping;
  shutdown(c->fd, SHUT_WR);
  if (linger) {
    c->lingering = true;
    c->moved_ms = host_now_ms();
    return;
  }
  conn_discard(c); /* at least what is there */
  if (c->state != CONN_CLOSED)
    conn_move(c, CONN_CLOSED);
}

/* Tells those who wait for its notices to get away that some did. */
static void conn_look_owed(struct conn *c) {
  uint64_t oldest = session_oldest_owed(c);
  if (c->oldest_owed && oldest != c->oldest_owed)
    notices_recheck(c->worker);
  c->oldest_owed = oldest;
}

void conn_settle(struct conn *c) {
  conn_flush(c);
  if (conn_is_finished(c) || (c->state == CONN_DRAINING && !c->unsent.len &&
                              (!c->lingering || c->worker->stopping)))
    conn_finish(c);
  if (c->state == CONN_CLOSED) {
    conn_free(c);
    return;
  }
  conn_look_owed(c);
  if (conn_is_blocked(c))
    c->partial_since_ms = 0; /* conn_take_frames() begins anew */
  bool is_open = c->state == CONN_OPEN || c->state == CONN_HANDSHAKE;
  bool reads =
      is_open && !conn_is_blocked(c) && !c->ended && !c->worker->stopping;
  set_event(&c->readable, reads || c->lingering);
  set_event(&c->writable, conn_is_blocked(c));
  conn_set_timer(c);
}

void conn_drop(struct conn *c) {
  if (c->state != CONN_CLOSED)
    conn_move(c, CONN_CLOSED);
  conn_settle(c);
}

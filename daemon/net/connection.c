#include "daemon/net/connection.h"

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

#include "base/clock.h"
#include "base/container_of.h"
#include "daemon/log.h"
#include "daemon/net/stray_fds.h"
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
    [CONNECTION_HANDSHAKE] = "handshake",
    [CONNECTION_OPEN] = "open",
    [CONNECTION_DRAINING] = "draining",
    [CONNECTION_CLOSED] = "closed",
};

static const bool moves[][4] = {
    [CONNECTION_HANDSHAKE] = {[CONNECTION_OPEN] = true,
                              [CONNECTION_DRAINING] = true,
                              [CONNECTION_CLOSED] = true},
    [CONNECTION_OPEN] =
        {[CONNECTION_DRAINING] = true, [CONNECTION_CLOSED] = true},
    [CONNECTION_DRAINING] = {[CONNECTION_CLOSED] = true},
    [CONNECTION_CLOSED] = {false},
};

void connection_move(struct connection *c, enum connection_state to) {
  assert(moves[c->state][to]);
  log_event(LEVEL_DEBUG, "conn-state", LOG_NUMBER("conn", c->serial),
            LOG_TEXT("from", state_names[c->state]),
            LOG_TEXT("to", state_names[to]));
  c->state = to;
  c->moved_ms = clock_now_ms();
}

/* The connection is no good any more. */
static void connection_lost(struct connection *c, const char *why) {
  if (c->state == CONNECTION_CLOSED)
    return;
  log_peer_event(LEVEL_DEBUG, "conn-lost", LOG_NUMBER("conn", c->serial),
                 LOG_TEXT("reason", why));
  connection_move(c, CONNECTION_CLOSED);
}

/* ---- Output -------------------------------------------------------------- */

/* Copies what is left of the output, from byte `skip` on, behind what waits to
 * be sent already. */
static void connection_keep_unsent(struct connection *c, size_t skip) {
  const struct send_batch *out = &c->net->out;
  size_t more = out->len - skip;
  uint8_t *grown = NULL;
  if (net_thread_hold(c->net, more)) {
    grown = realloc(c->unsent.bytes, c->unsent.len + more);
    if (!grown)
      net_thread_unhold(c->net, more);
  }
  if (!grown) {
    connection_lost(c, "no memory for its answers");
    return;
  }
  if (c->unsent.len == 0) {
    c->unsent.sent = 0;
    c->progress_ms = clock_now_ms();
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
static void connection_close_fds(struct connection *c, bool sent) {
  if (!c->n_fds_out)
    return;
  while (c->n_fds_out)
    close(c->fds_out[--c->n_fds_out]);
  c->owner->fds_sent(c, sent);
}

/* How much of it the socket takes now; -1: it is broken.  Descriptors that are
 * due go along with the first byte. */
static ssize_t send_some(struct connection *c, struct iovec *iovs,
                         size_t n_iovs) {
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
    connection_close_fds(c, true);
  return n;
}

void connection_spend(struct connection *c, uint64_t len) {
  c->turn_len += len;
  if (c->turn_len >= c->net->limits->turn_len)
    c->yielding = true;
}

/* The socket took `n` bytes of the output, or failed. */
static void connection_sent(struct connection *c, ssize_t n) {
  struct send_batch *out = &c->net->out;
  c->room = 0;
  if (n < 0)
    connection_lost(c, strerror(errno));
  else if ((size_t)n < out->len)
    connection_keep_unsent(c, (size_t)n);
  else
    c->owner->delivered(c);
  connection_spend(c, out->len);
  send_batch_reset(out);
}

void connection_flush(struct connection *c) {
  struct send_batch *out = &c->net->out;
  if (out->len && c->state != CONNECTION_CLOSED)
    connection_sent(c,
                    c->unsent.len ? 0 : send_some(c, out->iovs, out->n_iovs));
  send_batch_reset(out);
}

bool connection_flush_fds(struct connection *c,
                          const int fds[CONNECTION_N_FDS]) {
  struct send_batch *out = &c->net->out;
  assert(c->n_fds_out == 0 && c->unsent.len == 0 && out->len);
  memcpy(c->fds_out, fds, sizeof c->fds_out);
  c->n_fds_out = CONNECTION_N_FDS;
  ssize_t n = send_some(c, out->iovs, out->n_iovs);
  if (n < 0 && errno == ETOOMANYREFS) {
    connection_close_fds(c, false);
    send_batch_reset(out);
    return false;
  }
  connection_sent(c, n);
  return true;
}

static void connection_forget_unsent(struct connection *c) {
  free(c->unsent.bytes);
  net_thread_unhold(c->net, c->unsent.len);
  c->unsent.bytes = NULL;
  c->unsent.len = c->unsent.sent = 0;
}

/* Sends what waits.  True if nothing is left. */
static bool connection_send_unsent(struct connection *c) {
  if (c->unsent.len == c->unsent.sent)
    return true;
  struct iovec rest = {c->unsent.bytes + c->unsent.sent,
                       c->unsent.len - c->unsent.sent};
  ssize_t n = send_some(c, &rest, 1);
  if (n < 0) {
    connection_lost(c, strerror(errno));
    return false;
  }
  if (n > 0)
    c->progress_ms = clock_now_ms();
  c->unsent.sent += (size_t)n;
  if (c->unsent.sent < c->unsent.len)
    return false;
  connection_forget_unsent(c);
  c->owner->delivered(c);
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

bool connection_has_room(struct connection *c) {
  const struct send_batch *out = &c->net->out;
  bool asks = c->room || net_thread_is_crowded(c->net);
  if (!connection_may_send(c))
    return false;
  if (!asks && out->len + ROOM_LEFT <= UNASKED_LEN)
    return true;
  if (!c->room)
    c->room = socket_room(c->fd);
  if (out->len + ROOM_LEFT <= c->room)
    return true;
  if (out->len) {
    connection_flush(c);
    c->room = connection_may_send(c) ? socket_room(c->fd) : 0;
  }
  if (!c->room && connection_may_send(c)) {
    c->full = true;
    c->progress_ms = clock_now_ms();
  }
  return connection_may_send(c);
}

size_t connection_frame_room(struct connection *c, size_t len) {
  size_t used = c->net->out.len;
  if (!c->room && used + len > UNASKED_LEN)
    c->room = socket_room(c->fd);
  size_t room = c->room ? c->room : UNASKED_LEN;
  size_t left = room > used + ROOM_LEFT ? room - used : ROOM_LEFT;
  return len < left ? len : left;
}

void connection_reply(struct connection *c, const wire_message *msg) {
  struct send_batch *out = &c->net->out;
  if (!send_batch_has_room(out, frame_packed_len(msg), 0))
    connection_flush(c);
  send_batch_frame(out, msg, 0);
}

/* `text` may quote the peer, and may be cut short: what is not ASCII might not
 * be UTF-8, which protobuf wants. */
static void put_error(struct connection *c, uint64_t id, int status,
                      int sys_errno, char *text) {
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
  connection_reply(c, &msg);
}

void connection_reply_error(struct connection *c, uint64_t id, int status,
                            int sys_errno, const char *format, ...) {
  char text[256];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  put_error(c, id, status, sys_errno, text);
}

void connection_fail(struct connection *c, uint64_t id, int status,
                     const char *format, ...) {
  char text[256];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  log_peer_event(LEVEL_WARN, "conn-failed", LOG_NUMBER("conn", c->serial),
                 LOG_TEXT("listener", listener_text(c->listener)),
                 LOG_TEXT("reason", text));
  put_error(c, id, status, 0, text);
  c->full = false;
  connection_move(c, CONNECTION_DRAINING);
}

/* ---- Input --------------------------------------------------------------- */

/* Acts on the frame at the start of `bytes`.  Returns its length; 0: it is not
 * all there, failed the connection, or found it blocked. */
static size_t connection_take_frame(struct connection *c, const uint8_t *bytes,
                                    size_t len) {
  struct net_thread *net = c->net;
  struct frame_limits limits = {.max_message = net->limits->max_message,
                                .max_payload = 0};
  struct frame_header header;
  wire_message *msg;
  switch (frame_peek(bytes, len, &limits, &header)) {
  case FRAME_OK:
    break;
  case FRAME_PARTIAL:
    return 0;
  default:
    connection_fail(c, 0, WIRE_E_PROTO,
                    "a frame is longer than the %u bytes of a request",
                    limits.max_message);
    return 0;
  }
  if (len - FRAME_HEADER_LEN < header.message_len || !connection_has_room(c))
    return 0;
  if (frame_unpack(net->arena, bytes + FRAME_HEADER_LEN, header.message_len,
                   &msg) != FRAME_OK) {
    connection_fail(c, 0, WIRE_E_PROTO,
                    "a frame holds no message that is known");
    return 0;
  }
  c->owner->message(c, msg);
  connection_spend(c, header.message_len + FRAME_COST);
  return FRAME_HEADER_LEN + header.message_len;
}

static void connection_forget_rest(struct connection *c) {
  free(c->rest.bytes);
  net_thread_unhold(c->net, c->rest.cap);
  c->rest.bytes = NULL;
  c->rest.len = c->rest.cap = 0;
}

/* Makes room for `len` bytes that were not looked at.  What is in there is not
 * needed any more. */
static bool connection_make_rest(struct connection *c, size_t len) {
  size_t cap = (len + 511) & ~(size_t)511;
  if (len <= c->rest.cap)
    return true;
  connection_forget_rest(c);
  if (!net_thread_hold(c->net, cap))
    return false;
  c->rest.bytes = malloc(cap);
  if (c->rest.bytes)
    c->rest.cap = cap;
  else
    net_thread_unhold(c->net, cap);
  return c->rest.bytes;
}

/* Keeps what was not looked at. */
static void connection_keep_rest(struct connection *c, const uint8_t *bytes,
                                 size_t len) {
  if (len == 0) {
    connection_forget_rest(c);
  } else if (connection_make_rest(c, len)) {
    memcpy(c->rest.bytes, bytes, len);
    c->rest.len = len;
  } else {
    connection_lost(c, "no memory for its requests");
  }
}

/* Acts on the frames in the first `len` bytes of the thread's receive buffer.
 * The clock of a half message starts with its first byte, but does not run
 * while it is us who do not read. */
static void connection_take_frames(struct connection *c, size_t len) {
  const uint8_t *rx = c->net->rx;
  size_t at = 0;
  while (connection_may_send(c) && !c->net->stopping) {
    size_t n = connection_take_frame(c, rx + at, len - at);
    if (n == 0)
      break;
    at += n;
  }
  if (c->state == CONNECTION_DRAINING || c->state == CONNECTION_CLOSED)
    len = at; /* nobody will look at it */
  connection_keep_rest(c, rx + at, len - at);
  if (c->rest.len == 0 || connection_is_blocked(c))
    c->partial_since_ms = 0;
  else if (at > 0 || c->partial_since_ms == 0)
    c->partial_since_ms = clock_now_ms();
}

/* Nothing more will come.  What it asked for is still answered, unless there
 * is nobody left to answer: a Unix peer that closed says so. */
static void connection_ended(struct connection *c) {
  struct pollfd p = {.fd = c->fd, .events = 0};
  c->ended = true;
  c->partial_since_ms = 0;
  if (poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR)))
    connection_lost(c, "the peer closed");
}

/* recv(2).  EPROTO: the peer sent descriptors along, and all is where it was.
 */
static ssize_t connection_recv(struct connection *c, void *bytes, size_t len) {
  return c->may_bring_fds ? stray_fds_recv(c->fd, bytes, len)
                          : recv(c->fd, bytes, len, MSG_DONTWAIT);
}

/* How much to take in, of which `have` bytes are there already: where memory is
 * short what is likely to be a few whole messages, or the rest of one. */
static size_t connection_receive_len(const struct connection *c, size_t have) {
  const struct net_thread *net = c->net;
  struct frame_limits limits = {.max_message = net->limits->max_message,
                                .max_payload = 0};
  struct frame_header header;
  size_t len = CROWDED_RX_LEN;
  if (!net_thread_is_crowded(net))
    return net->rx_cap - have;
  if (frame_peek(net->rx, have, &limits, &header) == FRAME_OK &&
      FRAME_HEADER_LEN + header.message_len - have > len)
    len = FRAME_HEADER_LEN + header.message_len - have;
  return len < net->rx_cap - have ? len : net->rx_cap - have;
}

static void connection_receive(struct connection *c) {
  struct net_thread *net = c->net;
  size_t have = c->rest.len;
  assert(have < net->rx_cap); /* C3: less than one frame */
  if (have)
    memcpy(net->rx, c->rest.bytes, have);
  ssize_t n =
      connection_recv(c, net->rx + have, connection_receive_len(c, have));
  if (n > 0)
    connection_take_frames(c, have + (size_t)n);
  else if (n == 0)
    connection_ended(c);
  else if (errno == EPROTO && c->may_bring_fds)
    connection_fail(c, 0, WIRE_E_PROTO, "a request comes with descriptors");
  else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
    connection_lost(c, strerror(errno));
}

/* Reads and forgets what the peer still sends, so that a close does not reset
 * the connection before the peer has read the last answer. */
static void connection_discard(struct connection *c) {
  struct net_thread *net = c->net;
  ssize_t n = connection_recv(c, net->rx, net->rx_cap);
  if (n == 0 ||
      (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
    connection_lost(c, "the peer closed");
}

/* No longer blocked: first the answers that wait, then the frames that were not
 * looked at. */
static void connection_pump(struct connection *c) {
  c->owner->writable(c);
  if (connection_may_send(c) && c->rest.len) {
    size_t len = c->rest.len;
    memcpy(c->net->rx, c->rest.bytes, len);
    connection_take_frames(c, len);
  }
}

/* ---- Events -------------------------------------------------------------- */

static void connection_on_readable(evutil_socket_t fd, short what, void *arg) {
  struct connection *c = arg;
  (void)fd;
  (void)what;
  c->net->loop->n_events++;
  c->turn_len = 0;
  if (c->lingering)
    connection_discard(c);
  else
    connection_receive(c);
  connection_settle(c);
}

static void connection_on_writable(evutil_socket_t fd, short what, void *arg) {
  struct connection *c = arg;
  (void)fd;
  (void)what;
  c->net->loop->n_events++;
  c->turn_len = 0;
  c->yielding = c->full = false;
  if (connection_send_unsent(c) && c->state == CONNECTION_OPEN)
    connection_pump(c);
  connection_settle(c);
}

/* When this state has lasted too long; 0: it may last for ever. */
static uint64_t connection_deadline(const struct connection *c) {
  const struct limits *limits = c->net->limits;
  if (c->unsent.len || c->full)
    return c->progress_ms + (uint64_t)limits->unread_timeout_ms;
  switch (c->state) {
  case CONNECTION_HANDSHAKE:
    return c->moved_ms + (uint64_t)limits->handshake_timeout_ms;
  case CONNECTION_OPEN:
    return c->partial_since_ms
               ? c->partial_since_ms + (uint64_t)limits->partial_timeout_ms
               : 0;
  default:
    return c->moved_ms + (uint64_t)limits->linger_ms;
  }
}

static void connection_set_timer(struct connection *c) {
  uint64_t deadline = connection_deadline(c);
  if (deadline == c->deadline_ms)
    return;
  c->deadline_ms = deadline;
  if (!deadline) {
    event_del(&c->timer);
    return;
  }
  loop_set_timer(&c->timer, deadline);
}

static void connection_on_timer(evutil_socket_t fd, short what, void *arg) {
  struct connection *c = arg;
  (void)fd;
  (void)what;
  c->deadline_ms = 0;
  uint64_t deadline = connection_deadline(c);
  if (deadline && deadline <= clock_now_ms()) {
    if (c->unsent.len || c->full)
      connection_lost(c, "it does not read its answers");
    else if (c->state == CONNECTION_HANDSHAKE)
      connection_fail(c, 0, WIRE_E_TIMEOUT, "no Hello in time");
    else if (c->state == CONNECTION_OPEN)
      connection_fail(c, 0, WIRE_E_TIMEOUT,
                      "half a message, and no more in time");
    else
      connection_lost(c, "it does not close");
  }
  connection_settle(c);
}

static void set_event(struct event *event, bool wanted) {
  bool is_set = event_pending(event, EV_READ | EV_WRITE, NULL);
  if (wanted && !is_set)
    event_add(event, NULL);
  else if (!wanted && is_set)
    event_del(event);
}

/* ---- Life ---------------------------------------------------------------- */

/* Its first turn, on its thread. */
static void connection_arrived(struct task *task) {
  struct connection *c = container_of(task, struct connection, arrival);
  struct net_thread *net = c->net;
  c->next = net->conns;
  if (c->next)
    c->next->prev = c;
  net->conns = c;
  struct event_base *base = net->loop->base;
  event_assign(&c->readable, base, c->fd, EV_READ | EV_PERSIST,
               connection_on_readable, c);
  event_assign(&c->writable, base, c->fd, EV_WRITE | EV_PERSIST,
               connection_on_writable, c);
  event_assign(&c->timer, base, -1, 0, connection_on_timer, c);
  c->moved_ms = clock_now_ms();
  connection_settle(c);
}

void connection_init(struct connection *c, struct net_thread *net,
                     const struct connection_owner *owner,
                     const struct listener *listener, int fd, uint64_t serial,
                     uint64_t user) {
  c->arrival.run = connection_arrived;
  c->net = net;
  c->owner = owner;
  c->listener = listener;
  c->fd = fd;
  c->serial = serial;
  c->user = user;
  c->may_bring_fds = listener_is_local(listener) && stray_fds_may_come(fd);
  c->state = CONNECTION_HANDSHAKE;
}

void connection_start(struct connection *c) {
  loop_post(c->net->loop, &c->arrival);
}

/* Its descriptor is closed. */
static void connection_fd_closed(struct closing *closing, bool alone) {
  struct connection *c = (struct connection *)closing; /* its first member */
  if (!alone)
    users_give(c->net->users, c->user);
  c->owner->release(c);
}

/* The last of it: here, or where closing it may take time. */
static void connection_close(struct connection *c) {
  struct net_thread *net = c->net;
  c->closing = (struct closing){.fd = c->fd, .closed = connection_fd_closed};
  if (c->may_bring_fds && !stray_fds_drain(c->fd, net->rx, net->rx_cap)) {
    closer_add(net->closer, &c->closing);
    return;
  }
  close(c->fd);
  connection_fd_closed(&c->closing, false);
}

static void connection_free(struct connection *c) {
  struct net_thread *net = c->net;
  event_del(&c->readable);
  event_del(&c->writable);
  event_del(&c->timer);
  connection_close_fds(c, false);
  *(c->prev ? &c->prev->next : &net->conns) = c->next;
  if (c->next)
    c->next->prev = c->prev;
  connection_forget_rest(c);
  connection_forget_unsent(c);
  c->owner->closed(c);
  assert(c->n_requests == 0);
  connection_close(c);
  if (!net->conns)
    net->emptied(net->arg);
}

/* Whether all that it asked for is answered, and it asks for no more. */
static bool connection_is_finished(const struct connection *c) {
  return (c->state == CONNECTION_OPEN || c->state == CONNECTION_HANDSHAKE) &&
         (c->ended || c->net->stopping) && !connection_is_blocked(c) &&
         c->n_requests == 0;
}

/* All is sent that will be. */
static void connection_finish(struct connection *c) {
  bool linger = c->state == CONNECTION_DRAINING && !c->net->stopping;
  shutdown(c->fd, SHUT_WR);
  if (linger) {
    c->lingering = true;
    c->moved_ms = clock_now_ms();
    return;
  }
  connection_discard(c); /* at least what is there */
  if (c->state != CONNECTION_CLOSED)
    connection_move(c, CONNECTION_CLOSED);
}

void connection_settle(struct connection *c) {
  connection_flush(c);
  if (connection_is_finished(c) ||
      (c->state == CONNECTION_DRAINING && !c->unsent.len &&
       (!c->lingering || c->net->stopping)))
    connection_finish(c);
  if (c->state == CONNECTION_CLOSED) {
    connection_free(c);
    return;
  }
  c->owner->turn_ended(c);
  if (connection_is_blocked(c))
    c->partial_since_ms = 0; /* connection_take_frames() begins anew */
  bool is_open =
      c->state == CONNECTION_OPEN || c->state == CONNECTION_HANDSHAKE;
  bool reads =
      is_open && !connection_is_blocked(c) && !c->ended && !c->net->stopping;
  set_event(&c->readable, reads || c->lingering);
  set_event(&c->writable, connection_is_blocked(c));
  connection_set_timer(c);
}

void connection_drop(struct connection *c) {
  if (c->state != CONNECTION_CLOSED)
    connection_move(c, CONNECTION_CLOSED);
  connection_settle(c);
}

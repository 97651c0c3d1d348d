#include "daemon/net/connection.h"

#include <assert.h>
#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/container_of.h"
#include "daemon/log.h"
#include "daemon/net/stray_fds.h"
#include "proto/socket.h"
#include "proto/status.h"
#include "proto/tls.h"

enum {
  /* The most that is received at once when memory is short. */
  CROWDED_RX_LEN = 1024,
  /* So much is sent without asking the socket first whether it has room. */
  UNASKED_LEN = 32 << 10,
  /* With less room than this the connection waits until the socket has more,
   * unless its buffer is never that large.  With less than ROOM_LEFT it begins
   * no further frame. */
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

/* Gives the connection up: nothing more is received or sent. */
static void connection_lost(struct connection *c, const char *why) {
  if (c->state == CONNECTION_CLOSED)
    return;
  log_peer_event(LEVEL_DEBUG, "conn-lost", LOG_NUMBER("conn", c->serial),
                 LOG_TEXT("reason", why));
  connection_move(c, CONNECTION_CLOSED);
}

static bool connection_is_open(const struct connection *c) {
  return c->state == CONNECTION_OPEN || c->state == CONNECTION_HANDSHAKE;
}

/* Makes the connection receive no more, and end when all output is sent.  It
 * may be lost already: the call that put the last answer into the output may
 * have sent it, and may have failed. */
static void connection_drain(struct connection *c) {
  if (connection_is_open(c))
    connection_move(c, CONNECTION_DRAINING);
}

/* Whether requests are taken in while the socket has no room for answers.  What
 * is not answered with data is answered at once, and adds to what is unsent. */
static bool connection_may_queue(const struct connection *c) {
  return c->state == CONNECTION_OPEN && connection_is_blocked(c) &&
         !c->yielding && stream_unsent(&c->stream) <= ROOM_LEAST &&
         c->n_requests < c->net->limits->max_queued &&
         !net_thread_is_crowded(c->net) &&
         stream_wants(&c->stream) != STREAM_WANTS_ROOM;
}

static bool connection_may_take(const struct connection *c) {
  return connection_may_send(c) || connection_may_queue(c);
}

/* Whether the connection receives. */
static bool connection_reads(const struct connection *c) {
  return connection_is_open(c) && !c->ended && !c->net->stopping &&
         (!connection_is_blocked(c) || connection_may_queue(c));
}

/* Whether its TLS handshake is not complete. */
static bool connection_is_in_tls_handshake(const struct connection *c) {
  return connection_is_open(c) && c->tls && !tls_is_open(c->tls);
}

/* ---- Output -------------------------------------------------------------- */

static size_t connection_held(const struct connection *c) {
  return stream_held(&c->stream) + peer_held(&c->peer) +
         (c->tls ? tls_held(c->tls) : 0);
}

/* Updates the account of the memory that the connection holds.  It has to be
 * called after everything that may change that.  The stream itself stays within
 * the room.  TLS and the record of the peer do not know the limit, so the
 * connection is ended if they take too much. */
static void connection_account(struct connection *c) {
  size_t held = connection_held(c);
  if (held > c->held && held - c->held > net_thread_room(c->net)) {
    connection_lost(c, c->tls ? "no memory for TLS" : "no memory for its peer");
    return;
  }
  net_thread_count(c->net, &c->held, held);
}

/* The descriptors were sent, or (`sent` is false) never will be. */
static void connection_fds_done(struct connection *c, bool sent) {
  if (!c->fds_due)
    return;
  c->fds_due = false;
  stream_drop_fds(&c->stream);
  c->owner->fds_sent(c, sent);
}

void connection_spend(struct connection *c, uint64_t len) {
  c->turn_len += len;
  if (c->turn_len >= c->net->limits->turn_len)
    c->yielding = true;
}

/* Hands the output to the stream: as stream_send(). */
static int connection_send(struct connection *c) {
  const struct send_batch *out = &c->net->out;
  bool was_unsent = stream_unsent(&c->stream);
  int r =
      stream_send(&c->stream, out->iovs, out->n_iovs, net_thread_room(c->net));
  connection_account(c);
  if (r == STREAM_KEPT && !was_unsent)
    c->progress_ms = clock_now_ms();
  return r;
}

/* Takes the result of a send of the stream. */
static void connection_sent(struct connection *c, int r) {
  if (!stream_has_fds(&c->stream))
    connection_fds_done(c, true);
  if (r == -ENOMEM)
    connection_lost(c, "no memory for its answers");
  else if (r < 0)
    connection_lost(c, strerror(-r));
  else if (r == STREAM_SENT)
    c->owner->delivered(c);
}

/* The stream has taken the output over. */
static void connection_output_sent(struct connection *c, int r) {
  c->room = 0;
  connection_sent(c, r);
  connection_spend(c, c->net->out.len);
  send_batch_reset(&c->net->out);
}

void connection_flush(struct connection *c) {
  struct send_batch *out = &c->net->out;
  if (out->len && c->state != CONNECTION_CLOSED)
    connection_output_sent(c, connection_send(c));
  send_batch_reset(out);
}

bool connection_flush_fds(struct connection *c,
                          const int fds[CONNECTION_N_FDS]) {
  assert(!c->fds_due && c->net->out.len);
  stream_give_fds(&c->stream, fds, CONNECTION_N_FDS);
  c->fds_due = true;
  int r = connection_send(c);
  if (r == -ETOOMANYREFS) {
    connection_fds_done(c, false);
    send_batch_reset(&c->net->out);
    return false;
  }
  connection_output_sent(c, r);
  return true;
}

/* Sends what is unsent.  True if nothing is left. */
static bool connection_send_unsent(struct connection *c) {
  size_t unsent = stream_unsent(&c->stream);
  if (!unsent)
    return true;
  int r = stream_flush(&c->stream);
  connection_account(c);
  if (stream_unsent(&c->stream) < unsent)
    c->progress_ms = clock_now_ms();
  connection_sent(c, r);
  return r == STREAM_SENT;
}

/* How many bytes TCP takes.  `queued` is what it has, and the peer has not
 * acknowledged.  It takes what it can send at once, which both windows allow,
 * and LIMITS_UNSENT_LEN more.  A later frame cannot pass these.  Nor does it
 * send more at once than it paces out in a millisecond.  What it does not take
 * would be kept in memory of the thread, so a crowded one offers only what is
 * taken in any case.  Linux before 5.4 does not tell the peer's window.
 * SIZE_MAX: it is no TCP socket. */
static size_t tcp_room(int fd, uint64_t queued, bool is_crowded) {
  struct tcp_info i = {0};
  socklen_t len = sizeof i;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &i, &len) < 0)
    return SIZE_MAX;
  uint64_t unsent = i.tcpi_notsent_bytes;
  uint64_t sent = queued > unsent ? queued - unsent : 0;
  uint64_t window = (uint64_t)i.tcpi_snd_cwnd * i.tcpi_snd_mss;
  if (window > i.tcpi_snd_wnd)
    window = i.tcpi_snd_wnd;
  uint64_t now = is_crowded || window < sent ? 0 : window - sent;
  if (now > i.tcpi_pacing_rate >> 10)
    now = i.tcpi_pacing_rate >> 10;
  uint64_t most = LIMITS_UNSENT_LEN + now;
  return most > unsent ? most - unsent : 0;
}

/* How many bytes the socket takes at once; 0: too few, so the connection has to
 * wait until it is writable.  0 means that less than a quarter of the buffer is
 * free.  The kernel calls a socket writable only when a third is free, or three
 * quarters of a Unix socket: so the wait does not end at once.  An eighth of
 * the buffer is left for what the kernel adds to the bytes. */
static size_t socket_room(const struct connection *c) {
  int fd = c->fd, queued = 0, size = 0;
  socklen_t len = sizeof size;
  if (ioctl(fd, SIOCOUTQ, &queued) < 0 ||
      getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, &len) < 0 || queued >= size)
    return 0;
  size_t room = (size_t)(size - queued);
  size_t least = size / 4 < ROOM_LEAST ? (size_t)size / 4 : ROOM_LEAST;
  size_t most = tcp_room(fd, (uint64_t)queued, net_thread_is_crowded(c->net));
  room = room < most ? room : most;
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
    c->room = socket_room(c);
  if (out->len + ROOM_LEFT <= c->room)
    return true;
  if (out->len) {
    connection_flush(c);
    c->room = connection_may_send(c) ? socket_room(c) : 0;
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
    c->room = socket_room(c);
  size_t room = c->room ? c->room : UNASKED_LEN;
  size_t left = room > used + ROOM_LEFT ? room - used : ROOM_LEFT;
  return len < left ? len : left;
}

void connection_reply(struct connection *c, const wire_message *msg) {
  struct send_batch *out = &c->net->out;
  size_t len = frame_packed_len(msg);
  assert(len <= FRAME_HEADER_LEN + FRAME_MAX_MESSAGE);
  if (!send_batch_has_room(out, len, 0))
    connection_flush(c);
  send_batch_frame(out, msg, 0);
}

/* `text` may quote the peer, and may be cut in the middle of a character.
 * Protobuf wants UTF-8, so every byte that is not ASCII is replaced. */
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
  connection_drain(c);
}

/* ---- Input --------------------------------------------------------------- */

/* Acts on the next message.  False: it has not arrived whole, it ended the
 * connection, or the connection is blocked. */
static bool connection_take_message(struct connection *c) {
  struct frame_header header;
  wire_message *msg;
  assert(c->knows_peer && !connection_is_in_tls_handshake(c)); /* C4, C5 */
  if (stream_missing(&c->stream))
    return false;
  if (!connection_has_room(c) && !connection_may_queue(c))
    return false;
  switch (stream_take(&c->stream, c->net->arena, &header, &msg)) {
  case STREAM_MESSAGE:
    c->owner->message(c, msg);
    connection_spend(c, header.message_len + FRAME_COST);
    return true;
  case STREAM_TOO_LONG:
    connection_fail(c, 0, WIRE_E_PROTO,
                    "a frame is longer than the %u bytes of a request",
                    c->net->limits->max_message);
    return false;
  default:
    connection_fail(c, 0, WIRE_E_PROTO,
                    "a frame holds no message that is known");
    return false;
  }
}

/* Takes the thread's receive buffer back from the stream. */
static void connection_end_input(struct connection *c) {
  if (c->state == CONNECTION_DRAINING || c->state == CONNECTION_CLOSED)
    stream_drop_input(&c->stream); /* no message of it will be acted on */
  else if (stream_keep_input(&c->stream, net_thread_room(c->net)) < 0)
    connection_lost(c, "no memory for its requests");
  connection_account(c);
}

/* Its handshake is complete. */
static int connection_learn_tls(struct connection *c) {
  log_event(LEVEL_DEBUG, "tls-open", LOG_NUMBER("conn", c->serial),
            LOG_TEXT("cipher", tls_cipher(c->tls)),
            LOG_TEXT("sends", tls_kernel_sends(c->tls) ? "kernel" : "openssl"));
  return peer_learn_certificate(&c->peer, c->tls);
}

/* C5.  False: there is no memory. */
static bool connection_learn_peer(struct connection *c) {
  int r = 0;
  if (c->knows_peer)
    return true;
  c->knows_peer = true;
  c->peer.is_here = listener_is_here(c->listener);
  if (listener_is_local(c->listener))
    r = peer_learn_process(&c->peer, c->fd);
  else if (c->tls)
    r = connection_learn_tls(c);
  if (r < 0)
    connection_lost(c, "no memory for its peer");
  else
    connection_account(c);
  return r == 0;
}

/* Acts on the messages that were received.  The time limit of a message that
 * has arrived in part begins with its first byte.  It does not run while the
 * daemon itself does not read. */
static void connection_take_messages(struct connection *c) {
  bool any = false;
  bool knows = connection_learn_peer(c);
  while (knows && connection_may_take(c) && !c->net->stopping &&
         connection_take_message(c))
    any = true;
  connection_end_input(c);
  if (!stream_has_input(&c->stream) || connection_is_blocked(c))
    c->partial_since_ms = 0;
  else if (any || c->partial_since_ms == 0)
    c->partial_since_ms = clock_now_ms();
}

/* The reason why its transport failed. */
static const char *connection_why(const struct connection *c, int error) {
  return c->tls ? tls_why(c->tls) : strerror(-error);
}

/* The TLS handshake has failed.  A peer that spoke plain text is told so; no
 * other peer could read an answer.  The connection drains before it is closed,
 * so that the peer reads the alert of TLS: a close at once might reset the
 * connection, and the peer's kernel would drop the alert. */
static void connection_fail_tls(struct connection *c, const char *why) {
  char advice[] = "this address is for TLS; write cachets:// for cachet://";
  bool is_plain = tls_peer_is_plain(c->tls);
  log_peer_event(LEVEL_WARN, "tls-failed", LOG_NUMBER("conn", c->serial),
                 LOG_TEXT("listener", listener_text(c->listener)),
                 LOG_TEXT("reason", why));
  struct frame_limits limits = c->stream.limits;
  stream_fini(&c->stream);
  tls_free(c->tls);
  c->tls = NULL;
  stream_init(&c->stream, &socket_plain_io, &c->fd, &limits);
  connection_account(c);
  c->yielding = c->full = false;
  if (is_plain)
    put_error(c, 0, WIRE_E_PROTO, 0, advice);
  connection_drain(c);
}

/* Gives the connection another turn if the transport has more input, although
 * the socket has none.  If the transport has to send first, waits for room. */
static void connection_ask_transport(struct connection *c) {
  switch (stream_wants(&c->stream)) {
  case STREAM_WANTS_TURN:
    c->yielding = true;
    break;
  case STREAM_WANTS_ROOM:
    c->full = true;
    c->progress_ms = clock_now_ms();
    break;
  case STREAM_WANTS_NOTHING:
    break;
  }
}

/* The peer sends no more.  Its requests are still answered, unless it is known
 * to have closed: a Unix socket shows that. */
static void connection_ended(struct connection *c) {
  struct pollfd p = {.fd = c->fd, .events = 0};
  c->ended = true;
  c->partial_since_ms = 0;
  if (poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLERR)))
    connection_lost(c, "the peer closed");
}

/* How much to receive.  When memory is short, it is enough for a few short
 * messages, or for the rest of one. */
static size_t connection_receive_len(const struct connection *c) {
  size_t missing = stream_missing(&c->stream);
  if (!net_thread_is_crowded(c->net))
    return SIZE_MAX;
  return missing > CROWDED_RX_LEN ? missing : CROWDED_RX_LEN;
}

static void connection_receive(struct connection *c) {
  stream_lend(&c->stream, c->net->rx, c->net->rx_cap);
  if (stream_has_input(&c->stream) && !stream_missing(&c->stream)) {
    connection_take_messages(c); /* as many were waiting as may be */
    return;
  }
  int r = stream_receive(&c->stream, connection_receive_len(c));
  if (r == STREAM_CAME) {
    connection_take_messages(c);
    connection_ask_transport(c);
    return;
  }
  if (r == STREAM_END)
    connection_ended(c);
  else if (r == STREAM_STRAY)
    connection_fail(c, 0, WIRE_E_PROTO, "a request comes with descriptors");
  else if (r != STREAM_NOTHING && (!c->tls || tls_is_open(c->tls)))
    connection_lost(c, connection_why(c, r));
  connection_end_input(c);
  connection_ask_transport(c);
  /* The account may have ended it: what a handshake holds grows by what the
   * peer sends. */
  if (r < 0 && connection_is_in_tls_handshake(c))
    connection_fail_tls(c, tls_why(c->tls));
}

/* Reads what the peer still sends, and forgets it.  A close(2) with unread
 * input would reset the connection, and the peer could lose the last answer. */
static void connection_discard(struct connection *c) {
  stream_drop_input(&c->stream);
  stream_lend(&c->stream, c->net->rx, c->net->rx_cap);
  int r = stream_receive(&c->stream, SIZE_MAX);
  stream_drop_input(&c->stream);
  connection_account(c);
  if ((r != STREAM_CAME && r != STREAM_NOTHING) ||
      stream_wants(&c->stream) != STREAM_WANTS_NOTHING)
    connection_lost(c, "the peer closed");
}

/* Goes on when the socket has room again: first the answers that wait, and then
 * the frames that were received meanwhile. */
static void connection_pump(struct connection *c) {
  c->owner->writable(c);
  if (connection_may_take(c) && stream_has_input(&c->stream)) {
    stream_lend(&c->stream, c->net->rx, c->net->rx_cap);
    connection_take_messages(c);
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
  if (connection_send_unsent(c) && connection_is_open(c))
    connection_pump(c);
  if (connection_reads(c) && stream_wants(&c->stream) != STREAM_WANTS_NOTHING)
    connection_receive(c);
  connection_settle(c);
}

/* The time at which this state has lasted too long; 0: it has no limit. */
static uint64_t connection_deadline(const struct connection *c) {
  const struct limits *limits = c->net->limits;
  if (!connection_is_in_tls_handshake(c) &&
      (stream_unsent(&c->stream) || c->full))
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
    if (connection_is_in_tls_handshake(c))
      connection_fail_tls(c, "no handshake in time");
    else if (stream_unsent(&c->stream) || c->full)
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

/* Puts TLS under the stream. */
static void connection_begin_tls(struct connection *c) {
  struct frame_limits limits = c->stream.limits;
  struct tls_context *context = listener_tls(c->listener);
  int r = tls_new(context, &socket_plain_io, &c->fd, &c->tls);
  tls_context_unref(context);
  if (r < 0) {
    connection_lost(c, "no memory for TLS");
    return;
  }
  stream_init(&c->stream, tls_io_of(c->tls), c->tls, &limits);
  tls_use_kernel(c->tls, c->fd);
  if (net_thread_held(c->net) + tls_held(c->tls) > c->net->max_held / 2)
    connection_lost(c, "no memory for another handshake");
  else
    connection_account(c);
}

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
  if (listener_is_tls(c->listener))
    connection_begin_tls(c);
  connection_settle(c);
}

void connection_init(struct connection *c, struct net_thread *net,
                     const struct connection_owner *owner,
                     struct listener *listener, int fd, uint64_t serial,
                     uint64_t user) {
  struct frame_limits limits = {.max_message = net->limits->max_message,
                                .max_payload = 0};
  c->arrival.run = connection_arrived;
  c->net = net;
  c->owner = owner;
  c->listener = listener_ref(listener);
  c->fd = fd;
  c->serial = serial;
  c->user = user;
  c->may_bring_fds = listener_is_local(listener) && stray_fds_may_come(fd);
  stream_init(&c->stream, c->may_bring_fds ? &stray_fds_io : &socket_plain_io,
              &c->fd, &limits);
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
  listener_unref(c->listener);
  c->owner->release(c);
}

/* Closes the descriptor and frees the connection.  If the close may take time,
 * another thread does both. */
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
  connection_fds_done(c, false);
  *(c->prev ? &c->prev->next : &net->conns) = c->next;
  if (c->next)
    c->next->prev = c->prev;
  stream_fini(&c->stream);
  tls_free(c->tls);
  c->tls = NULL;
  peer_fini(&c->peer);
  connection_account(c);
  c->owner->closed(c);
  assert(c->n_requests == 0);
  connection_close(c);
  if (!net->conns)
    net->emptied(net->arg);
}

/* Whether every request is answered, and no more can come. */
static bool connection_is_finished(const struct connection *c) {
  return connection_is_open(c) && (c->ended || c->net->stopping) &&
         !connection_is_blocked(c) && c->n_requests == 0;
}

/* Ends the connection after all output was sent. */
static void connection_finish(struct connection *c) {
  bool linger = c->state == CONNECTION_DRAINING && !c->net->stopping;
  stream_end(&c->stream);
  shutdown(c->fd, SHUT_WR);
  if (linger) {
    c->lingering = true;
    c->moved_ms = clock_now_ms();
    return;
  }
  connection_discard(c); /* of the input, at least what has arrived */
  if (c->state != CONNECTION_CLOSED)
    connection_move(c, CONNECTION_CLOSED);
}

/* Between two turns: N1, N2 and C2; and what waits is woken. */
static void connection_check(const struct connection *c) {
  (void)c;
#ifdef CACHETD_DEBUG_CHECKS
  assert(c->state != CONNECTION_CLOSED);
  assert(send_batch_is_empty(&c->net->out));
  assert(!c->stream.in);
  assert(c->held == connection_held(c));
  assert(c->held <= net_thread_held(c->net));
  assert(!c->fds_due == !stream_has_fds(&c->stream));
  assert(!connection_is_blocked(c) ||
         event_pending(&c->writable, EV_WRITE, NULL));
#endif
}

void connection_check_all(const struct net_thread *net, uint64_t of_owners) {
  uint64_t held = of_owners;
  assert(send_batch_is_empty(&net->out)); /* N1 */
  for (const struct connection *c = net->conns; c; c = c->next) {
    assert(c->net == net && (!c->next || c->next->prev == c));
    held += c->held;
  }
  assert(held <= net_thread_held(net) &&
         net_thread_held(net) <= net->max_held);  /* N2 */
  assert(net->crowded_from <= net->max_held / 2); /* N3 */
}

void connection_settle(struct connection *c) {
  connection_flush(c);
  if (connection_is_finished(c) ||
      (c->state == CONNECTION_DRAINING && !stream_unsent(&c->stream) &&
       (!c->lingering || c->net->stopping)))
    connection_finish(c);
  if (c->state == CONNECTION_CLOSED) {
    connection_free(c);
    return;
  }
  c->owner->turn_ended(c);
  if (connection_is_blocked(c))
    c->partial_since_ms = 0; /* connection_take_messages() begins anew */
  set_event(&c->readable, connection_reads(c) || c->lingering);
  set_event(&c->writable, connection_is_blocked(c));
  connection_set_timer(c);
  connection_check(c);
}

void connection_drop(struct connection *c) {
  if (c->state != CONNECTION_CLOSED)
    connection_move(c, CONNECTION_CLOSED);
  connection_settle(c);
}

void connection_stop_all(struct net_thread *net) {
  net->stopping = true;
  for (struct connection *c = net->conns, *next; c; c = next) {
    next = c->next;
    connection_settle(c);
  }
}

void connection_drop_all(struct net_thread *net) {
  while (net->conns)
    connection_drop(net->conns);
}

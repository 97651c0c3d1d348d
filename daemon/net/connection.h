/* A connection: a stream, its time-outs and its turns, one state machine.
 *
 *     HANDSHAKE --Hello--> OPEN --peer ended, nothing left--> CLOSED
 *         |                 |
 *         `---bad frame-----`--> DRAINING --flushed, lingered--> CLOSED
 *     any state --lost, out of time--> CLOSED
 *
 *   C1  Blocked (bytes unsent, no room in the socket, or a turn used up):
 *       nothing is produced for the peer, and nothing is read from it, but for
 *       requests while its socket has no room: some of them may be waiting, so
 *       that a small one can overtake.  So what it can make us hold is one
 *       batch of output, one buffer of input, and its waiting requests; all of
 *       it is counted, see N2 in net_thread.h.
 *   C2  Idle, it holds no buffer: input and output are its thread's.
 *   C3  The stream keeps a whole frame only while blocked, or at a stop.
 *   C4  With TLS, no frame is looked at before its handshake is complete, and
 *       there is nothing to send.  The memory of TLS is charged to the thread's
 *       account as the rest is.  A TLS handshake begins only while the account
 *       is less than half full, so that handshakes alone never fill it.
 *   C5  The peer is known before the first message is looked at.
 *   C6  CLOSED is noticed by connection_settle(), which ends every turn and
 *       frees the connection; until then all may still be called.
 *
 * What messages mean is its owner's: see struct connection_owner.  Its thread
 * only, but where something else is said. */
#ifndef DAEMON_NET_CONNECTION_H
#define DAEMON_NET_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <event2/event_struct.h>

#include "daemon/net/listener.h"
#include "daemon/net/net_thread.h"
#include "daemon/peer.h"
#include "proto/frame.h"
#include "proto/stream.h"

/* How many descriptors go with a frame, if any do. */
enum { CONNECTION_N_FDS = STREAM_MAX_FDS };

enum connection_state {
  CONNECTION_HANDSHAKE,
  CONNECTION_OPEN,
  CONNECTION_DRAINING,
  CONNECTION_CLOSED
};

/* What a connection calls its owner for.  All on the connection's thread, but
 * for release().  From none of them may the connection be settled or dropped;
 * connection_fail() may be called from message() alone. */
struct connection_owner {
  /* A message, which is gone after the call. */
  void (*message)(struct connection *c, const wire_message *msg);

  /* It was blocked, and may send: answers that wait go on. */
  void (*writable)(struct connection *c);

  /* All that was produced for the peer is in its socket. */
  void (*delivered)(struct connection *c);

  /* The descriptors of connection_flush_fds() have gone out (`sent`), or never
   * will. */
  void (*fds_sent)(struct connection *c, bool sent);

  /* A turn is over, and the connection is not closed.  In DRAINING nothing more
   * will be sent than is unsent: what waits is to be given up. */
  void (*turn_ended)(struct connection *c);

  /* It is CLOSED, and of no list any more: the owner lets go of everything but
   * the memory of the connection. */
  void (*closed)(struct connection *c);

  /* Its descriptor is closed: frees the memory.  Any thread. */
  void (*release)(struct connection *c);
};

struct tls;

struct connection {
  struct closing closing; /* hands it to the closer */
  struct task arrival;    /* hands it to its thread */
  struct net_thread *net;
  const struct connection_owner *owner;
  struct listener *listener;      /* a reference */
  struct connection *prev, *next; /* the thread's list */
  uint64_t serial;                /* for the log */
  uint64_t user;                  /* that it counts for */
  int fd;
  bool may_bring_fds; /* see stray_fds.h */
  enum connection_state state;
  bool ended;     /* the peer sends no more */
  bool yielding;  /* it had its turn, and goes on when the others had theirs */
  bool full;      /* its socket had no room, and nothing is unsent */
  bool lingering; /* all is sent; waits for the peer to close */

  struct event readable, writable, timer;
  uint64_t deadline_ms;      /* what the timer is set to; 0: not set */
  uint64_t moved_ms;         /* when the state began */
  uint64_t partial_since_ms; /* the first byte of a half message; 0: none */
  uint64_t progress_ms;      /* when unsent bytes last moved, or it is full */

  struct stream stream; /* it is lent the thread's receive buffer */
  struct tls *tls;      /* its transport; NULL: that is the socket */
  struct peer peer;     /* once `knows_peer` */
  bool knows_peer;
  size_t held;         /* by it, as the thread's account has it */
  bool fds_due;        /* fds_sent() is */
  uint64_t turn_len;   /* bytes sent in this turn */
  size_t room;         /* how long the output may become: what the socket takes,
                          when it was asked; 0: since then something was sent */
  unsigned n_requests; /* that the owner has not answered; the owner counts */
};

/* Makes a connection of an accepted socket, for a thread.  `c` is zeroed, and
 * most often embedded in what the owner knows of it.  It counts for `user`
 * already: see users.h.  Any thread, as is the next. */
void connection_init(struct connection *c, struct net_thread *net,
                     const struct connection_owner *owner,
                     struct listener *listener, int fd, uint64_t serial,
                     uint64_t user);

/* Hands it to its thread, for its first turn. */
void connection_start(struct connection *c);

static inline bool connection_is_blocked(const struct connection *c) {
  return stream_unsent(&c->stream) || c->yielding || c->full;
}

/* Whether answers may be produced now. */
static inline bool connection_may_send(const struct connection *c) {
  return (c->state == CONNECTION_OPEN || c->state == CONNECTION_HANDSHAKE) &&
         !connection_is_blocked(c);
}

/* Whether answers may be produced now, and there is room for them.  A few are
 * sent without asking, unless the thread is crowded: what the socket does not
 * take of them is kept.  Else the socket is asked first; has it no room, the
 * connection is blocked, and what was to be produced is looked up again when
 * there is.  It may flush, so no pin is needed any more. */
bool connection_has_room(struct connection *c);

/* How many of `len` bytes of payload the next frame may have. */
size_t connection_frame_room(struct connection *c, size_t len);

void connection_move(struct connection *c, enum connection_state to);

/* Sends what the thread's output holds; what the socket does not take is
 * copied, and the connection is blocked.  The output is empty afterwards, and
 * the pins are gone. */
void connection_flush(struct connection *c);

/* Sends the output, which is one frame, with these descriptors on its first
 * byte; nothing else is unsent.  They are the connection's from here, and
 * fds_sent() is called once for them.  False: so many are on their way to
 * processes that do not take them that the kernel takes no more.  Then nothing
 * was sent. */
bool connection_flush_fds(struct connection *c,
                          const int fds[CONNECTION_N_FDS]);

/* Charges its turn with work that is worth `len` bytes sent. */
void connection_spend(struct connection *c, uint64_t len);

/* Adds a frame without payload to the output. */
void connection_reply(struct connection *c, const wire_message *msg);

/* Answers with an Error.  `sys_errno` 0: none. */
void connection_reply_error(struct connection *c, uint64_t id, int status,
                            int sys_errno, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* The peer broke the rules, or ran out of time: an Error, then the end. */
void connection_fail(struct connection *c, uint64_t id, int status,
                     const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Ends a turn: flushes, and brings events and timer in line with the state;
 * frees the connection if it is closed. */
void connection_settle(struct connection *c);

/* Closes it now, whatever it is doing, and frees it. */
void connection_drop(struct connection *c);

/* A thread takes no new requests: its connections that have nothing to wait for
 * end. */
void connection_stop_all(struct net_thread *net);

/* Asserts N1 to N3 of net_thread.h, between two turns of a thread.  The owners
 * of its connections hold `of_owners` bytes at least: some may be for
 * connections that are gone. */
void connection_check_all(const struct net_thread *net, uint64_t of_owners);

/* Drops all of a thread. */
void connection_drop_all(struct net_thread *net);

#endif

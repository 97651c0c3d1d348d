/* A connection: bytes in, frames out, one state machine.
 *
 *     HANDSHAKE --Hello--> OPEN --peer ended, nothing left--> CLOSED
 *         |                 |
 *         `---bad frame-----`--> DRAINING --flushed, lingered--> CLOSED
 *     any state --lost, out of time--> CLOSED
 *
 *   C1  Blocked (bytes unsent, no room in the socket, or a turn used up):
 *       nothing is read from the peer and nothing is produced for it.  So what
 *       it can make us hold is one batch of output, one buffer of input, and
 *       its waiting requests; all of it is counted, see W4 in worker.h.
 *   C2  Idle, it holds no buffer: input and output are its worker's.
 *   C3  `rest` holds a whole frame only while blocked, or at a stop.
 *   C4  A request is `runnable` only while its connection is blocked.
 *   C5  What it is owed of notices is in its socket before an Invalidate is
 *       answered, or it is closed: see invalidation.h.
 *   C6  CLOSED is noticed by connection_settle(), which ends every turn and
 * frees the connection; until then all may still be called.
 *
 * Its worker's thread only, but for connection_new(). */
#ifndef DAEMON_NET_CONNECTION_H
#define DAEMON_NET_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <event2/event_struct.h>

#include "daemon/net/listener.h"
#include "daemon/serve/request.h"
#include "daemon/worker.h"
#include "proto/frame.h"

enum connection_state {
  CONNECTION_HANDSHAKE,
  CONNECTION_OPEN,
  CONNECTION_DRAINING,
  CONNECTION_CLOSED
};

/* An image that this connection opened: it gets notices about it. */
struct opened {
  unsigned image;
  uint64_t epoch; /* the last that it was told of */
  bool attached;  /* it sees what notices say, and gets none */
  /* An Invalidated that could not be sent yet: the hull of all of those, so
   * that a peer that does not read collects one, not many.  The serial number
   * of the oldest; 0: none. */
  uint64_t stale;
  uint64_t stale_from, stale_to; /* bytes, `to` excluded */
  uint64_t fetching;             /* bytes being fetched of it, for this one */
  struct request *throttled, *last_throttled; /* a queue, by next_queued */
};

struct connection {
  struct closing closing; /* hands it to the closer */
  struct task arrival;    /* hands it to its worker */
  struct worker *worker;
  const struct listener *listener;
  struct connection *prev, *next; /* the worker's list */
  uint64_t serial;                /* for the log */
  uint64_t user;                  /* whom it counts for */
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

  struct {
    uint8_t *bytes;
    size_t len, cap;
  } rest; /* received, not looked at */
  struct {
    uint8_t *bytes;
    size_t len, sent;
  } unsent;          /* `len` 0: nothing */
  uint64_t turn_len; /* bytes sent in this turn */
  size_t room;       /* how long the output may become: what the socket takes,
                        when it was asked; 0: since then something was sent */
  /* Descriptors that go with the next byte that is sent, and whose they are;
   * NULL: that one has ended meanwhile. */
  int fds_out[ATTACHMENT_N_FDS];
  unsigned n_fds_out;
  struct attachment *sending;
  struct attachment_list attachments; /* that it asked for */

  struct opened *opened;
  unsigned n_opened;
  uint64_t unsent_notice; /* the oldest that is among the unsent bytes; 0 */
  uint64_t oldest_owed;   /* the oldest that it is owed, as of its last turn */

  struct request *requests; /* all that wait for something */
  struct request_queue runnable;
  unsigned n_requests, n_held_ranges, n_invalidations;
  uint64_t fetching; /* bytes being fetched for it */
};

/* Makes a connection of an accepted socket, to be given to `w` by posting
 * `arrival`.  NULL: out of memory; then the socket is still the caller's. */
struct connection *connection_new(struct worker *w,
                                  const struct listener *listener, int fd,
                                  uint64_t serial, uint64_t user);

static inline bool connection_is_blocked(const struct connection *c) {
  return c->unsent.len || c->yielding || c->full;
}

/* Whether answers may be produced now. */
static inline bool connection_may_send(const struct connection *c) {
  return (c->state == CONNECTION_OPEN || c->state == CONNECTION_HANDSHAKE) &&
         !connection_is_blocked(c);
}

/* Whether answers may be produced now, and there is room for them.  A few are
 * sent without asking, unless the worker is crowded: what the socket does not
 * take of them is kept.  Else the socket is asked first; has it no room, the
 * connection is blocked, and what was to be produced is looked up again when
 * there is.  It may flush, so no pin is needed any more. */
bool connection_has_room(struct connection *c);

/* How many of `len` bytes of payload the next frame may have. */
size_t connection_frame_room(struct connection *c, size_t len);

void connection_move(struct connection *c, enum connection_state to);

/* Sends what the worker's output holds; what the socket does not take is
 * copied, and the connection is blocked.  The output is empty afterwards, and
 * the pins are gone. */
void connection_flush(struct connection *c);

/* Sends the output, which is one frame, with the descriptors of `a` on its
 * first byte; nothing else is unsent.  They are the connection's from here, and
 * `a` ends if they do not get away.  False: so many are on their way to
 * processes that do not take them that the kernel takes no more.  Then nothing
 * was sent. */
bool connection_flush_fds(struct connection *c, struct attachment *a,
                          const int fds[ATTACHMENT_N_FDS]);

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

#endif

/* A connection to a daemon: its frames and its handshake.
 *
 *   DISCONNECTED -> CONNECTING -> SECURING -> HELLO -> OPENING -> READY
 *
 * SECURING is the handshake of TLS, where there is that.  READY follows HELLO
 * where no image is opened, and every state goes back to DISCONNECTED.  No step
 * waits.  Memory is bounded: one message in, payload straight to where its
 * owner wants it, and the owner sends no more once connection_is_full().
 *
 * Whatever arrives is hostile: a length, a message or a state that cannot be
 * ends the connection with CONNECTION_LOST_BROKEN.  One thread at a time. */
#ifndef CLIENT_REMOTE_CONNECTION_H
#define CLIENT_REMOTE_CONNECTION_H

#include <stdbool.h>
#include <stdint.h>

#include <cachet/cachet.h>

#include "client/uri.h"
#include "proto/frame.h"

#ifdef __cplusplus
extern "C" {
#endif

struct connection;

enum connection_state {
  CONNECTION_DISCONNECTED,
  CONNECTION_CONNECTING,
  CONNECTION_SECURING,
  CONNECTION_HELLO,
  CONNECTION_OPENING,
  CONNECTION_READY,
};

enum connection_loss {
  CONNECTION_LOST_RETRY,   /* refused, silent, no memory: it may come back */
  CONNECTION_LOST_CUT,     /* closed or reset, as by a daemon that ends, or
                              given up here: another one is worth a try */
  CONNECTION_LOST_REFUSED, /* it does not open the image, or refuses our
                              certificate */
  CONNECTION_LOST_BROKEN,  /* it broke the protocol */
  CONNECTION_LOST_FINAL,   /* it speaks another version: never again */
};

/* What the daemon takes, from its Welcome, cut to what is sane here. */
struct connection_limits {
  uint32_t max_ranges;
  uint64_t max_read;
  uint32_t max_requests;
  bool share;  /* it may be asked to Attach, */
  bool change; /* to Add and Remove, */
  bool drain;  /* and to Drain */
};

/* What a daemon said about an image, checked. */
struct connection_image {
  uint32_t id;
  uint64_t size;
  unsigned page_shift;
  uint64_t epoch; /* not 0 */
  /* How many invalidations of its epoch this client was told of, and one.  0:
   * the daemon does not say. */
  uint64_t invalidations;
  /* What tells its content from every other one, whichever daemon serves it. */
  unsigned identity_len; /* 0: the daemon does not say */
  uint8_t identity[PROTO_MAX_IDENTITY];
};

/* What a connection calls its owner for.  From none of them may the connection
 * be freed or started; connection_break() may be called from message(),
 * payload() and ready(). */
struct connection_owner {
  /* The state is READY.  `image` is NULL if none was opened. */
  void (*ready)(void *arg, const struct connection_image *image);

  /* A message while READY.  Its payload, if any, goes to `*payload`; NULL: to
   * nowhere.  `msg` is gone after the call. */
  void (*message)(void *arg, const wire_message *msg, uint32_t payload_len,
                  uint8_t **payload);

  /* The Data message that came last is complete with its payload. */
  void (*payload)(void *arg);

  /* The state is DISCONNECTED.  changed() follows. */
  void (*lost)(void *arg, enum connection_loss loss,
               const struct cachet_error *why);

  /* fd, events or time-out may have changed. */
  void (*changed)(void *arg);
  void *arg;
};

/* Makes a connection to where `u` points; `open_image`: open u->image.  Looks
 * up the host, which takes as long as getaddrinfo(3) does, and reads the files
 * of certificates.  Not started yet. */
enum cachet_status
connection_new(const struct uri *u, bool open_image, int connect_timeout_ms,
               int request_timeout_ms, const struct connection_owner *owner,
               struct connection **out, struct cachet_error *err);
void connection_free(struct connection *c);

/* The same in a forked child, whose connection is the parent's: nothing is sent
 * or received.  The child's own copy of the socket is closed, if the number
 * still names it: a child may have closed it, or put another file there. */
void connection_abandon(struct connection *c);

/* Begins to connect; DISCONNECTED only.  May be lost before it returns.  All
 * of the host's addresses and the handshake share the connect time-out.  Each
 * address gets an even share of what is left.  It begins behind the address
 * that timed out last, if one has. */
void connection_start(struct connection *c);

/* Whether the daemon may have got another address since the host was looked up:
 * the last connection did not become READY.  Not more often than once a
 * second. */
bool connection_is_look_up_due(const struct connection *c);

/* Looks up the host of `u` again, which is where the connection was made to;
 * DISCONNECTED only.  Takes as long as getaddrinfo(3) does.  If it fails, the
 * addresses stay. */
void connection_look_up(struct connection *c, const struct uri *u);

/* Takes in what has arrived: all of it, but for a flood of notices, of which
 * connection_has_more() says that there is more to take in. */
void connection_input(struct connection *c);
bool connection_has_more(const struct connection *c);

/* When something came last on this connection; before, when it was started. */
int64_t connection_heard_at(const struct connection *c);

/* Input, output and time-outs. */
void connection_progress(struct connection *c);

/* Sends a message, or keeps it to send; READY only. */
void connection_send(struct connection *c, const wire_message *msg);

/* Whether a message that comes with descriptors has been asked for.  While none
 * has, descriptors are against the protocol.  READY only. */
void connection_want_fds(struct connection *c, bool want);

/* Whether this process could take `n` descriptors now. */
bool connection_has_room_for_fds(const struct connection *c, unsigned n);

enum connection_fds {
  CONNECTION_FDS_HERE,  /* exactly so many, the caller's from here on */
  CONNECTION_FDS_WRONG, /* none, more or less, or not of memory */
  CONNECTION_FDS_LOST,  /* this process had no room for them */
};

/* Takes the descriptors that came with the message that is being looked at. */
enum connection_fds connection_take_fds(struct connection *c, int *fds,
                                        unsigned n);

/* Has what is sent from here on wait for connection_flush(), or not. */
void connection_hold(struct connection *c, bool holds);
void connection_flush(struct connection *c);

/* Whether so much is unsent that nothing should be added. */
bool connection_is_full(const struct connection *c);

/* Ends the connection because of what the daemon did or said. */
void connection_break(struct connection *c, enum connection_loss loss,
                      enum cachet_status code, const char *what);

enum connection_state connection_state(const struct connection *c);
const struct connection_limits *connection_limits(const struct connection *c);
const char *connection_place(const struct connection *c);

int connection_fd(const struct connection *c);
short connection_events(const struct connection *c);
int64_t connection_deadline(const struct connection *c); /* -1: none */

/* An id for a request on this connection. */
uint64_t connection_next_id(struct connection *c);

/* Turns an Error of the daemon's into one of ours. */
void connection_read_error(const Cachet__Wire__Error *in,
                           struct cachet_error *out);

/* Checks what a daemon says about an image; false: it cannot be. */
bool connection_read_image(const Cachet__Wire__ImageInfo *in,
                           struct connection_image *out);

/* Whether what was kept of the image is good, though the connection was lost
 * that had said `before` last: `now` is what the next one said first, and no
 * notice was missed meanwhile. */
bool connection_image_goes_on(const struct connection_image *before,
                              const struct connection_image *now);

/* Notes that all of a notice was heeded. */
void connection_image_told(struct connection_image *image,
                           const Cachet__Wire__Invalidated *notice);

#ifdef __cplusplus
}
#endif

#endif

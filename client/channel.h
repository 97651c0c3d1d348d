/* A channel: a connection to a daemon, its frames and its handshake.
 *
 *   DISCONNECTED -> CONNECTING -> HELLO -> OPENING -> READY
 *
 * READY follows HELLO where no image is opened, and every state goes back to
 * DISCONNECTED.  No step waits.  Memory is bounded: one message in, payload
 * straight to where its owner wants it, and the owner sends no more once
 * channel_is_full().
 *
 * Whatever arrives is hostile: a length, a message or a state that cannot be
 * ends the connection with CHANNEL_LOST_BROKEN.  One thread at a time. */
#ifndef CLIENT_CHANNEL_H
#define CLIENT_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>

#include <cachet/cachet.h>

#include "client/uri.h"
#include "proto/frame.h"

#ifdef __cplusplus
extern "C" {
#endif

struct channel;

enum channel_state {
  CHANNEL_DISCONNECTED,
  CHANNEL_CONNECTING,
  CHANNEL_HELLO,
  CHANNEL_OPENING,
  CHANNEL_READY,
};

enum channel_loss {
  CHANNEL_LOST_RETRY,   /* refused, closed, reset, silent: it may come back */
  CHANNEL_LOST_REFUSED, /* the daemon does not open the image */
  CHANNEL_LOST_BROKEN,  /* it broke the protocol */
  CHANNEL_LOST_FINAL,   /* it speaks another version: never again */
};

/* What the daemon takes, from its Welcome, cut to what is sane here. */
struct channel_limits {
  uint32_t max_ranges;
  uint64_t max_read;
  uint32_t max_requests;
  bool share; /* it may be asked to Attach */
};

/* What a daemon said about an image, checked. */
struct channel_image {
  uint32_t id;
  uint64_t size;
  unsigned page_shift;
  uint64_t epoch; /* not 0 */
};

/* What a connection calls its owner for.  From none of them may the connection
 * be freed or started; channel_break() may be called from message(), payload()
 * and ready(). */
struct channel_owner {
  /* The state is READY.  `image` is NULL if none was opened. */
  void (*ready)(void *arg, const struct channel_image *image);

  /* A message while READY.  Its payload, if any, goes to `*payload`; NULL: to
   * nowhere.  `msg` is gone after the call. */
  void (*message)(void *arg, const wire_message *msg, uint32_t payload_len,
                  uint8_t **payload);

  /* The Data message that came last is complete with its payload. */
  void (*payload)(void *arg);

  /* The state is DISCONNECTED. */
  void (*lost)(void *arg, enum channel_loss loss,
               const struct cachet_error *why);

  /* fd, events or time-out may have changed. */
  void (*changed)(void *arg);
  void *arg;
};

/* Makes a connection to where `u` points; `open_image`: open u->image.  Looks
 * up the host, which takes as long as getaddrinfo(3) does.  Not started yet. */
enum cachet_status channel_new(const struct uri *u, bool open_image,
                               int connect_timeout_ms, int request_timeout_ms,
                               const struct channel_owner *owner,
                               struct channel **out, struct cachet_error *err);
void channel_free(struct channel *c);

/* The same in a forked child, whose connection is the parent's: nothing is sent
 * or received.  The child's own copy of the socket is closed, if the number
 * still names it: a child may have closed it, or put another file there. */
void channel_abandon(struct channel *c);

/* Begins to connect; DISCONNECTED only.  May be lost before it returns.  All
 * of the host's addresses and the handshake share the connect time-out. */
void channel_start(struct channel *c);

/* Takes in what has arrived: all of it, but for a flood of notices, of which
 * channel_has_more() says that there is more to take in. */
void channel_input(struct channel *c);
bool channel_has_more(const struct channel *c);

/* When something came last on this connection; before, when it was started. */
int64_t channel_heard_at(const struct channel *c);

/* Input, output and time-outs. */
void channel_progress(struct channel *c);

/* Sends a message, or keeps it to send; READY only. */
void channel_send(struct channel *c, const wire_message *msg);

/* Whether a message that comes with descriptors has been asked for.  While none
 * has, descriptors are against the protocol.  READY only. */
void channel_want_fds(struct channel *c, bool want);

/* Whether this process could take `n` descriptors now. */
bool channel_has_room_for_fds(const struct channel *c, unsigned n);

enum channel_fds {
  CHANNEL_FDS_HERE,  /* exactly so many, the caller's from here on */
  CHANNEL_FDS_WRONG, /* none, more or less, or not of memory */
  CHANNEL_FDS_LOST,  /* this process had no room for them */
};

/* Takes the descriptors that came with the message that is being looked at. */
enum channel_fds channel_take_fds(struct channel *c, int *fds, unsigned n);

/* Whether so much is unsent that nothing should be added. */
bool channel_is_full(const struct channel *c);

/* Ends the connection because of what the daemon did or said. */
void channel_break(struct channel *c, enum channel_loss loss,
                   enum cachet_status code, const char *what);

enum channel_state channel_state(const struct channel *c);
const char *channel_state_name(enum channel_state state);
const struct channel_limits *channel_limits(const struct channel *c);
const char *channel_place(const struct channel *c);

int channel_fd(const struct channel *c);
short channel_events(const struct channel *c);
int64_t channel_deadline(const struct channel *c); /* -1: none */

/* An id for a request on this connection. */
uint64_t channel_next_id(struct channel *c);

/* Turns an Error of the daemon's into one of ours. */
void channel_read_error(const Cachet__Wire__Error *in,
                        struct cachet_error *out);

/* Checks what a daemon says about an image; false: it cannot be. */
bool channel_read_image(const Cachet__Wire__ImageInfo *in,
                        struct channel_image *out);

#ifdef __cplusplus
}
#endif

#endif

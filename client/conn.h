/* A connection to a daemon: socket, frames, handshake.
 *
 *   DISCONNECTED -> CONNECTING -> HELLO -> OPENING -> READY
 *
 * READY follows HELLO where no image is opened, and every state goes back to
 * DISCONNECTED.  No step waits.  Memory is bounded: one message in, payload
 * straight to where its owner wants it, and the owner sends no more once
 * conn_is_full().
 *
 * Whatever arrives is hostile: a length, a message or a state that cannot be
 * ends the connection with CONN_LOST_BROKEN.  One thread at a time. */
#ifndef CLIENT_CONN_H
#define CLIENT_CONN_H

#include <stdbool.h>
#include <stdint.h>

#include <cachet/cachet.h>

#include "client/uri.h"
#include "proto/frame.h"

#ifdef __cplusplus
extern "C" {
#endif

struct conn;

enum conn_state {
  CONN_DISCONNECTED,
  CONN_CONNECTING,
  CONN_HELLO,
  CONN_OPENING,
  CONN_READY,
};

enum conn_loss {
  CONN_LOST_RETRY,   /* refused, closed, reset, silent: it may come back */
  CONN_LOST_REFUSED, /* the daemon does not open the image */
  CONN_LOST_BROKEN,  /* it broke the protocol */
  CONN_LOST_FINAL,   /* it speaks another version: never again */
};

/* What the daemon takes, from its Welcome, cut to what is sane here. */
struct conn_limits {
  uint32_t max_ranges;
  uint64_t max_read;
  uint32_t max_requests;
};

/* What a daemon said about an image, checked. */
struct conn_image {
  uint32_t id;
  uint64_t size;
  unsigned page_shift;
  uint64_t epoch; /* not 0 */
};

/* What a connection calls its owner for.  From none of them may the connection
 * be freed or started; conn_break() may be called from message(), payload()
 * and ready(). */
struct conn_owner {
  /* The state is READY.  `image` is NULL if none was opened. */
  void (*ready)(void *arg, const struct conn_image *image);

  /* A message while READY.  Its payload, if any, goes to `*payload`; NULL: to
   * nowhere.  `msg` is gone after the call. */
  void (*message)(void *arg, const wire_message *msg, uint32_t payload_len,
                  uint8_t **payload);

  /* The Data message that came last is complete with its payload. */
  void (*payload)(void *arg);

  /* The state is DISCONNECTED. */
  void (*lost)(void *arg, enum conn_loss loss, const struct cachet_error *why);

  /* fd, events or time-out may have changed. */
  void (*changed)(void *arg);
  void *arg;
};

/* Makes a connection to where `u` points; `open_image`: open u->image.  Looks
 * up the host, which may take its time.  Not started yet. */
enum cachet_status conn_new(const struct uri *u, bool open_image,
                            int connect_timeout_ms, int request_timeout_ms,
                            const struct conn_owner *owner, struct conn **out,
                            struct cachet_error *err);
void conn_free(struct conn *c);

/* Begins to connect; DISCONNECTED only.  May be lost before it returns. */
void conn_start(struct conn *c);

/* Takes in all that has arrived. */
void conn_input(struct conn *c);

/* Input, output and time-outs. */
void conn_progress(struct conn *c);

/* Sends a message, or keeps it to send; READY only. */
void conn_send(struct conn *c, const wire_message *msg);

/* Whether so much is unsent that nothing should be added. */
bool conn_is_full(const struct conn *c);

/* Ends the connection because of what the daemon did or said. */
void conn_break(struct conn *c, enum conn_loss loss, enum cachet_status code,
                const char *what);

enum conn_state conn_state(const struct conn *c);
const char *conn_state_name(enum conn_state state);
const struct conn_limits *conn_limits(const struct conn *c);
const char *conn_place(const struct conn *c);

int conn_fd(const struct conn *c);
short conn_events(const struct conn *c);
int64_t conn_deadline(const struct conn *c); /* -1: none */

/* An id for a request on this connection. */
uint64_t conn_next_id(struct conn *c);

/* Turns an Error of the daemon's into one of ours. */
void conn_read_error(const Cachet__Wire__Error *in, struct cachet_error *out);

/* Checks what a daemon says about an image; false: it cannot be. */
bool conn_read_image(const Cachet__Wire__ImageInfo *in, struct conn_image *out);

#ifdef __cplusplus
}
#endif

#endif

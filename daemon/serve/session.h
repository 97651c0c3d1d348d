/* A session: what the frames of a connection ask for, and the notices it is
 * owed.
 *
 *   S1  Before the first Data of an epoch that a connection was not told of
 *       goes the Changed that tells it.
 *
 * Its worker's thread only. */
#ifndef DAEMON_SERVE_SESSION_H
#define DAEMON_SERVE_SESSION_H

#include "daemon/net/connection.h"

/* Acts on a message.  May fail the connection. */
void session_message(struct connection *c, const wire_message *msg);

/* The image that this connection knows by a number; NULL if it opened none
 * such. */
struct opened *session_opened(struct connection *c, uint32_t image_id);

/* The same by its index. */
struct opened *session_opened_image(struct connection *c, unsigned image);

/* Adds a Changed to the output unless the peer knows that the image of `l` is
 * at its present epoch.  The image reader is open, the connection may send. */
void session_announce(struct connection *c, const struct image_reader *l);

/* Gives the peer a lease on the image reader's mirror and says so, or why not.
 * There is no output, and the connection may send. */
void session_attach(struct connection *c, uint64_t id, struct image_reader *l,
                    const struct attachment_wish *wish);

/* The peer goes on by the socket, and needs notices again, from the start. */
void session_detach(struct opened *o);

/* Whether this peer may invalidate. */
bool session_may_invalidate(const struct connection *c);

/* Bytes [from, to) of the image were invalidated: tells the peer, if it opened
 * it, now or when it is no longer blocked.  `serial` is the notice's number,
 * not 0 and rising. */
void session_invalidated(struct connection *c, unsigned image, uint64_t from,
                         uint64_t to, uint64_t serial);

/* The oldest notice that is not wholly in the peer's socket; 0: none.  One
 * that was told of its end needs no notices. */
uint64_t session_oldest_owed(const struct connection *c);

/* Sends the notices that are owed; the connection may send. */
void session_push_notices(struct connection *c);

#endif

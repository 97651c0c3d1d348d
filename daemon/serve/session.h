/* A session: what the frames of a connection ask for, and the notices it is
 * owed.
 *
 *   S1  Before the first Data of an epoch that a connection was not told of
 *       goes the Changed that tells it.
 *   S2  What it is owed of notices is in its socket before an Invalidate is
 *       answered, or it is closed: see invalidation.h.
 *
 * Its service's thread only, but for session_new(). */
#ifndef DAEMON_SERVE_SESSION_H
#define DAEMON_SERVE_SESSION_H

#include "daemon/net/connection.h"
#include "daemon/serve/attachment.h"
#include "daemon/serve/service.h"

struct request;

/* An image that a session opened: it gets notices about it. */
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

/* Requests, first in, first out, by next_queued. */
struct request_queue {
  struct request *head, **tail;
};

/* A connection, and what its peer asked for. */
struct session {
  struct connection conn; /* the first member; conn.n_requests is counted by
                             request.c */
  struct service *service;
  struct opened *opened;
  unsigned n_opened;
  uint64_t unsent_notice; /* the oldest that is among the unsent bytes; 0 */
  uint64_t oldest_owed;   /* the oldest that it is owed, as of its last turn */

  struct attachment *sending; /* whose descriptors are on their way; or NULL */
  struct attachment_list attachments; /* that it asked for */

  struct request *requests; /* all that wait for something */
  struct request_queue runnable;
  unsigned n_held_ranges, n_invalidations;
  uint64_t fetching; /* bytes being fetched for it */
};

/* The session of a connection, which is one's. */
static inline struct session *session_of(struct connection *c) {
  return (struct session *)c; /* its first member */
}

/* Makes a session of an accepted socket, to be begun by connection_start().
 * NULL: out of memory; then the socket is still the caller's.  Any thread. */
struct session *session_new(struct service *service,
                            const struct listener *listener, int fd,
                            uint64_t serial, uint64_t user);

/* The image that this connection knows by a number; NULL if it opened none
 * such. */
struct opened *session_opened(struct session *s, uint32_t image_id);

/* The same by its index. */
struct opened *session_opened_image(struct session *s, unsigned image);

/* Adds a Changed to the output unless the peer knows that the image of `l` is
 * at its present epoch.  The image reader is open, the connection may send. */
void session_announce(struct session *s, const struct image_reader *l);

/* Gives the peer a lease on the image reader's mirror and says so, or why not.
 * There is no output, and the connection may send. */
void session_attach(struct session *s, uint64_t id, struct image_reader *l,
                    const struct attachment_wish *wish);

/* The peer goes on by the socket, and needs notices again, from the start. */
void session_detach(struct opened *o);

/* Whether this peer may invalidate. */
bool session_may_invalidate(const struct session *s);

/* Bytes [from, to) of the image were invalidated: tells the peer, if it opened
 * it, now or when it is no longer blocked.  `serial` is the notice's number,
 * not 0 and rising. */
void session_invalidated(struct session *s, unsigned image, uint64_t from,
                         uint64_t to, uint64_t serial);

/* Sends the notices that are owed; the connection may send. */
void session_push_notices(struct session *s);

#endif

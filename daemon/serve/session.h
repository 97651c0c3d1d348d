/* A session: what the frames of a connection ask for.
 *
 * session.c has the messages; what is done about them is in request.c (Read,
 * Warm, Attach), invalidation.c, attach.c, notices.c and subscription.c, which
 * share the struct.
 *
 * Its service's thread only, but for session_new(). */
#ifndef DAEMON_SERVE_SESSION_H
#define DAEMON_SERVE_SESSION_H

#include "daemon/net/connection.h"
#include "daemon/serve/attachment.h"
#include "daemon/serve/service.h"
#include "daemon/serve/subscription.h"

struct request;

/* Requests, first in, first out, by next_queued. */
struct request_queue {
  struct request *head, **tail;
};

/* A connection, and what its peer asked for. */
struct session {
  struct connection conn; /* the first member; conn.n_requests is counted by
                             request.c */
  struct service *service;
  struct subscription_list subscriptions; /* by of_session */
  uint32_t n_opened;      /* how many it ever had: the number of the last */
  uint64_t unsent_notice; /* the oldest that is among the unsent bytes; 0 */
  uint64_t oldest_owed;   /* the oldest that it owes, as of its last turn; 0 */
  LIST_ENTRY(session) owing; /* of those that owe one: notices.h */

  struct attachment *sending; /* whose descriptors are on their way; or NULL */
  struct attachment_list attachments; /* that it asked for */

  struct request *requests; /* all that wait for something */
  /* RUNNABLE ones, by how much is left of them: see request_next(). */
  struct request_queue small, large;
  struct request_queue ended;  /* ENDED ones; if there are any, it is */
  TAILQ_ENTRY(session) ending; /* in the service's list */
  unsigned n_overtaken; /* small ones in a row, while large ones waited */
  unsigned n_held_ranges, n_jobs;
  uint64_t fetching; /* bytes being fetched for it */
};

/* The session of a connection, which is one's. */
static inline struct session *session_of(struct connection *c) {
  return (struct session *)c; /* its first member */
}

/* Makes a session of an accepted socket, to be begun by connection_start().
 * NULL: out of memory; then the socket is still the caller's.  Any thread. */
struct session *session_new(struct service *service, struct listener *listener,
                            int fd, uint64_t serial, uint64_t user);

#endif

/* Notices: what sessions hear of their images without asking.
 *
 *   N1  Before the first Data of an epoch that a session was not told of goes
 *       the Changed that tells it.
 *   N2  A notice of an invalidation is undelivered while a session owes it to
 *       its peer: the Invalidated is not wholly in the socket (over TCP: handed
 *       to the kernel).  A session that is attached sees what it says by
 *       itself, and a connection that was told of its end needs none.
 *   N3  A connection that does not take one in time is closed.  So a notice
 *       ends after notice_timeout_ms at the latest.
 *   N4  The sessions that owe a notice, as of their last turn, are a list.  So
 *       a notice costs nothing for a session that did not open its image.
 *
 * Their service's thread only, but for notices_post(). */
#ifndef DAEMON_SERVE_NOTICES_H
#define DAEMON_SERVE_NOTICES_H

#include <stdint.h>
#include <sys/queue.h>

#include "base/loop.h"
#include "daemon/engine/image_reader.h"
#include "daemon/net/net_thread.h"

struct notices;
struct session;
struct subscription;

/* A notice of an invalidation, on its way to the sessions of one service. */
struct notice {
  struct task task;
  struct notices *notices;          /* the service's */
  const struct served_image *image; /* which lives until it has ended */
  uint64_t from, to;                /* bytes */
  uint64_t epoch;      /* of which no notice is to be posted yet, */
  uint64_t n_of_epoch; /* of the first so many invalidations */

  /* No session owes it any more.  On the service's thread; the notice may be
   * freed. */
  void (*ended)(struct notice *notice);

  struct notice *next; /* private, as are the rest: the undelivered ones */
  uint64_t serial;     /* its number at the service, rising */
  uint64_t deadline_ms;
};

/* A service's. */
struct notices {
  struct net_thread *net;
  struct notice *head, **tail; /* undelivered, oldest first */
  LIST_HEAD(, session) owing;  /* N4 */
  uint64_t n;                  /* serial numbers */
  struct event timer;          /* when the first has waited long enough */
  struct task recheck;         /* some may have been delivered */
};

/* `net` need not be ready yet, but for its loop. */
void notices_init(struct notices *notices, struct net_thread *net);

/* Ends those that are left, with the thread. */
void notices_fini(struct notices *notices);

/* Hands a notice to the service's sessions; its members down to `ended` are
 * set, and the others are zero.  Any thread. */
void notices_post(struct notice *notice);

/* Ends the notices that no session owes any more; or does so soon. */
void notices_check(struct notices *notices);
void notices_recheck(struct notices *notices);

/* Adds a Changed to the output unless the peer knows that the image is at its
 * present epoch.  The image's reader is open, the connection may send. */
void notices_announce(struct subscription *sub);

/* Sends the notices that the session owes; the connection may send. */
void notices_push(struct session *s);

/* The turn of a session is over: some may have been delivered. */
void notices_turn_ended(struct session *s);

/* The session ends, and owes none any more. */
void notices_session_closed(struct session *s);

#endif

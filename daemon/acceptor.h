/* The acceptor: the main loop watches the listening sockets, and the acceptor
 * accepts the connections that arrive there.  admit.h decides about each.
 *
 *   P1  While accepting is paused, the main loop watches no endpoint.  The
 *       acceptor pauses if descriptors have run out, or if refused sockets
 *       cannot be closed yet.  The timer `resume` ends the pause.
 *   P2  Before the acceptor takes an endpoint out, it lets in the clients that
 *       have connected to it, in at most LAST_BATCHES batches.  The connections
 *       of clients that still wait end with the listening socket.
 *
 * Only the main thread calls these functions, except acceptor_close(). */
#ifndef DAEMON_ACCEPTOR_H
#define DAEMON_ACCEPTOR_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdbool.h>
#include <sys/queue.h>

#include "daemon/net/listener.h"
#include "daemon/serve/context.h"

TAILQ_HEAD(acceptor_endpoints, acceptor_endpoint);

struct acceptor {
  struct server_context *context;
  struct event_base *base;
  struct acceptor_endpoints endpoints;
  struct event resume;
  bool paused; /* and nothing was accepted since */
};

/* The server calls it before anything can fail, so that it can always call
 * acceptor_fini(). */
void acceptor_init(struct acceptor *a, struct server_context *context);

/* Accepts nothing any more; before the loop is freed. */
void acceptor_fini(struct acceptor *a);

/* Has this loop watch the listeners, and takes references of them.  0 or
 * -ENOMEM. */
int acceptor_start(struct acceptor *a, struct event_base *base,
                   struct listener *const *listeners, unsigned n);

/* Accepts the connections of these listeners, and of no others.  If accepting
 * is paused, those of new listeners wait until the pause ends.  Moves the
 * endpoints of all other listeners to `removed`, for acceptor_close().  0;
 * -ENOMEM: nothing was changed. */
int acceptor_set(struct acceptor *a, struct listener *const *listeners,
                 unsigned n, struct acceptor_endpoints *removed);

/* Closes the endpoints that acceptor_set() removed.  Any thread may call it,
 * and it may wait. */
void acceptor_close(struct acceptor_endpoints *removed);

/* Ends all listening sockets. */
void acceptor_end(struct acceptor *a);

#endif

/* Accepting: the listening sockets in the main loop.  What connects to one is
 * admitted (admit.h).
 *
 *   P1  While accepting is paused, because descriptors have run out or refused
 *       sockets cannot be closed yet, no endpoint is watched.  The timer
 *       `resume` ends the pause.
 *   P2  An endpoint that is taken out has let in the clients that had connected
 *       to it, LAST_BATCHES batches at most.  Those that still wait end with
 *       the listening socket.
 *
 * Its functions are for the main thread, except acceptor_close(). */
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

/* Before anything can fail. */
void acceptor_init(struct acceptor *a, struct server_context *context);

/* Accepts nothing any more; before the loop is freed. */
void acceptor_fini(struct acceptor *a);

/* Accepts by this loop what connects to the listeners, of which it takes
 * references.  0 or -ENOMEM. */
int acceptor_start(struct acceptor *a, struct event_base *base,
                   struct listener *const *listeners, unsigned n);

/* Accepts what connects to these listeners, and to no others; while accepting
 * is paused, from the end of that on.  The endpoints of the others are in
 * `removed`, for acceptor_close().  0; -ENOMEM: nothing was changed. */
int acceptor_set(struct acceptor *a, struct listener *const *listeners,
                 unsigned n, struct acceptor_endpoints *removed);

/* Closes what acceptor_set() removed.  Any thread: it may wait. */
void acceptor_close(struct acceptor_endpoints *removed);

/* Ends all listening sockets. */
void acceptor_end(struct acceptor *a);

#endif

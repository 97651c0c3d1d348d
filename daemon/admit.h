/* Admission: what becomes of an accepted socket.  It is a connection of some
 * worker's, or is refused: the daemon has as many as it takes, or as many of
 * this user.
 *
 *   A1  A connection counts, for the daemon and for its user, until its
 *       descriptor is closed, wherever that happens: see closer.h.
 *   A2  No socket is closed here that may hold descriptors: see stray_fds.h. */
#ifndef DAEMON_ADMIT_H
#define DAEMON_ADMIT_H

#include <stdbool.h>

#include "daemon/net/listener.h"
#include "daemon/serve/context.h"

/* Whether a socket can be refused: its close may have to wait for a place.
 * Main thread. */
bool admit_may_refuse(struct server_context *context);

/* Takes over the socket; admit_may_refuse().  Main thread. */
void admit_socket(struct server_context *context, struct listener *l, int fd);

#endif

/* Admission: gives an accepted socket to a worker, or refuses it because the
 * daemon, or this user, has reached the limit of connections.
 *
 *   A1  A connection counts, for the daemon and for its user, until its
 *       descriptor is closed, on whatever thread: see closer.h.
 *   A2  A socket that may hold descriptors is not closed here: see
 *       stray_fds.h. */
#ifndef DAEMON_ADMIT_H
#define DAEMON_ADMIT_H

#include <stdbool.h>

#include "daemon/net/listener.h"
#include "daemon/serve/context.h"

/* Whether a socket can be refused: if it cannot be closed at once, the closer
 * must have room for it.  Main thread. */
bool admit_may_refuse(struct server_context *context);

/* Takes over the socket; admit_may_refuse() is true.  Main thread. */
void admit_socket(struct server_context *context, struct listener *l, int fd);

#endif

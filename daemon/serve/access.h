/* Access: what a peer may do, beyond what each that reaches the daemon may.
 *
 * Any thread. */
#ifndef DAEMON_SERVE_ACCESS_H
#define DAEMON_SERVE_ACCESS_H

#include <stdbool.h>

#include "daemon/net/connection.h"

/* Whether the peer may invalidate: root, the daemon's user, and the group of
 * the socket, on a Unix socket. */
bool access_may_invalidate(const struct connection *c);

#endif

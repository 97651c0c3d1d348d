/* Access: what a peer may do.
 *
 * Any thread. */
#ifndef DAEMON_SERVE_ACCESS_H
#define DAEMON_SERVE_ACCESS_H

#include <stdbool.h>

#include "daemon/net/connection.h"
#include "daemon/serve/context.h"

/* Whether the peer may change things: invalidate, and more.  Root and the
 * daemon's user may, on a Unix socket, and whom the rule for it allows; where
 * there is no rule, the group of the Unix socket. */
bool access_may_administer(struct server_context *context,
                           const struct connection *c);

#endif

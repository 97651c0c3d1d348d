/* Access: what a peer may do.
 *
 * Any thread. */
#ifndef DAEMON_SERVE_ACCESS_H
#define DAEMON_SERVE_ACCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/net/connection.h"
#include "daemon/serve/context.h"

enum {
  /* Longer than a look-up takes, with a rule of tens of words; and what that is
   * worth, in bytes sent. */
  ACCESS_HIDE_NS = 20000,
  ACCESS_HIDE_COST = 64 << 10,
};

/* Whether the peer may change what is served: root and the daemon's user may,
 * on a Unix socket, and those that the rule for it allows.  The group of the
 * socket may not, without a rule: by an image of its choice it would read every
 * file that the daemon's user may, keys among them. */
bool access_may_administer(struct server_context *context,
                           const struct connection *c);

/* Whether it may invalidate: those may, and where there is no rule, the group
 * of the Unix socket. */
bool access_may_invalidate(struct server_context *context,
                           const struct connection *c);

/* Waits until a name that was not found has been looked up for ACCESS_HIDE_NS
 * since `began` (clock_now_ns()): so the time does not tell whether there is no
 * image of that name, or one that the peer may not read. */
void access_hide_lookup(uint64_t began);

/* Whether the peer may know how the daemon as a whole does, with images that it
 * may not read: those may that may read images without a rule of their own, and
 * those that may change things.  It does not depend on what images there are.
 */
bool access_may_see_daemon(struct server_context *context,
                           const struct connection *c);

#endif

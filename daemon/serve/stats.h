/* The answer to GetStats: the metrics of daemon/serve/metrics.c, packed. */
#ifndef DAEMON_SERVE_STATS_H
#define DAEMON_SERVE_STATS_H

#include "daemon/net/connection.h"
#include "daemon/serve/context.h"
#include "proto/cachet.pb-c.h"

/* Makes the next part of the answer to a peer's GetStats: of at most `most`
 * images that it may read, by name, those behind `after`; and of the daemon, if
 * that is empty and the peer may see it.  NULL: out of memory.  One block from
 * malloc(3), names included, for the caller to free(). */
Cachet__Wire__Stats *stats_collect(struct server_context *context,
                                   const struct connection *c,
                                   const char *after, unsigned most);

#endif

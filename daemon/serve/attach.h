/* Attach and Grow: a session's peer becomes a reader of shared memory, and gets
 * a larger table for its pins.  What it is given is attachment.c's.
 *
 * Their service's thread only. */
#ifndef DAEMON_SERVE_ATTACH_H
#define DAEMON_SERVE_ATTACH_H

#include "daemon/serve/attachment.h"
#include "proto/frame.h"

struct session;
struct subscription;

/* Gives the peer a lease on the present mirror and says so, or why not: then
 * false.  There is no output, and the connection may send. */
bool attach_lend(struct subscription *sub, uint64_t id,
                 const struct attachment_wish *wish);

void attach_grow(struct session *s, uint64_t id,
                 const Cachet__Wire__Grow *grow);

#endif

/* Attach and Grow: a session's peer becomes a reader of shared memory, and gets
 * a larger table for its pins.  What it is given is attachment.c's.
 *
 * Their service's thread only. */
#ifndef DAEMON_SERVE_ATTACH_H
#define DAEMON_SERVE_ATTACH_H

#include "daemon/engine/image_reader.h"
#include "daemon/serve/attachment.h"
#include "proto/frame.h"

struct session;

/* Gives the peer a lease on the image reader's mirror and says so, or why not.
 * There is no output, and the connection may send. */
void attach_lend(struct session *s, uint64_t id, struct image_reader *l,
                 const struct attachment_wish *wish);

void attach_grow(struct session *s, uint64_t id,
                 const Cachet__Wire__Grow *grow);

#endif

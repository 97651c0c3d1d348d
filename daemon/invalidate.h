/* Invalidations: off the worker (they wait for the evictor and punch holes),
 * then to the connections of every worker, then back to who asked.
 *
 *     request --job--> pool: image_invalidate() --notice--> each worker
 *        ^                                                      |
 *        `----------------------- mail, from the last of them --'
 *
 * So when the caller reads Done, each connection that opened the image has its
 * Invalidated ahead of any answer that is produced from then on. */
#ifndef DAEMON_INVALIDATE_H
#define DAEMON_INVALIDATE_H

#include <stdint.h>

#include "daemon/request.h"

/* Starts to invalidate bytes [from, to) of the image of `r`, which is WAITING
 * and gets its mail, with `status` set, when it is over; then it owes an
 * invalidation_free().  0 or -ENOMEM.  `from` < `to`. */
int invalidation_start(struct request *r, uint64_t from, uint64_t to);

void invalidation_free(struct invalidation *inv);

#endif

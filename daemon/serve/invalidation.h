/* Invalidations: off the thread that is asked (they wait for the evictor and
 * punch holes), then to the connections of every worker, then back to who
 * asked.
 *
 *     request --job--> pool: image_invalidate() --notice--> each worker
 *        ^                                                      |
 *        `----------------------- task, from the last of them --'
 *
 * A worker is done with a notice when each of its connections that opened the
 * image has the Invalidated wholly in its socket (over TCP: handed to the
 * kernel), is attached (it sees the words themselves), or is closed; one that
 * does not take it in time is.  So when the caller reads Done, no client that
 * looks into its socket can still trust what it kept. */
#ifndef DAEMON_SERVE_INVALIDATION_H
#define DAEMON_SERVE_INVALIDATION_H

#include <stdint.h>

#include "daemon/serve/request.h"

/* Makes r->invalidation, of bytes [from, to) of its image.  `from` < `to`.  0
 * or -ENOMEM. */
int invalidation_new(struct request *r, uint64_t from, uint64_t to);

/* Starts it.  Its request, which is WAITING, is posted, with `status` set,
 * when it is over; then it owes an invalidation_free(). */
void invalidation_start(struct invalidation *inv);

/* Its request is an orphan: if nothing was done yet, nothing will be. */
void invalidation_abandon(struct invalidation *inv);

void invalidation_free(struct invalidation *inv);

/* ---- Notices that a worker's connections are owed; its thread ------------ */

void notices_init(struct service *service);

/* Sees which notices nobody is owed any more; or does so soon. */
void notices_check(struct service *service);
void notices_recheck(struct service *service);

#endif

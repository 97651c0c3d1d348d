/* Invalidations: off the thread of the session that asked (they wait for the
 * evictor and punch holes), then to the sessions of every service, then back.
 *
 *     request --job--> pool: image_invalidate() --notice--> each service
 *        ^                                                       |
 *        `---------------------- task, from the last notice -----'
 *
 * A notice has ended when no session owes it: see notices.h.  So when the
 * caller reads Done, no client that looks into its socket can still trust what
 * it kept.
 *
 * The service's thread only. */
#ifndef DAEMON_SERVE_INVALIDATION_H
#define DAEMON_SERVE_INVALIDATION_H

#include <stdbool.h>
#include <stdint.h>

struct invalidation;
struct request;
struct session;

/* Whether one more may be begun for this session. */
bool invalidation_may_begin(const struct session *s);

/* Makes r->invalidation, of bytes [from, to) of its image.  `from` < `to`.  0
 * or -ENOMEM. */
int invalidation_new(struct request *r, uint64_t from, uint64_t to);

/* Starts it.  Its request, which is WAITING, is posted, with `status` set,
 * when it is over; then it owes an invalidation_free(). */
void invalidation_start(struct invalidation *inv);

/* Its request is an orphan: if nothing was done yet, nothing will be. */
void invalidation_abandon(struct invalidation *inv);

void invalidation_free(struct invalidation *inv);

#endif

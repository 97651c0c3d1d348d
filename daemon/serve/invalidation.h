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

#include <stdint.h>

#include "proto/frame.h"

struct session;

/* Begins an Invalidate. */
void invalidation_begin(struct session *s, uint64_t id,
                        const Cachet__Wire__Invalidate *invalidate);

#endif

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
 * The service's thread only, but for the second. */
#ifndef DAEMON_SERVE_INVALIDATION_H
#define DAEMON_SERVE_INVALIDATION_H

#include <stdint.h>

#include "proto/frame.h"

struct served_image;
struct server_context;
struct session;

/* Begins an Invalidate. */
void invalidation_begin(struct session *s, uint64_t id,
                        const Cachet__Wire__Invalidate *invalidate);

/* The image's source says that bytes [from, to) are not good any more: drops
 * them, as far as there are so many, and tells all that opened the image.  On
 * the pool, in the lane of invalidations. */
void invalidation_by_source(struct server_context *context,
                            struct served_image *served, uint64_t from,
                            uint64_t to);

#endif

/* Open and List where images are that are not served yet: see finder.h.  Both
 * look by jobs of their requests, and are answered when those are over.
 *
 * The service's thread only. */
#ifndef DAEMON_SERVE_FIND_H
#define DAEMON_SERVE_FIND_H

#include <stdbool.h>
#include <stdint.h>

struct connection;
struct served_image;
struct session;

/* Whether there are such images for the peer: their rule is that of all images
 * that have none of their own. */
bool find_is_possible(struct session *s);

/* Looks for an image.  found(s, id, h) answers the request `id` of the session,
 * which is still there; the second answers it with an Error. */
void find_image(struct session *s, uint64_t id, const char *name,
                void (*found)(struct session *s, uint64_t id,
                              struct served_image *h));

/* Answers with the next part of all images that may be opened, by name. */
void find_list(struct session *s, uint64_t id, const char *after,
               uint32_t (*number_of)(struct connection *c,
                                     const struct served_image *h));

/* What a peer is told of a name that is not served. */
void find_refuse(struct session *s, uint64_t id, const char *name);

#endif

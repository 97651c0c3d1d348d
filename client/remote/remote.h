/* The backend of handles on a daemon's image, over a socket.
 *
 * Pages come by Read messages and are kept in a cache of this process, which
 * the daemon's notices keep true. */
#ifndef CLIENT_REMOTE_REMOTE_H
#define CLIENT_REMOTE_REMOTE_H

#include "client/backend.h"
#include "client/options.h"
#include "client/uri.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Connects and opens the image, within options->connect_timeout_ms. */
enum cachet_status remote_open(const struct uri *u,
                               const struct options *options,
                               struct backend **out, struct cachet_error *err);

/* The same but for what is added to the message of an image that there is not.
 */
enum cachet_status remote_connect_image(const struct uri *u,
                                        const struct options *options,
                                        struct backend **out,
                                        struct cachet_error *err);

/* Only connects: for commands that are about no image.  Such a backend has no
 * image cache and reads nothing. */
enum cachet_status remote_connect(const struct uri *u,
                                  const struct options *options,
                                  struct backend **out,
                                  struct cachet_error *err);

/* In a forked child, before close(): the connection is the parent's. */
void remote_abandon(struct backend *b);

#ifdef __cplusplus
}
#endif

#endif

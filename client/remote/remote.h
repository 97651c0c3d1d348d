/* The backend of handles on a daemon's image, over a socket.
 *
 * Pages come by Read messages and are kept in a cache of this process, which
 * the daemon's notices keep true. */
#ifndef CLIENT_REMOTE_REMOTE_H
#define CLIENT_REMOTE_REMOTE_H

#include "client/backend.h"
#include "client/options.h"
#include "client/uri.h"
#include "proto/frame.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Connects and opens the image, within options->connect_timeout_ms. */
enum cachet_status remote_open(const struct uri *u,
                               const struct options *options,
                               struct backend **out, struct cachet_error *err);

/* Only connects: for commands that are about no image.  Such a backend has no
 * image cache and reads nothing. */
enum cachet_status remote_connect(const struct uri *u,
                                  const struct options *options,
                                  struct backend **out,
                                  struct cachet_error *err);

/* In a forked child, before close(): the connection is the parent's. */
void remote_abandon(struct backend *b);

/* Sends `request`, whose id and image are filled in, and waits for its answer.
 * `answer`, if not NULL, sees it when it is `expected`, the body that belongs
 * to the request; it returns 0 or a negative errno, -EPROTO for an answer that
 * cannot be. */
enum cachet_status remote_command(struct backend *b, wire_message *request,
                                  Cachet__Wire__Message__BodyCase expected,
                                  int (*answer)(void *arg,
                                                const wire_message *msg),
                                  void *arg, struct cachet_error *err);

#ifdef __cplusplus
}
#endif

#endif

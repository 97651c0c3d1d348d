/* Commands: requests to a daemon whose caller waits for the answer. */
#ifndef CLIENT_REMOTE_COMMAND_H
#define CLIENT_REMOTE_COMMAND_H

#include "client/backend.h"
#include "proto/frame.h"

#ifdef __cplusplus
extern "C" {
#endif

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

/* Dialling: from the URI of a daemon to a socket that is being connected.
 *
 * A host may have several addresses.  They are looked up in the order in which
 * they are to be tried. */
#ifndef CLIENT_REMOTE_DIAL_H
#define CLIENT_REMOTE_DIAL_H

#include <stdbool.h>
#include <sys/socket.h>

#include <cachet/cachet.h>

#include "client/uri.h"

#ifdef __cplusplus
extern "C" {
#endif

#define DIAL_MAX_ADDRESSES 8

struct dial_address {
  struct sockaddr_storage at;
  socklen_t len;
};

struct dial {
  struct dial_address addresses[DIAL_MAX_ADDRESSES];
  unsigned n_addresses;
};

/* Looks up where `u` points, which takes as long as getaddrinfo(3) does. */
enum cachet_status dial_resolve(struct dial *d, const struct uri *u,
                                struct cachet_error *err);

/* Whether both have the same addresses in the same order. */
bool dial_is_same(const struct dial *a, const struct dial *b);

/* Starts to connect to address `i`, and does not wait.  0: `*fd` is connected;
 * EINPROGRESS: it will be, or fail; another errno: there is none.  A TCP peer
 * that says nothing for `request_timeout_ms` ends the connection; not above 0:
 * none does. */
int dial_connect(const struct dial *d, unsigned i, int request_timeout_ms,
                 int *fd);

#ifdef __cplusplus
}
#endif

#endif

/* What an NBD source connects to: a URI of the NBD standard, and the secrets
 * that a connection needs.
 *
 *   nbd://HOST[:PORT]/EXPORT            TCP, port 10809
 *   nbd+unix:///EXPORT?socket=PATH      a Unix socket
 *   nbds://[USER@]HOST[:PORT]/EXPORT    TCP with TLS, which is required
 *   nbds+unix://USER@/EXPORT?socket=PATH
 *
 * A URI names no file but the socket: what TLS needs comes by options.
 *
 *   T1  With TLS there is something that proves the server: a key that
 *       both have (PSK), or a certificate authority beside the name of a host.
 *       libnbd without either believes anybody; it also does so at a Unix
 *       socket, where it has no name to compare, and where the directory has no
 *       ca-cert.pem. */
#ifndef SOURCE_NBD_TARGET_H
#define SOURCE_NBD_TARGET_H

#include <stdbool.h>

#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

struct nbd_handle;

struct nbd_target {
  char *uri;
  char *certificates; /* a directory, as libnbd wants it; or NULL */
  char *psk_file;     /* or NULL */
  int timeout_ms;     /* of one attempt: to connect, and of each read */
  bool uses_tls;
};

/* 0; -ENOMEM; or -EINVAL with `fault` set.  Opens nothing. */
int nbd_target_new(const struct source_uri *uri, struct nbd_target **out,
                   struct source_fault *fault);

/* NULL: no memory. */
struct nbd_target *nbd_target_copy(const struct nbd_target *t);

void nbd_target_free(struct nbd_target *t);

/* Whether what TLS needs can be read, so that T1 holds: asked before libnbd
 * looks for it, and again when it has.  0, or -EACCES with `fault` set. */
int nbd_target_check_files(const struct nbd_target *t,
                           struct source_fault *fault);

/* Tells a new handle all of it but the URI, and what a URI may do.  0, or a
 * negative errno: no memory, or a libnbd without TLS. */
int nbd_target_apply(const struct nbd_target *t, struct nbd_handle *h);

#ifdef __cplusplus
}
#endif

#endif

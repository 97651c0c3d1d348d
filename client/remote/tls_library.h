/* The library's TLS, in a shared object of its own: a program that opens no
 * `cachets:` URI does not load OpenSSL.
 *
 * The object has one symbol, `cachet_client_tls`, a struct tls_calls.  A
 * program that is linked with it loads nothing.
 *
 * Any thread may call it. */
#ifndef CLIENT_REMOTE_TLS_LIBRARY_H
#define CLIENT_REMOTE_TLS_LIBRARY_H

#include "proto/tls.h"

/* The calls of proto/tls.h that the library makes. */
struct tls_calls {
  const char *version; /* of the library that it belongs to */
  int (*client)(const struct tls_files *files, const char *host,
                struct tls_context **out, char why[TLS_WHY_LEN]);
  void (*context_unref)(struct tls_context *context);
  int (*new_)(struct tls_context *context, const struct stream_io *below,
              void *transport, struct tls **out);
  void (*free)(struct tls *t);
  int (*handshake)(struct tls *t);
  const char *(*why)(const struct tls *t);
  const struct stream_io *io;
};

/* Finds the calls, and loads the object if necessary.  NULL: `why` has the
 * reason. */
const struct tls_calls *tls_library_find(char why[TLS_WHY_LEN]);

#endif

/* The library's TLS, in a shared object of its own: a program that opens no
 * `cachets:` URI does not load OpenSSL.
 *
 * The object has one symbol, `cachet_client_tls`, a struct tls_library.  A
 * program that is linked with it loads nothing.
 *
 * Any thread may call it. */
#ifndef CLIENT_REMOTE_TLS_LIBRARY_H
#define CLIENT_REMOTE_TLS_LIBRARY_H

#include "proto/tls.h"

struct tls_library {
  const char *version; /* of the library that it belongs to */
  const struct tls_makers *makers;
};

/* Finds what makes TLS, and loads the object if necessary.  NULL: `why` has the
 * reason. */
const struct tls_makers *tls_library_find(char why[TLS_WHY_LEN]);

#endif

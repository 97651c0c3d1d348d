/* What libcachet-client-tls.so.1 is: proto/tls.c for the library to find. */
#include <cachet/cachet.h>

#include "client/remote/tls_library.h"

extern const struct tls_calls cachet_client_tls;

CACHET_API const struct tls_calls cachet_client_tls = {
    .version = CACHET_VERSION_STRING,
    .client = tls_client,
    .context_unref = tls_context_unref,
    .new_ = tls_new,
    .free = tls_free,
    .handshake = tls_handshake,
    .why = tls_why,
    .io = &tls_io,
};

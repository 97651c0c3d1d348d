/* What libcachet-client-tls.so.1 is: proto/tls.c for the library to find. */
#include <cachet/cachet.h>

#include "client/remote/tls_library.h"

extern const struct tls_library cachet_client_tls;

CACHET_API const struct tls_library cachet_client_tls = {
    .version = CACHET_VERSION_STRING,
    .makers = &tls_makers,
};

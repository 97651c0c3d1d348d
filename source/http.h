/* Images at http: and https: URIs.
 *
 * Options: `ca`, a file of certificates of authorities, in place of the
 * system's; `connections`, how many there are at most; `attempt-timeout`, for
 * how many seconds an attempt may be without enough bytes (C3 of
 * source/http_client.h); `watch`, after how many seconds a look at the image
 * asks the server whether the object changed.  Proxies are those of the usual
 * variables of the environment. */
#ifndef SOURCE_HTTP_H
#define SOURCE_HTTP_H

#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const struct source_kind http_source_kind;

#ifdef __cplusplus
}
#endif

#endif

/* Opening what was parsed already. */
#ifndef CLIENT_OPEN_H
#define CLIENT_OPEN_H

#include "client/options.h"
#include "client/uri.h"

#ifdef __cplusplus
extern "C" {
#endif

/* cachet_open() for a parsed address. */
enum cachet_status open_uri(const struct uri *u, const struct options *options,
                            cachet **out, struct cachet_error *err);

#ifdef __cplusplus
}
#endif

#endif

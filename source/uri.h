/* URIs of sources: which kind of source is meant. */
#ifndef SOURCE_URI_H
#define SOURCE_URI_H

#include <stdbool.h>

#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The kind of `kinds`, which end in NULL, that has the URI's scheme.  NULL:
 * there is none. */
const struct source_kind *
source_uri_kind(const struct source_kind *const *kinds, const char *text);

/* Whether the kind knows the option. */
bool source_uri_has_option(const struct source_kind *kind, const char *key);

#ifdef __cplusplus
}
#endif

#endif

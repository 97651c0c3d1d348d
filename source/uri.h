/* URIs of sources: which kind of source is meant, and what of one is shown. */
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

/* The part of a URI that people may see, in memory from malloc(3): without the
 * user (between the scheme and an @), and without query and fragment, which may
 * contain a signature.  NULL: no memory. */
char *source_uri_shown(const char *text);

#ifdef __cplusplus
}
#endif

#endif

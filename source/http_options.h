/* Options that all kinds of sources over HTTP have. */
#ifndef SOURCE_HTTP_OPTIONS_H
#define SOURCE_HTTP_OPTIONS_H

#include "source/http_source.h"
#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Sets what the options say, and defaults, in a target that is zeroed; others
 * are passed over.  0; -EINVAL or -ENOMEM, with `fault` set. */
int http_options_take(const struct source_uri *uri, struct http_target *target,
                      struct source_fault *fault);

#ifdef __cplusplus
}
#endif

#endif

/* Options that several kinds of sources have. */
#ifndef SOURCE_COMMON_OPTIONS_H
#define SOURCE_COMMON_OPTIONS_H

#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { COMMON_TIMEOUT_S = 10, COMMON_MAX_TIMEOUT_S = 3600 };

/* The last value of an option, or NULL. */
const char *common_options_find(const struct source_uri *uri, const char *key);

/* Reads the value of `attempt-timeout`.  0, or -EINVAL with `fault` set. */
int common_options_take_timeout(const char *value, int *to_ms,
                                struct source_fault *fault);

#ifdef __cplusplus
}
#endif

#endif

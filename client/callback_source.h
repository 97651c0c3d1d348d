/* The source of cachet_make(): functions of the caller as a struct source.
 *
 * `map` never runs on two threads at once, whatever threads use copies of the
 * handle.  `close` runs once, and only if the handle was made. */
#ifndef CLIENT_CALLBACK_SOURCE_H
#define CLIENT_CALLBACK_SOURCE_H

#include <cachet/cachet.h>

#include "cache/source.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Makes the source.  The caller's `close` does not run before
 * callback_source_arm(). 0 or -ENOMEM. */
int callback_source_new(const struct cachet_source *given, unsigned page_shift,
                        struct source **out);

/* The handle was made: from now on, closing the source calls `close`. */
void callback_source_arm(struct source *src);

#ifdef __cplusplus
}
#endif

#endif

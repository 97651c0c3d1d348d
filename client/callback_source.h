/* The source behind cachet_make(): a function of the caller's as a struct
 * source.
 *
 * `map` is never run twice at once, whatever threads copies of the handle are
 * used on; `close` runs once, and only if the handle was made. */
#ifndef CLIENT_CALLBACK_SOURCE_H
#define CLIENT_CALLBACK_SOURCE_H

#include <cachet/cachet.h>

#include "cache/source.h"

#ifdef __cplusplus
extern "C" {
#endif

/* 0 or -ENOMEM.  Until callback_source_arm() the caller's `close` does not run.
 */
int callback_source_new(const struct cachet_source *given, unsigned page_shift,
                        struct source **out);

/* The handle is made: from here `close` is owed. */
void callback_source_arm(struct source *src);

#ifdef __cplusplus
}
#endif

#endif

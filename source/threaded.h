/* The threaded source: over one that blocks, for a place where a source has to
 * call back.  Each read has a thread of its own while it lasts, and ends on the
 * reactor's.
 *
 * So it is for what is read rarely, and takes as long as the source below
 * does. */
#ifndef SOURCE_THREADED_H
#define SOURCE_THREADED_H

#include "cache/source.h"

#ifdef __cplusplus
extern "C" {
#endif

struct reactor;

/* A source over `below`, which it owns from here, also on failure.  0 or
 * -ENOMEM. */
int threaded_source_new(struct source *below, struct reactor *reactor,
                        struct source **out);

#ifdef __cplusplus
}
#endif

#endif

/* Warming: a run of pages that the daemon is to load into its own cache.  Of
 * the answer nothing but how it ended is of use. */
#ifndef CLIENT_REMOTE_WARM_H
#define CLIENT_REMOTE_WARM_H

#include "client/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* warm() of struct backend_ops. */
struct backend_job *remote_warm(struct backend *b, struct mirror *m,
                                uint64_t first, uint64_t count,
                                void (*done)(struct backend_job *),
                                void *owner);

#ifdef __cplusplus
}
#endif

#endif

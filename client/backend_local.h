/* The backend of handles without a daemon: the thread that misses reads the
 * source.
 *
 * Copies of a handle share their pages.  If another thread is already reading a
 * page, this thread waits for it on an eventfd. */
#ifndef CLIENT_BACKEND_LOCAL_H
#define CLIENT_BACKEND_LOCAL_H

#include "client/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Takes one reference of `image_cache` if it succeeds.  A read of a source that
 * calls back ends with CACHET_E_TIMEOUT by `timeout_ms`; -1: by the time that
 * the cache has for it. */
enum cachet_status backend_local_new(struct image_cache *image_cache,
                                     int timeout_ms, struct backend **out,
                                     struct cachet_error *err);

#ifdef __cplusplus
}
#endif

#endif

/* The backend of handles without a daemon: the source is read in this process,
 * on the thread that asks.
 *
 * Copies of a handle share what they read: a page that another thread is
 * reading already is waited for, on an eventfd. */
#ifndef CLIENT_BACKEND_LOCAL_H
#define CLIENT_BACKEND_LOCAL_H

#include "client/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Takes over one reference of `image_cache` when it succeeds. */
enum cachet_status backend_local_new(struct image_cache *image_cache,
                                     struct backend **out,
                                     struct cachet_error *err);

#ifdef __cplusplus
}
#endif

#endif

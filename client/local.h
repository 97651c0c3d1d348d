/* The backend of handles without a daemon: the source is read in this process,
 * on the thread that asks.
 *
 * Copies of a handle share what they read: a page that another thread is
 * reading already is waited for, on an eventfd. */
#ifndef CLIENT_LOCAL_H
#define CLIENT_LOCAL_H

#include "client/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Takes over one reference of `store` when it succeeds. */
enum cachet_status local_new(struct store *store, struct backend **out,
                             struct cachet_error *err);

#ifdef __cplusplus
}
#endif

#endif

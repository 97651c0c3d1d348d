/* Renewals: the wait for the memory of the image's present epoch, for a handle
 * whose epoch is over. */
#ifndef CLIENT_REMOTE_RENEW_H
#define CLIENT_REMOTE_RENEW_H

#include "client/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

/* renew() of struct backend_ops. */
struct backend_job *remote_renew(struct backend *b, struct mirror *m,
                                 void (*done)(struct backend_job *),
                                 void *owner);

#ifdef __cplusplus
}
#endif

#endif

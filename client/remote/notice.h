/* Notices: what a daemon says of its own accord, and the cache that it keeps
 * true.
 *
 *   R4  The cache, and what is in store (readahead.h), may be believed while
 *       the connection is READY and everything that has arrived on it was
 *       taken in: a notice may have been missed otherwise.  When it becomes
 *       READY everything cached is dropped, also what a handle that this one is
 *       a copy of had cached; unless the number of the epoch's invalidations
 *       proves that this handle heeded all of them before. */
#ifndef CLIENT_REMOTE_NOTICE_H
#define CLIENT_REMOTE_NOTICE_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/frame.h"

struct remote;

#ifdef __cplusplus
extern "C" {
#endif

/* Heeds a message of id 0.  False: it is no notice. */
bool remote_notice(struct remote *r, const wire_message *msg);

/* Drops the pages that overlap a range of the daemon's, cut at the end.  0 or a
 * negative errno. */
int remote_notice_drop(struct remote *r, uint64_t offset, uint64_t len);

/* A notice could not be followed, by errno `-e`.  That leaves a cache that
 * cannot be believed: ends the connection, and has the next one drop it. */
void remote_notice_failed(struct remote *r, int e);

#ifdef __cplusplus
}
#endif

#endif

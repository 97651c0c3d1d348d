/* Readahead on a socket: how the connection is kept full, and no more.
 *
 * Reads without an owner are sent ahead of a sequential reader, which reads by
 * many calls or by a long one.  Such a reader is recognised by its misses: each
 * is where the last one ended, or at what is in store.
 *
 *   A1  What came for a reader waits in `store`, with its Read, until a reader
 *       comes to it; then it is put into the cache, and the Read is his.  So a
 *       window needs no room in the cache, and pushes nothing out of it.
 *   A2  What is in the store was not invalidated since it was asked for, or it
 *       is not handed out.
 *   A3  No more than flow.window bytes are under way of what nobody asked for,
 *       and no more than twice as many are ahead of one reader.  What is part
 *       of a call's range is asked for at once.
 *   A4  Under way and in store are READAHEAD_MOST bytes at most, but for what
 *       the callers wait for.
 *   A5  The store of a reader goes with it; and what nobody came for in time.
 *   A6  A reader by long reads that has come through more than the cache holds
 *       leaves nothing there: none of it would stay until he comes again. */
#ifndef CLIENT_REMOTE_READAHEAD_H
#define CLIENT_REMOTE_READAHEAD_H

#include "client/remote/read.h"

#ifdef __cplusplus
extern "C" {
#endif

void remote_readahead_init(struct remote *r);

/* A reader has come to pages that were not in the cache, and wants what is up
 * to `until`.  `was_asked`: they are in store or under way.  Asks for what is
 * next. */
void remote_readahead_reached(struct remote *r, struct mirror *m,
                              uint64_t first, uint64_t count, uint64_t until,
                              bool was_asked);

/* Takes one that brought `page` out of the store; NULL: there is none. */
struct remote_read *
remote_readahead_take(struct remote *r, const struct mirror *m, uint64_t page);

/* A reader has come to `page` of what a Read brings, and copies what is up to
 * `until`: sets what of it stays in the cache. */
void remote_readahead_come_to(struct remote *r, struct remote_read *x,
                              uint64_t page, uint64_t until);

/* Whether remote_readahead_take() would find one, for a page that has a place
 * in the cache. */
bool remote_readahead_has(const struct remote *r, const struct mirror *m,
                          uint64_t page);

/* Asserts A1 and A4, and that what is under way is what Reads wait for, where
 * no call is under way. */
void remote_readahead_check(const struct remote *r);

/* Forgets all readers, and what is in store. */
void remote_readahead_drop_all(struct remote *r);

/* When something in store has been there too long; -1: there is nothing.  Drops
 * what has. */
int64_t remote_readahead_deadline(const struct remote *r);
void remote_readahead_expire(struct remote *r);

#ifdef __cplusplus
}
#endif

#endif

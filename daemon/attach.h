/* Attachments: local clients that read a mirror themselves.
 *
 * An attachment is a lease that was given to a process.  It ends when that
 * process is gone, or says that it is done with it; not with the connection
 * that asked for it: a connection may be lost under a living client, which may
 * be looking at pages just then, and it may be held open by a forked child of
 * a dead one.
 *
 *   A1  What a process that lies about being done sees turn to zeros is its own
 *       slices.
 *   A2  There are at most so many attachments for a process, for a user, and
 *       in all.
 *   A3  An attachment whose descriptors were never sent ends with its
 *       connection: `sending` and `sender` name each other until then.
 *
 * An attachment belongs to the worker of the connection that asked for it;
 * its thread only, but for the census. */
#ifndef DAEMON_ATTACH_H
#define DAEMON_ATTACH_H

#include <pthread.h>
#include <sys/types.h>

#include "cache/lease.h"

struct attachment;
struct conn;
struct worker;

/* Who holds attachments, at all workers together. */
struct attach_census {
  pthread_mutex_t lock;   /* a leaf */
  struct attachment *all; /* guarded by lock */
  unsigned n;             /* guarded by lock */
};

enum { ATTACH_N_FDS = 4 };

/* Gives the peer of `c` a lease on `m`.  Stores the attachment, the range
 * capacity, and the descriptors to send, which are the caller's; it owes a
 * conn_flush_fds().  0; -EDQUOT: no share is left,
 * or it has too many; -EOPNOTSUPP: the peer cannot be told apart; or another
 * negative errno. */
int attach_new(struct conn *c, struct mirror *m, struct attachment **out,
               uint32_t *range_capacity, int fds[ATTACH_N_FDS]);

/* Its descriptors have been sent; or they will not be, and it ends. */
void attach_sent(struct attachment *a);
void attach_cancel(struct attachment *a);

/* Frees what clients are done with; also done a few times a second. */
void attach_collect(struct worker *w);

/* How many there are, at all workers. */
unsigned attach_count(struct attach_census *census);

/* Frees what is left of a worker whose thread has ended.  No page may be
 * evicted any more: see server_free(). */
void attach_free_all(struct worker *w);

#endif

/* Attachments: local clients that read a mirror themselves.
 *
 * An attachment is a lease that was given to a process.  It ends when that
 * process is gone, or says that it is done with it; not with the connection
 * that asked for it: a connection may be lost under a living client, which may
 * be looking at pages just then, and it may be held open by a forked child of
 * a dead one.
 *
 *   A1  If a process says that it is done and still reads, only its own slices
 *       turn to zeros.
 *   A2  There are at most so many attachments for a process, for a user, and
 *       in all, and a user has no more than three quarters of those that the
 *       others leave.
 *   A3  An attachment whose descriptors were never sent ends with its
 *       connection: `sending` and `sender` name each other until then.  Only so
 *       many are on their way at a time.
 *   A4  A client names a table by a random number, which it was told of; and it
 *       can name only tables of its own process.
 *   A5  A table is kept for the next process (daemon/engine/keeper.h) before
 *       its descriptors are sent.  One that the process before has left is an
 *       attachment from the start, and has no session.
 *   A6  What a process says that it counted is the image's it attached, at
 *       most as much as capped_count.h allows, and stays so when the
 *       attachment ends.
 *
 * An attachment belongs to the service of the session that asked for it; its
 * thread only, but for the census, and for the lease while the census is
 * locked: a client may name it on another connection.
 *
 * Locks: the census, then the cache's. */
#ifndef DAEMON_SERVE_ATTACHMENT_H
#define DAEMON_SERVE_ATTACHMENT_H

#include <pthread.h>
#include <sys/queue.h>
#include <sys/types.h>

#include "base/loop.h"
#include "cache/shared_pins.h"
#include "daemon/limits.h"

struct attachment;
struct attachment_holder;
struct images;
struct served_image;
struct session;

LIST_HEAD(attachment_list, attachment);

enum { ATTACHMENT_N_FDS = 4 /* CONNECTION_N_FDS */, ATTACHMENT_BUCKETS = 256 };

/* Which attachments there are, and which users hold them, at all services
 * together. */
struct attachment_census {
  struct keeper *keeper; /* of their tables, for the next process; fixed */
  pthread_mutex_t lock;
  /* guarded by lock */
  unsigned n, n_sending;
  struct attachment *tables[ATTACHMENT_BUCKETS]; /* by their number */
  struct attachment_holder
      *holders[ATTACHMENT_BUCKETS]; /* processes and users */
};

/* Those of one service. */
struct attachments {
  struct loop *loop;
  struct attachment_census *census; /* all services' */
  const struct limits *limits;
  struct attachment_list list;
  struct event tick; /* while there are some: leases may be done */
  uint64_t collected_ms;
};

void attachments_init(struct attachments *set, struct loop *loop,
                      struct attachment_census *census,
                      const struct limits *limits);

/* The thread has ended.  No page may be evicted any more: see server_free(). */
void attachments_fini(struct attachments *set);

/* Takes over a table that the process before has left.  The thread has not
 * begun. */
struct restored_table;
void attachment_adopt(struct attachments *set, struct images *images,
                      const struct restored_table *table);

/* What a client asks for. */
struct attachment_wish {
  uint64_t replaces;            /* the number of a table; 0: of none */
  struct shared_pins_size size; /* no page slots: all of them, or none */
};

/* What it got. */
struct attachment_grant {
  uint64_t table;
  struct shared_pins_size size;
  uint32_t read_ahead;
  int fds[ATTACHMENT_N_FDS]; /* to send; the caller's, which owes a
                            connection_flush_fds() */
};

/* Gives the peer of `s` a lease on `m`, of that image, which is s->sending
 * then. What it counts is the image's.  0; -EDQUOT: no share is left, or it has
 * too many; -EAGAIN: there is no room just now; -EOPNOTSUPP: the peer cannot be
 * told apart; or another negative errno. */
int attachment_new(struct session *s, const struct served_image *h,
                   struct mirror *m, const struct attachment_wish *wish,
                   struct attachment_grant *grant);

/* Makes a table of the peer's process larger, by as much as is to be had.  0;
 * -ENOENT if it has none of that number. */
int attachment_grow(struct session *s, uint64_t table,
                    struct shared_pins_size *size);

/* Its descriptors have been sent; or they will not be, and it ends. */
void attachment_sent(struct attachment *a);
void attachment_cancel(struct attachment *a);

/* The connection ends: frees what its client is done with. */
void attachment_session_closed(struct session *s);

/* How many there are, at all services. */
unsigned attachment_count(struct attachment_census *census);

#endif

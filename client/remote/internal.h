/* A remote: the backend of a daemon's image, and what its parts share.
 *
 * What must stay true of it is said in six invariants, each in the header of
 * the part that it is about, and cited by its number everywhere:
 *
 *   R1, R2  pending.h  what is asked for: the queue, what was sent, its owners
 *   R3, R5  read.h     what a Read asks for and gets
 *   R4      notice.h   when the cache may be believed
 *   R6      attach.h   the daemon's memory
 *
 * readahead.h is what is asked for before somebody waits for it; renew.h,
 * warm.h and command.h are the other things to ask for.  remote.c and open.c
 * are what the rest of the library sees.
 *
 * The handle's thread only; the image cache is shared. */
#ifndef CLIENT_REMOTE_INTERNAL_H
#define CLIENT_REMOTE_INTERNAL_H

#include <sys/queue.h>

#include "client/backend.h"
#include "client/options.h"
#include "client/remote/connection.h"
#include "client/remote/readahead_state.h"
#include "client/uri.h"

#ifdef __cplusplus
extern "C" {
#endif

struct pending;
TAILQ_HEAD(pending_list, pending);

struct remote {
  struct backend base;
  struct uri uri;
  struct options options;
  struct connection *connection;
  uint32_t image_id; /* while READY */
  /* What this connection said of the image last. */
  struct connection_image heard;

  /* pending.c */
  struct pending_list queue, sent;
  uint32_t n_sent, n_unowned;

  /* read.c */
  struct remote_read *incoming; /* whose payload is coming in */
  bool incoming_last;

  /* readahead.c, transit.c */
  struct readahead readahead;

  /* attach.c */
  uint64_t attach_id; /* of the Attach that is under way; 0: none is */
  int64_t attach_at;  /* when it was sent */
  int64_t again_at;   /* when it is asked again, after a refusal; 0: never */
  int again_ms;       /* how long it was waited for that */
  bool is_full;       /* the refusal was for want of room, for a moment */
  bool is_unshared;   /* the last connection offered memory that cannot be used:
                         the next one asks for none */
  uint64_t grow_id;   /* of the Grow that is under way; 0: none is */
  int64_t grow_at;    /* no other before this, and so on, as for an Attach */
  int grow_ms;

  /* remote.c: when to connect */
  bool is_opening; /* wanted even while nothing is queued */
  bool is_final;   /* it will never work again */
  int retry_ms;    /* how long to wait after the next failure */
  int64_t retry_at;
  int n_cuts; /* connections in a row that ended as CONNECTION_LOST_CUT */
  struct cachet_error error; /* of the last loss */
};

static inline struct remote *remote_of(struct backend *b) {
  return (struct remote *)b;
}
static inline const struct remote *remote_of_const(const struct backend *b) {
  return (const struct remote *)b;
}

static inline bool remote_is_ready(const struct remote *r) {
  return connection_state(r->connection) == CONNECTION_READY && !r->attach_id;
}

/* Begins to connect.  It is DISCONNECTED. */
/* Whether to look up the host, in a call that waits, before a connection. */
static inline bool remote_is_look_up_due(const struct remote *r) {
  return r->uri.kind != URI_UNIX && connection_is_look_up_due(r->connection);
}

static inline void remote_start(struct remote *r) {
  debug_say(&r->base.debug, "connects to %s", connection_place(r->connection));
  connection_start(r->connection);
}

/* Whether the cache may be believed (R4). */
static inline bool remote_is_trusted(const struct backend *b) {
  const struct remote *r = remote_of_const(b);
  return remote_is_ready(r) && !connection_has_more(r->connection);
}

/* The daemon broke the protocol (R3). */
static inline void remote_violation(struct remote *r, const char *what) {
  connection_break(r->connection, CONNECTION_LOST_BROKEN, CACHET_E_PROTO, what);
}

/* Has the handle let go of the pin that is there for speed only. */
static inline void remote_unpin(struct remote *r) {
  if (r->base.watch.unpin)
    r->base.watch.unpin(r->base.watch.arg);
}

#ifdef __cplusplus
}
#endif

#endif

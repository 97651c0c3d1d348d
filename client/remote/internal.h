/* What the files of the remote backend share: a pending request, a remote, and
 * what they ask of each other.
 *
 * A *pending* is a request to the daemon with its answer.  It is either in
 * `queue`, not sent (on this connection), or in `sent`, with an id:
 *
 *   queue --sent--> sent --answered--> done
 *     ^               `--connection lost-- back to queue, or gone
 *
 *   R1  What is queued is sent in order, never more than the daemon takes.
 *       While something is queued and there is no connection, there are
 *       attempts to connect, at growing intervals.  A handle that hits in a
 *       daemon's memory and asks for nothing makes some now and then.
 *   R2  A pending request that nobody owns (dropped by its owner, or a
 *       prefetch) goes on while the connection lasts and is not sent again.  So
 *       ids are never forgotten while an answer may come.
 *   R3  Each piece of an answer has to be the next one of what was asked for;
 *       whatever else comes ends the connection, and what was sent fails.
 *   R4  The cache, and what is in store, may be believed while the connection
 *       is READY and everything that has arrived on it was taken in: a notice
 *       may have been missed otherwise.  When it becomes READY everything
 *       cached is dropped, also what a handle that this one is a copy of had
 *       cached.
 *   R5  Bytes are installed only if their pages were not invalidated since
 *       they were asked for.  A Read that was sent for somebody else is
 *       joined, or taken out of the store, only if none of its pages was
 *       invalidated since.
 *   R6  Where the daemon shares its memory (`shared_mirror`), pages are read
 *       there, and only those that are not resident are asked for, in place:
 *       the pins of the call that asks keep them.  Nothing is installed here,
 *       R4 and notices do not matter: the memory itself says what is no longer
 *       so.  While the
 *       daemon is asked to attach, nothing else is.  Where it refused, for want
 *       of a share, it is asked again, more and more rarely.
 *
 * pending.c keeps the queue and the ids (R1, R2), read.c what a Read
 * asks for and gets (R3, R5), ahead.c what is asked for before somebody waits
 * for it, notice.c the cache true (R4),
 * attach.c the daemon's memory (R6); warm.c, command.c, remote.c and open.c are
 * what the rest of the library sees.
 *
 * The handle's thread only; the image cache is shared. */
#ifndef CLIENT_REMOTE_INTERNAL_H
#define CLIENT_REMOTE_INTERNAL_H

#include <sys/queue.h>

#include "client/backend.h"
#include "client/options.h"
#include "client/remote/connection.h"
#include "client/remote/streams.h"
#include "client/uri.h"
#include "proto/frame.h"

struct pending;
struct remote;

/* What a pending request is beyond its place in the queue: a Read (read.c), a
 * Warm (warm.c), or a command (command.c). */
struct pending_ops {
  /* Before it is sent.  False: it ended instead.  NULL: there is nothing to
   * prepare. */
  bool (*prepare)(struct remote *r, struct pending *x);
  /* Sends it, with the id x->id. */
  void (*send)(struct remote *r, struct pending *x);
  /* An Error came, which is in its job.  May be NULL. */
  void (*refused)(struct remote *r, struct pending *x);
  /* Any other answer but Data came: 0, a negative errno, or -EPROTO if it
   * cannot be.  NULL: none can. */
  int (*answered)(struct pending *x, const wire_message *msg);
};

struct pending {
  /* First: pending.c and the backend go from one to the other.  Of a Read; of a
   * command only is_done and error matter. */
  struct backend_job job;
  const struct pending_ops *ops;
  bool is_sent;
  uint64_t id;     /* on this connection; when sent */
  int64_t sent_at; /* likewise */
  TAILQ_ENTRY(pending) link;

  /* a Read; of a Warm its ranges only */
  uint64_t epoch; /* when it was sent */
  uint64_t mark;  /* of the mirror, likewise */
  struct {
    uint64_t offset, len;
  } ranges[FETCH_MAX_PAGES];
  uint32_t n_ranges;
  uint8_t place[FETCH_MAX_PAGES]; /* of each page in `bytes`, in pages */
  uint32_t n_pages;
  uint8_t *bytes; /* when sent: room for n_pages whole pages */
  uint32_t at_range;
  uint64_t at_offset; /* into that range */
  uint64_t received;  /* bytes */
  bool is_changed;    /* a piece was of another epoch */
  bool is_partial; /* it failed, and what `place` names is here all the same */
  bool in_place;
  /* Takes it over when it has ended without an owner; false: it does not. NULL:
   * nobody does. */
  bool (*keep)(struct remote *r, struct pending *x);
  uint64_t stay_from, stay_count; /* pages of it that go into the cache */
  bool was_alone;    /* nothing else was under way when it was sent */
  uint64_t asked_ns; /* when that was; 0: its answer has begun to come */
  uint64_t due;      /* bytes of the answer that did not come yet */
  int64_t kept_at;   /* in store: since when */

  /* a command */
  wire_message *request; /* while its caller waits */
  Cachet__Wire__Message__BodyCase expected;
  int (*answer)(void *arg, const wire_message *msg);
  void *answer_arg;
};

#define NO_PLACE UINT8_MAX

struct remote {
  struct backend base;
  struct uri uri;
  struct options options;
  struct connection *channel;
  uint32_t image_id; /* while READY */
  struct connection_image
      heard; /* what this connection said of the image last */

  struct pending_list queue, sent;
  uint32_t n_sent, n_unowned;
  struct ahead ahead;

  uint64_t attach_id; /* of the Attach that is under way; 0: none is */
  int64_t attach_at;  /* when it was sent */
  int64_t again_at;   /* when it is asked again, after a refusal; 0: never */
  int again_ms;       /* how long it was waited for that */
  bool is_full;       /* the refusal was for want of room, for a moment */
  uint64_t grow_id;   /* of the Grow that is under way; 0: none is */
  int64_t grow_at;    /* no other before this, and so on, as for an Attach */
  int grow_ms;
  bool is_unshared; /* the daemon's memory cannot be mapped here */
  bool is_opening;  /* wanted even while nothing is queued */
  int retry_ms;     /* how long to wait after the next failure */
  int64_t retry_at;
  int n_cuts; /* connections in a row that ended as CONNECTION_LOST_CUT */
  struct cachet_error error; /* of the last loss */
  bool is_final;             /* it will never work again */

  struct pending *incoming; /* whose payload is coming in */
  bool incoming_last;
};

static inline struct remote *remote_of(const struct backend *b) {
  return (struct remote *)(uintptr_t)b;
}

static inline bool remote_is_ready(const struct remote *r) {
  return connection_state(r->channel) == CONNECTION_READY && !r->attach_id;
}

/* Begins to connect.  It is DISCONNECTED. */
static inline void remote_start(struct remote *r) {
  debug_say(&r->base.debug, "connects to %s", connection_place(r->channel));
  connection_start(r->channel);
}

/* Whether the cache may be believed (R4). */
static inline bool remote_is_trusted(const struct backend *b) {
  const struct remote *r = remote_of(b);
  return remote_is_ready(r) && !connection_has_more(r->channel);
}

/* The daemon broke the protocol (R3). */
static inline void remote_violation(struct remote *r, const char *what) {
  connection_break(r->channel, CONNECTION_LOST_BROKEN, CACHET_E_PROTO, what);
}

/* Has the handle let go of the pin that is there for speed only. */
static inline void remote_unpin(struct remote *r) {
  if (r->base.watch.unpin)
    r->base.watch.unpin(r->base.watch.arg);
}

/* ---- pending.c ---------------------------------------------------------- */

static inline bool pending_is_owned(const struct pending *x) {
  return x->job.owner != NULL;
}

/* It is in no list (any more). */
void pending_free(struct pending *x);

/* Takes it out of the list that it is in, without an end. */
void pending_unlink(struct remote *r, struct pending *x);

/* Ends a pending request; the error message, if it failed, is in its job. */
void pending_end(struct remote *r, struct pending *x);
void pending_fail(struct remote *r, struct pending *x,
                  const struct cachet_error *why);

/* Fails what is queued. */
void pending_fail_all(struct remote *r, const struct cachet_error *why);

/* What was sent goes back to the head of the queue, in order. */
void pending_unsend_all(struct remote *r);

/* Of what was sent; NULL: nothing has that id. */
struct pending *pending_find(const struct remote *r, uint64_t id);

/* Queues a new one, and sends it if it may be sent.  It may have ended when
 * this returns. */
void pending_queue(struct remote *r, struct pending *x);

/* Connects if that is wanted and due; sends what may be sent. */
void pending_pump(struct remote *r);

/* An answer that is no Data. */
void pending_answered(struct remote *r, struct pending *x,
                      const wire_message *msg);

/* ---- read.c ------------------------------------------------------- */

/* A Read of those pages that are not resident, not queued yet; all of them
 * when the mirror cannot be believed.  NULL: no memory. */
struct pending *remote_read_new(struct remote *r, struct mirror *m,
                                uint64_t first, uint32_t count);

/* Queues such a Read that nobody waits for, see R2, if a page is not resident;
 * what comes is given to `keep`, as x->keep, unless that is NULL.  How many of
 * the pages are asked for or resident, as many as one Read may name; 0: no
 * memory. */
uint32_t remote_read_unowned(struct remote *r, struct mirror *m, uint64_t first,
                             uint32_t count,
                             bool (*keep)(struct remote *r, struct pending *x));

/* A Read without an owner that is bringing `page` already, a prefetch mostly,
 * and of whose pages none was invalidated since it was sent: what it brings may
 * be older than that.  NULL: there is none. */
struct pending *remote_read_underway(const struct remote *r,
                                     const struct mirror *m, uint64_t page);

/* Whether it brings a page of that mirror, or has. */
bool remote_read_brings(const struct pending *x, const struct mirror *m,
                        uint64_t page);

/* Whether none of its pages was invalidated since it was sent: a call that
 * takes it over may use bytes of any of them. */
bool remote_read_is_fresh(const struct pending *x);

/* Puts what came into the cache, as far as it is to stay there.  What cannot is
 * with the job. */
void remote_read_install(const struct pending *x);

/* A piece of its answer is coming in: sets where its payload goes. */
void remote_read_data(struct remote *r, struct pending *x,
                      const Cachet__Wire__Data *d, uint32_t len,
                      uint8_t **payload);

/* That piece is here: payload() of struct connection_owner, of a struct remote.
 */
void remote_read_payload(void *arg);

/* ---- warm.c ------------------------------------------------------ */

/* warm() of struct backend_ops. */
struct backend_job *remote_warm(struct backend *b, struct mirror *m,
                                uint64_t first, uint64_t count,
                                void (*done)(struct backend_job *),
                                void *owner);

/* ---- ahead.c ---------------------------------------------------- */

void remote_ahead_init(struct remote *r);

/* A reader has come to pages that were not in the cache, and wants what is up
 * to `until`.  `was_asked`: they are in store or under way.  Asks for what is
 * next. */
void remote_ahead_reached(struct remote *r, struct mirror *m, uint64_t first,
                          uint64_t count, uint64_t until, bool was_asked);

/* Takes one that brought `page` out of the store; NULL: there is none. */
struct pending *remote_ahead_take(struct remote *r, const struct mirror *m,
                                  uint64_t page);

/* A reader has come to `page` of what a Read brings, and copies what is up to
 * `until`: sets what of it stays in the cache. */
void remote_ahead_come_to(struct remote *r, struct pending *x, uint64_t page,
                          uint64_t until);

/* Whether remote_ahead_take() would find one, for a page that has a place in
 * the cache. */
bool remote_ahead_has(const struct remote *r, const struct mirror *m,
                      uint64_t page);

/* Forgets all streams, and what is in store. */
void remote_ahead_drop_all(struct remote *r);

/* When something in store has been there too long; -1: there is nothing.  Drops
 * what has. */
int64_t remote_ahead_deadline(const struct remote *r);
void remote_ahead_expire(struct remote *r);

/* ---- transit.c -------------------------------------------------- */

/* A Read that is to be answered with bytes was sent, some of them came, it is
 * not under way any more. */
void remote_transit_sent(struct remote *r, struct pending *x);
void remote_transit_came(struct remote *r, struct pending *x, uint64_t len);
void remote_transit_ended(struct remote *r, struct pending *x);

/* ---- notice.c ----------------------------------------------------- */

/* Heeds a message of id 0.  False: it is no notice. */
bool remote_notice(struct remote *r, const wire_message *msg);

/* Drops the pages that overlap a range of the daemon's, cut at the end.  0 or a
 * negative errno. */
int remote_notice_drop(struct remote *r, uint64_t offset, uint64_t len);

/* A notice could not be followed, by errno `-e`.  That leaves a cache that
 * cannot be believed: ends the connection. */
void remote_notice_failed(struct remote *r, int e);

/* ---- attach.c ----------------------------------------------------- */

/* On a connection that is new: asks for the mirror of the image's present
 * epoch, if both sides are for it.  With no descriptors left here the handle
 * reads by the socket. */
void remote_attach_ready(struct remote *r);

/* The same on a connection that has attached, whose mirror is retired. */
void remote_attach_renew(struct remote *r);

/* The same once more if the daemon had no share, and it is time to ask again;
 * at a miss, which waits for the daemon anyway. */
void remote_attach_again(struct remote *r);

/* The answer, which may be an Error. */
void remote_attach_answer(struct remote *r, const wire_message *msg);

/* grow() of struct backend_ops. */
void remote_attach_grow(struct backend *b, uint32_t page_slots,
                        uint32_t range_capacity);
void remote_attach_grow_answer(struct remote *r, const wire_message *msg);

/* There will be no answer. */
void remote_attach_grow_end(struct remote *r);

/* ---- remote.c ------------------------------------------------------ */

/* remote_open() but for what is added to the message of an image that there is
 * not. */
enum cachet_status remote_connect_image(const struct uri *u,
                                        const struct options *options,
                                        struct backend **out,
                                        struct cachet_error *err);

#endif

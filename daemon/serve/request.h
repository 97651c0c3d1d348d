/* Requests: Read, Warm and Attach, and those that have another thread work,
 * from frame to last answer.
 *
 * A request is worked on piece by piece.  A piece is the longest run of pages
 * at hand, up to a limit, and of one epoch.  While all is resident it goes in
 * one breath, on the stack.  Else it becomes a request that waits:
 *
 *     WAITING   its fetch or its job will post it, mostly from another thread
 *     THROTTLED too many bytes are being fetched: see fetch_quota.h
 *     RUNNABLE  its connection is blocked; session.c goes on
 *     ENDED     its wait is over, and the thread runs other tasks first
 *
 *   R1  A request that waits is on its session's list, or is an orphan: its
 *       session is gone, it is WAITING, and is freed when it is posted.
 *   R2  It holds a fetch only while WAITING or ENDED, or while it is being
 *       worked on.  A request of a blocked connection gives back what was
 *       fetched, and looks again later: a peer that does not read holds no
 *       memory.
 *   R3  A request is RUNNABLE only while its connection is blocked.  One that
 *       was begun is the first of the large ones, or a small one.
 *   R4  A piece is of the image reader's mirror, which was the image's present
 *       one when the piece was begun.
 *   R5  A request is ENDED only while its thread runs a batch of tasks.  A
 *       session with such requests is in the service's list `ended`.  So what
 *       ends at once for one connection is answered by one call.
 *
 * request.c begins them, has them wait and frees them (R1), and works on them
 * by the steps of read.c (R4); fetch_quota.c holds its fetch (R2, with
 * request.c).
 *
 * The service's thread only. */
#ifndef DAEMON_SERVE_REQUEST_H
#define DAEMON_SERVE_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/serve/read_plan.h"
#include "daemon/serve/session.h"

struct request_fetch;

enum request_kind {
  REQUEST_READ,
  REQUEST_READ_IN_PLACE, /* of an attached peer: it needs no bytes of pages
                            that are resident, where its pins keep them */
  REQUEST_WARM,
  REQUEST_INVALIDATE,
  REQUEST_ATTACH,
  REQUEST_OF_NO_IMAGE, /* whose job knows what it asks for */
};

enum request_state {
  REQUEST_ACTIVE, /* being worked on */
  REQUEST_WAITING,
  REQUEST_THROTTLED,
  REQUEST_RUNNABLE,
  REQUEST_ENDED,
};

struct request;

/* Work of a request's that blocks, and so is done by other threads.  When it is
 * over one of them posts the request's task, once.  Embedded by its module. */
struct request_job {
  struct request *request;
  void (*start)(struct request_job *job); /* the request is WAITING */

  /* Says what came of it; the connection has room.  Of an image's request it is
   * NULL: that is answered as others are, and fails by its `status`. */
  void (*answer)(struct request_job *job);

  /* The request is an orphan from now on, and is not answered.  May be NULL. */
  void (*abandon)(struct request_job *job);

  /* It is over, or was not started. */
  void (*free)(struct request_job *job);
};

struct request {
  struct task task; /* posts it back to its service */
  struct service *service;
  struct session *session;     /* NULL: an orphan */
  struct request *prev, *next; /* the session's list */
  struct request *next_queued;
  struct request *prev_turn,
      *next_turn; /* of the image reader: see fetch_quota.h */
  enum request_state state;
  enum request_kind kind;
  uint64_t id;
  struct service_image *image;       /* NULL: of none, */
  struct subscription *subscription; /* likewise; and of an orphan */
  uint64_t epoch;                    /* asked for; 0: any */
  int status;                        /* a negative errno that ends it, */
  struct range bad; /* and the page that could not be read; empty: none */
  unsigned n_restarts;
  bool is_begun; /* it was taken out of a queue once */

  /* Read and Warm: how far they came. */
  struct read_plan plan;  /* its ranges lie behind this struct, once it waits */
  uint64_t checked_epoch; /* whose size the ranges are within; 0: none */
  uint64_t missing;       /* STEP_MISS: the first page to fetch, */
  unsigned n_missing;     /* and how many */
  struct request_fetch *fetch;

  struct attachment_wish wish; /* an Attach */

  struct request_job *job; /* counted by the session; or NULL */
};

static inline struct image_reader *request_reader(const struct request *r) {
  return &r->image->reader;
}

static inline void request_count(const struct request *r,
                                 enum image_counter which, uint64_t n) {
  image_counters_add(r->image->counters, which, n);
  image_counters_add(r->image->set->totals, which, n);
}

static inline struct connection *request_conn(const struct request *r) {
  return &r->session->conn;
}

/* What its job did is over.  Any thread, once. */
static inline void request_post(struct request *r) {
  loop_post(r->service->loop, &r->task);
}

static inline void request_queue_init(struct request_queue *q) {
  q->head = NULL;
  q->tail = &q->head;
}

static inline void request_queue_push(struct request_queue *q,
                                      struct request *r) {
  r->next_queued = NULL;
  *q->tail = r;
  q->tail = &r->next_queued;
}

static inline void request_queue_push_front(struct request_queue *q,
                                            struct request *r) {
  if (!q->head)
    q->tail = &r->next_queued;
  r->next_queued = q->head;
  q->head = r;
}

static inline struct request *request_queue_pop(struct request_queue *q) {
  struct request *r = q->head;
  if (r && !(q->head = r->next_queued))
    q->tail = &q->head;
  return r;
}

/* Begins a Read, a Warm, or an Invalidate of nothing.  `ranges` are read during
 * the call only.  Answers at once what can be answered at once. */
void request_begin(struct session *s, uint64_t id, enum request_kind kind,
                   uint32_t image_id, uint64_t epoch, size_t n_ranges,
                   Cachet__Wire__Range *const *ranges);

/* Begins an Attach, likewise. */
void request_begin_attach(struct session *s, uint64_t id,
                          const Cachet__Wire__Attach *attach);

/* Begins a request that `job` works on, which is the request's from here; its
 * members but `request` are set.  `sub`: what image it is for; or NULL. */
void request_begin_job(struct session *s, uint64_t id, enum request_kind kind,
                       struct subscription *sub, struct request_job *job);

/* The session's subscription to an image.  NULL: the peer was told that it has
 * none. */
struct subscription *request_find_subscription(struct session *s, uint64_t id,
                                               uint32_t image_id);

/* Ends a request for an image before it was begun: the peer is told why. */
void request_refuse(struct session *s, uint64_t id, struct subscription *sub,
                    int status, const char *what);

/* Goes on with a request that was taken from a queue.  Its connection is to be
 * settled afterwards. */
void request_go_on(struct request *r);

/* Takes the next RUNNABLE request out of its queue; NULL: there is none.  Small
 * ones go first, so that a page does not wait behind megabytes; after some of
 * them it is a large one's turn.  Those are in the order in which they came:
 * the first is what the peer waits for. */
struct request *request_next(struct session *s);

/* Goes on with ENDED requests, after a batch of tasks. */
void request_go_on_ended(struct service *service);

/* Goes on with throttled requests, now that fetches may have ended. */
void request_admit_throttled(struct service *service);

/* The bytes that the thread's account has of one that waits (N2 of
 * net_thread.h). */
size_t request_held(const struct request *r);

/* Whether the session has a request of that id in flight. */
bool request_exists(const struct session *s, uint64_t id);

/* The session ends: frees its requests, or makes orphans of them. */
void request_drop_all(struct session *s);

#endif

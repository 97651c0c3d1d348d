/* Pending requests: what a remote has asked its daemon, or is going to.
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
 *
 * This is what all of them have in common.  What is asked for, and what becomes
 * of the answer, is in a struct of its own that begins with a struct pending:
 * of a Read (read.h), a Warm (warm.c), a command (command.c).  A renewal
 * (renew.c) has nothing to add. */
#ifndef CLIENT_REMOTE_PENDING_H
#define CLIENT_REMOTE_PENDING_H

#include <sys/queue.h>

#include "client/backend.h"
#include "proto/frame.h"

#ifdef __cplusplus
extern "C" {
#endif

struct pending;
struct remote;

/* What a kind of pending request does at each station of its life.  All but
 * prepare() and send() may be NULL, and one of those two. */
struct pending_ops {
  /* Before it is sent.  False: it ended instead.  NULL: there is nothing to
   * prepare. */
  bool (*prepare)(struct remote *r, struct pending *x);
  /* Sends it, with the id x->id.  NULL: prepare() never lets it be sent. */
  void (*send)(struct remote *r, struct pending *x);
  /* An Error came, which is in its job. */
  void (*refused)(struct remote *r, struct pending *x);
  /* Any other answer but Data came: 0, a negative errno, or -EPROTO if it
   * cannot be.  NULL: none can. */
  int (*answered)(struct pending *x, const wire_message *msg);
  /* It was sent, and no answer of it is to come any more: it has ended
   * (job.is_done), or it goes back to the queue, or it is freed. */
  void (*unsent)(struct remote *r, struct pending *x);
  /* It has ended without an owner.  True: it was taken over.  Else, and where
   * this is NULL, it is freed. */
  bool (*keep)(struct remote *r, struct pending *x);
  /* Frees what it has beside its mirror. */
  void (*fini)(struct pending *x);
};

struct pending {
  /* First: a backend's job is one of these.  Its mirror, if it has one, is
   * unreferenced with it. */
  struct backend_job job;
  const struct pending_ops *ops;
  bool is_sent;
  uint64_t id;     /* on this connection; when sent */
  int64_t sent_at; /* likewise */
  TAILQ_ENTRY(pending) link;
};

static inline bool pending_is_owned(const struct pending *x) {
  return x->job.owner != NULL;
}

/* It is in no list (any more). */
void pending_free(struct pending *x);

/* Queues one for its owner, and sends it if it may be sent.  What ends before
 * this returns ends by job.is_done, without a call of `done`. */
void pending_submit(struct remote *r, struct pending *x,
                    void (*done)(struct backend_job *), void *owner);

/* Queues one without an owner.  It may have ended, and be gone, when this
 * returns. */
void pending_submit_unowned(struct remote *r, struct pending *x);

/* One without an owner, which may be done, gets one. */
void pending_adopt(struct remote *r, struct pending *x,
                   void (*done)(struct backend_job *), void *owner);

/* Its owner needs it no more, done or not. */
void pending_drop(struct remote *r, struct pending *x);

/* Ends a pending request; the error message, if it failed, is in its job. */
void pending_end(struct remote *r, struct pending *x);
void pending_fail(struct remote *r, struct pending *x,
                  const struct cachet_error *why);

/* Fails what is queued. */
void pending_fail_all(struct remote *r, const struct cachet_error *why);

/* What was sent goes back to the head of the queue, in order. */
void pending_unsend_all(struct remote *r);

/* Frees all, without an end. */
void pending_free_all(struct remote *r);

/* Asserts R1 and R2, as far as the lists show them, where no call is under way.
 */
void pending_check(const struct remote *r);

/* Of what was sent; NULL: nothing has that id. */
struct pending *pending_find(const struct remote *r, uint64_t id);

/* Connects if that is wanted and due; sends what may be sent. */
void pending_pump(struct remote *r);

/* An answer that is no Data. */
void pending_answered(struct remote *r, struct pending *x,
                      const wire_message *msg);

#ifdef __cplusplus
}
#endif

#endif

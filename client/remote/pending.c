/* Exchanges: the queue to a daemon, what was sent, and how each one ends.
 *
 * Kept here, see internal.h: R1, that what is queued goes out in order and
 * no more of it than the daemon takes; R2, what becomes of a pending request
 * when its owner or its connection goes.  What it is beyond that its
 * ops say. */
#include "client/remote/internal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/deadline.h"
#include "client/error.h"

void pending_free(struct pending *x) {
  if (x->job.mirror)
    mirror_unref(x->job.mirror);
  free(x->bytes);
  free(x);
}

void pending_unlink(struct remote *r, struct pending *x) {
  TAILQ_REMOVE(x->is_sent ? &r->sent : &r->queue, x, link);
  r->n_sent -= x->is_sent;
  if (x->is_sent && x->due)
    remote_transit_ended(r, x);
  x->is_sent = false;
}

void pending_end(struct remote *r, struct pending *x) {
  pending_unlink(r, x);
  if (r->incoming == x)
    r->incoming = NULL;
  x->job.is_done = true;
  if (pending_is_owned(x)) {
    x->job.done(&x->job);
    return;
  }
  r->n_unowned--;
  if (!x->keep || !x->keep(r, x))
    pending_free(x);
}

void pending_fail(struct remote *r, struct pending *x,
                  const struct cachet_error *why) {
  x->job.error = *why;
  pending_end(r, x);
}

void pending_fail_all(struct remote *r, const struct cachet_error *why) {
  while (!TAILQ_EMPTY(&r->queue))
    pending_fail(r, TAILQ_FIRST(&r->queue), why);
}

void pending_unsend_all(struct remote *r) {
  struct pending *x;
  r->incoming = NULL;
  while ((x = TAILQ_LAST(&r->sent, pending_list))) {
    pending_unlink(r, x);
    if (!pending_is_owned(x)) {
      r->n_unowned--;
      pending_free(x);
      continue;
    }
    free(x->bytes);
    x->bytes = NULL;
    TAILQ_INSERT_HEAD(&r->queue, x, link);
  }
}

struct pending *pending_find(const struct remote *r, uint64_t id) {
  struct pending *x;
  TAILQ_FOREACH(x, &r->sent, link)
    if (x->id == id)
      return x;
  return NULL;
}

/* ---- Sending ------------------------------------------------------------- */

static void pending_send(struct remote *r, struct pending *x) {
  if (x->ops->prepare && !x->ops->prepare(r, x))
    return;
  pending_unlink(r, x);
  x->id = connection_next_id(r->channel);
  x->is_sent = true;
  x->sent_at = deadline_now();
  r->n_sent++;
  TAILQ_INSERT_TAIL(&r->sent, x, link);
  /* The first one goes at once, and those that come while it is under way go
   * together. */
  connection_hold(r->channel, r->base.holds && r->n_sent > 1);
  x->ops->send(r, x);
  connection_hold(r->channel, false);
}

void pending_pump(struct remote *r) {
  bool wanted = r->is_opening || !TAILQ_EMPTY(&r->queue);
  if (connection_state(r->channel) == CONNECTION_DISCONNECTED && wanted &&
      !r->is_final && deadline_now() >= r->retry_at)
    remote_start(r);
  while (remote_is_ready(r) && !TAILQ_EMPTY(&r->queue) &&
         r->n_sent < connection_limits(r->channel)->max_requests &&
         !connection_is_full(r->channel))
    pending_send(r, TAILQ_FIRST(&r->queue));
}

void pending_queue(struct remote *r, struct pending *x) {
  TAILQ_INSERT_TAIL(&r->queue, x, link);
  if (r->is_final)
    pending_fail(r, x, &r->error);
  else
    pending_pump(r);
}

/* ---- Answers ------------------------------------------------------------- */

void pending_answered(struct remote *r, struct pending *x,
                      const wire_message *msg) {
  if (msg->body_case == CACHET__WIRE__MESSAGE__BODY_ERROR) {
    r->retry_ms = 0;
    connection_read_error(msg->error, &x->job.error);
    if (x->ops->refused)
      x->ops->refused(r, x);
    pending_end(r, x);
    return;
  }
  int e = x->ops->answered ? x->ops->answered(x, msg) : -EPROTO;
  if (e == -EPROTO) {
    remote_violation(r, "an answer that cannot be");
    return;
  }
  r->retry_ms = 0;
  if (e < 0)
    error_set(&x->job.error, error_from_errno(-e), -e, "daemon at %.150s",
              connection_place(r->channel));
  pending_end(r, x);
}

/* This file keeps R1, except when the backend tries to connect, which is in
 * remote.c; and R2. */
#include "client/remote/pending.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/deadline.h"
#include "client/error.h"
#include "client/remote/internal.h"

/* ---- Life ---------------------------------------------------------------- */

void pending_free(struct pending *x) {
  if (x->job.mirror)
    mirror_unref(x->job.mirror);
  if (x->ops->fini)
    x->ops->fini(x);
  free(x);
}

static void pending_unlink(struct remote *r, struct pending *x) {
  bool was_sent = x->is_sent;
  TAILQ_REMOVE(was_sent ? &r->sent : &r->queue, x, link);
  r->n_sent -= was_sent;
  x->is_sent = false;
  if (was_sent && x->ops->unsent)
    x->ops->unsent(r, x);
}

void pending_end(struct remote *r, struct pending *x) {
  x->job.is_done = true;
  pending_unlink(r, x);
  if (pending_is_owned(x)) {
    x->job.done(&x->job);
    return;
  }
  r->n_unowned--;
  if (!x->ops->keep || !x->ops->keep(r, x))
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
  while ((x = TAILQ_LAST(&r->sent, pending_list))) {
    pending_unlink(r, x);
    if (pending_is_owned(x)) {
      TAILQ_INSERT_HEAD(&r->queue, x, link);
      continue;
    }
    r->n_unowned--;
    pending_free(x);
  }
}

void pending_free_all(struct remote *r) {
  struct pending *x;
  while ((x = TAILQ_FIRST(&r->sent)) || (x = TAILQ_FIRST(&r->queue))) {
    pending_unlink(r, x);
    pending_free(x);
  }
}

struct pending *pending_find(const struct remote *r, uint64_t id) {
  struct pending *x;
  TAILQ_FOREACH(x, &r->sent, link)
    if (x->id == id)
      return x;
  return NULL;
}

void pending_check(const struct remote *r) {
  uint32_t n_sent = 0, n_unowned = 0;
  const struct pending *x, *before = NULL;
  TAILQ_FOREACH(x, &r->sent, link) {
    assert(x->is_sent && !x->job.is_done);
    assert(!before || before->id < x->id); /* R1 */
    before = x;
    n_sent++;
    n_unowned += !pending_is_owned(x);
  }
  TAILQ_FOREACH(x, &r->queue, link) {
    assert(!x->is_sent && !x->job.is_done);
    n_unowned += !pending_is_owned(x);
  }
  assert(n_sent == r->n_sent && n_unowned == r->n_unowned); /* R2 */
}

/* ---- Sending ------------------------------------------------------------- */

static void pending_send(struct remote *r, struct pending *x) {
  if (x->ops->prepare && !x->ops->prepare(r, x))
    return;
  pending_unlink(r, x);
  x->id = connection_next_id(r->connection);
  x->is_sent = true;
  x->sent_at = deadline_now();
  r->n_sent++;
  TAILQ_INSERT_TAIL(&r->sent, x, link);
  /* The first request is sent at once.  Those that follow before its answer are
   * sent together. */
  connection_hold(r->connection, r->base.holds && r->n_sent > 1);
  x->ops->send(r, x);
  connection_hold(r->connection, false);
}

void pending_pump(struct remote *r) {
  bool wanted = r->is_opening || !TAILQ_EMPTY(&r->queue);
  if (connection_state(r->connection) == CONNECTION_DISCONNECTED && wanted &&
      !r->is_final && deadline_now() >= r->retry_at)
    remote_start(r);
  while (remote_is_ready(r) && !TAILQ_EMPTY(&r->queue) &&
         r->n_sent < connection_limits(r->connection)->max_requests &&
         !connection_is_full(r->connection))
    pending_send(r, TAILQ_FIRST(&r->queue));
}

static void pending_queue(struct remote *r, struct pending *x) {
  TAILQ_INSERT_TAIL(&r->queue, x, link);
  if (r->is_final)
    pending_fail(r, x, &r->error);
  else if (remote_is_look_up_due(r))
    backend_changed(&r->base); /* a call that waits looks up, and connects */
  else
    pending_pump(r);
}

static void owner_unknown(struct backend_job *j) { (void)j; }

void pending_submit(struct remote *r, struct pending *x,
                    void (*done)(struct backend_job *), void *owner) {
  x->job.owner = owner;
  x->job.done = owner_unknown;
  pending_queue(r, x);
  x->job.done = done;
}

void pending_submit_unowned(struct remote *r, struct pending *x) {
  r->n_unowned++;
  pending_queue(r, x);
}

/* ---- Owners -------------------------------------------------------------- */

void pending_adopt(struct remote *r, struct pending *x,
                   void (*done)(struct backend_job *), void *owner) {
  r->n_unowned -= !x->job.is_done;
  x->job.owner = owner;
  x->job.done = done;
}

void pending_drop(struct remote *r, struct pending *x) {
  if (x->is_sent) {
    x->job.owner = NULL; /* until its answer ends (R2) */
    r->n_unowned++;
    return;
  }
  if (!x->job.is_done)
    pending_unlink(r, x);
  pending_free(x);
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
              connection_place(r->connection));
  pending_end(r, x);
}

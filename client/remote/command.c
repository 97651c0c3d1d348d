#include "client/remote/command.h"

#include <errno.h>
#include <stdlib.h>

#include "base/deadline.h"
#include "client/error.h"
#include "client/remote/internal.h"
#include "client/remote/pending.h"

struct command {
  struct pending base; /* first */
  /* These are the caller's, while it waits. */
  wire_message *request;
  int (*answer)(void *arg, const wire_message *msg);
  void *answer_arg;
  Cachet__Wire__Message__BodyCase expected;
};

static void command_done(struct backend_job *j) { (void)j; }

static void command_send(struct remote *r, struct pending *x) {
  wire_message *msg = ((struct command *)x)->request;
  msg->id = x->id;
  if (msg->body_case == CACHET__WIRE__MESSAGE__BODY_INVALIDATE)
    msg->invalidate->image = r->image_id;
  connection_send(r->connection, msg);
}

static int command_answered(struct pending *x, const wire_message *msg) {
  const struct command *c = (const struct command *)x;
  if (msg->body_case != c->expected)
    return -EPROTO;
  return c->answer ? c->answer(c->answer_arg, msg) : 0;
}

static const struct pending_ops command_ops = {
    .send = command_send,
    .answered = command_answered,
};

enum cachet_status remote_command(struct backend *b, wire_message *request,
                                  Cachet__Wire__Message__BodyCase expected,
                                  int (*answer)(void *arg,
                                                const wire_message *msg),
                                  void *arg, struct cachet_error *err) {
  struct remote *r = remote_of(b);
  struct command *c = calloc(1, sizeof *c);
  if (!c)
    return error_set(err, CACHET_E_NOMEM, 0, "no memory for a request");
  struct backend_job *j = &c->base.job;
  c->base.ops = &command_ops;
  c->request = request;
  c->expected = expected;
  c->answer = answer;
  c->answer_arg = arg;
  int64_t deadline = deadline_after(r->options.request_timeout_ms);
  pending_submit(r, &c->base, command_done, r);
  if (!j->is_done)
    debug_say(&b->debug, "waits for the daemon to obey a command");
  while (!j->is_done && backend_wait(b, deadline))
    ;
  struct cachet_error why = j->error;
  if (!j->is_done)
    b->ops->explain(b, &why);
  c->answer = NULL; /* what these point to ends with this call */
  c->request = NULL;
  if (why.code != CACHET_OK)
    debug_say(&b->debug, "gives up a command: %s", why.message);
  b->ops->drop(b, j);
  if (why.code != CACHET_OK && err)
    *err = why;
  return why.code;
}

#include "client/remote/command.h"

#include <errno.h>
#include <stdlib.h>

#include "base/deadline.h"
#include "client/error.h"
#include "client/remote/internal.h"

static void command_done(struct backend_job *j) { (void)j; }

static void command_send(struct remote *r, struct pending *x) {
  wire_message *msg = x->request;
  msg->id = x->id;
  if (msg->body_case == CACHET__WIRE__MESSAGE__BODY_INVALIDATE)
    msg->invalidate->image = r->image_id;
  connection_send(r->channel, msg);
}

static int command_answered(struct pending *x, const wire_message *msg) {
  if (msg->body_case != x->expected)
    return -EPROTO;
  return x->answer ? x->answer(x->answer_arg, msg) : 0;
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
  struct pending *x = calloc(1, sizeof *x);
  if (!x)
    return error_set(err, CACHET_E_NOMEM, 0, "no memory for a request");
  x->job.owner = r;
  x->job.done = command_done;
  x->ops = &command_ops;
  x->request = request;
  x->expected = expected;
  x->answer = answer;
  x->answer_arg = arg;
  int64_t deadline = deadline_after(r->options.request_timeout_ms);
  pending_queue(r, x);
  if (!x->job.is_done)
    debug_say(&b->debug, "waits for the daemon to obey a command");
  while (!x->job.is_done && backend_wait(b, deadline))
    ;
  struct cachet_error why = x->job.error;
  if (!x->job.is_done)
    b->ops->explain(b, &why);
  x->answer = NULL; /* what these point to ends with this call */
  x->request = NULL;
  if (why.code != CACHET_OK)
    debug_say(&b->debug, "gives up a command: %s", why.message);
  b->ops->drop(b, &x->job);
  if (why.code != CACHET_OK && err)
    *err = why;
  return why.code;
}

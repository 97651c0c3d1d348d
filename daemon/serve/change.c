#include "daemon/serve/change.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/container_of.h"
#include "daemon/log.h"
#include "daemon/serve/access.h"
#include "daemon/serve/reply.h"
#include "daemon/serve/request.h"
#include "proto/status.h"

struct change {
  struct request_job job;
  struct pool_job work;
  struct service *service;
  size_t len;         /* of this, with its strings */
  const char *name;   /* behind this struct, as is */
  const char *source; /* NULL: a Remove */
  int result;         /* a negative errno; the job's until it is over */
  char why[CHANGE_WHY_LEN];
};

static struct change *change_of(struct request_job *job) {
  return container_of(job, struct change, job);
}

static const char *act_of(const struct change *c) {
  return c->source ? "add" : "remove";
}

/* On the pool. */
static void change_run(struct pool_job *work) {
  struct change *c = container_of(work, struct change, work);
  const struct change_maker *maker = &c->service->context->maker;
  c->result = c->source ? maker->add(maker->arg, c->name, c->source, c->why)
                        : maker->remove(maker->arg, c->name, c->why);
  request_post(c->job.request);
}

static void change_abandon(struct pool_job *work) {
  struct change *c = container_of(work, struct change, work);
  c->result = -ECANCELED;
  strcpy(c->why, "the daemon stops");
  request_post(c->job.request);
}

static void change_start(struct request_job *job) {
  struct change *c = change_of(job);
  pool_submit(c->service->context->change_lane, &c->work);
}

static int status_of(int r) {
  switch (r) {
  case -EINVAL:
  case -EEXIST:
  case -ERANGE: /* see missing.h */
    return WIRE_E_INVAL;
  case -ENOENT:
    return WIRE_E_NOIMAGE;
  case -EBUSY:
    return WIRE_E_BUSY;
  case -ENOMEM:
    return WIRE_E_NOMEM;
  case -ECANCELED:
    return WIRE_E_CANCELED;
  }
  return WIRE_E_IO;
}

static void change_answer(struct request_job *job) {
  struct change *c = change_of(job);
  struct connection *conn = request_conn(job->request);
  uint64_t id = job->request->id;
  if (c->result == 0)
    reply_done(conn, id, 0);
  else
    connection_reply_error(conn, id, status_of(c->result), -c->result,
                           "%s image \"%.64s\": %s", act_of(c), c->name,
                           c->why);
}

static void change_free(struct request_job *job) {
  struct change *c = change_of(job);
  net_thread_unhold(&c->service->net, c->len);
  free(c);
}

/* NULL: no memory. */
static struct change *change_new(struct service *service, const char *name,
                                 const char *source) {
  size_t name_len = strlen(name) + 1;
  size_t source_len = source ? strlen(source) + 1 : 0;
  size_t len = sizeof(struct change) + name_len + source_len;
  struct change *c = NULL;
  if (net_thread_hold(&service->net, len) && !(c = malloc(len)))
    net_thread_unhold(&service->net, len);
  if (!c)
    return NULL;
  char *strings = (char *)(c + 1);
  *c = (struct change){
      .job = {.start = change_start,
              .answer = change_answer,
              .free = change_free},
      .work = {.run = change_run, .abandon = change_abandon},
      .service = service,
      .len = len,
      .name = memcpy(strings, name, name_len),
      .source = source ? memcpy(strings + name_len, source, source_len) : NULL,
  };
  return c;
}

static void begin(struct session *s, uint64_t id, const char *name,
                  const char *source) {
  struct server_context *context = s->service->context;
  const char *act = source ? "add" : "remove";
  if (!access_may_administer(context, &s->conn)) {
    connection_reply_error(&s->conn, id, WIRE_E_ACCESS, 0,
                           "%s: only for root, the daemon's user and peers "
                           "that [admin] allows",
                           act);
    return;
  }
  if (!context->maker.add) {
    connection_reply_error(&s->conn, id, WIRE_E_UNSUPPORTED, 0,
                           "%s: this server takes no changes", act);
    return;
  }
  struct change *c = change_new(s->service, name, source);
  if (!c) {
    connection_reply_error(&s->conn, id, WIRE_E_NOMEM, ENOMEM,
                           "%s: out of memory", act);
    return;
  }
  log_peer_event(LEVEL_INFO, "change-asked", LOG_NUMBER("conn", s->conn.serial),
                 LOG_TEXT("act", act), LOG_TEXT("image", name));
  request_begin_job(s, id, REQUEST_OF_NO_IMAGE, NULL, &c->job);
}

void change_begin_add(struct session *s, uint64_t id,
                      const Cachet__Wire__Add *add) {
  begin(s, id, add->name, add->source);
}

void change_begin_remove(struct session *s, uint64_t id,
                         const Cachet__Wire__Remove *remove) {
  begin(s, id, remove->name, NULL);
}

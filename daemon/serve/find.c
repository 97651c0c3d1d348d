#include "daemon/serve/find.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/container_of.h"
#include "daemon/log.h"
#include "daemon/missing.h"
#include "daemon/serve/reply.h"
#include "daemon/serve/request.h"
#include "proto/status.h"

/* ---- Open ---------------------------------------------------------------- */

struct image_finding {
  struct request_job job;
  struct finder_wait wait;
  struct finder *finder;
  void (*found)(struct session *s, uint64_t id, struct served_image *h);
  char name[IMAGE_NAME_MAX + 2]; /* one more: that such a name is too long */
};

static struct image_finding *finding_of(struct request_job *job) {
  return container_of(job, struct image_finding, job);
}

bool find_is_possible(struct session *s) {
  struct server_context *context = s->service->context;
  return finder_has_place(&context->finder) &&
         images_may_read_all(&context->images, &s->conn.peer);
}

void find_refuse(struct session *s, uint64_t id, const char *name) {
  connection_reply_error(&s->conn, id, WIRE_E_NOIMAGE, 0,
                         "image \"%.64s\": not served", name);
}

static void finding_failed(struct session *s, uint64_t id, const char *name,
                           int r) {
  const char *why = missing_reason(-r);
  int status = WIRE_E_IO;
  if (r == -ENOMEM)
    status = WIRE_E_NOMEM;
  else if (r == -ECANCELED)
    status = WIRE_E_CANCELED;
  else if (r == -ENFILE || r == -EAGAIN || r == -EMFILE)
    status = WIRE_E_BUSY;
  if (r == -ENFILE)
    why = "too many images are open";
  else if (r == -EAGAIN)
    why = "too many images are being opened";
  log_peer_event(LEVEL_WARN, "request-failed", LOG_TEXT("image", name),
                 LOG_TEXT("act", "open"), LOG_TEXT("reason", why));
  connection_reply_error(&s->conn, id, status, -r, "image \"%s\": open: %s",
                         name, why);
}

static void finding_answer(struct request_job *job) {
  struct image_finding *f = finding_of(job);
  struct session *s = job->request->session;
  uint64_t id = job->request->id;
  struct served_image *h = f->wait.image;
  if (f->wait.result == 0 && images_may_read(h, &s->conn.peer))
    f->found(s, id, h);
  else if (f->wait.result == 0 || f->wait.result == -ENOENT)
    find_refuse(s, id, f->name);
  else
    finding_failed(s, id, f->name, f->wait.result);
}

static void finding_done(struct finder_wait *wait) {
  request_post(container_of(wait, struct image_finding, wait)->job.request);
}

static void finding_start(struct request_job *job) {
  struct image_finding *f = finding_of(job);
  finder_find(f->finder, f->name, &f->wait);
}

static void finding_free(struct request_job *job) {
  images_unref(finding_of(job)->wait.image);
  free(finding_of(job));
}

void find_image(struct session *s, uint64_t id, const char *name,
                void (*found)(struct session *s, uint64_t id,
                              struct served_image *h)) {
  struct image_finding *f = calloc(1, sizeof *f);
  if (!f) {
    finding_failed(s, id, name, -ENOMEM);
    return;
  }
  f->job = (struct request_job){
      .start = finding_start, .answer = finding_answer, .free = finding_free};
  f->wait.done = finding_done;
  f->finder = &s->service->context->finder;
  f->found = found;
  snprintf(f->name, sizeof f->name, "%s", name);
  request_begin_job(s, id, REQUEST_OF_NO_IMAGE, NULL, &f->job);
}

/* ---- List ---------------------------------------------------------------- */

struct image_listing {
  struct request_job job;
  struct pool_job work;
  struct service *service;
  uint32_t (*number_of)(struct connection *c, const struct served_image *h);
  char after[IMAGE_NAME_MAX + 1];
  int n; /* of names, or a negative errno; the job's until it is over */
  struct found_name names[REPLY_MAX_LISTED];
};

static struct image_listing *listing_of(struct request_job *job) {
  return container_of(job, struct image_listing, job);
}

static void listing_run(struct pool_job *work) {
  struct image_listing *l = container_of(work, struct image_listing, work);
  const struct finder_place *place = l->service->context->finder.place;
  l->n = place->list(place->arg, l->after, l->names, REPLY_MAX_LISTED);
  request_post(l->job.request);
}

static void listing_abandon(struct pool_job *work) {
  struct image_listing *l = container_of(work, struct image_listing, work);
  l->n = -ECANCELED;
  request_post(l->job.request);
}

static void listing_start(struct request_job *job) {
  struct image_listing *l = listing_of(job);
  pool_submit(l->service->context->finder.list_lane, &l->work);
}

/* Answers a List after the directories were read.  Meanwhile a new rule may
 * have taken every image from the peer. */
static void listing_answer(struct request_job *job) {
  struct image_listing *l = listing_of(job);
  struct request *r = job->request;
  unsigned n_names = find_is_possible(r->session) ? (unsigned)l->n : 0;
  if (l->n < 0)
    connection_reply_error(request_conn(r), r->id,
                           l->n == -ENOMEM ? WIRE_E_NOMEM : WIRE_E_IO, -l->n,
                           "list images: %s", strerror(-l->n));
  else
    reply_images(
        request_conn(r), r->id, &l->service->context->images,
        &(struct reply_listing){.after = l->after,
                                .names = l->names,
                                .n_names = n_names,
                                .page_size = l->service->context->page_size,
                                .number_of = l->number_of});
}

static void listing_free(struct request_job *job) {
  struct image_listing *l = listing_of(job);
  net_thread_unhold(&l->service->net, sizeof *l);
  free(l);
}

static struct image_listing *listing_new(struct service *service) {
  struct image_listing *l = NULL;
  if (net_thread_hold(&service->net, sizeof *l) && !(l = malloc(sizeof *l)))
    net_thread_unhold(&service->net, sizeof *l);
  if (!l)
    return NULL;
  l->job = (struct request_job){
      .start = listing_start, .answer = listing_answer, .free = listing_free};
  l->work = (struct pool_job){.run = listing_run, .abandon = listing_abandon};
  l->service = service;
  return l;
}

void find_list(struct session *s, uint64_t id, const char *after,
               uint32_t (*number_of)(struct connection *c,
                                     const struct served_image *h)) {
  struct image_listing *l = listing_new(s->service);
  if (!l) {
    connection_reply_error(&s->conn, id, WIRE_E_NOMEM, ENOMEM,
                           "list images: out of memory");
    return;
  }
  l->number_of = number_of;
  snprintf(l->after, sizeof l->after, "%s", after);
  request_begin_job(s, id, REQUEST_OF_NO_IMAGE, NULL, &l->job);
}

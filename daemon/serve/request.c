#include "daemon/serve/request.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/serve/attach.h"
#include "daemon/serve/fetch_quota.h"
#include "daemon/serve/notices.h"
#include "daemon/serve/read.h"
#include "daemon/serve/reply.h"
#include "daemon/serve/subscription.h"
#include "proto/status.h"

enum {
  SMALL_LEN = 64 << 10,
  MAX_OVERTAKEN = 16, /* small ones, before a large one has its turn */
  /* With bytes of fetches, a batch this long is sent, so that the peer has
   * something to do while others are worked on.  So is one whose fetches have
   * a piece in all: their memory is not charged to anybody any more. */
  FETCHED_LEN = 24 << 10,
};

/* ---- Requests that wait -------------------------------------------------- */

static void request_link(struct request *r) {
  struct session *s = r->session;
  r->prev = NULL;
  r->next = s->requests;
  if (r->next)
    r->next->prev = r;
  s->requests = r;
  s->conn.n_requests++;
  s->n_held_ranges += r->plan.n_ranges;
  s->n_jobs += r->job != NULL;
  if (r->subscription)
    subscription_hold(r->subscription);
}

static void request_unlink(struct request *r) {
  struct session *s = r->session;
  *(r->prev ? &r->prev->next : &s->requests) = r->next;
  if (r->next)
    r->next->prev = r->prev;
  s->conn.n_requests--;
  s->n_held_ranges -= r->plan.n_ranges;
  s->n_jobs -= r->job != NULL;
  if (r->subscription)
    subscription_release(r->subscription);
  r->subscription = NULL;
}

/* Its memory, with its ranges. */
static size_t request_len(unsigned n_ranges) {
  return sizeof(struct request) + n_ranges * sizeof(struct range);
}

size_t request_held(const struct request *r) {
  return request_len(r->plan.n_ranges);
}

static void request_free(struct request *r) {
  fetch_quota_drop(r);
  net_thread_unhold(&r->service->net, request_held(r));
  if (r->session)
    request_unlink(r);
  if (r->job)
    r->job->free(r->job);
  if (r->image)
    service_images_unuse(r->image);
  free(r);
}

/* Puts a request, whose wait is over, among those of its session that go on
 * when the tasks of this turn have run (R5). */
static void request_end_wait(struct request *r) {
  struct session *s = r->session;
  r->state = REQUEST_ENDED;
  if (!s->ended.head)
    TAILQ_INSERT_TAIL(&r->service->ended, s, ending);
  request_queue_push(&s->ended, r);
}

/* Runs as the task of a request when the wait of the request is over. */
static void request_posted(struct task *task) {
  struct request *r = (struct request *)task; /* its first member */
  assert(r->state == REQUEST_WAITING && r->service->n_waiting > 0); /* V1 */
  if (r->fetch) {
    fetch_quota_ended(r);
  } else {
    r->state = REQUEST_ACTIVE;
    r->service->n_waiting--;
  }
  if (r->session)
    request_end_wait(r);
  else
    request_free(r);
}

static bool request_may_wait(const struct session *s, unsigned n_ranges) {
  const struct limits *limits = &s->service->context->limits;
  return s->conn.n_requests < limits->max_requests &&
         s->n_held_ranges + n_ranges <= limits->max_held_ranges;
}

/* Of an image, or of none. */
static void request_send_error(const struct request *r, int status,
                               int sys_errno, const char *text) {
  if (r->image)
    request_count(r, COUNTER_ERRORS, 1);
  connection_reply_error(request_conn(r), r->id, status, sys_errno, "%s", text);
}

/* Copies a request from the stack, with its ranges, so that it can wait.  NULL:
 * it cannot, and the peer was told why. */
static struct request *request_keep(const struct request *probe) {
  struct session *s = probe->session;
  if (!request_may_wait(s, probe->plan.n_ranges)) {
    request_send_error(probe, WIRE_E_INVAL, 0, "too many requests in flight");
    return NULL;
  }
  size_t len = request_len(probe->plan.n_ranges);
  struct request *r = NULL;
  if (net_thread_hold(&s->service->net, len) && !(r = malloc(len)))
    net_thread_unhold(&s->service->net, len);
  if (!r) {
    request_send_error(probe, WIRE_E_NOMEM, ENOMEM, "out of memory");
    return NULL;
  }
  *r = *probe;
  if (probe->plan.n_ranges)
    memcpy(r + 1, probe->plan.ranges, len - sizeof *r);
  r->plan.ranges = (const struct range *)(r + 1);
  r->task.run = request_posted;
  if (r->image)
    service_images_use(r->image);
  request_link(r);
  return r;
}

/* ---- Work ---------------------------------------------------------------- */

/* There is room for it. */
static void request_send_data(const struct request *r,
                              const struct read_answer *a) {
  struct send_batch *batch = &r->service->net.out;
  reply_data(request_conn(r), r->id, &a->data);
  for (unsigned i = 0; i < a->n_segments; i++)
    send_batch_payload(batch, a->segments[i].iov_base, a->segments[i].iov_len);
  if (image_reader_has_pins(request_reader(r)))
    send_batch_pinned(batch, request_reader(r));
  request_count(r, COUNTER_BYTES, a->data.len);
  if (r->fetch && a->n_segments)
    fetch_quota_lend(r, batch);
  if (batch->fetches &&
      (batch->len >= FETCHED_LEN ||
       batch->fetched_len >= r->service->context->limits.piece_len))
    connection_flush(request_conn(r));
}

static void request_send(struct request *r, const struct read_answer *a) {
  struct connection *c = request_conn(r);
  switch (a->kind) {
  case READ_NOTHING:
    break;
  case READ_DATA:
    request_send_data(r, a);
    break;
  case READ_FINISHED:
    reply_done(c, r->id, a->data.epoch);
    break;
  case READ_LEASE:
    if (!attach_lend(r->subscription, r->id, &r->wish))
      request_count(r, COUNTER_ERRORS, 1);
    connection_flush(c);
    break;
  case READ_REFUSED:
    request_send_error(r, a->status, a->sys_errno, a->text);
    break;
  }
  if (a->cost)
    connection_spend(c, a->cost);
  if (a->ends_fetch)
    fetch_quota_drop(r);
}

/* Before the first answer of an epoch. */
static void request_enter_epoch(struct request *r) {
  if (r->fetch && r->fetch->mirror != request_reader(r)->mirror)
    fetch_quota_restart(r);
  notices_announce(r->subscription);
}

/* How many bytes of what is left the next frame may have. */
static size_t request_frame_room(const struct request *r) {
  bool has_bytes = r->kind == REQUEST_READ || r->kind == REQUEST_READ_IN_PLACE;
  return has_bytes ? connection_frame_room(request_conn(r),
                                           read_plan_range_left(&r->plan))
                   : 0;
}

/* Works on a request as far as it can without waiting, and sends the results.
 * Returns STEP_DONE; STEP_MISS; or STEP_FULL if its connection is blocked or
 * has ended. */
static enum step request_work(struct request *r) {
  struct connection *c = request_conn(r);
  struct read_answer answer;
  enum step step = STEP_MORE;
  while (step != STEP_DONE && step != STEP_MISS) {
    if (!connection_has_room(c))
      return STEP_FULL;
    if (r->kind == REQUEST_OF_NO_IMAGE) {
      r->job->answer(r->job);
      return STEP_DONE;
    }
    step = read_step(r, request_frame_room(r), &answer);
    if (step == STEP_MORE || step == STEP_DONE)
      request_send(r, &answer);
    else if (step == STEP_NEW_EPOCH)
      request_enter_epoch(r);
    else if (step == STEP_FULL) {
      assert(r->service->net.out.len > 0); /* so the flush makes room */
      connection_flush(c);
    }
  }
  return step;
}

/* Puts a request into the state that follows from its last step. */
static void request_place(struct request *r, enum step step) {
  while (step == STEP_MISS) {
    fetch_quota_drop(r);
    if (fetch_quota_start(r))
      return;
    step = request_work(r);
  }
  if (step == STEP_DONE) {
    request_free(r);
    return;
  }
  fetch_quota_drop(r);
  r->state = REQUEST_RUNNABLE;
  if (r->plan.left <= SMALL_LEN)
    request_queue_push(&r->session->small, r);
  else if (r->is_begun)
    request_queue_push_front(&r->session->large, r);
  else
    request_queue_push(&r->session->large, r);
}

struct request *request_next(struct session *s) {
  bool overtakes = s->small.head && s->large.head;
  struct request *r = overtakes && s->n_overtaken == MAX_OVERTAKEN
                          ? NULL
                          : request_queue_pop(&s->small);
  s->n_overtaken = r && overtakes ? s->n_overtaken + 1 : 0;
  if (!r)
    r = request_queue_pop(&s->large);
  if (r)
    r->is_begun = true;
  return r;
}

void request_go_on(struct request *r) {
  r->state = REQUEST_ACTIVE;
  request_place(r, request_work(r));
}

void request_go_on_ended(struct service *service) {
  struct session *s;
  struct request *r;
  while ((s = TAILQ_FIRST(&service->ended))) {
    TAILQ_REMOVE(&service->ended, s, ending);
    while ((r = request_queue_pop(&s->ended)))
      request_go_on(r);
    connection_settle(&s->conn);
  }
}

void request_admit_throttled(struct service *service) {
  struct request *r;
  uint64_t round = ++service->quota.round;
  while ((r = fetch_quota_next(&service->quota, round))) {
    struct connection *c = request_conn(r);
    request_go_on(r);
    connection_settle(c);
  }
}

bool request_exists(const struct session *s, uint64_t id) {
  for (const struct request *r = s->requests; r; r = r->next)
    if (r->id == id)
      return true;
  return false;
}

void request_drop_all(struct session *s) {
  fetch_quota_unthrottle(s);
  if (s->ended.head)
    TAILQ_REMOVE(&s->service->ended, s, ending);
  for (struct request *r = s->requests, *next; r; r = next) {
    next = r->next;
    if (r->state != REQUEST_WAITING) {
      request_free(r);
      continue;
    }
    if (r->fetch)
      fetch_quota_orphan(r);
    if (r->job && r->job->abandon)
      r->job->abandon(r->job);
    request_unlink(r);
    r->session = NULL;
  }
  request_queue_init(&s->small);
  request_queue_init(&s->large);
  request_queue_init(&s->ended);
  assert(s->conn.n_requests == 0 && s->n_jobs == 0 && s->fetching == 0);
}

/* ---- Beginnings ---------------------------------------------------------- */

/* Takes the ranges out of the message.  False: they are not allowed, and the
 * peer was told why. */
static bool take_ranges(struct session *s, struct request *probe,
                        size_t n_ranges, Cachet__Wire__Range *const *ranges) {
  const struct limits *limits = &s->service->context->limits;
  struct range *list = s->service->ranges;
  uint64_t len = 0;
  if (n_ranges > limits->max_ranges) {
    connection_reply_error(&s->conn, probe->id, WIRE_E_INVAL, 0,
                           "%zu ranges in one request, at most %u are allowed",
                           n_ranges, limits->max_ranges);
    return false;
  }
  for (size_t i = 0; i < n_ranges; i++) {
    list[i] = (struct range){ranges[i]->offset, ranges[i]->length};
    if (list[i].length > limits->max_read - len) {
      connection_reply_error(&s->conn, probe->id, WIRE_E_INVAL, 0,
                             "one request may ask for %llu bytes, not for more",
                             (unsigned long long)limits->max_read);
      return false;
    }
    len += list[i].length;
  }
  probe->plan = read_plan_of(list, (unsigned)n_ranges);
  return true;
}

static struct request request_of(struct session *s, uint64_t id,
                                 enum request_kind kind,
                                 struct subscription *sub) {
  struct request r = {.service = s->service,
                      .session = s,
                      .id = id,
                      .kind = kind,
                      .image = sub ? sub->image : NULL,
                      .subscription = sub};
  if (sub)
    request_count(&r, COUNTER_REQUESTS, 1);
  return r;
}

struct subscription *request_find_subscription(struct session *s, uint64_t id,
                                               uint32_t image_id) {
  struct subscription *sub = subscription_find(s, image_id);
  if (!sub)
    connection_reply_error(&s->conn, id, WIRE_E_NOIMAGE, 0,
                           "image number %u: this connection did not open it",
                           image_id);
  return sub;
}

/* Works on a request that is on the stack.  Most end at once.  One that does
 * not is copied, and waits. */
static void request_launch(struct request *probe) {
  enum step step = request_work(probe);
  if (step == STEP_DONE)
    return;
  struct request *r = request_keep(probe);
  if (r)
    request_place(r, step);
}

void request_begin(struct session *s, uint64_t id, enum request_kind kind,
                   uint32_t image_id, uint64_t epoch, size_t n_ranges,
                   Cachet__Wire__Range *const *ranges) {
  struct subscription *sub = request_find_subscription(s, id, image_id);
  if (!sub)
    return;
  if (kind == REQUEST_READ_IN_PLACE && !sub->attached)
    kind = REQUEST_READ;
  else if (kind == REQUEST_READ)
    subscription_detach(sub);
  struct request probe = request_of(s, id, kind, sub);
  probe.epoch = epoch;
  if (!take_ranges(s, &probe, n_ranges, ranges)) {
    request_count(&probe, COUNTER_ERRORS, 1);
    return;
  }
  request_launch(&probe);
}

void request_begin_attach(struct session *s, uint64_t id,
                          const Cachet__Wire__Attach *attach) {
  struct subscription *sub = request_find_subscription(s, id, attach->image);
  if (!sub)
    return;
  struct request probe = request_of(s, id, REQUEST_ATTACH, sub);
  probe.wish = (struct attachment_wish){
      .replaces = attach->replaces,
      .size = {attach->page_slots, attach->range_capacity}};
  request_launch(&probe);
}

void request_begin_job(struct session *s, uint64_t id, enum request_kind kind,
                       struct subscription *sub, struct request_job *job) {
  struct request probe = request_of(s, id, kind, sub);
  struct request *r = NULL;
  probe.job = job;
  if (s->n_jobs < s->service->context->limits.max_conn_jobs)
    r = request_keep(&probe);
  else
    request_send_error(&probe, WIRE_E_BUSY, 0,
                       "too many requests that take long are under way");
  if (!r) {
    job->free(job);
    return;
  }
  job->request = r;
  r->service->n_waiting++;
  /* Before the job starts: its thread may post the request back at once. */
  r->state = REQUEST_WAITING;
  job->start(job);
}

void request_refuse(struct session *s, uint64_t id, struct subscription *sub,
                    int status, const char *what) {
  struct request probe = request_of(s, id, REQUEST_INVALIDATE, sub);
  char text[256];
  snprintf(text, sizeof text, "image \"%s\": %s",
           sub->image->reader.served->name, what);
  request_send_error(&probe, status, 0, text);
}

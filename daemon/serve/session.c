#include "daemon/serve/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "daemon/log.h"
#include "daemon/missing.h"
#include "daemon/serve/access.h"
#include "daemon/serve/attach.h"
#include "daemon/serve/change.h"
#include "daemon/serve/check.h"
#include "daemon/serve/find.h"
#include "daemon/serve/invalidation.h"
#include "daemon/serve/notices.h"
#include "daemon/serve/reply.h"
#include "daemon/serve/request.h"
#include "daemon/serve/subscription.h"
#include "proto/status.h"

/* ---- Hello, Open, List, GetStats ----------------------------------------- */

static void session_hello(struct session *s, uint64_t id,
                          const Cachet__Wire__Hello *hello) {
  if (hello->version_min > PROTO_VERSION ||
      hello->version_max < PROTO_VERSION) {
    connection_fail(&s->conn, id, WIRE_E_PROTO,
                    "versions %u to %u of the protocol: this daemon speaks %d",
                    hello->version_min, hello->version_max, PROTO_VERSION);
    return;
  }
  /* Before the answer: to make room for it may send, which may find that the
   * connection is lost.  CLOSED must not become OPEN after that. */
  connection_move(&s->conn, CONNECTION_OPEN);
  reply_welcome(&s->conn, id, s->service->context);
  char agent[65];
  strncpy(agent, hello->agent, sizeof agent - 1);
  agent[sizeof agent - 1] = '\0';
  log_peer_event(LEVEL_DEBUG, "hello", LOG_NUMBER("conn", s->conn.serial),
                 LOG_TEXT("agent", agent));
}

/* The only image that the peer may read.  The caller calls images_unref().
 * NULL: there is no such image, and the peer was told why. */
static struct served_image *only_image(struct session *s, uint64_t id) {
  struct images *images = &s->service->context->images;
  const struct peer *peer = &s->conn.peer;
  bool finds = find_is_possible(s);
  struct served_image *h = finds ? NULL : images_only(images, peer);
  if (finds)
    connection_reply_error(&s->conn, id, WIRE_E_NOIMAGE, 0,
                           "no image is named, and those of a directory are "
                           "served");
  else if (!h)
    connection_reply_error(&s->conn, id, WIRE_E_NOIMAGE, 0,
                           "no image is named, and %u are served",
                           images_count(images, peer));
  return h;
}

/* False: it cannot be opened, and the peer was told why. */
static bool check_is_there(struct session *s, uint64_t id,
                           struct served_image *h) {
  int missing = atomic_load_explicit(&h->missing, memory_order_relaxed);
  if (!missing)
    return true;
  char path[129];
  images_print_path(h, path, sizeof path);
  bool is_gone = missing == ENOENT || missing == ENOTDIR;
  connection_reply_error(&s->conn, id, is_gone ? WIRE_E_NOIMAGE : WIRE_E_IO,
                         missing, "image \"%s\": open %s: %s", h->name, path,
                         missing_reason(missing));
  return false;
}

static void reply_to_open(struct session *s, uint64_t id,
                          struct subscription *sub) {
  const struct image_reader *l = &sub->image->reader;
  subscription_detach(sub);
  if (sub->epoch)
    notices_announce(sub); /* not the first Open */
  sub->epoch = l->mirror->epoch;
  reply_opened(&s->conn, id, sub->number, l->served, l->mirror);
}

/* A subscription to the image, which its reader looks at.  NULL: no memory. */
static struct subscription *subscribe(struct session *s,
                                      struct served_image *h) {
  struct subscription *known = subscription_find_image(s, h);
  struct service_image *si = service_images_get(&s->service->images, h);
  struct subscription *sub = si ? subscription_add(s, si) : NULL;
  if (!sub || image_reader_is_current(&si->reader))
    return sub;
  connection_flush(&s->conn); /* the output holds pins of the reader */
  if (image_reader_open(&si->reader) == 0)
    return sub;
  if (!known)
    subscription_end(sub);
  return NULL;
}

/* False: the daemon takes no new clients, and the peer was told so. */
static bool check_takes_clients(struct session *s, uint64_t id) {
  if (!drain_is_on(&s->service->context->drain) ||
      !LIST_EMPTY(&s->subscriptions))
    return true;
  connection_reply_error(&s->conn, id, WIRE_E_BUSY, 0,
                         "the daemon is draining: it takes no new clients");
  return false;
}

/* Opens an image after it was found.  The search may have taken a while, so
 * this checks again what may have changed. */
static void open_image(struct session *s, uint64_t id, struct served_image *h) {
  if (!check_takes_clients(s, id) || !check_is_there(s, id, h))
    return;
  struct subscription *sub = subscribe(s, h);
  if (sub)
    reply_to_open(s, id, sub);
  else
    connection_reply_error(&s->conn, id, WIRE_E_NOMEM, 0,
                           "image \"%s\": no memory", h->name);
}

/* Refuses a name that does not exist, or that this peer may not read.  Neither
 * the words nor the time of the answer show which. */
static void refuse_name(struct session *s, uint64_t id, const char *name,
                        uint64_t began) {
  access_hide_lookup(began);
  connection_spend(&s->conn, ACCESS_HIDE_COST);
  find_refuse(s, id, name);
}

static void session_open(struct session *s, uint64_t id,
                         const Cachet__Wire__Open *open) {
  struct images *images = &s->service->context->images;
  const char *name = open->image;
  uint64_t began = clock_now_ns();
  if (!check_takes_clients(s, id))
    return;
  struct served_image *h =
      *name ? images_find(images, &s->conn.peer, name) : only_image(s, id);
  if (h)
    open_image(s, id, h);
  else if (*name && find_is_possible(s))
    find_image(s, id, name, open_image);
  else if (*name)
    refuse_name(s, id, name, began);
  images_unref(h);
}

static void session_drain(struct session *s, uint64_t id, int timeout_ms) {
  struct server_context *context = s->service->context;
  if (!access_may_administer(context, &s->conn)) {
    connection_reply_error(&s->conn, id, WIRE_E_ACCESS, 0,
                           "drain: only for root, the daemon's user and peers "
                           "that [admin] allows");
    return;
  }
  log_peer_event(LEVEL_INFO, "drain-asked", LOG_NUMBER("conn", s->conn.serial));
  context->drain.asked(context->drain.arg, timeout_ms);
  reply_done(&s->conn, id, 0);
}

static uint32_t number_of(struct connection *c, const struct served_image *h) {
  const struct subscription *sub = subscription_find_image(session_of(c), h);
  return sub ? sub->number : 0;
}

static void session_list(struct session *s, uint64_t id, const char *after) {
  struct server_context *context = s->service->context;
  if (find_is_possible(s))
    find_list(s, id, after, number_of);
  else
    reply_images(
        &s->conn, id, &context->images,
        &(struct reply_listing){.after = after, .number_of = number_of});
}

/* ---- Messages ------------------------------------------------------------ */

static void session_request(struct session *s, const wire_message *msg) {
  switch (msg->body_case) {
  case CACHET__WIRE__MESSAGE__BODY_OPEN:
    session_open(s, msg->id, msg->open);
    break;
  case CACHET__WIRE__MESSAGE__BODY_READ:
    request_begin(s, msg->id,
                  msg->read->in_place ? REQUEST_READ_IN_PLACE : REQUEST_READ,
                  msg->read->image, msg->read->epoch, msg->read->n_ranges,
                  msg->read->ranges);
    break;
  case CACHET__WIRE__MESSAGE__BODY_ATTACH:
    request_begin_attach(s, msg->id, msg->attach);
    break;
  case CACHET__WIRE__MESSAGE__BODY_GROW:
    attach_grow(s, msg->id, msg->grow);
    break;
  case CACHET__WIRE__MESSAGE__BODY_WARM:
    request_begin(s, msg->id, REQUEST_WARM, msg->warm->image, 0,
                  msg->warm->n_ranges, msg->warm->ranges);
    break;
  case CACHET__WIRE__MESSAGE__BODY_INVALIDATE:
    invalidation_begin(s, msg->id, msg->invalidate);
    break;
  case CACHET__WIRE__MESSAGE__BODY_ADD:
    change_begin_add(s, msg->id, msg->add);
    break;
  case CACHET__WIRE__MESSAGE__BODY_REMOVE:
    change_begin_remove(s, msg->id, msg->remove);
    break;
  case CACHET__WIRE__MESSAGE__BODY_LIST:
    session_list(s, msg->id, msg->list->after);
    break;
  case CACHET__WIRE__MESSAGE__BODY_GET_STATS:
    reply_stats(&s->conn, msg->id, s->service->context, msg->get_stats->after);
    break;
  case CACHET__WIRE__MESSAGE__BODY_DRAIN:
    session_drain(s, msg->id, msg->drain->timeout_ms);
    break;
  default:
    connection_fail(&s->conn, msg->id, WIRE_E_PROTO, "message %d is no request",
                    (int)msg->body_case);
  }
}

static void session_message(struct connection *c, const wire_message *msg) {
  struct session *s = session_of(c);
  bool is_hello = msg->body_case == CACHET__WIRE__MESSAGE__BODY_HELLO;
  if (msg->id == 0)
    connection_fail(c, 0, WIRE_E_PROTO, "a request has the id 0");
  else if (is_hello != (c->state == CONNECTION_HANDSHAKE))
    connection_fail(c, msg->id, WIRE_E_PROTO,
                    is_hello ? "a second Hello"
                             : "the first message is no Hello");
  else if (request_exists(s, msg->id))
    connection_fail(c, msg->id, WIRE_E_PROTO,
                    "request id %llu is in flight already",
                    (unsigned long long)msg->id);
  else if (is_hello)
    session_hello(s, msg->id, msg->hello);
  else
    session_request(s, msg);
}

/* ---- Its connection ------------------------------------------------------ */

/* Notices come before requests: a client must not wait for a notice because it
 * reads much. */
static void session_writable(struct connection *c) {
  struct session *s = session_of(c);
  notices_push(s);
  struct request *r;
  while (connection_may_send(c) && (r = request_next(s)))
    request_go_on(r);
}

static void session_delivered(struct connection *c) {
  session_of(c)->unsent_notice = 0;
}

/* `sending` is NULL if the attachment has ended while its descriptors
 * waited. */
static void session_fds_sent(struct connection *c, bool sent) {
  struct session *s = session_of(c);
  if (s->sending && sent)
    attachment_sent(s->sending);
  else if (s->sending)
    attachment_cancel(s->sending);
}

static void session_turn_ended(struct connection *c) {
  struct session *s = session_of(c);
  if (c->state == CONNECTION_DRAINING)
    request_drop_all(s);
  notices_turn_ended(s);
  check_service_quietly(s->service);
}

/* Requests and notices refer to subscriptions, so the subscriptions end
 * last. */
static void session_closed(struct connection *c) {
  struct session *s = session_of(c);
  request_drop_all(s);
  notices_session_closed(s);
  /* A client that closes in order has said before that it is done. */
  attachment_session_closed(s);
  subscription_end_all(s);
}

static void session_release(struct connection *c) { free(session_of(c)); }

static const struct connection_owner session_owner = {
    .message = session_message,
    .writable = session_writable,
    .delivered = session_delivered,
    .fds_sent = session_fds_sent,
    .turn_ended = session_turn_ended,
    .closed = session_closed,
    .release = session_release,
};

struct session *session_new(struct service *service, struct listener *listener,
                            int fd, uint64_t serial, uint64_t user) {
  struct session *s = calloc(1, sizeof *s);
  if (!s)
    return NULL;
  s->service = service;
  request_queue_init(&s->small);
  request_queue_init(&s->large);
  request_queue_init(&s->ended);
  connection_init(&s->conn, &service->net, &session_owner, listener, fd, serial,
                  user);
  return s;
}

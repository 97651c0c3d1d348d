#include "daemon/serve/session.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/missing.h"
#include "daemon/serve/invalidation.h"
#include "daemon/serve/request.h"
#include "daemon/stats.h"
#include "proto/status.h"

enum {
  /* What an Attach is worth, in bytes sent: memory is made and mapped. */
  ATTACH_COST = 128 << 10,
  /* And a Grow: a few sums under locks that others take. */
  GROW_COST = 4 << 10,
  /* What the kernel shows for ids of other user namespaces: anybody's. */
  OVERFLOW_ID = 65534,
};

_Static_assert((int)ATTACHMENT_N_FDS == (int)CONNECTION_N_FDS,
               "an attachment's descriptors go with one frame");

/* An image is known on the wire by its index, but never as 0. */
static uint32_t wire_image_id(unsigned image) { return image + 1; }

struct opened *session_opened_image(struct session *s, unsigned image) {
  for (unsigned i = 0; i < s->n_opened; i++)
    if (s->opened[i].image == image)
      return &s->opened[i];
  return NULL;
}

struct opened *session_opened(struct session *s, uint32_t image_id) {
  return session_opened_image(s, image_id - 1);
}

static void fill_info(Cachet__Wire__ImageInfo *info,
                      const struct served_image *h, const struct mirror *m,
                      bool opened) {
  cachet__wire__image_info__init(info);
  info->image = opened ? wire_image_id(h->index) : 0;
  info->name = h->name;
  info->size = m->size;
  info->page_size = (uint32_t)mirror_page_size(m);
  info->epoch = m->epoch;
  info->missing = atomic_load_explicit(&h->missing, memory_order_relaxed) != 0;
}

/* ---- Notices ------------------------------------------------------------- */

/* Adds a notice; a piece of data may be pinned in the output already, so there
 * must be room without a flush: see piece_make_room(). */
static void put_notice(struct session *s, wire_message *msg) {
  assert(frame_packed_len(msg) <= OUTPUT_SMALL_LEN);
  connection_reply(&s->conn, msg);
}

static void tell_epoch(struct session *s, struct opened *o,
                       const struct image_reader *l) {
  Cachet__Wire__ImageInfo info;
  Cachet__Wire__Changed changed = CACHET__WIRE__CHANGED__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  if (o->attached || o->epoch == l->mirror->epoch)
    return;
  o->epoch = l->mirror->epoch;
  fill_info(&info, l->served, l->mirror, true);
  changed.info = &info;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_CHANGED;
  msg.changed = &changed;
  put_notice(s, &msg);
}

static void tell_stale(struct session *s, struct opened *o) {
  Cachet__Wire__Range range = CACHET__WIRE__RANGE__INIT;
  Cachet__Wire__Range *ranges = &range;
  Cachet__Wire__Invalidated invalidated = CACHET__WIRE__INVALIDATED__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  if (!o->stale)
    return;
  if (!s->unsent_notice || o->stale < s->unsent_notice)
    s->unsent_notice = o->stale;
  o->stale = 0;
  range.offset = o->stale_from;
  range.length = o->stale_to - o->stale_from;
  invalidated.image = wire_image_id(o->image);
  invalidated.n_ranges = 1;
  invalidated.ranges = &ranges;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_INVALIDATED;
  msg.invalidated = &invalidated;
  put_notice(s, &msg);
}

void session_announce(struct session *s, const struct image_reader *l) {
  struct opened *o = session_opened(s, wire_image_id(l->served->index));
  assert(o);
  tell_epoch(s, o, l);
}

void session_push_notices(struct session *s) {
  struct service *service = s->service;
  for (unsigned i = 0; i < s->n_opened && connection_may_send(&s->conn); i++) {
    struct opened *o = &s->opened[i];
    struct image_reader *l = &service->readers[o->image];
    if (o->attached)
      continue;
    tell_stale(s, o);
    if (!image_reader_is_current(l)) {
      connection_flush(&s->conn); /* its pins must be gone */
      if (!connection_may_send(&s->conn) || image_reader_open(l) < 0)
        continue;
    }
    tell_epoch(s, o, l);
  }
}

void session_invalidated(struct session *s, unsigned image, uint64_t from,
                         uint64_t to, uint64_t serial) {
  struct opened *o = session_opened(s, wire_image_id(image));
  if (!o || o->attached)
    return;
  o->stale_from = o->stale && o->stale_from < from ? o->stale_from : from;
  o->stale_to = o->stale && o->stale_to > to ? o->stale_to : to;
  if (!o->stale)
    o->stale = serial;
  if (connection_may_send(&s->conn))
    session_push_notices(s);
}

/* The oldest notice that is not wholly in the peer's socket; 0: none.  One that
 * was told of its end needs no notices. */
static uint64_t session_oldest_owed(const struct session *s) {
  uint64_t oldest = s->unsent_notice;
  if (s->conn.lingering)
    return 0;
  for (unsigned i = 0; i < s->n_opened; i++) {
    const struct opened *o = &s->opened[i];
    if (o->stale && (!oldest || o->stale < oldest))
      oldest = o->stale;
  }
  return oldest;
}

/* ---- Attach -------------------------------------------------------------- */

static void put_attached(struct session *s, uint64_t id,
                         const struct image_reader *l,
                         const struct attachment_grant *grant) {
  Cachet__Wire__ImageInfo info;
  Cachet__Wire__Attached attached = CACHET__WIRE__ATTACHED__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  fill_info(&info, l->served, l->mirror, true);
  attached.info = &info;
  attached.layout = MIRROR_LAYOUT;
  attached.table = grant->table;
  attached.page_slots = grant->size.page_slots;
  attached.range_capacity = grant->size.range_capacity;
  attached.read_ahead = grant->read_ahead;
  msg.id = id;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_ATTACHED;
  msg.attached = &attached;
  connection_reply(&s->conn, &msg);
}

void session_detach(struct opened *o) {
  if (o->attached)
    o->epoch = 0;
  o->attached = false;
}

/* Gives the lease, and sends it.  0 or a negative errno: nothing was sent. */
static int lend_mirror(struct session *s, uint64_t id,
                       const struct image_reader *l,
                       const struct attachment_wish *wish) {
  struct attachment *a;
  struct attachment_grant grant;
  if (!l->served->share || !listener_is_local(s->conn.listener))
    return -EOPNOTSUPP;
  int r = attachment_new(s, l->mirror, wish, &a, &grant);
  if (r < 0)
    return r;
  put_attached(s, id, l, &grant);
  s->sending = a;
  return connection_flush_fds(&s->conn, grant.fds) ? 0 : -ETOOMANYREFS;
}

static const char *attach_story(int r) {
  if (r == -EDQUOT)
    return "no share of the cache is left";
  return r == -EAGAIN ? "there is no room for a pin table now" : strerror(-r);
}

void session_attach(struct session *s, uint64_t id, struct image_reader *l,
                    const struct attachment_wish *wish) {
  struct opened *o = session_opened(s, wire_image_id(l->served->index));
  connection_spend(&s->conn, ATTACH_COST);
  int r = lend_mirror(s, id, l, wish);
  if (r == 0) {
    o->attached = true;
    o->stale = 0;
    return;
  }
  session_detach(o);
  session_announce(s, l);
  connection_reply_error(
      &s->conn, id, r == -ENOMEM ? WIRE_E_NOMEM : WIRE_E_UNSUPPORTED, -r,
      "image \"%s\": attach: %s", l->served->name, attach_story(r));
}

static void session_grow(struct session *s, uint64_t id,
                         const Cachet__Wire__Grow *grow) {
  Cachet__Wire__Grown grown = CACHET__WIRE__GROWN__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  struct shared_pins_size size = {grow->page_slots, grow->range_capacity};
  connection_spend(&s->conn, GROW_COST);
  int r = attachment_grow(s, grow->table, &size);
  if (r < 0) {
    connection_reply_error(&s->conn, id, WIRE_E_INVAL, -r,
                           "grow: this process has no such table");
    return;
  }
  grown.page_slots = size.page_slots;
  grown.range_capacity = size.range_capacity;
  msg.id = id;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_GROWN;
  msg.grown = &grown;
  connection_reply(&s->conn, &msg);
}

/* ---- Permission ---------------------------------------------------------- */

/* Whether one of the peer's supplementary groups is `group`. */
static bool peer_is_in_group(int fd, gid_t group) {
  socklen_t len = 0;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &len) == 0 || len == 0)
    return false; /* it has none */
  gid_t *groups = malloc(len);
  if (!groups)
    return false;
  bool found = false;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) == 0)
    for (size_t i = 0; i < len / sizeof *groups && !found; i++)
      found = groups[i] == group;
  free(groups);
  return found;
}

bool session_may_invalidate(const struct session *s) {
  struct ucred peer;
  socklen_t len = sizeof peer;
  gid_t group;
  if (!listener_is_local(s->conn.listener) ||
      getsockopt(s->conn.fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
    return false;
  if (peer.uid == 0 || (peer.uid == geteuid() && peer.uid != OVERFLOW_ID))
    return true;
  if (!listener_group(s->conn.listener, &group) || group == OVERFLOW_ID)
    return false;
  return peer.gid == group || peer_is_in_group(s->conn.fd, group);
}

/* ---- Hello, Open, List, GetStats ----------------------------------------- */

static void session_hello(struct session *s, uint64_t id,
                          const Cachet__Wire__Hello *hello) {
  const struct server_context *context = s->service->context;
  const struct limits *limits = &context->limits;
  if (hello->version_min > PROTO_VERSION ||
      hello->version_max < PROTO_VERSION) {
    connection_fail(&s->conn, id, WIRE_E_PROTO,
                    "versions %u to %u of the protocol: this daemon speaks %d",
                    hello->version_min, hello->version_max, PROTO_VERSION);
    return;
  }
  Cachet__Wire__Welcome welcome = CACHET__WIRE__WELCOME__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  uint32_t page_size = 1u << image_page_shift(context->images.list[0].image);
  welcome.version = PROTO_VERSION;
  welcome.max_message = limits->max_message;
  welcome.max_payload =
      limits->piece_len > page_size ? limits->piece_len : page_size;
  welcome.max_ranges = limits->max_ranges;
  welcome.max_read = limits->max_read;
  welcome.max_requests = limits->max_requests;
  welcome.share = context->share && listener_is_local(s->conn.listener);
  welcome.agent = (char *)"cachetd";
  msg.id = id;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_WELCOME;
  msg.welcome = &welcome;
  connection_reply(&s->conn, &msg);
  connection_move(&s->conn, CONNECTION_OPEN);
  char agent[65];
  strncpy(agent, hello->agent, sizeof agent - 1);
  agent[sizeof agent - 1] = '\0';
  log_peer_event(LEVEL_DEBUG, "hello", LOG_NUMBER("conn", s->conn.serial),
                 LOG_TEXT("agent", agent));
}

/* The image of a name, or the only one if the name is empty. */
static struct served_image *find_image(struct session *s, uint64_t id,
                                       const char *name) {
  const struct images *images = &s->service->context->images;
  struct served_image *h =
      !*name && images->n == 1 ? &images->list[0] : images_find(images, name);
  if (h)
    return h;
  if (*name)
    connection_reply_error(&s->conn, id, WIRE_E_NOIMAGE, 0,
                           "image \"%.64s\": not served", name);
  else
    connection_reply_error(&s->conn, id, WIRE_E_NOIMAGE, 0,
                           "no image is named, and %u are served", images->n);
  return NULL;
}

static struct opened *remember_opened(struct session *s, unsigned image) {
  struct opened *o = session_opened(s, wire_image_id(image));
  if (o)
    return o;
  if (!net_thread_hold(&s->service->net, sizeof *s->opened))
    return NULL;
  struct opened *grown =
      realloc(s->opened, (s->n_opened + 1) * sizeof *s->opened);
  if (!grown) {
    net_thread_unhold(&s->service->net, sizeof *s->opened);
    return NULL;
  }
  s->opened = grown;
  o = &grown[s->n_opened++];
  *o = (struct opened){.image = image};
  return o;
}

/* False: it cannot be opened, and the peer was told why. */
static bool check_is_there(struct session *s, uint64_t id,
                           const struct served_image *h) {
  int missing = atomic_load_explicit(&h->missing, memory_order_relaxed);
  if (!missing)
    return true;
  bool is_gone = missing == ENOENT || missing == ENOTDIR;
  connection_reply_error(&s->conn, id, is_gone ? WIRE_E_NOIMAGE : WIRE_E_IO,
                         missing, "image \"%s\": open %.128s: %s", h->name,
                         h->path ? h->path : "its source",
                         missing_reason(missing));
  return false;
}

static void session_open(struct session *s, uint64_t id,
                         const Cachet__Wire__Open *open) {
  struct served_image *h = find_image(s, id, open->image);
  if (!h || !check_is_there(s, id, h))
    return;
  struct image_reader *l = &s->service->readers[h->index];
  if (!image_reader_is_current(l)) {
    connection_flush(&s->conn);
    if (image_reader_open(l) < 0) {
      connection_reply_error(&s->conn, id, WIRE_E_NOMEM, 0,
                             "image \"%s\": no memory", h->name);
      return;
    }
  }
  struct opened *o = remember_opened(s, h->index);
  if (!o) {
    connection_reply_error(&s->conn, id, WIRE_E_NOMEM, 0,
                           "image \"%s\": no memory", h->name);
    return;
  }
  Cachet__Wire__ImageInfo info;
  Cachet__Wire__Opened opened = CACHET__WIRE__OPENED__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  session_detach(o);
  if (o->epoch)
    tell_epoch(s, o, l); /* not the first Open: S1 */
  o->epoch = l->mirror->epoch;
  fill_info(&info, h, l->mirror, true);
  opened.info = &info;
  msg.id = id;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_OPENED;
  msg.opened = &opened;
  connection_reply(&s->conn, &msg);
}

static void session_list(struct session *s, uint64_t id) {
  const struct server_context *context = s->service->context;
  Cachet__Wire__ImageInfo *list = calloc(context->images.n, sizeof *list);
  Cachet__Wire__ImageInfo **pointers =
      calloc(context->images.n, sizeof(Cachet__Wire__ImageInfo *));
  if (!list || !pointers) {
    connection_reply_error(&s->conn, id, WIRE_E_NOMEM, 0,
                           "list: out of memory");
  } else {
    for (unsigned i = 0; i < context->images.n; i++) {
      struct served_image *h = &context->images.list[i];
      struct mirror *m = image_mirror(h->image);
      fill_info(&list[i], h, m, session_opened(s, wire_image_id(i)));
      mirror_unref(m);
      pointers[i] = &list[i];
    }
    Cachet__Wire__Images images = CACHET__WIRE__IMAGES__INIT;
    wire_message msg = CACHET__WIRE__MESSAGE__INIT;
    images.n_images = context->images.n;
    images.images = pointers;
    msg.id = id;
    msg.body_case = CACHET__WIRE__MESSAGE__BODY_IMAGES;
    msg.images = &images;
    connection_reply(&s->conn, &msg);
  }
  free(list);
  free(pointers);
}

static void session_stats(struct session *s, uint64_t id) {
  Cachet__Wire__Stats *stats = stats_collect(s->service->context);
  if (!stats) {
    connection_reply_error(&s->conn, id, WIRE_E_NOMEM, 0,
                           "stats: out of memory");
    return;
  }
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  msg.id = id;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_STATS;
  msg.stats = stats;
  connection_reply(&s->conn, &msg); /* packs it: nothing is kept */
  free(stats);
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
    session_grow(s, msg->id, msg->grow);
    break;
  case CACHET__WIRE__MESSAGE__BODY_WARM:
    request_begin(s, msg->id, REQUEST_WARM, msg->warm->image, 0,
                  msg->warm->n_ranges, msg->warm->ranges);
    break;
  case CACHET__WIRE__MESSAGE__BODY_INVALIDATE:
    request_begin_invalidate(s, msg->id, msg->invalidate->image,
                             msg->invalidate->range);
    break;
  case CACHET__WIRE__MESSAGE__BODY_LIST:
    session_list(s, msg->id);
    break;
  case CACHET__WIRE__MESSAGE__BODY_GET_STATS:
    session_stats(s, msg->id);
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

/* First the notices, then the requests that are ready. */
static void session_writable(struct connection *c) {
  struct session *s = session_of(c);
  session_push_notices(s);
  while (connection_may_send(c) && s->runnable.head)
    request_go_on(request_queue_pop(&s->runnable));
}

static void session_delivered(struct connection *c) {
  session_of(c)->unsent_notice = 0;
}

/* `sending` is NULL if the attachment has ended meanwhile. */
static void session_fds_sent(struct connection *c, bool sent) {
  struct session *s = session_of(c);
  if (s->sending && sent)
    attachment_sent(s->sending);
  else if (s->sending)
    attachment_cancel(s->sending);
}

/* Has invalidations look again that wait for notices of this session, if some
 * of those have been delivered. */
static void session_turn_ended(struct connection *c) {
  struct session *s = session_of(c);
  if (c->state == CONNECTION_DRAINING)
    request_drop_all(s);
  uint64_t oldest = session_oldest_owed(s);
  if (s->oldest_owed && oldest != s->oldest_owed)
    notices_recheck(s->service);
  s->oldest_owed = oldest;
}

static void session_closed(struct connection *c) {
  struct session *s = session_of(c);
  request_drop_all(s);
  if (s->oldest_owed)
    notices_recheck(s->service);
  /* A client that closes in good order is done with what it had attached. */
  attachment_session_closed(s);
  net_thread_unhold(c->net, s->n_opened * sizeof *s->opened);
  free(s->opened);
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

struct session *session_new(struct service *service,
                            const struct listener *listener, int fd,
                            uint64_t serial, uint64_t user) {
  struct session *s = calloc(1, sizeof *s);
  if (!s)
    return NULL;
  s->service = service;
  request_queue_init(&s->runnable);
  connection_init(&s->conn, &service->net, &session_owner, listener, fd, serial,
                  user);
  return s;
}

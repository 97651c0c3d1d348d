#include "source/parent_link.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>

#include "base/deadline.h"
#include "cache/source.h"
#include "proto/frame.h"
#include "source/parent_dial.h"
#include "source/reactor.h"

/* A Read that was sent.  It exists until its answer has come or the connection
 * is lost, even if no read waits for it any more. */
struct parent_ask {
  struct parent_read *read; /* NULL: it is forgotten */
  uint64_t id, epoch;
  uint64_t at, end; /* bytes of the image that are to come */
  bool has_begun;
  int64_t asked_at;
  uint64_t n_heard; /* the link's, when it was asked */
  TAILQ_ENTRY(parent_ask) entry;
};

/* ---- What failures mean -------------------------------------------------- */

static int meaning_of(enum cachet_status code, int sys_errno) {
  switch (code) {
  case CACHET_E_NOMEM:
  case CACHET_E_BUSY:
    return -EAGAIN;
  case CACHET_E_NOIMAGE:
    return -ENOENT;
  case CACHET_E_ACCESS:
    return -EACCES;
  case CACHET_E_TIMEOUT:
    return -ETIMEDOUT;
  case CACHET_E_CANCELED:
    return -ECONNRESET;
  case CACHET_E_CHANGED:
    return -ESTALE;
  case CACHET_E_IO: /* of a range, or of the parent's own source? */
    return source_is_whole(-sys_errno) ? -EREMOTEIO : -EIO;
  case CACHET_E_BOUNDS: /* the size has changed; a notice of that will follow */
    return -EIO;
  case CACHET_E_INVAL:
  case CACHET_E_UNSUPPORTED: /* certificates, and TLS, of our own */
    return -EINVAL;
  case CACHET_E_CONN:
    if (sys_errno == ENOENT) /* the path of a socket */
      return -ECONNREFUSED;
    return sys_errno ? -sys_errno : -EHOSTUNREACH;
  default:
    return -EPROTO;
  }
}

static int meaning_of_loss(enum connection_loss loss,
                           const struct cachet_error *why) {
  if (loss == CONNECTION_LOST_CUT)
    return -ECONNRESET;
  if (why->code == CACHET_E_CONN && why->sys_errno == 0)
    return -EPROTO; /* it does not speak TLS */
  return meaning_of(why->code, why->sys_errno);
}

static void set_fault(struct parent_link *l, int status,
                      const struct cachet_error *why) {
  l->status = status;
  snprintf(l->fault.text, sizeof l->fault.text, "%s", why->message);
}

/* ---- Events -------------------------------------------------------------- */

static void turn(struct parent_link *l);

static void on_event(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  turn(arg);
}

static void watch_fd(struct parent_link *l, int fd, short events) {
  if (fd == l->fd && events == l->events)
    return;
  if (l->fd >= 0)
    event_del(&l->socket);
  l->fd = fd;
  l->events = events;
  if (fd < 0)
    return;
  short what = (short)(EV_PERSIST | (events & POLLIN ? EV_READ : 0) |
                       (events & POLLOUT ? EV_WRITE : 0));
  event_assign(&l->socket, reactor_base(l->reactor), fd, what, on_event, l);
  event_add(&l->socket, NULL);
}

/* Watches the socket, if there is one. */
static void watch(struct parent_link *l) {
  struct connection *c = l->connection;
  bool is_down = connection_state(c) == CONNECTION_DISCONNECTED;
  watch_fd(l, is_down ? -1 : connection_fd(c),
           is_down ? 0 : connection_events(c));
  int64_t deadline = is_down ? -1 : connection_deadline(c);
  if (!is_down && connection_has_more(c))
    deadline = deadline_now();
  if (deadline < 0)
    event_del(&l->timer);
  else
    reactor_set_timer(&l->timer, (uint64_t)deadline_left_ms(deadline));
}

/* ---- Asking -------------------------------------------------------------- */

static void send_read(struct parent_link *l, const struct parent_ask *ask) {
  Cachet__Wire__Range range = CACHET__WIRE__RANGE__INIT;
  Cachet__Wire__Range *ranges = &range;
  Cachet__Wire__Read read = CACHET__WIRE__READ__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  range.offset = ask->at;
  range.length = ask->end - ask->at;
  read.image = l->image.id;
  read.epoch = ask->epoch;
  read.n_ranges = 1;
  read.ranges = &ranges;
  msg.id = ask->id;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_READ;
  msg.read = &read;
  connection_send(l->connection, &msg);
}

static void end_read(struct parent_read *r, int status) {
  r->ask = NULL;
  r->status = status;
  r->done(r);
}

/* Asks for the rest of a read, or for as much of it as the parent takes at
 * once. */
static void ask_for(struct parent_link *l, struct parent_read *r) {
  struct parent_ask *ask = calloc(1, sizeof *ask);
  if (!ask) {
    end_read(r, -ENOMEM);
    return;
  }
  uint64_t left = r->len - r->n_done;
  uint64_t most = connection_limits(l->connection)->max_read;
  ask->read = r;
  ask->id = connection_next_id(l->connection);
  ask->epoch = l->image.epoch;
  ask->at = r->offset + r->n_done;
  ask->end = ask->at + (left < most ? left : most);
  ask->asked_at = deadline_now();
  ask->n_heard = l->n_heard;
  TAILQ_INSERT_TAIL(&l->asks, ask, entry);
  l->n_asks++;
  r->ask = ask;
  send_read(l, ask);
}

static void ask_again(struct parent_link *l) {
  struct parent_read *r;
  while (l->state == PARENT_LINK_UP && (r = TAILQ_FIRST(&l->again))) {
    TAILQ_REMOVE(&l->again, r, entry);
    ask_for(l, r);
  }
}

static void forget_ask(struct parent_link *l, struct parent_ask *ask) {
  TAILQ_REMOVE(&l->asks, ask, entry);
  l->n_asks--;
  free(ask);
}

/* Ends an answer.  The rest of the read, and bytes that were invalidated
 * meanwhile, are asked for at the end of the turn. */
static void answer_ended(struct parent_link *l, struct parent_ask *ask,
                         int status) {
  struct parent_read *r = ask->read;
  int64_t took = deadline_now() - ask->asked_at;
  if (r && status == 0)
    r->n_done = ask->end - r->offset;
  forget_ask(l, ask);
  l->calls->answered(l, (uint64_t)took);
  if (!r)
    return;
  r->ask = NULL;
  if (status == 0 && r->is_doubtful) {
    r->is_doubtful = false;
    r->n_done = 0;
  }
  if (status == 0 && r->n_done < r->len)
    TAILQ_INSERT_TAIL(&l->again, r, entry);
  else
    end_read(r, status);
}

/* Ends all reads.  `forgets_asks`: the connection is lost, so no answer to what
 * was asked will come. */
static void end_all(struct parent_link *l, int status, bool forgets_asks) {
  struct parent_ask *ask, *next;
  struct parent_read *r;
  for (ask = TAILQ_FIRST(&l->asks); ask; ask = next) {
    next = TAILQ_NEXT(ask, entry);
    r = ask->read;
    ask->read = NULL;
    if (forgets_asks)
      forget_ask(l, ask);
    if (r)
      end_read(r, status);
  }
  while ((r = TAILQ_FIRST(&l->again))) {
    TAILQ_REMOVE(&l->again, r, entry);
    end_read(r, status);
  }
}

/* ---- Notices ------------------------------------------------------------- */

static void doubt_reads(struct parent_link *l, uint64_t from, uint64_t to) {
  struct parent_ask *ask;
  struct parent_read *r;
  TAILQ_FOREACH(ask, &l->asks, entry)
    if ((r = ask->read) && r->offset < to && r->offset + r->len > from)
      r->is_doubtful = true;
  TAILQ_FOREACH(r, &l->again, entry)
    if (r->offset < to && r->offset + r->len > from)
      r->n_done = 0;
}

/* An invalidated range stands for the whole pages of the parent that it
 * touches. */
static void heed_range(struct parent_link *l,
                       const Cachet__Wire__Range *range) {
  uint64_t size = l->image.size;
  uint64_t page = UINT64_C(1) << l->image.page_shift;
  if (range->offset >= size || range->length == 0)
    return;
  uint64_t from = range->offset & ~(page - 1), to = size;
  if (range->length < size - range->offset)
    to = (range->offset + range->length + page - 1) & ~(page - 1);
  to = to < size ? to : size;
  doubt_reads(l, from, to);
  l->calls->invalid(l, from, to - from);
}

static void heed_invalidated(struct parent_link *l,
                             const Cachet__Wire__Invalidated *n) {
  if (n->image != l->image.id)
    return;
  for (size_t i = 0; i < n->n_ranges; i++)
    heed_range(l, n->ranges[i]);
  connection_image_told(&l->image, n);
}

static void violation(struct parent_link *l, const char *what) {
  connection_break(l->connection, CONNECTION_LOST_BROKEN, CACHET_E_PROTO, what);
}

static void heed_changed(struct parent_link *l,
                         const Cachet__Wire__Changed *n) {
  struct connection_image image;
  if (n->info && n->info->image != l->image.id)
    return;
  if (!connection_read_image(n->info, &image)) {
    violation(l, "what it says of the image cannot be");
    return;
  }
  if (image.epoch == l->image.epoch)
    return;
  l->image = image;
  end_all(l, -ESTALE, false);
  l->calls->changed(l);
}

/* ---- Answers ------------------------------------------------------------- */

static struct parent_ask *ask_of(struct parent_link *l, uint64_t id) {
  struct parent_ask *ask;
  TAILQ_FOREACH(ask, &l->asks, entry)
    if (ask->id == id)
      return ask;
  return NULL;
}

static void take_data(struct parent_link *l, struct parent_ask *ask,
                      const Cachet__Wire__Data *d, uint32_t len,
                      uint8_t **payload) {
  if (d->epoch != ask->epoch || d->range != 0 || d->offset != ask->at ||
      d->resident != 0 || len == 0 || len > ask->end - ask->at ||
      d->last != (ask->at + len == ask->end)) {
    violation(l, "bytes that nothing had asked for");
    return;
  }
  ask->has_begun = true;
  l->incoming = ask;
  l->incoming_len = len;
  l->incoming_last = d->last;
  *payload = ask->read
                 ? (uint8_t *)ask->read->buf + (ask->at - ask->read->offset)
                 : NULL;
}

/* A daemon that may not read the image any more gets no notices of it on this
 * connection either, so the connection is of no use. */
static void take_error(struct parent_link *l, struct parent_ask *ask,
                       const Cachet__Wire__Error *e) {
  struct cachet_error why;
  connection_read_error(e, &why);
  answer_ended(l, ask, meaning_of(why.code, why.sys_errno));
  if (why.code == CACHET_E_NOIMAGE || why.code == CACHET_E_ACCESS)
    connection_break(l->connection, CONNECTION_LOST_REFUSED, why.code,
                     why.message);
}

static void on_message(void *arg, const wire_message *msg, uint32_t payload_len,
                       uint8_t **payload) {
  struct parent_link *l = arg;
  struct parent_ask *ask = msg->id ? ask_of(l, msg->id) : NULL;
  l->n_heard++;
  if (ask && msg->body_case == CACHET__WIRE__MESSAGE__BODY_DATA)
    take_data(l, ask, msg->data, payload_len, payload);
  else if (ask && msg->body_case == CACHET__WIRE__MESSAGE__BODY_ERROR)
    take_error(l, ask, msg->error);
  else if (!msg->id &&
           msg->body_case == CACHET__WIRE__MESSAGE__BODY_INVALIDATED)
    heed_invalidated(l, msg->invalidated);
  else if (!msg->id && msg->body_case == CACHET__WIRE__MESSAGE__BODY_CHANGED)
    heed_changed(l, msg->changed);
  else
    violation(l, "an answer that nothing had asked for");
}

static void on_payload(void *arg) {
  struct parent_link *l = arg;
  struct parent_ask *ask = l->incoming;
  l->incoming = NULL;
  ask->at += l->incoming_len;
  if (l->incoming_last)
    answer_ended(l, ask, 0);
}

/* ---- States -------------------------------------------------------------- */

static void fall(struct parent_link *l) {
  l->state = PARENT_LINK_DOWN;
  l->incoming = NULL;
  end_all(l, l->status, true);
  l->calls->down(l);
}

static void on_ready(void *arg, const struct connection_image *image) {
  struct parent_link *l = arg;
  l->state = PARENT_LINK_UP;
  l->image = *image;
  l->calls->up(l);
}

static void on_lost(void *arg, enum connection_loss loss,
                    const struct cachet_error *why) {
  struct parent_link *l = arg;
  set_fault(l, meaning_of_loss(loss, why), why);
  fall(l);
}

static void on_changed(void *arg) { watch(arg); }

/* What was asked for is counted, and by age. */
static void check_asks(const struct parent_link *l) {
  (void)l;
#ifdef CACHETD_DEBUG_CHECKS
  const struct parent_ask *ask, *before = NULL;
  unsigned n = 0;
  TAILQ_FOREACH(ask, &l->asks, entry) {
    assert(!ask->read || ask->read->ask == ask);
    assert(!before || before->id < ask->id);
    before = ask;
    n++;
  }
  assert(n == l->n_asks);
#endif
}

static void turn(struct parent_link *l) {
  connection_progress(l->connection);
  ask_again(l);
  check_asks(l);
  watch(l);
  l->calls->turned(l);
}

static void on_dialed(void *arg, struct connection *c,
                      const struct cachet_error *why) {
  struct parent_link *l = arg;
  l->dial = NULL;
  if (!c) {
    set_fault(l, meaning_of(why->code, why->sys_errno), why);
    fall(l);
    l->calls->turned(l);
    return;
  }
  connection_free(l->connection);
  l->connection = c;
  l->state = PARENT_LINK_CONNECTING;
  connection_start(c);
  watch(l);
  l->calls->turned(l);
}

int parent_link_raise(struct parent_link *l) {
  const struct connection_owner owner = {.ready = on_ready,
                                         .message = on_message,
                                         .payload = on_payload,
                                         .lost = on_lost,
                                         .changed = on_changed,
                                         .arg = l};
  if (l->state != PARENT_LINK_DOWN)
    return 0;
  int r = parent_dial_start(l->reactor, l->target, l->i, &owner, on_dialed,
                            &l->dial);
  if (r == 0)
    l->state = PARENT_LINK_DIALING;
  return r;
}

/* ---- Reads --------------------------------------------------------------- */

bool parent_link_has_room(const struct parent_link *l) {
  return l->n_asks < connection_limits(l->connection)->max_requests &&
         !connection_is_full(l->connection);
}

void parent_link_read(struct parent_link *l, struct parent_read *r) {
  assert(l->state == PARENT_LINK_UP);
  ask_for(l, r);
}

bool parent_link_has_begun(const struct parent_read *r) {
  return r->n_done > 0 || (r->ask && r->ask->has_begun);
}

bool parent_link_forget(struct parent_link *l, struct parent_read *r) {
  if (r->ask && r->ask == l->incoming)
    return false;
  if (r->ask)
    r->ask->read = NULL;
  else
    TAILQ_REMOVE(&l->again, r, entry);
  r->ask = NULL;
  return true;
}

bool parent_link_is_silent(const struct parent_link *l,
                           const struct parent_read *r) {
  return r->ask && l->n_heard == r->ask->n_heard;
}

void parent_link_end(struct parent_link *l, int status) {
  if (l->state != PARENT_LINK_UP)
    return;
  end_all(l, status, true);
  connection_break(l->connection, CONNECTION_LOST_RETRY,
                   status == -ETIMEDOUT ? CACHET_E_TIMEOUT : CACHET_E_CANCELED,
                   "it does not answer");
}

/* ---- Life ---------------------------------------------------------------- */

void parent_link_init(struct parent_link *l, struct reactor *reactor,
                      struct parent_target *target, unsigned i,
                      const struct parent_link_calls *calls) {
  *l = (struct parent_link){.calls = calls,
                            .reactor = reactor,
                            .target = target,
                            .i = i,
                            .status = -ENOTCONN,
                            .fd = -1};
  TAILQ_INIT(&l->asks);
  TAILQ_INIT(&l->again);
  evtimer_assign(&l->timer, reactor_base(reactor), on_event, l);
}

void parent_link_fini(struct parent_link *l) {
  if (l->dial)
    parent_dial_give_up(l->dial);
  watch_fd(l, -1, 0);
  event_del(&l->timer);
  end_all(l, -ECANCELED, true);
  connection_free(l->connection);
}

#include "client/remote/connection.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/deadline.h"
#include "cache/image.h"
#include "client/error.h"
#include "client/remote/dial.h"
#include "client/remote/tls_library.h"
#include "proto/socket.h"

enum {
  IN_LEN = FRAME_HEADER_LEN + FRAME_MAX_MESSAGE,
  OUT_FULL_LEN = 256 << 10,
  MAX_REQUESTS = 256, /* however many more a daemon would take */
  HELLO_ID = 1,
  OPEN_ID = 2,
  FIRST_ID = 3,
  MAX_NOTICES = 64, /* that are taken in at once */
  LOOK_UP_INTERVAL_MS = 1000,
};

struct connection {
  struct connection_owner owner;
  char *image; /* NULL: none is opened */
  char place[300];
  struct dial dial;
  bool may_have_moved; /* the last connection was not made, or refused */
  int64_t looked_up_at;
  int connect_timeout_ms, request_timeout_ms;
  struct frame_arena *arena;

  enum connection_state state;
  int fd;               /* -1 while DISCONNECTED */
  struct stat id;       /* of the socket: st_dev and st_ino are nobody else's */
  unsigned address;     /* the one that is tried, or that was connected to */
  unsigned first;       /* the one that the next start begins with */
  unsigned n_left;      /* to try, with the present one; while CONNECTING */
  int64_t turn_ends_at; /* of the present address; while CONNECTING */
  int64_t deadline;     /* of the handshake; -1 when READY */
  uint64_t next_id;
  struct connection_limits limits;

  struct tls_context *tls_context; /* NULL: there is no TLS */
  struct tls *tls;                 /* from SECURING on */
  struct stream stream;            /* from HELLO on */
  uint8_t *in;                     /* what it is lent */
  bool holds;                      /* connection_hold() */
  bool out_broken;    /* the peer reads no more, but may have said why */
  unsigned n_notices; /* taken in since connection_input() began */
  bool has_more;      /* it stopped there */
  int64_t heard_at;
};

/* ---- States -------------------------------------------------------------- */

static void connection_move(struct connection *c, enum connection_state to) {
  static const bool allowed[6][6] = {
      [CONNECTION_DISCONNECTED] = {[CONNECTION_CONNECTING] = true},
      [CONNECTION_CONNECTING] = {[CONNECTION_SECURING] = true,
                                 [CONNECTION_HELLO] = true,
                                 [CONNECTION_DISCONNECTED] = true},
      [CONNECTION_SECURING] =
          {[CONNECTION_HELLO] = true, [CONNECTION_DISCONNECTED] = true},
      [CONNECTION_HELLO] = {[CONNECTION_OPENING] = true,
                            [CONNECTION_READY] = true,
                            [CONNECTION_DISCONNECTED] = true},
      [CONNECTION_OPENING] =
          {[CONNECTION_READY] = true, [CONNECTION_DISCONNECTED] = true},
      [CONNECTION_READY] = {[CONNECTION_DISCONNECTED] = true},
  };
  assert(allowed[c->state][to]);
  c->state = to;
  c->owner.changed(c->owner.arg);
}

void connection_want_fds(struct connection *c, bool want) {
  stream_want_fds(&c->stream, want);
  socket_allow_fds(c->fd, want);
}

bool connection_has_room_for_fds(const struct connection *c, unsigned n) {
  int copies[STREAM_MAX_FDS];
  unsigned i = 0;
  assert(n <= STREAM_MAX_FDS);
  while (i < n && (copies[i] = fcntl(c->fd, F_DUPFD_CLOEXEC, 3)) >= 0)
    i++;
  bool has_room = i == n;
  while (i > 0)
    close(copies[--i]);
  return has_room;
}

/* Whether all of them are memory from memfd_create(2): the close of any other
 * file might wait.  This itself does not wait. */
static bool are_memory(const int *fds, unsigned n) {
  for (unsigned i = 0; i < n; i++)
    if (fcntl(fds[i], F_GET_SEALS) < 0)
      return false;
  return true;
}

enum connection_fds connection_take_fds(struct connection *c, int *fds,
                                        unsigned n) {
  int came[STREAM_MAX_FDS];
  bool cut;
  unsigned n_came = stream_take_fds(&c->stream, came, &cut);
  if (!cut && n_came == n && are_memory(came, n)) {
    memcpy(fds, came, n * sizeof *fds);
    return CONNECTION_FDS_HERE;
  }
  while (n_came > 0)
    socket_close_fd(&c->fd, came[--n_came], true);
  return cut ? CONNECTION_FDS_LOST : CONNECTION_FDS_WRONG;
}

static void connection_free_tls(struct connection *c) {
  tls_free(c->tls);
  c->tls = NULL;
}

static unsigned connection_next_address(const struct connection *c) {
  return (c->address + 1) % c->dial.n_addresses;
}

static void connection_lose(struct connection *c, enum connection_loss loss,
                            const struct cachet_error *why) {
  int fd = c->fd;
  if (c->state > CONNECTION_CONNECTING &&
      (why->code == CACHET_E_TIMEOUT || why->sys_errno == ETIMEDOUT))
    c->first = connection_next_address(c);
  c->may_have_moved = c->state != CONNECTION_READY;
  stream_fini(&c->stream);
  connection_free_tls(c);
  c->fd = -1;
  c->deadline = -1;
  c->out_broken = false;
  c->has_more = false;
  /* Before the close: an event loop that watches the descriptor has to forget
   * it first, because the next connection may get the same number. */
  connection_move(c, CONNECTION_DISCONNECTED);
  if (fd >= 0)
    socket_close(fd);
  c->owner.lost(c->owner.arg, loss, why);
  /* When to connect again, and what for, is the owner's state. */
  c->owner.changed(c->owner.arg);
}

/* The kind of loss for the errno of a system call; 0: the end of the stream. */
static enum connection_loss connection_loss_of(const struct connection *c,
                                               int sys_errno) {
  bool is_cut = sys_errno == 0 || sys_errno == ECONNRESET ||
                sys_errno == ECONNABORTED || sys_errno == EPIPE;
  return is_cut && c->state > CONNECTION_CONNECTING ? CONNECTION_LOST_CUT
                                                    : CONNECTION_LOST_RETRY;
}

static void connection_fail(struct connection *c, const char *act,
                            int sys_errno) {
  struct cachet_error why;
  error_set(&why,
            sys_errno == EACCES || sys_errno == EPERM ? CACHET_E_ACCESS
                                                      : CACHET_E_CONN,
            sys_errno, "daemon at %.150s: %s", c->place, act);
  connection_lose(c, connection_loss_of(c, sys_errno), &why);
}

/* Ends the connection after TLS has failed with this errno. */
static void connection_fail_tls(struct connection *c, int sys_errno) {
  struct cachet_error why;
  error_set(&why, sys_errno == EACCES ? CACHET_E_ACCESS : CACHET_E_CONN, 0,
            "daemon at %.150s: TLS: %s", c->place, tls_why(c->tls));
  connection_lose(c,
                  sys_errno == EACCES ? CONNECTION_LOST_REFUSED
                                      : connection_loss_of(c, sys_errno),
                  &why);
}

void connection_break(struct connection *c, enum connection_loss loss,
                      enum cachet_status code, const char *what) {
  struct cachet_error why;
  if (c->state == CONNECTION_DISCONNECTED)
    return; /* it is lost already, for another reason */
  error_set(&why, code, 0, "daemon at %.150s: %s", c->place, what);
  connection_lose(c, loss, &why);
}

static void connection_violation(struct connection *c, const char *what) {
  connection_break(c, CONNECTION_LOST_BROKEN, CACHET_E_PROTO, what);
}

/* ---- Output -------------------------------------------------------------- */

/* The peer reads no more.  The input is read on, because it may have an Error
 * that says why before the end of the stream.  If neither comes, the connection
 * is given up all the same. */
static void connection_out_broke(struct connection *c) {
  c->out_broken = true;
  c->deadline =
      deadline_earlier(c->deadline, deadline_after(c->request_timeout_ms));
  c->owner.changed(c->owner.arg);
}

void connection_hold(struct connection *c, bool holds) { c->holds = holds; }

void connection_flush(struct connection *c) {
  if (c->state < CONNECTION_HELLO || c->out_broken)
    return;
  bool wanted_room = stream_unsent(&c->stream);
  if (stream_flush(&c->stream) < 0)
    connection_out_broke(c);
  else if (wanted_room && !stream_unsent(&c->stream))
    c->owner.changed(c->owner.arg);
}

static int connection_transmit(struct connection *c,
                               const struct iovec *frame) {
  if (c->out_broken)
    return STREAM_SENT;
  return c->holds ? stream_keep(&c->stream, frame, 1, SIZE_MAX)
                  : stream_send(&c->stream, frame, 1, SIZE_MAX);
}

static void connection_put(struct connection *c, const wire_message *msg) {
  struct iovec frame = {.iov_len = frame_packed_len(msg)};
  int r = -ENOMEM;
  frame.iov_base = malloc(frame.iov_len);
  if (frame.iov_base) {
    frame_pack(msg, 0, frame.iov_base);
    r = connection_transmit(c, &frame);
    free(frame.iov_base);
  }
  if (r == -ENOMEM) {
    connection_break(c, CONNECTION_LOST_RETRY, CACHET_E_NOMEM,
                     "no memory to send");
    return;
  }
  if (r < 0)
    connection_out_broke(c);
  c->owner.changed(c->owner.arg);
}

void connection_send(struct connection *c, const wire_message *msg) {
  assert(c->state == CONNECTION_READY);
  connection_put(c, msg);
}

bool connection_is_full(const struct connection *c) {
  return stream_unsent(&c->stream) > OUT_FULL_LEN;
}

/* ---- Connecting ---------------------------------------------------------- */

static void connection_hello(struct connection *c) {
  static const struct frame_limits limits = {.max_message = FRAME_MAX_MESSAGE,
                                             .max_payload = FRAME_MAX_PAYLOAD};
  Cachet__Wire__Hello hello = CACHET__WIRE__HELLO__INIT;
  hello.version_min = hello.version_max = PROTO_VERSION;
  hello.agent = (char *)"libcachet-client/" CACHET_VERSION_STRING;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  msg.id = HELLO_ID;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_HELLO;
  msg.hello = &hello;
  if (c->tls)
    stream_init(&c->stream, tls_io_of(c->tls), c->tls, &limits);
  else
    stream_init(&c->stream, &socket_io, &c->fd, &limits);
  stream_lend(&c->stream, c->in, IN_LEN);
  connection_move(c, CONNECTION_HELLO);
  connection_put(c, &msg);
}

static void connection_open_image(struct connection *c) {
  Cachet__Wire__Open open = CACHET__WIRE__OPEN__INIT;
  open.image = c->image;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  msg.id = OPEN_ID;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_OPEN;
  msg.open = &open;
  connection_move(c, CONNECTION_OPENING);
  connection_put(c, &msg);
}

static void connection_shake(struct connection *c) {
  int r = tls_handshake(c->tls);
  if (r == 0)
    connection_hello(c);
  else if (r == -EAGAIN)
    c->owner.changed(c->owner.arg);
  else
    connection_fail_tls(c, -r);
}

/* The socket is connected. */
static void connection_connected(struct connection *c) {
  if (!c->tls_context) {
    connection_hello(c);
    return;
  }
  if (tls_new(c->tls_context, &socket_plain_io, &c->fd, &c->tls) < 0) {
    connection_break(c, CONNECTION_LOST_RETRY, CACHET_E_NOMEM,
                     "no memory for TLS");
    return;
  }
  connection_move(c, CONNECTION_SECURING);
  connection_shake(c);
}

/* Starts to connect to the present address: 0, EINPROGRESS or another errno. */
static int connection_dial(struct connection *c) {
  int r = dial_connect(&c->dial, c->address, c->request_timeout_ms, &c->fd);
  if ((r == 0 || r == EINPROGRESS) && fstat(c->fd, &c->id) < 0) {
    r = errno;
    close(c->fd);
    c->fd = -1;
  }
  return r;
}

/* The end of the present address's turn: what is left of the connect time-out
 * is shared evenly by the addresses that are left.  An address that swallows
 * packets then leaves time for the next. */
static int64_t connection_turn_end(const struct connection *c) {
  if (c->deadline < 0)
    return -1;
  return deadline_after(deadline_left_ms(c->deadline) / (int)c->n_left);
}

/* Tries address by address, from the present one on. */
static void connection_try(struct connection *c, int last_errno) {
  for (; c->n_left > 0; c->n_left--, c->address = connection_next_address(c)) {
    c->turn_ends_at = connection_turn_end(c);
    last_errno = connection_dial(c);
    if (last_errno == 0) {
      connection_connected(c);
      return;
    }
    if (last_errno == EINPROGRESS) {
      c->owner.changed(c->owner.arg);
      return;
    }
  }
  connection_fail(c, "connect", last_errno);
}

/* Goes on to the next address, because the present one has failed. */
static void connection_try_next(struct connection *c, int sys_errno) {
  int fd = c->fd;
  c->fd = -1;
  c->owner.changed(c->owner.arg);
  close(fd);
  c->address = connection_next_address(c);
  c->n_left--;
  if (sys_errno == ETIMEDOUT)
    c->first = c->address;
  connection_try(c, sys_errno);
}

static void connection_finish_connect(struct connection *c) {
  struct pollfd p = {.fd = c->fd, .events = POLLOUT};
  if (poll(&p, 1, 0) <= 0)
    return;
  int e = 0;
  socklen_t len = sizeof e;
  if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &e, &len) < 0)
    e = errno;
  if (e == 0)
    connection_connected(c);
  else
    connection_try_next(c, e);
}

bool connection_is_look_up_due(const struct connection *c) {
  return c->state == CONNECTION_DISCONNECTED && c->may_have_moved &&
         deadline_now() - c->looked_up_at >= LOOK_UP_INTERVAL_MS;
}

void connection_look_up(struct connection *c, const struct uri *u) {
  struct dial dial;
  assert(c->state == CONNECTION_DISCONNECTED);
  bool is_found = dial_resolve(&dial, u, NULL) == CACHET_OK;
  c->looked_up_at = deadline_now();
  if (!is_found || dial_is_same(&dial, &c->dial))
    return; /* the address that timed out last stays the last one */
  c->dial = dial;
  c->first = c->address = 0;
}

void connection_start(struct connection *c) {
  c->heard_at = deadline_now();
  c->deadline = deadline_after(c->connect_timeout_ms);
  c->next_id = FIRST_ID;
  c->address = c->first;
  c->n_left = c->dial.n_addresses;
  c->turn_ends_at = -1;
  connection_move(c, CONNECTION_CONNECTING);
  connection_try(c, EADDRNOTAVAIL);
}

/* ---- Handshake ----------------------------------------------------------- */

void connection_read_error(const Cachet__Wire__Error *in,
                           struct cachet_error *out) {
  enum cachet_status code = CACHET_E_PROTO;
  if (in->status < 0 && in->status >= CACHET_E_UNSUPPORTED)
    code = (enum cachet_status)in->status;
  error_set(out, code, 0, "%.240s",
            in->message[0] ? in->message : cachet_strerror(code));
  for (char *p = out->message; *p; p++)
    if ((unsigned char)*p < ' ' || *p == 0x7f)
      *p = '?'; /* the text may be shown on a terminal */
  out->sys_errno = in->sys_errno < 4096 ? (int)in->sys_errno : 0;
}

bool connection_read_image(const Cachet__Wire__ImageInfo *in,
                           struct connection_image *out) {
  if (!in || in->epoch == 0 || in->size > INT64_MAX)
    return false;
  if (in->page_size & (in->page_size - 1) ||
      in->page_size < 1u << PAGE_SHIFT_MIN ||
      in->page_size > 1u << PAGE_SHIFT_MAX ||
      in->identity.len > PROTO_MAX_IDENTITY)
    return false;
  *out = (struct connection_image){
      .id = in->image,
      .size = in->size,
      .page_shift = (unsigned)__builtin_ctz(in->page_size),
      .epoch = in->epoch,
      .invalidations = in->invalidations,
      .identity_len = (unsigned)in->identity.len,
  };
  if (in->identity.len > 0)
    memcpy(out->identity, in->identity.data, in->identity.len);
  return true;
}

bool connection_image_goes_on(const struct connection_image *before,
                              const struct connection_image *now) {
  return before->epoch == now->epoch && before->size == now->size &&
         before->invalidations != 0 &&
         before->invalidations == now->invalidations;
}

void connection_image_told(struct connection_image *image,
                           const Cachet__Wire__Invalidated *notice) {
  if (notice->epoch == image->epoch || notice->invalidations == 0)
    image->invalidations = notice->invalidations;
}

static void connection_error(struct connection *c,
                             const Cachet__Wire__Error *in,
                             enum connection_loss loss) {
  struct cachet_error why;
  connection_read_error(in, &why);
  if (why.code == CACHET_E_PROTO)
    loss = c->state == CONNECTION_HELLO ? CONNECTION_LOST_FINAL
                                        : CONNECTION_LOST_BROKEN;
  connection_lose(c, loss, &why);
}

static void connection_welcome(struct connection *c,
                               const Cachet__Wire__Welcome *w) {
  if (w->version != PROTO_VERSION) {
    connection_break(c, CONNECTION_LOST_FINAL, CACHET_E_PROTO,
                     "it speaks another version of the protocol");
    return;
  }
  /* 4 KiB hold a request of FETCH_MAX_PAGES ranges. */
  if (w->max_message < 4096 || w->max_ranges < 1 || w->max_requests < 1 ||
      w->max_read < 1u << PAGE_SHIFT_MIN) {
    connection_violation(c, "its limits leave no room for a request");
    return;
  }
  c->limits.max_ranges = w->max_ranges;
  c->limits.max_read = w->max_read;
  c->limits.max_requests =
      w->max_requests < MAX_REQUESTS ? w->max_requests : MAX_REQUESTS;
  c->limits.share = w->share;
  c->limits.change = w->change;
  c->limits.drain = w->drain;
  if (c->image) {
    connection_open_image(c);
    return;
  }
  c->deadline = -1;
  connection_move(c, CONNECTION_READY);
  c->owner.ready(c->owner.arg, NULL);
}

static void connection_opened(struct connection *c,
                              const Cachet__Wire__Opened *o) {
  struct connection_image image;
  if (!connection_read_image(o->info, &image) ||
      1ull << image.page_shift > c->limits.max_read) {
    connection_violation(c, "what it says of the image cannot be");
    return;
  }
  c->deadline = -1;
  connection_move(c, CONNECTION_READY);
  c->owner.ready(c->owner.arg, &image);
}

static void connection_handshake(struct connection *c,
                                 const wire_message *msg) {
  bool hello = c->state == CONNECTION_HELLO;
  uint64_t id = hello ? HELLO_ID : OPEN_ID;
  switch (msg->body_case) {
  case CACHET__WIRE__MESSAGE__BODY_WELCOME:
    if (hello && msg->id == id) {
      connection_welcome(c, msg->welcome);
      return;
    }
    break;
  case CACHET__WIRE__MESSAGE__BODY_OPENED:
    if (!hello && msg->id == id) {
      connection_opened(c, msg->opened);
      return;
    }
    break;
  case CACHET__WIRE__MESSAGE__BODY_ERROR:
    if (msg->id == id || msg->id == 0) {
      connection_error(c, msg->error,
                       !hello && msg->id ? CONNECTION_LOST_REFUSED
                                         : CONNECTION_LOST_RETRY);
      return;
    }
    break;
  case CACHET__WIRE__MESSAGE__BODY_INVALIDATED:
  case CACHET__WIRE__MESSAGE__BODY_CHANGED:
    if (!hello && msg->id == 0)
      return; /* what Opened says is newer, or our cache is still empty */
    break;
  default:
    break;
  }
  connection_violation(c, "an answer that nothing had asked for");
}

/* ---- Input --------------------------------------------------------------- */

static void connection_message(struct connection *c, const wire_message *msg,
                               uint32_t payload_len) {
  bool data = msg->body_case == CACHET__WIRE__MESSAGE__BODY_DATA;
  uint8_t *payload = NULL;
  c->n_notices += !msg->id;
  if (payload_len && !data)
    connection_violation(c, "a payload where none belongs");
  else if (c->state != CONNECTION_READY)
    connection_handshake(c, msg);
  else if (msg->body_case == CACHET__WIRE__MESSAGE__BODY_ERROR && !msg->id)
    connection_error(c, msg->error, CONNECTION_LOST_RETRY);
  else
    c->owner.message(c->owner.arg, msg, payload_len, &payload);
  if (c->state != CONNECTION_READY || !data)
    return;
  if (payload_len)
    stream_place(&c->stream, payload);
  else
    c->owner.payload(c->owner.arg);
}

/* Acts on one message or payload.  False: none has arrived whole. */
static bool connection_take(struct connection *c) {
  struct frame_header header;
  wire_message *msg;
  switch (stream_take(&c->stream, c->arena, &header, &msg)) {
  case STREAM_MESSAGE:
    connection_message(c, msg, header.payload_len);
    return true;
  case STREAM_PAYLOAD:
    c->owner.payload(c->owner.arg);
    return true;
  case STREAM_MORE:
    return false;
  case STREAM_TOO_LONG:
    connection_violation(c, "a frame longer than the limit");
    return false;
  default:
    connection_violation(c, "a message that is none");
    return false;
  }
}

static void connection_parse(struct connection *c) {
  while (c->state >= CONNECTION_HELLO && c->n_notices < MAX_NOTICES &&
         connection_take(c))
    ;
}

/* Receives once.  False: nothing more has arrived, or descriptors are next.
 * Only an answer to Attach may have descriptors. */
static bool connection_receive(struct connection *c) {
  int r = stream_receive(&c->stream, SIZE_MAX);
  bool all = stream_is_drained(&c->stream);
  switch (r) {
  case STREAM_CAME:
    c->heard_at = deadline_now();
    connection_parse(c);
    return !all;
  case STREAM_NOTHING:
    return false;
  case STREAM_END:
    connection_fail(c, "it closed the connection", 0);
    return false;
  case STREAM_STRAY:
    connection_violation(c, "descriptors that nothing had asked for");
    return false;
  default:
    if (c->tls)
      connection_fail_tls(c, -r);
    else
      connection_fail(c, "receive", -r);
    return false;
  }
}

void connection_input(struct connection *c) {
  bool more = true, had_more = c->has_more;
  c->n_notices = 0;
  connection_parse(c); /* the last call may have stopped at MAX_NOTICES */
  while (more && c->state >= CONNECTION_HELLO && c->n_notices < MAX_NOTICES)
    more = connection_receive(c);
  c->has_more = c->state >= CONNECTION_HELLO &&
                (c->n_notices >= MAX_NOTICES ||
                 stream_wants(&c->stream) == STREAM_WANTS_TURN);
  if (c->has_more != had_more)
    c->owner.changed(c->owner.arg);
}

bool connection_has_more(const struct connection *c) { return c->has_more; }

int64_t connection_heard_at(const struct connection *c) { return c->heard_at; }

void connection_progress(struct connection *c) {
  if (c->state == CONNECTION_CONNECTING)
    connection_finish_connect(c);
  else if (c->state == CONNECTION_SECURING)
    connection_shake(c);
  connection_flush(c);
  connection_input(c);
  if (!deadline_has_passed(connection_deadline(c)))
    return;
  if (c->state == CONNECTION_CONNECTING)
    connection_try_next(c, ETIMEDOUT);
  else
    connection_break(c, CONNECTION_LOST_RETRY, CACHET_E_TIMEOUT,
                     "it does not answer");
}

/* ---- Life ---------------------------------------------------------------- */

/* Finds the TLS library, and loads the certificates. */
static enum cachet_status connection_find_tls(struct connection *c,
                                              const struct uri *u,
                                              struct cachet_error *err) {
  const struct tls_files files = {
      .certificate = u->cert, .key = u->key, .ca = u->ca};
  char why[TLS_WHY_LEN];
  const struct tls_makers *makers = tls_library_find(why);
  if (!makers)
    return error_set(err, CACHET_E_UNSUPPORTED, 0, "%.250s", why);
  int r = makers->client(&files, u->host, &c->tls_context, why);
  if (r == 0)
    return CACHET_OK;
  return error_set(err, r == -ENOMEM ? CACHET_E_NOMEM : CACHET_E_INVAL, 0,
                   "TLS: %.200s", why);
}

CLEANUP_FUNCTION(struct connection *, connection_free)

enum cachet_status
connection_new(const struct uri *u, bool open_image, int connect_timeout_ms,
               int request_timeout_ms, const struct connection_owner *owner,
               struct connection **out, struct cachet_error *err) {
  CLEANUP(connection_freep) struct connection *c = calloc(1, sizeof *c);
  if (!c)
    return error_set(err, CACHET_E_NOMEM, 0, "no memory for a connection");
  c->fd = -1;
  c->deadline = -1;
  c->owner = *owner;
  c->connect_timeout_ms = connect_timeout_ms;
  c->request_timeout_ms = request_timeout_ms;
  uri_print_place(u, c->place, sizeof c->place);
  c->in = malloc(IN_LEN);
  c->arena = frame_arena_new(FRAME_ARENA_LEN);
  c->image = open_image ? strdup(u->image) : NULL;
  if (!c->in || !c->arena || (open_image && !c->image))
    return error_set(err, CACHET_E_NOMEM, 0, "no memory for a connection");
  enum cachet_status status = dial_resolve(&c->dial, u, err);
  c->looked_up_at = deadline_now();
  if (status == CACHET_OK && u->kind == URI_TLS)
    status = connection_find_tls(c, u, err);
  if (status == CACHET_OK)
    *out = STEAL(c);
  return status;
}

static void connection_free_memory(struct connection *c) {
  connection_free_tls(c);
  tls_context_unref(c->tls_context);
  frame_arena_free(c->arena);
  free(c->image);
  free(c->in);
  free(c);
}

void connection_free(struct connection *c) {
  if (!c)
    return;
  if (c->state >= CONNECTION_HELLO && !stream_unsent(&c->stream))
    stream_end(&c->stream);
  stream_fini(&c->stream);
  connection_free_tls(c);
  if (c->fd >= 0)
    socket_close(c->fd);
  connection_free_memory(c);
}

void connection_abandon(struct connection *c) {
  struct stat now;
  if (c->fd >= 0 && fstat(c->fd, &now) == 0 && now.st_dev == c->id.st_dev &&
      now.st_ino == c->id.st_ino)
    close(c->fd);
  stream_abandon(&c->stream);
  connection_free_memory(c);
}

enum connection_state connection_state(const struct connection *c) {
  return c->state;
}

const struct connection_limits *connection_limits(const struct connection *c) {
  return &c->limits;
}

const char *connection_place(const struct connection *c) { return c->place; }

int connection_fd(const struct connection *c) { return c->fd; }

short connection_events(const struct connection *c) {
  if (c->state == CONNECTION_CONNECTING)
    return POLLOUT;
  if (c->state == CONNECTION_SECURING)
    return tls_io_of(c->tls)->wants(c->tls) == STREAM_WANTS_ROOM ? POLLOUT
                                                                 : POLLIN;
  return stream_unsent(&c->stream) ? POLLIN | POLLOUT : POLLIN;
}

int64_t connection_deadline(const struct connection *c) {
  return c->state == CONNECTION_CONNECTING ? c->turn_ends_at : c->deadline;
}

uint64_t connection_next_id(struct connection *c) { return c->next_id++; }

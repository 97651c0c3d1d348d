/* A daemon's image over a socket: what is asked, and what becomes of it when
 * the connection goes.
 *
 * An *exchange* is a request to the daemon with its answer.  It is either in
 * `queue`, not sent (on this connection), or in `sent`, with an id:
 *
 *   queue --sent--> sent --answered--> done
 *     ^               `--connection lost-- back to queue, or gone
 *
 *   R1  What is queued is sent in order, never more than the daemon takes.
 *       While something is queued and there is no connection, there are
 *       attempts to connect, at growing intervals.
 *   R2  An exchange that nobody owns (dropped by its owner, or a prefetch) goes
 *       on while the connection lasts and is not sent again.  So ids are never
 *       forgotten while an answer may come.
 *   R3  Each piece of an answer has to be the next one of what was asked for;
 *       whatever else comes ends the connection, and what was sent fails.
 *   R4  The cache may be believed while the connection is READY and everything
 *       that has arrived on it was taken in: a notice may have been missed
 *       otherwise.  When it becomes READY everything cached is dropped, also
 *       what a handle that this one is a copy of had cached.
 *   R5  Bytes are installed only if the image's generation is the one read
 *       before they were asked for.
 *   R6  Where the daemon shares its memory (`attachment`), pages are read there
 *       and only those that are not resident are asked for, in place: the pins
 *       of who asks keep them.  Nothing is installed here, R4 and notices do
 *       not matter: the memory itself says what is no longer so.  While the
 *       daemon is asked to attach, nothing else is.
 *
 * The handle's thread only; the store is shared. */
#include "client/remote.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "client/channel.h"
#include "client/error.h"
#include "client/store.h"

enum {
  RETRY_FIRST_MS = 10,
  RETRY_LAST_MS = 200,
  MAX_PREFETCHES = 16,
  MAX_NOTICE_RANGES = 16, /* that are dropped one by one */
};

struct exchange {
  struct job job; /* of a Read; of a command only is_done and error matter */
  bool is_sent;
  uint64_t id;     /* on this connection; when sent */
  int64_t sent_at; /* likewise */
  TAILQ_ENTRY(exchange) link;

  /* a Read */
  uint64_t epoch, generation; /* when it was sent */
  struct {
    uint64_t offset, len;
  } ranges[FETCH_MAX_PAGES];
  uint32_t n_ranges;
  uint8_t place[FETCH_MAX_PAGES]; /* of each page in `bytes`, in pages */
  uint32_t n_pages;
  uint8_t *bytes; /* when sent: room for n_pages whole pages */
  uint32_t at_range;
  uint64_t at_offset; /* into that range */
  uint64_t received;  /* bytes */
  bool is_changed;    /* a piece was of another epoch */
  bool in_place;

  /* a command */
  bool is_command;
  wire_message *request; /* while its caller waits */
  Cachet__Wire__Message__BodyCase expected;
  int (*answer)(void *arg, const wire_message *msg);
  void *answer_arg;
};

#define NO_PLACE UINT8_MAX

TAILQ_HEAD(exchange_list, exchange);

struct remote {
  struct backend base;
  struct uri uri;
  struct options options;
  struct channel *channel;
  uint32_t image_id;          /* while READY */
  struct channel_image heard; /* what this connection said of the image last */

  struct exchange_list queue, sent;
  uint32_t n_sent, n_unowned;

  uint64_t attach_id; /* of the Attach that is under way; 0: none is */
  int64_t attach_at;  /* when it was sent */
  bool is_unshared;   /* the daemon's memory cannot be mapped here */
  bool is_opening;    /* wanted even while nothing is queued */
  int retry_ms;       /* how long to wait after the next failure */
  int64_t retry_at;
  struct cachet_error story; /* of the last loss */
  bool is_final;             /* it will never work again */

  struct exchange *incoming; /* whose payload is coming in */
  bool incoming_last;
};

static struct remote *remote_of(const struct backend *b) {
  return (struct remote *)(uintptr_t)b;
}

static bool is_ready(const struct remote *r) {
  return channel_state(r->channel) == CHANNEL_READY && !r->attach_id;
}

/* Whether a mirror is the one to read from, as far as is known here. */
static bool is_current(const struct remote *r, const struct mirror *m) {
  const struct attachment *a = r->base.attachment;
  if (a)
    return a->mirror == m && !mirror_is_retired(m);
  return image_is_current(r->base.store->image, m);
}

/* ---- Exchanges ----------------------------------------------------------- */

static void exchange_free(struct exchange *x) {
  if (x->job.mirror)
    mirror_unref(x->job.mirror);
  free(x->bytes);
  free(x);
}

static bool exchange_is_owned(const struct exchange *x) {
  return x->job.owner != NULL;
}

static void exchange_unlink(struct remote *r, struct exchange *x) {
  TAILQ_REMOVE(x->is_sent ? &r->sent : &r->queue, x, link);
  r->n_sent -= x->is_sent;
  x->is_sent = false;
}

/* Ends an exchange; the story, if it failed, is in its job. */
static void exchange_end(struct remote *r, struct exchange *x) {
  exchange_unlink(r, x);
  if (r->incoming == x)
    r->incoming = NULL;
  x->job.is_done = true;
  if (exchange_is_owned(x)) {
    x->job.done(&x->job);
  } else {
    r->n_unowned--;
    exchange_free(x);
  }
}

static void exchange_fail(struct remote *r, struct exchange *x,
                          const struct cachet_error *why) {
  x->job.error = *why;
  exchange_end(r, x);
}

static void exchange_changed(struct remote *r, struct exchange *x) {
  error_set(&x->job.error, CACHET_E_CHANGED, 0, "image \"%.100s\" changed",
            r->base.store->name);
  exchange_end(r, x);
}

static void fail_all(struct remote *r, const struct cachet_error *why) {
  while (!TAILQ_EMPTY(&r->queue))
    exchange_fail(r, TAILQ_FIRST(&r->queue), why);
}

/* What was sent goes back to the head of the queue, in order. */
static void unsend_all(struct remote *r) {
  struct exchange *x;
  r->incoming = NULL;
  while ((x = TAILQ_LAST(&r->sent, exchange_list))) {
    exchange_unlink(r, x);
    if (!exchange_is_owned(x)) {
      r->n_unowned--;
      exchange_free(x);
      continue;
    }
    free(x->bytes);
    x->bytes = NULL;
    TAILQ_INSERT_HEAD(&r->queue, x, link);
  }
}

static struct exchange *exchange_find(const struct remote *r, uint64_t id) {
  struct exchange *x;
  TAILQ_FOREACH(x, &r->sent, link)
  if (x->id == id)
    return x;
  return NULL;
}

/* ---- Sending ------------------------------------------------------------- */

static void send_read(struct remote *r, struct exchange *x) {
  Cachet__Wire__Range ranges[FETCH_MAX_PAGES], *list[FETCH_MAX_PAGES];
  for (uint32_t i = 0; i < x->n_ranges; i++) {
    cachet__wire__range__init(&ranges[i]);
    ranges[i].offset = x->ranges[i].offset;
    ranges[i].length = x->ranges[i].len;
    list[i] = &ranges[i];
  }
  Cachet__Wire__Read read = CACHET__WIRE__READ__INIT;
  read.image = r->image_id;
  read.epoch = x->epoch;
  read.in_place = x->in_place;
  read.n_ranges = x->n_ranges;
  read.ranges = list;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  msg.id = x->id;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_READ;
  msg.read = &read;
  channel_send(r->channel, &msg);
}

static void send_command(struct remote *r, struct exchange *x) {
  wire_message *msg = x->request;
  msg->id = x->id;
  if (msg->body_case == CACHET__WIRE__MESSAGE__BODY_WARM)
    msg->warm->image = r->image_id;
  if (msg->body_case == CACHET__WIRE__MESSAGE__BODY_INVALIDATE)
    msg->invalidate->image = r->image_id;
  channel_send(r->channel, msg);
}

/* Makes room for the bytes of its pages, if there is none yet. */
static bool exchange_has_room(struct exchange *x) {
  if (!x->bytes)
    x->bytes = malloc((size_t)x->n_pages << x->job.mirror->page_shift);
  return x->bytes != NULL;
}

static void exchange_no_memory(struct remote *r, struct exchange *x) {
  struct cachet_error why;
  error_set(&why, CACHET_E_NOMEM, 0, "no memory for %u pages", x->n_pages);
  exchange_fail(r, x, &why);
}

/* Room for the answer, and what it has to fit; false: it ended instead. */
static bool prepare_read(struct remote *r, struct exchange *x) {
  struct image *img = r->base.store->image;
  struct mirror *m = x->job.mirror;
  const struct channel_limits *limits = channel_limits(r->channel);
  /* Either way it has to be asked anew, and another connection may have
   * other limits. */
  if (!is_current(r, m) || x->n_ranges > limits->max_ranges ||
      (uint64_t)x->n_pages << m->page_shift > limits->max_read) {
    exchange_changed(r, x);
    return false;
  }
  x->in_place = r->base.attachment != NULL;
  if (!x->in_place && !exchange_has_room(x)) {
    exchange_no_memory(r, x);
    return false;
  }
  x->generation = image_generation(img);
  x->epoch = m->epoch;
  x->at_range = 0;
  x->at_offset = x->received = 0;
  x->is_changed = false;
  return true;
}

static void exchange_send(struct remote *r, struct exchange *x) {
  if (!x->is_command && !prepare_read(r, x))
    return;
  exchange_unlink(r, x);
  x->id = channel_next_id(r->channel);
  x->is_sent = true;
  x->sent_at = clock_now_ms();
  r->n_sent++;
  TAILQ_INSERT_TAIL(&r->sent, x, link);
  if (x->is_command)
    send_command(r, x);
  else
    send_read(r, x);
}

/* Connects if that is wanted and due; sends what may be sent. */
static void remote_pump(struct remote *r) {
  bool wanted = r->is_opening || !TAILQ_EMPTY(&r->queue);
  if (channel_state(r->channel) == CHANNEL_DISCONNECTED && wanted &&
      !r->is_final && clock_now_ms() >= r->retry_at)
    channel_start(r->channel);
  while (is_ready(r) && !TAILQ_EMPTY(&r->queue) &&
         r->n_sent < channel_limits(r->channel)->max_requests &&
         !channel_is_full(r->channel))
    exchange_send(r, TAILQ_FIRST(&r->queue));
}

static void exchange_queue(struct remote *r, struct exchange *x) {
  TAILQ_INSERT_TAIL(&r->queue, x, link);
  if (r->is_final)
    exchange_fail(r, x, &r->story);
  else
    remote_pump(r);
}

/* ---- Answers ------------------------------------------------------------- */

static void violation(struct remote *r, const char *what) {
  channel_break(r->channel, CHANNEL_LOST_BROKEN, CACHET_E_PROTO, what);
}

/* Notes that the pages of `len` bytes from where the answer has come to are
 * resident.  False: they are not whole pages. */
static bool piece_in_place(struct exchange *x, uint64_t len, bool to_end) {
  unsigned shift = x->job.mirror->page_shift;
  uint64_t mask = (1ull << shift) - 1;
  uint64_t first = x->received >> shift, n = (len + mask) >> shift;
  if (x->received & mask || (len & mask && !to_end))
    return false;
  for (uint32_t i = 0; i < x->job.count; i++)
    if (x->place[i] != NO_PLACE && x->place[i] - first < n)
      x->place[i] = NO_PLACE;
  return true;
}

/* Whether a piece is the next one of what was asked for, and where it goes.
 * Sums cannot overflow: what is left of a range bounds the piece first. */
static bool piece_place(struct exchange *x, const Cachet__Wire__Data *d,
                        uint64_t len, uint8_t **out) {
  if (len == 0 || x->at_range >= x->n_ranges)
    return false;
  uint64_t range_len = x->ranges[x->at_range].len;
  uint64_t left = range_len - x->at_offset;
  if (d->range != x->at_range || len > left ||
      d->offset != x->ranges[x->at_range].offset + x->at_offset)
    return false;
  bool fills = len == left && x->at_range + 1 == x->n_ranges;
  if (d->last != fills)
    return false;
  if (d->resident && !piece_in_place(x, len, len == left))
    return false;
  *out = x->bytes ? x->bytes + x->received : NULL;
  x->at_offset += len;
  x->received += len;
  if (len == left) {
    x->at_range++;
    x->at_offset = 0;
  }
  return true;
}

static void handle_data(struct remote *r, struct exchange *x,
                        const Cachet__Wire__Data *d, uint32_t len,
                        uint8_t **payload) {
  bool fits = !x->is_command && (!d->resident || (x->in_place && !len));
  if (fits && len && !exchange_has_room(x)) {
    channel_break(r->channel, CHANNEL_LOST_RETRY, CACHET_E_NOMEM,
                  "no memory for an answer");
    return;
  }
  if (!fits || !piece_place(x, d, d->resident ? d->resident : len, payload)) {
    violation(r, "a piece of an image that was not the next one");
    return;
  }
  if (d->epoch != x->epoch)
    x->is_changed = true;
  r->incoming = x;
  r->incoming_last = d->last;
}

/* Puts what came into the cache.  What cannot stay is with the job. */
static void install_pages(struct remote *r, struct exchange *x) {
  struct mirror *m = x->job.mirror;
  if (x->in_place)
    return;
  for (uint32_t i = 0; i < x->job.count; i++)
    if (x->place[i] != NO_PLACE)
      image_install(r->base.store->image, m, x->job.first + i,
                    x->bytes + ((size_t)x->place[i] << m->page_shift),
                    x->generation);
}

/* The daemon is not at the epoch that was asked for.  If that is another than
 * it spoke of last, our cache went astray. */
static void epoch_refused(struct remote *r, const struct exchange *x) {
  /* Without memory for it the next answer says so again. */
  if (!x->in_place && x->epoch != r->heard.epoch)
    store_replace_epoch(r->base.store, x->epoch, r->heard.size, r->heard.epoch);
}

static void on_payload(void *arg) {
  struct remote *r = arg;
  struct exchange *x = r->incoming;
  r->incoming = NULL;
  if (!x || !r->incoming_last)
    return;
  r->retry_ms = 0; /* it works */
  if (x->is_changed) {
    epoch_refused(r, x);
    exchange_changed(r, x);
    return;
  }
  install_pages(r, x);
  exchange_end(r, x);
}

static void handle_answer(struct remote *r, struct exchange *x,
                          const wire_message *msg) {
  if (msg->body_case == CACHET__WIRE__MESSAGE__BODY_ERROR) {
    r->retry_ms = 0;
    channel_read_error(msg->error, &x->job.error);
    if (x->job.error.code == CACHET_E_CHANGED && !x->is_command)
      epoch_refused(r, x);
    exchange_end(r, x);
    return;
  }
  if (!x->is_command || msg->body_case != x->expected) {
    violation(r, "an answer of the wrong kind");
    return;
  }
  r->retry_ms = 0;
  int e = x->answer ? x->answer(x->answer_arg, msg) : 0;
  if (e < 0)
    error_set(&x->job.error, error_from_errno(-e), -e, "daemon at %.150s",
              channel_place(r->channel));
  exchange_end(r, x);
}

/* ---- Notices ------------------------------------------------------------- */

static void unpin(struct remote *r) {
  if (r->base.watch.unpin)
    r->base.watch.unpin(r->base.watch.arg);
}

/* Drops the pages that overlap a range of the daemon's, cut at the end. */
static int drop_range(struct remote *r, uint64_t offset, uint64_t len) {
  struct store *s = r->base.store;
  unsigned shift = image_page_shift(s->image);
  uint64_t end;
  if (len == 0)
    return 0;
  if (__builtin_add_overflow(offset, len, &end))
    end = UINT64_MAX;
  uint64_t first = offset >> shift;
  unpin(r);
  return store_invalidate(s, first, ((end - 1) >> shift) - first + 1);
}

/* What cannot be followed leaves a cache that cannot be believed. */
static void notice_failed(struct remote *r, int e) {
  struct cachet_error why;
  error_set(&why, error_from_errno(-e), -e, "image \"%.100s\": follow a change",
            r->base.store->name);
  channel_break(r->channel,
                e == -ENOMEM ? CHANNEL_LOST_RETRY : CHANNEL_LOST_REFUSED,
                why.code, why.message);
}

/* The least range that holds all of a notice's; of length 0 if it has none. */
static void notice_hull(const Cachet__Wire__Invalidated *n, uint64_t *from,
                        uint64_t *len) {
  uint64_t to = 0;
  *from = UINT64_MAX;
  for (size_t i = 0; i < n->n_ranges; i++) {
    uint64_t offset = n->ranges[i]->offset, end;
    if (__builtin_add_overflow(offset, n->ranges[i]->length, &end))
      end = UINT64_MAX;
    if (end == offset)
      continue;
    *from = offset < *from ? offset : *from;
    to = end > to ? end : to;
  }
  *len = to > *from ? to - *from : 0;
}

/* Each range costs a look at what is pinned: many are taken as one. */
static void handle_invalidated(struct remote *r,
                               const Cachet__Wire__Invalidated *n) {
  int e = 0;
  if (n->n_ranges > MAX_NOTICE_RANGES) {
    uint64_t offset, len;
    notice_hull(n, &offset, &len);
    e = drop_range(r, offset, len);
  } else {
    for (size_t i = 0; e == 0 && i < n->n_ranges; i++)
      e = drop_range(r, n->ranges[i]->offset, n->ranges[i]->length);
  }
  if (e < 0)
    notice_failed(r, e);
}

static void handle_changed(struct remote *r, const Cachet__Wire__Changed *n) {
  struct channel_image image;
  if (!channel_read_image(n->info, &image) ||
      image.page_shift != r->heard.page_shift) {
    violation(r, "what it says of the image cannot be");
    return;
  }
  uint64_t from = r->heard.epoch;
  r->heard = image;
  /* No store yet: it is going to be made of what was heard last. */
  int e = r->base.store
              ? store_set_epoch(r->base.store, from, image.size, image.epoch)
              : 0;
  if (e < 0)
    notice_failed(r, e);
}

static bool handle_notice(struct remote *r, const wire_message *msg) {
  struct store *s = r->base.store;
  if (msg->body_case == CACHET__WIRE__MESSAGE__BODY_INVALIDATED) {
    if (s && msg->invalidated->image == r->image_id)
      handle_invalidated(r, msg->invalidated);
    return true;
  }
  if (msg->body_case == CACHET__WIRE__MESSAGE__BODY_CHANGED) {
    if (msg->changed->info && msg->changed->info->image == r->image_id)
      handle_changed(r, msg->changed);
    return true;
  }
  return false;
}

/* ---- Attaching ----------------------------------------------------------- */

static bool may_attach(const struct remote *r) {
  return r->uri.kind == URI_UNIX &&
         !(r->options.flags & CACHET_NO_SHARED_MEMORY) &&
         channel_limits(r->channel)->share;
}

/* Asks for the mirror of the image's present epoch. */
static void attach_begin(struct remote *r) {
  Cachet__Wire__Attach attach = CACHET__WIRE__ATTACH__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  attach.image = r->image_id;
  r->attach_id = msg.id = channel_next_id(r->channel);
  r->attach_at = clock_now_ms();
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_ATTACH;
  msg.attach = &attach;
  channel_send(r->channel, &msg);
}

/* From here on pages are read from `a`; NULL: from the store, which knows
 * nothing of what happened meanwhile. */
static void attach_end(struct remote *r, struct attachment *a) {
  struct attachment *old = r->base.attachment;
  r->attach_id = 0;
  r->base.attachment = a;
  if (old && !a) {
    int e = drop_range(r, 0, UINT64_MAX);
    if (e < 0)
      notice_failed(r, e);
  }
  attachment_unref(old);
  backend_changed(&r->base);
}

static void handle_attached(struct remote *r,
                            const Cachet__Wire__Attached *msg) {
  struct channel_image image;
  struct attachment *a = NULL;
  int fds[ATTACH_N_DESCRIPTORS];
  if (!channel_read_image(msg->info, &image) || image.id != r->image_id ||
      msg->layout != MIRROR_LAYOUT ||
      !channel_take_fds(r->channel, fds, ATTACH_N_DESCRIPTORS)) {
    violation(r, "what it says of its memory cannot be");
    return;
  }
  int e = attachment_new(fds, image.size, image.page_shift, image.epoch,
                         msg->range_capacity, &a);
  if (e == -EPROTO) {
    violation(r, "its memory is not what it says");
    return;
  }
  /* A handle keeps its page size.  And what cannot be mapped here (RLIMIT_AS)
   * is read by the socket. */
  unsigned shift = r->base.store ? image_page_shift(r->base.store->image)
                                 : r->heard.page_shift;
  if (a && image.page_shift != shift) {
    attachment_unref(a);
    a = NULL;
  }
  attach_end(r, a);
  if (a)
    return;
  /* To the daemon we are attached, and get no notices: without memory of its
   * we need a connection that was never asked for it. */
  r->is_unshared = true;
  channel_break(r->channel, CHANNEL_LOST_RETRY, CACHET_E_CONN,
                "its memory cannot be mapped here");
  r->story.sys_errno = EAGAIN; /* remote_wait_ready() goes on */
}

static void handle_attach_answer(struct remote *r, const wire_message *msg) {
  if (msg->body_case == CACHET__WIRE__MESSAGE__BODY_ATTACHED)
    handle_attached(r, msg->attached);
  else if (msg->body_case == CACHET__WIRE__MESSAGE__BODY_ERROR)
    /* By the socket, then, as long as this connection lasts: a share that
     * becomes free meanwhile is not asked for before the next one. */
    attach_end(r, NULL);
  else
    violation(r, "an answer of the wrong kind");
}

static void on_message(void *arg, const wire_message *msg, uint32_t payload_len,
                       uint8_t **payload) {
  struct remote *r = arg;
  struct exchange *x = msg->id ? exchange_find(r, msg->id) : NULL;
  if (msg->id == 0 ? handle_notice(r, msg) : false)
    return;
  if (msg->id && msg->id == r->attach_id) {
    handle_attach_answer(r, msg);
    return;
  }
  if (!x)
    violation(r, "an answer that nothing had asked for");
  else if (msg->body_case == CACHET__WIRE__MESSAGE__BODY_DATA)
    handle_data(r, x, msg->data, payload_len, payload);
  else
    handle_answer(r, x, msg);
}

/* ---- The connection ------------------------------------------------------ */

static void on_ready(void *arg, const struct channel_image *image) {
  struct remote *r = arg;
  if (!image)
    return;
  r->image_id = image->id;
  r->heard = *image;
  struct store *s = r->base.store;
  if (may_attach(r) && !r->is_unshared)
    attach_begin(r);
  if (!s)
    return;
  /* Notices were missed: whatever is cached may be stale.  (R4) */
  int e = store_set_epoch(s, 0, image->size, image->epoch);
  if (e == 0)
    e = drop_range(r, 0, UINT64_MAX);
  if (e < 0)
    notice_failed(r, e);
}

static void on_lost(void *arg, enum channel_loss loss,
                    const struct cachet_error *why) {
  struct remote *r = arg;
  r->story = *why;
  r->attach_id = 0;
  r->is_final = loss == CHANNEL_LOST_FINAL;
  /* At once if the last connection was of use, then ever more slowly. */
  r->retry_at = clock_now_ms() + r->retry_ms;
  r->retry_ms = r->retry_ms ? r->retry_ms * 2 : RETRY_FIRST_MS;
  if (r->retry_ms > RETRY_LAST_MS)
    r->retry_ms = RETRY_LAST_MS;
  unsend_all(r);
  if (loss != CHANNEL_LOST_RETRY)
    fail_all(r, &r->story);
}

static void on_changed(void *arg) {
  backend_changed(&((struct remote *)arg)->base);
}

/* ---- Operations ---------------------------------------------------------- */

static void remote_drain(struct backend *b) {
  struct remote *r = remote_of(b);
  channel_input(r->channel);
  if (!TAILQ_EMPTY(&r->queue))
    remote_pump(r); /* there may be room for more, and nobody else to see it */
}

static bool remote_is_trusted(const struct backend *b) {
  const struct remote *r = remote_of(b);
  return is_ready(r) && !channel_has_more(r->channel);
}

static void remote_progress(struct backend *b) {
  struct remote *r = remote_of(b);
  channel_progress(r->channel);
  remote_pump(r);
}

static int remote_fd(const struct backend *b) {
  return channel_fd(remote_of(b)->channel);
}

static short remote_events(const struct backend *b) {
  return channel_events(remote_of(b)->channel);
}

static int remote_timeout_ms(const struct backend *b) {
  const struct remote *r = remote_of(b);
  if (channel_has_more(r->channel))
    return 0;
  if (channel_state(r->channel) != CHANNEL_DISCONNECTED)
    return clock_left_ms(channel_deadline(r->channel));
  bool wanted = r->is_opening || !TAILQ_EMPTY(&r->queue);
  return wanted && !r->is_final ? clock_left_ms(r->retry_at) : -1;
}

static void remote_explain(const struct backend *b, struct cachet_error *out) {
  const struct remote *r = remote_of(b);
  const char *place = channel_place(r->channel);
  if (channel_state(r->channel) >= CHANNEL_HELLO)
    error_set(out, CACHET_E_TIMEOUT, 0, "daemon at %.150s: no answer in time",
              place);
  else if (r->story.code != CACHET_OK)
    error_set(out, CACHET_E_CONN, 0, "%s", r->story.message);
  else
    error_set(out, CACHET_E_CONN, ETIMEDOUT, "daemon at %.150s: connect",
              place);
}

/* Adds a page to the exchange, joined to the range before it if it can be.
 * False: that would be more than the daemon takes. */
static bool read_add(struct remote *r, struct exchange *x, uint64_t page) {
  const struct mirror *m = x->job.mirror;
  uint64_t offset = page << m->page_shift, len = mirror_page_len(m, page);
  const struct channel_limits *limits = channel_limits(r->channel);
  uint32_t n = x->n_ranges;
  bool joins = n && x->ranges[n - 1].offset + x->ranges[n - 1].len == offset;
  uint64_t total = ((uint64_t)x->n_pages + 1) << m->page_shift;
  /* The first page goes in any case: a limit is at least a page. */
  if (n && (total > limits->max_read || (!joins && n == limits->max_ranges)))
    return false;
  if (joins) {
    x->ranges[n - 1].len += len;
  } else {
    x->ranges[n].offset = offset;
    x->ranges[n].len = len;
    x->n_ranges++;
  }
  x->place[page - x->job.first] = (uint8_t)x->n_pages++;
  return true;
}

/* A Read of those pages that are not resident, not queued yet; all of them
 * when the mirror cannot be believed.  NULL: no memory. */
static struct exchange *read_new(struct remote *r, struct mirror *m,
                                 uint64_t first, uint32_t count) {
  struct exchange *x = calloc(1, sizeof *x);
  if (!x)
    return NULL;
  x->job.mirror = mirror_ref(m);
  x->job.first = first;
  memset(x->place, NO_PLACE, sizeof x->place);
  bool trusted = r->base.attachment || remote_is_trusted(&r->base);
  for (; x->job.count < count; x->job.count++) {
    uint64_t page = first + x->job.count;
    if (trusted && residency_look(&m->words[page]) == PAGE_RESIDENT)
      continue;
    if (!read_add(r, x, page))
      break;
  }
  return x;
}

static void owner_unknown(struct job *j) { (void)j; }

/* A Read without an owner that is bringing `page` already, and began after the
 * last invalidation: a prefetch, mostly. */
static struct exchange *read_underway(const struct remote *r,
                                      const struct mirror *m, uint64_t page) {
  uint64_t generation = image_generation(r->base.store->image);
  struct exchange *x;
  TAILQ_FOREACH(x, &r->sent, link)
  if (!x->is_command && !exchange_is_owned(x) && x->job.mirror == m &&
      x->generation == generation && page >= x->job.first &&
      page - x->job.first < x->job.count &&
      x->place[page - x->job.first] != NO_PLACE)
    return x;
  return NULL;
}

static struct job *remote_fetch(struct backend *b, struct mirror *m,
                                uint64_t first, uint32_t count,
                                void (*done)(struct job *), void *owner) {
  struct remote *r = remote_of(b);
  const struct attachment *a = b->attachment;
  if (a && a->mirror == m && mirror_is_retired(m) && is_ready(r))
    attach_begin(r); /* the job ends, as CHANGED, when that is over */
  struct exchange *x =
      r->n_unowned && count ? read_underway(r, m, first) : NULL;
  if (x) {
    r->n_unowned--;
    x->job.owner = owner;
    x->job.done = done;
    return &x->job;
  }
  x = read_new(r, m, first, count);
  if (!x)
    return NULL;
  x->job.owner = owner;
  if (x->n_pages == 0 && count) {
    x->job.is_done = true;
    return &x->job;
  }
  /* What ends at once ends by is_done, not by a call. */
  x->job.done = owner_unknown;
  exchange_queue(r, x);
  x->job.done = done;
  return &x->job;
}

static const uint8_t *remote_bytes(const struct job *j, uint64_t page) {
  const struct exchange *x = (const struct exchange *)j;
  uint8_t place = x->place[page - j->first];
  if (!j->is_done || j->error.code != CACHET_OK || place == NO_PLACE)
    return NULL;
  return x->bytes + ((size_t)place << j->mirror->page_shift);
}

/* Whether nothing at all has come for as long as a request may take, with
 * something asked for all that time. */
static bool is_silent(const struct remote *r) {
  const struct exchange *x = TAILQ_FIRST(&r->sent); /* the oldest */
  if (channel_state(r->channel) != CHANNEL_READY ||
      r->options.request_timeout_ms < 0 || (!x && !r->attach_id))
    return false;
  int64_t since = channel_heard_at(r->channel);
  int64_t asked_at = x ? x->sent_at : r->attach_at;
  if (since < asked_at)
    since = asked_at;
  return clock_now_ms() - since >= r->options.request_timeout_ms;
}

static void remote_drop(struct backend *b, struct job *j) {
  struct remote *r = remote_of(b);
  struct exchange *x = (struct exchange *)j;
  if (j->is_done) {
    exchange_free(x);
    return;
  }
  if (x->is_sent) {
    j->owner = NULL; /* until its answer ends (R2) */
    r->n_unowned++;
  } else {
    exchange_unlink(r, x);
    exchange_free(x);
  }
  /* Who lost patience is gone.  A connection that is as good as dead goes with
   * him: the next request gets a new one, not the same silence. */
  if (is_silent(r))
    channel_break(r->channel, CHANNEL_LOST_RETRY, CACHET_E_TIMEOUT,
                  "it does not answer");
}

/* One chunk.  False: no more can be asked for now. */
static bool prefetch_chunk(struct remote *r, struct mirror *m, uint64_t first,
                           uint32_t count) {
  if (!is_ready(r) || r->n_unowned >= MAX_PREFETCHES)
    return false;
  struct exchange *x = read_new(r, m, first, count);
  if (!x)
    return false;
  if (x->n_pages == 0) {
    exchange_free(x);
    return true;
  }
  r->n_unowned++;
  exchange_queue(r, x);
  return true;
}

static uint32_t remote_prefetch(struct backend *b, struct mirror *m,
                                uint64_t first, uint32_t count) {
  uint32_t done = 0;
  while (done < count) {
    uint32_t n = count - done;
    if (n > FETCH_MAX_PAGES)
      n = FETCH_MAX_PAGES;
    if (!prefetch_chunk(remote_of(b), m, first + done, n))
      break;
    done += n;
  }
  return done;
}

/* ---- Commands ------------------------------------------------------------ */

bool remote_is(const struct backend *b) {
  return b->ops->drain == remote_drain;
}

uint64_t remote_max_read(const struct backend *b) {
  return channel_limits(remote_of(b)->channel)->max_read;
}

enum cachet_status remote_command(struct backend *b, wire_message *request,
                                  Cachet__Wire__Message__BodyCase expected,
                                  int (*answer)(void *arg,
                                                const wire_message *msg),
                                  void *arg, struct cachet_error *err) {
  struct remote *r = remote_of(b);
  struct exchange *x = calloc(1, sizeof *x);
  if (!x)
    return error_set(err, CACHET_E_NOMEM, 0, "no memory for a request");
  x->job.owner = r;
  x->job.done = owner_unknown;
  x->is_command = true;
  x->request = request;
  x->expected = expected;
  x->answer = answer;
  x->answer_arg = arg;
  int64_t deadline = clock_deadline(r->options.request_timeout_ms);
  exchange_queue(r, x);
  while (!x->job.is_done && backend_wait(b, deadline))
    ;
  struct cachet_error why = x->job.error;
  if (!x->job.is_done)
    remote_explain(b, &why);
  x->answer = NULL; /* what these point to ends with this call */
  x->request = NULL;
  remote_drop(b, &x->job);
  if (why.code != CACHET_OK && err)
    *err = why;
  return why.code;
}

static enum cachet_status remote_invalidate(struct backend *b, uint64_t first,
                                            uint64_t count,
                                            struct cachet_error *err) {
  struct remote *r = remote_of(b);
  unsigned shift = image_page_shift(b->store->image);
  Cachet__Wire__Range range = CACHET__WIRE__RANGE__INIT;
  range.offset = first << shift;
  range.length = count << shift;
  Cachet__Wire__Invalidate invalidate = CACHET__WIRE__INVALIDATE__INIT;
  invalidate.range = &range;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_INVALIDATE;
  msg.invalidate = &invalidate;
  enum cachet_status status = remote_command(
      b, &msg, CACHET__WIRE__MESSAGE__BODY_DONE, NULL, NULL, err);
  if (status != CACHET_OK || b->attachment)
    return status;
  /* Our own notice is here as well; but a copy of this handle may have
   * installed since then what it asked for before. */
  int e = drop_range(r, range.offset, range.length);
  if (e < 0)
    return error_set(err, error_from_errno(-e), -e,
                     "image \"%.100s\": invalidate", b->store->name);
  return CACHET_OK;
}

/* ---- Life ---------------------------------------------------------------- */

static const struct backend_ops remote_ops;

static void remote_free(struct remote *r) {
  channel_free(r->channel);
  uri_fini(&r->uri);
  free(r);
}

static void remote_close(struct backend *b) {
  struct remote *r = remote_of(b);
  struct exchange *x;
  /* In a child, mirrors and store are the parent's. */
  if (!b->store || !store_is_forked(b->store)) {
    while ((x = TAILQ_FIRST(&r->sent)) || (x = TAILQ_FIRST(&r->queue))) {
      exchange_unlink(r, x);
      exchange_free(x);
    }
    attachment_unref(b->attachment);
    if (b->store)
      store_unref(b->store);
  }
  remote_free(r);
}

/* Not connected yet.  `store` stays the caller's. */
static enum cachet_status remote_new(const struct uri *u,
                                     const struct options *options,
                                     bool open_image, struct remote **out,
                                     struct cachet_error *err) {
  struct remote *r = calloc(1, sizeof *r);
  if (!r)
    return error_set(err, CACHET_E_NOMEM, 0, "no memory for a handle");
  r->base.ops = &remote_ops;
  r->options = *options;
  TAILQ_INIT(&r->queue);
  TAILQ_INIT(&r->sent);
  struct channel_owner owner = {.ready = on_ready,
                                .message = on_message,
                                .payload = on_payload,
                                .lost = on_lost,
                                .changed = on_changed,
                                .arg = r};
  enum cachet_status status = uri_copy(u, &r->uri);
  if (status != CACHET_OK)
    error_set(err, status, 0, "no memory for an address");
  else
    status = channel_new(u, open_image, options->connect_timeout_ms,
                         options->request_timeout_ms, &owner, &r->channel, err);
  if (status != CACHET_OK) {
    remote_free(r);
    return status;
  }
  *out = r;
  return CACHET_OK;
}

/* Waits until the connection is READY.  A daemon that is not there is an error
 * at once; one whose backlog is full is waited for. */
static enum cachet_status remote_wait_ready(struct remote *r,
                                            struct cachet_error *err) {
  int64_t deadline = clock_deadline(r->options.connect_timeout_ms);
  r->is_opening = true;
  remote_pump(r);
  struct cachet_error why = {0};
  while (!is_ready(r) && why.code == CACHET_OK) {
    if (channel_state(r->channel) == CHANNEL_DISCONNECTED &&
        r->story.sys_errno != EAGAIN)
      why = r->story;
    else if (!backend_wait(&r->base, deadline))
      remote_explain(&r->base, &why);
  }
  r->is_opening = false;
  if (why.code != CACHET_OK && err)
    *err = why;
  return why.code;
}

enum cachet_status remote_connect(const struct uri *u,
                                  const struct options *options,
                                  struct backend **out,
                                  struct cachet_error *err) {
  struct remote *r;
  enum cachet_status status = remote_new(u, options, false, &r, err);
  if (status == CACHET_OK && (status = remote_wait_ready(r, err)) != CACHET_OK)
    remote_close(&r->base);
  if (status == CACHET_OK)
    *out = &r->base;
  return status;
}

enum cachet_status remote_open(const struct uri *u,
                               const struct options *options,
                               struct backend **out, struct cachet_error *err) {
  struct remote *r;
  enum cachet_status status = remote_new(u, options, true, &r, err);
  if (status != CACHET_OK)
    return status;
  status = remote_wait_ready(r, err);
  if (status == CACHET_OK) {
    const struct channel_image *image = &r->heard;
    status = store_new_remote(u->image, image->size, image->page_shift,
                              image->epoch, options, &r->base.store, err);
  }
  if (status != CACHET_OK) {
    remote_close(&r->base);
    return status;
  }
  *out = &r->base;
  return CACHET_OK;
}

static enum cachet_status remote_copy(struct backend *b, struct backend **out,
                                      struct cachet_error *err) {
  struct remote *r = remote_of(b), *copy;
  enum cachet_status status =
      remote_new(&r->uri, &r->options, true, &copy, err);
  if (status != CACHET_OK)
    return status;
  copy->base.store = store_ref(b->store);
  status = remote_wait_ready(copy, err);
  if (status != CACHET_OK) {
    remote_close(&copy->base);
    return status;
  }
  *out = &copy->base;
  return CACHET_OK;
}

static const struct backend_ops remote_ops = {
    .invalidate_waits = true,
    .copy_waits = true,
    .fetch = remote_fetch,
    .bytes = remote_bytes,
    .drop = remote_drop,
    .drain = remote_drain,
    .is_trusted = remote_is_trusted,
    .progress = remote_progress,
    .fd = remote_fd,
    .events = remote_events,
    .timeout_ms = remote_timeout_ms,
    .explain = remote_explain,
    .prefetch = remote_prefetch,
    .invalidate = remote_invalidate,
    .copy = remote_copy,
    .close = remote_close,
};

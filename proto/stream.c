#include "proto/stream.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The memory of kept bytes is a multiple of this, so that it does not change
 * its size with each byte. */
#define KEPT_PIECE ((size_t)512)

/* ---- Bytes that are kept --------------------------------------------------
 */

static void kept_free(struct stream_kept *k) {
  free(k->bytes);
  *k = (struct stream_kept){0};
}

/* Makes room for `more` bytes behind those that are in use. */
static bool kept_reserve(struct stream_kept *k, size_t more, size_t room) {
  if (k->start) {
    memmove(k->bytes, k->bytes + k->start, k->end - k->start);
    k->end -= k->start;
    k->start = 0;
  }
  if (more <= k->cap - k->end)
    return true;
  size_t cap = (k->end + more + KEPT_PIECE - 1) & ~(KEPT_PIECE - 1);
  if (cap - k->cap > room)
    return false;
  uint8_t *bytes = realloc(k->bytes, cap);
  if (!bytes)
    return false;
  k->bytes = bytes;
  k->cap = cap;
  return true;
}

static void kept_add(struct stream_kept *k, const void *bytes, size_t len) {
  memcpy(k->bytes + k->end, bytes, len);
  k->end += len;
}

static void kept_check(const struct stream_kept *k) {
  assert(k->start <= k->end && k->end <= k->cap && !k->bytes == !k->cap);
}

/* ---- Life -----------------------------------------------------------------
 */

void stream_init(struct stream *s, const struct stream_io *io, void *transport,
                 const struct frame_limits *limits) {
  *s = (struct stream){.io = io, .transport = transport, .limits = *limits};
}

/* T1, T3 and T4, after a call that went well: it has memory for what is unsent
 * and, between two loans, for what was not processed. */
static void stream_check(const struct stream *s) {
  kept_check(&s->rest);
  kept_check(&s->unsent);
  assert(!s->unsent.cap || s->unsent.start < s->unsent.end);
  assert(s->in || !s->rest.cap || s->rest.start < s->rest.end);
  assert(!s->in || (s->in_start <= s->in_end && s->in_end <= s->in_cap));
  assert(s->payload_due || !s->payload_left);
  assert(s->n_fds_in <= STREAM_MAX_FDS && s->n_fds_out <= STREAM_MAX_FDS);
}

static void stream_close_fds(struct stream *s, const int *fds, unsigned n,
                             bool came) {
  for (unsigned i = 0; i < n; i++)
    s->io->close_fd(s->transport, fds[i], came);
}

static void stream_drop_fds_in(struct stream *s) {
  stream_close_fds(s, s->fds_in, s->n_fds_in, true);
  s->n_fds_in = 0;
  s->fds_cut = false;
}

void stream_fini(struct stream *s) {
  stream_drop_fds_in(s);
  stream_drop_fds(s);
  stream_abandon(s);
}

void stream_abandon(struct stream *s) {
  kept_free(&s->rest);
  kept_free(&s->unsent);
  *s = (struct stream){0};
}

/* ---- Input ----------------------------------------------------------------
 */

void stream_lend(struct stream *s, void *bytes, size_t len) {
  size_t have = s->rest.end;
  assert(!s->in && have <= len);
  s->in = bytes;
  s->in_start = 0;
  s->in_end = have;
  s->in_cap = len;
  if (have)
    memcpy(bytes, s->rest.bytes, have);
}

int stream_keep_input(struct stream *s, size_t room) {
  const uint8_t *bytes = s->in + s->in_start;
  size_t len = s->in_end - s->in_start;
  s->in = NULL;
  s->rest.end = 0; /* a copy, from before the loan */
  if (!len)
    kept_free(&s->rest);
  else if (kept_reserve(&s->rest, len, room))
    kept_add(&s->rest, bytes, len);
  else
    return -ENOMEM;
  stream_check(s);
  return 0;
}

void stream_drop_input(struct stream *s) {
  s->in = NULL;
  kept_free(&s->rest);
}

/* Keeps descriptors that were received.  False: none were expected, and they
 * were closed. */
static bool stream_keep_fds(struct stream *s, const struct stream_fds *came) {
  if (came->stray)
    return false;
  if (!came->n && !came->cut)
    return true;
  stream_drop_fds_in(s); /* of bytes that did not ask for them */
  if (!s->wants_fds || came->n > STREAM_MAX_FDS) {
    stream_close_fds(s, came->fds, came->n, true);
    return false;
  }
  memcpy(s->fds_in, came->fds, came->n * sizeof came->fds[0]);
  s->n_fds_in = (uint8_t)came->n;
  s->fds_cut = came->cut;
  return true;
}

/* Notes that `n` bytes of payload are in their buffer. */
static void stream_advance(struct stream *s, size_t n) {
  if (s->payload)
    s->payload += n;
  s->payload_left -= (uint32_t)n;
}

static void stream_move_to_front(struct stream *s) {
  if (!s->in_start)
    return;
  memmove(s->in, s->in + s->in_start, s->in_end - s->in_start);
  s->in_end -= s->in_start;
  s->in_start = 0;
}

int stream_receive(struct stream *s, size_t most) {
  struct stream_fds came; /* but for n, cut and stray not set */
  bool straight = s->payload && s->payload_left;
  stream_move_to_front(s);
  uint8_t *to = straight ? s->payload : s->in + s->in_end;
  size_t len = straight ? s->payload_left : s->in_cap - s->in_end;
  if (len > most)
    len = most;
  assert(s->in && len && (!straight || !s->in_end));
  ssize_t n;
  do {
    came.n = 0;
    came.cut = came.stray = false;
    n = s->io->recv(s->transport, to, len, &came);
  } while (n == -EINTR);
  assert(n <= (ssize_t)len);
  if (!stream_keep_fds(s, &came))
    return STREAM_STRAY;
  if (n == -EAGAIN || n == -EWOULDBLOCK)
    return STREAM_NOTHING;
  if (n <= 0)
    return n ? (int)n : STREAM_END;
  s->drained = (size_t)n < len;
  if (straight)
    stream_advance(s, (size_t)n);
  else
    s->in_end += (size_t)n;
  stream_check(s);
  return STREAM_CAME;
}

size_t stream_missing(const struct stream *s) {
  struct frame_header header;
  size_t have = s->in_end - s->in_start;
  if (s->payload_due)
    return s->payload_left > have ? s->payload_left - have : 0;
  switch (frame_peek(s->in + s->in_start, have, &s->limits, &header)) {
  case FRAME_PARTIAL:
    return FRAME_HEADER_LEN - have;
  case FRAME_OK:
    have -= FRAME_HEADER_LEN;
    return header.message_len > have ? header.message_len - have : 0;
  default:
    return 0;
  }
}

/* Takes payload out of the buffer. */
static enum stream_next stream_take_payload(struct stream *s) {
  size_t n = s->in_end - s->in_start;
  if (n > s->payload_left)
    n = s->payload_left;
  if (n && s->payload)
    memcpy(s->payload, s->in + s->in_start, n);
  s->in_start += n;
  stream_advance(s, n);
  if (s->payload_left)
    return STREAM_MORE;
  s->payload_due = false;
  return STREAM_PAYLOAD;
}

enum stream_next stream_take(struct stream *s, struct frame_arena *arena,
                             struct frame_header *header, wire_message **msg) {
  if (s->payload_due)
    return stream_take_payload(s);
  const uint8_t *at = s->in + s->in_start;
  size_t have = s->in_end - s->in_start;
  enum frame_outcome outcome = frame_peek(at, have, &s->limits, header);
  if (outcome == FRAME_TOO_LONG)
    return STREAM_TOO_LONG;
  if (outcome == FRAME_PARTIAL || have - FRAME_HEADER_LEN < header->message_len)
    return STREAM_MORE;
  if (frame_unpack(arena, at + FRAME_HEADER_LEN, header->message_len, msg) !=
      FRAME_OK)
    return STREAM_BAD;
  s->in_start += FRAME_HEADER_LEN + header->message_len;
  s->payload = NULL;
  s->payload_left = header->payload_len;
  s->payload_due = header->payload_len > 0;
  stream_check(s);
  return STREAM_MESSAGE;
}

void stream_place(struct stream *s, void *payload) {
  assert(s->payload_due);
  s->payload = payload;
}

unsigned stream_take_fds(struct stream *s, int fds[STREAM_MAX_FDS], bool *cut) {
  unsigned n = s->n_fds_in;
  memcpy(fds, s->fds_in, n * sizeof *fds);
  *cut = s->fds_cut;
  s->n_fds_in = 0;
  s->fds_cut = false;
  return n;
}

/* ---- Output ---------------------------------------------------------------
 */

/* Sends.  Returns how many bytes the transport has taken, or a negative
 * errno. */
static ssize_t stream_transmit(struct stream *s, const struct iovec *iovs,
                               size_t n_iovs) {
  ssize_t n;
  do
    n = s->io->send(s->transport, iovs, n_iovs, s->fds_out, s->n_fds_out);
  while (n == -EINTR);
  if (n == -EAGAIN || n == -EWOULDBLOCK || n == -ENOBUFS)
    return 0;
  if (n > 0)
    stream_drop_fds(s); /* the receiver has its own */
  if (n < 0)
    kept_free(&s->unsent);
  return n;
}

/* Keeps the bytes behind the first `skip` to send them later. */
static void stream_keep_unsent(struct stream *s, const struct iovec *iovs,
                               size_t n_iovs, size_t skip) {
  for (size_t i = 0; i < n_iovs; i++) {
    size_t sent = skip < iovs[i].iov_len ? skip : iovs[i].iov_len;
    skip -= sent;
    if (sent < iovs[i].iov_len)
      kept_add(&s->unsent, (const uint8_t *)iovs[i].iov_base + sent,
               iovs[i].iov_len - sent);
  }
}

static size_t iovs_len(const struct iovec *iovs, size_t n_iovs) {
  size_t len = 0;
  for (size_t i = 0; i < n_iovs; i++)
    len += iovs[i].iov_len;
  return len;
}

int stream_keep(struct stream *s, const struct iovec *iovs, size_t n_iovs,
                size_t room) {
  if (!kept_reserve(&s->unsent, iovs_len(iovs, n_iovs), room))
    return -ENOMEM;
  stream_keep_unsent(s, iovs, n_iovs, 0);
  return STREAM_KEPT;
}

int stream_send(struct stream *s, const struct iovec *iovs, size_t n_iovs,
                size_t room) {
  size_t len = iovs_len(iovs, n_iovs);
  ssize_t n = stream_unsent(s) ? 0 : stream_transmit(s, iovs, n_iovs);
  if (n < 0)
    return (int)n;
  if ((size_t)n == len)
    return STREAM_SENT;
  if (!kept_reserve(&s->unsent, len - (size_t)n, room))
    return -ENOMEM;
  stream_keep_unsent(s, iovs, n_iovs, (size_t)n);
  stream_check(s);
  return STREAM_KEPT;
}

int stream_flush(struct stream *s) {
  if (!stream_unsent(s))
    return STREAM_SENT;
  struct iovec unsent = {s->unsent.bytes + s->unsent.start, stream_unsent(s)};
  ssize_t n = stream_transmit(s, &unsent, 1);
  if (n < 0)
    return (int)n;
  s->unsent.start += (size_t)n;
  if (stream_unsent(s))
    return STREAM_KEPT;
  kept_free(&s->unsent);
  stream_check(s);
  return STREAM_SENT;
}

void stream_give_fds(struct stream *s, const int *fds, unsigned n) {
  assert(!stream_has_fds(s) && !stream_unsent(s) && n <= STREAM_MAX_FDS);
  memcpy(s->fds_out, fds, n * sizeof *fds);
  s->n_fds_out = (uint8_t)n;
}

void stream_drop_fds(struct stream *s) {
  stream_close_fds(s, s->fds_out, s->n_fds_out, false);
  s->n_fds_out = 0;
}

/* A stream: receives messages with payloads and sends bytes, over a transport.
 *
 * Both sides of a connection use it.  It makes system calls only through its
 * transport, and never waits.
 *
 *   T1  It receives into a buffer that the owner lends.  Between two loans it
 *       keeps only the bytes that were not processed.
 *   T2  It receives payload directly into the owner's memory, except the part
 *       that arrived together with earlier bytes.
 *   T3  It does not copy output, unless the transport does not accept it.  Then
 *       it keeps the rest, and sends it before anything else.
 *   T4  stream_held() is all the memory that it has.  An owner that accounts
 *       for it says with each call how many bytes may be added: `room`.
 *   T5  The stream closes each descriptor once, or passes it on.
 *
 * It trusts nothing that it receives.  One thread at a time. */
#ifndef PROTO_STREAM_H
#define PROTO_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "proto/frame.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
  STREAM_MAX_FDS = 4,  /* that are sent, or taken, at once */
  STREAM_ANY_FDS = 253 /* that may arrive at once: the kernel's SCM_MAX_FD */
};

/* Descriptors that arrived with bytes. */
struct stream_fds {
  int fds[STREAM_ANY_FDS];
  unsigned n;
  bool cut;   /* some were lost: this process had no room for them */
  bool stray; /* there are some that the transport does not receive */
};

/* What a transport waits for, in addition to bytes from the peer. */
enum stream_wants {
  STREAM_WANTS_NOTHING,
  STREAM_WANTS_TURN, /* it has bytes, even if the peer sends none */
  STREAM_WANTS_ROOM, /* it must send before it can return bytes */
};

/* The transport of a stream.  No call waits. */
struct stream_io {
  /* Like recv(2): returns the number of bytes received, 0 at the end, or a
   * negative errno.  On entry `came->n` is 0 and the flags are false; the call
   * adds the descriptors that arrived with these bytes. */
  ssize_t (*recv)(void *transport, void *bytes, size_t len,
                  struct stream_fds *came);

  /* Like sendmsg(2): returns the number of bytes accepted, or a negative errno.
   * It sends `n_fds` descriptors, possibly none, with the first byte. */
  ssize_t (*send)(void *transport, const struct iovec *iovs, size_t n_iovs,
                  const int *fds, unsigned n_fds);

  /* Closes a descriptor: one that arrived (`came`), which may be any file, or
   * one that was to be sent. */
  void (*close_fd)(void *transport, int fd, bool came);

  /* What it waits for since the last recv().  NULL: always nothing. */
  enum stream_wants (*wants)(const void *transport);

  /* Tells the peer that nothing more will be sent, if there is room for that.
   * NULL: the transport has no such message. */
  void (*end)(void *transport);
};

struct stream {
  const struct stream_io *io;
  void *transport;
  struct frame_limits limits;

  /* in[in_start..in_end) was not processed; NULL: no buffer is lent */
  uint8_t *in;
  size_t in_start, in_end, in_cap;
  struct stream_kept {
    uint8_t *bytes;
    size_t start, end, cap; /* [start..end) is in use */
  } rest;                   /* between loans: not processed */
  uint8_t *payload;         /* where it is stored; NULL: nowhere */
  uint32_t payload_left;    /* bytes of it that have not arrived */
  bool payload_due;         /* the previous message has one */
  bool wants_fds;
  bool drained; /* the last receive returned less than requested */
  bool fds_cut; /* see stream_take_fds() */
  uint8_t n_fds_in, n_fds_out;
  int fds_in[STREAM_MAX_FDS];  /* arrived, and were not taken yet */
  int fds_out[STREAM_MAX_FDS]; /* are sent with the next byte */
  struct stream_kept unsent;
};

/* `transport` is the first argument of the calls of `io`. */
void stream_init(struct stream *s, const struct stream_io *io, void *transport,
                 const struct frame_limits *limits);

/* Frees its memory and closes its descriptors.  A stream that is zeroed, or was
 * ended before, is allowed. */
void stream_fini(struct stream *s);

/* Frees its memory only: for a forked child, in which the numbers of its
 * descriptors may belong to other files. */
void stream_abandon(struct stream *s);

/* Its memory, without the buffer that it was lent. */
static inline size_t stream_held(const struct stream *s) {
  return s->rest.cap + s->unsent.cap;
}

/* ---- Input --------------------------------------------------------------- */

/* Lends a buffer, longer than a header and the longest message, until one of
 * the next two calls. */
void stream_lend(struct stream *s, void *bytes, size_t len);

/* Takes the buffer back; the stream keeps the bytes that were not processed. 0;
 * or -ENOMEM: there are more than `room`, and they are lost. */
int stream_keep_input(struct stream *s, size_t room);

/* Takes the buffer back, if one is lent, and discards the bytes in it. */
void stream_drop_input(struct stream *s);

/* Whether bytes were received and not processed. */
static inline bool stream_has_input(const struct stream *s) {
  return s->in ? s->in_start < s->in_end : s->rest.start < s->rest.end;
}

enum stream_came {
  STREAM_CAME,    /* bytes arrived */
  STREAM_NOTHING, /* nothing arrived now */
  STREAM_END,     /* nothing more will arrive */
  STREAM_STRAY,   /* descriptors that were not requested, or too many */
};

/* Receives once, at most `most` bytes.  All earlier bytes must have been
 * processed: the last stream_take() has returned STREAM_MORE.  Returns an enum
 * stream_came or a negative errno. */
int stream_receive(struct stream *s, size_t most);

/* Whether the last stream_receive() left nothing in the transport at that time,
 * or descriptors are next. */
static inline bool stream_is_drained(const struct stream *s) {
  return s->drained;
}

/* What the transport waits for since the last stream_receive().  A loop that
 * waits only for the socket might otherwise wait forever, or not at all. */
static inline enum stream_wants stream_wants(const struct stream *s) {
  return s->io->wants ? s->io->wants(s->transport) : STREAM_WANTS_NOTHING;
}

/* How many bytes are missing before a message can be processed, as far as this
 * is known. 0: stream_take() has a result. */
size_t stream_missing(const struct stream *s);

enum stream_next {
  STREAM_MESSAGE,  /* a message; header->payload_len bytes of payload follow */
  STREAM_PAYLOAD,  /* the payload of the previous message is complete */
  STREAM_MORE,     /* more bytes must be received */
  STREAM_TOO_LONG, /* a length is over its limit; the input ends here */
  STREAM_BAD,      /* not a known message; the input ends here */
};

/* Processes the next part of the input.  `*header` and `*msg` are set with
 * STREAM_MESSAGE; the message lives in the arena until the arena's next use.  A
 * buffer must be lent. */
enum stream_next stream_take(struct stream *s, struct frame_arena *arena,
                             struct frame_header *header, wire_message **msg);

/* Sets where the payload of the message that was just taken is stored: memory
 * of header->payload_len bytes.  Without this call, or with NULL, the payload
 * is discarded. */
void stream_place(struct stream *s, void *payload);

/* Sets whether descriptors may arrive.  Initially they may not. */
static inline void stream_want_fds(struct stream *s, bool want) {
  s->wants_fds = want;
}

/* Passes on the descriptors that arrived with the bytes that were received
 * last, if any, and returns their number.  `*cut`: others were lost, because
 * this process had no room for them. */
unsigned stream_take_fds(struct stream *s, int fds[STREAM_MAX_FDS], bool *cut);

/* ---- Output -------------------------------------------------------------- */

enum stream_sent {
  STREAM_SENT, /* nothing is unsent */
  STREAM_KEPT, /* some bytes are unsent, and kept */
};

/* Sends bytes after the unsent ones, and keeps what the transport does not
 * accept.  Returns an enum stream_sent; -ENOMEM if that would exceed `room`,
 * and some bytes are lost; or another negative errno: the transport accepted
 * nothing of it, and the unsent bytes are discarded. */
int stream_send(struct stream *s, const struct iovec *iovs, size_t n_iovs,
                size_t room);

/* Keeps bytes after the unsent ones for the next stream_flush(), so that many
 * small messages are sent at once.  STREAM_KEPT or -ENOMEM. */
int stream_keep(struct stream *s, const struct iovec *iovs, size_t n_iovs,
                size_t room);

/* Sends the unsent bytes, as far as the transport accepts them.  Returns what
 * stream_send() does, except -ENOMEM. */
int stream_flush(struct stream *s);

/* The number of unsent bytes. */
static inline size_t stream_unsent(const struct stream *s) {
  return s->unsent.end - s->unsent.start;
}

/* Tells the peer that nothing more will be sent, if the transport has such a
 * message.  Nothing may be unsent. */
static inline void stream_end(struct stream *s) {
  if (s->io->end)
    s->io->end(s->transport);
}

/* Gives the stream descriptors.  It sends them with the next byte and then
 * closes them.  It must have none, and nothing may be unsent. */
void stream_give_fds(struct stream *s, const int *fds, unsigned n);

/* Whether it has descriptors that were not sent. */
static inline bool stream_has_fds(const struct stream *s) {
  return s->n_fds_out > 0;
}

/* Closes those descriptors instead of sending them. */
void stream_drop_fds(struct stream *s);

#ifdef __cplusplus
}
#endif

#endif

/* A stream: messages with payloads in, bytes out, over some transport.
 *
 * Both ends of a connection stand on it.  It makes no system call but through
 * its transport, and never waits.
 *
 *   T1  Input is received into a buffer that the owner lends.  Between loans
 *       the stream keeps only the bytes that were not looked at.
 *   T2  Payload is received straight to where the owner wants it, but for the
 *       part that came in one piece with the bytes before it.
 *   T3  Output is not copied, unless the transport does not take it: then the
 *       rest is kept, and goes out before anything else.
 *   T4  stream_held() is all the memory that it has.  An owner that accounts
 *       for it says with each call how many bytes may be added: `room`.
 *   T5  A descriptor is closed once, by the stream, or handed over.
 *
 * Whatever is received is hostile.  One thread at a time. */
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
  STREAM_MAX_FDS = 4,  /* that go along, or are taken, at once */
  STREAM_ANY_FDS = 253 /* that may come at once: the kernel's SCM_MAX_FD */
};

/* Descriptors that came along with bytes. */
struct stream_fds {
  int fds[STREAM_ANY_FDS];
  unsigned n;
  bool cut;   /* some were lost: this process had no room for them */
  bool stray; /* there are some, which the transport does not take */
};

/* What a transport waits for, beside bytes that come. */
enum stream_wants {
  STREAM_WANTS_NOTHING,
  STREAM_WANTS_TURN, /* it has more to hand out, though nothing need come */
  STREAM_WANTS_ROOM, /* it hands out nothing before it could send */
};

/* What a stream does its input and output by.  No call waits. */
struct stream_io {
  /* Like recv(2): bytes that came, 0 at the end, or a negative errno.
   * `came->n` is 0, and the rest false; descriptors that came along with these
   * bytes are added. */
  ssize_t (*recv)(void *transport, void *bytes, size_t len,
                  struct stream_fds *came);

  /* Like sendmsg(2): bytes that were taken, or a negative errno.  `n_fds`
   * descriptors, maybe none, go along with the first byte. */
  ssize_t (*send)(void *transport, const struct iovec *iovs, size_t n_iovs,
                  const int *fds, unsigned n_fds);

  /* Closes a descriptor: one that `came` along, which may be anything, or one
   * that was to be sent. */
  void (*close_fd)(void *transport, int fd, bool came);

  /* What it waits for since the last recv().  NULL: always nothing. */
  enum stream_wants (*wants)(const void *transport);

  /* Tells the peer that nothing more will be sent, if there is room for that.
   * NULL: it has no words for it. */
  void (*end)(void *transport);
};

struct stream {
  const struct stream_io *io;
  void *transport;
  struct frame_limits limits;

  /* in[in_start..in_end) is not looked at yet; NULL: no buffer is lent */
  uint8_t *in;
  size_t in_start, in_end, in_cap;
  struct stream_kept {
    uint8_t *bytes;
    size_t start, end, cap; /* [start..end) is in use */
  } rest;                   /* between loans: not looked at */
  uint8_t *payload;         /* where it goes; NULL: nowhere */
  uint32_t payload_left;    /* bytes of it that are to come */
  bool payload_due;         /* the message before has one */
  bool wants_fds;
  bool drained; /* the last receive came short */
  bool fds_cut; /* see stream_take_fds() */
  uint8_t n_fds_in, n_fds_out;
  int fds_in[STREAM_MAX_FDS];  /* came along, and were not taken yet */
  int fds_out[STREAM_MAX_FDS]; /* go with the next byte that is sent */
  struct stream_kept unsent;
};

/* `transport` is what the calls of `io` are given. */
void stream_init(struct stream *s, const struct stream_io *io, void *transport,
                 const struct frame_limits *limits);

/* Forgets all, and closes the descriptors that it has.  One that is zeroed, or
 * was ended before, is fine. */
void stream_fini(struct stream *s);

/* The same in a forked child, whose descriptors may be somebody else's by now:
 * frees memory alone. */
void stream_abandon(struct stream *s);

/* The memory that it has, but for what it is lent. */
static inline size_t stream_held(const struct stream *s) {
  return s->rest.cap + s->unsent.cap;
}

/* ---- Input --------------------------------------------------------------- */

/* Lends a buffer: longer than a header and the longest message, and there until
 * one of the next two calls. */
void stream_lend(struct stream *s, void *bytes, size_t len);

/* Takes the buffer back, and has the stream keep what was not looked at.  0, or
 * -ENOMEM: it would be too much, and is lost. */
int stream_keep_input(struct stream *s, size_t room);

/* Takes the buffer back, if one is lent.  Nobody looks at what has come. */
void stream_drop_input(struct stream *s);

/* Whether bytes were received and not looked at. */
static inline bool stream_has_input(const struct stream *s) {
  return s->in ? s->in_start < s->in_end : s->rest.start < s->rest.end;
}

enum stream_came {
  STREAM_CAME,    /* bytes */
  STREAM_NOTHING, /* for now */
  STREAM_END,     /* and nothing more will */
  STREAM_STRAY,   /* descriptors that were not asked for, or too many */
};

/* Receives once, `most` bytes at most.  All that came before has been looked
 * at: the last stream_take() has said STREAM_MORE.  An enum stream_came, or a
 * negative errno. */
int stream_receive(struct stream *s, size_t most);

/* Whether the last stream_receive() left nothing behind, at the time; or
 * descriptors are next. */
static inline bool stream_is_drained(const struct stream *s) {
  return s->drained;
}

/* What the transport waits for since the last stream_receive(): a loop that
 * waits for its socket alone would wait for ever, or not at all. */
static inline enum stream_wants stream_wants(const struct stream *s) {
  return s->io->wants ? s->io->wants(s->transport) : STREAM_WANTS_NOTHING;
}

/* How many bytes are missing before a message can be looked at, as far as is
 * known.  0: stream_take() has something to say. */
size_t stream_missing(const struct stream *s);

enum stream_next {
  STREAM_MESSAGE,  /* and header->payload_len bytes of payload are next */
  STREAM_PAYLOAD,  /* that of the message before is complete */
  STREAM_MORE,     /* more has to be received */
  STREAM_TOO_LONG, /* a length is over its limit; there is nothing after it */
  STREAM_BAD,      /* no message that is known; likewise */
};

/* Looks at what is next.  `*header` and `*msg` are set with STREAM_MESSAGE; the
 * message lives in the arena until the arena's next use.  A buffer is lent. */
enum stream_next stream_take(struct stream *s, struct frame_arena *arena,
                             struct frame_header *header, wire_message **msg);

/* Says where the payload of the message that was just taken goes: there are
 * header->payload_len bytes.  Without it, or with NULL, it is dropped. */
void stream_place(struct stream *s, void *payload);

/* Whether descriptors may come along.  At first they may not. */
static inline void stream_want_fds(struct stream *s, bool want) {
  s->wants_fds = want;
}

/* Hands over the descriptors that came with the bytes that were received last,
 * as far as any did.  Returns their number.  `*cut`: others were lost, as this
 * process had no room for them. */
unsigned stream_take_fds(struct stream *s, int fds[STREAM_MAX_FDS], bool *cut);

/* ---- Output -------------------------------------------------------------- */

enum stream_sent {
  STREAM_SENT, /* nothing is unsent */
  STREAM_KEPT, /* some is */
};

/* Sends bytes behind those that are unsent, and keeps what the transport does
 * not take.  An enum stream_sent; -ENOMEM: that would be too much, and some is
 * lost; or another negative errno: the transport took nothing of it, and what
 * was unsent is forgotten. */
int stream_send(struct stream *s, const struct iovec *iovs, size_t n_iovs,
                size_t room);

/* Keeps bytes behind those that are unsent, for the next stream_flush(): so
 * that many small messages go out at once.  STREAM_KEPT or -ENOMEM. */
int stream_keep(struct stream *s, const struct iovec *iovs, size_t n_iovs,
                size_t room);

/* Sends what is unsent, as far as the transport takes it.  The same, but for
 * -ENOMEM. */
int stream_flush(struct stream *s);

/* Bytes. */
static inline size_t stream_unsent(const struct stream *s) {
  return s->unsent.end - s->unsent.start;
}

/* Tells the peer, if the transport has words for it, that nothing more will be
 * sent.  Nothing is unsent. */
static inline void stream_end(struct stream *s) {
  if (s->io->end)
    s->io->end(s->transport);
}

/* Gives it descriptors, which go along with the next byte that is sent and are
 * closed then.  It has none, and nothing is unsent. */
void stream_give_fds(struct stream *s, const int *fds, unsigned n);

/* Whether it has some that have not gone out. */
static inline bool stream_has_fds(const struct stream *s) {
  return s->n_fds_out > 0;
}

/* Closes those, and they do not go out. */
void stream_drop_fds(struct stream *s);

#ifdef __cplusplus
}
#endif

#endif

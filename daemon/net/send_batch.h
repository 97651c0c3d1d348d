/* A send batch: what a thread has gathered for one connection, on its way to
 * one sendmsg(2).
 *
 * Headers and messages are packed into a scratch buffer; payload is named
 * where it lies: in a mirror's pinned pages, in a fetch's buffer, or in one of
 * the batch's own.
 *
 *   O1  It belongs to one connection at a time, and is empty whenever the
 *       thread's loop runs: connection_flush() ends every turn.
 *   O2  Pins last from send_batch_pinned() to send_batch_reset(), within one
 *       turn, and fetches from send_batch_fetched(): a peer that does not read
 *       never holds one.
 *
 * That thread only. */
#ifndef DAEMON_NET_SEND_BATCH_H
#define DAEMON_NET_SEND_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "daemon/engine/image_reader.h"
#include "proto/frame.h"

enum {
  SEND_BATCH_SCRATCH_LEN = 2 * (FRAME_HEADER_LEN + FRAME_MAX_MESSAGE),
  SEND_BATCH_IOVS = 512, /* within IOV_MAX */
  /* The longest Data or notice: a few numbers and a name of 64 bytes.  Asserted
   * where notices are packed. */
  SEND_BATCH_SMALL_LEN = 256,
  /* Buffers for payload that is copied, and the length of each. */
  SEND_BATCH_COPIES = 16,
  SEND_BATCH_COPY_LEN = 4096,
};

/* A fetch that has bytes of a batch. */
struct send_batch_fetch {
  /* The batch does not need the bytes any more. */
  void (*sent)(struct send_batch_fetch *f);
  size_t len; /* of its buffer */
  struct send_batch_fetch *next;
};

struct send_batch {
  uint8_t *scratch;
  size_t scratch_len;
  uint8_t *copies; /* SEND_BATCH_COPIES buffers */
  unsigned n_copies;
  struct iovec iovs[SEND_BATCH_IOVS];
  unsigned n_iovs;
  size_t len;         /* bytes in all */
  size_t payload_len; /* of them payload */
  struct image_reader *pinned;
  struct send_batch_fetch *fetches; /* whose bytes are in it */
  size_t fetched_len;               /* what their buffers have in all */
};

int send_batch_init(struct send_batch *o);
void send_batch_fini(struct send_batch *o);

/* Whether it has no bytes, pins or fetches. */
static inline bool send_batch_is_empty(const struct send_batch *o) {
  return o->len == 0 && !o->pinned && !o->fetches;
}

/* Whether a frame with a message of `message_len` bytes and `n_segments`
 * pieces of payload still fits. */
bool send_batch_has_room(const struct send_batch *o, size_t message_len,
                         unsigned n_segments);

/* Adds a frame's header and message; `payload_len` bytes of payload are to
 * follow, by send_batch_payload().  There is room. */
void send_batch_frame(struct send_batch *o, const wire_message *msg,
                      size_t payload_len);
void send_batch_payload(struct send_batch *o, const void *bytes, size_t len);

/* Takes a buffer of the batch for payload, SEND_BATCH_COPY_LEN bytes.  NULL:
 * all are taken until send_batch_reset(). */
void *send_batch_copy(struct send_batch *o);

/* Notes that `l` has pins that some of the payload needs. */
void send_batch_pinned(struct send_batch *o, struct image_reader *l);

/* Notes that some of the payload is in the buffer of a fetch, which is not in
 * the batch yet. */
void send_batch_fetched(struct send_batch *o, struct send_batch_fetch *f);

/* Forgets everything, ends the pins, and gives the fetches back. */
void send_batch_reset(struct send_batch *o);

#endif

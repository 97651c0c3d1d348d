#include "daemon/net/send_batch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int send_batch_init(struct send_batch *o) {
  o->scratch = malloc(SEND_BATCH_SCRATCH_LEN);
  /* From the start of a page: some processors copy faster to there. */
  o->copies = aligned_alloc(SEND_BATCH_COPY_LEN,
                            (size_t)SEND_BATCH_COPIES * SEND_BATCH_COPY_LEN);
  return o->scratch && o->copies ? 0 : -ENOMEM;
}

void send_batch_fini(struct send_batch *o) {
  free(o->scratch);
  free(o->copies);
}

bool send_batch_has_room(const struct send_batch *o, size_t message_len,
                         unsigned n_segments) {
  return o->scratch_len + FRAME_HEADER_LEN + message_len <=
             SEND_BATCH_SCRATCH_LEN &&
         o->n_iovs + 1 + n_segments <= SEND_BATCH_IOVS;
}

/* Bytes that lie behind the last ones extend its iovec: a run of pages is one,
 * and so are messages in a row. */
static void send_batch_add(struct send_batch *o, const void *bytes,
                           size_t len) {
  struct iovec *last = o->n_iovs ? &o->iovs[o->n_iovs - 1] : NULL;
  o->len += len;
  if (last && (const uint8_t *)last->iov_base + last->iov_len == bytes) {
    last->iov_len += len;
    return;
  }
  assert(o->n_iovs < SEND_BATCH_IOVS);
  o->iovs[o->n_iovs++] = (struct iovec){(void *)bytes, len};
}

void send_batch_frame(struct send_batch *o, const wire_message *msg,
                      size_t payload_len) {
  size_t len = frame_packed_len(msg);
  assert(o->scratch_len + len <= SEND_BATCH_SCRATCH_LEN);
  assert(payload_len <= FRAME_MAX_PAYLOAD);
  uint8_t *at = o->scratch + o->scratch_len;
  frame_pack(msg, (uint32_t)payload_len, at);
  o->scratch_len += len;
  send_batch_add(o, at, len);
}

void send_batch_payload(struct send_batch *o, const void *bytes, size_t len) {
  o->payload_len += len;
  send_batch_add(o, bytes, len);
}

void *send_batch_copy(struct send_batch *o) {
  return o->n_copies < SEND_BATCH_COPIES
             ? o->copies + (size_t)o->n_copies++ * SEND_BATCH_COPY_LEN
             : NULL;
}

void send_batch_pinned(struct send_batch *o, struct image_reader *l) {
  for (struct image_reader *p = o->pinned; p; p = p->next_pinned)
    if (p == l)
      return;
  l->next_pinned = o->pinned;
  o->pinned = l;
}

void send_batch_fetched(struct send_batch *o, struct send_batch_fetch *f) {
  f->next = o->fetches;
  o->fetches = f;
  o->fetched_len += f->len;
}

void send_batch_reset(struct send_batch *o) {
  for (struct image_reader *l = o->pinned; l; l = l->next_pinned)
    image_reader_unpin(l);
  o->pinned = NULL;
  for (struct send_batch_fetch *f = o->fetches, *next; f; f = next) {
    next = f->next;
    f->sent(f);
  }
  o->fetches = NULL;
  o->fetched_len = 0;
  o->scratch_len = 0;
  o->n_copies = 0;
  o->n_iovs = 0;
  o->len = 0;
  o->payload_len = 0;
}

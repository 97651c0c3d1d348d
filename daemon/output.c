#include "daemon/output.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int output_init(struct output *o) {
  o->scratch = malloc(OUTPUT_SCRATCH_LEN);
  return o->scratch ? 0 : -ENOMEM;
}

void output_fini(struct output *o) { free(o->scratch); }

bool output_has_room(const struct output *o, size_t message_len,
                     unsigned n_segments) {
  return o->scratch_len + FRAME_HEADER_LEN + message_len <=
             OUTPUT_SCRATCH_LEN &&
         o->n_iovs + 1 + n_segments <= OUTPUT_IOVS;
}

/* Bytes that lie behind the last ones extend its iovec: a run of pages is one,
 * and so are messages in a row. */
static void output_add(struct output *o, const void *bytes, size_t len) {
  struct iovec *last = o->n_iovs ? &o->iovs[o->n_iovs - 1] : NULL;
  o->len += len;
  if (last && (const uint8_t *)last->iov_base + last->iov_len == bytes) {
    last->iov_len += len;
    return;
  }
  assert(o->n_iovs < OUTPUT_IOVS);
  o->iovs[o->n_iovs++] = (struct iovec){(void *)bytes, len};
}

void output_frame(struct output *o, const wire_message *msg,
                  size_t payload_len) {
  size_t len = frame_packed_len(msg);
  assert(o->scratch_len + len <= OUTPUT_SCRATCH_LEN);
  assert(payload_len <= FRAME_MAX_PAYLOAD);
  uint8_t *at = o->scratch + o->scratch_len;
  frame_pack(msg, (uint32_t)payload_len, at);
  o->scratch_len += len;
  output_add(o, at, len);
}

void output_payload(struct output *o, const void *bytes, size_t len) {
  o->payload_len += len;
  output_add(o, bytes, len);
}

void output_pinned(struct output *o, struct lens *l) {
  for (struct lens *p = o->pinned; p; p = p->next_pinned)
    if (p == l)
      return;
  l->next_pinned = o->pinned;
  o->pinned = l;
}

void output_reset(struct output *o) {
  for (struct lens *l = o->pinned; l; l = l->next_pinned)
    lens_unpin(l);
  o->pinned = NULL;
  o->scratch_len = 0;
  o->n_iovs = 0;
  o->len = 0;
  o->payload_len = 0;
}

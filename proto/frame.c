#include "proto/frame.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "proto/codec.h"

static uint32_t get_le32(const uint8_t *p) {
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
         (uint32_t)p[3] << 24;
}

static void put_le32(uint8_t *p, uint32_t n) {
  for (int i = 0; i < 4; i++)
    p[i] = (uint8_t)(n >> (8 * i));
}

enum frame_outcome frame_peek(const void *buf, size_t len,
                              const struct frame_limits *limits,
                              struct frame_header *out) {
  if (len < FRAME_HEADER_LEN)
    return FRAME_PARTIAL;
  out->message_len = get_le32(buf);
  out->payload_len = get_le32((const uint8_t *)buf + 4);
  if (out->message_len > limits->max_message ||
      out->payload_len > limits->max_payload)
    return FRAME_TOO_LONG;
  return FRAME_OK;
}

/* ---- Arena --------------------------------------------------------------- */

struct frame_arena {
  size_t len, used;
  max_align_t bytes[];
};

struct frame_arena *frame_arena_new(size_t len) {
  struct frame_arena *a = malloc(sizeof *a + len);
  if (a)
    *a = (struct frame_arena){.len = len};
  return a;
}

void frame_arena_free(struct frame_arena *arena) { free(arena); }

static void *arena_alloc(void *data, size_t size) {
  struct frame_arena *a = data;
  if (size > a->len - a->used)
    return NULL;
  size_t rounded =
      (size + sizeof(max_align_t) - 1) & ~(sizeof(max_align_t) - 1);
  void *p = (char *)a->bytes + a->used;
  a->used = rounded < a->len - a->used ? a->used + rounded : a->len;
  return p;
}

/* Everything goes at once, with the next message. */
static void arena_release(void *data, void *pointer) {
  (void)data;
  (void)pointer;
}

enum frame_outcome frame_unpack(struct frame_arena *arena, const void *buf,
                                size_t len, wire_message **out) {
  ProtobufCAllocator allocator = {
      .alloc = arena_alloc, .free = arena_release, .allocator_data = arena};
  arena->used = 0;
  wire_message *msg = codec_unpack(&allocator, len, buf);
  if (!msg) {
    arena->used = 0; /* of what it tried */
    msg = cachet__wire__message__unpack(&allocator, len, buf);
  }
  if (!msg || msg->body_case == CACHET__WIRE__MESSAGE__BODY__NOT_SET)
    return FRAME_BAD_MESSAGE;
  *out = msg;
  return FRAME_OK;
}

/* ---- Packing ------------------------------------------------------------- */

size_t frame_packed_len(const wire_message *msg) {
  return FRAME_HEADER_LEN + (codec_packs(msg)
                                 ? codec_packed_len(msg)
                                 : cachet__wire__message__get_packed_size(msg));
}

void frame_pack(const wire_message *msg, uint32_t payload_len, void *out) {
  uint8_t *p = out, *at = p + FRAME_HEADER_LEN;
  size_t len = codec_packs(msg) ? (size_t)(codec_pack(msg, at) - at)
                                : cachet__wire__message__pack(msg, at);
  put_le32(p, (uint32_t)len);
  put_le32(p + 4, payload_len);
}

/* Framing: messages and payloads on a stream of bytes.
 *
 * A frame is two little-endian 32-bit lengths, a protobuf Message, then raw
 * payload.  Every length is held against its limit before anything is
 * allocated; nothing here keeps state or does I/O. */
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/cachet.pb-c.h"

#ifdef __cplusplus
extern "C" {
#endif

#define PROTO_VERSION 1
#define FRAME_HEADER_LEN 8

/* What either side of this implementation takes.  A Message of 64 KiB holds
 * some 3,000 ranges; unpacked it takes at most FRAME_ARENA_LEN. */
enum {
  FRAME_MAX_MESSAGE = 64 << 10,
  FRAME_MAX_PAYLOAD = 4 << 20,
};

typedef Cachet__Wire__Message wire_message;

struct frame_limits {
  uint32_t max_message;
  uint32_t max_payload;
};

struct frame_header {
  uint32_t message_len;
  uint32_t payload_len;
};

enum frame_outcome {
  FRAME_OK,
  FRAME_PARTIAL,     /* more bytes are needed */
  FRAME_TOO_LONG,    /* a length is over its limit */
  FRAME_BAD_MESSAGE, /* not a Message, or one with no body known here */
};

/* Reads the two lengths at the start of `buf`.  FRAME_OK, FRAME_PARTIAL or
 * FRAME_TOO_LONG. */
enum frame_outcome frame_peek(const void *buf, size_t len,
                              const struct frame_limits *limits,
                              struct frame_header *out);

/* Memory for one unpacked message: a bump allocator over a buffer that is
 * reused from message to message.  What does not fit fails the unpacking. */
struct frame_arena;
struct frame_arena *frame_arena_new(size_t len);
void frame_arena_free(struct frame_arena *arena);

/* Enough for any Message of FRAME_MAX_MESSAGE bytes. */
#define FRAME_ARENA_LEN ((size_t)4 << 20)

/* Unpacks a message of `len` bytes.  `*out` lives in the arena until the next
 * call with the same arena.  Unknown fields are skipped.  FRAME_OK or
 * FRAME_BAD_MESSAGE. */
enum frame_outcome frame_unpack(struct frame_arena *arena, const void *buf,
                                size_t len, wire_message **out);

/* How many bytes the header and the message take on the wire. */
size_t frame_packed_len(const wire_message *msg);

/* Writes header and message to `out` (frame_packed_len() bytes), for a payload
 * of `payload_len` bytes that the caller sends behind it. */
void frame_pack(const wire_message *msg, uint32_t payload_len, void *out);

#ifdef __cplusplus
}
#endif

#endif

/* Frames: messages and payloads in a stream of bytes.
 *
 * A frame is two little-endian 32-bit lengths, a protobuf Message, and the
 * payload.  Every length is compared with its limit before memory is allocated.
 * This module keeps no state and does no I/O. */
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

/* Bytes of ImageInfo.identity. */
#define PROTO_MAX_IDENTITY 96
#define FRAME_HEADER_LEN 8

/* The largest message and payload that either side of this implementation
 * accepts.  A Message of 64 KiB has about 3,000 ranges; unpacked it takes at
 * most FRAME_ARENA_LEN. */
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
  FRAME_BAD_MESSAGE, /* not a Message, or one with an unknown body */
};

/* Reads the two lengths at the start of `buf`.  FRAME_OK, FRAME_PARTIAL or
 * FRAME_TOO_LONG. */
enum frame_outcome frame_peek(const void *buf, size_t len,
                              const struct frame_limits *limits,
                              struct frame_header *out);

/* Memory for one unpacked message: a bump allocator over a buffer that is
 * reused for each message.  Unpacking a message that does not fit fails. */
struct frame_arena;
struct frame_arena *frame_arena_new(size_t len);
void frame_arena_free(struct frame_arena *arena);

/* Enough for any Message of FRAME_MAX_MESSAGE bytes. */
#define FRAME_ARENA_LEN ((size_t)4 << 20)

/* Unpacks a message of `len` bytes.  `*out` lives in the arena until the next
 * call with the same arena.  Unknown fields are ignored.  FRAME_OK or
 * FRAME_BAD_MESSAGE. */
enum frame_outcome frame_unpack(struct frame_arena *arena, const void *buf,
                                size_t len, wire_message **out);

/* The length of the header and the message in the stream. */
size_t frame_packed_len(const wire_message *msg);

/* Writes the header and the message to `out` (frame_packed_len() bytes).  The
 * caller sends a payload of `payload_len` bytes after them. */
void frame_pack(const wire_message *msg, uint32_t payload_len, void *out);

#ifdef __cplusplus
}
#endif

#endif

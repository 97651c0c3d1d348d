// Frames from hostile bytes: whatever comes is decoded or refused, within the
// arena; and what decodes packs to a frame again.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "proto/frame.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static frame_arena *arena = frame_arena_new(FRAME_ARENA_LEN);
  const frame_limits limits = {FRAME_MAX_MESSAGE, FRAME_MAX_PAYLOAD};
  while (size > 0) {
    frame_header header;
    if (frame_peek(data, size, &limits, &header) != FRAME_OK)
      return 0;
    data += FRAME_HEADER_LEN;
    size -= FRAME_HEADER_LEN;
    if (header.message_len > limits.max_message ||
        header.payload_len > limits.max_payload)
      abort();
    if (header.message_len > size)
      return 0;
    // A copy of its own, so that a read past the end is seen.
    std::vector<uint8_t> bytes(data, data + header.message_len);
    wire_message *msg;
    if (frame_unpack(arena, bytes.data(), bytes.size(), &msg) == FRAME_OK) {
      // Not the same bytes (protobuf has many encodings), but a frame again.
      std::vector<uint8_t> packed(frame_packed_len(msg));
      frame_pack(msg, header.payload_len, packed.data());
      const frame_limits any = {UINT32_MAX, UINT32_MAX};
      frame_header same;
      if (frame_peek(packed.data(), packed.size(), &any, &same) != FRAME_OK ||
          same.message_len != packed.size() - FRAME_HEADER_LEN ||
          same.payload_len != header.payload_len)
        abort();
    }
    data += header.message_len;
    size -= header.message_len;
  }
  return 0;
}

#include "proto/frame.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace {

constexpr frame_limits kLimits = {FRAME_MAX_MESSAGE, 1000};

struct ArenaFree {
  void operator()(frame_arena *a) const { frame_arena_free(a); }
};

class FrameTest : public testing::Test {
protected:
  FrameTest() : arena_(frame_arena_new(FRAME_ARENA_LEN)) {}

  static std::vector<uint8_t> PackRead(uint64_t id, size_t n_ranges,
                                       uint32_t payload_len = 0) {
    wire_message msg = CACHET__WIRE__MESSAGE__INIT;
    Cachet__Wire__Read read = CACHET__WIRE__READ__INIT;
    Cachet__Wire__Range range = CACHET__WIRE__RANGE__INIT;
    range.offset = 4096;
    range.length = 512;
    std::vector<Cachet__Wire__Range *> ranges(n_ranges, &range);
    read.image = 3;
    read.n_ranges = n_ranges;
    read.ranges = ranges.data();
    msg.id = id;
    msg.body_case = CACHET__WIRE__MESSAGE__BODY_READ;
    msg.read = &read;
    std::vector<uint8_t> out(frame_packed_len(&msg));
    frame_pack(&msg, payload_len, out.data());
    return out;
  }

  frame_outcome Unpack(const std::vector<uint8_t> &frame, wire_message **out) {
    return frame_unpack(arena_.get(), frame.data() + FRAME_HEADER_LEN,
                        frame.size() - FRAME_HEADER_LEN, out);
  }

  std::unique_ptr<frame_arena, ArenaFree> arena_;
};

TEST_F(FrameTest, WhatIsPackedUnpacks) {
  auto frame = PackRead(77, 3, 9);
  frame_header header;
  ASSERT_EQ(frame_peek(frame.data(), frame.size(), &kLimits, &header),
            FRAME_OK);
  EXPECT_EQ(header.message_len, frame.size() - FRAME_HEADER_LEN);
  EXPECT_EQ(header.payload_len, 9u);
  wire_message *msg;
  ASSERT_EQ(Unpack(frame, &msg), FRAME_OK);
  EXPECT_EQ(msg->id, 77u);
  ASSERT_EQ(msg->body_case, CACHET__WIRE__MESSAGE__BODY_READ);
  ASSERT_EQ(msg->read->n_ranges, 3u);
  EXPECT_EQ(msg->read->ranges[2]->length, 512u);
}

TEST_F(FrameTest, TheLengthsAreLittleEndian) {
  const uint8_t bytes[] = {0x02, 0x01, 0, 0, 0x03, 0, 0, 0};
  frame_header header;
  ASSERT_EQ(frame_peek(bytes, sizeof bytes, &kLimits, &header), FRAME_OK);
  EXPECT_EQ(header.message_len, 0x102u);
  EXPECT_EQ(header.payload_len, 3u);
}

TEST_F(FrameTest, AHeaderThatIsNotThereYetIsPartial) {
  auto frame = PackRead(1, 1);
  frame_header header;
  for (size_t len = 0; len < FRAME_HEADER_LEN; len++)
    EXPECT_EQ(frame_peek(frame.data(), len, &kLimits, &header), FRAME_PARTIAL);
}

TEST_F(FrameTest, LengthsOverTheLimitAreRefused) {
  frame_header header;
  uint8_t bytes[8] = {0, 0, 1, 0, 0, 0, 0, 0}; // 65536
  EXPECT_EQ(frame_peek(bytes, 8, &kLimits, &header), FRAME_OK);
  bytes[0] = 1;
  EXPECT_EQ(frame_peek(bytes, 8, &kLimits, &header), FRAME_TOO_LONG);
  const uint8_t payload[8] = {0, 0, 0, 0, 0xe9, 3, 0, 0}; // 1001
  EXPECT_EQ(frame_peek(payload, 8, &kLimits, &header), FRAME_TOO_LONG);
  const uint8_t most[8] = {255, 255, 255, 255, 255, 255, 255, 255};
  EXPECT_EQ(frame_peek(most, 8, &kLimits, &header), FRAME_TOO_LONG);
}

TEST_F(FrameTest, ATruncatedMessageIsBad) {
  auto frame = PackRead(1, 1);
  wire_message *msg;
  for (size_t cut = 1; cut < frame.size() - FRAME_HEADER_LEN - 2; cut++) {
    auto shorter = frame;
    shorter.erase(shorter.end() - std::ptrdiff_t(cut), shorter.end());
    EXPECT_EQ(Unpack(shorter, &msg), FRAME_BAD_MESSAGE) << cut;
  }
}

TEST_F(FrameTest, AMessageWithoutABodyThatWeKnowIsBad) {
  wire_message *msg;
  std::vector<uint8_t> frame(FRAME_HEADER_LEN);
  EXPECT_EQ(Unpack(frame, &msg), FRAME_BAD_MESSAGE);
  frame.insert(frame.end(), {0x08, 0x05}); // id = 5
  EXPECT_EQ(Unpack(frame, &msg), FRAME_BAD_MESSAGE);
}

TEST_F(FrameTest, UnknownFieldsAreSkipped) {
  auto frame = PackRead(5, 1);
  // Field 100, a varint; field 101, three bytes.
  frame.insert(frame.end(), {0xa0, 0x06, 0x01, 0xaa, 0x06, 3, 'a', 'b', 'c'});
  wire_message *msg;
  ASSERT_EQ(Unpack(frame, &msg), FRAME_OK);
  EXPECT_EQ(msg->id, 5u);
  EXPECT_EQ(msg->read->n_ranges, 1u);
}

TEST_F(FrameTest, TheLongestMessageFitsTheArena) {
  // The densest: as many empty ranges as go into the limit.
  size_t n = 16;
  while (PackRead(1, n * 2).size() <= FRAME_MAX_MESSAGE)
    n *= 2;
  wire_message *msg;
  EXPECT_EQ(Unpack(PackRead(1, n), &msg), FRAME_OK);
  EXPECT_EQ(msg->read->n_ranges, n);
  // Empty ranges, two bytes each: a Read of 32,000.
  std::vector<uint8_t> body;
  for (int i = 0; i < 32000; i++)
    body.insert(body.end(), {0x1a, 0x00});
  std::vector<uint8_t> frame(FRAME_HEADER_LEN);
  frame.insert(frame.end(), {0x22, 0x80, 0xf4, 0x03}); // Read, 64000 bytes
  frame.insert(frame.end(), body.begin(), body.end());
  ASSERT_EQ(Unpack(frame, &msg), FRAME_OK);
  EXPECT_EQ(msg->read->n_ranges, 32000u);
}

TEST_F(FrameTest, AnArenaThatIsTooSmallFailsTheUnpacking) {
  std::unique_ptr<frame_arena, ArenaFree> tiny(frame_arena_new(64));
  auto frame = PackRead(1, 100);
  wire_message *msg;
  EXPECT_EQ(frame_unpack(tiny.get(), frame.data() + FRAME_HEADER_LEN,
                         frame.size() - FRAME_HEADER_LEN, &msg),
            FRAME_BAD_MESSAGE);
}

} // namespace

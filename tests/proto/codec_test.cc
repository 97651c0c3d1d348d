// Read and Data without protobuf-c, beside what that makes of the same bytes.
#include "proto/codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <random>
#include <vector>

#include "proto/frame.h"

namespace {

using Bytes = std::vector<uint8_t>;

struct MessageFree {
  void operator()(wire_message *m) const {
    cachet__wire__message__free_unpacked(m, nullptr);
  }
};
using Message = std::unique_ptr<wire_message, MessageFree>;

Bytes PackByProtobuf(const wire_message &msg) {
  Bytes out(cachet__wire__message__get_packed_size(&msg));
  cachet__wire__message__pack(&msg, out.data());
  return out;
}

Message UnpackByProtobuf(const Bytes &bytes) {
  return Message(
      cachet__wire__message__unpack(nullptr, bytes.size(), bytes.data()));
}

// Memory for one unpacked message.
class Arena {
public:
  // The first `n` allocations succeed; -1: all.
  explicit Arena(int n = -1) : n_left_(n) {}

  // The bytes are a copy of their length, so that the sanitizer sees a read
  // past their end.  Null: the message is left to protobuf-c.
  const wire_message *Unpack(const Bytes &bytes) {
    copy_.reset(new uint8_t[bytes.size()]);
    std::copy(bytes.begin(), bytes.end(), copy_.get());
    ProtobufCAllocator allocator = {Allocate, nullptr, this};
    return codec_unpack(&allocator, bytes.size(), copy_.get());
  }

private:
  static void *Allocate(void *arg, size_t len) {
    Arena *arena = static_cast<Arena *>(arg);
    if (arena->n_left_ == 0)
      return nullptr;
    arena->n_left_--;
    arena->memory_.emplace_back(new max_align_t[len / sizeof(max_align_t) + 1]);
    return arena->memory_.back().get();
  }

  int n_left_;
  std::unique_ptr<uint8_t[]> copy_;
  std::vector<std::unique_ptr<max_align_t[]>> memory_;
};

// A message and the memory of its parts.
struct Parts {
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  Cachet__Wire__Read read = CACHET__WIRE__READ__INIT;
  Cachet__Wire__Data data = CACHET__WIRE__DATA__INIT;
  std::vector<Cachet__Wire__Range> ranges;
  std::vector<Cachet__Wire__Range *> pointers;
};

class CodecTest : public testing::Test {
protected:
  // Numbers of each length, and those around the limits.
  uint64_t Number() {
    uint64_t n = random_() >> random_() % 64;
    return random_() % 4 ? n : (UINT64_C(1) << random_() % 64) - random_() % 2;
  }

  uint64_t OrNothing(uint64_t n) { return random_() % 3 ? n : 0; }

  void MakeRead(Parts *p) {
    p->read.image = uint32_t(OrNothing(Number()));
    p->read.epoch = OrNothing(Number());
    p->read.in_place = random_() % 2;
    p->ranges.resize(random_() % 5);
    for (Cachet__Wire__Range &range : p->ranges) {
      cachet__wire__range__init(&range);
      range.offset = OrNothing(Number());
      range.length = OrNothing(Number());
      p->pointers.push_back(&range);
    }
    p->read.n_ranges = p->pointers.size();
    p->read.ranges = p->pointers.data();
    p->msg.body_case = CACHET__WIRE__MESSAGE__BODY_READ;
    p->msg.read = &p->read;
  }

  void MakeData(Parts *p) {
    p->data.epoch = OrNothing(Number());
    p->data.range = uint32_t(OrNothing(Number()));
    p->data.offset = OrNothing(Number());
    p->data.last = random_() % 2;
    p->data.resident = OrNothing(Number());
    p->msg.body_case = CACHET__WIRE__MESSAGE__BODY_DATA;
    p->msg.data = &p->data;
  }

  void Make(Parts *p) {
    p->msg.id = OrNothing(Number());
    if (random_() % 2)
      MakeRead(p);
    else
      MakeData(p);
  }

  Bytes MakeBytes() {
    Parts p;
    Make(&p);
    return PackByProtobuf(p.msg);
  }

  // What it takes, it takes as protobuf-c does.
  static bool IsAsProtobuf(const Bytes &bytes) {
    Arena arena;
    const wire_message *taken = arena.Unpack(bytes);
    if (!taken)
      return true;
    Message other = UnpackByProtobuf(bytes);
    return other && taken->id == other->id &&
           taken->body_case == other->body_case &&
           PackByProtobuf(*taken) == PackByProtobuf(*other);
  }

  static bool IsLeft(const Bytes &bytes) { return !Arena().Unpack(bytes); }

  std::mt19937_64 random_{7};
};

TEST_F(CodecTest, PacksWhatProtobufPacks) {
  for (int i = 0; i < 20000; i++) {
    Parts p;
    Make(&p);
    Bytes out(codec_packed_len(&p.msg));
    ASSERT_EQ(codec_pack(&p.msg, out.data()), out.data() + out.size());
    ASSERT_EQ(out, PackByProtobuf(p.msg));
  }
}

TEST_F(CodecTest, UnpacksWhatProtobufPacks) {
  for (int i = 0; i < 20000; i++) {
    Bytes bytes = MakeBytes();
    ASSERT_FALSE(IsLeft(bytes));
    ASSERT_TRUE(IsAsProtobuf(bytes));
  }
}

TEST_F(CodecTest, TakesWhatWasChangedAsProtobufDoesOrNotAtAll) {
  for (int i = 0; i < 50000; i++) {
    Bytes bytes = MakeBytes();
    for (uint64_t n = random_() % 3 + 1; n > 0 && !bytes.empty(); n--) {
      size_t at = random_() % bytes.size();
      switch (random_() % 4) {
      case 0:
        bytes[at] ^= uint8_t(1 << random_() % 8);
        break;
      case 1:
        bytes[at] = uint8_t(random_());
        break;
      case 2:
        bytes.erase(bytes.begin() + long(at));
        break;
      default:
        bytes.insert(bytes.begin() + long(at), uint8_t(random_()));
      }
    }
    ASSERT_TRUE(IsAsProtobuf(bytes)) << i;
  }
}

TEST_F(CodecTest, LeavesOtherMessagesToProtobuf) {
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  Cachet__Wire__Done done = CACHET__WIRE__DONE__INIT;
  msg.id = 3;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_DONE;
  msg.done = &done;
  EXPECT_FALSE(codec_packs(&msg));
  EXPECT_TRUE(IsLeft(PackByProtobuf(msg)));
  EXPECT_TRUE(IsLeft({}));
  EXPECT_EQ(codec_unpack(nullptr, 0, nullptr), nullptr);
  EXPECT_TRUE(IsLeft({0x08, 0x01})); // there is no body
}

TEST_F(CodecTest, LeavesWhatIsUnusualToProtobuf) {
  ASSERT_FALSE(IsLeft({0x08, 1, 0x22, 2, 0x08, 3}));
  EXPECT_TRUE(IsLeft({0x08, 1, 0x22, 3, 0x08, 3}));          // cut off
  EXPECT_TRUE(IsLeft({0x08, 1, 0x22, 2, 0x08, 3, 0x08, 2})); // more behind it
  EXPECT_TRUE(IsLeft({0x08, 1, 0x08, 2, 0x22, 0}));          // the id twice
  EXPECT_TRUE(IsLeft({0x22, 4, 0x08, 3, 0x08, 4}));          // the image twice
  EXPECT_TRUE(IsLeft({0x22, 4, 0x10, 3, 0x08, 4}));          // not in order
  EXPECT_TRUE(IsLeft({0x22, 4, 0x08, 3, 0x28, 4}));          // an unknown field
  EXPECT_TRUE(IsLeft({0x22, 3, 0x0d, 3, 0}));                // of another type
  EXPECT_TRUE(IsLeft({0x22, 2, 0x20, 2}));                   // no bool
  EXPECT_TRUE(IsLeft({0x22, 2, 0x08, 0x80}));                // half a number
  EXPECT_TRUE(IsLeft({0x22, 2, 0x1a, 1}));                   // half a range
  EXPECT_TRUE(IsLeft({0x22, 4, 0x1a, 2, 0x18, 1})); // that it does not know
  EXPECT_FALSE(IsLeft({0x22, 0x82, 0x80, 0x80, 0x80, 0, 0x08, 3}));
  EXPECT_TRUE(IsLeft({0x22, 0x82, 0x80, 0x80, 0x80, 0x80, 0, 0x08, 3}));
  EXPECT_TRUE(IsLeft({0x22, 6, 0x08, 255, 255, 255, 255, 31})); // 33 bits
  EXPECT_TRUE(IsLeft({0x22, 11, 0x10, 255, 255, 255, 255, 255, 255, 255, 255,
                      255, 2})); // 65 bits
}

TEST_F(CodecTest, LeavesAMessageToProtobufWhenThereIsNoMemory) {
  Bytes bytes = {0x22, 4, 0x1a, 2, 0x10, 5};
  for (int n = 0; n < 4; n++)
    EXPECT_EQ(Arena(n).Unpack(bytes), nullptr) << n;
  EXPECT_NE(Arena(4).Unpack(bytes), nullptr);
}

} // namespace

// A part of a source, as a source of its own.
#include "source/window.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "tests/support/fake_source.h"

namespace {

struct Close {
  void operator()(source *src) const { src->ops->close(src); }
};
using SourcePtr = std::unique_ptr<source, Close>;

constexpr uint64_t kSize = 100000, kOffset = 10001, kLength = 50003;
constexpr window kWindow = {kOffset, kLength};
constexpr window kRest = {kOffset, WINDOW_TO_END};

class WindowTest : public testing::Test {
protected:
  SourcePtr Open(const window &w) {
    source *below = below_.Open(), *src = nullptr;
    int r = window_source_new(below, &w, &src);
    EXPECT_EQ(r, 0);
    if (r < 0)
      below->ops->close(below);
    return SourcePtr(src);
  }

  // Bytes of the window, which are those of the source from `kOffset` on.
  void ExpectBytes(source *src, uint64_t addr, size_t len) {
    std::vector<uint8_t> read(len);
    ASSERT_EQ(source_read_blocking(src, addr, read.data(), len), 0);
    EXPECT_EQ(read, FakeSource::Bytes(kOffset + addr, len, below_.version()));
  }

  SourcePtr Reopen(source *src, int expected = 0) {
    source *fresh = nullptr;
    EXPECT_EQ(src->ops->reopen(src, &fresh), expected);
    return SourcePtr(fresh);
  }

  FakeSource below_{kSize};
};

TEST_F(WindowTest, ItHasTheBytesFromItsOffsetToItsEnd) {
  SourcePtr src = Open(kWindow);
  ASSERT_EQ(src->size, kLength);
  ExpectBytes(src.get(), 0, kLength);
  ExpectBytes(src.get(), 4096, 4096);
  ExpectBytes(src.get(), kLength - 1, 1);
}

TEST_F(WindowTest, WithoutALengthItReachesToTheEnd) {
  SourcePtr src = Open(kRest);
  ASSERT_EQ(src->size, kSize - kOffset);
  ExpectBytes(src.get(), 0, src->size);
}

TEST_F(WindowTest, OneThatReachesPastTheEndIsRefusedAndLeavesTheSourceAlone) {
  const window past[] = {{kSize + 1, WINDOW_TO_END},
                         {kSize - 9, 10},
                         {0, kSize + 1},
                         {UINT64_MAX, 1}};
  source *below = below_.Open(), *src = nullptr;
  for (const window &w : past)
    EXPECT_EQ(window_source_new(below, &w, &src), -ERANGE) << w.offset;
  EXPECT_EQ(src, nullptr);
  EXPECT_EQ(below_.n_closed(), 0);
  below->ops->close(below);
}

TEST_F(WindowTest, AStartIsOneOfTheSourceBelow) {
  SourcePtr src = Open(kWindow);
  uint8_t byte;
  const source_read asked = {7, &byte, 1, nullptr, 0, nullptr, 0, 0, 0, false};
  source_read r = asked;
  EXPECT_EQ(source_start(src.get(), &r), SOURCE_RETRY);
  below_.AnswerTry(2);
  r = asked;
  ASSERT_EQ(source_start(src.get(), &r), SOURCE_DONE);
  EXPECT_EQ(r.status, 0);
  EXPECT_EQ(byte, FakeSource::ByteAt(kOffset + 7));
  EXPECT_EQ(below_.n_tries(kOffset + 7), 2);
}

TEST_F(WindowTest, OneOfASourceThatCallsBackIsReadByAThreadThatWaits) {
  FakeSource below(kSize, FakeReads::kCallBack);
  source *made = nullptr;
  ASSERT_EQ(window_source_new(below.Open(), &kWindow, &made), 0);
  SourcePtr src(made);
  ExpectBytes(src.get(), 0, kLength);
}

TEST_F(WindowTest, AReadHasItsDeadlineBelow) {
  struct Below {
    source base{};
    source_ops ops{};
    uint64_t deadline_ms = 0;
  } below;
  below.ops.start = [](source *src, source_read *r) {
    reinterpret_cast<Below *>(src)->deadline_ms = r->deadline_ms;
    return SOURCE_DONE;
  };
  below.ops.close = [](source *) {};
  below.base.ops = &below.ops;
  below.base.size = kSize;
  source *made = nullptr;
  ASSERT_EQ(window_source_new(&below.base, &kWindow, &made), 0);
  SourcePtr src(made);
  uint8_t byte;
  EXPECT_EQ(source_read_until(src.get(), 7, &byte, 1, 12345), 0);
  EXPECT_EQ(below.deadline_ms, 12345u);
}

TEST_F(WindowTest, ZerosArePassedOnAndNotWritten) {
  SourcePtr src = Open(kWindow);
  std::vector<uint8_t> bytes(100, 'x');
  below_.SetZeros(kOffset + 50, kOffset + 150);
  EXPECT_EQ(source_read_blocking(src.get(), 50, bytes.data(), 100),
            SOURCE_ZEROS);
  below_.AnswerTry(1);
  source_read r = {50, bytes.data(), 100, nullptr, 0, nullptr, 0, 0, 0, false};
  ASSERT_EQ(source_start(src.get(), &r), SOURCE_DONE);
  EXPECT_EQ(r.status, SOURCE_ZEROS);
  EXPECT_EQ(bytes, std::vector<uint8_t>(100, 'x'));
}

TEST_F(WindowTest, ErrorsArePassedOn) {
  SourcePtr src = Open(kWindow);
  uint8_t bytes[100];
  below_.FailAt(kOffset + 150, EIO);
  EXPECT_EQ(src->ops->read(src.get(), 100, bytes, 50), 0);
  EXPECT_EQ(src->ops->read(src.get(), 101, bytes, 50), -EIO);
  below_.FailReopen(ENOENT);
  Reopen(src.get(), -ENOENT);
}

TEST_F(WindowTest, WhatItIsToForgetTheSourceBelowForgets) {
  SourcePtr src = Open(kWindow);
  source_forget(src.get());
  EXPECT_EQ(below_.n_forgotten(), 1);
}

TEST_F(WindowTest, OneThatDidNotChangeHasNoSuccessor) {
  SourcePtr src = Open(kWindow);
  EXPECT_EQ(Reopen(src.get()), nullptr);
}

TEST_F(WindowTest, AChangedOneIsStaleAndItsSuccessorLivesOnWithoutIt) {
  SourcePtr src = Open(kWindow);
  uint8_t byte;
  below_.Change(kSize);
  EXPECT_EQ(src->ops->read(src.get(), 0, &byte, 1), -ESTALE);
  SourcePtr fresh = Reopen(src.get());
  ASSERT_NE(fresh, nullptr);
  src.reset();
  EXPECT_EQ(below_.n_closed(), 1);
  EXPECT_EQ(fresh->size, kLength);
  ExpectBytes(fresh.get(), 0, kLength);
  fresh.reset();
  EXPECT_EQ(below_.n_closed(), 2);
}

TEST_F(WindowTest, OnlyOneWithoutALengthFollowsTheSize) {
  SourcePtr fixed = Open(kWindow), rest = Open(kRest);
  for (uint64_t size : {2 * kSize, kOffset + kLength}) {
    below_.Change(size);
    fixed = Reopen(fixed.get());
    rest = Reopen(rest.get());
    ASSERT_NE(fixed, nullptr);
    ASSERT_NE(rest, nullptr);
    EXPECT_EQ(fixed->size, kLength);
    EXPECT_EQ(rest->size, size - kOffset);
    ExpectBytes(fixed.get(), 0, fixed->size);
    ExpectBytes(rest.get(), 0, rest->size);
  }
}

TEST_F(WindowTest, OneThatIsCutHasNoSuccessorUntilAllOfItIsThereAgain) {
  SourcePtr src = Open(kWindow);
  below_.Change(kOffset + kLength - 1);
  EXPECT_EQ(Reopen(src.get(), -ERANGE), nullptr);
  EXPECT_EQ(below_.n_closed(), 1) << "the one that is too short";
  uint8_t byte;
  EXPECT_EQ(src->ops->read(src.get(), 0, &byte, 1), -ESTALE);
  below_.Change(kOffset + kLength);
  SourcePtr fresh = Reopen(src.get());
  ASSERT_NE(fresh, nullptr);
  ExpectBytes(fresh.get(), 0, kLength);
}

TEST_F(WindowTest, OneOfASourceThatIsNotThereYetComesWithIt) {
  FakeSource absent(0);
  source *src = nullptr;
  ASSERT_EQ(window_source_new_later(absent.Open(), &kWindow, &src), 0);
  SourcePtr empty(src);
  EXPECT_EQ(empty->size, 0u);
  absent.FailReopen(ENOENT);
  Reopen(empty.get(), -ENOENT);
  absent.FailReopen(0);
  absent.Change(kSize);
  SourcePtr fresh = Reopen(empty.get());
  ASSERT_NE(fresh, nullptr);
  EXPECT_EQ(fresh->size, kLength);
}

// Takes hints, and can do nothing else but be closed.
struct Hinted {
  source base{};
  source_ops ops{};
  std::vector<std::pair<uint64_t, uint64_t>> ranges;

  static Hinted *Of(source *src) { return reinterpret_cast<Hinted *>(src); }

  Hinted() {
    ops.advise = [](source *src, uint64_t offset, uint64_t len) {
      Of(src)->ranges.emplace_back(offset, len);
    };
    ops.close = [](source *) {};
    base.ops = &ops;
    base.size = kSize;
  }
};

TEST_F(WindowTest, ItGoesOnWithWhatWasReadOfTheSamePart) {
  SourcePtr src = Open(kWindow);
  source_identity id;
  source_identify(src.get(), &id);
  EXPECT_TRUE(source_resume(Open(kWindow).get(), &id));
  EXPECT_FALSE(source_resume(Open({kOffset + 1, kLength}).get(), &id));
  EXPECT_FALSE(source_resume(Open({kOffset, kLength - 1}).get(), &id));
  SourcePtr whole(below_.Open());
  EXPECT_FALSE(source_resume(whole.get(), &id));
  source_identify(whole.get(), &id);
  EXPECT_FALSE(source_resume(src.get(), &id));
  source_identify(src.get(), &id);
  below_.Change(kSize);
  EXPECT_FALSE(source_resume(Open(kWindow).get(), &id));
}

TEST_F(WindowTest, ItIsAnotherContentThanThatBelow) {
  auto content = [](const SourcePtr &src) {
    source_identity id;
    source_identify(src.get(), &id);
    return std::string(id.bytes + id.len - id.content_len, id.bytes + id.len);
  };
  EXPECT_EQ(content(Open(kWindow)), ""); // there is none below
  below_.SetContentLen(20);
  EXPECT_EQ(content(Open(kWindow)), content(Open(kWindow)));
  EXPECT_NE(content(Open(kWindow)), content(Open({kOffset + 1, kLength})));
  EXPECT_GT(content(Open(kWindow)).size(), 20u);
  below_.SetContentLen(SOURCE_IDENTITY_MAX); // there is no room for more
  EXPECT_EQ(content(Open(kWindow)), "");
}

TEST(WindowHintTest, AHintIsOfTheRangeBelowAndEndsWithTheWindow) {
  Hinted below;
  source *src = nullptr;
  ASSERT_EQ(window_source_new(&below.base, &kWindow, &src), 0);
  SourcePtr owner(src);
  src->ops->advise(src, 4096, 8192);
  src->ops->advise(src, kLength - 100, 4096);
  src->ops->advise(src, kLength, 4096);
  EXPECT_EQ(below.ranges,
            (std::vector<std::pair<uint64_t, uint64_t>>{
                {kOffset + 4096, 8192}, {kOffset + kLength - 100, 100}}));
}

TEST(WindowHintTest, WhatTheSourceBelowCannotDoItCannotEither) {
  Hinted below;
  below.ops.advise = nullptr;
  source *src = nullptr, *fresh = nullptr;
  ASSERT_EQ(window_source_new(&below.base, &kWindow, &src), 0);
  SourcePtr owner(src);
  uint8_t byte;
  source_read r = {0, &byte, 1, nullptr, 0, nullptr, 0, 0, 0, false};
  EXPECT_EQ(source_start(src, &r), SOURCE_BLOCKS);
  EXPECT_EQ(src->ops->reopen(src, &fresh), 0);
  EXPECT_EQ(fresh, nullptr);
  src->ops->advise(src, 0, 1);
  source_forget(src);
}

// What a listener was told.
struct Listener {
  Listener() {
    self.changed = [](source_listener *l) { Of(l)->n_changed++; };
    self.invalid = [](source_listener *l, uint64_t offset, uint64_t len) {
      Of(l)->ranges.emplace_back(offset, len);
    };
    self.remark = nullptr;
  }
  static Listener *Of(source_listener *l) {
    return reinterpret_cast<Listener *>(l);
  }

  source_listener self; // the first, for the cast
  int n_changed = 0;
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
};

TEST_F(WindowTest, WhatTheSourceTellsIsToldOfWhatLiesInIt) {
  SourcePtr src = Open(kWindow);
  Listener listener;
  source_listen(src.get(), &listener.self);
  below_.TellChanged();
  EXPECT_EQ(listener.n_changed, 1);
  below_.TellInvalid(0, kOffset);
  below_.TellInvalid(kOffset + kLength, 10);
  EXPECT_TRUE(listener.ranges.empty());
  below_.TellInvalid(0, kSize);
  below_.TellInvalid(0, kOffset + 7);
  below_.TellInvalid(kOffset + 5, 10);
  below_.TellInvalid(kOffset + kLength - 3, 10);
  EXPECT_EQ(listener.ranges,
            (std::vector<std::pair<uint64_t, uint64_t>>{
                {0, kLength}, {0, 7}, {5, 10}, {kLength - 3, 3}}));
  source_listen(src.get(), nullptr);
  below_.TellInvalid(0, kSize);
  EXPECT_EQ(listener.ranges.size(), 4u);
}

} // namespace

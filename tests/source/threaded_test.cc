// A source that blocks, read by one that calls back.
#include "source/threaded.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "source/reactor.h"
#include "tests/support/fake_source.h"
#include "tests/support/pending_read.h"

namespace {

constexpr uint64_t kSize = 100000;

class ThreadedTest : public testing::Test {
protected:
  ThreadedTest() {
    EXPECT_EQ(reactor_new(&reactor_), 0);
    EXPECT_EQ(threaded_source_new(below_.Open(), reactor_, &src_), 0);
  }
  ~ThreadedTest() override {
    src_->ops->close(src_);
    reactor_free(reactor_);
    EXPECT_EQ(below_.n_closed(), n_opened_);
  }

  void ExpectReads(uint64_t offset, size_t len) {
    PendingRead r(src_, offset, len);
    EXPECT_EQ(r.Wait(), 0);
    EXPECT_EQ(r.bytes(), FakeSource::Bytes(offset, len, below_.version()));
  }

  FakeSource below_{kSize, FakeReads::kBlock};
  reactor *reactor_ = nullptr;
  source *src_ = nullptr;
  int n_opened_ = 1;
};

TEST_F(ThreadedTest, AReadEndsWithTheBytesOrTheFailureBelow) {
  ExpectReads(12345, 6789);
  below_.FailReads(EIO, 1);
  EXPECT_EQ(PendingRead(src_, 0, 4096).Wait(), -EIO);
  below_.SetZeros(0, 8192);
  EXPECT_EQ(PendingRead(src_, 0, 4096).Wait(), SOURCE_ZEROS);
}

TEST_F(ThreadedTest, OneThatHangsHoldsUpNeitherAnotherNorTheReactor) {
  below_.ShutGate(50000);
  PendingRead slow(src_, 50000, 4096);
  below_.AwaitReadsAtGate(1);
  ExpectReads(0, 4096);
  below_.OpenGate();
  EXPECT_EQ(slow.Wait(), 0);
}

TEST_F(ThreadedTest, ItsSuccessorIsOverTheOneBelow) {
  source *fresh = nullptr;
  EXPECT_EQ(src_->ops->reopen(src_, &fresh), 0);
  EXPECT_EQ(fresh, nullptr);
  below_.Change(kSize / 2);
  EXPECT_EQ(src_->ops->reopen(src_, &fresh), 0);
  ASSERT_NE(fresh, nullptr);
  n_opened_++;
  src_->ops->close(src_);
  src_ = fresh;
  EXPECT_EQ(src_->size, kSize / 2);
  ExpectReads(0, 4096);
}

} // namespace

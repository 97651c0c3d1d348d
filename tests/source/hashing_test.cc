// Reading a source as a whole, to compare its hash.
#include "source/hashing.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <cerrno>
#include <future>
#include <thread>
#include <vector>

#include "tests/support/fake_source.h"

namespace {

constexpr uint64_t kSize = (5 << 20) + 77; // more than two reads

class HashingTest : public testing::Test {
protected:
  HashingTest() {
    const std::vector<uint8_t> bytes = FakeSource::Bytes(0, kSize);
    EVP_Digest(bytes.data(), bytes.size(), expected_, nullptr, EVP_sha256(),
               nullptr);
  }

  int Begin() {
    struct source *below = fake_.Open();
    int r = hashing_begin(
        below, expected_,
        [](void *arg) { static_cast<HashingTest *>(arg)->ended_.set_value(); },
        this, &hashing_);
    if (r < 0)
      below->ops->close(below);
    return r;
  }

  enum hashing_state Await() {
    enum hashing_state state;
    while ((state = hashing_state(hashing_)) == HASHING_READS)
      std::this_thread::yield();
    return state;
  }

  // Gives it up, and waits until nobody has the source.
  void End() {
    hashing_end(hashing_);
    ended_.get_future().wait();
  }

  FakeSource fake_{kSize, FakeReads::kBlock};
  uint8_t expected_[DIGESTS_LEN];
  struct hashing *hashing_ = nullptr;
  std::promise<void> ended_;
};

TEST_F(HashingTest, WhatMatchesIsHandedOverWithTheHashesOfItsBlocks) {
  ASSERT_EQ(Begin(), 0);
  ASSERT_EQ(Await(), HASHING_MATCHES);
  struct source *below = nullptr;
  digests *d = nullptr;
  hashing_take(hashing_, &below, &d);
  End();
  EXPECT_EQ(fake_.n_closed(), 0);
  EXPECT_EQ(below->size, kSize);
  const std::vector<uint8_t> page = FakeSource::Bytes(8192, 4096);
  uint64_t bad;
  EXPECT_EQ(digests_check(d, 8192, page.data(), 4096, &bad), 0);
  digests_free(d);
  below->ops->close(below);
}

TEST_F(HashingTest, WhatDiffersStaysAndIsClosedInTheEnd) {
  expected_[31] ^= 1;
  ASSERT_EQ(Begin(), 0);
  EXPECT_EQ(Await(), HASHING_DIFFERS);
  EXPECT_EQ(hashing_source(hashing_)->size, kSize);
  EXPECT_EQ(fake_.n_closed(), 0);
  End();
  EXPECT_EQ(fake_.n_closed(), 1);
}

TEST_F(HashingTest, AReadThatFailsOnceIsMadeAgain) {
  fake_.FailReads(EIO, 1);
  ASSERT_EQ(Begin(), 0);
  EXPECT_EQ(Await(), HASHING_MATCHES);
  End();
  EXPECT_EQ(fake_.n_closed(), 1);
}

TEST_F(HashingTest, AContentThatChangesIsNotReadOn) {
  fake_.FailReads(ESTALE);
  ASSERT_EQ(Begin(), 0);
  EXPECT_EQ(Await(), HASHING_FAILED);
  EXPECT_EQ(hashing_status(hashing_), -ESTALE);
  End();
  EXPECT_EQ(fake_.n_closed(), 1);
}

TEST_F(HashingTest, OneThatIsGivenUpReadsNoFurther) {
  fake_.ShutGate();
  ASSERT_EQ(Begin(), 0);
  fake_.AwaitReadsAtGate(1);
  hashing_end(hashing_);
  EXPECT_EQ(fake_.n_closed(), 0);
  fake_.OpenGate();
  ended_.get_future().wait();
  EXPECT_EQ(fake_.n_closed(), 1);
  EXPECT_EQ(fake_.n_reads(), 1);
}

TEST_F(HashingTest, OneThatIsGivenUpWaitsForNoSource) {
  fake_.FailReads(EIO);
  ASSERT_EQ(Begin(), 0);
  while (fake_.n_reads() < 2)
    std::this_thread::yield();
  End(); // while it waits before the next read
  EXPECT_EQ(fake_.n_closed(), 1);
}

} // namespace

#include "cache/fill_buffers.h"

#include <gtest/gtest.h>

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

namespace {

constexpr size_t kN = FILL_BUFFERS_LEN / FILL_BUFFER_LEN;

class BuffersTest : public testing::Test {
protected:
  void SetUp() override {
    fill_buffers_init(&b_);
    ASSERT_NE(b_.buffers.at, nullptr);
    ASSERT_NE(b_.blocks.at, nullptr);
  }
  void TearDown() override { fill_buffers_fini(&b_); }

  bool IsOwn(const uint8_t *at) const {
    return at >= b_.buffers.at && at < b_.buffers.at + FILL_BUFFERS_LEN;
  }

  // How much of the region takes memory, in pages.
  size_t CountPages() const {
    std::vector<unsigned char> is(FILL_BUFFERS_LEN / 4096);
    EXPECT_EQ(mincore(b_.buffers.at, FILL_BUFFERS_LEN, is.data()), 0);
    return size_t(std::count(is.begin(), is.end(), 1));
  }

  // Buffers that hold as much as they can.
  std::vector<uint8_t *> GetAll() {
    std::vector<uint8_t *> all;
    for (size_t i = 0; i < kN; i++) {
      all.push_back(fill_buffers_get(&b_, FILL_BUFFER_LEN));
      memset(all.back(), int(i + 1), FILL_BUFFER_LEN);
    }
    return all;
  }

  fill_buffers b_{};
};

TEST_F(BuffersTest, EachIsSomebodysAloneAndAlignedToWhatADiskWants) {
  std::vector<uint8_t *> all = GetAll();
  EXPECT_EQ(std::set<uint8_t *>(all.begin(), all.end()).size(), kN);
  EXPECT_EQ(uintptr_t(b_.buffers.at) % (2 << 20), 0u);
  for (size_t i = 0; i < kN; i++) {
    EXPECT_TRUE(IsOwn(all[i]));
    EXPECT_EQ(uintptr_t(all[i]) % 4096, 0u);
    EXPECT_EQ(std::count(all[i], all[i] + FILL_BUFFER_LEN, i + 1),
              ptrdiff_t(FILL_BUFFER_LEN));
    fill_buffers_put(&b_, all[i]);
  }
}

TEST_F(BuffersTest, WhenAllAreTakenThereIsOrdinaryMemory) {
  std::vector<uint8_t *> all = GetAll();
  uint8_t *more = fill_buffers_get(&b_, FILL_BUFFER_LEN);
  ASSERT_NE(more, nullptr);
  EXPECT_FALSE(IsOwn(more));
  memset(more, 0, FILL_BUFFER_LEN);
  fill_buffers_put(&b_, more);
  fill_buffers_put(&b_, all[3]);
  EXPECT_EQ(fill_buffers_get(&b_, FILL_BUFFER_LEN), all[3]);
  for (uint8_t *at : all)
    fill_buffers_put(&b_, at);
}

TEST_F(BuffersTest, ShortAndVeryLongOnesAreOrdinaryMemory) {
  for (size_t len : {size_t(4096), FILL_BLOCK_LEN + 4096}) {
    uint8_t *at = fill_buffers_get(&b_, len);
    ASSERT_NE(at, nullptr);
    EXPECT_FALSE(IsOwn(at));
    memset(at, 0, len);
    fill_buffers_put(&b_, at);
  }
  fill_buffers_put(&b_, nullptr);
}

TEST_F(BuffersTest, BlocksHaveMemoryOfTheirOwnWhichGoesWithTheirUse) {
  std::vector<uint8_t *> all;
  for (size_t i = 0; i < FILL_BLOCKS_LEN / FILL_BLOCK_LEN; i++) {
    all.push_back(fill_buffers_get(&b_, FILL_BLOCK_LEN - i * 4096));
    EXPECT_EQ(all[i], b_.blocks.at + i * FILL_BLOCK_LEN);
  }
  all[0][0] = 1;
  uint8_t *more = fill_buffers_get(&b_, FILL_BUFFER_LEN + 1);
  EXPECT_TRUE(more < b_.blocks.at || more >= b_.blocks.at + FILL_BLOCKS_LEN);
  EXPECT_FALSE(IsOwn(more));
  fill_buffers_put(&b_, more);
  for (uint8_t *at : all)
    fill_buffers_put(&b_, at);
  EXPECT_TRUE(fill_buffers_trim(&b_)) << "they were used";
  EXPECT_FALSE(fill_buffers_trim(&b_));
  EXPECT_EQ(fill_buffers_get(&b_, FILL_BLOCK_LEN)[0], 0) << "a new page";
  fill_buffers_put(&b_, b_.blocks.at);
}

TEST_F(BuffersTest, WithoutARegionAllIsOrdinaryMemory) {
  fill_buffers none{};
  uint8_t *at = fill_buffers_get(&none, FILL_BUFFER_LEN);
  ASSERT_NE(at, nullptr);
  memset(at, 0, FILL_BUFFER_LEN);
  fill_buffers_put(&none, at);
  fill_buffers_trim(&none);
  fill_buffers_fini(&none);
}

TEST_F(BuffersTest, MemoryGoesWhenNobodyUsedItForARound) {
  std::vector<uint8_t *> all = GetAll();
  EXPECT_EQ(CountPages(), FILL_BUFFERS_LEN / 4096);
  fill_buffers_trim(&b_); // of this round
  fill_buffers_trim(&b_); // held
  for (size_t i = 0; i < kN; i++)
    EXPECT_EQ(all[i][FILL_BUFFER_LEN - 1], i + 1);
  for (size_t i = 1; i < kN; i++)
    fill_buffers_put(&b_, all[i]);
  fill_buffers_trim(&b_); // one is held still
  EXPECT_EQ(all[0][0], 1);
  fill_buffers_put(&b_, all[0]);
  fill_buffers_put(&b_, fill_buffers_get(&b_, FILL_BUFFER_LEN));
  fill_buffers_trim(&b_); // used since
  EXPECT_EQ(CountPages(), FILL_BUFFERS_LEN / 4096);
  fill_buffers_trim(&b_);
  EXPECT_EQ(CountPages(), 0u);
  for (uint8_t *at : GetAll()) // and comes again
    fill_buffers_put(&b_, at);
}

TEST_F(BuffersTest, WhatMallocKeepsOfLongOnesGoesToo) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the sanitizer has a malloc of its own";
#endif
  std::vector<uint8_t *> all = GetAll();
  // Libc returns the first one to the kernel when it is freed, and from then on
  // keeps memory of that length.
  fill_buffers_put(&b_, fill_buffers_get(&b_, FILL_BUFFER_LEN));
  uint8_t *more = fill_buffers_get(&b_, FILL_BUFFER_LEN);
  ASSERT_FALSE(IsOwn(more));
  memset(more, 1, FILL_BUFFER_LEN);
  const auto is_there = [&] {
    unsigned char is = 0;
    return mincore(more, 4096, &is) == 0 && is;
  };
  fill_buffers_put(&b_, more);
  for (uint8_t *at : all)
    fill_buffers_put(&b_, at);
  EXPECT_TRUE(fill_buffers_trim(&b_));
  EXPECT_TRUE(is_there());
  EXPECT_FALSE(fill_buffers_trim(&b_));
  EXPECT_FALSE(is_there());
}

TEST_F(BuffersTest, NoTwoThreadsHaveTheSameAndNoneIsTakenFromItsOwner) {
  std::atomic<bool> stop{false};
  std::atomic<int> n_wrong{0};
  std::thread trimmer([&] {
    while (!stop)
      fill_buffers_trim(&b_);
  });
  std::vector<std::thread> users;
  for (int id = 1; id <= 4; id++)
    users.emplace_back([&, id] {
      for (int round = 0; round < 20000; round++) {
        uint8_t *mine[3];
        for (uint8_t *&at : mine) {
          at = fill_buffers_get(&b_, FILL_BUFFER_LEN);
          memset(at, id, 64);
        }
        for (uint8_t *at : mine) {
          n_wrong += std::count(at, at + 64, id) != 64;
          fill_buffers_put(&b_, at);
        }
      }
    });
  for (auto &user : users)
    user.join();
  stop = true;
  trimmer.join();
  EXPECT_EQ(n_wrong, 0);
  EXPECT_EQ(b_.buffers.free, (1u << kN) - 1);
}

} // namespace

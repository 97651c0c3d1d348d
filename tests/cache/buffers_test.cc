#include "cache/buffers.h"

#include <gtest/gtest.h>

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

namespace {

constexpr size_t kN = BUFFERS_LEN / BUFFER_LEN;

class BuffersTest : public testing::Test {
protected:
  void SetUp() override {
    buffers_init(&b_);
    ASSERT_NE(b_.region, nullptr);
  }
  void TearDown() override { buffers_fini(&b_); }

  bool IsOwn(const uint8_t *at) const {
    return at >= b_.region && at < b_.region + BUFFERS_LEN;
  }

  // How much of the region takes memory, in pages.
  size_t CountPages() const {
    std::vector<unsigned char> is(BUFFERS_LEN / 4096);
    EXPECT_EQ(mincore(b_.region, BUFFERS_LEN, is.data()), 0);
    return size_t(std::count(is.begin(), is.end(), 1));
  }

  // Buffers that hold as much as they can.
  std::vector<uint8_t *> GetAll() {
    std::vector<uint8_t *> all;
    for (size_t i = 0; i < kN; i++) {
      all.push_back(buffers_get(&b_, BUFFER_LEN));
      memset(all.back(), int(i + 1), BUFFER_LEN);
    }
    return all;
  }

  buffers b_{};
};

TEST_F(BuffersTest, EachIsSomebodysAloneAndAlignedToWhatADiskWants) {
  std::vector<uint8_t *> all = GetAll();
  EXPECT_EQ(std::set<uint8_t *>(all.begin(), all.end()).size(), kN);
  EXPECT_EQ(uintptr_t(b_.region) % BUFFERS_LEN, 0u);
  for (size_t i = 0; i < kN; i++) {
    EXPECT_TRUE(IsOwn(all[i]));
    EXPECT_EQ(uintptr_t(all[i]) % 4096, 0u);
    EXPECT_EQ(std::count(all[i], all[i] + BUFFER_LEN, i + 1),
              ptrdiff_t(BUFFER_LEN));
    buffers_put(&b_, all[i]);
  }
}

TEST_F(BuffersTest, WhenAllAreTakenThereIsOrdinaryMemory) {
  std::vector<uint8_t *> all = GetAll();
  uint8_t *more = buffers_get(&b_, BUFFER_LEN);
  ASSERT_NE(more, nullptr);
  EXPECT_FALSE(IsOwn(more));
  memset(more, 0, BUFFER_LEN);
  buffers_put(&b_, more);
  buffers_put(&b_, all[3]);
  EXPECT_EQ(buffers_get(&b_, BUFFER_LEN), all[3]);
  for (uint8_t *at : all)
    buffers_put(&b_, at);
}

TEST_F(BuffersTest, ShortAndVeryLongOnesAreOrdinaryMemory) {
  for (size_t len : {size_t(4096), BUFFER_LEN + 4096}) {
    uint8_t *at = buffers_get(&b_, len);
    ASSERT_NE(at, nullptr);
    EXPECT_FALSE(IsOwn(at));
    memset(at, 0, len);
    buffers_put(&b_, at);
  }
  buffers_put(&b_, nullptr);
}

TEST_F(BuffersTest, WithoutARegionAllIsOrdinaryMemory) {
  buffers none{};
  uint8_t *at = buffers_get(&none, BUFFER_LEN);
  ASSERT_NE(at, nullptr);
  memset(at, 0, BUFFER_LEN);
  buffers_put(&none, at);
  buffers_trim(&none);
  buffers_fini(&none);
}

TEST_F(BuffersTest, MemoryGoesWhenNobodyUsedItForARound) {
  std::vector<uint8_t *> all = GetAll();
  EXPECT_EQ(CountPages(), BUFFERS_LEN / 4096);
  buffers_trim(&b_); // of this round
  buffers_trim(&b_); // held
  for (size_t i = 0; i < kN; i++)
    EXPECT_EQ(all[i][BUFFER_LEN - 1], i + 1);
  for (size_t i = 1; i < kN; i++)
    buffers_put(&b_, all[i]);
  buffers_trim(&b_); // one is held still
  EXPECT_EQ(all[0][0], 1);
  buffers_put(&b_, all[0]);
  buffers_put(&b_, buffers_get(&b_, BUFFER_LEN));
  buffers_trim(&b_); // used since
  EXPECT_EQ(CountPages(), BUFFERS_LEN / 4096);
  buffers_trim(&b_);
  EXPECT_EQ(CountPages(), 0u);
  for (uint8_t *at : GetAll()) // and comes again
    buffers_put(&b_, at);
}

TEST_F(BuffersTest, NoTwoThreadsHaveTheSameAndNoneIsTakenFromItsOwner) {
  std::atomic<bool> stop{false};
  std::atomic<int> n_wrong{0};
  std::thread trimmer([&] {
    while (!stop)
      buffers_trim(&b_);
  });
  std::vector<std::thread> users;
  for (int id = 1; id <= 4; id++)
    users.emplace_back([&, id] {
      for (int round = 0; round < 20000; round++) {
        uint8_t *mine[3];
        for (uint8_t *&at : mine) {
          at = buffers_get(&b_, BUFFER_LEN);
          memset(at, id, 64);
        }
        for (uint8_t *at : mine) {
          n_wrong += std::count(at, at + 64, id) != 64;
          buffers_put(&b_, at);
        }
      }
    });
  for (auto &user : users)
    user.join();
  stop = true;
  trimmer.join();
  EXPECT_EQ(n_wrong, 0);
  EXPECT_EQ(b_.free, (1u << kN) - 1);
}

} // namespace

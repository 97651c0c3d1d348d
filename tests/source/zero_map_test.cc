#include "source/zero_map.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace {

class ZeroMapTest : public testing::Test {
protected:
  ~ZeroMapTest() override { zero_map_fini(&map_); }

  void Add(uint64_t begin, uint64_t end, bool is_zero) {
    EXPECT_TRUE(zero_map_add(&map_, begin, end, is_zero));
    if (map_.n < 100)
      zero_map_check(&map_);
  }

  zero_answer Look(uint64_t begin, uint64_t end, uint64_t *at = nullptr) {
    uint64_t unused;
    return zero_map_look(&map_, begin, end, at ? at : &unused);
  }

  zero_map map_{};
};

TEST_F(ZeroMapTest, KnowsWhatItWasTold) {
  uint64_t at = 0;
  EXPECT_EQ(Look(0, 10, &at), ZERO_UNKNOWN);
  EXPECT_EQ(at, 0u);
  Add(10, 20, true);
  Add(20, 30, false);
  Add(40, 50, true);
  EXPECT_EQ(Look(10, 20), ZERO_ALL);
  EXPECT_EQ(Look(12, 13), ZERO_ALL);
  EXPECT_EQ(Look(19, 21), ZERO_NOT);
  EXPECT_EQ(Look(29, 41), ZERO_NOT);
  EXPECT_EQ(Look(5, 25), ZERO_NOT) << "whatever is in the gap";
  EXPECT_EQ(Look(30, 45, &at), ZERO_UNKNOWN);
  EXPECT_EQ(at, 30u);
  EXPECT_EQ(Look(45, 60, &at), ZERO_UNKNOWN);
  EXPECT_EQ(at, 50u);
  EXPECT_EQ(Look(50, 51), ZERO_UNKNOWN);
}

TEST_F(ZeroMapTest, NeighboursOfOneKindAreOneRun) {
  Add(10, 20, true);
  Add(30, 40, true);
  Add(20, 30, true);
  EXPECT_EQ(map_.n, 1u);
  Add(5, 10, true);
  Add(40, 41, true);
  EXPECT_EQ(map_.n, 1u);
  Add(41, 50, false);
  EXPECT_EQ(map_.n, 2u);
  EXPECT_EQ(Look(5, 41), ZERO_ALL);
}

TEST_F(ZeroMapTest, WhatIsSaidFirstIsKept) {
  Add(10, 20, true);
  Add(30, 40, false);
  Add(0, 50, false);
  EXPECT_EQ(Look(10, 20), ZERO_ALL);
  EXPECT_EQ(Look(0, 10), ZERO_NOT);
  EXPECT_EQ(Look(20, 50), ZERO_NOT);
  Add(0, UINT64_MAX, true);
  EXPECT_EQ(Look(0, 10), ZERO_NOT);
  EXPECT_EQ(Look(50, UINT64_MAX), ZERO_ALL);
}

// Pages of zeros and of data in turn, and every thousandth run a long one.
TEST_F(ZeroMapTest, OfTooManyRunsTheLongestZerosAreKeptAndTheRestIsData) {
  constexpr uint64_t kPage = 4096, kLong = 64 << 20;
  std::vector<uint64_t> longs;
  uint64_t at = 0, unused;
  for (int i = 0; i < 100 * ZERO_MAP_MAX; i++) {
    bool is_long = i % 1000 == 0;
    uint64_t len = is_long ? kLong : kPage;
    if (is_long)
      longs.push_back(at);
    Add(at, at + len, i % 2 == 0);
    ASSERT_LE(map_.n, size_t(ZERO_MAP_MAX));
    ASSERT_NE(Look(0, at + len, &unused), ZERO_UNKNOWN) << i;
    at += len;
  }
  for (uint64_t begin : longs) {
    ASSERT_EQ(Look(begin, begin + kLong), ZERO_ALL) << begin;
    ASSERT_EQ(Look(begin, begin + kLong + 1), ZERO_NOT) << begin;
  }
  EXPECT_EQ(Look(at, at + 1), ZERO_UNKNOWN);
}

// As where readers of a large image come to it here and there.
TEST_F(ZeroMapTest, OfTooManyRunsWithGapsNoneIsTakenForZeros) {
  constexpr uint64_t kPage = 4096;
  for (uint64_t i = 0; i < 4 * ZERO_MAP_MAX; i++) {
    uint64_t begin = 100 * i * kPage;
    Add(begin, begin + 50 * kPage, true);
    ASSERT_LE(map_.n, size_t(ZERO_MAP_MAX));
    ASSERT_NE(Look(begin, begin + kPage), ZERO_UNKNOWN);
    ASSERT_NE(Look(begin + 50 * kPage, begin + 51 * kPage), ZERO_ALL);
  }
}

TEST_F(ZeroMapTest, RunsOfAnyLengthComeToAnEnd) {
  constexpr uint64_t kStep = uint64_t(1) << 49; // up to 2^63
  for (uint64_t i = 0; i <= ZERO_MAP_MAX; i++)
    Add(i * kStep, i * kStep + kStep / 2, true);
  EXPECT_LE(map_.n, size_t(ZERO_MAP_MAX));
  EXPECT_NE(Look(0, 1), ZERO_UNKNOWN);
}

// Against a byte for each byte.
TEST_F(ZeroMapTest, IsWhatAPlainArrayWouldBe) {
  enum { kUnknown, kZero, kData, kSize = 200 };
  std::vector<int> plain(kSize, kUnknown);
  std::mt19937 dice(1);
  for (int i = 0; i < 2000; i++) {
    uint64_t begin = dice() % kSize, end = begin + dice() % (kSize - begin + 1);
    end = std::min(end, begin + dice() % 9);
    bool is_zero = dice() % 2;
    if (i % 100 == 0) {
      plain.assign(kSize, kUnknown);
      zero_map_fini(&map_);
    }
    Add(begin, end, is_zero);
    for (uint64_t at = begin; at < end; at++)
      if (plain[at] == kUnknown)
        plain[at] = is_zero ? kZero : kData;
    for (size_t r = 0; r + 1 < map_.n; r++) { // Z1
      ASSERT_LT(map_.runs[r].begin, map_.runs[r].end);
      ASSERT_LE(map_.runs[r].end, map_.runs[r + 1].begin);
      ASSERT_TRUE(map_.runs[r].end < map_.runs[r + 1].begin ||
                  map_.runs[r].is_zero != map_.runs[r + 1].is_zero);
    }
    begin = dice() % (kSize - 1);
    end = begin + 1 + dice() % std::min<uint64_t>(20, kSize - begin - 1);
    zero_answer expected = ZERO_ALL;
    uint64_t at = 0, unknown = kSize;
    for (uint64_t b = end; b-- > begin;)
      if (plain[b] == kUnknown)
        unknown = b;
    for (uint64_t b = begin; b < end; b++)
      if (plain[b] == kData)
        expected = ZERO_NOT;
    if (expected == ZERO_ALL && unknown < kSize)
      expected = ZERO_UNKNOWN;
    ASSERT_EQ(Look(begin, end, &at), expected);
    ASSERT_TRUE(expected != ZERO_UNKNOWN || at == unknown) << at;
  }
}

} // namespace

// Which bytes of a range have come, when they come in pieces.
#include "source/coverage.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace {

TEST(CoverageTest, PiecesInAnyOrderBecomeOneRun) {
  coverage c = {};
  EXPECT_TRUE(coverage_add(&c, 100, 200));
  EXPECT_TRUE(coverage_add(&c, 300, 400));
  EXPECT_TRUE(coverage_add(&c, 0, 100));
  EXPECT_FALSE(coverage_is(&c, 0, 400));
  EXPECT_TRUE(coverage_add(&c, 200, 300));
  EXPECT_TRUE(coverage_is(&c, 0, 400));
  EXPECT_FALSE(coverage_is(&c, 0, 399));
  EXPECT_FALSE(coverage_is(&c, 1, 400));
}

TEST(CoverageTest, AByteThatComesTwiceIsFound) {
  for (auto [begin, end] :
       std::vector<std::pair<uint64_t, uint64_t>>{{100, 200},
                                                  {99, 101},
                                                  {199, 201},
                                                  {150, 151},
                                                  {0, 1000},
                                                  {200, 301},
                                                  {299, 300},
                                                  {300, 301},
                                                  {350, 500}}) {
    coverage c = {};
    EXPECT_TRUE(coverage_add(&c, 100, 200));
    EXPECT_TRUE(coverage_add(&c, 300, 400));
    bool is_free = begin >= 200 && end <= 300;
    EXPECT_EQ(coverage_add(&c, begin, end), is_free) << begin << " " << end;
  }
}

TEST(CoverageTest, ThereIsALimitToRunsThatAreApart) {
  coverage c = {};
  for (uint64_t i = 0; i < COVERAGE_MAX_RUNS; i++)
    EXPECT_TRUE(coverage_add(&c, 2 * i, 2 * i + 1));
  EXPECT_FALSE(coverage_add(&c, 2 * COVERAGE_MAX_RUNS, 1000));
  for (uint64_t i = 0; i + 1 < COVERAGE_MAX_RUNS; i++)
    EXPECT_TRUE(coverage_add(&c, 2 * i + 1, 2 * i + 2));
  EXPECT_TRUE(coverage_is(&c, 0, 2 * COVERAGE_MAX_RUNS - 1));
}

TEST(CoverageTest, NothingIsNoPiece) {
  coverage c = {};
  EXPECT_TRUE(coverage_add(&c, 5, 5));
  EXPECT_FALSE(coverage_add(&c, 5, 4));
  EXPECT_TRUE(coverage_is(&c, 7, 7));
  EXPECT_FALSE(coverage_is(&c, 0, 5));
}

// Against a byte for each byte.
TEST(CoverageTest, ItSaysWhatAMapOfBytesSays) {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; round++) {
    coverage c = {};
    std::vector<bool> map(64);
    for (int i = 0; i < 12; i++) {
      uint64_t begin = random() % 64, end = begin + 1 + random() % 8;
      end = std::min<uint64_t>(end, 64);
      bool was = std::find(map.begin() + long(begin), map.begin() + long(end),
                           true) != map.begin() + long(end);
      ASSERT_EQ(coverage_add(&c, begin, end), !was);
      if (!was)
        std::fill(map.begin() + long(begin), map.begin() + long(end), true);
      ASSERT_EQ(coverage_is(&c, 0, 64),
                std::count(map.begin(), map.end(), true) == 64);
    }
  }
}

} // namespace

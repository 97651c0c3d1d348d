// Counters that others write: honest ones are taken as they are, and none adds
// more than it could have.
#include <gtest/gtest.h>

#include <random>

#include "daemon/engine/capped_count.h"
#include "tests/support/daemon_process.h"

namespace {

constexpr uint64_t kSecond = 1000000; // in us

TEST(TallyTest, WhatIsNewIsTakenOnce) {
  capped_count t = capped_count_begin(0, kSecond);
  EXPECT_EQ(capped_count_take(&t, 100, 2 * kSecond), 100u);
  EXPECT_EQ(capped_count_take(&t, 100, 2 * kSecond), 0u);
  EXPECT_EQ(capped_count_take(&t, 103, 3 * kSecond), 3u);
}

TEST(TallyTest, WhatWasThereAtTheBeginIsNotTaken) {
  capped_count t = capped_count_begin(1000, 0);
  EXPECT_EQ(capped_count_take(&t, 1010, kSecond), 10u);
}

TEST(TallyTest, OneThatGoesBackTakesNothingBackAndCountsFromThere) {
  capped_count t = capped_count_begin(0, 0);
  EXPECT_EQ(capped_count_take(&t, 100, kSecond), 100u);
  EXPECT_EQ(capped_count_take(&t, 10, kSecond), 0u);
  EXPECT_EQ(capped_count_take(&t, 15, kSecond), 5u);
}

TEST(TallyTest, NoMoreIsTakenThanTheTimeAllows) {
  capped_count t = capped_count_begin(0, 0);
  EXPECT_EQ(capped_count_take(&t, UINT64_MAX, 1), CAPPED_COUNT_PER_US * 1u);
  EXPECT_EQ(capped_count_take(&t, UINT64_MAX, 1), 0u);
  EXPECT_EQ(capped_count_take(&t, 0, 2), 0u);
  EXPECT_EQ(capped_count_take(&t, UINT64_MAX, 2), CAPPED_COUNT_PER_US * 1u);
  EXPECT_EQ(capped_count_take(&t, UINT64_MAX, 2), 0u);
}

TEST(TallyTest, WhateverItSaysTheSumIsWithinTheTime) {
  std::mt19937_64 random(TestSeed());
  capped_count t = capped_count_begin(random(), 0);
  uint64_t sum = 0, now = 0;
  for (int i = 0; i < 100000; i++) {
    now += random() % 3;
    uint64_t value = random() >> (random() % 64);
    sum += capped_count_take(&t, value, now);
    ASSERT_LE(sum, now * CAPPED_COUNT_PER_US);
  }
}

} // namespace

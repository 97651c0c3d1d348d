#include "source/latency.h"

#include <gtest/gtest.h>

#include "base/buckets.h"

namespace {

TEST(BucketsTest, EachValueIsInTheBucketThatBeginsAtOrBelowIt) {
  for (unsigned cut : {3u, 6u})
    for (uint64_t value = 1; value < UINT64_C(1) << 62;
         value += value / 7 + 1) {
      uint64_t bucket = buckets_find(value, cut);
      EXPECT_LE(buckets_least(bucket, cut), value);
      EXPECT_GT(buckets_least(bucket + 1, cut), value);
    }
  EXPECT_EQ(buckets_find(UINT64_MAX, 6), BUCKETS_LEN(64u, 6) - 1);
}

class LatencyTest : public testing::Test {
protected:
  void Add(uint64_t us, int n = 1) {
    while (n--)
      latency_add(&l_, us * 1000);
  }

  latency l_ = {};
};

TEST_F(LatencyTest, PercentilesAreThoseOfWhatWasAdded) {
  EXPECT_EQ(latency_us(&l_, 50), 0u);
  Add(100, 98);
  Add(5000);
  Add(90000);
  EXPECT_NEAR(double(latency_us(&l_, 50)), 100, 100 / 8);
  EXPECT_NEAR(double(latency_us(&l_, 99)), 5000, 5000 / 8);
  EXPECT_NEAR(double(latency_us(&l_, 100)), 90000, 90000 / 8);
}

TEST_F(LatencyTest, WhatWasLongAgoCountsLessAndLess) {
  Add(90000, LATENCY_FRESH);
  Add(100, 8 * LATENCY_FRESH);
  EXPECT_NEAR(double(latency_us(&l_, 99)), 100, 100 / 8) << "1 in 128 is old";
}

TEST_F(LatencyTest, WhatTakesForEverIsTheLongestThereIs) {
  latency_add(&l_, UINT64_MAX);
  EXPECT_GE(latency_us(&l_, 50), 100000000u);
}

} // namespace

#include "source/pace.h"

#include <gtest/gtest.h>

namespace {

constexpr uint64_t kMs = 1000000;

// A source with a wait, and a number of bytes a millisecond.
struct Source {
  uint64_t wait_ns, per_ms;
  uint64_t Takes(uint64_t bytes) const {
    return wait_ns + bytes * kMs / per_ms;
  }
};

TEST(PaceTest, AReadIsWorthWhatComesWhileOneWaits) {
  const Source far = {20 * kMs, 100000};
  pace p = {};
  for (int i = 0; i < 10; i++) {
    pace_add(&p, 512 << 10, far.Takes(512 << 10));
    pace_add(&p, 0, far.Takes(0));
  }
  EXPECT_NEAR(double(pace_worth(&p)), 2e6, 2e4);
}

TEST(PaceTest, ReadsOfTwoLengthsSayAsMuch) {
  const Source far = {5 * kMs, 40000};
  pace p = {};
  for (int i = 0; i < 10; i++)
    pace_add(&p, (i % 2 ? 128u : 256u) << 10,
             far.Takes((i % 2 ? 128u : 256u) << 10));
  EXPECT_NEAR(double(pace_worth(&p)), 2e5, 2e3);
}

TEST(PaceTest, NothingIsKnownAtFirst) {
  pace p = {};
  EXPECT_EQ(pace_worth(&p), 0u);
  pace_add(&p, 0, 20 * kMs);
  pace_add(&p, 4096, 21 * kMs);
  EXPECT_EQ(pace_worth(&p), 0u);
}

TEST(PaceTest, WhereAllReadsAreAlikeLongerOnesAreTried) {
  const Source far = {20 * kMs, 100000};
  pace p = {};
  uint64_t len = 128 << 10;
  for (int i = 0; i < 1000; i++) {
    pace_add(&p, len, far.Takes(len));
    if (pace_worth(&p) >= 2 * len && len < 4 << 20)
      len *= 2;
  }
  EXPECT_GE(len, 1u << 20);
  EXPECT_LE(len, 2u << 20) << "no longer than it is worth";
}

TEST(PaceTest, AQuickSourceIsNotWorthLongReads) {
  const Source near = {kMs / 10, 1000000};
  pace p = {};
  for (int i = 0; i < 10; i++) {
    pace_add(&p, 1 << 20, near.Takes(1 << 20));
    pace_add(&p, 0, near.Takes(0));
  }
  EXPECT_NEAR(double(pace_worth(&p)), 1e5, 1e3);
}

TEST(PaceTest, ANewPaceIsFollowed) {
  const Source before = {20 * kMs, 100000}, now = {2 * kMs, 100000};
  pace p = {};
  for (int i = 0; i < 600; i++) {
    const Source &s = i < 100 ? before : now;
    pace_add(&p, 512 << 10, s.Takes(512 << 10));
    pace_add(&p, 0, s.Takes(0));
  }
  EXPECT_NEAR(double(pace_worth(&p)), 2e5, 2e4);
}

TEST(PaceTest, WhatMakesNoSenseIsWorthNothing) {
  pace p = {};
  for (int i = 0; i < 10; i++) { // longer ones are quicker
    pace_add(&p, 4096, 10 * kMs);
    pace_add(&p, 1 << 20, kMs);
  }
  EXPECT_LE(pace_worth(&p), 2u << 20);
  p = {};
  for (int i = 0; i < 10; i++) { // one does not wait at all
    pace_add(&p, 0, 0);
    pace_add(&p, 1 << 20, kMs);
  }
  EXPECT_LE(pace_worth(&p), 1u);
}

} // namespace

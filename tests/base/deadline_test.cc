#include "base/deadline.h"

#include <limits.h>

#include <gtest/gtest.h>

namespace {

TEST(Deadline, NeverIsLaterThanAnyTime) {
  EXPECT_EQ(deadline_after(-1), -1);
  EXPECT_EQ(deadline_left_ms(-1), -1);
  EXPECT_FALSE(deadline_has_passed(-1));
  EXPECT_EQ(deadline_earlier(-1, 5), 5);
  EXPECT_EQ(deadline_earlier(5, -1), 5);
  EXPECT_EQ(deadline_earlier(-1, -1), -1);
}

TEST(Deadline, TheEarlierOfTwoIsTheLesser) {
  EXPECT_EQ(deadline_earlier(3, 5), 3);
  EXPECT_EQ(deadline_earlier(5, 3), 3);
  EXPECT_EQ(deadline_earlier(0, 3), 0);
}

TEST(Deadline, HasPassedWhenNothingIsLeft) {
  int64_t now = deadline_now();
  EXPECT_TRUE(deadline_has_passed(now));
  EXPECT_EQ(deadline_left_ms(now), 0);
  EXPECT_EQ(deadline_left_ms(0), 0);
}

TEST(Deadline, LeavesWhatPollCanTake) {
  int64_t now = deadline_now(), far = now + 2ll * INT_MAX;
  EXPECT_EQ(deadline_left_ms(far), INT_MAX);
  EXPECT_FALSE(deadline_has_passed(far));
  int64_t later = deadline_after(60000);
  EXPECT_GE(later, now + 60000);
  EXPECT_LE(deadline_left_ms(later), 60000);
  EXPECT_GT(deadline_left_ms(later), 0);
}

} // namespace

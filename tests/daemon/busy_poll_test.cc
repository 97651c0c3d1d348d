#include "daemon/engine/busy_poll.h"

#include <gtest/gtest.h>

namespace {

// Of `n` sleeps after which nothing had come, those that were looked before.
int Looked(busy_poll *s, int n) {
  int n_looked = 0;
  for (int i = 0; i < n; i++)
    if (busy_poll_is_due(s)) {
      n_looked++;
      busy_poll_ended(s, false);
    }
  return n_looked;
}

TEST(SpinTest, LooksEachTimeWhileThereIsSomething) {
  busy_poll s = {};
  for (int i = 0; i < 1000; i++) {
    ASSERT_TRUE(busy_poll_is_due(&s));
    busy_poll_ended(&s, true);
  }
}

TEST(SpinTest, GoesWithoutTwiceAsManySleepsEachTime) {
  busy_poll s = {};
  for (int n_skips : {1, 2, 4, 8, 16, 32, 64, 64, 64}) {
    ASSERT_TRUE(busy_poll_is_due(&s));
    busy_poll_ended(&s, false);
    for (int i = 0; i < n_skips; i++)
      ASSERT_FALSE(busy_poll_is_due(&s)) << i << " of " << n_skips;
  }
}

TEST(SpinTest, CostsNextToNothingWhereNothingComes) {
  busy_poll s = {};
  EXPECT_LE(Looked(&s, 65 * 1000), 1000 + 6);
}

TEST(SpinTest, ForgetsFailuresAtTheFirstSuccess) {
  busy_poll s = {};
  Looked(&s, 1000);
  while (!busy_poll_is_due(&s))
    continue;
  busy_poll_ended(&s, true);
  EXPECT_TRUE(busy_poll_is_due(&s));
}

} // namespace

#include "daemon/spin.h"

#include <gtest/gtest.h>

namespace {

// Of `n` sleeps after which nothing had come, those that were looked before.
int Looked(spin *s, int n) {
  int n_looked = 0;
  for (int i = 0; i < n; i++)
    if (spin_is_due(s)) {
      n_looked++;
      spin_ended(s, false);
    }
  return n_looked;
}

TEST(SpinTest, LooksEachTimeWhileThereIsSomething) {
  spin s = {};
  for (int i = 0; i < 1000; i++) {
    ASSERT_TRUE(spin_is_due(&s));
    spin_ended(&s, true);
  }
}

TEST(SpinTest, GoesWithoutTwiceAsManySleepsEachTime) {
  spin s = {};
  for (int n_skips : {1, 2, 4, 8, 16, 32, 64, 64, 64}) {
    ASSERT_TRUE(spin_is_due(&s));
    spin_ended(&s, false);
    for (int i = 0; i < n_skips; i++)
      ASSERT_FALSE(spin_is_due(&s)) << i << " of " << n_skips;
  }
}

TEST(SpinTest, CostsNextToNothingWhereNothingComes) {
  spin s = {};
  EXPECT_LE(Looked(&s, 65 * 1000), 1000 + 6);
}

TEST(SpinTest, ForgetsFailuresAtTheFirstSuccess) {
  spin s = {};
  Looked(&s, 1000);
  while (!spin_is_due(&s))
    continue;
  spin_ended(&s, true);
  EXPECT_TRUE(spin_is_due(&s));
}

} // namespace

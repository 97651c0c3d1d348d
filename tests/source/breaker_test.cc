#include "source/breaker.h"

#include <algorithm>

#include <gtest/gtest.h>

namespace {

class BreakerTest : public testing::Test {
protected:
  void TearDown() override { breaker_check(&b_); }

  // Attempts that nobody answers, one after the other.
  void Fail(int n) {
    for (int i = 0; i < n; i++) {
      breaker_permit permit = breaker_ask(&b_, now_);
      EXPECT_NE(permit, BREAKER_REFUSE);
      breaker_ended(&b_, permit == BREAKER_PROBE, false, now_);
      breaker_check(&b_);
    }
  }

  struct breaker b_ = {};
  uint64_t now_ = 1000000;
};

TEST_F(BreakerTest, StaysClosedWhileAnAnswerComesNowAndThen) {
  for (int i = 0; i < 3; i++) {
    Fail(BREAKER_AFTER - 1);
    EXPECT_EQ(breaker_ask(&b_, now_), BREAKER_PASS);
    EXPECT_FALSE(breaker_ended(&b_, false, true, now_));
  }
  EXPECT_EQ(b_.state, BREAKER_CLOSED);
}

TEST_F(BreakerTest, OpensOnceNobodyAnsweredForANumberOfAttempts) {
  Fail(BREAKER_AFTER - 1);
  EXPECT_TRUE(breaker_ended(&b_, false, false, now_));
  EXPECT_EQ(b_.state, BREAKER_OPEN);
  EXPECT_EQ(breaker_ask(&b_, now_), BREAKER_REFUSE);
  EXPECT_EQ(breaker_ask(&b_, now_ + BREAKER_FIRST_MS - 1), BREAKER_REFUSE);
}

TEST_F(BreakerTest, OpensOnceForAttemptsThatWereUnderWay) {
  Fail(BREAKER_AFTER);
  uint64_t until = b_.until_ms;
  EXPECT_FALSE(breaker_ended(&b_, false, false, now_ + 500));
  EXPECT_EQ(b_.until_ms, until);
}

TEST_F(BreakerTest, LetsOneProbeThroughAndClosesWhenItIsAnswered) {
  Fail(BREAKER_AFTER);
  now_ += BREAKER_FIRST_MS;
  EXPECT_EQ(breaker_ask(&b_, now_), BREAKER_PROBE);
  EXPECT_EQ(b_.state, BREAKER_HALF_OPEN);
  EXPECT_EQ(breaker_ask(&b_, now_ + 60000), BREAKER_REFUSE) << "one alone";
  breaker_ended(&b_, true, true, now_);
  EXPECT_EQ(b_.state, BREAKER_CLOSED);
  Fail(BREAKER_AFTER - 1);
  EXPECT_EQ(b_.state, BREAKER_CLOSED) << "it counts anew";
}

TEST_F(BreakerTest, IsOpenForTwiceAsLongAfterAProbeThatIsNotAnswered) {
  Fail(BREAKER_AFTER);
  uint64_t open_ms = BREAKER_FIRST_MS;
  for (int i = 0; i < 10; i++) {
    now_ += open_ms;
    ASSERT_EQ(breaker_ask(&b_, now_ - 1), BREAKER_REFUSE);
    ASSERT_EQ(breaker_ask(&b_, now_), BREAKER_PROBE);
    EXPECT_TRUE(breaker_ended(&b_, true, false, now_));
    open_ms = std::min<uint64_t>(open_ms * 2, BREAKER_MOST_MS);
  }
  EXPECT_EQ(open_ms, uint64_t{BREAKER_MOST_MS});
}

// Of one that began before the others failed.
TEST_F(BreakerTest, ClosesAtALateAnswer) {
  Fail(BREAKER_AFTER);
  breaker_ended(&b_, false, true, now_);
  EXPECT_EQ(breaker_ask(&b_, now_), BREAKER_PASS);
}

} // namespace

// A source that does as it is told, under a clock that the test moves.
#include "source/retrying.h"

#include <errno.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/fake_source.h"

namespace {

// Its reads wait for the test, or end at once.
struct Below {
  struct source base;
  std::vector<source_read *> pending;
  std::deque<int> at_once; // the statuses of the next starts, which are DONE
  int n_starts;
  int n_closed;
  bool knows_zeros; // of all of it
  int n_forgotten;
  struct source *next; // what reopen() gives
  int reopens;         // and says
};

Below *BelowOf(struct source *src) { return reinterpret_cast<Below *>(src); }

const struct source_ops kBelowOps = {
    /*kind=*/"below",
    /*start=*/
    [](struct source *src, struct source_read *read) {
      Below *b = BelowOf(src);
      b->n_starts++;
      if (b->at_once.empty()) {
        b->pending.push_back(read);
        return SOURCE_PENDING;
      }
      read->status = b->at_once.front();
      b->at_once.pop_front();
      return SOURCE_DONE;
    },
    /*read=*/nullptr,
    /*knows_zeros=*/
    [](struct source *src, uint64_t, uint64_t) {
      return BelowOf(src)->knows_zeros;
    },
    /*reopen=*/
    [](struct source *src, struct source **out) {
      *out = BelowOf(src)->next;
      return BelowOf(src)->reopens;
    },
    /*identify=*/nullptr,
    /*resume=*/nullptr,
    /*worth=*/nullptr,
    /*advise=*/nullptr,
    /*forget=*/[](struct source *src) { BelowOf(src)->n_forgotten++; },
    /*listen=*/nullptr,
    /*close=*/[](struct source *src) { BelowOf(src)->n_closed++; },
};

std::string g_told; // what `turned` was told

class RetryingTest : public testing::Test {
protected:
  RetryingTest() {
    g_told = "";
    below_.base.ops = next_below_.base.ops = &kBelowOps;
    below_.base.size = 8192;
    next_below_.base.size = 4096;
    const struct retrying_clock clock = {
        [](void *arg) {
          return static_cast<RetryingTest *>(arg)->now_ * 1000000;
        },
        [](void *arg, struct reactor_alarm *alarm, uint64_t ms) {
          RetryingTest *test = static_cast<RetryingTest *>(arg);
          test->alarms_.push_back({test->now_ + ms, alarm});
        },
        this};
    retrying_ = retrying_new(&clock, "below", [](const char *name, bool is) {
      g_told += std::string(name) + (is ? " answers;" : " is silent;");
    });
    EXPECT_EQ(retrying_source_new(retrying_, &below_.base, &source_), 0);
  }

  ~RetryingTest() override {
    if (source_)
      source_->ops->close(source_);
    EXPECT_EQ(below_.n_closed, 1);
    retrying_unref(retrying_);
  }

  struct Read {
    struct source_read read; // first
    int n_done;
    uint8_t buf[512];
  };

  // Starts a read of all of the buffer.
  enum source_outcome Start(Read *read) {
    read->read = {};
    read->read.offset = 1024;
    read->read.buf = read->buf;
    read->read.len = len_;
    read->read.deadline_ms = deadline_ms_;
    read->read.anew = anew_;
    read->read.status = 1;
    read->read.done = [](struct source_read *r) {
      reinterpret_cast<Read *>(r)->n_done++;
    };
    read->n_done = 0;
    return source_start(source_, &read->read);
  }

  // Ends the oldest attempt that waits, after that time.
  void End(int status, uint64_t took = 0) {
    now_ += took;
    ASSERT_FALSE(below_.pending.empty());
    struct source_read *read = below_.pending.front();
    below_.pending.erase(below_.pending.begin());
    read->status = status;
    read->done(read);
  }

  // Moves the clock to the next alarm, and lets it ring.  How long that was.
  uint64_t Ring() {
    auto next = std::min_element(
        alarms_.begin(), alarms_.end(),
        [](const Due &a, const Due &b) { return a.at < b.at; });
    if (next == alarms_.end()) {
      ADD_FAILURE() << "nothing is due";
      return 0;
    }
    Due due = *next;
    alarms_.erase(next);
    uint64_t after = due.at > now_ ? due.at - now_ : 0;
    now_ += after;
    due.alarm->ring(due.alarm);
    return after;
  }

  struct retrying_counts Counts() {
    struct retrying_counts counts;
    retrying_count(retrying_, &counts);
    return counts;
  }

  // Nobody answers, until the breaker is open.
  void Break() {
    below_.at_once.assign(BREAKER_AFTER, -ETIMEDOUT);
    while (Counts().breaker == BREAKER_CLOSED) {
      Read read;
      if (Start(&read) == SOURCE_DONE)
        continue;
      while (!read.n_done)
        Ring();
    }
  }

  struct Due {
    uint64_t at;
    struct reactor_alarm *alarm;
  };

  uint64_t now_ = 1000, deadline_ms_ = 0;
  size_t len_ = sizeof Read::buf;
  bool anew_ = false;
  std::vector<Due> alarms_;
  Below below_ = {}, next_below_ = {};
  struct retrying *retrying_ = nullptr;
  struct source *source_ = nullptr;
};

TEST_F(RetryingTest, WhatItIsToForgetTheSourceBelowForgets) {
  source_forget(source_);
  EXPECT_EQ(below_.n_forgotten, 1);
}

TEST_F(RetryingTest, ZerosArePassedOnAndAreNoBytesOfTheSources) {
  Read at_once, later;
  below_.at_once = {SOURCE_ZEROS};
  ASSERT_EQ(Start(&at_once), SOURCE_DONE);
  EXPECT_EQ(at_once.read.status, SOURCE_ZEROS);
  ASSERT_EQ(Start(&later), SOURCE_PENDING);
  End(SOURCE_ZEROS);
  EXPECT_EQ(later.n_done, 1);
  EXPECT_EQ(later.read.status, SOURCE_ZEROS);
  EXPECT_EQ(Counts().n_requests, 2u);
  EXPECT_EQ(Counts().n_errors, 0u);
  EXPECT_EQ(Counts().n_bytes, 0u);
}

TEST_F(RetryingTest, AReadThatSucceedsIsAskedForOnce) {
  Read read;
  ASSERT_EQ(Start(&read), SOURCE_PENDING);
  const struct source_read *asked = below_.pending[0];
  EXPECT_EQ(asked->offset, 1024u);
  EXPECT_EQ(asked->buf, read.buf);
  EXPECT_EQ(asked->len, sizeof read.buf);
  End(0);
  EXPECT_EQ(read.n_done, 1);
  EXPECT_EQ(read.read.status, 0);
  EXPECT_TRUE(alarms_.empty());
  EXPECT_EQ(Counts().n_requests, 1u);
  EXPECT_EQ(Counts().n_bytes, sizeof read.buf);
  EXPECT_EQ(Counts().n_errors, 0u);
  EXPECT_EQ(source_->size, 8192u);
}

TEST_F(RetryingTest, AReadThatIsDoneAtOnceIs) {
  Read read;
  below_.at_once = {0};
  EXPECT_EQ(Start(&read), SOURCE_DONE);
  EXPECT_EQ(read.read.status, 0);
  EXPECT_EQ(read.n_done, 0);
}

TEST_F(RetryingTest, WhatMayHelpIsTriedAgainAfterPausesThatDouble) {
  Read read;
  ASSERT_EQ(Start(&read), SOURCE_PENDING);
  uint64_t most = RETRYING_PAUSE_MS;
  for (int status : {-EIO, -EAGAIN, -EPROTO}) {
    End(status);
    EXPECT_EQ(read.n_done, 0);
    uint64_t pause = Ring();
    EXPECT_GE(pause, most / 2);
    EXPECT_LE(pause, most);
    most *= 2;
  }
  EXPECT_EQ(below_.pending[0]->offset, 1024u);
  End(0);
  EXPECT_EQ(read.n_done, 1);
  EXPECT_EQ(read.read.status, 0);
  EXPECT_EQ(Counts().n_requests, 4u);
  EXPECT_EQ(Counts().n_retries, 3u);
  EXPECT_EQ(Counts().n_errors, 3u);
  EXPECT_EQ(Counts().n_throttled, 1u);
  EXPECT_EQ(Counts().n_bytes, sizeof read.buf);
}

TEST_F(RetryingTest, AttemptsThatTakeLongAreCountedAlsoIfTheyFail) {
  Read fast, slow, failed;
  ASSERT_EQ(Start(&fast), SOURCE_PENDING);
  End(0, RETRYING_SLOW_MS);
  EXPECT_EQ(Counts().n_slow, 0u);
  ASSERT_EQ(Start(&slow), SOURCE_PENDING);
  End(0, RETRYING_SLOW_MS + 1);
  EXPECT_EQ(Counts().n_slow, 1u);
  ASSERT_EQ(Start(&failed), SOURCE_PENDING);
  End(-ENOENT, RETRYING_SLOW_MS + 1);
  EXPECT_EQ(Counts().n_slow, 2u);
}

TEST_F(RetryingTest, ItGivesUpAfterANumberOfAttempts) {
  Read read;
  below_.at_once.assign(RETRYING_ATTEMPTS, -EREMOTEIO);
  EXPECT_EQ(Start(&read), SOURCE_PENDING);
  while (!read.n_done)
    Ring();
  EXPECT_EQ(read.n_done, 1);
  EXPECT_EQ(read.read.status, -EREMOTEIO);
  EXPECT_EQ(below_.n_starts, RETRYING_ATTEMPTS);
}

TEST_F(RetryingTest, WhatDoesNotMatchIsTriedAgainAtOnceByAnotherConnection) {
  Read read;
  ASSERT_EQ(Start(&read), SOURCE_PENDING);
  EXPECT_FALSE(below_.pending[0]->anew);
  for (int i = 1; i < RETRYING_ATTEMPTS; i++) {
    End(-EBADMSG);
    EXPECT_EQ(read.n_done, 0);
    EXPECT_EQ(Ring(), 0u);
    EXPECT_TRUE(below_.pending[0]->anew);
  }
  End(-EBADMSG);
  EXPECT_EQ(read.n_done, 1);
  EXPECT_EQ(read.read.status, -EBADMSG);
  EXPECT_EQ(Counts().n_mismatches, unsigned(RETRYING_ATTEMPTS));
  EXPECT_EQ(Counts().n_errors, unsigned(RETRYING_ATTEMPTS));
  EXPECT_EQ(Counts().n_bytes, 0u);
}

TEST_F(RetryingTest, WhoAsksForAnotherConnectionHasItInEachAttempt) {
  Read read;
  anew_ = true;
  ASSERT_EQ(Start(&read), SOURCE_PENDING);
  EXPECT_TRUE(below_.pending[0]->anew);
  End(-EIO);
  Ring();
  EXPECT_TRUE(below_.pending[0]->anew);
  End(0);
  EXPECT_EQ(read.n_done, 1);
}

TEST_F(RetryingTest, AnotherFailureNeedsNoOtherConnection) {
  Read read;
  ASSERT_EQ(Start(&read), SOURCE_PENDING);
  for (int status : {-EBADMSG, -EIO}) {
    End(status);
    Ring();
    EXPECT_EQ(below_.pending[0]->anew, status == -EBADMSG);
  }
  End(0);
  EXPECT_EQ(read.n_done, 1);
  EXPECT_EQ(read.read.status, 0);
}

TEST_F(RetryingTest, WhatCannotHelpIsNotTriedAgain) {
  for (int status : {-ESTALE, -EACCES, -ENOENT, -ENOMEM, -EINVAL}) {
    Read read;
    ASSERT_EQ(Start(&read), SOURCE_PENDING);
    End(status);
    EXPECT_EQ(read.n_done, 1);
    EXPECT_EQ(read.read.status, status);
  }
  EXPECT_EQ(Counts().n_refused, 2u);
  EXPECT_EQ(Counts().n_retries, 0u);
}

TEST_F(RetryingTest, NoAttemptIsMadeThatHasNoTimeLeft) {
  Read read;
  uint64_t begin = now_;
  ASSERT_EQ(Start(&read), SOURCE_PENDING);
  while (!read.n_done) {
    End(-ETIMEDOUT, RETRYING_TOTAL_MS / 3);
    if (!read.n_done)
      Ring();
  }
  EXPECT_EQ(below_.n_starts, 2) << "a third would end too late";
  EXPECT_EQ(read.read.status, -ETIMEDOUT);
  EXPECT_LE(now_ - begin, uint64_t{RETRYING_TOTAL_MS});
  EXPECT_EQ(Counts().n_timeouts, 2u);
}

TEST_F(RetryingTest, TheSourceIsToldTheDeadlineAndHowFarItIsOff) {
  Read read, hurried;
  ASSERT_EQ(Start(&read), SOURCE_PENDING);
  EXPECT_EQ(below_.pending[0]->deadline_ms, now_ + 1 + RETRYING_TOTAL_MS);
  deadline_ms_ = now_ + 500;
  ASSERT_EQ(Start(&hurried), SOURCE_PENDING);
  EXPECT_EQ(below_.pending[1]->deadline_ms, now_ + 500);
  End(0);
  End(-EIO, 300);
  EXPECT_EQ(hurried.n_done, 1) << "another 300 ms would be too late";
  EXPECT_EQ(hurried.read.status, -EIO);
}

TEST_F(RetryingTest, ReadsBeyondTheLimitWaitInTheOrderInWhichTheyCame) {
  std::vector<Read> reads(RETRYING_MAX_REQUESTS + 2);
  for (Read &read : reads)
    ASSERT_EQ(Start(&read), SOURCE_PENDING);
  EXPECT_EQ(below_.pending.size(), size_t{RETRYING_MAX_REQUESTS});
  End(0);
  EXPECT_EQ(below_.pending.size(), size_t{RETRYING_MAX_REQUESTS});
  EXPECT_EQ(below_.pending.back()->buf, reads[RETRYING_MAX_REQUESTS].buf);
  while (!below_.pending.empty())
    End(0);
  for (const Read &read : reads)
    EXPECT_EQ(read.n_done, 1);
}

TEST_F(RetryingTest, AnotherNumberMayBeUnderWay) {
  Read first, second;
  retrying_set_max_requests(retrying_, 1);
  ASSERT_EQ(Start(&first), SOURCE_PENDING);
  ASSERT_EQ(Start(&second), SOURCE_PENDING);
  EXPECT_EQ(below_.pending.size(), 1u);
  End(0);
  EXPECT_EQ(below_.pending.size(), 1u);
  End(0);
  EXPECT_EQ(second.n_done, 1);
}

TEST_F(RetryingTest, ManyBytesAreUnderWayForOneReadAlone) {
  Read first, second, third;
  len_ = size_t{RETRYING_MAX_BYTES} + 1;
  ASSERT_EQ(Start(&first), SOURCE_PENDING);
  len_ = 1;
  ASSERT_EQ(Start(&second), SOURCE_PENDING);
  ASSERT_EQ(Start(&third), SOURCE_PENDING);
  EXPECT_EQ(below_.pending.size(), 1u);
  End(0);
  EXPECT_EQ(below_.pending.size(), 2u);
  End(0);
  End(0);
  EXPECT_EQ(third.n_done, 1);
}

TEST_F(RetryingTest, AReadWhoseTimeIsOverWhileItWaitsIsNotAskedFor) {
  Read first, second;
  len_ = RETRYING_MAX_BYTES;
  ASSERT_EQ(Start(&first), SOURCE_PENDING);
  ASSERT_EQ(Start(&second), SOURCE_PENDING);
  End(0, RETRYING_TOTAL_MS);
  EXPECT_EQ(second.n_done, 1);
  EXPECT_EQ(second.read.status, -ETIMEDOUT);
  EXPECT_EQ(below_.n_starts, 1);
  EXPECT_EQ(Counts().n_timeouts, 0u) << "nobody was asked";
}

TEST_F(RetryingTest, AReadWithHardlyAnyTimeLeftIsNotAskedFor) {
  Read first, second;
  len_ = RETRYING_MAX_BYTES;
  ASSERT_EQ(Start(&first), SOURCE_PENDING);
  ASSERT_EQ(Start(&second), SOURCE_PENDING);
  End(0, RETRYING_TOTAL_MS - RETRYING_LEAST_MS / 2);
  EXPECT_EQ(second.n_done, 1);
  EXPECT_EQ(second.read.status, -ETIMEDOUT);
  EXPECT_EQ(below_.n_starts, 1);
}

TEST_F(RetryingTest, AnAttemptThatItsReadCutShortSaysNothingOfTheSource) {
  for (int i = 0; i < 2 * BREAKER_AFTER; i++) {
    Read read;
    deadline_ms_ = now_ + 500;
    ASSERT_EQ(Start(&read), SOURCE_PENDING);
    End(-ETIMEDOUT, 500);
    EXPECT_EQ(read.read.status, -ETIMEDOUT);
  }
  EXPECT_EQ(Counts().breaker, BREAKER_CLOSED);
  EXPECT_EQ(Counts().n_timeouts, 2u * BREAKER_AFTER);
  for (int i = 0; i < BREAKER_AFTER; i++) {
    Read read;
    deadline_ms_ = now_ + RETRYING_FAIR_MS;
    ASSERT_EQ(Start(&read), SOURCE_PENDING);
    End(-ETIMEDOUT, RETRYING_FAIR_MS);
  }
  EXPECT_EQ(Counts().breaker, BREAKER_OPEN) << "they had time enough";
}

TEST_F(RetryingTest, WhatWaitsEndsWhenTheBreakerOpens) {
  std::vector<Read> reads(RETRYING_MAX_REQUESTS + 20);
  for (Read &read : reads)
    ASSERT_EQ(Start(&read), SOURCE_PENDING);
  for (int i = 0; i < BREAKER_AFTER; i++)
    End(-ETIMEDOUT); // the first few let others have their turn
  EXPECT_EQ(reads[RETRYING_MAX_REQUESTS].n_done, 0);
  for (size_t i = RETRYING_MAX_REQUESTS + BREAKER_AFTER; i < reads.size(); i++)
    EXPECT_EQ(reads[i].read.status, -EHOSTDOWN) << i;
  while (!below_.pending.empty())
    End(0);
  while (!alarms_.empty())
    Ring();
  while (!below_.pending.empty())
    End(0);
  for (const Read &read : reads)
    EXPECT_EQ(read.n_done, 1);
}

TEST_F(RetryingTest, ItKnowsHowLongTheFirstAndTheLastByteTook) {
  for (int i = 0; i < 10; i++) {
    Read read;
    ASSERT_EQ(Start(&read), SOURCE_PENDING);
    below_.pending[0]->sent_ns = now_ * 1000000;
    below_.pending[0]->first_ns = (now_ + 20) * 1000000;
    End(0, 25);
  }
  EXPECT_NEAR(double(Counts().first.p50), 20000, 20000 / 8);
  EXPECT_NEAR(double(Counts().last.p99), 25000, 25000 / 8);
  EXPECT_NEAR(double(source_->ops->worth(source_)), 4 * 512, 2)
      << "512 bytes come in 5 ms, and one waits for 20";
}

// Neither a pause nor a queue of the source below is the server's time.
TEST_F(RetryingTest, WhatAReadWaitsForIsCountedApart) {
  for (int i = 0; i < 10; i++) {
    Read read;
    ASSERT_EQ(Start(&read), SOURCE_PENDING);
    below_.pending[0]->sent_ns = (now_ + 300) * 1000000;
    below_.pending[0]->first_ns = (now_ + 320) * 1000000;
    End(0, 325);
  }
  EXPECT_NEAR(double(Counts().wait.p50), 300000, 300000 / 8);
  EXPECT_NEAR(double(Counts().first.p99), 20000, 20000 / 8);
  EXPECT_NEAR(double(Counts().last.p99), 25000, 25000 / 8);
}

TEST_F(RetryingTest, UnderAnOpenBreakerReadsEndAtOnce) {
  Break();
  Read read;
  int before = below_.n_starts;
  EXPECT_EQ(Start(&read), SOURCE_DONE);
  EXPECT_EQ(read.read.status, -EHOSTDOWN);
  EXPECT_EQ(below_.n_starts, before);
  EXPECT_EQ(Counts().n_broken, 1u);
  EXPECT_EQ(Counts().n_opened, 1u);
  EXPECT_EQ(Counts().breaker, BREAKER_OPEN);
  EXPECT_EQ(g_told, "below is silent;");
}

TEST_F(RetryingTest, AReadThatWaitsForItsTurnEndsUnderAnOpenBreaker) {
  Read read;
  below_.at_once = {-EIO};
  ASSERT_EQ(Start(&read), SOURCE_PENDING);
  std::vector<Due> waits;
  waits.swap(alarms_);
  Break();
  now_ = waits[0].at;
  waits[0].alarm->ring(waits[0].alarm);
  EXPECT_EQ(read.n_done, 1);
  EXPECT_EQ(read.read.status, -EHOSTDOWN);
}

TEST_F(RetryingTest, AProbeThatIsAnsweredClosesTheBreaker) {
  Break();
  Read probe, other, after;
  now_ += BREAKER_FIRST_MS;
  ASSERT_EQ(Start(&probe), SOURCE_PENDING);
  EXPECT_EQ(Counts().breaker, BREAKER_HALF_OPEN);
  EXPECT_EQ(Start(&other), SOURCE_DONE);
  EXPECT_EQ(other.read.status, -EHOSTDOWN) << "one probe at a time";
  End(0);
  EXPECT_EQ(probe.read.status, 0);
  EXPECT_EQ(Counts().breaker, BREAKER_CLOSED);
  EXPECT_EQ(g_told, "below is silent;below answers;");
  EXPECT_EQ(Start(&after), SOURCE_PENDING);
  End(0);
}

TEST_F(RetryingTest, KnownZerosPassAnOpenBreakerAndAreNoSignOfLife) {
  Break();
  now_ += BREAKER_FIRST_MS;
  below_.knows_zeros = true;
  int before = below_.n_starts;
  Read zeros, probe;
  EXPECT_EQ(Start(&zeros), SOURCE_DONE);
  EXPECT_EQ(zeros.read.status, SOURCE_ZEROS);
  EXPECT_EQ(below_.n_starts, before);
  EXPECT_EQ(Counts().breaker, BREAKER_OPEN);
  below_.knows_zeros = false;
  ASSERT_EQ(Start(&probe), SOURCE_PENDING);
  below_.knows_zeros = true;
  EXPECT_EQ(Start(&zeros), SOURCE_DONE);
  EXPECT_EQ(zeros.read.status, SOURCE_ZEROS) << "beside the probe";
  EXPECT_EQ(Counts().breaker, BREAKER_HALF_OPEN);
  End(-ETIMEDOUT);
  EXPECT_EQ(Counts().breaker, BREAKER_OPEN);
  EXPECT_EQ(g_told, "below is silent;");
}

TEST_F(RetryingTest, KnownZerosDoNotWaitForTheirTurn) {
  Read first, second, zeros;
  retrying_set_max_requests(retrying_, 1);
  ASSERT_EQ(Start(&first), SOURCE_PENDING);
  ASSERT_EQ(Start(&second), SOURCE_PENDING);
  below_.knows_zeros = true;
  EXPECT_EQ(Start(&zeros), SOURCE_DONE);
  EXPECT_EQ(zeros.read.status, SOURCE_ZEROS);
  End(0);
  End(0);
}

// A source that first has to compare them does not know them before.
TEST_F(RetryingTest, AProbeThatEndsAtOnceWithZerosLeavesTheBreakerOpen) {
  Break();
  now_ += BREAKER_FIRST_MS;
  below_.at_once = {SOURCE_ZEROS};
  Read zeros, probe;
  EXPECT_EQ(Start(&zeros), SOURCE_DONE);
  EXPECT_EQ(zeros.read.status, SOURCE_ZEROS);
  EXPECT_EQ(Counts().breaker, BREAKER_OPEN);
  EXPECT_EQ(g_told, "below is silent;");
  ASSERT_EQ(Start(&probe), SOURCE_PENDING) << "the next one is the probe";
  End(SOURCE_ZEROS);
  EXPECT_EQ(Counts().breaker, BREAKER_CLOSED) << "somebody said that";
}

TEST_F(RetryingTest, ZerosAtOnceAreNoAnswerBetweenAttemptsWithoutOne) {
  for (int i = 0; i < BREAKER_AFTER; i++) {
    Read zeros, read;
    below_.at_once = {SOURCE_ZEROS};
    EXPECT_EQ(Start(&zeros), SOURCE_DONE);
    deadline_ms_ = now_ + RETRYING_FAIR_MS; // no second attempt
    ASSERT_EQ(Start(&read), SOURCE_PENDING);
    End(-ETIMEDOUT, RETRYING_FAIR_MS);
    deadline_ms_ = 0;
  }
  EXPECT_EQ(Counts().breaker, BREAKER_OPEN);
}

TEST_F(RetryingTest, AProbeThatFailsIsNotTriedAgain) {
  Break();
  Read probe;
  now_ += BREAKER_FIRST_MS;
  ASSERT_EQ(Start(&probe), SOURCE_PENDING);
  End(-ECONNREFUSED);
  EXPECT_EQ(probe.n_done, 1);
  EXPECT_EQ(probe.read.status, -ECONNREFUSED);
  EXPECT_EQ(Counts().breaker, BREAKER_OPEN);
  EXPECT_EQ(g_told, "below is silent;") << "once";
  EXPECT_EQ(Counts().n_disconnected, 1u);
}

TEST_F(RetryingTest, ASuccessorHasTheSameBreakerAndCounts) {
  struct source *next = nullptr;
  below_.next = &next_below_.base;
  ASSERT_EQ(source_->ops->reopen(source_, &next), 0);
  ASSERT_NE(next, nullptr);
  EXPECT_EQ(next->size, 4096u);
  Break();
  source_->ops->close(source_);
  source_ = next;
  Read read;
  EXPECT_EQ(Start(&read), SOURCE_DONE);
  EXPECT_EQ(read.read.status, -EHOSTDOWN);
  source_->ops->close(source_);
  source_ = nullptr;
  EXPECT_EQ(next_below_.n_closed, 1);
}

TEST_F(RetryingTest, WithoutASuccessorThereIsNone) {
  struct source *next = source_;
  EXPECT_EQ(source_->ops->reopen(source_, &next), 0);
  EXPECT_EQ(next, nullptr);
  below_.reopens = -ETIMEDOUT;
  EXPECT_EQ(source_->ops->reopen(source_, &next), -ETIMEDOUT);
}

// On a reactor, with a source that ends its reads on threads of its own.
TEST(RetryingThreadsTest, ManyReadersGetWhatTheyAskForThoughSomeAttemptsFail) {
  constexpr int kThreads = 4, kReads = 50;
  FakeSource fake(1 << 20, FakeReads::kCallBack);
  struct reactor *reactor;
  ASSERT_EQ(reactor_new(&reactor), 0);
  const struct retrying_clock clock = retrying_clock_of(reactor);
  struct retrying *retrying = retrying_new(&clock, "fake", nullptr);
  struct source *source;
  ASSERT_EQ(retrying_source_new(retrying, fake.Open(), &source), 0);
  fake.FailReads(EIO, 3); // fewer than a read may have attempts
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; t++)
    threads.emplace_back([&, t] {
      for (int i = 0; i < kReads; i++) {
        std::vector<uint8_t> got(4096);
        uint64_t at = 4096 * static_cast<uint64_t>(t * kReads + i);
        EXPECT_EQ(source_read_blocking(source, at, got.data(), got.size()), 0);
        EXPECT_EQ(got, FakeSource::Bytes(at, got.size()));
      }
    });
  for (std::thread &thread : threads)
    thread.join();
  struct retrying_counts counts;
  retrying_count(retrying, &counts);
  EXPECT_EQ(counts.n_errors, 3u);
  EXPECT_EQ(counts.n_requests, 3u + kThreads * kReads);
  EXPECT_EQ(counts.n_bytes, 4096u * kThreads * kReads);
  source->ops->close(source);
  retrying_unref(retrying);
  reactor_free(reactor);
}

} // namespace

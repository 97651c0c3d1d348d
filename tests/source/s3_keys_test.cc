// Keys for S3 that are given for a while: when others are looked for, and what
// the requests have meanwhile.  The clock is the test's.
#include "source/s3_keys.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <future>
#include <string>

#include "base/clock.h"
#include "source/reactor.h"
#include "source/s3_credentials.h"
#include "tests/support/fake_aws.h"

namespace {

constexpr int64_t kNow = 2000000000; // 2033-05-18T03:33:20Z
constexpr int64_t kHour = 3600;

std::string Date(int64_t when) {
  char text[32];
  time_t t = when;
  tm fields;
  strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &fields));
  return text;
}

// A get whose keys were refused.
struct Refused {
  http_pause pause = {};
  std::promise<bool> over;
};

class S3KeysTest : public testing::Test {
protected:
  S3KeysTest() {
    EXPECT_EQ(reactor_new(&reactor_), 0);
    for (const char *name :
         {"AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE",
          "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_EC2_METADATA_DISABLED"})
      unsetenv(name);
    setenv("AWS_SHARED_CREDENTIALS_FILE", "/absent", 1);
    setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", aws_.Url().c_str(), 1);
  }
  ~S3KeysTest() override {
    s3_keys_free(keys_);
    reactor_free(reactor_);
  }

  void Give(const std::string &access_key, int64_t expires) {
    aws_.Give(access_key, "S", "T", Date(expires));
  }

  int Open(long timeout_ms = 60000) {
    const s3_credentials_place place = {};
    timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += timeout_ms / 1000;
    deadline.tv_nsec += timeout_ms % 1000 * 1000000;
    deadline.tv_sec += deadline.tv_nsec / 1000000000;
    deadline.tv_nsec %= 1000000000;
    return s3_keys_open(reactor_, &place, kNow, &deadline, &keys_, &why_);
  }

  void OnReactor(const std::function<void()> &what) {
    struct Call {
      struct task task = {};
      const std::function<void()> *what;
    } call;
    call.what = &what;
    call.task.run = [](struct task *task) {
      (*reinterpret_cast<Call *>(task)->what)();
    };
    reactor_run(reactor_, &call.task);
  }

  // The access key of a request at that time.
  std::string Use(int64_t now, uint64_t *mark = nullptr) {
    std::string access_key;
    uint64_t unused;
    OnReactor([&] {
      access_key = s3_keys_use(keys_, now, mark ? mark : &unused)->access_key;
    });
    return access_key;
  }

  void AwaitUse(int64_t now, const std::string &access_key) {
    while (Use(now) != access_key)
      usleep(1000); // until the look-up has ended
  }

  // What comes of a get whose keys are refused; true: ask again.
  bool Refuse(int64_t now, uint64_t mark, uint64_t deadline_ms = 0) {
    Refused get;
    get.pause.over = [](http_pause *pause, bool again) {
      reinterpret_cast<Refused *>(pause)->over.set_value(again);
    };
    http_advice advice;
    OnReactor([&] {
      advice = s3_keys_refused(keys_, now, mark, deadline_ms, &get.pause);
    });
    return advice == HTTP_PAUSE ? get.over.get_future().get()
                                : advice == HTTP_ASK_AGAIN;
  }

  FakeAws aws_;
  reactor *reactor_ = nullptr;
  s3_keys *keys_ = nullptr;
  const char *why_ = nullptr;
};

TEST_F(S3KeysTest, OthersAreLookedForBeforeTheyExpireAndTheOldOnesServe) {
  Give("first", kNow + kHour);
  ASSERT_EQ(Open(), 0) << why_;
  Give("too early", kNow + 2 * kHour);
  EXPECT_EQ(Use(kNow + kHour - S3_KEYS_AHEAD_S - 60), "first");
  Give("second", kNow + 2 * kHour);
  aws_.Hold();
  EXPECT_EQ(Use(kNow + kHour - S3_KEYS_AHEAD_S), "first");
  aws_.AwaitAsker();
  EXPECT_EQ(Use(kNow + kHour - 1), "first");
  EXPECT_EQ(Use(kNow + kHour + 1), "first");
  aws_.Go();
  AwaitUse(kNow + kHour, "second");
  EXPECT_EQ(aws_.n_asked(), 2) << "one look-up is under way at most";
}

TEST_F(S3KeysTest, AServiceThatIsDownLeavesTheOldOnes) {
  Give("first", kNow + kHour);
  ASSERT_EQ(Open(), 0) << why_;
  aws_.Say("500");
  uint64_t mark;
  const int64_t due = kNow + kHour - S3_KEYS_AHEAD_S;
  EXPECT_EQ(Use(due, &mark), "first");
  EXPECT_FALSE(Refuse(due, mark)); // it has waited for that look-up
  EXPECT_EQ(aws_.n_asked(), 2);
  EXPECT_EQ(Use(due + S3_KEYS_PAUSE_S - 1), "first");
  Give("second", kNow + 2 * kHour);
  aws_.Say("");
  EXPECT_EQ(Use(due + S3_KEYS_PAUSE_S), "first");
  AwaitUse(due + S3_KEYS_PAUSE_S, "second");
  EXPECT_EQ(aws_.n_asked(), 3);
}

TEST_F(S3KeysTest, AGetThatIsRefusedWaitsForOthers) {
  Give("first", kNow + kHour);
  ASSERT_EQ(Open(), 0) << why_;
  uint64_t mark, later;
  Use(kNow, &mark);
  Give("second", kNow + kHour);
  EXPECT_TRUE(Refuse(kNow, mark));
  EXPECT_EQ(Use(kNow, &later), "second");
  EXPECT_NE(later, mark);
  EXPECT_TRUE(Refuse(kNow, mark)) << "there are others already";
  EXPECT_EQ(aws_.n_asked(), 2);
}

TEST_F(S3KeysTest, AGetThatIsRefusedWaitsNoLongerThanUntilItsDeadline) {
  Give("first", kNow + kHour);
  ASSERT_EQ(Open(), 0) << why_;
  uint64_t mark;
  Use(kNow, &mark);
  aws_.Hold();
  EXPECT_FALSE(Refuse(kNow, mark, clock_now_ms() + 50));
  EXPECT_FALSE(Refuse(kNow, mark, clock_now_ms()));
  aws_.Go();
}

TEST_F(S3KeysTest, WhereThereAreNoOthersNobodyAsksAgainAtOnce) {
  Give("first", kNow + kHour);
  ASSERT_EQ(Open(), 0) << why_;
  uint64_t mark;
  Use(kNow, &mark);
  for (int i = 0; i < 5; i++)
    EXPECT_FALSE(Refuse(kNow, mark));
  EXPECT_EQ(aws_.n_asked(), 2);
  EXPECT_FALSE(Refuse(kNow + 1, mark));
  EXPECT_EQ(aws_.n_asked(), 3);
}

TEST_F(S3KeysTest, ThoseOfAShortTimeAreReplacedInItsSecondHalf) {
  Give("first", kNow + 100);
  ASSERT_EQ(Open(), 0) << why_;
  Give("too early", kNow + 200);
  EXPECT_EQ(Use(kNow + 49), "first");
  Give("second", kNow + 200);
  EXPECT_EQ(Use(kNow + 50), "first");
  AwaitUse(kNow + 50, "second");
}

TEST_F(S3KeysTest, ThoseThatDoNotExpireAreKeptUntilTheyAreRefused) {
  aws_.Give("first", "S", "T", "never");
  ASSERT_EQ(Open(), 0) << why_;
  uint64_t mark;
  EXPECT_EQ(Use(kNow + 1000 * kHour, &mark), "first");
  Give("second", kNow);
  EXPECT_TRUE(Refuse(kNow + 1000 * kHour, mark));
  EXPECT_EQ(aws_.n_asked(), 2);
}

TEST_F(S3KeysTest, WhoOpensWaitsNoLongerThanHeSays) {
  aws_.Hold();
  EXPECT_EQ(Open(50), -ETIMEDOUT);
}

TEST_F(S3KeysTest, WhatTheServiceSaysIsWhatOpeningSays) {
  aws_.Say("403");
  EXPECT_EQ(Open(), -EACCES);
  EXPECT_STREQ(why_, "the service of credentials refuses us");
}

TEST_F(S3KeysTest, NobodyWaitsForALookUpThatIsGivenUp) {
  Give("first", kNow + kHour);
  ASSERT_EQ(Open(), 0) << why_;
  aws_.Hold();
  Use(kNow + kHour);
  aws_.AwaitAsker();
  s3_keys_free(keys_);
  keys_ = nullptr;
  reactor_free(reactor_);
  reactor_ = nullptr;
}

} // namespace

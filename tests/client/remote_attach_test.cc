// Handles that ask a daemon for its memory, and are refused.
#include "tests/client/fake_daemon.h"

#include <chrono>

namespace {

using Clock = std::chrono::steady_clock;

class RefusedTest : public testing::Test {
protected:
  // A daemon that refuses each Attach, for this reason, and serves the rest.
  std::unique_ptr<FakeDaemon> Refuse(int sys_errno) {
    Script script = [this, sys_errno](Peer &p) {
      Request r;
      peer_ = &p;
      if (!p.Handshake())
        return;
      while (p.Receive(&r))
        if (r.body == CACHET__WIRE__MESSAGE__BODY_ATTACH) {
          n_attaches_++;
          p.Error(r.id, CACHET_E_UNSUPPORTED, "no", sys_errno);
        } else {
          p.Answer(r);
        }
    };
    auto d = std::make_unique<FakeDaemon>(std::vector<Script>{script}, kSize);
    d->image.share = true;
    return d;
  }

  static Handle OpenAt(const FakeDaemon &d) {
    cachet_options o = Options();
    o.flags = CACHET_NO_READAHEAD;
    o.cache_size = 256 << 10; // so that each page is a miss, round after round
    return Open(d.Uri(), o);
  }

  void Miss(cachet *c) {
    uint8_t byte;
    ASSERT_EQ(cachet_get_u8(c, next_page_ * 4096, &byte), CACHET_OK)
        << cachet_errmsg(c);
    next_page_ = (next_page_ + 1) % (kSize / 4096);
  }

  static constexpr size_t kSize = 4 << 20;
  std::atomic<Peer *> peer_{nullptr};
  std::atomic<int> n_attaches_{0};
  uint64_t next_page_ = 0;
};

TEST_F(RefusedTest, ItAsksAgainMoreAndMoreRarely) {
  auto d = Refuse(EDQUOT);
  auto begin = Clock::now();
  Handle c = OpenAt(*d);
  EXPECT_EQ(n_attaches_, 1);
  while (n_attaches_ < 5)
    Miss(c.get());
  auto took = Clock::now() - begin;
  // Each wait may lack what its clock, of whole milliseconds, does not see.
  EXPECT_GE(took, std::chrono::milliseconds(5 + 10 + 20 + 40 - 4));
  EXPECT_FALSE(cachet_is_shared(c.get()));
}

TEST_F(RefusedTest, WhatIsCachedHereIsReadWithoutAsking) {
  auto d = Refuse(EDQUOT);
  Handle c = OpenAt(*d);
  Miss(c.get());
  int before = n_attaches_;
  auto begin = Clock::now();
  uint8_t byte;
  while (Clock::now() < begin + std::chrono::milliseconds(100))
    ASSERT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_OK);
  EXPECT_EQ(n_attaches_, before);
}

TEST_F(RefusedTest, WhereItIsNotPossibleItDoesNotAskAgain) {
  auto d = Refuse(EOPNOTSUPP);
  Handle c = OpenAt(*d);
  auto begin = Clock::now();
  while (Clock::now() < begin + std::chrono::milliseconds(200))
    Miss(c.get());
  EXPECT_EQ(n_attaches_, 1);
}

TEST_F(RefusedTest, ItAsksAtOnceWhenTheImageHasANewEpoch) {
  auto d = Refuse(EDQUOT);
  Handle c = OpenAt(*d);
  while (n_attaches_ < 8)
    Miss(c.get()); // the next is due in more than half a second
  uint64_t epoch = cachet_epoch(c.get());
  auto begin = Clock::now();
  {
    std::unique_lock<std::mutex> hold(d->image.lock);
    d->image.epoch++;
    peer_.load()->Changed();
  }
  while (cachet_epoch(c.get()) == epoch)
    Miss(c.get());
  Miss(c.get());
  EXPECT_GE(n_attaches_, 9);
  if (Clock::now() - begin > std::chrono::milliseconds(600))
    GTEST_SKIP() << "this machine is too slow to tell";
}

} // namespace

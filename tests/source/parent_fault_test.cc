// A source behind daemons that lie, are silent, or go away.
#include "base/clock.h"
#include "tests/client/lies.h"
#include "tests/source/parent_source.h"

#include <atomic>
#include <mutex>
#include <set>

namespace {

constexpr size_t kSize = 64 << 10;

std::string BareUri(const FakeDaemon &d) { return d.Uri(); }

// Answers nothing from its nth Read on; until the client goes.
Script FallSilentAt(int n) {
  return [n](Peer &p) {
    Request r;
    if (!p.Handshake())
      return;
    for (int i = 0; i < n && p.Receive(&r); i++)
      p.Answer(r);
    p.AwaitEnd();
  };
}

// What later connections are told.
void SetImage(Peer &p, uint64_t epoch, uint64_t invalidations) {
  std::lock_guard<std::mutex> hold(p.image->lock);
  p.image->epoch = epoch;
  p.image->invalidations = invalidations;
}

// ---- Lies
// --------------------------------------------------------------------

class ParentLieTest : public testing::TestWithParam<Lie> {};

TEST_P(ParentLieTest, FailsTheReadWithoutAByteOfItAndTheNextOneWorks) {
  auto lie = [](Peer &p) {
    Request r;
    if (!p.Handshake() || !p.Receive(&r))
      return;
    GetParam().tell(p, r);
    p.AwaitEnd();
  };
  FakeDaemon d({lie, ServeAll()});
  d.image.invalidations = 1;
  ParentSource s;
  ASSERT_EQ(s.Open(BareUri(d)), 0) << s.fault();
  EXPECT_EQ(s.StatusOf(0, 8192), -EPROTO);
  s.ExpectReads(d.image.bytes, 0, kSize);
  EXPECT_EQ(d.n_connections, 2);
}

INSTANTIATE_TEST_SUITE_P(All, ParentLieTest, testing::ValuesIn(Lies()),
                         LieName);

TEST(ParentFaultTest, BytesOfAnotherEpochAreALie) {
  FakeDaemon d({[](Peer &p) {
    Request r;
    p.Handshake();
    p.Receive(&r);
    EXPECT_EQ(r.epoch, 77u);
    p.Data(r.id, 78, 0, 0, true, p.image->bytes.data(), 4096);
    p.AwaitEnd();
  }});
  ParentSource s;
  ASSERT_EQ(s.Open(BareUri(d)), 0);
  EXPECT_EQ(s.StatusOf(0, 4096), -EPROTO);
}

TEST(ParentFaultTest, EachErrorIsAKindOfFailure) {
  const std::vector<std::pair<int, int>> kinds = {
      {CACHET_E_IO, -EIO},
      {CACHET_E_BUSY, -EAGAIN},
      {CACHET_E_NOMEM, -EAGAIN},
      {CACHET_E_BOUNDS, -EIO},
      {CACHET_E_PROTO, -EPROTO},
      {CACHET_E_CANCELED, -ECONNRESET},
      {-99, -EPROTO}};
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    for (const auto &kind : kinds) {
      p.Receive(&r);
      p.Error(r.id, kind.first, "no");
    }
    p.Serve();
  }});
  ParentSource s;
  ASSERT_EQ(s.Open(BareUri(d)), 0);
  for (const auto &kind : kinds)
    EXPECT_EQ(s.StatusOf(0, 4096), kind.second) << kind.first;
  s.ExpectReads(d.image.bytes, 0, kSize);
  EXPECT_EQ(d.n_connections, 1);
}

// So that no child asks for each page of what the parent's own source refuses.
TEST(ParentFaultTest, AnErrorOfTheParentsServerIsOneHere) {
  const std::vector<std::pair<int, int>> errors = {{EREMOTEIO, -EREMOTEIO},
                                                   {EHOSTDOWN, -EREMOTEIO},
                                                   {EAGAIN, -EREMOTEIO},
                                                   {ETIMEDOUT, -EREMOTEIO},
                                                   {EPROTO, -EREMOTEIO},
                                                   {ENOENT, -EREMOTEIO},
                                                   {0, -EIO},
                                                   {EIO, -EIO},
                                                   {EBADMSG, -EIO}};
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    for (const auto &error : errors) {
      p.Receive(&r);
      p.Error(r.id, CACHET_E_IO, "no", error.first);
    }
    p.Serve();
  }});
  ParentSource s;
  ASSERT_EQ(s.Open(BareUri(d)), 0);
  for (const auto &error : errors)
    EXPECT_EQ(s.StatusOf(0, 4096), error.second) << error.first;
  s.ExpectReads(d.image.bytes, 0, kSize);
}

// A daemon says nothing more about an image to a client that lost it.
TEST(ParentFaultTest, WhoMayNotReadItAnyMoreConnectsAnew) {
  for (int status : {CACHET_E_NOIMAGE, CACHET_E_ACCESS}) {
    FakeDaemon d({[&](Peer &p) {
                    Request r;
                    p.Handshake();
                    p.Receive(&r);
                    p.Error(r.id, status, "no");
                    p.AwaitEnd();
                  },
                  ServeAll()});
    d.image.invalidations = 1;
    ParentSource s;
    ASSERT_EQ(s.Open(BareUri(d)), 0);
    EXPECT_EQ(s.StatusOf(0, 4096),
              status == CACHET_E_NOIMAGE ? -ENOENT : -EACCES);
    s.ExpectReads(d.image.bytes, 0, kSize);
    EXPECT_EQ(d.n_connections, 2);
  }
}

TEST(ParentFaultTest, ARequestIsNoLongerThanTheParentTakes) {
  FakeDaemon d({ServeAll()});
  d.image.max_read = 10000;
  ParentSource s;
  ASSERT_EQ(s.Open(BareUri(d)), 0);
  s.ExpectReads(d.image.bytes, 100, kSize - 100);
}

// ---- Silence
// -----------------------------------------------------------------

TEST(ParentFaultTest, AParentThatSaysNothingIsGivenUpAndAskedAnew) {
  FakeDaemon d({FallSilentAt(1), ServeAll()});
  d.image.invalidations = 1;
  ParentSource s;
  ASSERT_EQ(s.Open(BareUri(d), {{"attempt-timeout", "1"}}), 0);
  s.ExpectReads(d.image.bytes, 0, 4096);
  EXPECT_EQ(s.StatusOf(4096, 4096), -ETIMEDOUT);
  s.ExpectReads(d.image.bytes, 4096, 4096);
  EXPECT_EQ(d.n_connections, 2);
}

TEST(ParentFaultTest, AReadIsOverByItsDeadlineHoweverLongAnAttemptMayTake) {
  FakeDaemon d({FallSilentAt(1), ServeAll()});
  d.image.invalidations = 1;
  ParentSource s;
  ASSERT_EQ(s.Open(BareUri(d), {{"attempt-timeout", "3600"}}), 0);
  s.ExpectReads(d.image.bytes, 0, 4096);
  std::vector<uint8_t> bytes(4096);
  EXPECT_EQ(source_read_until(s.get(), 4096, bytes.data(), bytes.size(),
                              clock_now_ms() + 100),
            -ETIMEDOUT);
}

// What is late is forgotten, and its bytes go nowhere when they come.
TEST(ParentFaultTest, OneReadThatIsLateEndsNoOther) {
  Gate late, answered;
  FakeDaemon d({[&](Peer &p) {
    Request first, r;
    p.Handshake();
    p.Receive(&first);
    p.Receive(&r);
    p.Answer(r);
    late.Await();
    p.Answer(first);
    p.Serve();
  }});
  ParentSource s;
  ASSERT_EQ(s.Open(BareUri(d), {{"attempt-timeout", "1"}}), 0);
  PendingRead first(s.get(), 0, 4096);
  s.ExpectReads(d.image.bytes, 8192, 4096);
  EXPECT_EQ(first.Wait(), -ETIMEDOUT);
  late.Open();
  s.ExpectReads(d.image.bytes, 0, 4096);
  EXPECT_EQ(first.bytes(), std::vector<uint8_t>(4096, 0xee));
  EXPECT_EQ(d.n_connections, 1);
}

TEST(ParentFaultTest, AReadThatHadLittleTimeEndsNoOther) {
  Gate late;
  FakeDaemon d({[&](Peer &p) {
    Request first, r;
    p.Handshake();
    p.Receive(&first);
    p.Receive(&r);
    late.Await();
    p.Answer(first);
    p.Answer(r);
    p.Serve();
  }});
  ParentSource s;
  ASSERT_EQ(s.Open(BareUri(d), {{"attempt-timeout", "60"}}), 0);
  PendingRead other(s.get(), 0, 4096);
  std::vector<uint8_t> bytes(4096);
  EXPECT_EQ(source_read_until(s.get(), 8192, bytes.data(), bytes.size(),
                              clock_now_ms() + 100),
            -ETIMEDOUT);
  late.Open();
  EXPECT_EQ(other.Wait(), 0);
  EXPECT_EQ(d.n_connections, 1);
}

TEST(ParentFaultTest, AParentThatStopsInThePayloadIsGivenUp) {
  FakeDaemon d({[](Peer &p) {
                  Request r;
                  p.Handshake();
                  p.Receive(&r);
                  p.Cork();
                  p.Answer(r);
                  std::vector<char> kept = p.TakeKept();
                  p.SendRaw(kept.data(), kept.size() / 2);
                  p.AwaitEnd();
                },
                ServeAll()});
  d.image.invalidations = 1;
  ParentSource s;
  ASSERT_EQ(s.Open(BareUri(d), {{"attempt-timeout", "1"}}), 0);
  EXPECT_EQ(s.StatusOf(0, 8192), -ETIMEDOUT);
  s.ExpectReads(d.image.bytes, 0, kSize);
  EXPECT_EQ(d.n_connections, 2);
}

TEST(ParentFaultTest, AParentThatNeverGreetsIsNotOpened) {
  FakeDaemon d({[](Peer &p) { p.AwaitEnd(); }});
  ParentSource s;
  EXPECT_EQ(s.Open(BareUri(d), {{"attempt-timeout", "1"}}), -ETIMEDOUT);
  s.open_ms = 50;
  EXPECT_EQ(s.Open(BareUri(d)), -ETIMEDOUT);
}

TEST(ParentFaultTest, AParentThatHangsUpLosesItsReadsAndNoMore) {
  FakeDaemon d({[](Peer &p) {
                  Request r;
                  p.Handshake();
                  p.Receive(&r);
                },
                ServeAll()});
  d.image.invalidations = 1;
  ParentSource s;
  ASSERT_EQ(s.Open(BareUri(d)), 0);
  EXPECT_EQ(s.StatusOf(0, 4096), -ECONNRESET);
  s.ExpectReads(d.image.bytes, 0, 4096);
}

// ---- Notices -----------------------------------------------------------------

// A daemon that starts with the pages of the process before listens a while after
// it has opened the source.
TEST(ParentFaultTest, WhatIsInvalidatedBeforeAnybodyListensIsToldThen) {
  FakeDaemon d({[](Peer &p) {
    p.Handshake();
    p.Invalidated(8192, 4096);
    p.Invalidated(20480, 10);
    p.Serve();
  }});
  ParentSource s;
  ASSERT_EQ(s.Open(BareUri(d)), 0);
  s.ExpectReads(d.image.bytes, 0, 4096); // it came behind the notices
  s.Listen();
  EXPECT_EQ(s.AwaitNews(), "8192+16384");
}

TEST(ParentFaultTest, WhatIsInvalidatedIsToldInWholePagesOfTheParents) {
  FakeDaemon d({[](Peer &p) {
    Request r;
    p.Handshake();
    p.Receive(&r);
    p.Answer(r);
    p.Invalidated(5000, 10);
    p.Invalidated({{0, 4096}, {kSize - 1, 100}});
    p.Invalidated(kSize, 1);         // behind the end, and so nothing
    p.Invalidated(4095, UINT64_MAX); // to the end
    p.Serve();
  }});
  ParentSource s;
  ASSERT_EQ(s.Open(BareUri(d)), 0);
  s.Listen();
  s.ExpectReads(d.image.bytes, 0, 4096);
  EXPECT_EQ(s.AwaitNews(), "4096+4096");
  EXPECT_EQ(s.AwaitNews(), "0+4096");
  EXPECT_EQ(s.AwaitNews(), std::to_string(kSize - 4096) + "+4096");
  EXPECT_EQ(s.AwaitNews(), "0+" + std::to_string(kSize));
}

// Its bytes may be older than the notice, though they come behind it.
TEST(ParentFaultTest, AReadThatANoticeOvertakesIsAskedForAgain) {
  FakeDaemon d({[](Peer &p) {
    Request concerned, other;
    p.Handshake();
    p.Receive(&concerned);
    p.Receive(&other);
    p.Cork();
    p.Invalidated(0, 1);
    p.Answer(other);
    p.Answer(concerned);
    p.Uncork();
    p.Receive(&concerned); // once more
    for (uint8_t &byte : p.image->bytes)
      byte ^= 1;
    p.Answer(concerned);
    p.Serve();
  }});
  ParentSource s;
  ASSERT_EQ(s.Open(BareUri(d)), 0);
  s.Listen();
  const std::vector<uint8_t> old = d.image.bytes;
  PendingRead concerned(s.get(), 0, 8192);
  s.ExpectReads(old, 8192, 4096);
  ASSERT_EQ(concerned.Wait(), 0);
  EXPECT_EQ(memcmp(concerned.bytes().data(), d.image.bytes.data(), 8192), 0);
  EXPECT_EQ(s.AwaitNews(), "0+4096");
}

TEST(ParentFaultTest, ANewEpochEndsWhatIsUnderWayAndIsTold) {
  Gate changed;
  FakeDaemon d({[&](Peer &p) {
                  Request r;
                  p.Handshake();
                  p.Receive(&r);
                  SetImage(p, p.image->epoch + 1, p.image->invalidations);
                  p.Changed();
                  p.Serve();
                },
                ServeAll()});
  ParentSource s;
  ASSERT_EQ(s.Open(BareUri(d)), 0);
  s.Listen();
  EXPECT_EQ(s.StatusOf(0, 4096), -ESTALE);
  EXPECT_EQ(s.AwaitNews(), "changed");
  EXPECT_EQ(s.StatusOf(0, 4096), -ESTALE);
  bool has_changed;
  EXPECT_EQ(s.Reopen(&has_changed), 0);
  EXPECT_TRUE(has_changed);
  s.ExpectReads(d.image.bytes, 0, kSize);
}

// What was cached of a version that is over must not be served for want of the
// next one.
TEST(ParentFaultTest, WithoutASuccessorNothingOfAStaleSourceIsGood) {
  FakeDaemon d({[](Peer &p) {
    Request r;
    p.Handshake();
    p.Receive(&r);
    SetImage(p, p.image->epoch + 1, p.image->invalidations);
    p.Changed();
  }});
  ParentSource s;
  ASSERT_EQ(s.Open(BareUri(d)), 0);
  s.Listen();
  EXPECT_EQ(s.StatusOf(0, 4096), -ESTALE);
  EXPECT_EQ(s.AwaitNews(), "changed");
  d.Stop();
  bool has_changed;
  EXPECT_LT(s.Reopen(&has_changed), 0);
  EXPECT_EQ(s.AwaitNews(), "0+" + std::to_string(kSize));
}

// ---- Lost connections --------------------------------------------------------

struct Return {
  const char *name;
  uint64_t before, notice, after; // numbers of invalidations; notice 0: none
  uint64_t epochs;                // how many have passed
  bool is_proven;
  std::string identity = {}; // of the content
  bool drops_all = false;    // what was read, and goes on
};

class ParentReturnTest : public testing::TestWithParam<Return> {};

TEST_P(ParentReturnTest, WhatWasReadIsGoodIfNothingWasMissed) {
  const Return &t = GetParam();
  FakeDaemon d({[&](Peer &p) {
                  Request r;
                  p.image->identity = t.identity;
                  SetImage(p, p.image->epoch, t.before);
                  p.Handshake();
                  p.Receive(&r);
                  if (t.notice) {
                    SetImage(p, p.image->epoch, t.notice);
                    p.Invalidated(8192, 1);
                  }
                  p.Answer(r);
                  SetImage(p, p.image->epoch + t.epochs, t.after);
                },
                ServeAll()});
  ParentSource s;
  ASSERT_EQ(s.Open(BareUri(d)), 0);
  s.Listen();
  s.ExpectReads(d.image.bytes, 0, 4096);
  int status;
  while ((status = s.StatusOf(0, 4096)) == -ECONNRESET)
    ;
  EXPECT_EQ(status, t.is_proven ? 0 : -ESTALE);
  if (t.notice) {
    EXPECT_EQ(s.AwaitNews(), "8192+4096");
  }
  if (!t.is_proven) {
    EXPECT_EQ(s.AwaitNews(), "changed");
  }
  if (t.drops_all) {
    EXPECT_EQ(s.AwaitNews(), "0+" + std::to_string(kSize));
  }
  EXPECT_FALSE(s.HasNews());
}

std::string ReturnName(const testing::TestParamInfo<Return> &info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(
    All, ParentReturnTest,
    testing::Values(Return{"NothingWasInvalidated", 1, 0, 1, 0, true},
                    Return{"ItWasToldOfAll", 1, 4, 4, 0, true},
                    Return{"OneWasMissed", 1, 0, 2, 0, false},
                    Return{"TheLastWasMissed", 1, 2, 3, 0, false},
                    Return{"ItDoesNotSay", 0, 0, 0, 0, false},
                    Return{"AnotherEpoch", 1, 0, 1, 1, false},
                    Return{"AnotherEpochOfThatContent", 1, 0, 1, 1, true, "c"},
                    Return{"OneOfThatContentWasMissed", 1, 0, 2, 0, true, "c",
                           true}),
    ReturnName);

// ---- Several parents ---------------------------------------------------------

constexpr size_t kBlock = 1 << 20, kBlocks = 24;

// One that notes which blocks it was asked for.
class Noting {
public:
  explicit Noting(size_t size = kBlock * kBlocks)
      : daemon({[this](Peer &p) { Serve(p); }}, size) {
    daemon.image.invalidations = 1;
  }
  ~Noting() { answers.Open(); }

  std::set<uint64_t> Take() {
    std::lock_guard<std::mutex> lock(mutex_);
    return std::move(blocks_);
  }

  std::atomic<bool> is_silent{false}, fails{false};
  Gate answers; // of one that is silent
  FakeDaemon daemon;

private:
  void Serve(Peer &p) {
    Request r;
    if (!p.Handshake())
      return;
    while (p.Receive(&r)) {
      {
        std::lock_guard<std::mutex> lock(mutex_);
        blocks_.insert(r.ranges[0].first / kBlock);
      }
      if (is_silent)
        answers.Await();
      if (fails)
        p.Error(r.id, CACHET_E_IO, "no");
      else
        p.Answer(r);
    }
  }

  std::mutex mutex_;
  std::set<uint64_t> blocks_;
};

class ParentsTest : public testing::Test {
protected:
  int Open(const ParentSource::Options &more = {}) {
    ParentSource::Options options = {{"parents", b_.daemon.Uri()}};
    options.insert(options.end(), more.begin(), more.end());
    return s_.Open(a_.daemon.Uri(), options);
  }
  void ReadEachBlock() {
    for (size_t i = 0; i < kBlocks; i++)
      s_.ExpectReads(a_.daemon.image.bytes, i * kBlock + 5, 4096);
  }

  // Reads each block twice, from the same parent.  Returns those that were read
  // from `a_`.  A parent that is late is passed over; then it reads again.
  std::set<uint64_t> BlocksOfA(const std::string &uri,
                               const std::string &second) {
    std::set<uint64_t> of_a, of_b;
    bool is_late = true;
    while (is_late && !HasFailure()) {
      ParentSource s;
      EXPECT_EQ(s.Open(uri, {{"parents", second}}), 0) << s.fault();
      a_.Take();
      b_.Take();
      is_late = false;
      for (size_t i = 0; i < 2 * kBlocks; i++) {
        auto start = std::chrono::steady_clock::now();
        s.ExpectReads(a_.daemon.image.bytes, i % kBlocks * kBlock + 5, 4096);
        is_late |= std::chrono::steady_clock::now() - start >
                   std::chrono::milliseconds(100);
      }
      of_a = a_.Take();
      of_b = b_.Take();
    }
    EXPECT_EQ(of_a.size() + of_b.size(), kBlocks);
    return of_a;
  }

  Noting a_, b_;
  ParentSource s_;
};

TEST_F(ParentsTest, EachBlockIsReadFromOneOfThem) {
  const std::set<uint64_t> of_a = BlocksOfA(a_.daemon.Uri(), b_.daemon.Uri());
  EXPECT_FALSE(of_a.empty() || of_a.size() == kBlocks);
  // A child that names them in another order asks the same ones.
  EXPECT_EQ(BlocksOfA(b_.daemon.Uri(), a_.daemon.Uri()), of_a);
}

TEST_F(ParentsTest, OneThatIsGoneIsPassedOver) {
  ASSERT_EQ(Open(), 0);
  ReadEachBlock();
  a_.daemon.Stop();
  b_.Take();
  ReadEachBlock();
  EXPECT_EQ(b_.Take().size(), kBlocks);
  bool has_changed;
  EXPECT_EQ(s_.Reopen(&has_changed), 0); // the other one is there
  EXPECT_FALSE(has_changed);
}

TEST_F(ParentsTest, OneThatIsDownAtStartIsAskedWhenItIsThere) {
  a_.daemon.Stop();
  ASSERT_EQ(Open(), 0) << s_.fault();
  ReadEachBlock();
  EXPECT_EQ(b_.Take().size(), kBlocks);
  a_.daemon.Listen();
  bool has_changed;
  while (a_.Take().empty()) {
    EXPECT_EQ(s_.Reopen(&has_changed), 0);
    ReadEachBlock();
  }
}

TEST_F(ParentsTest, OneThatFailsIsPassedOver) {
  ASSERT_EQ(Open(), 0);
  a_.fails = true;
  ReadEachBlock();
  EXPECT_EQ(b_.Take().size(), kBlocks);
  b_.fails = true;
  EXPECT_EQ(s_.StatusOf(0, 4096), -EIO);
}

// Far below the time of an attempt.
TEST_F(ParentsTest, OneThatIsLateIsPassedOverUntilItAnswers) {
  ASSERT_EQ(Open({{"attempt-timeout", "3600"}}), 0);
  a_.is_silent = true;
  ReadEachBlock();
  EXPECT_EQ(b_.Take().size(), kBlocks);
  a_.is_silent = false;
  a_.answers.Open();
  a_.Take();
  while (a_.Take().empty())
    ReadEachBlock();
}

TEST_F(ParentsTest, ANewEpochOfAnyOfThemEndsTheSource) {
  Gate opened;
  FakeDaemon changes({[&](Peer &p) {
                        p.Handshake();
                        opened.Await();
                        SetImage(p, p.image->epoch + 1, p.image->invalidations);
                        p.Changed();
                        p.Serve();
                      },
                      ServeAll()},
                     kBlock * kBlocks);
  ASSERT_EQ(s_.Open(a_.daemon.Uri(), {{"parents", changes.Uri()}}), 0);
  opened.Open();
  while (s_.StatusOf(0, 4096) == 0)
    ;
  EXPECT_EQ(s_.StatusOf(0, 4096), -ESTALE);
  bool has_changed;
  EXPECT_EQ(s_.Reopen(&has_changed), 0);
  EXPECT_TRUE(has_changed);
  ReadEachBlock();
}

TEST_F(ParentsTest, ParentsOfDifferentSizesAreNotOpened) {
  Noting other(kBlock);
  EXPECT_EQ(s_.Open(a_.daemon.Uri(), {{"parents", other.daemon.Uri()}}),
            -EPROTO);
  EXPECT_NE(s_.fault().find("sizes"), std::string::npos) << s_.fault();
}

// It may have been replaced while it was away: the others go on without it.
TEST_F(ParentsTest, OneThatComesWithAnotherSizeIsNotAsked) {
  Noting other(kBlock);
  other.daemon.Stop();
  ASSERT_EQ(s_.Open(a_.daemon.Uri(), {{"parents", other.daemon.Uri()}}), 0);
  other.daemon.Listen();
  bool has_changed;
  while (other.daemon.n_connections == 0) {
    EXPECT_EQ(s_.Reopen(&has_changed), 0);
    usleep(1000);
  }
  ReadEachBlock();
  EXPECT_TRUE(other.Take().empty());
}

// ---- Versions of several parents ---------------------------------------------

// One whose content is replaced in place by another one of the same size.  Each
// byte of a content is its number.
class Replaced {
public:
  Replaced() : daemon({[this](Peer &p) { Serve(p); }}, kBlock * kBlocks) {
    daemon.image.invalidations = 1;
    Put(1);
  }

  void Put(uint8_t content) {
    std::lock_guard<std::mutex> lock(daemon.image.lock);
    daemon.image.bytes.assign(kBlock * kBlocks, content);
    daemon.image.identity = "content " + std::to_string(content);
    daemon.image.epoch++;
    for (Peer *p : peers_)
      p->Changed();
  }
  // The content is the same, in another epoch.
  void Renew() {
    std::lock_guard<std::mutex> lock(daemon.image.lock);
    daemon.image.epoch++;
    for (Peer *p : peers_)
      p->Changed();
  }

  std::atomic<int> n_reads{0};

private:
  std::set<Peer *> peers_; // guarded by the image's lock

public:
  FakeDaemon daemon;

private:
  void Serve(Peer &p) {
    Request r;
    if (!p.Greet() || !p.Receive(&r))
      return;
    {
      std::lock_guard<std::mutex> lock(p.image->lock);
      p.Opened(r.id);
      peers_.insert(&p);
    }
    while (p.Receive(&r)) {
      n_reads++;
      p.Answer(r);
    }
    std::lock_guard<std::mutex> lock(p.image->lock);
    peers_.erase(&p);
  }
};

class ParentVersionsTest : public testing::Test {
protected:
  int Open(const ParentSource::Options &more = {}) {
    ParentSource::Options options = {{"parents", b_.daemon.Uri()}};
    options.insert(options.end(), more.begin(), more.end());
    int r = s_.Open(a_.daemon.Uri(), options);
    if (r == 0)
      s_.Listen();
    return r;
  }

  // The content that a read of each block brings; fails if it brings two.
  // -ESTALE: the version is over.
  int ReadContent() {
    std::vector<std::unique_ptr<PendingRead>> reads;
    int content = 0, status = 0;
    for (size_t i = 0; i < kBlocks; i++)
      reads.push_back(
          std::make_unique<PendingRead>(s_.get(), i * kBlock + 7, 20000));
    for (auto &r : reads) {
      if (r->Wait() < 0) {
        status = r->Wait();
        continue;
      }
      content = content ? content : r->bytes()[0];
      EXPECT_EQ(r->bytes(), std::vector<uint8_t>(20000, uint8_t(content)));
    }
    return status ? status : content;
  }

  void AwaitRemark(const std::string &word) {
    while (s_.AwaitNews().find(word) == std::string::npos)
      ;
  }
  void AwaitSuccessor() {
    while (ReadContent() != -ESTALE)
      ;
    bool has_changed;
    ASSERT_EQ(s_.Reopen(&has_changed), 0);
    ASSERT_TRUE(has_changed);
    s_.Listen();
  }
  // Both are asked, and have that content.
  void ExpectBothHave(int content) {
    // One that was late is passed over for some seconds.
    const auto end =
        std::chrono::steady_clock::now() + std::chrono::seconds(40);
    do {
      a_.n_reads = b_.n_reads = 0;
      EXPECT_EQ(ReadContent(), content);
    } while ((a_.n_reads == 0 || b_.n_reads == 0) && !HasFailure() &&
             std::chrono::steady_clock::now() < end);
    EXPECT_GT(a_.n_reads, 0);
    EXPECT_GT(b_.n_reads, 0);
  }
  void ExpectOnlyOneHas(int content, const Replaced &other) {
    a_.n_reads = b_.n_reads = 0;
    EXPECT_EQ(ReadContent(), content);
    EXPECT_EQ(other.n_reads, 0);
  }

  Replaced a_, b_;
  ParentSource s_;
};

TEST_F(ParentVersionsTest, TheLeadersNewContentIsReadFromTheLeaderAlone) {
  ASSERT_EQ(Open(), 0) << s_.fault();
  ExpectBothHave(1);
  a_.Put(2);
  AwaitSuccessor();
  AwaitRemark("another version");
  ExpectOnlyOneHas(2, b_);
  b_.Put(2);
  AwaitRemark("same version");
  ExpectBothHave(2);
}

TEST_F(ParentVersionsTest, AnothersNewContentIsNotReadBeforeTheLeaderHasIt) {
  ASSERT_EQ(Open(), 0) << s_.fault();
  b_.Put(2);
  AwaitRemark("another version");
  ExpectOnlyOneHas(1, b_);
  EXPECT_FALSE(s_.HasNews());
  a_.Put(2);
  AwaitSuccessor();
  ExpectBothHave(2);
}

// Whatever is under way meanwhile.
TEST_F(ParentVersionsTest, NoVersionOfASourceHasBytesOfTwoContents) {
  ASSERT_EQ(Open(), 0) << s_.fault();
  int of_source = 0, n_successors = 0;
  for (int i = 0; i < 60; i++) {
    std::thread puts([&] {
      Replaced *both[] = {&a_, &b_};
      both[i / 2 % 2 ^ i % 2]->Put(uint8_t(2 + i / 2));
    });
    int content = ReadContent();
    if (content > 0) {
      of_source = of_source ? of_source : content;
      EXPECT_EQ(content, of_source);
    } else {
      bool has_changed;
      EXPECT_EQ(content, -ESTALE);
      EXPECT_EQ(s_.Reopen(&has_changed), 0);
      n_successors += has_changed;
      of_source = 0;
    }
    puts.join();
  }
  EXPECT_GT(n_successors, 0);
}

TEST_F(ParentVersionsTest, ParentsThatDifferAtStartAreReadFromTheFirst) {
  b_.Put(2);
  ASSERT_EQ(Open(), 0) << s_.fault();
  AwaitRemark("another version");
  ExpectOnlyOneHas(1, b_);
}

TEST_F(ParentVersionsTest, WithoutTheFirstAnotherOneLeads) {
  a_.daemon.Stop();
  b_.Put(2);
  ASSERT_EQ(Open(), 0) << s_.fault();
  EXPECT_EQ(ReadContent(), 2);
  a_.daemon.Listen();
  bool has_changed;
  EXPECT_EQ(s_.Reopen(&has_changed), 0); // it is connected to
  AwaitRemark("another version");
  ExpectOnlyOneHas(2, a_);
  b_.Put(3);
  AwaitSuccessor();
  ExpectOnlyOneHas(3, a_); // and not the first one's again
}

TEST_F(ParentVersionsTest, AVersionThatNoParentHasIsOverAfterAWhile) {
  ASSERT_EQ(Open({{"attempt-timeout", "1"}}), 0) << s_.fault();
  b_.Put(2);
  AwaitRemark("another version");
  a_.daemon.Stop();
  int status;
  while ((status = s_.StatusOf(0, 4096)) == -ECONNREFUSED ||
         status == -ECONNRESET)
    ;
  EXPECT_EQ(status, -ESTALE);
  AwaitSuccessor();
  EXPECT_EQ(ReadContent(), 2);
}

TEST_F(ParentVersionsTest, ANewEpochOfTheSameContentDropsWhatWasRead) {
  ASSERT_EQ(Open(), 0) << s_.fault();
  b_.Renew();
  EXPECT_EQ(s_.AwaitNews(), "0+" + std::to_string(kBlock * kBlocks));
  ExpectBothHave(1);
  for (int i = 0; i < 20; i++) {
    std::thread renews([&] { a_.Renew(); });
    EXPECT_EQ(ReadContent(), 1);
    renews.join();
  }
}

TEST_F(ParentVersionsTest, OneThatDoesNotSayWhatItHasIsNotAsked) {
  {
    std::lock_guard<std::mutex> lock(b_.daemon.image.lock);
    b_.daemon.image.identity.clear();
  }
  ASSERT_EQ(Open(), 0) << s_.fault();
  ExpectOnlyOneHas(1, b_);
}

TEST_F(ParentVersionsTest, WhatTheParentsSayIdentifiesTheSource) {
  ASSERT_EQ(Open(), 0) << s_.fault();
  source_identity id, other;
  source_identify(s_.get(), &id);
  const std::string said = "content 1";
  ASSERT_EQ(id.content_len, said.size());
  EXPECT_EQ(memcmp(&id.bytes[id.len - said.size()], said.data(), said.size()),
            0);
  EXPECT_GT(id.len, id.content_len); // the word of another source it is not
  ParentSource next;
  ASSERT_EQ(next.Open(b_.daemon.Uri()), 0);
  EXPECT_TRUE(source_resume(next.get(), &id));
  b_.Put(2);
  next.Close();
  ASSERT_EQ(next.Open(b_.daemon.Uri()), 0);
  EXPECT_FALSE(source_resume(next.get(), &id));
  {
    std::lock_guard<std::mutex> lock(b_.daemon.image.lock);
    b_.daemon.image.identity.clear();
  }
  next.Close();
  ASSERT_EQ(next.Open(b_.daemon.Uri()), 0);
  source_identify(next.get(), &other);
  EXPECT_EQ(other.len, 0u);
  EXPECT_FALSE(source_resume(next.get(), &id));
}

TEST(ParentFaultTest, AnIdentityThatIsTooLongIsALie) {
  FakeDaemon d({ServeAll()});
  d.image.identity.assign(PROTO_MAX_IDENTITY, 'x');
  ParentSource s;
  EXPECT_EQ(s.Open(BareUri(d)), 0);
  d.image.identity += 'x';
  ParentSource other;
  EXPECT_EQ(other.Open(BareUri(d)), -EPROTO);
}

} // namespace

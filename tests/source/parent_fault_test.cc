// A source behind daemons that lie, are silent, or go away.
#include "tests/client/lies.h"
#include "tests/source/parent_source.h"

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
  EXPECT_EQ(s.Status(0, 8192), -EPROTO);
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
  EXPECT_EQ(s.Status(0, 4096), -EPROTO);
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
    EXPECT_EQ(s.Status(0, 4096), kind.second) << kind.first;
  s.ExpectReads(d.image.bytes, 0, kSize);
  EXPECT_EQ(d.n_connections, 1);
}

// A daemon says nothing more about an image to whom it took it from.
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
    EXPECT_EQ(s.Status(0, 4096),
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
  EXPECT_EQ(s.Status(4096, 4096), -ETIMEDOUT);
  s.ExpectReads(d.image.bytes, 4096, 4096);
  EXPECT_EQ(d.n_connections, 2);
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
  EXPECT_EQ(s.Status(0, 8192), -ETIMEDOUT);
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
  EXPECT_EQ(s.Status(0, 4096), -ECONNRESET);
  s.ExpectReads(d.image.bytes, 0, 4096);
}

} // namespace

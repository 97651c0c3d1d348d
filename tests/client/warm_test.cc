// cachet_warm(): in process, at a daemon that does as it is told, and at one
// that is real.  How many pieces are under way is asked of numbers alone.
#include "client/warm_width.h"
#include "tests/client/fake_daemon.h"
#include "tests/support/fake_source.h"
#include "tests/support/quiet_fork.h"
#include "tests/support/test_server.h"

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPiece = 4 << 20;
using Ranges = std::vector<std::pair<uint64_t, uint64_t>>;

// ---- In process

TEST(Warm, LoadsEachPageOfARangeOnce) {
  MadeSource source(Content(20 * kPage));
  Handle c = source.Make();
  ASSERT_EQ(cachet_warm(c.get(), 2 * kPage + 5, 3 * kPage), CACHET_OK)
      << cachet_errmsg(c.get());
  for (uint64_t page = 0; page < 20; page++)
    EXPECT_EQ(cachet_is_cached(c.get(), page * kPage), page >= 2 && page <= 5)
        << page;
  int n_maps = source.n_maps;
  ASSERT_EQ(cachet_warm(c.get(), 2 * kPage, 4 * kPage), CACHET_OK);
  EXPECT_EQ(source.n_maps, n_maps);
  EXPECT_EQ(cachet_hits(c.get()) + cachet_misses(c.get()), 0u);
}

TEST(Warm, IsCutAtTheEndOfTheImage) {
  MadeSource source(Content(5 * kPage + 100));
  Handle c = source.Make();
  ASSERT_EQ(cachet_warm(c.get(), 5 * kPage + 100, 1), CACHET_OK);
  ASSERT_EQ(cachet_warm(c.get(), UINT64_MAX, CACHET_TO_END), CACHET_OK);
  ASSERT_EQ(cachet_warm(c.get(), 0, 0), CACHET_OK);
  EXPECT_EQ(source.n_maps, 0);
  ASSERT_EQ(cachet_warm(c.get(), 5 * kPage + 99, CACHET_TO_END), CACHET_OK);
  EXPECT_TRUE(cachet_is_cached(c.get(), 5 * kPage));
  EXPECT_FALSE(cachet_is_cached(c.get(), 4 * kPage));
  ASSERT_EQ(cachet_warm(c.get(), 0, CACHET_TO_END), CACHET_OK);
  for (uint64_t page = 0; page < 6; page++)
    EXPECT_TRUE(cachet_is_cached(c.get(), page * kPage)) << page;
}

TEST(Warm, OfMoreThanTheCacheHoldsComesToItsEnd) {
  MadeSource source(Content(300 * kPage));
  cachet_options o = Options();
  o.cache_size = 32 * kPage;
  Handle c = source.Make(o);
  ASSERT_EQ(cachet_warm(c.get(), 0, CACHET_TO_END), CACHET_OK);
  ExpectContent(c.get(), source.bytes);
}

TEST(Warm, EndsAtThePageThatCannotBeReadAndNamesIt) {
  MadeSource source(Content(100 * kPage));
  source.before_map = [&](uint64_t pos) {
    source.fail_with = pos / kPage == 70 ? EIO : 0;
  };
  source.longest = kPage;
  Handle c = source.Make();
  EXPECT_EQ(cachet_warm(c.get(), 0, CACHET_TO_END), CACHET_E_IO);
  EXPECT_NE(strstr(cachet_errmsg(c.get()), "4096 bytes at 286720"), nullptr)
      << cachet_errmsg(c.get());
  EXPECT_TRUE(cachet_is_cached(c.get(), 69 * kPage));
  EXPECT_FALSE(cachet_is_cached(c.get(), 70 * kPage));
  EXPECT_EQ(cachet_warm(c.get(), 71 * kPage, CACHET_TO_END), CACHET_OK);
}

TEST(Warm, FollowsAFileThatBecomesShorterMeanwhile) {
  TempDir dir;
  std::string path = dir.Write("image", Content(40 * kPage));
  Handle c = Open(path, Options());
  uint64_t epoch = cachet_epoch(c.get());
  dir.Write("image", Content(3 * kPage, 2));
  EXPECT_EQ(cachet_warm(c.get(), 0, CACHET_TO_END), CACHET_OK)
      << cachet_errmsg(c.get());
  EXPECT_NE(cachet_epoch(c.get()), epoch);
  EXPECT_EQ(cachet_size(c.get()), 3 * kPage);
  EXPECT_TRUE(cachet_is_cached(c.get(), 2 * kPage));
}

TEST(Warm, OfAHandleThatKeepsToAnEpochFailsOnceItIsOver) {
  TempDir dir;
  std::string path = dir.Write("image", Content(40 * kPage));
  cachet_options o = Options();
  o.flags = CACHET_ONE_EPOCH;
  Handle c = Open(path, o);
  dir.Write("image", Content(3 * kPage, 2));
  EXPECT_EQ(cachet_warm(c.get(), 0, CACHET_TO_END), CACHET_E_CHANGED);
  ASSERT_EQ(cachet_adopt_epoch(c.get()), CACHET_OK);
  EXPECT_EQ(cachet_warm(c.get(), 0, CACHET_TO_END), CACHET_OK);
}

TEST(Warm, IsRefusedInACallback) {
  MadeSource source(Content(2 * kPage));
  Handle c = source.Make();
  Outcome o;
  o.then = [&](Outcome &) {
    EXPECT_EQ(cachet_warm(c.get(), 0, CACHET_TO_END), CACHET_E_INVAL);
  };
  uint8_t buf[10];
  ASSERT_EQ(cachet_read_async(c.get(), 0, buf, sizeof buf, Outcome::Read, &o,
                              nullptr),
            CACHET_OK);
  RunUntil(c.get(), [&] { return o.n > 0; });
  EXPECT_FALSE(cachet_is_cached(c.get(), kPage));
}

TEST(Warm, IsRefusedInAChildOfFork) {
  MadeSource source(Content(2 * kPage));
  Handle c = source.Make();
  pid_t pid = QuietFork();
  if (pid == 0) {
    cachet_status status = cachet_warm(c.get(), 0, 1);
    cachet_close(c.release());
    _exit(status == CACHET_E_FORKED ? 0 : 1);
  }
  int status;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
}

TEST(Warm, OfAPageThatAnotherThreadReadsWaitsForIt) {
  MadeSource source(Content(4 * kPage));
  Gate reads, go;
  source.before_map = [&](uint64_t) {
    reads.Open();
    go.Await();
  };
  Handle c = source.Make(Patience(kPatienceMs)), other = Copy(c.get());
  std::thread reader([&] {
    uint8_t byte;
    EXPECT_EQ(cachet_get_u8(other.get(), 0, &byte), CACHET_OK);
  });
  reads.Await();
  EXPECT_EQ(cachet_warm(c.get(), 0, 1), CACHET_E_TIMEOUT);
  go.Open();
  EXPECT_EQ(cachet_warm(c.get(), 0, 1), CACHET_OK) << cachet_errmsg(c.get());
  EXPECT_TRUE(cachet_is_cached(c.get(), 0));
  reader.join();
}

// ---- How many pieces are under way

TEST(WarmWidth, GrowsWhileNoPieceTakesLongerForIt) {
  warm_width w = warm_width_begin();
  warm_width_ended(&w, 20);
  warm_width_ended(&w, 40);
  EXPECT_EQ(w.n, unsigned{WARM_WIDTH_FIRST + 2});
  for (int i = 0; i < 100; i++)
    warm_width_ended(&w, 30);
  EXPECT_EQ(w.n, unsigned{WARM_WIDTH_MOST});
}

TEST(WarmWidth, StaysWherePiecesWaitForEachOther) {
  warm_width w = warm_width_begin();
  warm_width_ended(&w, 20);
  for (int i = 0; i < 100; i++)
    warm_width_ended(&w, 60);
  EXPECT_EQ(w.n, unsigned{WARM_WIDTH_FIRST + 1});
}

TEST(WarmWidth, ShrinksToWhatItBeganWithWhereThePiecesBecomeSlow) {
  warm_width w = warm_width_begin();
  for (int i = 0; i < 100; i++)
    warm_width_ended(&w, 0);
  for (int i = 0; i < 100; i++)
    warm_width_ended(&w, 1000);
  EXPECT_EQ(w.n, unsigned{WARM_WIDTH_FIRST});
}

// ---- At a daemon that does as it is told

// Answers each Warm by `answer`, and keeps what they asked for.
Script Warmed(
    Ranges *asked, std::function<void(Peer &, const Request &)> answer =
                       [](Peer &p, const Request &r) { p.Done(r.id); }) {
  return [=](Peer &p) {
    Request r;
    if (!p.Handshake())
      return;
    while (p.Receive(&r)) {
      EXPECT_EQ(r.body, CACHET__WIRE__MESSAGE__BODY_WARM);
      asked->insert(asked->end(), r.ranges.begin(), r.ranges.end());
      answer(p, r);
    }
  };
}

TEST(Warm, AsksForNoMoreAtOnceThanTheDaemonTakes) {
  Ranges asked;
  FakeDaemon d({Warmed(&asked)}, 10 * kPage + 7);
  d.image.max_read = 4 * kPage + 1;
  Handle c = Open(d.Uri(), Options());
  ASSERT_EQ(cachet_warm(c.get(), kPage + 9, CACHET_TO_END), CACHET_OK);
  c.reset();
  d.Stop();
  EXPECT_EQ(asked, (Ranges{{kPage, 4 * kPage},
                           {5 * kPage, 4 * kPage},
                           {9 * kPage, kPage + 7}}));
}

TEST(Warm, EndsWithTheFirstRefusalOfTheDaemon) {
  Ranges asked;
  FakeDaemon d({Warmed(&asked,
                       [](Peer &p, const Request &r) {
                         if (r.ranges[0].first)
                           p.Error(r.id, CACHET_E_IO, "page 1", EIO);
                         else
                           p.Done(r.id);
                       })},
               40 * kPage);
  d.image.max_read = kPage;
  Handle c = Open(d.Uri(), Options());
  EXPECT_EQ(cachet_warm(c.get(), 0, CACHET_TO_END), CACHET_E_IO);
  EXPECT_STREQ(cachet_errmsg(c.get()), "page 1");
  c.reset();
  d.Stop();
  EXPECT_LE(asked.size(), size_t{WARM_WIDTH_FIRST + 2});
}

// Receives so many requests.
std::vector<Request> ReceiveSome(Peer &p, size_t n) {
  std::vector<Request> all(n);
  for (Request &r : all)
    EXPECT_TRUE(p.Receive(&r));
  return all;
}

TEST(Warm, AsksForSeveralPiecesBeforeTheFirstAnswer) {
  FakeDaemon d({[](Peer &p) {
                 p.Handshake();
                 for (const Request &r : ReceiveSome(p, WARM_WIDTH_FIRST))
                   p.Done(r.id);
                 Request next;
                 EXPECT_FALSE(p.Receive(&next));
               }},
               WARM_WIDTH_FIRST * kPiece);
  d.image.max_read = 64 << 20;
  Handle c = Open(d.Uri(), Options());
  EXPECT_EQ(cachet_warm(c.get(), 0, CACHET_TO_END), CACHET_OK)
      << cachet_errmsg(c.get());
}

TEST(Warm, AsksForNoMoreOfADaemonThatDoesNotAnswer) {
  Ranges asked;
  FakeDaemon d({Warmed(&asked, [](Peer &, const Request &) {})},
               2 * WARM_WIDTH_FIRST * kPage);
  d.image.max_read = kPage;
  Handle c = Open(d.Uri(), Patience(200));
  EXPECT_EQ(cachet_warm(c.get(), 0, CACHET_TO_END), CACHET_E_TIMEOUT);
  c.reset();
  d.Stop();
  EXPECT_EQ(asked.size(), size_t{WARM_WIDTH_FIRST});
}

TEST(Warm, TellsTheErrorOfTheFirstPieceThatHasOneWhicheverCameFirst) {
  FakeDaemon d({[](Peer &p) {
                 p.Handshake();
                 auto all = ReceiveSome(p, WARM_WIDTH_FIRST);
                 p.Done(all[3].id);
                 p.Error(all[2].id, CACHET_E_IO, "page 2", EIO);
                 p.Error(all[1].id, CACHET_E_IO, "page 1", EIO);
                 p.Done(all[0].id);
                 Request next;
                 while (p.Receive(&next))
                   p.Done(next.id);
               }},
               40 * kPage);
  d.image.max_read = kPage;
  Handle c = Open(d.Uri(), Options());
  EXPECT_EQ(cachet_warm(c.get(), 0, CACHET_TO_END), CACHET_E_IO);
  EXPECT_STREQ(cachet_errmsg(c.get()), "page 1");
  EXPECT_EQ(cachet_warm(c.get(), 0, CACHET_TO_END), CACHET_OK)
      << cachet_errmsg(c.get());
}

TEST(Warm, AsksAnotherDaemonForWhatTheLostOneDidNotAnswer) {
  Ranges asked;
  FakeDaemon d({[](Peer &p) {
                  p.Handshake();
                  p.Done(ReceiveSome(p, WARM_WIDTH_FIRST)[1].id);
                },
                Warmed(&asked)},
               WARM_WIDTH_FIRST * kPage);
  d.image.max_read = kPage;
  Handle c = Open(d.Uri(), Options());
  EXPECT_EQ(cachet_warm(c.get(), 0, CACHET_TO_END), CACHET_OK)
      << cachet_errmsg(c.get());
  c.reset();
  d.Stop();
  EXPECT_EQ(asked,
            (Ranges{{0, kPage}, {2 * kPage, kPage}, {3 * kPage, kPage}}));
}

TEST(Warm, IsATimeOutWhereTheDaemonDoesNotAnswer) {
  Ranges asked;
  FakeDaemon d({Warmed(&asked, [](Peer &, const Request &) {})});
  Handle c = Open(d.Uri(), Patience(50));
  EXPECT_EQ(cachet_warm(c.get(), 0, 1), CACHET_E_TIMEOUT);
}

TEST(Warm, GoesOnInTheEpochThatTheDaemonTellsOf) {
  Ranges asked;
  bool has_changed = false;
  FakeDaemon d({Warmed(&asked,
                       [&](Peer &p, const Request &r) {
                         if (has_changed) {
                           p.Done(r.id);
                           return;
                         }
                         has_changed = true;
                         std::unique_lock<std::mutex> hold(p.image->lock);
                         p.image->bytes.resize(3 * kPage);
                         p.image->epoch++;
                         p.Changed();
                         p.Error(r.id, CACHET_E_BOUNDS, "past its end");
                       })},
               8 * kPage);
  Handle c = Open(d.Uri(), Options());
  EXPECT_EQ(cachet_warm(c.get(), 0, CACHET_TO_END), CACHET_OK)
      << cachet_errmsg(c.get());
  EXPECT_EQ(cachet_size(c.get()), 3 * kPage);
  c.reset();
  d.Stop();
  EXPECT_EQ(asked, (Ranges{{0, 8 * kPage}, {0, 3 * kPage}}));
}

TEST(Warm, GivesUpOnADaemonThatRefusesEveryRange) {
  Ranges asked;
  FakeDaemon d({Warmed(&asked, [](Peer &p, const Request &r) {
    p.Error(r.id, CACHET_E_BOUNDS, "past its end");
  })});
  Handle c = Open(d.Uri(), Options());
  EXPECT_EQ(cachet_warm(c.get(), 0, CACHET_TO_END), CACHET_E_BOUNDS);
}

// ---- At a real one

class WarmAtDaemon : public testing::TestWithParam<uint32_t> {
protected:
  static constexpr uint64_t kSize = 40 * kPage + 100;

  Handle OpenImage(uint32_t flags = GetParam()) {
    cachet_options o = Options();
    o.flags = flags | CACHET_NO_READAHEAD;
    return Open("cachet+unix:///i?socket=" + server_.socket_path(), o);
  }

  FakeSource source_{kSize};
  TestServer server_{{{"i", &source_}}, TestServer::Options()};
};

TEST_P(WarmAtDaemon, ReturnsWhenTheDaemonHasLoadedThePages) {
  Handle c = OpenImage();
  std::atomic<bool> returned{false};
  source_.ShutGate();
  std::thread warmer([&] {
    EXPECT_EQ(cachet_warm(c.get(), 0, CACHET_TO_END), CACHET_OK)
        << cachet_errmsg(c.get());
    returned = true;
  });
  source_.AwaitReadsAtGate(1);
  EXPECT_FALSE(returned);
  source_.OpenGate();
  warmer.join();
  EXPECT_EQ(source_.n_bytes(), kSize);
  int n_reads = source_.n_reads();
  ExpectContent(c.get(), FakeSource::Bytes(0, kSize));
  EXPECT_EQ(source_.n_reads(), n_reads);
}

TEST_P(WarmAtDaemon, FailsWhereAPageCannotBeRead) {
  Handle c = OpenImage();
  source_.FailAt(7 * kPage, EIO);
  EXPECT_EQ(cachet_warm(c.get(), 0, CACHET_TO_END), CACHET_E_IO);
  EXPECT_NE(strstr(cachet_errmsg(c.get()), "4096 bytes at 28672"), nullptr)
      << cachet_errmsg(c.get());
  EXPECT_EQ(cachet_warm(c.get(), 8 * kPage, CACHET_TO_END), CACHET_OK);
}

INSTANTIATE_TEST_SUITE_P(HowPagesCome, WarmAtDaemon,
                         testing::Values(0, CACHET_NO_SHARED_MEMORY));

} // namespace

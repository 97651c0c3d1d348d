// A daemon that is far away: what is asked for before an answer has come, what
// is kept of it, and that it is right.  Nothing is measured in seconds here.
#include <gtest/gtest.h>
#include <linux/tcp.h>
#include <netinet/in.h>

#include <deque>
#include <random>
#include <thread>

#include "client/remote/readahead_state.h"
#include "tests/client/fake_daemon.h"
#include "tests/support/fake_source.h"
#include "tests/support/relay.h"
#include "tests/support/test_rule.h"
#include "tests/support/test_server.h"
#include "tests/support/tls_side.h"

namespace {

constexpr uint64_t kPage = 4096, kMiB = 1 << 20;

uint64_t LengthOf(const Request &r) {
  uint64_t len = 0;
  for (auto &range : r.ranges)
    len += range.second;
  return len;
}

// Answers nothing before it was asked for so many bytes.
Script AnswersOnlyWhenAskedFor(uint64_t len, size_t *most_waiting = nullptr) {
  return [=](Peer &p) {
    std::deque<Request> waiting;
    uint64_t asked = 0;
    Request r;
    p.Handshake();
    while (p.Receive(&r)) {
      asked += LengthOf(r);
      waiting.push_back(r);
      if (most_waiting)
        *most_waiting = std::max(*most_waiting, waiting.size());
      while (!waiting.empty() && asked >= len) {
        p.Answer(waiting.front(), 256 << 10);
        waiting.pop_front();
      }
    }
  };
}

class FarRange : public testing::TestWithParam<uint32_t> {};

TEST_P(FarRange, ALongReadHasAskedForAllOfItBeforeTheFirstAnswer) {
  FakeDaemon d({AnswersOnlyWhenAskedFor(16 * kMiB)}, 17 * kMiB);
  d.image.max_requests = 256;
  cachet_options o = Options();
  o.flags = GetParam();
  Handle c = Open(d.Uri(), o);
  std::vector<uint8_t> buf(16 * kMiB);
  ASSERT_EQ(cachet_read(c.get(), 0, buf.data(), buf.size()), CACHET_OK)
      << cachet_errmsg(c.get());
  EXPECT_EQ(memcmp(buf.data(), d.image.bytes.data(), buf.size()), 0);
}

TEST_P(FarRange, SoHasALongMap) {
  FakeDaemon d({AnswersOnlyWhenAskedFor(16 * kMiB)}, 17 * kMiB);
  d.image.max_requests = 256;
  cachet_options o = Options();
  o.flags = GetParam();
  Handle c = Open(d.Uri(), o);
  cachet_slice s;
  ASSERT_EQ(cachet_map(c.get(), kPage, 16 * kMiB, &s), CACHET_OK)
      << cachet_errmsg(c.get());
  EXPECT_EQ(memcmp(s.data, &d.image.bytes[kPage], s.length), 0);
  cachet_release(c.get(), &s);
}

INSTANTIATE_TEST_SUITE_P(WithAndWithoutReadahead, FarRange,
                         testing::Values(0u, uint32_t{CACHET_NO_READAHEAD}));

TEST(FarTest, SomeRequestsAreLeftToOthersBesideALongRead) {
  size_t most_waiting = 0;
  FakeDaemon d({AnswersOnlyWhenAskedFor(7 * kMiB, &most_waiting)}, 9 * kMiB);
  d.image.max_requests = 32;
  Handle c = Open(d.Uri(), Options());
  ExpectContent(c.get(), d.image.bytes);
  c.reset();
  d.Stop();
  EXPECT_EQ(most_waiting, 28u);
}

// Reads pages one after the other; the daemon answers only when as much waits
// to be answered as the least window has, once it has answered the first.
TEST(FarTest, WhoReadsPageByPageHasMuchAskedForAheadOfHim) {
  FakeDaemon d({[](Peer &p) {
                 std::deque<Request> waiting;
                 uint64_t asked = 0, answered = 0, end = 0;
                 Request r;
                 p.Handshake();
                 while (p.Receive(&r)) {
                   uint64_t size = p.image->bytes.size();
                   asked += LengthOf(r);
                   end = std::max(end, r.ranges[0].first + r.ranges[0].second);
                   waiting.push_back(r);
                   while (!waiting.empty() &&
                          (answered < 2 * kMiB || end == size ||
                           asked - answered >= FLOW_LEAST)) {
                     answered += LengthOf(waiting.front());
                     p.Answer(waiting.front(), 64 << 10);
                     waiting.pop_front();
                   }
                 }
               }},
               16 * kMiB);
  d.image.max_requests = 256;
  Handle c = Open(d.Uri(), Options());
  cachet_slice s;
  cachet_status status = cachet_load(c.get(), 0, 0, &s);
  uint64_t n = 0;
  for (; status == CACHET_OK; n++) {
    ASSERT_EQ(memcmp(s.data, &d.image.bytes[n * kPage], kPage), 0) << n;
    cachet_release(c.get(), &s);
    status = cachet_next(c.get(), &s, &s);
  }
  EXPECT_EQ(status, CACHET_END);
  EXPECT_EQ(n, 16 * kMiB / kPage);
}

// Pages of 64 KiB, so that the bound is met before the number of requests is.
TEST(FarTest, WhatIsAskedForAheadHasABound) {
  constexpr uint64_t kOwn = 4 * kMiB; // what the call itself waits for
  uint64_t most = 0;
  FakeDaemon d({[&](Peer &p) {
                 std::deque<Request> waiting;
                 uint64_t asked = 0;
                 Request r;
                 p.Handshake();
                 while (p.Receive(&r)) {
                   asked += LengthOf(r);
                   most = std::max(most, asked);
                   waiting.push_back(r);
                   uint64_t end = r.ranges[0].first + r.ranges[0].second;
                   while (!waiting.empty() && (asked >= READAHEAD_MOST ||
                                               end == p.image->bytes.size())) {
                     asked -= LengthOf(waiting.front());
                     p.Answer(waiting.front(), 4 << 20);
                     waiting.pop_front();
                   }
                 }
               }},
               80 * kMiB);
  d.image.page_size = 64 << 10;
  d.image.max_requests = 256;
  Handle c = Open(d.Uri(), Options());
  ExpectContent(c.get(), d.image.bytes);
  c.reset();
  d.Stop();
  EXPECT_GE(most, uint64_t{READAHEAD_MOST});
  EXPECT_LE(most, READAHEAD_MOST + kOwn);
}

// ---- What is in store ----

void AwaitCached(cachet *c, uint64_t page, bool is) {
  auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (cachet_is_cached(c, page * kPage) != is) {
    ASSERT_LT(std::chrono::steady_clock::now(), limit) << "page " << page;
    struct pollfd p = {cachet_fd(c), cachet_events(c), 0};
    ASSERT_GE(poll(&p, 1, cachet_timeout_ms(c)), 0);
    ASSERT_EQ(cachet_dispatch(c), CACHET_OK);
  }
}

// A reader has come to page `first` + 1, and what is ahead of him is here.
void BeginReader(cachet *c, uint64_t first) {
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c, first * kPage, &byte), CACHET_OK);
  ASSERT_EQ(cachet_get_u8(c, (first + 1) * kPage, &byte), CACHET_OK);
  AwaitCached(c, first + 2, true);
}

TEST(FarStore, WhatNobodyComesForIsGivenBackAfterAWhile) {
  FakeDaemon d({ServeAll()}, 4 * kMiB);
  Handle c = Open(d.Uri(), Options());
  BeginReader(c.get(), 0);
  AwaitCached(c.get(), 2, false);
  ExpectContent(c.get(), d.image.bytes);
}

TEST(FarStore, OtherReadersTakeThePlaceOfOneWhoCameNoMore) {
  constexpr uint64_t kApart = 1200; // pages: more than is read ahead at first
  FakeDaemon d({ServeAll()}, (READAHEAD_N_READERS + 1) * kApart * kPage);
  Handle c = Open(d.Uri(), Options());
  for (uint64_t i = 0; i < READAHEAD_N_READERS; i++)
    BeginReader(c.get(), kApart * i);
  EXPECT_TRUE(cachet_is_cached(c.get(), 2 * kPage));
  BeginReader(c.get(), kApart * READAHEAD_N_READERS);
  EXPECT_FALSE(cachet_is_cached(c.get(), 2 * kPage));
}

TEST(FarStore, ReadsAtRandomLeaveAReaderFromFrontToBackAlone) {
  FakeDaemon d({ServeAll()}, 8 * kMiB);
  Handle c = Open(d.Uri(), Options());
  BeginReader(c.get(), 0);
  uint8_t byte;
  for (uint64_t page = 2000; page > 400; page -= 40)
    ASSERT_EQ(cachet_get_u8(c.get(), page * kPage, &byte), CACHET_OK);
  EXPECT_TRUE(cachet_is_cached(c.get(), 2 * kPage));
}

// The daemon's notice comes before its answer to the load of page 500.
TEST(FarStore, WhatIsInvalidatedThereIsAskedForAnew) {
  FakeDaemon d({[](Peer &p) {
                 Request r;
                 p.Handshake();
                 while (p.Receive(&r)) {
                   if (r.ranges[0].first == 500 * kPage) {
                     p.Invalidated(3 * kPage, kPage);
                     std::unique_lock<std::mutex> hold(p.image->lock);
                     p.image->bytes[3 * kPage] ^= 1;
                   }
                   p.Answer(r);
                 }
               }},
               4 * kMiB);
  Handle c = Open(d.Uri(), Options());
  BeginReader(c.get(), 0);
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c.get(), 500 * kPage, &byte), CACHET_OK);
  EXPECT_FALSE(cachet_is_cached(c.get(), 3 * kPage));
  ExpectContent(c.get(), d.image.bytes);
}

TEST(FarStore, WhatCameByAConnectionThatIsLostIsNotHandedOut) {
  Gate gate;
  FakeDaemon d({[&](Peer &p) {
                  Request r;
                  p.Handshake();
                  while (p.Receive(&r) && r.ranges[0].first != 500 * kPage)
                    p.Answer(r);
                },
                [](Peer &p) {
                  p.Handshake();
                  p.Serve();
                }},
               4 * kMiB);
  Handle c = Open(d.Uri(), Options());
  BeginReader(c.get(), 0);
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c.get(), 500 * kPage, &byte), CACHET_OK);
  EXPECT_FALSE(cachet_is_cached(c.get(), 2 * kPage));
  ExpectContent(c.get(), d.image.bytes);
}

TEST(FarStore, ALongCopyLeavesTheCacheToOthers) {
  FakeDaemon d({ServeAll()}, 24 * kMiB);
  Handle c = Open(d.Uri(), Options());
  std::vector<uint8_t> buf(kMiB);
  for (uint64_t at = 0; at < 24 * kMiB; at += kMiB) {
    ASSERT_EQ(cachet_read(c.get(), at, buf.data(), kMiB), CACHET_OK);
    ASSERT_EQ(memcmp(buf.data(), &d.image.bytes[at], kMiB), 0);
  }
  EXPECT_FALSE(cachet_is_cached(c.get(), 24 * kMiB - kPage));
}

TEST(FarStore, AHandleOnAPartOfAnImageReadsNothingBehindIt) {
  uint64_t end = 0;
  FakeDaemon d({[&](Peer &p) {
                 Request r;
                 p.Handshake();
                 while (p.Receive(&r)) {
                   for (auto &range : r.ranges)
                     end = std::max(end, range.first + range.second);
                   p.Answer(r);
                 }
               }},
               4 * kMiB);
  Handle c = Open(d.Uri() + "&offset=8192&length=40960", Options());
  std::vector<uint8_t> buf(40960);
  for (uint64_t at = 0; at < buf.size(); at += kPage)
    ASSERT_EQ(cachet_read(c.get(), at, &buf[at], kPage), CACHET_OK);
  EXPECT_EQ(memcmp(buf.data(), &d.image.bytes[8192], buf.size()), 0);
  c.reset();
  d.Stop();
  EXPECT_EQ(end, 8192u + 40960u);
}

// ---- Over TCP, and over TLS ----

enum Way { kPlain, kTls };

std::string WayName(const testing::TestParamInfo<Way> &info) {
  return info.param == kTls ? "Tls" : "Plain";
}

// An image "i" of a daemon's, either way.
class Served {
public:
  Served(Way way, uint64_t size) : way_(way), source_(size) {
    TestServer::Options options;
    if (way == kTls) {
      tls_ = std::make_unique<TlsSide>();
      options.tls = tls_->context();
      options.allow = any_.get();
    }
    server_ = std::make_unique<TestServer>(
        std::vector<std::pair<std::string, FakeSource *>>{{"i", &source_}},
        options);
  }
  int port() const {
    return way_ == kTls ? server_->tls_port() : server_->plain_port();
  }
  FakeSource &source() { return source_; }
  // Through a port of this host.
  std::string Uri(int port) const {
    std::string place = "127.0.0.1:" + std::to_string(port) + "/i";
    return way_ == kTls ? "cachets://" + place + "?ca=" + tls_->ca()
                        : "cachet://" + place;
  }

private:
  Way way_;
  std::unique_ptr<TlsSide> tls_;
  Rule any_{"any"};
  FakeSource source_;
  std::unique_ptr<TestServer> server_;
};

// ---- In few packets ----

// Segments with data, as the kernel counts them, each once.
struct Segments {
  explicit Segments(cachet *c) {
    struct tcp_info info = {};
    socklen_t len = sizeof info;
    EXPECT_EQ(getsockopt(cachet_fd(c), IPPROTO_TCP, TCP_INFO, &info, &len), 0);
    out = info.tcpi_data_segs_out - info.tcpi_total_retrans;
  }
  unsigned out;
};

class FarPackets : public testing::TestWithParam<Way> {};

TEST_P(FarPackets, ManySmallReadsTravelInFew) {
  constexpr int kReads = 100, kRounds = 5;
  Served served(GetParam(), 64 * kMiB);
  cachet_options o = Options();
  o.flags = CACHET_NO_READAHEAD;
  Handle c = Open(served.Uri(served.port()), o);
  std::vector<uint8_t> bufs(kReads * kPage);
  Segments before(c.get());
  for (int round = 0; round < kRounds; round++) {
    std::vector<Outcome> outcomes(kReads);
    served.source().ShutGate(); // a read that has all to itself is sent alone
    auto page = [&](int i) {
      return uint64_t(round * kReads + i) * 31 * kPage;
    };
    for (int i = 0; i < kReads; i++)
      ASSERT_EQ(cachet_read_async(c.get(), page(i), &bufs[i * kPage], kPage,
                                  Outcome::Read, &outcomes[i], nullptr),
                CACHET_OK);
    ASSERT_EQ(cachet_dispatch(c.get()), CACHET_OK);
    served.source().OpenGate();
    RunUntil(c.get(), [&] {
      return std::all_of(outcomes.begin(), outcomes.end(),
                         [](const Outcome &outcome) { return outcome.n == 1; });
    });
    for (int i = 0; i < kReads; i++) {
      ASSERT_EQ(outcomes[i].status, CACHET_OK);
      ASSERT_EQ(memcmp(&bufs[i * kPage],
                       FakeSource::Bytes(page(i), kPage).data(), kPage),
                0);
    }
  }
  Segments after(c.get());
  EXPECT_LE(after.out - before.out, kRounds * 4u);
}

INSTANTIATE_TEST_SUITE_P(Ways, FarPackets, testing::Values(kPlain, kTls),
                         WayName);

// ---- Through a relay ----

class Relay {
public:
  explicit Relay(int to_port, unsigned delay_ms)
      : relay_(relay_new(static_cast<uint16_t>(to_port), delay_ms * 1000)),
        thread_([this] { relay_run(relay_); }) {}
  ~Relay() {
    relay_stop(relay_);
    thread_.join();
    relay_free(relay_);
  }
  int port() const { return relay_port(relay_); }
  uint64_t turns() const { return relay_turns(relay_); }

private:
  struct relay *relay_;
  std::thread thread_;
};

class RelayTest : public testing::TestWithParam<Way> {
protected:
  static constexpr uint64_t kSize = 16 * kMiB + 777;

  // No more than one round trip for a MiB, where one for each request would be
  // four, and one for each page 256.
  void ExpectFewTurns() { EXPECT_LE(relay_.turns(), 16u); }

  std::vector<uint8_t> Bytes(uint64_t at, uint64_t len) {
    return FakeSource::Bytes(at, len);
  }

  Served served_{GetParam(), kSize};
  Relay relay_{served_.port(), 10};
  Handle c_ = Open(served_.Uri(relay_.port()), Options());
};

TEST_P(RelayTest, ALongReadTakesFewRoundTrips) {
  std::vector<uint8_t> buf(kSize);
  ASSERT_EQ(cachet_read(c_.get(), 0, buf.data(), kSize), CACHET_OK)
      << cachet_errmsg(c_.get());
  EXPECT_TRUE(buf == Bytes(0, kSize));
  ExpectFewTurns();
}

TEST_P(RelayTest, SoDoesASequence) {
  uint64_t turns = relay_.turns();
  cachet_seq seq;
  cachet_slice s;
  uint64_t at = 0;
  ASSERT_EQ(cachet_seq_begin(c_.get(), 0, &seq), CACHET_OK);
  while (cachet_seq_next(&seq, &s) == CACHET_OK) {
    ASSERT_EQ(memcmp(s.data, Bytes(at, s.length).data(), s.length), 0) << at;
    at += s.length;
  }
  cachet_seq_end(&seq);
  EXPECT_EQ(at, kSize);
  // One for each 64 pages, and those until the window is wide.
  EXPECT_LE(relay_.turns() - turns, kSize / (64 * kPage) + 16);
}

TEST_P(RelayTest, WhatIsReadIsRight) {
  std::mt19937_64 random(7);
  uint64_t front = 0; // of a reader from front to back
  for (int i = 0; i < 400; i++) {
    uint64_t at = random() % kSize, len = random() % (64 << 10);
    if (i % 40 == 0)
      len = random() % (2 * kMiB);
    if (i % 4)
      at = front, front = (front + len) % kSize;
    len = std::min(len, kSize - at);
    std::vector<uint8_t> buf(len);
    cachet_slice s;
    if (i % 3 || !len) {
      ASSERT_EQ(cachet_read(c_.get(), at, buf.data(), len), CACHET_OK);
    } else {
      ASSERT_EQ(cachet_map(c_.get(), at, len, &s), CACHET_OK);
      memcpy(buf.data(), s.data, len);
      cachet_release(c_.get(), &s);
    }
    ASSERT_TRUE(buf == Bytes(at, len)) << len << " bytes at " << at;
  }
}

INSTANTIATE_TEST_SUITE_P(Ways, RelayTest, testing::Values(kPlain, kTls),
                         WayName);

} // namespace

// Handles on a daemon's image, with daemons that go, come back, and lie.
#include "tests/client/fake_daemon.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

namespace {

using namespace std::literals;

cachet_options Patience(int request_ms, int connect_ms = 5000) {
  cachet_options o = Options();
  o.request_timeout_ms = request_ms;
  o.connect_timeout_ms = connect_ms;
  return o;
}

struct Outcome {
  int n = 0;
  cachet_status status = CACHET_OK;
  cachet_slice slice = {};

  static void Loaded(void *arg, cachet_status status, cachet_slice *slice) {
    auto *o = static_cast<Outcome *>(arg);
    o->n++;
    o->status = status;
    EXPECT_EQ(slice != nullptr, status == CACHET_OK);
    if (slice)
      o->slice = *slice;
  }
  static void Read(void *arg, cachet_status status) {
    auto *o = static_cast<Outcome *>(arg);
    o->n++;
    o->status = status;
  }
};

void RunUntil(cachet *c, const std::function<bool()> &done) {
  while (!done()) {
    struct pollfd p = {cachet_fd(c), cachet_events(c), 0};
    ASSERT_GE(poll(&p, 1, cachet_timeout_ms(c)), 0);
    ASSERT_EQ(cachet_dispatch(c), CACHET_OK);
  }
}

// Reads it all and compares.
void ExpectContent(cachet *c, const std::vector<uint8_t> &bytes) {
  std::vector<uint8_t> buf(bytes.size());
  ASSERT_EQ(cachet_read(c, 0, buf.data(), buf.size()), CACHET_OK)
      << cachet_errmsg(c);
  EXPECT_TRUE(buf == bytes);
}

TEST(RemoteTest, ReadsWhatTheDaemonServes) {
  FakeDaemon d({ServeAll()}, 300001);
  Handle c = Open(d.Uri(), Options());
  EXPECT_EQ(cachet_size(c.get()), 300001u);
  EXPECT_EQ(cachet_epoch(c.get()), 77u);
  EXPECT_FALSE(cachet_is_shared(c.get()));
  ExpectContent(c.get(), d.image.bytes);
  uint64_t misses = cachet_misses(c.get());
  ExpectContent(c.get(), d.image.bytes);
  EXPECT_EQ(cachet_misses(c.get()), misses);
  EXPECT_TRUE(cachet_is_cached(c.get(), 300000));
}

TEST(RemoteTest, ACacheOfOnePageStillReadsEverything) {
  FakeDaemon d({ServeAll()}, 300001);
  cachet_options o = Options();
  o.cache_size = 4096;
  Handle c = Open(d.Uri(), o);
  ExpectContent(c.get(), d.image.bytes);
  cachet_slice s;
  ASSERT_EQ(cachet_map(c.get(), 5, CACHET_TO_END, &s), CACHET_OK);
  EXPECT_EQ(s.length, 299996u);
  EXPECT_EQ(memcmp(s.data, &d.image.bytes[5], s.length), 0);
  cachet_release(c.get(), &s);
}

TEST(RemoteTest, AsksForAllAbsentPagesOfAReadInOneMessage) {
  std::vector<Request> asked;
  FakeDaemon d({[&](Peer &p) {
    p.Handshake();
    Request r;
    while (p.Receive(&r)) {
      asked.push_back(r);
      p.Answer(r);
    }
  }});
  Handle c = Open(d.Uri(), Options());
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c.get(), 2 * 4096, &byte), CACHET_OK);
  std::vector<uint8_t> buf(5 * 4096);
  ASSERT_EQ(cachet_read(c.get(), 0, buf.data(), buf.size()), CACHET_OK);
  EXPECT_EQ(memcmp(buf.data(), d.image.bytes.data(), buf.size()), 0);
  c.reset();
  d.Stop();
  ASSERT_EQ(asked.size(), 2u);
  std::vector<std::pair<uint64_t, uint64_t>> expected = {{0, 8192},
                                                         {12288, 8192}};
  EXPECT_EQ(asked[1].ranges, expected);
}

TEST(RemoteTest, SplitsRequestsByTheLimitsOfTheDaemon) {
  size_t most_ranges = 0;
  uint64_t most_bytes = 0;
  FakeDaemon d({[&](Peer &p) {
                 p.Handshake();
                 Request r;
                 while (p.Receive(&r)) {
                   uint64_t bytes = 0;
                   for (auto &range : r.ranges)
                     bytes += range.second;
                   most_bytes = std::max(most_bytes, bytes);
                   most_ranges = std::max(most_ranges, r.ranges.size());
                   p.Answer(r);
                 }
               }},
               40 * 4096);
  d.image.max_ranges = 2;
  d.image.max_read = 4 * 4096;
  d.image.max_requests = 1;
  Handle c = Open(d.Uri(), Options());
  uint8_t byte;
  for (uint64_t page = 1; page < 20; page += 2)
    ASSERT_EQ(cachet_get_u8(c.get(), page * 4096, &byte), CACHET_OK);
  ExpectContent(c.get(), d.image.bytes);
  c.reset();
  d.Stop();
  EXPECT_EQ(most_ranges, 2u);
  EXPECT_EQ(most_bytes, 4 * 4096u);
}

// ---- Opening ----------------------------------------------------------------

cachet_status OpenStatus(const std::string &uri, const cachet_options &o,
                         std::string *message = nullptr) {
  cachet *c = nullptr;
  cachet_error err = {};
  cachet_status status = cachet_open(uri.c_str(), &o, &c, &err);
  EXPECT_EQ(c, nullptr);
  EXPECT_EQ(err.code, status);
  if (message)
    *message = err.message;
  return status;
}

TEST(RemoteTest, NoSocketFailsAtOnceAndNamesIt) {
  TempDir dir;
  std::string message;
  EXPECT_EQ(OpenStatus("cachet+unix:///x?socket=" + dir.File("none"),
                       Patience(-1, -1), &message),
            CACHET_E_CONN);
  EXPECT_NE(message.find(dir.File("none")), std::string::npos) << message;
  EXPECT_NE(message.find("No such file"), std::string::npos) << message;
}

TEST(RemoteTest, AnUnknownImageIsNoImage) {
  FakeDaemon d({[](Peer &p) {
    Request r;
    p.Receive(&r);
    p.Welcome(r.id);
    p.Receive(&r);
    p.Error(r.id, CACHET_E_NOIMAGE, "image \"disk\": not\x1b[served");
    p.AwaitEnd();
  }});
  std::string message;
  EXPECT_EQ(OpenStatus(d.Uri(), Options(), &message), CACHET_E_NOIMAGE);
  EXPECT_EQ(message, "image \"disk\": not?[served");
}

TEST(RemoteTest, ADaemonOfAnotherVersionIsAProtocolError) {
  FakeDaemon d({[](Peer &p) {
    Request r;
    p.Receive(&r);
    p.Error(r.id, CACHET_E_PROTO, "versions 2 to 3");
    p.AwaitEnd();
  }});
  EXPECT_EQ(OpenStatus(d.Uri(), Options()), CACHET_E_PROTO);
}

TEST(RemoteTest, AWelcomeOfAVersionThatWasNotOfferedIsAProtocolError) {
  FakeDaemon d({ServeAll()});
  d.image.version = 2;
  EXPECT_EQ(OpenStatus(d.Uri(), Options()), CACHET_E_PROTO);
}

TEST(RemoteTest, ASilentDaemonIsATimeOut) {
  FakeDaemon d({[](Peer &p) { p.AwaitEnd(); }});
  EXPECT_EQ(OpenStatus(d.Uri(), Patience(50, 50)), CACHET_E_TIMEOUT);
}

TEST(RemoteTest, ADaemonThatHangsUpIsNoConnection) {
  FakeDaemon d({[](Peer &) {}});
  EXPECT_EQ(OpenStatus(d.Uri(), Options()), CACHET_E_CONN);
}

TEST(RemoteTest, AnImageThatCannotBeIsAProtocolError) {
  for (uint32_t page_size : {0u, 512u, 5000u, 4u << 20}) {
    FakeDaemon d({ServeAll()});
    d.image.page_size = page_size;
    EXPECT_EQ(OpenStatus(d.Uri(), Options()), CACHET_E_PROTO) << page_size;
  }
  FakeDaemon d({ServeAll()});
  d.image.epoch = 0;
  EXPECT_EQ(OpenStatus(d.Uri(), Options()), CACHET_E_PROTO);
}

TEST(RemoteTest, LimitsThatLeaveNoRoomAreAProtocolError) {
  for (int i = 0; i < 4; i++) {
    FakeDaemon d({ServeAll()});
    (i == 0   ? d.image.max_ranges
     : i == 1 ? d.image.max_requests
              : d.image.max_message) = 0;
    if (i == 3) {
      d.image.max_message = 65536;
      d.image.max_read = 100;
    }
    EXPECT_EQ(OpenStatus(d.Uri(), Options()), CACHET_E_PROTO) << i;
  }
}

// ---- Answers that lie -------------------------------------------------------

struct Lie {
  const char *name;
  std::function<void(Peer &, const Request &)> tell;
};

class LieTest : public testing::TestWithParam<Lie> {};

// The read asked for bytes 0 to 8191.
std::vector<Lie> Lies() {
  static const std::vector<uint8_t> junk(1 << 20, 0xee);
  auto data = [](uint64_t id_off, uint32_t range, uint64_t offset, bool last,
                 size_t len) {
    return [=](Peer &p, const Request &r) {
      p.Data(r.id + id_off, 77, range, offset, last, junk.data(), len);
    };
  };
  return {
      {"AnIdThatWasNotAsked", data(1, 0, 0, true, 8192)},
      {"ARangeThatWasNotAsked", data(0, 1, 0, true, 8192)},
      {"ARangeFarAway", data(0, 0xffffffff, 0, true, 8192)},
      {"AnotherOffset", data(0, 0, 4096, true, 8192)},
      {"AnOffsetThatOverflows", data(0, 0, ~0ull, true, 8192)},
      {"MoreThanWasAsked", data(0, 0, 0, true, 8193)},
      {"MuchMoreThanWasAsked", data(0, 0, 0, true, 1 << 20)},
      {"TheEndTooEarly", data(0, 0, 0, true, 4096)},
      {"TheEndMissing", data(0, 0, 0, false, 8192)},
      {"NoBytes", data(0, 0, 0, false, 0)},
      {"TheSecondPieceTwice",
       [](Peer &p, const Request &r) {
         p.Data(r.id, 77, 0, 0, false, junk.data(), 4096);
         p.Data(r.id, 77, 0, 0, true, junk.data(), 4096);
       }},
      {"DoneForARead", [](Peer &p, const Request &r) { p.Done(r.id); }},
      {"WelcomeAgain", [](Peer &p, const Request &r) { p.Welcome(r.id); }},
      {"GarbageForAFrame",
       [](Peer &p, const Request &) { p.SendRaw("GET / HTTP/1.0\r\n", 16); }},
      {"AFrameThatIsTooLong",
       [](Peer &p, const Request &) {
         p.SendRaw("\xff\xff\xff\x7f\0\0\0\0", 8);
       }},
      {"APayloadThatIsTooLong",
       [](Peer &p, const Request &) {
         p.SendRaw("\x02\0\0\0\xff\xff\xff\xff\x08\x01", 10);
       }},
      {"AMessageWithoutABody",
       [](Peer &p, const Request &) {
         p.SendRaw("\x02\0\0\0\0\0\0\0\x08\x01", 10);
       }},
      {"ATruncatedMessage",
       [](Peer &p, const Request &) {
         p.SendRaw("\x02\0\0\0\0\0\0\0\x12\x7f", 10);
       }},
      {"ANoticeOfAnImageThatCannotBe",
       [](Peer &p, const Request &) {
         std::unique_lock<std::mutex> hold(p.image->lock);
         uint64_t epoch = p.image->epoch;
         p.image->epoch = 0;
         p.Changed();
         p.image->epoch = epoch;
       }},
  };
}

TEST_P(LieTest, EndsTheConnectionWithAProtocolErrorAndTheNextCallWorks) {
  auto lie = [](Peer &p) {
    Request r;
    if (!p.Handshake() || !p.Receive(&r))
      return;
    GetParam().tell(p, r);
    p.AwaitEnd();
  };
  FakeDaemon d({lie, ServeAll()});
  Handle c = Open(d.Uri(), Options());
  std::vector<uint8_t> buf(8192);
  EXPECT_EQ(cachet_read(c.get(), 0, buf.data(), buf.size()), CACHET_E_PROTO)
      << cachet_errmsg(c.get());
  EXPECT_FALSE(cachet_is_cached(c.get(), 0));
  ExpectContent(c.get(), d.image.bytes);
  EXPECT_EQ(d.n_connections, 2);
}

std::string LieName(const testing::TestParamInfo<Lie> &info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(All, LieTest, testing::ValuesIn(Lies()), LieName);

// ---- Notices ----------------------------------------------------------------

TEST(RemoteTest, ANoticeThatIsHereIsHeededByTheNextLoad) {
  Gate loaded, told;
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    p.Receive(&r);
    p.Answer(r);
    loaded.Await();
    {
      std::unique_lock<std::mutex> hold(p.image->lock);
      p.image->bytes[4096] ^= 0xff;
    }
    p.Invalidated(4096, 1);
    told.Open();
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  std::vector<uint8_t> old = d.image.bytes;
  uint8_t buf[3 * 4096];
  ASSERT_EQ(cachet_read(c.get(), 0, buf, sizeof buf), CACHET_OK);
  cachet_slice held;
  ASSERT_EQ(cachet_load(c.get(), 4096, 1, &held), CACHET_OK);
  loaded.Open();
  told.Await();
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c.get(), 4096, &byte), CACHET_OK);
  EXPECT_EQ(byte, d.image.bytes[4096]);
  EXPECT_EQ(held.data[0], old[4096]); // the slice keeps its bytes
  cachet_release(c.get(), &held);
}

TEST(RemoteTest, AHostileNoticeIsCutAtTheEnd) {
  FakeDaemon d({[&](Peer &p) {
    p.Handshake();
    p.Invalidated(~0ull, ~0ull);
    p.Invalidated(1ull << 63, 1ull << 63);
    p.Invalidated(0, ~0ull);
    p.Invalidated(0, 0);
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  ExpectContent(c.get(), d.image.bytes);
}

TEST(RemoteTest, AnAnswerFromBeforeAnInvalidationIsDeliveredButNotKept) {
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    p.Receive(&r);
    p.Invalidated(0, 4096);
    p.Answer(r);
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c.get(), 7, &byte), CACHET_OK);
  EXPECT_EQ(byte, d.image.bytes[7]);
  EXPECT_FALSE(cachet_is_cached(c.get(), 7));
}

// A read of two chunks, with an invalidation before the second is answered.
// How many requests it took.
int ReadAcrossInvalidation(uint64_t offset, uint64_t len) {
  int n_reads = 0;
  FakeDaemon d({[&](Peer &p) {
                 Request r;
                 p.Handshake();
                 while (p.Receive(&r)) {
                   if (++n_reads == 2) {
                     std::unique_lock<std::mutex> hold(p.image->lock);
                     std::vector<uint8_t> fresh = Content(129 * 4096, 2);
                     std::copy_n(&fresh[offset], len, &p.image->bytes[offset]);
                     p.Invalidated(offset, len);
                   }
                   p.Answer(r);
                 }
               }},
               129 * 4096);
  cachet_options options = Options();
  options.flags |= CACHET_NO_READAHEAD;
  Handle c = Open(d.Uri(), options);
  std::vector<uint8_t> buf(128 * 4096);
  EXPECT_EQ(cachet_read(c.get(), 0, buf.data(), buf.size()), CACHET_OK)
      << cachet_errmsg(c.get());
  EXPECT_EQ(memcmp(buf.data(), d.image.bytes.data(), buf.size()), 0);
  c.reset();
  d.Stop();
  return n_reads;
}

TEST(RemoteTest, AReadIsNotOfBeforeAndAfterAnInvalidation) {
  EXPECT_GT(ReadAcrossInvalidation(0, 128 * 4096), 2);
}

TEST(RemoteTest, AnInvalidationElsewhereDoesNotDisturbARead) {
  EXPECT_EQ(ReadAcrossInvalidation(128 * 4096, 4096), 2);
}

TEST(RemoteTest, AChangeRightBehindTheOpeningIsHeard) {
  FakeDaemon d({[](Peer &p) {
    Request r;
    p.Receive(&r);
    p.Welcome(r.id);
    p.Receive(&r);
    p.Cork();
    p.Opened(r.id);
    p.image->epoch = 78;
    p.Changed();
    p.Uncork();
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  EXPECT_EQ(cachet_epoch(c.get()), 78u);
  ExpectContent(c.get(), d.image.bytes);
}

TEST(RemoteTest, AHandleThatLagsBehindDoesNotTakeItsCopyBackWithIt) {
  Gate change, changed;
  FakeDaemon d({[&](Peer &p) {
                  p.Handshake();
                  change.Await();
                  for (uint64_t epoch : {78, 79}) {
                    std::unique_lock<std::mutex> hold(p.image->lock);
                    p.image->epoch = epoch;
                    p.Changed();
                  }
                  changed.Open();
                  p.Serve();
                },
                ServeAll()});
  Handle c = Open(d.Uri(), Options());
  change.Open();
  changed.Await();
  Handle copy = Copy(c.get()); // opens at 79
  EXPECT_EQ(cachet_epoch(copy.get()), 79u);
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_OK); // hears of 78, of 79
  EXPECT_EQ(cachet_epoch(c.get()), 79u);
  ExpectContent(copy.get(), d.image.bytes);
  ExpectContent(c.get(), d.image.bytes);
}

TEST(RemoteTest, AnEpochThatTheDaemonRefusesIsNotAskedForAgain) {
  // The copy is told of an epoch that is over, and is never told better.
  Gate told;
  FakeDaemon d({[&](Peer &p) {
                  p.Handshake();
                  p.Serve();
                },
                [&](Peer &p) {
                  auto pretend = [&](uint64_t epoch) {
                    std::unique_lock<std::mutex> hold(p.image->lock);
                    p.image->epoch = epoch;
                  };
                  pretend(70);
                  p.Handshake();
                  pretend(77);
                  told.Open();
                  p.Serve();
                }});
  Handle c = Open(d.Uri(), Options());
  Handle copy = Copy(c.get());
  told.Await();
  ExpectContent(c.get(), d.image.bytes);
  EXPECT_EQ(cachet_epoch(c.get()), 77u);
}

TEST(RemoteTest, ACopyTrustsNothingThatWasCachedBefore) {
  FakeDaemon d({ServeAll()});
  Handle c = Open(d.Uri(), Options());
  ExpectContent(c.get(), d.image.bytes);
  {
    std::unique_lock<std::mutex> hold(d.image.lock);
    d.image.bytes[0] ^= 1; // and its notice is still on its way to `c`
  }
  Handle copy = Copy(c.get());
  ExpectContent(copy.get(), d.image.bytes);
}

TEST(RemoteTest, AFloodOfNoticesHoldsUpNothingForEver) {
  std::atomic<bool> over{false};
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    p.Receive(&r);
    p.Cork();
    for (int i = 0; i < 1000; i++)
      p.Invalidated(9 * 4096, 1);
    std::vector<char> flood = p.TakeKept();
    while (!over)
      p.SendRaw(flood.data(), flood.size());
  }});
  Handle c = Open(d.Uri(), Patience(100));
  uint8_t byte;
  EXPECT_NE(cachet_get_u8(c.get(), 0, &byte), CACHET_OK);
  over = true;
}

TEST(RemoteTest, ManyRangesInOneNoticeAreAllDropped) {
  Gate loaded, told;
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    p.Receive(&r);
    p.Answer(r);
    loaded.Await();
    std::vector<std::pair<uint64_t, uint64_t>> ranges;
    for (uint64_t page = 9; page > 0; page--) { // 18 of them, pages 1 to 9
      ranges.emplace_back(page * 4096, 1);
      ranges.emplace_back(page * 4096 + 9, 0);
    }
    p.Invalidated(ranges);
    told.Open();
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  ExpectContent(c.get(), d.image.bytes);
  {
    std::unique_lock<std::mutex> hold(d.image.lock);
    for (uint64_t page = 1; page < 10; page++)
      d.image.bytes[page * 4096] ^= 1;
  }
  loaded.Open();
  told.Await();
  ExpectContent(c.get(), d.image.bytes);
  EXPECT_TRUE(cachet_is_cached(c.get(), 0));
}

TEST(RemoteTest, AReadThatSpansAChangeIsOfOneEpoch) {
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    p.Receive(&r);
    p.Data(r.id, 77, 0, 0, false, p.image->bytes.data(), 4096);
    std::unique_lock<std::mutex> hold(p.image->lock);
    p.image->bytes = Content(100000, 2);
    p.image->epoch = 78;
    p.Changed();
    p.Error(r.id, CACHET_E_CHANGED, "changed");
    hold.unlock();
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  std::vector<uint8_t> buf(64 << 10);
  ASSERT_EQ(cachet_read(c.get(), 0, buf.data(), buf.size()), CACHET_OK)
      << cachet_errmsg(c.get());
  EXPECT_EQ(memcmp(buf.data(), d.image.bytes.data(), buf.size()), 0);
  EXPECT_EQ(cachet_epoch(c.get()), 78u);
  EXPECT_EQ(cachet_size(c.get()), 100000u);
}

TEST(RemoteTest, AnImageThatNeverStandsStillIsChanged) {
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    while (p.Receive(&r))
      p.Error(r.id, CACHET_E_CHANGED, "changed");
  }});
  Handle c = Open(d.Uri(), Options());
  uint8_t byte;
  EXPECT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_E_CHANGED);
}

TEST(RemoteTest, APieceOfAnotherEpochIsNotMixedIn) {
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    p.Receive(&r);
    std::vector<uint8_t> other = Content(8192, 3);
    p.Data(r.id, 77, 0, 0, false, p.image->bytes.data(), 4096);
    p.Data(r.id, 99, 0, 4096, true, other.data(), 4096);
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  uint8_t buf[8192];
  ASSERT_EQ(cachet_read(c.get(), 0, buf, sizeof buf), CACHET_OK);
  EXPECT_EQ(memcmp(buf, d.image.bytes.data(), sizeof buf), 0);
}

TEST(RemoteTest, InvalidateDropsHereAndAtTheDaemon) {
  FakeDaemon d({ServeAll()});
  Handle c = Open(d.Uri(), Options());
  Handle copy = Copy(c.get());
  ExpectContent(c.get(), d.image.bytes);
  {
    std::unique_lock<std::mutex> hold(d.image.lock);
    d.image.bytes[5000] ^= 1;
  }
  ASSERT_EQ(cachet_invalidate(c.get(), 4096, 1), CACHET_OK);
  EXPECT_FALSE(cachet_is_cached(c.get(), 5000));
  EXPECT_TRUE(cachet_is_cached(c.get(), 0));
  EXPECT_TRUE(cachet_is_cached(c.get(), 8192));
  ExpectContent(copy.get(), d.image.bytes);
}

TEST(RemoteTest, AnInvalidateThatIsNotAllowedSaysSo) {
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    p.Receive(&r);
    p.Error(r.id, CACHET_E_ACCESS, "invalidate: not permitted");
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  EXPECT_EQ(cachet_invalidate(c.get(), 0, 1), CACHET_E_ACCESS);
  EXPECT_STREQ(cachet_errmsg(c.get()), "invalidate: not permitted");
}

// ---- Losing the connection --------------------------------------------------

TEST(RemoteTest, ADaemonThatDiesMidFrameIsAskedAgain) {
  FakeDaemon d({[](Peer &p) {
                  Request r;
                  p.Handshake();
                  p.Receive(&r);
                  p.SendRaw("\x10\0\0\0\0\x10\0\0\x08", 9);
                },
                ServeAll()});
  Handle c = Open(d.Uri(), Options());
  ExpectContent(c.get(), d.image.bytes);
  EXPECT_EQ(d.n_connections, 2);
}

TEST(RemoteTest, ADaemonThatDiesMidPayloadIsAskedAgain) {
  FakeDaemon d({[](Peer &p) {
                  Request r;
                  p.Handshake();
                  p.Receive(&r);
                  p.Data(r.id, 77, 0, 0, false, p.image->bytes.data(), 4096);
                },
                ServeAll()});
  Handle c = Open(d.Uri(), Options());
  ExpectContent(c.get(), d.image.bytes);
}

TEST(RemoteTest, ARestartedDaemonIsFoundAgainWithItsNewEpoch) {
  FakeDaemon d({ServeAll()});
  Handle c = Open(d.Uri(), Options());
  ExpectContent(c.get(), d.image.bytes);
  cachet_slice held;
  std::vector<uint8_t> old = d.image.bytes;
  ASSERT_EQ(cachet_map(c.get(), 0, 20000, &held), CACHET_OK);
  d.Stop();
  d.image.bytes = Content(50000, 9);
  d.image.epoch = 1234;
  std::thread restart([&] { d.Listen(); });
  ExpectContent(c.get(), d.image.bytes);
  restart.join();
  EXPECT_EQ(cachet_epoch(c.get()), 1234u);
  EXPECT_EQ(memcmp(held.data, old.data(), held.length), 0);
}

TEST(RemoteTest, AReconnectionInTheSameEpochTrustsNothingThatWasCached) {
  Gate go;
  FakeDaemon d({[&](Peer &p) {
                  Request r;
                  p.Handshake();
                  p.Receive(&r);
                  p.Answer(r);
                  go.Await();
                },
                ServeAll()});
  Handle c = Open(d.Uri(), Options());
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_OK);
  {
    std::unique_lock<std::mutex> hold(d.image.lock);
    d.image.bytes[0] ^= 0x55; // and its notice is lost
  }
  go.Open();
  // Until the end of the connection is here, a hit is all there can be.
  while (cachet_is_cached(c.get(), 0) && d.n_connections < 2)
    ASSERT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_OK);
  ASSERT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_OK);
  EXPECT_EQ(byte, d.image.bytes[0]);
}

TEST(RemoteTest, ADaemonThatStaysAwayIsNoConnectionInTime) {
  FakeDaemon d({ServeAll()});
  Handle c = Open(d.Uri(), Patience(100));
  d.Stop();
  uint8_t byte;
  EXPECT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_E_CONN);
  EXPECT_NE(strstr(cachet_errmsg(c.get()), d.path.c_str()), nullptr)
      << cachet_errmsg(c.get());
}

TEST(RemoteTest, AnAnswerThatDoesNotComeIsATimeOut) {
  FakeDaemon d({[](Peer &p) {
    p.Handshake();
    p.AwaitEnd();
  }});
  Handle c = Open(d.Uri(), Patience(50));
  uint8_t byte;
  EXPECT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_E_TIMEOUT);
}

TEST(RemoteTest, AConnectionThatFellSilentIsGivenUpAfterTheTimeOut) {
  FakeDaemon d({[](Peer &p) {
                  p.Handshake();
                  p.AwaitEnd();
                },
                ServeAll()});
  Handle c = Open(d.Uri(), Patience(200));
  uint8_t byte;
  EXPECT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_E_TIMEOUT);
  EXPECT_EQ(cachet_fd(c.get()), -1);
  EXPECT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_OK);
  EXPECT_EQ(byte, d.image.bytes[0]);
  EXPECT_EQ(d.n_connections, 2);
}

TEST(RemoteTest, ADaemonThatIsSlowWithOneAnswerButNotSilentIsKept) {
  FakeDaemon d({[&](Peer &p) {
    Request slow;
    p.Handshake();
    p.Receive(&slow);
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Patience(200));
  Outcome out;
  uint8_t byte;
  ASSERT_EQ(cachet_load_async(c.get(), 0, 0, Outcome::Loaded, &out, nullptr),
            CACHET_OK);
  while (!out.n) {
    ASSERT_EQ(cachet_invalidate(c.get(), 4096, 1), CACHET_OK)
        << cachet_errmsg(c.get());
    ASSERT_EQ(cachet_get_u8(c.get(), 4096, &byte), CACHET_OK);
    ASSERT_EQ(cachet_dispatch(c.get()), CACHET_OK);
  }
  EXPECT_EQ(out.status, CACHET_E_TIMEOUT);
  EXPECT_EQ(d.n_connections, 1);
}

TEST(RemoteTest, AConnectionThatCannotBeWrittenToEndsInTime) {
  Gate deaf;
  FakeDaemon d({[&](Peer &p) {
                  p.Handshake();
                  p.StopReading();
                  deaf.Open();
                  p.AwaitLeave();
                },
                ServeAll()});
  Handle c = Open(d.Uri(), Patience(50));
  deaf.Await();
  // Nobody waits for it: that it is asked in vain has to show by itself.
  ASSERT_EQ(cachet_prefetch(c.get(), 0, 4096), CACHET_OK);
  EXPECT_NE(cachet_timeout_ms(c.get()), -1);
  RunUntil(c.get(), [&] { return cachet_fd(c.get()) == -1; });
  ExpectContent(c.get(), d.image.bytes);
}

TEST(RemoteTest, KeepAliveOverTcpIsAsPatientAsRequestsAre) {
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in at = {};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t len = sizeof at;
  auto *address = reinterpret_cast<sockaddr *>(&at);
  ASSERT_EQ(bind(listener, address, len), 0);
  ASSERT_EQ(listen(listener, 1), 0);
  ASSERT_EQ(getsockname(listener, address, &len), 0);
  FakeImage image;
  image.bytes = Content(4096);
  std::thread server([&] {
    int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    Peer p(fd, &image);
    p.Handshake();
    p.AwaitEnd();
    close(fd);
  });
  std::string uri =
      "cachet://127.0.0.1:" + std::to_string(ntohs(at.sin_port)) + "/disk";
  Handle c = Open(uri, Patience(60000));
  auto option = [&](int name) {
    int value = 0;
    socklen_t size = sizeof value;
    EXPECT_EQ(getsockopt(cachet_fd(c.get()), IPPROTO_TCP, name, &value, &size),
              0);
    return value;
  };
  EXPECT_EQ(option(TCP_KEEPIDLE) + option(TCP_KEEPINTVL) * option(TCP_KEEPCNT),
            60);
  EXPECT_EQ(option(TCP_USER_TIMEOUT), 60000);
  c.reset();
  server.join();
  close(listener);
}

TEST(RemoteTest, AFailureOfTheImageIsToldToTheCallerAndNotRemembered) {
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    p.Receive(&r);
    p.Error(r.id, CACHET_E_IO, "image \"disk\": read: Input/output error");
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  uint8_t byte;
  EXPECT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_E_IO);
  EXPECT_STREQ(cachet_errmsg(c.get()),
               "image \"disk\": read: Input/output error");
  EXPECT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_OK);
}

TEST(RemoteTest, AnErrorWithAStatusThatIsNoneIsAProtocolError) {
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    for (int status : {0, 1, -99}) {
      p.Receive(&r);
      p.Error(r.id, status, "");
    }
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  uint8_t byte;
  for (int i = 0; i < 3; i++)
    EXPECT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_E_PROTO);
}

// ---- Asynchronous -----------------------------------------------------------

TEST(RemoteTest, ManyLoadsAreInFlightAtOnceAndMayBeAnsweredInAnyOrder) {
  FakeDaemon d({[&](Peer &p) {
    Request r[16];
    p.Handshake();
    for (auto &request : r)
      p.Receive(&request); // nothing is answered before all are here
    for (int i = 15; i >= 0; i--)
      p.Answer(r[i]);
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  Outcome out[16];
  for (uint64_t i = 0; i < 16; i++)
    ASSERT_EQ(cachet_load_async(c.get(), i * 4096, 0, Outcome::Loaded, &out[i],
                                nullptr),
              CACHET_OK);
  RunUntil(c.get(), [&] {
    return std::all_of(out, out + 16, [](auto &o) { return o.n == 1; });
  });
  for (auto &o : out) {
    ASSERT_EQ(o.status, CACHET_OK);
    EXPECT_EQ(memcmp(o.slice.data, &d.image.bytes[o.slice.offset], 4096), 0);
    cachet_release(c.get(), &o.slice);
  }
  EXPECT_EQ(cachet_timeout_ms(c.get()), -1);
}

TEST(RemoteTest, RequestsOutliveTheConnection) {
  FakeDaemon d({[&](Peer &p) {
                  Request r;
                  p.Handshake();
                  p.Receive(&r);
                },
                ServeAll()});
  Handle c = Open(d.Uri(), Options());
  Outcome a, b;
  std::vector<uint8_t> buf(64 << 10);
  cachet_load_async(c.get(), 0, 0, Outcome::Loaded, &a, nullptr);
  cachet_read_async(c.get(), 0, buf.data(), buf.size(), Outcome::Read, &b,
                    nullptr);
  RunUntil(c.get(), [&] { return a.n && b.n; });
  EXPECT_EQ(a.status, CACHET_OK);
  EXPECT_EQ(b.status, CACHET_OK);
  EXPECT_TRUE(buf == d.image.bytes);
}

TEST(RemoteTest, ACancelledRequestCompletesOnceAndItsAnswerDoesNoHarm) {
  Gate answer;
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    p.Receive(&r);
    answer.Await();
    p.Answer(r);
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  Outcome out;
  std::vector<uint8_t> buf(8192, 0x11);
  cachet_request *request = nullptr;
  ASSERT_EQ(cachet_read_async(c.get(), 0, buf.data(), buf.size(), Outcome::Read,
                              &out, &request),
            CACHET_OK);
  ASSERT_EQ(cachet_cancel(c.get(), request), CACHET_OK);
  EXPECT_EQ(out.n, 0);
  EXPECT_EQ(cachet_timeout_ms(c.get()), 0);
  ASSERT_EQ(cachet_dispatch(c.get()), CACHET_OK);
  EXPECT_EQ(out.n, 1);
  EXPECT_EQ(out.status, CACHET_E_CANCELED);
  answer.Open();
  ExpectContent(c.get(), d.image.bytes);
  EXPECT_EQ(out.n, 1);
  EXPECT_EQ(buf, std::vector<uint8_t>(8192, 0x11));
}

TEST(RemoteTest, CloseCompletesWhatIsOutstanding) {
  FakeDaemon d({[&](Peer &p) {
    p.Handshake();
    p.AwaitEnd();
  }});
  Handle c = Open(d.Uri(), Options());
  Outcome out;
  cachet_load_async(c.get(), 0, 0, Outcome::Loaded, &out, nullptr);
  c.reset();
  EXPECT_EQ(out.n, 1);
  EXPECT_EQ(out.status, CACHET_E_CANCELED);
}

TEST(RemoteTest, BlockingCallsRunNoCallbacks) {
  FakeDaemon d({ServeAll()});
  Handle c = Open(d.Uri(), Options());
  Outcome out;
  cachet_load_async(c.get(), 0, 0, Outcome::Loaded, &out, nullptr);
  ExpectContent(c.get(), d.image.bytes);
  EXPECT_EQ(out.n, 0);
  RunUntil(c.get(), [&] { return out.n == 1; });
  EXPECT_EQ(out.status, CACHET_OK);
}

TEST(RemoteTest, ARequestWithoutAnAnswerTimesOutInDispatch) {
  FakeDaemon d({[&](Peer &p) {
    p.Handshake();
    p.AwaitEnd();
  }});
  Handle c = Open(d.Uri(), Patience(30));
  Outcome out;
  cachet_load_async(c.get(), 0, 0, Outcome::Loaded, &out, nullptr);
  RunUntil(c.get(), [&] { return out.n == 1; });
  EXPECT_EQ(out.status, CACHET_E_TIMEOUT);
}

TEST(RemoteTest, EachAnswerOfARequestHasTheWholeTimeOut) {
  Gate first, second;
  FakeDaemon d({[&](Peer &p) {
                 Request r;
                 p.Handshake();
                 p.Receive(&r);
                 first.Await();
                 p.Answer(r);
                 p.Receive(&r);
                 second.Await();
                 p.Answer(r);
                 p.Serve();
               }},
               128 * 4096);
  Handle c = Open(d.Uri(), Patience(100000));
  Outcome out;
  std::vector<uint8_t> buf(128 * 4096);
  ASSERT_EQ(cachet_read_async(c.get(), 0, buf.data(), buf.size(), Outcome::Read,
                              &out, nullptr),
            CACHET_OK);
  int before;
  while ((before = cachet_timeout_ms(c.get())) > 99700)
    std::this_thread::yield();
  first.Open();
  while (cachet_misses(c.get()) < 128) { // the second half is asked for
    struct pollfd p = {cachet_fd(c.get()), cachet_events(c.get()), 0};
    ASSERT_GE(poll(&p, 1, cachet_timeout_ms(c.get())), 0);
    ASSERT_EQ(cachet_dispatch(c.get()), CACHET_OK);
  }
  EXPECT_GT(cachet_timeout_ms(c.get()), before);
  second.Open();
  RunUntil(c.get(), [&] { return out.n == 1; });
  EXPECT_EQ(out.status, CACHET_OK);
}

TEST(RemoteTest, APrefetchIsJoinedByTheReadThatFollows) {
  std::atomic<int> n_reads{0};
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    while (p.Receive(&r)) {
      n_reads++;
      p.Answer(r);
    }
  }});
  Handle c = Open(d.Uri(), Options());
  ASSERT_EQ(cachet_prefetch(c.get(), 0, CACHET_TO_END), CACHET_OK);
  ExpectContent(c.get(), d.image.bytes);
  EXPECT_EQ(n_reads, 1);
}

TEST(RemoteTest, AChildOfForkIsRefusedAndTheParentGoesOn) {
  FakeDaemon d({ServeAll()});
  Handle c = Open(d.Uri(), Options());
  ExpectContent(c.get(), d.image.bytes);
  pid_t pid = fork();
  if (pid == 0) {
    uint8_t byte;
    bool ok = cachet_get_u8(c.get(), 0, &byte) == CACHET_E_FORKED;
    cachet_close(c.release());
    _exit(ok ? 0 : 1);
  }
  int status;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
  ASSERT_EQ(cachet_invalidate(c.get(), 0, CACHET_TO_END), CACHET_OK);
  ExpectContent(c.get(), d.image.bytes);
}

} // namespace

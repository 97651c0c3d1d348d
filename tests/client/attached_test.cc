// Handles that read a daemon's memory: what their pins protect, and what they
// make of invalidations and epochs that nobody tells them of.
#include "tests/client/fake_mirror.h"

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPages = 64;

// A daemon that shares the memory of its image, of which nothing is there.  The
// content is of version 1 as long as nobody says otherwise.
class Shared {
public:
  explicit Shared(Script serve)
      : daemon({[this, serve](Peer &p) {
                 if (Attach(p, mirror))
                   serve(p);
               }},
               kPages * kPage),
        mirror(daemon.image), v1(daemon.image.bytes),
        v2(Content(kPages * kPage, 2)) {
    daemon.image.share = true;
  }

  static bool Attach(Peer &p, FakeMirror &mirror) {
    Request r;
    if (!p.Handshake() || !p.Receive(&r))
      return false;
    EXPECT_EQ(r.body, CACHET__WIRE__MESSAGE__BODY_ATTACH);
    mirror.Lend(p, r.id);
    return true;
  }

  Handle Open(uint32_t flags = CACHET_NO_READAHEAD) {
    cachet_options o = Options();
    o.flags = flags;
    Handle c = ::Open(daemon.Uri(), o);
    EXPECT_TRUE(cachet_is_shared(c.get()));
    return c;
  }

  void Fill(uint64_t page, const std::vector<uint8_t> &bytes) {
    mirror.Fill(page, &bytes[page * kPage]);
  }

  // Answers a Read with the bytes of a version.
  void Payload(Peer &p, const Request &r, const std::vector<uint8_t> &bytes) {
    for (size_t i = 0; i < r.ranges.size(); i++) {
      auto [offset, len] = r.ranges[i];
      p.Data(r.id, mirror.epoch(), uint32_t(i), offset,
             i + 1 == r.ranges.size(), &bytes[offset], len);
    }
  }

  // Answers it by having its pages there.
  void Resident(Peer &p, const Request &r, const std::vector<uint8_t> &bytes) {
    for (auto [offset, len] : r.ranges)
      for (uint64_t page = offset / kPage; page * kPage < offset + len; page++)
        Fill(page, bytes);
    SayResident(p, r);
  }
  void SayResident(Peer &p, const Request &r) {
    for (size_t i = 0; i < r.ranges.size(); i++)
      p.Resident(r.id, mirror.epoch(), uint32_t(i), r.ranges[i].first,
                 i + 1 == r.ranges.size(), r.ranges[i].second);
  }

  FakeDaemon daemon;
  FakeMirror mirror;
  std::vector<uint8_t> v1, v2;
};

// Five reads that wait, of pages 10, 12, ... 18: one more than there are slots
// for ranges.
struct FiveReads {
  static constexpr int kN = 5;
  static uint64_t Page(int i) { return 10 + 2 * uint64_t(i); }

  explicit FiveReads(cachet *c) {
    for (int i = 0; i < kN; i++)
      EXPECT_EQ(cachet_read_async(c, Page(i) * kPage, into[i], sizeof into[i],
                                  Outcome::Read, &outcome[i], &request[i]),
                CACHET_OK);
  }
  bool AreDone() const {
    return std::all_of(outcome, outcome + kN,
                       [](const Outcome &o) { return o.n > 0; });
  }
  void ExpectAll(cachet_status status) const {
    for (const Outcome &o : outcome)
      EXPECT_EQ(o.status, status);
  }

  uint8_t into[kN][kPage];
  Outcome outcome[kN];
  cachet_request *request[kN];
};

// Whether what a getter reads now is read under the cursor's pin.
void ExpectPinnedGet(Shared &s, cachet *c, uint64_t page) {
  uint8_t byte = 0;
  ASSERT_EQ(cachet_get_u8(c, page * kPage + 8, &byte), CACHET_OK)
      << cachet_errmsg(c);
  EXPECT_EQ(byte, s.v1[page * kPage + 8]);
  EXPECT_EQ(s.mirror.Pin(PIN_SLOT_CURSOR), pin_word(page, 1));
}

// ---- The cursor ------------------------------------------------------------

TEST(AttachedTest, CancelledReadsTakeNothingFromTheCursor) {
  Shared s([](Peer &p) { p.AwaitEnd(); });
  s.Fill(0, s.v1);
  Handle c = s.Open();
  FiveReads reads(c.get());
  for (cachet_request *r : reads.request) {
    ExpectPinnedGet(s, c.get(), 0);
    EXPECT_EQ(cachet_cancel(c.get(), r), CACHET_OK);
    ExpectPinnedGet(s, c.get(), 0);
  }
  RunUntil(c.get(), [&] { return reads.AreDone(); });
  reads.ExpectAll(CACHET_E_CANCELED);
  ExpectPinnedGet(s, c.get(), 0);
}

TEST(AttachedTest, FailedReadsTakeNothingFromTheCursor) {
  Gate fail;
  Shared s([&](Peer &p) {
    Request r[FiveReads::kN];
    for (Request &asked : r)
      p.Receive(&asked);
    fail.Await();
    for (Request &asked : r)
      p.Error(asked.id, CACHET_E_IO, "bad sector");
    p.AwaitEnd();
  });
  s.Fill(0, s.v1);
  Handle c = s.Open();
  FiveReads reads(c.get());
  for (Outcome &o : reads.outcome)
    o.then = [&](Outcome &) { ExpectPinnedGet(s, c.get(), 0); };
  ExpectPinnedGet(s, c.get(), 0);
  fail.Open();
  RunUntil(c.get(), [&] { return reads.AreDone(); });
  reads.ExpectAll(CACHET_E_IO);
}

TEST(AttachedTest, FiveReadsThatWaitAreAllAnswered) {
  Shared s([&](Peer &p) {
    for (Request r; p.Receive(&r);)
      s.Resident(p, r, s.v1);
  });
  s.Fill(0, s.v1);
  Handle c = s.Open();
  FiveReads reads(c.get());
  ExpectPinnedGet(s, c.get(), 0);
  RunUntil(c.get(), [&] { return reads.AreDone(); });
  reads.ExpectAll(CACHET_OK);
  for (int i = 0; i < FiveReads::kN; i++)
    EXPECT_EQ(memcmp(reads.into[i], &s.v1[FiveReads::Page(i) * kPage], kPage),
              0);
  ExpectPinnedGet(s, c.get(), 0);
  for (unsigned slot = PIN_SLOT_PAGE; slot < PIN_N_SLOTS; slot++)
    EXPECT_EQ(s.mirror.Pin(slot), 0u) << slot;
}

TEST(AttachedTest, AReadWithoutAPinAsksAgainForWhatIsGone) {
  int n_asked = 0;
  Shared s([&](Peer &p) {
    for (Request r; p.Receive(&r);)
      if (n_asked++ == FiveReads::kN - 1)
        s.SayResident(p, r); // it was, for a moment
      else
        s.Resident(p, r, s.v1);
  });
  Handle c = s.Open();
  FiveReads reads(c.get());
  RunUntil(c.get(), [&] { return reads.AreDone(); });
  reads.ExpectAll(CACHET_OK);
  int last = FiveReads::kN - 1;
  EXPECT_EQ(
      memcmp(reads.into[last], &s.v1[FiveReads::Page(last) * kPage], kPage), 0);
  c.reset();
  s.daemon.Stop();
  EXPECT_EQ(n_asked, FiveReads::kN + 1);
}

TEST(AttachedTest, ABlockingReadPinsWhatItWaitsForAlsoBesideFourMaps) {
  Shared s([&](Peer &p) {
    for (Request r; p.Receive(&r);) {
      EXPECT_TRUE(r.in_place);
      for (auto [offset, len] : r.ranges)
        for (uint64_t at = offset; at < offset + len; at += kPage)
          EXPECT_TRUE(s.mirror.IsPinned(at / kPage));
      s.Resident(p, r, s.v1);
    }
  });
  for (uint64_t page = 0; page < 8; page++)
    s.Fill(page, s.v1);
  Handle c = s.Open();
  cachet_slice maps[PIN_N_RANGE_SLOTS];
  for (uint64_t i = 0; i < PIN_N_RANGE_SLOTS; i++)
    ASSERT_EQ(cachet_map(c.get(), 2 * i * kPage, 2 * kPage, &maps[i]),
              CACHET_OK);
  ExpectPinnedGet(s, c.get(), 3);
  std::vector<uint8_t> buf(3 * kPage);
  ASSERT_EQ(cachet_read(c.get(), 20 * kPage, buf.data(), buf.size()), CACHET_OK)
      << cachet_errmsg(c.get());
  EXPECT_EQ(memcmp(buf.data(), &s.v1[20 * kPage], buf.size()), 0);
  EXPECT_EQ(s.mirror.Pin(PIN_SLOT_CURSOR), 0u);
  ExpectPinnedGet(s, c.get(), 3);
  for (cachet_slice &map : maps)
    EXPECT_EQ(memcmp(map.data, &s.v1[map.offset], map.length), 0);
}

} // namespace

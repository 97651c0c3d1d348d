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
  ~Shared() { daemon.Stop(); } // its threads use what comes after it

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

// ---- Invalidations ---------------------------------------------------------

uint64_t WordAt(const std::vector<uint8_t> &bytes, uint64_t addr) {
  uint64_t word;
  memcpy(&word, &bytes[addr], sizeof word);
  return word;
}

void ExpectWord(cachet *c, uint64_t addr, const std::vector<uint8_t> &bytes) {
  uint64_t word = 0;
  ASSERT_EQ(cachet_get_u64ne(c, addr, &word), CACHET_OK) << cachet_errmsg(c);
  EXPECT_EQ(word, WordAt(bytes, addr));
}

// A Read that the daemon has got, and answers with what it read then only after
// an invalidation; what is asked for later gets the new content.
class OldRead {
public:
  Script Serve(Shared &s) {
    return [this, &s](Peer &p) {
      Request old, r;
      p.Receive(&old);
      n_asked++;
      asked.Open();
      if (p.Receive(&r)) {
        EXPECT_EQ(r.body, CACHET__WIRE__MESSAGE__BODY_INVALIDATE);
        s.mirror.Invalidate(r.ranges[0].first / kPage,
                            r.ranges[0].second / kPage);
        p.Done(r.id);
      }
      over.Await();
      s.Payload(p, old, s.v1);
      for (; p.Receive(&r); n_asked++)
        s.Payload(p, r, s.v2);
    };
  }

  void Invalidate(cachet *c, uint64_t page) {
    asked.Await();
    ASSERT_EQ(cachet_invalidate(c, page * kPage, kPage), CACHET_OK);
    over.Open();
  }

  Gate asked, over;
  std::atomic<int> n_asked{0};
};

TEST(AttachedTest, ALoadAfterAnInvalidationDoesNotJoinAPrefetchFromBefore) {
  OldRead old;
  Shared s([&](Peer &p) { old.Serve(s)(p); });
  Handle c = s.Open();
  ASSERT_EQ(cachet_prefetch(c.get(), 40 * kPage, 4 * kPage), CACHET_OK);
  old.Invalidate(c.get(), 40);
  ExpectWord(c.get(), 40 * kPage, s.v2);
}

TEST(AttachedTest, ALoadAfterAnothersInvalidationDoesNotJoinAPrefetchEither) {
  Gate invalidated;
  Shared s([&](Peer &p) {
    Request old, r;
    p.Receive(&old);
    s.mirror.Invalidate(40, 1);
    invalidated.Open();
    s.Payload(p, old, s.v1);
    while (p.Receive(&r))
      s.Payload(p, r, s.v2);
  });
  Handle c = s.Open();
  ASSERT_EQ(cachet_prefetch(c.get(), 40 * kPage, 4 * kPage), CACHET_OK);
  invalidated.Await();
  ExpectWord(c.get(), 40 * kPage, s.v2);
}

TEST(AttachedTest, ALoadAfterAnInvalidationDoesNotJoinWhatWasReadAhead) {
  Gate missed, invalidated;
  Shared s([&](Peer &p) {
    Request r;
    for (int i = 0; i < 2; i++) { // two misses in a row open a window
      p.Receive(&r);
      s.Payload(p, r, s.v1);
    }
    p.Receive(&r); // the window: pages 2 to 5
    EXPECT_EQ(r.ranges[0].first, 2 * kPage);
    missed.Await();
    s.mirror.Invalidate(3, 1);
    invalidated.Open();
    s.Payload(p, r, s.v1);
    while (p.Receive(&r))
      s.Payload(p, r, s.v2);
  });
  Handle c = s.Open(0);
  ExpectWord(c.get(), 0, s.v1);
  ExpectWord(c.get(), kPage, s.v1);
  missed.Open();
  invalidated.Await();
  ExpectWord(c.get(), 3 * kPage, s.v2);
}

TEST(AttachedTest, ALoadAfterAnInvalidationDoesNotJoinAReadThatWasCancelled) {
  OldRead old;
  Shared s([&](Peer &p) { old.Serve(s)(p); });
  Handle c = s.Open();
  Outcome outcome;
  cachet_request *request;
  ASSERT_EQ(cachet_load_async(c.get(), 40 * kPage, 0, Outcome::Loaded, &outcome,
                              &request),
            CACHET_OK);
  old.asked.Await();
  ASSERT_EQ(cachet_cancel(c.get(), request), CACHET_OK);
  old.Invalidate(c.get(), 40);
  ExpectWord(c.get(), 40 * kPage, s.v2);
}

TEST(AttachedTest, AReadOfSeveralPagesJoinsNoReadOfWhichOnePageIsStale) {
  OldRead old;
  Shared s([&](Peer &p) { old.Serve(s)(p); });
  Handle c = s.Open();
  ASSERT_EQ(cachet_prefetch(c.get(), 40 * kPage, 4 * kPage), CACHET_OK);
  old.Invalidate(c.get(), 42);
  std::vector<uint8_t> buf(3 * kPage);
  ASSERT_EQ(cachet_read(c.get(), 40 * kPage, buf.data(), buf.size()),
            CACHET_OK);
  EXPECT_EQ(WordAt(buf, 2 * kPage), WordAt(s.v2, 42 * kPage));
}

TEST(AttachedTest, ALoadJoinsAReadOfWhichNothingWasInvalidated) {
  OldRead old;
  Shared s([&](Peer &p) { old.Serve(s)(p); });
  Handle c = s.Open();
  ASSERT_EQ(cachet_prefetch(c.get(), 40 * kPage, 4 * kPage), CACHET_OK);
  old.Invalidate(c.get(), 44);
  ExpectWord(c.get(), 40 * kPage, s.v1);
  EXPECT_EQ(old.n_asked, 1);
}

// ---- Several pages ---------------------------------------------------------

// Page 10 is there, of version 1.  While page 11 is asked for both are
// invalidated, and what comes is of version 2.
enum class How { PAYLOAD, RESIDENT };

class TornTest : public testing::TestWithParam<How> {
protected:
  TornTest() : s_([this](Peer &p) { Serve(p); }) {
    s_.Fill(10, s_.v1);
    c_ = s_.Open();
  }

  void Serve(Peer &p) {
    for (Request r; p.Receive(&r);) {
      if (n_asked_++ == 0)
        s_.mirror.Invalidate(10, 2);
      if (GetParam() == How::RESIDENT &&
          !s_.mirror.IsStale(r.ranges[0].first / kPage))
        s_.Resident(p, r, s_.v2);
      else
        s_.Payload(p, r, s_.v2);
    }
  }

  void ExpectNew(const void *bytes, uint64_t addr, size_t len) {
    EXPECT_EQ(memcmp(bytes, &s_.v2[addr], len), 0);
  }

  Shared s_;
  Handle c_;
  int n_asked_ = 0;
};

TEST_P(TornTest, ARead) {
  uint8_t buf[2 * kPage];
  ASSERT_EQ(cachet_read(c_.get(), 10 * kPage, buf, sizeof buf), CACHET_OK);
  ExpectNew(buf, 10 * kPage, sizeof buf);
}

TEST_P(TornTest, AGetterAcrossTheBoundary) {
  ExpectWord(c_.get(), 11 * kPage - 4, s_.v2);
}

TEST_P(TornTest, AString) {
  char *text = nullptr;
  ASSERT_EQ(cachet_get_string(c_.get(), 11 * kPage - 50, 100, &text),
            CACHET_OK);
  ExpectNew(text, 11 * kPage - 50, 100);
  free(text);
}

TEST_P(TornTest, AMap) {
  cachet_slice s;
  ASSERT_EQ(cachet_map(c_.get(), 10 * kPage, 2 * kPage, &s), CACHET_OK);
  ExpectNew(s.data, 10 * kPage, s.length);
}

TEST_P(TornTest, AMapThatIsACopyFromTheStart) {
  for (uint64_t page = 12; page < 40; page++)
    s_.Fill(page, s_.v2);
  cachet_slice s;
  ASSERT_EQ(cachet_map(c_.get(), 10 * kPage, 30 * kPage, &s), CACHET_OK);
  ExpectNew(s.data, 10 * kPage, s.length);
}

TEST_P(TornTest, AnAsynchronousRead) {
  uint8_t buf[2 * kPage];
  Outcome outcome;
  ASSERT_EQ(cachet_read_async(c_.get(), 10 * kPage, buf, sizeof buf,
                              Outcome::Read, &outcome, nullptr),
            CACHET_OK);
  RunUntil(c_.get(), [&] { return outcome.n > 0; });
  ASSERT_EQ(outcome.status, CACHET_OK);
  ExpectNew(buf, 10 * kPage, sizeof buf);
}

std::string NameOf(const testing::TestParamInfo<How> &how) {
  return how.param == How::PAYLOAD ? "Payload" : "Resident";
}
INSTANTIATE_TEST_SUITE_P(By, TornTest,
                         testing::Values(How::PAYLOAD, How::RESIDENT), NameOf);

TEST(AttachedTest, AnInvalidationElsewhereStartsNothingOver) {
  std::atomic<int> n_asked{0};
  Shared s([&](Peer &p) {
    for (Request r; p.Receive(&r);) {
      n_asked++;
      s.mirror.Invalidate(12, 20);
      s.mirror.Invalidate(0, 10);
      s.Payload(p, r, s.v2);
    }
  });
  s.Fill(10, s.v1);
  Handle c = s.Open();
  std::vector<uint8_t> buf(2 * kPage);
  ASSERT_EQ(cachet_read(c.get(), 10 * kPage, buf.data(), buf.size()),
            CACHET_OK);
  EXPECT_EQ(WordAt(buf, 0), WordAt(s.v1, 10 * kPage));
  EXPECT_EQ(WordAt(buf, kPage), WordAt(s.v2, 11 * kPage));
  EXPECT_EQ(n_asked, 1);
}

// ---- Pages that are stale under a pin --------------------------------------

TEST(AttachedTest, AStalePageIsAskedForWithoutAPinOnItAndOnce) {
  std::atomic<int> n_asked{0};
  Shared s([&](Peer &p) {
    for (Request r; p.Receive(&r);) {
      n_asked++;
      EXPECT_FALSE(s.mirror.IsPinned(5));
      s.Payload(p, r, s.v2);
    }
  });
  s.Fill(5, s.v1);
  Handle c = s.Open();
  ExpectPinnedGet(s, c.get(), 5);
  s.mirror.Invalidate(5, 1);
  ExpectWord(c.get(), 5 * kPage, s.v2);
  EXPECT_EQ(n_asked, 1);
  for (unsigned slot = 0; slot < PIN_N_SLOTS; slot++)
    EXPECT_EQ(s.mirror.Pin(slot), 0u) << slot;
}

TEST(AttachedTest, ASliceOfAStalePageIsACopyOfWhatWasAnswered) {
  std::atomic<int> n_asked{0};
  Shared s([&](Peer &p) {
    for (Request r; p.Receive(&r);) {
      n_asked++;
      EXPECT_EQ(s.mirror.NPins(5), 1) << "by the slice from before";
      s.Payload(p, r, s.v2);
    }
  });
  s.Fill(5, s.v1);
  Handle c = s.Open();
  cachet_slice before, after;
  ASSERT_EQ(cachet_load(c.get(), 5 * kPage, 1, &before), CACHET_OK);
  s.mirror.Invalidate(5, 1);
  ASSERT_EQ(cachet_load(c.get(), 5 * kPage, 1, &after), CACHET_OK);
  EXPECT_EQ(memcmp(before.data, &s.v1[5 * kPage], kPage), 0);
  EXPECT_EQ(memcmp(after.data, &s.v2[5 * kPage], kPage), 0);
  EXPECT_EQ(n_asked, 1);
  cachet_release(c.get(), &before);
  for (unsigned slot = 0; slot < PIN_N_SLOTS; slot++)
    EXPECT_EQ(s.mirror.Pin(slot), 0u) << slot;
}

TEST(AttachedTest, AMapGoesOnAsACopyWhereAPageIsStale) {
  Shared s([&](Peer &p) {
    for (Request r; p.Receive(&r);) {
      EXPECT_EQ(r.ranges[0].first, 11 * kPage);
      EXPECT_EQ(s.mirror.NPins(11), 1) << "by the slice from before";
      s.Payload(p, r, s.v2);
    }
  });
  for (uint64_t page = 10; page < 13; page++)
    s.Fill(page, s.v1);
  Handle c = s.Open();
  cachet_slice before, map;
  ASSERT_EQ(cachet_load(c.get(), 11 * kPage, 1, &before), CACHET_OK);
  s.mirror.Invalidate(11, 1);
  ASSERT_EQ(cachet_map(c.get(), 10 * kPage, 3 * kPage, &map), CACHET_OK);
  EXPECT_EQ(memcmp(map.data, &s.v1[10 * kPage], kPage), 0);
  EXPECT_EQ(memcmp(map.data + kPage, &s.v2[11 * kPage], kPage), 0);
  EXPECT_EQ(memcmp(map.data + 2 * kPage, &s.v1[12 * kPage], kPage), 0);
}

// ---- Epochs ----------------------------------------------------------------

TEST(AttachedTest, ACopyOfAnEpochThatIsOverIsNotTriedAgainInItsMemory) {
  std::unique_ptr<FakeMirror> next;
  Shared s([&](Peer &p) {
    for (Request r; p.Receive(&r);)
      if (r.body == CACHET__WIRE__MESSAGE__BODY_ATTACH)
        next->Lend(p, r.id);
  });
  for (uint64_t page = 10; page < 12; page++)
    s.Fill(page, s.v1);
  Handle c = s.Open();
  ExpectWord(c.get(), 10 * kPage, s.v1);
  s.daemon.image.epoch++;
  next = std::make_unique<FakeMirror>(s.daemon.image);
  for (uint64_t page = 10; page < 12; page++)
    next->Fill(page, &s.v2[page * kPage]);
  s.mirror.Retire(); // and its pages are RESIDENT still
  std::vector<uint8_t> buf(2 * kPage);
  ASSERT_EQ(cachet_read(c.get(), 10 * kPage, buf.data(), buf.size()), CACHET_OK)
      << cachet_errmsg(c.get());
  EXPECT_EQ(memcmp(buf.data(), &s.v2[10 * kPage], buf.size()), 0);
  EXPECT_EQ(cachet_epoch(c.get()), next->epoch());
}

// The daemon honours pins that stand when it is asked, and no later ones.
TEST(AttachedTest, NothingIsReadUnderPinsOfATableThatIsBeingReplaced) {
  std::unique_ptr<FakeMirror> next;
  Gate answer;
  Shared s([&](Peer &p) {
    Request r;
    p.Receive(&r);
    EXPECT_EQ(r.body, CACHET__WIRE__MESSAGE__BODY_ATTACH);
    EXPECT_EQ(r.replaces, 9u);
    for (uint64_t page = 0; page < kPages; page++)
      EXPECT_EQ(s.mirror.IsPinned(page), page == 10) << "counted for nothing";
    answer.Await();
    next->Lend(p, r.id);
    p.AwaitEnd();
  });
  s.mirror.table = 9;
  for (uint64_t page = 10; page < 12; page++)
    s.Fill(page, s.v1);
  Handle c = s.Open();
  cachet_slice held;
  ASSERT_EQ(cachet_load(c.get(), 10 * kPage, 1, &held), CACHET_OK);
  ExpectWord(c.get(), 11 * kPage, s.v1);
  s.daemon.image.epoch++;
  next = std::make_unique<FakeMirror>(s.daemon.image);
  for (uint64_t page = 11; page < 13; page++)
    next->Fill(page, &s.v2[page * kPage]);
  s.mirror.Retire(); // and its pages are RESIDENT still
  uint8_t read[kPage];
  Outcome reads, loads;
  cachet_request *request;
  ASSERT_EQ(cachet_read_async(c.get(), 12 * kPage, read, sizeof read,
                              Outcome::Read, &reads, &request),
            CACHET_OK);
  ASSERT_EQ(cachet_dispatch(c.get()), CACHET_OK); // it asks for the new epoch
  EXPECT_FALSE(cachet_is_cached(c.get(), 11 * kPage));
  ASSERT_EQ(cachet_load_async(c.get(), 11 * kPage, 1, Outcome::Loaded, &loads,
                              &request),
            CACHET_OK);
  ASSERT_EQ(cachet_dispatch(c.get()), CACHET_OK);
  EXPECT_EQ(loads.n, 0) << "it waits, rather than be a hit";
  answer.Open();
  RunUntil(c.get(), [&] { return reads.n && loads.n; });
  EXPECT_EQ(memcmp(read, &s.v2[12 * kPage], kPage), 0);
  EXPECT_EQ(memcmp(loads.slice.data, &s.v2[11 * kPage], kPage), 0);
  EXPECT_EQ(memcmp(held.data, &s.v1[10 * kPage], kPage), 0);
  EXPECT_TRUE(s.mirror.IsPinned(10));
  cachet_release(c.get(), &held);
  EXPECT_FALSE(s.mirror.IsPinned(10));
}

TEST(AttachedTest, ATableThatShrinksIsAProtocolError) {
  Shared s([&](Peer &p) {
    for (Request r; p.Receive(&r);)
      if (r.body == CACHET__WIRE__MESSAGE__BODY_GROW) {
        Cachet__Wire__Grown grown = CACHET__WIRE__GROWN__INIT;
        grown.page_slots = 64;
        grown.range_capacity = 16;
        wire_message m = CACHET__WIRE__MESSAGE__INIT;
        m.id = r.id;
        m.body_case = CACHET__WIRE__MESSAGE__BODY_GROWN;
        m.grown = &grown;
        p.Send(m);
      } else if (r.body == CACHET__WIRE__MESSAGE__BODY_READ) {
        s.Resident(p, r, s.v1);
      }
  });
  s.mirror.table = 9;
  Handle c = s.Open();
  cachet_slice slice;
  ASSERT_EQ(cachet_map(c.get(), 0, 20 * kPage, &slice), CACHET_E_PROTO)
      << "20 pages are more than a slot of this table holds";
}

// ---- Memory that cannot be used --------------------------------------------

void SetPageSize(Peer &p, uint32_t size) {
  std::lock_guard<std::mutex> hold(p.image->lock);
  p.image->page_size = size;
}

// Reads by a connection that asks for no memory, and then ends.
void AnswerOneRead(Peer &p) {
  Request r;
  p.Handshake();
  ASSERT_TRUE(p.Receive(&r));
  EXPECT_EQ(r.body, CACHET__WIRE__MESSAGE__BODY_READ);
  p.Answer(r);
}

TEST(AttachedTest, MemoryThatIsOfNoUseIsAskedForByALaterConnection) {
  std::unique_ptr<FakeMirror> wrong, right;
  FakeDaemon d({[&](Peer &p) {
                  Request r;
                  p.Handshake();
                  p.Receive(&r);
                  SetPageSize(p, 2 * kPage);
                  wrong->Lend(p, r.id);
                  SetPageSize(p, kPage);
                  p.AwaitEnd();
                },
                AnswerOneRead,
                [&](Peer &p) {
                  if (Shared::Attach(p, *right))
                    p.Serve();
                }},
               kPages * kPage);
  d.image.share = true;
  right = std::make_unique<FakeMirror>(d.image);
  d.image.page_size = 2 * kPage;
  wrong = std::make_unique<FakeMirror>(d.image);
  d.image.page_size = kPage;
  cachet_options o = Options();
  o.flags = CACHET_NO_READAHEAD;
  Handle c = Open(d.Uri(), o);
  EXPECT_FALSE(cachet_is_shared(c.get()));
  for (uint64_t page : {1, 2}) {
    uint8_t byte;
    ASSERT_EQ(cachet_get_u8(c.get(), page * kPage, &byte), CACHET_OK);
    EXPECT_EQ(byte, d.image.bytes[page * kPage]);
  }
  EXPECT_TRUE(cachet_is_shared(c.get()));
  c.reset();
  d.Stop();
}

TEST(AttachedTest, ADaemonOfAnotherPageSizeIsAskedForNoMemory) {
  std::unique_ptr<FakeMirror> mirror;
  FakeDaemon d({[&](Peer &p) {
                  Shared::Attach(p, *mirror);
                  SetPageSize(p, 2 * kPage);
                },
                [&](Peer &p) {
                  AnswerOneRead(p);
                  SetPageSize(p, kPage);
                },
                [&](Peer &p) {
                  if (Shared::Attach(p, *mirror))
                    p.Serve();
                }},
               kPages * kPage);
  d.image.share = true;
  mirror = std::make_unique<FakeMirror>(d.image);
  cachet_options o = Options();
  o.flags = CACHET_NO_READAHEAD;
  Handle c = Open(d.Uri(), o);
  for (uint64_t page : {1, 2}) {
    uint8_t byte;
    ASSERT_EQ(cachet_get_u8(c.get(), page * kPage, &byte), CACHET_OK);
    EXPECT_EQ(byte, d.image.bytes[page * kPage]);
  }
  EXPECT_TRUE(cachet_is_shared(c.get()));
  EXPECT_EQ(d.n_connections, 3);
  c.reset();
  d.Stop();
}

} // namespace

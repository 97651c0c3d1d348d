// CACHET_ONE_EPOCH: a handle keeps to the epoch that its image had when it was
// opened, and says so once there is another.
#include <sys/wait.h>

#include "tests/client/fake_mirror.h"
#include "tests/support/quiet_fork.h"

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPages = 16;

using Bytes = std::vector<uint8_t>;

// Every call that loads, gets or walks, of pages 0 and 1.
struct Call {
  const char *name;
  std::function<cachet_status(cachet *)> call;
};

cachet_status RunAsync(cachet *c, bool is_load) {
  static uint8_t buf[kPage];
  Outcome outcome;
  cachet_status status =
      is_load ? cachet_load_async(c, 0, 0, Outcome::Loaded, &outcome, nullptr)
              : cachet_read_async(c, 0, buf, kPage, Outcome::Read, &outcome,
                                  nullptr);
  if (status != CACHET_OK)
    return status; // it was known at once
  RunUntil(c, [&] { return outcome.n > 0; });
  if (outcome.status == CACHET_OK && is_load)
    cachet_release(c, &outcome.slice);
  return outcome.status;
}

std::vector<Call> Calls() {
  return {
      {"load",
       [](cachet *c) {
         cachet_slice s;
         cachet_status status = cachet_load(c, 0, 0, &s);
         if (status == CACHET_OK)
           cachet_release(c, &s);
         return status;
       }},
      {"next",
       [](cachet *c) {
         cachet_slice at = {}, s;
         at.length = kPage;
         cachet_status status = cachet_next(c, &at, &s);
         if (status == CACHET_OK)
           cachet_release(c, &s);
         return status;
       }},
      {"map",
       [](cachet *c) {
         cachet_slice s;
         cachet_status status = cachet_map(c, 8, kPage, &s);
         if (status == CACHET_OK)
           cachet_release(c, &s);
         return status;
       }},
      {"get_u8",
       [](cachet *c) {
         uint8_t byte;
         return cachet_get_u8(c, 5, &byte);
       }},
      {"get_u64le, of two pages",
       [](cachet *c) {
         uint64_t word;
         return cachet_get_u64le(c, kPage - 4, &word);
       }},
      {"read, of one page",
       [](cachet *c) {
         uint8_t buf[100];
         return cachet_read(c, 100, buf, sizeof buf);
       }},
      {"read, of two pages",
       [](cachet *c) {
         uint8_t buf[100];
         return cachet_read(c, kPage - 50, buf, sizeof buf);
       }},
      {"read, past the end of the old epoch",
       [](cachet *c) {
         uint8_t byte;
         cachet_status status = cachet_read(c, kPages * kPage, &byte, 1);
         return status == CACHET_E_BOUNDS ? CACHET_OK : status;
       }},
      {"get_string",
       [](cachet *c) {
         char *text = nullptr;
         cachet_status status = cachet_get_string(c, 7, 10, &text);
         free(text);
         return status;
       }},
      {"iter",
       [](cachet *c) {
         return cachet_iter(
             c, 0, kPage + 1, [](void *, uint8_t) { return 0; }, nullptr);
       }},
      {"seq",
       [](cachet *c) {
         cachet_seq seq;
         cachet_slice s;
         cachet_status status = cachet_seq_begin(c, 0, &seq);
         if (status != CACHET_OK)
           return status;
         status = cachet_seq_next(&seq, &s);
         cachet_seq_end(&seq);
         return status;
       }},
      {"load_async", [](cachet *c) { return RunAsync(c, true); }},
      {"read_async", [](cachet *c) { return RunAsync(c, false); }},
  };
}

void ExpectAll(cachet *c, cachet_status status) {
  for (const Call &call : Calls())
    EXPECT_EQ(call.call(c), status) << call.name << ": " << cachet_errmsg(c);
}

void ExpectByte(cachet *c, uint64_t addr, const Bytes &bytes) {
  uint8_t byte = 0;
  ASSERT_EQ(cachet_get_u8(c, addr, &byte), CACHET_OK) << cachet_errmsg(c);
  EXPECT_EQ(byte, bytes[addr]);
}

cachet_options OneEpoch(uint32_t flags = 0) {
  cachet_options o = Options();
  o.flags = flags | CACHET_ONE_EPOCH | CACHET_NO_READAHEAD;
  return o;
}

// ---- In a daemon's memory --------------------------------------------------

// A daemon that shares the memory of its image's present epoch, of which all
// pages are there, and counts how often it is asked for one.
class SharingDaemon {
public:
  SharingDaemon() : daemon({[this](Peer &p) { Serve(p); }}, kPages * kPage) {
    daemon.image.share = true;
    NewEpoch();
  }
  ~SharingDaemon() { daemon.Stop(); } // its threads use what comes after it

  // The image is one page longer; the old memory is retired.
  void Change() {
    mirrors.back()->EvictAll();
    ChangeAndKeep();
  }
  // And its pages have not gone yet.
  void ChangeAndKeep() {
    mirrors.back()->Retire();
    std::lock_guard<std::mutex> hold(daemon.image.lock);
    daemon.image.bytes =
        Content(daemon.image.bytes.size() + kPage, unsigned(mirrors.size()));
    daemon.image.epoch++;
    NewEpoch();
  }

  FakeDaemon daemon;
  std::atomic<int> n_asked{0};

private:
  void NewEpoch() {
    mirrors.push_back(std::make_unique<FakeMirror>(daemon.image));
    for (uint64_t at = 0; at < daemon.image.bytes.size(); at += kPage)
      mirrors.back()->Fill(at / kPage, &daemon.image.bytes[at]);
  }

  void Serve(Peer &p) {
    if (!p.Handshake())
      return;
    for (Request r; p.Receive(&r);) {
      n_asked++;
      std::unique_lock<std::mutex> hold(daemon.image.lock);
      if (r.body == CACHET__WIRE__MESSAGE__BODY_ATTACH)
        mirrors.back()->Lend(p, r.id);
      else
        p.Error(r.id, CACHET_E_CHANGED, "changed");
    }
  }

  std::vector<std::unique_ptr<FakeMirror>> mirrors;
};

TEST(OneEpochTest, InADaemonsMemoryEachCallSaysThatTheImageChanged) {
  SharingDaemon d;
  Bytes old = d.daemon.image.bytes;
  Handle c = Open(d.daemon.Uri(), OneEpoch());
  ASSERT_TRUE(cachet_is_shared(c.get()));
  ExpectAll(c.get(), CACHET_OK);
  cachet_slice held;
  ASSERT_EQ(cachet_load(c.get(), 3 * kPage, 0, &held), CACHET_OK);
  uint64_t epoch = cachet_epoch(c.get());

  d.Change();
  for (int i = 0; i < 3; i++)
    ExpectAll(c.get(), CACHET_E_CHANGED);
  EXPECT_EQ(cachet_size(c.get()), old.size());
  EXPECT_EQ(cachet_epoch(c.get()), epoch);
  EXPECT_FALSE(cachet_is_cached(c.get(), 0));
  EXPECT_EQ(d.n_asked, 1) << "nothing but the first Attach";
  EXPECT_NE(strstr(cachet_errmsg(c.get()), "changed"), nullptr);

  ASSERT_EQ(cachet_adopt_epoch(c.get()), CACHET_OK) << cachet_errmsg(c.get());
  EXPECT_EQ(cachet_size(c.get()), d.daemon.image.bytes.size());
  EXPECT_EQ(cachet_epoch(c.get()), epoch + 1);
  EXPECT_TRUE(cachet_is_shared(c.get()));
  ExpectAll(c.get(), CACHET_OK);
  ExpectContent(c.get(), d.daemon.image.bytes);
  EXPECT_EQ(memcmp(held.data, &old[3 * kPage], kPage), 0);

  d.Change();
  ExpectAll(c.get(), CACHET_E_CHANGED);
}

TEST(OneEpochTest, PagesThatHaveNotGoneYetAreNotReadOnceTheChangeIsKnown) {
  SharingDaemon d;
  Handle c = Open(d.daemon.Uri(), OneEpoch());
  ExpectAll(c.get(), CACHET_OK);
  d.ChangeAndKeep();
  uint8_t buf[2 * kPage], byte;
  EXPECT_EQ(cachet_read(c.get(), 0, buf, sizeof buf), CACHET_E_CHANGED);
  EXPECT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_E_CHANGED);
  ExpectAll(c.get(), CACHET_E_CHANGED);
  ASSERT_EQ(cachet_adopt_epoch(c.get()), CACHET_OK);
  ExpectContent(c.get(), d.daemon.image.bytes);
  ExpectAll(c.get(), CACHET_OK);
}

TEST(OneEpochTest, AHandleThatOnlyHitsFindsTheChangeInItsMemory) {
  SharingDaemon d;
  Handle c = Open(d.daemon.Uri(), OneEpoch());
  uint8_t byte;
  for (int i = 0; i < 1000; i++)
    ASSERT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_OK);
  d.ChangeAndKeep();
  int n = 0;
  while (cachet_get_u8(c.get(), 0, &byte) == CACHET_OK)
    ASSERT_LT(n++, 100);
  ExpectAll(c.get(), CACHET_E_CHANGED);
}

TEST(OneEpochTest, WithoutTheFlagAHandleGoesOnByItself) {
  SharingDaemon d;
  Handle c = Open(d.daemon.Uri(), Options());
  ExpectAll(c.get(), CACHET_OK);
  EXPECT_EQ(cachet_adopt_epoch(c.get()), CACHET_OK);
  EXPECT_EQ(d.n_asked, 1);
  d.Change();
  ExpectAll(c.get(), CACHET_OK);
  ExpectContent(c.get(), d.daemon.image.bytes);
  d.Change();
  EXPECT_EQ(cachet_adopt_epoch(c.get()), CACHET_OK);
  EXPECT_EQ(cachet_size(c.get()), d.daemon.image.bytes.size());
}

TEST(OneEpochTest, AFailedAdoptionLeavesItAsItWas) {
  SharingDaemon d;
  cachet_options o = OneEpoch();
  o.request_timeout_ms = 50;
  Handle c = Open(d.daemon.Uri(), o);
  d.Change();
  d.daemon.Stop();
  ExpectAll(c.get(), CACHET_E_CHANGED);
  EXPECT_EQ(cachet_adopt_epoch(c.get()), CACHET_E_CONN);
  ExpectAll(c.get(), CACHET_E_CHANGED);
}

TEST(OneEpochTest, ARequestUnderWayEndsWithTheNews) {
  Gate asked, changed;
  std::unique_ptr<FakeMirror> mirror;
  FakeDaemon d({[&](Peer &p) {
                 Request r;
                 if (!p.Handshake() || !p.Receive(&r))
                   return;
                 mirror->Lend(p, r.id);
                 p.Receive(&r);
                 asked.Open();
                 changed.Await();
                 p.Error(r.id, CACHET_E_CHANGED, "changed");
                 p.AwaitEnd();
               }},
               kPages * kPage);
  d.image.share = true;
  mirror = std::make_unique<FakeMirror>(d.image);
  Handle c = Open(d.Uri(), OneEpoch());
  Outcome outcome;
  ASSERT_EQ(
      cachet_load_async(c.get(), 0, 0, Outcome::Loaded, &outcome, nullptr),
      CACHET_OK);
  asked.Await();
  mirror->Retire();
  changed.Open();
  RunUntil(c.get(), [&] { return outcome.n > 0; });
  EXPECT_EQ(outcome.status, CACHET_E_CHANGED);
}

TEST(OneEpochTest, AdoptingDoesNotWaitInACallback) {
  SharingDaemon d;
  Handle c = Open(d.daemon.Uri(), OneEpoch());
  Outcome outcome;
  cachet_status status = CACHET_OK;
  outcome.then = [&](Outcome &o) {
    cachet_release(c.get(), &o.slice);
    status = cachet_adopt_epoch(c.get());
  };
  ASSERT_EQ(
      cachet_load_async(c.get(), 0, 0, Outcome::Loaded, &outcome, nullptr),
      CACHET_OK);
  d.Change();
  RunUntil(c.get(), [&] { return outcome.n > 0; });
  EXPECT_EQ(outcome.status, CACHET_OK);
  EXPECT_EQ(status, CACHET_E_INVAL);
  ExpectAll(c.get(), CACHET_E_CHANGED);
}

// ---- By the socket ---------------------------------------------------------

// Serves; then changes, and tells, when it is told to.
class ChangingDaemon {
public:
  ChangingDaemon()
      : daemon({[this](Peer &p) {
                 p.Handshake();
                 for (Request r; p.Receive(&r);)
                   if (r.body == CACHET__WIRE__MESSAGE__BODY_INVALIDATE) {
                     Change();
                     p.Changed();
                     p.Done(r.id);
                   } else {
                     p.Answer(r);
                   }
               }},
               kPages * kPage) {}

  void Change() {
    std::lock_guard<std::mutex> hold(daemon.image.lock);
    daemon.image.bytes = Content(kPages * kPage, 2);
    daemon.image.epoch++;
  }

  FakeDaemon daemon;
};

TEST(OneEpochTest, ByTheSocketEachCallSaysThatTheImageChanged) {
  ChangingDaemon d;
  Handle c = Open(d.daemon.Uri(), OneEpoch());
  ExpectAll(c.get(), CACHET_OK);
  uint64_t epoch = cachet_epoch(c.get());
  ASSERT_EQ(cachet_invalidate(c.get(), 0, 1), CACHET_OK);
  for (int i = 0; i < 3; i++)
    ExpectAll(c.get(), CACHET_E_CHANGED);
  EXPECT_EQ(cachet_epoch(c.get()), epoch);
  ASSERT_EQ(cachet_adopt_epoch(c.get()), CACHET_OK) << cachet_errmsg(c.get());
  EXPECT_EQ(cachet_epoch(c.get()), epoch + 1);
  ExpectAll(c.get(), CACHET_OK);
  ExpectContent(c.get(), Content(kPages * kPage, 2));
}

TEST(OneEpochTest, AnotherConnectionIsNoOtherEpoch) {
  FakeDaemon d({[](Peer &p) {
                  Request r;
                  p.Handshake();
                  p.Receive(&r);
                  p.Answer(r);
                },
                ServeAll(),
                [](Peer &p) {
                  {
                    std::lock_guard<std::mutex> hold(p.image->lock);
                    p.image->epoch++;
                  }
                  ServeAll()(p);
                }},
               kPages * kPage);
  Handle c = Open(d.Uri(), OneEpoch());
  for (uint64_t page = 0; page < 3; page++)
    ExpectByte(c.get(), page * kPage, d.image.bytes);
  EXPECT_EQ(d.n_connections, 2);
  shutdown(cachet_fd(c.get()), SHUT_RDWR);
  EXPECT_EQ(Calls()[0].call(c.get()), CACHET_E_CHANGED);
  EXPECT_EQ(d.n_connections, 3);
}

TEST(OneEpochTest, ACopyKeepsToTheSameEpoch) {
  ChangingDaemon d;
  Handle c = Open(d.daemon.Uri(), OneEpoch());
  Handle copy = Copy(c.get());
  ExpectAll(copy.get(), CACHET_OK);
  ASSERT_EQ(cachet_invalidate(c.get(), 0, 1), CACHET_OK);
  // The image cache is at the new epoch, whichever of the two heard of it.
  ExpectAll(copy.get(), CACHET_E_CHANGED);
  cachet *none = nullptr;
  cachet_error err = {};
  EXPECT_EQ(cachet_copy(c.get(), &none, &err), CACHET_E_CHANGED);
  EXPECT_EQ(err.code, CACHET_E_CHANGED);
  EXPECT_EQ(cachet_copy(c.get(), &none, nullptr), CACHET_E_CHANGED);
  EXPECT_EQ(none, nullptr);
  ASSERT_EQ(cachet_adopt_epoch(c.get()), CACHET_OK);
  ExpectAll(copy.get(), CACHET_E_CHANGED);
  Handle another = Copy(c.get());
  ExpectAll(another.get(), CACHET_OK);
}

// ---- In process ------------------------------------------------------------

class OneEpochFileTest : public testing::Test {
protected:
  void Write(unsigned seed, size_t size = kPages * kPage) {
    bytes_ = Content(size, seed);
    dir_.Write("i", bytes_);
  }

  TempDir dir_;
  Bytes bytes_;
};

TEST_F(OneEpochFileTest, EachCallSaysThatTheFileChanged) {
  Write(1);
  Handle c = Open(dir_.File("i"), OneEpoch());
  ExpectAll(c.get(), CACHET_OK);
  Write(2, (kPages + 1) * kPage);
  uint8_t byte;
  // Noticed with the first page that has to be read.
  EXPECT_EQ(cachet_get_u8(c.get(), 9 * kPage, &byte), CACHET_E_CHANGED);
  for (int i = 0; i < 3; i++)
    ExpectAll(c.get(), CACHET_E_CHANGED);
  EXPECT_EQ(cachet_size(c.get()), kPages * kPage);
  ASSERT_EQ(cachet_adopt_epoch(c.get()), CACHET_OK);
  EXPECT_EQ(cachet_size(c.get()), (kPages + 1) * kPage);
  ExpectContent(c.get(), bytes_);
  ExpectAll(c.get(), CACHET_OK);
}

TEST_F(OneEpochFileTest, ACopyForAnotherThreadKeepsToTheSameEpoch) {
  Write(1);
  Handle c = Open(dir_.File("i"), OneEpoch());
  Handle copy = Copy(c.get());
  Write(2);
  uint8_t byte;
  EXPECT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_E_CHANGED);
  ExpectAll(copy.get(), CACHET_E_CHANGED);
  cachet *none = nullptr;
  EXPECT_EQ(cachet_copy(c.get(), &none, nullptr), CACHET_E_CHANGED);
  ASSERT_EQ(cachet_adopt_epoch(copy.get()), CACHET_OK);
  ExpectContent(copy.get(), bytes_);
  ExpectAll(c.get(), CACHET_E_CHANGED);
}

TEST_F(OneEpochFileTest, AChildCannotAdopt) {
  Write(1);
  Handle c = Open(dir_.File("i"), OneEpoch());
  pid_t pid = QuietFork();
  if (pid == 0)
    _exit(cachet_adopt_epoch(c.get()) == CACHET_E_FORKED ? 0 : 1);
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(status, 0);
}

} // namespace

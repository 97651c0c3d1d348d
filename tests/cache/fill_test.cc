#include <gtest/gtest.h>

#include <malloc.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cache/check.h"
#include "cache/fetch.h"
#include "cache/fill.h"
#include "cache/image.h"
#include "cache/page_cache.h"
#include "cache/view.h"
#include "tests/support/fake_source.h"

// Called once, before the next mirror's memory is made.
static std::function<void()> before_mirror;

extern "C" int memfd_create(const char *name, unsigned flags) noexcept {
  if (before_mirror)
    std::exchange(before_mirror, nullptr)();
  return int(syscall(SYS_memfd_create, name, flags));
}

namespace {

constexpr uint64_t kPage = 4096;

// A waiter for pages.
struct Waiter {
  fetch f{};
  int n_done = 0;

  Waiter() {
    f.done = [](fetch *done) { Of(done)->n_done++; };
  }
  ~Waiter() { fetch_fini(&f); }
  static Waiter *Of(fetch *f) { return reinterpret_cast<Waiter *>(f); }
};

// An image whose fills the test runs by hand, one after the other.
class FillTest : public testing::Test {
protected:
  explicit FillTest(FakeReads reads = FakeReads::kEither)
      : source_(100 * kPage, reads) {}

  void SetUp() override { Make(1 << 20); }

  void Make(uint64_t budget) {
    page_cache_options options = {budget, false, nullptr};
    ASSERT_EQ(page_cache_new(&options, &cache_), 0);
    image_ops ops{};
    ops.changed = Changed;
    ops.arg = this;
    ops.needs_pages = true;
    ASSERT_EQ(image_new(cache_, "fake", source_.Open(), 12, &ops, &image_), 0);
    mirror_ = image_mirror(image_);
    ASSERT_EQ(view_open(&view_, mirror_), 0);
  }

  void TearDown() override { Unmake(); }

  void Unmake() {
    check_cache(cache_);
    view_close(&view_);
    mirror_unref(mirror_);
    image_free(image_);
    page_cache_stats stats;
    page_cache_get_stats(cache_, &stats);
    EXPECT_EQ(stats.used, 0u);
    page_cache_free(cache_);
  }

  // Keeps what it is to run.
  struct Runner {
    fill_runner base;
    FillTest *test;
    static void Run(fill_runner *r, fill *fill) {
      reinterpret_cast<Runner *>(r)->test->fills_.push_back(fill);
    }
  };

  static void Changed(void *arg, image *) {
    auto *test = static_cast<FillTest *>(arg);
    test->n_changed_++;
    if (test->on_changed_)
      test->on_changed_();
  }

  fetch_outcome Start(Waiter *w, uint64_t first, uint32_t count = 1) {
    w->f.runner = &runner_.base;
    return image_fetch(&w->f, mirror_, first, count);
  }

  fill *TakeOldest() {
    EXPECT_FALSE(fills_.empty());
    fill *fill = fills_.front();
    fills_.erase(fills_.begin());
    return fill;
  }
  void RunOldest() { image_run_fill(TakeOldest()); }
  // One that has not ended is still the oldest.
  source_outcome StartOldest() {
    fill *fill = TakeOldest();
    source_outcome outcome = fill_start(fill, &runner_.base);
    if (outcome == SOURCE_RETRY || outcome == SOURCE_BLOCKS)
      fills_.insert(fills_.begin(), fill);
    return outcome;
  }
  void RunAll() {
    while (!fills_.empty())
      RunOldest();
  }

  bool IsResident(uint64_t page) { return view_is_resident(&view_, page); }

  // Brings a page in.
  void Load(uint64_t page) {
    Waiter w;
    ASSERT_EQ(Start(&w, page), FETCH_WAIT);
    RunAll();
    ASSERT_EQ(w.n_done, 1);
    ASSERT_EQ(w.f.status, 0);
  }

  // Whether the mirror's bytes of a page are those of the source.
  bool Correct(const uint8_t *bytes, uint64_t page, uint64_t version = 1) {
    return !memcmp(
        bytes, FakeSource::Bytes(page * kPage, kPage, version).data(), kPage);
  }

  FakeSource source_;
  page_cache *cache_ = nullptr;
  image *image_ = nullptr;
  mirror *mirror_ = nullptr;
  view view_{};
  Runner runner_{{Runner::Run, nullptr, nullptr}, this};
  std::vector<fill *> fills_;
  int n_changed_ = 0;
  std::function<void()> on_changed_;
};

TEST_F(FillTest, AMissReadsThePageOnceAndLeavesItResident) {
  Waiter w;
  EXPECT_FALSE(IsResident(7));
  EXPECT_EQ(Start(&w, 7), FETCH_WAIT);
  EXPECT_EQ(w.f.n_missed, 1u);
  EXPECT_EQ(w.n_done, 0);
  RunAll();
  EXPECT_EQ(w.n_done, 1);
  EXPECT_EQ(w.f.status, 0);
  EXPECT_TRUE(IsResident(7));
  ASSERT_TRUE(view_pin_page(&view_, PIN_SLOT_CURSOR, 7));
  EXPECT_TRUE(Correct(view_page(&view_, 12, 7), 7));
  EXPECT_TRUE(Correct(fetch_bytes(&w.f, 7), 7));
  view_unpin(&view_, PIN_SLOT_CURSOR);
  EXPECT_EQ(source_.n_reads(), 1);
}

TEST_F(FillTest, SixtyFourWaitersForOnePageAreOneRead) {
  std::vector<std::unique_ptr<Waiter>> waiters;
  for (int i = 0; i < 64; i++) {
    waiters.push_back(std::make_unique<Waiter>());
    EXPECT_EQ(Start(waiters.back().get(), 7), FETCH_WAIT);
    EXPECT_EQ(waiters.back()->f.n_joined, i ? 1u : 0u);
  }
  EXPECT_EQ(fills_.size(), 1u);
  RunAll();
  for (auto &w : waiters) {
    EXPECT_EQ(w->n_done, 1);
    EXPECT_TRUE(Correct(fetch_bytes(&w->f, 7), 7));
  }
  EXPECT_EQ(source_.n_reads(), 1);
}

TEST_F(FillTest, NeighboursAreOneReadAndResidentPagesAreLeftOut) {
  Load(10);
  Waiter w;
  EXPECT_EQ(Start(&w, 8, 6), FETCH_WAIT);
  EXPECT_EQ(fills_.size(), 2u) << "8-9 and 11-13";
  EXPECT_EQ(w.f.n_missed, 5u);
  RunOldest();
  EXPECT_EQ(w.n_done, 0);
  RunOldest();
  EXPECT_EQ(w.n_done, 1);
  EXPECT_EQ(fetch_bytes(&w.f, 10), nullptr);
  for (uint64_t page : {8, 9, 11, 12, 13})
    EXPECT_TRUE(Correct(fetch_bytes(&w.f, page), page));
}

TEST_F(FillTest, ResidentPagesNeedNoWait) {
  Load(3);
  Waiter w;
  EXPECT_EQ(Start(&w, 3), FETCH_READY);
  EXPECT_EQ(w.n_done, 0);
  EXPECT_TRUE(fills_.empty());
}

// The buffers of fills are not zeros by chance.
static void PoisonMemory() { mallopt(M_PERTURB, 0x5a); }

static bool AreZeros(const uint8_t *bytes, size_t len = kPage) {
  return bytes && std::all_of(bytes, bytes + len, [](uint8_t b) { return !b; });
}

TEST_F(FillTest, ZerosThatTheSourceDidNotWriteAreZerosForWhoWaits) {
  PoisonMemory();
  source_.SetZeros(2 * kPage, 4 * kPage);
  Waiter run, started, mixed;
  Start(&run, 2);
  RunAll();
  source_.AnswerTry(1);
  Start(&started, 3);
  EXPECT_EQ(StartOldest(), SOURCE_DONE);
  Start(&mixed, 1, 2);
  RunAll();
  EXPECT_EQ(run.f.status, 0);
  EXPECT_TRUE(AreZeros(fetch_bytes(&run.f, 2)));
  EXPECT_EQ(started.f.status, 0);
  EXPECT_TRUE(AreZeros(fetch_bytes(&started.f, 3)));
  EXPECT_EQ(fetch_bytes(&started.f, 3), fetch_bytes(&run.f, 2))
      << "nobody clears a buffer";
  EXPECT_TRUE(Correct(fetch_bytes(&mixed.f, 1), 1));
}

TEST_F(FillTest, AFailedFillAnswersEveryWaiterAndLeavesNothingResident) {
  source_.FailReads(EIO);
  Waiter first, second;
  Start(&first, 7);
  Start(&second, 7);
  RunAll();
  EXPECT_EQ(first.f.status, -EIO);
  EXPECT_EQ(second.f.status, -EIO);
  EXPECT_EQ(fetch_bytes(&first.f, 7), nullptr);
  EXPECT_FALSE(IsResident(7));
  EXPECT_EQ(mirror_page_bytes(mirror_), 0u);
}

TEST_F(FillTest, AFailureIsNotRemembered) {
  source_.FailReads(EIO, 1);
  Waiter w;
  Start(&w, 7);
  RunAll();
  EXPECT_EQ(w.f.status, -EIO);
  Load(7);
  EXPECT_TRUE(IsResident(7));
}

TEST_F(FillTest, OneBadPageAmongManyIsAnErrorForThatPageAlone) {
  source_.FailAt(5 * kPage + 100, EIO);
  Waiter all, other;
  Start(&all, 0, 10);
  Start(&other, 6);
  RunAll();
  EXPECT_EQ(all.f.status, -EIO);
  EXPECT_EQ(other.f.status, 0);
  EXPECT_TRUE(Correct(fetch_bytes(&other.f, 6), 6));
  EXPECT_FALSE(IsResident(5));
  EXPECT_TRUE(IsResident(4));
  EXPECT_TRUE(IsResident(6));
}

TEST_F(FillTest, AnAbandonedFillGivesItsErrorToWhoWaits) {
  Waiter w;
  Start(&w, 7);
  fill_abandon(fills_.front(), -ECANCELED);
  fills_.clear();
  EXPECT_EQ(w.n_done, 1);
  EXPECT_EQ(w.f.status, -ECANCELED);
  EXPECT_FALSE(IsResident(7));
}

TEST_F(FillTest, TheBytesOfAFetchOutliveTheirPages) {
  Waiter w;
  Start(&w, 7);
  RunAll();
  ASSERT_EQ(image_invalidate(image_, 0, 100), 0);
  EXPECT_FALSE(IsResident(7));
  EXPECT_TRUE(Correct(fetch_bytes(&w.f, 7), 7));
}

TEST_F(FillTest, AnInvalidationDuringAFillReachesOnlyLaterWaiters) {
  Waiter before, after;
  Start(&before, 7);
  ASSERT_EQ(image_invalidate(image_, 7, 1), 0);
  EXPECT_EQ(Start(&after, 7), FETCH_WAIT);
  EXPECT_EQ(fills_.size(), 1u) << "the page is not absent yet";
  RunAll();
  EXPECT_TRUE(Correct(fetch_bytes(&before.f, 7), 7));
  EXPECT_EQ(after.n_done, 1);
  EXPECT_EQ(after.f.status, 0);
  EXPECT_EQ(fetch_bytes(&after.f, 7), nullptr) << "it has to look again";
  EXPECT_FALSE(IsResident(7)) << "what was read may be stale";
  Load(7);
  EXPECT_EQ(source_.n_reads(), 2);
}

TEST_F(FillTest, InvalidateDropsExactlyTheRange) {
  for (uint64_t page = 0; page < 10; page++)
    Load(page);
  ASSERT_EQ(image_invalidate(image_, 3, 4), 0);
  for (uint64_t page = 0; page < 10; page++)
    EXPECT_EQ(IsResident(page), page < 3 || page >= 7) << page;
  EXPECT_TRUE(image_is_current(image_, mirror_)) << "nothing was pinned";
  EXPECT_EQ(mirror_page_bytes(mirror_), 6 * kPage);
  EXPECT_EQ(image_invalidate(image_, 1000, 5), 0);
  EXPECT_EQ(image_invalidate(image_, 9, UINT64_MAX), 0);
  EXPECT_FALSE(IsResident(9));
}

TEST_F(FillTest, AnInvalidatedPageThatIsPinnedKeepsItsBytesForItsPinOnly) {
  for (uint64_t page = 0; page < 10; page++)
    Load(page);
  ASSERT_TRUE(view_pin_page(&view_, PIN_SLOT_PAGE, 4));
  ASSERT_EQ(image_invalidate(image_, 4, 1), 0);
  EXPECT_TRUE(image_is_current(image_, mirror_));
  for (uint64_t page = 0; page < 10; page++)
    EXPECT_EQ(IsResident(page), page != 4);
  EXPECT_TRUE(Correct(view_page(&view_, 12, 4), 4)) << "the pin holds it";
  int n_reads = source_.n_reads();
  Waiter first, second;
  Start(&first, 3, 3);
  Start(&second, 4);
  EXPECT_EQ(second.f.n_joined, 1u) << "one read for both";
  RunAll();
  EXPECT_EQ(source_.n_reads(), n_reads + 1);
  EXPECT_EQ(first.f.status, 0);
  EXPECT_TRUE(Correct(fetch_bytes(&first.f, 4), 4));
  EXPECT_TRUE(Correct(fetch_bytes(&second.f, 4), 4));
  EXPECT_FALSE(IsResident(4)) << "there is no place for it";
  view_unpin(&view_, PIN_SLOT_PAGE);
}

TEST_F(FillTest, AReadOfAStalePageThatWasInvalidatedAgainIsNotJoined) {
  Load(4);
  ASSERT_TRUE(view_pin_page(&view_, PIN_SLOT_PAGE, 4));
  ASSERT_EQ(image_invalidate(image_, 4, 1), 0);
  Waiter before, after;
  Start(&before, 4);
  ASSERT_EQ(image_invalidate(image_, 4, 1), 0);
  Start(&after, 4);
  EXPECT_EQ(after.f.n_joined, 0u);
  RunAll();
  EXPECT_EQ(before.n_done, 1);
  EXPECT_EQ(after.n_done, 1);
  view_unpin(&view_, PIN_SLOT_PAGE);
}

TEST_F(FillTest, ANewEpochRetiresAllPagesButThoseThatArePinned) {
  for (uint64_t page = 0; page < 10; page++)
    Load(page);
  ASSERT_TRUE(view_pin_page(&view_, PIN_SLOT_PAGE, 4));
  source_.Change(100 * kPage);
  ASSERT_EQ(image_refresh(image_, 0), 0);
  EXPECT_FALSE(image_is_current(image_, mirror_));
  EXPECT_TRUE(mirror_is_retired(mirror_));
  EXPECT_EQ(n_changed_, 1);
  for (uint64_t page = 0; page < 10; page++)
    EXPECT_FALSE(IsResident(page));
  EXPECT_TRUE(Correct(view_page(&view_, 12, 4), 4)) << "the pin holds it";
  EXPECT_EQ(mirror_page_bytes(mirror_), kPage) << "and nothing else is kept";
  mirror *now = image_mirror(image_);
  EXPECT_NE(now->epoch, mirror_->epoch);
  mirror_unref(now);
  view_unpin(&view_, PIN_SLOT_PAGE);
}

TEST_F(FillTest, AnInvalidationIsSeenInAnEpochWhoseEndIsNotSeenYet) {
  Load(7);
  source_.Change(100 * kPage);
  bool was_resident = true;
  on_changed_ = [&] { /* retired, but its states are as they were */
                      ASSERT_EQ(image_invalidate(image_, 7, 1), 0);
                      was_resident = IsResident(7);
  };
  ASSERT_EQ(image_refresh(image_, 0), 0);
  EXPECT_EQ(n_changed_, 1);
  EXPECT_FALSE(was_resident) << "a load that begins after the invalidation";
}

TEST_F(FillTest, AnEpochThatComesTooLateIsDropped) {
  source_.ShutLookGate();
  source_.Change(100 * kPage);
  std::thread late([&] { EXPECT_EQ(image_refresh(image_, 0), 0); });
  source_.AwaitLookAtGate();
  mirror *present = image_mirror(image_);
  ASSERT_EQ(image_set_epoch(image_, 100 * kPage, present->epoch + 100), 0);
  mirror_unref(present);
  source_.OpenLookGate();
  late.join();
  EXPECT_EQ(n_changed_, 1) << "of the one that came in time";
}

TEST_F(FillTest, AChangedSourceGivesTheImageANewEpochBeforeAnybodyWakes) {
  Load(1);
  source_.Change(50 * kPage);
  Waiter w;
  Start(&w, 7);
  RunAll();
  EXPECT_EQ(w.f.status, -ESTALE);
  EXPECT_EQ(n_changed_, 1);
  EXPECT_FALSE(IsResident(1));
  mirror *now = image_mirror(image_);
  EXPECT_EQ(now->size, 50 * kPage);
  Waiter again;
  again.f.runner = &runner_.base;
  image_fetch(&again.f, now, 7, 1);
  RunAll();
  EXPECT_TRUE(Correct(fetch_bytes(&again.f, 7), 7, 2));
  mirror_unref(now);
}

TEST_F(FillTest, AnotherSourceIsAnotherEpochAndTheOldOneIsLetGoOf) {
  Load(1);
  FakeSource other(50 * kPage);
  other.Change(50 * kPage);
  ASSERT_EQ(image_replace(image_, other.Open()), 0);
  EXPECT_EQ(n_changed_, 1);
  EXPECT_FALSE(IsResident(1));
  EXPECT_FALSE(image_is_current(image_, mirror_));
  view_close(&view_);
  mirror_unref(mirror_);
  EXPECT_EQ(source_.n_closed(), 1);
  mirror_ = image_mirror(image_);
  ASSERT_EQ(view_open(&view_, mirror_), 0);
  EXPECT_EQ(mirror_->size, 50 * kPage);
  {
    Waiter w;
    Start(&w, 7);
    RunAll();
    EXPECT_TRUE(Correct(fetch_bytes(&w.f, 7), 7, 2));
  }
  source_.Change(100 * kPage);
  ASSERT_EQ(image_refresh(image_, 0), 0);
  EXPECT_EQ(n_changed_, 1) << "nobody looks at the old one";
  Unmake();
  EXPECT_EQ(other.n_closed(), 1);
  Make(1 << 20);
}

TEST_F(FillTest,
       AnotherSourceTakesItsPlaceAlsoWhenTheMirrorIsRenewedMeanwhile) {
  FakeSource other(50 * kPage);
  other.Change(50 * kPage);
  before_mirror = [this] { mirror_->on_conflict(mirror_); };
  ASSERT_EQ(image_replace(image_, other.Open()), 0);
  EXPECT_EQ(n_changed_, 2);
  mirror *now = image_mirror(image_);
  EXPECT_EQ(now->size, 50 * kPage);
  mirror_unref(now);
  Unmake();
  EXPECT_EQ(source_.n_closed(), 1);
  EXPECT_EQ(other.n_closed(), 1);
  Make(1 << 20);
}

TEST_F(FillTest, AnotherSourceTakesItsPlaceAlsoWhenALookFindsAChangeMeanwhile) {
  FakeSource other(50 * kPage);
  source_.Change(70 * kPage);
  before_mirror = [this] { ASSERT_EQ(image_refresh(image_, 0), 0); };
  ASSERT_EQ(image_replace(image_, other.Open()), 0);
  EXPECT_EQ(n_changed_, 2);
  mirror *now = image_mirror(image_);
  EXPECT_EQ(now->size, 50 * kPage);
  mirror_unref(now);
  Unmake();
  EXPECT_EQ(source_.n_closed(), 2);
  EXPECT_EQ(other.n_closed(), 1);
  Make(1 << 20);
}

TEST_F(FillTest, AnotherSourceTakesThePlaceOfOneInWhichALookHangs) {
  FakeSource other(50 * kPage);
  source_.ShutLookGate();
  source_.Change(70 * kPage);
  std::thread late([&] { EXPECT_EQ(image_refresh(image_, 0), 0); });
  source_.AwaitLookAtGate();
  ASSERT_EQ(image_replace(image_, other.Open()), 0);
  other.Change(60 * kPage);
  ASSERT_EQ(image_refresh(image_, 0), 0) << "looks at this one do not wait";
  EXPECT_EQ(n_changed_, 2);
  source_.OpenLookGate();
  late.join();
  EXPECT_EQ(n_changed_, 2);
  mirror *now = image_mirror(image_);
  EXPECT_EQ(now->size, 60 * kPage);
  mirror_unref(now);
  Unmake();
  EXPECT_EQ(source_.n_closed(), 2) << "what the look found, too";
  EXPECT_EQ(other.n_closed(), 2);
  Make(1 << 20);
}

TEST_F(FillTest, ALookThatFailsTooLateSaysNothingOfTheOtherSource) {
  FakeSource other(50 * kPage);
  source_.ShutLookGate();
  source_.FailReopen(EIO);
  std::thread late([&] { EXPECT_EQ(image_refresh(image_, 0), 0); });
  source_.AwaitLookAtGate();
  ASSERT_EQ(image_replace(image_, other.Open()), 0);
  source_.OpenLookGate();
  late.join();
}

TEST_F(FillTest, WhoeverLooksTheSourceThatCameLastStays) {
  constexpr int kRounds = 200, kLookers = 3;
  std::vector<std::unique_ptr<FakeSource>> others;
  std::atomic<bool> ended{false};
  std::vector<std::thread> lookers;
  on_changed_ = nullptr;
  for (int i = 0; i < kLookers; i++)
    lookers.emplace_back([&] {
      while (!ended)
        EXPECT_EQ(image_refresh(image_, 0), 0);
    });
  for (int i = 0; i < kRounds; i++) {
    others.push_back(std::make_unique<FakeSource>((50 + i) * kPage));
    ASSERT_EQ(image_replace(image_, others.back()->Open()), 0);
    mirror *now = image_mirror(image_);
    EXPECT_EQ(now->size / kPage, uint64_t(50 + i));
    mirror_unref(now);
    others.back()->Change((50 + i) * kPage); // a look that finds something
  }
  ended = true;
  for (std::thread &looker : lookers)
    looker.join();
  Unmake();
  for (auto &other : others)
    EXPECT_LE(other->n_closed(), 1 + kLookers)
        << "those that a look found, too";
  Make(1 << 20);
}

// Whether a thread of this process sleeps.
bool IsAsleep(pid_t tid) {
  std::ifstream file("/proc/self/task/" + std::to_string(tid) + "/stat");
  std::string stat{std::istreambuf_iterator<char>(file), {}};
  size_t name_end = stat.rfind(") ");
  return name_end != std::string::npos && stat[name_end + 2] == 'S';
}

// As the evictor may have it renewed while it is removed.
TEST_F(FillTest, AnImageIsFreedAfterTheCallThatSaysThatItChanged) {
  std::atomic<pid_t> tid{0};
  std::atomic<bool> freed{false};
  std::thread owner;
  on_changed_ = [&] {
    owner = std::thread([&] {
      tid = gettid();
      image_free(image_);
      freed = true;
    });
    while (!freed && !(tid && IsAsleep(tid)))
      std::this_thread::yield();
    EXPECT_FALSE(freed);
  };
  mirror_->on_conflict(mirror_);
  owner.join();
  EXPECT_EQ(n_changed_, 1);
  image_ = nullptr;
}

TEST_F(FillTest, AFetchFromARetiredMirrorIsToldSo) {
  source_.Change(100 * kPage);
  ASSERT_EQ(image_refresh(image_, 0), 0);
  Waiter w;
  EXPECT_EQ(Start(&w, 7), FETCH_READY);
  EXPECT_EQ(w.f.status, -ESTALE);
}

TEST_F(FillTest, AChangedSourceThatCannotBeReopenedIsItsError) {
  source_.Change(50 * kPage);
  source_.FailReopen(EACCES);
  Waiter w;
  Start(&w, 7);
  RunAll();
  EXPECT_EQ(w.f.status, -EACCES);
  EXPECT_TRUE(image_is_current(image_, mirror_));
}

TEST_F(FillTest, AFillBegunInAnOldEpochIsNotInstalled) {
  Waiter w;
  Start(&w, 7);
  source_.Change(100 * kPage);
  ASSERT_EQ(image_refresh(image_, 0), 0);
  RunAll();
  EXPECT_EQ(w.f.status, -ESTALE);
  EXPECT_FALSE(IsResident(7));
  EXPECT_EQ(mirror_page_bytes(mirror_), 0u);
}

TEST_F(FillTest, TheOldSourceIsClosedWithItsLastMirror) {
  source_.Change(100 * kPage);
  ASSERT_EQ(image_refresh(image_, 0), 0);
  EXPECT_EQ(source_.n_closed(), 0) << "we hold the mirror";
  view_close(&view_);
  mirror_unref(mirror_);
  EXPECT_EQ(source_.n_closed(), 1);
  mirror_ = image_mirror(image_);
  ASSERT_EQ(view_open(&view_, mirror_), 0);
}

TEST_F(FillTest, AWaiterOnAnotherThreadIsWoken) {
  Waiter first;
  Start(&first, 7);
  std::thread runner([&] { RunAll(); });
  runner.join();
  EXPECT_EQ(first.n_done, 1);
}

TEST_F(FillTest, AStartBringsThePagesIfNothingHasToWait) {
  source_.AnswerTry(1);
  Waiter w;
  Start(&w, 7, 3);
  EXPECT_EQ(StartOldest(), SOURCE_DONE);
  EXPECT_EQ(w.n_done, 1);
  EXPECT_TRUE(IsResident(9));
  EXPECT_TRUE(Correct(fetch_bytes(&w.f, 8), 8));
}

TEST_F(FillTest, AStartThatWouldHaveToWaitChangesNothing) {
  Waiter w;
  Start(&w, 7);
  EXPECT_EQ(StartOldest(), SOURCE_RETRY);
  EXPECT_EQ(w.n_done, 0);
  EXPECT_EQ(source_.n_reads(), 0);
  RunAll();
  EXPECT_EQ(w.f.status, 0);
  EXPECT_TRUE(IsResident(7));
}

TEST_F(FillTest, AStartThatFailsIsLeftToARead) {
  source_.AnswerTry(1);
  source_.FailReads(EIO, 1);
  Waiter w;
  Start(&w, 7);
  EXPECT_EQ(StartOldest(), SOURCE_BLOCKS);
  EXPECT_EQ(mirror_page_bytes(mirror_), 0u);
  RunAll();
  EXPECT_EQ(w.f.status, 0);
}

TEST_F(FillTest, AStartThatFindsANewVersionIsLeftToAThreadThatMayWait) {
  source_.AnswerTry(1);
  source_.Change(50 * kPage);
  Waiter w;
  Start(&w, 7);
  EXPECT_EQ(StartOldest(), SOURCE_BLOCKS);
  EXPECT_EQ(n_changed_, 0);
  RunAll();
  EXPECT_EQ(w.f.status, -ESTALE);
  EXPECT_EQ(n_changed_, 1);
  EXPECT_EQ(source_.n_reads(), 1) << "that was known already";
}

TEST_F(FillTest, AStartEvictsNothingAndWhatItReadIsNotReadAgain) {
  Unmake();
  Make(256 << 10);
  uint64_t page = 0;
  for (; page < 100 && IsResident(0) == (page > 0); page++)
    Load(page); // until one had to go
  ASSERT_LT(page, 100u) << "all of them fit";
  int n_reads = source_.n_reads();
  uint64_t bytes = mirror_page_bytes(mirror_);
  source_.AnswerTry(1);
  Waiter w;
  Start(&w, 64, 16);
  EXPECT_EQ(StartOldest(), SOURCE_BLOCKS);
  EXPECT_EQ(mirror_page_bytes(mirror_), bytes);
  RunAll();
  EXPECT_EQ(source_.n_reads(), n_reads + 1);
  EXPECT_EQ(w.f.status, 0);
  EXPECT_TRUE(IsResident(79));
}

// A source that calls back.
class CallBackTest : public FillTest {
protected:
  CallBackTest() : FillTest(FakeReads::kCallBack) {
    runner_.base.arrived = [](fill_runner *r, fill *fill) {
      static_cast<CallBackTest *>(reinterpret_cast<Runner *>(r)->test)
          ->arrived_.Push(fill);
    };
  }

  // Fills whose read has ended, from whatever thread.
  class Arrived {
  public:
    void Push(fill *fill) {
      std::lock_guard<std::mutex> lock(mutex_);
      fills_.push_back(fill);
      came_.notify_one();
    }
    fill *Await() {
      std::unique_lock<std::mutex> lock(mutex_);
      came_.wait(lock, [this] { return !fills_.empty(); });
      fill *first = fills_.front();
      fills_.pop_front();
      return first;
    }

  private:
    std::mutex mutex_;
    std::condition_variable came_;
    std::deque<fill *> fills_;
  } arrived_;
};

TEST_F(CallBackTest, AReadThatArrivedEndsWithoutAWait) {
  Waiter w;
  Start(&w, 7, 3);
  source_.ShutGate();
  EXPECT_EQ(StartOldest(), SOURCE_PENDING);
  source_.AwaitReadsAtGate(1);
  EXPECT_EQ(w.n_done, 0);
  EXPECT_FALSE(IsResident(7));
  source_.OpenGate();
  EXPECT_TRUE(fill_try_end(arrived_.Await()));
  EXPECT_EQ(w.n_done, 1);
  EXPECT_EQ(w.f.status, 0);
  EXPECT_TRUE(IsResident(9));
  EXPECT_TRUE(Correct(fetch_bytes(&w.f, 8), 8));
}

TEST_F(CallBackTest, ReadsOfOneFetchAreUnderWayTogether) {
  Load(10);
  Waiter w;
  Start(&w, 5, 10);
  source_.ShutGate();
  EXPECT_EQ(StartOldest(), SOURCE_PENDING);
  EXPECT_EQ(StartOldest(), SOURCE_PENDING);
  source_.AwaitReadsAtGate(2);
  source_.OpenGate();
  EXPECT_TRUE(fill_try_end(arrived_.Await()));
  EXPECT_EQ(w.n_done, 0);
  EXPECT_TRUE(fill_try_end(arrived_.Await()));
  EXPECT_EQ(w.n_done, 1);
  EXPECT_TRUE(IsResident(5));
  EXPECT_TRUE(IsResident(14));
}

// ---- A read that a ring could not make -------------------------------------

struct UnreadSource {
  source base{};
  source_ops ops{};
  source_read *pending = nullptr;
  int n_reads = 0;

  UnreadSource() {
    ops.kind = "unread";
    ops.start = [](source *src, source_read *r) {
      reinterpret_cast<UnreadSource *>(src)->pending = r;
      return SOURCE_PENDING;
    };
    ops.read = [](source *src, uint64_t, void *buf, size_t len) {
      reinterpret_cast<UnreadSource *>(src)->n_reads++;
      memset(buf, 'u', len);
      return 0;
    };
    ops.close = [](source *) {};
    base.ops = &ops;
    base.size = 100 * kPage;
  }
};

TEST_F(CallBackTest, AReadThatItsRingCouldNotMakeIsMadeByAThreadThatWaits) {
  UnreadSource unread;
  image *other = nullptr;
  image_ops ops{};
  ops.needs_pages = true;
  ASSERT_EQ(image_new(cache_, "unread", &unread.base, 12, &ops, &other), 0);
  mirror *m = image_mirror(other);
  auto *ring = reinterpret_cast<struct ring *>(this); // nobody looks at it
  runner_.base.ring = ring;
  {
    Waiter w;
    w.f.runner = &runner_.base;
    ASSERT_EQ(image_fetch(&w.f, m, 7, 2), FETCH_WAIT);
    ASSERT_EQ(StartOldest(), SOURCE_PENDING);
    EXPECT_EQ(unread.pending->ring, ring);
    unread.pending->status = SOURCE_UNREAD;
    unread.pending->done(unread.pending);
    fill *fill = arrived_.Await();
    EXPECT_FALSE(fill_try_end(fill));
    EXPECT_EQ(w.n_done, 0);
    image_run_fill(fill);
    EXPECT_EQ(w.n_done, 1);
    EXPECT_EQ(w.f.status, 0);
    EXPECT_EQ(unread.n_reads, 1);
    EXPECT_EQ(*fetch_bytes(&w.f, 8), uint8_t('u'));
  }
  mirror_unref(m);
  image_free(other);
}

// ---- Blocks: a miss reads more than was asked for --------------------------

class BlockTest : public FillTest {
protected:
  void SetUp() override {
    FillTest::SetUp();
    mirror_->source->fetch_size.least = 8 * kPage;
  }

  // The pages that are resident.
  std::vector<uint64_t> Resident() {
    std::vector<uint64_t> pages;
    for (uint64_t page = 0; page < 100; page++)
      if (IsResident(page))
        pages.push_back(page);
    return pages;
  }
};

TEST_F(BlockTest, AMissReadsTheBlockThatItLiesIn) {
  Waiter w;
  ASSERT_EQ(Start(&w, 10), FETCH_WAIT);
  RunAll();
  EXPECT_EQ(w.f.status, 0);
  EXPECT_EQ(w.f.n_missed, 1u) << "it asked for one";
  EXPECT_EQ(source_.n_reads(), 1);
  EXPECT_EQ(Resident(), (std::vector<uint64_t>{8, 9, 10, 11, 12, 13, 14, 15}));
}

TEST_F(BlockTest, MissesOfABlockAreOneRead) {
  Waiter first, before, behind;
  Start(&first, 12);
  EXPECT_EQ(Start(&before, 8), FETCH_WAIT);
  EXPECT_EQ(Start(&behind, 13, 3), FETCH_WAIT);
  EXPECT_EQ(fills_.size(), 1u);
  RunAll();
  EXPECT_EQ(before.f.n_joined, 1u);
  EXPECT_EQ(behind.f.n_joined, 3u);
  EXPECT_EQ(before.n_done + behind.n_done, 2);
  EXPECT_EQ(source_.n_reads(), 1);
  std::vector<uint8_t> page8 = FakeSource::Bytes(8 * kPage, kPage);
  EXPECT_EQ(memcmp(fetch_bytes(&before.f, 8), page8.data(), kPage), 0);
}

TEST_F(BlockTest, PagesThatAreThereAndWhatIsBehindThemAreLeftOut) {
  mirror_->source->fetch_size.least = 0;
  for (uint64_t page : {9, 13}) {
    Waiter w;
    Start(&w, page);
    RunAll();
  }
  mirror_->source->fetch_size.least = 8 * kPage;
  Waiter w;
  Start(&w, 11);
  RunAll();
  EXPECT_EQ(Resident(), (std::vector<uint64_t>{9, 10, 11, 12, 13}));
}

TEST_F(BlockTest, ARunReadsAllBlocksThatItTouchesAndTheLastOneIsShort) {
  Waiter w;
  Start(&w, 94, 3);
  RunAll();
  EXPECT_EQ(source_.n_reads(), 1);
  EXPECT_EQ(Resident(), (std::vector<uint64_t>{88, 89, 90, 91, 92, 93, 94, 95,
                                               96, 97, 98, 99}));
}

TEST_F(BlockTest, AFillMayHaveMorePagesThanAFetch) {
  Unmake();
  Make(8 << 20);
  Waiter w;
  mirror_->source->fetch_size.least = 1 << 20;
  Start(&w, 70);
  RunAll();
  EXPECT_EQ(source_.n_reads(), 1);
  EXPECT_EQ(Resident().size(), 100u) << "all there are";
}

TEST_F(BlockTest, ABlockIsASmallPartOfTheCache) {
  Unmake();
  Make(16 * kPage);
  mirror_->source->fetch_size.least = 8 * kPage;
  Waiter w;
  Start(&w, 11);
  RunAll();
  EXPECT_EQ(source_.n_bytes(), 2 * kPage);
}

TEST_F(BlockTest, AnErrorOfAPageThatNobodyAskedForIsNobodys) {
  source_.FailAt(14 * kPage, EIO);
  Waiter w;
  Start(&w, 10);
  RunAll();
  EXPECT_EQ(w.f.status, 0);
  EXPECT_TRUE(IsResident(10));
  EXPECT_TRUE(IsResident(15));
  EXPECT_FALSE(IsResident(14));
}

TEST_F(BlockTest, ASuccessorHasBlocksToo) {
  source_.Change(50 * kPage);
  ASSERT_EQ(image_refresh(image_, 0), 0);
  mirror *next = image_mirror(image_);
  EXPECT_NE(next, mirror_);
  EXPECT_EQ(next->source->fetch_size.least, 8 * kPage);
  mirror_unref(next);
}

TEST_F(CallBackTest, ALongOneIsWrittenByAThreadThatMayTakeItsTime) {
  Unmake();
  Make(8 << 20);
  mirror_->source->fetch_size.least = 512 << 10;
  Waiter w;
  Start(&w, 7);
  EXPECT_EQ(StartOldest(), SOURCE_PENDING);
  fill *fill = arrived_.Await();
  EXPECT_FALSE(fill_try_end(fill));
  EXPECT_EQ(w.n_done, 0);
  image_run_fill(fill);
  EXPECT_EQ(w.f.status, 0);
  EXPECT_TRUE(IsResident(99));
  EXPECT_EQ(source_.n_reads(), 1);
}

TEST_F(CallBackTest, ABadPageIsAnErrorForItAlone) {
  source_.FailAt(8 * kPage, EIO);
  Waiter w, good;
  Start(&w, 7, 3);
  EXPECT_EQ(StartOldest(), SOURCE_PENDING);
  fill *fill = arrived_.Await();
  EXPECT_FALSE(fill_try_end(fill));
  EXPECT_EQ(w.n_done, 0);
  image_run_fill(fill);
  EXPECT_EQ(w.f.status, -EIO);
  EXPECT_TRUE(IsResident(7));
  EXPECT_FALSE(IsResident(8));
  EXPECT_TRUE(IsResident(9));
}

// Each page would be waited for anew.
TEST_F(CallBackTest, ASourceThatDoesNotAnswerIsNotAskedPageByPage) {
  source_.FailReads(ETIMEDOUT);
  Waiter w;
  Start(&w, 7, 3);
  EXPECT_EQ(StartOldest(), SOURCE_PENDING);
  fill *fill = arrived_.Await();
  EXPECT_FALSE(fill_try_end(fill));
  image_run_fill(fill);
  EXPECT_EQ(w.f.status, -ETIMEDOUT);
  EXPECT_EQ(source_.n_reads(), 1);
  EXPECT_EQ(fetch_first_bad(&w.f), 7u);
}

TEST_F(CallBackTest, ASourceThatIsGoneHalfwayIsNotAskedForTheOtherPages) {
  source_.FailAt(7 * kPage, EIO);
  source_.FailAt(8 * kPage, ETIMEDOUT);
  Waiter w, good;
  Start(&w, 6, 4);
  EXPECT_EQ(StartOldest(), SOURCE_PENDING);
  fill *fill = arrived_.Await();
  image_run_fill(fill);
  EXPECT_EQ(source_.n_reads(), 5)
      << "all; the first half, and its pages; the second half";
  EXPECT_TRUE(IsResident(6));
  EXPECT_FALSE(IsResident(9));
  EXPECT_EQ(fetch_first_bad(&w.f), 7u);
}

TEST_F(CallBackTest, AChangeGivesANewEpochBeforeAnybodyWakes) {
  Waiter w;
  Start(&w, 7);
  source_.Change(50 * kPage);
  EXPECT_EQ(StartOldest(), SOURCE_PENDING);
  fill *fill = arrived_.Await();
  EXPECT_FALSE(fill_try_end(fill));
  image_run_fill(fill);
  EXPECT_EQ(w.f.status, -ESTALE);
  EXPECT_EQ(n_changed_, 1);
}

TEST_F(CallBackTest, WhatArrivedMayBeAbandoned) {
  Waiter w;
  Start(&w, 7);
  source_.FailReads(EIO, 1);
  EXPECT_EQ(StartOldest(), SOURCE_PENDING);
  fill *fill = arrived_.Await();
  EXPECT_FALSE(fill_try_end(fill));
  fill_abandon(fill, -ECANCELED);
  EXPECT_EQ(w.f.status, -ECANCELED);
  EXPECT_FALSE(IsResident(7));
}

// Without a runner the fetch reads on the calling thread, whatever the source.
class InProcessTest : public testing::TestWithParam<FakeReads> {
protected:
  InProcessTest() {
    page_cache_options options = {1 << 20, false, nullptr};
    image_ops ops{};
    EXPECT_EQ(page_cache_new(&options, &cache_), 0);
    EXPECT_EQ(image_new(cache_, "fake", source_.Open(), 12, &ops, &image_), 0);
  }
  ~InProcessTest() override {
    image_free(image_);
    page_cache_free(cache_);
    EXPECT_EQ(source_.n_closed(), n_epochs_);
  }

  // Fetches pages, which nobody else does.
  void Fetch(Waiter *w, uint64_t first, uint32_t count) {
    mirror *m = image_mirror(image_);
    EXPECT_EQ(image_fetch(&w->f, m, first, count), FETCH_READY);
    EXPECT_EQ(w->n_done, 0);
    mirror_unref(m);
  }

  static bool Correct(const Waiter &w, uint64_t page, uint64_t version = 1) {
    const uint8_t *bytes = fetch_bytes(&w.f, page);
    auto expected = FakeSource::Bytes(page * kPage, kPage, version);
    return bytes && memcmp(bytes, expected.data(), kPage) == 0;
  }

  FakeSource source_{100 * kPage, GetParam()};
  page_cache *cache_ = nullptr;
  image *image_ = nullptr;
  int n_epochs_ = 1;
};

TEST_P(InProcessTest, AFetchRunsItsOwnFills) {
  Waiter w;
  Fetch(&w, 20, 30);
  EXPECT_EQ(w.f.status, 0);
  EXPECT_EQ(source_.n_reads(), 1);
  EXPECT_TRUE(Correct(w, 20));
  EXPECT_TRUE(Correct(w, 49));
}

TEST_P(InProcessTest, ABadPageIsAnErrorForItAlone) {
  source_.FailAt(21 * kPage, EIO);
  Waiter w, good;
  Fetch(&w, 20, 3);
  EXPECT_EQ(w.f.status, -EIO);
  EXPECT_EQ(fetch_first_bad(&w.f), 21u);
  EXPECT_TRUE(Correct(w, 20));
  EXPECT_TRUE(Correct(w, 22));
}

TEST_P(InProcessTest, AChangeIsNoticed) {
  Waiter before, between, after;
  Fetch(&before, 20, 3);
  source_.Change(100 * kPage);
  Fetch(&between, 50, 3);
  EXPECT_EQ(between.f.status, -ESTALE);
  Fetch(&after, 20, 3);
  EXPECT_EQ(after.f.status, 0);
  EXPECT_TRUE(Correct(after, 20, 2));
  n_epochs_ = 2;
}

TEST_P(InProcessTest, ThreadsReadAtTheSameTime) {
  source_.ShutGate();
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < 4; i++)
    threads.emplace_back([this, i] {
      Waiter w;
      Fetch(&w, i * 20, 5);
      EXPECT_TRUE(Correct(w, i * 20 + 4));
    });
  source_.AwaitReadsAtGate(4);
  source_.OpenGate();
  for (std::thread &thread : threads)
    thread.join();
}

INSTANTIATE_TEST_SUITE_P(Reads, InProcessTest,
                         testing::Values(FakeReads::kEither, FakeReads::kBlock,
                                         FakeReads::kCallBack),
                         [](const auto &test) {
                           return std::string(FakeReadsName(test.param));
                         });

// Forty pages, of which the sixth and the last are there, and of which the
// twentieth was invalidated meanwhile: a group that cannot come in whole comes
// in page by page.
TEST(FillInProcess, ARunThatTheCallerBringsIsInstalledButForWhatMayNotBe) {
  page_cache_options options = {1 << 20, false, nullptr};
  page_cache *cache;
  image *image;
  ASSERT_EQ(page_cache_new(&options, &cache), 0);
  ASSERT_EQ(image_new_remote(cache, "far", 40 * kPage - 9, 12, 99, &image), 0);
  mirror *m = image_mirror(image);
  auto bytes = FakeSource::Bytes(0, 40 * kPage);
  uint64_t mark = mirror_mark(m);
  image_install(m, 5, 1, bytes.data() + 5 * kPage, mark);
  image_install(m, 39, 1, bytes.data() + 39 * kPage, mark);
  ASSERT_EQ(image_invalidate(image, 19, 1), 0);
  image_install(m, 0, 40, bytes.data(), mark);
  image_install(m, 0, 41, bytes.data(), mark); // reaches past the end: nothing
  view v{};
  ASSERT_EQ(view_open(&v, m), 0);
  for (uint64_t page = 0; page < 40; page++) {
    EXPECT_EQ(view_is_resident(&v, page), page != 19) << page;
    bool same = !memcmp(v.base + page * kPage, bytes.data() + page * kPage,
                        mirror_page_len(m, page));
    EXPECT_TRUE(same || page == 19) << page;
  }
  view_close(&v);
  mirror_unref(m);
  image_free(image);
  page_cache_free(cache);
}

TEST(FillInProcess, WhenTheCacheIsSmallTheFirstPagesOfARunStay) {
  page_cache_options options = {30 * kPage, false, nullptr};
  page_cache *cache;
  image *image;
  ASSERT_EQ(page_cache_new(&options, &cache), 0);
  ASSERT_EQ(image_new_remote(cache, "far", 64 * kPage, 12, 99, &image), 0);
  mirror *m = image_mirror(image);
  auto bytes = FakeSource::Bytes(0, 64 * kPage);
  image_install(m, 0, 64, bytes.data(), mirror_mark(m));
  EXPECT_EQ(page_state_look(&m->states[0]), PAGE_RESIDENT);
  EXPECT_EQ(page_state_look(&m->states[63]), PAGE_ABSENT);
  mirror_unref(m);
  image_free(image);
  page_cache_free(cache);
}

TEST(FillInProcess, BytesThatTheCallerBringsAreInstalledUnlessStale) {
  page_cache_options options = {1 << 20, false, nullptr};
  page_cache *cache;
  image *image;
  ASSERT_EQ(page_cache_new(&options, &cache), 0);
  ASSERT_EQ(image_new_remote(cache, "far", 10 * kPage + 5, 12, 99, &image), 0);
  mirror *m = image_mirror(image);
  EXPECT_EQ(m->epoch, 99u);
  auto bytes = FakeSource::Bytes(3 * kPage, kPage);
  uint64_t mark = mirror_mark(m);
  auto install = [&](uint64_t page, uint64_t asked_at) {
    image_install(m, page, 1, bytes.data(), asked_at);
    return page_state_look(&m->states[page]) == PAGE_RESIDENT;
  };
  EXPECT_TRUE(install(3, mark));
  view v{};
  ASSERT_EQ(view_open(&v, m), 0);
  EXPECT_EQ(memcmp(v.base + 3 * kPage, bytes.data(), kPage), 0);
  view_close(&v);
  EXPECT_TRUE(install(3, mark)) << "it is there already";
  EXPECT_TRUE(install(10, mark));
  image_install(m, 11, 1, bytes.data(), mark); /* there is no such page */
  ASSERT_EQ(image_invalidate(image, 5, 1), 0);
  EXPECT_FALSE(install(5, mark)) << "asked for before the invalidation";
  EXPECT_TRUE(install(6, mark)) << "of another page";
  EXPECT_TRUE(install(5, mirror_mark(m)));
  ASSERT_EQ(image_set_epoch(image, 5 * kPage, 100), 0);
  EXPECT_FALSE(install(7, mirror_mark(m))) << "into a mirror that is retired";
  mirror_unref(m);
  image_free(image);
  page_cache_free(cache);
}

} // namespace

#include "cache/fetch.h"
#include "cache/image.h"
#include "cache/page_cache.h"
#include "cache/shared_pins.h"

#include <gtest/gtest.h>

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "cache/check.h"
#include "cache/view.h"
#include "tests/cache/fetch.h"
#include "tests/support/fake_source.h"

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPages = 16384;

class LeaseTest : public testing::Test {
protected:
  void SetUp() override {
    page_cache_options options = {kBudget, true, nullptr};
    ASSERT_EQ(page_cache_new(&options, &cache_), 0);
    image_ops ops{};
    ASSERT_EQ(image_new(cache_, "fake", source_.Open(), 12, &ops, &image_), 0);
    mirror_ = image_mirror(image_);
  }
  void TearDown() override {
    check_cache(cache_);
    for (shared_pins *l : leases_)
      shared_pins_free(l);
    check_cache(cache_);
    mirror_unref(mirror_);
    image_free(image_);
    page_cache_free(cache_);
  }

  // A lease of `most`, or of as much as there is; NULL: there is no share.
  shared_pins *Give(uint32_t user, shared_pins_size most,
                    shared_pins *replaced = nullptr, mirror *m = nullptr) {
    shared_pins *l = nullptr;
    EXPECT_EQ(shared_pins_new(m ? m : mirror_, &l), 0);
    int r = shared_pins_give(l, user, shared_pins_least(), most, replaced);
    EXPECT_TRUE(r == 0 || r == -EDQUOT);
    if (r == 0)
      return leases_.emplace_back(l);
    shared_pins_free(l);
    return nullptr;
  }
  shared_pins *New() { return Give(1, {PIN_MAX_PAGE_SLOTS, 16}); }

  void Free(shared_pins *l) {
    leases_.erase(std::find(leases_.begin(), leases_.end(), l));
    shared_pins_free(l);
  }

  static uint64_t Pages(const shared_pins *l) {
    shared_pins_size size = shared_pins_get_size(l);
    return size.page_slots + uint64_t(size.range_capacity) * PIN_N_RANGE_SLOTS;
  }

  // How many pages a user gets that takes as many as it can.
  uint64_t TakeAll(uint32_t user, shared_pins_size most) {
    uint64_t pages = 0;
    while (shared_pins *l = Give(user, most))
      pages += Pages(l);
    return pages;
  }

  void Load(uint64_t first, uint32_t count = 1) {
    ASSERT_EQ(Fetch(mirror_, first, count), 0);
  }

  // The client's side of a lease: its table, mapped again.
  pin_page *Map(shared_pins *l) {
    pin_page *page = nullptr;
    EXPECT_EQ(shared_pins_map(shared_pins_take_fd(l),
                              shared_pins_get_size(l).range_capacity, &page),
              0);
    return page;
  }

  bool IsResident(uint64_t page) {
    return page_state_look(&mirror_->states[page]) == PAGE_RESIDENT;
  }

  static constexpr uint64_t kBudget = 8192 * kPage;
  FakeSource source_{kPages * kPage};
  page_cache *cache_ = nullptr;
  image *image_ = nullptr;
  mirror *mirror_ = nullptr;
  std::vector<shared_pins *> leases_;
};

TEST_F(LeaseTest, PinsInItHoldPagesAgainstEviction) {
  pin_page *page = Map(New());
  Load(7);
  __atomic_store_n(&page->slots[PIN_SLOT_PAGE], pin_word(7, 1),
                   __ATOMIC_RELEASE);
  for (uint64_t p = 100; p < kPages; p += 16)
    Load(p, p + 16 <= kPages ? 16 : 1);
  EXPECT_TRUE(IsResident(7));
  shared_pins_unmap(page);
}

TEST_F(LeaseTest, WordsBeyondTheirCapacityHoldNothing) {
  shared_pins *l = New();
  pin_page *page = Map(l);
  Load(0, 64);
  for (unsigned i = 0; i < PIN_N_SLOTS; i++)
    page->slots[i] =
        i < PIN_SLOT_RANGE
            ? pin_word(0, 2)
            : pin_word(0, shared_pins_get_size(l).range_capacity + 1);
  ASSERT_EQ(image_invalidate(image_, 0, 64), 0);
  EXPECT_TRUE(image_is_current(image_, mirror_));
  shared_pins_unmap(page);
}

TEST_F(LeaseTest, SlotsBeyondItsSizeHoldNothing) {
  shared_pins *l = Give(1, {5, 2});
  pin_page *page = Map(l);
  Load(0, 64);
  for (unsigned i = 5; i < PIN_SLOT_RANGE; i++)
    page->slots[i] = pin_word(i, 1);
  page->slots[PIN_SLOT_RANGE] = pin_word(5, 3);
  ASSERT_EQ(image_invalidate(image_, 0, 64), 0);
  EXPECT_TRUE(image_is_current(image_, mirror_));
  for (unsigned i = 0; i < 64; i++)
    EXPECT_EQ(page_state_look(&mirror_->states[i]), PAGE_ABSENT);
  shared_pins_unmap(page);
}

// ---- Shares -----------------------------------------------------------------

TEST_F(LeaseTest, OneLeaseIsAnEighthAndAllTogetherAreHalf) {
  uint64_t sum = 0;
  for (uint32_t user = 1; user <= 6; user++) {
    uint64_t pages = TakeAll(user, {PIN_MAX_PAGE_SLOTS, PIN_MAX_COUNT});
    EXPECT_GT(pages, 0u) << "no user takes the last share: " << user;
    sum += pages;
  }
  for (shared_pins *l : leases_)
    EXPECT_LE(Pages(l) * kPage, kBudget / 8);
  EXPECT_LE(sum * kPage, kBudget / 2);
}

TEST_F(LeaseTest, AUserTakesNoMoreThanHeLeavesToOthers) {
  uint64_t half = kBudget / kPage / 2;
  uint64_t first = TakeAll(1, shared_pins_least());
  EXPECT_LE(first, half / 2);
  EXPECT_GT(first, half / 2 - half / 8);
  EXPECT_GT(TakeAll(2, shared_pins_least()),
            (half - first) / 2 - (half - first) / 8);
}

TEST_F(LeaseTest, AShareThatIsGivenBackIsThereAgain) {
  TakeAll(1, shared_pins_least());
  Free(leases_.back());
  EXPECT_NE(Give(1, shared_pins_least()), nullptr);
}

TEST_F(LeaseTest, ItGrowsByWhatIsAskedForAndHoldsAsMuch) {
  shared_pins *l = Give(1, shared_pins_least());
  EXPECT_EQ(Pages(l), 8u);
  pin_page *page = Map(l);
  shared_pins_grow(l, {20, 10});
  EXPECT_EQ(shared_pins_get_size(l).page_slots, 20u);
  EXPECT_EQ(shared_pins_get_size(l).range_capacity, 10u);
  shared_pins_grow(l, {3, 1});
  EXPECT_EQ(shared_pins_get_size(l).page_slots, 20u) << "it never shrinks";
  Load(0, 64);
  page->slots[19] = pin_word(3, 1);
  page->slots[PIN_SLOT_RANGE] = pin_word(40, 10);
  for (uint64_t p = 100; p < kPages; p += 16)
    Load(p, p + 16 <= kPages ? 16 : 1);
  EXPECT_TRUE(IsResident(3));
  for (uint64_t p = 40; p < 50; p++)
    EXPECT_TRUE(IsResident(p));
  shared_pins_unmap(page);
}

TEST_F(LeaseTest, GrowingLeavesRoomForNewOnes) {
  shared_pins *first = Give(1, shared_pins_least());
  for (int i = 0; i < 100; i++)
    shared_pins_grow(first, {PIN_MAX_PAGE_SLOTS, PIN_MAX_COUNT});
  EXPECT_LE(Pages(first) * kPage, kBudget / 8);
  // It has three sixteenths of the half by now, and these get four.
  uint64_t new_ones = TakeAll(1, shared_pins_least());
  EXPECT_GE(new_ones, kBudget / kPage / 2 / 16 * 4 - 8);
}

TEST_F(LeaseTest, AThousandOfOneUserShare256MiB) {
  page_cache_options options = {256 << 20, false, nullptr};
  page_cache *cache;
  image *image;
  image_ops ops{};
  ASSERT_EQ(page_cache_new(&options, &cache), 0);
  ASSERT_EQ(image_new(cache, "fake", source_.Open(), 12, &ops, &image), 0);
  mirror *m = image_mirror(image);
  for (int i = 0; i < 1000; i++) {
    shared_pins *l = Give(1, shared_pins_least(), nullptr, m);
    ASSERT_NE(l, nullptr) << i;
    shared_pins_grow(l,
                     {PIN_MAX_PAGE_SLOTS, 64}); // the others want to share, too
  }
  EXPECT_NE(Give(2, shared_pins_least(), nullptr, m), nullptr);
  while (!leases_.empty())
    Free(leases_.back());
  mirror_unref(m);
  image_free(image);
  page_cache_free(cache);
}

TEST_F(LeaseTest, ACacheThatIsTooSmallGivesNone) {
  page_cache_options options = {60 * kPage, false, nullptr};
  page_cache *small;
  image *image;
  image_ops ops{};
  ASSERT_EQ(page_cache_new(&options, &small), 0);
  ASSERT_EQ(image_new(small, "fake", source_.Open(), 12, &ops, &image), 0);
  mirror *m = image_mirror(image);
  EXPECT_EQ(Give(1, shared_pins_least(), nullptr, m), nullptr);
  mirror_unref(m);
  image_free(image);
  page_cache_free(small);
}

TEST_F(LeaseTest, NobodyEvictsForATable) {
  page_cache_options options = {64 * kPage, false, nullptr};
  page_cache *full;
  image *image;
  image_ops ops{};
  ASSERT_EQ(page_cache_new(&options, &full), 0);
  ASSERT_EQ(image_new(full, "fake", source_.Open(), 12, &ops, &image), 0);
  mirror *m = image_mirror(image);
  page_cache_stats stats;
  for (uint64_t page = 0; page < 128; page++) {
    fetch f{};
    ASSERT_EQ(image_fetch(&f, m, page, 1), FETCH_READY);
    fetch_fini(&f);
  }
  page_cache_get_stats(full, &stats);
  uint64_t n_evicted = stats.n_evicted_pages;
  std::vector<shared_pins *> leases;
  int r = 0;
  for (int i = 0; i < 64 && r == 0; i++) {
    shared_pins *l = nullptr;
    r = shared_pins_new(m, &l);
    if (r == 0)
      leases.push_back(l);
  }
  EXPECT_EQ(r, -EAGAIN);
  page_cache_get_stats(full, &stats);
  EXPECT_EQ(stats.n_evicted_pages, n_evicted);
  for (shared_pins *l : leases)
    shared_pins_free(l);
  mirror_unref(m);
  image_free(image);
  page_cache_free(full);
}

// ---- Replacing --------------------------------------------------------------

class ReplaceTest : public LeaseTest {
protected:
  // Pins in as many of its slots as count.
  static uint64_t PinAll(shared_pins *l, pin_page *page, uint64_t first) {
    shared_pins_size size = shared_pins_get_size(l);
    for (unsigned i = 0; i < size.page_slots; i++)
      page->slots[i] = pin_word(first + i, 1);
    for (unsigned i = 0; i < PIN_N_RANGE_SLOTS; i++)
      page->slots[PIN_SLOT_RANGE + i] = pin_word(first, size.range_capacity);
    return Pages(l);
  }
  void Churn() {
    for (uint64_t p = 1000; p < kPages; p += 16)
      Load(p, p + 16 <= kPages ? 16 : 1);
  }
};

TEST_F(ReplaceTest, TheShareGoesToTheNewOneAlsoIfNoneIsLeft) {
  TakeAll(1, shared_pins_least());
  for (int epoch = 0; epoch < 5; epoch++)
    for (shared_pins *old : std::vector<shared_pins *>(leases_)) {
      shared_pins *l = Give(1, shared_pins_get_size(old), old);
      ASSERT_NE(l, nullptr);
      EXPECT_EQ(Pages(l), 8u);
      EXPECT_TRUE(shared_pins_collect(old)) << "nothing is pinned there";
      Free(old);
    }
  EXPECT_EQ(Give(1, shared_pins_least()), nullptr);
}

TEST_F(ReplaceTest, PinsStandUntilTheyAreClearedAndNoNewOneCounts) {
  shared_pins *old = New();
  pin_page *page = Map(old);
  Load(0, 32);
  page->slots[3] = pin_word(3, 1);
  page->slots[PIN_SLOT_RANGE] = pin_word(8, 4);
  shared_pins *l = Give(1, shared_pins_least(), old);
  ASSERT_NE(l, nullptr);
  page->slots[4] = pin_word(20, 1);
  page->slots[PIN_SLOT_RANGE + 1] = pin_word(24, 1);
  Churn();
  EXPECT_TRUE(IsResident(3));
  EXPECT_TRUE(IsResident(11));
  EXPECT_FALSE(IsResident(20));
  EXPECT_FALSE(IsResident(24));
  EXPECT_FALSE(shared_pins_collect(old));
  page->slots[PIN_SLOT_RANGE] = 0;
  EXPECT_FALSE(shared_pins_collect(old));
  page->slots[PIN_SLOT_RANGE] = pin_word(8, 4); // too late
  // What was found pinned once has another turn in the main queue.
  for (int i = 0; i < 10 && IsResident(11); i++)
    Churn();
  EXPECT_TRUE(IsResident(3));
  EXPECT_FALSE(IsResident(11));
  page->slots[3] = page->slots[4] = 0;
  EXPECT_TRUE(shared_pins_collect(old));
  shared_pins_unmap(page);
}

TEST_F(ReplaceTest, WhatStaysPinnedIsCountedUntilItIsNot) {
  shared_pins *old = Give(1, {PIN_MAX_PAGE_SLOTS, 16});
  pin_page *page = Map(old);
  PinAll(old, page, 0);
  uint64_t pinned = Pages(old);
  ASSERT_NE(Give(1, shared_pins_get_size(old), old), nullptr);
  uint64_t with = TakeAll(1, shared_pins_least());
  while (leases_.size() > 1)
    Free(leases_.back());
  memset(page->slots, 0, sizeof page->slots);
  EXPECT_TRUE(shared_pins_collect(old));
  uint64_t without = TakeAll(1, shared_pins_least());
  EXPECT_GE(without, with + pinned);
  shared_pins_unmap(page);
}

TEST_F(ReplaceTest, EpochAfterEpochPinnedInFullIsStillWithinTheShare) {
  uint64_t pinned = 0;
  std::vector<pin_page *> pages;
  shared_pins *last = New();
  for (int epoch = 0; last; epoch++) {
    ASSERT_LT(epoch, 10000);
    pages.push_back(Map(last));
    pinned += PinAll(last, pages.back(), 0);
    last = Give(1, {PIN_MAX_PAGE_SLOTS, PIN_MAX_COUNT}, last);
  }
  EXPECT_LE(pinned, kBudget / kPage / 4) << "half of the half";
  EXPECT_NE(Give(2, shared_pins_least()), nullptr);
  for (pin_page *page : pages)
    shared_pins_unmap(page);
}

TEST_F(ReplaceTest, NobodyElsesLeaseAndNoneTwice) {
  shared_pins *theirs = Give(2, shared_pins_least()),
              *old = Give(1, shared_pins_least());
  pin_page *page = Map(theirs), *old_page = Map(old);
  Load(0, 8);
  ASSERT_NE(Give(1, shared_pins_least(), theirs), nullptr);
  page->slots[0] = pin_word(0, 1); // it still counts
  ASSERT_NE(Give(1, shared_pins_least(), old), nullptr);
  ASSERT_NE(Give(1, shared_pins_least(), old), nullptr);
  Churn();
  EXPECT_TRUE(IsResident(0));
  shared_pins_unmap(page);
  shared_pins_unmap(old_page);
}

// ---- What is given ----------------------------------------------------------

TEST_F(LeaseTest, TheClientSaysWhenItIsDone) {
  shared_pins *l = New();
  pin_page *page = Map(l);
  EXPECT_FALSE(shared_pins_collect(l));
  shared_pins_unmap(page);
  EXPECT_TRUE(shared_pins_collect(l));
}

TEST_F(LeaseTest, WhatIsNoTableIsRefused) {
  pin_page *page = nullptr;
  shared_pins *l = New();
  EXPECT_EQ(shared_pins_map(shared_pins_take_fd(l),
                            shared_pins_get_size(l).range_capacity + 1, &page),
            -EPROTO);
  EXPECT_EQ(shared_pins_map(dup(0), 1, &page), -EPROTO);
  int unsealed = memfd_create("t", MFD_ALLOW_SEALING);
  ASSERT_EQ(ftruncate(unsealed, PIN_PAGE_LEN), 0);
  EXPECT_EQ(shared_pins_map(unsealed, 1, &page), -EPROTO) << "it can be cut";
}

TEST_F(LeaseTest, ABorrowedMirrorShowsWhatIsThere) {
  Load(9);
  mirror_fds fds;
  ASSERT_EQ(mirror_lend(mirror_, &fds), 0);
  EXPECT_EQ(mmap(nullptr, kPage, PROT_WRITE, MAP_SHARED, fds.pages, 0),
            MAP_FAILED);
  EXPECT_EQ(mmap(nullptr, kPage, PROT_WRITE, MAP_SHARED, fds.states, 0),
            MAP_FAILED);
  mirror *m = nullptr;
  ASSERT_EQ(mirror_borrow(&fds, mirror_->size, 12, mirror_->epoch, &m), 0);
  EXPECT_EQ(page_state_look(&m->states[9]), PAGE_RESIDENT);
  EXPECT_EQ(page_state_look(&m->states[8]), PAGE_ABSENT);
  EXPECT_EQ(memcmp(m->base + 9 * kPage,
                   FakeSource::Bytes(9 * kPage, kPage).data(), kPage),
            0);
  uint8_t copy[100];
  ASSERT_TRUE(mirror_copy(m, 9 * kPage + 7, copy, sizeof copy));
  EXPECT_EQ(memcmp(copy, FakeSource::Bytes(9 * kPage + 7, sizeof copy).data(),
                   sizeof copy),
            0);
  EXPECT_FALSE(mirror_copy(m, mirror_->size, copy, sizeof copy));
  mirror_free(m);
}

TEST_F(LeaseTest, ABorrowedMirrorThatIsNotWhatItSaysIsRefused) {
  mirror *m = nullptr;
  mirror_fds fds;
  ASSERT_EQ(mirror_lend(mirror_, &fds), 0);
  EXPECT_EQ(mirror_borrow(&fds, mirror_->size + kPage, 12, mirror_->epoch, &m),
            -EPROTO);
  ASSERT_EQ(mirror_lend(mirror_, &fds), 0);
  EXPECT_EQ(mirror_borrow(&fds, mirror_->size, 12, mirror_->epoch + 1, &m),
            -EPROTO);
  EXPECT_EQ(m, nullptr);
}

// An access behind the end of memory that was cut short is a SIGBUS.
TEST_F(LeaseTest, ABorrowedMirrorThatCanBeCutShortIsRefused) {
  for (int mirror_fds::*member :
       {&mirror_fds::pages, &mirror_fds::states, &mirror_fds::accessed}) {
    mirror *m = nullptr;
    mirror_fds fds;
    struct stat st;
    ASSERT_EQ(mirror_lend(mirror_, &fds), 0);
    ASSERT_EQ(fstat(fds.*member, &st), 0);
    close(fds.*member);
    fds.*member = memfd_create("t", MFD_ALLOW_SEALING);
    ASSERT_EQ(ftruncate(fds.*member, st.st_size), 0);
    EXPECT_EQ(mirror_borrow(&fds, mirror_->size, 12, mirror_->epoch, &m),
              -EPROTO);
    EXPECT_EQ(m, nullptr);
  }
}

// A process that reads holes makes them take memory; the reclaimer takes it
// back.
TEST_F(LeaseTest, TheReclaimerPunchesWhatNobodyAccountedFor) {
  mirror_fds fds;
  mirror *m = nullptr;
  ASSERT_EQ(mirror_lend(mirror_, &fds), 0);
  ASSERT_EQ(mirror_borrow(&fds, mirror_->size, 12, mirror_->epoch, &m), 0);
  Load(3);
  volatile uint8_t sum = 0;
  for (uint64_t page = 0; page < kPages; page++)
    sum = sum + m->base[page * kPage];
  while (mirror_page_bytes(mirror_) > kPage)
    usleep(1000); // a condition that has to come true
  EXPECT_TRUE(IsResident(3));
  EXPECT_EQ(memcmp(m->base + 3 * kPage,
                   FakeSource::Bytes(3 * kPage, kPage).data(), kPage),
            0);
  Load(0, 64);
  EXPECT_EQ(
      memcmp(m->base, FakeSource::Bytes(0, 64 * kPage).data(), 64 * kPage), 0)
      << "a fill writes into holes";
  mirror_free(m);
}

TEST_F(LeaseTest, TheReclaimerFreesARetiredMirrorWhenItsPinsEnd) {
  pin_page *page = Map(New());
  Load(7);
  Load(20, 8);
  page->slots[PIN_SLOT_CURSOR] = pin_word(7, 1);
  page->slots[PIN_SLOT_RANGE] = pin_word(20, 8);
  view v{};
  ASSERT_EQ(view_open(&v, mirror_), 0); // which has its pages mapped
  source_.Change(kPages * kPage);
  ASSERT_EQ(image_refresh(image_, 0), 0);
  EXPECT_TRUE(mirror_is_retired(mirror_));
  while (mirror_page_bytes(mirror_) > 9 * kPage)
    usleep(1000);
  page->slots[PIN_SLOT_RANGE] = 0;
  while (mirror_page_bytes(mirror_) > kPage)
    usleep(1000);
  EXPECT_EQ(memcmp(v.base + 7 * kPage,
                   FakeSource::Bytes(7 * kPage, kPage).data(), kPage),
            0);
  page->slots[PIN_SLOT_CURSOR] = 0;
  while (mirror_page_bytes(mirror_) > 0)
    usleep(1000);
  view_close(&v);
  shared_pins_unmap(page);
}

// Looking at a large image makes its states take memory; that is given back.
TEST(Reclaimer, WordsOfALargeImageStayWithinTheBudget) {
  if (mirror_is_overcommit_strict())
    GTEST_SKIP() << "states have memory from the start where the kernel "
                    "overcommits strictly";
  FakeSource source(1ull << 36);
  page_cache_options options = {1024 * kPage, true, nullptr};
  page_cache *cache;
  image *image;
  image_ops ops{};
  ASSERT_EQ(page_cache_new(&options, &cache), 0);
  ASSERT_EQ(image_new(cache, "large", source.Open(), 12, &ops, &image), 0);
  mirror *m = image_mirror(image);
  for (uint64_t page = 0; page < m->n_pages; page += 4096)
    ASSERT_EQ(Fetch(m, page), 0);
  // While there is room for nothing but what is swept just now, a page is read
  // without a place for it.
  do
    ASSERT_EQ(Fetch(m, 77), 0);
  while (page_state_look(&m->states[77]) != PAGE_RESIDENT);
  while (page_cache_allocated(cache) > 1024 * kPage)
    usleep(1000);
  mirror_unref(m);
  image_free(image);
  page_cache_free(cache);
}

} // namespace

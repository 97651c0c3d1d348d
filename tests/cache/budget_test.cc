// A budget that is set while the cache is in use, with the evictor's thread.
#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "cache/check.h"
#include "cache/image.h"
#include "cache/page_cache.h"
#include "cache/shared_pins.h"
#include "cache/view.h"
#include "tests/cache/fetch.h"
#include "tests/support/fake_source.h"

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPages = 4096; // half the image

class BudgetTest : public testing::Test {
protected:
  void SetUp() override {
    page_cache_options options = {256 * kPage, true, nullptr};
    ASSERT_EQ(page_cache_new(&options, &cache_), 0);
    image_ops ops{};
    ASSERT_EQ(image_new(cache_, "fake", source_.Open(), 12, &ops, &image_), 0);
    mirror_ = image_mirror(image_);
    ASSERT_EQ(view_open(&view_, mirror_), 0);
  }

  void TearDown() override {
    check_cache(cache_);
    for (unsigned i = 0; i < PIN_N_SLOTS; i++)
      view_unpin(&view_, i);
    view_close(&view_);
    mirror_unref(mirror_);
    image_free(image_);
    page_cache_free(cache_);
  }

  void Load(uint64_t first, uint64_t count) {
    for (uint64_t page = first; page < first + count; page++)
      ASSERT_EQ(Fetch(mirror_, page), 0);
  }

  // Of a page that is pinned.
  bool IsRight(uint64_t page) {
    return memcmp(view_page(&view_, 12, page),
                  FakeSource::Bytes(page * kPage, kPage).data(), kPage) == 0;
  }

  // How many of the pages are resident, each of which has the right bytes.
  uint64_t Resident(uint64_t first, uint64_t count) {
    uint64_t n = 0;
    for (uint64_t page = first; page < first + count; page++) {
      if (view_pin_page(&view_, PIN_SLOT_CURSOR, page)) {
        EXPECT_TRUE(IsRight(page)) << page;
        n++;
      }
      view_unpin(&view_, PIN_SLOT_CURSOR);
    }
    return n;
  }

  page_cache_stats Stats() {
    page_cache_stats stats;
    page_cache_get_stats(cache_, &stats);
    return stats;
  }

  void SetBudget(uint64_t pages) {
    ASSERT_EQ(page_cache_set_budget(cache_, pages * kPage), 0);
    EXPECT_EQ(Stats().budget, pages * kPage);
  }

  // Looks again and again, but leaves the lock to the evictor in between.
  template <typename Condition> static void Await(Condition condition) {
    while (!condition())
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  void AwaitUsed(uint64_t pages) {
    Await([&] { return Stats().used <= pages * kPage; });
  }

  FakeSource source_{2 * kPages * kPage};
  page_cache *cache_ = nullptr;
  image *image_ = nullptr;
  mirror *mirror_ = nullptr;
  view view_{};
};

TEST_F(BudgetTest, ASmallerOneTakesTheCacheDownWithoutAnyMiss) {
  Load(0, 200);
  ASSERT_GT(Resident(0, 200), 150u);
  SetBudget(64);
  AwaitUsed(64);
  EXPECT_LE(page_cache_allocated(cache_), 64 * kPage);
  EXPECT_GT(Resident(0, 200), 32u) << "and no further";
  Load(1000, 1000);
  EXPECT_LE(Stats().used, 64 * kPage);
}

TEST_F(BudgetTest, ALargerOneIsThereAtOnce) {
  SetBudget(16);
  Load(0, 100);
  AwaitUsed(16);
  SetBudget(kPages);
  Load(100, 3000);
  EXPECT_EQ(Resident(100, 3000), 3000u);
}

TEST_F(BudgetTest, StatesThatHoldNothingNeverKeepAPageOut) {
  Load(kPages, 1); // its states are a block of their own
  ASSERT_EQ(image_invalidate(image_, kPages, 1), 0);
  const uint64_t limit = (256 - 256 / 16) * kPage;
  // The evictor begins when less than four pages are free, and two of those
  // that are in use here are the states that hold nothing.
  for (uint64_t page = 0; limit - Stats().used > 4 * kPage; page++)
    Load(page, 1);
  ASSERT_EQ(Stats().n_evicted_pages, 1u) << "the one that was invalidated";
  ASSERT_EQ(Fetch(mirror_, 1000, 5), 0);
  EXPECT_EQ(Resident(1000, 5), 5u);
  EXPECT_EQ(Stats().n_uncached_pages, 0u);
}

TEST_F(BudgetTest, WhatIsPinnedStaysUntilItIsNot) {
  constexpr unsigned kPinned = PIN_N_PAGE_SLOTS;
  Load(0, 200);
  for (unsigned i = 0; i < kPinned; i++) {
    Load(i, 1);
    ASSERT_TRUE(view_pin_page(&view_, PIN_SLOT_PAGE + i, i));
  }
  SetBudget(kPinned / 2);
  // All that is not pinned goes.
  Await([&] { return Resident(kPinned, 200 - kPinned) == 0; });
  for (unsigned i = 0; i < kPinned; i++)
    EXPECT_TRUE(IsRight(i)) << i;
  EXPECT_GT(Stats().used, kPinned * kPage);
  for (unsigned i = 0; i < kPinned; i++)
    view_unpin(&view_, PIN_SLOT_PAGE + i);
  // Nobody tells: the evictor looks again by itself.
  AwaitUsed(kPinned / 2);
}

TEST_F(BudgetTest, WhatIsOverIsNotUsedForNewPages) {
  constexpr unsigned kPinned = PIN_N_PAGE_SLOTS;
  for (unsigned i = 0; i < kPinned; i++) {
    Load(i, 1);
    ASSERT_TRUE(view_pin_page(&view_, PIN_SLOT_PAGE + i, i));
  }
  SetBudget(kPinned / 2);
  for (uint64_t page = 1000; page < 1100; page++) {
    fetch f{};
    f.done = [](fetch *) { FAIL() << "nobody else fills"; };
    ASSERT_EQ(image_fetch(&f, mirror_, page, 1), FETCH_READY);
    ASSERT_EQ(f.status, 0);
    const uint8_t *bytes = fetch_bytes(&f, page);
    ASSERT_TRUE(bytes) << "it is read all the same";
    EXPECT_EQ(
        memcmp(bytes, FakeSource::Bytes(page * kPage, kPage).data(), kPage), 0);
    fetch_fini(&f);
  }
  EXPECT_EQ(Resident(1000, 100), 0u);
}

TEST_F(BudgetTest, AnImageCanHaveANewEpochWhileItIsOver) {
  for (unsigned i = 0; i < PIN_N_PAGE_SLOTS; i++) {
    Load(i, 1);
    ASSERT_TRUE(view_pin_page(&view_, PIN_SLOT_PAGE + i, i));
  }
  SetBudget(8);
  source_.Change(kPages * kPage);
  ASSERT_EQ(image_refresh(image_, 0), 0);
  EXPECT_FALSE(image_is_current(image_, mirror_));
}

TEST_F(BudgetTest, SharesThatWereGivenStayAndNoMoreAreGivenMeanwhile) {
  // A share for the pins of one user after the other, until there is no more.
  struct Free {
    void operator()(shared_pins *l) const { shared_pins_free(l); }
  };
  std::vector<std::unique_ptr<shared_pins, Free>> leases;
  shared_pins_size size = {8, 1};
  auto give = [&](uint32_t user) {
    shared_pins *l = nullptr;
    int r = shared_pins_new(mirror_, &l);
    if (r == 0) {
      leases.emplace_back(l);
      r = shared_pins_give(l, user, size, size, nullptr);
    }
    return r;
  };
  ASSERT_EQ(give(1), 0);
  ASSERT_EQ(give(2), 0);
  SetBudget(32);
  EXPECT_EQ(give(3), -EDQUOT);
  shared_pins_grow(leases[0].get(), {16, 2});
  EXPECT_EQ(shared_pins_get_size(leases[0].get()).page_slots, 8u);
  SetBudget(512);
  EXPECT_EQ(give(4), 0);
  shared_pins_grow(leases[0].get(), {16, 2});
  EXPECT_GT(shared_pins_get_size(leases[0].get()).page_slots, 8u);
}

} // namespace

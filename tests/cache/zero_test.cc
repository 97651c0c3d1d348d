// Pages that the source says are zeros: they take no memory, push nothing out,
// and are forgotten by whatever makes a page go.
#include <gtest/gtest.h>

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <memory>

#include "cache/check.h"
#include "cache/image.h"
#include "cache/page_cache.h"
#include "cache/states.h"
#include "cache/view.h"
#include "tests/cache/fetch.h"
#include "tests/support/fake_source.h"

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kBlock = STATES_PER_BLOCK;
constexpr uint64_t kPages = 40 * kBlock;
constexpr uint64_t kZeros = 100; // from here on all are zeros

void Await(const std::function<bool()> &is) {
  while (!is())
    usleep(1000);
}

class ZeroTest : public testing::Test {
protected:
  void Make(uint64_t budget, bool threads = false, unsigned page_shift = 12) {
    page_cache_options options = {budget, threads, nullptr};
    ASSERT_EQ(page_cache_new(&options, &cache_), 0);
    image_ops ops{};
    ops.needs_pages = true;
    source_.SetZeros(kZeros * kPage, kPages * kPage);
    ASSERT_EQ(
        image_new(cache_, "fake", source_.Open(), page_shift, &ops, &image_),
        0);
    mirror_ = image_mirror(image_);
  }

  void TearDown() override {
    check_cache(cache_);
    mirror_unref(mirror_);
    image_free(image_);
    Await([&] { return Stats().used == 0; });
    EXPECT_EQ(Stats().n_zero_pages, 0u);
    page_cache_free(cache_);
  }

  page_cache_stats Stats() {
    page_cache_stats stats;
    page_cache_get_stats(cache_, &stats);
    return stats;
  }

  page_state State(uint64_t page) {
    return page_state_look(&mirror_->states[page]);
  }

  FakeSource source_{kPages * kPage};
  page_cache *cache_ = nullptr;
  image *image_ = nullptr;
  mirror *mirror_ = nullptr;
};

TEST_F(ZeroTest, AFillOfZerosStoresNothingAndIsKnown) {
  Make(1 << 20);
  ASSERT_EQ(Fetch(mirror_, 0), 0);
  uint64_t used = Stats().used;
  ASSERT_EQ(Fetch(mirror_, 200, 64), 0);
  EXPECT_EQ(State(200), PAGE_ZERO);
  EXPECT_EQ(State(263), PAGE_ZERO);
  EXPECT_EQ(State(264), PAGE_ABSENT);
  EXPECT_EQ(mirror_page_bytes(mirror_), kPage);
  EXPECT_EQ(Stats().used, used) << "their states are in a block that is there";
  EXPECT_EQ(Stats().n_zero_pages, 64u);
  EXPECT_EQ(Stats().n_filled_pages, 1u);
  ASSERT_EQ(Fetch(mirror_, 210, 10), 0);
  EXPECT_EQ(source_.n_reads(), 2) << "the source is not asked again";
}

TEST_F(ZeroTest, ARunThatIsZerosInPartIsStored) {
  Make(1 << 20);
  ASSERT_EQ(Fetch(mirror_, kZeros - 2, 4), 0);
  for (uint64_t page = kZeros - 2; page < kZeros + 2; page++)
    EXPECT_EQ(State(page), PAGE_RESIDENT) << page;
}

TEST_F(ZeroTest, OfAnImageThatHasZerosARunIsStoredWhereItIsNot) {
  Make(1 << 20);
  ASSERT_EQ(Fetch(mirror_, 200), 0);
  uint64_t used = Stats().used;
  ASSERT_EQ(Fetch(mirror_, kZeros - 2, 4), 0);
  for (uint64_t page = kZeros - 2; page < kZeros + 2; page++)
    EXPECT_EQ(State(page), page < kZeros ? PAGE_RESIDENT : PAGE_ZERO) << page;
  EXPECT_EQ(mirror_page_bytes(mirror_), 2 * kPage);
  EXPECT_EQ(Stats().used, used + 2 * kPage);
  source_.SetZeros(kZeros * kPage + 1, kPages * kPage); // but for one byte
  ASSERT_EQ(image_invalidate(image_, kZeros, 2), 0);
  ASSERT_EQ(Fetch(mirror_, kZeros, 2), 0);
  EXPECT_EQ(State(kZeros), PAGE_RESIDENT);
  EXPECT_EQ(State(kZeros + 1), PAGE_ZERO);
}

TEST_F(ZeroTest, OfAnImageThatHasZerosALongPageOfZerosIsFoundAlone) {
  constexpr uint64_t kLong = 1 << PAGE_SHIFT_MAX;
  Make(16 << 20, false, PAGE_SHIFT_MAX);
  ASSERT_EQ(Fetch(mirror_, 2), 0); // its source says so
  EXPECT_EQ(State(2), PAGE_ZERO);
  source_.SetZeros(5 * kLong, 7 * kLong - 1);
  source_.HideZeros();
  ASSERT_EQ(Fetch(mirror_, 5), 0);
  EXPECT_EQ(State(5), PAGE_ZERO);
  EXPECT_EQ(mirror_page_bytes(mirror_), 0u);
  ASSERT_EQ(Fetch(mirror_, 6), 0);
  EXPECT_EQ(State(6), PAGE_RESIDENT) << "its last byte is not";
}

// Page by page, as after an error.
TEST_F(ZeroTest, BesideABadPageTheGoodOnesAreWhatTheyAre) {
  Make(1 << 20);
  source_.FailAt(kZeros * kPage, EIO);
  EXPECT_EQ(Fetch(mirror_, kZeros - 1, 3), -EIO);
  EXPECT_EQ(State(kZeros - 1), PAGE_RESIDENT);
  EXPECT_EQ(State(kZeros), PAGE_ABSENT);
  EXPECT_EQ(State(kZeros + 1), PAGE_ZERO);
  EXPECT_EQ(mirror_page_bytes(mirror_), kPage);
}

TEST_F(ZeroTest, TheyPushOutNoPage) {
  Make(128 * kPage);
  ASSERT_EQ(Fetch(mirror_, 0, 50), 0);
  for (uint64_t page = kZeros; page < 3 * kBlock; page += 16)
    ASSERT_EQ(Fetch(mirror_, page, 16), 0);
  for (uint64_t page = 0; page < 50; page++)
    EXPECT_EQ(State(page), PAGE_RESIDENT) << page;
  EXPECT_EQ(Stats().n_evicted_pages, 0u);
}

TEST_F(ZeroTest, TheyAreKnownAlsoWhereThereIsNoRoomForAPage) {
  Make(128 * kPage);
  view v;
  ASSERT_EQ(view_open(&v, mirror_), 0);
  for (uint64_t page = 0; page < PIN_N_PAGE_SLOTS; page++)
    view_pin(&v, PIN_SLOT_PAGE + unsigned(page), page, 1);
  for (unsigned i = 0; i < PIN_N_RANGE_SLOTS; i++)
    view_pin(&v, PIN_SLOT_RANGE + i, 64 + 4 * i, 4);
  for (uint64_t page = 0; page < 80; page++)
    ASSERT_EQ(Fetch(mirror_, page), 0);
  ASSERT_EQ(page_cache_set_budget(cache_, 80 * kPage), 0);
  ASSERT_EQ(Fetch(mirror_, 90), 0);
  ASSERT_EQ(State(90), PAGE_ABSENT) << "it has no room";
  ASSERT_EQ(Fetch(mirror_, kZeros, 20), 0);
  EXPECT_EQ(State(kZeros), PAGE_ZERO);
  for (unsigned slot = 0; slot < PIN_N_SLOTS; slot++)
    view_unpin(&v, slot);
  view_close(&v);
}

TEST_F(ZeroTest, AnInvalidationForgetsThem) {
  Make(1 << 20);
  ASSERT_EQ(Fetch(mirror_, 200, 8), 0);
  source_.SetZeros(0, 0);
  ASSERT_EQ(image_invalidate(image_, 203, 2), 0);
  EXPECT_EQ(State(202), PAGE_ZERO);
  EXPECT_EQ(State(203), PAGE_ABSENT);
  EXPECT_EQ(State(204), PAGE_ABSENT);
  EXPECT_EQ(Stats().n_zero_pages, 6u);
  ASSERT_EQ(Fetch(mirror_, 203), 0);
  EXPECT_EQ(State(203), PAGE_RESIDENT);
}

// Also what it is asked for while it is told to: nothing marks a page yet that
// comes in then.
TEST_F(ZeroTest, AnInvalidationHasTheSourceForgetThem) {
  Make(1 << 20);
  ASSERT_EQ(Fetch(mirror_, 200, 8), 0);
  source_.RememberZeros([&] {
    ASSERT_EQ(Fetch(mirror_, 300), 0);
    EXPECT_EQ(State(300), PAGE_ZERO) << "it has not forgotten yet";
  });
  source_.SetZeros(0, 0);
  ASSERT_EQ(image_invalidate(image_, 203, 200), 0);
  EXPECT_EQ(source_.n_forgotten(), 1);
  for (uint64_t page : {203, 300}) {
    ASSERT_EQ(Fetch(mirror_, page), 0);
    EXPECT_EQ(State(page), PAGE_RESIDENT) << page;
  }
}

// Of a block that holds nothing else, too, and though somebody pins them.
TEST_F(ZeroTest, AnInvalidationForgetsThemInABlockOfTheirOwn) {
  Make(1 << 20);
  view v;
  ASSERT_EQ(view_open(&v, mirror_), 0);
  view_pin(&v, PIN_SLOT_CURSOR, 2 * kBlock, 1);
  ASSERT_EQ(Fetch(mirror_, 2 * kBlock, 8), 0);
  ASSERT_EQ(image_invalidate(image_, 0, kPages), 0);
  EXPECT_EQ(State(2 * kBlock), PAGE_ABSENT);
  EXPECT_EQ(Stats().n_zero_pages, 0u);
  view_unpin(&v, PIN_SLOT_CURSOR);
  view_close(&v);
}

TEST_F(ZeroTest, AnEpochThatIsOverHasNone) {
  Make(1 << 20);
  ASSERT_EQ(Fetch(mirror_, 200, 8), 0);
  ASSERT_EQ(Fetch(mirror_, 2 * kBlock, 8), 0);
  source_.Change(kPages * kPage);
  ASSERT_EQ(image_refresh(image_, 0), 0);
  EXPECT_EQ(State(200), PAGE_ABSENT);
  EXPECT_EQ(State(2 * kBlock), PAGE_ABSENT);
  EXPECT_EQ(Stats().n_zero_pages, 0u);
}

TEST_F(ZeroTest, ASweepForgetsThoseOfABlockThatHoldsNothingElse) {
  Make(1 << 20);
  ASSERT_EQ(Fetch(mirror_, 0), 0);
  ASSERT_EQ(Fetch(mirror_, 200, 8), 0);
  uint64_t used = Stats().used;
  ASSERT_EQ(Fetch(mirror_, 2 * kBlock, 8), 0);
  EXPECT_EQ(Stats().used, used + STATE_BLOCK_LEN);
  while (states_sweep(mirror_))
    ;
  EXPECT_EQ(State(200), PAGE_ZERO);
  EXPECT_EQ(State(2 * kBlock), PAGE_ABSENT);
  EXPECT_EQ(Stats().used, used);
  EXPECT_EQ(Stats().n_zero_pages, 8u);
  ASSERT_EQ(Fetch(mirror_, 2 * kBlock, 8), 0);
  EXPECT_EQ(State(2 * kBlock), PAGE_ZERO);
}

// Nobody sweeps but the misses themselves.
TEST_F(ZeroTest, WhatIsKnownOfThemMakesRoomForPages) {
  Make(64 * kPage);
  for (uint64_t i = 1; i < 40; i++)
    ASSERT_EQ(Fetch(mirror_, i * kBlock), 0);
  for (uint64_t page = 0; page < 50; page++)
    ASSERT_EQ(Fetch(mirror_, page), 0);
  EXPECT_EQ(State(49), PAGE_RESIDENT);
  EXPECT_EQ(Stats().n_evicted_pages, 0u);
  EXPECT_LE(Stats().used, 64 * kPage);
}

// However many there are, what is known of them is a small part of the cache.
TEST_F(ZeroTest, WhatIsKnownOfThemIsBounded) {
  constexpr uint64_t kBudget = 64 * 64 * kPage; // a 64th: 32 blocks
  Make(kBudget, true);
  for (uint64_t i = 1; i < 40; i++)
    ASSERT_EQ(Fetch(mirror_, i * kBlock), 0);
  Await([&] { return Stats().n_zero_pages <= 32; });
}

// Pages that another process makes of the holes are in no account.
TEST_F(ZeroTest, AHoleThatWasReadIsPunched) {
  Make(1 << 20, true);
  ASSERT_EQ(Fetch(mirror_, 0), 0);
  ASSERT_EQ(Fetch(mirror_, 200, 8), 0);
  mirror_fds fds;
  mirror *mapped = nullptr;
  ASSERT_EQ(mirror_lend(mirror_, &fds), 0);
  ASSERT_EQ(mirror_borrow(&fds, mirror_->size, 12, mirror_->epoch, &mapped), 0);
  for (uint64_t page = 200; page < 208; page++)
    EXPECT_EQ(*(volatile const uint8_t *)(mapped->base + page * kPage), 0);
  Await([&] { return mirror_page_bytes(mirror_) == kPage; });
  EXPECT_EQ(State(0), PAGE_RESIDENT);
  // A fetch may only have waited for the punch.
  while (State(200) != PAGE_ZERO)
    ASSERT_EQ(Fetch(mirror_, 200, 8), 0);
  mirror_free(mapped);
}

} // namespace

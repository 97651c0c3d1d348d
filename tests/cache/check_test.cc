// The invariants of a cache: the check is quiet where they are true, and each
// of them ends the process where it is not.
#include "cache/check.h"

#include <gtest/gtest.h>

#include <functional>

#include "cache/fill.h"
#include "cache/fill_table.h"
#include "cache/image.h"
#include "cache/internal.h"
#include "cache/page_cache.h"
#include "cache/shared_pins.h"
#include "cache/states.h"
#include "cache/view.h"
#include "tests/cache/fetch.h"
#include "tests/support/fake_source.h"

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPages = 3 * STATES_PER_BLOCK;
constexpr uint64_t kZeros = 2 * STATES_PER_BLOCK; // from here on

// A source that reads when it is told to: its fill is in flight until then.
struct Runner {
  fill_runner base{};
  fill *begun = nullptr;

  Runner() {
    base.run = [](fill_runner *r, fill *f) {
      reinterpret_cast<Runner *>(r)->begun = f;
    };
  }
};

// No threads: what follows is broken in a child, which has this one alone.
class CheckTest : public testing::Test {
protected:
  void SetUp() override {
    page_cache_options options = {256 * kPage, false, nullptr};
    ASSERT_EQ(page_cache_new(&options, &cache_), 0);
    image_ops ops{};
    ops.needs_pages = true;
    source_.SetZeros(kZeros * kPage, kPages * kPage);
    ASSERT_EQ(image_new(cache_, "fake", source_.Open(), 12, &ops, &image_), 0);
    mirror_ = image_mirror(image_);
    ASSERT_EQ(Fetch(mirror_, 0, 8), 0);
    ASSERT_EQ(Fetch(mirror_, STATES_PER_BLOCK, 4), 0);
    ASSERT_EQ(Fetch(mirror_, kZeros, 4), 0);
    ASSERT_EQ(view_open(&view_, mirror_), 0);
  }

  void TearDown() override {
    check_cache_idle(cache_);
    view_close(&view_);
    mirror_unref(mirror_);
    image_free(image_);
    page_cache_free(cache_);
  }

  // Begins a fill that is in flight until End().
  void Begin(uint64_t page) {
    fetch_.done = [](fetch *) {};
    fetch_.runner = &runner_.base;
    ASSERT_EQ(image_fetch(&fetch_, mirror_, page, 2), FETCH_WAIT);
    ASSERT_NE(runner_.begun, nullptr);
  }
  void End() {
    image_run_fill(runner_.begun);
    fetch_fini(&fetch_);
  }

  // Of page 100.
  void Move(page_state from, page_state to) {
    pthread_mutex_lock(&cache_->lock);
    ASSERT_TRUE(states_charge_locked(mirror_, 100, 1));
    ASSERT_TRUE(states_move_locked(mirror_, 100, from, to));
    pthread_mutex_unlock(&cache_->lock);
  }

  void ExpectDeath(const std::function<void()> &break_it, const char *said) {
    check_cache(cache_);
    EXPECT_DEATH(
        {
          break_it();
          check_cache(cache_);
        },
        said);
  }

  // The same of what lies in memory that the child shares.
  template <class T>
  void ExpectDeathAt(T *at, const std::function<void()> &break_it,
                     const char *said) {
    T before = *at;
    ExpectDeath(break_it, said);
    *at = before;
  }

  FakeSource source_{kPages * kPage};
  page_cache *cache_ = nullptr;
  image *image_ = nullptr;
  mirror *mirror_ = nullptr;
  view view_{};
  Runner runner_;
  fetch fetch_{};
};

using CheckDeathTest = CheckTest;

TEST_F(CheckTest, AllThatACacheDoesLeavesItTrue) {
  check_cache_idle(cache_);
  for (uint64_t page = 0; page < 2 * STATES_PER_BLOCK; page += 16) {
    ASSERT_EQ(Fetch(mirror_, page, 16), 0); // evicts
    check_cache_idle(cache_);
  }
  Begin(kZeros + 8);
  check_cache(cache_);
  ASSERT_EQ(image_invalidate(image_, 0, kPages), 0);
  check_cache(cache_);
  End();
  check_cache_idle(cache_);
  image_renew(image_);
  check_cache_idle(cache_);
}

TEST_F(CheckTest, AStalePageIsInItsMirrorsRuns) {
  ASSERT_TRUE(view_pin_page(&view_, PIN_SLOT_CURSOR, 3));
  ASSERT_EQ(image_invalidate(image_, 0, 8), 0);
  ASSERT_EQ(page_state_look(&mirror_->states[3]), PAGE_STALE);
  check_cache_idle(cache_);
  EXPECT_DEATH(
      {
        mirror_->n_stale = 0;
        check_cache(cache_);
      },
      "count_stale_locked"); // C3
  view_unpin(&view_, PIN_SLOT_CURSOR);
}

TEST_F(CheckDeathTest, APageThatIsResidentIsInThePolicy) {
  ExpectDeath(
      [&] { s3fifo_remove(&cache_->policy, s3fifo_key(mirror_->id, 1)); },
      "s3fifo_has"); // C1
}

TEST_F(CheckDeathTest, APageInThePolicyIsResident) {
  ExpectDeath(
      [&] { s3fifo_insert(&cache_->policy, s3fifo_key(mirror_->id, 100)); },
      "n_resident"); // C1
}

TEST_F(CheckDeathTest, AKeyIsInOneQueueOnce) {
  s3fifo *p = &cache_->policy;
  s3fifo_take_in(p);
  EXPECT_DEATH(
      {
        s3fifo_insert(p, p->entries[p->newest[S3FIFO_SMALL]].key);
        s3fifo_check(p);
      },
      "S3FIFO_GHOST"); // P1
  EXPECT_DEATH(
      {
        p->entries[p->newest[S3FIFO_SMALL]].key =
            p->entries[p->oldest[S3FIFO_SMALL]].key;
        s3fifo_check(p);
      },
      "find"); // P1
  ExpectDeath([&] { p->len[S3FIFO_SMALL]++; }, "len");
  ExpectDeath([&] { p->n_indexed++; }, "n_indexed");
  ExpectDeath([&] { p->n_touched++; }, "n_touched");
}

TEST_F(CheckDeathTest, TheWindowOfThePolicyHasItsShareAtMost) {
  s3fifo *p = &cache_->policy;
  EXPECT_DEATH(
      {
        for (uint64_t page = 100; page < 130; page++)
          s3fifo_insert(p, s3fifo_key(mirror_->id, page));
        s3fifo_take_in(p);
        p->window_percent = 1;
        s3fifo_check(p);
      },
      "window_max"); // P4
}

TEST_F(CheckDeathTest, AVictimHasAnEntryToComeBackTo) {
  ExpectDeath([&] { cache_->policy.n_out = cache_->policy.n_entries; },
              "s3fifo_has_room"); // P3
}

TEST_F(CheckDeathTest, TheCountsOfABlockAreThoseOfItsStates) {
  ExpectDeathAt(
      &mirror_->states[1], [&] { mirror_->states[1] = PAGE_ABSENT; }, "n_live");
  ExpectDeathAt(
      &mirror_->states[1], [&] { mirror_->states[1] = 77; }, "STATES_N_KINDS");
  ExpectDeath([&] { mirror_->blocks[2].n_zero++; }, "n_zero");
}

TEST_F(CheckDeathTest, TheBlockOfAStateIsCharged) {
  if (mirror_->is_solid)
    GTEST_SKIP() << "all states have memory from the start";
  ExpectDeath([&] { mirror_->blocks[0].is_charged = false; },
              "is_charged"); // B2
  ExpectDeath([&] { mirror_->garbage += STATE_BLOCK_LEN; },
              "garbage"); // B3
  ExpectDeath([&] { mirror_->charged_meta -= kPage; }, "charged_meta");
}

TEST_F(CheckDeathTest, TheAccountIsTheSumOfItsParts) {
  ExpectDeath([&] { cache_->used = kPage; }, "charged"); // B1
  ExpectDeath([&] { cache_->garbage += kPage; }, "garbage");
  ExpectDeath([&] { cache_->stats.n_zero_pages++; }, "n_zero");
  ExpectDeath([&] { mirror_->charged_pages -= kPage; }, "PAGE_RESIDENT");
  ExpectDeath([&] { mirror_->charged_pages += kPage; }, "PAGE_EVICTING");
  ExpectDeath([&] { cache_->leased++; }, "leased"); // L5
}

TEST_F(CheckDeathTest, WhatIsReservedForNobodyIsFoundWhenNothingIsUnderWay) {
  cache_->used += 16 * kPage;
  check_cache(cache_); // it may be for a fill
  EXPECT_DEATH(check_cache_idle(cache_), "n_tables");
  cache_->used -= 16 * kPage;
}

TEST_F(CheckDeathTest, AFillOwnsItsPages) {
  Begin(100);
  ExpectDeathAt(
      &mirror_->states[100], [&] { mirror_->states[100] = PAGE_ZERO; },
      "n_zero");
  ExpectDeathAt(
      &mirror_->states[100],
      [&] {
        Move(PAGE_FILLING, PAGE_EVICTING);
        Move(PAGE_EVICTING, PAGE_ABSENT);
      },
      "PAGE_FILLING"); // F2
  ExpectDeath([&] { mirror_->filling = 0; }, "filling");
  ExpectDeath([&] { mirror_->n_uncached++; }, "n_uncached");
  ExpectDeath([&] { runner_.begun->nodes[1].page = 7; }, "page");
  ExpectDeath([&] { runner_.begun->n_refs++; }, "n_refs"); // F3
  ExpectDeath([&] { fetch_.waiter.n_pending = 0; },
              "waiter_is_waiting"); // C4
  EXPECT_DEATH(check_cache_idle(cache_), "fills");
  End();
}

TEST_F(CheckDeathTest, AStateThatSaysFillingHasAFill) {
  ExpectDeathAt(
      &mirror_->states[100], [&] { Move(PAGE_ABSENT, PAGE_FILLING); },
      "fill_table_check_locked"); // C2
}

TEST_F(CheckDeathTest, TwoFillsOfAPageAreOneThatIsStaleAndAnother) {
  Begin(100);
  ExpectDeath(
      [&] {
        pthread_mutex_lock(&cache_->lock);
        fill_table_begin_locked(cache_, mirror_, 100, 1, false);
        pthread_mutex_unlock(&cache_->lock);
      },
      "stale"); // F1
  End();
}

TEST_F(CheckDeathTest, TheLogOfInvalidationsSaysWhichAreUnderWay) {
  ExpectDeathAt(
      &mirror_->header->log.n_begun, [&] { mirror_->header->log.n_begun++; },
      "n_over"); // N2
}

TEST_F(CheckDeathTest, AScanEndsBehindWhereItBegan) {
  ExpectDeath(
      [&] {
        mirror_->sequential.clock = 1;
        mirror_->sequential.all[0].used_at = 1;
      },
      "start"); // T1
}

TEST_F(CheckDeathTest, ATableOfPinsIsOfItsMirror) {
  ExpectDeath([&] { view_.table->link = nullptr; }, "link");
}

TEST_F(CheckDeathTest, APinNamesPagesOfItsMirrorAndNoMoreThanItMay) {
  uint32_t most = pin_capacity(view_.table, PIN_SLOT_RANGE);
  ExpectDeath([&] { view_pin(&view_, PIN_SLOT_PAGE, kPages, 1); }, "n_pages");
  ExpectDeath([&] { view_pin(&view_, PIN_SLOT_PAGE, 1, 0); }, "pin_count");
  ExpectDeath([&] { view_pin(&view_, PIN_SLOT_PAGE, 1, 2); }, "pin_capacity");
  ExpectDeath([&] { view_pin(&view_, PIN_SLOT_RANGE, 1, most + 1); },
              "pin_capacity");
  view_pin(&view_, PIN_SLOT_RANGE, kPages - most, most);
  check_cache(cache_);
  view_unpin(&view_, PIN_SLOT_RANGE);
}

TEST_F(CheckDeathTest, ATableAndAFillHaveReferencesToTheirMirror) {
  Begin(100);
  ExpectDeath([&] { mirror_->n_refs = 1; }, "n_refs");
  End();
}

TEST_F(CheckDeathTest, AMirrorWithoutAReferenceGetsNone) {
  EXPECT_DEATH(
      {
        mirror_->n_refs = 0;
        mirror_ref(mirror_);
      },
      "before > 0");
  EXPECT_DEATH(
      {
        mirror_->n_refs = 0;
        mirror_unref(mirror_);
      },
      "before > 0");
}

TEST_F(CheckDeathTest, SharesAreWhatTablesCanHoldAndSumUpToTheirUsers) {
  shared_pins *lease = nullptr;
  ASSERT_EQ(shared_pins_new(mirror_, &lease), 0);
  ASSERT_EQ(shared_pins_give(lease, 1, shared_pins_least(), shared_pins_least(),
                             nullptr),
            0);
  pin_table *table = mirror_->tables;
  ASSERT_TRUE(table->is_lent);
  table->slots[PIN_SLOT_PAGE] = pin_word(kPages, 7);
  check_cache(cache_); // the other process may store anything
  ExpectDeath([&] { table->page_slots++; }, "page_shift"); // L4
  ExpectDeath([&] { table->range_capacity = PIN_MAX_COUNT + 1; },
              "PIN_MAX_COUNT");
  ExpectDeath(
      [&] {
        cache_->shared_pins_users[1]->len += kPage;
        cache_->leased += kPage;
      },
      "user->len"); // L5
  shared_pins_free(lease);
}

} // namespace

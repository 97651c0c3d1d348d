#include "cache/invalidation_log.h"

#include <atomic>
#include <thread>

#include <gtest/gtest.h>

namespace {

class InvalidationLogTest : public testing::Test {
protected:
  void Begin(invalidation_entry *inv, uint64_t first, uint64_t count) {
    invalidation_log_begin(&log_, &list_, inv, first, count);
  }
  void End(invalidation_entry *inv) {
    invalidation_log_end(&log_, &list_, inv);
  }
  void Run(uint64_t first, uint64_t count) {
    invalidation_entry inv;
    Begin(&inv, first, count);
    End(&inv);
  }
  uint64_t Mark() { return invalidation_log_mark(&log_); }
  bool Hit(uint64_t mark, uint64_t first, uint64_t count) {
    return invalidation_log_hit(&log_, mark, first, count);
  }

  invalidation_log log_ = {};
  invalidation_list list_ = {};
};

TEST_F(InvalidationLogTest, NothingHitsWhereNothingWasInvalidated) {
  EXPECT_FALSE(Hit(Mark(), 0, UINT64_MAX));
}

TEST_F(InvalidationLogTest, WhatIsOverBeforeTheMarkDoesNotHit) {
  Run(10, 5);
  EXPECT_FALSE(Hit(Mark(), 0, 100));
}

TEST_F(InvalidationLogTest, OnlyAnOverlappingRangeHits) {
  uint64_t mark = Mark();
  Run(10, 5);
  EXPECT_TRUE(Hit(mark, 10, 1));
  EXPECT_TRUE(Hit(mark, 14, 1));
  EXPECT_TRUE(Hit(mark, 0, 11));
  EXPECT_TRUE(Hit(mark, 12, UINT64_MAX - 12));
  EXPECT_FALSE(Hit(mark, 0, 10));
  EXPECT_FALSE(Hit(mark, 15, 100));
}

TEST_F(InvalidationLogTest, OneUnderWayAtTheMarkHits) {
  invalidation_entry inv;
  Begin(&inv, 10, 5);
  uint64_t mark = Mark();
  EXPECT_TRUE(Hit(mark, 10, 1));
  End(&inv);
  EXPECT_TRUE(Hit(mark, 10, 1));
  EXPECT_FALSE(Hit(Mark(), 10, 1));
}

TEST_F(InvalidationLogTest, OneThatOutlastsLaterOnesHoldsTheMark) {
  invalidation_entry slow, quick;
  Begin(&slow, 10, 5);
  Begin(&quick, 50, 5);
  End(&quick);
  EXPECT_TRUE(Hit(Mark(), 12, 1)) << "the slow one is under way";
  End(&slow);
  EXPECT_FALSE(Hit(Mark(), 12, 1));
}

TEST_F(InvalidationLogTest, TheyMayEndInAnyOrder) {
  invalidation_entry a, b, c;
  Begin(&a, 1, 1);
  Begin(&b, 2, 1);
  Begin(&c, 3, 1);
  End(&b);
  EXPECT_EQ(Mark(), 0u);
  End(&c);
  EXPECT_EQ(Mark(), 0u);
  End(&a);
  EXPECT_EQ(Mark(), 3u);
  Begin(&a, 1, 1);
  EXPECT_EQ(Mark(), 3u);
  End(&a);
  EXPECT_EQ(Mark(), 4u);
}

TEST_F(InvalidationLogTest, MoreThanItKeepsHits) {
  uint64_t mark = Mark();
  for (int i = 0; i < INVALIDATION_LOG_LEN - 1; i++)
    Run(1000, 1);
  EXPECT_FALSE(Hit(mark, 0, 10));
  Run(1000, 1);
  EXPECT_TRUE(Hit(mark, 0, 10));
}

// One that is under way although the log has gone round must still be seen.
TEST_F(InvalidationLogTest, OneUnderWayIsNeverForgotten) {
  invalidation_entry slow;
  Begin(&slow, 7, 1);
  for (int i = 0; i < 3 * INVALIDATION_LOG_LEN; i++)
    Run(1000, 1);
  EXPECT_TRUE(Hit(Mark(), 7, 1));
  End(&slow);
  EXPECT_FALSE(Hit(Mark(), 7, 1));
}

// The reader that copies two pages one after the other, against a writer that
// invalidates both, moves both on, and ends.
TEST_F(InvalidationLogTest, NoCopyOfTwoVersionsGoesUnnoticed) {
  std::atomic<uint64_t> page[2] = {{0}, {0}};
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (uint64_t version = 1; !stop; version++) {
      invalidation_entry inv;
      Begin(&inv, 0, 2);
      page[0].store(version, std::memory_order_release);
      page[1].store(version, std::memory_order_release);
      End(&inv);
    }
  });
  unsigned n_good = 0;
  for (int i = 0; i < 200000 || n_good == 0; i++) {
    uint64_t mark = Mark();
    uint64_t a = page[0].load(std::memory_order_acquire);
    uint64_t b = page[1].load(std::memory_order_acquire);
    if (Hit(mark, 0, 2))
      continue;
    n_good++;
    ASSERT_EQ(a, b);
  }
  stop = true;
  writer.join();
}

} // namespace

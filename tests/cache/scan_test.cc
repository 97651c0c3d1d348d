#include "cache/scan.h"

#include <gtest/gtest.h>

namespace {

class ScanTest : public testing::Test {
protected:
  scan *Note(uint64_t first, uint64_t count) {
    return scan_note(&s_, first, count, 8);
  }

  scans s_{};
};

TEST_F(ScanTest, AFetchBehindWhatWasBegunGoesOn) {
  scan *st = Note(10, 1);
  scan_begun(st, 16);
  EXPECT_EQ(Note(16, 4), st);
  EXPECT_EQ(st->start, 10u);
  EXPECT_EQ(st->asked, 20u);
  EXPECT_EQ(st->end, 20u);
}

TEST_F(ScanTest, OneThatLeavesAGapOrComesBeforeBeginsAnother) {
  scan *st = Note(10, 1);
  scan_begun(st, 16);
  EXPECT_EQ(scan_find(&s_, 17), nullptr);
  EXPECT_EQ(scan_find(&s_, 9), nullptr);
  EXPECT_NE(Note(17, 1), st);
}

TEST_F(ScanTest, OneThatIsALittleBehindBelongsToIt) {
  scan *st = Note(0, 1);
  Note(1, 5000);
  EXPECT_EQ(Note(5001 - SCAN_BEHIND, 1), st);
  EXPECT_EQ(st->asked, 5001u) << "it is where its first reader is";
  EXPECT_NE(Note(5000 - SCAN_BEHIND, 1), st);
}

// The readers of a block that is being read are no scan, wherever they read.
TEST_F(ScanTest, AJumpWithinABlockIsNoProgress) {
  scan *st = Note(8, 1);
  scan_begun(st, 32);
  EXPECT_EQ(Note(15, 1), st);
  EXPECT_EQ(st->asked, 9u);
  EXPECT_EQ(Note(9, 1), st);
  EXPECT_EQ(st->asked, 10u);
  EXPECT_EQ(Note(24, 1), st);
  EXPECT_EQ(st->asked, 25u) << "what is before that may have come";
  EXPECT_EQ(Note(32, 1), st);
  EXPECT_EQ(st->asked, 33u);
}

TEST_F(ScanTest, TheOneThatWasUsedLastGoesLast) {
  for (uint64_t i = 0; i < SCAN_N; i++)
    Note(i * 1000000, 1);
  Note(1, 1); // the first one goes on
  Note(99000000, 1);
  EXPECT_NE(scan_find(&s_, 2), nullptr);
  EXPECT_EQ(scan_find(&s_, 1000001), nullptr);
  EXPECT_NE(scan_find(&s_, 2000001), nullptr);
}

TEST_F(ScanTest, OneIsThereHoweverManyFetchesThereWere) {
  s_.clock = UINT32_MAX;
  Note(10, 1);
  EXPECT_NE(scan_find(&s_, 11), nullptr);
}

TEST_F(ScanTest, ABlockIsNoLongerThanTheWayToIt) {
  scan *st = Note(100, 1);
  EXPECT_EQ(scan_block(st, 100, 8, 64), 8u);
  EXPECT_EQ(scan_block(st, 115, 8, 64), 8u);
  EXPECT_EQ(scan_block(st, 116, 8, 64), 16u);
  EXPECT_EQ(scan_block(st, 131, 8, 64), 16u);
  EXPECT_EQ(scan_block(st, 132, 8, 64), 32u);
  EXPECT_EQ(scan_block(st, 1000, 8, 64), 64u);
  EXPECT_EQ(scan_block(st, 1000, 8, 8), 8u);
}

TEST_F(ScanTest, WhatIsAheadIsNoMoreThanWhatIsBehind) {
  scan *st = Note(100, 20);
  EXPECT_EQ(scan_ahead(st, 1000), 20u);
  EXPECT_EQ(scan_ahead(st, 5), 5u);
}

} // namespace

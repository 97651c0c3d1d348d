#include "cache/scan.h"

#include <gtest/gtest.h>

namespace {

class ScanTest : public testing::Test {
protected:
  scans s_{};
};

TEST_F(ScanTest, AFetchBehindWhatWasBegunGoesOn) {
  scan *st = scan_note(&s_, 10, 1);
  scan_begun(st, 16);
  EXPECT_EQ(scan_note(&s_, 16, 4), st);
  EXPECT_EQ(st->start, 10u);
  EXPECT_EQ(st->asked, 20u);
  EXPECT_EQ(st->end, 20u);
}

TEST_F(ScanTest, OneThatLeavesAGapOrComesBeforeBeginsAnother) {
  scan *st = scan_note(&s_, 10, 1);
  scan_begun(st, 16);
  EXPECT_EQ(scan_find(&s_, 17), nullptr);
  EXPECT_EQ(scan_find(&s_, 9), nullptr);
  EXPECT_NE(scan_note(&s_, 17, 1), st);
}

TEST_F(ScanTest, OneThatIsALittleBehindBelongsToIt) {
  scan *st = scan_note(&s_, 0, 1);
  scan_note(&s_, 1, 5000);
  EXPECT_EQ(scan_note(&s_, 5001 - SCAN_BEHIND, 1), st);
  EXPECT_EQ(st->asked, 5001u) << "it is where its first reader is";
  EXPECT_NE(scan_note(&s_, 5000 - SCAN_BEHIND, 1), st);
}

TEST_F(ScanTest, TheOneThatWasUsedLastGoesLast) {
  for (uint64_t i = 0; i < SCAN_N; i++)
    scan_note(&s_, i * 1000000, 1);
  scan_note(&s_, 1, 1); // the first one goes on
  scan_note(&s_, 99000000, 1);
  EXPECT_NE(scan_find(&s_, 2), nullptr);
  EXPECT_EQ(scan_find(&s_, 1000001), nullptr);
  EXPECT_NE(scan_find(&s_, 2000001), nullptr);
}

TEST_F(ScanTest, OneIsThereHoweverManyFetchesThereWere) {
  s_.clock = UINT32_MAX;
  scan_note(&s_, 10, 1);
  EXPECT_NE(scan_find(&s_, 11), nullptr);
}

TEST_F(ScanTest, ABlockIsNoLongerThanTheWayToIt) {
  scan *st = scan_note(&s_, 100, 1);
  EXPECT_EQ(scan_block(st, 100, 8, 64), 8u);
  EXPECT_EQ(scan_block(st, 115, 8, 64), 8u);
  EXPECT_EQ(scan_block(st, 116, 8, 64), 16u);
  EXPECT_EQ(scan_block(st, 131, 8, 64), 16u);
  EXPECT_EQ(scan_block(st, 132, 8, 64), 32u);
  EXPECT_EQ(scan_block(st, 1000, 8, 64), 64u);
  EXPECT_EQ(scan_block(st, 1000, 8, 8), 8u);
}

TEST_F(ScanTest, WhatIsAheadIsNoMoreThanWhatIsBehind) {
  scan *st = scan_note(&s_, 100, 20);
  EXPECT_EQ(scan_ahead(st, 1000), 20u);
  EXPECT_EQ(scan_ahead(st, 5), 5u);
}

} // namespace

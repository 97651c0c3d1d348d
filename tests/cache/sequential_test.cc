#include "cache/sequential.h"

#include <gtest/gtest.h>

namespace {

class SequentialTest : public testing::Test {
protected:
  sequential_reader *Note(uint64_t first, uint64_t count) {
    return sequential_note(&s_, first, count, 8);
  }

  sequential_readers s_{};
};

TEST_F(SequentialTest, AFetchBehindWhatWasBegunGoesOn) {
  sequential_reader *st = Note(10, 1);
  sequential_begun(st, 16);
  EXPECT_EQ(Note(16, 4), st);
  EXPECT_EQ(st->start, 10u);
  EXPECT_EQ(st->asked, 20u);
  EXPECT_EQ(st->end, 20u);
}

TEST_F(SequentialTest, OneThatLeavesAGapOrComesBeforeBeginsAnother) {
  sequential_reader *st = Note(10, 1);
  sequential_begun(st, 16);
  EXPECT_EQ(sequential_find(&s_, 17), nullptr);
  EXPECT_EQ(sequential_find(&s_, 9), nullptr);
  EXPECT_NE(Note(17, 1), st);
}

TEST_F(SequentialTest, OneThatIsALittleBehindBelongsToIt) {
  sequential_reader *st = Note(0, 1);
  Note(1, 5000);
  EXPECT_EQ(Note(5001 - SEQUENTIAL_BEHIND, 1), st);
  EXPECT_EQ(st->asked, 5001u) << "it is where its first reader is";
  EXPECT_NE(Note(5000 - SEQUENTIAL_BEHIND, 1), st);
}

// The readers of a block that is being read are not sequential, wherever they
// read.
TEST_F(SequentialTest, AJumpWithinABlockIsNoProgress) {
  sequential_reader *st = Note(8, 1);
  sequential_begun(st, 32);
  EXPECT_EQ(Note(15, 1), st);
  EXPECT_EQ(st->asked, 9u);
  EXPECT_EQ(Note(9, 1), st);
  EXPECT_EQ(st->asked, 10u);
  EXPECT_EQ(Note(24, 1), st);
  EXPECT_EQ(st->asked, 25u) << "what is before that may have come";
  EXPECT_EQ(Note(32, 1), st);
  EXPECT_EQ(st->asked, 33u);
}

TEST_F(SequentialTest, TheOneThatWasUsedLastGoesLast) {
  for (uint64_t i = 0; i < SEQUENTIAL_N; i++)
    Note(i * 1000000, 1);
  Note(1, 1); // the first one goes on
  Note(99000000, 1);
  EXPECT_NE(sequential_find(&s_, 2), nullptr);
  EXPECT_EQ(sequential_find(&s_, 1000001), nullptr);
  EXPECT_NE(sequential_find(&s_, 2000001), nullptr);
}

TEST_F(SequentialTest, OneIsThereHoweverManyFetchesThereWere) {
  s_.clock = UINT32_MAX;
  Note(10, 1);
  EXPECT_NE(sequential_find(&s_, 11), nullptr);
}

TEST_F(SequentialTest, ABlockIsNoLongerThanTheWayToIt) {
  sequential_reader *st = Note(100, 1);
  EXPECT_EQ(sequential_block(st, 100, 8, 64), 8u);
  EXPECT_EQ(sequential_block(st, 115, 8, 64), 8u);
  EXPECT_EQ(sequential_block(st, 116, 8, 64), 16u);
  EXPECT_EQ(sequential_block(st, 131, 8, 64), 16u);
  EXPECT_EQ(sequential_block(st, 132, 8, 64), 32u);
  EXPECT_EQ(sequential_block(st, 1000, 8, 64), 64u);
  EXPECT_EQ(sequential_block(st, 1000, 8, 8), 8u);
}

TEST_F(SequentialTest, WhatIsAheadIsNoMoreThanWhatIsBehind) {
  sequential_reader *st = Note(100, 20);
  EXPECT_EQ(sequential_ahead(st, 1000), 20u);
  EXPECT_EQ(sequential_ahead(st, 5), 5u);
}

} // namespace

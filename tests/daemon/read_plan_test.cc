#include "daemon/serve/read_plan.h"

#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace {

constexpr unsigned kShift = 12;
constexpr uint64_t kPage = 1 << kShift;

struct Plan {
  explicit Plan(std::vector<range> ranges) : ranges_(std::move(ranges)) {
    plan = read_plan_of(ranges_.data(), static_cast<unsigned>(ranges_.size()));
  }
  ~Plan() { read_plan_check(&plan); }
  bool Next(piece *p, unsigned most = 64) {
    read_plan_check(&plan);
    return read_plan_next(&plan, kShift, most, p);
  }
  read_plan plan;

private:
  std::vector<range> ranges_;
};

bool IsWithin(std::vector<range> ranges, uint64_t size) {
  Plan plan(std::move(ranges));
  return read_plan_is_within(&plan.plan, size);
}

TEST(ReadPlanTest, PiecesCoverEachRangeOnceAndInOrder) {
  const std::vector<range> ranges = {
      {100, 3 * kPage}, {9 * kPage, 0}, {kPage - 1, 2}, {0, 5 * kPage}};
  Plan plan(ranges);
  std::vector<uint64_t> done(ranges.size());
  piece p;
  unsigned last = 0;
  while (plan.Next(&p, 2)) {
    unsigned i = plan.plan.range;
    ASSERT_GE(i, last);
    last = i;
    ASSERT_EQ(p.offset, ranges[i].offset + done[i]);
    ASSERT_GT(p.end, p.offset);
    ASSERT_LE(p.end, ranges[i].offset + ranges[i].length);
    ASSERT_EQ(p.first, p.offset / kPage);
    ASSERT_LE(p.count, 2u);
    ASSERT_EQ(p.first + p.count - 1, (p.end - 1) / kPage);
    done[i] += p.end - p.offset;
    read_plan_advance(&plan.plan, &p);
  }
  for (size_t i = 0; i < ranges.size(); i++)
    EXPECT_EQ(done[i], ranges[i].length) << i;
  EXPECT_EQ(plan.plan.left, 0u);
}

TEST(ReadPlanTest, APieceEndsAtAPageUnlessItsRangeEnds) {
  Plan plan({{kPage / 2, 4 * kPage}});
  piece p;
  ASSERT_TRUE(plan.Next(&p, 2));
  EXPECT_EQ(p.end, 2 * kPage);
  EXPECT_FALSE(read_plan_ends_with(&plan.plan, &p));
  read_plan_advance(&plan.plan, &p);
  ASSERT_TRUE(plan.Next(&p, 8));
  EXPECT_EQ(p.end, kPage / 2 + 4 * kPage);
  EXPECT_EQ(p.count, 3u);
  EXPECT_TRUE(read_plan_ends_with(&plan.plan, &p));
  EXPECT_TRUE(read_plan_range_ends_with(&plan.plan, &p));
}

TEST(ReadPlanTest, APieceThatWasCutIsFollowedByItsRest) {
  Plan plan({{10, 4 * kPage}});
  piece p;
  ASSERT_TRUE(plan.Next(&p));
  EXPECT_EQ(p.count, 5u);
  piece_cut(&p, 2);
  EXPECT_EQ(p.end, 2 * kPage);
  read_plan_advance(&plan.plan, &p);
  EXPECT_EQ(plan.plan.left, 10 + 2 * kPage);
  ASSERT_TRUE(plan.Next(&p));
  EXPECT_EQ(p.first, 2u);
  EXPECT_EQ(p.count, 3u);
}

TEST(ReadPlanTest, ACutToAllPagesKeepsTheEndOfTheRange) {
  Plan plan({{0, kPage + 7}});
  piece p;
  ASSERT_TRUE(plan.Next(&p));
  piece_cut(&p, 2);
  EXPECT_EQ(p.end, kPage + 7);
}

TEST(ReadPlanTest, APieceThatWasShortenedGoesOnWithinThePage) {
  Plan plan({{0, 3 * kPage}});
  piece p;
  ASSERT_TRUE(plan.Next(&p));
  EXPECT_FALSE(read_plan_is_within_page(&plan.plan, &p));
  piece_shorten(&p, kPage + 1);
  EXPECT_EQ(p.count, 2u);
  read_plan_advance(&plan.plan, &p);
  ASSERT_TRUE(plan.Next(&p));
  EXPECT_EQ(p.first, 1u);
  EXPECT_EQ(p.offset, kPage + 1);
  EXPECT_TRUE(read_plan_is_within_page(&plan.plan, &p));
}

// It is the range's beginning, not a piece's end, that lies within a page.
TEST(ReadPlanTest, TheFirstPieceOfARangeIsNotTheRestOfAPage) {
  Plan plan({{kPage + 1, kPage}});
  piece p;
  ASSERT_TRUE(plan.Next(&p));
  EXPECT_FALSE(read_plan_is_within_page(&plan.plan, &p));
}

TEST(ReadPlanTest, RangesMustLieWithinTheImageUnlessTheyAreEmpty) {
  EXPECT_TRUE(IsWithin({{90, 10}}, 100));
  EXPECT_FALSE(IsWithin({{90, 11}}, 100));
  EXPECT_FALSE(IsWithin({{101, 1}}, 100));
  EXPECT_TRUE(IsWithin({{101, 0}}, 100));
  EXPECT_FALSE(IsWithin({{UINT64_MAX, 2}}, 100));
  EXPECT_FALSE(IsWithin({{0, 1}, {100, 1}}, 100));
}

TEST(ReadPlanTest, EachPageOfARangeIsCountedOnce) {
  Plan plan({{0, 4 * kPage}, {0, kPage}});
  piece p;
  ASSERT_TRUE(plan.Next(&p));
  EXPECT_EQ(read_plan_count(&plan.plan, 0, 2), 2u);
  EXPECT_EQ(read_plan_count(&plan.plan, 1, 2), 1u);
  EXPECT_EQ(read_plan_count(&plan.plan, 0, 3), 0u);
  read_plan_advance(&plan.plan, &p);
  ASSERT_TRUE(plan.Next(&p)); // another range: asked for again
  EXPECT_EQ(read_plan_count(&plan.plan, 0, 1), 1u);
}

TEST(ReadPlanTest, EmptyRangesArePassedOver) {
  Plan plan({{5, 0}, {0, 2 * kPage}, {9, 0}, {kPage, 3}, {1, 0}});
  piece p;
  EXPECT_EQ(plan.plan.range, 1u);
  EXPECT_EQ(read_plan_range_left(&plan.plan), 2 * kPage);
  ASSERT_TRUE(plan.Next(&p, 1));
  read_plan_advance(&plan.plan, &p);
  EXPECT_EQ(plan.plan.range, 1u);
  EXPECT_EQ(read_plan_range_left(&plan.plan), kPage);
  ASSERT_TRUE(plan.Next(&p));
  read_plan_advance(&plan.plan, &p);
  EXPECT_EQ(plan.plan.range, 3u);
  EXPECT_EQ(read_plan_range_left(&plan.plan), 3u);
  ASSERT_TRUE(plan.Next(&p));
  EXPECT_TRUE(read_plan_range_ends_with(&plan.plan, &p));
  read_plan_advance(&plan.plan, &p);
  EXPECT_EQ(plan.plan.range, 5u);
  EXPECT_EQ(read_plan_range_left(&plan.plan), 0u);
}

TEST(ReadPlanTest, NothingIsLeftOfNoRanges) {
  Plan plan({}), empty({{5, 0}});
  piece p;
  EXPECT_FALSE(plan.Next(&p));
  EXPECT_FALSE(empty.Next(&p));
}

} // namespace

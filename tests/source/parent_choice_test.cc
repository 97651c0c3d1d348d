// Which parent is asked.
#include "source/parent_choice.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace {

constexpr uint64_t kBlock = PARENT_CHOICE_BLOCK;

std::vector<uint64_t> Seeds(int n) {
  std::vector<uint64_t> seeds;
  for (int i = 0; i < n; i++)
    seeds.push_back(parent_choice_seed(
        ("10.0.0." + std::to_string(i) + ":10819").c_str(), "disk"));
  return seeds;
}

size_t Best(const std::vector<uint64_t> &seeds, uint64_t offset) {
  size_t best = 0;
  for (size_t i = 1; i < seeds.size(); i++)
    if (parent_choice_score(seeds[i], offset) >
        parent_choice_score(seeds[best], offset))
      best = i;
  return best;
}

TEST(ParentChoiceTest, AllBytesOfABlockHaveOneParent) {
  const uint64_t seed = parent_choice_seed("a:1", "disk");
  EXPECT_EQ(parent_choice_score(seed, 0),
            parent_choice_score(seed, kBlock - 1));
  EXPECT_NE(parent_choice_score(seed, 0), parent_choice_score(seed, kBlock));
  EXPECT_NE(seed, parent_choice_seed("a:1", "disk2"));
  EXPECT_NE(parent_choice_seed("a", "bc"), parent_choice_seed("ab", "c"));
}

TEST(ParentChoiceTest, BlocksAreSpreadEvenly) {
  const std::vector<uint64_t> seeds = Seeds(5);
  std::vector<int> n(5);
  for (uint64_t block = 0; block < 10000; block++)
    n[Best(seeds, block * kBlock)]++;
  for (int count : n)
    EXPECT_NEAR(count, 2000, 200);
}

TEST(ParentChoiceTest, WithoutOneParentNoBlockOfTheOthersMoves) {
  const std::vector<uint64_t> all = Seeds(4);
  const std::vector<uint64_t> without(all.begin(), all.end() - 1);
  for (uint64_t block = 0; block < 1000; block++) {
    size_t best = Best(all, block * kBlock);
    if (best < without.size()) {
      EXPECT_EQ(Best(without, block * kBlock), best);
    }
  }
}

TEST(ParentChoiceTest, PatienceIsWhatNinetyFiveOfAHundredAnswersTook) {
  parent_times times = {};
  EXPECT_EQ(parent_choice_patience(&times, 10000), PARENT_CHOICE_LEAST_MS);
  for (int i = 0; i < PARENT_CHOICE_ENOUGH - 1; i++)
    parent_choice_took(&times, 900);
  EXPECT_EQ(parent_choice_patience(&times, 10000), PARENT_CHOICE_LEAST_MS);
  for (uint64_t ms = 1; ms <= PARENT_CHOICE_TIMES; ms++)
    parent_choice_took(&times, 1000 * ms);
  EXPECT_EQ(parent_choice_patience(&times, 1000000), 61000u);
  EXPECT_EQ(parent_choice_patience(&times, 2500), 2500u);
  for (int i = 0; i < PARENT_CHOICE_TIMES; i++)
    parent_choice_took(&times, 1);
  EXPECT_EQ(parent_choice_patience(&times, 10000), PARENT_CHOICE_LEAST_MS);
}

} // namespace

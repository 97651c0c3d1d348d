#include "cache/s3fifo.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <vector>

namespace {

// For a policy whose argument is the set of the keys that were used.
bool TakeUsed(void *arg, uint64_t key) {
  return static_cast<std::set<uint64_t> *>(arg)->erase(key) > 0;
}

uint32_t UnusedOf(void *arg, uint64_t first) {
  const auto *used = static_cast<const std::set<uint64_t> *>(arg);
  uint32_t unused = 0;
  for (uint32_t i = 0; i < S3FIFO_GROUP; i++)
    unused |= uint32_t{!used->count(first + i)} << i;
  return unused;
}

// A policy with its used bits, and a model of what must be in it.
class PolicyTest : public testing::Test {
protected:
  void SetUp() override {
    ASSERT_EQ(s3fifo_init(&policy_, 100000, TakeUsed, UnusedOf, &used_), 0);
  }
  ~PolicyTest() override { s3fifo_fini(&policy_); }

  void Insert(uint64_t key) {
    ASSERT_TRUE(s3fifo_has_room(&policy_, 1));
    s3fifo_insert(&policy_, key);
    s3fifo_take_in(&policy_);
  }

  // Evicts at least `want` keys (or all there are).
  std::vector<uint64_t> Evict(size_t want) {
    std::vector<uint64_t> keys(256);
    unsigned chances = S3FIFO_SECOND_CHANCES;
    keys.resize(
        s3fifo_pick(&policy_, want, keys.data(), keys.size(), &chances));
    for (size_t i = 0; i < keys.size(); i++)
      s3fifo_gone(&policy_);
    return keys;
  }

  // Far apart, so that no two are of one group.
  static uint64_t Apart(uint64_t i) { return i * S3FIFO_GROUP; }

  s3fifo policy_;
  std::set<uint64_t> used_;
};

TEST_F(PolicyTest, UnusedPagesLeaveInTheOrderTheyCame) {
  for (uint64_t i = 0; i < 10; i++)
    Insert(Apart(i));
  for (uint64_t i = 0; i < 10; i++)
    EXPECT_EQ(Evict(1), std::vector<uint64_t>{Apart(i)});
  EXPECT_TRUE(Evict(1).empty());
}

TEST_F(PolicyTest, PagesThatWereThereBeforeOutliveTheScanThatFollows) {
  for (uint64_t i = 0; i < 50; i++)
    s3fifo_adopt(&policy_, Apart(i));
  for (uint64_t i = 50; i < 100; i++)
    Insert(Apart(i));
  for (uint64_t i = 50; i < 90; i++)
    EXPECT_EQ(Evict(1), std::vector<uint64_t>{Apart(i)});
  while (!Evict(1).empty())
    ;
  EXPECT_EQ(s3fifo_len(&policy_), 0u) << "in the end they go as well";
}

TEST_F(PolicyTest, AUsedPageSurvivesTheScanThatFollows) {
  Insert(Apart(0));
  used_.insert(Apart(0));
  for (uint64_t i = 1; i < 100; i++)
    Insert(Apart(i));
  for (int i = 0; i < 99; i++)
    for (uint64_t key : Evict(1))
      EXPECT_NE(key, Apart(0));
  EXPECT_EQ(s3fifo_len(&policy_), 1u);
  EXPECT_EQ(policy_.len[S3FIFO_MAIN], 1u);
}

// Of 100 pages the youngest ten are in the window.
TEST_F(PolicyTest, AUseInTheWindowDoesNotCount) {
  for (uint64_t i = 0; i < 100; i++)
    Insert(Apart(i));
  ASSERT_EQ(policy_.len[S3FIFO_WINDOW], 10u);
  used_.insert(Apart(90)); // the oldest in it
  used_.insert(Apart(89)); // which has left it
  for (uint64_t i = 100; i < 120; i++)
    Insert(Apart(i));
  std::vector<uint64_t> victims = Evict(110);
  EXPECT_EQ(std::count(victims.begin(), victims.end(), Apart(90)), 1);
  EXPECT_EQ(std::count(victims.begin(), victims.end(), Apart(89)), 0);
}

TEST_F(PolicyTest, AUseCountsOnceThePageHasLeftTheWindow) {
  for (uint64_t i = 0; i < 100; i++)
    Insert(Apart(i));
  used_.insert(Apart(95));
  for (uint64_t i = 100; i < 120; i++)
    Insert(Apart(i));
  EXPECT_EQ(used_.count(Apart(95)), 0u) << "the policy forgets the first use";
  used_.insert(Apart(95));
  std::vector<uint64_t> victims = Evict(110);
  EXPECT_EQ(std::count(victims.begin(), victims.end(), Apart(95)), 0);
}

// s3fifo_check() asserts that it is no larger.
TEST_F(PolicyTest, TheWindowIsATenthOfTheSmallQueueWhateverLeavesIt) {
  for (uint64_t i = 0; i < 1000; i++) {
    Insert(Apart(i));
    ASSERT_EQ(policy_.len[S3FIFO_WINDOW], (i + 1) / 10);
  }
  for (uint64_t i = 0; i < 300; i++) { // its oldest
    s3fifo_remove(&policy_, Apart(i));
    s3fifo_check(&policy_);
  }
  for (uint64_t i = 950; i < 1000; i++) { // its youngest
    s3fifo_remove(&policy_, Apart(i));
    s3fifo_check(&policy_);
  }
  for (uint64_t i = 300; i < 500; i++) // which go on to MAIN
    used_.insert(Apart(i));
  while (!Evict(1).empty())
    s3fifo_check(&policy_);
  EXPECT_EQ(s3fifo_len(&policy_), 0u);
}

TEST_F(PolicyTest, APageThatReturnsWhileItsGhostLivesEntersMain) {
  for (uint64_t i = 0; i < 10; i++)
    Insert(Apart(i));
  ASSERT_EQ(Evict(1), std::vector<uint64_t>{Apart(0)});
  EXPECT_EQ(policy_.len[S3FIFO_GHOST], 1u);
  Insert(Apart(0));
  EXPECT_EQ(policy_.len[S3FIFO_GHOST], 0u);
  EXPECT_EQ(policy_.len[S3FIFO_MAIN], 1u);
}

TEST_F(PolicyTest, ThereAreNeverMoreGhostsThanPages) {
  for (uint64_t i = 0; i < 1000; i++) {
    Insert(Apart(i));
    if (i >= 100)
      Evict(1);
    EXPECT_LE(policy_.len[S3FIFO_GHOST], s3fifo_len(&policy_) + 1);
  }
}

TEST_F(PolicyTest, NeighboursLeaveTogetherWhenUnused) {
  for (uint64_t i = 0; i < 8 * S3FIFO_GROUP; i++)
    Insert(i);
  auto keys = Evict(1);
  std::sort(keys.begin(), keys.end());
  ASSERT_EQ(keys.size(), size_t{S3FIFO_GROUP});
  for (uint64_t i = 0; i < S3FIFO_GROUP; i++)
    EXPECT_EQ(keys[i], i);
}

TEST_F(PolicyTest, AUsedNeighbourStays) {
  for (uint64_t i = 0; i < 8 * S3FIFO_GROUP; i++)
    Insert(i);
  used_.insert(3);
  auto keys = Evict(1);
  EXPECT_EQ(keys.size(), size_t{S3FIFO_GROUP - 1});
  EXPECT_EQ(std::count(keys.begin(), keys.end(), 3u), 0);
}

TEST_F(PolicyTest, SecondChancesEndWhenEverythingIsAlwaysUsed) {
  for (uint64_t i = 0; i < 1000; i++)
    Insert(Apart(i));
  for (uint64_t i = 0; i < 1000; i++)
    used_.insert(Apart(i));
  EXPECT_EQ(Evict(1).size(), 1u);
  // And the window gives way as the small queue becomes shorter.
  EXPECT_LE(1000 - used_.size(), 64u + 7);
}

TEST_F(PolicyTest, ARestoredVictimIsInMainAndARemovedOneLeavesNoGhost) {
  Insert(Apart(1));
  Insert(Apart(2));
  uint64_t keys[8];
  unsigned chances = S3FIFO_SECOND_CHANCES;
  ASSERT_EQ(s3fifo_pick(&policy_, 2, keys, 8, &chances), 2u);
  s3fifo_restore(&policy_, keys[0]);
  s3fifo_gone(&policy_);
  EXPECT_EQ(policy_.len[S3FIFO_MAIN], 1u);
  s3fifo_remove(&policy_, keys[0]);
  s3fifo_remove(&policy_, keys[0]);
  EXPECT_EQ(s3fifo_len(&policy_), 0u);
  EXPECT_TRUE(Evict(1).empty());
}

TEST_F(PolicyTest, TheOldestComeInTurnAlsoFromASmallQueueThatIsShort) {
  for (uint64_t i = 0; i < 100; i++)
    Insert(Apart(i));
  std::vector<uint64_t> keys(99);
  unsigned chances = 0;
  ASSERT_EQ(s3fifo_pick(&policy_, 99, keys.data(), 99, &chances), 99u);
  for (uint64_t key : keys)
    s3fifo_restore(&policy_, key);
  ASSERT_EQ(policy_.len[S3FIFO_SMALL], 1u);
  std::set<uint64_t> met;
  for (uint64_t i = 0, key; i < 100; i++) {
    used_.insert(Apart(i));
    ASSERT_EQ(s3fifo_pick_oldest(&policy_, &key), 1u);
    met.insert(key);
    s3fifo_restore(&policy_, key);
  }
  EXPECT_EQ(met.size(), 100u);
}

TEST_F(PolicyTest, AFreshPageIsThereBeforeItIsInAQueue) {
  const uint32_t n = S3FIFO_FRESH_PART;
  for (uint64_t i = 1; i <= n; i++)
    Insert(Apart(i));
  s3fifo_insert(&policy_, Apart(0));
  EXPECT_EQ(policy_.len[S3FIFO_WINDOW] + policy_.len[S3FIFO_SMALL], n);
  EXPECT_TRUE(s3fifo_has(&policy_, Apart(0)));
  EXPECT_EQ(s3fifo_len(&policy_), n + 1);
  s3fifo_check(&policy_);
  s3fifo_remove(&policy_, Apart(0));
  EXPECT_FALSE(s3fifo_has(&policy_, Apart(0)));
  EXPECT_EQ(s3fifo_len(&policy_), n);
}

TEST_F(PolicyTest, NoPageOfASmallCacheIsFresh) {
  for (uint32_t i = 1; i < S3FIFO_FRESH_PART; i++) {
    s3fifo_insert(&policy_, Apart(i));
    ASSERT_EQ(policy_.len[S3FIFO_WINDOW] + policy_.len[S3FIFO_SMALL], i);
  }
}

// The same insertions and evictions, once with pages that wait until an
// eviction needs them.
TEST_F(PolicyTest, FreshPagesEnterTheQueuesAsIfTheyHadNotWaited) {
  s3fifo waiting;
  std::set<uint64_t> used;
  ASSERT_EQ(s3fifo_init(&waiting, 100000, TakeUsed, UnusedOf, &used), 0);
  const size_t kPages = 16 * S3FIFO_FRESH_PART;
  std::mt19937_64 random(9);
  std::set<uint64_t> in;
  for (int i = 0; i < 3000; i++) {
    for (size_t n = random() % 50; n > 0; n--) {
      uint64_t key = random() % 50000;
      if (!in.insert(key).second)
        continue;
      Insert(key);
      s3fifo_insert(&waiting, key);
    }
    if (size_t want = in.size() > kPages ? in.size() - kPages : 0) {
      s3fifo_expect_picks(&waiting, static_cast<unsigned>(want));
      std::vector<uint64_t> keys(want + S3FIFO_GROUP), victims = Evict(want);
      unsigned chances = S3FIFO_SECOND_CHANCES;
      keys.resize(
          s3fifo_pick(&waiting, want, keys.data(), keys.size(), &chances));
      ASSERT_EQ(keys, victims);
      for (uint64_t key : keys) {
        s3fifo_gone(&waiting);
        in.erase(key);
      }
    }
    if (uint64_t key = random() % 50000; in.count(key)) {
      s3fifo_take_in(&waiting); // else a use may be in the window here alone
      used_.insert(key);
      used.insert(key);
    }
    if (i % 1000 == 0)
      s3fifo_check(&waiting);
  }
  s3fifo_fini(&waiting);
}

TEST_F(PolicyTest, AgreesWithAModelOverRandomOperations) {
  std::mt19937_64 random(7);
  std::set<uint64_t> in;
  for (int i = 0; i < 200000; i++) {
    uint64_t key = random() % 3000;
    switch (random() % 4) {
    case 0:
    case 1:
      if (in.insert(key).second)
        s3fifo_insert(&policy_, key); // fresh until another call needs it
      break;
    case 2:
      s3fifo_remove(&policy_, key);
      in.erase(key);
      break;
    case 3:
      if (random() % 2)
        used_.insert(key);
      for (uint64_t victim : Evict(random() % 4))
        ASSERT_EQ(in.erase(victim), 1u) << "evicted what was not there";
      break;
    }
    ASSERT_EQ(s3fifo_len(&policy_), in.size());
    if (i % 10000 == 0)
      s3fifo_check(&policy_);
  }
}

// As many pages as there are buckets, at each distance, by several factors.
TEST(PolicyHashTest, EvenlySpacedPagesShareFewBuckets) {
  constexpr uint32_t kBuckets = 1 << 16;
  std::mt19937_64 random(1);
  for (int i = 0; i < 8; i++) {
    const uint64_t factor = i ? random() | 1 : S3FIFO_FACTOR;
    for (uint64_t distance = 1; distance <= 1 << 14; distance *= 2) {
      std::vector<uint32_t> len(kBuckets);
      for (uint64_t n = 0; n < kBuckets; n++)
        len[s3fifo_hash(factor, s3fifo_key(1, n * distance)) % kBuckets]++;
      EXPECT_LE(*std::max_element(len.begin(), len.end()), 16u)
          << factor << " " << distance;
    }
  }
}

TEST(PolicyHashTest, AGroupHasAdjacentBuckets) {
  for (uint64_t group = 0; group < 1000; group++)
    for (uint64_t page = 0; page < S3FIFO_GROUP; page++)
      EXPECT_EQ(s3fifo_hash(S3FIFO_FACTOR, group * S3FIFO_GROUP + page) /
                    S3FIFO_GROUP,
                s3fifo_hash(S3FIFO_FACTOR, group * S3FIFO_GROUP) /
                    S3FIFO_GROUP);
}

TEST(PolicyRoomTest, ThereIsRoomForAsManyPagesAsItWasMadeForAndTheirGhosts) {
  s3fifo p;
  std::set<uint64_t> used; // none
  ASSERT_EQ(s3fifo_init(&p, 8, TakeUsed, UnusedOf, &used), 0);
  uint64_t victims[8];
  // Far from each other, lest they leave as a group; each tenth time, what was
  // picked comes back when its entry is another's already.
  for (uint64_t i = 0; i < 10000; i++) {
    if (s3fifo_len(&p) == 8) {
      unsigned chances = S3FIFO_SECOND_CHANCES;
      ASSERT_EQ(s3fifo_pick(&p, 1, victims, 8, &chances), 1u);
      if (i % 10 == 0) {
        s3fifo_restore(&p, victims[0]);
        continue;
      }
      s3fifo_gone(&p);
    }
    ASSERT_TRUE(s3fifo_has_room(&p, 1));
    s3fifo_insert(&p, i * 1000);
  }
  s3fifo_fini(&p);
}

// Grown step by step, with pages in it all the while.
TEST(PolicyRoomTest, ItGrowsWithWhatIsInIt) {
  s3fifo p;
  std::set<uint64_t> used; // none
  ASSERT_EQ(s3fifo_init(&p, 0, TakeUsed, UnusedOf, &used), 0);
  std::set<uint64_t> in;
  uint64_t key = 0;
  for (uint64_t pages = 1; pages <= 1 << 16; pages *= 4) {
    ASSERT_EQ(s3fifo_grow(&p, pages), 0);
    ASSERT_EQ(s3fifo_grow(&p, pages / 2), 0) << "which changes nothing";
    while (s3fifo_len(&p) < pages) {
      ASSERT_TRUE(s3fifo_has_room(&p, 1));
      s3fifo_insert(&p, key);
      in.insert(key);
      key += 1000;
    }
  }
  // Far from each other: they leave one by one, the oldest first.
  while (!in.empty()) {
    uint64_t victim;
    unsigned chances = 0;
    ASSERT_EQ(s3fifo_pick(&p, 1, &victim, 1, &chances), 1u);
    ASSERT_EQ(victim, *in.begin());
    in.erase(victim);
    s3fifo_gone(&p);
  }
  s3fifo_fini(&p);
}

// Misses over a trace with a cache of `capacity` pages.
size_t Misses(const std::vector<uint64_t> &trace, size_t capacity) {
  s3fifo p;
  std::set<uint64_t> in, used;
  EXPECT_EQ(s3fifo_init(&p, capacity + 1, TakeUsed, UnusedOf, &used), 0);
  size_t misses = 0;
  for (uint64_t key : trace) {
    if (in.count(key)) {
      used.insert(key);
      continue;
    }
    misses++;
    uint64_t victims[64];
    if (in.size() >= capacity) {
      unsigned chances = S3FIFO_SECOND_CHANCES;
      size_t n = s3fifo_pick(&p, 1, victims, 64, &chances);
      for (size_t i = 0; i < n; i++) {
        s3fifo_gone(&p);
        in.erase(victims[i]);
      }
    }
    EXPECT_TRUE(s3fifo_has_room(&p, 1));
    used.erase(key);
    s3fifo_insert(&p, key);
    in.insert(key);
  }
  s3fifo_fini(&p);
  return misses;
}

TEST(Policy, AHotSetSurvivesScansThatWouldEmptyAnLruCache) {
  std::vector<uint64_t> trace;
  uint64_t scan = 1 << 20;
  for (int round = 0; round < 50; round++) {
    for (uint64_t hot = 0; hot < 50; hot++)
      trace.push_back(hot * 64);
    for (int i = 0; i < 120; i++)
      trace.push_back((scan++) * 64);
  }
  // LRU with 100 pages would miss every time: 8500.  The scans miss anyway.
  EXPECT_LT(Misses(trace, 100), 50u * 120 + 1000);
}

// As by a reader of half pages, with a use of a hot page after each of its
// reads.  If the second reads counted, the hot set would miss 3000 times more.
TEST(Policy, AHotSetSurvivesAScanThatReadsEachPageTwice) {
  std::mt19937_64 random(8);
  std::vector<uint64_t> trace;
  uint64_t scan = 1 << 20;
  for (int i = 0; i < 10000; i++) {
    trace.push_back(scan * 64);
    trace.push_back(random() % 500 * 64);
    trace.push_back(scan++ * 64);
  }
  EXPECT_LT(Misses(trace, 1000), 10000u + 1500);
}

} // namespace

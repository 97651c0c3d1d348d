// Blocks that grow for a sequential reader, and what is read ahead of
// him.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <random>
#include <set>
#include <vector>

#include "cache/check.h"
#include "cache/fetch.h"
#include "cache/fill.h"
#include "cache/image.h"
#include "cache/page_cache.h"
#include "cache/view.h"
#include "tests/support/fake_source.h"

namespace {

constexpr uint64_t kPage = 4096, kBlock = 8, kMost = 64, kPages = 8192;

class GrowthTest : public testing::Test {
protected:
  void SetUp() override { Make(64 << 20, kMost * kPage); }

  void Make(uint64_t budget, uint64_t most) {
    page_cache_options options = {budget, false, nullptr};
    ASSERT_EQ(page_cache_new(&options, &cache_), 0);
    source *src = source_.Open();
    src->fetch_size.least = kBlock * kPage;
    src->fetch_size.most = uint32_t(most);
    source_.SetWorth(most);
    image_ops ops{};
    ops.needs_pages = true;
    ASSERT_EQ(image_new(cache_, "fake", src, 12, &ops, &image_), 0);
    mirror_ = image_mirror(image_);
    ASSERT_EQ(view_open(&view_, mirror_), 0);
  }

  void TearDown() override { Unmake(); }

  void Unmake() {
    RunAll();
    check_cache(cache_);
    view_close(&view_);
    mirror_unref(mirror_);
    image_free(image_);
    page_cache_free(cache_);
  }

  struct Runner {
    fill_runner base;
    GrowthTest *test;
    static void Run(fill_runner *r, fill *fill) {
      reinterpret_cast<Runner *>(r)->test->fills_.push_back(fill);
    }
  };

  // Begins to bring a page in.
  fetch_outcome Start(fetch *f, uint64_t page, uint32_t count = 1) {
    *f = {};
    f->done = [](fetch *) {};
    f->runner = &runner_.base;
    return image_fetch(f, mirror_, page, count);
  }

  void RunAll() {
    while (!fills_.empty()) {
      fill *fill = fills_.front();
      fills_.pop_front();
      image_run_fill(fill);
    }
  }

  bool IsResident(uint64_t page) { return view_is_resident(&view_, page); }

  // As a reader asks for a page that it misses, and for no other.
  void Read(uint64_t page) {
    if (IsResident(page))
      return;
    fetch f;
    Start(&f, page);
    RunAll();
    EXPECT_EQ(f.status, 0);
    fetch_fini(&f);
    EXPECT_TRUE(IsResident(page)) << page;
  }

  uint64_t n_pages_read() { return source_.n_bytes() / kPage; }

  FakeSource source_{kPages * kPage};
  page_cache *cache_ = nullptr;
  image *image_ = nullptr;
  mirror *mirror_ = nullptr;
  view view_{};
  std::deque<fill *> fills_;
  Runner runner_{{Runner::Run, nullptr, nullptr}, this};
};

TEST_F(GrowthTest, WhoReadsFromFrontToBackHasFewReadsAndNoneTwice) {
  for (uint64_t page = 0; page < kPages; page++)
    Read(page);
  EXPECT_EQ(n_pages_read(), kPages);
  EXPECT_LE(uint64_t(source_.n_reads()), kPages / kMost + 20);
}

TEST_F(GrowthTest, NoMoreIsReadInVainThanInEarnest) {
  for (uint64_t page = 1000; page < 2000; page++) {
    Read(page);
    ASSERT_LE(n_pages_read(), 2 * (page - 1000) + 2 * kBlock) << page;
  }
}

TEST_F(GrowthTest, SeveralBlocksAreUnderWayForHim) {
  for (uint64_t page = 0; page < 1200; page++)
    Read(page);
  uint64_t page = 1200;
  while (IsResident(page))
    page++;
  std::deque<fetch> fetches(4); // he comes on
  for (size_t i = 0; i < fetches.size(); i++)
    Start(&fetches[i], page + i);
  EXPECT_GE(fills_.size(), 6u) << "two at a time";
  RunAll();
  EXPECT_TRUE(IsResident(page + 5 * kMost));
  for (fetch &f : fetches)
    fetch_fini(&f);
}

TEST_F(GrowthTest, WhoJumpsAboutFetchesTheBlocksThatHeTouches) {
  std::mt19937 random(1);
  std::set<uint64_t> accessed;
  for (int i = 0; i < 20000; i++) {
    uint64_t page = random() % (kPages / 2);
    accessed.insert(page / kBlock);
    Read(page);
    ASSERT_LE(double(n_pages_read()),
              1.05 * double(accessed.size() * kBlock) + kMost);
  }
}

TEST_F(GrowthTest, AReaderWhoSkipsBlocksIsNotServedThose) {
  for (uint64_t page = 0; page < kPages; page += 2 * kBlock)
    Read(page);
  EXPECT_EQ(n_pages_read(), kPages / 2);
}

TEST_F(GrowthTest, ABlockDoesNotGrowWhereAReadIsWorthNoMore) {
  source_.SetWorth(0);
  for (uint64_t page = 0; page < kPages; page++)
    Read(page);
  EXPECT_EQ(uint64_t(source_.n_reads()), kPages / kBlock);
}

TEST_F(GrowthTest, OneThatMustNotGrowHasNothingReadAhead) {
  Unmake();
  Make(64 << 20, kBlock * kPage);
  for (uint64_t page = 0; page <= 800; page++)
    Read(page);
  EXPECT_EQ(n_pages_read(), 808u);
}

TEST_F(GrowthTest, WhatIsAheadIsASmallPartOfTheCache) {
  Unmake();
  Make(4 << 20, kMost * kPage); // 1024 pages
  for (uint64_t page = 0; page < kPages; page++) {
    Read(page);
    ASSERT_LE(n_pages_read(), page + 1024 / 16 + 1024 / 8) << page;
  }
}

TEST_F(GrowthTest, AReaderWhoRunsHisOwnFillsWaitsForNoOther) {
  for (uint64_t page = 0; page < 2000; page++) {
    if (IsResident(page))
      continue;
    uint64_t before = uint64_t(source_.n_reads());
    fetch f = {};
    f.done = [](fetch *) {};
    ASSERT_EQ(image_fetch(&f, mirror_, page, 1), FETCH_READY);
    fetch_fini(&f);
    EXPECT_EQ(uint64_t(source_.n_reads()), before + 1);
  }
  EXPECT_LE(source_.n_reads(), 60) << "they grow all the same";
}

// ---- Blocks of as many pages as there may be --------------------------------

class LongestTest : public GrowthTest {
protected:
  void SetUp() override { Make(64 << 20, 4 << 20); }

  // Reads on until a block of 1024 pages is under way; its first page.
  uint64_t BeginLongest(fetch *f) {
    uint64_t page = 0;
    for (; page < 3072; page++)
      Read(page);
    while (IsResident(page))
      page++;
    EXPECT_EQ(page, 3072u);
    Start(f, page);
    return page;
  }
};

TEST_F(LongestTest, OneReadBringsFourMegabytes) {
  fetch f;
  uint64_t page = BeginLongest(&f);
  int n_before = source_.n_reads();
  uint64_t n_bytes = source_.n_bytes();
  image_run_fill(fills_.front());
  fills_.pop_front();
  EXPECT_EQ(source_.n_reads(), n_before + 1);
  EXPECT_EQ(source_.n_bytes(), n_bytes + (4 << 20));
  ASSERT_TRUE(IsResident(page + 1023));
  EXPECT_EQ(memcmp(view_page(&view_, 12, page + 1023),
                   FakeSource::Bytes((page + 1023) * kPage, kPage).data(),
                   kPage),
            0);
  fetch_fini(&f);
}

TEST_F(LongestTest, ABadPageIsFoundWithinAFewReads) {
  fetch f, bad;
  source_.FailAt(3776 * kPage, EIO);
  uint64_t page = BeginLongest(&f);
  Start(&bad, 3775, 3);
  int n_before = source_.n_reads();
  image_run_fill(fills_.front());
  fills_.pop_front();
  EXPECT_LE(source_.n_reads() - n_before, 21) << "halves of halves";
  EXPECT_EQ(f.status, 0);
  EXPECT_EQ(bad.status, -EIO);
  EXPECT_EQ(fetch_first_bad(&bad), 3776u);
  EXPECT_TRUE(IsResident(page));
  EXPECT_TRUE(IsResident(3775));
  EXPECT_FALSE(IsResident(3776));
  EXPECT_TRUE(IsResident(page + 1023));
  fetch_fini(&f);
  fetch_fini(&bad);
}

TEST_F(LongestTest, WhatHitsAllPagesEndsAllOfThemAtOnce) {
  fetch f;
  uint64_t page = BeginLongest(&f);
  source_.FailReads(ETIMEDOUT);
  int n_before = source_.n_reads();
  image_run_fill(fills_.front());
  fills_.pop_front();
  EXPECT_EQ(source_.n_reads(), n_before + 1);
  EXPECT_EQ(f.status, -ETIMEDOUT);
  EXPECT_FALSE(IsResident(page));
  fetch_fini(&f);
  source_.FailReads(0, 0);
}

} // namespace

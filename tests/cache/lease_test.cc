#include "cache/lease.h"

#include <gtest/gtest.h>

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "cache/page_cache.h"
#include "tests/support/fake_source.h"

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPages = 16384;

class LeaseTest : public testing::Test {
protected:
  void SetUp() override {
    page_cache_options options = {kBudget, true};
    ASSERT_EQ(page_cache_new(&options, &cache_), 0);
    image_ops ops{};
    ASSERT_EQ(image_new(cache_, "fake", source_.Open(), 12, &ops, &image_), 0);
    mirror_ = image_mirror(image_);
  }
  void TearDown() override {
    for (lease *l : leases_)
      lease_free(l);
    mirror_unref(mirror_);
    image_free(image_);
    page_cache_free(cache_);
  }

  lease *New(int expect = 0) {
    lease *l = nullptr;
    EXPECT_EQ(lease_new(mirror_, &l), expect);
    if (l)
      leases_.push_back(l);
    return l;
  }

  void Load(uint64_t first, uint32_t count = 1) {
    fetch f{};
    ASSERT_EQ(fetch_start(&f, mirror_, first, count), FETCH_READY);
    ASSERT_EQ(f.status, 0);
    fetch_fini(&f);
  }

  // The client's side of a lease: its table, mapped again.
  pin_page *Map(lease *l) {
    pin_page *page = nullptr;
    EXPECT_EQ(pin_page_map(lease_take_fd(l), lease_range_capacity(l), &page),
              0);
    return page;
  }

  bool IsResident(uint64_t page) {
    return residency_look(&mirror_->words[page]) == PAGE_RESIDENT;
  }

  static constexpr uint64_t kBudget = 8192 * kPage;
  FakeSource source_{kPages * kPage};
  page_cache *cache_ = nullptr;
  image *image_ = nullptr;
  mirror *mirror_ = nullptr;
  std::vector<lease *> leases_;
};

TEST_F(LeaseTest, PinsInItHoldPagesAgainstEviction) {
  pin_page *page = Map(New());
  Load(7);
  __atomic_store_n(&page->slots[PIN_SLOT_PAGE], pin_word(7, 1),
                   __ATOMIC_RELEASE);
  for (uint64_t p = 100; p < kPages; p += 16)
    Load(p, p + 16 <= kPages ? 16 : 1);
  EXPECT_TRUE(IsResident(7));
  pin_page_unmap(page);
}

TEST_F(LeaseTest, WordsBeyondTheirCapacityHoldNothing) {
  lease *l = New();
  pin_page *page = Map(l);
  Load(0, 64);
  for (unsigned i = 0; i < PIN_N_SLOTS; i++)
    page->slots[i] = i < PIN_SLOT_RANGE
                         ? pin_word(0, 2)
                         : pin_word(0, lease_range_capacity(l) + 1);
  ASSERT_EQ(image_invalidate(image_, 0, 64), 0);
  EXPECT_TRUE(image_is_current(image_, mirror_));
  pin_page_unmap(page);
}

TEST_F(LeaseTest, OneLeaseIsAnEighthAndAllTogetherAreHalf) {
  uint64_t pages = 0;
  for (;;) {
    lease *l = nullptr;
    int r = lease_new(mirror_, &l);
    if (r == -EDQUOT)
      break;
    ASSERT_EQ(r, 0);
    leases_.push_back(l);
    uint64_t share =
        1 + PIN_N_PAGE_SLOTS + PIN_N_RANGE_SLOTS * lease_range_capacity(l);
    EXPECT_LE(share * kPage, kBudget / 8);
    pages += share;
  }
  EXPECT_GE(leases_.size(), 4u);
  EXPECT_LE(pages * kPage, kBudget / 2);
  lease_free(leases_.back());
  leases_.pop_back();
  New(); // its share is there again
}

TEST_F(LeaseTest, ACacheThatIsTooSmallGivesNone) {
  page_cache_options options = {100 * kPage, false};
  page_cache *small;
  image *image;
  image_ops ops{};
  ASSERT_EQ(page_cache_new(&options, &small), 0);
  ASSERT_EQ(image_new(small, "fake", source_.Open(), 12, &ops, &image), 0);
  mirror *m = image_mirror(image);
  lease *l = nullptr;
  EXPECT_EQ(lease_new(m, &l), -EDQUOT);
  EXPECT_EQ(l, nullptr);
  mirror_unref(m);
  image_free(image);
  page_cache_free(small);
}

TEST_F(LeaseTest, TheClientSaysWhenItIsDone) {
  lease *l = New();
  pin_page *page = Map(l);
  EXPECT_FALSE(lease_is_done(l));
  pin_page_unmap(page);
  EXPECT_TRUE(lease_is_done(l));
}

TEST_F(LeaseTest, WhatIsNoTableIsRefused) {
  pin_page *page = nullptr;
  lease *l = New();
  EXPECT_EQ(pin_page_map(lease_take_fd(l), lease_range_capacity(l) + 1, &page),
            -EPROTO);
  EXPECT_EQ(pin_page_map(dup(0), 1, &page), -EPROTO);
  int unsealed = memfd_create("t", MFD_ALLOW_SEALING);
  ASSERT_EQ(ftruncate(unsealed, PIN_PAGE_LEN), 0);
  EXPECT_EQ(pin_page_map(unsealed, 1, &page), -EPROTO) << "it can be cut";
}

TEST_F(LeaseTest, ABorrowedMirrorShowsWhatIsThere) {
  Load(9);
  mirror_fds fds;
  ASSERT_EQ(mirror_lend(mirror_, &fds), 0);
  EXPECT_EQ(mmap(nullptr, kPage, PROT_WRITE, MAP_SHARED, fds.pages, 0),
            MAP_FAILED);
  EXPECT_EQ(mmap(nullptr, kPage, PROT_WRITE, MAP_SHARED, fds.words, 0),
            MAP_FAILED);
  mirror *m = nullptr;
  ASSERT_EQ(mirror_borrow(&fds, mirror_->size, 12, mirror_->epoch, &m), 0);
  EXPECT_EQ(residency_look(&m->words[9]), PAGE_RESIDENT);
  EXPECT_EQ(residency_look(&m->words[8]), PAGE_ABSENT);
  EXPECT_EQ(memcmp(m->base + 9 * kPage,
                   FakeSource::Bytes(9 * kPage, kPage).data(), kPage),
            0);
  mirror_free(m);
}

TEST_F(LeaseTest, ABorrowedMirrorThatIsNotWhatItSaysIsRefused) {
  mirror *m = nullptr;
  mirror_fds fds;
  ASSERT_EQ(mirror_lend(mirror_, &fds), 0);
  EXPECT_EQ(mirror_borrow(&fds, mirror_->size + kPage, 12, mirror_->epoch, &m),
            -EPROTO);
  ASSERT_EQ(mirror_lend(mirror_, &fds), 0);
  EXPECT_EQ(mirror_borrow(&fds, mirror_->size, 12, mirror_->epoch + 1, &m),
            -EPROTO);
  EXPECT_EQ(m, nullptr);
}

// A process that reads holes makes them take memory; the janitor takes it back.
TEST_F(LeaseTest, TheJanitorPunchesWhatNobodyAccountedFor) {
  mirror_fds fds;
  mirror *m = nullptr;
  ASSERT_EQ(mirror_lend(mirror_, &fds), 0);
  ASSERT_EQ(mirror_borrow(&fds, mirror_->size, 12, mirror_->epoch, &m), 0);
  Load(3);
  volatile uint8_t sum = 0;
  for (uint64_t page = 0; page < kPages; page++)
    sum = sum + m->base[page * kPage];
  while (mirror_page_bytes(mirror_) > kPage)
    usleep(1000); // a condition that has to come true
  EXPECT_TRUE(IsResident(3));
  EXPECT_EQ(memcmp(m->base + 3 * kPage,
                   FakeSource::Bytes(3 * kPage, kPage).data(), kPage),
            0);
  Load(0, 64);
  EXPECT_EQ(
      memcmp(m->base, FakeSource::Bytes(0, 64 * kPage).data(), 64 * kPage), 0)
      << "a fill writes into holes";
  mirror_free(m);
}

TEST_F(LeaseTest, TheJanitorFreesARetiredMirrorWhenItsPinsEnd) {
  pin_page *page = Map(New());
  Load(7);
  Load(20, 8);
  page->slots[PIN_SLOT_CURSOR] = pin_word(7, 1);
  page->slots[PIN_SLOT_RANGE] = pin_word(20, 8);
  ASSERT_EQ(image_invalidate(image_, 7, 1), 0);
  EXPECT_TRUE(mirror_is_retired(mirror_));
  EXPECT_EQ(mirror_page_bytes(mirror_), 9 * kPage);
  page->slots[PIN_SLOT_RANGE] = 0;
  while (mirror_page_bytes(mirror_) > kPage)
    usleep(1000);
  EXPECT_EQ(memcmp(mirror_->base + 7 * kPage,
                   FakeSource::Bytes(7 * kPage, kPage).data(), kPage),
            0);
  page->slots[PIN_SLOT_CURSOR] = 0;
  while (mirror_page_bytes(mirror_) > 0)
    usleep(1000);
  pin_page_unmap(page);
}

// Looking at a large image makes its words take memory; that is given back.
TEST(Janitor, WordsOfALargeImageStayWithinTheBudget) {
  FakeSource source(1ull << 36);
  page_cache_options options = {1024 * kPage, true};
  page_cache *cache;
  image *image;
  image_ops ops{};
  ASSERT_EQ(page_cache_new(&options, &cache), 0);
  ASSERT_EQ(image_new(cache, "large", source.Open(), 12, &ops, &image), 0);
  mirror *m = image_mirror(image);
  for (uint64_t page = 0; page < m->n_pages; page += 4096) {
    fetch f{};
    ASSERT_EQ(fetch_start(&f, m, page, 1), FETCH_READY);
    ASSERT_EQ(f.status, 0);
    fetch_fini(&f);
  }
  fetch f{};
  ASSERT_EQ(fetch_start(&f, m, 77, 1), FETCH_READY);
  fetch_fini(&f);
  EXPECT_EQ(residency_look(&m->words[77]), PAGE_RESIDENT)
      << "and the cache is of use";
  while (page_cache_allocated(cache) > 1024 * kPage)
    usleep(1000);
  mirror_unref(m);
  image_free(image);
  page_cache_free(cache);
}

} // namespace

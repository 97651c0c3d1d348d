#include <gtest/gtest.h>

#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "cache/check.h"
#include "cache/evict.h"
#include "cache/fetch.h"
#include "cache/image.h"
#include "cache/internal.h"
#include "cache/page_cache.h"
#include "cache/shared_pins.h"
#include "cache/view.h"
#include "tests/support/fake_source.h"

// The mirror whose punches are watched, and how many of them were said to be
// slow.  The cache's calls of fallocate() come here.
static const mirror *watched;
static int n_punches, n_slow;

extern "C" int fallocate(int fd, int mode, off_t at, off_t len) {
  if (watched && fd == watched->pages_fd) {
    n_punches++;
    n_slow += __atomic_load_n(&watched->n_slow_punches, __ATOMIC_RELAXED) > 0;
  }
  return (int)syscall(SYS_fallocate, fd, mode, at, len);
}

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPages = 4096;

// One image, filled on the calling thread, in a cache that is too small.
class EvictTest : public testing::Test {
protected:
  void SetUp() override { Make(256 * kPage); }

  void Make(uint64_t budget) {
    page_cache_options options = {budget, false, nullptr};
    ASSERT_EQ(page_cache_new(&options, &cache_), 0);
    image_ops ops{};
    ASSERT_EQ(image_new(cache_, "fake", source_.Open(), 12, &ops, &image_), 0);
    mirror_ = image_mirror(image_);
    ASSERT_EQ(view_open(&view_, mirror_), 0);
  }

  void TearDown() override {
    check_cache(cache_);
    for (unsigned i = 0; i < PIN_N_SLOTS; i++)
      view_unpin(&view_, i);
    view_close(&view_);
    mirror_unref(mirror_);
    image_free(image_);
    page_cache_free(cache_);
  }

  void Remake(uint64_t budget) {
    TearDown();
    Make(budget);
  }

  // Brings pages in; the bytes are checked.
  void Load(uint64_t first, uint32_t count = 1) {
    fetch f{};
    f.done = [](fetch *) { FAIL() << "nobody else fills"; };
    ASSERT_EQ(image_fetch(&f, mirror_, first, count), FETCH_READY);
    ASSERT_EQ(f.status, 0);
    for (uint64_t page = first; page < first + count; page++) {
      const uint8_t *bytes = fetch_bytes(&f, page);
      ASSERT_TRUE(!bytes || Correct(bytes, page));
    }
    fetch_fini(&f);
  }

  bool Correct(const uint8_t *bytes, uint64_t page) {
    return !memcmp(bytes, FakeSource::Bytes(page * kPage, kPage).data(), kPage);
  }

  uint64_t Resident() {
    uint64_t n = 0;
    for (uint64_t page = 0; page < kPages; page++)
      n += view_is_resident(&view_, page);
    return n;
  }

  page_cache_stats Stats() {
    page_cache_stats stats;
    page_cache_get_stats(cache_, &stats);
    return stats;
  }

  FakeSource source_{kPages * kPage};
  page_cache *cache_ = nullptr;
  image *image_ = nullptr;
  mirror *mirror_ = nullptr;
  view view_{};
};

TEST_F(EvictTest, TheBudgetHoldsWhateverIsRead) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; i++) {
    uint32_t count = 1 + random() % 16;
    Load(random() % (kPages - count), count);
    ASSERT_LE(page_cache_allocated(cache_), 256 * kPage);
    ASSERT_LE(Stats().used, 256 * kPage);
  }
  EXPECT_GT(Resident(), 200u) << "and most of it is used";
  EXPECT_EQ(mirror_page_bytes(mirror_), Resident() * kPage);
}

class ManyTablesTest : public EvictTest {
protected:
  // Evicts with so many tables of other processes.  Returns whether its punches
  // were said to be slow.
  bool EvictWith(unsigned n_tables) {
    std::vector<shared_pins *> more(n_tables);
    for (shared_pins *&l : more)
      EXPECT_EQ(shared_pins_new(mirror_, &l), 0);
    watched = mirror_;
    n_punches = n_slow = 0;
    for (uint64_t page = 0; page < kPages; page += 16)
      Load(page, 16);
    watched = nullptr;
    for (shared_pins *l : more)
      shared_pins_free(l);
    EXPECT_GT(n_punches, 0);
    EXPECT_TRUE(n_slow == 0 || n_slow == n_punches);
    EXPECT_EQ(mirror_->n_slow_punches, 0u);
    return n_slow > 0;
  }
};

TEST_F(ManyTablesTest, PunchesAreSlow) {
  Remake(kPages * kPage / 4);
  EXPECT_FALSE(EvictWith(EVICT_MANY_LENT - 1));
  EXPECT_TRUE(EvictWith(EVICT_MANY_LENT));
  EXPECT_FALSE(EvictWith(0)) << "they are gone";
}

TEST_F(ManyTablesTest, TheMappingOfALongMirrorWouldCostTooMuch) {
  Remake(kPages * kPage / 4 - kPage);
  EXPECT_FALSE(EvictWith(EVICT_MANY_LENT));
}

TEST_F(EvictTest, PinnedPagesSurviveAndKeepTheirBytes) {
  for (unsigned i = 0; i < PIN_N_PAGE_SLOTS; i++) {
    Load(i * 20);
    ASSERT_TRUE(view_pin_page(&view_, PIN_SLOT_PAGE + i, i * 20));
  }
  for (uint64_t page = 2048; page < kPages; page++)
    Load(page);
  for (unsigned i = 0; i < PIN_N_PAGE_SLOTS; i++) {
    EXPECT_TRUE(view_is_resident(&view_, i * 20));
    EXPECT_TRUE(Correct(view_page(&view_, 12, i * 20), i * 20));
  }
}

TEST_F(EvictTest, ARangePinHoldsItsPagesAndNoOthers) {
  uint32_t capacity = pin_capacity(view_.table, PIN_SLOT_RANGE);
  ASSERT_GE(capacity, 8u);
  Load(100, capacity);
  view_pin(&view_, PIN_SLOT_RANGE, 100, capacity);
  for (uint64_t page = 1024; page < kPages; page++)
    Load(page);
  for (uint64_t page = 100; page < 100 + capacity; page++)
    EXPECT_TRUE(view_is_resident(&view_, page));
}

TEST_F(EvictTest, AWordBeyondItsSlotsCapacityIsVoid) {
  Load(100, 10);
  view_.table->is_lent = true; // a reader of this process stores none
  mirror_->n_lent++;
  view_pin(&view_, PIN_SLOT_PAGE, 100, 2);
  view_pin(&view_, PIN_SLOT_RANGE, 100,
           pin_capacity(view_.table, PIN_SLOT_RANGE) + 1);
  __atomic_store_n(&view_.table->slots[PIN_SLOT_PAGE + 1],
                   pin_word(PIN_MAX_PAGE, PIN_MAX_COUNT), __ATOMIC_RELEASE);
  ASSERT_EQ(image_invalidate(image_, 100, 10), 0);
  EXPECT_TRUE(image_is_current(image_, mirror_)) << "nothing was pinned";
  EXPECT_FALSE(view_is_resident(&view_, 100));
}

TEST_F(EvictTest, AnInvalidatedPageThatIsPinnedIsLetGoWithItsPin) {
  Load(4, 3);
  ASSERT_TRUE(view_pin_page(&view_, PIN_SLOT_PAGE, 5));
  ASSERT_EQ(image_invalidate(image_, 0, kPages), 0);
  EXPECT_TRUE(image_is_current(image_, mirror_));
  EXPECT_EQ(mirror_page_bytes(mirror_), kPage);
  EXPECT_TRUE(Correct(view_page(&view_, 12, 5), 5));
  Load(5);
  EXPECT_FALSE(view_is_resident(&view_, 5)) << "it is pinned still";
  view_unpin(&view_, PIN_SLOT_PAGE);
  Load(5);
  EXPECT_TRUE(view_is_resident(&view_, 5));
  EXPECT_EQ(mirror_page_bytes(mirror_), kPage);
}

TEST_F(EvictTest, ManyInvalidatedPagesMayBePinned) {
  uint32_t capacity = pin_capacity(view_.table, PIN_SLOT_RANGE);
  for (unsigned i = 0; i < PIN_N_PAGE_SLOTS; i++) {
    Load(i * 3);
    ASSERT_TRUE(view_pin_page(&view_, PIN_SLOT_PAGE + i, i * 3));
  }
  Load(1000, capacity);
  view_pin(&view_, PIN_SLOT_RANGE, 1000, capacity);
  ASSERT_EQ(image_invalidate(image_, 0, kPages), 0);
  EXPECT_EQ(mirror_page_bytes(mirror_), (PIN_N_PAGE_SLOTS + capacity) * kPage);
  for (unsigned i = 0; i < PIN_N_PAGE_SLOTS; i += 2)
    view_unpin(&view_, PIN_SLOT_PAGE + i);
  Load(2000); // which looks whether pins have ended
  EXPECT_EQ(mirror_page_bytes(mirror_),
            (PIN_N_PAGE_SLOTS / 2 + capacity + 1) * kPage);
  for (unsigned i = 1; i < PIN_N_PAGE_SLOTS; i += 2)
    EXPECT_TRUE(Correct(view_page(&view_, 12, i * 3), i * 3));
}

TEST_F(EvictTest, WhenEverythingIsPinnedPagesAreReadWithoutRoom) {
  Remake(40 * kPage);
  unsigned n = 0;
  for (uint64_t page = 0; n < PIN_N_PAGE_SLOTS; page++, n++) {
    Load(page);
    view_pin_page(&view_, PIN_SLOT_PAGE + n, page);
  }
  EXPECT_LE(page_cache_allocated(cache_), 40 * kPage);
  uint64_t resident = Resident();
  EXPECT_GT(resident, 30u);
  Load(1000, 20);
  EXPECT_EQ(Resident(), resident);
  EXPECT_GT(Stats().n_uncached_pages, 0u);
  view_unpin(&view_, PIN_SLOT_PAGE);
  Load(1000);
  EXPECT_TRUE(view_is_resident(&view_, 1000)) << "there is room for one again";
}

TEST_F(EvictTest, ACacheOfNoPagesStillAnswers) {
  Remake(0);
  Load(5, 20);
  EXPECT_EQ(Resident(), 0u);
  Remake(kPage);
  Load(5, 20);
}

TEST_F(EvictTest, ASmallCacheServesAllItsPagesInTurn) {
  Remake(16 * kPage);
  for (uint64_t page = 0; page < 300; page++)
    Load(page % 40);
  EXPECT_LE(page_cache_allocated(cache_), 16 * kPage);
}

TEST_F(EvictTest, ManyPagesLeaveByFewBarriers) {
  for (uint64_t page = 0; page < kPages; page += 16)
    Load(page, 16);
  auto stats = Stats();
  EXPECT_GT(stats.n_evicted_pages, 3000u);
  EXPECT_LE(stats.n_batches, stats.n_evicted_pages / 8);
}

TEST_F(EvictTest, AGroupHasItsResidentPagesThatWereNotUsed) {
  Load(35, 10);
  mirror_->accessed[36] = ACCESSED;
  mirror_->accessed[37] = ACCESSED_NOT;
  mirror_->accessed[40] = 0xff; // a client may store any value
  pthread_mutex_lock(&cache_->lock);
  uint32_t unused = evict_unused_pages(cache_, s3fifo_key(mirror_->id, 32));
  pthread_mutex_unlock(&cache_->lock);
  EXPECT_EQ(unused, 0x1ff8u & ~(1u << 4));
}

TEST_F(EvictTest, NeitherHitsNorMissesWaitForAScanOfThePins) {
  pthread_mutex_lock(&cache_->pins_lock); // as a scan does
  Load(7);
  EXPECT_TRUE(view_pin_page(&view_, PIN_SLOT_CURSOR, 7));
  view_unpin(&view_, PIN_SLOT_CURSOR);
  pthread_mutex_unlock(&cache_->pins_lock);
}

TEST_F(EvictTest, TwoImagesShareOneBudget) {
  FakeSource other_source(kPages * kPage);
  image *other;
  image_ops ops{};
  ASSERT_EQ(image_new(cache_, "other", other_source.Open(), 12, &ops, &other),
            0);
  mirror *m = image_mirror(other);
  for (uint64_t page = 0; page < 1000; page++) {
    Load(page);
    fetch f{};
    ASSERT_EQ(image_fetch(&f, m, page, 1), FETCH_READY);
    fetch_fini(&f);
    ASSERT_LE(page_cache_allocated(cache_), 256 * kPage);
  }
  EXPECT_GT(mirror_page_bytes(m), 50 * kPage);
  EXPECT_GT(mirror_page_bytes(mirror_), 50 * kPage);
  mirror_unref(m);
  image_free(other);
}

// An evictor thread keeps room ahead of need.
TEST(Evictor, KeepsPagesFreeOnceTheCacheIsFull) {
  FakeSource source(kPages * kPage);
  page_cache_options options = {1024 * kPage, true, nullptr};
  page_cache *cache;
  image *image;
  image_ops ops{};
  ASSERT_EQ(page_cache_new(&options, &cache), 0);
  ASSERT_EQ(image_new(cache, "fake", source.Open(), 12, &ops, &image), 0);
  mirror *m = image_mirror(image);
  for (uint64_t page = 0; page < kPages; page += 8) {
    fetch f{};
    ASSERT_EQ(image_fetch(&f, m, page, 8), FETCH_READY);
    ASSERT_EQ(f.status, 0);
    fetch_fini(&f);
    ASSERT_LE(page_cache_allocated(cache), 1024 * kPage);
  }
  // It works on its own: the condition comes true without another miss.
  page_cache_stats stats;
  do
    page_cache_get_stats(cache, &stats);
  while (stats.used > stats.budget - stats.budget / 64);
  mirror_unref(m);
  image_free(image);
  page_cache_free(cache);
}

} // namespace

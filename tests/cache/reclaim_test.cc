// What is given back, when, and by which thread: states that hold nothing,
// retired mirrors, mirrors without references.
#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "cache/check.h"
#include "cache/image.h"
#include "cache/page_cache.h"
#include "cache/reclaim.h"
#include "cache/shared_pins.h"
#include "cache/states.h"
#include "cache/view.h"
#include "tests/cache/fetch.h"
#include "tests/support/fake_source.h"

// What happens, once, while somebody punches.
static std::atomic<const std::function<void()> *> g_amid_punch;

// In place of libc's.
extern "C" int fallocate(int fd, int mode, off_t at, off_t len) {
  if (mode & FALLOC_FL_PUNCH_HOLE) {
    auto *amid = g_amid_punch.exchange(nullptr);
    if (amid)
      (*amid)();
  }
  return int(syscall(SYS_fallocate, fd, mode, at, len));
}

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kBlock = STATES_PER_BLOCK;

// Of the address space that tsan leaves only a part can be had.
#ifdef __SANITIZE_THREAD__
constexpr uint64_t kHuge = 1ull << 36;
#else
constexpr uint64_t kHuge = 1ull << 42;
#endif

// Waits for a condition that has to come true.
void Await(const std::function<bool()> &is) {
  while (!is())
    usleep(1000);
}

uint64_t Allocated(int fd) {
  struct stat st;
  EXPECT_EQ(fstat(fd, &st), 0);
  return uint64_t(st.st_blocks) * 512;
}

bool IsResident(const mirror *m, uint64_t page) {
  return page_state_look(&m->states[page]) == PAGE_RESIDENT;
}

// What a client has that attached a mirror.
struct Client {
  explicit Client(mirror *m) {
    shared_pins_size most = {PIN_MAX_PAGE_SLOTS, 8};
    EXPECT_EQ(shared_pins_new(m, &lease), 0);
    EXPECT_EQ(shared_pins_give(lease, 0, most, most, nullptr), 0);
    EXPECT_EQ(mirror_lend(m, &fds), 0);
    EXPECT_EQ(shared_pins_map(shared_pins_take_fd(lease),
                              shared_pins_get_size(lease).range_capacity,
                              &table),
              0);
  }
  ~Client() {
    shared_pins_free(lease);
    mirror_fds_close(&fds);
    shared_pins_unmap(table);
  }
  void Pin(uint64_t first, uint32_t count) {
    __atomic_store_n(&table->slots[PIN_SLOT_RANGE], pin_word(first, count),
                     __ATOMIC_RELEASE);
  }
  // Its process has ended, or says that it reads no more.
  void End() {
    shared_pins_free(lease);
    lease = nullptr;
  }
  void ReadHole(uint64_t page) {
    void *p = mmap(nullptr, kPage, PROT_READ, MAP_SHARED, fds.pages,
                   off_t(page * kPage));
    ASSERT_NE(p, MAP_FAILED);
    EXPECT_EQ(*static_cast<volatile uint8_t *>(p), 0);
    munmap(p, kPage);
  }

  shared_pins *lease = nullptr;
  mirror_fds fds{};
  pin_page *table = nullptr;
};

class ReclaimTest : public testing::Test {
protected:
  void Make(uint64_t budget, bool threads, uint64_t size) {
    page_cache_options options = {budget, threads, nullptr};
    ASSERT_EQ(page_cache_new(&options, &cache_), 0);
    source_ = std::make_unique<FakeSource>(size);
    image_ops ops{};
    ops.changed = [](void *arg, image *) {
      auto *t = static_cast<ReclaimTest *>(arg);
      if (t->on_changed_)
        t->on_changed_();
    };
    ops.arg = this;
    ASSERT_EQ(image_new(cache_, "fake", source_->Open(), 12, &ops, &image_), 0);
  }
  void TearDown() override {
    client_.reset();
    check_cache(cache_);
    if (image_)
      image_free(image_);
    page_cache_free(cache_);
  }

  // What another process may do that was given the memory: it maps it all, and
  // reads every state, which makes each take memory.
  static void ReadAllStates(mirror *m) {
    mirror_fds fds;
    mirror *mapped = nullptr;
    ASSERT_EQ(mirror_lend(m, &fds), 0);
    ASSERT_EQ(mirror_borrow(&fds, m->size, 12, m->epoch, &mapped), 0);
    volatile uint8_t sum = 0;
    for (uint64_t page = 0; page < m->n_pages; page += kBlock)
      sum = sum + mapped->states[page];
    mirror_free(mapped);
  }

  uint64_t Used() {
    page_cache_stats stats;
    page_cache_get_stats(cache_, &stats);
    return stats.used;
  }

  // Fills an image of 512 pages, which a client attaches and whose first eight
  // pages it pins.  Then `leave` ends the present epoch of the image, which
  // leaves only those.
  void Leave(const std::function<void()> &leave) {
    Make(4096 * kPage, true, 512 * kPage);
    mirror *m = image_mirror(image_);
    client_ = std::make_unique<Client>(m);
    for (uint64_t page = 0; page < 512; page += 64)
      ASSERT_EQ(Fetch(m, page, 64), 0);
    client_->Pin(0, 8);
    mirror_unref(m);
    EXPECT_EQ(Allocated(client_->fds.pages), 512 * kPage);
    leave();
    Await([&] { return Allocated(client_->fds.pages) == 8 * kPage; });
  }
  void BeginEpoch() {
    source_->Change(512 * kPage);
    ASSERT_EQ(image_refresh(image_, 0), 0);
  }
  void FreeImage() {
    image_free(image_);
    image_ = nullptr;
  }

  page_cache *cache_ = nullptr;
  image *image_ = nullptr;
  std::unique_ptr<Client> client_;
  std::unique_ptr<FakeSource> source_;
  std::function<void()> on_changed_;
};

TEST_F(ReclaimTest, StatesThatAnotherProcessReadAreGivenBack) {
  Make(1024 * kPage, true, 1ull << 38);
  mirror *m = image_mirror(image_);
  ASSERT_EQ(Fetch(m, 7 * kBlock), 0);
  ReadAllStates(m);
  Await([&] { return mirror_meta_bytes(m) < 1024 * kPage / 16; });
  EXPECT_TRUE(IsResident(m, 7 * kBlock)) << "what holds something stays";
  mirror_unref(m);
}

// The threads that would do it are not there, so nothing but the miss could.
TEST_F(ReclaimTest, AMissSweepsNoMoreThanAFewBlocks) {
  Make(1024 * kPage, false, 1ull << 38);
  mirror *m = image_mirror(image_);
  ReadAllStates(m);
  uint64_t before = mirror_meta_bytes(m);
  ASSERT_GT(before, 60u << 20);
  ASSERT_EQ(Fetch(m, 5), 0);
  EXPECT_GT(mirror_meta_bytes(m) + (9 << 20), before);
  EXPECT_TRUE(IsResident(m, 5)) << "and it has room all the same";
  mirror_unref(m);
}

TEST_F(ReclaimTest, AnInvalidationOfAllPassesByWhatHoldsNothing) {
  Make(1024 * kPage, true, kHuge);
  mirror *m = image_mirror(image_);
  for (uint64_t page = 0; page < 64 * kBlock; page += kBlock)
    ASSERT_EQ(Fetch(m, page), 0);
  ASSERT_EQ(Fetch(m, m->n_pages - 1), 0);
  // It would take minutes to look at each state, and gigabytes.
  ASSERT_EQ(image_invalidate(image_, 0, UINT64_MAX), 0);
  EXPECT_EQ(mirror_page_bytes(m), 0u);
  EXPECT_LT(mirror_meta_bytes(m), 16u << 20);
  mirror_unref(m);
}

// A page alone in its block costs two pages for its states.
TEST_F(ReclaimTest, ReadsAtRandomOfALargeImageStayWithinTheBudget) {
  constexpr uint64_t kBudget = 16 << 20;
  Make(kBudget, true, kHuge);
  mirror *m = image_mirror(image_);
  std::mt19937_64 random(1);
  for (int i = 0; i < 20000; i++) {
    ASSERT_EQ(Fetch(m, random() % m->n_pages), 0);
    if (i % 64 == 0) {
      ASSERT_LE(page_cache_allocated(cache_), kBudget);
    }
  }
  // And what is read twice is there the second time.
  uint64_t page = random() % m->n_pages;
  do
    ASSERT_EQ(Fetch(m, page), 0);
  while (!IsResident(m, page));
  mirror_unref(m);
}

TEST_F(ReclaimTest, InProcessTheSameHolds) {
  constexpr uint64_t kBudget = 4 << 20;
  Make(kBudget, false, kHuge);
  mirror *m = image_mirror(image_);
  std::mt19937_64 random(1);
  unsigned n_resident = 0;
  for (int i = 0; i < 5000; i++) {
    uint64_t page = random() % m->n_pages;
    ASSERT_EQ(Fetch(m, page), 0);
    n_resident += IsResident(m, page);
    ASSERT_LE(page_cache_allocated(cache_), kBudget);
  }
  EXPECT_GT(n_resident, 4500u);
  mirror_unref(m);
}

// The looks at many images leave room for what is read all the time.
TEST_F(ReclaimTest, StatesOfManyImagesDoNotEatTheCache) {
  constexpr int kImages = 32;
  constexpr uint64_t kWorkingSet = 1024;
  Make(16 << 20, true, kWorkingSet * kPage);
  FakeSource large(1ull << 32);
  std::vector<image *> images(kImages);
  for (auto &img : images) {
    image_ops ops{};
    ASSERT_EQ(image_new(cache_, "other", large.Open(), 12, &ops, &img), 0);
    mirror *m = image_mirror(img);
    for (uint64_t i = 0; i < 120; i++)
      ASSERT_EQ(Fetch(m, i * kBlock * 2 % m->n_pages), 0);
    mirror_unref(m);
  }
  mirror *m = image_mirror(image_);
  auto pass = [&] {
    uint64_t n_missed = 0;
    for (uint64_t page = 0; page < kWorkingSet; page++) {
      n_missed += !IsResident(m, page);
      EXPECT_EQ(Fetch(m, page), 0);
    }
    return n_missed;
  };
  // The first passes make room; soon all of it stays.
  int n_passes = 0;
  while (pass() > 0)
    ASSERT_LT(++n_passes, 20);
  mirror_unref(m);
  for (auto *img : images)
    image_free(img);
}

// Here another thread would do it.
TEST_F(ReclaimTest, StatesThatAreBeingSweptStayUntilThatIsOver) {
  Make(1024 * kPage, false, 4 * kBlock * kPage);
  mirror *m = image_mirror(image_);
  ASSERT_EQ(Fetch(m, 0), 0);
  ASSERT_EQ(image_invalidate(image_, 0, UINT64_MAX), 0);
  const std::function<void()> retire = [&] {
    source_->Change(4 * kBlock * kPage);
    ASSERT_EQ(image_refresh(image_, 0), 0);
    EXPECT_TRUE(mirror_is_retired(m));
    EXPECT_GT(m->n_blocks, 0u);
  };
  g_amid_punch = &retire;
  EXPECT_TRUE(states_sweep(m));
  EXPECT_EQ(g_amid_punch, nullptr);
  reclaim_round(cache_, false);
  EXPECT_EQ(mirror_meta_bytes(m), uint64_t{MIRROR_HEADER_LEN});
  mirror_unref(m);
}

TEST_F(ReclaimTest, StatesOfPagesThatAreBeingPunchedStayUntilThatIsOver) {
  Make(1024 * kPage, false, 4 * kBlock * kPage);
  mirror *m = image_mirror(image_), *mapped = nullptr;
  ASSERT_EQ(Fetch(m, 0), 0);
  mirror_fds fds;
  ASSERT_EQ(mirror_lend(m, &fds), 0);
  ASSERT_EQ(mirror_borrow(&fds, m->size, 12, m->epoch, &mapped), 0);
  const volatile uint8_t *hole = mapped->base + kPage;
  EXPECT_EQ(*hole, 0) << "which takes memory now";
  ASSERT_EQ(mirror_page_bytes(m), 2 * kPage);
  const std::function<void()> retire = [&] {
    source_->Change(4 * kBlock * kPage);
    ASSERT_EQ(image_refresh(image_, 0), 0);
    EXPECT_TRUE(mirror_is_retired(m));
    EXPECT_GT(m->n_blocks, 0u);
  };
  g_amid_punch = &retire;
  reclaim_round(cache_, false);
  EXPECT_EQ(g_amid_punch, nullptr);
  reclaim_round(cache_, false);
  EXPECT_EQ(m->n_blocks, 0u);
  mirror_free(mapped);
  mirror_unref(m);
}

TEST_F(ReclaimTest, ANewEpochIsToldBeforeTheOldOneIsTakenDown) {
  Make(4096 * kPage, false, 2048 * kPage);
  mirror *m = image_mirror(image_);
  for (uint64_t page = 0; page < 2048; page += 64)
    ASSERT_EQ(Fetch(m, page, 64), 0);
  bool was_told = false;
  on_changed_ = [&] {
    was_told = true;
    EXPECT_TRUE(mirror_is_retired(m));
    EXPECT_EQ(mirror_page_bytes(m), 2048 * kPage) << "it is all there yet";
    EXPECT_FALSE(image_is_current(image_, m));
  };
  source_->Change(2048 * kPage);
  ASSERT_EQ(image_refresh(image_, 0), 0);
  EXPECT_TRUE(was_told);
  EXPECT_EQ(mirror_page_bytes(m), 0u);
  on_changed_ = nullptr;
  mirror_unref(m);
}

// Descriptors of the memory outlive everything; its pages do not.
TEST_F(ReclaimTest, TheLastReferencePunchesWhatWasPinned) {
  Leave([&] { BeginEpoch(); });
  client_->End();
  Await([&] { return Allocated(client_->fds.pages) == 0; });
  Await([&] { return Used() == MIRROR_HEADER_LEN; }); // the present mirror's
}

TEST_F(ReclaimTest, AnImageThatIsFreedKeepsWhatIsPinnedAndNothingElse) {
  Leave([&] { FreeImage(); });
  Await([&] { return Used() == 8 * kPage + MIRROR_HEADER_LEN + PIN_PAGE_LEN; });
  client_->ReadHole(100);
  Await([&] { return Allocated(client_->fds.pages) == 8 * kPage; });
  client_->End();
  Await([&] { return Allocated(client_->fds.pages) == 0; });
  Await([&] { return Used() == 0; });
}

// The cache's owner ends, and the client that has the pins does not.
TEST_F(ReclaimTest, WhatAPastEpochHasPinnedOutlivesTheOwnerOfTheCache) {
  Leave([&] { BeginEpoch(); });
  page_cache_stop_threads(cache_);
  client_->End();
  EXPECT_EQ(Allocated(client_->fds.pages), 8 * kPage);
}

TEST_F(ReclaimTest, WhatAFreedImageHasPinnedOutlivesTheOwnerOfTheCache) {
  Leave([&] { FreeImage(); });
  page_cache_stop_threads(cache_);
  client_->End();
  EXPECT_EQ(Allocated(client_->fds.pages), 8 * kPage);
}

// Each epoch's mirror is kept by a client that does nothing.
TEST_F(ReclaimTest, EpochsThatAreKeptUseUpNoAddressSpace) {
  Make(64 << 20, true, kHuge);
  std::vector<mirror *> kept;
  for (int i = 0; i < 100; i++) {
    mirror *m = image_mirror(image_);
    view v{};
    ASSERT_EQ(view_open(&v, m), 0) << "epoch " << i;
    ASSERT_EQ(Fetch(m, uint64_t(i) * 100), 0);
    view_close(&v);
    kept.push_back(m);
    source_->Change(kHuge);
    ASSERT_EQ(image_refresh(image_, 0), 0) << "epoch " << i;
  }
  for (mirror *m : kept)
    mirror_unref(m);
}

TEST_F(ReclaimTest, AnImageIsRetiredAtTheEndForThoseWhoHaveItMapped) {
  Make(4096 * kPage, true, 64 * kPage);
  mirror *m = image_mirror(image_), *mapped = nullptr;
  ASSERT_EQ(Fetch(m, 0, 64), 0);
  mirror_fds fds;
  ASSERT_EQ(mirror_lend(m, &fds), 0);
  ASSERT_EQ(mirror_borrow(&fds, m->size, 12, m->epoch, &mapped), 0);
  mirror_unref(m);
  page_cache_stop_threads(cache_);
  image_free(image_);
  image_ = nullptr;
  EXPECT_TRUE(mirror_is_retired(mapped));
  for (uint64_t page = 0; page < 64; page++)
    EXPECT_FALSE(IsResident(mapped, page));
  EXPECT_EQ(
      memcmp(mapped->base, FakeSource::Bytes(0, 64 * kPage).data(), 64 * kPage),
      0)
      << "what is pinned there stays";
  mirror_free(mapped);
}

} // namespace

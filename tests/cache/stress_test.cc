// Readers, fills, evictions, invalidations and new epochs all at once, with
// every byte that is read under a pin checked.
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "cache/check.h"
#include "cache/evict.h"
#include "cache/fetch.h"
#include "cache/image.h"
#include "cache/page_cache.h"
#include "cache/shared_pins.h"
#include "cache/view.h"
#include "tests/support/fake_source.h"
#include "tests/support/length.h"

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPages = 512;
constexpr uint64_t kZeros = 384; // from here on they are, in each version

class Event {
public:
  void Set() {
    std::lock_guard<std::mutex> lock(mutex_);
    set_ = true;
    changed_.notify_all();
  }
  void Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return set_; });
  }

private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

struct Wait {
  fetch f{};
  Event event;
  static void Done(fetch *f) { reinterpret_cast<Wait *>(f)->event.Set(); }
};

// A reader as a handle is one: a view, a pin, a fetch when it misses.
class Reader {
public:
  Reader(image *image, uint64_t seed) : image_(image), random_(seed) {
    Attach();
  }
  ~Reader() { Detach(); }

  void ReadOne() {
    uint64_t page = random_() % kPages;
    if (!image_is_current(image_, mirror_)) {
      Detach();
      Attach();
    }
    unsigned slot = random_() % 2 ? PIN_SLOT_CURSOR : PIN_SLOT_PAGE;
    if (view_pin_page(&view_, slot, page)) {
      Check(view_page(&view_, 12, page), page);
      n_hits_++;
    } else if (view_is_zero(&view_, page)) {
      n_wrong_ += page < kZeros;
      n_hits_++;
    } else {
      Miss(slot, page);
    }
    view_unpin(&view_, slot);
  }

  uint64_t n_hits() const { return n_hits_; }
  uint64_t n_misses() const { return n_misses_; }
  uint64_t n_wrong() const { return n_wrong_; }

private:
  void Attach() {
    mirror_ = image_mirror(image_);
    ASSERT_EQ(view_open(&view_, mirror_), 0);
  }
  void Detach() {
    view_close(&view_);
    mirror_unref(mirror_);
  }

  void Miss(unsigned slot, uint64_t page) {
    Wait w;
    w.f.done = Wait::Done;
    uint32_t count = 1 + random_() % 4;
    if (count > kPages - page)
      count = kPages - page;
    if (image_fetch(&w.f, mirror_, page, count) == FETCH_WAIT)
      w.event.Wait();
    if (w.f.status == 0) {
      // The pin stood all the while, so RESIDENT is final.
      if (view_is_resident(&view_, page))
        Check(view_page(&view_, 12, page), page);
      else if (const uint8_t *bytes = fetch_bytes(&w.f, page))
        Check(bytes, page);
      (void)slot;
    } else if (w.f.status != -ESTALE && w.f.status != -EIO) {
      n_wrong_++;
    }
    fetch_fini(&w.f);
    n_misses_++;
  }

  // Pages carry their address; the version may be any, but one for all bytes.
  void Check(const uint8_t *bytes, uint64_t page) {
    if (page >= kZeros) {
      n_wrong_ += bytes[0] != 0 || memcmp(bytes, bytes + 1, kPage - 1) != 0;
      return;
    }
    uint64_t version = 0;
    for (uint64_t v = 1; v <= 40 && !version; v++)
      if (bytes[0] == FakeSource::ByteAt(page * kPage, v) &&
          bytes[1] == FakeSource::ByteAt(page * kPage + 1, v) &&
          bytes[2] == FakeSource::ByteAt(page * kPage + 2, v))
        version = v;
    for (uint64_t i = 0; i < kPage; i += 61)
      if (bytes[i] != FakeSource::ByteAt(page * kPage + i, version)) {
        n_wrong_++;
        return;
      }
  }

  image *image_;
  std::mt19937_64 random_;
  mirror *mirror_ = nullptr;
  view view_{};
  uint64_t n_hits_ = 0, n_misses_ = 0, n_wrong_ = 0;
};

// The readers wait for a check: not after each.
constexpr int kDisturbancesToCheck = 8;

// Runs `n_threads` readers for `n_reads` each, beside `disturb`, with a cache
// of `n_cached` pages.
void Stress(bool evictor, int n_threads, int n_reads,
            const std::function<void(FakeSource *, page_cache *, image *, int)>
                &disturb,
            uint64_t n_cached = 64) {
  FakeSource source(kPages * kPage);
  source.SetZeros(kZeros * kPage, kPages * kPage);
  page_cache_options options = {n_cached * kPage, evictor, nullptr};
  page_cache *cache;
  image *image;
  image_ops ops{};
  ASSERT_EQ(page_cache_new(&options, &cache), 0);
  ASSERT_EQ(image_new(cache, "fake", source.Open(), 12, &ops, &image), 0);
  std::atomic<uint64_t> n_wrong{0}, n_misses{0}, n_running{0};
  std::vector<std::thread> threads;
  n_running = n_threads;
  for (int t = 0; t < n_threads; t++)
    threads.emplace_back([&, t] {
      {
        Reader reader(image, t + 1);
        for (int i = 0; i < n_reads; i++)
          reader.ReadOne();
        n_wrong += reader.n_wrong();
        n_misses += reader.n_misses();
      }
      n_running--;
    });
  for (int i = 0; n_running > 0; i++) {
    disturb(&source, cache, image, i);
    EXPECT_LE(page_cache_allocated(cache), n_cached * kPage);
    if (i % kDisturbancesToCheck == 0)
      check_cache(cache);
  }
  for (auto &thread : threads)
    thread.join();
  EXPECT_EQ(n_wrong, 0u);
  EXPECT_GT(n_misses, 0u);
  page_cache_stats stats;
  page_cache_get_stats(cache, &stats);
  EXPECT_LE(stats.n_epochs, source.version() - 1)
      << "an invalidation, or an eviction beside it, needs none";
  check_cache(cache);
  image_free(image);
  page_cache_free(cache);
  EXPECT_GE(source.n_closed(), 1);
}

const int kReads = TestLength(20000);

TEST(Stress, EvictionUnderReaders) {
  Stress(false, 4, kReads, [](FakeSource *, page_cache *, image *, int) {});
}

TEST(Stress, TheEvictorThreadUnderReaders) {
  Stress(true, 4, kReads, [](FakeSource *, page_cache *, image *, int) {});
}

// From time to time there are so many tables of other processes that pages are
// written through a mapping while others are punched.
TEST(Stress, TheEvictorThreadUnderManyTables) {
  Stress(
      true, 4, kReads,
      [](FakeSource *, page_cache *, image *img, int) {
        mirror *m = image_mirror(img);
        std::vector<shared_pins *> tables(EVICT_MANY_LENT);
        for (shared_pins *&l : tables)
          shared_pins_new(m, &l); // NULL: the cache is full
        for (int i = 0; i < 1000; i++)
          std::this_thread::yield(); // the readers go on
        for (shared_pins *l : tables)
          shared_pins_free(l);
        mirror_unref(m);
      },
      kPages / 4);
}

TEST(Stress, InvalidationsUnderReaders) {
  Stress(true, 4, kReads, [](FakeSource *, page_cache *, image *img, int i) {
    ASSERT_EQ(image_invalidate(img, (i * 37) % kPages, 1 + i % 50), 0);
  });
}

// Each other size is less than what the readers' pins may hold.
TEST(Stress, BudgetsUnderReaders) {
  Stress(true, 4, kReads, [](FakeSource *, page_cache *cache, image *, int i) {
    uint64_t pages = i % 2 ? 64 : 4 + i % 32;
    ASSERT_EQ(page_cache_set_budget(cache, pages * kPage), 0);
  });
}

TEST(Stress, FailuresUnderReaders) {
  Stress(false, 4, kReads,
         [](FakeSource *source, page_cache *, image *, int i) {
           source->FailReads(EIO, i % 3);
         });
}

TEST(Stress, NewEpochsUnderReaders) {
  Stress(true, 4, kReads,
         [](FakeSource *source, page_cache *, image *img, int i) {
           if (i % 8 == 0 && source->version() < 40)
             source->Change(kPages * kPage);
           ASSERT_EQ(image_refresh(img, 0), 0);
         });
}

// Makes a table of this process and one of another, lets the latter grow, and
// ends both.
void ComeAndGo(image *img) {
  mirror *m = image_mirror(img);
  view v;
  shared_pins *lease;
  ASSERT_EQ(view_open(&v, m), 0);
  if (shared_pins_new(m, &lease) == 0) { // else the cache is full
    if (shared_pins_give(lease, 1, shared_pins_least(), shared_pins_least(),
                         nullptr) == 0)
      shared_pins_grow(lease, {8, 1});
    shared_pins_free(lease);
  }
  view_close(&v);
  mirror_unref(m);
}

TEST(Stress, TablesComeAndGoUnderReaders) {
  Stress(true, 4, kReads,
         [](FakeSource *, page_cache *, image *img, int) { ComeAndGo(img); });
}

} // namespace

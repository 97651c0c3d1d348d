// A cache that goes on with the memory of a process that has ended.  That
// process is another cache here, of which nothing is heard any more: what it
// was at when it died is written into its memory by hand.
#include "cache/adopt.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cache/image.h"
#include "cache/page_cache.h"
#include "cache/page_state.h"
#include "cache/shared_pins.h"
#include "cache/view.h"
#include "tests/cache/fetch.h"
#include "tests/support/fake_source.h"

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPages = 10000; // more than a block of states
constexpr uint64_t kBudget = 2048 * kPage;

page_cache *NewCache(uint64_t budget = kBudget, bool threads = false) {
  page_cache_options options{};
  options.budget = budget;
  options.evictor = threads;
  page_cache *pc = nullptr;
  EXPECT_EQ(page_cache_new(&options, &pc), 0);
  return pc;
}

uint64_t Used(page_cache *pc) {
  page_cache_stats stats;
  page_cache_get_stats(pc, &stats);
  return stats.used;
}

// Waits for a condition that the reclaimer makes true.
void Await(const std::function<bool()> &is) {
  while (!is())
    usleep(1000);
}

// Leaves what is in its memory when it is freed.
void Leave(page_cache *pc, image *img) {
  page_cache_leave(pc);
  image_free(img);
  page_cache_free(pc);
}

class AdoptTest : public testing::Test {
protected:
  void SetUp() override {
    before_ = NewCache();
    image_ops ops{};
    ops.needs_pages = true;
    ASSERT_EQ(image_new(before_, "fake", source_.Open(), 12, &ops, &dead_), 0);
    was_ = image_mirror(dead_);
  }

  void TearDown() override {
    for (pin_page *page : pages_)
      shared_pins_unmap(page);
    for (shared_pins *l : leases_)
      shared_pins_free(l);
    if (m_)
      mirror_unref(m_);
    if (image_)
      image_free(image_);
    if (cache_)
      page_cache_free(cache_);
    for (shared_pins *l : dead_leases_)
      shared_pins_free(l);
    mirror_unref(was_);
    Leave(before_, dead_);
  }

  // ---- Before

  void Load(uint64_t first, uint32_t count = 1) {
    ASSERT_EQ(Fetch(was_, first, count), 0);
  }

  // What a client has of a lease, and what remains of it.
  struct Client {
    pin_page *page;
    shared_pins_remains remains;
  };

  Client Attach(shared_pins_size most = {PIN_MAX_PAGE_SLOTS, 16},
                shared_pins *replaced = nullptr) {
    shared_pins *l = nullptr;
    EXPECT_EQ(shared_pins_new(was_, &l), 0);
    EXPECT_EQ(shared_pins_give(l, 7, shared_pins_least(), most, replaced), 0);
    dead_leases_.push_back(l);
    Client client;
    shared_pins_describe(l, &client.remains);
    int fd = shared_pins_take_fd(l);
    client.remains.fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    EXPECT_EQ(
        shared_pins_map(fd, client.remains.size.range_capacity, &client.page),
        0);
    pages_.push_back(client.page);
    return client;
  }

  static void Pin(const Client &client, uint64_t page, uint32_t count = 1) {
    unsigned slot = count == 1 ? PIN_SLOT_PAGE : PIN_SLOT_RANGE;
    __atomic_store_n(&client.page->slots[slot], pin_word(page, count),
                     __ATOMIC_RELEASE);
  }

  static void Unpin(const Client &client) {
    for (uint64_t &slot : client.page->slots)
      pin_clear(&slot);
  }

  void SetState(uint64_t page, int state) {
    __atomic_store_n(&was_->states[page], uint8_t(state), __ATOMIC_RELEASE);
  }

  // ---- After

  mirror_remains Remains() {
    mirror_remains r{};
    r.size = was_->size;
    r.epoch = was_->epoch;
    r.page_shift = was_->page_shift;
    r.fds.pages = fcntl(was_->pages_fd, F_DUPFD_CLOEXEC, 3);
    r.fds.states = fcntl(was_->states_fd, F_DUPFD_CLOEXEC, 3);
    r.fds.accessed = fcntl(was_->accessed_fd, F_DUPFD_CLOEXEC, 3);
    return r;
  }

  // The mirror, which is not in use yet.
  mirror *Begin(uint64_t budget = kBudget, bool threads = false) {
    cache_ = NewCache(budget, threads);
    mirror_remains remains = Remains();
    mirror *m = nullptr;
    EXPECT_EQ(mirror_adopt(&remains, &m), 0);
    adopt_begin(cache_, m);
    return m;
  }

  shared_pins *Adopt(mirror *m, Client &client) {
    shared_pins *l = nullptr;
    EXPECT_EQ(shared_pins_adopt(m, &client.remains, &l), 0);
    leases_.push_back(l);
    return l;
  }

  void GoOn(mirror *m) {
    image_ops ops{};
    ops.needs_pages = true;
    ASSERT_EQ(adopt_check(m), nullptr);
    ASSERT_EQ(
        image_new_over(cache_, "fake", source_.Open(), 12, &ops, m, &image_),
        0);
    m_ = image_mirror(image_);
    ASSERT_EQ(m_, m);
  }

  int State(uint64_t page) { return page_state_look(&m_->states[page]); }

  // What a reader of the new process gets of a page, by whatever way.
  std::vector<uint8_t> Read(uint64_t page) {
    view v{};
    EXPECT_EQ(view_open(&v, m_), 0);
    std::vector<uint8_t> bytes(kPage);
    bool is_hit = view_pin_page(&v, PIN_SLOT_PAGE, page);
    if (is_hit)
      memcpy(bytes.data(), view_page(&v, 12, page), kPage);
    view_unpin(&v, PIN_SLOT_PAGE); // what is stale stays so under a pin
    if (!is_hit)
      bytes = ReadByFetch(page);
    view_close(&v);
    return bytes;
  }

  std::vector<uint8_t> ReadByFetch(uint64_t page) {
    fetch f{};
    std::vector<uint8_t> bytes(kPage);
    EXPECT_EQ(image_fetch(&f, m_, page, 1), FETCH_READY);
    EXPECT_EQ(f.status, 0);
    const uint8_t *at = fetch_bytes(&f, page);
    if (at)
      memcpy(bytes.data(), at, kPage);
    else
      EXPECT_EQ(pread(m_->pages_fd, bytes.data(), kPage, off_t(page * kPage)),
                ssize_t(kPage));
    fetch_fini(&f);
    return bytes;
  }

  static std::vector<uint8_t> Right(uint64_t page) {
    return FakeSource::Bytes(page * kPage, kPage);
  }

  FakeSource source_{kPages * kPage};
  page_cache *before_ = nullptr, *cache_ = nullptr;
  image *dead_ = nullptr, *image_ = nullptr;
  mirror *was_ = nullptr, *m_ = nullptr;
  std::vector<shared_pins *> dead_leases_, leases_;
  std::vector<pin_page *> pages_;
};

// The one in a block of states with a page, and one in a block without.
TEST_F(AdoptTest, WhatWasZerosIsSoAndTakesNothing) {
  source_.SetZeros(100 * kPage, kPages * kPage);
  Load(0);
  Load(100, 4);
  Load(9000, 4);
  uint64_t used = Used(before_);
  int n_reads = source_.n_reads();
  GoOn(Begin());
  EXPECT_EQ(Used(cache_), used);
  page_cache_stats stats;
  page_cache_get_stats(cache_, &stats);
  EXPECT_EQ(stats.n_zero_pages, 8u);
  EXPECT_EQ(State(100), PAGE_ZERO);
  EXPECT_EQ(State(9003), PAGE_ZERO);
  EXPECT_EQ(Fetch(m_, 9000, 4), 0);
  EXPECT_EQ(source_.n_reads(), n_reads);
  ASSERT_EQ(image_invalidate(image_, 0, kPages), 0);
  EXPECT_EQ(State(100), PAGE_ABSENT);
  EXPECT_EQ(State(9003), PAGE_ABSENT);
}

TEST_F(AdoptTest, WhatWasResidentIsAHitAndInTheAccount) {
  Load(0, 16);
  Load(9990, 10); // in another block of states
  uint64_t used = Used(before_);
  int n_reads = source_.n_reads();
  GoOn(Begin());
  EXPECT_EQ(Used(cache_), used);
  for (uint64_t page : {0, 15, 9990, 9999}) {
    EXPECT_EQ(State(page), PAGE_RESIDENT);
    EXPECT_EQ(Read(page), Right(page));
  }
  EXPECT_EQ(source_.n_reads(), n_reads);
  EXPECT_EQ(m_->epoch, was_->epoch);
  EXPECT_TRUE(image_is_current(image_, m_));
}

TEST_F(AdoptTest, TheNextEpochIsAnother) {
  Load(0);
  GoOn(Begin());
  source_.Change(kPages * kPage);
  ASSERT_EQ(image_refresh(image_, 0), 0);
  mirror *next = image_mirror(image_);
  EXPECT_EQ(next->epoch, was_->epoch + 1);
  EXPECT_TRUE(mirror_is_retired(was_));
  mirror_unref(next);
}

TEST_F(AdoptTest, WhatWasResidentCanBeEvicted) {
  for (uint64_t page = 0; page < 1664; page += 64)
    Load(page, 64);
  GoOn(Begin(1800 * kPage));
  for (uint64_t page = 3000; page < 3000 + 2 * kBudget / kPage; page += 16)
    ASSERT_EQ(Fetch(m_, page, 16), 0);
  unsigned n = 0;
  for (uint64_t page = 0; page < 1664; page++)
    n += State(page) == PAGE_RESIDENT;
  EXPECT_LT(n, 1664u);
  EXPECT_GT(n, 800u) << "they are not the first to go";
  EXPECT_LE(Used(cache_), kBudget);
}

TEST_F(AdoptTest, AnInvalidationDropsWhatWasResident) {
  Load(0, 4);
  GoOn(Begin());
  ASSERT_EQ(image_invalidate(image_, 1, 2), 0);
  EXPECT_EQ(State(0), PAGE_RESIDENT);
  EXPECT_EQ(State(1), PAGE_ABSENT);
  EXPECT_EQ(State(2), PAGE_ABSENT);
}

TEST_F(AdoptTest, ASmallerCacheTakesItAndShrinks) {
  Load(0, 64);
  for (uint64_t page = 64; page < 1024; page += 64)
    Load(page, 64);
  GoOn(Begin(256 * kPage));
  EXPECT_GT(Used(cache_), 256 * kPage);
  EXPECT_EQ(Read(1023), Right(1023));
  for (uint64_t page = 2000; page < 4000; page += 16)
    ASSERT_EQ(Fetch(m_, page, 16), 0);
  EXPECT_LE(Used(cache_), 256 * kPage);
}

TEST_F(AdoptTest, PinsOfTheProcessBeforeHoldPages) {
  Load(7);
  Load(100, 16);
  Client client = Attach();
  Pin(client, 7);
  Pin(client, 100, 16);
  mirror *m = Begin();
  Adopt(m, client);
  GoOn(m);
  for (uint64_t page = 1000; page < 1000 + 2 * kBudget / kPage; page += 16)
    ASSERT_EQ(Fetch(m_, page, 16), 0);
  EXPECT_EQ(State(7), PAGE_RESIDENT);
  EXPECT_EQ(State(115), PAGE_RESIDENT);
}

// ---- What it was at
// ----------------------------------------------------------

// All that the memory of a page may be when its owner dies.
struct Death {
  const char *name;
  page_state state;
  size_t n_bytes;    // that are there
  bool was_resident; // a reader may have found it so, and have it pinned
};

const Death kDeaths[] = {
    {"before a fill wrote", PAGE_FILLING, 0, false},
    {"in the middle of a fill's write", PAGE_FILLING, 1000, false},
    {"before a fill said so", PAGE_FILLING, kPage, false},
    {"before the punch of a failed fill", PAGE_EVICTING, 1000, false},
    {"before the evictor punched", PAGE_EVICTING, kPage, true},
    {"before the evictor said so", PAGE_EVICTING, 0, false},
    {"with a stale page", PAGE_STALE, kPage, true},
};

class DeathTest : public AdoptTest, public testing::WithParamInterface<Death> {
protected:
  static constexpr uint64_t kAt = 5;

  // Brings the page into the state, by way of what it may be.
  void Die() {
    Load(kAt);
    if (GetParam().n_bytes < kPage) {
      ASSERT_EQ(mirror_punch(was_, kAt, 1), 0);
      std::vector<uint8_t> half = Right(kAt);
      ASSERT_EQ(mirror_write(was_, kAt, half.data(), GetParam().n_bytes), 0);
    }
    SetState(kAt, GetParam().state);
  }
};

TEST_P(DeathTest, TheNextReaderGetsTheRightBytes) {
  Die();
  GoOn(Begin());
  EXPECT_EQ(Read(kAt), Right(kAt));
  EXPECT_EQ(Read(kAt), Right(kAt));
  EXPECT_EQ(State(kAt), PAGE_RESIDENT) << "it has its place again";
}

TEST_P(DeathTest, WhoReliesOnAPinKeepsHisBytesAndNobodyElseGetsThem) {
  Die();
  Client client = Attach();
  Pin(client, kAt);
  mirror *m = Begin();
  Adopt(m, client);
  GoOn(m);
  EXPECT_EQ(Read(kAt), Right(kAt));
  EXPECT_NE(State(kAt), PAGE_RESIDENT) << "what is there may be anything";
  std::vector<uint8_t> bytes(kPage);
  ASSERT_EQ(pread(m_->pages_fd, bytes.data(), kPage, kAt * kPage),
            ssize_t(kPage));
  if (GetParam().was_resident) {
    EXPECT_EQ(bytes, Right(kAt));
  }
  Unpin(client);
  Read(kAt);
  EXPECT_EQ(Read(kAt), Right(kAt));
  EXPECT_EQ(State(kAt), PAGE_RESIDENT);
}

// A client that reads where there is nothing makes a page of zeros.
TEST_P(DeathTest, AClientThatReadsAHoleDoesNotMakeAPageOfIt) {
  Die();
  Client client = Attach();
  Pin(client, kAt);
  void *at = mmap(nullptr, kPage, PROT_READ, MAP_SHARED, was_->pages_fd,
                  off_t(kAt * kPage));
  ASSERT_NE(at, MAP_FAILED);
  EXPECT_GE(*static_cast<volatile uint8_t *>(at), 0);
  munmap(at, kPage);
  mirror *m = Begin();
  Adopt(m, client);
  GoOn(m);
  EXPECT_EQ(Read(kAt), Right(kAt));
  Unpin(client);
  EXPECT_EQ(Read(kAt), Right(kAt));
}

TEST_P(DeathTest, NothingIsLeftInTheAccount) {
  Load(kAt); // its block of states
  uint64_t used = Used(before_);
  Die();
  GoOn(Begin());
  Read(kAt);
  EXPECT_EQ(Used(cache_), used);
  EXPECT_EQ(mirror_page_bytes(m_), kPage);
}

INSTANTIATE_TEST_SUITE_P(At, DeathTest, testing::ValuesIn(kDeaths),
                         [](const auto &given) {
                           std::string name = given.param.name;
                           for (char &c : name)
                             c = isalnum(c) ? c : '_';
                           return name;
                         });

TEST_F(AdoptTest, AHoleThatTookMemoryIsNoPage) {
  Load(0);
  char zero = 0;
  ASSERT_EQ(pwrite(was_->pages_fd, &zero, 1, 3 * kPage), 1);
  GoOn(Begin());
  EXPECT_EQ(State(3), PAGE_ABSENT);
  EXPECT_EQ(Read(3), Right(3));
}

// ---- What cannot be gone on with
// ---------------------------------------------

TEST_F(AdoptTest, AnEpochThatWasOverStaysOver) {
  was_->header->retired = 1;
  mirror *m = Begin();
  EXPECT_STREQ(adopt_check(m), "its epoch was over");
  mirror_unref(m);
}

TEST_F(AdoptTest, AnInvalidationThatWasUnderWayEndsTheEpoch) {
  was_->header->log.n_begun++;
  mirror *m = Begin();
  EXPECT_STREQ(adopt_check(m), "an invalidation was under way");
  mirror_unref(m);
}

TEST_F(AdoptTest, AStateThatIsNoneEndsTheEpoch) {
  Load(0);
  SetState(4242, 77);
  mirror *m = Begin();
  EXPECT_STREQ(adopt_check(m), "a page state is none");
  mirror_unref(m);
}

TEST_F(AdoptTest, PagesThatAreNotThereEndTheEpoch) {
  Load(0, 16);
  ASSERT_EQ(mirror_punch(was_, 3, 2), 0);
  mirror *m = Begin();
  EXPECT_STREQ(adopt_check(m), "pages that it says are there are not");
  mirror_unref(m);
}

TEST_F(AdoptTest, WhatIsNotTheMirrorIsRefused) {
  const std::function<void(mirror_header *)> changes[] = {
      [](auto *h) { h->magic[3] = 'x'; }, [](auto *h) { h->layout++; },
      [](auto *h) { h->page_size *= 2; }, [](auto *h) { h->image_size++; },
      [](auto *h) { h->epoch++; },        [](auto *h) { h->states_offset = 0; },
  };
  for (auto &change : changes) {
    mirror_header saved = *was_->header;
    change(was_->header);
    mirror_remains remains = Remains();
    mirror *m = nullptr;
    EXPECT_EQ(mirror_adopt(&remains, &m), -EPROTO);
    *was_->header = saved;
  }
}

TEST_F(AdoptTest, MemoryThatSomebodyElseMayHaveChangedIsRefused) {
  const std::function<void(mirror_remains *)> changes[] = {
      [](auto *r) { r->size += kPage * 4096; },
      [](auto *r) { r->page_shift = 40; },
      [](auto *r) { std::swap(r->fds.pages, r->fds.accessed); },
      [](auto *r) { // not sealed
        struct stat st;
        ASSERT_EQ(fstat(r->fds.pages, &st), 0);
        close(r->fds.pages);
        r->fds.pages = memfd_create("x", MFD_CLOEXEC);
        ASSERT_EQ(ftruncate(r->fds.pages, st.st_size), 0);
      },
      [](auto *r) { // for reading only
        std::string path = "/proc/self/fd/" + std::to_string(r->fds.states);
        int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
        close(r->fds.states);
        r->fds.states = fd;
      },
      [](auto *r) { // no memory at all
        close(r->fds.accessed);
        r->fds.accessed = open("/dev/null", O_RDWR | O_CLOEXEC);
      },
  };
  for (auto &change : changes) {
    mirror_remains remains = Remains();
    change(&remains);
    mirror *m = nullptr;
    EXPECT_EQ(mirror_adopt(&remains, &m), -EPROTO);
  }
  ASSERT_EQ(fchmod(was_->accessed_fd, 0600), 0);
  mirror_remains remains = Remains();
  mirror *m = nullptr;
  EXPECT_EQ(mirror_adopt(&remains, &m), -EPROTO);
  fchmod(was_->accessed_fd, 0400);
}

TEST_F(AdoptTest, OneThatIsOverKeepsWhatIsPinnedAndNoMore) {
  Load(0, 64);
  Client client = Attach();
  Pin(client, 7);
  mirror *m = Begin(kBudget, true);
  shared_pins *l = Adopt(m, client);
  ASSERT_EQ(image_new_past(cache_, "fake", m), 0);
  EXPECT_TRUE(mirror_is_retired(was_));
  for (uint64_t page = 0; page < 64; page++)
    EXPECT_NE(page_state_look(&was_->states[page]), PAGE_RESIDENT);
  Await([&] { return mirror_page_bytes(was_) == kPage; });
  std::vector<uint8_t> bytes(kPage);
  ASSERT_EQ(pread(was_->pages_fd, bytes.data(), kPage, 7 * kPage),
            ssize_t(kPage));
  EXPECT_EQ(bytes, Right(7));
  leases_.clear();
  shared_pins_free(l);
  // With the last table it is gone.
  Await([&] { return mirror_page_bytes(was_) == 0; });
  Await([&] { return Used(cache_) == 0; });
}

TEST_F(AdoptTest, ReadersAreToldOfWhatIsNotTaken) {
  mirror_remains remains = Remains();
  mirror_retire_remains(&remains.fds);
  EXPECT_TRUE(mirror_is_retired(was_));
  mirror_fds_close(&remains.fds);
}

// ---- Shares
// ------------------------------------------------------------------

TEST_F(AdoptTest, ALeaseHasTheShareThatItHad) {
  Client client = Attach({10, 4});
  mirror *m = Begin();
  shared_pins *l = Adopt(m, client);
  GoOn(m);
  shared_pins_size size = shared_pins_get_size(l);
  EXPECT_EQ(size.page_slots, 10u);
  EXPECT_EQ(size.range_capacity, 4u);
  shared_pins_remains again;
  shared_pins_describe(l, &again);
  EXPECT_EQ(again.user, 7u);
  EXPECT_EQ(again.share, (10 + 4 * 4) * kPage);
  EXPECT_FALSE(again.is_replaced);
  shared_pins_grow(l, {12, 4});
  EXPECT_EQ(shared_pins_get_size(l).page_slots, 12u);
}

TEST_F(AdoptTest, WhatTheClientWroteIntoItsHeadIsNotBelieved) {
  Client client = Attach({4, 1});
  client.page->page_slots = client.page->range_capacity = 1 << 20;
  client.page->n_slots = client.page->layout = 99;
  mirror *m = Begin();
  shared_pins *l = Adopt(m, client);
  EXPECT_EQ(shared_pins_get_size(l).page_slots, 4u);
  EXPECT_EQ(shared_pins_get_size(l).range_capacity, 1u);
  GoOn(m);
}

TEST_F(AdoptTest, AReplacedLeaseHoldsNoMoreThanItsShare) {
  Load(0, 16);
  Client client = Attach({10, 4});
  Pin(client, 3);
  Attach({10, 4}, dead_leases_[0]);
  int fd = client.remains.fd;
  shared_pins_describe(dead_leases_[0], &client.remains);
  EXPECT_TRUE(client.remains.is_replaced);
  EXPECT_EQ(client.remains.share, kPage);
  client.remains.fd = fd;
  // Which it has not: it was told that nothing counts that it pins now.
  client.page->slots[PIN_SLOT_PAGE + 1] = pin_word(4, 1);
  mirror *m = Begin();
  shared_pins *l = Adopt(m, client);
  GoOn(m);
  shared_pins_remains again;
  shared_pins_describe(l, &again);
  EXPECT_TRUE(again.is_replaced);
  EXPECT_EQ(again.share, kPage);
  ASSERT_EQ(image_invalidate(image_, 3, 2), 0);
  EXPECT_EQ(State(3), PAGE_STALE);
  EXPECT_EQ(State(4), PAGE_ABSENT);
  Unpin(client);
  EXPECT_TRUE(shared_pins_collect(l));
}

TEST_F(AdoptTest, WhatIsNoTableIsRefused) {
  mirror *m = Begin();
  shared_pins_remains remains{};
  shared_pins *l = nullptr;
  remains.size = shared_pins_least();
  remains.fd = memfd_create("x", MFD_CLOEXEC);
  ASSERT_EQ(ftruncate(remains.fd, PIN_PAGE_LEN), 0);
  EXPECT_EQ(shared_pins_adopt(m, &remains, &l), -EPROTO) << "it may shrink";
  remains.fd = mirror_memfd("x", 2 * PIN_PAGE_LEN, MEMFD_SPARSE);
  EXPECT_EQ(shared_pins_adopt(m, &remains, &l), -EPROTO) << "its length";
  remains.fd = mirror_memfd("x", PIN_PAGE_LEN, MEMFD_SPARSE);
  remains.size.page_slots = 66;
  EXPECT_EQ(shared_pins_adopt(m, &remains, &l), -EPROTO) << "its size";
  mirror_unref(m);
}

// ---- The keeper of it
// ------------------------------------------------------------

struct Keeper : mirror_keeper {
  std::vector<std::string> log;
};

TEST(KeeperTest, IsToldOfEachMirrorUntilTheCacheIsLeft) {
  Keeper keeper;
  keeper.made = [](mirror_keeper *k, mirror *m, const char *image) {
    m->kept = uint32_t(static_cast<Keeper *>(k)->log.size() + 1);
    static_cast<Keeper *>(k)->log.push_back(std::string("made ") + image);
  };
  keeper.looked = [](mirror_keeper *k, mirror *m) {
    static_cast<Keeper *>(k)->log.push_back("looked " +
                                            std::to_string(m->kept));
  };
  keeper.ended = [](mirror_keeper *k, mirror *m) {
    static_cast<Keeper *>(k)->log.push_back("ended " + std::to_string(m->kept));
  };
  page_cache_options options{};
  options.budget = kBudget;
  page_cache *pc = nullptr;
  ASSERT_EQ(page_cache_new(&options, &pc), 0);
  page_cache_set_keeper(pc, &keeper);
  FakeSource source(kPages * kPage);
  image_ops ops{};
  image *img = nullptr;
  ASSERT_EQ(image_new(pc, "fake", source.Open(), 12, &ops, &img), 0);
  EXPECT_EQ(keeper.log, (std::vector<std::string>{"made fake"}));
  ASSERT_EQ(image_refresh(img, 0), 0);
  source.Change(kPages * kPage);
  ASSERT_EQ(image_refresh(img, 0), 0);
  EXPECT_EQ(keeper.log, (std::vector<std::string>{"made fake", "looked 1",
                                                  "made fake", "ended 1"}));
  mirror *m = image_mirror(img);
  ASSERT_EQ(Fetch(m, 0), 0);
  int states = fcntl(m->states_fd, F_DUPFD_CLOEXEC, 3);
  mirror_unref(m);
  Leave(pc, img);
  EXPECT_EQ(keeper.log.size(), 4u) << "it is left";
  uint8_t state = 0;
  uint32_t retired = 1;
  ASSERT_EQ(pread(states, &state, 1, MIRROR_HEADER_LEN), 1);
  ASSERT_EQ(
      pread(states, &retired, sizeof retired, offsetof(mirror_header, retired)),
      ssize_t(sizeof retired));
  EXPECT_EQ(state, PAGE_RESIDENT);
  EXPECT_EQ(retired, 0u);
  close(states);
}

} // namespace

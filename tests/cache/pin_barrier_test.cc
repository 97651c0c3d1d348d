// The pin protocol on real processors: view.h's and page_state.h's own code
// between two threads, with and without each thing that makes it hold.
//
// A test of the right protocol alone proves little: the window in which a pin
// is stored and not yet seen is short, and a naive test finds nothing when the
// barrier is left out.  So this one makes the window wide, and shows that it
// does by breaking one rule at a time, which it has to notice:
//
//   - before the pin the reader stores to lines that are in no cache: the pin
//     waits behind them in the store buffer;
//   - both pause, or do not, where the other's steps would have to fall; never
//     always, since a pause also lets a store arrive;
//   - the evictor, instead of punching, rewrites the page: at once, and so that
//     it shows.
#include <gtest/gtest.h>

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "cache/barrier.h"
#include "cache/page_state.h"
#include "cache/pin.h"
#include "cache/view.h"

namespace {

constexpr unsigned kShift = 12;
constexpr uint64_t kPages = 2;
// Only some states of a page are used, each in a line of its own: more would
// only make everybody slower.
constexpr uint64_t kStates = 4;
constexpr uint64_t kStride = 64;
constexpr uint64_t kHole = 0;

constexpr size_t kColdLen = 64 << 20;
constexpr int kColdStores = 24;

// Against the scan's direction, which is the way that can go wrong.
constexpr unsigned kSlot = PIN_N_SLOTS - 1;
constexpr unsigned kOtherSlot = PIN_SLOT_CURSOR;

// Between a look and the pin that should have come before it.
constexpr auto kLatePin = std::chrono::microseconds(60);
// How long something broken may go unnoticed.
constexpr auto kPatience = std::chrono::seconds(60);

struct Protocol {
  bool barrier = true;         // the evictor runs one before it reads the pins
  bool fence = false;          // readers fence
  bool pin_first = true;       // and look then
  bool look_after_move = true; // a pin that moves is looked after again
  bool janitor_owns_word = true;
};

void SpinFor(std::chrono::nanoseconds time) {
  auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
  }
}

// A cheap random sequence: one thread's.
class Random {
public:
  explicit Random(uint64_t seed) : state_(seed) {}

  // Every other time, for up to twice as long as a membarrier takes.
  void Pause() {
    if (Next() >> 63)
      SpinFor(std::chrono::nanoseconds(Next() % 8000));
  }

  uint64_t Next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    return state_ ^= state_ << 17;
  }

private:
  uint64_t state_;
};

// Pages, states, a pin table; what a reader and an evictor do with them.
class Arena {
public:
  explicit Arena(const Protocol &protocol) : protocol_(protocol) {
    size_t len = kPages << kShift;
    pages_ = static_cast<uint8_t *>(Map(len));
    states_ = static_cast<uint8_t *>(Map(kPages));
    accessed_ = static_cast<uint8_t *>(Map(kPages));
    slots_ = static_cast<uint64_t *>(Map(PIN_N_SLOTS * sizeof *slots_));
    cold_ = static_cast<uint8_t *>(Map(kColdLen));
    memset(cold_, 1, kColdLen);
    table_.page_slots = PIN_MAX_PAGE_SLOTS;
    table_.range_capacity = 1;
    view_.base = pages_;
    view_.states = states_;
    view_.accessed = accessed_;
    view_.slots = slots_;
    view_.fence = protocol.fence;
  }
  ~Arena() {
    munmap(pages_, kPages << kShift);
    munmap(states_, kPages);
    munmap(accessed_, kPages);
    munmap(slots_, PIN_N_SLOTS * sizeof *slots_);
    munmap(cold_, kColdLen);
  }
  Arena(const Arena &) = delete;
  Arena &operator=(const Arena &) = delete;

  // One access of a reader.
  void Read() {
    uint64_t page = random_.Next() % kPages;
    StoreCold();
    if (Pin(page)) {
      unsigned slot = Move(page);
      Use(page);
      view_unpin(&view_, slot);
      n_reads_++;
    } else {
      view_unpin(&view_, kSlot);
    }
  }

  // One page goes, is cleaned once more, and comes back.
  void Evict(uint64_t page) {
    if (page_state_move(&states_[page], PAGE_RESIDENT, PAGE_EVICTING)) {
      if (protocol_.barrier)
        barrier_run();
      if (IsPinned(page)) {
        page_state_move(&states_[page], PAGE_EVICTING, PAGE_RESIDENT);
        return;
      }
      PunchSlowly(page);
      page_state_move(&states_[page], PAGE_EVICTING, PAGE_ABSENT);
      n_evictions_++;
    }
    Clean(page);
    Fill(page);
  }

  bool ok() const { return n_errors_ == 0; }
  uint64_t n_errors() const { return n_errors_; }
  uint64_t n_reads() const { return n_reads_; }
  uint64_t n_evictions() const { return n_evictions_; }

private:
  static void *Map(size_t len) {
    void *at = mmap(nullptr, len, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(at, MAP_FAILED);
    return at;
  }

  uint64_t *At(uint64_t page, uint64_t word) const {
    return reinterpret_cast<uint64_t *>(pages_ + (page << kShift) +
                                        word * kStride);
  }

  // ---- The reader

  void StoreCold() {
    for (int i = 0; i < kColdStores; i++)
      __atomic_store_n(cold_ + random_.Next() % kColdLen, 1, __ATOMIC_RELAXED);
  }

  // Pins a page in kSlot; true if its bytes may be used.
  bool Pin(uint64_t page) {
    if (!protocol_.pin_first) {
      bool resident = view_is_resident(&view_, page);
      SpinFor(kLatePin);
      view_pin(&view_, kSlot, page, 1);
      return resident;
    }
    // What is filled while the pin stands needs no second look.
    return view_pin_page(&view_, kSlot, page) || Fill(page);
  }

  // Moves the pin to another slot: store, look, and only on RESIDENT clear the
  // old one.  Returns the slot that the page is pinned in.
  unsigned Move(uint64_t page) {
    random_.Pause();
    view_pin(&view_, kOtherSlot, page, 1);
    if (protocol_.look_after_move && !view_is_resident(&view_, page)) {
      view_unpin(&view_, kOtherSlot);
      return kSlot;
    }
    view_unpin(&view_, kSlot);
    return kOtherSlot;
  }

  // The bytes are one fill's, and stay so.
  void Use(uint64_t page) {
    uint64_t first = Word(page, 0);
    bool same = first != kHole;
    for (int look = 0; look < 8; look++) {
      for (uint64_t i = 0; i < kStates; i++)
        same &= Word(page, i) == first;
      SpinFor(std::chrono::nanoseconds(500));
    }
    if (!same)
      n_errors_++;
  }

  uint64_t Word(uint64_t page, uint64_t i) const {
    const uint8_t *bytes = view_page(&view_, kShift, page);
    return __atomic_load_n(
        reinterpret_cast<const uint64_t *>(bytes + i * kStride),
        __ATOMIC_RELAXED);
  }

  // ---- The evictor

  // As scan_pins() does, with a pause before the last slot.
  bool IsPinned(uint64_t page) {
    bool pinned = false;
    for (unsigned i = 0; i < PIN_N_SLOTS; i++) {
      if (i == kSlot)
        evictor_random_.Pause();
      uint64_t word = __atomic_load_n(&slots_[i], __ATOMIC_ACQUIRE);
      pinned |= pin_count(word) != 0 &&
                pin_count(word) <= pin_capacity(&table_, i) &&
                page - pin_first(word) < pin_count(word);
    }
    return pinned;
  }

  void PunchSlowly(uint64_t page) {
    evictor_random_.Pause();
    for (uint64_t i = 0; i < kStates; i++)
      __atomic_store_n(At(page, i), kHole, __ATOMIC_RELAXED);
  }

  // The reclaimer.
  void Clean(uint64_t page) {
    if (!protocol_.janitor_owns_word) {
      if (page_state_look(&states_[page]) == PAGE_ABSENT)
        PunchSlowly(page);
      return;
    }
    if (!page_state_move(&states_[page], PAGE_ABSENT, PAGE_EVICTING))
      return;
    PunchSlowly(page);
    page_state_move(&states_[page], PAGE_EVICTING, PAGE_ABSENT);
  }

  // ---- Both

  // Each fill brings bytes of its own.
  bool Fill(uint64_t page) {
    if (!page_state_move(&states_[page], PAGE_ABSENT, PAGE_FILLING))
      return false;
    uint64_t value = n_fills_.fetch_add(1, std::memory_order_relaxed) + 1;
    for (uint64_t i = 0; i < kStates; i++)
      __atomic_store_n(At(page, i), value, __ATOMIC_RELAXED);
    return page_state_move(&states_[page], PAGE_FILLING, PAGE_RESIDENT);
  }

  const Protocol protocol_;
  view view_{};
  uint8_t *pages_, *states_, *accessed_, *cold_;
  uint64_t *slots_;
  pin_table table_{};
  std::atomic<uint64_t> n_fills_{0};
  Random random_{88172645463325252}; // the reader's
  Random evictor_random_{2463534242};
  // Written by one thread, looked at by the other.
  std::atomic<uint64_t> n_errors_{0}, n_reads_{0}, n_evictions_{0};
};

// The processors that this process may run on.
std::vector<int> Processors() {
  cpu_set_t set;
  std::vector<int> list;
  if (sched_getaffinity(0, sizeof set, &set) == 0)
    for (int i = 0; i < CPU_SETSIZE; i++)
      if (CPU_ISSET(i, &set))
        list.push_back(i);
  return list;
}

void RunOn(int processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

class PinBarrierTest : public testing::Test {
protected:
  void SetUp() override {
    processors_ = Processors();
    if (processors_.size() < 2)
      GTEST_SKIP() << "one processor: two threads never run at once";
    has_membarrier_ = barrier_register();
  }

  // Reads on one processor and evicts on another, for as long as `goes_on`
  // says.
  template <typename GoesOn> void Run(Arena *arena, GoesOn goes_on) {
    std::atomic<bool> stop{false};
    std::thread reader([&] {
      RunOn(processors_[0]);
      while (!stop.load(std::memory_order_relaxed))
        arena->Read();
    });
    std::thread evictor([&] {
      RunOn(processors_[1]);
      for (uint64_t round = 0; goes_on(round); round++)
        arena->Evict(round % kPages);
      stop = true;
    });
    evictor.join();
    reader.join();
    RecordProperty("reads", std::to_string(arena->n_reads()));
    RecordProperty("evictions", std::to_string(arena->n_evictions()));
    RecordProperty("errors", std::to_string(arena->n_errors()));
  }

  // So many evictions, and reads that went well, and not one that did not.
  void ExpectRight(const Protocol &protocol) {
    constexpr uint64_t kEnough = 150000;
    Arena arena(protocol);
    Run(&arena, [&](uint64_t) {
      return arena.ok() &&
             (arena.n_evictions() < kEnough || arena.n_reads() < kEnough);
    });
    EXPECT_EQ(arena.n_errors(), 0u);
  }

  // A protocol that lacks something shows it before long.
  void ExpectCaught(const Protocol &protocol) {
    Arena arena(protocol);
    auto end = std::chrono::steady_clock::now() + kPatience;
    Run(&arena, [&](uint64_t) {
      return arena.ok() && std::chrono::steady_clock::now() < end;
    });
    EXPECT_GT(arena.n_errors(), 0u)
        << arena.n_reads() << " reads, " << arena.n_evictions() << " evictions";
  }

  std::vector<int> processors_;
  bool has_membarrier_ = false;
};

TEST_F(PinBarrierTest, NoReaderSeesAPageChangeWhileTheEvictorRunsBarriers) {
  if (!has_membarrier_)
    GTEST_SKIP() << "the kernel refuses membarrier";
  ExpectRight(Protocol{});
}

TEST_F(PinBarrierTest, NoReaderSeesAPageChangeWhileReadersFence) {
  Protocol protocol;
  protocol.barrier = false;
  protocol.fence = true;
  ExpectRight(protocol);
}

TEST_F(PinBarrierTest, AnEvictorWithoutABarrierIsCaught) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "the sanitizer's calls between a store and a load leave the "
                  "processor hardly a chance to swap them";
#endif
  Protocol protocol;
  protocol.barrier = false;
  ExpectCaught(protocol);
}

TEST_F(PinBarrierTest, AReaderThatLooksBeforeItPinsIsCaught) {
  Protocol protocol;
  protocol.pin_first = false;
  ExpectCaught(protocol);
}

TEST_F(PinBarrierTest, APinThatMovesWithoutASecondLookIsCaught) {
  Protocol protocol;
  protocol.look_after_move = false;
  ExpectCaught(protocol);
}

TEST_F(PinBarrierTest, AJanitorThatDoesNotOwnTheWordIsCaught) {
  Protocol protocol;
  protocol.janitor_owns_word = false;
  ExpectCaught(protocol);
}

} // namespace

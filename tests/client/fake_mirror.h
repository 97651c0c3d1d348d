// The memory that a daemon shares with a client, in which everything is as a
// test says: page states, pins, invalidations.
#ifndef TESTS_CLIENT_FAKE_MIRROR_H
#define TESTS_CLIENT_FAKE_MIRROR_H

#include <sys/mman.h>

#include "cache/mirror.h"
#include "cache/page_state.h"
#include "cache/shared_pins.h"
#include "tests/client/fake_daemon.h"

// One epoch, with a pin table for one client.  Used by one thread at a time,
// but for what the client's does to the memory.
class FakeMirror {
public:
  // Of the image's present epoch; no page is there.
  explicit FakeMirror(const FakeImage &image, uint32_t range_capacity = 16)
      : capacity_(range_capacity) {
    unsigned shift = static_cast<unsigned>(__builtin_ctz(image.page_size));
    EXPECT_EQ(mirror_new(image.bytes.size(), shift, image.epoch, true, &m_), 0);
    pins_fd_ = mirror_memfd("cachet-pins", PIN_PAGE_LEN, MEMFD_LOOKED_AT);
    EXPECT_GE(pins_fd_, 0);
    pins_ = static_cast<pin_page *>(mmap(nullptr, PIN_PAGE_LEN,
                                         PROT_READ | PROT_WRITE, MAP_SHARED,
                                         pins_fd_, 0));
    EXPECT_NE(pins_, MAP_FAILED);
    pins_->layout = MIRROR_LAYOUT;
    pins_->n_slots = PIN_N_SLOTS;
    pins_->range_capacity = range_capacity;
  }
  ~FakeMirror() {
    munmap(pins_, PIN_PAGE_LEN);
    close(pins_fd_);
    mirror_free(m_);
  }
  FakeMirror(const FakeMirror &) = delete;

  uint64_t epoch() const { return m_->epoch; }

  // What Attached calls the table; 0: nothing.
  uint64_t table = 0;

  // Answers an Attach.
  void Lend(Peer &p, uint64_t id) {
    mirror_fds fds;
    ASSERT_EQ(mirror_lend(m_, &fds), 0);
    Cachet__Wire__ImageInfo info;
    p.Info(&info);
    info.epoch = m_->epoch;
    Cachet__Wire__Attached a = CACHET__WIRE__ATTACHED__INIT;
    a.info = &info;
    a.layout = MIRROR_LAYOUT;
    a.table = table;
    a.range_capacity = capacity_;
    wire_message m = CACHET__WIRE__MESSAGE__INIT;
    m.id = id;
    m.body_case = CACHET__WIRE__MESSAGE__BODY_ATTACHED;
    m.attached = &a;
    p.SendFds(m, {fds.pages, fds.states, fds.accessed, pins_fd_});
    mirror_fds_close(&fds);
  }

  // The page's bytes are there.
  void Fill(uint64_t page, const uint8_t *bytes) {
    ASSERT_EQ(mirror_write(m_, page, bytes, mirror_page_len(m_, page)), 0);
    SetState(page, PAGE_RESIDENT);
  }

  void Evict(uint64_t page) {
    mirror_punch(m_, page, 1);
    SetState(page, PAGE_ABSENT);
  }

  // One invalidation, from begin to end.  Pages that are pinned keep their
  // bytes and are not RESIDENT any more.
  void Invalidate(uint64_t first, uint64_t count) {
    invalidation_list list = {};
    invalidation_entry entry;
    invalidation_log_begin(&m_->header->log, &list, &entry, first, count);
    for (uint64_t page = first; page < first + count; page++)
      if (page_state_look(&m_->states[page]) == PAGE_RESIDENT) {
        if (IsPinned(page))
          SetState(page, PAGE_STALE);
        else
          Evict(page);
      }
    invalidation_log_end(&m_->header->log, &list, &entry);
  }

  // The epoch is over; the states of its pages have not moved yet.
  void Retire() { __atomic_store_n(&m_->header->retired, 1, __ATOMIC_RELEASE); }
  void EvictAll() {
    for (uint64_t page = 0; page < m_->n_pages; page++)
      SetState(page, PAGE_EVICTING);
  }

  // What the client stored in a slot.
  uint64_t Pin(unsigned slot) const {
    return __atomic_load_n(&pins_->slots[slot], __ATOMIC_ACQUIRE);
  }
  int NPins(uint64_t page) const {
    int n = 0;
    for (unsigned slot = 0; slot < PIN_N_SLOTS; slot++)
      n += page - pin_first(Pin(slot)) < pin_count(Pin(slot));
    return n;
  }
  bool IsPinned(uint64_t page) const { return NPins(page) > 0; }

  // Whether it was invalidated while it was pinned.
  bool IsStale(uint64_t page) const {
    return page_state_look(&m_->states[page]) == PAGE_STALE;
  }

private:
  void SetState(uint64_t page, uint8_t state) {
    __atomic_store_n(&m_->states[page], state, __ATOMIC_RELEASE);
  }

  mirror *m_ = nullptr;
  uint32_t capacity_;
  int pins_fd_;
  pin_page *pins_;
};

#endif

// Every call of the library, at random, against pread's idea of the image.
#ifndef TESTS_SUPPORT_ORACLE_H
#define TESTS_SUPPORT_ORACLE_H

#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <iterator>
#include <random>
#include <set>
#include <string>
#include <vector>

class Oracle {
public:
  Oracle(cachet *c, const std::vector<uint8_t> &bytes, size_t page_size,
         bool may_invalidate, bool is_shared, uint64_t seed)
      : c_(c), bytes_(bytes), size_(bytes.size()), page_size_(page_size),
        may_invalidate_(may_invalidate), is_shared_(is_shared), random_(seed) {}

  // Checks so many operations, but ends after one that failed; how many it
  // were.
  uint64_t Run(int n_ops) {
    uint64_t n_checked = 0;
    using Op = void (Oracle::*)();
    // Getters are cheap and many; the rest in proportion to what they cost.
    const Op ops[] = {
        &Oracle::Load, &Oracle::Load, &Oracle::Next, &Oracle::Map,
        &Oracle::Read, &Oracle::Read, &Oracle::Get,  &Oracle::Get,
        &Oracle::Get,  &Oracle::Get,  &Oracle::Get,  &Oracle::String,
        &Oracle::Seq,  &Oracle::Iter, &Oracle::Ask,  &Oracle::Invalidate};
    for (int i = 0; i < n_ops && !testing::Test::HasFailure(); i++) {
      (this->*ops[random_() % std::size(ops)])();
      n_checked++;
    }
    EXPECT_EQ(cachet_size(c_), size_);
    EXPECT_EQ(cachet_page_size(c_), page_size_);
    EXPECT_EQ(cachet_is_shared(c_), is_shared_);
    cachet_release(c_, &kept_);
    return n_checked;
  }

private:
  uint64_t Addr() {
    uint64_t near = random_() % 20;
    switch (random_() % 16) {
    case 0:
      return size_ - std::min(size_, near); // at and just before the end
    case 1:
      return size_ + near;
    case 2:
      return (uint64_t(1) << 63) - 10 + near;
    case 3:
      return UINT64_MAX - near;
    case 4:
    case 5: { // around a page boundary
      uint64_t page = size_ / page_size_ ? random_() % (size_ / page_size_) : 0;
      uint64_t edge = page * page_size_;
      return edge < 8 ? near : edge - 8 + near;
    }
    default:
      return size_ ? random_() % size_ : near;
    }
  }

  uint64_t Len() {
    switch (random_() % 64) {
    case 0:
      return 0;
    case 1:
      return UINT64_MAX - random_() % 4;
    case 2:
      return random_() % (1 << 20);
    case 3:
      return page_size_ * (random_() % 4);
    default:
      return random_() % 5000;
    }
  }

  bool InBounds(uint64_t addr, uint64_t len) const {
    return addr <= size_ && len <= size_ - addr;
  }
  uint64_t PageOf(uint64_t addr) const { return addr - addr % page_size_; }
  uint64_t PageLen(uint64_t start) const {
    return std::min<uint64_t>(page_size_, size_ - start);
  }

  bool Same(const void *data, uint64_t addr, uint64_t len) const {
    return !memcmp(data, bytes_.data() + addr, len);
  }

  void CheckPage(const cachet_slice &s, uint64_t addr) {
    ASSERT_EQ(s.offset, PageOf(addr));
    ASSERT_EQ(s.length, PageLen(s.offset));
    ASSERT_TRUE(Same(s.data, s.offset, s.length)) << "page at " << s.offset;
    ASSERT_EQ(cachet_slice_at(&s, addr), s.data + (addr - s.offset));
    ASSERT_EQ(cachet_slice_at(&s, s.offset + s.length), nullptr);
  }

  void Load() {
    uint64_t addr = Addr();
    size_t min_len =
        random_() % 4 ? random_() % 16 : random_() % (page_size_ + 10);
    cachet_slice s;
    cachet_status status = cachet_load(c_, addr, min_len, &s);
    if (min_len > page_size_) {
      ASSERT_EQ(status, CACHET_E_INVAL);
    } else if (addr >= size_ ||
               min_len > PageLen(PageOf(addr)) - (addr - PageOf(addr))) {
      ASSERT_EQ(status, CACHET_END) << addr << " " << min_len;
    } else {
      ASSERT_EQ(status, CACHET_OK) << cachet_errmsg(c_);
      CheckPage(s, addr);
      cachet_release(c_, &kept_); // one is always held
      kept_ = s;
    }
  }

  void Next() {
    if (!kept_.data)
      return Load();
    ASSERT_TRUE(Same(kept_.data, kept_.offset, kept_.length)) << "while held";
    uint64_t addr = kept_.offset + kept_.length;
    cachet_slice s;
    cachet_status status = cachet_next(c_, &kept_, &s);
    if (addr >= size_) {
      ASSERT_EQ(status, CACHET_END);
      return;
    }
    ASSERT_EQ(status, CACHET_OK) << cachet_errmsg(c_);
    CheckPage(s, addr);
    cachet_release(c_, &kept_);
    kept_ = s;
  }

  void Map() {
    uint64_t addr = Addr(), len = Len();
    if (len == UINT64_MAX || len > (1 << 20)) // to the end, but not always
      addr = size_ - std::min<uint64_t>(size_, random_() % (1 << 20));
    cachet_slice s;
    cachet_status status = cachet_map(c_, addr, len, &s);
    if (len == 0) {
      ASSERT_EQ(status, CACHET_E_INVAL);
    } else if (addr >= size_) {
      ASSERT_EQ(status, CACHET_END);
    } else {
      ASSERT_EQ(status, CACHET_OK) << cachet_errmsg(c_);
      ASSERT_EQ(s.offset, addr);
      ASSERT_EQ(s.length, std::min(len, size_ - addr));
      ASSERT_TRUE(Same(s.data, addr, s.length));
      cachet_release(c_, &s);
      cachet_release(c_, &s); // a second time is left alone
    }
  }

  void Read() {
    uint64_t addr = Addr(), len = Len();
    if (len == 0) {
      ASSERT_EQ(cachet_read(c_, addr, nullptr, 0), CACHET_OK);
      return;
    }
    if (!InBounds(addr, len)) {
      uint8_t byte = 77;
      ASSERT_EQ(cachet_read(c_, addr, &byte, len), CACHET_E_BOUNDS);
      ASSERT_EQ(byte, 77) << "bounds come before the first byte";
      return;
    }
    std::vector<uint8_t> buf(len);
    ASSERT_EQ(cachet_read(c_, addr, buf.data(), len), CACHET_OK)
        << cachet_errmsg(c_);
    ASSERT_TRUE(Same(buf.data(), addr, len)) << addr << " " << len;
  }

  template <typename T, bool kBig>
  void GetOne(cachet_status (*get)(cachet *, uint64_t, T *)) {
    uint64_t addr = Addr();
    T value = 0;
    cachet_status status = get(c_, addr, &value);
    if (!InBounds(addr, sizeof(T))) {
      ASSERT_EQ(status, CACHET_E_BOUNDS) << addr;
      ASSERT_EQ(value, 0);
      return;
    }
    ASSERT_EQ(status, CACHET_OK) << cachet_errmsg(c_);
    uint64_t expect = 0;
    for (size_t i = 0; i < sizeof(T); i++)
      expect |= uint64_t(bytes_[addr + i])
                << 8 * (kBig ? sizeof(T) - 1 - i : i);
    ASSERT_EQ(value, static_cast<T>(expect)) << addr;
  }

  void Get() {
    switch (random_() % 20) {
#define GET(n, type, big)                                                      \
  case n:                                                                      \
    return GetOne<type, big>
      GET(0, uint8_t, false)(cachet_get_u8);
      GET(1, int8_t, false)(cachet_get_i8);
      GET(2, uint16_t, false)(cachet_get_u16le);
      GET(3, uint16_t, true)(cachet_get_u16be);
      GET(4, uint16_t, false)(cachet_get_u16ne); // x86 and Arm: little
      GET(5, int16_t, false)(cachet_get_i16le);
      GET(6, int16_t, true)(cachet_get_i16be);
      GET(7, int16_t, false)(cachet_get_i16ne);
      GET(8, uint32_t, false)(cachet_get_u32le);
      GET(9, uint32_t, true)(cachet_get_u32be);
      GET(10, uint32_t, false)(cachet_get_u32ne);
      GET(11, int32_t, false)(cachet_get_i32le);
      GET(12, int32_t, true)(cachet_get_i32be);
      GET(13, int32_t, false)(cachet_get_i32ne);
      GET(14, uint64_t, false)(cachet_get_u64le);
      GET(15, uint64_t, true)(cachet_get_u64be);
      GET(16, uint64_t, false)(cachet_get_u64ne);
      GET(17, int64_t, false)(cachet_get_i64le);
      GET(18, int64_t, true)(cachet_get_i64be);
      GET(19, int64_t, false)(cachet_get_i64ne);
#undef GET
    }
  }

  void String() {
    uint64_t addr = Addr();
    size_t len = random_() % 200;
    char *s = nullptr;
    cachet_status status = cachet_get_string(c_, addr, len, &s);
    if (len > 0 && !InBounds(addr, len)) {
      ASSERT_EQ(status, CACHET_E_BOUNDS);
      return;
    }
    ASSERT_EQ(status, CACHET_OK) << cachet_errmsg(c_);
    ASSERT_TRUE(len == 0 || Same(s, addr, len));
    ASSERT_EQ(s[len], 0);
    free(s);
  }

  void Seq() {
    uint64_t addr = Addr();
    cachet_seq seq;
    cachet_status status = cachet_seq_begin(c_, addr, &seq);
    if (addr > size_) {
      ASSERT_EQ(status, CACHET_E_BOUNDS);
      return;
    }
    ASSERT_EQ(status, CACHET_OK);
    for (int i = random_() % 6; i > 0; i--) {
      cachet_slice s;
      status = cachet_seq_next(&seq, &s);
      if (addr == size_) {
        ASSERT_EQ(status, CACHET_END);
        break;
      }
      ASSERT_EQ(status, CACHET_OK) << cachet_errmsg(c_);
      ASSERT_EQ(s.offset, addr);
      ASSERT_EQ(s.length, PageOf(addr) + PageLen(PageOf(addr)) - addr);
      ASSERT_TRUE(Same(s.data, addr, s.length));
      addr += s.length;
    }
    cachet_seq_end(&seq);
  }

  struct IterState {
    Oracle *oracle;
    uint64_t addr, stop;
  };

  void Iter() {
    uint64_t addr = Addr(), len = Len();
    IterState state = {this, addr, addr + 10000};
    auto fn = [](void *arg, uint8_t byte) {
      auto *s = static_cast<IterState *>(arg);
      EXPECT_EQ(byte, s->oracle->bytes_[s->addr]);
      return int(++s->addr == s->stop);
    };
    cachet_status status = cachet_iter(c_, addr, len, fn, &state);
    bool ok = len == 0 || InBounds(addr, len) ||
              (len == CACHET_TO_END && addr <= size_);
    ASSERT_EQ(status, ok ? CACHET_OK : CACHET_E_BOUNDS) << addr << " " << len;
    uint64_t expect = !ok || len == 0 ? 0
                      : len == CACHET_TO_END
                          ? std::min<uint64_t>(size_ - addr, 10000)
                          : std::min<uint64_t>(len, 10000);
    ASSERT_EQ(state.addr - addr, expect);
  }

  void Ask() {
    uint64_t addr = Addr(), len = Len();
    uint64_t expect = 0;
    if (addr < size_ && len > 0) {
      uint64_t last = addr + std::min(len, size_ - addr) - 1;
      expect = last / page_size_ - addr / page_size_ + 1;
    }
    ASSERT_EQ(cachet_pages(c_, addr, len), expect) << addr << " " << len;
    if (addr >= size_) {
      ASSERT_FALSE(cachet_is_cached(c_, addr));
    } else {
      // Pages that come in beside it may push a page out as soon as it was
      // read, so one that is read often enough is cached.  But one that was
      // invalidated while a slice of it was held is read without a place in
      // the cache until that is noticed to be over.
      bool is_cached = false;
      for (int i = 0; i < 100 && !is_cached; i++) {
        uint8_t byte;
        ASSERT_EQ(cachet_get_u8(c_, addr, &byte), CACHET_OK);
        is_cached = cachet_is_cached(c_, addr);
        if (!is_cached && stale_.count(PageOf(addr)))
          break;
      }
      if (is_cached)
        stale_.erase(PageOf(addr));
      else
        ASSERT_TRUE(stale_.count(PageOf(addr))) << "just read";
    }
    ASSERT_EQ(cachet_prefetch(c_, addr, std::min<uint64_t>(len, 100)),
              CACHET_OK);
  }

  void Invalidate() {
    if (random_() % 8) // it costs more than most
      return Get();
    uint64_t addr = Addr();
    uint64_t len = random_() % 4 ? random_() % 100000 : CACHET_TO_END;
    cachet_status status = cachet_invalidate(c_, addr, len);
    if (!may_invalidate_ && addr < size_ && len > 0) {
      ASSERT_EQ(status, CACHET_E_ACCESS);
      return;
    }
    ASSERT_EQ(status, CACHET_OK) << cachet_errmsg(c_);
    if (addr < size_ && len > 0) {
      ASSERT_FALSE(cachet_is_cached(c_, addr));
    }
    if (kept_.data)
      stale_.insert(kept_.offset);
    if (kept_.data) {
      ASSERT_TRUE(Same(kept_.data, kept_.offset, kept_.length));
    }
  }

  cachet *c_;
  const std::vector<uint8_t> &bytes_;
  uint64_t size_;
  size_t page_size_;
  bool may_invalidate_, is_shared_;
  std::mt19937_64 random_;
  cachet_slice kept_{};
  std::set<uint64_t> stale_; // pages held when something was invalidated
};

// Checks so many operations on an image of a daemon's, by a handle with these
// flags.  This process may invalidate it.
inline void CheckCalls(const std::string &uri,
                       const std::vector<uint8_t> &bytes, uint32_t flags,
                       uint64_t seed, int n_ops) {
  cachet_options options{};
  options.struct_size = sizeof options;
  options.flags = flags;
  cachet *c = nullptr;
  cachet_error err;
  ASSERT_EQ(cachet_open(uri.c_str(), &options, &c, &err), CACHET_OK)
      << err.message;
  Oracle(c, bytes, cachet_page_size(c), true, flags == 0, seed).Run(n_ops);
  cachet_close(c);
}

#endif

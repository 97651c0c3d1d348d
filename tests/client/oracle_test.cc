// Everything that reads, against the bytes of the image: over image, page and
// cache sizes, parts of an image, and ways in.
#include <fcntl.h>
#include <unistd.h>

#include "tests/client/handle.h"
#include "tests/support/fake_source.h"
#include "tests/support/length.h"
#include "tests/support/test_rule.h"
#include "tests/support/test_server.h"
#include "tests/support/tls_side.h"

namespace {

enum Way { kFile, kMade, kSocket, kShared, kTls };

struct Shape {
  size_t size;
  uint32_t page_size;
  uint64_t cache_size;
  Way way = kFile;
  uint64_t offset = 0, length = UINT64_MAX; // of the window
  int n_rounds = 800;
  uint64_t zeros_from = 0, zeros_to = 0; // of the whole; the source knows them

  bool IsWindow() const { return offset || length != UINT64_MAX; }
};

std::vector<uint8_t> All(const Shape &s) {
  std::vector<uint8_t> all = FakeSource::Bytes(0, s.size);
  std::fill(all.begin() + std::ptrdiff_t(s.zeros_from),
            all.begin() + std::ptrdiff_t(s.zeros_to), uint8_t{0});
  return all;
}

// Makes a hole of bytes of a file, which are zeros.
void PunchZeros(const std::string &path, const Shape &s) {
  int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      off_t(s.zeros_from), off_t(s.zeros_to - s.zeros_from)),
            0);
  close(fd);
}

std::vector<uint8_t> Window(const std::vector<uint8_t> &all, const Shape &s) {
  auto from = all.begin() + std::ptrdiff_t(s.offset);
  return {from, from + std::ptrdiff_t(std::min(s.length, s.size - s.offset))};
}

class OracleTest : public testing::TestWithParam<Shape> {
protected:
  OracleTest()
      : all_(All(GetParam())), source_(all_.size()), made_(all_),
        bytes_(Window(all_, GetParam())) {
    const Shape &shape = GetParam();
    source_.SetZeros(shape.zeros_from, shape.zeros_to);
    cachet_options o = Options();
    o.page_size = shape.page_size;
    o.cache_size = shape.cache_size;
    if (shape.offset % 2)
      o.flags |= CACHET_ONE_EPOCH;
    if (shape.way == kSocket)
      o.flags |= CACHET_NO_SHARED_MEMORY;
    c_ = shape.way == kMade ? made_.Make(o) : Open(Uri(), o);
    copy_ = Copy(c_.get());
  }

  std::string Uri() {
    const Shape &shape = GetParam();
    std::string uri, query;
    if (shape.way == kFile) {
      uri = dir_.Write("image", all_);
      if (shape.zeros_to)
        PunchZeros(uri, shape);
      if (!shape.IsWindow())
        return uri;
      uri = "file:" + uri;
    } else {
      TestServer::Options options;
      Rule any("any"); // TLS or not
      options.allow = any.get();
      if (shape.way == kTls) {
        tls_ = std::make_unique<TlsSide>();
        options.tls = tls_->context();
      }
      server_ = std::make_unique<TestServer>(
          std::vector<std::pair<std::string, FakeSource *>>{{"i", &source_}},
          options);
      uri = "cachet+unix:///i";
      query = "&socket=" + server_->socket_path();
    }
    if (shape.way == kTls) {
      uri = "cachets://127.0.0.1:" + std::to_string(server_->tls_port()) + "/i";
      query = "&ca=" + tls_->ca();
    }
    if (shape.offset)
      query += "&offset=" + std::to_string(shape.offset);
    if (shape.length != UINT64_MAX)
      query += "&length=" + std::to_string(shape.length);
    return uri + "?" + query.substr(1);
  }

  // Where the page that holds a byte begins and ends, within the window.
  uint64_t PageStart(uint64_t addr) const {
    uint64_t in_page = (GetParam().offset + addr) % GetParam().page_size;
    return addr - std::min(in_page, addr);
  }
  uint64_t PageEnd(uint64_t addr) const {
    uint64_t page = GetParam().page_size;
    return addr + page - (GetParam().offset + addr) % page;
  }

  // What lengths are measured in.
  uint64_t Unit() const { return std::max(GetParam().page_size, 4096u); }

  // Addresses around all the edges there are, and some at random.
  uint64_t Address() {
    uint64_t size = bytes_.size(), page = GetParam().page_size;
    switch (random_() % 8) {
    case 0:
      return size - 9 + random_() % 18; // may wrap: just another address
    case 1:
      return (random_() % (size / page + 2)) * page - 4 + random_() % 8;
    case 2:
      return (1ull << 63) - 2 + random_() % 4;
    case 3:
      return UINT64_MAX - random_() % 9;
    default:
      return size ? random_() % size : 0;
    }
  }

  uint64_t Length() {
    switch (random_() % 8) {
    case 0:
      return 0;
    case 1:
      return random_() % (6 * Unit());
    case 2:
      return CACHET_TO_END - random_() % 3;
    case 3:
      return GetParam().page_size + random_() % 3;
    default:
      return random_() % 64;
    }
  }

  bool Within(uint64_t addr, uint64_t len) const {
    return addr <= bytes_.size() && len <= bytes_.size() - addr;
  }

  void CheckLoad() {
    uint64_t addr = Address(), page = GetParam().page_size;
    size_t min_len = random_() % 5 ? random_() % 16 : random_() % (page + 3);
    cachet_slice s = {};
    cachet_status status = cachet_load(c_.get(), addr, min_len, &s);
    if (min_len > page) {
      EXPECT_EQ(status, CACHET_E_INVAL);
      return;
    }
    if (addr >= bytes_.size() || min_len > bytes_.size() - addr ||
        min_len > PageEnd(addr) - addr) {
      EXPECT_EQ(status, CACHET_END) << addr << " " << min_len;
      return;
    }
    ASSERT_EQ(status, CACHET_OK) << cachet_errmsg(c_.get());
    uint64_t start = PageStart(addr), end = PageEnd(addr);
    EXPECT_EQ(s.offset, start);
    CheckSlice(s, std::min<uint64_t>(end, bytes_.size()) - start);
    EXPECT_EQ(cachet_slice_at(&s, addr), s.data + (addr - start));
    EXPECT_EQ(cachet_slice_at(&s, s.offset + s.length), nullptr);
    cachet_slice next = {};
    status = cachet_next(c_.get(), &s, &next);
    if (end >= bytes_.size()) {
      EXPECT_EQ(status, CACHET_END);
    } else {
      ASSERT_EQ(status, CACHET_OK);
      EXPECT_EQ(next.offset, end);
      CheckSlice(next, std::min<uint64_t>(page, bytes_.size() - next.offset));
      cachet_release(c_.get(), &next);
    }
    cachet_release(c_.get(), &s);
  }

  void CheckSlice(const cachet_slice &s, uint64_t len) {
    ASSERT_EQ(s.length, len);
    EXPECT_EQ(memcmp(s.data, &bytes_[s.offset], s.length), 0) << s.offset;
  }

  void CheckMap() {
    uint64_t addr = Address(), len = Length();
    cachet_slice s = {};
    cachet_status status = cachet_map(c_.get(), addr, len, &s);
    if (len == 0) {
      EXPECT_EQ(status, CACHET_E_INVAL);
    } else if (addr >= bytes_.size()) {
      EXPECT_EQ(status, CACHET_END);
    } else {
      ASSERT_EQ(status, CACHET_OK) << cachet_errmsg(c_.get());
      EXPECT_EQ(s.offset, addr);
      CheckSlice(s, std::min<uint64_t>(len, bytes_.size() - addr));
      cachet_release(c_.get(), &s);
    }
  }

  void CheckRead() {
    uint64_t addr = Address();
    size_t len = Length() % (8 * Unit());
    std::vector<uint8_t> buf(len + 1);
    cachet_status status = cachet_read(c_.get(), addr, buf.data(), len);
    char *text = nullptr;
    EXPECT_EQ(cachet_get_string(c_.get(), addr, len, &text), status);
    if (len == 0) {
      EXPECT_EQ(status, CACHET_OK);
    } else if (!Within(addr, len)) {
      EXPECT_EQ(status, CACHET_E_BOUNDS);
    } else {
      ASSERT_EQ(status, CACHET_OK) << cachet_errmsg(c_.get());
      EXPECT_EQ(memcmp(buf.data(), &bytes_[addr], len), 0);
      EXPECT_EQ(memcmp(text, &bytes_[addr], len), 0);
      EXPECT_EQ(text[len], '\0');
    }
    free(text);
  }

  template <typename T>
  void CheckGetter(cachet_status (*get)(cachet *, uint64_t, T *), bool big) {
    uint64_t addr = Address();
    T value = 0;
    cachet_status status = get(c_.get(), addr, &value);
    if (!Within(addr, sizeof(T))) {
      EXPECT_EQ(status, CACHET_E_BOUNDS) << addr;
      return;
    }
    ASSERT_EQ(status, CACHET_OK) << cachet_errmsg(c_.get());
    uint64_t expected = 0;
    for (size_t i = 0; i < sizeof(T); i++)
      expected |= static_cast<uint64_t>(bytes_[addr + i])
                  << 8 * (big ? sizeof(T) - 1 - i : i);
    EXPECT_EQ(value, static_cast<T>(expected));
  }

  void CheckGetters() {
    bool big = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__;
    CheckGetter(cachet_get_u8, false);
    CheckGetter(cachet_get_i8, false);
    CheckGetter(cachet_get_u16le, false);
    CheckGetter(cachet_get_u16be, true);
    CheckGetter(cachet_get_u16ne, big);
    CheckGetter(cachet_get_i16le, false);
    CheckGetter(cachet_get_i16be, true);
    CheckGetter(cachet_get_i16ne, big);
    CheckGetter(cachet_get_u32le, false);
    CheckGetter(cachet_get_u32be, true);
    CheckGetter(cachet_get_u32ne, big);
    CheckGetter(cachet_get_i32le, false);
    CheckGetter(cachet_get_i32be, true);
    CheckGetter(cachet_get_i32ne, big);
    CheckGetter(cachet_get_u64le, false);
    CheckGetter(cachet_get_u64be, true);
    CheckGetter(cachet_get_u64ne, big);
    CheckGetter(cachet_get_i64le, false);
    CheckGetter(cachet_get_i64be, true);
    CheckGetter(cachet_get_i64ne, big);
  }

  void CheckIter() {
    uint64_t addr = Address(), len = Length();
    std::vector<uint8_t> seen;
    cachet_status status = cachet_iter(
        c_.get(), addr, len,
        [](void *arg, uint8_t byte) {
          auto *v = static_cast<std::vector<uint8_t> *>(arg);
          v->push_back(byte);
          return v->size() == 20000 ? 1 : 0;
        },
        &seen);
    uint64_t size = bytes_.size();
    if (len == 0) {
      EXPECT_EQ(status, CACHET_OK);
      return;
    }
    if (len == CACHET_TO_END && addr <= size)
      len = size - addr;
    if (!Within(addr, len)) {
      EXPECT_EQ(status, CACHET_E_BOUNDS);
      EXPECT_TRUE(seen.empty());
      return;
    }
    ASSERT_EQ(status, CACHET_OK) << cachet_errmsg(c_.get());
    ASSERT_EQ(seen.size(), std::min<uint64_t>(len, 20000));
    EXPECT_TRUE(std::equal(seen.begin(), seen.end(), bytes_.begin() + addr));
  }

  void CheckSeq() {
    uint64_t addr = Address(), size = bytes_.size();
    cachet_seq seq;
    cachet_status status = cachet_seq_begin(c_.get(), addr, &seq);
    if (addr > size) {
      EXPECT_EQ(status, CACHET_E_BOUNDS);
      return;
    }
    ASSERT_EQ(status, CACHET_OK);
    for (int i = 0; i < 5; i++) {
      cachet_slice s = {};
      status = cachet_seq_next(&seq, &s);
      if (addr == size) {
        EXPECT_EQ(status, CACHET_END);
        break;
      }
      ASSERT_EQ(status, CACHET_OK);
      EXPECT_EQ(s.offset, addr);
      uint64_t end = std::min(PageEnd(addr), size);
      CheckSlice(s, end - addr);
      addr = end;
    }
    cachet_seq_end(&seq);
  }

  void CheckAsking() {
    uint64_t addr = Address(), len = Length(), page = GetParam().page_size,
             size = bytes_.size(), offset = GetParam().offset;
    uint64_t n = 0;
    if (addr < size && len) {
      uint64_t last = addr + std::min(len, size - addr) - 1;
      n = (offset + last) / page - (offset + addr) / page + 1;
    }
    EXPECT_EQ(cachet_pages(c_.get(), addr, len), n);
    if (addr >= size) {
      EXPECT_FALSE(cachet_is_cached(c_.get(), addr));
    }
    if (random_() % 16 == 0) {
      len %= 3 * Unit();
      bool may = GetParam().way != kTls || addr >= size || !len;
      EXPECT_EQ(cachet_invalidate(c_.get(), addr, len),
                may ? CACHET_OK : CACHET_E_ACCESS);
      bool is_local = GetParam().way <= kMade; // a daemon may read ahead again
      if (addr < size && len && is_local) {
        EXPECT_FALSE(cachet_is_cached(c_.get(), addr));
      }
    }
    if (random_() % 16 == 0) {
      EXPECT_EQ(cachet_warm(c_.get(), addr, len % (3 * Unit())), CACHET_OK);
    }
    if (random_() % 16 == 0) {
      EXPECT_EQ(cachet_prefetch(c_.get(), addr, len), CACHET_OK);
    }
  }

  void CheckAsync() {
    uint64_t addr = Address(), len = Length() % (8 * Unit());
    std::vector<uint8_t> buf(len + 1);
    Outcome read, load;
    cachet_status status = cachet_read_async(c_.get(), addr, buf.data(), len,
                                             Outcome::Read, &read, nullptr);
    if (len == 0 || Within(addr, len)) {
      ASSERT_EQ(status, CACHET_OK);
      RunUntil(c_.get(), [&] { return read.n; });
      EXPECT_EQ(read.status, CACHET_OK);
      if (len) {
        EXPECT_EQ(memcmp(buf.data(), &bytes_[addr], len), 0);
      }
    } else {
      EXPECT_EQ(status, CACHET_E_BOUNDS);
    }
    status =
        cachet_load_async(c_.get(), addr, 0, Outcome::Loaded, &load, nullptr);
    if (addr >= bytes_.size()) {
      EXPECT_EQ(status, CACHET_END);
      return;
    }
    ASSERT_EQ(status, CACHET_OK);
    RunUntil(c_.get(), [&] { return load.n; });
    ASSERT_EQ(load.status, CACHET_OK);
    EXPECT_EQ(load.slice.offset, PageStart(addr));
    CheckSlice(load.slice, std::min<uint64_t>(PageEnd(addr), bytes_.size()) -
                               PageStart(addr));
    cachet_release(c_.get(), &load.slice);
  }

  TempDir dir_;
  std::unique_ptr<TlsSide> tls_;
  std::vector<uint8_t> all_;
  FakeSource source_;
  std::unique_ptr<TestServer> server_;
  MadeSource made_;
  std::vector<uint8_t> bytes_; // of the window
  Handle c_, copy_;
  std::mt19937_64 random_{20240229};
};

TEST_P(OracleTest, EveryCallAgreesWithTheBytesOfTheFile) {
  ASSERT_EQ(cachet_size(c_.get()), bytes_.size());
  ASSERT_EQ(cachet_page_size(c_.get()), GetParam().page_size);
  ASSERT_EQ(cachet_is_shared(c_.get()), GetParam().way == kShared);
  for (int i = 0; i < TestLength(GetParam().n_rounds) && !HasFailure(); i++) {
    CheckLoad();
    CheckMap();
    CheckRead();
    CheckGetters();
    CheckIter();
    CheckSeq();
    CheckAsking();
    CheckAsync();
    std::swap(c_, copy_);
  }
}

std::vector<Shape> Shapes() {
  std::vector<Shape> shapes;
  for (uint32_t page : {4096u, 16384u, 65536u})
    for (size_t size : {0u, 1u, 511u, 4096u, 4097u, 1u << 20, (2u << 20) + 13})
      for (uint64_t pages : {3u, 40u})
        shapes.push_back({size, page, pages * page});
  for (size_t size : {0u, 4097u, (2u << 20) + 13})
    for (uint64_t pages : {3u, 40u})
      shapes.push_back({size, 4096, pages * 4096, kTls, 0, UINT64_MAX, 200});
  for (Way way : {kFile, kMade})
    for (uint32_t page : {1u, 8u, 512u, 2048u})
      for (size_t size : {0u, 511u, 4097u, 100013u})
        shapes.push_back({size, page, 40960, way, 0, UINT64_MAX, 100});
  return shapes;
}

// Within a page, at its edges, of no byte, and up to the end.
std::vector<Shape> Windows() {
  std::vector<Shape> shapes;
  const size_t size = 100013;
  for (uint64_t offset : {size_t{0}, size_t{1}, size_t{511}, size_t{4095},
                          size_t{4096}, size_t{9000}, size - 1, size})
    for (uint64_t length : {UINT64_MAX, uint64_t{0}, uint64_t{1},
                            uint64_t{4096}, uint64_t{20000}}) {
      if (length != UINT64_MAX && length > size - offset)
        continue;
      for (uint32_t page : {1u, 512u, 4096u, 16384u})
        shapes.push_back({size, page, 40960, kFile, offset, length, 60});
      for (Way way : {kSocket, kShared, kTls})
        shapes.push_back({size, 4096, 40960, way, offset, length, 60});
    }
  return shapes;
}

// Zeros that the source knows of, whose edges are within pages, of which some are
// data; and all of an image.
std::vector<Shape> Sparse() {
  std::vector<Shape> shapes;
  const size_t size = (2 << 20) + 13;
  for (Way way : {kFile, kSocket, kShared, kTls})
    for (uint64_t pages : {3u, 40u}) {
      const uint64_t cache = pages * 4096;
      shapes.push_back(
          {size, 4096, cache, way, 0, UINT64_MAX, 200, 70001, size - 70001});
      shapes.push_back({size, 4096, cache, way, 70003, size - 100013, 100,
                        100001, size - 70001});
      shapes.push_back({size, 4096, cache, way, 0, UINT64_MAX, 100, 0, size});
    }
  for (uint32_t page : {512u, 16384u})
    shapes.push_back(
        {size, page, 163840, kFile, 0, UINT64_MAX, 200, 70001, size - 70001});
  return shapes;
}

std::string ShapeName(const testing::TestParamInfo<Shape> &info) {
  static const char *const ways[] = {"File", "Made", "Socket", "Shared", "Tls"};
  const Shape &s = info.param;
  std::string name = ways[s.way] + std::to_string(s.size) + "BytesInPagesOf" +
                     std::to_string(s.page_size) + "CacheOf" +
                     std::to_string(s.cache_size);
  if (s.IsWindow())
    name +=
        "From" + std::to_string(s.offset) + "To" +
        (s.length == UINT64_MAX ? "End" : std::to_string(s.offset + s.length));
  if (s.zeros_to)
    name += "ZerosFrom" + std::to_string(s.zeros_from);
  return name;
}

INSTANTIATE_TEST_SUITE_P(Shapes, OracleTest, testing::ValuesIn(Shapes()),
                         ShapeName);
INSTANTIATE_TEST_SUITE_P(Windows, OracleTest, testing::ValuesIn(Windows()),
                         ShapeName);

INSTANTIATE_TEST_SUITE_P(Sparse, OracleTest, testing::ValuesIn(Sparse()),
                         ShapeName);

} // namespace

// Invalidations under readers, checked by content: every page carries the
// version of the image that it was read from.
//
// The image is a device that is written in place: only invalidations tell of a
// new version.  While it is written and invalidated no read of it ends, so that
// bytes of version k are in the cache only once invalidation k is over.  Then
//
//  - a call that begins after invalidation k returned gets version k or a later
//    one of each page that it named;
//  - one call never puts together two pages that invalidation k named both, one
//    from before it and one from after it.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <poll.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/daemon_process.h"
#include "tests/support/fake_source.h"
#include "tests/support/length.h"
#include "tests/support/test_server.h"

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPages = 8192;
constexpr uint64_t kBudget = 8 << 20; // a quarter of the image
constexpr uint64_t kHot = 96;         // pages, where most is read
constexpr int kReaders = 4;

struct Close {
  void operator()(cachet *c) const { cachet_close(c); }
};
using Handle = std::unique_ptr<cachet, Close>;

// A device in this process, for cachet_make().
class Device {
public:
  explicit Device(FakeSource *from) : source_(from->Open()) {}
  ~Device() { source_->ops->close(source_); }

  cachet_source Table() {
    cachet_source table{};
    table.struct_size = sizeof table;
    table.size = kPages * kPage;
    table.ctx = this;
    table.map = [](void *ctx, uint64_t pos, size_t len, const void **bytes) {
      return static_cast<Device *>(ctx)->Map(pos, len, bytes);
    };
    return table;
  }

private:
  ssize_t Map(uint64_t pos, size_t len, const void **bytes) {
    buf_.resize(len);
    *bytes = buf_.data();
    return source_->ops->read(source_, pos, buf_.data(), len)
               ? -EIO
               : static_cast<ssize_t>(len);
  }

  source *source_;
  std::vector<uint8_t> buf_;
};

// Which versions there were, and what the invalidation of each named.
class Versions {
public:
  explicit Versions(size_t most) : ranges_(most + 2) {}

  uint64_t newest() const { return newest_.load(std::memory_order_acquire); }
  uint64_t settled() const { return settled_.load(std::memory_order_acquire); }

  void Begin(uint64_t first, uint64_t count) {
    uint64_t k = newest() + 1;
    ranges_[k] = {first, count};
    newest_.store(k, std::memory_order_release);
  }
  void End() { settled_.store(newest(), std::memory_order_release); }

  // What is wrong with the bytes of a call that began when `settled` was it;
  // "" if nothing is.
  std::string Check(const uint8_t *bytes, uint64_t addr, uint64_t len,
                    uint64_t settled) const {
    std::vector<Page> pages;
    for (uint64_t at = addr; at < addr + len;) {
      uint64_t n = std::min(addr + len - at, kPage - at % kPage);
      uint64_t version = VersionOf(bytes + (at - addr), at, n);
      if (version == 0)
        return "page " + std::to_string(at / kPage) + " is of no version";
      pages.push_back({at / kPage, version});
      at += n;
    }
    for (const Page &p : pages)
      for (uint64_t k = settled; k > p.version; k--)
        if (Names(k, p.page))
          return "page " + std::to_string(p.page) + " is of version " +
                 std::to_string(p.version) + ", from before invalidation " +
                 std::to_string(k);
    for (uint64_t k = newest(); k > 1; k--)
      if (Tears(k, pages))
        return "pages from before and after invalidation " + std::to_string(k);
    return "";
  }

private:
  struct Page {
    uint64_t page, version;
  };
  struct Range {
    uint64_t first, count;
  };

  bool Names(uint64_t k, uint64_t page) const {
    return page - ranges_[k].first < ranges_[k].count;
  }

  bool Tears(uint64_t k, const std::vector<Page> &pages) const {
    bool before = false, after = false;
    for (const Page &p : pages)
      if (Names(k, p.page))
        (p.version < k ? before : after) = true;
    return before && after;
  }

  // `addr` and `len` are multiples of 8.
  uint64_t VersionOf(const uint8_t *bytes, uint64_t addr, uint64_t len) const {
    for (uint64_t v = newest(); v >= 1; v--) {
      uint64_t word;
      FakeSource::Fill(&word, addr, 8, v);
      if (!memcmp(&word, bytes, 8))
        return FakeSource::Bytes(addr, len, v) ==
                       std::vector<uint8_t>(bytes, bytes + len)
                   ? v
                   : 0;
    }
    return 0;
  }

  std::atomic<uint64_t> newest_{1}, settled_{1};
  std::vector<Range> ranges_; // by version; fixed once it is the newest
};

void Yield(int n) {
  for (int i = 0; i < n; i++)
    std::this_thread::yield();
}

enum class Way { SHARED, SOCKET, COPIES, IN_PROCESS };

class InvalidateTest : public testing::TestWithParam<Way> {
protected:
  InvalidateTest() : n_rounds_(TestLength(100)), versions_(size_t(n_rounds_)) {
    if (GetParam() == Way::IN_PROCESS)
      device_ = std::make_unique<Device>(&disk_);
    else
      server_ = std::make_unique<TestServer>(
          std::vector<std::pair<std::string, FakeSource *>>{{"disk", &disk_}},
          Options());
    if (GetParam() == Way::COPIES || GetParam() == Way::IN_PROCESS)
      first_ = OpenNew();
    seed_ = TestSeed();
  }

  ~InvalidateTest() override {
    disk_.OpenGate(); // where an assertion has ended a test early
    first_.reset();
  }

  static TestServer::Options Options() {
    TestServer::Options options;
    options.cache_size = kBudget;
    return options;
  }

  Handle OpenNew(uint32_t flags = 0) {
    cachet_options options{};
    options.struct_size = sizeof options;
    options.cache_size = kBudget;
    options.flags = flags;
    if (GetParam() != Way::SHARED)
      options.flags |= CACHET_NO_SHARED_MEMORY;
    cachet *c = nullptr;
    cachet_error err{};
    cachet_status status;
    if (device_) {
      cachet_source table = device_->Table();
      status = cachet_make(&table, &options, &c, &err);
    } else {
      std::string uri = "cachet+unix:///disk?socket=" + server_->socket_path();
      status = cachet_open(uri.c_str(), &options, &c, &err);
    }
    EXPECT_EQ(status, CACHET_OK) << err.message;
    EXPECT_EQ(cachet_is_shared(c), GetParam() == Way::SHARED);
    return Handle(c);
  }

  // Of `first_`, on whose thread it is called, or one of its own.
  Handle Open() {
    if (!first_)
      return OpenNew();
    cachet *c = nullptr;
    cachet_error err{};
    EXPECT_EQ(cachet_copy(first_.get(), &c, &err), CACHET_OK) << err.message;
    return Handle(c);
  }

  // One version more, of all pages; the invalidation names some.
  void Invalidate(cachet *c, uint64_t first, uint64_t count) {
    disk_.ShutGate();
    Yield(100); // reads of the old version that will be under way for long
    versions_.Begin(first, count);
    disk_.Rewrite();
    ASSERT_EQ(cachet_invalidate(c, first * kPage, count * kPage), CACHET_OK)
        << cachet_errmsg(c);
    versions_.End();
    Yield(100); // calls that find old reads under way
    disk_.OpenGate();
  }

  int n_rounds_;
  FakeSource disk_{kPages * kPage};
  Versions versions_;
  std::unique_ptr<TestServer> server_;
  std::unique_ptr<Device> device_;
  Handle first_;
  uint64_t seed_;
};

// ---- Staged ----------------------------------------------------------------

// A copy of pages 10 to 12.
class Copying {
public:
  Copying(cachet *c, const Versions &versions)
      : thread_([this, c, &versions] {
          settled_ = versions.settled();
          status_ = cachet_read(c, 10 * kPage, buf_, sizeof buf_);
        }),
        versions_(versions) {}

  void ExpectRight() {
    thread_.join();
    ASSERT_EQ(status_, CACHET_OK);
    EXPECT_EQ(versions_.Check(buf_, 10 * kPage, sizeof buf_, settled_), "");
  }

private:
  uint8_t buf_[3 * kPage];
  uint64_t settled_ = 0;
  cachet_status status_ = CACHET_OK;
  std::thread thread_;
  const Versions &versions_;
};

TEST_P(InvalidateTest, ACopyThatWaitsForItsLastPagesIsOfOneTime) {
  Handle c = Open(), w = Open();
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c.get(), 10 * kPage, &byte), CACHET_OK);
  disk_.ShutGate();
  Copying copy(c.get(), versions_);
  disk_.AwaitReadsAtGate(1); // page 10 is copied
  Invalidate(w.get(), 10, 3);
  copy.ExpectRight();
}

TEST_P(InvalidateTest, ACopyThatJoinsAnothersReadIsOfOneTime) {
  if (GetParam() == Way::IN_PROCESS)
    GTEST_SKIP() << "a device in this process is never read twice at once";
  Handle c = Open(), w = Open(), o = Open();
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c.get(), 10 * kPage, &byte), CACHET_OK);
  disk_.ShutGate();
  std::thread other([&] { cachet_get_u8(o.get(), 11 * kPage, &byte); });
  disk_.AwaitReadsAtGate(1); // of page 11, and it has the old bytes
  versions_.Begin(10, 3);
  disk_.Rewrite();
  Copying copy(c.get(), versions_);
  disk_.AwaitReadsAtGate(2); // of page 12, and it has the new ones
  EXPECT_EQ(cachet_invalidate(w.get(), 10 * kPage, 3 * kPage), CACHET_OK);
  versions_.End();
  disk_.OpenGate();
  other.join();
  copy.ExpectRight();
}

// ---- At random -------------------------------------------------------------

class Reader {
public:
  Reader(Handle handle, const Versions &versions, uint64_t seed)
      : c_(std::move(handle)), versions_(versions), random_(seed) {}
  ~Reader() {
    for (Held &h : held_)
      Release(&h);
  }

  void Once() {
    switch (random_() % 10) {
    case 0:
      return Load();
    case 1:
    case 2:
      return Map();
    case 3:
      return Async();
    case 4:
      return Prefetch();
    case 5:
      if (random_() % 16 == 0) // of no new version: nothing may come of it
        cachet_invalidate(c_.get(), Addr(0), random_() % 8 * kPage);
      return;
    default:
      return Read();
    }
  }

  // What was wrong, or "".
  const std::string &wrong() const { return wrong_; }
  uint64_t n_changed = 0;

private:
  struct Held {
    cachet_slice slice;
    std::vector<uint8_t> bytes;
  };
  struct AsyncRead {
    uint64_t addr, settled;
    std::vector<uint8_t> buf;
    cachet_request *request;
    cachet_status status;
    bool is_done;
  };

  // A multiple of 8, with `len` bytes from there on.
  uint64_t Addr(uint64_t len) {
    uint64_t pages = random_() % 8 ? kHot : kPages;
    return random_() % ((pages * kPage - len) / 8) * 8;
  }
  uint64_t Len(uint64_t most_pages) {
    return 8 * (1 + random_() % (most_pages * kPage / 8));
  }

  void Note(const std::string &what) {
    if (wrong_.empty())
      wrong_ = what;
  }
  bool IsOk(cachet_status status) {
    if (status == CACHET_E_CHANGED)
      n_changed++;
    else if (status != CACHET_OK)
      Note(cachet_errmsg(c_.get()));
    return status == CACHET_OK;
  }

  void Read() {
    uint64_t len = Len(8);
    ReadAt(Addr(len), len);
  }
  void ReadAt(uint64_t addr, uint64_t len) {
    uint64_t settled = versions_.settled();
    std::vector<uint8_t> buf(len);
    if (IsOk(cachet_read(c_.get(), addr, buf.data(), len)))
      Note(versions_.Check(buf.data(), addr, len, settled));
  }

  // And reads some of it, often after the next invalidation.
  void Prefetch() {
    uint64_t addr = Addr(8 * kPage), before = versions_.settled();
    cachet_prefetch(c_.get(), addr, 8 * kPage);
    for (int i = 0; i < 100 && versions_.settled() == before; i++)
      std::this_thread::yield();
    ReadAt(addr + random_() % 7 * kPage, 8);
  }

  void Map() {
    uint64_t len = Len(12), addr = Addr(len), settled = versions_.settled();
    cachet_slice s;
    if (IsOk(cachet_map(c_.get(), addr, len, &s)))
      Hold(s, settled);
  }

  void Load() {
    uint64_t addr = Addr(0), settled = versions_.settled();
    cachet_slice s;
    if (IsOk(cachet_load(c_.get(), addr, 0, &s)))
      Hold(s, settled);
  }

  void Hold(const cachet_slice &s, uint64_t settled) {
    Note(versions_.Check(s.data, s.offset, s.length, settled));
    held_.push_back({s, std::vector<uint8_t>(s.data, s.data + s.length)});
    if (held_.size() < 6)
      return;
    Release(&held_[0]);
    held_.erase(held_.begin());
  }
  void Release(Held *h) {
    if (memcmp(h->slice.data, h->bytes.data(), h->bytes.size()))
      Note("a slice changed while it was held");
    cachet_release(c_.get(), &h->slice);
  }

  static void Done(void *arg, cachet_status status) {
    auto *r = static_cast<AsyncRead *>(arg);
    r->status = status;
    r->is_done = true;
  }

  // Six reads at once: more than there are slots for.
  void Async() {
    std::vector<AsyncRead> reads(6);
    for (AsyncRead &r : reads) {
      uint64_t len = Len(3);
      r = {Addr(len), versions_.settled(), std::vector<uint8_t>(len),
           nullptr,   CACHET_OK,           false};
      r.is_done = !IsOk(cachet_read_async(c_.get(), r.addr, r.buf.data(), len,
                                          Done, &r, &r.request));
    }
    AsyncRead &victim = reads[random_() % reads.size()];
    if (random_() % 2 && !victim.is_done)
      cachet_cancel(c_.get(), victim.request);
    Read(); // between them
    while (std::any_of(reads.begin(), reads.end(),
                       [](const AsyncRead &r) { return !r.is_done; }))
      Dispatch();
    for (AsyncRead &r : reads)
      if (r.status != CACHET_E_CANCELED && IsOk(r.status))
        Note(versions_.Check(r.buf.data(), r.addr, r.buf.size(), r.settled));
  }
  void Dispatch() {
    pollfd p = {cachet_fd(c_.get()), cachet_events(c_.get()), 0};
    poll(&p, 1, cachet_timeout_ms(c_.get()));
    cachet_dispatch(c_.get());
  }

  Handle c_;
  const Versions &versions_;
  std::mt19937_64 random_;
  std::vector<Held> held_;
  std::string wrong_;
};

TEST_P(InvalidateTest, NoCallGetsOrMixesBytesFromBeforeAnInvalidation) {
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> n_calls{0};
  std::vector<std::unique_ptr<Reader>> readers;
  std::vector<std::thread> threads;
  Handle w = Open();
  for (int i = 0; i < kReaders; i++)
    readers.push_back(std::make_unique<Reader>(Open(), versions_, seed_++));
  for (auto &reader : readers)
    threads.emplace_back([&] {
      while (!stop && reader->wrong().empty()) {
        reader->Once();
        n_calls++;
      }
      stop = true;
    });
  std::mt19937_64 random(seed_);
  for (int i = 0; i < n_rounds_ && !stop; i++) {
    uint64_t until = n_calls + random() % 60;
    while (n_calls < until && !stop)
      std::this_thread::yield();
    uint64_t first = random() % 2 ? 0 : random() % kHot;
    uint64_t count = first ? 1 + random() % 32 : kPages;
    Invalidate(w.get(), first, count);
  }
  stop = true;
  uint64_t n_changed = 0;
  for (std::thread &t : threads)
    t.join();
  for (auto &reader : readers) {
    EXPECT_EQ(reader->wrong(), "");
    n_changed += reader->n_changed;
  }
  printf("%llu calls, %llu invalidations, %llu calls started over in vain\n",
         static_cast<unsigned long long>(n_calls),
         static_cast<unsigned long long>(versions_.settled() - 1),
         static_cast<unsigned long long>(n_changed));
  EXPECT_LT(n_changed, n_calls / 10);
}

std::string NameOf(const testing::TestParamInfo<Way> &way) {
  switch (way.param) {
  case Way::SHARED:
    return "Shared";
  case Way::SOCKET:
    return "Socket";
  case Way::COPIES:
    return "Copies";
  case Way::IN_PROCESS:
    return "InProcess";
  }
  return "";
}
INSTANTIATE_TEST_SUITE_P(By, InvalidateTest,
                         testing::Values(Way::SHARED, Way::SOCKET, Way::COPIES,
                                         Way::IN_PROCESS),
                         NameOf);

} // namespace

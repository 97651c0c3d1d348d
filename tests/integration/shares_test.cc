// Shares of the cache: how many handles share a daemon's memory, and that they
// keep it through changes of the image.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/daemon_process.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPages = 1024;
constexpr auto kPatience = std::chrono::minutes(1);

struct Close {
  void operator()(cachet *c) const { cachet_close(c); }
};
using Handle = std::unique_ptr<cachet, Close>;

class SharesTest : public testing::Test {
protected:
  void SetUp() override { Write(1); }

  // Each page is full of its number plus `version`.
  void Write(uint8_t version) {
    std::vector<uint8_t> bytes(kPages * kPage);
    for (uint64_t page = 0; page < kPages; page++)
      memset(&bytes[page * kPage], uint8_t(page + version), kPage);
    int fd = open(Image().c_str(), O_WRONLY | O_CREAT, 0600);
    ASSERT_EQ(write(fd, bytes.data(), bytes.size()), ssize_t(bytes.size()));
    close(fd);
  }

  void Start(const std::string &cache_size,
             const std::vector<std::string> &more = {}) {
    std::vector<std::string> args = {"--image",      Image(),
                                     "--listen",     "unix:" + Socket(),
                                     "--cache-size", cache_size};
    args.insert(args.end(), more.begin(), more.end());
    daemon_ = std::make_unique<DaemonProcess>(args);
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  }

  Handle Open() const {
    cachet_options options{};
    options.struct_size = sizeof options;
    options.flags = CACHET_NO_READAHEAD;
    cachet *c = nullptr;
    cachet_error err{};
    EXPECT_EQ(
        cachet_open(("cachet+unix:///disk.img?socket=" + Socket()).c_str(),
                    &options, &c, &err),
        CACHET_OK)
        << err.message;
    return Handle(c);
  }

  static bool Read(cachet *c, uint64_t page) {
    uint8_t byte;
    cachet_status status = cachet_get_u8(c, page % kPages * kPage, &byte);
    EXPECT_EQ(status, CACHET_OK) << cachet_errmsg(c);
    return status == CACHET_OK;
  }

  // Another version of the image, which `c` has come to see.
  void Change(cachet *c, uint8_t version) {
    uint64_t epoch = cachet_epoch(c);
    Write(version);
    for (uint64_t page = 0; cachet_epoch(c) == epoch; page++) {
      ASSERT_TRUE(Read(c, page));
      usleep(1000);
    }
  }

  std::string Image() const { return dir_ / "disk.img"; }
  std::string Socket() const { return dir_ / "socket"; }

  TempDir dir_;
  std::unique_ptr<DaemonProcess> daemon_;
};

// A handle of a thread of its own, which does what it is told, all at once.
class Reader {
public:
  Reader(Handle c, uint64_t page) : c_(std::move(c)), page_(page) {
    held_ = cachet_load(c_.get(), page * kPage, 1, &slice_) == CACHET_OK;
  }

  void Read() {
    for (uint64_t i = 1; i < 4; i++) {
      uint8_t byte;
      is_well_ = is_well_ &&
                 cachet_get_u8(c_.get(), (page_ + i) % kPages * kPage, &byte) ==
                     CACHET_OK;
    }
  }
  bool is_shared() const { return cachet_is_shared(c_.get()); }
  // Its calls succeed, and the slice that it took first has kept its bytes.
  bool is_well() const {
    return is_well_ && held_ && slice_.data[0] == uint8_t(page_ + 1) &&
           slice_.data[kPage - 1] == uint8_t(page_ + 1);
  }

private:
  Handle c_;
  uint64_t page_;
  cachet_slice slice_{};
  bool held_ = false, is_well_ = true;
};

// Has all of them read, each on a thread of its own.
void ReadAll(std::vector<Reader> &readers) {
  pthread_barrier_t barrier;
  pthread_barrier_init(&barrier, nullptr, unsigned(readers.size()));
  std::vector<std::thread> threads;
  for (Reader &r : readers)
    threads.emplace_back([&r, &barrier] {
      pthread_barrier_wait(&barrier);
      r.Read();
    });
  for (std::thread &t : threads)
    t.join();
  pthread_barrier_destroy(&barrier);
}

class EpochsTest : public SharesTest {
protected:
  // Has all of them read in each of five epochs, and share in each.
  void ExpectAllStayShared(std::vector<Reader> &readers, cachet *other) {
    for (uint8_t epoch = 0; epoch <= 4; epoch++) {
      if (epoch)
        Change(other, uint8_t(epoch + 1));
      ReadAll(readers);
      size_t n_shared = 0;
      for (const Reader &r : readers) {
        EXPECT_TRUE(r.is_well());
        n_shared += r.is_shared();
      }
      EXPECT_EQ(n_shared, readers.size()) << "after " << int(epoch);
    }
  }

  void Expect(size_t n) {
    Start("256M");
    Handle other = Open();
    std::vector<Reader> readers;
    for (size_t i = 0; i < n; i++)
      readers.emplace_back(Open(), i * 4);
    ExpectAllStayShared(readers, other.get());
  }
};

TEST_F(EpochsTest, SixtyHandlesStayShared) { Expect(60); }

TEST_F(EpochsTest, SixtyEightHandlesStayShared) { Expect(68); }

TEST_F(EpochsTest, HandlesThatHaveAllSharesKeepThem) {
  Start("16M");
  Handle other = Open();
  std::vector<Handle> handles;
  do
    handles.push_back(Open());
  while (cachet_is_shared(handles.back().get()));
  handles.pop_back();
  std::vector<Reader> readers;
  for (size_t i = 0; i < handles.size(); i++)
    readers.emplace_back(std::move(handles[i]), i * 4);
  EXPECT_GT(readers.size(), 50u);
  ExpectAllStayShared(readers, other.get());
}

TEST_F(SharesTest, AHandleThatWasRefusedSharesOnceThereIsAShare) {
  Start("2M");
  std::vector<Handle> handles;
  do
    handles.push_back(Open());
  while (cachet_is_shared(handles.back().get()));
  Handle refused = std::move(handles.back());
  EXPECT_TRUE(Read(refused.get(), 0)) << "it goes by the socket";
  handles.clear();
  for (uint64_t page = 1; !cachet_is_shared(refused.get()); page++) {
    ASSERT_TRUE(Read(refused.get(), page));
    usleep(1000);
  }
  EXPECT_TRUE(Read(refused.get(), 0));
}

TEST_F(SharesTest, ADaemonThatComesBackWithoutSharingIsReadByTheSocket) {
  Start("2M");
  Handle c = Open();
  ASSERT_TRUE(cachet_is_shared(c.get()));
  ASSERT_TRUE(Read(c.get(), 0));
  daemon_.reset();
  Start("2M", {"--share", "off"});
  EXPECT_TRUE(Read(c.get(), 500));
  EXPECT_FALSE(cachet_is_shared(c.get()));
  EXPECT_TRUE(Read(c.get(), 0));
}

// Whether a slice is the daemon's memory rather than a copy: a page of it is as
// far from the first as in the image.
bool IsInPlace(const cachet_slice &s, const cachet_slice &first) {
  return s.data - first.data == ptrdiff_t(s.offset - first.offset);
}

TEST_F(SharesTest, ATableGrowsWithTheSlicesThatAreHeld) {
  Start("64M");
  Handle c = Open();
  ASSERT_TRUE(cachet_is_shared(c.get()));
  for (uint64_t page = 0; page < 64; page++)
    ASSERT_TRUE(Read(c.get(), page));
  std::vector<cachet_slice> held(64);
  size_t n_in_place = 0;
  auto end = Clock::now() + kPatience;
  while (n_in_place < held.size()) {
    ASSERT_LT(Clock::now(), end) << "only " << n_in_place << " in place";
    n_in_place = 0;
    for (size_t i = 0; i < held.size(); i++) {
      ASSERT_EQ(cachet_load(c.get(), i * kPage, 1, &held[i]), CACHET_OK);
      EXPECT_EQ(held[i].data[0], uint8_t(i + 1));
      EXPECT_EQ(held[i].data[kPage - 1], uint8_t(i + 1));
      n_in_place += IsInPlace(held[i], held[0]);
    }
    EXPECT_GE(n_in_place, 3u) << "so many slots it has from the start";
    for (cachet_slice &slice : held)
      cachet_release(c.get(), &slice);
  }
}

TEST_F(SharesTest, ATableGrowsWithTheRangesThatAreMapped) {
  Start("64M");
  Handle c = Open();
  cachet_slice first, range;
  bool is_in_place = false;
  auto end = Clock::now() + kPatience;
  while (!is_in_place) {
    ASSERT_LT(Clock::now(), end);
    ASSERT_EQ(cachet_load(c.get(), 0, 1, &first), CACHET_OK);
    ASSERT_EQ(cachet_map(c.get(), 10 * kPage, 100 * kPage, &range), CACHET_OK);
    for (uint64_t i = 0; i < 100; i++)
      EXPECT_EQ(range.data[i * kPage], uint8_t(i + 11));
    is_in_place = IsInPlace(range, first);
    cachet_release(c.get(), &range);
    cachet_release(c.get(), &first);
  }
}

TEST_F(SharesTest, WhereNothingIsLeftToGrowSlicesAreCopies) {
  Start("2M"); // whose eighth is no more than 64 pages
  Handle c = Open();
  ASSERT_TRUE(cachet_is_shared(c.get()));
  std::vector<cachet_slice> held(64);
  for (int round = 0; round < 100; round++) {
    for (size_t i = 0; i < held.size(); i++) {
      ASSERT_EQ(cachet_load(c.get(), i * kPage, 1, &held[i]), CACHET_OK);
      EXPECT_EQ(held[i].data[kPage - 1], uint8_t(i + 1));
    }
    cachet_slice more;
    EXPECT_EQ(cachet_load(c.get(), 0, 1, &more), CACHET_E_BUSY);
    for (cachet_slice &slice : held)
      cachet_release(c.get(), &slice);
  }
}

TEST_F(SharesTest, AThousandHandlesOfOneProcessShare256MiB) {
  rlimit limit;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  if (limit.rlim_max < 16384)
    GTEST_SKIP() << "only " << limit.rlim_max << " descriptors are allowed";
  limit.rlim_cur = limit.rlim_max;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  Start("256M");
  std::vector<Handle> handles;
  for (uint64_t i = 0; i < 1000; i++) {
    handles.push_back(Open());
    ASSERT_TRUE(Read(handles.back().get(), i));
    ASSERT_TRUE(cachet_is_shared(handles.back().get())) << i;
  }
  Change(handles[0].get(), 2);
  for (uint64_t i = 0; i < 1000; i++) {
    ASSERT_TRUE(Read(handles[i].get(), i));
    EXPECT_TRUE(cachet_is_shared(handles[i].get())) << i;
  }
}

} // namespace

// An image with huge pages: its bytes are right while pages are filled, shared,
// evicted and invalidated by 2 MiB, and when the daemon is replaced; also in a
// kernel that gives no huge page.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/support/daemon_process.h"
#include "tests/support/length.h"

namespace {

constexpr uint64_t kPage = 2 << 20;
constexpr uint64_t kSize = 80 * kPage + 12345; // more than the cache
constexpr uint64_t kBudget = 64 * kPage;

struct Close {
  void operator()(cachet *c) const { cachet_close(c); }
};
using Handle = std::unique_ptr<cachet, Close>;

class HugeTest : public testing::Test {
protected:
  HugeTest() { StampFinely(path_); }

  void Start() {
    daemon_ = std::make_unique<DaemonProcess>(std::vector<std::string>{
        "--image", path_ + ",huge=on", "--listen", "unix:" + (dir_ / "socket"),
        "--cache-size", std::to_string(kBudget)});
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  }

  Handle Open(uint64_t flags) {
    cachet_options options{};
    options.struct_size = sizeof options;
    options.flags = flags;
    cachet *c = nullptr;
    cachet_error err{};
    std::string uri = "cachet+unix:///disk.img?socket=" + (dir_ / "socket");
    EXPECT_EQ(cachet_open(uri.c_str(), &options, &c, &err), CACHET_OK)
        << err.message;
    return Handle(c);
  }

  void ExpectRead(cachet *c, uint64_t addr, size_t len) {
    std::vector<uint8_t> got(len);
    ASSERT_EQ(cachet_read(c, addr, got.data(), len), CACHET_OK)
        << cachet_errmsg(c);
    ASSERT_EQ(memcmp(got.data(), bytes_.data() + addr, len), 0)
        << len << " bytes at " << addr;
  }

  void ExpectAll(cachet *c) {
    for (uint64_t addr = 0; addr < kSize; addr += 1 << 20)
      ASSERT_NO_FATAL_FAILURE(
          ExpectRead(c, addr, std::min<uint64_t>(1 << 20, kSize - addr)));
  }

  void ExpectAtRandom(cachet *c, unsigned n) {
    for (unsigned i = 0; i < n; i++) {
      size_t len = 1 + random_() % 20000;
      ASSERT_NO_FATAL_FAILURE(ExpectRead(c, random_() % (kSize - len), len));
    }
  }

  // Writes other bytes into the file, and has the daemon drop the old ones.
  void Overwrite(cachet *c, uint64_t addr, size_t len) {
    for (size_t i = 0; i < len; i++)
      bytes_[addr + i] = uint8_t(random_());
    int fd = open(path_.c_str(), O_WRONLY);
    ASSERT_EQ(pwrite(fd, bytes_.data() + addr, len, off_t(addr)), ssize_t(len));
    close(fd);
    ASSERT_EQ(cachet_invalidate(c, addr, len), CACHET_OK) << cachet_errmsg(c);
  }

  TempDir dir_;
  const std::string path_ = dir_ / "disk.img";
  const uint64_t seed_ = TestSeed();
  std::vector<uint8_t> bytes_ = WriteRandomFile(path_, kSize, seed_);
  std::mt19937_64 random_{seed_};
  std::unique_ptr<DaemonProcess> daemon_;
};

TEST_F(HugeTest, EveryByteIsRightWhileItIsEvictedAndInvalidated) {
  Start();
  Handle shared = Open(0), socket = Open(CACHET_NO_SHARED_MEMORY);
  EXPECT_EQ(cachet_page_size(shared.get()), kPage);
  ASSERT_NO_FATAL_FAILURE(ExpectAll(shared.get()));
  EXPECT_TRUE(cachet_is_shared(shared.get()));
  for (int i = 0; i < TestLength(8); i++) {
    ASSERT_NO_FATAL_FAILURE(ExpectAtRandom(shared.get(), 100));
    ASSERT_NO_FATAL_FAILURE(ExpectAtRandom(socket.get(), 20));
    uint64_t addr = random_() % (kSize - 5000);
    ASSERT_NO_FATAL_FAILURE(Overwrite(socket.get(), addr, 5000));
    ASSERT_NO_FATAL_FAILURE(ExpectRead(shared.get(), addr, 5000));
    ASSERT_NO_FATAL_FAILURE(ExpectRead(socket.get(), addr, 5000));
    EXPECT_LE(daemon_->MemfdBytes(), kBudget);
  }
  ASSERT_NO_FATAL_FAILURE(ExpectAll(shared.get()));
  ASSERT_NO_FATAL_FAILURE(ExpectAll(socket.get()));
  daemon_->Kill(SIGTERM);
  EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
}

TEST_F(HugeTest, AClientMapsThemByOneEntryEachUnlessTheLogSaysThereAreNone) {
  Start();
  Handle c = Open(0);
  for (uint64_t page = 0; page < 8; page++) // of four; after a miss by pread(2)
    ASSERT_NO_FATAL_FAILURE(ExpectRead(c.get(), page / 2 * kPage, kPage));
  std::ifstream smaps("/proc/self/smaps_rollup");
  std::string word;
  while (smaps >> word && word != "ShmemPmdMapped:")
    ;
  uint64_t kib = 0;
  ASSERT_TRUE(smaps >> kib);
  if (daemon_->CountInLog("event=no-huge-pages") > 0) {
    EXPECT_EQ(kib, 0u);
    GTEST_SKIP() << "the kernel is set to give shared memory no huge pages: "
                    "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
  }
  EXPECT_EQ(kib, 4 * kPage >> 10);
}

} // namespace

// Images that are mostly zeros, of which their sources know: they take the
// memory of their data, and push nothing of it out.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/daemon_process.h"
#include "tests/support/nbd_server.h"
#include "tests/support/readers.h"

namespace {

constexpr uint64_t kSize = 64 << 20;
constexpr size_t kData = 64 << 10; // at each of these
constexpr uint64_t kAt[] = {0, (30 << 20) + 4096, kSize - kData};

enum Kind { kFile, kNbdkit, kQcow2 };

class SparseImageTest : public testing::TestWithParam<Kind> {
protected:
  SparseImageTest() : image_(kSize) {
    std::vector<uint8_t> data = WriteRandomFile(dir_ / "data", kData, 1);
    int fd = open((dir_ / "raw").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    EXPECT_EQ(ftruncate(fd, kSize), 0);
    for (uint64_t at : kAt) {
      EXPECT_EQ(pwrite(fd, data.data(), kData, off_t(at)), ssize_t(kData));
      std::copy(data.begin(), data.end(), image_.begin() + ptrdiff_t(at));
    }
    close(fd);
    const std::string uri = "nbd+unix:///?socket=" + (dir_ / "nbd");
    daemon_ = std::make_unique<DaemonProcess>(std::vector<std::string>{
        "--image", "d=" + (StartServer() ? uri : dir_ / "raw"), "--cache-size",
        "16M", "--listen", "unix:" + (dir_ / "socket")});
    EXPECT_TRUE(daemon_->ready()) << daemon_->log();
  }

  ~SparseImageTest() override {
    daemon_->Kill(SIGTERM);
    EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
  }

  // False: the daemon reads the file itself.
  bool StartServer() {
    const std::string raw = dir_ / "raw", qcow2 = dir_ / "qcow2",
                      socket = dir_ / "nbd";
    std::vector<std::string> command = {"nbdkit", "-f",   "-r", "-U",
                                        socket,   "file", raw};
    if (GetParam() == kQcow2) {
      command = {"qemu-nbd", "-r", "-t", "-f", "qcow2", "-k", socket, qcow2};
      EXPECT_EQ(
          system(("qemu-img convert -O qcow2 " + raw + " " + qcow2).c_str()),
          0);
    }
    if (GetParam() != kFile)
      server_ = std::make_unique<NbdServer>(command, socket);
    return server_ != nullptr;
  }

  cachet *Open(unsigned flags) {
    cachet_options o = CACHET_OPTIONS_INIT;
    o.flags = flags;
    cachet *c = nullptr;
    EXPECT_EQ(
        cachet_open(("cachet+unix:///d?socket=" + (dir_ / "socket")).c_str(),
                    &o, &c, nullptr),
        CACHET_OK);
    return c;
  }

  void ReadAll(unsigned flags) {
    cachet *c = Open(flags);
    for (uint64_t at = 0; at < kSize; at += 1 << 20)
      ASSERT_TRUE(ReadsRight(c, image_, at, 1 << 20));
    cachet_close(c);
  }

  TempDir dir_;
  std::vector<uint8_t> image_;
  std::unique_ptr<NbdServer> server_;
  std::unique_ptr<DaemonProcess> daemon_;
};

TEST_P(SparseImageTest, TakesTheMemoryOfItsData) {
  ReadAll(0);
  ReadAll(CACHET_NO_SHARED_MEMORY);
  EXPECT_LT(daemon_->MemfdBytes(), 8u << 20);
  cachet *c = Open(0);
  for (uint64_t at : kAt)
    for (size_t i = 0; i < kData; i += 4096)
      EXPECT_TRUE(cachet_is_cached(c, at + i)) << at + i;
  EXPECT_TRUE(cachet_is_cached(c, 20 << 20)) << "known to be zeros";
  cachet_close(c);
}

// A page that is looked at in the memory itself would make the kernel give it
// memory.
TEST_P(SparseImageTest, SlicesAndMapsTouchNoHole) {
  cachet *c = Open(0);
  ASSERT_TRUE(cachet_is_shared(c));
  cachet_slice s = {};
  for (uint64_t at = 0; at < kSize; at += 16 << 10) {
    ASSERT_EQ(cachet_load(c, at, 1, &s), CACHET_OK) << cachet_errmsg(c);
    ASSERT_EQ(memcmp(s.data, &image_[s.offset], s.length), 0) << at;
    cachet_release(c, &s);
  }
  for (uint64_t at = 0; at < kSize; at += 1 << 20) {
    ASSERT_EQ(cachet_map(c, at, 200000, &s), CACHET_OK) << cachet_errmsg(c);
    ASSERT_EQ(memcmp(s.data, &image_[s.offset], s.length), 0) << at;
    cachet_release(c, &s);
  }
  EXPECT_LT(daemon_->MemfdBytes(), 8u << 20);
  cachet_close(c);
}

std::string KindName(const testing::TestParamInfo<Kind> &kind) {
  static const char *const names[] = {"File", "Nbdkit", "Qcow2"};
  return names[kind.param];
}

INSTANTIATE_TEST_SUITE_P(Kinds, SparseImageTest,
                         testing::Values(kFile, kNbdkit, kQcow2), KindName);

} // namespace

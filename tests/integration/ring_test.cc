// A daemon that may have rings of io_uring reads files by them.
#include <gtest/gtest.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/daemon_process.h"
#include "tests/support/forbidden_call.h"
#include "tests/support/wire_client.h"

namespace {

constexpr uint64_t kPage = 4096;

// How many reads the rings of a process have ended, as the kernel counts them.
// Negative: the kernel does not say.
long Ended(pid_t pid) {
  long n = -1;
  std::string proc = "/proc/" + std::to_string(pid);
  DIR *dir = opendir((proc + "/fdinfo").c_str());
  while (const dirent *entry = dir ? readdir(dir) : nullptr) {
    std::ifstream info(proc + "/fdinfo/" + entry->d_name);
    for (std::string word; info >> word;) {
      long tail = 0;
      if (word == "CqTail:" && info >> tail)
        n = (n < 0 ? 0 : n) + tail;
    }
  }
  if (dir)
    closedir(dir);
  return n;
}

// Takes a file out of the kernel's memory.  False: it stays there, or it cannot
// be read past that without a wait.
bool Forget(const std::string &path, size_t len) {
  int fd = open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (fd < 0)
    return false;
  fdatasync(fd);
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  alignas(kPage) static char page[kPage];
  iovec v = {page, kPage};
  bool can = preadv2(fd, &v, 1, 0, RWF_NOWAIT) >= 0 || errno == EAGAIN;
  void *at = mmap(nullptr, len, PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  if (at == MAP_FAILED)
    return false;
  std::vector<unsigned char> there(len / kPage);
  can = can && mincore(at, len, there.data()) == 0;
  munmap(at, len);
  for (unsigned char is_there : there)
    can = can && !(is_there & 1);
  return can;
}

// From here on the kernel makes rings and takes no read from them, except from
// a thread that waits for it, as a daemon does when it tries a new ring.
void TakeNoReads() { ForbidCallWith(SYS_io_uring_enter, 2, 0, EAGAIN); }

class RingTest : public testing::Test {
protected:
  static constexpr uint64_t kReads = 32, kApart = 64;
  static constexpr int kWorkers = 2;

  void SetUp() override {
    bytes_ = WriteRandomFile(path_, kReads * kApart * kPage, TestSeed());
    if (!Forget(path_, bytes_.size()))
      GTEST_SKIP() << "a file system that cannot read by a ring";
  }

  void Serve(const std::function<void()> &before_exec = [] {}) {
    daemon_ = std::make_unique<DaemonProcess>(
        std::vector<std::string>{"--listen", "unix:" + socket_, "--log-level",
                                 "debug", "--workers", std::to_string(kWorkers),
                                 "--image", "disk=" + path_},
        before_exec);
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  }

  bool HasRings() const { return daemon_->CountInLog("no-ring") == 0; }

  // Reads pages that are far apart.
  void ReadAll(WireClient *client) {
    uint32_t image = client->Start("disk").image;
    ASSERT_TRUE(Forget(path_, bytes_.size()));
    for (uint64_t i = 0; i < kReads; i++) {
      uint64_t at = i * kApart * kPage;
      Answer answer = client->Read(image, at, kPage);
      EXPECT_EQ(answer.status, 0);
      EXPECT_EQ(answer.bytes,
                std::vector<uint8_t>(bytes_.begin() + long(at),
                                     bytes_.begin() + long(at + kPage)));
    }
  }

  TempDir directory_;
  std::string socket_ = directory_ / "s", path_ = directory_ / "disk";
  std::vector<uint8_t> bytes_;
  std::unique_ptr<DaemonProcess> daemon_;
};

TEST_F(RingTest, ColdReadsOfAFileGoByTheRing) {
  Serve();
  WireClient client = WireClient::Unix(socket_);
  long before = Ended(daemon_->pid());
  if (!HasRings() || before < 0)
    GTEST_SKIP() << "no io_uring here, or the kernel counts no reads";
  ReadAll(&client);
  // A disk that has no room in its queue leaves some to the pool.
  EXPECT_GE(Ended(daemon_->pid()) - before, long(kReads / 2));
}

TEST_F(RingTest, AMetricTellsHowManyWorkersHaveARing) {
  Serve();
  WireClient client = WireClient::Unix(socket_);
  client.Start("disk");
  EXPECT_EQ(client.Stats()["rings"], kWorkers - daemon_->CountInLog("no-ring"));
}

TEST_F(RingTest, AWorkerWhoseRingTakesNoReadsGoesOnWithoutIt) {
  Serve(TakeNoReads);
  WireClient client = WireClient::Unix(socket_);
  if (!HasRings())
    GTEST_SKIP() << "no io_uring here";
  ReadAll(&client);
  EXPECT_EQ(daemon_->CountInLog("ring-lost"), 1u);
  EXPECT_EQ(client.Stats()["rings"], kWorkers - 1u);
}

} // namespace

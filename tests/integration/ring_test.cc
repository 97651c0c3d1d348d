// A daemon that may have rings of io_uring reads files by them.
#include <gtest/gtest.h>

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <string>
#include <vector>

#include "tests/support/daemon_process.h"
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

TEST(RingTest, ColdReadsOfAFileGoByTheRing) {
  constexpr uint64_t kReads = 32, kApart = 64;
  TempDir directory;
  std::string socket = directory / "s", path = directory / "disk";
  std::vector<uint8_t> bytes =
      WriteRandomFile(path, kReads * kApart * kPage, TestSeed());
  if (!Forget(path, bytes.size()))
    GTEST_SKIP() << "a file system that cannot read by a ring";
  DaemonProcess daemon({"--listen", "unix:" + socket, "--log-level", "debug",
                        "--image", "disk=" + path});
  ASSERT_TRUE(daemon.ready()) << daemon.log();
  WireClient client = WireClient::Unix(socket);
  uint32_t image = client.Start("disk").image;
  long before = Ended(daemon.pid());
  if (daemon.CountInLog("no-ring") > 0 || before < 0)
    GTEST_SKIP() << "no io_uring here, or the kernel counts no reads";
  ASSERT_TRUE(Forget(path, bytes.size()));
  for (uint64_t i = 0; i < kReads; i++) {
    uint64_t at = i * kApart * kPage;
    Answer answer = client.Read(image, at, kPage);
    EXPECT_EQ(answer.status, 0);
    EXPECT_EQ(answer.bytes,
              std::vector<uint8_t>(bytes.begin() + long(at),
                                   bytes.begin() + long(at + kPage)));
  }
  // A disk that has no room in its queue leaves some to the pool.
  EXPECT_GE(Ended(daemon.pid()) - before, long(kReads / 2));
}

} // namespace

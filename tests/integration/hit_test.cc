// What a hit costs: a reader whose pages are resident makes no system call, but
// for its looks at the daemon's connection.
#include <cachet/cachet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/daemon_process.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kPage = 4096, kPages = 64;

// The reader makes this call where the counting begins and where it ends; the
// library makes it nowhere.
constexpr long kMark = SYS_getppid;

enum { READER_OK, READER_FAILED, READER_NOT_SHARED };

// Every call that may hit, of pages that are resident.  No memory is asked for.
bool HitAll(cachet *c) {
  static uint8_t buf[2 * kPage];
  for (uint64_t page = 0; page + 3 < kPages; page++) {
    cachet_slice s;
    uint32_t word;
    uint64_t addr = page * kPage;
    if (cachet_load(c, addr, 8, &s) != CACHET_OK)
      return false;
    cachet_release(c, &s);
    if (cachet_map(c, addr, 2 * kPage, &s) != CACHET_OK)
      return false;
    cachet_release(c, &s);
    if (cachet_get_u32le(c, addr + 7, &word) != CACHET_OK ||
        cachet_read(c, addr + 1, buf, sizeof buf) != CACHET_OK ||
        !cachet_is_cached(c, addr))
      return false;
  }
  return true;
}

// The reader: all pages are loaded once, and then hit, again and again.
[[noreturn]] void Read(const std::string &uri, bool shared, int n_rounds) {
  cachet_options options = CACHET_OPTIONS_INIT;
  options.flags = CACHET_NO_READAHEAD;
  cachet *c;
  if (ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) < 0)
    _exit(READER_FAILED);
  raise(SIGSTOP);
  if (cachet_open(uri.c_str(), &options, &c, nullptr) != CACHET_OK ||
      cachet_warm(c, 0, CACHET_TO_END) != CACHET_OK || !HitAll(c))
    _exit(READER_FAILED);
  if (cachet_is_shared(c) != shared)
    _exit(READER_NOT_SHARED);
  syscall(kMark);
  bool good = true;
  for (int i = 0; i < n_rounds && good; i++)
    good = HitAll(c);
  syscall(kMark);
  _exit(good ? READER_OK : READER_FAILED);
}

class HitTest : public testing::Test {
protected:
  void SetUp() override {
    std::string bytes(kPages * kPage, 'x');
    int fd = open(path_.c_str(), O_WRONLY | O_CREAT, 0600);
    ASSERT_EQ(write(fd, bytes.data(), bytes.size()), ssize_t(bytes.size()));
    close(fd);
  }

  // Runs a reader and counts its system calls between the marks, and how many
  // milliseconds lie between them.
  void Count(const std::string &uri, bool shared, int n_rounds) {
    pid_t pid = fork();
    if (pid == 0)
      Read(uri, shared, n_rounds);
    int status, n_marks = 0;
    Clock::time_point begin;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status))
      GTEST_SKIP() << "ptrace(2) is not allowed";
    ptrace(PTRACE_SETOPTIONS, pid, nullptr,
           reinterpret_cast<void *>(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL));
    for (int signal = 0;;) {
      ASSERT_EQ(ptrace(PTRACE_SYSCALL, pid, nullptr,
                       reinterpret_cast<void *>(long(signal))),
                0);
      ASSERT_EQ(waitpid(pid, &status, 0), pid);
      if (!WIFSTOPPED(status))
        break;
      bool is_call = WSTOPSIG(status) == (SIGTRAP | 0x80);
      signal = is_call ? 0 : WSTOPSIG(status);
      __ptrace_syscall_info info{};
      if (!is_call || ptrace(PTRACE_GET_SYSCALL_INFO, pid,
                             reinterpret_cast<void *>(sizeof info), &info) < 0)
        continue;
      if (info.op != PTRACE_SYSCALL_INFO_ENTRY)
        continue;
      if (long(info.entry.nr) != kMark)
        n_calls_ += n_marks == 1;
      else if (++n_marks == 1)
        begin = Clock::now();
      else
        took_ms_ = std::chrono::duration_cast<std::chrono::milliseconds>(
                       Clock::now() - begin)
                       .count();
    }
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), READER_OK);
    EXPECT_EQ(n_marks, 2);
  }

  TempDir dir_;
  std::string path_ = dir_ / "i";
  long n_calls_ = 0;
  int64_t took_ms_ = 0;
};

TEST_F(HitTest, InProcessNoneMakesASystemCall) {
  Count(path_, false, 100);
  EXPECT_EQ(n_calls_, 0);
}

// It looks at the connection twice a second, with a few calls each time.
TEST_F(HitTest,
       InADaemonsMemoryNoneMakesASystemCallButForALookAtTheConnection) {
  DaemonProcess daemon({"--image", path_, "--listen", "unix:" + (dir_ / "s")});
  ASSERT_TRUE(daemon.ready()) << daemon.log();
  Count("cachet+unix:///i?socket=" + (dir_ / "s"), true, 100);
  EXPECT_LE(n_calls_, 4 * (1 + took_ms_ / 500));
}

} // namespace

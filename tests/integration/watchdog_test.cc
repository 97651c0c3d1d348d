// The service manager's watchdog: it hears of the daemon as long as no thread
// hangs that must not.
#include <gtest/gtest.h>

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/daemon_process.h"

namespace {

constexpr int kWatchdogUs = 400000; // the daemon calls twice as often

class WatchdogTest : public testing::Test {
protected:
  void SetUp() override {
    WriteRandomFile(dir_ / "disk.img", 10000, 1);
    manager_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    strcpy(at.sun_path, (dir_ / "notify").c_str());
    ASSERT_EQ(bind(manager_, reinterpret_cast<sockaddr *>(&at), sizeof at), 0);
  }
  void TearDown() override { close(manager_); }

  void Start(bool wants) {
    daemon_ = std::make_unique<DaemonProcess>(
        std::vector<std::string>{"--config", "/dev/null", "--image",
                                 dir_ / "disk.img", "--workers", "2",
                                 "--listen", "unix:" + (dir_ / "socket")},
        [this, wants] {
          setenv("NOTIFY_SOCKET", (dir_ / "notify").c_str(), 1);
          if (wants)
            setenv("WATCHDOG_USEC", std::to_string(kWatchdogUs).c_str(), 1);
        });
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  }

  // What the daemon says next; empty: nothing for that long.
  std::string Hear(int timeout_ms = 30000) {
    char text[256];
    timeval limit = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
    setsockopt(manager_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ssize_t n = recv(manager_, text, sizeof text, 0);
    return n > 0 ? std::string(text, size_t(n)) : "";
  }
  void AwaitCall() {
    std::string said;
    do
      ASSERT_NE(said = Hear(), "") << daemon_->log();
    while (said != "WATCHDOG=1");
  }
  void ForgetCalls() {
    char text[256];
    while (recv(manager_, text, sizeof text, MSG_DONTWAIT) > 0)
      ;
  }

  // The daemon's thread of that name, of which there is one; 0: there is none.
  pid_t Thread(const std::string &name) const {
    std::string tasks = "/proc/" + std::to_string(daemon_->pid()) + "/task/";
    pid_t found = 0;
    DIR *dir = opendir(tasks.c_str());
    while (const dirent *entry = dir ? readdir(dir) : nullptr) {
      std::string comm;
      std::getline(std::ifstream(tasks + entry->d_name + "/comm"), comm);
      if (comm == name)
        found = pid_t(atol(entry->d_name));
    }
    if (dir)
      closedir(dir);
    return found;
  }

  // Stops one thread alone.  False: this system lets nobody do so.
  static bool Stop(pid_t thread) {
    if (ptrace(PTRACE_SEIZE, thread, nullptr, nullptr) < 0)
      return false;
    int status;
    EXPECT_EQ(ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr), 0);
    EXPECT_EQ(waitpid(thread, &status, __WALL), thread);
    return true;
  }
  static void Continue(pid_t thread) {
    EXPECT_EQ(ptrace(PTRACE_DETACH, thread, nullptr, nullptr), 0);
  }

  // Behind the first `from` bytes of the log.
  void AwaitLog(size_t from, const std::string &text) {
    while (daemon_->log().find(text, from) == std::string::npos)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  TempDir dir_;
  int manager_ = -1;
  std::unique_ptr<DaemonProcess> daemon_;
};

TEST_F(WatchdogTest, WhoWantsToHearOfItHears) {
  Start(true);
  EXPECT_EQ(Hear(), "READY=1");
  for (int i = 0; i < 5; i++)
    AwaitCall();
}

TEST_F(WatchdogTest, WhoDoesNotHearsNothing) {
  Start(false);
  EXPECT_EQ(Hear(), "READY=1");
  EXPECT_EQ(Hear(2 * kWatchdogUs / 1000), "");
}

TEST_F(WatchdogTest, AThreadThatHangsIsNoticedAndNamed) {
  Start(true);
  for (const char *name : {"worker-0", "worker-1", "evictor", "reclaimer"}) {
    AwaitCall();
    pid_t thread = Thread(name);
    ASSERT_NE(thread, 0) << name;
    if (!Stop(thread))
      GTEST_SKIP() << "ptrace(2): " << strerror(errno);
    // It may have been late before, on a busy machine.
    AwaitLog(daemon_->log().size(), std::string("event=stuck thread=") + name);
    ForgetCalls();
    EXPECT_EQ(Hear(kWatchdogUs / 1000), "") << name;
    Continue(thread);
  }
  AwaitCall();
}

TEST_F(WatchdogTest, AMainLoopThatHangsIsSilent) {
  Start(true);
  AwaitCall();
  if (!Stop(daemon_->pid()))
    GTEST_SKIP() << "ptrace(2): " << strerror(errno);
  ForgetCalls();
  EXPECT_EQ(Hear(2 * kWatchdogUs / 1000), "");
  Continue(daemon_->pid());
  AwaitCall();
}

} // namespace

// The service manager's watchdog: it hears of the daemon as long as no thread
// hangs that must not.
#include <gtest/gtest.h>

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/support/daemon_process.h"
#include "tests/support/stopped_thread.h"

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
    Inheritance inheritance;
    inheritance.environment = {"NOTIFY_SOCKET=" + (dir_ / "notify")};
    if (wants)
      inheritance.environment.push_back("WATCHDOG_USEC=" +
                                        std::to_string(kWatchdogUs));
    daemon_ = std::make_unique<DaemonProcess>(
        std::vector<std::string>{"--config", "/dev/null", "--image",
                                 dir_ / "disk.img", "--workers", "2",
                                 "--listen", "unix:" + (dir_ / "socket")},
        [] {}, inheritance);
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  }

  // What the daemon says next, but for what it has kept for its successor;
  // empty: nothing for that long.
  std::string Hear(int timeout_ms = 30000) {
    char text[256];
    timeval limit = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
    setsockopt(manager_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ssize_t n;
    do
      n = recv(manager_, text, sizeof text, 0);
    while (n > 0 && !strncmp(text, "FDSTORE", 7));
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
  for (const char *name :
       {"worker-0", "worker-1", "evictor", "reclaimer", "reactor"}) {
    AwaitCall();
    StoppedThread thread(daemon_->pid(), name);
    if (!thread.stopped())
      GTEST_SKIP() << "ptrace(2): " << strerror(errno);
    // It may have been late before, on a busy machine.
    std::string stuck = std::string("event=stuck thread=") + name;
    daemon_->AwaitLog(stuck, daemon_->CountInLog(stuck) + 1);
    ForgetCalls();
    EXPECT_EQ(Hear(kWatchdogUs / 1000), "") << name;
    thread.Continue();
  }
  AwaitCall();
}

TEST_F(WatchdogTest, AMainLoopThatHangsIsSilent) {
  Start(true);
  AwaitCall();
  StoppedThread thread(daemon_->pid(), "cachetd");
  if (!thread.stopped())
    GTEST_SKIP() << "ptrace(2): " << strerror(errno);
  ForgetCalls();
  EXPECT_EQ(Hear(2 * kWatchdogUs / 1000), "");
  thread.Continue();
  AwaitCall();
}

} // namespace

// Health as a probe sees it: of a daemon whose threads hang, whose images are
// not there, and that is told to stop.
#include <gtest/gtest.h>

#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/daemon_process.h"
#include "tests/support/http_client.h"
#include "tests/support/stopped_thread.h"

namespace {

class MonitorTest : public testing::Test {
protected:
  void SetUp() override { WriteRandomFile(dir_ / "disk.img", 100000, 1); }

  void Start(std::vector<std::string> more = {}) {
    std::vector<std::string> args = {"--config",  "/dev/null",
                                     "--image",   dir_ / "disk.img",
                                     "--workers", "2",
                                     "--listen",  "unix:" + (dir_ / "socket"),
                                     "--metrics", "unix:" + (dir_ / "metrics")};
    args.insert(args.end(), more.begin(), more.end());
    daemon_ = std::make_unique<DaemonProcess>(args);
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  }
  HttpReply Get(const std::string &path) {
    return HttpClient(dir_ / "metrics").Get(path);
  }
  void AwaitStatus(const std::string &path, int status) {
    while (Get(path).status != status)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }

  TempDir dir_;
  std::unique_ptr<DaemonProcess> daemon_;
};

TEST_F(MonitorTest, AThreadThatHangsIsNotAliveAndIsNamed) {
  Start();
  for (const char *name : {"worker-0", "worker-1", "evictor", "reclaimer"}) {
    EXPECT_EQ(Get("/livez").status, 200);
    StoppedThread thread(daemon_->pid(), name);
    if (!thread.stopped())
      GTEST_SKIP() << "ptrace(2): " << strerror(errno);
    HttpReply reply = Get("/livez");
    EXPECT_EQ(reply.status, 503);
    EXPECT_EQ(reply.body,
              std::string("thread ") + name + " has not turned for 5 s\n");
    EXPECT_EQ(Get("/livez").status, 503); // and this one does not wait
    EXPECT_EQ(Get("/metrics").status, 200);
    thread.Continue();
    AwaitStatus("/livez", 200);
  }
}

TEST_F(MonitorTest, AMainLoopThatHangsIsNotAlive) {
  Start();
  StoppedThread thread(daemon_->pid(), "cachetd");
  if (!thread.stopped())
    GTEST_SKIP() << "ptrace(2): " << strerror(errno);
  EXPECT_EQ(Get("/livez").body, "thread main has not turned for 5 s\n");
  thread.Continue();
  AwaitStatus("/livez", 200);
}

TEST_F(MonitorTest, IsReadyWhenEachImageWasThereOnce) {
  std::string later = dir_ / "later.img";
  Start({"--image", "vm7=" + later});
  HttpReply reply;
  do // it says that it is ready before it accepts
    reply = Get("/readyz");
  while (reply.body.find("accepts no connections") != std::string::npos);
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.body,
            "image vm7 was not opened so far: No such file or directory\n");
  EXPECT_EQ(Get("/livez").status, 200);
  WriteRandomFile(later, 5000, 2);
  AwaitStatus("/readyz", 200);
  EXPECT_EQ(unlink(later.c_str()), 0); // once is enough
  EXPECT_EQ(Get("/readyz").status, 200);
}

TEST_F(MonitorTest, TellsNoPath) {
  Start({"--image", "vm7=" + (dir_ / "secret.img"), "--listen",
         "tcp:"
         "127.0.0.1:0"});
  for (const char *path : {"/metrics", "/livez", "/readyz", "/", "/x"}) {
    HttpReply reply = Get(path);
    EXPECT_EQ((reply.head + reply.body).find(dir_.path()), std::string::npos);
    EXPECT_EQ((reply.head + reply.body).find("secret"), std::string::npos);
  }
}

TEST_F(MonitorTest, TheSocketIsForItsGroupAndGoesWithTheDaemon) {
  Start();
  struct stat st;
  ASSERT_EQ(stat((dir_ / "metrics").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0660u);
  HttpClient waits(dir_ / "metrics");
  waits.Send("GET /metr");
  daemon_->Kill(SIGTERM);
  EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
  EXPECT_EQ(access((dir_ / "metrics").c_str(), F_OK), -1);
}

TEST_F(MonitorTest, AnAddressThatCannotBeHadEndsTheStart) {
  Start();
  DaemonProcess second({"--config", "/dev/null", "--image", dir_ / "disk.img",
                        "--listen", "unix:" + (dir_ / "socket2"), "--metrics",
                        "unix:" + (dir_ / "metrics")});
  EXPECT_FALSE(second.ready());
  EXPECT_EQ(second.Wait(), 1);
  EXPECT_NE(second.log().find("in use"), std::string::npos) << second.log();
}

} // namespace

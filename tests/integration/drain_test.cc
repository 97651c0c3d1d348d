// Draining as an administrator sees it: signals, the command, the service
// manager, probes, and clients of the library.
#include <gtest/gtest.h>

#include <cachet/cachet.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/support/daemon_process.h"
#include "tests/support/http_client.h"

namespace {

struct Close {
  void operator()(cachet *c) const { cachet_close(c); }
  void operator()(cachet_admin *a) const { cachet_admin_close(a); }
};
using Handle = std::unique_ptr<cachet, Close>;
using Admin = std::unique_ptr<cachet_admin, Close>;

class DrainTest : public testing::Test {
protected:
  void SetUp() override {
    bytes_ = WriteRandomFile(dir_ / "disk.img", 100000, 1);
    manager_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_un at{};
    at.sun_family = AF_UNIX;
    strcpy(at.sun_path, (dir_ / "notify").c_str());
    ASSERT_EQ(bind(manager_, reinterpret_cast<sockaddr *>(&at), sizeof at), 0);
    timeval limit = {60, 0};
    setsockopt(manager_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  void TearDown() override { close(manager_); }

  void Start(const std::string &timeout) {
    const Inheritance inheritance = {
        {"NOTIFY_SOCKET=" + (dir_ / "notify")}, {}, ""};
    daemon_ = std::make_unique<DaemonProcess>(
        std::vector<std::string>{
            "--config", "/dev/null", "--image", dir_ / "disk.img", "--listen",
            "unix:" + (dir_ / "socket"), "--metrics",
            "unix:" + (dir_ / "metrics"), "--drain-timeout", timeout},
        [] {}, inheritance);
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
    EXPECT_EQ(Hear(), "READY=1");
  }
  // What the daemon says next of its state; memory that it leaves with the
  // manager is no matter here.
  std::string Hear() {
    char text[512];
    ssize_t n;
    do
      n = recv(manager_, text, sizeof text, 0);
    while (n > 0 && std::string(text, size_t(n)).rfind("FDSTORE", 0) == 0);
    return n > 0 ? std::string(text, size_t(n)) : "";
  }
  std::string Uri(const std::string &image) const {
    return "cachet+unix:///" + image + "?socket=" + (dir_ / "socket");
  }
  Handle Open(enum cachet_status expected = CACHET_OK) {
    cachet *c = nullptr;
    cachet_error err = {};
    EXPECT_EQ(cachet_open(Uri("disk.img").c_str(), nullptr, &c, &err), expected)
        << err.message;
    return Handle(c);
  }
  Admin OpenAdmin() {
    cachet_admin *a = nullptr;
    cachet_error err = {};
    EXPECT_EQ(cachet_admin_open(Uri("").c_str(), nullptr, &a, &err), CACHET_OK)
        << err.message;
    return Admin(a);
  }
  void AwaitLog(const std::string &text) { daemon_->AwaitLog(text); }
  void ExpectBytes(cachet *c, uint64_t at, size_t len) {
    std::vector<uint8_t> got(len);
    EXPECT_EQ(cachet_read(c, at, got.data(), len), CACHET_OK)
        << cachet_errmsg(c);
    EXPECT_EQ(memcmp(got.data(), bytes_.data() + at, len), 0);
  }

  TempDir dir_;
  std::vector<uint8_t> bytes_;
  int manager_ = -1;
  std::unique_ptr<DaemonProcess> daemon_;
};

TEST_F(DrainTest, ASignalDrainsAndTheLastClientEndsIt) {
  Start("3600");
  Handle client = Open();
  ExpectBytes(client.get(), 0, 4096);
  daemon_->Kill(SIGTERM);
  AwaitLog("event=draining clients=1");
  EXPECT_EQ(Hear(),
            "STOPPING=1\n"
            "STATUS=Draining, for 3600 s at most, until 1 clients have left\n"
            "EXTEND_TIMEOUT_USEC=3615000000");
  HttpReply ready = HttpClient(dir_ / "metrics").Get("/readyz");
  EXPECT_EQ(ready.status, 503);
  EXPECT_EQ(ready.body, "the daemon is draining\n");
  EXPECT_EQ(HttpClient(dir_ / "metrics").Get("/livez").status, 200);
  Open(CACHET_E_BUSY);
  ExpectBytes(client.get(), 0, 100000); // misses as well
  client.reset();
  EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
}

TEST_F(DrainTest, ASecondSignalEndsItAtOnce) {
  Start("3600");
  Handle client = Open();
  daemon_->Kill(SIGTERM);
  AwaitLog("event=draining");
  daemon_->Kill(SIGTERM);
  EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
}

TEST_F(DrainTest, AnInterruptDoesNotDrain) {
  Start("3600");
  Handle client = Open();
  daemon_->Kill(SIGINT);
  EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
  EXPECT_EQ(daemon_->log().find("event=draining"), std::string::npos);
}

TEST_F(DrainTest, WhenTheTimeIsOverItEnds) {
  Start("1");
  Handle client = Open();
  daemon_->Kill(SIGTERM);
  EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
  EXPECT_NE(daemon_->log().find("event=drain-over clients=1"),
            std::string::npos);
}

TEST_F(DrainTest, TheLibraryAsksForIt) {
  Start("0");
  Handle client = Open();
  Admin admin = OpenAdmin();
  EXPECT_EQ(cachet_admin_drain(admin.get(), -1), CACHET_OK)
      << cachet_admin_errmsg(admin.get());
  AwaitLog("event=draining clients=1");
  EXPECT_EQ(Hear(), "STATUS=Draining, until 1 clients have left");
  client.reset();
  EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
}

} // namespace

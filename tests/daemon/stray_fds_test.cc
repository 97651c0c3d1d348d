// Descriptors that a peer sends along.  Those here take the kernel half a
// minute to close, and nobody may wait for that.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "proto/status.h"
#include "tests/support/daemon_process.h"
#include "tests/support/test_server.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

namespace {

constexpr uint64_t kSize = 1 << 20;
constexpr int kLingerS = 30;
constexpr std::chrono::seconds kPatience(15);

// What a forked child does about the process that it came from.  It allocates
// nothing: a thread that it does not have may hold the allocator's lock.
class Parent {
public:
  Parent() {
    std::string tasks = "/proc/" + std::to_string(getpid()) + "/task";
    for (const auto &task : std::filesystem::directory_iterator(tasks))
      threads_.push_back(task.path() / "stat");
  }

  // Every thread stands still when it returns.
  void Stop() const {
    kill(getppid(), SIGSTOP);
    for (const std::string &thread : threads_)
      while (!StoppedOrGone(thread.c_str()))
        sched_yield();
  }

  static void Continue() { kill(getppid(), SIGCONT); }

private:
  static bool StoppedOrGone(const char *thread) {
    char stat[256];
    int fd = open(thread, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
      return true;
    ssize_t n = read(fd, stat, sizeof stat - 1);
    close(fd);
    stat[n > 0 ? n : 0] = 0;
    const char *name_end = strrchr(stat, ')'); // the state is behind it
    return !name_end || name_end[2] == 'T';
  }

  std::vector<std::string> threads_;
};

// A TCP socket with unsent bytes, whose peer does not read.  The last close of
// it waits for kLingerS, or for the end of this object.
class SlowSocket {
public:
  SlowSocket() {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t len = sizeof address;
    auto *generic = reinterpret_cast<sockaddr *>(&address);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int small = 4096;
    setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    setsockopt(fd_, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    EXPECT_EQ(bind(listener, generic, len), 0);
    EXPECT_EQ(listen(listener, 1), 0);
    EXPECT_EQ(getsockname(listener, generic, &len), 0);
    connect(fd_, generic, len);
    peer_ = accept(listener, nullptr, nullptr);
    EXPECT_GE(peer_, 0);
    close(listener);
    char bytes[4096] = {};
    while (send(fd_, bytes, sizeof bytes, MSG_NOSIGNAL) > 0)
      ;
    linger l = {1, kLingerS};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &l, sizeof l);
  }

  ~SlowSocket() {
    close(peer_); // resets the connection: nothing is left to wait for
    if (fd_ >= 0)
      close(fd_);
  }

  // Sends `bytes` with the socket, once.  What the receiver gets is the last
  // reference: a child sends, and lets nobody run until it has closed its own.
  // 0 or an errno.
  int SendAway(int to, const std::vector<uint8_t> &bytes, int flags = 0) {
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd_)] = {};
    iovec iov = {const_cast<uint8_t *>(bytes.data()), bytes.size()};
    msghdr msg = {};
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control;
    msg.msg_controllen = sizeof control;
    cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof fd_);
    memcpy(CMSG_DATA(cmsg), &fd_, sizeof fd_);

    Parent parent;
    int closed[2], status = 0; // the pipe ends when this process has closed it
    EXPECT_EQ(pipe2(closed, O_CLOEXEC), 0);
    pid_t child = fork();
    if (child == 0) {
      // The server's descriptors too, or it would not be the last to close.
      for (int fd = 3; fd < 1024; fd++)
        if (fd != to && fd != fd_ && fd != closed[0])
          close(fd);
      char byte;
      while (read(closed[0], &byte, 1) < 0)
        ;
      parent.Stop();
      int r = sendmsg(to, &msg, MSG_NOSIGNAL | flags) < 0 ? errno : 0;
      if (r == 0)
        close(fd_); // else the exit does, which does not wait
      Parent::Continue();
      _exit(r);
    }
    EXPECT_GT(child, 0);
    close(fd_);
    fd_ = -1;
    close(closed[0]);
    close(closed[1]);
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

private:
  int fd_ = -1, peer_ = -1;
};

std::vector<uint8_t> Hello() {
  Cachet__Wire__Hello hello = CACHET__WIRE__HELLO__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  hello.version_min = hello.version_max = 1;
  msg.id = 1;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_HELLO;
  msg.hello = &hello;
  return WireClient::Pack(msg);
}

class StrayFdsTest : public testing::Test {
protected:
  StrayFdsTest() {
    options_.pass_rights = true;
    options_.n_workers = 1;
  }

  void Serve() {
    server_ = std::make_unique<TestServer>(
        std::vector<std::pair<std::string, FakeSource *>>{{"disk", &disk_}},
        options_);
    good_ = std::make_unique<WireClient>(server_->Unix());
    image_ = good_->Start().image;
    start_ = std::chrono::steady_clock::now();
  }

  void ExpectNobodyWaits() {
    EXPECT_EQ(good_->Read(image_, 5, 100).bytes, FakeSource::Bytes(5, 100));
    WireClient fresh = server_->Unix();
    EXPECT_EQ(fresh.Start().size, kSize);
    ExpectNoTimeHasPassed();
  }

  void ExpectNoTimeHasPassed() {
    EXPECT_LT(std::chrono::steady_clock::now() - start_, kPatience);
  }

  void AwaitConnections(uint64_t n) {
    while (good_->Stats()["connections"] != n)
      ;
  }

  FakeSource disk_{kSize};
  TestServer::Options options_;
  std::vector<SlowSocket> slow_ = std::vector<SlowSocket>(2);
  std::unique_ptr<TestServer> server_;
  std::unique_ptr<WireClient> good_;
  uint32_t image_ = 0;
  std::chrono::steady_clock::time_point start_;
};

TEST_F(StrayFdsTest, TheyAreRefusedWhereTheKernelCan) {
  int probe[2], on = 1;
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, probe), 0);
  bool can =
      setsockopt(probe[0], SOL_SOCKET, SO_PASSRIGHTS, &on, sizeof on) == 0;
  close(probe[0]);
  close(probe[1]);
  if (!can)
    GTEST_SKIP() << "this kernel has no SO_PASSRIGHTS";
  options_.pass_rights = false;
  Serve();
  WireClient client = server_->Unix();
  EXPECT_EQ(slow_[0].SendAway(client.fd(), Hello()), EPERM);
  EXPECT_EQ(slow_[1].SendAway(client.fd(), {1}, MSG_OOB), EPERM);
  EXPECT_EQ(client.Start().size, kSize); // and nothing else has happened
  ExpectNobodyWaits();
}

TEST_F(StrayFdsTest, APeerThatSendsThemIsToldAndClosedAndNobodyWaits) {
  Serve();
  WireClient client = server_->Unix();
  ASSERT_EQ(slow_[0].SendAway(client.fd(), Hello()), 0);
  Frame frame = client.Receive();
  EXPECT_EQ(frame.status, WIRE_E_PROTO);
  EXPECT_THAT(frame.message, testing::HasSubstr("descriptors"));
  EXPECT_TRUE(client.AwaitClose());
  client.Close();
  ExpectNobodyWaits();
}

TEST_F(StrayFdsTest, TheyAreSeenBehindBytesThatCameBefore) {
  Serve();
  disk_.ShutGate();
  WireClient client = server_->Unix();
  client.Start();
  client.SendRead(7, image_, {{0, 10}});
  std::vector<uint8_t> hello = Hello();
  client.SendRaw({hello.begin(), hello.begin() + 5});
  ASSERT_EQ(slow_[0].SendAway(client.fd(), {hello.begin() + 5, hello.end()}),
            0);
  EXPECT_TRUE(client.AwaitClose());
  disk_.OpenGate();
  ExpectNobodyWaits();
}

TEST_F(StrayFdsTest, AnUrgentByteHidesNone) {
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  int r = slow_[0].SendAway(client.fd(), {1}, MSG_OOB);
  if (r == EOPNOTSUPP)
    GTEST_SKIP() << "this kernel has no urgent bytes on Unix sockets";
  ASSERT_EQ(r, 0);
  client.SendRaw({2});
  EXPECT_TRUE(client.AwaitClose());
  client.Close();
  ExpectNobodyWaits();
}

TEST_F(StrayFdsTest, ThoseThatLieUnreadInAConnectionHoldUpNobody) {
  Serve();
  EXPECT_EQ(good_->Read(image_, 0, kSize).status, 0); // all is resident
  WireClient client = server_->Unix();
  client.Start();
  client.SendRead(7, image_, {{0, kSize}});
  pollfd p = {client.fd(), POLLIN, 0};
  ASSERT_EQ(poll(&p, 1, 30000), 1);
  // Its socket is full, and it is not read from while that is so.
  ASSERT_EQ(slow_[0].SendAway(client.fd(), std::vector<uint8_t>(64)), 0);
  client.Close();
  ExpectNobodyWaits();
}

TEST_F(StrayFdsTest, AConnectionCountsUntilItIsClosed) {
  Serve();
  {
    WireClient client = server_->Unix();
    ASSERT_EQ(slow_[0].SendAway(client.fd(), Hello()), 0);
    EXPECT_TRUE(client.AwaitClose());
  }
  // One behind it that sent none is closed at once, and one that did waits.
  {
    WireClient honest = server_->Unix();
    honest.Start();
  }
  AwaitConnections(2);
  ExpectNoTimeHasPassed();
  slow_.clear(); // what it waits for is over
  AwaitConnections(1);
  ExpectNoTimeHasPassed();
}

TEST_F(StrayFdsTest, ARefusedPeerHoldsUpNobody) {
  options_.limit.max_user_connections = 1;
  Serve();
  {
    WireClient client = server_->Unix();
    // It may be refused, and drained, before this is sent: that is fine.
    slow_[0].SendAway(client.fd(), Hello());
    EXPECT_EQ(client.Receive().status, WIRE_E_BUSY);
  }
  EXPECT_EQ(good_->Read(image_, 5, 100).bytes, FakeSource::Bytes(5, 100));
  WireClient other = server_->Tcp();
  EXPECT_EQ(other.Start().size, kSize);
  ExpectNoTimeHasPassed();
}

TEST_F(StrayFdsTest, AStopDoesNotWaitForThem) {
  options_.limit.stop_timeout_ms = 1000;
  Serve();
  WireClient client = server_->Unix();
  ASSERT_EQ(slow_[0].SendAway(client.fd(), Hello()), 0);
  EXPECT_TRUE(client.AwaitClose());
  AwaitConnections(2); // the closer has it
  server_.reset();
  ExpectNoTimeHasPassed();
}

TEST_F(StrayFdsTest, ThoseOfPeersThatWereNotAcceptedDoNotDelayAStopEither) {
  char directory[] = "/tmp/cachetd-test-XXXXXX", err[512];
  ASSERT_NE(mkdtemp(directory), nullptr);
  std::string path = std::string(directory) + "/socket";
  address a;
  listener *l;
  ASSERT_EQ(address_parse(("unix:" + path).c_str(), &a, err, sizeof err), 0);
  // Inherited: the peer may have connected before.
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(bind(fd, &a.generic, a.len), 0);
  ASSERT_EQ(listen(fd, 8), 0);
  WireClient client = WireClient::Unix(path);
  ASSERT_EQ(slow_[0].SendAway(client.fd(), Hello()), 0);
  ASSERT_EQ(listener_adopt(fd, 0, &l, err, sizeof err), 0) << err;
  server_image image = {"disk",  disk_.Open(), true, 0,      nullptr,
                        nullptr, false,        0,    nullptr};
  server_config config = {};
  config.limits = limits_default();
  config.cache_size = 16 << 20;
  config.page_size = 4096;
  config.n_workers = 1;
  config.images = &image;
  config.n_images = 1;
  config.listeners = &l;
  config.n_listeners = 1;
  server *s;
  ASSERT_EQ(server_new(&config, &s, err, sizeof err), 0) << err;
  listener_unref(l);
  ASSERT_EQ(server_start(s), 0);
  start_ = std::chrono::steady_clock::now();
  server_shutdown(s); // without having served
  server_free(s);
  ExpectNoTimeHasPassed();
  unlink(path.c_str());
  rmdir(directory);
}

// As a process, started by a socket on which the peer was first.
TEST_F(StrayFdsTest, ADaemonEndsWhileOneIsBeingClosed) {
  TempDir directory;
  std::string image = directory / "disk", path = directory / "socket";
  WriteRandomFile(image, 10000, 1);
  sockaddr_un a = {};
  a.sun_family = AF_UNIX;
  strncpy(a.sun_path, path.c_str(), sizeof a.sun_path - 1);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr *>(&a), sizeof a), 0);
  ASSERT_EQ(listen(fd, 8), 0);
  WireClient client = WireClient::Unix(path);
  ASSERT_EQ(slow_[0].SendAway(client.fd(), Hello()), 0);
  DaemonProcess daemon({"--image", image}, [] {}, {{}, {fd}, "unix"});
  ASSERT_TRUE(daemon.ready()) << daemon.log();
  start_ = std::chrono::steady_clock::now();
  EXPECT_EQ(client.Receive().status, WIRE_E_PROTO);
  EXPECT_TRUE(client.AwaitClose());
  WireClient other = WireClient::Unix(path);
  EXPECT_EQ(other.Start().size, 10000u);
  daemon.Kill(SIGTERM);
  EXPECT_EQ(daemon.Wait(), 0) << daemon.log();
  ExpectNoTimeHasPassed();
  close(fd);
}

} // namespace

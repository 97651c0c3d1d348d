// Descriptors that a server sends and nobody asked for, some of which take long
// to close.
#include "client/remote/rights.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <chrono>

#include "tests/client/fake_daemon.h"

namespace {

using Clock = std::chrono::steady_clock;

// What must not take kLinger takes less than this, on whatever machine.
constexpr auto kSoon = std::chrono::seconds(10);
constexpr int kLingerSeconds = 40;

// A TCP socket whose last close waits: its peer takes no more, and it lingers.
class LingeringSocket {
public:
  LingeringSocket() {
    sockaddr_in at = {};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t len = sizeof at;
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    auto *address = reinterpret_cast<sockaddr *>(&at);
    EXPECT_EQ(bind(listener_, address, sizeof at), 0);
    EXPECT_EQ(listen(listener_, 1), 0);
    EXPECT_EQ(getsockname(listener_, address, &len), 0);
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(connect(fd_, address, sizeof at), 0);
    std::vector<char> bytes(1 << 16);
    while (send(fd_, bytes.data(), bytes.size(), MSG_DONTWAIT) > 0)
      ;
    linger wait = {1, kLingerSeconds};
    EXPECT_EQ(setsockopt(fd_, SOL_SOCKET, SO_LINGER, &wait, sizeof wait), 0);
  }
  ~LingeringSocket() {
    Forget();
    close(listener_);
  }
  int fd() const { return fd_; }
  // Without a wait, if it has not been given away.
  void Forget() {
    linger off = {0, 0};
    if (fd_ < 0)
      return;
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &off, sizeof off);
    close(fd_);
    fd_ = -1;
  }
  // Our own reference is gone; who has the other closes it.
  void GiveAway() {
    close(fd_);
    fd_ = -1;
  }

private:
  int listener_ = -1, fd_ = -1;
};

// Sends bytes with descriptors; false if the receiver takes none.
bool SendWith(int socket, const std::vector<int> &fds,
              std::vector<char> bytes = {0}) {
  iovec v = {bytes.data(), bytes.size()};
  std::vector<char> control(CMSG_SPACE(fds.size() * sizeof(int)));
  msghdr msg = {};
  msg.msg_iov = &v;
  msg.msg_iovlen = 1;
  msg.msg_control = control.data();
  msg.msg_controllen = control.size();
  cmsghdr *m = CMSG_FIRSTHDR(&msg);
  m->cmsg_level = SOL_SOCKET;
  m->cmsg_type = SCM_RIGHTS;
  m->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
  memcpy(CMSG_DATA(m), fds.data(), fds.size() * sizeof(int));
  return sendmsg(socket, &msg, MSG_NOSIGNAL) == ssize_t(bytes.size());
}

class RightsTest : public testing::Test {
protected:
  void SetUp() override {
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair_), 0);
    start_ = Clock::now();
  }
  void TearDown() override {
    EXPECT_LT(Clock::now() - start_, kSoon);
    close(pair_[1]);
  }

  int pair_[2];
  Clock::time_point start_;
};

TEST_F(RightsTest, AFewAreTakenAndClosedWithoutAWait) {
  LingeringSocket slow;
  ASSERT_TRUE(SendWith(pair_[1], {slow.fd(), 0}));
  slow.GiveAway();
  rights came = {};
  unsigned n_refused;
  char byte;
  EXPECT_EQ(rights_recv(pair_[0], &byte, 1, &came, &n_refused), 1);
  EXPECT_EQ(came.n, 2u);
  EXPECT_EQ(n_refused, 0u);
  EXPECT_FALSE(came.cut);
  EXPECT_EQ(fcntl(came.fds[0], F_GETFD), FD_CLOEXEC);
  rights_close(&came);
  rights_close_socket(pair_[0]);
}

TEST_F(RightsTest, ManyAreClosedAtOnce) {
  LingeringSocket slow;
  ASSERT_TRUE(SendWith(pair_[1], std::vector<int>(200, slow.fd())));
  slow.GiveAway();
  rights came = {};
  unsigned n_refused;
  char byte;
  int lowest = dup(0);
  close(lowest);
  EXPECT_EQ(rights_recv(pair_[0], &byte, 1, &came, &n_refused), 1);
  EXPECT_EQ(came.n, 0u);
  EXPECT_EQ(n_refused, 200u);
  int after = dup(0);
  EXPECT_EQ(after, lowest) << "one of them is still open";
  close(after);
  rights_close_socket(pair_[0]);
}

TEST_F(RightsTest, WhatWasNotReceivedIsClosedWithTheSocketWithoutAWait) {
  LingeringSocket slow, nested;
  int inner[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, inner), 0);
  ASSERT_EQ(send(inner[1], "", 0, 0), 0);
  ASSERT_TRUE(SendWith(inner[1], {nested.fd()}));
  ASSERT_TRUE(SendWith(pair_[1], {slow.fd(), inner[0]}));
  slow.GiveAway();
  nested.GiveAway();
  close(inner[0]);
  close(inner[1]);
  rights_close_socket(pair_[0]);
}

TEST_F(RightsTest, ALackOfDescriptorsIsToldApart) {
  ASSERT_TRUE(SendWith(pair_[1], {0, 0, 0}));
  rlimit before, few;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  int next = dup(0);
  close(next);
  few = before;
  few.rlim_cur = static_cast<rlim_t>(next + 1);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  rights came = {};
  unsigned n_refused;
  char byte;
  EXPECT_EQ(rights_recv(pair_[0], &byte, 1, &came, &n_refused), 1);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_TRUE(came.cut);
  rights_close(&came);
  rights_close_socket(pair_[0]);
}

// ---- Through a handle -------------------------------------------------------

// The server's last reference to what it sends is the socket's, or the
// handle's.
class HostileServerTest : public testing::Test {
protected:
  void Send(Peer &p) {
    taken_ = SendWith(p.fd(), {slow_.fd(), slow_.fd()});
    if (taken_)
      slow_.GiveAway();
  }

  cachet_status OpenAndRead(FakeDaemon &d) {
    auto start = Clock::now();
    cachet_options o = Patience(300, 300);
    cachet *c = nullptr;
    cachet_error err = {};
    cachet_status status = cachet_open(d.Uri().c_str(), &o, &c, &err);
    uint8_t byte;
    if (status == CACHET_OK)
      status = cachet_get_u8(c, 0, &byte);
    cachet_close(c);
    EXPECT_LT(Clock::now() - start, kSoon);
    return status;
  }

  LingeringSocket slow_;
  std::atomic<bool> taken_{false};
};

TEST_F(HostileServerTest, WhatComesUnaskedDoesNotHoldUpAnOpen) {
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Receive(&r);
    Send(p);
    p.AwaitEnd();
  }});
  EXPECT_LT(OpenAndRead(d), 0);
}

TEST_F(HostileServerTest, WhatComesUnaskedDoesNotHoldUpARead) {
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    p.Receive(&r);
    Send(p);
    p.AwaitEnd();
  }});
  EXPECT_LT(OpenAndRead(d), 0);
}

TEST_F(HostileServerTest, WhatComesInThePlaceOfTheMemoryDoesNotHoldUpAnOpen) {
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    p.Receive(&r);
    EXPECT_EQ(r.body, CACHET__WIRE__MESSAGE__BODY_ATTACH);
    Send(p);
    p.AwaitEnd();
  }});
  d.image.share = true;
  EXPECT_LT(OpenAndRead(d), 0);
  EXPECT_TRUE(taken_);
}

TEST_F(HostileServerTest, WhatIsCalledMemoryAndIsNoneDoesNotHoldUpAnOpen) {
  FakeDaemon d({[&](Peer &p) {
                  Request r;
                  p.Handshake();
                  p.Receive(&r);
                  p.Cork();
                  p.Attached(r.id);
                  std::vector<char> frame = p.TakeKept();
                  // The rest comes when the handle's references are the only
                  // ones.
                  taken_ = SendWith(p.fd(), std::vector<int>(4, slow_.fd()),
                                    {frame[0]});
                  slow_.GiveAway();
                  p.SendRaw(&frame[1], frame.size() - 1);
                  p.AwaitEnd();
                },
                [](Peer &p) { p.AwaitEnd(); }});
  d.image.share = true;
  EXPECT_LT(OpenAndRead(d), 0);
  EXPECT_TRUE(taken_);
}

} // namespace

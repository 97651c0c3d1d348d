// A descriptor that takes long to close, and how to send it to somebody.
#ifndef TESTS_SUPPORT_LINGERING_SOCKET_H
#define TESTS_SUPPORT_LINGERING_SOCKET_H

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <vector>

// What must not wait for a LingeringSocket takes less than this, on whatever
// machine.
constexpr auto kSoon = std::chrono::seconds(10);

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
    linger wait = {1, 40 /* s */};
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
  // Our own reference is gone; the owner of the other closes it.
  void GiveAway() {
    close(fd_);
    fd_ = -1;
  }

private:
  int listener_ = -1, fd_ = -1;
};

// Sends bytes with descriptors; false if the receiver takes none.
inline bool SendWith(int socket, const std::vector<int> &fds,
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

#endif // TESTS_SUPPORT_LINGERING_SOCKET_H

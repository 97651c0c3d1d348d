// Descriptors on a real socket, some of which take long to close.
#include "proto/socket.h"

#include <fcntl.h>
#include <sys/resource.h>

#include "tests/support/lingering_socket.h"

namespace {

using Clock = std::chrono::steady_clock;

class SocketTest : public testing::Test {
protected:
  void SetUp() override {
    const frame_limits limits = {16, 0};
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair_), 0);
    stream_init(&s_, &socket_io, &pair_[0], &limits);
    stream_lend(&s_, buffer_, sizeof buffer_);
    stream_want_fds(&s_, true);
    start_ = Clock::now();
  }
  void TearDown() override {
    stream_fini(&s_);
    socket_close(pair_[0]);
    EXPECT_LT(Clock::now() - start_, kSoon);
    close(pair_[1]);
  }

  int pair_[2];
  stream s_;
  uint8_t buffer_[100];
  Clock::time_point start_;
};

TEST_F(SocketTest, AFewAreTakenAndClosedWithoutAWait) {
  LingeringSocket slow;
  ASSERT_TRUE(SendWith(pair_[1], {slow.fd(), 0}));
  slow.GiveAway();
  EXPECT_EQ(stream_receive(&s_, 1), STREAM_CAME);
  int fds[STREAM_MAX_FDS];
  bool cut;
  ASSERT_EQ(stream_take_fds(&s_, fds, &cut), 2u);
  EXPECT_FALSE(cut);
  EXPECT_EQ(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
  socket_close_fd(&pair_[0], fds[0], true);
  socket_close_fd(&pair_[0], fds[1], true);
}

TEST_F(SocketTest, ManyAreClosedAtOnce) {
  LingeringSocket slow;
  ASSERT_TRUE(SendWith(pair_[1], std::vector<int>(200, slow.fd())));
  slow.GiveAway();
  int lowest = dup(0);
  close(lowest);
  EXPECT_EQ(stream_receive(&s_, 1), STREAM_STRAY);
  int after = dup(0);
  EXPECT_EQ(after, lowest) << "one of them is still open";
  close(after);
}

TEST_F(SocketTest, DescriptorsGoWithBytesAndAreNeverStandardOnes) {
  stream sender;
  const frame_limits limits = {16, 0};
  stream_init(&sender, &socket_io, &pair_[1], &limits);
  const int sent[] = {dup(1), dup(1)};
  stream_give_fds(&sender, sent, 2);
  const iovec iov = {buffer_, 1};
  EXPECT_EQ(stream_send(&sender, &iov, 1, 0), STREAM_SENT);
  EXPECT_LT(fcntl(sent[0], F_GETFD), 0);
  int kept = dup(0);
  close(0); // the number that the kernel gives next
  EXPECT_EQ(stream_receive(&s_, 1), STREAM_CAME);
  dup2(kept, 0);
  close(kept);
  int fds[STREAM_MAX_FDS];
  bool cut;
  ASSERT_EQ(stream_take_fds(&s_, fds, &cut), 2u);
  EXPECT_GT(fds[0], 2);
  EXPECT_GT(fds[1], 2);
  close(fds[0]);
  close(fds[1]);
  stream_fini(&sender);
}

TEST_F(SocketTest, ASocketThatGoesOutStaysUsable) {
  stream sender;
  const frame_limits limits = {16, 0};
  int sent[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sent), 0);
  stream_init(&sender, &socket_io, &pair_[1], &limits);
  stream_give_fds(&sender, sent, 1);
  const iovec iov = {buffer_, 1};
  EXPECT_EQ(stream_send(&sender, &iov, 1, 0), STREAM_SENT);
  stream_fini(&sender);
  EXPECT_EQ(stream_receive(&s_, 1), STREAM_CAME);
  int fds[STREAM_MAX_FDS];
  bool cut;
  ASSERT_EQ(stream_take_fds(&s_, fds, &cut), 1u);
  EXPECT_EQ(send(sent[1], "x", 1, MSG_NOSIGNAL), 1);
  EXPECT_EQ(recv(fds[0], buffer_, 1, MSG_DONTWAIT), 1);
  close(fds[0]);
  close(sent[1]);
}

TEST_F(SocketTest, ABrokenSocketIsAnErrorAndNoSignal) {
  const iovec iov = {buffer_, 1};
  shutdown(pair_[1], SHUT_RDWR);
  EXPECT_EQ(stream_send(&s_, &iov, 1, 0), -EPIPE);
  EXPECT_EQ(stream_receive(&s_, 1), STREAM_END);
}

TEST_F(SocketTest, WhatWasNotReceivedIsClosedWithTheSocketWithoutAWait) {
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
}

TEST_F(SocketTest, ALackOfDescriptorsIsToldApart) {
  ASSERT_TRUE(SendWith(pair_[1], {0, 0, 0}));
  rlimit before, few;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  int next = dup(0);
  close(next);
  few = before;
  few.rlim_cur = static_cast<rlim_t>(next + 1);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  EXPECT_EQ(stream_receive(&s_, 1), STREAM_CAME);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  int fds[STREAM_MAX_FDS];
  bool cut;
  for (unsigned n = stream_take_fds(&s_, fds, &cut); n > 0; n--)
    close(fds[n - 1]);
  EXPECT_TRUE(cut);
}

} // namespace

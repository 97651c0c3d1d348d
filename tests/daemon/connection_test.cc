#include "tests/support/fake_owner.h"

#include <cstring>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "daemon/peer.h"
#include "proto/frame.h"

namespace {

class ConnectionTest : public testing::Test {
protected:
  ConnectionTest() {
    char dir[] = "/tmp/connection_test.XXXXXX";
    dir_ = mkdtemp(dir);
    owner_ = fake_owner_new((dir_ + "/s").c_str());
    int fds[2];
    EXPECT_EQ(
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds),
        0);
    peer_ = fds[0];
    fake_owner_accept(owner_, fds[1]);
    Turn();
  }

  ~ConnectionTest() override {
    fake_owner_free(owner_);
    ClosePeer();
    std::string remove = "rm -rf " + dir_;
    EXPECT_EQ(system(remove.c_str()), 0);
  }

  void Turn() {
    // A turn each for the mailbox, what is to be read and what is writable.
    for (int i = 0; i < 3; i++)
      fake_owner_turn(owner_);
  }

  // What is known of the peer, which is this process.
  size_t HeldForPeer() {
    peer known = {};
    EXPECT_EQ(peer_learn_process(&known, peer_), 0);
    size_t held = peer_held(&known);
    peer_fini(&known);
    return held;
  }

  void ClosePeer() {
    if (peer_ >= 0)
      close(peer_);
    peer_ = -1;
  }

  static std::vector<uint8_t> List(uint64_t id) {
    Cachet__Wire__List list = CACHET__WIRE__LIST__INIT;
    wire_message msg = CACHET__WIRE__MESSAGE__INIT;
    msg.id = id;
    msg.body_case = CACHET__WIRE__MESSAGE__BODY_LIST;
    msg.list = &list;
    std::vector<uint8_t> frame(frame_packed_len(&msg));
    frame_pack(&msg, 0, frame.data());
    return frame;
  }

  void Send(const std::vector<uint8_t> &bytes) {
    ASSERT_EQ(send(peer_, bytes.data(), bytes.size(), 0),
              static_cast<ssize_t>(bytes.size()));
  }

  void SendList(uint64_t id) { Send(List(id)); }

  // All that there is to read now.
  size_t Receive() {
    std::vector<char> bytes(1 << 20);
    ssize_t n = recv(peer_, bytes.data(), bytes.size(), MSG_DONTWAIT);
    return n > 0 ? static_cast<size_t>(n) : 0;
  }

  struct owner_calls Calls() {
    return fake_owner_calls(owner_);
  }

  std::string dir_;
  struct fake_owner *owner_;
  int peer_ = -1;
};

TEST_F(ConnectionTest, AMessageGoesToTheOwnerAndItsAnswerToThePeer) {
  fake_owner_set_reply(owner_, 1, 0);
  SendList(1);
  Turn();
  EXPECT_EQ(Calls().message, 1u);
  EXPECT_EQ(Calls().delivered, 1u);
  EXPECT_GT(Receive(), 0u);
}

TEST_F(ConnectionTest, MessagesThatComeTogetherAreAnsweredTogether) {
  fake_owner_set_reply(owner_, 1, 0);
  for (uint64_t id = 1; id <= 5; id++)
    SendList(id);
  Turn();
  EXPECT_EQ(Calls().message, 5u);
  EXPECT_EQ(Calls().delivered, 1u); // in one sendmsg(2)
}

TEST_F(ConnectionTest, AHalfMessageIsHeldUntilItIsWhole) {
  std::vector<uint8_t> list = List(1);
  for (size_t i = 0; i + 1 < list.size(); i++) {
    Send({list[i]});
    Turn();
    EXPECT_GT(fake_owner_held(owner_), 0u);
  }
  EXPECT_EQ(Calls().message, 0u);
  Send({list.back()});
  Turn();
  EXPECT_EQ(Calls().message, 1u);
  EXPECT_EQ(fake_owner_held(owner_), HeldForPeer());
}

TEST_F(ConnectionTest, APeerThatClosesEndsItOnce) {
  ClosePeer();
  Turn();
  EXPECT_EQ(Calls().closed, 1u);
  EXPECT_EQ(Calls().release, 1u);
  EXPECT_EQ(Calls().emptied, 1u);
  EXPECT_EQ(fake_owner_users(owner_), 0u);
}

TEST_F(ConnectionTest, WhatBreaksTheProtocolIsNoMessage) {
  const char rubbish[64] = {'\x7f', '\x7f', '\x7f', '\x7f'};
  ASSERT_EQ(send(peer_, rubbish, sizeof rubbish, 0), (ssize_t)sizeof rubbish);
  Turn();
  EXPECT_EQ(Calls().message, 0u);
  EXPECT_GE(Calls().draining_ended, 1u); // what waits is given up
  EXPECT_GT(Receive(), 0u);              // an Error
  EXPECT_EQ(Calls().closed, 0u);         // it lingers for the peer to read it
  ClosePeer();
  Turn();
  EXPECT_EQ(Calls().closed, 1u);
}

TEST_F(ConnectionTest, RequestsThatAreNotAnsweredKeepAHalfClosedOneOpen) {
  fake_owner_set_reply(owner_, 0, 1);
  SendList(1);
  shutdown(peer_, SHUT_WR);
  Turn();
  EXPECT_EQ(Calls().message, 1u);
  EXPECT_EQ(Calls().closed, 0u);
  fake_owner_answer_all(owner_);
  EXPECT_EQ(Calls().closed, 1u);
}

TEST_F(ConnectionTest, AStopEndsItWhenAllIsAnswered) {
  fake_owner_set_reply(owner_, 0, 1);
  SendList(1);
  Turn();
  fake_owner_stop(owner_);
  EXPECT_EQ(Calls().closed, 0u);
  SendList(2); // not taken any more
  Turn();
  EXPECT_EQ(Calls().message, 1u);
  fake_owner_answer_all(owner_);
  EXPECT_EQ(Calls().closed, 1u);
  EXPECT_EQ(Calls().emptied, 1u);
}

TEST_F(ConnectionTest, ThatAllIsDeliveredIsSaidWhenThePeerHasTakenIt) {
  fake_owner_set_reply(owner_, 20000, 0);
  SendList(1);
  Turn();
  ASSERT_TRUE(fake_owner_is_blocked(owner_));
  unsigned before = Calls().delivered;
  EXPECT_EQ(Calls().writable, 0u);
  EXPECT_GT(fake_owner_held(owner_), 0u);
  SendList(2); // not looked at while it is blocked
  for (int i = 0; i < 1000 && fake_owner_is_blocked(owner_); i++) {
    EXPECT_EQ(Calls().delivered, before);
    EXPECT_EQ(Calls().message, 1u);
    Receive();
    fake_owner_set_reply(owner_, 0, 0);
    fake_owner_turn(owner_);
  }
  EXPECT_EQ(Calls().delivered, before + 1);
  EXPECT_EQ(Calls().writable, 1u);
  EXPECT_EQ(fake_owner_held(owner_), HeldForPeer());
  Turn();
  EXPECT_EQ(Calls().message, 2u);
}

TEST_F(ConnectionTest, DescriptorsThatGoOutAreReportedSentOnce) {
  fake_owner_set_fds(owner_);
  SendList(1);
  Turn();
  EXPECT_EQ(Calls().fds_sent, 1u);
  EXPECT_EQ(Calls().fds_lost, 0u);
  fake_owner_drop(owner_);
  EXPECT_EQ(Calls().fds_sent + Calls().fds_lost, 1u);
}

TEST_F(ConnectionTest, OneThatIsDroppedGivesBackAllThatItHeld) {
  fake_owner_set_reply(owner_, 20000, 0);
  SendList(1);
  Turn();
  ASSERT_GT(fake_owner_held(owner_), 0u);
  fake_owner_drop(owner_);
  EXPECT_EQ(fake_owner_held(owner_), 0u);
  EXPECT_EQ(Calls().closed, 1u);
  EXPECT_EQ(fake_owner_users(owner_), 0u);
}

} // namespace

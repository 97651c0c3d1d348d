// Descriptors that a server sends and nobody asked for, some of which take long
// to close, through a handle.
#include "tests/client/fake_daemon.h"
#include "tests/support/lingering_socket.h"

namespace {

using Clock = std::chrono::steady_clock;

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
    cachet_options o = Patience(kPatienceMs, kPatienceMs);
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

// Handles whose daemon goes, falls silent, or comes back.
#include "tests/client/fake_daemon.h"

#include <netinet/tcp.h>

namespace {

TEST(RemoteReconnectTest, ADaemonThatDiesMidFrameIsAskedAgain) {
  FakeDaemon d({[](Peer &p) {
                  Request r;
                  p.Handshake();
                  p.Receive(&r);
                  p.SendRaw("\x10\0\0\0\0\x10\0\0\x08", 9);
                },
                ServeAll()});
  Handle c = Open(d.Uri(), Options());
  ExpectContent(c.get(), d.image.bytes);
  EXPECT_EQ(d.n_connections, 2);
}

TEST(RemoteReconnectTest, ADaemonThatDiesMidPayloadIsAskedAgain) {
  FakeDaemon d({[](Peer &p) {
                  Request r;
                  p.Handshake();
                  p.Receive(&r);
                  p.Data(r.id, 77, 0, 0, false, p.image->bytes.data(), 4096);
                },
                ServeAll()});
  Handle c = Open(d.Uri(), Options());
  ExpectContent(c.get(), d.image.bytes);
}

TEST(RemoteReconnectTest, ADaemonThatEndsWhileItIsOpenedIsAskedAgain) {
  FakeDaemon d({[](Peer &) {}, [](Peer &p) { p.Handshake(); }, ServeAll()});
  Handle c = Open(d.Uri(), Options());
  ExpectContent(c.get(), d.image.bytes);
  EXPECT_EQ(d.n_connections, 3);
}

TEST(RemoteReconnectTest, ADaemonThatEndsEachTimeItIsOpenedIsAnErrorSoon) {
  FakeDaemon d({[](Peer &) {}});
  cachet *c = nullptr;
  cachet_error err;
  cachet_options options = Options();
  EXPECT_EQ(cachet_open(d.Uri().c_str(), &options, &c, &err), CACHET_E_CONN);
  EXPECT_EQ(d.n_connections, 6);
}

TEST(RemoteReconnectTest, ARestartedDaemonIsFoundAgainWithItsNewEpoch) {
  FakeDaemon d({ServeAll()});
  Handle c = Open(d.Uri(), Options());
  ExpectContent(c.get(), d.image.bytes);
  cachet_slice held;
  std::vector<uint8_t> old = d.image.bytes;
  ASSERT_EQ(cachet_map(c.get(), 0, 20000, &held), CACHET_OK);
  d.Stop();
  d.image.bytes = Content(50000, 9);
  d.image.epoch = 1234;
  std::thread restart([&] { d.Listen(); });
  ExpectContent(c.get(), d.image.bytes);
  restart.join();
  EXPECT_EQ(cachet_epoch(c.get()), 1234u);
  EXPECT_EQ(memcmp(held.data, old.data(), held.length), 0);
}

// Numbers of the epoch's invalidations, as the daemon says them: when the image
// is opened, in a notice (0: there is none), and when it is opened again.
struct Numbers {
  const char *name;
  uint64_t before, notice, after;
  bool is_kept;
};

class RemoteNumbersTest : public testing::TestWithParam<Numbers> {};

TEST_P(RemoteNumbersTest, WhatIsCachedIsKeptIfNoNoticeWasMissed) {
  const Numbers &t = GetParam();
  Gate go;
  FakeDaemon d({[&](Peer &p) {
                  Request r;
                  p.Handshake();
                  {
                    std::lock_guard<std::mutex> lock(p.image->lock);
                    p.image->invalidations = t.notice;
                    if (t.notice)
                      p.Invalidated(40000, 1);
                  }
                  for (int i = 0; i < 2; i++) {
                    p.Receive(&r);
                    p.Answer(r);
                  }
                  go.Await();
                  std::lock_guard<std::mutex> lock(p.image->lock);
                  p.image->invalidations = t.after;
                },
                ServeAll()});
  d.image.invalidations = t.before;
  Handle c = Open(d.Uri(), Options());
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_OK);
  ASSERT_EQ(cachet_get_u8(c.get(), 20000, &byte), CACHET_OK);
  go.Open();
  while (d.n_connections < 2)
    ASSERT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_OK);
  ASSERT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_OK);
  EXPECT_EQ(cachet_is_cached(c.get(), 20000), t.is_kept);
}

INSTANTIATE_TEST_SUITE_P(
    , RemoteNumbersTest,
    testing::Values(Numbers{"NoneWasMade", 1, 0, 1, true},
                    Numbers{"AllWereTold", 1, 4, 4, true},
                    Numbers{"OneWasMissed", 1, 0, 2, false},
                    Numbers{"TheLastWasMissed", 1, 2, 3, false},
                    Numbers{"TheDaemonDoesNotSay", 0, 0, 0, false}),
    [](const auto &of) { return std::string(of.param.name); });

TEST(RemoteReconnectTest,
     AReconnectionInTheSameEpochTrustsNothingThatWasCached) {
  Gate go;
  FakeDaemon d({[&](Peer &p) {
                  Request r;
                  p.Handshake();
                  p.Receive(&r);
                  p.Answer(r);
                  go.Await();
                },
                ServeAll()});
  Handle c = Open(d.Uri(), Options());
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_OK);
  {
    std::unique_lock<std::mutex> hold(d.image.lock);
    d.image.bytes[0] ^= 0x55; // and its notice is lost
  }
  go.Open();
  // Until the end of the connection is here, a hit is all there can be.
  while (cachet_is_cached(c.get(), 0) && d.n_connections < 2)
    ASSERT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_OK);
  ASSERT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_OK);
  EXPECT_EQ(byte, d.image.bytes[0]);
}

TEST(RemoteReconnectTest, ARelativeSocketIsThatOfTheDirectoryOfTheOpen) {
  Gate end;
  FakeDaemon d({[&](Peer &p) {
                  p.Handshake();
                  end.Await();
                },
                ServeAll()});
  std::string dir = d.path.substr(0, d.path.rfind('/'));
  int before = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
  ASSERT_EQ(chdir(dir.c_str()), 0);
  Handle c = Open("cachet+unix:///disk?socket=s", Patience(5000));
  ASSERT_EQ(fchdir(before), 0);
  close(before);
  end.Open();
  ExpectContent(c.get(), d.image.bytes);
  Handle copy = Copy(c.get());
}

TEST(RemoteReconnectTest, ADaemonThatStaysAwayIsNoConnectionInTime) {
  FakeDaemon d({ServeAll()});
  Handle c = Open(d.Uri(), Patience(100));
  d.Stop();
  uint8_t byte;
  EXPECT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_E_CONN);
  EXPECT_NE(strstr(cachet_errmsg(c.get()), d.path.c_str()), nullptr)
      << cachet_errmsg(c.get());
}

TEST(RemoteReconnectTest, AnAnswerThatDoesNotComeIsATimeOut) {
  FakeDaemon d({[](Peer &p) {
    p.Handshake();
    p.AwaitEnd();
  }});
  Handle c = Open(d.Uri(), Patience(50));
  uint8_t byte;
  EXPECT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_E_TIMEOUT);
}

TEST(RemoteReconnectTest, ATimeOutIsOneAlsoWhileTheNextConnectionIsMade) {
  TcpListener listener(8);
  FakeImage image;
  image.bytes = Content(64 << 10);
  std::thread server([&] {
    int fd = listener.Accept();
    Peer p(fd, &image);
    p.Handshake();
    p.AwaitEnd();
    close(fd);
  });
  Handle c = Open(listener.Uri(), Patience(50));
  Outcome first, second;
  for (Outcome *o : {&first, &second})
    ASSERT_EQ(cachet_load_async(c.get(), 0, 0, Outcome::Loaded, o, nullptr),
              CACHET_OK);
  RunUntil(c.get(), [&] { return first.n && second.n; });
  EXPECT_EQ(first.status, CACHET_E_TIMEOUT);
  EXPECT_EQ(second.status, CACHET_E_TIMEOUT);
  c.reset();
  server.join();
}

TEST(RemoteReconnectTest, AConnectionThatFellSilentIsGivenUpAfterTheTimeOut) {
  FakeDaemon d({[](Peer &p) {
                  p.Handshake();
                  p.AwaitEnd();
                },
                ServeAll()});
  Handle c = Open(d.Uri(), Patience(kPatienceMs));
  uint8_t byte;
  EXPECT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_E_TIMEOUT);
  EXPECT_EQ(cachet_fd(c.get()), -1);
  EXPECT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_OK);
  EXPECT_EQ(byte, d.image.bytes[0]);
  EXPECT_EQ(d.n_connections, 2);
}

TEST(RemoteReconnectTest, ADaemonThatIsSlowWithOneAnswerButNotSilentIsKept) {
  FakeDaemon d({[&](Peer &p) {
    Request slow;
    p.Handshake();
    p.Receive(&slow);
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Patience(kPatienceMs));
  Outcome out;
  uint8_t byte;
  ASSERT_EQ(cachet_load_async(c.get(), 0, 0, Outcome::Loaded, &out, nullptr),
            CACHET_OK);
  while (!out.n) {
    ASSERT_EQ(cachet_invalidate(c.get(), 4096, 1), CACHET_OK)
        << cachet_errmsg(c.get());
    ASSERT_EQ(cachet_get_u8(c.get(), 4096, &byte), CACHET_OK);
    ASSERT_EQ(cachet_dispatch(c.get()), CACHET_OK);
  }
  EXPECT_EQ(out.status, CACHET_E_TIMEOUT);
  EXPECT_EQ(d.n_connections, 1);
}

TEST(RemoteReconnectTest, AConnectionThatCannotBeWrittenToEndsInTime) {
  Gate deaf;
  FakeDaemon d({[&](Peer &p) {
                  p.Handshake();
                  p.StopReading();
                  deaf.Open();
                  p.AwaitLeave();
                },
                ServeAll()});
  Handle c = Open(d.Uri(), Patience(kPatienceMs));
  deaf.Await();
  // Nobody waits for it: that it is asked in vain has to show by itself.
  ASSERT_EQ(cachet_prefetch(c.get(), 0, 4096), CACHET_OK);
  EXPECT_NE(cachet_timeout_ms(c.get()), -1);
  RunUntil(c.get(), [&] { return cachet_fd(c.get()) == -1; });
  ExpectContent(c.get(), d.image.bytes);
}

TEST(RemoteReconnectTest, KeepAliveOverTcpIsAsPatientAsRequestsAre) {
  TcpListener listener(1);
  FakeImage image;
  image.bytes = Content(4096);
  std::thread server([&] {
    int fd = listener.Accept();
    Peer p(fd, &image);
    p.Handshake();
    p.AwaitEnd();
    close(fd);
  });
  Handle c = Open(listener.Uri(), Patience(60000));
  auto option = [&](int name) {
    int value = 0;
    socklen_t size = sizeof value;
    EXPECT_EQ(getsockopt(cachet_fd(c.get()), IPPROTO_TCP, name, &value, &size),
              0);
    return value;
  };
  EXPECT_EQ(option(TCP_KEEPIDLE) + option(TCP_KEEPINTVL) * option(TCP_KEEPCNT),
            60);
  EXPECT_EQ(option(TCP_USER_TIMEOUT), 60000);
  c.reset();
  server.join();
}

} // namespace

// The server against peers that break the rules.  Each test ends by seeing
// that a well-behaved client is served as ever.
#include <gtest/gtest.h>
#include <malloc.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <random>

#include "proto/status.h"
#include "tests/support/test_server.h"

namespace {

constexpr uint64_t kSize = 4 << 20;

void Append32(std::vector<uint8_t> *bytes, uint32_t n) {
  for (int i = 0; i < 4; i++)
    bytes->push_back(static_cast<uint8_t>(n >> (8 * i)));
}

// A frame whose lengths need not be true.
std::vector<uint8_t> RawFrame(uint32_t message_len, uint32_t payload_len,
                              const std::vector<uint8_t> &message) {
  std::vector<uint8_t> frame;
  Append32(&frame, message_len);
  Append32(&frame, payload_len);
  frame.insert(frame.end(), message.begin(), message.end());
  return frame;
}

class HostileTest : public testing::Test {
protected:
  void Serve() {
    server_ = std::make_unique<TestServer>(
        std::vector<std::pair<std::string, FakeSource *>>{{"disk", &disk_}},
        options_);
    good_ = std::make_unique<WireClient>(Started(&TestServer::Unix));
  }

  // A client that has opened the image.  Where the time for a handshake is so
  // short that a busy machine misses it now and then: the first that did not.
  WireClient Started(WireClient (TestServer::*way)() const) {
    for (;;) {
      WireClient client = (server_.get()->*way)();
      Frame opened = client.Start();
      image_ = opened.image;
      if (opened.kind == CACHET__WIRE__MESSAGE__BODY_OPENED)
        return client;
    }
  }

  void ExpectOthersAreServed() {
    EXPECT_EQ(good_->Read(image_, 12345, 100).bytes,
              FakeSource::Bytes(12345, 100));
    WireClient fresh = Started(&TestServer::Tcp);
    EXPECT_EQ(fresh.Read(image_, 0, 100).bytes, FakeSource::Bytes(0, 100));
  }

  // The peer is told that it broke the protocol, with this id, and closed.
  void ExpectFailed(WireClient *client, uint64_t id, int status) {
    Frame frame = client->Receive();
    EXPECT_TRUE(frame.is_error());
    EXPECT_EQ(frame.id, id);
    EXPECT_EQ(frame.status, status) << frame.message;
    EXPECT_FALSE(frame.message.empty());
    EXPECT_TRUE(client->Receive().is_end());
    ExpectOthersAreServed();
  }

  FakeSource disk_{kSize};
  TestServer::Options options_;
  std::unique_ptr<TestServer> server_;
  std::unique_ptr<WireClient> good_;
  uint32_t image_ = 0;
};

TEST_F(HostileTest, AnUnknownVersionIsRefused) {
  Serve();
  for (bool tcp : {false, true}) {
    WireClient client = tcp ? server_->Tcp() : server_->Unix();
    client.SendHello(5, 2, 9);
    ExpectFailed(&client, 5, WIRE_E_PROTO);
  }
}

TEST_F(HostileTest, ARangeOfVersionsWithOursInItIsWelcome) {
  Serve();
  WireClient client = server_->Unix();
  client.SendHello(5, 0, 9);
  EXPECT_EQ(client.Receive().kind, CACHET__WIRE__MESSAGE__BODY_WELCOME);
}

TEST_F(HostileTest, TheFirstMessageMustBeHello) {
  Serve();
  WireClient client = server_->Unix();
  client.SendOpen(3, "disk");
  ExpectFailed(&client, 3, WIRE_E_PROTO);
}

TEST_F(HostileTest, ASecondHelloIsRefused) {
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  client.SendHello(9);
  ExpectFailed(&client, 9, WIRE_E_PROTO);
}

TEST_F(HostileTest, GarbageInsteadOfAFrameIsRefused) {
  Serve();
  for (bool tcp : {false, true}) {
    WireClient client = tcp ? server_->Tcp() : server_->Unix();
    std::string text = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.SendRaw(std::vector<uint8_t>(text.begin(), text.end()));
    ExpectFailed(&client, 0, WIRE_E_PROTO);
  }
}

TEST_F(HostileTest, AFrameLongerThanTheLimitIsRefusedByItsHeader) {
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  client.SendRaw(RawFrame(options_.limit.max_message + 1, 0, {}));
  ExpectFailed(&client, 0, WIRE_E_PROTO);
}

TEST_F(HostileTest, TheLongestLengthsAreRefused) {
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  client.SendRaw(RawFrame(UINT32_MAX, UINT32_MAX, {}));
  ExpectFailed(&client, 0, WIRE_E_PROTO);
}

TEST_F(HostileTest, ARequestHasNoPayload) {
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  client.SendRaw(RawFrame(2, 1, {8, 1}));
  ExpectFailed(&client, 0, WIRE_E_PROTO);
}

TEST_F(HostileTest, ALengthThatReachesPastItsMessageIsRefused) {
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  // Field 4 (Read), 100 bytes long, of which there are two.
  client.SendRaw(RawFrame(6, 0, {8, 1, 0x22, 100, 8, 1}));
  ExpectFailed(&client, 0, WIRE_E_PROTO);
}

TEST_F(HostileTest, ATruncatedMessageIsRefused) {
  Serve();
  Cachet__Wire__Open open = CACHET__WIRE__OPEN__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  open.image = const_cast<char *>("disk");
  msg.id = 3;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_OPEN;
  msg.open = &open;
  std::vector<uint8_t> whole = WireClient::Pack(msg);
  std::vector<uint8_t> body(whole.begin() + FRAME_HEADER_LEN, whole.end());
  for (size_t len = 0; len < body.size(); len++) {
    WireClient client = server_->Unix();
    client.Start();
    client.SendRaw(RawFrame(static_cast<uint32_t>(len), 0,
                            {body.begin(), body.begin() + long(len)}));
    Frame frame = client.Receive();
    EXPECT_EQ(frame.status, WIRE_E_PROTO) << len;
    EXPECT_TRUE(client.Receive().is_end());
  }
  ExpectOthersAreServed();
}

TEST_F(HostileTest, UnknownFieldsAreIgnored) {
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  // id 3; field 1000, a string; List.
  client.SendRaw(RawFrame(9, 0, {8, 3, 0xc2, 0x3e, 2, 'h', 'i', 0x3a, 0}));
  Frame frame = client.Receive();
  EXPECT_EQ(frame.kind, CACHET__WIRE__MESSAGE__BODY_IMAGES);
  EXPECT_EQ(frame.id, 3u);
}

TEST_F(HostileTest, AMessageWithoutABodyIsRefused) {
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  client.SendRaw(RawFrame(2, 0, {8, 3}));
  ExpectFailed(&client, 0, WIRE_E_PROTO);
}

TEST_F(HostileTest, AnAnswerIsNoRequest) {
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  Cachet__Wire__Done done = CACHET__WIRE__DONE__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  msg.id = 8;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_DONE;
  msg.done = &done;
  client.SendMessage(msg);
  ExpectFailed(&client, 8, WIRE_E_PROTO);
}

TEST_F(HostileTest, TheIdZeroIsRefused) {
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  client.SendList(0);
  ExpectFailed(&client, 0, WIRE_E_PROTO);
}

TEST_F(HostileTest, AnIdThatIsInFlightIsRefused) {
  Serve();
  disk_.ShutGate();
  WireClient client = server_->Unix();
  client.Start();
  client.SendRead(7, image_, {{0, 10}});
  client.SendRead(7, image_, {{8192, 10}});
  Frame frame = client.Receive();
  EXPECT_EQ(frame.id, 7u);
  EXPECT_EQ(frame.status, WIRE_E_PROTO);
  EXPECT_TRUE(client.Receive().is_end());
  disk_.OpenGate();
  ExpectOthersAreServed();
}

TEST_F(HostileTest, TooManyRangesAreRefusedAndTheConnectionStays) {
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  client.SendRead(7, image_, Ranges(options_.limit.max_ranges + 1, {0, 1}));
  Frame frame = client.Receive();
  EXPECT_EQ(frame.id, 7u);
  EXPECT_EQ(frame.status, WIRE_E_INVAL);
  EXPECT_EQ(client.Read(image_, 0, 10).status, 0);
  client.SendRead(8, image_, Ranges(options_.limit.max_ranges, {5, 1}));
  EXPECT_EQ(client.ReceiveRead(8).bytes.size(), options_.limit.max_ranges);
}

TEST_F(HostileTest, AMillionRangesAreAFrameTooLong) {
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  // The server answers to the header, so not all of it may be sent.
  client.SendRead(7, image_, Ranges(1000000, {0, 1}));
  EXPECT_EQ(client.Receive().status, WIRE_E_PROTO);
  EXPECT_TRUE(client.AwaitClose());
  ExpectOthersAreServed();
}

TEST_F(HostileTest, MoreBytesThanOneReadMayAskForAreRefused) {
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  for (const Ranges &ranges :
       {Ranges{{0, options_.limit.max_read + 1}},
        Ranges(17, {0, kSize}), // each is within the image
        Ranges{{0, UINT64_MAX}, {0, 2}}}) {
    client.SendRead(7, image_, ranges);
    EXPECT_EQ(client.ReceiveRead(7).status, WIRE_E_INVAL);
  }
  EXPECT_EQ(client.Read(image_, 0, 10).status, 0);
}

TEST_F(HostileTest, WaitingRequestsMayHoldSoManyRangesAndNoMore) {
  options_.limit.max_held_ranges = 100;
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  disk_.ShutGate();
  client.SendRead(7, image_, Ranges(60, {0, 1}));
  client.SendRead(8, image_, Ranges(60, {0, 1}));
  Frame frame = client.Receive();
  EXPECT_EQ(frame.id, 8u);
  EXPECT_EQ(frame.status, WIRE_E_INVAL);
  disk_.OpenGate();
  EXPECT_EQ(client.ReceiveRead(7).bytes.size(), 60u);
}

TEST_F(HostileTest, WhoNamesTablesAtRandomHarmsNobody) {
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  std::mt19937_64 random(1);
  std::vector<uint64_t> tables = {0, 1, UINT64_MAX};
  for (int i = 0; i < 500; i++) {
    uint64_t table = random() % 4 ? tables[random() % tables.size()] : random();
    uint32_t slots =
        static_cast<uint32_t>(random() % 2 ? random() % 80 : random());
    uint32_t capacity = static_cast<uint32_t>(random() % 2 ? 1 : random());
    if (random() % 2)
      client.SendGrow(7, table, slots, capacity);
    else
      client.SendAttach(7, image_, table, slots, capacity);
    Frame frame = client.ReceiveAnswer();
    for (int fd : client.TakeFds())
      close(fd);
    ASSERT_FALSE(frame.is_end());
    if (frame.is_error()) {
      EXPECT_TRUE(frame.status == WIRE_E_INVAL ||
                  frame.status == WIRE_E_UNSUPPORTED)
          << frame.message;
    } else {
      EXPECT_GE(frame.page_slots, 4u);
      EXPECT_LE(frame.page_slots, 65u);
      EXPECT_GE(frame.range_capacity, 1u);
      EXPECT_LE((frame.page_slots + 4 * uint64_t(frame.range_capacity)) * 4096,
                options_.cache_size / 8);
    }
    if (frame.table)
      tables.push_back(frame.table);
  }
  ExpectOthersAreServed();
}

// ---- Time -------------------------------------------------------------------

TEST_F(HostileTest, WhoConnectsAndSaysNothingIsClosed) {
  options_.limit.handshake_timeout_ms = 50;
  Serve();
  WireClient client = server_->Unix();
  ExpectFailed(&client, 0, WIRE_E_TIMEOUT);
}

TEST_F(HostileTest, WhoSendsHalfAMessageIsClosed) {
  options_.limit.partial_timeout_ms = 50;
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  client.SendRaw({1, 0, 0});
  ExpectFailed(&client, 0, WIRE_E_TIMEOUT);
}

TEST_F(HostileTest, WhoTricklesAMessageGetsNoMoreTimeForEachByte) {
  options_.limit.partial_timeout_ms = 100;
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  client.SendRaw(RawFrame(60000, 0, {}));
  // A byte whenever nothing has come back for a while, until it is closed.
  pollfd p = {client.fd(), POLLIN, 0};
  int n_sent = 0;
  while (poll(&p, 1, 5) == 0 && n_sent < 10000)
    n_sent += client.SendRaw({0});
  EXPECT_LT(n_sent, 10000);
  ExpectFailed(&client, 0, WIRE_E_TIMEOUT);
}

TEST_F(HostileTest, AQuietConnectionIsNeverClosed) {
  options_.limit.handshake_timeout_ms = 20;
  options_.limit.partial_timeout_ms = 20;
  options_.limit.unread_timeout_ms = 20;
  options_.limit.linger_ms = 20;
  server_ = std::make_unique<TestServer>(
      std::vector<std::pair<std::string, FakeSource *>>{{"disk", &disk_}},
      options_);
  WireClient quiet = Started(&TestServer::Unix);
  // Meanwhile others run into each limit several times over.
  for (int i = 0; i < 5; i++) {
    WireClient silent = server_->Unix();
    EXPECT_TRUE(silent.AwaitClose());
  }
  EXPECT_EQ(quiet.Read(image_, 0, 10).status, 0);
}

TEST_F(HostileTest, WhoDoesNotCloseAfterAnErrorIsClosed) {
  options_.limit.linger_ms = 50;
  Serve();
  WireClient client = server_->Unix();
  client.SendRaw(RawFrame(UINT32_MAX, 0, {}));
  EXPECT_TRUE(client.Receive().is_error());
  pollfd p = {client.fd(), 0, 0};
  EXPECT_EQ(poll(&p, 1, 30000), 1); // POLLHUP: closed on both sides
  EXPECT_TRUE(p.revents & POLLHUP);
  ExpectOthersAreServed();
}

// ---- A peer that does not read ----------------------------------------------

// With memory to keep answers in, and without ("crowded").
class UnreadTest : public HostileTest,
                   public testing::WithParamInterface<bool> {
protected:
  UnreadTest() {
    options_.cache_size = 256 << 20; // mostly unused
    if (GetParam())
      options_.limit.max_held = 0;
  }

  static size_t Allocated() {
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
  }

  // Asks for far more than a socket holds, and reads nothing.
  void AskForMuch(WireClient *client) {
    client->Start();
    for (uint64_t i = 0; i < 64; i++)
      client->SendRead(100 + i, image_, {{0, kSize}});
  }
};

TEST_P(UnreadTest, ItIsClosedAfterAWhile) {
  options_.limit.unread_timeout_ms = 100;
  Serve();
  for (bool tcp : {false, true}) {
    WireClient client = tcp ? server_->Tcp() : server_->Unix();
    AskForMuch(&client);
    while (good_->Stats()["connections"] != 1)
      ;
    EXPECT_TRUE(client.AwaitClose());
    ExpectOthersAreServed();
    while (good_->Stats()["connections"] != 1)
      ;
  }
}

TEST_P(UnreadTest, ItsMemoryIsBoundedAndOthersAreServedMeanwhile) {
  Serve();
  EXPECT_EQ(good_->Read(image_, 0, kSize).status, 0); // all is resident
  size_t before = Allocated();
  std::vector<WireClient> clients;
  for (int i = 0; i < 8; i++) {
    clients.push_back(server_->Unix());
    AskForMuch(&clients.back());
  }
  for (int i = 0; i < 100; i++)
    ASSERT_EQ(good_->Read(image_, 5, 100).bytes, FakeSource::Bytes(5, 100));
  // 2 GiB were asked for.
  EXPECT_LT(Allocated(), before + (16u << 20));
}

// A peer that does not read, and one that sends half a message: many of them.

TEST_P(UnreadTest, ManyHoldNoMoreThanFew) {
  options_.limit.max_held = GetParam() ? 0 : 8 << 20;
  options_.limit.unread_timeout_ms = 600000; // the last is read at the end
  options_.n_workers = 1;
  const uint64_t most = GetParam() ? 512 << 10 : 8 << 20;
  Serve();
  EXPECT_EQ(good_->Read(image_, 0, kSize).status, 0); // all is resident
  size_t before = Allocated();
  std::vector<WireClient> clients;
  for (int i = 0; i < 200; i++) {
    clients.push_back(server_->Unix());
    AskForMuch(&clients.back());
    pollfd p = {clients.back().fd(), POLLIN, 0};
    ASSERT_EQ(poll(&p, 1, 30000), 1);
    uint64_t held = good_->Stats()["connections_held"];
    EXPECT_GT(held, 0u);
    EXPECT_LE(held, most);
  }
  EXPECT_LT(Allocated(), before + most + (2u << 20));
  // And each gets what it asked for, when it reads.
  std::vector<uint8_t> all = FakeSource::Bytes(0, kSize);
  for (size_t i = 0; i < clients.size(); i += 10)
    for (uint64_t id = 100; id < 102; id++)
      ASSERT_EQ(clients[i].ReceiveRead(id).bytes, all);
}

TEST_P(UnreadTest, WhatWasNotSentIsLookedUpAgain) {
  options_.cache_size = 512 << 10; // and is not there any more
  options_.page_size = GetParam() ? 2 << 20 : 4096;
  options_.limit.max_held = 0;
  options_.limit.unread_timeout_ms = 600000; // the last is read at the end
  Serve();
  std::vector<WireClient> clients(8);
  for (WireClient &client : clients) {
    client = server_->Unix();
    client.Start();
    client.SendRead(7, image_, {{5, kSize - 10}, {1 << 20, 1 << 20}});
    pollfd p = {client.fd(), POLLIN, 0};
    ASSERT_EQ(poll(&p, 1, 30000), 1);
  }
  std::vector<uint8_t> expected = FakeSource::Bytes(5, kSize - 10);
  std::vector<uint8_t> more = FakeSource::Bytes(1 << 20, 1 << 20);
  expected.insert(expected.end(), more.begin(), more.end());
  for (WireClient &client : clients)
    EXPECT_EQ(client.ReceiveRead(7).bytes, expected);
}

TEST_P(UnreadTest, HalfMessagesHoldNoMoreThanFew) {
  options_.limit.max_held = 0;
  options_.n_workers = 1;
  Serve();
  std::vector<WireClient> clients(40);
  std::vector<uint8_t> half = RawFrame(65000, 0, std::vector<uint8_t>(60000));
  for (WireClient &client : clients) {
    client = server_->Unix();
    client.Start();
    client.SendRaw(half);
    EXPECT_LE(good_->Stats()["connections_held"], 512u << 10);
  }
  while (good_->Stats()["connections"] == 41) // until some are closed for it
    ;
  EXPECT_LE(good_->Stats()["connections_held"], 512u << 10);
  // One that asks for what fits into little is served.
  EXPECT_EQ(good_->Read(image_, 5, 100).bytes, FakeSource::Bytes(5, 100));
  clients.clear();
  while (good_->Stats()["connections_held"] > 512) // its own, that is open
    ;
  ExpectOthersAreServed();
}

TEST_P(UnreadTest, APeerThatHasAllItAskedForMayLeaveItUnread) {
  options_.limit.unread_timeout_ms = 20;
  options_.limit.handshake_timeout_ms = 50;
  Serve();
  good_->SendWarm(9, image_, {{0, kSize}});
  EXPECT_TRUE(good_->ReceiveAnswer().is_done());
  WireClient client = Started(&TestServer::Unix);
  client.SendRead(7, image_, {{0, 96 << 10}}); // a socket holds that
  for (int i = 0; i < 3; i++) {                // time goes by
    WireClient silent = server_->Unix();
    EXPECT_TRUE(silent.AwaitClose());
  }
  EXPECT_EQ(client.ReceiveRead(7).bytes, FakeSource::Bytes(0, 96 << 10));
  EXPECT_EQ(client.Read(image_, 5, 100).bytes, FakeSource::Bytes(5, 100));
}

TEST_P(UnreadTest, ItDoesNotKeepWhatIsFetchedForIt) {
  options_.cache_size = 256 << 10; // nothing stays for long
  options_.limit.max_worker_fetch = 1 << 20;
  options_.n_workers = 1;
  Serve();
  std::vector<WireClient> clients;
  for (int i = 0; i < 16; i++) {
    clients.push_back(server_->Unix());
    AskForMuch(&clients.back());
  }
  // If each kept its share, no allowance would be left for this one.
  EXPECT_EQ(good_->Read(image_, 0, kSize).bytes, FakeSource::Bytes(0, kSize));
}

// ---- A peer that does not take its notices ----------------------------------

class UntakenTest : public UnreadTest {
protected:
  UntakenTest() {
    options_.n_workers = 1;
    options_.limit.notice_timeout_ms = 60000; // unless a test says otherwise
    options_.limit.unread_timeout_ms = 60000;
  }

  // Its socket is full.
  WireClient Blocked() {
    EXPECT_EQ(good_->Read(image_, 0, kSize).status, 0); // all is resident
    WireClient client = server_->Unix();
    AskForMuch(&client);
    pollfd p = {client.fd(), POLLIN, 0};
    EXPECT_EQ(poll(&p, 1, 30000), 1); // the first answers fill it at once
    return client;
  }

  void SendInvalidates(WireClient *client, uint64_t n) {
    for (uint64_t i = 0; i < n; i++)
      client->SendInvalidate(100 + i, image_, i * 4096, 4096);
  }

  // All its answers, and the notices among them, in notices().
  void ReadAll(WireClient *client) {
    for (int n_last = 0; n_last < 64;) {
      Frame frame = client->ReceiveAnswer();
      ASSERT_FALSE(frame.is_end());
      n_last += frame.is_data() && frame.last;
    }
  }
};

TEST_P(UntakenTest, DoneWaitsUntilTheNoticeIsInItsSocket) {
  Serve();
  WireClient client = Blocked();
  SendInvalidates(good_.get(), 1);
  EXPECT_EQ(good_->Receive().kind, CACHET__WIRE__MESSAGE__BODY_INVALIDATED);
  good_->SendGetStats(7);
  EXPECT_EQ(good_->Receive().id, 7u); // and no Done so far
  ReadAll(&client);
  EXPECT_TRUE(good_->Receive().is_done());
  EXPECT_EQ(client.notices().size(), 1u);
}

TEST_P(UntakenTest, NoticesForItDoNotPileUp) {
  options_.limit.max_conn_jobs = 200;
  options_.limit.max_worker_invalidations = 200;
  Serve();
  WireClient client = Blocked();
  SendInvalidates(good_.get(), 200);
  for (int i = 0; i < 200; i++) // one worker: the other is owed it, too
    EXPECT_EQ(good_->Receive().kind, CACHET__WIRE__MESSAGE__BODY_INVALIDATED);
  ReadAll(&client);
  ASSERT_EQ(client.notices().size(), 1u);
  EXPECT_EQ(client.notices()[0].ranges, (Ranges{{0, 200 * 4096}}));
  for (int i = 0; i < 200; i++)
    EXPECT_TRUE(good_->Receive().is_done());
}

TEST_P(UntakenTest, ItIsClosedAndWhoInvalidatesGoesOn) {
  options_.limit.notice_timeout_ms = 50;
  Serve();
  WireClient client = Blocked();
  SendInvalidates(good_.get(), 1);
  EXPECT_TRUE(good_->ReceiveAnswer().is_done());
  EXPECT_EQ(good_->Stats()["connections"], 1u);
  EXPECT_TRUE(client.AwaitClose());
  ExpectOthersAreServed();
}

TEST_P(UntakenTest, InvalidationsThatWaitAreSoManyAndNoMore) {
  options_.limit.max_worker_invalidations = 10;
  Serve();
  WireClient client = Blocked();
  SendInvalidates(good_.get(), 9);
  EXPECT_EQ(good_->ReceiveAnswer().status, WIRE_E_BUSY); // a connection has 8
  {
    WireClient second = server_->Unix();
    second.Start();
    SendInvalidates(&second, 3);
    EXPECT_EQ(second.ReceiveAnswer().status, WIRE_E_BUSY);
    while (good_->notices().size() < 10) // all ten are begun
      good_->Stats();
  }
  while (good_->Stats()["connections"] != 2)
    ;
  // Those whose connection is gone still count, until they are over.
  WireClient third = server_->Unix();
  third.Start();
  SendInvalidates(&third, 1);
  EXPECT_EQ(third.ReceiveAnswer().status, WIRE_E_BUSY);
  client.Close();
  for (int i = 0; i < 8; i++)
    EXPECT_TRUE(good_->ReceiveAnswer().is_done());
  SendInvalidates(&third, 1);
  EXPECT_TRUE(third.ReceiveAnswer().is_done());
}

TEST_P(UntakenTest, AStopDoesNotWaitForIt) {
  options_.limit.stop_timeout_ms = 50;
  Serve();
  WireClient client = Blocked();
  SendInvalidates(good_.get(), 8);
  EXPECT_EQ(good_->Receive().kind, CACHET__WIRE__MESSAGE__BODY_INVALIDATED);
  server_->BeginStop();
  server_->AwaitStop();
}

TEST_P(UntakenTest, TheClockOfHalfAMessageStandsStillMeanwhile) {
  options_.limit.partial_timeout_ms = 5000;
  options_.limit.handshake_timeout_ms = 6000;
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  disk_.ShutGate();
  client.SendRead(7, image_, {{0, kSize}});
  client.SendRaw({1, 0, 0});
  disk_.AwaitReadsAtGate(1);
  disk_.OpenGate(); // and it blocks
  WireClient silent = server_->Unix();
  EXPECT_TRUE(silent.AwaitClose()); // longer than half a message may last
  EXPECT_EQ(client.ReceiveRead(7).bytes, FakeSource::Bytes(0, kSize));
  EXPECT_EQ(client.ReceiveAnswer().status, WIRE_E_TIMEOUT);
}

INSTANTIATE_TEST_SUITE_P(, UnreadTest, testing::Bool());
INSTANTIATE_TEST_SUITE_P(, UntakenTest, testing::Bool());

TEST_F(HostileTest, AnErrorThatQuotesThePeerIsAscii) {
  Serve();
  WireClient client = server_->Unix();
  client.SendHello();
  client.Receive();
  client.SendOpen(2, std::string(63, 'a') + "\xc3\xa9"); // cut in the middle
  Frame frame = client.Receive();
  EXPECT_EQ(frame.status, WIRE_E_NOIMAGE);
  for (char c : frame.message)
    EXPECT_TRUE(c >= ' ' && c <= '~') << frame.message;
}

} // namespace

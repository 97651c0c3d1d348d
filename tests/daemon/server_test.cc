// The server as well-behaved clients see it: reads, misses, limits, images.
#include <cachet/cachet.h>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>

#include "proto/status.h"
#include "tests/support/test_server.h"

// How often the servers of this program have sent.  The clients use send(2).
static std::atomic<int> n_sends;

extern "C" ssize_t sendmsg(int fd, const msghdr *msg, int flags) {
  static auto real =
      reinterpret_cast<decltype(&sendmsg)>(dlsym(RTLD_NEXT, "sendmsg"));
  n_sends++;
  return real(fd, msg, flags);
}

namespace {

static_assert(int(WIRE_OK) == int(CACHET_OK) &&
                  int(WIRE_E_INVAL) == int(CACHET_E_INVAL) &&
                  int(WIRE_E_BOUNDS) == int(CACHET_E_BOUNDS) &&
                  int(WIRE_E_NOMEM) == int(CACHET_E_NOMEM) &&
                  int(WIRE_E_IO) == int(CACHET_E_IO) &&
                  int(WIRE_E_NOIMAGE) == int(CACHET_E_NOIMAGE) &&
                  int(WIRE_E_ACCESS) == int(CACHET_E_ACCESS) &&
                  int(WIRE_E_PROTO) == int(CACHET_E_PROTO) &&
                  int(WIRE_E_TIMEOUT) == int(CACHET_E_TIMEOUT) &&
                  int(WIRE_E_BUSY) == int(CACHET_E_BUSY) &&
                  int(WIRE_E_CANCELED) == int(CACHET_E_CANCELED) &&
                  int(WIRE_E_CHANGED) == int(CACHET_E_CHANGED) &&
                  int(WIRE_E_UNSUPPORTED) == int(CACHET_E_UNSUPPORTED),
              "the wire carries the numbers of the public header");

constexpr uint64_t kSize = (4 << 20) + 13;
constexpr uint64_t kPage = 4096;

class ServerTest : public testing::Test {
protected:
  void Serve() {
    server_ = std::make_unique<TestServer>(
        std::vector<std::pair<std::string, FakeSource *>>{{"disk", &disk_}},
        options_);
  }

  // With so large a cache that connections may hold some memory.
  void ServeWithRoom() {
    options_.cache_size = 64 << 20;
    options_.n_workers = 1;
    Serve();
  }

  FakeSource disk_{kSize};
  TestServer::Options options_;
  std::unique_ptr<TestServer> server_;
};

TEST_F(ServerTest, ServesOverUnixAndTcpAtOnce) {
  Serve();
  WireClient local = server_->Unix(), remote = server_->Tcp();
  Frame opened = local.Start("disk");
  EXPECT_EQ(opened.size, kSize);
  EXPECT_EQ(opened.page_size, kPage);
  EXPECT_EQ(remote.Start("disk").epoch, opened.epoch);
  for (uint64_t addr : {0ul, 1ul, 4095ul, 4096ul, kSize - 20}) {
    auto expected = FakeSource::Bytes(addr, 20);
    EXPECT_EQ(local.Read(opened.image, addr, 20).bytes, expected);
    EXPECT_EQ(remote.Read(opened.image, addr, 20).bytes, expected);
  }
}

TEST_F(ServerTest, ALongReadComesInPiecesOfLimitedLengthInOrder) {
  Serve();
  WireClient client = server_->Unix();
  uint32_t image = client.Start().image;
  for (int round = 0; round < 2; round++) { // absent, then resident
    uint64_t at = 3;
    client.SendRead(7, image, {{at, kSize - 3}});
    for (bool last = false; !last;) {
      Frame piece = client.Receive();
      ASSERT_TRUE(piece.is_data());
      ASSERT_EQ(piece.id, 7u);
      ASSERT_EQ(piece.offset, at);
      ASSERT_LE(piece.payload.size(), options_.limit.piece_len);
      ASSERT_EQ(piece.payload, FakeSource::Bytes(at, piece.payload.size()));
      at += piece.payload.size();
      last = piece.last;
    }
    EXPECT_EQ(at, kSize);
  }
}

TEST_F(ServerTest, OneReadTakesSeveralRanges) {
  Serve();
  WireClient client = server_->Unix();
  uint32_t image = client.Start().image;
  Ranges ranges = {{100, 50}, {0, 0}, {2 << 20, 9000}, {kSize, 0}, {5, 1}};
  client.SendRead(7, image, ranges);
  std::vector<std::vector<uint8_t>> got(ranges.size());
  for (bool last = false; !last;) {
    Frame piece = client.Receive();
    ASSERT_TRUE(piece.is_data()) << piece.message;
    auto &bytes = got.at(piece.range);
    EXPECT_EQ(piece.offset, ranges[piece.range].first + bytes.size());
    bytes.insert(bytes.end(), piece.payload.begin(), piece.payload.end());
    last = piece.last;
  }
  for (size_t i = 0; i < ranges.size(); i++)
    EXPECT_EQ(got[i], FakeSource::Bytes(ranges[i].first, ranges[i].second));
}

TEST_F(ServerTest, AReadOfNothingIsOneEmptyPiece) {
  Serve();
  WireClient client = server_->Unix();
  uint32_t image = client.Start().image;
  for (const Ranges &ranges :
       {Ranges{}, Ranges{{0, 0}}, Ranges{{UINT64_MAX, 0}, {7, 0}}}) {
    client.SendRead(7, image, ranges);
    Frame piece = client.Receive();
    EXPECT_TRUE(piece.is_data());
    EXPECT_TRUE(piece.last);
    EXPECT_TRUE(piece.payload.empty());
  }
  EXPECT_EQ(disk_.n_reads(), 0);
}

TEST_F(ServerTest, ARangePastTheEndIsRefusedBeforeTheFirstByte) {
  Serve();
  WireClient client = server_->Unix();
  uint32_t image = client.Start().image;
  for (auto range : Ranges{{kSize, 1},
                           {kSize - 1, 2},
                           {kSize + 1, 1},
                           {UINT64_MAX, 1},
                           {UINT64_MAX - 10, 11}}) {
    client.SendRead(7, image, {{0, 10}, range});
    Answer answer = client.ReceiveRead(7);
    EXPECT_EQ(answer.status, CACHET_E_BOUNDS);
    EXPECT_TRUE(answer.bytes.empty());
  }
}

TEST_F(ServerTest, AReadOfAnotherEpochIsRefused) {
  Serve();
  WireClient client = server_->Unix();
  Frame opened = client.Start();
  client.SendRead(7, opened.image, {{0, 10}}, opened.epoch);
  EXPECT_EQ(client.ReceiveRead(7).status, 0);
  client.SendRead(8, opened.image, {{0, 10}}, opened.epoch + 1);
  EXPECT_EQ(client.ReceiveRead(8).status, CACHET_E_CHANGED);
}

TEST_F(ServerTest, AnImageThatWasNotOpenedCannotBeRead) {
  Serve();
  WireClient client = server_->Unix();
  client.SendHello();
  client.Receive();
  EXPECT_EQ(client.Read(1, 0, 10).status, CACHET_E_NOIMAGE);
  client.SendOpen(5, "none");
  Frame answer = client.Receive();
  EXPECT_EQ(answer.status, CACHET_E_NOIMAGE);
  EXPECT_NE(answer.message.find("\"none\""), std::string::npos);
}

TEST_F(ServerTest, AnEmptyImageHasNothingToRead) {
  FakeSource empty(0);
  TestServer server({{"empty", &empty}}, options_);
  WireClient client = server.Unix();
  Frame opened = client.Start();
  EXPECT_EQ(opened.size, 0u);
  EXPECT_EQ(client.Read(opened.image, 0, 0).status, 0);
  EXPECT_EQ(client.Read(opened.image, 0, 1).status, CACHET_E_BOUNDS);
}

TEST_F(ServerTest, EachPageSizeServesTheSameBytes) {
  for (uint32_t page_size : {4096u, 65536u, 2u << 20}) {
    options_.page_size = page_size;
    Serve();
    WireClient client = server_->Unix();
    Frame opened = client.Start();
    EXPECT_EQ(opened.page_size, page_size);
    EXPECT_EQ(client.Read(opened.image, 4095, kSize - 4095).bytes,
              FakeSource::Bytes(4095, kSize - 4095));
  }
}

TEST_F(ServerTest, ACacheOfAFewPagesCostsSpeedNotProgress) {
  options_.cache_size = 64 << 10;
  Serve();
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < 4; i++)
    threads.emplace_back([this, i] {
      WireClient client = i % 2 ? server_->Unix() : server_->Tcp();
      uint32_t image = client.Start().image;
      for (uint64_t addr = i; addr + 700000 < kSize; addr += 650000)
        EXPECT_EQ(client.Read(image, addr, 700000).bytes,
                  FakeSource::Bytes(addr, 700000));
    });
  for (std::thread &t : threads)
    t.join();
}

TEST_F(ServerTest, SeveralImagesAreKeptApart) {
  FakeSource other(100);
  other.Change(200); // other bytes, another size
  TestServer server({{"disk", &disk_}, {"other", &other}}, options_);
  WireClient client = server.Unix();
  Frame first = client.Start("disk");
  client.SendOpen(3, "other");
  Frame second = client.Receive();
  EXPECT_NE(first.image, second.image);
  EXPECT_EQ(second.size, 200u);
  EXPECT_EQ(client.Read(first.image, 0, 50).bytes, FakeSource::Bytes(0, 50));
  EXPECT_EQ(client.Read(second.image, 0, 50).bytes,
            FakeSource::Bytes(0, 50, 2));
  client.SendList(4);
  EXPECT_EQ(client.Receive().names,
            (std::vector<std::string>{"disk", "other"}));
  client.SendOpen(5, "");
  EXPECT_EQ(client.Receive().status, CACHET_E_NOIMAGE);
}

TEST_F(ServerTest, OpeningAnImageTwiceGivesTheSameNumber) {
  Serve();
  WireClient client = server_->Unix();
  Frame first = client.Start();
  client.SendOpen(9, "disk");
  EXPECT_EQ(client.Receive().image, first.image);
}

// ---- Misses -----------------------------------------------------------------

// Sends a Read and returns when the server has begun to work on it.
void SendReadAndWait(WireClient *client, uint64_t id, uint32_t image,
                     uint64_t offset, uint64_t length) {
  client->SendRead(id, image, {{offset, length}});
  client->Stats(); // frames of one connection are taken in order
}

TEST_F(ServerTest, SixtyFourClientsThatMissTheSamePageCauseOneRead) {
  Serve();
  disk_.ShutGate();
  std::vector<WireClient> clients;
  uint32_t image = 0;
  for (int i = 0; i < 64; i++) {
    clients.push_back(i % 2 ? server_->Unix() : server_->Tcp());
    image = clients.back().Start().image;
    SendReadAndWait(&clients.back(), 7, image, 5 * kPage, 100);
  }
  disk_.AwaitReadsAtGate(1);
  disk_.OpenGate();
  for (WireClient &client : clients)
    EXPECT_EQ(client.ReceiveRead(7).bytes, FakeSource::Bytes(5 * kPage, 100));
  EXPECT_EQ(disk_.n_reads(), 1);
  auto stats = clients[0].Stats();
  EXPECT_EQ(stats["misses"], 1u);
  EXPECT_EQ(stats["joins"], 63u);
  EXPECT_EQ(stats["fills"], 1u);
}

TEST_F(ServerTest, PagesThatAreReadAtOnceGoByOneSend) {
  disk_.AnswerTry(1);
  Serve();
  WireClient client = server_->Unix();
  uint32_t image = client.Start().image;
  int before = n_sends;
  client.SendRead(7, image, {{0, 9}, {5 * kPage, kPage}, {9 * kPage, 3}});
  client.ReceiveRead(7);
  EXPECT_EQ(n_sends - before, 1);
  EXPECT_EQ(client.Stats()["fills"], 3u);
}

// Not each time: the worker may wake up when only some of them have ended.
TEST_F(ServerTest, ReadsOfOneConnectionThatEndTogetherAreAnsweredByOneSend) {
  constexpr uint64_t kReads = 8;
  options_.n_workers = 1;
  Serve();
  WireClient client = server_->Unix();
  uint32_t image = client.Start().image;
  int n_sent = 0;
  for (uint64_t page = 0; page < 100 && n_sent != 1; page++) {
    disk_.ShutGate();
    for (uint64_t id = 1; id < kReads; id++)
      client.SendRead(id, image, {{page * kPage, id}});
    SendReadAndWait(&client, kReads, image, page * kPage, kReads);
    disk_.AwaitReadsAtGate(1);
    int before = n_sends;
    disk_.OpenGate();
    for (uint64_t id = 1; id <= kReads; id++) {
      Frame frame = client.ReceiveAnswer();
      EXPECT_EQ(frame.payload, FakeSource::Bytes(page * kPage, frame.id));
    }
    n_sent = n_sends - before;
  }
  EXPECT_EQ(n_sent, 1);
}

// The bytes of many fetches are not kept for one send.
TEST_F(ServerTest, ManyPagesThatAreReadAtOnceGoByMoreThanOneSend) {
  constexpr uint64_t kPages = 64;
  disk_.AnswerTry(1);
  Serve();
  WireClient client = server_->Unix();
  uint32_t image = client.Start().image;
  Ranges ranges;
  for (uint64_t i = 0; i < kPages; i++)
    ranges.push_back({2 * i * kPage, kPage});
  int before = n_sends;
  client.SendRead(7, image, ranges);
  std::vector<uint8_t> bytes = client.ReceiveRead(7).bytes;
  EXPECT_GE(n_sends - before, 8);
  EXPECT_LE(n_sends - before, 16);
  for (uint64_t i = 0; i < kPages; i++)
    EXPECT_TRUE(std::equal(bytes.begin() + long(i * kPage),
                           bytes.begin() + long((i + 1) * kPage),
                           FakeSource::Bytes(2 * i * kPage, kPage).begin()));
}

// Nor are those of which little is sent.
TEST_F(ServerTest, ManyPagesOfWhichAByteIsReadGoByMoreThanOneSend) {
  constexpr uint64_t kPages = 128;
  disk_.AnswerTry(1);
  Serve();
  WireClient client = server_->Unix();
  uint32_t image = client.Start().image;
  Ranges ranges;
  for (uint64_t i = 0; i < kPages; i++)
    ranges.push_back({2 * i * kPage, 1});
  int before = n_sends;
  client.SendRead(7, image, ranges);
  std::vector<uint8_t> bytes = client.ReceiveRead(7).bytes;
  EXPECT_EQ(n_sends - before, 2); // of 64 pages each
  ASSERT_EQ(bytes.size(), kPages);
  for (uint64_t i = 0; i < kPages; i++)
    EXPECT_EQ(bytes[i], FakeSource::Bytes(2 * i * kPage, 1)[0]);
}

TEST_F(ServerTest, AFailedReadAnswersAllWhoWaitAndIsNotRemembered) {
  Serve();
  disk_.ShutGate();
  disk_.FailReads(EIO, 1);
  std::vector<WireClient> clients;
  uint32_t image = 0;
  for (int i = 0; i < 64; i++) {
    clients.push_back(server_->Unix());
    image = clients.back().Start().image;
    SendReadAndWait(&clients.back(), 7, image, 5 * kPage, 100);
  }
  disk_.OpenGate();
  for (WireClient &client : clients)
    EXPECT_EQ(client.ReceiveRead(7).status, CACHET_E_IO);
  EXPECT_EQ(clients[0].Read(image, 5 * kPage, 100).bytes,
            FakeSource::Bytes(5 * kPage, 100));
  EXPECT_EQ(disk_.n_reads(), 2);
}

TEST_F(ServerTest, AnErrorMayEndAnAnswerAfterSomePieces) {
  disk_.FailAt(2 << 20, EIO);
  Serve();
  WireClient client = server_->Unix();
  uint32_t image = client.Start().image;
  client.SendRead(7, image, {{0, kSize}});
  Answer answer = client.ReceiveRead(7);
  EXPECT_EQ(answer.status, CACHET_E_IO);
  EXPECT_EQ(answer.bytes, FakeSource::Bytes(0, answer.bytes.size()));
  EXPECT_GE(answer.bytes.size(), 1u << 20);
  EXPECT_EQ(client.Read(image, 0, 100).status, 0);
}

class SixtyFourMisses : public ServerTest {
protected:
  // A client with a page that is resident, and 64 misses at a shut gate.
  void Begin() {
    Serve();
    client_ = std::make_unique<WireClient>(server_->Unix());
    image_ = client_->Start().image;
    ASSERT_EQ(client_->Read(image_, 0, kPage).status, 0);
    disk_.ShutGate();
    for (uint64_t i = 0; i < 64; i++)
      client_->SendRead(100 + i, image_, {{(64 + 2 * i) * kPage, 10}});
    client_->Stats();
    disk_.AwaitReadsAtGate(1);
  }

  void End() {
    disk_.OpenGate();
    for (int left = 64; left > 0; left--) {
      Frame piece = client_->Receive();
      ASSERT_TRUE(piece.is_data());
      uint64_t addr = (64 + 2 * (piece.id - 100)) * kPage;
      EXPECT_EQ(piece.payload, FakeSource::Bytes(addr, 10));
    }
  }

  std::unique_ptr<WireClient> client_;
  uint32_t image_ = 0;
};

TEST_F(SixtyFourMisses, DoNotHoldUpHitsOfTheSameConnection) {
  Begin();
  for (int i = 0; i < 100; i++)
    EXPECT_EQ(client_->Read(image_, 7, 100).bytes, FakeSource::Bytes(7, 100));
  End();
}

TEST_F(SixtyFourMisses, DoNotHoldUpHitsOfAnotherConnection) {
  options_.n_workers = 1; // even of the same worker
  Begin();
  WireClient other = server_->Tcp();
  uint32_t image = other.Start().image;
  for (int i = 0; i < 100; i++)
    EXPECT_EQ(other.Read(image, 7, 100).bytes, FakeSource::Bytes(7, 100));
  End();
}

TEST_F(ServerTest, ASourceThatHangsDoesNotHoldUpTheMissesOfAnother) {
  FakeSource other(kSize);
  options_.n_workers = 1;
  TestServer server({{"disk", &disk_}, {"other", &other}}, options_);
  WireClient client = server.Unix();
  uint32_t disk = client.Start("disk").image;
  client.SendOpen(3, "other");
  uint32_t second = client.Receive().image;
  disk_.ShutGate();
  for (uint64_t i = 0; i < 64; i++)
    client.SendRead(100 + i, disk, {{2 * i * kPage, 10}});
  EXPECT_EQ(client.Read(second, 0, 10).bytes, FakeSource::Bytes(0, 10));
  disk_.OpenGate();
}

TEST_F(ServerTest, MoreThanMayBeFetchedAtOnceIsFetchedInTurn) {
  options_.limit.max_conn_fetch = 4 * kPage;
  options_.limit.max_worker_fetch = 16 * kPage;
  options_.n_workers = 1;
  Serve();
  std::vector<WireClient> clients;
  uint32_t image = 0;
  disk_.ShutGate();
  for (uint64_t i = 0; i < 8; i++) {
    clients.push_back(server_->Unix());
    image = clients.back().Start().image;
    for (uint64_t j = 0; j < 32; j++)
      clients.back().SendRead(j + 100, image, {{(j * 8 + i) * kPage, 10}});
    clients.back().Stats();
  }
  disk_.OpenGate();
  for (uint64_t i = 0; i < 8; i++)
    for (uint64_t j = 0; j < 32; j++) {
      Frame piece = clients[i].Receive();
      ASSERT_TRUE(piece.is_data()) << piece.message;
      EXPECT_EQ(piece.payload,
                FakeSource::Bytes(((piece.id - 100) * 8 + i) * kPage, 10));
    }
}

TEST_F(ServerTest, TooManyRequestsAtOnceAreRefusedOneByOne) {
  options_.limit.max_requests = 8;
  Serve();
  WireClient client = server_->Unix();
  uint32_t image = client.Start().image;
  disk_.ShutGate();
  for (uint64_t i = 0; i < 9; i++)
    client.SendRead(100 + i, image, {{i * kPage, 10}});
  Frame answer = client.Receive();
  EXPECT_EQ(answer.id, 108u);
  EXPECT_EQ(answer.status, CACHET_E_INVAL);
  disk_.OpenGate();
  for (int i = 0; i < 8; i++)
    EXPECT_TRUE(client.Receive().is_data());
}

TEST_F(ServerTest, AWarmedRangeIsHitFromThenOn) {
  Serve();
  WireClient client = server_->Unix();
  Frame opened = client.Start();
  client.SendWarm(7, opened.image, {{0, 1 << 20}, {3 << 20, 10}});
  Frame done = client.Receive();
  EXPECT_TRUE(done.is_done());
  EXPECT_EQ(done.epoch, opened.epoch);
  int n_reads = disk_.n_reads();
  EXPECT_EQ(client.Read(opened.image, 0, 1 << 20).bytes,
            FakeSource::Bytes(0, 1 << 20));
  EXPECT_EQ(client.Read(opened.image, 3 << 20, 10).status, 0);
  EXPECT_EQ(disk_.n_reads(), n_reads);
  auto stats = client.Stats();
  EXPECT_EQ(stats["hits"], 257u);
  EXPECT_EQ(stats["misses"], 257u);
}

TEST_F(ServerTest, AClientThatLeavesWhileItsRequestsWaitIsForgotten) {
  Serve();
  disk_.ShutGate();
  WireClient stays = server_->Unix();
  uint32_t image = stays.Start().image;
  {
    WireClient leaves = server_->Unix();
    leaves.Start();
    for (uint64_t i = 0; i < 100; i++)
      leaves.SendRead(100 + i, image, {{i * kPage, 10}});
    leaves.Stats();
  }
  SendReadAndWait(&stays, 7, image, 0, 10);
  while (stays.Stats()["connections"] != 1) // until it was noticed
    ;
  disk_.OpenGate();
  EXPECT_EQ(stays.ReceiveRead(7).bytes, FakeSource::Bytes(0, 10));
}

TEST_F(ServerTest, AClientThatShutItsSideGetsItsAnswersThenTheEnd) {
  for (bool tcp : {false, true}) {
    disk_.ShutGate();
    Serve();
    WireClient client = tcp ? server_->Tcp() : server_->Unix();
    uint32_t image = client.Start().image;
    SendReadAndWait(&client, 7, image, kPage, 10);
    client.ShutdownWrites();
    disk_.OpenGate();
    EXPECT_EQ(client.ReceiveRead(7).bytes, FakeSource::Bytes(kPage, 10));
    EXPECT_TRUE(client.Receive().is_end());
  }
}

// ---- Back-pressure ----------------------------------------------------------

// Forty MiB are asked for, and then a page, before the peer reads an answer: it
// does when the daemon has taken in the requests.
TEST_F(ServerTest, ASmallReadOvertakesLongOnesThatWaitForRoom) {
  constexpr uint64_t kReads = 40, kSmall = 999;
  ServeWithRoom();
  WireClient other = server_->Unix();
  uint32_t other_image = other.Start().image;
  other.Read(other_image, 0, 1 << 20); // all is resident
  for (bool tcp : {false, true}) {
    WireClient client = tcp ? server_->Tcp() : server_->Unix();
    uint32_t image = client.Start().image;
    uint64_t before = other.Stats()["requests"];
    for (uint64_t i = 0; i < kReads; i++)
      client.SendRead(100 + i, image, {{0, 1 << 20}});
    client.SendRead(kSmall, image, {{4096, 4096}});
    while (other.Stats()["requests"] < before + kReads + 1)
      std::this_thread::yield();
    std::vector<uint64_t> order; // in which answers begin
    uint64_t len = 0, len_before_small = 0;
    for (uint64_t left = kReads + 1; left > 0;) {
      Frame piece = client.Receive();
      ASSERT_TRUE(piece.is_data()) << piece.message;
      if (order.empty() || (piece.id != order.back() && piece.id != kSmall))
        order.push_back(piece.id);
      if (piece.id == kSmall)
        len_before_small = len;
      len += piece.payload.size();
      left -= piece.last;
    }
    EXPECT_LT(len_before_small, kReads << 19) << tcp;
    // The long ones are answered one after the other.
    EXPECT_EQ(order.size(), kReads) << tcp;
    EXPECT_TRUE(std::is_sorted(order.begin(), order.end())) << tcp;
  }
}

// Not the first ones, because the windows of TCP have to grow.  An answer that
// goes by several sends has a shorter piece at the end of each.  The pages are
// in the cache, because a batch with bytes of fetches is sent early.
TEST_F(ServerTest, ALongAnswerThatTcpCanSendGoesByOneSend) {
  ServeWithRoom();
  WireClient client = server_->Tcp();
  uint32_t image = client.Start().image;
  client.Read(image, 0, 1 << 20);
  size_t n_pieces = 0, n_whole = (1 << 20) / options_.limit.piece_len;
  for (int i = 0; i < 1000 && n_pieces != n_whole; i++)
    n_pieces = client.Read(image, 0, 1 << 20).epochs.size();
  EXPECT_EQ(n_pieces, n_whole);
}

// Of those that ask for pages while their answers are not taken only so many
// are taken in.
TEST_F(ServerTest, OnlySoManyRequestsWaitForRoom) {
  options_.limit.max_queued = 8;
  ServeWithRoom();
  WireClient other = server_->Unix();
  uint32_t other_image = other.Start().image;
  other.Read(other_image, 0, 1 << 20);
  WireClient client = server_->Unix();
  uint32_t image = client.Start().image;
  uint64_t before = other.Stats()["requests"];
  constexpr uint64_t kReads = 40;
  for (uint64_t i = 0; i < kReads; i++)
    client.SendRead(100 + i, image, {{0, 1 << 20}});
  pollfd p = {client.fd(), POLLIN, 0};
  ASSERT_EQ(poll(&p, 1, 30000), 1);
  for (int i = 0; i < 100; i++)
    EXPECT_LE(other.Stats()["requests"], before + 8 + 2);
  for (uint64_t i = 0; i < kReads; i++)
    EXPECT_EQ(client.ReceiveRead(100 + i).bytes, FakeSource::Bytes(0, 1 << 20));
}

TEST_F(ServerTest, ASlowReaderGetsEveryByteInTheEnd) {
  options_.limit.turn_len = 300 << 10; // turns end as well
  Serve();
  WireClient client = server_->Unix();
  uint32_t image = client.Start().image;
  constexpr int kReads = 100;
  std::thread sender([&] {
    for (uint64_t i = 0; i < kReads; i++)
      client.SendRead(100 + i, image, {{i * 1000, 1 << 20}});
  });
  std::map<uint64_t, uint64_t> at;
  for (int left = kReads; left > 0;) {
    Frame piece = client.Receive();
    ASSERT_TRUE(piece.is_data()) << piece.message;
    uint64_t start = (piece.id - 100) * 1000;
    ASSERT_EQ(piece.offset, start + at[piece.id]);
    ASSERT_EQ(piece.payload,
              FakeSource::Bytes(piece.offset, piece.payload.size()));
    at[piece.id] += piece.payload.size();
    left -= piece.last;
  }
  sender.join();
}

TEST_F(ServerTest, OneConnectionTooManyIsToldSo) {
  options_.limit.max_connections = 2;
  Serve();
  WireClient first = server_->Unix(), second = server_->Tcp();
  first.Start();
  second.Start();
  WireClient third = server_->Unix();
  EXPECT_EQ(third.Receive().status, CACHET_E_BUSY);
  EXPECT_TRUE(third.Receive().is_end());
  EXPECT_EQ(first.Read(1, 0, 10).status, 0);
}

} // namespace

// How misses get their bytes: by trying again, and by the pool.
#include <gtest/gtest.h>

#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>

#include "daemon/engine/uring.h"
#include "proto/status.h"
#include "tests/support/test_server.h"

namespace {

constexpr uint64_t kPage = 4096, kPages = 1024;

// Whether a thread of this process can have a ring.
bool HasRing() {
  loop loop{};
  uring uring{};
  if (loop_init(&loop, nullptr, nullptr) < 0)
    return false;
  bool has = uring_init(&uring, &loop) == 0;
  uring_fini(&uring);
  loop_fini(&loop);
  return has;
}

class FillDispatchTest : public testing::Test {
protected:
  explicit FillDispatchTest(FakeReads reads = FakeReads::kEither)
      : disk_(kPages * kPage, reads) {
    options_.n_workers = 1;
  }

  void Serve() {
    server_ = std::make_unique<TestServer>(
        std::vector<std::pair<std::string, FakeSource *>>{{"disk", &disk_}},
        options_);
    client_ = std::make_unique<WireClient>(server_->Unix());
    image_ = client_->Start().image;
  }

  void ExpectRead(uint64_t page) {
    Answer answer = client_->Read(image_, page * kPage, kPage);
    EXPECT_EQ(answer.status, 0);
    EXPECT_EQ(answer.bytes, Page(page));
  }

  std::vector<uint8_t> Page(uint64_t page) {
    return FakeSource::Bytes(page * kPage, kPage, disk_.version());
  }

  // Asks for every second of the first pages.
  static void AskFor(WireClient &client, uint32_t image, uint64_t n) {
    for (uint64_t i = 0; i < n; i++)
      ASSERT_TRUE(client.SendRead(i + 1, image, {{i * 2 * kPage, kPage}}));
  }

  void ExpectAnswers(WireClient &client, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
      Frame frame = client.ReceiveAnswer();
      EXPECT_EQ(frame.payload, Page((frame.id - 1) * 2)) << frame.id;
    }
  }

  static void AwaitTries(const FakeSource &source, uint64_t n) {
    for (uint64_t i = 0; i < n; i++)
      while (source.n_tries(i * 2 * kPage) == 0)
        usleep(1000);
  }

  static int CountRings(const FakeSource &source, uint64_t n) {
    int n_rings = 0;
    for (uint64_t i = 0; i < n; i++)
      n_rings += source.n_rings(i * 2 * kPage);
    return n_rings;
  }

  FakeSource disk_;
  TestServer::Options options_;
  std::unique_ptr<TestServer> server_;
  std::unique_ptr<WireClient> client_;
  uint32_t image_ = 0;
};

// Not each of them: a worker that the machine left no time gives up earlier.
TEST_F(FillDispatchTest, WhatTheSourceIsAboutToBringIsTriedAgain) {
  constexpr int kTries = 4;
  disk_.AnswerTry(kTries);
  Serve();
  int n_brought = 0;
  for (uint64_t page = 0; page < 200; page++) {
    ExpectRead(page);
    n_brought += disk_.n_tries(page * kPage) == kTries;
  }
  EXPECT_GT(n_brought, 0);
  EXPECT_EQ(disk_.n_reads(), 200);
}

// So a source that counts the reads with a ring counts each of them once.
TEST_F(FillDispatchTest, OnlyTheFirstTryHasARing) {
  int has_ring = HasRing();
  disk_.AnswerTry(4);
  Serve();
  for (uint64_t page = 0; page < 100; page++) {
    ExpectRead(page);
    EXPECT_EQ(disk_.n_rings(page * kPage), has_ring) << page;
  }
}

// Nor does it wait for room: an image whose disk hangs is left to the pool.
TEST_F(FillDispatchTest, AnImageThatHangsLeavesHalfOfTheRingToOthers) {
  constexpr uint64_t kHang = 100;
  FakeSource hung(kPages * kPage, FakeReads::kCallBack);
  hung.ShutGate();
  server_ = std::make_unique<TestServer>(
      std::vector<std::pair<std::string, FakeSource *>>{{"hung", &hung},
                                                        {"disk", &disk_}},
      options_);
  WireClient client = server_->Unix(), next = server_->Unix();
  AskFor(client, client.Start("hung").image, kHang);
  AwaitTries(hung, kHang);
  EXPECT_EQ(CountRings(hung, kHang), HasRing() * URING_MAX_OF_IMAGE);
  image_ = next.Start("disk").image;
  EXPECT_EQ(next.Read(image_, 7 * kPage, kPage).bytes, Page(7));
  EXPECT_EQ(disk_.n_rings(7 * kPage), HasRing());
  hung.OpenGate();
  ExpectAnswers(client, kHang);
}

TEST_F(FillDispatchTest, WhatThePoolReadsTakesNoRoomInTheRing) {
  constexpr uint64_t kHang = 100;
  disk_.ShutGate();
  Serve();
  AskFor(*client_, image_, kHang);
  AwaitTries(disk_, kHang);
  EXPECT_EQ(CountRings(disk_, kHang), HasRing() * int(kHang));
  disk_.OpenGate();
  ExpectAnswers(*client_, kHang);
}

TEST_F(FillDispatchTest, ASourceThatIsTooSlowIsTriedLessAndLessOften) {
  Serve();
  int n_tried_again = 0;
  for (uint64_t page = 0; page < 100; page++) {
    ExpectRead(page);
    n_tried_again += disk_.n_tries(page * kPage) > 1;
  }
  EXPECT_EQ(n_tried_again, 7); // 0, 2, 5, 10, 19, 36 and 69
}

// More than are tried again, of two connections, which may have 256 each.
TEST_F(FillDispatchTest, HundredsAtOnceGoEitherWay) {
  disk_.AnswerTry(3);
  Serve();
  WireClient other = server_->Unix();
  other.Start();
  for (uint64_t page = 1; page <= 400; page++) {
    WireClient &client = page <= 200 ? *client_ : other;
    ASSERT_TRUE(client.SendRead(page, image_, {{page * kPage, kPage}}));
  }
  for (int i = 0; i < 400; i++) {
    Frame frame = (i < 200 ? *client_ : other).ReceiveAnswer();
    ASSERT_TRUE(frame.is_data());
    EXPECT_EQ(frame.payload, Page(frame.id)) << frame.id;
  }
}

TEST_F(FillDispatchTest, AStartThatFindsANewVersionIsLeftToThePool) {
  disk_.AnswerTry(2);
  Serve();
  ExpectRead(0);
  disk_.Change(kPages * kPage);
  ExpectRead(7);
}

TEST_F(FillDispatchTest, AStartThatFailsIsLeftToARead) {
  disk_.AnswerTry(2);
  Serve();
  disk_.FailReads(EIO, 1);
  ExpectRead(7);
}

TEST_F(FillDispatchTest, NoneIsLostAtAStop) {
  options_.limit.stop_timeout_ms = 0;
  for (int i = 0; i < 20; i++) {
    Serve();
    for (uint64_t page = 2; page < 500; page += 2)
      client_->SendRead(page, image_, {{page * kPage, kPage}});
    server_->BeginStop();
    server_->AwaitStop();
    EXPECT_TRUE(client_->AwaitClose());
  }
}

// Whatever a source's reads are like.
class AnySourceTest : public FillDispatchTest,
                      public testing::WithParamInterface<FakeReads> {
protected:
  AnySourceTest() : FillDispatchTest(GetParam()) {}
};

TEST_P(AnySourceTest, HundredsOfReadsAtOnceAreAnswered) {
  Serve();
  for (uint64_t page = 1; page <= 200; page++)
    ASSERT_TRUE(client_->SendRead(page, image_, {{page * kPage, kPage}}));
  for (int i = 0; i < 200; i++) {
    Frame frame = client_->ReceiveAnswer();
    ASSERT_TRUE(frame.is_data());
    EXPECT_EQ(frame.payload, Page(frame.id)) << frame.id;
  }
}

TEST_P(AnySourceTest, AReadOfManyPagesComesWhole) {
  Serve();
  Answer answer = client_->Read(image_, 5, 600 * kPage);
  EXPECT_EQ(answer.status, 0);
  EXPECT_EQ(answer.bytes, FakeSource::Bytes(5, 600 * kPage));
}

TEST_P(AnySourceTest, AReadThatHangsHoldsUpNoOther) {
  disk_.ShutGate();
  Serve();
  ASSERT_TRUE(client_->SendRead(7, image_, {{7 * kPage, kPage}}));
  disk_.AwaitReadsAtGate(1);
  WireClient other = server_->Unix();
  EXPECT_EQ(other.Start().image, image_);
  disk_.OpenGate();
  EXPECT_EQ(client_->ReceiveAnswer().payload, Page(7));
}

TEST_P(AnySourceTest, ABadPageIsAnErrorForItAlone) {
  disk_.FailAt(21 * kPage, EIO);
  Serve();
  Answer answer = client_->Read(image_, 20 * kPage, 3 * kPage);
  EXPECT_EQ(answer.status, WIRE_E_IO);
  ExpectRead(20);
  ExpectRead(22);
  EXPECT_EQ(client_->Read(image_, 21 * kPage, 1).status, WIRE_E_IO);
}

TEST_P(AnySourceTest, AChangeIsNoticedByTheReadThatMeetsIt) {
  Serve();
  ExpectRead(0);
  disk_.Change(kPages * kPage);
  ExpectRead(7);
  ExpectRead(0);
}

TEST_P(AnySourceTest, ACacheThatIsFullMakesRoom) {
  options_.cache_size = 2 << 20;
  Serve();
  for (uint64_t page = 0; page < kPages; page++)
    ExpectRead(page);
}

TEST_P(AnySourceTest, AStopWaitsForReadsThatAreUnderWay) {
  options_.limit.stop_timeout_ms = 0;
  disk_.ShutGate();
  Serve();
  for (uint64_t page = 2; page < 40; page += 2)
    ASSERT_TRUE(client_->SendRead(page, image_, {{page * kPage, kPage}}));
  disk_.AwaitReadsAtGate(1);
  server_->BeginStop();
  EXPECT_TRUE(client_->AwaitClose());
  EXPECT_EQ(disk_.n_closed(), 0);
  disk_.OpenGate();
  server_->AwaitStop();
  server_.reset();
  EXPECT_EQ(disk_.n_closed(), 1);
}

// Failed reads go on in the pool, which ends after them.
TEST_P(AnySourceTest, AStopLosesNoReadThatFails) {
  options_.limit.stop_timeout_ms = 0;
  disk_.FailReads(EIO);
  disk_.ShutGate();
  Serve();
  ASSERT_TRUE(client_->SendRead(7, image_, {{7 * kPage, 4 * kPage}}));
  disk_.AwaitReadsAtGate(1);
  server_->BeginStop();
  EXPECT_TRUE(client_->AwaitClose());
  usleep(100000); // a server that does not wait has ended its pool by then
  disk_.OpenGate();
  server_->AwaitStop();
}

// Of blocks that grow.
class AheadTest : public AnySourceTest {
protected:
  // Reads from front to back until a block is read ahead, the third of `most`
  // pages, which does not come, and leaves: nobody has the image open then, and
  // it has had the time to go.
  void ReadAndLeave(uint64_t most) {
    options_.n_workers = 1;
    disk_.SetFetchSizes(8 * kPage, uint32_t(most * kPage));
    disk_.SetWorth(most * kPage);
    disk_.ShutGate(3 * most * kPage);
    Serve();
    other_ = std::make_unique<WireClient>(server_->Unix());
    other_->SendHello();
    other_->Receive();
    for (uint64_t page = 0; page <= 2 * most; page++)
      ExpectRead(page);
    disk_.AwaitReadsAtGate(1);
    client_.reset();
    for (int left = 10; left > 0;)
      left -= other_->Stats()["connections"] == 1;
  }

  std::unique_ptr<WireClient> other_;
};

TEST_P(AheadTest, WhatIsReadAheadOfAReaderWhoLeavesIsThereForTheNext) {
  for (uint64_t most : {64, 128}) { // as long as one writes at once, and longer
    ReadAndLeave(most);
    disk_.OpenGate();
    client_ = std::make_unique<WireClient>(server_->Unix());
    image_ = client_->Start().image;
    uint64_t n_misses = other_->Stats()["misses"];
    ExpectRead(3 * most);
    EXPECT_EQ(other_->Stats()["misses"], n_misses);
    client_.reset();
    other_.reset();
    server_.reset(); // its reads come to an end before the gate is shut
  }
}

TEST_P(AheadTest, AnImageThatIsRemovedEndsWithTheLastOfIt) {
  ReadAndLeave(64);
  ASSERT_TRUE(server_->Remove("disk"));
  EXPECT_EQ(other_->Stats()["connections"], 1u);
  EXPECT_EQ(disk_.n_closed(), 0);
  disk_.OpenGate();
  while (disk_.n_closed() == 0)
    usleep(1000);
}

TEST_P(AheadTest, AStopWaitsForWhatIsReadAheadOfNobody) {
  ReadAndLeave(64);
  server_->BeginStop();
  EXPECT_TRUE(other_->AwaitClose());
  EXPECT_EQ(disk_.n_closed(), 0);
  disk_.OpenGate();
  server_->AwaitStop();
}

INSTANTIATE_TEST_SUITE_P(Reads, AheadTest,
                         testing::Values(FakeReads::kEither, FakeReads::kBlock,
                                         FakeReads::kCallBack),
                         [](const auto &test) {
                           return std::string(FakeReadsName(test.param));
                         });

INSTANTIATE_TEST_SUITE_P(Reads, AnySourceTest,
                         testing::Values(FakeReads::kEither, FakeReads::kBlock,
                                         FakeReads::kCallBack),
                         [](const auto &test) {
                           return std::string(FakeReadsName(test.param));
                         });

} // namespace

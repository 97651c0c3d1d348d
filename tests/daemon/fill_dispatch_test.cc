// How misses get their bytes: by trying again, and by the pool.
#include <gtest/gtest.h>

#include <memory>

#include "tests/support/test_server.h"

namespace {

constexpr uint64_t kPage = 4096, kPages = 1024;

class FillJobTest : public testing::Test {
protected:
  FillJobTest() { options_.n_workers = 1; }

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

  FakeSource disk_{kPages * kPage};
  TestServer::Options options_;
  std::unique_ptr<TestServer> server_;
  std::unique_ptr<WireClient> client_;
  uint32_t image_ = 0;
};

// Not each of them: a worker that the machine left no time gives up earlier.
TEST_F(FillJobTest, WhatTheSourceIsAboutToBringIsTriedAgain) {
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

TEST_F(FillJobTest, ASourceThatIsTooSlowIsTriedLessAndLessOften) {
  Serve();
  int n_tried_again = 0;
  for (uint64_t page = 0; page < 100; page++) {
    ExpectRead(page);
    n_tried_again += disk_.n_tries(page * kPage) > 1;
  }
  EXPECT_EQ(n_tried_again, 7); // 0, 2, 5, 10, 19, 36 and 69
}

// More than are tried again, of two connections, which may have 256 each.
TEST_F(FillJobTest, HundredsAtOnceGoEitherWay) {
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

TEST_F(FillJobTest, ATryThatFindsANewVersionIsLeftToWhoReadsThat) {
  disk_.AnswerTry(2);
  Serve();
  ExpectRead(0);
  disk_.Change(kPages * kPage);
  ExpectRead(7);
}

TEST_F(FillJobTest, ATryThatFailsIsLeftToARead) {
  disk_.AnswerTry(2);
  Serve();
  disk_.FailReads(EIO, 1);
  ExpectRead(7);
}

TEST_F(FillJobTest, NoneIsLostAtAStop) {
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

} // namespace

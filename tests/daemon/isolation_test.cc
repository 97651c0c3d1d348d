// Images whose sources hang, many of them, beside one that is read.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/test_server.h"

namespace {

constexpr uint64_t kPage = 4096, kPages = 4096, kPiece = 64 * kPage;
constexpr size_t kHung = 10;
constexpr uint64_t kAsked = 12; // pieces at once, of one connection

class IsolationTest : public testing::Test {
protected:
  IsolationTest() {
    options_.n_workers = 1;
    options_.limit.max_worker_fetch = 4 * kPiece;
    options_.limit.max_conn_fetch = 2 * kPiece;
    options_.limit.unread_timeout_ms = 600000; // some are read at the end
    std::vector<std::pair<std::string, FakeSource *>> images{{"good", &good_}};
    for (size_t i = 0; i < kHung; i++) {
      hung_.push_back(std::make_unique<FakeSource>(kPages * kPage));
      hung_.back()->ShutGate();
      images.emplace_back(Hung(i), hung_.back().get());
    }
    server_ = std::make_unique<TestServer>(images, options_);
  }

  ~IsolationTest() override {
    for (auto &source : hung_)
      source->OpenGate();
  }

  static std::string Hung(size_t i) { return "hung" + std::to_string(i); }

  // More than all limits together would let begin.
  static void AskForMuch(WireClient *client, uint32_t image) {
    for (uint64_t i = 0; i < kAsked; i++)
      ASSERT_TRUE(client->SendRead(100 + i, image, {{2 * i * kPiece, kPiece}}));
  }

  static void ExpectAnswers(WireClient *client) {
    uint64_t n_bytes = 0;
    for (uint64_t n_last = 0; n_last < kAsked;) {
      Frame piece = client->ReceiveAnswer();
      ASSERT_TRUE(piece.is_data()) << piece.message;
      EXPECT_TRUE(piece.payload ==
                  FakeSource::Bytes(piece.offset, piece.payload.size()));
      n_bytes += piece.payload.size();
      n_last += piece.last;
    }
    EXPECT_EQ(n_bytes, kAsked * kPiece);
  }

  // Pages that nobody has read yet.
  void ExpectReads(WireClient *client, uint32_t image, int n) {
    for (int i = 0; i < n; i++) {
      uint64_t at = next_page_++ * kPage;
      ASSERT_EQ(client->Read(image, at, kPage).bytes,
                FakeSource::Bytes(at, kPage));
    }
  }

  FakeSource good_{kPages * kPage};
  std::vector<std::unique_ptr<FakeSource>> hung_;
  TestServer::Options options_;
  uint64_t next_page_ = 0;
  std::unique_ptr<TestServer> server_; // ends first
};

TEST_F(IsolationTest, HoweverManyImagesHangAnotherIsRead) {
  std::vector<WireClient> clients;
  WireClient good = server_->Unix();
  uint32_t image = good.Start("good").image;
  for (size_t i = 0; i < kHung; i++) {
    for (int j = 0; j < 2; j++) {
      clients.push_back(server_->Unix());
      AskForMuch(&clients.back(), clients.back().Start(Hung(i)).image);
    }
    hung_[i]->AwaitReadsAtGate(1);
    ExpectReads(&good, image, 10);
  }
  EXPECT_LE(good.Stats()["pool_threads"],
            options_.limit.n_fill_threads + kHung + 2);
  // A long read, of many pieces, too.
  EXPECT_EQ(good.Read(image, kPages / 2 * kPage, 16 * kPiece).bytes,
            FakeSource::Bytes(kPages / 2 * kPage, 16 * kPiece));
}

TEST_F(IsolationTest, OnOneConnectionTheyDelayNoOtherImage) {
  WireClient client = server_->Unix();
  uint32_t image = client.Start("good").image;
  for (size_t i = 0; i < 4; i++) {
    ASSERT_TRUE(client.SendOpen(7, Hung(i)));
    uint32_t hung = client.ReceiveAnswer().image;
    for (uint64_t j = 0; j < 16; j++)
      ASSERT_TRUE(client.SendRead(1000 * (i + 1) + j, hung,
                                  {{2 * j * kPiece, kPiece}}));
    hung_[i]->AwaitReadsAtGate(1);
    ExpectReads(&client, image, 10);
  }
}

TEST_F(IsolationTest, WhatWasThrottledIsReadOnceTheSourceAnswers) {
  std::vector<WireClient> clients;
  for (size_t i = 0; i < kHung; i++)
    for (int j = 0; j < 2; j++) {
      clients.push_back(server_->Unix());
      AskForMuch(&clients.back(), clients.back().Start(Hung(i)).image);
    }
  for (auto &source : hung_)
    source->AwaitReadsAtGate(1);
  EXPECT_GT(clients.back().Stats()["queued"], 0u) << "it has come to them all";
  for (auto &source : hung_)
    source->OpenGate();
  for (auto &client : clients)
    ExpectAnswers(&client);
}

// Connections that end while some of their requests wait for their turn.
TEST_F(IsolationTest, WhatWasThrottledOfALostConnectionIsForgotten) {
  {
    std::vector<WireClient> clients;
    for (int j = 0; j < 4; j++) {
      clients.push_back(server_->Unix());
      AskForMuch(&clients.back(), clients.back().Start(Hung(0)).image);
    }
    hung_[0]->AwaitReadsAtGate(1);
    clients.erase(clients.begin() + 1, clients.begin() + 3);
    clients[1].Stats(); // it has come to it
  }
  WireClient client = server_->Unix();
  uint32_t image = client.Start(Hung(0)).image;
  AskForMuch(&client, image);
  hung_[0]->OpenGate();
  ExpectAnswers(&client);
}

// ---- Looks whether an image changed
// ------------------------------------------

class LookTest : public testing::Test {
protected:
  void Serve(size_t n, size_t n_hung) {
    options_.limit.refresh_ms = 5;
    std::vector<std::pair<std::string, FakeSource *>> images;
    for (size_t i = 0; i < n; i++) {
      sources_.push_back(std::make_unique<FakeSource>(kPages * kPage));
      if (i < n_hung)
        sources_.back()->ShutLookGate();
      images.emplace_back(std::to_string(i), sources_.back().get());
    }
    server_ = std::make_unique<TestServer>(images, options_);
    client_ = std::make_unique<WireClient>(server_->Unix());
    client_->Start("0");
  }

  ~LookTest() override {
    for (auto &source : sources_)
      source->OpenLookGate();
  }

  std::vector<std::unique_ptr<FakeSource>> sources_;
  TestServer::Options options_;
  std::unique_ptr<TestServer> server_; // ends first
  std::unique_ptr<WireClient> client_;
};

TEST_F(LookTest, HoweverManyImagesHangTheOthersAreLookedAt) {
  constexpr size_t kImages = 40, kStuck = 30;
  Serve(kImages, kStuck);
  for (size_t i = 0; i < kStuck; i++)
    sources_[i]->AwaitLookAtGate();
  for (size_t i = kStuck; i < kImages; i++) {
    int n = sources_[i]->n_looks();
    while (sources_[i]->n_looks() < n + 3)
      std::this_thread::yield();
  }
  for (size_t i = 0; i < kStuck; i++)
    EXPECT_EQ(sources_[i]->n_looks(), 1);
  EXPECT_LE(client_->Stats()["pool_threads"],
            options_.limit.n_fill_threads + 2 * kImages + 1);
}

TEST_F(LookTest, AnImageWhoseLookHangsIsRead) {
  Serve(1, 1);
  sources_[0]->AwaitLookAtGate();
  WireClient client = server_->Unix();
  uint32_t image = client.Start("0").image;
  EXPECT_EQ(client.Read(image, 0, kPage).bytes, FakeSource::Bytes(0, kPage));
}

} // namespace

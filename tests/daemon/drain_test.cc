// Draining: which clients are served, which are not, and when it ends.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "proto/status.h"
#include "tests/support/test_server.h"

namespace {

constexpr uint64_t kSize = 1 << 20;
constexpr int kForEver = -1;

class DrainTest : public testing::Test {
protected:
  DrainTest()
      : server_(std::make_unique<TestServer>(
            std::vector<std::pair<std::string, FakeSource *>>{
                {"disk", &disk_}, {"other", &other_}},
            TestServer::Options{})) {}

  void Drain(int timeout_ms = kForEver) {
    WireClient admin = server_->Unix();
    ASSERT_TRUE(admin.SendHello());
    admin.ReceiveAnswer();
    admin.SendDrain(7, timeout_ms);
    Frame answer = admin.ReceiveAnswer();
    ASSERT_TRUE(answer.is_done()) << answer.message;
    AwaitDraining();
  }
  // The main loop has taken it in.
  void AwaitDraining() {
    WireClient probe = server_->Unix();
    probe.SendHello();
    probe.ReceiveAnswer();
    while (probe.Stats()["draining"] != 1)
      std::this_thread::yield();
  }

  FakeSource disk_{kSize}, other_{kSize};
  std::unique_ptr<TestServer> server_;
};

TEST_F(DrainTest, WhoHasAnImageOpenIsServedAndTheLastOneEndsIt) {
  WireClient one = server_->Unix(), two = server_->Tcp();
  uint32_t image = one.Start("disk").image;
  two.Start("disk");
  EXPECT_EQ(one.Stats()["clients"], 2u);
  Drain();
  EXPECT_EQ(one.Read(image, 0, 8192).bytes, FakeSource::Bytes(0, 8192));
  EXPECT_EQ(two.Read(image, 4096, 8192).bytes, FakeSource::Bytes(4096, 8192));
  one.Close();
  EXPECT_EQ(two.Read(image, kSize / 2, 4096).bytes,
            FakeSource::Bytes(kSize / 2, 4096));
  two.Close();
  server_->AwaitStop();
}

TEST_F(DrainTest, ItMayOpenFurtherImages) {
  WireClient client = server_->Unix();
  client.Start("disk");
  Drain();
  client.SendOpen(9, "other");
  EXPECT_EQ(client.ReceiveAnswer().kind, CACHET__WIRE__MESSAGE__BODY_OPENED);
  client.SendOpen(10, "disk");
  EXPECT_EQ(client.ReceiveAnswer().kind, CACHET__WIRE__MESSAGE__BODY_OPENED);
}

TEST_F(DrainTest, WhoHasNoneOpenIsToldAndMayAskTheRest) {
  WireClient client = server_->Unix(), before = server_->Unix();
  client.Start("disk");
  before.SendHello();
  before.ReceiveAnswer();
  Drain();
  WireClient after = server_->Tcp();
  Frame refused = after.Start("disk");
  EXPECT_EQ(refused.status, WIRE_E_BUSY);
  EXPECT_EQ(refused.message, "the daemon is draining: it takes no new clients");
  // An image that is not there is no different.
  after.SendOpen(9, "nothing");
  EXPECT_EQ(after.ReceiveAnswer().message, refused.message);
  EXPECT_EQ(after.Stats()["clients"], 1u);
  before.SendOpen(9, "disk");
  EXPECT_EQ(before.ReceiveAnswer().status, WIRE_E_BUSY);
  before.SendList(10);
  EXPECT_EQ(before.ReceiveAnswer().names.size(), 2u);
}

TEST_F(DrainTest, WithNoClientItEndsAtOnceThoughOthersAreConnected) {
  WireClient idle = server_->Unix(), silent = server_->Unix();
  idle.SendHello();
  idle.ReceiveAnswer();
  idle.SendDrain(7, kForEver);
  EXPECT_TRUE(idle.ReceiveAnswer().is_done());
  server_->AwaitStop();
}

TEST_F(DrainTest, AClientThatStaysIsEndedWhenTheTimeIsOver) {
  WireClient client = server_->Unix();
  client.Start("disk");
  WireClient admin = server_->Unix();
  admin.SendHello();
  admin.ReceiveAnswer();
  admin.SendDrain(7, 50);
  EXPECT_TRUE(admin.ReceiveAnswer().is_done());
  EXPECT_TRUE(client.AwaitClose());
  server_->AwaitStop();
}

TEST_F(DrainTest, ASecondTimeItIsTheNewTimeThatCounts) {
  WireClient client = server_->Unix();
  client.Start("disk");
  Drain(3600000);
  server_begin_drain(server_->get(), 0);
  EXPECT_TRUE(client.AwaitClose());
  server_->AwaitStop();
}

TEST_F(DrainTest, WhatIsInFlightIsAnswered) {
  WireClient client = server_->Unix();
  uint32_t image = client.Start("disk").image;
  disk_.ShutGate();
  client.SendRead(9, image, {{0, 4096}});
  disk_.AwaitReadsAtGate(1);
  Drain();
  disk_.OpenGate();
  EXPECT_EQ(client.ReceiveRead(9).bytes, FakeSource::Bytes(0, 4096));
  client.Close();
  server_->AwaitStop();
}

TEST_F(DrainTest, AClientOfAnImageThatIsRemovedHasLeft) {
  WireClient client = server_->Unix();
  client.Start("disk");
  Drain();
  ASSERT_TRUE(server_->Remove("disk"));
  server_->AwaitStop();
}

TEST_F(DrainTest, APeerThatMayNotIsRefused) {
  WireClient remote = server_->Tcp();
  remote.SendHello();
  remote.ReceiveAnswer();
  remote.SendDrain(7, 0);
  EXPECT_EQ(remote.ReceiveAnswer().status, WIRE_E_ACCESS);
  EXPECT_EQ(remote.Stats()["draining"], 0u);
  WireClient client = server_->Unix();
  EXPECT_GT(client.Start("disk").image, 0u);
}

TEST_F(DrainTest, TheFirstRequestToEndDrainsAndTheSecondStops) {
  WireClient client = server_->Unix();
  uint32_t image = client.Start("disk").image;
  server_set_drain_timeout(server_->get(), 3600000);
  server_terminate(server_->get());
  AwaitDraining();
  EXPECT_EQ(client.Read(image, 0, 4096).bytes, FakeSource::Bytes(0, 4096));
  server_terminate(server_->get());
  EXPECT_TRUE(client.AwaitClose());
  server_->AwaitStop();
}

TEST_F(DrainTest, WithoutATimeTheFirstStops) {
  WireClient client = server_->Unix();
  client.Start("disk");
  server_terminate(server_->get());
  EXPECT_TRUE(client.AwaitClose());
  server_->AwaitStop();
}

TEST_F(DrainTest, ClientsThatComeAndGoInThatMomentHangNothing) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; i++)
    threads.emplace_back([&] {
      for (;;) {
        WireClient client = server_->Unix();
        if (!client.connected() || client.Start("disk").image == 0)
          return;
      }
    });
  server_begin_drain(server_->get(), kForEver);
  for (std::thread &thread : threads)
    thread.join();
  server_->AwaitStop();
}

} // namespace

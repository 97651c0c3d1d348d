// How the server ends.
#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>

#include "tests/support/test_server.h"

namespace {

constexpr uint64_t kSize = 1 << 20;

class StopTest : public testing::Test {
protected:
  void Serve() {
    server_ = std::make_unique<TestServer>(
        std::vector<std::pair<std::string, FakeSource *>>{{"disk", &disk_}},
        options_);
  }

  FakeSource disk_{kSize};
  TestServer::Options options_;
  std::unique_ptr<TestServer> server_;
};

TEST_F(StopTest, WhatIsInFlightIsAnsweredFirst) {
  options_.limit.stop_timeout_ms = 60000; // it will not take that long
  Serve();
  disk_.ShutGate();
  WireClient local = server_->Unix(), remote = server_->Tcp();
  uint32_t image = local.Start().image;
  remote.Start();
  local.SendRead(7, image, {{0, kSize}});
  local.Stats();
  remote.SendRead(7, image, {{5, 10}});
  remote.Stats();
  server_->BeginStop();
  while (server_->Unix().connected()) // until it accepts no more
    ;
  disk_.OpenGate();
  EXPECT_EQ(local.ReceiveRead(7).bytes, FakeSource::Bytes(0, kSize));
  EXPECT_EQ(remote.ReceiveRead(7).bytes, FakeSource::Bytes(5, 10));
  EXPECT_TRUE(local.Receive().is_end());
  EXPECT_TRUE(remote.Receive().is_end());
  server_->AwaitStop();
}

TEST_F(StopTest, QuietConnectionsDoNotDelayIt) {
  options_.limit.stop_timeout_ms = 60000;
  Serve();
  WireClient open = server_->Unix(), silent = server_->Tcp();
  open.Start();
  server_->BeginStop();
  EXPECT_TRUE(open.Receive().is_end());
  EXPECT_TRUE(silent.Receive().is_end());
  server_->AwaitStop();
}

TEST_F(StopTest, ASourceThatHangsDelaysItOnlySoLong) {
  options_.limit.stop_timeout_ms = 50;
  Serve();
  disk_.ShutGate();
  WireClient client = server_->Unix();
  uint32_t image = client.Start().image;
  for (uint64_t i = 0; i < 100; i++)
    client.SendRead(100 + i, image, {{i * 8192, 10}});
  client.Stats();
  server_->BeginStop();
  EXPECT_TRUE(client.AwaitClose());
  disk_.OpenGate(); // a thread that is in read() cannot be left behind
  server_->AwaitStop();
}

TEST_F(StopTest, WorkThatIsBegunLateDoesNotHangIt) {
  options_.limit.stop_timeout_ms = 0;
  options_.n_workers = 1;
  for (int i = 0; i < 20; i++) {
    Serve();
    WireClient client = server_->Unix();
    uint32_t image = client.Start().image;
    client.SendWarm(5, image, {{0, kSize / 2}});
    client.ReceiveAnswer();
    // No more than a socket holds: nobody reads the answers.
    for (uint64_t id = 100; id < 200; id++)
      client.SendWarm(id, image, {{0, kSize / 2}});
    for (uint64_t id = 200; id < 300; id++)
      client.SendRead(id, image, {{kSize / 2 + (id - 200) * 4096, 10}});
    server_->BeginStop();
    server_->AwaitStop();
  }
}

TEST_F(StopTest, APeerThatDoesNotReadDelaysItOnlySoLong) {
  options_.limit.stop_timeout_ms = 50;
  Serve();
  WireClient client = server_->Unix();
  uint32_t image = client.Start().image;
  for (uint64_t i = 0; i < 64; i++)
    client.SendRead(100 + i, image, {{0, kSize}});
  server_->BeginStop();
  server_->AwaitStop();
}

TEST_F(StopTest, TheSocketFileIsGoneAndTheSourceClosed) {
  Serve();
  std::string path = server_->socket_path();
  server_.reset();
  EXPECT_NE(access(path.c_str(), F_OK), 0);
  EXPECT_EQ(disk_.n_closed(), 1);
}

TEST_F(StopTest, AStopRightAfterTheStartIsFine) {
  for (int i = 0; i < 20; i++) {
    Serve();
    server_->BeginStop();
    server_->AwaitStop();
  }
}

} // namespace

// What peers ask a daemon to serve, or to serve no more, as the maker of
// changes sees it; he is a fake.
#include "daemon/serve/change_maker.h"

#include <gtest/gtest.h>

#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "proto/status.h"
#include "tests/support/test_rule.h"
#include "tests/support/test_server.h"

namespace {

constexpr uint64_t kSize = 1 << 20;

class FakeMaker {
public:
  FakeMaker() {
    maker_.add = [](void *arg, const char *name, const char *source,
                    char why[CHANGE_WHY_LEN]) {
      return static_cast<FakeMaker *>(arg)->Make(
          std::string(name) + "=" + source, why);
    };
    maker_.remove = [](void *arg, const char *name, char why[CHANGE_WHY_LEN]) {
      return static_cast<FakeMaker *>(arg)->Make(name, why);
    };
    maker_.arg = this;
  }
  const change_maker *maker() const { return &maker_; }

  // What the next changes come to.
  void Fail(int error) {
    std::lock_guard<std::mutex> lock(mutex_);
    error_ = error;
  }
  void ShutGate() {
    std::lock_guard<std::mutex> lock(mutex_);
    shut_ = true;
  }
  void OpenGate() {
    std::lock_guard<std::mutex> lock(mutex_);
    shut_ = false;
    changed_.notify_all();
  }
  void AwaitOneAtGate() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return n_at_gate_ > 0; });
  }
  std::vector<std::string> made() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return made_;
  }

private:
  int Make(const std::string &what, char *why) {
    std::unique_lock<std::mutex> lock(mutex_);
    n_at_gate_++;
    changed_.notify_all();
    changed_.wait(lock, [&] { return !shut_; });
    n_at_gate_--;
    made_.push_back(what);
    if (error_)
      snprintf(why, CHANGE_WHY_LEN, "so it is");
    return error_;
  }

  change_maker maker_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> made_;
  bool shut_ = false;
  int n_at_gate_ = 0, error_ = 0;
};

class ChangeTest : public testing::Test {
protected:
  void Serve() {
    server_ = std::make_unique<TestServer>(
        std::vector<std::pair<std::string, FakeSource *>>{{"disk", &disk_}},
        options_);
  }

  static Frame Greet(WireClient &client) {
    client.SendHello();
    return client.Receive();
  }

  FakeMaker fake_;
  FakeSource disk_{kSize};
  TestServer::Options options_;
  std::unique_ptr<TestServer> server_;
};

TEST_F(ChangeTest, WhatAPeerAsksForIsMadeAsItSaysIt) {
  options_.maker = fake_.maker();
  Serve();
  WireClient client = server_->Unix();
  EXPECT_TRUE(Greet(client).change);
  client.SendAdd(7, "vm7", "/srv/vm7.img,share=off");
  Frame done = client.Receive();
  EXPECT_TRUE(done.is_done());
  EXPECT_EQ(done.id, 7u);
  client.SendRemove(8, "vm7");
  EXPECT_TRUE(client.Receive().is_done());
  client.SendAdd(9, "", "");
  EXPECT_TRUE(client.Receive().is_done()) << "the maker's to refuse";
  EXPECT_EQ(fake_.made(), (std::vector<std::string>{
                              "vm7=/srv/vm7.img,share=off", "vm7", "="}));
}

TEST_F(ChangeTest, WhyItIsNotMadeIsSaid) {
  options_.maker = fake_.maker();
  Serve();
  WireClient client = server_->Unix();
  Greet(client);
  const std::vector<std::pair<int, int>> all = {
      {-EINVAL, WIRE_E_INVAL},   {-EEXIST, WIRE_E_INVAL},
      {-ENOENT, WIRE_E_NOIMAGE}, {-EBUSY, WIRE_E_BUSY},
      {-ENOMEM, WIRE_E_NOMEM},   {-EACCES, WIRE_E_IO}};
  for (const auto &each : all) {
    fake_.Fail(each.first);
    client.SendAdd(7, std::string(100, 'n'), "/a");
    Frame frame = client.Receive();
    EXPECT_EQ(frame.status, each.second);
    EXPECT_EQ(frame.message,
              "add image \"" + std::string(64, 'n') + "\": so it is");
  }
  client.SendRemove(8, "a");
  EXPECT_EQ(client.Receive().message, "remove image \"a\": so it is");
}

TEST_F(ChangeTest, OverTheNetworkNobodyMayUnlessARuleSaysSo) {
  options_.maker = fake_.maker();
  Serve();
  WireClient client = server_->Tcp();
  Greet(client);
  client.SendAdd(7, "a", "/a");
  EXPECT_EQ(client.Receive().status, WIRE_E_ACCESS);
  client.SendRemove(8, "disk");
  EXPECT_EQ(client.Receive().status, WIRE_E_ACCESS);
  EXPECT_TRUE(fake_.made().empty());
}

// A file of its choice that the daemon's user may read: a key, for one.
TEST_F(ChangeTest, TheGroupOfTheSocketMayNotUnlessARuleSaysSo) {
  constexpr uid_t kStranger = 54321;
  constexpr gid_t kGroup = 54322;
  if (geteuid() != 0)
    GTEST_SKIP() << "becoming another user takes root";
  options_.maker = fake_.maker();
  Serve();
  std::string path = server_->socket_path();
  ASSERT_EQ(chown(path.c_str(), 0, kGroup), 0);
  ASSERT_EQ(chmod(path.substr(0, path.rfind('/')).c_str(), 0755), 0);
  auto status = [&] {
    int result = 1;
    std::thread([&] { // credentials belong to a thread, in the kernel
      syscall(SYS_setresgid, kGroup, kGroup, kGroup);
      syscall(SYS_setresuid, kStranger, kStranger, kStranger);
      WireClient client = server_->Unix();
      Greet(client);
      client.SendAdd(7, "a", "/a");
      Frame answer = client.Receive();
      result = answer.is_done() ? 0 : answer.status;
    })
        .join();
    return result;
  };
  EXPECT_EQ(status(), WIRE_E_ACCESS);
  EXPECT_TRUE(fake_.made().empty());
  Rule rule("gid:54322");
  server_->SetAdmin(rule.get());
  EXPECT_EQ(status(), 0);
}

TEST_F(ChangeTest, AServerWithoutAMakerTakesNone) {
  Serve();
  WireClient client = server_->Unix();
  EXPECT_FALSE(Greet(client).change);
  client.SendAdd(7, "a", "/a");
  EXPECT_EQ(client.Receive().status, WIRE_E_UNSUPPORTED);
}

TEST_F(ChangeTest, OneThatHangsDelaysOtherChangesAndNothingElse) {
  options_.maker = fake_.maker();
  Serve();
  fake_.ShutGate();
  WireClient client = server_->Unix(), other = server_->Unix();
  Greet(client);
  Greet(other);
  client.SendAdd(7, "a", "/a");
  fake_.AwaitOneAtGate();
  other.SendAdd(8, "b", "/b");
  client.SendOpen(9, "disk");
  Frame opened = client.Receive();
  ASSERT_EQ(opened.id, 9u);
  EXPECT_EQ(client.Read(opened.image, 0, 10).bytes, FakeSource::Bytes(0, 10));
  client.SendInvalidate(10, opened.image, 0, kSize);
  EXPECT_TRUE(client.ReceiveAnswer().is_done());
  EXPECT_TRUE(fake_.made().empty());
  fake_.OpenGate();
  EXPECT_EQ(client.ReceiveAnswer().id, 7u);
  EXPECT_EQ(other.Receive().id, 8u);
}

TEST_F(ChangeTest, WhoLeavesMeanwhileIsForgottenAndTheChangeIsMade) {
  options_.maker = fake_.maker();
  Serve();
  fake_.ShutGate();
  {
    WireClient client = server_->Unix();
    Greet(client);
    client.SendAdd(7, "a", "/a");
    fake_.AwaitOneAtGate();
  }
  fake_.OpenGate();
  WireClient other = server_->Unix();
  Greet(other);
  other.SendRemove(8, "a");
  EXPECT_TRUE(other.Receive().is_done());
  EXPECT_EQ(fake_.made(), (std::vector<std::string>{"a=/a", "a"}));
}

TEST_F(ChangeTest, AStopWaitsForTheOneThatRuns) {
  options_.maker = fake_.maker();
  options_.limit.stop_timeout_ms = 1;
  Serve();
  fake_.ShutGate();
  WireClient client = server_->Unix();
  Greet(client);
  client.SendAdd(7, "a", "/a");
  client.SendAdd(8, "b", "/b");
  client.SendGetStats(9);
  EXPECT_EQ(client.Receive().id, 9u);
  fake_.AwaitOneAtGate();
  server_->BeginStop();
  EXPECT_TRUE(client.AwaitClose());
  fake_.OpenGate();
  server_->AwaitStop();
  EXPECT_EQ(fake_.made().front(), "a=/a");
}

} // namespace

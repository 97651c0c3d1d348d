// How many connections there may be, and whose.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>

#include "proto/status.h"
#include "tests/support/quiet_fork.h"
#include "tests/support/test_server.h"

namespace {

using testing::HasSubstr;

class AdmitTest : public testing::Test {
protected:
  void Serve() {
    server_ = std::make_unique<TestServer>(
        std::vector<std::pair<std::string, FakeSource *>>{{"disk", &disk_}},
        options_);
  }

  // It is told why, and closed.
  static void ExpectRefused(WireClient client, const char *why) {
    Frame frame = client.Receive();
    EXPECT_EQ(frame.status, WIRE_E_BUSY);
    EXPECT_EQ(frame.id, 0u);
    EXPECT_THAT(frame.message, HasSubstr(why));
    EXPECT_TRUE(client.AwaitClose());
  }

  static bool IsServed(WireClient *client) { return client->Start().size > 0; }

  FakeSource disk_{1 << 20};
  TestServer::Options options_;
  std::unique_ptr<TestServer> server_;
};

TEST_F(AdmitTest, OneUserLeavesRoomForAnother) {
  options_.limit.max_user_connections = 3;
  Serve();
  std::vector<WireClient> mine;
  for (int i = 0; i < 3; i++) {
    mine.push_back(server_->Unix());
    EXPECT_TRUE(IsServed(&mine.back()));
  }
  for (int i = 0; i < 10; i++)
    ExpectRefused(server_->Unix(), "of this user");
  WireClient remote = server_->Tcp();
  EXPECT_TRUE(IsServed(&remote));
}

TEST_F(AdmitTest, PeersOverTcpAreOneUserTogether) {
  options_.limit.max_user_connections = 2;
  Serve();
  WireClient first = server_->Tcp(), second = server_->Tcp();
  EXPECT_TRUE(IsServed(&first) && IsServed(&second));
  ExpectRefused(server_->Tcp(), "of this user");
  WireClient local = server_->Unix();
  EXPECT_TRUE(IsServed(&local));
}

TEST_F(AdmitTest, AConnectionThatEndsMakesRoomForTheNext) {
  options_.limit.max_user_connections = 1;
  options_.n_workers = 1;
  Serve();
  WireClient watcher = server_->Tcp();
  ASSERT_TRUE(IsServed(&watcher));
  for (int i = 0; i < 20; i++) {
    WireClient client = server_->Unix();
    ASSERT_TRUE(IsServed(&client));
    client.Close();
    while (watcher.Stats()["connections"] != 1)
      ;
  }
}

TEST_F(AdmitTest, AllUsersTogetherHaveALimitAsWell) {
  options_.limit.max_connections = 2;
  Serve();
  WireClient local = server_->Unix(), remote = server_->Tcp();
  EXPECT_TRUE(IsServed(&local) && IsServed(&remote));
  ExpectRefused(server_->Unix(), "as many connections as it takes");
  ExpectRefused(server_->Tcp(), "as many connections as it takes");
}

TEST_F(AdmitTest, UsersAreToldApartByTheirIds) {
  if (geteuid() != 0)
    GTEST_SKIP() << "becoming another user takes root";
  options_.limit.max_user_connections = 1;
  Serve();
  std::string path = server_->socket_path();
  chmod(path.substr(0, path.rfind('/')).c_str(), 0755);
  chmod(path.c_str(), 0666);
  WireClient mine = server_->Unix();
  EXPECT_TRUE(IsServed(&mine));
  pid_t child = QuietFork();
  if (child == 0) {
    if (setresgid(54321, 54321, 54321) || setresuid(54321, 54321, 54321))
      _exit(1);
    WireClient first = server_->Unix();
    if (!IsServed(&first))
      _exit(2);
    WireClient second = server_->Unix();
    _exit(second.Receive().status == WIRE_E_BUSY ? 0 : 3);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

} // namespace

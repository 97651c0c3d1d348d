// Images that are to be warm: read into the cache before anybody asks.
#include <errno.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/test_server.h"

namespace {

constexpr uint64_t kSize = 4 << 20, kPages = kSize / 4096;

class WarmTest : public testing::Test {
protected:
  WarmTest() { options_.warm = true; }
  void Serve() {
    server_ = std::make_unique<TestServer>(
        std::vector<std::pair<std::string, FakeSource *>>{{"disk", &disk_}},
        options_);
    client_ = std::make_unique<WireClient>(server_->Unix());
    image_ = client_->Start().image;
  }
  void AwaitStat(const char *name, uint64_t value) {
    while (client_->Stats()[name] != value)
      std::this_thread::yield();
  }

  FakeSource disk_{kSize};
  TestServer::Options options_;
  std::unique_ptr<TestServer> server_; // ends before its source
  std::unique_ptr<WireClient> client_;
  uint32_t image_ = 0;
};

TEST_F(WarmTest, AllOfItIsReadBeforeAnybodyAsks) {
  Serve();
  AwaitStat("filled_pages", kPages);
  EXPECT_EQ(client_->Stats()["requests"], 0u);
  EXPECT_EQ(client_->Read(image_, 5000, 100).bytes,
            FakeSource::Bytes(5000, 100));
  EXPECT_EQ(client_->Stats()["misses"], 0u);
}

TEST_F(WarmTest, ClientsAreServedMeanwhile) {
  disk_.ShutGate();
  Serve();
  disk_.AwaitReadsAtGate(1);
  client_->SendRead(9, image_, {{kSize - 4096, 100}});
  disk_.AwaitReadsAtGate(2); // it waits for no other read
  disk_.OpenGate();
  EXPECT_EQ(client_->ReceiveRead(9).bytes,
            FakeSource::Bytes(kSize - 4096, 100));
  AwaitStat("filled_pages", kPages);
}

TEST_F(WarmTest, NothingIsEvictedForIt) {
  constexpr uint64_t kCache = 1 << 20, kMost = kCache / 16 * 15;
  constexpr uint64_t kPiece = 64 * 4096;
  options_.cache_size = kCache;
  Serve();
  while (client_->Stats()["cache_used"] + kPiece <= kMost)
    std::this_thread::yield();
  EXPECT_LE(client_->Stats()["cache_used"], kMost);
  EXPECT_EQ(client_->Stats()["evicted_pages"], 0u);
}

TEST_F(WarmTest, ADaemonEndsInTheMiddleOfIt) {
  options_.limit.stop_timeout_ms = 50;
  disk_.ShutGate();
  Serve();
  disk_.AwaitReadsAtGate(1);
  client_->Close();
  server_->BeginStop();
  disk_.OpenGate();
  server_->AwaitStop();
}

TEST_F(WarmTest, AnImageThatIsRemovedIsReadNoFurther) {
  disk_.ShutGate();
  Serve();
  disk_.AwaitReadsAtGate(1);
  ASSERT_TRUE(server_->Remove("disk"));
  disk_.OpenGate();
  server_.reset(); // waits for all that is under way
}

TEST_F(WarmTest, APageThatCannotBeReadEndsItAndHarmsNobody) {
  disk_.FailAt(64 * 4096, EIO);
  Serve();
  while (client_->Stats()["fill_errors"] == 0)
    std::this_thread::yield();
  EXPECT_EQ(client_->Read(image_, 0, 100).bytes, FakeSource::Bytes(0, 100));
}

} // namespace

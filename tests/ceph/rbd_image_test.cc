// An image of a Ceph cluster, served by a daemon to many processes.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <signal.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/support/ceph_cluster.h"
#include "tests/support/daemon_process.h"
#include "tests/support/length.h"
#include "tests/support/oracle.h"
#include "tests/support/readers.h"

namespace {

constexpr uint64_t kSize = 32 << 20;

class RbdImageTest : public testing::Test {
protected:
  static void SetUpTestSuite() {
    cluster_ = new CephCluster(CephCluster::Gateway::kNone);
  }
  static void TearDownTestSuite() { delete cluster_; }

  RbdImageTest() {
    name_ = testing::UnitTest::GetInstance()->current_test_info()->name();
    WriteRandomFile(dir_ / "file", 1, 1); // one is always there
    bytes_ = WriteRandomFile(dir_ / "bytes", kSize, 1);
    EXPECT_TRUE(Rbd("import " + (dir_ / "bytes") + " rbd/" + name_));
    EXPECT_TRUE(Rbd("snap create rbd/" + name_ + "@s"));
  }

  // Whatever became of the cluster, the daemon ends in good order, and librados
  // has not written a line of its own among those of the log.
  ~RbdImageTest() override {
    if (!daemon_)
      return;
    daemon_->Kill(SIGTERM);
    EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
    const std::string log = daemon_->log();
    for (size_t at = 0; at < log.size(); at = log.find('\n', at) + 1)
      EXPECT_EQ(log.compare(at, 5, "time="), 0) << log.substr(at, 200);
  }

  static bool Rbd(const std::string &arguments) {
    return cluster_->Run("rbd", arguments);
  }

  void Serve(const std::string &snapshot, const std::string &cache_size,
             const std::string &options = "") {
    daemon_ = std::make_unique<DaemonProcess>(std::vector<std::string>{
        "--image",
        "d=rbd:rbd/" + name_ + snapshot + ",conf=" + cluster_->conf() + options,
        "--image", "file=" + (dir_ / "file"), "--cache-size", cache_size,
        "--listen", "unix:" + (dir_ / "socket")});
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  }

  cachet *Open() {
    cachet *c = nullptr;
    EXPECT_EQ(cachet_open(Uri().c_str(), nullptr, &c, nullptr), CACHET_OK)
        << daemon_->log();
    return c;
  }

  std::string Uri() const {
    return "cachet+unix:///d?socket=" + (dir_ / "socket");
  }

  static CephCluster *cluster_;
  TempDir dir_;
  std::string name_;
  std::vector<uint8_t> bytes_;
  std::unique_ptr<DaemonProcess> daemon_;
};

CephCluster *RbdImageTest::cluster_;

TEST_F(RbdImageTest, RandomReadsThroughAQuarterOfTheImageAreRight) {
  const uint64_t seed = TestSeed();
  Serve("@s", "8M");
  RunReaders(Uri(), 32, [&](cachet *c, int reader) {
    return ReadsRandomRangesRight(c, bytes_, seed + uint64_t(reader), 200,
                                  40000);
  });
}

TEST_F(RbdImageTest, EveryCallAgreesWithTheImage) {
  Serve("@s", "16M");
  CheckCalls(Uri(), bytes_, 0, TestSeed(), TestLength(3000));
  CheckCalls(Uri(), bytes_, CACHET_NO_SHARED_MEMORY, TestSeed(),
             TestLength(2000));
}

TEST_F(RbdImageTest, AClusterThatIsDownAtStartIsServedOnceItIsThere) {
  cluster_->Do("end mon");
  Serve("@s", "8M", ",attempt-timeout=1");
  EXPECT_EQ(daemon_->CountInLog("image-missing"), 1u) << daemon_->log();
  cachet *c = nullptr;
  EXPECT_NE(cachet_open(Uri().c_str(), nullptr, &c, nullptr), CACHET_OK);
  cluster_->Do("start mon");
  daemon_->AwaitLog("image-back");
  c = Open();
  EXPECT_TRUE(ReadsRight(c, bytes_, 12345, 54321));
  cachet_close(c);
}

TEST_F(RbdImageTest, WhileTheOsdIsStoppedHitsGoOn) {
  Serve("@s", "64M", ",attempt-timeout=1");
  cachet *c = Open();
  EXPECT_TRUE(ReadsRight(c, bytes_, 0, 100000));
  cluster_->Do("pause osd");
  char byte;
  EXPECT_LT(cachet_read(c, kSize - 1, &byte, 1), 0);
  EXPECT_TRUE(ReadsRight(c, bytes_, 0, 100000));
  cluster_->Do("continue osd");
  while (cachet_read(c, kSize - 1, &byte, 1) != CACHET_OK)
    usleep(10000); // until the daemon asks again
  EXPECT_TRUE(ReadsRight(c, bytes_, 0, kSize));
  cachet_close(c);
}

TEST_F(RbdImageTest, ADaemonEndsAlsoWhileTheOsdIsStopped) {
  Serve("", "64M", ",attempt-timeout=1");
  cachet *c = Open();
  EXPECT_TRUE(ReadsRight(c, bytes_, 0, 100000));
  cluster_->Do("pause osd");
  char byte;
  EXPECT_LT(cachet_read(c, kSize - 1, &byte, 1), 0);
  cachet_close(c);
  daemon_->Kill(SIGTERM);
  EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
  cluster_->Do("continue osd");
}

TEST_F(RbdImageTest, AnImageThatIsResizedIsANewEpoch) {
  Serve("", "64M");
  cachet *c = Open();
  EXPECT_TRUE(ReadsRight(c, bytes_, 0, kSize));
  ASSERT_TRUE(Rbd("resize --allow-shrink --size 16M rbd/" + name_));
  uint8_t byte;
  while (cachet_size(c) == kSize) // until the daemon looks
    EXPECT_EQ(cachet_read(c, 0, &byte, 1), CACHET_OK);
  EXPECT_EQ(cachet_size(c), kSize / 2);
  EXPECT_TRUE(ReadsRight(c, bytes_, 0, kSize / 2));
  cachet_close(c);
}

TEST_F(RbdImageTest, AnImageThatIsMostlyAbsentIsZerosThere) {
  ASSERT_TRUE(Rbd("resize --size 1G rbd/" + name_));
  ASSERT_TRUE(Rbd("snap create rbd/" + name_ + "@t"));
  Serve("@t", "64M");
  bytes_.resize(64 << 20);
  cachet *c = Open();
  EXPECT_EQ(cachet_size(c), 1u << 30);
  EXPECT_TRUE(ReadsRight(c, bytes_, 0, bytes_.size()));
  cachet_close(c);
}

} // namespace

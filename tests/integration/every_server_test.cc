// Images that are served by a daemon, from servers of every kind.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <signal.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/support/daemon_process.h"
#include "tests/support/image_servers.h"
#include "tests/support/length.h"
#include "tests/support/oracle.h"
#include "tests/support/readers.h"

namespace {

constexpr uint64_t kSize = (16 << 20) + 4096;
constexpr int kReaders = 32;

class EveryServerTest : public testing::TestWithParam<ImageServerKind> {
protected:
  EveryServerTest()
      : bytes_(WriteRandomFile(dir_ / "file", kSize, 1)),
        server_(GetParam().start(bytes_)) {}

  ~EveryServerTest() override {
    if (daemon_) {
      daemon_->Kill(SIGTERM);
      EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
    }
  }

  void Serve(const std::string &cache_size) {
    daemon_ = std::make_unique<DaemonProcess>(std::vector<std::string>{
        "--image", "d=" + server_->source(), "--cache-size", cache_size,
        "--listen", "unix:" + (dir_ / "socket")});
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  }

  std::string Uri() const {
    return "cachet+unix:///d?socket=" + (dir_ / "socket");
  }

  TempDir dir_;
  const std::vector<uint8_t> bytes_;
  std::unique_ptr<ImageServer> server_;
  std::unique_ptr<DaemonProcess> daemon_;
};

TEST_P(EveryServerTest, EveryCallAgreesWithTheFile) {
  Serve("32M");
  CheckCalls(Uri(), bytes_, 0, TestSeed(), TestLength(3000));
  CheckCalls(Uri(), bytes_, CACHET_NO_SHARED_MEMORY, TestSeed(),
             TestLength(2000));
  server_->CheckProtocol();
}

TEST_P(EveryServerTest, ManyProcessesReadRightThroughAQuarterOfTheImage) {
  const uint64_t seed = TestSeed();
  Serve("4M");
  RunReaders(Uri(), kReaders, [&](cachet *c, int reader) {
    return ReadsRandomRangesRight(c, bytes_, seed + uint64_t(reader),
                                  TestLength(60), 40000);
  });
}

INSTANTIATE_TEST_SUITE_P(Servers, EveryServerTest,
                         testing::ValuesIn(kImageServerKinds),
                         [](const auto &of) { return of.param.name; });

} // namespace

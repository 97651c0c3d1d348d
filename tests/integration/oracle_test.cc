// Every call of the library against pread's idea of the file, over page sizes,
// image sizes and ways in: at least a million checked operations in all.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <signal.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "tests/support/certificates.h"
#include "tests/support/daemon_process.h"
#include "tests/support/length.h"
#include "tests/support/nbd_server.h"
#include "tests/support/nginx.h"
#include "tests/support/oracle.h"

namespace {

const uint64_t kSizes[] = {0, 1, 511, 4096, 4097, (64 << 20) + 13};
const size_t kPageSizes[] = {4096, 16384, 65536};
constexpr size_t kHugePage = 2 << 20;
constexpr int kInProcessOps = 42000; // times 18 combinations
constexpr int kRemoteOps = 500;      // times 15, by HTTP and NBD
constexpr int kSharedOps = 12000;    // times 18
constexpr int kSocketOps = 8000;     // times 54
constexpr int kHugeOps = 500;        // times 24

uint64_t g_n_checked = 0;

class OracleTest : public testing::Test {
protected:
  static void SetUpTestSuite() {
    seed_ = TestSeed();
    dir_ = new TempDir;
    for (uint64_t size : kSizes) {
      std::string name = "s" + std::to_string(size);
      images_.push_back(
          {name, *dir_ / name, WriteRandomFile(*dir_ / name, size, seed_)});
    }
  }
  static void TearDownTestSuite() {
    delete dir_;
    printf("%llu operations checked\n",
           static_cast<unsigned long long>(g_n_checked));
  }

  struct Image {
    std::string name, path;
    std::vector<uint8_t> bytes;
  };

  enum Way { IN_PROCESS, SHARED, UNIX, TCP, TLS };

  static void Check(const std::string &uri, const Image &image,
                    size_t page_size, Way way, int n_ops) {
    SCOPED_TRACE(uri + " pages of " + std::to_string(page_size));
    cachet_options options{};
    options.struct_size = sizeof options;
    options.page_size = uint32_t(page_size);
    if (page_size == kHugePage)
      options.cache_size = 16 * kHugePage; // the default is two of them
    options.flags = way == UNIX ? CACHET_NO_SHARED_MEMORY : 0;
    cachet *c = nullptr;
    cachet_error err{};
    ASSERT_EQ(cachet_open(uri.c_str(), &options, &c, &err), CACHET_OK)
        << err.message;
    g_n_checked +=
        Oracle(c, image.bytes, page_size, way < TCP, way == SHARED, seed_++)
            .Run(n_ops);
    cachet_close(c);
  }

  // Each image by a daemon with pages of `page_size`, over Unix, TCP and TLS.
  // Huge ones are a setting of each image.
  void CheckDaemon(size_t page_size) {
    bool is_huge = page_size == kHugePage;
    int n_shared = TestLength(is_huge ? kHugeOps : kSharedOps);
    int n_socket = TestLength(is_huge ? kHugeOps : kSocketOps);
    std::string socket = *dir_ / "socket";
    std::string port = std::to_string(DaemonProcess::FreePort());
    std::string tls_port = std::to_string(DaemonProcess::FreePort());
    Certificates certificates;
    std::string certificate = certificates.Make("both", "IP:127.0.0.1");
    std::vector<std::string> args = {
        "--listen",          "unix:" + socket,
        "--listen",          "tcp:127.0.0.1:" + port,
        "--listen",          "tls:127.0.0.1:" + tls_port,
        "--tls-certificate", certificate,
        "--tls-client-ca",   certificates.ca(),
        "--allow",           "any",
        "--cache-size",      is_huge ? "192M" : "96M",
        "--page-size",       std::to_string(is_huge ? 4096 : page_size)};
    for (const auto &image : images_) {
      args.push_back("--image");
      args.push_back(image.path + (is_huge ? ",huge=on" : ""));
    }
    DaemonProcess daemon(args);
    ASSERT_TRUE(daemon.ready()) << daemon.log();
    for (const auto &image : images_) {
      std::string uri = "cachet+unix:///" + image.name + "?socket=" + socket;
      Check(uri, image, page_size, SHARED, n_shared);
      Check(uri, image, page_size, UNIX, n_socket);
      Check("cachet://127.0.0.1:" + port + "/" + image.name, image, page_size,
            TCP, n_socket);
      Check("cachets://127.0.0.1:" + tls_port + "/" + image.name +
                "?ca=" + certificates.ca() + "&cert=" + certificate,
            image, page_size, TLS, n_socket);
    }
    daemon.Kill(SIGTERM);
    EXPECT_EQ(daemon.Wait(), 0) << daemon.log();
  }

  static uint64_t seed_;
  static TempDir *dir_;
  static std::vector<Image> images_;
};

uint64_t OracleTest::seed_;
TempDir *OracleTest::dir_;
std::vector<OracleTest::Image> OracleTest::images_;

TEST_F(OracleTest, InProcess) {
  for (size_t page_size : kPageSizes)
    for (const auto &image : images_)
      Check("file:" + image.path, image, page_size, IN_PROCESS,
            TestLength(kInProcessOps));
}

TEST_F(OracleTest, InProcessByHttp) {
  Nginx nginx;
  for (const auto &image : images_)
    nginx.Put(image.name, std::string(image.bytes.begin(), image.bytes.end()));
  for (size_t page_size : kPageSizes)
    for (const auto &image : images_)
      if (!image.bytes.empty())
        Check(nginx.Url("/" + image.name), image, page_size, IN_PROCESS,
              TestLength(kRemoteOps));
}

TEST_F(OracleTest, InProcessByNbd) {
  for (const auto &image : images_) {
    const std::string socket = *dir_ / ("nbd-" + image.name);
    NbdServer nbdkit({"nbdkit", "-f", "-U", socket, "-r", "file", image.path},
                     socket);
    for (size_t page_size : kPageSizes)
      if (!image.bytes.empty())
        Check("nbd+unix:///?socket=" + socket, image, page_size, IN_PROCESS,
              TestLength(kRemoteOps));
  }
}

TEST_F(OracleTest, ByADaemonWithPagesOf4096) { CheckDaemon(4096); }
TEST_F(OracleTest, ByADaemonWithPagesOf16384) { CheckDaemon(16384); }
TEST_F(OracleTest, ByADaemonWithPagesOf65536) { CheckDaemon(65536); }

TEST_F(OracleTest, ByADaemonWithHugePages) { CheckDaemon(kHugePage); }

TEST_F(OracleTest, ZChecksAtLeastAMillionOperations) {
  if (HasFailure())
    return;
  EXPECT_GE(g_n_checked, uint64_t(TestLength(1000000)));
}

} // namespace

// An image that an NBD server has, served by a daemon to many processes.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/support/certificates.h"
#include "tests/support/daemon_process.h"
#include "tests/support/nbd_server.h"
#include "tests/support/readers.h"

namespace {

constexpr uint64_t kSize = (32 << 20) + 4096;

class NbdImageTest : public testing::Test {
protected:
  NbdImageTest() {
    WriteRandomFile(dir_ / "file", 1, 1); // one is always there
    Put(kSize, 1);
  }

  ~NbdImageTest() override {
    if (daemon_) {
      daemon_->Kill(SIGTERM);
      EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
    }
  }

  void Put(uint64_t size, uint64_t seed) {
    bytes_ = WriteRandomFile(dir_ / "bytes", size, seed);
  }

  // Has nbdkit listen on a Unix socket.
  void StartServer() {
    server_.reset();
    unlink(Socket().c_str());
    server_ = std::make_unique<NbdServer>(
        std::vector<std::string>{"nbdkit", "-f", "-r", "-U", Socket(), "file",
                                 dir_ / "bytes"},
        Socket());
  }

  void Serve(const std::string &source, const std::string &cache_size) {
    daemon_ = std::make_unique<DaemonProcess>(std::vector<std::string>{
        "--image", "d=" + source, "--image", "file=" + (dir_ / "file"),
        "--cache-size", cache_size, "--listen", "unix:" + (dir_ / "socket")});
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  }

  cachet *Open() {
    cachet *c = nullptr;
    EXPECT_EQ(cachet_open(Uri().c_str(), nullptr, &c, nullptr), CACHET_OK)
        << daemon_->log();
    return c;
  }

  std::string Socket() const { return dir_ / "nbd"; }
  std::string Source() const { return "nbd+unix:///?socket=" + Socket(); }
  std::string Uri() const {
    return "cachet+unix:///d?socket=" + (dir_ / "socket");
  }

  TempDir dir_;
  std::vector<uint8_t> bytes_;
  std::unique_ptr<NbdServer> server_;
  std::unique_ptr<DaemonProcess> daemon_;
};

TEST_F(NbdImageTest, AServerThatIsDownAtStartIsServedOnceItIsThere) {
  Serve(Source(), "8M");
  EXPECT_EQ(daemon_->CountInLog("image-missing"), 1u) << daemon_->log();
  cachet *c = nullptr;
  EXPECT_NE(cachet_open(Uri().c_str(), nullptr, &c, nullptr), CACHET_OK);
  StartServer();
  daemon_->AwaitLog("image-back");
  c = Open();
  EXPECT_TRUE(ReadsRight(c, bytes_, 12345, 54321));
  cachet_close(c);
}

TEST_F(NbdImageTest, WhileTheServerIsGoneHitsGoOn) {
  StartServer();
  Serve(Source(), "64M");
  cachet *c = Open();
  EXPECT_TRUE(ReadsRight(c, bytes_, 0, 100000));
  server_->Kill();
  char byte;
  EXPECT_LT(cachet_read(c, kSize - 1, &byte, 1), 0);
  EXPECT_TRUE(ReadsRight(c, bytes_, 0, 100000));
  StartServer();
  while (cachet_read(c, kSize - 1, &byte, 1) != CACHET_OK)
    usleep(10000); // until the daemon asks again
  EXPECT_TRUE(ReadsRight(c, bytes_, 0, kSize));
  cachet_close(c);
}

TEST_F(NbdImageTest, AServerThatComesBackWithAnotherSizeIsANewEpoch) {
  StartServer();
  Serve(Source(), "64M");
  cachet *c = Open();
  EXPECT_TRUE(ReadsRight(c, bytes_, 0, 100000));
  server_->Kill();
  Put(kSize / 2, 2);
  StartServer();
  char byte;
  while (cachet_size(c) == kSize) { // what is not resident shows the change
    EXPECT_NE(cachet_read(c, kSize - 1, &byte, 1), CACHET_OK);
    usleep(10000);
  }
  EXPECT_EQ(cachet_size(c), kSize / 2);
  EXPECT_TRUE(ReadsRight(c, bytes_, 0, kSize / 2));
  cachet_close(c);
}

// By the name of a host, and with certificates from files: what the threads
// that make connections do must be what the daemon's sandbox lets them.
TEST_F(NbdImageTest, AServerIsReadThroughTls) {
  Certificates certificates;
  const std::string pki = dir_ / "pki",
                    made = certificates.Make("server", "DNS:localhost"),
                    port = std::to_string(DaemonProcess::FreePort());
  ASSERT_EQ(mkdir(pki.c_str(), 0700), 0);
  ASSERT_EQ(symlink(certificates.ca().c_str(), (pki + "/ca-cert.pem").c_str()),
            0);
  for (const char *link : {"/server-cert.pem", "/server-key.pem",
                           "/client-cert.pem", "/client-key.pem"})
    ASSERT_EQ(symlink(made.c_str(), (pki + link).c_str()), 0);
  NbdServer server({"nbdkit", "-f", "-r", "-i", "127.0.0.1", "-p", port,
                    "--tls=require", "--tls-verify-peer",
                    "--tls-certificates=" + pki, "file", dir_ / "bytes"},
                   port);
  Serve("nbds://localhost:" + port + ",tls-certificates=" + pki, "8M");
  cachet *c = Open();
  EXPECT_TRUE(ReadsRandomRangesRight(c, bytes_, TestSeed(), 100, 40000));
  cachet_close(c);
}

TEST_F(NbdImageTest, TheLogDoesNotSayWhoAsks) {
  const std::string psk = dir_ / "psk";
  WriteRandomFile(psk, 16, 1); // no line of it is of that user
  Serve("nbds+unix://alice@/x?socket=" + Socket() + ",tls-psk-file=" + psk,
        "8M");
  const std::string log = daemon_->log();
  EXPECT_NE(log.find("nbds+unix://"), std::string::npos) << log;
  EXPECT_EQ(log.find("alice"), std::string::npos) << log;
}

} // namespace

// An image that nginx has, served by a daemon to many processes.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/daemon_process.h"
#include "tests/support/nginx.h"

namespace {

constexpr uint64_t kSize = (32 << 20) + 777;
constexpr int kReaders = 8;

class HttpImageTest : public testing::Test {
protected:
  HttpImageTest() {
    Put("x", 1);
    WriteRandomFile(dir_ / "file", 1, 1); // one is always there
  }

  ~HttpImageTest() override {
    if (daemon_) {
      daemon_->Kill(SIGTERM);
      EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
    }
  }

  // Has nginx serve another version.
  void Put(const std::string &name, uint64_t seed) {
    bytes_ = WriteRandomFile(dir_ / "bytes", kSize, seed);
    nginx_.Put(name, std::string(bytes_.begin(), bytes_.end()));
  }

  void Serve(const std::string &url, const std::string &cache_size) {
    daemon_ = std::make_unique<DaemonProcess>(std::vector<std::string>{
        "--image", "d=" + url, "--image", "file=" + (dir_ / "file"),
        "--cache-size", cache_size, "--listen", "unix:" + (dir_ / "socket")});
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  }

  std::string Uri() const {
    return "cachet+unix:///d?socket=" + (dir_ / "socket");
  }

  // Runs readers, each a process with a handle of its own, all at once.
  void RunReaders(const std::function<bool(cachet *c, int reader)> &read) {
    int gate[2];
    ASSERT_EQ(pipe(gate), 0);
    std::vector<pid_t> readers;
    for (int i = 0; i < kReaders; i++) {
      pid_t pid = fork();
      ASSERT_GE(pid, 0);
      if (pid == 0)
        RunReader(gate, read, i);
      readers.push_back(pid);
    }
    close(gate[0]);
    close(gate[1]);
    for (pid_t pid : readers) {
      int status = -1;
      EXPECT_EQ(waitpid(pid, &status, 0), pid);
      EXPECT_EQ(status, 0);
    }
  }

  bool IsRight(cachet *c, uint64_t addr, size_t len) const {
    std::vector<uint8_t> read(len);
    if (cachet_read(c, addr, read.data(), len) != CACHET_OK) {
      fprintf(stderr, "%s\n", cachet_errmsg(c));
      return false;
    }
    return memcmp(read.data(), bytes_.data() + addr, len) == 0;
  }

  Nginx nginx_;
  TempDir dir_;
  std::vector<uint8_t> bytes_;
  std::unique_ptr<DaemonProcess> daemon_;

private:
  [[noreturn]] void RunReader(int gate[2],
                              const std::function<bool(cachet *, int)> &read,
                              int reader) {
    char byte;
    cachet *c;
    close(gate[1]);
    if (::read(gate[0], &byte, 1) != 0 || // until all of them are there
        cachet_open(Uri().c_str(), nullptr, &c, nullptr) != CACHET_OK)
      _exit(2);
    bool good = read(c, reader);
    cachet_close(c);
    _exit(!good);
  }
};

TEST_F(HttpImageTest, RandomReadsThroughAQuarterOfTheImageAreRight) {
  const uint64_t seed = TestSeed();
  Serve(nginx_.Url("/x"), "8M");
  RunReaders([&](cachet *c, int reader) {
    std::mt19937_64 rng(seed + uint64_t(reader));
    for (int i = 0; i < 400; i++) {
      uint64_t addr = rng() % kSize;
      size_t most = size_t(std::min<uint64_t>(kSize - addr, 40000));
      if (!IsRight(c, addr, 1 + rng() % most))
        return false;
    }
    return true;
  });
}

TEST_F(HttpImageTest, EachByteIsFetchedOnceForAllProcesses) {
  Serve(nginx_.Url("/x"), "64M");
  RunReaders([&](cachet *c, int) {
    constexpr uint64_t kStep = 1 << 20;
    for (uint64_t addr = 0; addr < kSize; addr += kStep)
      if (!IsRight(c, addr, std::min(kStep, kSize - addr)))
        return false;
    return true;
  });
  uint64_t n_fetched = 0;
  for (const Nginx::Line &line : nginx_.StopAndReadLog())
    n_fetched += line.n_body;
  EXPECT_GE(n_fetched, kSize);
  EXPECT_LE(n_fetched, kSize + kSize / 50);
}

TEST_F(HttpImageTest, AnImageThatIsReplacedIsReadAnewAndNeverMixed) {
  Serve(nginx_.Url("/x"), "64M");
  cachet *c;
  ASSERT_EQ(cachet_open(Uri().c_str(), nullptr, &c, nullptr), CACHET_OK);
  EXPECT_TRUE(IsRight(c, 0, 4096));
  Put("x", 2);
  // What is not resident shows the change, and what is goes with it.
  EXPECT_TRUE(IsRight(c, kSize - 5000, 5000));
  EXPECT_TRUE(IsRight(c, 0, 4096));
  cachet_close(c);
}

TEST_F(HttpImageTest, AnImageThatIsNotThereYetIsServedOnceItIs) {
  Serve(nginx_.Url("/y"), "64M");
  EXPECT_EQ(daemon_->CountInLog("image-missing"), 1u) << daemon_->log();
  cachet *c = nullptr;
  EXPECT_NE(cachet_open(Uri().c_str(), nullptr, &c, nullptr), CACHET_OK);
  Put("y", 3);
  daemon_->AwaitLog("image-back");
  ASSERT_EQ(cachet_open(Uri().c_str(), nullptr, &c, nullptr), CACHET_OK)
      << daemon_->log();
  EXPECT_TRUE(IsRight(c, 12345, 54321));
  cachet_close(c);
}

TEST_F(HttpImageTest, TheLogHasNoSecretsOfAURI) {
  const std::string host = "127.0.0.1:" + std::to_string(nginx_.port());
  Serve("http://alice:pass@" + host + "/absent?signature=abcdef", "64M");
  const std::string log = daemon_->log();
  EXPECT_NE(log.find("http://" + host + "/absent"), std::string::npos) << log;
  for (const char *secret : {"alice", "pass@", "signature", "abcdef"})
    EXPECT_EQ(log.find(secret), std::string::npos) << log;
}

} // namespace

// The image is truncated, grown and replaced while eight clients read it: every
// answer is the old content, the new content or an error, never a mix within
// one cachet_read().
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "tests/support/daemon_process.h"
#include "tests/support/length.h"

namespace {

constexpr uint64_t kFull = (4 << 20) + 100;
constexpr uint64_t kHalf = 2 << 20;
constexpr int kReaders = 8;

// Every 8 bytes name their address and the version of the content.
uint64_t WordAt(uint64_t addr, uint64_t version) {
  return (addr << 16 | version) * 0x9e3779b97f4a7c15ull;
}

std::vector<uint8_t> Content(uint64_t from, uint64_t to, uint64_t version) {
  std::vector<uint8_t> bytes((to - from + 7) / 8 * 8);
  for (uint64_t addr = from; addr < to; addr += 8) {
    uint64_t word = WordAt(addr, version);
    memcpy(&bytes[addr - from], &word, 8);
  }
  bytes.resize(to - from);
  return bytes;
}

// Which version the bytes are of, all of them; 0 if that is not one.
uint64_t VersionOf(const std::vector<uint8_t> &buf, uint64_t addr,
                   uint64_t newest) {
  uint64_t word;
  memcpy(&word, buf.data(), 8);
  for (uint64_t version = newest; version > 0; version--)
    if (word == WordAt(addr, version))
      return buf == Content(addr, addr + buf.size(), version) ? version : 0;
  return 0;
}

// The parameter: flags of the handles, by shared memory or by the socket.
class ChangeTest : public testing::TestWithParam<uint32_t> {
protected:
  void SetUp() override {
    seed_ = TestSeed();
    Replace();
    daemon_ = std::make_unique<DaemonProcess>(std::vector<std::string>{
        "--image", path_, "--listen", "unix:" + (dir_ / "socket"),
        "--cache-size", "2M"});
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
    for (int i = 0; i < kReaders; i++)
      readers_.emplace_back([this, i] { ReadOn(i); });
  }

  void TearDown() override {
    stop_ = true;
    for (auto &reader : readers_)
      reader.join();
    EXPECT_EQ(n_mixed_, 0u);
    EXPECT_EQ(n_other_errors_, 0u) << other_error_;
    printf("%llu reads, %llu out of bounds, %llu other errors\n",
           (unsigned long long)n_reads_, (unsigned long long)n_bounds_,
           (unsigned long long)n_errors_);
    daemon_->Kill(SIGTERM);
    EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
  }

  // A new file under the old name, of the next version.
  void Replace() {
    auto bytes = Content(0, kFull, newest_ + 1);
    Write(path_ + ".new", O_CREAT | O_TRUNC, bytes);
    newest_++; // before anybody can see it
    ASSERT_EQ(rename((path_ + ".new").c_str(), path_.c_str()), 0);
  }

  void Truncate() { ASSERT_EQ(truncate(path_.c_str(), kHalf), 0); }

  // Back to its full length; what is there at any moment is of this version.
  void Grow() { Write(path_, O_APPEND, Content(kHalf, kFull, newest_)); }

  void Write(const std::string &path, int flags,
             const std::vector<uint8_t> &bytes) {
    int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC | flags, 0600);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(write(fd, bytes.data(), bytes.size()), ssize_t(bytes.size()));
    close(fd);
  }

  void ReadOn(int i) {
    std::string uri = "cachet+unix:///?socket=" + (dir_ / "socket");
    cachet_options options{};
    options.struct_size = sizeof options;
    options.cache_size = 256 << 10;
    options.flags = GetParam();
    cachet *c = nullptr;
    cachet_error err{};
    if (cachet_open(uri.c_str(), &options, &c, &err) != CACHET_OK) {
      NoteOther(err.message);
      return;
    }
    std::mt19937_64 random(seed_ + uint64_t(i));
    while (!stop_) {
      std::vector<uint8_t> buf(8 * (1 + random() % 2500));
      uint64_t addr = random() % ((kFull - buf.size()) / 8) * 8;
      switch (cachet_read(c, addr, buf.data(), buf.size())) {
      case CACHET_OK: {
        uint64_t version = VersionOf(buf, addr, newest_);
        if (version == 0)
          n_mixed_++;
        seen_[i] = std::max(uint64_t(seen_[i]), version);
        break;
      }
      case CACHET_E_BOUNDS:
        n_bounds_++;
        break;
      case CACHET_E_IO:
      case CACHET_E_CHANGED:
        n_errors_++;
        break;
      default:
        NoteOther(cachet_errmsg(c));
      }
      n_reads_++;
    }
    cachet_close(c);
  }

  void NoteOther(const std::string &message) {
    static std::mutex mutex;
    std::lock_guard<std::mutex> lock(mutex);
    n_other_errors_++;
    other_error_ = message;
  }

  // Waits until `more` more reads were made.
  void AwaitReads(uint64_t more) {
    uint64_t until = n_reads_ + more;
    while (n_reads_ < until && n_other_errors_ == 0)
      std::this_thread::yield();
  }

  void AwaitBounds() {
    uint64_t before = n_bounds_;
    while (n_bounds_ == before && n_other_errors_ == 0)
      std::this_thread::yield();
  }

  // Waits until every reader has seen the newest version.
  void AwaitSeen() {
    for (auto &seen : seen_)
      while (seen < newest_ && n_other_errors_ == 0)
        std::this_thread::yield();
  }

  TempDir dir_;
  std::string path_ = dir_ / "disk.img";
  uint64_t seed_ = 0;
  std::atomic<uint64_t> newest_{0};
  std::unique_ptr<DaemonProcess> daemon_;
  std::vector<std::thread> readers_;
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> seen_[kReaders] = {};
  std::atomic<uint64_t> n_reads_{0}, n_mixed_{0}, n_bounds_{0}, n_errors_{0},
      n_other_errors_{0};
  std::string other_error_;
};

TEST_P(ChangeTest, ReplacedByRename) {
  for (int i = 0; i < TestLength(6); i++) {
    AwaitReads(200);
    Replace();
    AwaitSeen();
  }
}

TEST_P(ChangeTest, TruncatedAndGrown) {
  for (int i = 0; i < TestLength(6); i++) {
    AwaitReads(200);
    Truncate();
    AwaitBounds();
    Grow();
    AwaitReads(200);
  }
}

TEST_P(ChangeTest, EverythingAtOnceAndTheFileIsGoneInBetween) {
  for (int i = 0; i < TestLength(3); i++) {
    AwaitReads(100);
    ASSERT_EQ(unlink(path_.c_str()), 0);
    AwaitReads(100);
    Replace();
    AwaitSeen();
    Truncate();
    Grow();
    AwaitReads(100);
  }
}

std::string NameOf(const testing::TestParamInfo<uint32_t> &way) {
  return way.param ? "Socket" : "Shared";
}
INSTANTIATE_TEST_SUITE_P(By, ChangeTest,
                         testing::Values(0u, uint32_t{CACHET_NO_SHARED_MEMORY}),
                         NameOf);

} // namespace

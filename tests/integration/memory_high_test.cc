// A cache that shrinks on pressure, in a control group whose memory.high is
// lowered under it: the kernel makes the daemon wait for memory, the daemon
// takes the cache down, and nobody is killed.  Needs control groups of version
// 2 and the kernel's pressure stall information.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/support/control_group.h"
#include "tests/support/daemon_process.h"
#include "tests/support/length.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kImage = 40 * kMiB, kCache = 24 * kMiB, kLeast = 4 * kMiB;
constexpr auto kPatience = std::chrono::seconds(120);

class MemoryHighTest : public testing::Test {
protected:
  void SetUp() override {
    if (!group_.why_not().empty())
      GTEST_SKIP() << group_.why_not();
    if (group_.Get("memory.pressure").empty())
      GTEST_SKIP() << "the kernel tells no pressure of a control group";
    ASSERT_TRUE(group_.Set("memory.max", std::to_string(512 * kMiB)));
    bytes_ = WriteRandomFile(dir_ / "disk.img", kImage, 1);
    std::ofstream(dir_ / "conf") << "[cache]\nshrink-on-pressure = yes\n"
                                    "size = 24M\nmin-size = 4M\n";
  }

  void StartDaemon() {
    daemon_ = std::make_unique<DaemonProcess>(
        std::vector<std::string>{"--config", dir_ / "conf", "--image",
                                 dir_ / "disk.img", "--listen",
                                 "unix:" + (dir_ / "socket")},
        [&] {
          if (!group_.Enter())
            _exit(1);
        });
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
    std::string uri = "cachet+unix:///disk.img?socket=" + (dir_ / "socket");
    cachet_error error;
    ASSERT_EQ(cachet_open(uri.c_str(), nullptr, &reader_, &error), CACHET_OK)
        << error.message;
  }

  void StopDaemon() {
    cachet_close(reader_);
    reader_ = nullptr;
    daemon_->Kill(SIGTERM);
    EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
    daemon_.reset();
  }

  void TearDown() override {
    cachet_close(reader_);
    daemon_.reset();
  }

  // Reads pages anywhere, and so has the daemon bring in some.
  void Read(int n_pages) {
    for (int i = 0; i < n_pages; i++) {
      uint64_t at = random_() % kImage & ~uint64_t{4095};
      cachet_slice slice;
      ASSERT_EQ(cachet_load(reader_, at, 1, &slice), CACHET_OK)
          << cachet_errmsg(reader_) << daemon_->log();
      ASSERT_EQ(memcmp(slice.data, &bytes_[at], slice.length), 0) << at;
      cachet_release(reader_, &slice);
    }
  }

  // The target of the cache's size that the daemon logged last.
  uint64_t Target() const {
    std::string log = daemon_->log();
    size_t at = log.rfind("event=memory-pressure ");
    size_t size = at == std::string::npos ? at : log.find(" size=", at);
    return size == std::string::npos ? kCache
                                     : strtoull(&log[size + 6], nullptr, 10);
  }

  // Lowers memory.high until the cache has shrunk.  How long it took from the
  // daemon's notice of pressure, in milliseconds.
  void Squeeze(int64_t *shrunk_ms) {
    uint64_t before = Target();
    uint64_t used = strtoull(group_.Get("memory.current").c_str(), nullptr, 10);
    // The daemon gives up twice as much at once.
    uint64_t high = used - (before - kLeast) / 4;
    ASSERT_TRUE(group_.Set("memory.high", std::to_string(high)));
    auto end = Clock::now() + kPatience;
    while (Target() >= before) {
      ASSERT_NO_FATAL_FAILURE(Read(16));
      ASSERT_LT(Clock::now(), end) << "no pressure\n" << daemon_->log();
    }
    auto noticed = Clock::now();
    while (daemon_->MemfdBytes() > Target()) {
      ASSERT_NO_FATAL_FAILURE(Read(1));
      ASSERT_LT(Clock::now(), end) << "it did not shrink\n" << daemon_->log();
    }
    *shrunk_ms = std::chrono::duration_cast<std::chrono::milliseconds>(
                     Clock::now() - noticed)
                     .count();
    ASSERT_TRUE(group_.Set("memory.high", "max"));
  }

  TempDir dir_;
  ControlGroup group_{"high", ControlGroup::kTwo};
  std::vector<uint8_t> bytes_;
  std::unique_ptr<DaemonProcess> daemon_;
  cachet *reader_ = nullptr;
  std::mt19937_64 random_{TestSeed()};
};

TEST_F(MemoryHighTest, TheCacheShrinksAndNobodyIsKilled) {
  int64_t longest_ms = 0;
  for (int round = 0, n = TestLength(100); round < n; round++) {
    if (!daemon_ || Target() < 2 * kLeast) {
      if (daemon_)
        StopDaemon();
      ASSERT_NO_FATAL_FAILURE(StartDaemon());
      ASSERT_NO_FATAL_FAILURE(Read(2 * int(kCache / 4096)));
    }
    int64_t shrunk_ms = 0;
    ASSERT_NO_FATAL_FAILURE(Squeeze(&shrunk_ms));
    longest_ms = std::max(longest_ms, shrunk_ms);
  }
  StopDaemon();
  printf("the longest from the notice to the smaller cache: %lld ms\n",
         (long long)longest_ms);
  EXPECT_EQ(group_.Get("memory.events", "oom_kill"), 0u);
}

} // namespace

// A daemon that is killed and stopped again and again, under readers that check
// each byte: eight in shared memory and two over TLS.
//
// What it prints at the end is measured, and depends on the machine: how soon
// reads are hits again, and how long those that miss take.
#include <cachet/cachet.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/certificates.h"
#include "tests/support/daemon_process.h"
#include "tests/support/length.h"
#include "tests/support/service_manager.h"

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPages = 8192; // twice the cache
constexpr uint64_t kHot = 512;    // fit what a handle caches over TLS, too
constexpr int kShared = 8, kTls = 2;
constexpr int kKills = 50, kStops = 10;

// What the readers count, in memory that they share with the test.
struct Counts {
  static constexpr int kWindowMs = 50, kWindows = 1 << 16, kMost = 4096;
  struct Kind {
    std::atomic<uint32_t> hits[kWindows], misses[kWindows];
    std::atomic<uint64_t> took_ms[kMost]; // misses that took so long
  } shared, tls;
  std::atomic<int> opened;
  std::atomic<uint64_t> wrong, failures, detached;
  std::atomic<bool> ends;
  Clock::time_point begin;

  int Window(Clock::time_point t) const {
    auto ms = std::chrono::duration_cast<milliseconds>(t - begin).count();
    return std::min(int(ms / kWindowMs), kWindows - 1);
  }
};

void Count(Counts *counts, Counts::Kind *kind, bool missed,
           Clock::time_point from) {
  auto now = Clock::now();
  int window = counts->Window(now);
  if (!missed) {
    kind->hits[window]++;
    return;
  }
  kind->misses[window]++;
  auto ms = std::chrono::duration_cast<milliseconds>(now - from).count();
  kind->took_ms[std::min(int(ms), Counts::kMost - 1)]++;
}

class KeptStressTest : public testing::Test {
protected:
  void SetUp() override {
    bytes_ = WriteRandomFile(dir_ / "i", kPages * kPage, 1);
    StampFinely(dir_ / "i");
    server_ = certificates_.Make("server", "IP:127.0.0.1");
    client_ = certificates_.Make("client", "DNS:reader");
    port_ = std::to_string(manager_.ListenForTls());
    void *at = mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(at, MAP_FAILED);
    counts_ = new (at) Counts{};
    counts_->begin = Clock::now();
  }

  void TearDown() override { munmap(counts_, sizeof(Counts)); }

  void Start() {
    manager_.Start({"--image", "i=" + (dir_ / "i"), "--cache-size", "16M",
                    "--tls-certificate", server_, "--tls-client-ca",
                    certificates_.ca(), "--allow", "any"});
    ASSERT_TRUE(manager_.daemon().ready()) << manager_.daemon().log();
  }

  std::string Uri(bool tls) {
    return tls ? "cachets://127.0.0.1:" + port_ +
                     "/i?ca=" + certificates_.ca() + "&cert=" + client_
               : manager_.uri("i");
  }

  pid_t Fork(uint64_t seed, bool tls) {
    pid_t pid = fork();
    if (pid == 0)
      _exit(Read(seed, tls) ? 0 : 1);
    return pid;
  }

  // A reader.  Most of what it reads is hot; each hundredth page is any.
  bool Read(uint64_t seed, bool tls) {
    Counts::Kind *kind = tls ? &counts_->tls : &counts_->shared;
    std::mt19937_64 random(seed);
    std::vector<uint8_t> bytes(kPage);
    cachet *c = nullptr;
    cachet_error err;
    if (cachet_open(Uri(tls).c_str(), nullptr, &c, &err) != CACHET_OK) {
      fprintf(stderr, "open: %s\n", err.message);
      counts_->failures++;
      return false;
    }
    counts_->opened++;
    for (uint64_t n = 0; !counts_->ends; n++) {
      uint64_t page = random() % (random() % 100 ? kHot : kPages);
      uint64_t misses = cachet_misses(c);
      auto from = Clock::now();
      if (cachet_read(c, page * kPage, bytes.data(), kPage) != CACHET_OK) {
        fprintf(stderr, "read: %s\n", cachet_errmsg(c));
        counts_->failures++;
      } else if (memcmp(bytes.data(), &bytes_[page * kPage], kPage) != 0) {
        counts_->wrong++;
      }
      Count(counts_, kind, cachet_misses(c) != misses, from);
      counts_->detached += !tls && !cachet_is_shared(c);
      if (n % 16 == 0)
        usleep(200); // there are more readers than processors
    }
    cachet_close(c);
    return true;
  }

  // How long after a restart 95 of 100 reads are hits, in milliseconds.
  int Recovery(const Counts::Kind &kind, Clock::time_point restart) {
    int first = counts_->Window(restart);
    for (int i = first; i < first + 10000 / Counts::kWindowMs; i++) {
      uint64_t hits = kind.hits[i], all = hits + kind.misses[i];
      if (all >= 20 && hits * 100 >= all * 95)
        return (i - first + 1) * Counts::kWindowMs;
    }
    return -1;
  }

  void Report(const char *name, const Counts::Kind &kind) {
    uint64_t hits = 0, misses = 0, n = 0;
    int worst = 0, p99 = 0;
    for (int i = 0; i < Counts::kWindows; i++) {
      hits += kind.hits[i];
      misses += kind.misses[i];
    }
    for (int ms = 0; ms < Counts::kMost; ms++) {
      n += kind.took_ms[ms];
      if (n * 100 < misses * 99)
        p99 = ms + 1;
    }
    for (auto &restart : restarts_)
      worst = std::max(worst, Recovery(kind, restart));
    printf("%s: %llu reads, %.2f %% hits; 95 %% again within %d ms; misses "
           "answered within %d ms at p99\n",
           name, static_cast<unsigned long long>(hits + misses),
           100.0 * double(hits) / double(hits + misses), worst, p99);
    EXPECT_GT(hits + misses, 0u);
    // A handle's own cache begins anew with each connection.
    if (&kind == &counts_->shared) {
      EXPECT_GT(hits, misses * 9) << "a cache that begins anew each time";
    }
  }

  TempDir dir_;
  Certificates certificates_;
  std::string server_, client_, port_;
  std::vector<uint8_t> bytes_;
  ServiceManager manager_;
  Counts *counts_ = nullptr;
  std::vector<Clock::time_point> restarts_;
};

TEST_F(KeptStressTest, NoReaderNotices) {
  std::vector<pid_t> readers;
  uint64_t seed = TestSeed();
  for (int i = 0; i < kShared + kTls; i++)
    readers.push_back(Fork(seed + uint64_t(i), i >= kShared));
  Start();
  while (counts_->opened < kShared + kTls && counts_->failures == 0)
    std::this_thread::sleep_for(milliseconds(1));
  std::mt19937_64 random(seed);
  int kills = TestLength(kKills), stops = TestLength(kStops);
  for (int i = 0; i < kills + stops; i++) {
    // Some live just long enough to be found, and some long enough to be
    // measured.
    int life_ms = i % 4 == 3 ? 1500 : int(random() % 150);
    std::this_thread::sleep_for(milliseconds(life_ms));
    bool is_stop = i % ((kills + stops) / stops) == 0;
    auto end = Clock::now();
    manager_.Stop(is_stop ? SIGTERM : SIGKILL);
    if (life_ms > 1000)
      restarts_.push_back(end);
    Start();
    ASSERT_EQ(manager_.daemon().log().find("cold"), std::string::npos)
        << manager_.daemon().log();
  }
  counts_->ends = true;
  for (pid_t pid : readers) {
    int status = -1;
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(counts_->wrong, 0u);
  EXPECT_EQ(counts_->failures, 0u);
  Report("shared memory", counts_->shared);
  Report("TLS", counts_->tls);
}

} // namespace

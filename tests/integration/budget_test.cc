// The budget holds: a 256 MiB image, read at random for 30 seconds by eight
// connections through a cache of 16 MiB, never takes more than 16 MiB.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <signal.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "tests/support/daemon_process.h"
#include "tests/support/length.h"

namespace {

constexpr uint64_t kSize = 256 << 20;
constexpr uint64_t kBudget = 16 << 20;

TEST(Budget, HoldsUnderEightRandomReaders) {
  using Clock = std::chrono::steady_clock;
  TempDir dir;
  uint64_t seed = TestSeed();
  auto bytes = WriteRandomFile(dir / "disk.img", kSize, seed);
  DaemonProcess daemon({"--image", dir / "disk.img", "--listen",
                        "unix:" + (dir / "socket"), "--cache-size", "16M"});
  ASSERT_TRUE(daemon.ready()) << daemon.log();
  std::string uri = "cachet+unix:///disk.img?socket=" + (dir / "socket");

  std::atomic<bool> stop{false};
  std::atomic<uint64_t> n_reads{0}, n_wrong{0}, n_failed{0};
  std::vector<std::thread> readers;
  for (int t = 0; t < 8; t++)
    readers.emplace_back([&, t] {
      cachet_options options{};
      options.struct_size = sizeof options;
      options.cache_size = 64 << 10; // so that it asks the daemon
      options.flags = CACHET_NO_SHARED_MEMORY;
      cachet *c = nullptr;
      if (cachet_open(uri.c_str(), &options, &c, nullptr) != CACHET_OK) {
        n_failed++;
        return;
      }
      std::mt19937_64 random(seed + 1 + uint64_t(t));
      std::vector<uint8_t> buf(64 << 10);
      while (!stop) {
        size_t len = 1 + random() % (random() % 8 ? 4096 : buf.size());
        uint64_t addr = random() % (kSize - len);
        if (cachet_read(c, addr, buf.data(), len) != CACHET_OK)
          n_failed++;
        else if (memcmp(buf.data(), bytes.data() + addr, len))
          n_wrong++;
        n_reads++;
      }
      cachet_close(c);
    });

  uint64_t most = 0;
  // On a slow machine it goes on until there is something to judge by.
  auto end = Clock::now() + std::chrono::seconds(TestLength(30));
  auto limit = end + std::chrono::seconds(200);
  auto has_enough = [&] { return n_reads > 1000 && most > kBudget * 3 / 4; };
  while (Clock::now() < end || (!has_enough() && Clock::now() < limit)) {
    uint64_t now = daemon.MemfdBytes();
    most = std::max(most, now);
  }
  stop = true;
  for (auto &reader : readers)
    reader.join();
  printf("%llu reads, at most %llu bytes of memfds\n",
         (unsigned long long)n_reads, (unsigned long long)most);
  EXPECT_LE(most, kBudget);
  EXPECT_GT(most, kBudget * 3 / 4) << "and most of it is used";
  EXPECT_EQ(n_wrong, 0u);
  EXPECT_EQ(n_failed, 0u);
  EXPECT_GT(n_reads, 1000u);
  daemon.Kill(SIGTERM);
  EXPECT_EQ(daemon.Wait(), 0) << daemon.log();
}

} // namespace

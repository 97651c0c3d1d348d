// A scan must not push out what is read again and again: measured where it
// matters, through the library.
#include <gtest/gtest.h>

#include <random>

#include "tests/client/handle.h"
#include "tests/support/fake_source.h"
#include "tests/support/test_server.h"

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kCached = 2048;        // pages of the cache
constexpr uint64_t kHot = kCached / 2;    // pages that are read all the time
constexpr uint64_t kPages = kCached * 64; // of the image

// Reads the hot set at random and, for each read of it, the next two pages of a
// scan that never comes back.  Returns how many of the later half of the hot
// reads missed, in percent.
double HotMisses(cachet *hot, cachet *scan) {
  std::mt19937_64 random(1);
  uint64_t next = 2 * kCached, n_missed = 0;
  constexpr int kReads = 20000;
  for (int i = 0; i < kReads; i++) {
    uint8_t byte;
    uint64_t before = cachet_misses(hot);
    EXPECT_EQ(cachet_get_u8(hot, random() % kHot * kPage, &byte), CACHET_OK);
    if (i >= kReads / 2)
      n_missed += cachet_misses(hot) - before;
    for (int k = 0; k < 2; k++, next++)
      EXPECT_EQ(cachet_get_u8(scan, next % kPages * kPage, &byte), CACHET_OK);
  }
  return 100.0 * double(n_missed) / (kReads / 2);
}

cachet_options Small(uint32_t flags) {
  cachet_options o = Options();
  o.cache_size = (kCached + 16) * kPage;
  o.flags = flags;
  return o;
}

TEST(Scan, DoesNotPushTheHotSetOutOfAProcess) {
  TempDir dir;
  std::string path = dir.Write("image", {});
  ASSERT_EQ(truncate(path.c_str(), off_t(kPages * kPage)), 0);
  Handle c = Open(path, Small(CACHET_NO_READAHEAD));
  EXPECT_LT(HotMisses(c.get(), c.get()), 2);
}

class AttachedScan : public testing::TestWithParam<uint32_t> {};

TEST_P(AttachedScan, DoesNotPushTheHotSetOutOfTheDaemon) {
  FakeSource source(kPages * kPage);
  TestServer::Options options;
  options.cache_size = kCached * kPage;
  TestServer server({{"i", &source}}, options);
  std::string uri = "cachet+unix:///i?socket=" + server.socket_path();
  Handle hot = Open(uri, Small(CACHET_NO_READAHEAD));
  Handle scan = Open(uri, Small(GetParam()));
  ASSERT_TRUE(cachet_is_shared(hot.get()));
  EXPECT_LT(HotMisses(hot.get(), scan.get()), 2);
}

INSTANTIATE_TEST_SUITE_P(WithAndWithoutReadahead, AttachedScan,
                         testing::Values(uint32_t{CACHET_NO_READAHEAD},
                                         uint32_t{0}));

} // namespace

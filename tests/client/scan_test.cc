// A scan must not push out what is read again and again: measured where it
// matters, through the library.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <tuple>
#include <vector>

#include "tests/client/handle.h"
#include "tests/support/fake_source.h"
#include "tests/support/test_server.h"

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kCached = 2048;        // pages of the cache
constexpr uint64_t kHot = kCached / 2;    // pages that are read all the time
constexpr uint64_t kPages = kCached * 64; // of the image

// The kinds of scans, each of which goes through the image once or wraps round
// long after its pages have left.
enum class Kind {
  kOnce,    // one byte of each page
  kTwice,   // a reader of half pages
  kSeveral, // four readers, each in a part of the image of its own
  kBehind,  // eight readers of the same pages, each two behind the one before
};

constexpr uint64_t kFirst = 2 * kCached; // page of the scans

struct Scan {
  cachet *c;
  Kind kind;
  uint64_t next = 0;

  void Read(uint64_t page, uint64_t offset = 0) {
    uint8_t byte;
    uint64_t at = (kFirst + page % (kPages - kFirst)) * kPage + offset;
    ASSERT_EQ(cachet_get_u8(c, at, &byte), CACHET_OK);
  }

  // Goes on by two pages in all.
  void Step() {
    for (int i = 0; i < 2; i++, next++) {
      switch (kind) {
      case Kind::kOnce:
        Read(next);
        break;
      case Kind::kTwice:
        Read(next);
        Read(next, kPage / 2);
        break;
      case Kind::kSeveral:
        Read(next % 4 * (kPages / 5) + next / 4);
        break;
      case Kind::kBehind:
        for (uint64_t k = 0; k < 8 && 2 * k <= next; k++)
          Read(next - 2 * k);
        break;
      }
    }
  }
};

void ReadHot(cachet *c, std::mt19937_64 *random) {
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c, (*random)() % kHot * kPage, &byte), CACHET_OK);
}

// 4 to 8 percent miss, most of them when the scan begins.  60 would miss if the
// second reads of a page counted.
constexpr double kMost = 20;

// Reads the hot set at random, and then goes on, with the next two pages of a
// scan for each read of it.  Returns how many of those reads missed, in
// percent.
double HotMisses(cachet *hot, cachet *scanning, Kind kind) {
  std::mt19937_64 random(1);
  Scan scan{scanning, kind};
  uint64_t n_missed = 0;
  constexpr uint64_t kReads = 3 * kCached;
  for (uint64_t i = 0; i < 8 * kHot; i++)
    ReadHot(hot, &random);
  for (uint64_t i = 0; i < kReads; i++) {
    uint64_t before = cachet_misses(hot);
    ReadHot(hot, &random);
    n_missed += cachet_misses(hot) - before;
    scan.Step();
  }
  return 100.0 * double(n_missed) / kReads;
}

cachet_options Small(uint32_t flags) {
  cachet_options o = Options();
  o.cache_size = (kCached + 16) * kPage;
  o.flags = flags;
  return o;
}

// An image without a hole: pages of zeros would take no room.
ssize_t MapAnything(void *, uint64_t, size_t len, const void **out) {
  static const std::vector<uint8_t> bytes(1 << 20, 'x');
  *out = bytes.data();
  return static_cast<ssize_t>(std::min(len, bytes.size()));
}

using Param = std::tuple<Kind, uint32_t>;
class ScanTest : public testing::TestWithParam<Param> {};

TEST_P(ScanTest, DoesNotPushTheHotSetOutOfAProcess) {
  auto [kind, flags] = GetParam();
  cachet_source source = {};
  source.struct_size = sizeof source;
  source.size = kPages * kPage;
  source.map = MapAnything;
  cachet_options options = Small(flags);
  cachet *c = nullptr;
  ASSERT_EQ(cachet_make(&source, &options, &c, nullptr), CACHET_OK);
  Handle handle(c);
  EXPECT_LT(HotMisses(c, c, kind), kMost);
}

TEST_P(ScanTest, DoesNotPushTheHotSetOutOfTheDaemon) {
  auto [kind, flags] = GetParam();
  FakeSource source(kPages * kPage);
  TestServer::Options options;
  options.cache_size = kCached * kPage;
  TestServer server({{"i", &source}}, options);
  std::string uri = "cachet+unix:///i?socket=" + server.socket_path();
  Handle hot = Open(uri, Small(CACHET_NO_READAHEAD));
  Handle scanning = Open(uri, Small(flags));
  ASSERT_TRUE(cachet_is_shared(hot.get()));
  EXPECT_LT(HotMisses(hot.get(), scanning.get(), kind), kMost);
}

// A handle that reads ahead has one reader.
INSTANTIATE_TEST_SUITE_P(
    WithAndWithoutReadahead, ScanTest,
    testing::Values(
        Param{Kind::kOnce, CACHET_NO_READAHEAD}, Param{Kind::kOnce, 0},
        Param{Kind::kTwice, CACHET_NO_READAHEAD}, Param{Kind::kTwice, 0},
        Param{Kind::kSeveral, CACHET_NO_READAHEAD}, Param{Kind::kSeveral, 0},
        Param{Kind::kBehind, CACHET_NO_READAHEAD}));

} // namespace

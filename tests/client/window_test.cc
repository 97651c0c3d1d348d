// Parts of an image, and pages smaller than what is kept: what the oracle does
// not ask.
#include <utility>

#include "tests/client/handle.h"
#include "tests/support/fake_source.h"
#include "tests/support/test_server.h"

namespace {

constexpr uint64_t kPage = 4096;

TEST(Window, ThatReachesPastTheEndIsOutOfBounds) {
  TempDir dir;
  std::string uri = "file:" + dir.Write("image", Content(10000));
  for (const char *query :
       {"?offset=10001", "?length=10001", "?offset=9999&length=2",
        "?offset=1&length=18446744073709551614",
        "?offset=0xffffffffffffffff"}) {
    cachet *c = nullptr;
    cachet_error err = {};
    EXPECT_EQ(cachet_open((uri + query).c_str(), nullptr, &c, &err),
              CACHET_E_BOUNDS)
        << query;
    EXPECT_NE(std::string(err.message).find("10000"), std::string::npos);
  }
  Handle empty = Open(uri + "?offset=10000", Options());
  EXPECT_EQ(cachet_size(empty.get()), 0u);
}

TEST(Window, IsOfThePagesOfTheWholeImage) {
  FakeSource source(64 * kPage);
  TestServer server({{"i", &source}}, TestServer::Options());
  std::string uri = "cachet+unix:///i?socket=" + server.socket_path();
  Handle whole = Open(uri, Options());
  Handle part = Open(uri + "&offset=5000&length=9000", Options());
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(whole.get(), 5000, &byte), CACHET_OK);
  EXPECT_TRUE(cachet_is_cached(part.get(), 0));
  ASSERT_EQ(cachet_get_u8(part.get(), 0, &byte), CACHET_OK);
  EXPECT_EQ(byte, FakeSource::ByteAt(5000));
  EXPECT_EQ(cachet_misses(part.get()), 0u);
  EXPECT_EQ(source.n_bytes(), kPage);
}

TEST(Window, IsWarmedWithoutItsNeighbours) {
  FakeSource source(64 * kPage);
  TestServer server({{"i", &source}}, TestServer::Options());
  Handle part = Open("cachet+unix:///i?offset=5000&length=9000&socket=" +
                         server.socket_path(),
                     Options());
  EXPECT_EQ(cachet_warm(part.get(), 9000, CACHET_TO_END), CACHET_OK);
  EXPECT_EQ(source.n_bytes(), 0u);
  EXPECT_EQ(cachet_warm(part.get(), 0, CACHET_TO_END), CACHET_OK);
  EXPECT_EQ(source.n_bytes(), 3 * kPage);
  EXPECT_TRUE(cachet_is_cached(part.get(), 8999));
}

TEST(Window, EndsReadingAhead) {
  constexpr uint64_t kPages = 20;
  FakeSource source(4096 * kPage);
  TestServer server({{"i", &source}}, TestServer::Options());
  Handle c = Open("cachet+unix:///i?offset=1M&length=80K&socket=" +
                      server.socket_path(),
                  Options());
  for (uint64_t page = 0; page < kPages; page++) {
    uint8_t byte;
    ASSERT_EQ(cachet_get_u8(c.get(), page * kPage, &byte), CACHET_OK);
  }
  c.reset();
  server.BeginStop();
  server.AwaitStop();
  EXPECT_EQ(source.n_bytes(), kPages * kPage);
}

// Changed in place and said so; the time stamps tell the epochs apart.
TEST(Window, EndsWhereAShorterEpochDoes) {
  TempDir dir;
  std::string path = dir.Write("image", Content(10 * kPage));
  Handle cut = Open("file:" + path + "?offset=8192&length=8192", Options());
  Handle open_ended = Open("file:" + path + "?offset=8192", Options());
  Handle gone = Open("file:" + path + "?offset=16384&length=100", Options());
  auto change = [&](size_t size) {
    dir.Write("image", Content(size, 2));
    uint8_t byte;
    for (cachet *c : {cut.get(), open_ended.get(), gone.get()}) {
      EXPECT_EQ(cachet_invalidate(c, 0, CACHET_TO_END), CACHET_OK);
      cachet_get_u8(c, 0, &byte);
    }
  };
  change(3 * kPage);
  EXPECT_EQ(cachet_size(cut.get()), kPage);
  EXPECT_EQ(cachet_size(open_ended.get()), kPage);
  EXPECT_EQ(cachet_size(gone.get()), 0u);
  cachet_slice s;
  EXPECT_EQ(cachet_load(gone.get(), 0, 0, &s), CACHET_END);
  change(20 * kPage);
  EXPECT_EQ(cachet_size(cut.get()), 2 * kPage);
  EXPECT_EQ(cachet_size(open_ended.get()), 18 * kPage);
}

TEST(SmallPages, AreCountedOneByOneAndReadByTheWholePage) {
  MadeSource source(Content(3 * kPage));
  source.before_map = [](uint64_t pos) { EXPECT_EQ(pos % kPage, 0u); };
  cachet_options o = Options();
  o.page_size = 512;
  Handle c = source.Make(o);
  cachet_slice s;
  ASSERT_EQ(cachet_load(c.get(), 1000, 0, &s), CACHET_OK);
  EXPECT_EQ(s.offset, 512u);
  EXPECT_EQ(s.length, 512u);
  cachet_release(c.get(), &s);
  EXPECT_EQ(cachet_misses(c.get()), 1u);
  EXPECT_EQ(cachet_hits(c.get()), 0u);
  EXPECT_EQ(source.n_maps, 1);
  ASSERT_EQ(cachet_load(c.get(), 0, 0, &s), CACHET_OK);
  cachet_release(c.get(), &s);
  EXPECT_EQ(cachet_hits(c.get()), 1u);
  // 8 that are here, and 2 that are not.
  uint8_t buf[kPage + 600];
  ASSERT_EQ(cachet_read(c.get(), 0, buf, sizeof buf), CACHET_OK);
  EXPECT_EQ(cachet_hits(c.get()), 9u);
  EXPECT_EQ(cachet_misses(c.get()), 3u);
  EXPECT_EQ(source.n_maps, 2);
  // All 10 of them, warm.
  ASSERT_EQ(cachet_read(c.get(), 0, buf, sizeof buf), CACHET_OK);
  EXPECT_EQ(cachet_hits(c.get()), 19u);
  EXPECT_EQ(cachet_misses(c.get()), 3u);
  EXPECT_EQ(cachet_pages(c.get(), 0, sizeof buf), 10u);
  EXPECT_EQ(cachet_load(c.get(), 0, 513, &s), CACHET_E_INVAL);
}

TEST(SmallPages, AreForHandlesOfThisProcessOnly) {
  FakeSource source(4 * kPage);
  TestServer server({{"i", &source}}, TestServer::Options());
  cachet_options o = Options();
  o.page_size = 8;
  for (uint32_t flags : {0u, uint32_t{CACHET_NO_SHARED_MEMORY}}) {
    o.flags = flags;
    Handle c = Open("cachet+unix:///i?socket=" + server.socket_path(), o);
    EXPECT_EQ(cachet_page_size(c.get()), kPage);
    Handle copy = Copy(c.get());
    EXPECT_EQ(cachet_page_size(copy.get()), kPage);
  }
}

} // namespace

// Hits in the daemon's memory: the reader counts them, and the daemon tells.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>

#include "tests/support/daemon_process.h"

namespace {

constexpr uint64_t kPage = 4096, kPages = 64;
// What a handle may not have told while it goes on reading.
constexpr uint64_t kUntold = 64;

class CountsTest : public testing::Test {
protected:
  CountsTest() {
    WriteRandomFile(dir_ / "i", kPages * kPage, 1);
    WriteRandomFile(dir_ / "other", kPages * kPage, 1);
    daemon_ = std::make_unique<DaemonProcess>(std::vector<std::string>{
        "--config", "/dev/null", "--image", dir_ / "i", "--image",
        dir_ / "other", "--listen", "unix:" + (dir_ / "s")});
    EXPECT_TRUE(daemon_->ready()) << daemon_->log();
    EXPECT_EQ(
        cachet_admin_open(("cachet+unix:///?socket=" + (dir_ / "s")).c_str(),
                          nullptr, &admin_, nullptr),
        CACHET_OK);
  }
  ~CountsTest() override { cachet_admin_close(admin_); }

  cachet *Open(const std::string &image = "i") {
    cachet *c = nullptr;
    cachet_error err = {};
    EXPECT_EQ(
        cachet_open(
            ("cachet+unix:///" + image + "?socket=" + (dir_ / "s")).c_str(),
            nullptr, &c, &err),
        CACHET_OK)
        << err.message;
    EXPECT_TRUE(cachet_is_shared(c));
    return c;
  }
  // Of an image, or, "", of the daemon.
  uint64_t Stat(const std::string &image, const std::string &name) {
    auto put = [](void *arg, const char *of, const char *what, uint64_t value) {
      (*static_cast<std::map<std::string, uint64_t> *>(
          arg))[(of ? of : "") + std::string("/") + what] = value;
      return 0;
    };
    std::map<std::string, uint64_t> all;
    EXPECT_EQ(cachet_admin_stats(admin_, put, &all), CACHET_OK);
    return all.at(image + "/" + name);
  }

  TempDir dir_;
  std::unique_ptr<DaemonProcess> daemon_;
  cachet_admin *admin_ = nullptr;
};

TEST_F(CountsTest, HitsInTheDaemonsMemoryAreCounted) {
  cachet *c = Open();
  uint8_t byte;
  for (int round = 0; round < 20; round++)
    for (uint64_t page = 0; page < kPages; page++)
      ASSERT_EQ(cachet_get_u8(c, page * kPage, &byte), CACHET_OK);
  uint64_t hits = cachet_hits(c), misses = cachet_misses(c);
  EXPECT_GE(hits, 19 * kPages);
  EXPECT_GE(misses, 1u);
  // While it goes on all but a few are known,
  uint64_t known;
  while ((known = Stat("i", "shared_hits")) + kUntold < hits)
    ;
  EXPECT_LE(known, hits);
  // and when it is closed, all.
  cachet_close(c);
  while (Stat("i", "shared_hits") != hits)
    ;
  EXPECT_EQ(Stat("i", "shared_misses"), misses);
  EXPECT_EQ(Stat("", "shared_hits"), hits);
  EXPECT_EQ(Stat("other", "shared_hits"), 0u);
  // What the next one counts is added.
  c = Open();
  ASSERT_EQ(cachet_get_u8(c, 0, &byte), CACHET_OK);
  ASSERT_EQ(cachet_get_u8(c, 5, &byte), CACHET_OK);
  hits += cachet_hits(c);
  cachet_close(c);
  while (Stat("i", "shared_hits") != hits)
    ;
}

TEST_F(CountsTest, EachHandleAndEachEpochCountsForItself) {
  cachet *one = Open(), *two = Open("other");
  uint8_t byte;
  for (int i = 0; i < 1000; i++)
    ASSERT_EQ(cachet_get_u8(one, 0, &byte), CACHET_OK);
  WriteRandomFile(dir_ / "i", kPages * kPage, 2); // a new epoch
  uint64_t before = cachet_epoch(one);
  while (cachet_epoch(one) == before)
    ASSERT_EQ(cachet_get_u8(one, 0, &byte), CACHET_OK);
  while (!cachet_is_shared(one))
    ASSERT_EQ(cachet_get_u8(one, 0, &byte), CACHET_OK);
  for (int i = 0; i < 1000; i++) {
    ASSERT_EQ(cachet_get_u8(one, 0, &byte), CACHET_OK);
    ASSERT_EQ(cachet_get_u8(two, 0, &byte), CACHET_OK);
  }
  uint64_t hits[] = {cachet_hits(one), cachet_hits(two)};
  cachet_close(one);
  cachet_close(two);
  while (Stat("", "attachments") != 0)
    ;
  // Between the two epochs it may have gone by the socket for a moment.
  EXPECT_LE(Stat("i", "shared_hits"), hits[0]);
  EXPECT_GE(Stat("i", "shared_hits"), 1998u);
  EXPECT_EQ(Stat("other", "shared_hits"), hits[1]);
  EXPECT_EQ(Stat("", "shared_hits"),
            Stat("i", "shared_hits") + Stat("other", "shared_hits"));
}

} // namespace

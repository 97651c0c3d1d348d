// What a cache is held against, and parts of it.
#include "daemon/cache_size.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>

namespace {

using testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;

class CacheSizeTest : public testing::Test {
protected:
  CacheSizeTest() {
    config_init(&config_);
    config_.n_workers = 2;
  }
  ~CacheSizeTest() override { config_fini(&config_); }

  // What is wrong with a cache of that size; "": nothing.
  std::string Settle(const std::string &size, uint64_t limit_bytes,
                     const char *file = nullptr) {
    memory_limit limit{};
    limit.bytes = limit_bytes;
    strcpy(limit.from, "/sys/x/memory.max");
    char why[CONFIG_WHY_LEN];
    if (config_set(&config_, CONFIG_CACHE_SIZE, size.c_str(),
                   {file, 3, nullptr}, why))
      return why;
    config_errors errors{};
    cache_size_settle(&config_, &limit, &errors);
    std::string message = errors.n ? errors.messages[0] : "";
    EXPECT_LE(errors.n, 1u);
    config_errors_fini(&errors);
    return message;
  }

  config config_;
};

TEST_F(CacheSizeTest, OneThatFitsWithWhatTheDaemonNeedsIsTaken) {
  uint64_t need = 256 * kMiB + cache_size_reserve(&config_, 256 * kMiB);
  EXPECT_EQ(Settle("256M", need), "");
  EXPECT_NE(Settle("256M", need - 1), "");
  EXPECT_EQ(Settle("16T", UINT64_MAX), "") << "where nothing is known";
}

// What it has taken beside a large cache it keeps when that is made smaller.
TEST_F(CacheSizeTest, AReloadReckonsWithWhatTheStartHasMeasured) {
  uint64_t small = cache_size_reserve(&config_, 16 * kMiB);
  config_.fitted_size = 1024 * kMiB;
  uint64_t need = 16 * kMiB + cache_size_reserve(&config_, 16 * kMiB);
  EXPECT_GT(need, 16 * kMiB + small);
  EXPECT_NE(Settle("16M", need - 1), "");
  EXPECT_EQ(Settle("16M", need), "");
}

TEST_F(CacheSizeTest, OneThatDoesNotFitIsRefusedWithTheNumbersAndAWayOut) {
  std::string message = Settle("4G", 1024 * kMiB, "/etc/c.conf");
  EXPECT_THAT(message, HasSubstr("/etc/c.conf:3: size: a cache of 4294967296 "
                                 "bytes and the "));
  EXPECT_THAT(message, HasSubstr("more than the 1073741824 that "
                                 "/sys/x/memory.max allows; choose at most "));
  // What it proposes fits, and a MiB more does not.
  std::string at = "at most ";
  unsigned long most = std::stoul(message.substr(message.find(at) + at.size()));
  EXPECT_EQ(Settle(std::to_string(most) + "M", 1024 * kMiB), "");
  EXPECT_NE(Settle(std::to_string(most + 1) + "M", 1024 * kMiB), "");
  EXPECT_GT(most, 512u);
}

TEST_F(CacheSizeTest, WhereNoCacheFitsNoneIsProposed) {
  std::string message = Settle("1M", 8 * kMiB);
  EXPECT_THAT(message, HasSubstr("--cache-size: a cache of 1048576 bytes"));
  EXPECT_THAT(message,
              testing::EndsWith("allows; raise that, or have fewer images or "
                                "workers"));
  EXPECT_NE(Settle("18446744073709551615", 8 * kMiB), "");
}

TEST_F(CacheSizeTest, APartIsOfTheLimit) {
  ASSERT_EQ(Settle("50%", 4096 * kMiB), "");
  EXPECT_EQ(config_.cache_size, 4096 * kMiB / 100 * 50);
  EXPECT_NE(Settle("100%", 4096 * kMiB), "") << "the daemon needs some";
  EXPECT_THAT(Settle("50%", UINT64_MAX), HasSubstr("it is not known"));
  ASSERT_EQ(Settle("64M", 4096 * kMiB), "");
  EXPECT_EQ(config_.cache_size, 64 * kMiB) << "and no part any more";
}

TEST_F(CacheSizeTest, APartIsFrom1To100) {
  for (const char *odd : {"0%", "101%", "1000%", "%", "-5%", "5.5%", "5%%",
                          "5K%", " 5%", "99999999999999999999%"})
    EXPECT_NE(Settle(odd, 4096 * kMiB), "") << odd;
}

TEST_F(CacheSizeTest, WhatTheDaemonNeedsGrowsWithTheCacheAndNotWithoutEnd) {
  EXPECT_LT(cache_size_reserve(&config_, 16 * kMiB), 64 * kMiB);
  EXPECT_LT(cache_size_reserve(&config_, 1024 * kMiB), 300 * kMiB);
}

TEST_F(CacheSizeTest, AnImageNeedsAPieceOfEachWorkerOrAPageIfThatIsLarger) {
  config_image image;
  char why[CONFIG_WHY_LEN];
  for (const char *name : {"small", "large"}) {
    uint64_t before = cache_size_reserve(&config_, 256 * kMiB);
    bool is_large = std::string(name) == "large";
    config_image_init(&image, nullptr);
    strcpy(image.name, name);
    image.page_size = is_large ? 2 * kMiB : 0;
    ASSERT_EQ(config_add_image(&config_, &image, why), 0);
    EXPECT_EQ(cache_size_reserve(&config_, 256 * kMiB) - before,
              (is_large ? 2 * kMiB : kMiB / 4) * 2);
  }
}

TEST_F(CacheSizeTest, AHundredImagesWithDefaultsFitIntoAGigabyte) {
  config_.n_workers = 8;
  for (int i = 0; i < 100; i++) {
    config_image image;
    char why[CONFIG_WHY_LEN];
    config_image_init(&image, nullptr);
    strcpy(image.name, ("i" + std::to_string(i)).c_str());
    ASSERT_EQ(config_add_image(&config_, &image, why), 0);
  }
  EXPECT_EQ(Settle("256M", 1024 * kMiB), "");
}

} // namespace

#include "client/number.h"

#include <gtest/gtest.h>

namespace {

TEST(NumberTest, TakesDecimalAndHexWithUnits) {
  uint64_t n = 0;
  EXPECT_TRUE(number_parse("0", &n) && n == 0);
  EXPECT_TRUE(number_parse("010", &n) && n == 10);
  EXPECT_TRUE(number_parse("0x1F", &n) && n == 31);
  EXPECT_TRUE(number_parse("4k", &n) && n == 4096);
  EXPECT_TRUE(number_parse("3M", &n) && n == 3 << 20);
  EXPECT_TRUE(number_parse("0x2G", &n) && n == 2ull << 30);
  EXPECT_TRUE(number_parse("18446744073709551615", &n) && n == UINT64_MAX);
  EXPECT_TRUE(number_parse("17179869183G", &n) && n == UINT64_MAX << 30);
}

TEST(NumberTest, RefusesWhatIsNoneOrTooLarge) {
  uint64_t n;
  for (const char *text :
       {"", "-1", "+1", " 1", "1 ", "x", "0x", "0xg", "1.5", "1T", "1KK", "K",
        "18446744073709551616", "17179869184G", "0x10000000000000000"})
    EXPECT_FALSE(number_parse(text, &n)) << text;
}

} // namespace

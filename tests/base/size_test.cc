#include "base/size.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace {

uint64_t Parse(const char *text) {
  uint64_t n = 0;
  EXPECT_EQ(size_parse(text, &n), 0) << text;
  return n;
}

TEST(SizeTest, TakesDecimalAndHexWithUnits) {
  EXPECT_EQ(Parse("0"), 0u);
  EXPECT_EQ(Parse("010"), 10u);
  EXPECT_EQ(Parse("0x1F"), 31u);
  EXPECT_EQ(Parse("4k"), 4096u);
  EXPECT_EQ(Parse("3M"), 3u << 20);
  EXPECT_EQ(Parse("0x2G"), 2ull << 30);
  EXPECT_EQ(Parse("5t"), 5ull << 40);
  EXPECT_EQ(Parse("18446744073709551615"), UINT64_MAX);
  EXPECT_EQ(Parse("17179869183G"), UINT64_MAX << 30);
  EXPECT_EQ(Parse("16777215T"), UINT64_MAX << 40);
}

TEST(SizeTest, RefusesWhatIsNone) {
  uint64_t n = 7;
  for (const char *text : {"", "-1", "+1", " 1", "1 ", "x", "0x", "0xg", "1.5",
                           "1P", "1KK", "K", "1MB", "99999999999999999999x"})
    EXPECT_EQ(size_parse(text, &n), -EINVAL) << text;
  EXPECT_EQ(n, 7u);
}

TEST(SizeTest, RefusesWhatIsTooLarge) {
  uint64_t n = 7;
  for (const char *text : {"18446744073709551616", "17179869184G", "16777216T",
                           "0x10000000000000000", "99999999999999999999K"})
    EXPECT_EQ(size_parse(text, &n), -ERANGE) << text;
  EXPECT_EQ(n, 7u);
}

} // namespace

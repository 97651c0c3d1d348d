// Hexadecimal digits.
#include "base/hex.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace {

TEST(HexTest, TwoDigitsAreAByteInEitherCase) {
  EXPECT_EQ(hex_byte("00"), 0);
  EXPECT_EQ(hex_byte("aF"), 0xaf);
  EXPECT_EQ(hex_byte("Fa9"), 0xfa);
}

TEST(HexTest, WhatIsNoDigitIsNone) {
  for (const char *text : {"", "1", "g0", "0g", " 1", "+1", "0x", "\xff\xff"})
    EXPECT_EQ(hex_byte(text), -1) << text;
}

TEST(HexTest, AHashIsReadWholeOrNotAtAll) {
  uint8_t bytes[3] = {0};
  ASSERT_TRUE(hex_parse("01a2FF", bytes, 3));
  EXPECT_EQ(bytes[0], 0x01);
  EXPECT_EQ(bytes[1], 0xa2);
  EXPECT_EQ(bytes[2], 0xff);
  EXPECT_FALSE(hex_parse("01a2F", bytes, 3));
  EXPECT_FALSE(hex_parse("01-2FF", bytes, 3));
}

} // namespace

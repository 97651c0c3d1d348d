// Percent-encoding, and back.
#include "base/percent.h"

#include <errno.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <string.h>

#include <memory>
#include <string>

namespace {

struct Free {
  void operator()(char *p) const { free(p); }
};
using Text = std::unique_ptr<char, Free>;

TEST(Percent, EncodesWhatAUriDoesNotTakeAndLeavesTheRest) {
  Text plain(percent_encode("/run/a-b_c.d~9Z"));
  EXPECT_STREQ(plain.get(), "/run/a-b_c.d~9Z");
  Text odd(percent_encode("a?b#c%41 &=\xc3\xa4"));
  EXPECT_STREQ(odd.get(), "a%3Fb%23c%2541%20%26%3D%C3%A4");
  Text empty(percent_encode(""));
  EXPECT_STREQ(empty.get(), "");
}

TEST(Percent, DecodesEveryByteThatItEncodes) {
  std::string all;
  for (int c = 1; c < 256; c++)
    all += static_cast<char>(c);
  Text encoded(percent_encode(all.c_str()));
  Text decoded(percent_decode(encoded.get(), strlen(encoded.get())));
  ASSERT_NE(decoded, nullptr);
  EXPECT_EQ(all, decoded.get());
}

TEST(Percent, RefusesEscapesThatAreNone) {
  for (const char *bad : {"%", "%4", "%zz", "a%0", "%00", "%-1"}) {
    errno = 0;
    EXPECT_EQ(percent_decode(bad, strlen(bad)), nullptr) << bad;
    EXPECT_EQ(errno, EINVAL) << bad;
  }
}

} // namespace

// A part of something that has a size.
#include "base/window.h"

#include <gtest/gtest.h>

namespace {

TEST(Window, OneWithoutALengthReachesToTheEndWhereverThatIs) {
  window w = {100, WINDOW_TO_END};
  EXPECT_TRUE(window_fits(&w, 100));
  EXPECT_EQ(window_size(&w, 100), 0u);
  EXPECT_EQ(window_size(&w, 150), 50u);
  EXPECT_EQ(window_size(&w, UINT64_MAX), UINT64_MAX - 100);
  EXPECT_FALSE(window_fits(&w, 99));
  EXPECT_EQ(window_size(&w, 99), 0u);
}

TEST(Window, OneWithALengthFitsWhereAllOfItIs) {
  window w = {100, 50};
  EXPECT_TRUE(window_fits(&w, 150));
  EXPECT_EQ(window_size(&w, 1000), 50u);
  EXPECT_FALSE(window_fits(&w, 149));
  EXPECT_EQ(window_size(&w, 149), 49u);
}

TEST(Window, AnEndPastTheLastAddressFitsNowhere) {
  window w = {UINT64_MAX - 1, 2};
  EXPECT_FALSE(window_fits(&w, UINT64_MAX));
  EXPECT_EQ(window_size(&w, UINT64_MAX), 1u);
}

TEST(Window, TheWholeIsNoWindow) {
  window whole = {0, WINDOW_TO_END}, from = {1, WINDOW_TO_END}, up_to = {0, 1};
  EXPECT_TRUE(window_is_whole(&whole));
  EXPECT_FALSE(window_is_whole(&from));
  EXPECT_FALSE(window_is_whole(&up_to));
}

} // namespace

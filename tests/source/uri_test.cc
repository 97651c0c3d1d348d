#include "source/uri.h"

#include <gtest/gtest.h>

namespace {

TEST(SourceUriTest, FindsTheKindByItsSchemeInAnyCase) {
  const char *const one_schemes[] = {"one", "ones", nullptr};
  const char *const two_schemes[] = {"two", nullptr};
  const char *const options[] = {"ca", nullptr};
  const struct source_kind one = {"one", one_schemes, options, 0, {}, {}};
  const struct source_kind two = {"two", two_schemes, options, 0, {}, {}};
  const struct source_kind *const kinds[] = {&one, &two, nullptr};
  EXPECT_EQ(source_uri_kind(kinds, "ones://h"), &one);
  EXPECT_EQ(source_uri_kind(kinds, "TWO:x"), &two);
  EXPECT_EQ(source_uri_kind(kinds, "on://h"), nullptr);
  EXPECT_EQ(source_uri_kind(kinds, "onesome:"), nullptr);
  EXPECT_EQ(source_uri_kind(kinds, "one"), nullptr);
  EXPECT_TRUE(source_uri_has_option(&one, "ca"));
  EXPECT_FALSE(source_uri_has_option(&one, "c"));
}

} // namespace

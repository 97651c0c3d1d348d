#include "source/uri.h"

#include <cstdlib>
#include <string>

#include <gtest/gtest.h>

namespace {

std::string Shown(const char *uri) {
  char *shown = source_uri_shown(uri);
  std::string text = shown;
  std::free(shown);
  return text;
}

TEST(SourceUriTest, ShowsSchemeHostAndPath) {
  EXPECT_EQ(Shown("https://example.org:8443/a/b.img"),
            "https://example.org:8443/a/b.img");
  EXPECT_EQ(Shown("nbd://[::1]:10809/disk"), "nbd://[::1]:10809/disk");
  EXPECT_EQ(Shown("nbd://[::1]/disk"), "nbd://[::1]/disk");
  EXPECT_EQ(Shown("nbd+unix:///export"), "nbd+unix:///export");
  EXPECT_EQ(Shown("rbd:pool/image@snapshot"), "rbd:pool/image@snapshot");
  EXPECT_EQ(Shown("s3://bucket/key@2x"), "s3://bucket/key@2x");
}

TEST(SourceUriTest, ShowsNeitherUserNorQueryNorFragment) {
  EXPECT_EQ(Shown("https://me:secret@h/a"), "https://h/a");
  EXPECT_EQ(Shown("https://me:se@cret@h/a"), "https://h/a");
  EXPECT_EQ(Shown("https://h/a?X-Amz-Signature=secret"), "https://h/a");
  EXPECT_EQ(Shown("https://h/a#secret"), "https://h/a");
  EXPECT_EQ(Shown("https://h?at=secret@x"), "https://h");
  EXPECT_EQ(Shown("rbd:pool/image?key=secret"), "rbd:pool/image");
}

// It is wrong, and the message that says so must not have it either.
TEST(SourceUriTest, ShowsNoPasswordThatHasASlash) {
  EXPECT_EQ(Shown("https://me:sec/ret@h/a"), "https://h/a");
}

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

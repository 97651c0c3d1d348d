#include "base/shown_uri.h"

#include <cstdlib>
#include <string>

#include <gtest/gtest.h>

#include "tests/support/secret_uris.h"

namespace {

std::string Shown(const char *uri) {
  char *shown = shown_uri_of(uri);
  std::string text = shown;
  std::free(shown);
  return text;
}

TEST(ShownUriTest, ShowsSchemeHostAndPath) {
  EXPECT_EQ(Shown("https://example.org:8443/a/b.img"),
            "https://example.org:8443/a/b.img");
  EXPECT_EQ(Shown("nbd://[::1]:10809/disk"), "nbd://[::1]:10809/disk");
  EXPECT_EQ(Shown("nbd://[::1]/disk"), "nbd://[::1]/disk");
  EXPECT_EQ(Shown("nbd+unix:///export"), "nbd+unix:///export");
  EXPECT_EQ(Shown("rbd:pool/image@snapshot"), "rbd:pool/image@snapshot");
  EXPECT_EQ(Shown("s3://bucket/key@2x"), "s3://bucket/key@2x");
}

TEST(ShownUriTest, ShowsNeitherUserNorQueryNorFragment) {
  EXPECT_EQ(Shown("https://me:secret@h/a"), "https://h/a");
  EXPECT_EQ(Shown("https://me:se@cret@h/a"), "https://h/a");
  EXPECT_EQ(Shown("https://h/a?X-Amz-Signature=secret"), "https://h/a");
  EXPECT_EQ(Shown("https://h/a#secret"), "https://h/a");
  EXPECT_EQ(Shown("https://h?at=secret@x"), "https://h");
  EXPECT_EQ(Shown("rbd:pool/image?key=secret"), "rbd:pool/image");
}

// It is wrong, and the message that says so must not have it either.
TEST(ShownUriTest, ShowsNoPasswordThatHasASlash) {
  EXPECT_EQ(Shown("https://me:sec/ret@h/a"), "https://h/a");
}

TEST(ShownUriTest, ShowsNoPasswordWithAMarkOfTheQuery) {
  EXPECT_EQ(Shown("https://me:sec?ret@h/a"), "https://");
  EXPECT_EQ(Shown("https://me:sec#ret@h/a"), "https://");
}

TEST(ShownUriTest, ShowsNoPasswordThoughSlashesAreWrong) {
  EXPECT_EQ(Shown("https:///me:secret@h/a"), "https:///h/a");
  EXPECT_EQ(Shown("https:/me:secret@h/a"), "https:/h/a");
  EXPECT_EQ(Shown("https:me:secret@h/a"), "https:h/a");
  EXPECT_EQ(Shown("https: //me:secret@h/a"), "https: //h/a");
  EXPECT_EQ(Shown("rbd:me:secret@pool/image"), "rbd:pool/image");
  EXPECT_EQ(Shown("cachet+unix:///me:secret@h/a"), "cachet+unix:///h/a");
}

TEST(ShownUriTest, ShowsNoPasswordThoughTheSchemeIsWrong) {
  EXPECT_EQ(Shown("https//me:secret@h/a?secret"), "https//h/a");
  EXPECT_EQ(Shown("x=https://me:secret@h/a?secret"), "x=https://h/a");
  EXPECT_EQ(Shown("zz:https://me:secret@h/a"), "zz:https://h/a");
  EXPECT_EQ(Shown("https://h/a https://me:secret@i/b"),
            "https://h/a https://i/b");
}

TEST(ShownUriTest, ShowsNoPortThatIsNone) {
  EXPECT_EQ(Shown("nbd://h:secret/a"), "nbd://h");
  EXPECT_EQ(Shown("nbd://[::1]:1x/a"), "nbd://[::1]");
  EXPECT_EQ(Shown("nbd://me:secret:1/a"), "nbd://me");
}

TEST(ShownUriTest, ShowsPathsAndNamesWhole) {
  for (const char *text :
       {"", "a", "/srv/a@b:c?d#e", "./x:y@z", "dir/a@b?c", "/a//b@c", "12#3",
        "file:///srv/a@b", "nbd+unix:///disk@2", "nbd+unix:///a:b"})
    EXPECT_EQ(Shown(text), text);
}

TEST(ShownUriTest, ShowsNoSecretOfAnyUri) {
  for (const std::string &uri : SecretUris())
    EXPECT_EQ(Shown(uri.c_str()).find("SECRET"), std::string::npos)
        << uri << ": " << Shown(uri.c_str());
}

} // namespace

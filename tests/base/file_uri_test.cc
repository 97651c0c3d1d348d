#include "base/file_uri.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <string>

namespace {

std::string PathOf(const std::string &uri) {
  char *path = nullptr;
  const char *why = "";
  EXPECT_TRUE(file_uri_is(uri.c_str())) << uri;
  if (file_uri_path(uri.c_str(), &path, &why) < 0)
    return std::string("refused: ") + why;
  std::string copy = path;
  free(path);
  return copy;
}

TEST(FileUriTest, ASchemeEndsAtAColon) {
  EXPECT_EQ(file_uri_scheme_len("nbd://host"), 3u);
  EXPECT_EQ(file_uri_scheme_len("cachet+unix:///x"), 11u);
  for (const char *path :
       {"", "disk.img", "./a:b", "/a:b", "1:2", ":x", "a/b:"})
    EXPECT_EQ(file_uri_scheme_len(path), 0u) << path;
  EXPECT_FALSE(file_uri_is("files:x"));
  EXPECT_FALSE(file_uri_is("file"));
}

TEST(FileUriTest, NamesAPathOfThisHost) {
  EXPECT_EQ(PathOf("file:disk.img"), "disk.img");
  EXPECT_EQ(PathOf("FILE:/srv/disk.img"), "/srv/disk.img");
  EXPECT_EQ(PathOf("file:///srv/disk.img"), "/srv/disk.img");
  EXPECT_EQ(PathOf("file://localhost/disk.img"), "/disk.img");
  EXPECT_EQ(PathOf("file:"), "");
  EXPECT_EQ(PathOf("file://host/x"), "refused: a file: URI cannot name a host");
}

TEST(FileUriTest, IsPercentDecoded) {
  EXPECT_EQ(PathOf("file:a%2Cb%25c%3f%23%20"), "a,b%c?# ");
  for (const char *bad : {"%", "%2", "%zz", "a%00b", "x%2"})
    EXPECT_EQ(PathOf(std::string("file:") + bad),
              "refused: a % must be followed by two hex digits, other than 00");
}

TEST(FileUriTest, WhatOptionsBeginWithHasToBeEncoded) {
  for (const char *bad : {"a?b", "a#b", "a,b"})
    EXPECT_EQ(PathOf(std::string("file:") + bad),
              "refused: in a path ? is written %3F, # is %23 and a comma is "
              "%2C");
}

} // namespace

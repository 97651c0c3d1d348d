// URIs of images of a Ceph cluster, and their options.
#include "source/rbd_target.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <string>
#include <vector>

namespace {

struct Free {
  void operator()(rbd_target *t) const { rbd_target_free(t); }
};
using TargetPtr = std::unique_ptr<rbd_target, Free>;

TargetPtr Make(const std::string &text,
               const std::vector<source_option> &options = {}) {
  const source_uri uri = {text.c_str(), options.data(), options.size()};
  source_fault fault = {};
  rbd_target *t = nullptr;
  int r = rbd_target_new(&uri, &t, &fault);
  EXPECT_TRUE(r == 0 || r == -EINVAL) << text;
  EXPECT_EQ(r < 0, fault.text[0] != '\0') << text;
  return TargetPtr(t);
}

TEST(RbdTargetTest, AUriNamesPoolImageAndSnapshot) {
  TargetPtr t = Make("rbd:pool/image@snapshot");
  ASSERT_TRUE(t);
  EXPECT_STREQ(t->pool, "pool");
  EXPECT_STREQ(t->name_space, "");
  EXPECT_STREQ(t->image, "image");
  EXPECT_STREQ(t->snapshot, "snapshot");
}

TEST(RbdTargetTest, ANamespaceStandsInBetween) {
  TargetPtr t = Make("RBD:pool/space/image");
  ASSERT_TRUE(t);
  EXPECT_STREQ(t->name_space, "space");
  EXPECT_STREQ(t->image, "image");
  EXPECT_EQ(t->snapshot, nullptr);
}

TEST(RbdTargetTest, EachNameIsDecodedByItself) {
  TargetPtr t = Make("rbd:p%2Fq/a%40b%3Ac@%25");
  ASSERT_TRUE(t);
  EXPECT_STREQ(t->pool, "p/q");
  EXPECT_STREQ(t->image, "a@b:c");
  EXPECT_STREQ(t->snapshot, "%");
}

TEST(RbdTargetTest, WhatNamesNoImageIsRefused) {
  for (const char *bad :
       {"rbd:", "rbd:/", "rbd:pool", "rbd:pool/", "rbd:/image", "rbd://pool/a",
        "rbd:pool//image", "rbd:a/b/c/d", "rbd:pool/image@", "rbd:pool/@s",
        "rbd:pool@s", "rbd:pool/image@s/t", "rbd:pool/image@s@t",
        "rbd:pool/a b", "rbd:pool/a\n", "rbd:pool/%zz", "rbd:pool/%00",
        "rbd:pool/image?x=y", "rbd:pool/image#f", "rbd2:pool/image", "rb",
        // What qemu takes there.
        "rbd:pool/image:id=admin:key=secret", "rbd:pool/image@s:conf=/x"})
    EXPECT_FALSE(Make(bad)) << bad;
  EXPECT_TRUE(Make("rbd:pool/" + std::string(256, 'x')));
  EXPECT_FALSE(Make("rbd:pool/" + std::string(257, 'x')));
}

TEST(RbdTargetTest, OptionsHaveDefaults) {
  TargetPtr t = Make("rbd:pool/image");
  ASSERT_TRUE(t);
  EXPECT_STREQ(t->conf, "/etc/ceph/ceph.conf");
  EXPECT_STREQ(t->id, "admin");
  EXPECT_EQ(t->keyring, nullptr);
  EXPECT_EQ(t->timeout_ms, 10000u);
}

TEST(RbdTargetTest, OptionsAreTakenAndChecked) {
  TargetPtr t = Make("rbd:pool/image", {{"conf", "/c"},
                                        {"id", "x"},
                                        {"id", "reader"},
                                        {"keyring", "/k"},
                                        {"attempt-timeout", "3600"}});
  ASSERT_TRUE(t);
  EXPECT_STREQ(t->conf, "/c");
  EXPECT_STREQ(t->id, "reader");
  EXPECT_STREQ(t->keyring, "/k");
  EXPECT_EQ(t->timeout_ms, 3600000u);
  for (const char *bad : {"0", "3601", "-1", "5s", "", " 5", "99999999999999"})
    EXPECT_FALSE(Make("rbd:pool/image", {{"attempt-timeout", bad}})) << bad;
  EXPECT_FALSE(Make("rbd:pool/image", {{"conf", "ceph.conf"}}));
  EXPECT_FALSE(Make("rbd:pool/image", {{"keyring", ""}}));
  EXPECT_FALSE(Make("rbd:pool/image", {{"id", ""}}));
  EXPECT_FALSE(Make("rbd:pool/image", {{"nonsense", "1"}}));
}

TEST(RbdTargetTest, ACopyHasAllOfIt) {
  TargetPtr t = Make("rbd:pool/space/image@s", {{"keyring", "/k"}});
  ASSERT_TRUE(t);
  TargetPtr copy(rbd_target_copy(t.get()));
  ASSERT_TRUE(copy);
  t.reset();
  EXPECT_STREQ(copy->pool, "pool");
  EXPECT_STREQ(copy->name_space, "space");
  EXPECT_STREQ(copy->snapshot, "s");
  EXPECT_STREQ(copy->keyring, "/k");
  EXPECT_EQ(copy->timeout_ms, 10000u);
}

} // namespace

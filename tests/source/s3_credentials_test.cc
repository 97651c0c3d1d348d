// Keys for S3: from variables, and from profiles of a file.
#include "source/s3_credentials.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>

#include "tests/support/daemon_process.h"

namespace {

std::string Find(const std::string &text, const char *profile,
                 const char *key = "k") {
  std::unique_ptr<char, void (*)(void *)> value(
      s3_credentials_find(text.c_str(), profile, key), free);
  return value ? value.get() : "(none)";
}

TEST(S3CredentialsTest, AValueIsThatOfItsProfile) {
  const std::string text = "k = outside\n[a]\nk=1\n k2 = 2\n\n[ b ]\r\n"
                           "\tk =  x = y \r\n[profile c]\nk=3";
  EXPECT_EQ(Find(text, "a"), "1");
  EXPECT_EQ(Find(text, "a", "k2"), "2");
  EXPECT_EQ(Find(text, "b"), "x = y");
  EXPECT_EQ(Find(text, "c"), "3");
  EXPECT_EQ(Find(text, "d"), "(none)");
  EXPECT_EQ(Find(text, "b", "k2"), "(none)");
}

TEST(S3CredentialsTest, CommentsAndEmptyValuesAreNone) {
  EXPECT_EQ(Find("[a]\n#k=1\n;k=1\nk=\nk", "a"), "(none)");
  EXPECT_EQ(Find("[a\nk=1\n[]\nk=2\n[profile]\nk=3\n[profilea]\nk=4", "a"),
            "(none)");
  EXPECT_EQ(Find("", "a"), "(none)");
  EXPECT_EQ(Find("[a]\nk=" + std::string(5000, 't'), "a"),
            std::string(5000, 't'));
}

class S3CredentialsLoadTest : public testing::Test {
protected:
  S3CredentialsLoadTest() {
    for (const char *name : kVariables)
      unsetenv(name);
    setenv("HOME", dir_.path().c_str(), 1);
  }
  ~S3CredentialsLoadTest() override {
    for (const char *name : kVariables)
      unsetenv(name);
    s3_credentials_fini(&found_);
  }

  int Load(const char *profile = nullptr, const char *file = nullptr) {
    const s3_credentials_place place = {profile, file};
    const char *why = nullptr;
    s3_credentials_fini(&found_);
    int status = s3_credentials_load(&place, &found_, &why);
    EXPECT_EQ(status == 0, why == nullptr);
    return status;
  }

  std::string Write(const std::string &text) {
    std::ofstream(dir_ / "file") << text;
    return dir_ / "file";
  }

  static constexpr const char *kVariables[] = {
      "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
      "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"};

  TempDir dir_;
  s3_credentials found_ = {};
};

TEST_F(S3CredentialsLoadTest, TheVariablesComeFirst) {
  setenv("AWS_ACCESS_KEY_ID", "a", 1);
  setenv("AWS_SECRET_ACCESS_KEY", "s", 1);
  const std::string file =
      Write("[default]\naws_access_key_id=fa\naws_secret_access_key=fs\n");
  setenv("AWS_SHARED_CREDENTIALS_FILE", file.c_str(), 1);
  ASSERT_EQ(Load(), 0);
  EXPECT_STREQ(found_.access_key, "a");
  EXPECT_STREQ(found_.secret_key, "s");
  EXPECT_EQ(found_.token, nullptr);
  setenv("AWS_SESSION_TOKEN", "t", 1);
  ASSERT_EQ(Load(), 0);
  EXPECT_STREQ(found_.token, "t");
}

TEST_F(S3CredentialsLoadTest, AProfileThatIsNamedIsOfTheFile) {
  setenv("AWS_ACCESS_KEY_ID", "a", 1);
  setenv("AWS_SECRET_ACCESS_KEY", "s", 1);
  const std::string file =
      Write("[default]\naws_access_key_id=fa\naws_secret_access_key=fs\n"
            "[p]\naws_access_key_id=pa\naws_secret_access_key=ps\n"
            "aws_session_token=pt\n");
  ASSERT_EQ(Load("p", file.c_str()), 0);
  EXPECT_STREQ(found_.access_key, "pa");
  EXPECT_STREQ(found_.secret_key, "ps");
  EXPECT_STREQ(found_.token, "pt");
  ASSERT_EQ(Load(nullptr, file.c_str()), 0);
  EXPECT_STREQ(found_.access_key, "fa");
  setenv("AWS_PROFILE", "p", 1);
  ASSERT_EQ(Load(nullptr, file.c_str()), 0);
  EXPECT_STREQ(found_.access_key, "pa");
}

TEST_F(S3CredentialsLoadTest, WithoutKeysThereIsAnError) {
  EXPECT_EQ(Load(), -ENOKEY);
  setenv("AWS_ACCESS_KEY_ID", "a", 1); // half of them
  EXPECT_EQ(Load(), -ENOKEY);
  const std::string file = Write("[default]\naws_access_key_id=fa\n");
  EXPECT_EQ(Load(nullptr, file.c_str()), -ENOKEY);
  EXPECT_EQ(Load(nullptr, dir_.path().c_str()), -EISDIR);
}

} // namespace

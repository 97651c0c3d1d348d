// Keys for S3: from variables, from profiles of a file, and from services that
// give some for a while.
#include "source/s3_credentials.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>

#include "base/deadline.h"
#include "source/s3_grant.h"
#include "source/s3_profiles.h"
#include "tests/support/daemon_process.h"
#include "tests/support/fake_aws.h"

// Sockets of this process, and those that a program inherits which it executes.
static std::atomic<int> n_connected, n_inherited;

extern "C" int connect(int fd, const sockaddr *address, socklen_t len) {
  n_connected++;
  n_inherited += !(fcntl(fd, F_GETFD) & FD_CLOEXEC);
  return int(syscall(SYS_connect, fd, address, len));
}

namespace {

std::string Find(const std::string &text, const char *profile,
                 const char *key = "k") {
  std::unique_ptr<char, void (*)(void *)> value(
      s3_profiles_find(text.c_str(), profile, key), free);
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
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
  }
  ~S3CredentialsLoadTest() override {
    for (const char *name : kVariables)
      unsetenv(name);
    s3_credentials_fini(&found_);
  }

  int Load(const char *profile = nullptr, const char *file = nullptr) {
    const s3_credentials_place place = {profile, file, nullptr, nullptr};
    const char *why = nullptr;
    s3_credentials_fini(&found_);
    int status =
        s3_credentials_load(&place, deadline_after(60000), &found_, &why);
    EXPECT_TRUE(status == 0 || why != nullptr);
    why_ = why ? why : "";
    return status;
  }

  std::string Write(const std::string &text) {
    std::ofstream(dir_ / "file") << text;
    return dir_ / "file";
  }

  static constexpr const char *kVariables[] = {
      "AWS_ACCESS_KEY_ID",
      "AWS_SECRET_ACCESS_KEY",
      "AWS_SESSION_TOKEN",
      "AWS_PROFILE",
      "AWS_SHARED_CREDENTIALS_FILE",
      "AWS_EC2_METADATA_DISABLED",
      "AWS_EC2_METADATA_SERVICE_ENDPOINT",
      "AWS_WEB_IDENTITY_TOKEN_FILE",
      "AWS_ROLE_ARN",
      "AWS_ROLE_SESSION_NAME",
      "AWS_ENDPOINT_URL",
      "AWS_ENDPOINT_URL_STS",
      "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
      "AWS_CONTAINER_CREDENTIALS_FULL_URI",
      "AWS_CONTAINER_AUTHORIZATION_TOKEN",
      "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"};

  TempDir dir_;
  s3_credentials found_ = {};
  std::string why_;
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

TEST_F(S3CredentialsLoadTest, WhatCouldEndAHeaderIsNoKey) {
  setenv("AWS_ACCESS_KEY_ID", "a\r\nx: y", 1);
  setenv("AWS_SECRET_ACCESS_KEY", "s", 1);
  EXPECT_EQ(Load(), -EPROTO);
}

// ---- Services ---------------------------------------------------------------

class S3ServicesTest : public S3CredentialsLoadTest {
protected:
  void UseInstance() {
    unsetenv("AWS_EC2_METADATA_DISABLED");
    setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", aws_.Url("/").c_str(), 1);
  }
  void UseContainer() {
    setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", aws_.Url("/agent").c_str(), 1);
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", FakeAws::kWord, 1);
  }
  void UseWebIdentity() {
    std::ofstream(dir_ / "identity") << FakeAws::kIdentity << "\n";
    setenv("AWS_WEB_IDENTITY_TOKEN_FILE", (dir_ / "identity").c_str(), 1);
    setenv("AWS_ROLE_ARN", FakeAws::kRole, 1);
    setenv("AWS_ROLE_SESSION_NAME", "me", 1);
    setenv("AWS_ENDPOINT_URL_STS", aws_.Url("/sts").c_str(), 1);
  }
  void ExpectGiven() {
    ASSERT_EQ(Load(), 0) << why_;
    EXPECT_STREQ(found_.access_key, "AK");
    EXPECT_STREQ(found_.secret_key, "SK/+=");
    EXPECT_STREQ(found_.token, "TK");
    EXPECT_EQ(found_.expires_s, 4102444800);
  }

  FakeAws aws_;
};

TEST_F(S3ServicesTest, AnInstanceHasThoseOfItsRole) {
  UseInstance();
  ExpectGiven();
  EXPECT_EQ(aws_.requests().size(), 3u);
}

TEST_F(S3ServicesTest, AContainerHasThoseOfItsAgent) {
  UseContainer();
  ExpectGiven();
  unsetenv("AWS_CONTAINER_AUTHORIZATION_TOKEN");
  EXPECT_EQ(Load(), -EACCES);
  const std::string file = Write(std::string(FakeAws::kWord) + "\n");
  setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.c_str(), 1);
  ExpectGiven();
}

TEST_F(S3ServicesTest, AWebIdentityHasThoseOfItsRole) {
  UseWebIdentity();
  ExpectGiven();
  std::ofstream(dir_ / "identity") << "another";
  EXPECT_EQ(Load(), -EACCES);
  setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/absent", 1);
  EXPECT_EQ(Load(), -ENOENT);
}

TEST_F(S3ServicesTest, NoProgramInheritsTheirSockets) {
  UseInstance();
  n_connected = n_inherited = 0;
  ExpectGiven();
  EXPECT_GT(n_connected, 0);
  EXPECT_EQ(n_inherited, 0);
}

// As the usual tools look for them.
TEST_F(S3ServicesTest, EachIsAskedIfThereIsNoneBeforeIt) {
  UseInstance();
  UseContainer();
  ExpectGiven();
  EXPECT_EQ(aws_.requests().back().target, "/agent");
  const std::string file =
      Write("[default]\naws_access_key_id=fa\naws_secret_access_key=fs\n");
  setenv("AWS_SHARED_CREDENTIALS_FILE", file.c_str(), 1);
  ASSERT_EQ(Load(), 0);
  EXPECT_STREQ(found_.access_key, "fa");
  UseWebIdentity();
  ExpectGiven();
  EXPECT_EQ(aws_.requests().back().target, "/sts");
  setenv("AWS_ACCESS_KEY_ID", "a", 1);
  setenv("AWS_SECRET_ACCESS_KEY", "s", 1);
  ASSERT_EQ(Load(), 0);
  EXPECT_STREQ(found_.access_key, "a");
  ASSERT_EQ(Load(nullptr, file.c_str()), 0);
  EXPECT_STREQ(found_.access_key, "fa");
}

TEST_F(S3ServicesTest, OneThatFailsHasNoSuccessor) {
  UseInstance();
  UseContainer();
  aws_.Say("500");
  EXPECT_EQ(Load(), -EIO);
  aws_.Say("404");
  EXPECT_EQ(Load(), -EACCES);
  for (const ScriptedHttp::Request &r : aws_.requests())
    EXPECT_EQ(r.target, "/agent");
}

TEST_F(S3ServicesTest, AnInstanceWithoutARoleHasNone) {
  UseInstance();
  aws_.Say("404");
  EXPECT_EQ(Load(), -ENOKEY);
  aws_.Say("401");
  EXPECT_EQ(Load(), -EACCES);
  setenv("AWS_EC2_METADATA_DISABLED", "True", 1);
  EXPECT_EQ(Load(), -ENOKEY);
}

TEST_F(S3ServicesTest, AnAnswerWithoutKeysIsNone) {
  UseInstance();
  for (const std::string &body :
       {std::string(), std::string("[]"), std::string("{"),
        std::string("{\"AccessKeyId\": \"a\", \"SecretAccessKey\": \"s\"}"),
        std::string("{\"AccessKeyId\": 1, \"SecretAccessKey\": \"s\", "
                    "\"Token\": \"t\"}"),
        std::string("{\"AccessKeyId\": \"a\", \"SecretAccessKey\": \"s\", "
                    "\"Token\": \"t\\r\\nx: y\"}")}) {
    aws_.Say("200", body);
    EXPECT_EQ(Load(), -EPROTO) << body;
  }
  aws_.Say("200", std::string(100000, 'x')); // more than an answer has
  EXPECT_LT(Load(), 0);
}

TEST_F(S3ServicesTest, AContainersAgentIsOnThisMachine) {
  for (const char *url :
       {"http://example.org/", "http://127.0.0.1.example.org/",
        "ftp://127.0.0.1/", "http:/", "http://10.0.0.1/"}) {
    setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url, 1);
    EXPECT_EQ(Load(), -EACCES) << url;
    EXPECT_NE(why_.find("another machine"), std::string::npos) << why_;
  }
}

TEST_F(S3ServicesTest, AServiceThatIsStoppedIsNotWaitedForLongerThanAllowed) {
  UseInstance();
  aws_.Hold();
  const s3_credentials_place place = {};
  const char *why;
  EXPECT_EQ(s3_credentials_load(&place, deadline_after(100), &found_, &why),
            -ETIMEDOUT);
}

TEST_F(S3ServicesTest, NobodyIsToldASecret) {
  UseWebIdentity();
  aws_.Say("403", FakeAws::kIdentity);
  EXPECT_EQ(Load(), -EACCES);
  EXPECT_EQ(why_.find(FakeAws::kIdentity), std::string::npos);
}

TEST(S3GrantTest, ATimeIsOfUtc) {
  EXPECT_EQ(s3_grant_time("2026-11-26T13:50:00Z"), 1795701000);
  EXPECT_EQ(s3_grant_time("2026-11-26T13:50:00.123Z"), 1795701000);
  for (const char *bad : {"", "2026-11-26", "2026-11-26T13:50:00",
                          "2026-11-26T13:50:00+01:00", "2026-13-26T13:50:00Z"})
    EXPECT_EQ(s3_grant_time(bad), 0) << bad;
}

} // namespace

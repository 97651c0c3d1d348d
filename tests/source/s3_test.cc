// Images in S3, from a server that checks signatures and makes its errors.
#include "source/s3.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cache/source.h"
#include "source/reactor.h"
#include "tests/support/daemon_process.h"
#include "tests/support/fake_aws.h"
#include "tests/support/fake_s3.h"

namespace {

using Request = ScriptedHttp::Request;

struct Close {
  void operator()(source *src) const { src->ops->close(src); }
};
using SourcePtr = std::unique_ptr<source, Close>;

class S3Test : public testing::Test {
protected:
  S3Test() {
    EXPECT_EQ(reactor_new(&reactor_), 0);
    for (const char *name :
         {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
          "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_REGION",
          "AWS_EC2_METADATA_SERVICE_ENDPOINT", "AWS_DEFAULT_REGION",
          "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"})
      unsetenv(name);
    WriteKeys("AKID", "secret/+key");
  }
  ~S3Test() override { reactor_free(reactor_); }

  void WriteKeys(const std::string &access_key, const std::string &secret_key,
                 const std::string &token = "") {
    std::ofstream file(dir_ / "credentials");
    file << "[default]\naws_access_key_id = " << access_key
         << "\naws_secret_access_key = " << secret_key << "\n";
    if (!token.empty())
      file << "aws_session_token = " << token << "\n";
  }

  // NULL: it cannot be opened, `fault_` says why.
  SourcePtr Open(const std::string &text, int expected = 0,
                 std::vector<source_option> options = {}) {
    const std::string endpoint = s3_.endpoint(), keys = dir_ / "credentials";
    options.push_back({"endpoint", endpoint.c_str()});
    if (has_file_)
      options.push_back({"credentials", keys.c_str()});
    const source_uri uri = {text.c_str(), options.data(), options.size()};
    timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += 60;
    source *src = nullptr;
    fault_ = {};
    EXPECT_EQ(s3_source_kind.open(reactor_, &uri, &deadline, &src, &fault_),
              expected)
        << fault_.text;
    return SourcePtr(src);
  }

  int Read(source *src) {
    std::string read(1000, 'x');
    int status = source_read_blocking(src, 4096, &read[0], read.size());
    EXPECT_TRUE(status || read == s3_.bytes.substr(4096, 1000));
    return status;
  }

  void AwaitRead(source *src) {
    while (Read(src) == -EACCES)
      usleep(10000);
  }

  int Check(const std::string &text,
            const std::vector<source_option> &options = {}) {
    const source_uri uri = {text.c_str(), options.data(), options.size()};
    return s3_source_kind.check(&uri, &fault_);
  }

  FakeS3 s3_{[] {
    std::string b(100000, '\0');
    for (size_t i = 0; i < b.size(); i++)
      b[i] = char(i * 7919 >> 5);
    return b;
  }()};
  TempDir dir_;
  bool has_file_ = true; // of credentials
  struct reactor *reactor_ = nullptr;
  source_fault fault_ = {};
};

TEST_F(S3Test, RequestsAreSignedAsTheyAreSent) {
  SourcePtr src = Open("s3://bucket/a%20b+c/../%2e%C3%A4//d");
  ASSERT_TRUE(src);
  EXPECT_EQ(src->size, s3_.bytes.size());
  EXPECT_EQ(Read(src.get()), 0);
  const Request r = s3_.requests().at(1);
  EXPECT_EQ(r.target, "/bucket/a%20b%2Bc/../.%C3%A4//d");
  EXPECT_EQ(r.Field("range"), "bytes=4096-5095");
  EXPECT_EQ(r.Field("if-match"), "\"v1\"");
}

TEST_F(S3Test, AHeadIsSignedToo) {
  SourcePtr src = Open("s3://bucket/key", 0, {{"watch", "1"}});
  ASSERT_TRUE(src);
  source *fresh = nullptr;
  while (s3_.requests().size() < 3) {
    ASSERT_EQ(src->ops->reopen(src.get(), &fresh), 0);
    usleep(10000); // it is asked for once a second
  }
  EXPECT_EQ(fresh, nullptr);
  EXPECT_EQ(s3_.requests().at(1).method, "HEAD");
  EXPECT_EQ(s3_.requests().at(2).method, "HEAD") << "the first one was right";
}

TEST_F(S3Test, AVersionIsAskedFor) {
  SourcePtr src = Open("s3://bucket/key?versionId=a%2Fb");
  ASSERT_TRUE(src);
  EXPECT_EQ(s3_.requests().at(0).target, "/bucket/key?versionId=a%2Fb");
}

TEST_F(S3Test, ABucketMayStandInTheNameOfTheHost) {
  s3_.SetKeys("", "");
  const std::string port = s3_.endpoint().substr(s3_.endpoint().rfind(':') + 1);
  setenv("http_proxy", s3_.endpoint().c_str(), 1);
  SourcePtr src = Open("s3://my.bucket/key", 0,
                       {{"path-style", "no"}, {"anonymous", "yes"}});
  unsetenv("http_proxy");
  ASSERT_TRUE(src);
  EXPECT_EQ(s3_.requests().at(0).target,
            "http://my.bucket.127.0.0.1:" + port + "/key");
}

TEST_F(S3Test, WithoutAnEndpointItIsAmazons) {
  s3_.SetKeys("", "");
  setenv("https_proxy", s3_.endpoint().c_str(), 1);
  const source_option options[] = {{"region", "eu-west-1"},
                                   {"anonymous", "yes"}};
  const source_uri uri = {"s3://bucket/key", options, 2};
  timespec deadline;
  clock_gettime(CLOCK_MONOTONIC, &deadline);
  deadline.tv_sec += 60;
  source *src = nullptr;
  EXPECT_LT(s3_source_kind.open(reactor_, &uri, &deadline, &src, &fault_), 0);
  unsetenv("https_proxy");
  EXPECT_EQ(s3_.requests().at(0).target,
            "bucket.s3.eu-west-1.amazonaws.com:443");
}

TEST_F(S3Test, WhoIsAnonymousSignsNothing) {
  s3_.SetKeys("", "");
  SourcePtr src = Open("s3://bucket/key", 0, {{"anonymous", "yes"}});
  ASSERT_TRUE(src);
  EXPECT_EQ(Read(src.get()), 0);
  EXPECT_EQ(s3_.requests().at(1).Field("x-amz-date"), "");
}

TEST_F(S3Test, ATokenIsSentAndSigned) {
  s3_.SetKeys("AKID", "secret/+key", "a+token");
  WriteKeys("AKID", "secret/+key", "a+token");
  SourcePtr src = Open("s3://bucket/key");
  ASSERT_TRUE(src);
  EXPECT_NE(
      s3_.requests().at(0).Field("authorization").find("x-amz-security-token"),
      std::string::npos);
}

TEST_F(S3Test, CredentialsThatExpireAreRenewedFromTheirFile) {
  s3_.SetKeys("AKID", "secret/+key", "old");
  WriteKeys("AKID", "secret/+key", "old");
  SourcePtr src = Open("s3://bucket/key");
  ASSERT_TRUE(src);
  s3_.SetKeys("AKID", "secret/+key", "new");
  EXPECT_EQ(Read(src.get()), -EACCES); // the file has no others
  WriteKeys("AKID", "secret/+key", "new");
  AwaitRead(src.get()); // until the next second: it was just looked at
  s3_.SetKeys("AKID2", "another");
  WriteKeys("AKID2", "another");
  EXPECT_EQ(Read(src.get()), 0);
}

// Requests that were signed before are refused one after the other, and each is
// signed anew.
TEST_F(S3Test, AllThatWereUnderWayGetTheBytesWithNewCredentials) {
  s3_.SetKeys("AKID", "secret/+key", "old");
  WriteKeys("AKID", "secret/+key", "old");
  SourcePtr src = Open("s3://bucket/key");
  ASSERT_TRUE(src);
  s3_.SetKeys("AKID", "secret/+key", "new");
  WriteKeys("AKID", "secret/+key", "new");
  std::vector<std::thread> readers;
  for (int i = 0; i < 20; i++)
    readers.emplace_back([&] { EXPECT_EQ(Read(src.get()), 0); });
  for (std::thread &t : readers)
    t.join();
}

TEST_F(S3Test, CredentialsOfAnInstanceAreRenewedFromItsMetadata) {
  FakeAws aws;
  has_file_ = false;
  setenv("AWS_SHARED_CREDENTIALS_FILE", "/absent", 1);
  setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", aws.Url().c_str(), 1);
  aws.Give("AKID", "secret/+key", "old", "2100-01-01T00:00:00Z");
  s3_.SetKeys("AKID", "secret/+key", "old");
  SourcePtr src = Open("s3://bucket/key");
  ASSERT_TRUE(src);
  EXPECT_EQ(Read(src.get()), 0);
  aws.Give("AKID2", "other", "new", "2100-01-01T00:00:00Z");
  s3_.SetKeys("AKID2", "other", "new");
  EXPECT_EQ(Read(src.get()), 0);
  EXPECT_EQ(aws.n_asked(), 2);
}

TEST_F(S3Test, AClockThatIsWrongIsSetByTheServers) {
  s3_.SetClock(3600);
  SourcePtr src = Open("s3://bucket/key");
  ASSERT_TRUE(src);
  EXPECT_EQ(s3_.requests().size(), 2u);
  EXPECT_EQ(Read(src.get()), 0);
  EXPECT_EQ(s3_.requests().size(), 3u);
  s3_.SetClock(-3600);
  EXPECT_EQ(Read(src.get()), 0);
  EXPECT_EQ(s3_.requests().size(), 5u);
}

TEST_F(S3Test, ErrorsAreWhatTheirCodesSay) {
  SourcePtr src = Open("s3://bucket/key");
  ASSERT_TRUE(src);
  const struct {
    const char *http, *code;
    int status;
  } cases[] = {{"503", "SlowDown", -EAGAIN},
               {"400", "RequestTimeout", -EAGAIN},
               {"404", "NoSuchKey", -ENOENT},
               {"404", "NoSuchBucket", -ENOENT},
               {"403", "AccessDenied", -EACCES},
               {"500", "InternalError", -EREMOTEIO},
               {"412", "PreconditionFailed", -ESTALE},
               {"301", "PermanentRedirect", -EPROTO},
               {"403", "SomethingElse", -EACCES},
               {"400", "", -EREMOTEIO}};
  for (const auto &c : cases) {
    s3_.Fail(c.http, c.code);
    EXPECT_EQ(Read(src.get()), c.status) << c.code;
    s3_.Fail("");
    EXPECT_EQ(Read(src.get()), 0);
  }
}

TEST_F(S3Test, WhatCannotBeOpenedSaysWhyWithoutSecrets) {
  WriteKeys("AKID", "wrong");
  EXPECT_FALSE(Open("s3://bucket/key?versionId=v", -EACCES));
  EXPECT_STREQ(fault_.text,
               "s3://bucket/key: the secret key is wrong (HTTP status 403)");
  EXPECT_FALSE(Open("s3://bucket/key", -ENOKEY, {{"profile", "absent"}}));
  EXPECT_NE(strstr(fault_.text, "no credentials"), nullptr) << fault_.text;
}

TEST_F(S3Test, UrisAndOptionsAreCheckedWithoutAServer) {
  EXPECT_EQ(Check("s3://b/k"), 0);
  EXPECT_EQ(Check("S3://b/k?versionId=1"), 0);
  for (const char *bad :
       {"s3:b/k", "s3://", "s3://b", "s3://b/", "s3:///k", "s3://b c/k",
        "s3://.b/k", "s3://b@host/k", "s3://b/k#f", "s3://b/k?x=y",
        "s3://b/k?versionId=", "s3://b/k?versionId=1&x=2", "s3://b/%zz",
        "s3://b/%00"})
    EXPECT_EQ(Check(bad), -EINVAL) << bad;
  EXPECT_EQ(Check("s3://b/k", {{"endpoint", "https://h:1/"}}), 0);
  for (const char *bad : {"h", "ftp://h", "http://", "http://h/p", "http://u@h",
                          "http://h\r\nx: y"})
    EXPECT_EQ(Check("s3://b/k", {{"endpoint", bad}}), -EINVAL) << bad;
  EXPECT_EQ(Check("s3://b/k", {{"region", "a/b"}}), -EINVAL);
  EXPECT_EQ(Check("s3://b/k", {{"path-style", "maybe"}}), -EINVAL);
  EXPECT_EQ(Check("s3://b/k", {{"anonymous", "1"}}), -EINVAL);
  EXPECT_EQ(Check("s3://b/k", {{"credentials", "keys"}}), -EINVAL);
  EXPECT_EQ(Check("s3://b/k", {{"connections", "0"}}), -EINVAL);
}

} // namespace

// Images in the S3 of radosgw, which checks signatures itself.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/ceph_cluster.h"
#include "tests/support/daemon_process.h"
#include "tests/support/length.h"
#include "tests/support/oracle.h"
#include "tests/support/readers.h"

namespace {

constexpr uint64_t kSize = (32 << 20) + 777;

// What a shell prints of a command, up to the first line's end.
std::string FirstLineOf(const std::string &command) {
  char line[256] = "";
  FILE *pipe = popen(command.c_str(), "r");
  if (!fgets(line, sizeof line, pipe))
    ADD_FAILURE() << command;
  EXPECT_EQ(pclose(pipe), 0) << command;
  const std::string text = line;
  return text.substr(0, text.find('\n'));
}

bool Succeeds(const std::string &command) {
  return system(command.c_str()) == 0;
}

class RadosgwTest : public testing::Test {
protected:
  static void SetUpTestSuite() {
    SetKeys("TESTKEY", "TESTSECRET");
    cluster_ = new CephCluster(CephCluster::Gateway::kS3);
    ASSERT_TRUE(Succeeds(S3("make-bucket images")));
  }
  static void TearDownTestSuite() { delete cluster_; }

  ~RadosgwTest() override {
    SetKeys("TESTKEY", "TESTSECRET");
    if (daemon_) {
      daemon_->Kill(SIGTERM);
      EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
    }
  }

  static void SetKeys(const char *key, const char *secret) {
    setenv("AWS_ACCESS_KEY_ID", key, 1);
    setenv("AWS_SECRET_ACCESS_KEY", secret, 1);
  }

  static std::string S3(const std::string &arguments) {
    return DaemonProcess::Runfile("tests/support/s3-put") + " " +
           cluster_->endpoint() + " " + arguments;
  }

  // Makes an object of random bytes; returns its version.
  std::string Put(const std::string &key, uint64_t seed) {
    bytes_ = WriteRandomFile(dir_ / "bytes", kSize, seed);
    return FirstLineOf(S3("put images '" + key + "' " + (dir_ / "bytes")));
  }

  void Serve(const std::string &uri, const std::string &cache_size,
             const std::string &file = "/dev/null") {
    daemon_ = std::make_unique<DaemonProcess>(std::vector<std::string>{
        "--image", "d=" + uri + ",endpoint=" + cluster_->endpoint(), "--image",
        "file=" + file, "--cache-size", cache_size, "--listen",
        "unix:" + (dir_ / "socket")});
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  }

  std::string Uri() const {
    return "cachet+unix:///d?socket=" + (dir_ / "socket");
  }

  void ExpectReadsRight(uint64_t addr, size_t len) {
    cachet *c;
    ASSERT_EQ(cachet_open(Uri().c_str(), nullptr, &c, nullptr), CACHET_OK)
        << daemon_->log();
    EXPECT_EQ(cachet_size(c), kSize);
    EXPECT_TRUE(ReadsRight(c, bytes_, addr, len));
    cachet_close(c);
  }

  // That it cannot be opened, and that the log says why.
  void ExpectMissing(const std::string &uri, const std::string &why) {
    WriteRandomFile(dir_ / "file", 1, 1); // one is always there
    Serve(uri, "64M", dir_ / "file");
    const std::string log = daemon_->log();
    EXPECT_NE(log.find("image-missing"), std::string::npos) << log;
    EXPECT_NE(log.find(why), std::string::npos) << log;
    EXPECT_EQ(log.find("SECRET"), std::string::npos) << log;
  }

  static CephCluster *cluster_;
  TempDir dir_;
  std::vector<uint8_t> bytes_;
  std::unique_ptr<DaemonProcess> daemon_;
};

CephCluster *RadosgwTest::cluster_;

TEST_F(RadosgwTest, RandomReadsThroughAQuarterOfTheImageAreRight) {
  const uint64_t seed = TestSeed();
  Put("random", seed);
  Serve("s3://images/random", "8M");
  RunReaders(Uri(), 32, [&](cachet *c, int reader) {
    return ReadsRandomRangesRight(c, bytes_, seed + uint64_t(reader), 200,
                                  40000);
  });
}

TEST_F(RadosgwTest, EveryCallAgreesWithTheObject) {
  Put("oracle", 9);
  Serve("s3://images/oracle", "16M");
  CheckCalls(Uri(), bytes_, 0, TestSeed(), TestLength(3000));
  CheckCalls(Uri(), bytes_, CACHET_NO_SHARED_MEMORY, TestSeed(),
             TestLength(2000));
}

TEST_F(RadosgwTest, AKeyMayHaveWhatAPathHasNot) {
  Put("a b+c/%/../\xc3\xa4=&?#:@~*!()", 2);
  Serve("s3://images/a%20b%2Bc/%25/../%C3%A4%3D%26%3F%23%3A%40~%2A%21%28%29",
        "64M");
  ExpectReadsRight(1000000, 100000);
}

TEST_F(RadosgwTest, AVersionIsReadAlsoWhenThereIsANewerOne) {
  const std::string version = Put("versions", 3);
  const std::vector<uint8_t> old = bytes_;
  Put("versions", 4);
  bytes_ = old;
  Serve("s3://images/versions?versionId=" + version, "64M");
  ExpectReadsRight(0, kSize);
}

TEST_F(RadosgwTest, AnObjectOfPartsIsReadAcrossThem) {
  bytes_ = WriteRandomFile(dir_ / "bytes", kSize, 5);
  ASSERT_TRUE(Succeeds(S3("put-parts images parts " + (dir_ / "bytes") +
                          " 5242880 >/dev/null")));
  Serve("s3://images/parts", "64M");
  ExpectReadsRight(5242880 - 3000, 6000);
  ExpectReadsRight(0, kSize);
}

TEST_F(RadosgwTest, AnObjectThatIsReplacedIsReadAnewAndNeverMixed) {
  Put("replaced", 6);
  Serve("s3://images/replaced", "64M");
  cachet *c;
  ASSERT_EQ(cachet_open(Uri().c_str(), nullptr, &c, nullptr), CACHET_OK);
  EXPECT_TRUE(ReadsRight(c, bytes_, 0, 4096));
  Put("replaced", 7);
  // What is not resident shows the change, and what is goes with it.
  EXPECT_TRUE(ReadsRight(c, bytes_, kSize - 5000, 5000));
  EXPECT_TRUE(ReadsRight(c, bytes_, 0, 4096));
  cachet_close(c);
}

TEST_F(RadosgwTest, AWrongSecretIsRefusedByAServerThatChecksSignatures) {
  Put("secret", 8);
  SetKeys("TESTKEY", "ANOTHERSECRET");
  ExpectMissing("s3://images/secret", "the secret key is wrong");
}

TEST_F(RadosgwTest, WhatIsNotThereIsMissing) {
  ExpectMissing("s3://images/nothing", "404");
}

TEST_F(RadosgwTest, ABucketThatIsNotThereIsMissing) {
  ExpectMissing("s3://nowhere/nothing", "404");
}

// The whole way: a file system, in an image, in an object, in a daemon's cache,
// by a program that knows nothing of any of it but the library.
TEST_F(RadosgwTest, AFileSystemIsReadFromAnImageInAnObject) {
  const std::string image = dir_ / "disk.img", made = dir_ / "expected",
                    read = dir_ / "read";
  const std::string offset =
      FirstLineOf(DaemonProcess::Runfile("tests/support/make-image") + " " +
                  image + " --files 500 --data 32");
  ASSERT_TRUE(Succeeds("mkdir " + made + " " + read +
                       " && PATH=$PATH:/usr/sbin debugfs -R 'rdump / " + made +
                       "' '" + image + "?offset=" + offset +
                       "' >/dev/null 2>&1 </dev/null"));
  ASSERT_TRUE(Succeeds(S3("put images disk " + image + " >/dev/null")));
  Serve("s3://images/disk", "8M");
  EXPECT_TRUE(Succeeds(DaemonProcess::Runfile("client/examples/ext4cat") +
                       " --offset " + offset + " '" + Uri() + "' dump / " +
                       read));
  EXPECT_TRUE(Succeeds("diff -r --no-dereference " + made + " " + read));
  EXPECT_TRUE(Succeeds("test $(find " + read + " -type f | wc -l) -ge 500"));
}

} // namespace

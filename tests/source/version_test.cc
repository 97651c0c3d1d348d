#include "source/version.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

constexpr int64_t kMs = 1000000, kTick = 4 * kMs, kSecond = 1000 * kMs;

version FileOf(time_t s, long ns) {
  version v = {};
  v.ino = 1;
  v.ctime = {s, ns};
  v.mtime = {1, 1}; // whatever a program put there
  return v;
}

int64_t Unsettled(time_t s, long ns, timespec now, bool foreign = false) {
  version v = FileOf(s, ns);
  return version_unsettled_ns(&v, foreign, now, kTick);
}

TEST(VersionTest, WithFineStampsSettlesWithTheNextTick) {
  EXPECT_EQ(Unsettled(100, 500000001, {100, 500000001}), kTick);
  EXPECT_EQ(Unsettled(100, 500000001, {100, 501000001}), 3 * kMs);
  EXPECT_EQ(Unsettled(100, 500000001, {100, 503999000}), 0) << "a short tick";
  EXPECT_EQ(Unsettled(100, 999999999, {101, 3999999}), 0);
  EXPECT_EQ(Unsettled(100, 999999999, {1000000000, 0}), 0);
}

TEST(VersionTest, WithCoarseStampsSettlesAfterTwoSeconds) {
  EXPECT_EQ(Unsettled(100, 0, {100, 0}), 2 * kSecond);
  EXPECT_EQ(Unsettled(100, 0, {101, 500000000}), kSecond / 2);
  EXPECT_EQ(Unsettled(100, 0, {102, 0}), 0);
  EXPECT_EQ(Unsettled(100, 0, {1000000000, 0}), 0);
  EXPECT_EQ(Unsettled(100, 430000000, {101, 430000000}), kSecond)
      << "exFAT has hundredths of a second";
}

TEST(VersionTest, AStampFromTheFutureSettlesAfterItsGrain) {
  EXPECT_EQ(Unsettled(101, 1, {100, 0}), kTick);
  EXPECT_EQ(Unsettled(1000000000, 1, {100, 0}), kTick);
  EXPECT_EQ(Unsettled(1000000000, 0, {100, 0}), 2 * kSecond);
}

TEST(VersionTest, AnotherMachinesClockMayBeAMinuteOff) {
  EXPECT_EQ(Unsettled(100, 1, {150, 0}, true), 2 * kSecond);
  EXPECT_EQ(Unsettled(100, 0, {150, 0}, true), 2 * kSecond);
  EXPECT_EQ(Unsettled(100, 1, {161, 0}, true), 0);
  EXPECT_EQ(Unsettled(100, 1, {50, 0}, true), 2 * kSecond);
}

// A block device over a file.  Needs to be root, where loop devices are.
class DeviceTest : public testing::Test {
protected:
  void SetUp() override {
    char path[] = "/tmp/version_test.XXXXXX";
    backing_ = mkstemp(path);
    ASSERT_GE(backing_, 0);
    unlink(path);
    ASSERT_EQ(ftruncate(backing_, 1 << 20), 0);
  }
  void TearDown() override {
    if (device_ >= 0) {
      EXPECT_EQ(ioctl(device_, LOOP_CLR_FD), 0);
      close(device_);
    }
    if (writes_ >= 0)
      close(writes_);
    close(backing_);
  }

  // False: there are none, errno says why.
  bool Attach(int mode) {
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    // Another process may take the one that is free.
    for (int i = 0; control >= 0 && device_ < 0 && i < 100; i++) {
      path_ = "/dev/loop" + std::to_string(ioctl(control, LOOP_CTL_GET_FREE));
      int fd = open(path_.c_str(), mode | O_CLOEXEC);
      if (fd >= 0 && ioctl(fd, LOOP_SET_FD, backing_) == 0)
        device_ = fd;
      else if (fd >= 0)
        close(fd);
      if (fd < 0 || (device_ < 0 && errno != EBUSY))
        break;
    }
    int e = errno;
    if (control >= 0)
      close(control);
    writes_ = device_ >= 0 ? version_open_writes(device_) : -1;
    errno = e;
    return device_ >= 0;
  }

  version Now() {
    version v = {};
    EXPECT_EQ(version_of(device_, writes_, &v), 0);
    return v;
  }

  std::string path_;
  int backing_ = -1, device_ = -1, writes_ = -1;
};

TEST_F(DeviceTest, AWriteThroughThisKernelMakesAnotherVersion) {
  if (!Attach(O_RDWR))
    GTEST_SKIP() << "no loop device here: " << strerror(errno);
  ASSERT_GE(writes_, 0);
  version before = Now();
  EXPECT_EQ(before.size, 1u << 20);
  version again = Now();
  EXPECT_TRUE(version_same(&before, &again)) << "looking changes nothing";
  ASSERT_EQ(pwrite(device_, "x", 1, 5000), 1);
  ASSERT_EQ(fsync(device_), 0);
  version after = Now();
  EXPECT_FALSE(version_same(&before, &after));
  EXPECT_NE(before.n_writes, after.n_writes);
}

TEST_F(DeviceTest, ItsSizeIsKnownWithoutOpeningIt) {
  if (!Attach(O_RDONLY))
    GTEST_SKIP() << "no loop device here: " << strerror(errno);
  int node = open(path_.c_str(), O_PATH | O_CLOEXEC);
  uint64_t size = 0;
  EXPECT_EQ(version_peek_size(node, &size), 0);
  EXPECT_EQ(size, 1u << 20);
  version v = Now();
  bool same = false;
  EXPECT_EQ(version_of_node(node, &v, &same), 0);
  EXPECT_TRUE(same);
  close(node);
}

TEST_F(DeviceTest, IsFoundByItsPathUntilAnotherMediumIsInIt) {
  if (!Attach(O_RDONLY))
    GTEST_SKIP() << "no loop device here: " << strerror(errno);
  version v = Now();
  bool same = false;
  ASSERT_EQ(version_of_path(path_.c_str(), &v, &same), 0);
  EXPECT_TRUE(same);
  if (!v.diskseq)
    GTEST_SKIP() << "a kernel that does not number media";
  ASSERT_EQ(ioctl(device_, LOOP_CHANGE_FD, backing_), 0);
  ASSERT_EQ(version_of_path(path_.c_str(), &v, &same), 0);
  EXPECT_FALSE(same);
  version other = v;
  other.dev++;
  other.diskseq = 0;
  ASSERT_EQ(version_of_path(path_.c_str(), &other, &same), 0);
  EXPECT_FALSE(same) << "another device";
}

} // namespace

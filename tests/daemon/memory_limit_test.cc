// The limit that a tree of proc and sys says, which is a directory's here.
#include "daemon/memory_limit.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/support/daemon_process.h"

namespace {

constexpr uint64_t kMiB = 1 << 20;
const char kMountV2[] =
    "35 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
const char kMountHybrid[] =
    "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "36 31 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

class MemoryLimitTest : public testing::Test {
protected:
  void Write(const std::string &path, const std::string &text) {
    std::filesystem::path full = dir_.path() + path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << text;
  }

  void Machine(const std::string &groups, const std::string &mounts) {
    Write("/proc/meminfo", "MemTotal:        8388608 kB\nMemFree: 1 kB\n");
    Write("/proc/self/cgroup", groups);
    Write("/proc/self/mountinfo", mounts);
  }

  memory_limit Read() {
    memory_limit limit;
    memory_limit_read(dir_.path().c_str(), &limit);
    return limit;
  }

  TempDir dir_;
};

TEST_F(MemoryLimitTest, WhereNothingIsThereNothingIsKnown) {
  EXPECT_EQ(Read().bytes, UINT64_MAX);
  EXPECT_STREQ(Read().unread, "");
}

TEST_F(MemoryLimitTest, WithoutGroupsItIsTheMachines) {
  Machine("", "");
  EXPECT_EQ(Read().bytes, 8192 * kMiB);
  EXPECT_STREQ(Read().from, "/proc/meminfo");
  Machine("0::/\n", kMountV2); // whose root has no limits
  EXPECT_EQ(Read().bytes, 8192 * kMiB);
}

TEST_F(MemoryLimitTest, TheLeastOfAGroupAndThoseAboveItRules) {
  Machine("0::/a.slice/b.slice/c.service\n", kMountV2);
  const std::string a = "/sys/fs/cgroup/a.slice", b = a + "/b.slice",
                    c = b + "/c.service";
  Write(c + "/memory.max", "max\n");
  Write(c + "/memory.high", "max\n");
  EXPECT_EQ(Read().bytes, 8192 * kMiB);
  Write(c + "/memory.max", "2147483648\n");
  EXPECT_EQ(Read().bytes, 2048 * kMiB);
  EXPECT_EQ(Read().from, c + "/memory.max");
  Write(b + "/memory.high", "1073741824\n");
  EXPECT_EQ(Read().bytes, 1024 * kMiB);
  EXPECT_EQ(Read().from, b + "/memory.high");
  Write(a + "/memory.max", "536870912\n");
  EXPECT_EQ(Read().bytes, 512 * kMiB);
  Write("/sys/fs/cgroup/other/memory.max", "1\n");
  EXPECT_EQ(Read().bytes, 512 * kMiB);
  EXPECT_STREQ(Read().unread, "");
}

TEST_F(MemoryLimitTest, AHybridOfBothVersionsHasItInTheFirst) {
  Machine("9:name=systemd:/x\n4:cpu,memory:/docker/abc\n0::/x\n", kMountHybrid);
  const std::string group = "/sys/fs/cgroup/memory/docker/abc";
  Write(group + "/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_EQ(Read().bytes, 8192 * kMiB) << "that is none";
  Write("/sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "1048576\n");
  EXPECT_EQ(Read().bytes, kMiB);
  Write("/sys/fs/cgroup/unified/x/memory.max", "4096\n");
  EXPECT_EQ(Read().bytes, 4096u) << "a process is in groups of both";
}

TEST_F(MemoryLimitTest, AContainerSeesWhatIsMountedInIt) {
  // The group's name is that of the host, or says that it is outside.
  for (const char *group :
       {"0::/docker/abc\n", "0::/../../else\n", "0::/x\n"}) {
    Machine(group, "35 24 0:30 /docker/abc /sys/fs/cgroup\\040x rw - cgroup2 "
                   "cgroup2 rw\n");
    Write("/sys/fs/cgroup x/memory.max", "1048576\n");
    EXPECT_EQ(Read().bytes, kMiB) << group;
  }
}

TEST_F(MemoryLimitTest, AMountInWhichTheGroupIsSeenIsTaken) {
  Machine("0::/a\n",
          std::string("30 24 0:30 /b /elsewhere rw - cgroup2 cgroup2 "
                      "rw\n") +
              kMountV2);
  Write("/elsewhere/memory.max", "4096\n");
  Write("/sys/fs/cgroup/a/memory.max", "1048576\n");
  EXPECT_EQ(Read().bytes, kMiB);
}

TEST_F(MemoryLimitTest, WhatCannotBeReadIsNamedAndDoesNotLimit) {
  Machine("0::/a/b\n", kMountV2);
  const std::string b = "/sys/fs/cgroup/a/b";
  for (const char *odd : {"", "many\n", "-1\n", "12 MB\n", "0x10\n", "7"}) {
    Write(b + "/memory.max", odd);
    EXPECT_EQ(Read().bytes, 8192 * kMiB) << odd;
    EXPECT_EQ(Read().unread, b + "/memory.max") << odd;
  }
  Write("/sys/fs/cgroup/a/memory.max", "1048576\n");
  EXPECT_EQ(Read().bytes, kMiB) << "the others count";
  Write(b + "/memory.max", "99999999999999999999999\n");
  EXPECT_EQ(Read().bytes, kMiB);
  EXPECT_STREQ(Read().unread, "");
  // A directory in its place can be opened, by root too, and not read.
  std::filesystem::remove(dir_.path() + b + "/memory.max");
  std::filesystem::create_directory(dir_.path() + b + "/memory.max");
  EXPECT_EQ(Read().unread, b + "/memory.max");
}

TEST_F(MemoryLimitTest, LinesThatAreOddArePassedBy) {
  Machine(
      "\n:\n0:\n::\nx\n0::/a\n",
      "\n - \n1 2 3 - cgroup2\n1 2 - cgroup2 x rw\n - cgroup2 cgroup2 rw\n" +
          std::string(kMountV2));
  Write("/proc/meminfo", "MemTotal:\nMemTotal: x kB\nMemTotal: 5 MB\n"
                         "MemTotal: 99999999999999999999 kB\n");
  EXPECT_EQ(Read().bytes, UINT64_MAX);
  Write("/sys/fs/cgroup/a/memory.max", "1048576\n");
  EXPECT_EQ(Read().bytes, kMiB);
}

} // namespace

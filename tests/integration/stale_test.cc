// Writes that move no time stamp, or none that differs: what is noticed of them
// all the same, by a daemon and in process.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <thread>

#include "tests/support/daemon_process.h"

namespace {

constexpr size_t kPage = 4096, kPages = 4096;

class StaleTest : public testing::Test {
protected:
  void SetUp() override {
    std::string path = getenv("PATH") ? getenv("PATH") : "/usr/bin:/bin";
    setenv("PATH", (path + ":/usr/sbin:/sbin").c_str(), 1);
  }

  void TearDown() override {
    cachet_close(handle_);
    if (map_ != MAP_FAILED)
      munmap(map_, kPage);
    if (fd_ >= 0)
      close(fd_);
    if (daemon_) {
      daemon_->Kill(SIGTERM);
      EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
    }
    if (!device_.empty()) {
      EXPECT_EQ(system(("losetup -d " + device_).c_str()), 0);
    }
    if (!mount_.empty()) {
      EXPECT_EQ(system(("umount " + mount_).c_str()), 0);
    }
  }

  // The image, open for writing.
  void Make(const std::string &path) {
    path_ = path;
    fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ASSERT_GE(fd_, 0);
    std::string content(kPage * kPages, '-');
    ASSERT_EQ(pwrite(fd_, content.data(), content.size(), 0),
              ssize_t(content.size()));
  }

  // A file system that keeps whole seconds, as ext3 does.
  bool MountCoarse() {
    std::string fs = dir_ / "fs", at = dir_ / "mnt";
    std::string make = "truncate -s 64M " + fs + " && mkfs.ext4 -q -F -I 128 " +
                       fs + " 2>/dev/null && mkdir " + at +
                       " && mount -o loop " + fs + " " + at + " 2>/dev/null";
    if (system(make.c_str()) != 0)
      return false;
    mount_ = at;
    return true;
  }

  void Serve(const std::string &options = "") {
    daemon_ = std::make_unique<DaemonProcess>(
        std::vector<std::string>{"--image", "i=" + path_ + options, "--listen",
                                 "unix:" + (dir_ / "socket")});
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
    Open("cachet+unix:///i?socket=" + (dir_ / "socket"));
  }

  void Open(const std::string &uri) {
    cachet_error err{};
    ASSERT_EQ(cachet_open(uri.c_str(), nullptr, &handle_, &err), CACHET_OK)
        << err.message;
  }

  void Write(char c) { ASSERT_EQ(pwrite(fd_, &c, 1, 0), 1); }

  void Map() {
    map_ = mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
    ASSERT_NE(map_, MAP_FAILED);
  }
  void Store(char c) { *static_cast<volatile char *>(map_) = c; }

  char ByteAt(uint64_t addr) {
    uint8_t byte = 0;
    EXPECT_EQ(cachet_get_u8(handle_, addr, &byte), CACHET_OK)
        << cachet_errmsg(handle_);
    return char(byte);
  }

  // Waits until `c` is served, as it has to be one day.  `before` is called
  // between looks.
  template <typename F> testing::AssertionResult Await(char c, F before) {
    auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    char now;
    while ((now = ByteAt(0)) != c) {
      if (std::chrono::steady_clock::now() > until)
        return testing::AssertionFailure() << "still " << now;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      before();
    }
    return testing::AssertionSuccess();
  }
  testing::AssertionResult Await(char c) {
    return Await(c, [] {});
  }

  timespec Stamp() {
    struct stat st = {};
    EXPECT_EQ(fstat(fd_, &st), 0);
    return st.st_ctim;
  }

  // Has one content read and writes another, both with the same stamps.
  void WriteTwiceInASecond() {
    for (int i = 0; i < 10; i++) {
      timespec now;
      do
        clock_gettime(CLOCK_REALTIME, &now);
      while (now.tv_nsec > 100000000);
      Write('A');
      timespec first = Stamp();
      ASSERT_EQ(cachet_invalidate(handle_, 0, kPage), CACHET_OK);
      ASSERT_EQ(ByteAt(0), 'A');
      Write('B');
      if (Stamp().tv_sec == first.tv_sec)
        return;
    }
    FAIL() << "a second is over too soon";
  }

  TempDir dir_;
  std::string path_, mount_, device_;
  int fd_ = -1;
  void *map_ = MAP_FAILED;
  std::unique_ptr<DaemonProcess> daemon_;
  cachet *handle_ = nullptr;
};

TEST_F(StaleTest, TheSecondWriteOfASecondIsServedByADaemon) {
  if (!MountCoarse())
    GTEST_SKIP() << "cannot mount a file system of whole seconds here";
  Make(mount_ + "/disk.img");
  Serve(",max-age=1000000"); // lest it heeds that we can write
  WriteTwiceInASecond();
  EXPECT_TRUE(Await('B'));
}

TEST_F(StaleTest, TheSecondWriteOfASecondIsReadInProcess) {
  if (!MountCoarse())
    GTEST_SKIP() << "cannot mount a file system of whole seconds here";
  Make(mount_ + "/disk.img");
  Open(path_);
  WriteTwiceInASecond();
  // Hits look at nothing; so another page is read now and then.
  uint64_t page = 1;
  EXPECT_TRUE(Await('B', [&] { ByteAt(page++ % kPages * kPage); }));
}

TEST_F(StaleTest, StoresThroughAMappingAreServedWhileTheFileIsOpenForWriting) {
  std::string path = "/dev/shm/stale_test." + std::to_string(getpid());
  Make(path);
  Map();
  Serve();
  ByteAt(0);
  Store('A');
  EXPECT_TRUE(Await('A')) << "stored and left open";
  Store('B');
  munmap(map_, kPage);
  map_ = MAP_FAILED;
  close(fd_);
  fd_ = -1;
  EXPECT_TRUE(Await('B')) << "stored and closed";
  unlink(path.c_str());
}

TEST_F(StaleTest, WhatIsOlderThanTheMaximumAgeIsReadAgain) {
  std::string path = "/dev/shm/stale_test." + std::to_string(getpid());
  Make(path);
  Map();
  Serve(",max-age=1");
  ByteAt(0);
  for (char c = 'A'; c < 'C'; c++) {
    Store(c);
    EXPECT_TRUE(Await(c));
  }
  unlink(path.c_str());
}

TEST_F(StaleTest, AWriteToADeviceIsServed) {
  Make(dir_ / "backing");
  std::string attach = "losetup -f --show " + path_ + " 2>/dev/null";
  FILE *said = popen(attach.c_str(), "re");
  char name[64] = "";
  bool attached = fscanf(said, "%63s", name) == 1;
  pclose(said);
  if (!attached)
    GTEST_SKIP() << "no loop device here";
  path_ = device_ = name;
  close(fd_);
  fd_ = open(name, O_RDWR | O_CLOEXEC);
  ASSERT_GE(fd_, 0);
  Serve();
  EXPECT_EQ(ByteAt(0), '-');
  for (char c = 'A'; c < 'D'; c++) {
    Write(c);
    ASSERT_EQ(fsync(fd_), 0);
    EXPECT_TRUE(Await(c));
  }
}

} // namespace

// Images of a directory, which nobody named: as clients see them, and what they
// cost before they are opened.  And images that come and go by a client's word.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/daemon_process.h"

namespace {

using Bytes = std::vector<uint8_t>;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kPage = 4096, kSize = 16 * kPage;

struct Close {
  void operator()(cachet *c) const { cachet_close(c); }
  void operator()(cachet_admin *a) const { cachet_admin_close(a); }
};
using Handle = std::unique_ptr<cachet, Close>;
using Admin = std::unique_ptr<cachet_admin, Close>;

struct Info {
  uint64_t size, epoch;
  uint32_t flags;
};

long MillisecondsSince(Clock::time_point begin) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() -
                                                               begin)
      .count();
}

class DirectoryTest : public testing::Test {
protected:
  void SetUp() override {
    MakeDirectory("images");
    a_ = WriteRandomFile(images_ / "a.img", kSize, 1);
    WriteRandomFile(dir_ / "outside", kSize, 2);
  }

  void TearDown() override {
    if (!daemon_)
      return;
    daemon_->Kill(SIGTERM);
    EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
  }

  // A directory of that name, beside the others.
  void MakeDirectory(const std::string &name) {
    ASSERT_EQ(mkdir((dir_ / name).c_str(), 0700), 0);
  }

  void Configure(const std::string &text) {
    FILE *file = fopen((dir_ / "cachetd.conf").c_str(), "w");
    ASSERT_TRUE(file);
    fputs(text.c_str(), file);
    ASSERT_EQ(fclose(file), 0);
  }

  void Start(
      const std::vector<std::string> &more,
      const std::function<void()> &before_exec = [] {}) {
    std::vector<std::string> args = {"--listen", "unix:" + socket_};
    args.insert(args.end(), more.begin(), more.end());
    daemon_ = std::make_unique<DaemonProcess>(args, before_exec);
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  }

  void Reload() {
    size_t before = Count("event=reload");
    daemon_->Kill(SIGHUP);
    daemon_->AwaitLog("event=reload", before + 1);
  }

  size_t Count(const std::string &event) const {
    return daemon_->CountInLog(event);
  }

  cachet_status TryOpen(const std::string &name, Handle *out,
                        cachet_error *err = nullptr) const {
    cachet *c = nullptr;
    std::string uri = "cachet+unix:///" + name + "?socket=" + socket_;
    cachet_status status = cachet_open(uri.c_str(), nullptr, &c, err);
    out->reset(c);
    return status;
  }
  Handle Open(const std::string &name) const {
    Handle c;
    cachet_error err = {};
    EXPECT_EQ(TryOpen(name, &c, &err), CACHET_OK) << name << err.message;
    return c;
  }
  void ExpectNotServed(const std::string &name) const {
    Handle c;
    cachet_error err = {};
    EXPECT_EQ(TryOpen(name, &c, &err), CACHET_E_NOIMAGE) << name;
    EXPECT_NE(strstr(err.message, "not served"), nullptr) << err.message;
  }

  // The daemon ends a removed image soon, not at once.
  static void ExpectEnds(cachet *c) {
    uint8_t byte;
    cachet_status status;
    while ((status = cachet_read(c, 0, &byte, 1)) == CACHET_OK)
      ;
    EXPECT_EQ(status, CACHET_E_NOIMAGE) << cachet_errmsg(c);
  }

  static Bytes Read(cachet *c, uint64_t offset, size_t len) {
    Bytes got(len);
    EXPECT_EQ(cachet_read(c, offset, got.data(), len), CACHET_OK)
        << cachet_errmsg(c);
    return got;
  }
  static Bytes Part(const Bytes &file, uint64_t offset, size_t len) {
    return Bytes(file.begin() + long(offset),
                 file.begin() + long(offset + len));
  }

  std::map<std::string, Info> List() const {
    cachet_admin *admin = nullptr;
    std::string uri = "cachet+unix:///?socket=" + socket_;
    EXPECT_EQ(cachet_admin_open(uri.c_str(), nullptr, &admin, nullptr),
              CACHET_OK);
    Admin a(admin);
    std::map<std::string, Info> all;
    auto take = [](void *arg, const cachet_image_info *info) {
      auto *to = static_cast<std::map<std::string, Info> *>(arg);
      (*to)[info->name] = {info->size, info->epoch, info->flags};
      return 0;
    };
    EXPECT_EQ(cachet_admin_list(admin, take, &all), CACHET_OK)
        << cachet_admin_errmsg(admin);
    return all;
  }

  TempDir dir_;
  // A path in images/.
  struct {
    std::string path;
    std::string operator/(const std::string &name) const {
      return path + "/" + name;
    }
  } images_{dir_ / "images"};

  std::string socket_ = dir_ / "socket";
  Bytes a_;
  std::unique_ptr<DaemonProcess> daemon_;
};

TEST_F(DirectoryTest, AFileIsAnImageByItsName) {
  Start({"--directory", images_.path});
  Info before = List().at("a.img");
  EXPECT_EQ(before.size, kSize);
  EXPECT_EQ(before.epoch, 0u);
  EXPECT_EQ(before.flags, CACHET_IMAGE_UNOPENED);
  Handle c = Open("a.img");
  EXPECT_TRUE(cachet_is_shared(c.get()));
  EXPECT_EQ(Read(c.get(), 5000, 100), Part(a_, 5000, 100));
  Info after = List().at("a.img");
  EXPECT_EQ(after.epoch, cachet_epoch(c.get()));
  EXPECT_EQ(after.flags, 0u);
}

// One that comes later as well, and one that changes has a new epoch.
TEST_F(DirectoryTest, FilesComeAndChangeWithoutAReload) {
  Start({"--directory", images_.path});
  ExpectNotServed("b.img");
  Bytes b = WriteRandomFile(images_ / "b.img", kSize, 3);
  Handle c = Open("b.img");
  EXPECT_EQ(Read(c.get(), 0, 100), Part(b, 0, 100));
  uint64_t epoch = cachet_epoch(c.get());
  b = WriteRandomFile(images_ / "b.new", kSize, 4);
  ASSERT_EQ(rename((images_ / "b.new").c_str(), (images_ / "b.img").c_str()),
            0);
  while (cachet_epoch(c.get()) == epoch)
    Read(c.get(), 0, 1);
  EXPECT_EQ(Read(c.get(), 0, 100), Part(b, 0, 100));
}

TEST_F(DirectoryTest, WhatIsNoFileOfTheDirectoryIsNotServed) {
  const std::string out = dir_ / "outside";
  MakeDirectory("images/sub");
  WriteRandomFile(images_ / "sub/deep.img", kSize, 5);
  WriteRandomFile(images_ / "bad name", kSize, 6);
  WriteRandomFile(images_ / std::string(65, 'x'), kSize, 6);
  ASSERT_EQ(mkfifo((images_ / "fifo").c_str(), 0600), 0);
  ASSERT_EQ(symlink(out.c_str(), (images_ / "absolute").c_str()), 0);
  ASSERT_EQ(symlink("../outside", (images_ / "relative").c_str()), 0);
  ASSERT_EQ(symlink("relative", (images_ / "twice").c_str()), 0);
  ASSERT_EQ(symlink("/dev/null", (images_ / "device").c_str()), 0);
  ASSERT_EQ(symlink("loop", (images_ / "loop").c_str()), 0);
  ASSERT_EQ(symlink("sub/deep.img", (images_ / "inside").c_str()), 0);
  Start({"--directory", images_.path});
  for (const std::string &name :
       {std::string(".."), std::string("."), std::string("sub"),
        std::string("fifo"), std::string("absolute"), std::string("relative"),
        std::string("twice"), std::string("device"), std::string("loop"),
        std::string("bad%20name"), std::string("none"), std::string(65, 'x')})
    ExpectNotServed(name);
  for (const char *name :
       {"sub%2Fdeep.img", "..%2Foutside", "%2Fetc%2Fpasswd"}) {
    Handle c;
    EXPECT_NE(TryOpen(name, &c), CACHET_OK) << name;
  }
  auto list = List();
  EXPECT_EQ(list.size(), 2u);
  EXPECT_EQ(list.count("a.img"), 1u);
  EXPECT_EQ(list.count("inside"), 1u);
  EXPECT_EQ(cachet_size(Open("inside").get()), kSize);
}

TEST_F(DirectoryTest, AnImageThatBecomesALinkOutIsReadOnAsItWas) {
  Start({"--directory", images_.path});
  Handle c = Open("a.img");
  EXPECT_EQ(Read(c.get(), 0, 100), Part(a_, 0, 100));
  ASSERT_EQ(symlink("../outside", (images_ / "link").c_str()), 0);
  ASSERT_EQ(rename((images_ / "link").c_str(), (images_ / "a.img").c_str()), 0);
  // Each miss finds that the file's ctime has changed, and looks again.
  for (uint64_t page = 0; page < kSize / kPage; page++)
    EXPECT_EQ(Read(c.get(), page * kPage, kPage),
              Part(a_, page * kPage, kPage));
}

TEST_F(DirectoryTest, TheFirstThatHasANameHasIt) {
  MakeDirectory("more");
  Bytes b = WriteRandomFile(dir_ / "more/b.img", kSize, 3);
  Bytes c = WriteRandomFile(dir_ / "c.img", kSize, 4);
  WriteRandomFile(dir_ / "more/a.img", 2 * kSize, 5);
  WriteRandomFile(images_ / "c.img", 3 * kSize, 6);
  Start({"--directory", images_.path + "//", "--directory", dir_ / "more",
         "--image", dir_ / "c.img"});
  EXPECT_EQ(Read(Open("a.img").get(), 0, 100), Part(a_, 0, 100));
  EXPECT_EQ(Read(Open("b.img").get(), 0, 100), Part(b, 0, 100));
  EXPECT_EQ(Read(Open("c.img").get(), 0, 100), Part(c, 0, 100));
  auto list = List();
  ASSERT_EQ(list.size(), 3u);
  for (const char *name : {"a.img", "b.img", "c.img"})
    EXPECT_EQ(list.at(name).size, kSize) << name;
}

TEST_F(DirectoryTest, OneThatIsNotThereIsWaitedFor) {
  Start({"--directory", dir_ / "later"});
  EXPECT_EQ(Count("event=directory-missing"), 1u) << daemon_->log();
  ExpectNotServed("b.img");
  EXPECT_TRUE(List().empty());
  MakeDirectory("later");
  WriteRandomFile(dir_ / "later/b.img", kSize, 3);
  EXPECT_EQ(cachet_size(Open("b.img").get()), kSize);
  EXPECT_EQ(List().size(), 1u);
}

// It may hang.
TEST_F(DirectoryTest, AReloadLooksAtNoDirectoryThatItHadBefore) {
  std::string first = "[images]\ndirectory = " + (dir_ / "later") + "\n";
  Configure(first);
  Start({"--config", dir_ / "cachetd.conf"});
  EXPECT_EQ(Count("event=directory-missing"), 1u) << daemon_->log();
  Configure(first + "directory = " + (dir_ / "later2") + "\n");
  Reload();
  EXPECT_EQ(Count("event=directory-missing"), 2u) << daemon_->log();
}

TEST_F(DirectoryTest, AReloadTakesAwayWhatIsNotConfiguredAndNothingElse) {
  MakeDirectory("more");
  Bytes b = WriteRandomFile(dir_ / "more/b.img", kSize, 3);
  std::string first = "[images]\ndirectory = " + images_.path + "\n";
  Configure(first + "directory = " + (dir_ / "more") + "\n");
  Start({"--config", dir_ / "cachetd.conf"});
  Handle stays = Open("a.img"), goes = Open("b.img");
  uint64_t epoch = cachet_epoch(stays.get());
  Configure(first);
  Reload();
  ExpectNotServed("b.img");
  ExpectEnds(goes.get());
  EXPECT_EQ(Read(stays.get(), 0, 100), Part(a_, 0, 100));
  EXPECT_EQ(cachet_epoch(stays.get()), epoch);
  EXPECT_TRUE(cachet_is_shared(stays.get()));
  Configure("[cache]\nshare = off\n" + first);
  Reload();
  while (cachet_epoch(stays.get()) == epoch)
    Read(stays.get(), 0, 1);
  EXPECT_EQ(Read(stays.get(), 0, 100), Part(a_, 0, 100));
  EXPECT_FALSE(cachet_is_shared(stays.get())) << "as the directory says now";
  epoch = cachet_epoch(stays.get());
  Configure(first + "[image a.img]\nsource = " + (dir_ / "outside") + "\n");
  Reload();
  while (cachet_epoch(stays.get()) == epoch) // until the notice has come
    Read(stays.get(), 0, 1);
  EXPECT_NE(Read(stays.get(), 0, 100), Part(a_, 0, 100)) << "it is named now";
  Configure("[image x]\nsource = " + (dir_ / "outside") + "\n");
  Reload();
  Configure(first);
  Reload();
  EXPECT_EQ(Read(Open("a.img").get(), 0, 100), Part(a_, 0, 100));
  EXPECT_EQ(daemon_->CountInLog("event=few-descriptors"), 0u);
}

TEST_F(DirectoryTest, AFirstDirectoryByAReloadIsServedAndTheLogSaysHowFar) {
  Configure("[image x]\nsource = " + (dir_ / "outside") + "\n");
  Start({"--config", dir_ / "cachetd.conf"});
  ExpectNotServed("a.img");
  std::string all = "[image x]\nsource = " + (dir_ / "outside") +
                    "\n[images]\ndirectory = " + images_.path + "\n";
  Configure(all);
  Reload();
  EXPECT_EQ(Read(Open("a.img").get(), 0, 100), Part(a_, 0, 100));
  EXPECT_EQ(daemon_->CountInLog("event=few-descriptors images=32 "), 1u)
      << daemon_->log();
  Configure("[log]\nlevel = debug\n" + all);
  Reload();
  EXPECT_EQ(daemon_->CountInLog("event=few-descriptors"), 1u) << "once";
}

TEST_F(DirectoryTest, AnOpenImageIsMissingIfItsSectionNamesAFileThatIsNot) {
  std::string first = "[images]\ndirectory = " + images_.path + "\n";
  Configure(first);
  Start({"--config", dir_ / "cachetd.conf"});
  Handle before = Open("a.img"), now;
  EXPECT_EQ(Read(before.get(), 0, 100), Part(a_, 0, 100));
  Configure(first + "[image a.img]\nsource = " + (dir_ / "none") + "\n");
  Reload();
  ExpectEnds(before.get());
  cachet_error err = {};
  EXPECT_EQ(TryOpen("a.img", &now, &err), CACHET_E_NOIMAGE);
  EXPECT_NE(strstr(err.message, "No such file"), nullptr) << err.message;
  Bytes late = WriteRandomFile(dir_ / "none", kSize, 7);
  while (TryOpen("a.img", &now) != CACHET_OK)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(Read(now.get(), 0, 100), Part(late, 0, 100));
}

TEST_F(DirectoryTest, ThousandsOfFilesCostNextToNothingUntilTheyAreOpened) {
  constexpr int kFiles = 5000;
  MakeDirectory("many");
  for (int i = 0; i < kFiles; i++) {
    FILE *file = fopen((dir_ / "many/" + std::to_string(i)).c_str(), "w");
    ASSERT_TRUE(file);
    ASSERT_EQ(ftruncate(fileno(file), i + 1), 0);
    fclose(file);
  }
  Start({"--directory", images_.path});
  long alone = std::stol(daemon_->Status("VmRSS:"));
  daemon_->Kill(SIGTERM);
  EXPECT_EQ(daemon_->Wait(), 0);
  auto begin = Clock::now();
  Start({"--directory", dir_ / "many"});
  printf("it is ready after %ld ms\n", MillisecondsSince(begin));
  begin = Clock::now();
  auto list = List();
  printf("a list takes %ld ms\n", MillisecondsSince(begin));
  ASSERT_EQ(list.size(), size_t(kFiles));
  for (int i = 0; i < kFiles; i++)
    EXPECT_EQ(list.at(std::to_string(i)).size, uint64_t(i) + 1);
  long resident = std::stol(daemon_->Status("VmRSS:"));
  printf("resident: %ld KiB, of which %ld KiB are for %d files\n", resident,
         resident - alone, kFiles);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LE(resident - alone, kFiles) << "a KiB for each";
#endif
  Handle none;
  cachet_error err = {};
  EXPECT_EQ(TryOpen("none", &none, &err), CACHET_E_NOIMAGE);
  EXPECT_NE(strstr(err.message, "0, 1, 10, 100, 1000 and at least 507 more"),
            nullptr)
      << err.message;
  EXPECT_EQ(cachet_size(Open("4999").get()), 5000u);
}

// ---- Memory of an image that leaves the table -------------------------------

uint64_t Allocated(int fd) {
  struct stat st;
  EXPECT_EQ(fstat(fd, &st), 0);
  return uint64_t(st.st_blocks) * 512;
}

// A copy of the descriptor of pages that the library has, and will close.
int KeepPages() {
  int kept = -1;
  DIR *dir = opendir("/proc/self/fd");
  while (const dirent *entry = dir ? readdir(dir) : nullptr) {
    char target[64] = "";
    ssize_t len =
        readlinkat(dirfd(dir), entry->d_name, target, sizeof target - 1);
    if (kept < 0 && len > 0 && strstr(target, "cachet-pages"))
      kept = dup(atoi(entry->d_name));
  }
  if (dir)
    closedir(dir);
  return kept;
}

class LeavingTest : public DirectoryTest {
protected:
  void SetUp() override {
    DirectoryTest::SetUp();
    big_ = WriteRandomFile(images_ / "big.img", 8 << 20, 3);
    for (int i = 0; i < kMany; i++)
      WriteRandomFile(images_ / std::to_string(i), kPage, 4);
    // With so few descriptors the table has room for a few of those.
    Start(
        {"--directory", images_.path, "--cache-size", "16M", "--workers", "1"},
        [] {
          rlimit limit = {256, 256};
          setrlimit(RLIMIT_NOFILE, &limit);
        });
  }

  Handle OpenBig() const {
    Handle c = Open("big.img");
    EXPECT_TRUE(cachet_is_shared(c.get()));
    EXPECT_EQ(cachet_warm(c.get(), 0, big_.size()), CACHET_OK);
    EXPECT_GE(daemon_->MemfdBytes(), big_.size());
    return c;
  }

  // Opens others until it has left the table.
  void PushOutBig() const {
    for (int i = 0; List().at("big.img").flags != CACHET_IMAGE_UNOPENED; i++)
      Read(Open(std::to_string(i % kMany)).get(), 0, 1);
  }

  static constexpr int kMany = 40;
  Bytes big_;
};

TEST_F(LeavingTest, ADescriptorThatAClientHasKeptHoldsNoMemory) {
  Handle c = OpenBig();
  int kept = KeepPages();
  ASSERT_GE(kept, 0);
  c.reset();
  EXPECT_GE(Allocated(kept), big_.size());
  PushOutBig();
  while (Allocated(kept) > 0)
    usleep(1000);
  close(kept);
}

TEST_F(LeavingTest, AClientWithoutAConnectionHoldsItsPinsAndNothingElse) {
  Handle c = OpenBig();
  cachet_slice slice;
  ASSERT_EQ(cachet_load(c.get(), 5 * kPage, 1, &slice), CACHET_OK);
  auto is_right = [&] {
    return Bytes(slice.data, slice.data + kPage) ==
           Part(big_, 5 * kPage, kPage);
  };
  shutdown(cachet_fd(c.get()), SHUT_RDWR);
  PushOutBig();
  while (daemon_->MemfdBytes() > 1 << 20)
    usleep(1000);
  EXPECT_TRUE(is_right());
  daemon_->Kill(SIGTERM);
  EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
  daemon_.reset();
  EXPECT_TRUE(is_right()) << "the daemon's end leaves it, too";
  cachet_release(c.get(), &slice);
}

// ---- At run time ------------------------------------------------------------

class ChangedTest : public DirectoryTest {
protected:
  void SetUp() override {
    DirectoryTest::SetUp();
    b_ = WriteRandomFile(dir_ / "b.img", kSize, 3);
    configured_ = "[image one]\nsource = " + (dir_ / "b.img") +
                  "\n[images]\ndirectory = " + images_.path + "\n";
    Configure(configured_);
    Start({"--config", dir_ / "cachetd.conf"});
  }

  Admin Connect() const {
    cachet_admin *a = nullptr;
    std::string uri = "cachet+unix:///?socket=" + socket_;
    EXPECT_EQ(cachet_admin_open(uri.c_str(), nullptr, &a, nullptr), CACHET_OK);
    return Admin(a);
  }
  void ExpectRefused(const std::string &name, const std::string &source,
                     cachet_status expected, const std::string &why) const {
    Admin a = Connect();
    EXPECT_EQ(cachet_admin_add(a.get(), name.c_str(), source.c_str()), expected)
        << name << "=" << source;
    EXPECT_NE(strstr(cachet_admin_errmsg(a.get()), why.c_str()), nullptr)
        << cachet_admin_errmsg(a.get());
  }

  Bytes b_;
  std::string configured_;
};

TEST_F(ChangedTest, AnImageIsAddedAndRemovedUntilTheNextReload) {
  Admin a = Connect();
  ASSERT_EQ(cachet_admin_add(a.get(), "new", (dir_ / "b.img").c_str()),
            CACHET_OK)
      << cachet_admin_errmsg(a.get());
  ASSERT_EQ(
      cachet_admin_add(a.get(), "part",
                       (dir_ / "b.img,offset=4K,length=8K,share=off").c_str()),
      CACHET_OK);
  Handle c = Open("new"), part = Open("part");
  EXPECT_EQ(Read(c.get(), 100, 100), Part(b_, 100, 100));
  EXPECT_EQ(cachet_size(part.get()), 8192u);
  EXPECT_EQ(Read(part.get(), 0, 100), Part(b_, 4096, 100));
  EXPECT_FALSE(cachet_is_shared(part.get()));
  ASSERT_EQ(cachet_admin_remove(a.get(), "new"), CACHET_OK);
  ExpectNotServed("new");
  ExpectEnds(c.get());
  ASSERT_EQ(cachet_admin_remove(a.get(), "one"), CACHET_OK);
  ExpectNotServed("one");
  EXPECT_EQ(cachet_admin_remove(a.get(), "one"), CACHET_E_NOIMAGE);
  Reload();
  EXPECT_EQ(cachet_size(Open("one").get()), kSize) << "it is configured";
  ExpectNotServed("part");
  EXPECT_EQ(List().size(), 2u);
}

TEST_F(ChangedTest, AnotherSourceOfAnImageIsPutBackByAReload) {
  Handle c = Open("one");
  EXPECT_EQ(Read(c.get(), 0, 100), Part(b_, 0, 100));
  Admin a = Connect();
  ASSERT_EQ(cachet_admin_remove(a.get(), "one"), CACHET_OK);
  ASSERT_EQ(cachet_admin_add(a.get(), "one", (images_ / "a.img").c_str()),
            CACHET_OK);
  Handle now = Open("one");
  EXPECT_EQ(Read(now.get(), 0, 100), Part(a_, 0, 100));
  uint64_t epoch = cachet_epoch(now.get());
  Reload();
  while (cachet_epoch(now.get()) == epoch)
    Read(now.get(), 0, 1);
  EXPECT_EQ(Read(now.get(), 0, 100), Part(b_, 0, 100));
}

TEST_F(ChangedTest, AFileOfADirectoryIsHiddenUntilTheNextReload) {
  Admin a = Connect();
  Handle c = Open("a.img");
  EXPECT_EQ(Read(c.get(), 0, 100), Part(a_, 0, 100));
  ASSERT_EQ(cachet_admin_remove(a.get(), "a.img"), CACHET_OK);
  ExpectNotServed("a.img");
  EXPECT_EQ(List().count("a.img"), 0u);
  EXPECT_EQ(cachet_admin_remove(a.get(), "a.img"), CACHET_E_NOIMAGE);
  WriteRandomFile(images_ / "unopened.img", kSize, 4);
  ASSERT_EQ(cachet_admin_remove(a.get(), "unopened.img"), CACHET_OK);
  EXPECT_EQ(List().size(), 1u);
  ASSERT_EQ(cachet_admin_add(a.get(), "a.img", (dir_ / "b.img").c_str()),
            CACHET_OK);
  EXPECT_EQ(Read(Open("a.img").get(), 0, 100), Part(b_, 0, 100));
  Reload();
  EXPECT_EQ(Read(Open("a.img").get(), 0, 100), Part(a_, 0, 100));
  EXPECT_EQ(cachet_size(Open("unopened.img").get()), kSize);
}

TEST_F(ChangedTest, WhereNoMoreFilesCanBeHiddenTheNextStaysAnImage) {
  constexpr int kMost = 256;
  for (int i = 0; i <= kMost; i++)
    WriteRandomFile(images_ / std::to_string(i), 1, 3);
  Admin a = Connect();
  for (int i = 0; i < kMost; i++)
    ASSERT_EQ(cachet_admin_remove(a.get(), std::to_string(i).c_str()),
              CACHET_OK)
        << cachet_admin_errmsg(a.get());
  Handle c = Open("256");
  EXPECT_NE(cachet_admin_remove(a.get(), "256"), CACHET_OK);
  EXPECT_NE(strstr(cachet_admin_errmsg(a.get()), "too many"), nullptr)
      << cachet_admin_errmsg(a.get());
  EXPECT_EQ(Read(Open("256").get(), 0, 1), Read(c.get(), 0, 1));
  EXPECT_EQ(Count("event=image-removed"), size_t(kMost));
  ASSERT_EQ(cachet_admin_remove(a.get(), "one"), CACHET_OK)
      << "it is no file of a directory";
}

TEST_F(ChangedTest, WhatIsWrongIsRefusedWithTheReason) {
  const std::string b = dir_ / "b.img";
  ExpectRefused("one", b, CACHET_E_INVAL, "there is one of that name");
  ExpectRefused("", b, CACHET_E_INVAL, "a name takes");
  ExpectRefused("a/b", b, CACHET_E_INVAL, "a name takes");
  ExpectRefused(std::string(65, 'n'), b, CACHET_E_INVAL, "a name takes");
  ExpectRefused("x", "", CACHET_E_INVAL, "it names no source");
  ExpectRefused("x", "b.img", CACHET_E_INVAL, "a path from the root on");
  ExpectRefused("x", "ftp://h/", CACHET_E_INVAL, "no source for the scheme");
  ExpectRefused("x", b + ",share=maybe", CACHET_E_INVAL, "on or off");
  ExpectRefused("x", b + ",color=red", CACHET_E_INVAL, "unknown image option");
  ExpectRefused("x", b + ",source=/a", CACHET_E_INVAL, "unknown image option");
  ExpectRefused("x", b + ",offset=1G", CACHET_E_INVAL,
                "its source ends before the window of it that is served");
  ExpectRefused("x", dir_ / "none", CACHET_E_NOIMAGE, "No such file");
  ExpectRefused("x", "/dev/null", CACHET_E_IO, "neither a file nor a block");
  ExpectRefused("x", dir_.path(), CACHET_E_IO, "Is a directory");
  ExpectRefused("x", std::string(20000, '/'), CACHET_E_IO, "too long");
  ExpectRefused("x", std::string(60000, '/'), CACHET_E_INVAL, "too long");
  EXPECT_EQ(List().size(), 2u);
  Admin a = Connect();
  EXPECT_EQ(cachet_admin_add(a.get(), nullptr, b.c_str()), CACHET_E_INVAL);
  EXPECT_EQ(cachet_admin_add(a.get(), "x", nullptr), CACHET_E_INVAL);
  EXPECT_EQ(cachet_admin_remove(a.get(), nullptr), CACHET_E_INVAL);
  EXPECT_EQ(cachet_admin_add(a.get(), "x", b.c_str()), CACHET_OK);
}

// With reloads beside them: each is refused while one is under way, or made.
TEST_F(ChangedTest, ChangesBesideReloadsLeaveWhatIsConfigured) {
  std::atomic<bool> done{false};
  std::thread reloads([&] {
    for (int i = 0; i < 20; i++)
      Reload();
    done = true;
  });
  Admin a = Connect();
  int n_made = 0;
  while (!done || n_made == 0) {
    cachet_status status =
        cachet_admin_add(a.get(), "x", (dir_ / "b.img").c_str());
    n_made += status == CACHET_OK;
    if (status != CACHET_OK && status != CACHET_E_BUSY) {
      EXPECT_EQ(status, CACHET_E_INVAL) << "it is there still";
    }
    status = cachet_admin_remove(a.get(), "x");
    if (status != CACHET_OK && status != CACHET_E_BUSY) {
      EXPECT_EQ(status, CACHET_E_NOIMAGE) << "a reload was faster";
    }
    EXPECT_EQ(cachet_size(Open("one").get()), kSize);
  }
  reloads.join();
  Reload();
  EXPECT_EQ(List().size(), 2u);
}

} // namespace

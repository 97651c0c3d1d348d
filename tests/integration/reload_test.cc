// Reloading the configuration by SIGHUP, as clients and the log see it.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cache/mirror.h"
#include "tests/support/daemon_process.h"
#include "tests/support/image_servers.h"
#include "tests/support/nginx.h"

namespace {

using Bytes = std::vector<uint8_t>;

constexpr uint64_t kPage = 4096, kSize = 64 * kPage;

struct Close {
  void operator()(cachet *c) const { cachet_close(c); }
};
using Handle = std::unique_ptr<cachet, Close>;

class ReloadTest : public testing::Test {
protected:
  void SetUp() override {
    a_ = WriteRandomFile(dir_ / "a.img", kSize, 1);
    b_ = WriteRandomFile(dir_ / "b.img", kSize, 2);
    Configure(Image("one", "a.img") + Image("two", "b.img"));
  }

  void TearDown() override {
    if (!daemon_)
      return;
    daemon_->Kill(SIGTERM);
    EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
  }

  std::string Image(const std::string &name, const std::string &file,
                    const std::string &more = "") const {
    return "[image " + name + "]\nsource = " + (dir_ / file) + "\n" + more;
  }

  void Configure(const std::string &text) {
    FILE *file = fopen((dir_ / "cachetd.conf").c_str(), "w");
    ASSERT_TRUE(file);
    fputs(text.c_str(), file);
    ASSERT_EQ(fclose(file), 0);
  }

  void Start(const std::vector<std::string> &more = {}) {
    std::vector<std::string> args = {"--config", dir_ / "cachetd.conf",
                                     "--listen", "unix:" + socket_};
    args.insert(args.end(), more.begin(), more.end());
    daemon_ = std::make_unique<DaemonProcess>(args);
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  }

  size_t Count(const std::string &event) const {
    return daemon_->CountInLog(event);
  }

  // Has the daemon read its configuration, and waits until the log says what
  // came of it.
  void Reload(const std::string &event = "event=reloaded") {
    size_t before = Count(event);
    daemon_->Kill(SIGHUP);
    daemon_->AwaitLog(event, before + 1);
  }

  // There are enough for a file, and too few for a mirror.
  void ReloadWithFewDescriptors() {
    rlimit before;
    ASSERT_EQ(prlimit(daemon_->pid(), RLIMIT_NOFILE, nullptr, &before), 0);
    rlimit few = {rlim_t(daemon_->n_fds()) + 2, before.rlim_max};
    ASSERT_EQ(prlimit(daemon_->pid(), RLIMIT_NOFILE, &few, nullptr), 0);
    Reload();
    ASSERT_EQ(prlimit(daemon_->pid(), RLIMIT_NOFILE, &before, nullptr), 0);
  }

  cachet_status TryOpen(const std::string &name, Handle *out) const {
    cachet *c = nullptr;
    std::string uri = "cachet+unix:///" + name + "?socket=" + socket_;
    cachet_status status = cachet_open(uri.c_str(), nullptr, &c, nullptr);
    out->reset(c);
    return status;
  }
  Handle Open(const std::string &name) const {
    Handle c;
    EXPECT_EQ(TryOpen(name, &c), CACHET_OK) << name;
    return c;
  }

  static void ExpectPage(cachet *c, uint64_t page, const Bytes &file) {
    Bytes got(kPage);
    ASSERT_EQ(cachet_read(c, page * kPage, got.data(), kPage), CACHET_OK)
        << cachet_errmsg(c);
    EXPECT_EQ(got, Bytes(file.begin() + long(page * kPage),
                         file.begin() + long((page + 1) * kPage)));
  }

  // One of the daemon's own counters.
  uint64_t Stat(const std::string &name) const {
    struct Wanted {
      std::string name;
      uint64_t value;
    } wanted = {name, UINT64_MAX};
    cachet_admin *admin = nullptr;
    std::string uri = "cachet+unix:///?socket=" + socket_;
    EXPECT_EQ(cachet_admin_open(uri.c_str(), nullptr, &admin, nullptr),
              CACHET_OK);
    auto take = [](void *arg, const char *image, const char *stat,
                   uint64_t value) {
      auto *w = static_cast<Wanted *>(arg);
      if (!image && w->name == stat)
        w->value = value;
      return 0;
    };
    EXPECT_EQ(cachet_admin_stats(admin, take, &wanted), CACHET_OK);
    cachet_admin_close(admin);
    return wanted.value;
  }

  TempDir dir_;
  std::string socket_ = dir_ / "socket";
  Bytes a_, b_;
  std::unique_ptr<DaemonProcess> daemon_;
};

TEST_F(ReloadTest, ARuleThatChangesEndsWhatItForbidsAndNothingElse) {
  const std::string mine = "allow = uid:" + std::to_string(geteuid()) + "\n";
  Start();
  Handle one = Open("one"), two = Open("two");
  ASSERT_TRUE(cachet_is_shared(one.get()));
  ExpectPage(one.get(), 3, a_);
  ExpectPage(two.get(), 3, b_);
  Configure(Image("one", "a.img", "allow = uid:4294967294\n") +
            Image("two", "b.img", mine));
  Reload();
  Bytes bytes(kPage);
  EXPECT_EQ(cachet_read(one.get(), 9 * kPage, bytes.data(), kPage),
            CACHET_E_NOIMAGE);
  EXPECT_EQ(cachet_read(one.get(), 3 * kPage, bytes.data(), kPage),
            CACHET_E_NOIMAGE)
      << "nor what was in the memory";
  Handle again;
  EXPECT_EQ(TryOpen("one", &again), CACHET_E_NOIMAGE);
  ExpectPage(two.get(), 3, b_);
  uint64_t epochs = Stat("epochs");
  Configure(Image("one", "a.img") + Image("two", "b.img") + "[images]\n" +
            mine);
  Reload();
  ExpectPage(two.get(), 3, b_);
  ExpectPage(Open("one").get(), 3, a_);
  EXPECT_EQ(Stat("epochs"), epochs + 1) << "nobody has lost the other one";
}

TEST_F(ReloadTest, ARuleHoldsThoughTheFileOfItsImageIsGone) {
  Start();
  Handle one = Open("one");
  ExpectPage(one.get(), 3, a_);
  ASSERT_EQ(unlink((dir_ / "a.img").c_str()), 0);
  Configure(Image("one", "a.img", "allow = uid:4294967294\n"));
  Reload();
  Bytes bytes(kPage);
  EXPECT_EQ(cachet_read(one.get(), 9 * kPage, bytes.data(), kPage),
            CACHET_E_NOIMAGE);
}

TEST_F(ReloadTest, AFileThatIsMissingIsNoNewsOfAnImageThatIsForOthers) {
  const std::string mine = "uid:" + std::to_string(geteuid());
  Configure(Image("one", "a.img") +
            Image("gone", "gone.img", "allow = uid:4294967294\n") +
            Image("lost", "gone.img", "allow = " + mine + "\n"));
  Start();
  for (const char *name : {"gone", "none", "lost"}) {
    cachet *c = nullptr;
    cachet_error error = {};
    std::string uri =
        "cachet+unix:///" + std::string(name) + "?socket=" + socket_;
    EXPECT_EQ(cachet_open(uri.c_str(), nullptr, &c, &error), CACHET_E_NOIMAGE);
    std::string message = error.message;
    bool is_told = name == std::string("lost");
    EXPECT_EQ(message.find("gone.img") != std::string::npos, is_told);
    EXPECT_EQ(message.find("not served") != std::string::npos, !is_told)
        << message;
    EXPECT_EQ(error.sys_errno, is_told ? ENOENT : 0);
  }
}

TEST_F(ReloadTest, ARuleThatIsWrongChangesNothing) {
  Start();
  Handle one = Open("one");
  Configure(
      Image("one", "a.img", "allow = uid:4294967294 user:no-such-user\n"));
  Reload("event=reload-failed");
  ExpectPage(one.get(), 3, a_);
}

TEST_F(ReloadTest, ImagesComeAndGoAndTheOthersStayAsTheyWere) {
  Start();
  Handle one = Open("one"), two = Open("two");
  ExpectPage(one.get(), 3, a_);
  ExpectPage(two.get(), 3, b_);
  uint64_t epoch = cachet_epoch(one.get());
  Configure(Image("one", "a.img") + Image("three", "b.img"));
  Reload();
  ExpectPage(Open("three").get(), 5, b_);
  ExpectPage(one.get(), 4, a_);
  EXPECT_EQ(cachet_epoch(one.get()), epoch);
  EXPECT_TRUE(cachet_is_shared(one.get()));
  Handle none;
  EXPECT_EQ(TryOpen("two", &none), CACHET_E_NOIMAGE);
  uint8_t byte;
  cachet_status status;
  while ((status = cachet_get_u8(two.get(), 40 * kPage, &byte)) == CACHET_OK)
    ; // the daemon ends a removed image soon, not at once
  EXPECT_EQ(status, CACHET_E_NOIMAGE);
  EXPECT_EQ(Count("added=1 replaced=0 removed=1"), 1u) << daemon_->log();
}

TEST_F(ReloadTest, AnotherSourceOfAnImageIsAnotherEpochForItsClients) {
  Start();
  Handle one = Open("one");
  ExpectPage(one.get(), 3, a_);
  Configure(Image("one", "b.img") + Image("two", "b.img"));
  Reload();
  ExpectPage(one.get(), 30, b_);
  ExpectPage(one.get(), 3, b_);
  EXPECT_EQ(Count("event=image-replaced image=one"), 1u);
}

TEST_F(ReloadTest, OptionsOfAnImageChangeWithIt) {
  Start();
  Handle one = Open("one");
  ExpectPage(one.get(), 3, a_);
  ASSERT_TRUE(cachet_is_shared(one.get()));
  Configure(Image("one", "a.img", "share = off\noffset = 4096\n"));
  Reload();
  Bytes cut(a_.begin() + kPage, a_.end());
  ExpectPage(one.get(), 30, cut);
  EXPECT_EQ(cachet_size(one.get()), kSize - kPage);
  EXPECT_FALSE(cachet_is_shared(one.get()));
}

TEST_F(ReloadTest, ImagesFromAfarComeGoAndChangeAndTheOthersStayAsTheyWere) {
  Nginx nginx;
  nginx.Put("a", {reinterpret_cast<char *>(a_.data()), a_.size()});
  nginx.Put("b", {reinterpret_cast<char *>(b_.data()), b_.size()});
  auto far = [&](const std::string &name, const std::string &file,
                 const std::string &more = "") {
    return "[image " + name + "]\nsource = " + nginx.Url(file + "?" + name) +
           "\n" + more;
  };
  Configure(far("stays", "/a", "watch = 1000\n") + far("goes", "/a") +
            far("moves", "/a") + far("tuned", "/a", "connections = 3\n"));
  Start();
  Handle stays = Open("stays"), goes = Open("goes"), moves = Open("moves"),
         tuned = Open("tuned");
  for (cachet *c : {stays.get(), goes.get(), moves.get(), tuned.get()})
    ExpectPage(c, 3, a_);
  const uint64_t epoch = cachet_epoch(stays.get()),
                 before = cachet_epoch(tuned.get());
  Configure(far("stays", "/a", "watch = 1000\n") + far("comes", "/b") +
            far("moves", "/b") + far("tuned", "/a", "connections = 2\n"));
  Reload();
  EXPECT_EQ(Count("added=1 replaced=2 removed=1"), 1u) << daemon_->log();
  EXPECT_TRUE(cachet_is_cached(stays.get(), 3 * kPage));
  ExpectPage(stays.get(), 3, a_);
  EXPECT_EQ(cachet_epoch(stays.get()), epoch);
  moves = Open("moves"); // opened now, it has its new epoch at once
  tuned = Open("tuned");
  ExpectPage(moves.get(), 3, b_);
  ExpectPage(tuned.get(), 3, a_);
  EXPECT_NE(cachet_epoch(tuned.get()), before);
  ExpectPage(Open("comes").get(), 3, b_);
  Handle none;
  EXPECT_EQ(TryOpen("goes", &none), CACHET_E_NOIMAGE);
  size_t n_of_stays = 0;
  for (const Nginx::Line &line : nginx.StopAndReadLog())
    n_of_stays += line.target == "/a?stays";
  EXPECT_EQ(n_of_stays, 2u) << "it is opened and read once";
}

TEST_F(ReloadTest, OtherCredentialsOfAnImageAreAnotherSource) {
  std::unique_ptr<ImageServer> s3;
  for (const ImageServerKind &kind : kImageServerKinds)
    if (std::string(kind.name) == "s3")
      s3 = kind.start(a_);
  std::string image = "[image far]\nsource = " + s3->source() + "\n";
  std::replace(image.begin(), image.end(), ',', '\n'); // options are lines here
  Configure(image);
  Start();
  Handle far = Open("far");
  ExpectPage(far.get(), 3, a_);
  const uint64_t before = cachet_epoch(far.get());
  Configure(image + "profile = default\n");
  Reload();
  far = Open("far");
  ExpectPage(far.get(), 3, a_);
  EXPECT_NE(cachet_epoch(far.get()), before);
  Configure(image + "profile = absent\n");
  daemon_->Kill(SIGHUP);
  daemon_->AwaitLog("there are no credentials");
  EXPECT_TRUE(cachet_is_cached(far.get(), 3 * kPage)) << daemon_->log();
}

TEST_F(ReloadTest, TheFirstThatIsSharedIsShared) {
  Start({"--share", "off"});
  Configure(Image("one", "a.img", "share = on\n") + Image("two", "b.img"));
  Handle one = Open("one");
  ExpectPage(one.get(), 3, a_);
  EXPECT_FALSE(cachet_is_shared(one.get()));
  Reload();
  one = Open("one");
  ExpectPage(one.get(), 3, a_);
  EXPECT_TRUE(cachet_is_shared(one.get()));
}

TEST_F(ReloadTest, WhatIsWrongChangesNothingAndTheLogSaysWhy) {
  Start();
  Handle one = Open("one");
  struct {
    std::string text, reason;
  } const cases[] = {
      {Image("one", "b.img") + "[cache]\nsize = much\n", "cachetd.conf:4"},
      {"[image one]\n", "source"},
      {Image("one", "none.img"), "its new source cannot be opened"},
      {Image("one", "a.img", "offset = 1G\n"), "reaches past the end"},
      {"[image one]\nsource = a.img\n",
       "a path in a configuration file begins with"},
  };
  for (const auto &c : cases) {
    Configure(c.text);
    size_t before = Count(c.reason);
    Reload("event=reload-failed");
    EXPECT_GT(Count(c.reason), before) << c.reason << "\n" << daemon_->log();
    ExpectPage(one.get(), 7, a_);
    ExpectPage(Open("two").get(), 7, b_);
  }
  EXPECT_EQ(unlink((dir_ / "cachetd.conf").c_str()), 0);
  Reload("event=reload-failed");
  ExpectPage(Open("two").get(), 8, b_);
}

TEST_F(ReloadTest, AnImageThatIsNotThereYetIsServedOnceItIs) {
  Start();
  Configure(Image("one", "a.img") + Image("late", "late.img"));
  Reload();
  EXPECT_EQ(Count("event=image-missing image=late"), 1u);
  Handle late;
  EXPECT_NE(TryOpen("late", &late), CACHET_OK);
  Bytes bytes = WriteRandomFile(dir_ / "late.img", kSize, 3);
  while (TryOpen("late", &late) != CACHET_OK)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  ExpectPage(late.get(), 2, bytes);
}

TEST_F(ReloadTest, TheCacheTakesAnotherSizeWhileItServes) {
  Start();
  Handle one = Open("one");
  for (const char *size : {"8M", "512M", "1M"}) {
    Configure(std::string("[cache]\nsize = ") + size + "\n" +
              Image("one", "a.img"));
    Reload();
    EXPECT_EQ(Stat("cache_size"), std::stoull(size) << 20);
    ExpectPage(one.get(), 1, a_);
  }
  Configure("[cache]\nsize = 1T\n" + Image("one", "a.img"));
  Reload("event=reload-failed");
  EXPECT_EQ(Stat("cache_size"), 1u << 20)
      << "what does not fit changes nothing";
}

TEST_F(ReloadTest, WhatHadNoDescriptorsIsTriedAgainByTheNext) {
  Start();
  Handle one = Open("one");
  ExpectPage(one.get(), 3, a_);
  const std::string two = Image("two", "b.img"),
                    three = Image("three", "a.img");
  Configure(Image("one", "a.img") + two + three);
  ReloadWithFewDescriptors();
  EXPECT_EQ(Count("added=0 replaced=0 removed=0"), 1u) << daemon_->log();
  Reload();
  EXPECT_EQ(Count("added=1 replaced=0 removed=0"), 1u) << daemon_->log();
  Configure(Image("one", "b.img") + two + three);
  ReloadWithFewDescriptors();
  EXPECT_EQ(Count("added=0 replaced=0 removed=0"), 2u) << daemon_->log();
  ExpectPage(one.get(), 4, a_);
  Reload();
  EXPECT_EQ(Count("added=0 replaced=1 removed=0"), 1u) << daemon_->log();
  ExpectPage(one.get(), 60, b_); // it was not read ahead
  ExpectPage(Open("three").get(), 5, a_);
  Reload();
  EXPECT_EQ(Count("added=0 replaced=0 removed=0"), 3u) << daemon_->log();
}

TEST_F(ReloadTest, WhatTakesARestartIsSaid) {
  Start();
  Configure("[cache]\nsize = 64M\nworkers = 3\n" + Image("one", "a.img"));
  Reload();
  EXPECT_EQ(Count("event=reload-ignored setting=workers"), 1u);
  Reload();
  EXPECT_EQ(Count("event=reload-ignored setting=workers"), 2u);
  ExpectPage(Open("one").get(), 1, a_);
}

TEST_F(ReloadTest, AnImageThatIsServedKeepsItsPagesAndAFreshOneHasItsOwn) {
  Start();
  Handle one = Open("one");
  Configure("[cache]\nsize = 64M\npage-size = 64K\n" +
            Image("one", "a.img", "page-size = 16K\n") +
            Image("three", "b.img", "page-size = 16K\n") +
            Image("four", "b.img"));
  Reload();
  EXPECT_EQ(Count("event=reload-ignored setting=page-size"), 1u);
  EXPECT_EQ(Count("event=reload-ignored image=one setting=page-size"), 1u);
  ExpectPage(one.get(), 3, a_);
  EXPECT_EQ(cachet_page_size(Open("one").get()), kPage);
  EXPECT_EQ(Count("event=no-huge-pages"), 0u);
  Handle three = Open("three"), four = Open("four");
  ExpectPage(three.get(), 3, b_);
  EXPECT_EQ(cachet_page_size(three.get()), 16384u);
  EXPECT_EQ(cachet_page_size(four.get()), kPage);
  Configure("[cache]\nsize = 64M\npage-size = 2M\n" + Image("one", "a.img") +
            Image("five", "b.img", "page-size = 2M\n"));
  Reload();
  Configure("[cache]\nsize = 64M\n" + Image("one", "a.img", "huge = on\n") +
            Image("five", "b.img", "page-size = 2M\n") +
            Image("six", "b.img", "huge = on\n"));
  Reload();
  EXPECT_EQ(Count("event=reload-ignored image=one setting=huge"), 1u);
  EXPECT_EQ(cachet_page_size(Open("one").get()), kPage);
  Handle six = Open("six");
  ExpectPage(six.get(), 3, b_);
  EXPECT_EQ(cachet_page_size(six.get()), 2u << 20);
  EXPECT_EQ(Count("event=no-huge-pages"), mirror_may_be_huge() ? 0u : 1u);
  Handle five = Open("five");
  ExpectPage(five.get(), 3, b_);
  EXPECT_EQ(cachet_page_size(five.get()), 2u << 20);
}

// The sizes that a reload changes and those that take a restart.
TEST_F(ReloadTest, TheCacheThatStaysMustHaveRoomForAnImagesPages) {
  const std::string shrinks = "shrink-on-pressure = yes\n";
  Configure("[cache]\nsize = 8M\n" + shrinks + Image("one", "a.img"));
  Start();
  Configure("[cache]\nsize = 64M\nmin-size = 16M\n" + shrinks +
            Image("one", "a.img") + Image("two", "b.img", "huge = on\n"));
  Reload("event=reload-failed");
  EXPECT_NE(daemon_->log().find("less than two pages"), std::string::npos)
      << daemon_->log();
  ExpectPage(Open("one").get(), 1, a_);
}

TEST_F(ReloadTest, TheLogsLevelChanges) {
  Start();
  Configure(Image("one", "a.img") + "[log]\nlevel = debug\n");
  Reload();
  Open("one");
  daemon_->AwaitLog("event=hello");
}

TEST_F(ReloadTest, TheFileIsFoundFromAnyDirectoryAndTheCommandLineStays) {
  char dir[4096];
  ASSERT_TRUE(getcwd(dir, sizeof dir));
  std::string program = DaemonProcess::Runfile("daemon/cachetd");
  daemon_ = std::make_unique<DaemonProcess>(
      std::vector<std::string>{"--config", "cachetd.conf", "--listen",
                               "unix:" + socket_, "--image", "x=a.img"},
      [this] {
        if (chdir(dir_.path().c_str()) < 0)
          _exit(1);
      });
  ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  ExpectPage(Open("x").get(), 1, a_);
  cachet_admin *admin;
  ASSERT_EQ(cachet_admin_open(("cachet+unix:///?socket=" + socket_).c_str(),
                              nullptr, &admin, nullptr),
            CACHET_OK);
  EXPECT_EQ(cachet_admin_remove(admin, "x"), CACHET_OK);
  cachet_admin_close(admin);
  Configure("[log]\nlevel = debug\n");
  Reload();
  ExpectPage(Open("x").get(), 2, a_);
}

// Eight readers through a hundred reloads that add, remove and replace what
// they do not read.
TEST_F(ReloadTest, ReadersOfWhatStaysNoticeNothing) {
  const std::string stays = Image("stays", "a.img");
  Configure(stays);
  Start();
  std::atomic<bool> ended{false};
  std::atomic<uint64_t> n_read{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 8; i++)
    readers.emplace_back([&, i] {
      Handle c = Open("stays");
      for (uint64_t n = uint64_t(i); !ended; n++) {
        ExpectPage(c.get(), n % 64, a_);
        n_read++;
      }
    });
  for (int round = 0; round < 100; round++) {
    Configure(stays + Image("one", round % 2 ? "a.img" : "b.img") +
              (round % 3 ? Image("two", "b.img") : "") +
              (round % 5 ? Image("n" + std::to_string(round), "a.img") : ""));
    Reload();
  }
  ended = true;
  for (std::thread &reader : readers)
    reader.join();
  EXPECT_GT(n_read, 0u);
  EXPECT_EQ(Count("event=reload-failed"), 0u) << daemon_->log();
  EXPECT_GT(Count("event=image-replaced image=one"), 90u);
  EXPECT_GT(Count("event=image-added"), 100u);
  EXPECT_EQ(Count("event=image-replaced image=stays"), 0u);
}

} // namespace

// A daemon that is killed or stopped, and whose successor goes on with what the
// service manager has kept of it.
#include <cachet/cachet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cache/mirror.h"
#include "tests/support/daemon_process.h"
#include "tests/support/nginx.h"
#include "tests/support/service_manager.h"
#include "tests/support/wire_client.h"

namespace {

using testing::HasSubstr;
using testing::Not;

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPages = 1024;

struct Close {
  void operator()(cachet *c) const { cachet_close(c); }
};
using Handle = std::unique_ptr<cachet, Close>;

// For what comes soon, on a machine that has other things to do as well.
bool Eventually(const std::function<bool()> &is) {
  auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!is()) {
    if (std::chrono::steady_clock::now() > end)
      return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

class KeptTest : public testing::Test {
protected:
  void SetUp() override {
    bytes_ = WriteRandomFile(dir_ / "i", kPages * kPage, 1);
    StampFinely(dir_ / "i");
    Start();
  }

  void Start(const std::vector<std::string> &more = {}) {
    std::vector<std::string> args = {"--image", "i=" + (dir_ / "i"),
                                     "--cache-size", "64M"};
    args.insert(args.end(), more.begin(), more.end());
    manager_.Start(args);
    ASSERT_TRUE(manager_.daemon().ready()) << manager_.daemon().log();
  }

  void Restart(int signal, const std::vector<std::string> &more = {}) {
    manager_.Stop(signal);
    Start(more);
  }

  Handle Open(unsigned flags = 0) { return Open("i", flags); }
  Handle Open(const std::string &image, unsigned flags = 0) {
    cachet_options options = CACHET_OPTIONS_INIT;
    options.flags = flags;
    cachet *c = nullptr;
    cachet_error err;
    EXPECT_EQ(cachet_open(manager_.uri(image).c_str(), &options, &c, &err),
              CACHET_OK)
        << err.message;
    return Handle(c);
  }

  bool CanOpen() {
    cachet *c = nullptr;
    bool can = cachet_open(manager_.uri("i").c_str(), nullptr, &c, nullptr) ==
               CACHET_OK;
    cachet_close(c);
    return can;
  }

  // All of the image "far" was cached when the daemon began.
  void ExpectFarIsWarm() {
    EXPECT_THAT(log(), HasSubstr("event=image-warm image=far"));
    Handle c = Open("far");
    ExpectRead(c.get(), 0, kPages);
    EXPECT_EQ(cachet_misses(c.get()), 0u);
  }

  void ExpectRead(cachet *c, uint64_t page, uint64_t n = 1) {
    std::vector<uint8_t> bytes(n * kPage);
    ASSERT_EQ(cachet_read(c, page * kPage, bytes.data(), bytes.size()),
              CACHET_OK)
        << cachet_errmsg(c);
    EXPECT_EQ(memcmp(bytes.data(), &bytes_[page * kPage], bytes.size()), 0);
  }

  static uint64_t CountCached(cachet *c) {
    uint64_t n = 0;
    for (uint64_t page = 0; page < kPages; page++)
      n += cachet_is_cached(c, page * kPage);
    return n;
  }

  // Another file in its place.
  void Replace(uint64_t seed) {
    bytes_ = WriteRandomFile(dir_ / "new", kPages * kPage, seed);
    ASSERT_EQ(rename((dir_ / "new").c_str(), (dir_ / "i").c_str()), 0);
    StampFinely(dir_ / "i");
  }

  // Another file in its place, and a new epoch of the image.
  void Change(cachet *c, uint64_t seed) {
    uint64_t epoch = cachet_epoch(c);
    Replace(seed);
    uint64_t page = 0; // a read of the source finds it at once
    ASSERT_TRUE(Eventually([&] {
      uint8_t byte;
      page = page ? page - 1 : kPages - 1;
      return cachet_get_u8(c, page * kPage, &byte) == CACHET_OK &&
             cachet_epoch(c) != epoch;
    }));
  }

  // Whether the manager keeps the ledger, the three descriptors of the mirror
  // of that epoch, and nothing else.
  bool KeepsOnly(uint64_t epoch) {
    std::vector<std::string> names = manager_.names();
    bool is_kept = false;
    for (auto &name : names)
      for (int fd : manager_.Kept(name, "cachet-states")) {
        mirror_header header = {};
        is_kept |=
            pread(fd, &header, sizeof header, 0) > 0 && header.epoch == epoch;
      }
    return is_kept && names.size() == 4;
  }

  std::string log() { return manager_.daemon().log(); }

  TempDir dir_;
  std::vector<uint8_t> bytes_;
  ServiceManager manager_;
};

TEST_F(KeptTest, TheFirstStartIsColdAndSaysSo) {
  EXPECT_THAT(log(), HasSubstr("event=cold-start"));
  EXPECT_THAT(log(), HasSubstr("nothing was kept"));
}

TEST_F(KeptTest, WithoutAManagerItIsColdAndSaysSo) {
  DaemonProcess daemon(
      {"--image", dir_ / "i", "--listen", "unix:" + (dir_ / "other")});
  ASSERT_TRUE(daemon.ready());
  EXPECT_THAT(daemon.log(), HasSubstr("event=cold-start"));
  EXPECT_THAT(daemon.log(), HasSubstr("no service manager"));
}

TEST_F(KeptTest, WhatWasCachedIsCachedAfterwards) {
  for (int signal : {SIGKILL, SIGTERM}) {
    uint64_t epoch;
    {
      Handle c = Open();
      ExpectRead(c.get(), 0, 300);
      epoch = cachet_epoch(c.get());
    }
    Restart(signal);
    EXPECT_THAT(log(), HasSubstr("event=image-warm"));
    EXPECT_THAT(log(), Not(HasSubstr("cold")));
    Handle c = Open();
    EXPECT_TRUE(cachet_is_shared(c.get()));
    EXPECT_EQ(cachet_epoch(c.get()), epoch);
    EXPECT_GE(CountCached(c.get()), 300u);
    ExpectRead(c.get(), 0, 300);
    EXPECT_EQ(cachet_misses(c.get()), 0u);
  }
}

// The version that a server names identifies it; pages of another one are not
// taken for its own.
TEST_F(KeptTest, AnImageByHttpIsWarmUntilItsObjectIsAnother) {
  Nginx nginx;
  auto put = [&] {
    nginx.Put("x", {reinterpret_cast<char *>(bytes_.data()), bytes_.size()});
  };
  const std::vector<std::string> far = {"--image", "far=" + nginx.Url("/x")};
  put();
  Restart(SIGTERM, far);
  ExpectRead(Open("far").get(), 0, kPages);
  Restart(SIGKILL, far);
  ExpectFarIsWarm();
  bytes_ = WriteRandomFile(dir_ / "new", kPages * kPage, 2);
  put();
  Restart(SIGKILL, far);
  EXPECT_THAT(log(), Not(HasSubstr("event=image-warm image=far")));
  ExpectRead(Open("far").get(), 0, kPages);
  uint64_t n_fetched = 0;
  for (const Nginx::Line &line : nginx.StopAndReadLog())
    n_fetched += line.n_body;
  EXPECT_LT(n_fetched, 2 * kPages * kPage + 100) << "each version is read once";
}

// A parent says what its content is, and how often it was invalidated.
TEST_F(KeptTest, AnImageOfAParentIsWarmUntilItsContentIsAnother) {
  Nginx nginx;
  auto put = [&] {
    nginx.Put("x", {reinterpret_cast<char *>(bytes_.data()), bytes_.size()});
  };
  const std::string socket = dir_ / "parent";
  std::unique_ptr<DaemonProcess> parent;
  auto start_parent = [&] {
    if (parent) {
      parent->Kill(SIGKILL);
      parent->Wait();
    }
    parent = std::make_unique<DaemonProcess>(std::vector<std::string>{
        "--image", "x=" + nginx.Url("/x"), "--listen", "unix:" + socket});
    ASSERT_TRUE(parent->ready()) << parent->log();
  };
  const std::vector<std::string> far = {
      "--image", "far=cachet+unix:///x?socket=" + socket};
  put();
  start_parent();
  Restart(SIGTERM, far);
  ExpectRead(Open("far").get(), 0, kPages);
  Restart(SIGKILL, far);
  ExpectFarIsWarm();
  manager_.Stop(SIGKILL);
  { // which no notice tells it of
    cachet *c = nullptr;
    const std::string uri = "cachet+unix:///x?socket=" + socket;
    ASSERT_EQ(cachet_open(uri.c_str(), nullptr, &c, nullptr), CACHET_OK);
    EXPECT_EQ(cachet_invalidate(c, 0, kPage), CACHET_OK);
    cachet_close(c);
  }
  Start(far);
  EXPECT_THAT(log(), Not(HasSubstr("event=image-warm image=far")));
  ExpectRead(Open("far").get(), 0, kPages);
  bytes_ = WriteRandomFile(dir_ / "new", kPages * kPage, 2);
  put();
  start_parent();
  Restart(SIGKILL, far);
  EXPECT_THAT(log(), Not(HasSubstr("event=image-warm image=far")));
  ExpectRead(Open("far").get(), 0, kPages);
}

TEST_F(KeptTest, AHandleGoesOnAndItsEpochToo) {
  for (int signal : {SIGKILL, SIGTERM}) {
    Handle c = Open(CACHET_ONE_EPOCH);
    ExpectRead(c.get(), 0, 16);
    cachet_slice held;
    ASSERT_EQ(cachet_load(c.get(), 3 * kPage, 1, &held), CACHET_OK);
    manager_.Stop(signal);
    ExpectRead(c.get(), 0, 16); // while nobody answers
    Start();
    ExpectRead(c.get(), 500, 16); // it misses
    ExpectRead(c.get(), 0, 16);
    EXPECT_TRUE(cachet_is_shared(c.get()));
    EXPECT_EQ(memcmp(held.data, &bytes_[3 * kPage], kPage), 0);
    cachet_release(c.get(), &held);
  }
}

TEST_F(KeptTest, APinThatStandsIsHonouredByTheNext) {
  Handle c = Open();
  cachet_slice held;
  ASSERT_EQ(cachet_load(c.get(), 7 * kPage, 1, &held), CACHET_OK);
  const uint8_t *data = held.data;
  // With so small a cache the page would be the first to go.
  Restart(SIGKILL, {"--cache-size", "1M"});
  Handle other = Open();
  for (int round = 0; round < 3; round++)
    for (uint64_t page = 64; page < kPages; page += 16)
      ExpectRead(other.get(), page, 16);
  EXPECT_EQ(memcmp(data, &bytes_[7 * kPage], kPage), 0);
  cachet_release(c.get(), &held);
}

TEST_F(KeptTest, AStalePageOfAPinStaysStale) {
  Handle c = Open();
  cachet_slice held;
  ASSERT_EQ(cachet_load(c.get(), 7 * kPage, 1, &held), CACHET_OK);
  Handle other = Open();
  ASSERT_EQ(cachet_invalidate(other.get(), 7 * kPage, 1), CACHET_OK);
  Restart(SIGKILL);
  Handle next = Open();
  ExpectRead(next.get(), 7);
  EXPECT_FALSE(cachet_is_cached(next.get(), 7 * kPage));
  EXPECT_EQ(memcmp(held.data, &bytes_[7 * kPage], kPage), 0);
  cachet_release(c.get(), &held);
  EXPECT_TRUE(Eventually([&] {
    ExpectRead(next.get(), 7);
    return cachet_is_cached(next.get(), 7 * kPage);
  }));
}

TEST_F(KeptTest, AnImageOfADirectoryIsFoundAgainAndWarm) {
  ASSERT_EQ(mkdir((dir_ / "d").c_str(), 0700), 0);
  std::vector<uint8_t> bytes = WriteRandomFile(dir_ / "d/x", 64 * kPage, 2);
  WriteRandomFile(dir_ / "d/y", 64 * kPage, 3);
  StampFinely(dir_ / "d/x");
  Restart(SIGKILL, {"--directory", dir_ / "d"});
  cachet *c = nullptr;
  cachet_error err;
  ASSERT_EQ(cachet_open(manager_.uri("x").c_str(), nullptr, &c, &err),
            CACHET_OK)
      << err.message;
  Handle closes(c);
  std::vector<uint8_t> read(bytes.size());
  ASSERT_EQ(cachet_read(c, 0, read.data(), read.size()), CACHET_OK);
  uint64_t epoch = cachet_epoch(c);
  Restart(SIGKILL, {"--directory", dir_ / "d"});
  EXPECT_THAT(log(), HasSubstr("event=image-warm image=x"));
  EXPECT_THAT(log(), Not(HasSubstr("image=y")));
  ASSERT_EQ(cachet_read(c, 0, read.data(), read.size()), CACHET_OK);
  EXPECT_EQ(read, bytes);
  EXPECT_EQ(cachet_epoch(c), epoch);
  // And is gone when it is served no more.
  closes = nullptr;
  Restart(SIGKILL);
  EXPECT_TRUE(Eventually([&] { return manager_.n_kept() == 4; }))
      << testing::PrintToString(manager_.names());
}

TEST_F(KeptTest, AStopIsOverInTimeWhateverHangs) {
  Nginx nginx;
  nginx.Put("x", {reinterpret_cast<char *>(bytes_.data()), bytes_.size()});
  ServiceManager silent; // it listens, and starts nothing
  Restart(SIGTERM, {"--image", "far=" + nginx.Url("/x"), "--image",
                    "missing=" + silent.uri("x"), "--image",
                    "watched=" + nginx.Url("/x") + ",watch=1"});
  Handle c = Open("far");
  nginx.Pause();
  ASSERT_EQ(cachet_prefetch(c.get(), 0, 64 * kPage), CACHET_OK);
  manager_.daemon().AwaitLog("event=image-missing image=missing");
  auto start = std::chrono::steady_clock::now();
  manager_.Stop(SIGTERM);
  auto took = std::chrono::steady_clock::now() - start;
  // The server's time limit is 10 s.
  EXPECT_LT(took, std::chrono::seconds(8));
  EXPECT_EQ(manager_.daemon().Wait(), 0) << log();
  nginx.Continue();
  Start();
  ExpectRead(Open().get(), 0, 16);
}

// Not even if there are more than are opened at once.
TEST_F(KeptTest, AnImageWhoseServerHangsMakesNoOtherAMissingOne) {
  Nginx nginx;
  nginx.Put("x", {reinterpret_cast<char *>(bytes_.data()), bytes_.size()});
  ServiceManager silent; // it listens, and starts nothing
  std::vector<std::string> images = {"--image", "hangs=" + silent.uri("x")};
  for (int i = 0; i < 80; i++) {
    images.push_back("--image");
    images.push_back("x" + std::to_string(i) + "=" + nginx.Url("/x"));
  }
  // If the machine was slow others may be late as well.
  for (int round = 0; round < 5; round++) {
    Restart(SIGTERM, images);
    if (manager_.daemon().CountInLog("event=image-missing") == 1)
      break;
  }
  EXPECT_EQ(manager_.daemon().CountInLog("event=image-missing"), 1u) << log();
  ExpectRead(Open("x79").get(), 0, 4);
}

// What the stop and the start wait for is less than what clients wait for.  If
// this machine was slow besides, it is tried again.
TEST_F(KeptTest, ARestartThatHasToWaitTwiceIsNotNoticed) {
  const auto enough = std::chrono::milliseconds(4500);
  ServiceManager silent; // it listens, and starts nothing
  const std::vector<std::string> far = {"--image", "far=" + silent.uri("x")};
  Restart(SIGTERM, far);
  int n_failed = 0;
  for (int round = 0; round < 5; round++) {
    WireClient stuck = WireClient::Unix(manager_.socket_path());
    const uint32_t image = stuck.Start("i").image;
    for (uint64_t id = 100; id < 164; id++)
      stuck.SendRead(id, image, {{0, 1 << 20}});
    EXPECT_TRUE(stuck.Receive().is_data()); // and takes no more
    std::atomic<bool> is_over(false);
    n_failed = 0;
    std::thread others([&] {
      for (; !is_over; n_failed += !CanOpen())
        ;
    });
    auto start = std::chrono::steady_clock::now();
    manager_.Stop(SIGTERM);
    const std::string stopped = log();
    Start(far);
    auto took = std::chrono::steady_clock::now() - start;
    is_over = true;
    others.join();
    if (n_failed > 0 && took >= enough)
      continue;
    if (took < enough) {
      EXPECT_THAT(stopped, HasSubstr("event=stop-forced"));
    }
    EXPECT_THAT(log(), HasSubstr("event=image-missing image=far"));
    EXPECT_GE(took, std::chrono::seconds(3)) << "it did not wait";
    break;
  }
  EXPECT_EQ(n_failed, 0);
}

TEST_F(KeptTest, NothingGathersInTheStore) {
  for (int round = 0; round < 5; round++) {
    {
      Handle c = Open();
      ExpectRead(c.get(), 0, 64);
    }
    Restart(round % 2 ? SIGTERM : SIGKILL);
    Handle c = Open();
    ExpectRead(c.get(), 64, 64);
  }
  // The ledger, and the three descriptors of a mirror.
  EXPECT_TRUE(Eventually([&] { return manager_.n_kept() == 4; }))
      << testing::PrintToString(manager_.names());
}

TEST_F(KeptTest, AnImageThatChangesLeavesOneMirrorInTheStore) {
  Handle c = Open();
  ExpectRead(c.get(), 0, 16);
  for (uint64_t seed = 2; seed < 5; seed++)
    Change(c.get(), seed);
  ExpectRead(c.get(), 0, 16);
  uint64_t epoch = cachet_epoch(c.get());
  c = nullptr;
  EXPECT_TRUE(Eventually([&] { return KeepsOnly(epoch); }))
      << testing::PrintToString(manager_.names());
  Restart(SIGKILL);
  EXPECT_THAT(log(), HasSubstr("event=image-warm"));
  ExpectRead(Open().get(), 0, 16);
}

TEST_F(KeptTest, WhatTheManagerDoesNotReadYetIsSaidLater) {
  manager_.SetDeaf(true);
  for (uint64_t seed = 2; seed < 7; seed++) {
    Handle c = Open();
    ExpectRead(c.get(), 0, 4);
    Change(c.get(), seed);
  }
  Handle c = Open();
  ExpectRead(c.get(), 0, 64);
  uint64_t epoch = cachet_epoch(c.get());
  manager_.SetDeaf(false);
  c = nullptr;
  EXPECT_TRUE(Eventually([&] { return KeepsOnly(epoch); }))
      << testing::PrintToString(manager_.names());
  Restart(SIGKILL);
  EXPECT_THAT(log(), HasSubstr("event=image-warm"));
}

TEST_F(KeptTest, WhatTheManagerNeverReadIsSaidToBeCold) {
  manager_.SetDeaf(true);
  // A client gets no table while the manager has no room for messages.
  bool is_shared = true;
  for (uint64_t seed = 2; is_shared && !HasFatalFailure(); seed++) {
    Handle c = Open();
    is_shared = cachet_is_shared(c.get());
    Change(c.get(), seed);
  }
  ExpectRead(Open().get(), 0, 64);
  manager_.Stop(SIGKILL);
  manager_.SetDeaf(false);
  manager_.n_kept(); // takes in what has come
  Start();
  EXPECT_THAT(log(), HasSubstr("event=image-cold image=i reason=\"the service "
                               "manager had not received it\""));
  ExpectRead(Open().get(), 0, 64);
}

// ---- What starts cold
TEST_F(KeptTest, AManagerThatReadsNothingIsNone) {
  manager_.SetDeaf(true);
  // It has no room for what it is to keep; in the end nobody waits for it.
  std::vector<Handle> handles;
  EXPECT_TRUE(Eventually([&] {
    handles.push_back(Open());
    return log().find("event=nothing-is-kept") != std::string::npos;
  }));
  Handle c = Open();
  EXPECT_TRUE(cachet_is_shared(c.get()));
  ExpectRead(c.get(), 0, 64);
  manager_.SetDeaf(false); // it is told of the stop
  Restart(SIGTERM);
  EXPECT_THAT(log(), HasSubstr("event=cold-start"));
  ExpectRead(c.get(), 0, 64);
}

TEST_F(KeptTest, WhatIsOverIsNotTakenForWhatIsNot) {
  std::vector<Handle> handles;
  std::vector<cachet_slice> slices;
  for (uint64_t seed = 2; seed < 8; seed++) {
    handles.push_back(Open());
    slices.emplace_back();
    ASSERT_EQ(cachet_load(handles.back().get(), 0, 1, &slices.back()),
              CACHET_OK);
    manager_.Stop(SIGKILL);
    Replace(seed);
    Start();
    EXPECT_THAT(log(), HasSubstr("event=image-cold"));
    ExpectRead(Open().get(), 0, 16);
    Restart(SIGKILL);
    EXPECT_THAT(log(), HasSubstr("event=image-warm"));
  }
  for (size_t i = 0; i < handles.size(); i++)
    cachet_release(handles[i].get(), &slices[i]);
}

// --------------------------------------------------------

class ColdTest : public KeptTest {
protected:
  // A handle that has a slice through all that.
  void SetUp() override {
    KeptTest::SetUp();
    held_by_ = Open();
    ASSERT_EQ(cachet_load(held_by_.get(), 7 * kPage, 1, &held_), CACHET_OK);
    ExpectRead(held_by_.get(), 0, 64);
    before_ = bytes_;
  }

  void TearDown() override {
    EXPECT_EQ(memcmp(held_.data, &before_[7 * kPage], kPage), 0);
    ExpectRead(held_by_.get(), 0, 64);
    EXPECT_EQ(memcmp(held_.data, &before_[7 * kPage], kPage), 0);
    cachet_release(held_by_.get(), &held_);
    held_by_ = nullptr;
    EXPECT_TRUE(Eventually([&] { return manager_.n_kept() == 4; }))
        << testing::PrintToString(manager_.names());
  }

  void ExpectCold(const std::string &reason) {
    EXPECT_THAT(log(), HasSubstr("image-cold"));
    EXPECT_THAT(log(), HasSubstr(reason));
    EXPECT_THAT(log(), Not(HasSubstr("event=image-warm")));
    ExpectRead(Open().get(), 0, 64);
  }

  // The name that the mirror, or the table, is kept under.
  std::string NameOf(char kind) {
    for (const std::string &name : manager_.names())
      if (name[0] == kind)
        return name;
    return "?";
  }

  void Scribble(const std::string &memory, off_t at, const std::string &what) {
    for (const std::string &name : manager_.names())
      for (int fd : manager_.Kept(name, memory)) {
        ASSERT_EQ(pwrite(fd, what.data(), what.size(), at),
                  ssize_t(what.size()));
        return;
      }
    FAIL() << "no " << memory;
  }

  Handle held_by_;
  cachet_slice held_;
  std::vector<uint8_t> before_;
};

TEST_F(ColdTest, ASourceThatChanged) {
  manager_.Stop(SIGKILL);
  Replace(2);
  Start();
  ExpectCold("its source has changed");
}

TEST_F(ColdTest, ASourceThatWasWrittenTo) {
  manager_.Stop(SIGKILL);
  bytes_[5] ^= 1;
  int fd = open((dir_ / "i").c_str(), O_WRONLY);
  ASSERT_EQ(pwrite(fd, &bytes_[5], 1, 5), 1);
  close(fd);
  Start();
  ExpectCold("its source has changed");
}

TEST_F(ColdTest, AnotherPageSize) {
  Restart(SIGKILL, {"--page-size", "16K"});
  ExpectCold("the page size is another one");
}

TEST_F(ColdTest, MemoryThatIsNotSharedAnyMore) {
  Restart(SIGKILL, {"--share", "off"});
  ExpectCold("its access rule has changed");
}

TEST_F(ColdTest, AnotherRuleOfWhoMayReadIt) {
  Restart(SIGKILL, {"--allow", "uid:" + std::to_string(getuid())});
  ExpectCold("its access rule has changed");
}

TEST_F(ColdTest, AHeaderThatWasOverwritten) {
  manager_.Stop(SIGKILL);
  Scribble("cachet-states", 16, "12345678");
  Start();
  ExpectCold("is not what it should be");
}

TEST_F(ColdTest, AStateThatIsNone) {
  manager_.Stop(SIGKILL);
  Scribble("cachet-states", 4096 + 77, "x");
  Start();
  ExpectCold("a page state is none");
}

TEST_F(ColdTest, ARecordThatWasOverwritten) {
  manager_.Stop(SIGKILL);
  Scribble("cachet-ledger", 4096 + 24, "123");
  Start();
  ExpectCold("wrong checksum");
}

TEST_F(ColdTest, ALedgerOfAnotherLayout) {
  manager_.Stop(SIGKILL);
  Scribble("cachet-ledger", 8, "x");
  Start();
  EXPECT_THAT(log(), HasSubstr("event=cold-start"));
  EXPECT_THAT(log(), HasSubstr("another layout"));
  ExpectRead(Open().get(), 0, 64);
}

TEST_F(ColdTest, NoLedger) {
  manager_.Stop(SIGKILL);
  manager_.Lose("ledger");
  Start();
  EXPECT_THAT(log(), HasSubstr("event=cold-start"));
  ExpectRead(Open().get(), 0, 64);
}

TEST_F(ColdTest, AMirrorThatTheManagerLost) {
  manager_.Stop(SIGKILL);
  manager_.Lose(NameOf('m'));
  Start();
  ExpectCold("a descriptor of it is missing");
}

TEST_F(ColdTest, ATableThatTheManagerLost) {
  manager_.Stop(SIGKILL);
  manager_.Lose(NameOf('t'));
  Start();
  ExpectCold("a pin table of it is missing");
}

TEST_F(ColdTest, AnImageThatIsNotServedAnyMore) {
  manager_.Stop(SIGKILL);
  std::ofstream(dir_ / "x") << "something else";
  manager_.Start({"--image", "x=" + (dir_ / "x")});
  ASSERT_TRUE(manager_.daemon().ready());
  Restart(SIGKILL);
  EXPECT_THAT(log(), Not(HasSubstr("event=image-warm")));
}

} // namespace

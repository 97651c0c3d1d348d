// Remote sources of handles that cache in their process: what is loaded for
// them, what they share, and what becomes of them in a child process.
#include <cachet/cachet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/daemon_process.h"
#include "tests/support/nbd_server.h"
#include "tests/support/nginx.h"
#include "tests/support/quiet_fork.h"
#include "tests/support/readers.h"

namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr uint64_t kSize = (3 << 20) + 777;

struct Close {
  void operator()(cachet *c) const { cachet_close(c); }
};
using Handle = std::unique_ptr<cachet, Close>;

std::string Maps() {
  std::ostringstream text;
  text << std::ifstream("/proc/self/maps").rdbuf();
  return text.str();
}

class InProcessTest : public testing::Test {
protected:
  InProcessTest() : bytes_(WriteRandomFile(dir_ / "file", kSize, 1)) { Put(); }

  void Put() { nginx_.Put("x", std::string(bytes_.begin(), bytes_.end())); }

  Handle Open(const std::string &uri, const cachet_options *o = nullptr) {
    cachet *c = nullptr;
    cachet_error err = {};
    EXPECT_EQ(cachet_open(uri.c_str(), o, &c, &err), CACHET_OK) << err.message;
    return Handle(c);
  }

  // What is said of a URI that cannot be opened.
  std::string Refused(const std::string &uri, cachet_status status) {
    cachet *c = nullptr;
    cachet_error err = {};
    EXPECT_EQ(cachet_open(uri.c_str(), nullptr, &c, &err), status)
        << err.message;
    EXPECT_EQ(err.code, status);
    return err.message;
  }

  bool IsRight(cachet *c, uint64_t addr, size_t len) const {
    return c && ReadsRight(c, bytes_, addr, len);
  }

  TempDir dir_;
  std::vector<uint8_t> bytes_;
  Nginx nginx_;
};

// The first test of the process.
TEST_F(InProcessTest, AProgramLoadsWhatItUsesAndNoMore) {
  const auto has_none = AllOf(
      Not(HasSubstr("/libcachet-client-sources")), Not(HasSubstr("/libevent")),
      Not(HasSubstr("/libcurl")), Not(HasSubstr("/libnbd.so")));
  EXPECT_THAT(Maps(), has_none);
  EXPECT_TRUE(IsRight(Open(dir_ / "file").get(), 0, kSize));
  EXPECT_THAT(Maps(), has_none);
  EXPECT_TRUE(IsRight(Open(nginx_.Url("/x")).get(), 0, kSize));
  EXPECT_THAT(Maps(), AllOf(HasSubstr("/libcachet-client-sources"),
                            HasSubstr("/libevent_core"), HasSubstr("/libcurl"),
                            Not(HasSubstr("/libnbd.so"))));
}

TEST_F(InProcessTest, AnImageIsReadByNbd) {
  const std::string socket = dir_ / "nbd";
  NbdServer nbdkit({"nbdkit", "-f", "-U", socket, "-r", "file", dir_ / "file"},
                   socket);
  Handle c = Open("nbd+unix:///?socket=" + socket);
  EXPECT_TRUE(IsRight(c.get(), 0, kSize));
}

TEST_F(InProcessTest, OptionsStandBehindTheHash) {
  Handle c = Open(nginx_.Url("/x") +
                  "#offset=5000&length=64K&fetch-size=64K&connections=1");
  std::vector<uint8_t> buf(65536);
  EXPECT_EQ(cachet_size(c.get()), 65536u);
  EXPECT_EQ(cachet_read(c.get(), 0, buf.data(), buf.size()), CACHET_OK);
  EXPECT_TRUE(std::equal(buf.begin(), buf.end(), bytes_.begin() + 5000));
  uint64_t n_fetched = 0;
  for (const Nginx::Line &line : nginx_.StopAndReadLog()) {
    EXPECT_EQ(line.target, "/x");
    EXPECT_LE(line.n_body, 2 * 65536u);
    n_fetched += line.n_body;
  }
  EXPECT_LE(n_fetched, 2 * 65536u + 1);
}

TEST_F(InProcessTest, AMissReadsABlockAndNeighboursHit) {
  Handle c = Open(nginx_.Url("/x"));
  EXPECT_TRUE(IsRight(c.get(), 100, 1));
  EXPECT_TRUE(cachet_is_cached(c.get(), 128 << 10));
  EXPECT_FALSE(cachet_is_cached(c.get(), 1 << 20));
}

TEST_F(InProcessTest, WhatIsWrongIsSaidWithoutSecrets) {
  const std::string host = "127.0.0.1:" + std::to_string(nginx_.port());
  std::string said =
      Refused("http://alice:pass@" + host + "/no?key=abcdef", CACHET_E_NOIMAGE);
  EXPECT_THAT(said, AllOf(HasSubstr("image \"http://" + host + "/no\": open: "),
                          Not(HasSubstr("alice")), Not(HasSubstr("pass@")),
                          Not(HasSubstr("abcdef"))));
  EXPECT_THAT(Refused("nbd+unix:///?socket=" + (dir_ / "none"), CACHET_E_IO),
              HasSubstr("No such file"));
  EXPECT_THAT(Refused(nginx_.Url("/x") + "#color=red", CACHET_E_INVAL),
              HasSubstr("color: it is no option of http"));
  EXPECT_THAT(Refused("nbds://127.0.0.1/x", CACHET_E_INVAL),
              HasSubstr("tls-certificates"));
  EXPECT_THAT(Refused(nginx_.Url("/x") + "#offset=4M", CACHET_E_BOUNDS),
              HasSubstr("reaches past the end"));
}

TEST_F(InProcessTest, AServerThatSaysNothingIsGivenUpInTime) {
  nginx_.Pause();
  cachet_options o = CACHET_OPTIONS_INIT;
  o.connect_timeout_ms = 50;
  cachet *c = nullptr;
  cachet_error err = {};
  EXPECT_EQ(cachet_open(nginx_.Url("/x").c_str(), &o, &c, &err),
            CACHET_E_TIMEOUT)
      << err.message;
  nginx_.Continue();
}

TEST_F(InProcessTest, ACallWaitsForTheServerNoLongerThanItsTimeOut) {
  cachet_options o = CACHET_OPTIONS_INIT;
  o.request_timeout_ms = 200;
  Handle c = Open(nginx_.Url("/x"), &o);
  cachet *twin = nullptr;
  ASSERT_EQ(cachet_copy(c.get(), &twin, nullptr), CACHET_OK);
  nginx_.Pause();
  // Of two that want the same page one has the read of the other.
  std::thread other([&] {
    uint8_t byte;
    EXPECT_EQ(cachet_get_u8(twin, kSize - 1, &byte), CACHET_E_TIMEOUT);
    cachet_close(twin);
  });
  uint8_t byte;
  EXPECT_EQ(cachet_get_u8(c.get(), kSize - 1, &byte), CACHET_E_TIMEOUT);
  EXPECT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_E_TIMEOUT);
  other.join();
  nginx_.Continue();
  while (cachet_get_u8(c.get(), 0, &byte) == CACHET_E_TIMEOUT)
    ; // what it has missed
  EXPECT_TRUE(IsRight(c.get(), 0, 4096));
}

TEST_F(InProcessTest, HitsGoOnWithoutTheServerAndMissesWhenItIsBack) {
  Handle c = Open(nginx_.Url("/x"));
  EXPECT_TRUE(IsRight(c.get(), 0, 4096));
  nginx_.Kill();
  EXPECT_TRUE(IsRight(c.get(), 0, 4096));
  nginx_.Start();
  EXPECT_TRUE(IsRight(c.get(), kSize - 4096, 4096));
}

TEST_F(InProcessTest, AnObjectThatIsReplacedIsANewEpochAndNeverMixed) {
  cachet_options o = CACHET_OPTIONS_INIT;
  o.flags = CACHET_ONE_EPOCH;
  Handle c = Open(nginx_.Url("/x")), one = Open(nginx_.Url("/x"), &o);
  const uint64_t epoch = cachet_epoch(c.get());
  EXPECT_TRUE(IsRight(c.get(), 0, 4096));
  bytes_ = WriteRandomFile(dir_ / "file", kSize, 2);
  Put();
  EXPECT_TRUE(IsRight(c.get(), kSize - 5000, 5000));
  EXPECT_TRUE(IsRight(c.get(), 0, 4096));
  EXPECT_NE(cachet_epoch(c.get()), epoch);
  uint8_t byte;
  EXPECT_EQ(cachet_get_u8(one.get(), kSize - 1, &byte), CACHET_E_CHANGED);
}

TEST_F(InProcessTest, InvalidateHasPagesReadAnew) {
  Handle c = Open(nginx_.Url("/x"));
  EXPECT_TRUE(IsRight(c.get(), 0, 8192));
  EXPECT_EQ(cachet_invalidate(c.get(), 0, 1), CACHET_OK);
  EXPECT_FALSE(cachet_is_cached(c.get(), 0));
  EXPECT_TRUE(cachet_is_cached(c.get(), 4096));
  EXPECT_TRUE(IsRight(c.get(), 0, 8192));
}

TEST_F(InProcessTest, ThreadsOpenAndReadAtOnce) {
  const std::string socket = dir_ / "nbd";
  NbdServer nbdkit({"nbdkit", "-f", "-U", socket, "-r", "file", dir_ / "file"},
                   socket);
  const std::string uris[] = {nginx_.Url("/x"),
                              "nbd+unix:///?socket=" + socket};
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 12; i++)
    threads.emplace_back([&, i] {
      Handle c = Open(uris[i % 2]);
      EXPECT_TRUE(ReadsRandomRangesRight(c.get(), bytes_, i, 20, 100000));
    });
  for (std::thread &thread : threads)
    thread.join();
}

TEST_F(InProcessTest, CopiesOnThreadsShareWhatIsRead) {
  Handle c = Open(nginx_.Url("/x") + "#connections=2");
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 4; i++) {
    cachet *copy = nullptr;
    ASSERT_EQ(cachet_copy(c.get(), &copy, nullptr), CACHET_OK);
    threads.emplace_back([this, copy] {
      EXPECT_TRUE(IsRight(copy, 0, kSize));
      cachet_close(copy);
    });
  }
  for (std::thread &thread : threads)
    thread.join();
  uint64_t n_fetched = 0;
  for (const Nginx::Line &line : nginx_.StopAndReadLog())
    n_fetched += line.n_body;
  EXPECT_LE(n_fetched, kSize + kSize / 50);
}

TEST_F(InProcessTest, AChildOpensItsOwnAndLeavesTheParentsAlone) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "it lets no child of several threads begin one";
#endif
  Handle c = Open(nginx_.Url("/x"));
  EXPECT_TRUE(IsRight(c.get(), 0, 4096));
  pid_t pid = QuietFork();
  if (pid == 0) {
    uint8_t byte;
    bool is_right = cachet_get_u8(c.get(), 0, &byte) == CACHET_E_FORKED;
    c.reset();
    Handle own = Open(nginx_.Url("/x"));
    is_right &= IsRight(own.get(), kSize / 2, 100000);
    own.reset();
    _exit(is_right && !HasFailure() ? 0 : 1);
  }
  int status = -1;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(IsRight(c.get(), 0, kSize));
}

} // namespace

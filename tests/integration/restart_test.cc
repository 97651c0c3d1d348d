// Handles that only hit, in the memory of a daemon that goes and comes back
// with other content.
#include <cachet/cachet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/daemon_process.h"

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint64_t kPage = 4096;

// A second, on a machine that has other things to do as well.
constexpr auto kSoon = seconds(10);

struct Close {
  void operator()(cachet *c) const { cachet_close(c); }
};
using Handle = std::unique_ptr<cachet, Close>;

// The byte of page 1 that tells which content it is; 0: an error.
using Look = std::function<char(cachet *)>;

char ByGet(cachet *c) {
  uint8_t byte = 0;
  return cachet_get_u8(c, kPage, &byte) == CACHET_OK ? char(byte) : 0;
}
char ByLoad(cachet *c) {
  cachet_slice s;
  if (cachet_load(c, kPage, 1, &s) != CACHET_OK)
    return 0;
  char byte = char(s.data[0]);
  cachet_release(c, &s);
  return byte;
}
char ByRead(cachet *c) {
  char bytes[2 * kPage];
  return cachet_read(c, 0, bytes, sizeof bytes) == CACHET_OK ? bytes[kPage] : 0;
}
char ByMap(cachet *c) {
  cachet_slice s;
  if (cachet_map(c, 0, 2 * kPage, &s) != CACHET_OK)
    return 0;
  char byte = char(s.data[kPage]);
  cachet_release(c, &s);
  return byte;
}

class RestartTest
    : public testing::TestWithParam<std::pair<const char *, Look>> {
protected:
  void SetUp() override {
    Write('A');
    Start();
  }

  // Its place in the file system as well: that of the old content is kept.
  void Write(char content) {
    std::string bytes(64 * kPage, content), fresh = dir_ / "fresh";
    int fd = open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ASSERT_EQ(write(fd, bytes.data(), bytes.size()), ssize_t(bytes.size()));
    close(fd);
    ASSERT_EQ(rename(fresh.c_str(), (dir_ / "i").c_str()), 0);
  }

  void Start() {
    daemon_ = std::make_unique<DaemonProcess>(std::vector<std::string>{
        "--image", dir_ / "i", "--listen", "unix:" + (dir_ / "s")});
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  }

  void Stop(int signal) {
    daemon_->Kill(signal);
    daemon_->Wait();
  }

  Handle Open() {
    cachet_options options{};
    options.struct_size = sizeof options;
    options.request_timeout_ms = 5000;
    cachet *c = nullptr;
    cachet_error err{};
    EXPECT_EQ(cachet_open(("cachet+unix:///i?socket=" + (dir_ / "s")).c_str(),
                          &options, &c, &err),
              CACHET_OK)
        << err.message;
    return Handle(c);
  }

  char LookAt(cachet *c) { return GetParam().second(c); }

  // Whether it sees the new content soon, at so many looks a second.
  void ExpectNewContent(cachet *c, milliseconds pause) {
    auto end = Clock::now() + kSoon;
    char seen = 0;
    while ((seen = LookAt(c)) == 'A' && Clock::now() < end)
      if (pause.count())
        std::this_thread::sleep_for(pause);
    EXPECT_EQ(seen, 'B') << cachet_errmsg(c);
  }

  TempDir dir_;
  std::unique_ptr<DaemonProcess> daemon_;
};

// A reader that hits often asks for the time seldom; one that hits seldom, at
// each hit.
TEST_P(RestartTest, AnOldHandleThatOnlyHitsSeesTheNewContent) {
  const struct {
    int n_before;
    milliseconds pause;
  } uses[] = {
      {1000, milliseconds(0)}, {1000, milliseconds(10)}, {100, seconds(1)}};
  for (int signal : {SIGKILL, SIGTERM})
    for (auto &use : uses) {
      Handle c = Open();
      for (int i = 0; i < use.n_before; i++)
        ASSERT_EQ(LookAt(c.get()), 'A') << cachet_errmsg(c.get());
      cachet_slice held;
      ASSERT_EQ(cachet_load(c.get(), kPage, 1, &held), CACHET_OK);
      Stop(signal);
      Write('B');
      Start();
      ExpectNewContent(c.get(), use.pause);
      EXPECT_TRUE(cachet_is_shared(c.get()));
      EXPECT_EQ(held.data[0], 'A') << "it is still held";
      Write('A');
      Stop(SIGTERM);
      Start();
    }
}

TEST_P(RestartTest, WhileNobodyAnswersAfterAKillTheOldContentIsRead) {
  Handle c = Open();
  ASSERT_EQ(LookAt(c.get()), 'A');
  Stop(SIGKILL);
  // Three looks for another daemon.
  for (auto end = Clock::now() + milliseconds(1800); Clock::now() < end;)
    ASSERT_EQ(LookAt(c.get()), 'A') << cachet_errmsg(c.get());
  EXPECT_TRUE(cachet_is_shared(c.get()));
  Write('B');
  Start();
  ExpectNewContent(c.get(), milliseconds(0));
}

INSTANTIATE_TEST_SUITE_P(By, RestartTest,
                         testing::Values(std::make_pair("Get", ByGet),
                                         std::make_pair("Load", ByLoad),
                                         std::make_pair("Read", ByRead),
                                         std::make_pair("Map", ByMap)),
                         [](const auto &given) { return given.param.first; });

} // namespace

// Epochs: no number stands for two contents, whatever happens to the daemon.
#include <cachet/cachet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/support/daemon_process.h"

namespace {

constexpr uint64_t kLen = 4096;

class EpochTest : public testing::Test {
protected:
  // Another file in the place of the one that there was.
  void Write(char content) {
    std::string bytes(kLen, content), fresh = dir_ / "fresh";
    int fd = open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ASSERT_EQ(write(fd, bytes.data(), bytes.size()), ssize_t(bytes.size()));
    close(fd);
    ASSERT_EQ(rename(fresh.c_str(), path_.c_str()), 0);
  }

  // The epoch of the content `expected`, by a handle that is opened for it.
  void Look(const std::string &uri, char expected) {
    cachet *c = nullptr;
    cachet_error err{};
    uint8_t byte = 0;
    ASSERT_EQ(cachet_open(uri.c_str(), nullptr, &c, &err), CACHET_OK)
        << err.message;
    EXPECT_EQ(cachet_get_u8(c, 0, &byte), CACHET_OK) << cachet_errmsg(c);
    EXPECT_EQ(byte, uint8_t(expected));
    EXPECT_TRUE(epochs_.insert(cachet_epoch(c)).second) << "it came back";
    cachet_close(c);
  }

  TempDir dir_;
  std::string path_ = dir_ / "i";
  std::set<uint64_t> epochs_;
};

TEST_F(EpochTest, NoneComesBackForAnotherContentAcrossDaemons) {
  std::string uri = "cachet+unix:///i?socket=" + (dir_ / "s");
  for (char content = 'a'; content < 'i'; content++) {
    Write(content);
    DaemonProcess daemon(
        {"--image", path_, "--listen", "unix:" + (dir_ / "s")});
    ASSERT_TRUE(daemon.ready()) << daemon.log();
    Look(uri, content);
    daemon.Kill(content % 2 ? SIGKILL : SIGTERM);
    daemon.Wait();
  }
}

TEST_F(EpochTest, NoneComesBackForAnotherContentInProcess) {
  for (char content = 'a'; content < 'i'; content++) {
    Write(content);
    Look(path_, content);
  }
}

} // namespace

#include "daemon/net/listener.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/listener_port.h"

namespace {

using testing::HasSubstr;

using ListenerPtr = std::unique_ptr<listener, decltype(&listener_unref)>;

class ListenerTest : public testing::Test {
protected:
  ListenerTest() {
    char directory[] = "/tmp/cachetd-test-XXXXXX";
    directory_ = mkdtemp(directory);
    path_ = directory_ + "/socket";
  }
  ~ListenerTest() override {
    unlink(path_.c_str());
    rmdir(directory_.c_str());
  }

  address Address(const std::string &text) {
    address a;
    EXPECT_EQ(address_parse(text.c_str(), &a, err_, sizeof err_), 0) << err_;
    return a;
  }

  ListenerPtr Open(const std::string &text) {
    listener *l = nullptr;
    address a = Address(text);
    result_ = listener_open(&a, &l, err_, sizeof err_);
    return ListenerPtr(l, listener_unref);
  }
  ListenerPtr OpenUnix() { return Open("unix:" + path_); }

  bool CanConnect(const address &a) {
    int fd = socket(a.generic.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool connected = connect(fd, &a.generic, a.len) == 0;
    close(fd);
    return connected;
  }

  // Leaves a socket file behind that nobody listens on.
  void MakeStaleSocket() {
    address a = Address("unix:" + path_);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(bind(fd, &a.generic, a.len), 0);
    close(fd);
  }

  std::string directory_, path_;
  int result_ = 0;
  char err_[512] = "";
};

TEST_F(ListenerTest, AUnixSocketIsForOwnerAndGroupOnly) {
  ListenerPtr l = OpenUnix();
  ASSERT_NE(l, nullptr) << err_;
  struct stat st;
  ASSERT_EQ(stat(path_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0660u);
  EXPECT_TRUE(listener_is_local(l.get()));
  EXPECT_TRUE(CanConnect(Address("unix:" + path_)));
  EXPECT_EQ("unix:" + path_, listener_text(l.get()));
}

TEST_F(ListenerTest, TheSocketFileGoesWithTheListener) {
  OpenUnix().reset();
  EXPECT_NE(access(path_.c_str(), F_OK), 0);
}

TEST_F(ListenerTest, AFileThatIsNoLongerOursStays) {
  ListenerPtr l = OpenUnix();
  ASSERT_EQ(unlink(path_.c_str()), 0);
  MakeStaleSocket();
  l.reset();
  EXPECT_EQ(access(path_.c_str(), F_OK), 0);
}

TEST_F(ListenerTest, AStaleSocketIsReplaced) {
  MakeStaleSocket();
  ListenerPtr l = OpenUnix();
  ASSERT_NE(l, nullptr) << err_;
  EXPECT_TRUE(CanConnect(Address("unix:" + path_)));
}

TEST_F(ListenerTest, ALiveSocketIsRefusedAndLivesOn) {
  ListenerPtr first = OpenUnix();
  ListenerPtr second = OpenUnix();
  EXPECT_EQ(second, nullptr);
  EXPECT_EQ(result_, -EADDRINUSE);
  EXPECT_THAT(err_, HasSubstr("in use"));
  EXPECT_TRUE(CanConnect(Address("unix:" + path_)));
}

TEST_F(ListenerTest, WhatIsNoSocketIsLeftAlone) {
  close(open(path_.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  EXPECT_EQ(OpenUnix(), nullptr);
  EXPECT_EQ(result_, -EEXIST);
  EXPECT_THAT(err_, HasSubstr("no socket"));
  struct stat st;
  ASSERT_EQ(stat(path_.c_str(), &st), 0);
  EXPECT_TRUE(S_ISREG(st.st_mode));
}

TEST_F(ListenerTest, ADirectoryThatSomebodyLockedDoesNotMatter) {
  int fd = open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  ASSERT_EQ(flock(fd, LOCK_EX), 0);
  EXPECT_NE(OpenUnix(), nullptr) << err_;
  close(fd);
}

TEST_F(ListenerTest, APathThatIsLockedIsAnErrorThatSaysSo) {
  std::string lock = path_ + ".lock";
  int fd = open(lock.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  ASSERT_EQ(flock(fd, LOCK_EX), 0);
  EXPECT_EQ(OpenUnix(), nullptr);
  EXPECT_THAT(err_, HasSubstr("locked by another process"));
  close(fd); // its owner died: the file stays, and is no lock
  EXPECT_NE(OpenUnix(), nullptr) << err_;
  EXPECT_NE(access(lock.c_str(), F_OK), 0);
}

TEST_F(ListenerTest, ADirectoryThatIsNotThereIsAnError) {
  EXPECT_EQ(Open("unix:" + directory_ + "/none/socket"), nullptr);
  EXPECT_EQ(result_, -ENOENT);
}

TEST_F(ListenerTest, OfManyThatRaceForAStaleSocketExactlyOneGetsIt) {
  MakeStaleSocket();
  address a = Address("unix:" + path_);
  std::vector<listener *> won(8);
  std::vector<std::thread> threads;
  for (listener *&l : won)
    threads.emplace_back([&a, &l] {
      char err[512];
      listener_open(&a, &l, err, sizeof err);
    });
  for (std::thread &t : threads)
    t.join();
  int n = 0;
  for (listener *l : won)
    n += l != nullptr;
  EXPECT_EQ(n, 1);
  EXPECT_TRUE(CanConnect(a));
  for (listener *l : won)
    listener_unref(l);
}

TEST_F(ListenerTest, PortZeroBecomesARealOne) {
  ListenerPtr l = Open("tcp:127.0.0.1:0");
  ASSERT_NE(l, nullptr) << err_;
  EXPECT_GT(ListenerPort(l.get()), 0);
  EXPECT_FALSE(listener_is_local(l.get()));
  EXPECT_TRUE(CanConnect(Address(listener_text(l.get()))));
}

TEST_F(ListenerTest, ATcpPortInUseIsRefused) {
  ListenerPtr first = Open("tcp:127.0.0.1:0");
  EXPECT_EQ(Open(listener_text(first.get())), nullptr);
  EXPECT_EQ(result_, -EADDRINUSE);
}

TEST_F(ListenerTest, TheGroupIsThatOfTheFileAsItIsNow) {
  ListenerPtr l = OpenUnix();
  gid_t group;
  ASSERT_TRUE(listener_group(l.get(), &group));
  EXPECT_EQ(group, getegid());
  if (geteuid() == 0) {
    ASSERT_EQ(chown(path_.c_str(), static_cast<uid_t>(-1), 4321), 0);
    ASSERT_TRUE(listener_group(l.get(), &group));
    EXPECT_EQ(group, 4321u);
  }
}

class AdoptTest : public ListenerTest {
protected:
  ListenerPtr Adopt(int fd, unsigned flags = 0) {
    listener *l = nullptr;
    result_ = listener_adopt(fd, flags, &l, err_, sizeof err_);
    return ListenerPtr(l, listener_unref);
  }

  int Socket(const address &a, int type, bool listens) {
    int fd = socket(a.generic.sa_family, type | SOCK_CLOEXEC, 0);
    EXPECT_EQ(bind(fd, &a.generic, a.len), 0);
    if (listens) {
      EXPECT_EQ(listen(fd, 5), 0);
    }
    return fd;
  }
};

TEST_F(AdoptTest, AnInheritedUnixSocketServesAndItsFileStays) {
  address a = Address("unix:" + path_);
  ListenerPtr l = Adopt(Socket(a, SOCK_STREAM, true));
  ASSERT_NE(l, nullptr) << err_;
  EXPECT_EQ("unix:" + path_, listener_text(l.get()));
  EXPECT_TRUE(fcntl(listener_fd(l.get()), F_GETFL) & O_NONBLOCK);
  gid_t group;
  EXPECT_TRUE(listener_group(l.get(), &group));
  l.reset();
  EXPECT_EQ(access(path_.c_str(), F_OK), 0);
}

TEST_F(AdoptTest, AnInheritedSocketCoversTheAddressesWhosePeersComeToIt) {
  ListenerPtr l = Adopt(Socket(Address("unix:" + path_), SOCK_STREAM, true));
  ASSERT_NE(l, nullptr) << err_;
  address a = Address("unix:" + path_), other = Address("unix:" + path_ + "2");
  EXPECT_TRUE(listener_covers(l.get(), &a));
  EXPECT_FALSE(listener_covers(l.get(), &other));
  const struct {
    const char *bound;
    bool only_v6;
    std::vector<std::string> covered, others; // with the port behind them
  } cases[] = {
      {"tls:127.0.0.1:0",
       false,
       {"tls:127.0.0.1:", "tcp:localhost:"},
       {"tls:127.0.0.2:", "tls:0.0.0.0:", "tls:[::]:"}},
      {"tls:0.0.0.0:0",
       false,
       {"tls:127.0.0.1:", "tls:192.0.2.1:", "tls:0.0.0.0:"},
       {"tls:[::1]:", "tls:[::]:"}},
      {"tls:[::]:0",
       false,
       {"tls:127.0.0.1:", "tls:0.0.0.0:", "tls:[::1]:", "tls:[::]:"},
       {}},
      {"tls:[::]:0",
       true,
       {"tls:[::1]:", "tls:[::]:"},
       {"tls:127.0.0.1:", "tls:0.0.0.0:"}},
  };
  for (const auto &c : cases) {
    a = Address(c.bound);
    int fd = socket(a.generic.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
      continue; // this machine has no IPv6
    int on = c.only_v6;
    if (a.generic.sa_family == AF_INET6) {
      ASSERT_EQ(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on), 0);
    }
    ASSERT_EQ(bind(fd, &a.generic, a.len), 0);
    ASSERT_EQ(listen(fd, 5), 0);
    l = Adopt(fd, LISTENER_TLS);
    ASSERT_NE(l, nullptr) << err_;
    std::string text = listener_text(l.get());
    std::string port = text.substr(text.rfind(':') + 1);
    for (const std::string &covered : c.covered) {
      a = Address(covered + port);
      EXPECT_TRUE(listener_covers(l.get(), &a)) << text << " " << covered;
      a = Address(covered + "1");
      EXPECT_FALSE(listener_covers(l.get(), &a)) << text << " " << covered;
    }
    for (const std::string &not_covered : c.others) {
      a = Address(not_covered + port);
      EXPECT_FALSE(listener_covers(l.get(), &a)) << text << " " << not_covered;
    }
  }
}

TEST_F(AdoptTest, AnInheritedSocketThatDoesNotListenIsRefused) {
  EXPECT_EQ(Adopt(Socket(Address("unix:" + path_), SOCK_STREAM, false)),
            nullptr);
  EXPECT_THAT(err_, HasSubstr("no listening stream socket"));
}

TEST_F(AdoptTest, AnInheritedDatagramSocketIsRefused) {
  EXPECT_EQ(Adopt(Socket(Address("tcp:127.0.0.1:0"), SOCK_DGRAM, false)),
            nullptr);
}

TEST_F(AdoptTest, AnInheritedFileIsRefused) {
  EXPECT_EQ(Adopt(open("/dev/null", O_RDONLY | O_CLOEXEC)), nullptr);
  EXPECT_EQ(result_, -ENOTSOCK);
}

TEST_F(AdoptTest, AnInheritedSocketOnAllAddressesIsRefused) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(listen(fd, 5), 0); // binds to 0.0.0.0
  EXPECT_EQ(Adopt(fd), nullptr);
  EXPECT_THAT(err_, HasSubstr("only loopback"));
}

} // namespace

// The daemon as a process: how it starts, fails to start, and ends.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <thread>

#include "proto/status.h"
#include "tests/support/daemon_process.h"
#include "tests/support/wire_client.h"

namespace {

using testing::HasSubstr;

class StartTest : public testing::Test {
protected:
  StartTest() : image_(directory_ / "disk.img"), socket_(directory_ / "s") {
    bytes_ = WriteRandomFile(image_, 10000, 1);
  }

  // It ends at once, with that status and that message.
  void ExpectFailure(const std::vector<std::string> &args, int status,
                     const std::string &message) {
    DaemonProcess daemon(args);
    EXPECT_FALSE(daemon.ready()) << message;
    EXPECT_EQ(daemon.Wait(), status) << message;
    EXPECT_THAT(daemon.log(), HasSubstr(message));
  }

  // For a daemon whose log does not say when it is ready.
  WireClient ConnectWhenReady(const DaemonProcess &daemon) {
    WireClient client;
    while (!client.connected() && daemon.Status("State:")[0] != 'Z')
      client = WireClient::Unix(socket_);
    EXPECT_TRUE(client.connected());
    return client;
  }

  TempDir directory_;
  std::string image_, socket_;
  std::vector<uint8_t> bytes_;
};

TEST_F(StartTest, ItServesAFileAndEndsInGoodOrderOnSigterm) {
  for (int signal : {SIGTERM, SIGINT}) {
    DaemonProcess daemon({"--image", image_, "--listen", "unix:" + socket_,
                          "--listen", "tcp:127.0.0.1:0"});
    ASSERT_TRUE(daemon.ready()) << daemon.log();
    EXPECT_THAT(daemon.log(), HasSubstr("event=ready"));
    WireClient client = WireClient::Unix(socket_);
    Frame opened = client.Start();
    EXPECT_EQ(opened.size, 10000u);
    EXPECT_EQ(client.Read(opened.image, 0, 10000).bytes, bytes_);
    daemon.Kill(signal);
    EXPECT_TRUE(client.Receive().is_end());
    EXPECT_EQ(daemon.Wait(), 0) << daemon.log();
    EXPECT_NE(access(socket_.c_str(), F_OK), 0);
  }
}

TEST_F(StartTest, ABadCommandLineIsStatusTwo) {
  ExpectFailure({}, 2, "no image");
  ExpectFailure({"--image", image_, "--page-size", "5000"}, 2, "power of two");
  ExpectFailure({"--image", image_, "--image", image_}, 2, "used twice");
}

TEST_F(StartTest, AnImageThatCannotBeOpenedIsStatusOne) {
  std::string listen = "unix:" + socket_;
  ExpectFailure({"--image", directory_ / "none", "--listen", listen}, 1,
                "No such file or directory");
  ExpectFailure({"--image", directory_.path(), "--listen", listen}, 1,
                "Is a directory");
  ExpectFailure({"--image", "/dev/null", "--listen", listen}, 1,
                "neither a file nor a block device");
}

TEST_F(StartTest, AWindowPastTheEndIsStatusOneIfNothingElseIsServed) {
  ExpectFailure(
      {"--image", image_ + ",offset=10001", "--listen", "unix:" + socket_}, 1,
      "image=disk.img path=" + image_ +
          " reason=\"the window offset=10001 reaches past the end of "
          "it, which has 10000 bytes\"");
}

// Its owner may cut it.
TEST_F(StartTest, AnImageThatIsShorterThanItsWindowDoesNotKeepTheOthersDown) {
  DaemonProcess daemon({"--image", image_, "--image",
                        "p=" + image_ + ",offset=5000,length=5001", "--listen",
                        "unix:" + socket_});
  ASSERT_TRUE(daemon.ready()) << daemon.log();
  EXPECT_THAT(daemon.log(),
              HasSubstr("event=image-missing image=p path=" + image_ +
                        " reason=\"the window "
                        "offset=5000,length=5001 reaches past "
                        "the end of it, which has 10000 bytes\""));
  WireClient client = WireClient::Unix(socket_);
  EXPECT_EQ(client.Start("disk.img").size, 10000u);
  ASSERT_TRUE(client.SendOpen(7, "p"));
  EXPECT_THAT(client.ReceiveAnswer().message,
              HasSubstr("its source ends before the window of it"));
}

// Its owner may make it so long.
TEST_F(StartTest, AnImageThatIsTooLongDoesNotKeepTheOthersDown) {
  // Other file systems have no such files.
  std::string path = "/dev/shm/cachetd-test." + std::to_string(getpid());
  WriteRandomFile(path, 1, 1);
  std::shared_ptr<void> end(nullptr, [&](void *) { unlink(path.c_str()); });
  if (truncate(path.c_str(), 65ll << 40) < 0)
    GTEST_SKIP() << "no file system that has files of 65 TiB";
  DaemonProcess daemon({"--image", "huge=" + path, "--image", image_,
                        "--listen", "unix:" + socket_});
  ASSERT_TRUE(daemon.ready()) << daemon.log();
  EXPECT_THAT(daemon.log(),
              HasSubstr("event=image-missing image=huge path=" + path +
                        " reason=\"make its mirror: File "
                        "too large: it has "));
  WireClient client = WireClient::Unix(socket_);
  client.Start("disk.img");
  Frame opened;
  ASSERT_TRUE(client.SendOpen(7, "huge"));
  opened = client.ReceiveAnswer();
  EXPECT_THAT(opened.message, HasSubstr(path + ": File too large"));
  ASSERT_EQ(truncate(path.c_str(), 5000), 0);
  do {
    ASSERT_TRUE(client.SendOpen(7, "huge"));
    opened = client.ReceiveAnswer();
  } while (opened.is_error());
  EXPECT_EQ(opened.size, 5000u);
}

TEST_F(StartTest, AnImageThatIsMissingDoesNotKeepTheOthersDown) {
  std::string later = directory_ / "later";
  DaemonProcess daemon({"--image", image_, "--image", later, "--image",
                        "folder=" + directory_.path(), "--listen",
                        "unix:" + socket_});
  ASSERT_TRUE(daemon.ready()) << daemon.log();
  EXPECT_THAT(daemon.log(), HasSubstr("event=image-missing image=later path=" +
                                      later + " reason=\"No such file"));
  WireClient client = WireClient::Unix(socket_);
  Frame opened = client.Start("disk.img");
  EXPECT_EQ(client.Read(opened.image, 0, 10000).bytes, bytes_);
  ASSERT_TRUE(client.SendOpen(7, "later"));
  Frame missing = client.ReceiveAnswer();
  EXPECT_EQ(missing.status, WIRE_E_NOIMAGE);
  EXPECT_THAT(missing.message, HasSubstr(later + ": No such file"));
  ASSERT_TRUE(client.SendOpen(8, "folder"));
  Frame wrong = client.ReceiveAnswer();
  EXPECT_EQ(wrong.status, WIRE_E_IO);
  EXPECT_THAT(wrong.message, HasSubstr("Is a directory"));
}

TEST_F(StartTest, AMissingImageWithAWindowIsServedOnceAllOfThatIsThere) {
  std::string later = directory_ / "later";
  DaemonProcess daemon({"--image", image_, "--image",
                        later + ",offset=5000,length=100", "--listen",
                        "unix:" + socket_});
  ASSERT_TRUE(daemon.ready()) << daemon.log();
  WireClient client = WireClient::Unix(socket_);
  client.Start("disk.img");
  auto open_later = [&] {
    EXPECT_TRUE(client.SendOpen(7, "later"));
    return client.ReceiveAnswer();
  };
  EXPECT_THAT(open_later().message, HasSubstr(later + ": No such file"));

  WriteRandomFile(later, 5099, 2);
  Frame opened;
  do {
    opened = open_later();
    ASSERT_TRUE(opened.is_error());
  } while (opened.message.find("No such file") != std::string::npos);
  EXPECT_EQ(opened.message, "image \"later\": open " + later +
                                ": its source ends before the window of it "
                                "that is served");

  auto bytes = WriteRandomFile(later, 5100, 3);
  do
    opened = open_later();
  while (opened.is_error());
  EXPECT_EQ(opened.size, 100u);
  EXPECT_EQ(client.Read(opened.image, 0, 100).bytes,
            std::vector<uint8_t>(bytes.begin() + 5000, bytes.end()));
}

TEST_F(StartTest, AnImageThatIsMissingIsServedOnceItIsThere) {
  std::string later = directory_ / "later";
  DaemonProcess daemon(
      {"--image", image_, "--image", later, "--listen", "unix:" + socket_});
  ASSERT_TRUE(daemon.ready()) << daemon.log();
  auto bytes = WriteRandomFile(directory_ / "part", 20000, 2);
  ASSERT_EQ(rename((directory_ / "part").c_str(), later.c_str()), 0);
  Frame opened;
  WireClient client = WireClient::Unix(socket_);
  client.Start("disk.img");
  do {
    ASSERT_TRUE(client.SendOpen(7, "later"));
    opened = client.ReceiveAnswer();
  } while (opened.is_error());
  EXPECT_EQ(opened.size, 20000u);
  EXPECT_EQ(client.Read(opened.image, 0, 20000).bytes, bytes);
}

// As one on a server that is gone does: here another process, this one, has a
// lease on it.
TEST_F(StartTest, AnImageWhoseOpeningHangsDelaysTheOthersOnlySoLong) {
  std::string later = directory_ / "later";
  auto bytes = WriteRandomFile(later, 20000, 2);
  signal(SIGIO, SIG_IGN); // it asks for the lease back
  int fd = open(later.c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  if (fcntl(fd, F_SETLEASE, F_WRLCK) < 0)
    GTEST_SKIP() << "no leases here: " << strerror(errno);
  DaemonProcess daemon(
      {"--image", image_, "--image", later, "--listen", "unix:" + socket_});
  ASSERT_TRUE(daemon.ready()) << daemon.log();
  WireClient client = WireClient::Unix(socket_);
  Frame opened = client.Start("disk.img");
  EXPECT_EQ(client.Read(opened.image, 0, 10000).bytes, bytes_);
  ASSERT_TRUE(client.SendOpen(7, "later"));
  EXPECT_THAT(client.ReceiveAnswer().message,
              HasSubstr(later + ": it takes too long"));

  close(fd);

  do {
    ASSERT_TRUE(client.SendOpen(7, "later"));
    opened = client.ReceiveAnswer();
  } while (opened.is_error());
  EXPECT_EQ(client.Read(opened.image, 0, 20000).bytes, bytes);
}

TEST_F(StartTest, AnUnreadableImageIsStatusOne) {
  ASSERT_EQ(chmod(image_.c_str(), 0), 0);
  std::thread([this] { // capabilities belong to a thread, in the kernel
    if (geteuid() == 0) {
      prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE);
      prctl(PR_CAPBSET_DROP, CAP_DAC_READ_SEARCH);
    }
    ExpectFailure({"--image", image_, "--listen", "unix:" + socket_}, 1,
                  "Permission denied");
  })
      .join();
}

TEST_F(StartTest, ASocketInUseIsStatusOneAndItsOwnerLivesOn) {
  DaemonProcess first({"--image", image_, "--listen", "unix:" + socket_});
  ASSERT_TRUE(first.ready());
  ExpectFailure({"--image", image_, "--listen", "unix:" + socket_}, 1,
                "in use");
  WireClient client = WireClient::Unix(socket_);
  EXPECT_EQ(client.Start().size, 10000u);
}

TEST_F(StartTest, ItTakesOverTheSocketOfADaemonThatWasKilled) {
  {
    DaemonProcess first({"--image", image_, "--listen", "unix:" + socket_});
    ASSERT_TRUE(first.ready());
    first.Kill(SIGKILL);
    first.Wait();
  }
  ASSERT_EQ(access(socket_.c_str(), F_OK), 0);
  DaemonProcess second({"--image", image_, "--listen", "unix:" + socket_});
  ASSERT_TRUE(second.ready()) << second.log();
  EXPECT_EQ(WireClient::Unix(socket_).Start().size, 10000u);
}

TEST_F(StartTest, WhenDescriptorsRunOutItWaitsAndGoesOn) {
  DaemonProcess daemon({"--image", image_, "--listen", "unix:" + socket_});
  ASSERT_TRUE(daemon.ready());
  rlim_t few = static_cast<rlim_t>(daemon.n_fds()) + 4;
  rlimit limit = {few, few};
  ASSERT_EQ(prlimit(daemon.pid(), RLIMIT_NOFILE, &limit, nullptr), 0);
  std::vector<WireClient> clients;
  for (int i = 0; i < 20; i++) // the backlog takes them all
    clients.push_back(WireClient::Unix(socket_));
  daemon.AwaitLog("accept-paused");
  EXPECT_EQ(clients[0].Start().size, 10000u);
  clients.clear();
  EXPECT_EQ(WireClient::Unix(socket_).Start().size, 10000u);
}

// In a process of its own, as a limit that was lowered stays.
TEST_F(StartTest, ClientsGetOnlyTheDescriptorsThatItDoesNotNeed) {
  pid_t child = fork();
  if (child == 0) {
    rlimit few = {128, 128}, none = {100, 100};
    setrlimit(RLIMIT_NOFILE, &few);
    {
      DaemonProcess daemon(
          {"--image", image_, "--workers", "1", "--listen", "unix:" + socket_});
      EXPECT_TRUE(daemon.ready()) << daemon.log();
      std::vector<WireClient> clients;
      bool refused = false;
      for (int i = 0; i < 60 && !refused; i++) {
        clients.push_back(WireClient::Unix(socket_));
        refused = clients.back().Start().is_end();
      }
      EXPECT_TRUE(refused);
      EXPECT_EQ(daemon.log().find("accept-paused"), std::string::npos);
    }
    setrlimit(RLIMIT_NOFILE, &none);
    ExpectFailure(
        {"--image", image_, "--workers", "1", "--listen", "unix:" + socket_}, 1,
        "limit of open files");
    _exit(HasFailure());
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

// Likewise: where there is room for two images, there is none for the
// connections of one that is elsewhere.
TEST_F(StartTest, ConnectionsOfSourcesComeBeforeClients) {
  pid_t child = fork();
  if (child == 0) {
    rlimit few = {128, 128};
    setrlimit(RLIMIT_NOFILE, &few);
    const std::vector<std::string> args = {
        "--image",  "a=" + image_,     "--workers", "1",
        "--listen", "unix:" + socket_, "--image"};
    auto with = [&args](const std::string &image) {
      std::vector<std::string> all = args;
      all.push_back(image);
      return all;
    };
    EXPECT_TRUE(DaemonProcess(with("b=" + image_)).ready());
    ExpectFailure(with("b=http://127.0.0.1:1/x"), 1, "limit of open files");
    _exit(HasFailure());
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

// ---- What it inherits -------------------------------------------------------

TEST_F(StartTest, StandardDescriptorsThatAreClosedBecomeDevNull) {
  DaemonProcess daemon({"--image", image_, "--listen", "unix:" + socket_}, [] {
    for (int fd = 0; fd < 3; fd++)
      close(fd);
  });
  WireClient client = ConnectWhenReady(daemon);
  client.Start();
  for (const char *fd : {"fd/0", "fd/1", "fd/2"})
    EXPECT_EQ(daemon.Link(fd), "/dev/null");
}

TEST_F(StartTest, SignalsThatAreBlockedOrIgnoredEndItAllTheSame) {
  DaemonProcess daemon({"--image", image_, "--listen", "unix:" + socket_}, [] {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, nullptr);
    for (int n = 1; n < NSIG; n++)
      signal(n, SIG_IGN);
  });
  ASSERT_TRUE(daemon.ready()) << daemon.log();
  EXPECT_EQ(daemon.Status("SigBlk:"), "0000000000000000");
  daemon.Kill(SIGTERM);
  EXPECT_EQ(daemon.Wait(), 0) << daemon.log();
}

TEST_F(StartTest, SignalsThatAreNoReasonToEndDoNotEndIt) {
  DaemonProcess daemon({"--image", image_, "--listen", "unix:" + socket_});
  ASSERT_TRUE(daemon.ready());
  for (int number : {SIGHUP, SIGPIPE, SIGXFSZ, SIGTTOU, SIGCHLD})
    daemon.Kill(number);
  WireClient client = WireClient::Unix(socket_);
  EXPECT_EQ(client.Start().size, 10000u);
  daemon.Kill(SIGTERM);
  EXPECT_EQ(daemon.Wait(), 0);
}

TEST_F(StartTest, TheUmaskIsItsOwn) {
  DaemonProcess daemon({"--image", image_, "--listen", "unix:" + socket_},
                       [] { umask(0777); });
  ASSERT_TRUE(daemon.ready()) << daemon.log();
  EXPECT_EQ(daemon.Status("Umask:"), "0077");
  struct stat st;
  ASSERT_EQ(stat(socket_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0660u);
}

TEST_F(StartTest, ItLeavesItsDirectoryAndStillKnowsRelativePaths) {
  DaemonProcess daemon({"--image", "disk.img", "--listen", "unix:s"}, [this] {
    if (chdir(directory_.path().c_str()))
      _exit(1);
  });
  ASSERT_TRUE(daemon.ready()) << daemon.log();
  EXPECT_EQ(daemon.Link("cwd"), "/");
  WireClient client = WireClient::Unix(socket_);
  uint32_t image = client.Start().image;
  bytes_ = WriteRandomFile(directory_ / "new", 20000, 2);
  ASSERT_EQ(rename((directory_ / "new").c_str(), image_.c_str()), 0);
  EXPECT_EQ(client.Receive().size, 20000u); // Changed
  EXPECT_EQ(client.Read(image, 0, 20000).bytes, bytes_);
  daemon.Kill(SIGTERM);
  EXPECT_EQ(daemon.Wait(), 0);
  EXPECT_NE(access(socket_.c_str(), F_OK), 0);
  EXPECT_NE(access((socket_ + ".lock").c_str(), F_OK), 0);
}

// ---- A log that nobody reads ------------------------------------------------

// Standard error is a pipe that is full and that nobody reads.
void StuckStderr() {
  static int fds[2]; // the reading end stays open, in the daemon
  std::string page(4096, 'x');
  if (pipe(fds) || fcntl(fds[1], F_SETPIPE_SZ, 4096) < 0 ||
      write(fds[1], page.data(), page.size()) != 4096 || dup2(fds[1], 2) < 0)
    _exit(1);
}

TEST_F(StartTest, ALogThatNobodyReadsKeepsNobodyFromBeingServed) {
  for (const char *level : {"info", "debug"}) {
    DaemonProcess daemon({"--image", image_, "--listen", "unix:" + socket_,
                          "--workers", "2", "--log-level", level},
                         StuckStderr);
    WireClient client = ConnectWhenReady(daemon);
    uint32_t image = client.Start().image;
    for (int i = 0; i < 16; i++) { // the daemon logs each, on every worker
      WireClient bad = WireClient::Unix(socket_);
      bad.SendRaw(std::vector<uint8_t>(64, 0xff));
      EXPECT_TRUE(bad.AwaitClose());
    }
    for (int i = 0; i < 2; i++)
      EXPECT_EQ(WireClient::Unix(socket_).Start().size, 10000u);
    EXPECT_EQ(client.Read(image, 0, 10000).bytes, bytes_);
    daemon.Kill(SIGTERM);
    EXPECT_EQ(daemon.Wait(), 0);
  }
}

TEST_F(StartTest, ALogWhoseReaderIsGoneIsNoReasonToEnd) {
  DaemonProcess daemon({"--image", image_, "--listen", "unix:" + socket_}, [] {
    int fds[2];
    if (pipe(fds) || dup2(fds[1], 2) < 0)
      _exit(1);
    close(fds[0]);
    close(fds[1]);
  });
  WireClient client = ConnectWhenReady(daemon);
  EXPECT_EQ(client.Start().size, 10000u);
  daemon.Kill(SIGTERM);
  EXPECT_EQ(daemon.Wait(), 0);
}

TEST_F(StartTest, HelpAndVersionFailOnlyIfTheyAreNotWritten) {
  for (const char *option : {"--help", "--version"}) {
    DaemonProcess daemon({option});
    EXPECT_EQ(daemon.Wait(), 0);
    DaemonProcess unheard({option}, [] { close(1); });
    EXPECT_EQ(unheard.Wait(), 1);
    EXPECT_THAT(unheard.log(), HasSubstr("Bad file descriptor"));
  }
}

} // namespace

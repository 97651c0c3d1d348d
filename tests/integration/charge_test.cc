// Whose memory the pages of an image are: the daemon's control group is charged
// for them, not that of the client that reads them first.  Needs two groups,
// which root may make where the memory controller is.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/daemon_process.h"

namespace {

constexpr uint64_t kSize = 32 << 20;

std::string Slurp(const std::string &path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// This process's group in the hierarchy with those controllers.
std::string OwnGroup(const std::string &controllers) {
  std::istringstream lines(Slurp("/proc/self/cgroup"));
  for (std::string line; std::getline(lines, line);) {
    size_t at = line.find(":" + controllers + ":");
    if (at != std::string::npos)
      return line.substr(at + controllers.size() + 2);
  }
  return "";
}

// Where groups can be made: below this process's in version 1; beside it in
// version 2, where a group has either processes or groups.  "": nowhere.
std::string GroupsDirectory() {
  const std::string v1 = "/sys/fs/cgroup/memory";
  if (access((v1 + "/memory.usage_in_bytes").c_str(), F_OK) == 0)
    return v1 + OwnGroup("memory");
  std::string v2 = "/sys/fs/cgroup" + OwnGroup("");
  if (v2.back() != '/')
    v2.resize(v2.rfind('/'));
  bool has =
      Slurp(v2 + "/cgroup.subtree_control").find("memory") != std::string::npos;
  return has ? v2 : "";
}

class Group {
public:
  Group(const std::string &directory, const std::string &name)
      : path_(directory + "/cachetd-charge-" + std::to_string(getpid()) + "-" +
              name),
        is_there_(mkdir(path_.c_str(), 0755) == 0) {}
  ~Group() {
    if (is_there_)
      rmdir(path_.c_str());
  }

  bool is_there() const { return is_there_; }

  // Moves the calling process.  Between fork and exec.
  bool Enter() const {
    int fd = open((path_ + "/cgroup.procs").c_str(), O_WRONLY);
    bool done = fd >= 0 && write(fd, "0", 1) == 1;
    if (fd >= 0)
      close(fd);
    return done;
  }

  // What it is charged for memory of memfds and the like.
  uint64_t Shmem() const {
    std::istringstream lines(Slurp(path_ + "/memory.stat"));
    std::string key;
    for (uint64_t value; lines >> key >> value;)
      if (key == "shmem")
        return value;
    return UINT64_MAX;
  }

private:
  std::string path_;
  bool is_there_;
};

// Reads each page of the image through shared memory; the exit status.
int ReadAll(const Group &group, const std::string &uri,
            const std::vector<uint8_t> &bytes) {
  cachet *c = nullptr;
  if (!group.Enter() ||
      cachet_open(uri.c_str(), nullptr, &c, nullptr) != CACHET_OK ||
      !cachet_is_shared(c))
    return 1;
  for (int round = 0; round < 2; round++)
    for (uint64_t at = 0; at < kSize; at += cachet_page_size(c)) {
      cachet_slice slice;
      if (cachet_load(c, at, 1, &slice) != CACHET_OK ||
          slice.data[7] != bytes[at + 7])
        return 2;
      cachet_release(c, &slice);
    }
  return 0;
}

TEST(Charge, TheDaemonPaysForPagesAlsoIfAClientIsTheFirstToReadThem) {
  std::string directory = GroupsDirectory();
  if (directory.empty())
    GTEST_SKIP()
        << "no control group whose children have the memory controller";
  Group daemons(directory, "daemon"), clients(directory, "client");
  if (!daemons.is_there() || !clients.is_there())
    GTEST_SKIP() << "no control group can be made in " << directory;
  if (daemons.Shmem() != 0)
    GTEST_SKIP() << "the kernel does not tell shmem of a control group";
  TempDir dir;
  auto bytes = WriteRandomFile(dir / "disk.img", kSize, 1);
  DaemonProcess daemon({"--image", dir / "disk.img", "--listen",
                        "unix:" + (dir / "socket"), "--cache-size", "64M"},
                       [&] {
                         if (!daemons.Enter())
                           _exit(1);
                       });
  ASSERT_TRUE(daemon.ready()) << daemon.log();
  std::string uri = "cachet+unix:///disk.img?socket=" + (dir / "socket");
  pid_t client = fork();
  ASSERT_GE(client, 0);
  if (client == 0)
    _exit(ReadAll(clients, uri, bytes));
  int status = -1;
  ASSERT_EQ(waitpid(client, &status, 0), client);
  ASSERT_TRUE(WIFEXITED(status));
  ASSERT_EQ(WEXITSTATUS(status), 0);
  // The charge stays where it was made for as long as the page is there.
  EXPECT_GE(daemon.MemfdBytes(), kSize);
  EXPECT_GE(daemons.Shmem(), kSize - (1 << 20));
  EXPECT_LE(clients.Shmem(), 1u << 20) << "no more than some page states";
  daemon.Kill(SIGTERM);
  EXPECT_EQ(daemon.Wait(), 0) << daemon.log();
}

} // namespace

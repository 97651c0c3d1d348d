// Whose memory the pages of an image are: the daemon's control group is charged
// for them, not that of the client that reads them first.  Needs two groups,
// which root may make where the memory controller is.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "tests/support/control_group.h"
#include "tests/support/daemon_process.h"

namespace {

constexpr uint64_t kSize = 32 << 20;

// What a group is charged for memory of memfds and the like.
uint64_t Shmem(const ControlGroup &group) {
  return group.Get("memory.stat", "shmem");
}

// Reads each page of the image through shared memory; the exit status.
int ReadAll(const ControlGroup &group, const std::string &uri,
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
  ControlGroup daemons("daemon"), clients("client");
  if (!daemons.why_not().empty() || !clients.why_not().empty())
    GTEST_SKIP() << daemons.why_not() << clients.why_not();
  if (Shmem(daemons) != 0)
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
  EXPECT_GE(Shmem(daemons), kSize - (1 << 20));
  EXPECT_LE(Shmem(clients), 1u << 20) << "no more than some page states";
  daemon.Kill(SIGTERM);
  EXPECT_EQ(daemon.Wait(), 0) << daemon.log();
}

} // namespace

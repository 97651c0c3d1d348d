#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

TEST(FdTest, ADescriptorAboveTheStandardOnesStaysWhatItIs) {
  int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  ASSERT_GT(fd, 2);
  EXPECT_EQ(fd_above_std(fd), fd);
  close(fd);
}

TEST(FdTest, AFailureKeepsItsErrno) {
  errno = ENFILE;
  EXPECT_EQ(fd_above_std(-1), -1);
  EXPECT_EQ(errno, ENFILE);
}

// In a child, which has its three standard descriptors closed.
int Raise() {
  for (int i = 0; i < 3; i++)
    close(i);
  for (int i = 0; i < 3; i++) {
    int low = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int fd = fd_above_std(low);
    if (low != 0 || fd < 3 || fcntl(fd, F_GETFD) != FD_CLOEXEC ||
        fcntl(0, F_GETFD) >= 0)
      return 1;
  }
  return 0;
}

TEST(FdTest, AStandardNumberIsGivenBack) {
  pid_t pid = fork();
  if (pid == 0)
    _exit(Raise());
  int status;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
}

} // namespace

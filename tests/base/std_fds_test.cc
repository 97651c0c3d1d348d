#include "base/std_fds.h"

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace {

// Runs `fn` in a child with the descriptors of `closed` (bit n: descriptor n)
// closed.  Its result, which is 0 when all is well.
template <typename F> int InChildWithout(int closed, F fn) {
  pid_t child = fork();
  if (child == 0) {
    for (int fd = 0; fd < 3; fd++)
      if (closed & 1 << fd)
        close(fd);
    _exit(fn());
  }
  int status = -1;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

TEST(StdFdsTest, TheNextDescriptorIsNoneOfThem) {
  for (int closed = 0; closed < 8; closed++)
    EXPECT_EQ(InChildWithout(closed,
                             [] {
                               if (std_fds_open() != 0)
                                 return 1;
                               return open("/dev/null", O_RDONLY) > 2 ? 0 : 2;
                             }),
              0)
        << closed;
}

TEST(StdFdsTest, UsingOneThatWasClosedFailsAsItDidBefore) {
  EXPECT_EQ(InChildWithout(7,
                           [] {
                             char c = 0;
                             std_fds_open();
                             if (read(0, &c, 1) != -1 || errno != EBADF)
                               return 1;
                             for (int fd = 1; fd < 3; fd++)
                               if (write(fd, &c, 1) != -1 || errno != EBADF)
                                 return 2;
                             return 0;
                           }),
            0);
}

TEST(StdFdsTest, ThoseThatAreOpenStayWhatTheyAre) {
  EXPECT_EQ(InChildWithout(2,
                           [] {
                             int fds[2];
                             if (pipe(fds) != 0 || fds[0] != 1)
                               return 1;
                             dup2(fds[1], 2);
                             std_fds_open();
                             char c = 'x', back = 0;
                             if (write(2, &c, 1) != 1 || read(1, &back, 1) != 1)
                               return 2;
                             return back == c ? 0 : 3;
                           }),
            0);
}

} // namespace

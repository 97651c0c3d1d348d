#include "source/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"

int beneath_open_directory(const char *path) {
  int fd = fd_above_std(open(path, O_PATH | O_DIRECTORY | O_CLOEXEC));
  return fd < 0 ? -errno : fd;
}

int beneath_open(int directory, const char *name, int flags) {
  enum { MAX_TRIES = 8 };
  struct open_how how = {
      .flags = (unsigned)flags | O_CLOEXEC,
      .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
  };
  int fd;
  int n_tries = 0;
  do /* EAGAIN: something was renamed while a link with `..` was followed */
    fd = fd_above_std(
        (int)syscall(SYS_openat2, directory, name, &how, sizeof how));
  while (fd < 0 && errno == EAGAIN && ++n_tries < MAX_TRIES);
  return fd < 0 ? -errno : fd;
}

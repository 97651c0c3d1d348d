#include "tests/bench/echo.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/rig.h"

typedef uint8_t message[ECHO_LEN];

static bool transfer(int fd, message m, ssize_t (*fn)(int, void *, size_t)) {
  for (size_t done = 0; done < ECHO_LEN;) {
    ssize_t n = fn(fd, m + done, ECHO_LEN - done);
    if (n <= 0)
      return false;
    done += (size_t)n;
  }
  return true;
}

static ssize_t write_some(int fd, void *bytes, size_t len) {
  return write(fd, bytes, len);
}

/* The process has nothing open but its end. */
__attribute__((noreturn)) static void echo(int fd) {
  message m;
  if (dup2(fd, STDIN_FILENO) < 0 || close_range(STDERR_FILENO + 1, ~0u, 0) < 0)
    _exit(1);
  while (transfer(STDIN_FILENO, m, read) &&
         transfer(STDIN_FILENO, m, write_some))
    ;
  _exit(0);
}

void echo_start(struct echo *e) {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
    rig_fail("socketpair: %s", strerror(errno));
  e->pid = rig_fork(SIGTERM);
  if (e->pid == 0)
    echo(fds[1]);
  close(fds[1]);
  e->fd = fds[0];
}

void echo_round_trip(const struct echo *e) {
  message m = {0};
  if (!transfer(e->fd, m, write_some) || !transfer(e->fd, m, read))
    rig_fail("the other end of the round trip ended");
}

void echo_stop(const struct echo *e) {
  close(e->fd);
  waitpid(e->pid, NULL, 0);
}

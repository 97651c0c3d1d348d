#include "daemon/net/stray_fds.h"

#include <errno.h>
#include <sys/socket.h>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif
#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif

bool stray_fds_refuse(int fd) {
  int off = 0;
  return setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof off) == 0;
}

/* What is left for MSG_CTRUNC to say is that there are descriptors: whoever
 * made the listening socket may have asked for credentials.  And without
 * SO_OOBINLINE an urgent byte would be dropped unseen, with all that came with
 * it. */
bool stray_fds_may_come(int fd) {
  static const int unwanted[] = {SO_PASSCRED, SO_PASSSEC, SO_PASSPIDFD};
  int on = 1, off = 0;
  socklen_t len = sizeof on;
  if (getsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &on, &len) == 0 && !on)
    return false;
  for (size_t i = 0; i < sizeof unwanted / sizeof unwanted[0]; i++)
    setsockopt(fd, SOL_SOCKET, unwanted[i], &off, sizeof off);
  on = 1;
  setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on);
  return true;
}

/* The look takes a reference to the descriptors and gives it back.  What it has
 * seen stays in front: nobody else reads the socket. */
ssize_t stray_fds_recv(int fd, void *bytes, size_t len) {
  struct iovec iov = {bytes, len};
  struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
  ssize_t n = recvmsg(fd, &msg, MSG_PEEK | MSG_DONTWAIT);
  if (n <= 0)
    return n;
  if (msg.msg_flags & MSG_CTRUNC) {
    errno = EPROTO;
    return -1;
  }
  return recv(fd, bytes, (size_t)n, MSG_DONTWAIT);
}

/* Once it is shut down nothing more can come, so what is there is bounded by
 * the peer's send buffer. */
bool stray_fds_drain(int fd, void *bytes, size_t len) {
  ssize_t n;
  shutdown(fd, SHUT_RDWR);
  do
    n = stray_fds_recv(fd, bytes, len);
  while (n > 0 || (n < 0 && errno == EINTR));
  return n == 0 || errno != EPROTO;
}

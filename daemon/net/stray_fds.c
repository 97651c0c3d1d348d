#include "daemon/net/stray_fds.h"

#include <errno.h>
#include <sys/socket.h>

#include "proto/socket.h"

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif

/* What is left for MSG_CTRUNC to say is that there are descriptors: the
 * process that made the listening socket may have asked for credentials.  And
 * without SO_OOBINLINE an urgent byte would be dropped unseen, with all that
 * came with it. */
bool stray_fds_may_come(int fd) {
  static const int unwanted[] = {SO_PASSCRED, SO_PASSSEC, SO_PASSPIDFD};
  int on = 1, off = 0;
  if (!socket_allows_fds(fd))
    return false;
  for (size_t i = 0; i < sizeof unwanted / sizeof unwanted[0]; i++)
    setsockopt(fd, SOL_SOCKET, unwanted[i], &off, sizeof off);
  setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on);
  return true;
}

/* The look takes a reference to the descriptors and gives it back.  What it has
 * seen stays in front: nobody else reads the socket. */
static ssize_t stray_fds_recv(void *transport, void *bytes, size_t len,
                              struct stream_fds *came) {
  int fd = *(int *)transport;
  struct iovec iov = {bytes, len};
  struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
  ssize_t n = recvmsg(fd, &msg, MSG_PEEK | MSG_DONTWAIT);
  came->stray = n > 0 && msg.msg_flags & MSG_CTRUNC;
  if (n > 0 && !came->stray)
    n = recv(fd, bytes, (size_t)n, MSG_DONTWAIT);
  return n < 0 ? -errno : n;
}

/* Once it is shut down nothing more can come, so what is there is bounded by
 * the peer's send buffer. */
bool stray_fds_drain(int fd, void *bytes, size_t len) {
  struct stream_fds came;
  ssize_t n;
  shutdown(fd, SHUT_RDWR);
  do
    n = stray_fds_recv(&fd, bytes, len, &came);
  while ((n > 0 && !came.stray) || n == -EINTR);
  return !came.stray;
}

const struct stream_io stray_fds_io = {
    .recv = stray_fds_recv, .send = socket_send, .close_fd = socket_close_fd};

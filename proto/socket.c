#include "proto/socket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83 /* Linux 6.16 */
#endif

enum {
  /* A socket that was sent may itself hold sockets, and so on.  The kernel
   * allows 4 levels. */
  MAX_DEPTH = 4,
  MAX_EMPTY =
      1024, /* datagrams in a queue, as net.unix.max_dgram_qlen has it */
};

bool socket_allow_fds(int fd, bool allow) {
  int on = allow;
  return setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &on, sizeof on) == 0;
}

static int socket_option(int fd, int option) {
  int value = 0;
  socklen_t len = sizeof value;
  return getsockopt(fd, SOL_SOCKET, option, &value, &len) == 0 ? value : -1;
}

bool socket_allows_fds(int fd) { return socket_option(fd, SO_PASSRIGHTS) != 0; }

/* ---- Receiving ------------------------------------------------------------
 */

/* As receive_all(), but descriptors may be 0, 1 or 2. */
static ssize_t receive(int fd, void *bytes, size_t len,
                       struct stream_fds *came) {
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof came->fds)];
  } control;
  struct iovec iov = {bytes, len};
  struct msghdr msg = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};
  ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (n < 0)
    return -errno;
  came->cut = msg.msg_flags & MSG_CTRUNC;
  for (struct cmsghdr *m = CMSG_FIRSTHDR(&msg); m; m = CMSG_NXTHDR(&msg, m)) {
    if (m->cmsg_level != SOL_SOCKET || m->cmsg_type != SCM_RIGHTS)
      continue;
    came->n = (unsigned)((m->cmsg_len - CMSG_LEN(0)) / sizeof came->fds[0]);
    memcpy(came->fds, CMSG_DATA(m), came->n * sizeof came->fds[0]);
  }
  return n;
}

static ssize_t receive_all(void *transport, void *bytes, size_t len,
                           struct stream_fds *came) {
  ssize_t n = receive(*(int *)transport, bytes, len, came);
  unsigned n_came = came->n;
  came->n = 0;
  for (unsigned i = 0; i < n_came; i++) {
    int fd = fd_above_std(came->fds[i]);
    if (fd >= 0)
      came->fds[came->n++] = fd;
    else
      came->cut = true;
  }
  return n;
}

static ssize_t receive_plain(void *transport, void *bytes, size_t len,
                             struct stream_fds *came) {
  (void)came;
  ssize_t n = recv(*(int *)transport, bytes, len, MSG_DONTWAIT);
  return n < 0 ? -errno : n;
}

/* ---- Sending --------------------------------------------------------------
 */

ssize_t socket_send(void *transport, const struct iovec *iovs, size_t n_iovs,
                    const int *fds, unsigned n_fds) {
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(STREAM_MAX_FDS * sizeof *fds)];
  } control = {.bytes = {0}};
  size_t len = n_fds * sizeof *fds;
  struct msghdr msg = {.msg_iov = (struct iovec *)iovs, .msg_iovlen = n_iovs};
  if (n_fds) {
    msg.msg_control = control.bytes;
    msg.msg_controllen = CMSG_SPACE(len);
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(len);
    memcpy(CMSG_DATA(cmsg), fds, len);
  }
  ssize_t n = sendmsg(*(int *)transport, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
  return n < 0 ? -errno : n;
}

/* ---- Closing --------------------------------------------------------------
 */

static void close_at_once(int fd, int depth);

/* Closes the descriptors that wait in a socket.  After the shutdown no peer can
 * add any, so this ends.  A result of 0 is the end of a stream, but may also be
 * a datagram without bytes; so for datagrams it tries MAX_EMPTY times. */
static void empty_socket(int fd, int depth) {
  int n_empty = socket_option(fd, SO_TYPE) == SOCK_STREAM ? 0 : MAX_EMPTY;
  char bytes[4096];
  struct stream_fds came;
  ssize_t n;
  shutdown(fd, SHUT_RD);
  do {
    came.n = 0;
    n = receive(fd, bytes, sizeof bytes, &came);
    for (unsigned i = 0; i < came.n; i++)
      close_at_once(came.fds[i], depth);
  } while (n > 0 || came.n || (n == 0 && n_empty-- > 0));
}

/* Closes a descriptor that a peer has sent.  No call may wait for such a file,
 * as fstat(2) may. */
static void close_at_once(int fd, int depth) {
  int domain = socket_option(fd, SO_DOMAIN);
  if (domain >= 0) {
    struct linger off = {0, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof off);
    if (domain == AF_UNIX && depth < MAX_DEPTH)
      empty_socket(fd, depth + 1);
  }
  close(fd);
}

/* A descriptor that was to be sent belongs to this process, and other code may
 * use the same file: so it is only closed, and not emptied. */
void socket_close_fd(void *transport, int fd, bool came) {
  (void)transport;
  if (came)
    close_at_once(fd, 0);
  else
    close(fd);
}

void socket_close(int fd) { close_at_once(fd, 0); }

const struct stream_io socket_io = {
    .recv = receive_all, .send = socket_send, .close_fd = socket_close_fd};

const struct stream_io socket_plain_io = {
    .recv = receive_plain, .send = socket_send, .close_fd = socket_close_fd};

#include "client/remote/rights.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83 /* Linux 6.16 */
#endif

enum {
  SEND_MAX = 253, /* SCM_MAX_FD: what one message may have */
  /* A socket that was sent may itself hold sockets, and so on.  The kernel
   * allows 4 levels. */
  MAX_DEPTH = 4,
  MAX_EMPTY =
      1024, /* datagrams in a queue, as net.unix.max_dgram_qlen has it */
};

void rights_allow(int fd, bool allow) {
  int on = allow;
  setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &on, sizeof on);
}

/* Like recv(2).  `fds` has room for SEND_MAX. */
static ssize_t receive(int fd, void *buf, size_t len, int *fds, unsigned *n_fds,
                       bool *cut) {
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(SEND_MAX * sizeof(int))];
  } control;
  struct iovec iov = {buf, len};
  struct msghdr msg = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = control.bytes,
                       .msg_controllen = sizeof control.bytes};
  *n_fds = 0;
  ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  *cut = n >= 0 && msg.msg_flags & MSG_CTRUNC;
  if (n < 0)
    return n;
  for (struct cmsghdr *m = CMSG_FIRSTHDR(&msg); m; m = CMSG_NXTHDR(&msg, m)) {
    if (m->cmsg_level != SOL_SOCKET || m->cmsg_type != SCM_RIGHTS)
      continue;
    *n_fds = (unsigned)((m->cmsg_len - CMSG_LEN(0)) / sizeof *fds);
    memcpy(fds, CMSG_DATA(m), *n_fds * sizeof *fds);
  }
  return n;
}

static void close_at_once(int fd, int depth);

static int socket_option(int fd, int option) {
  int value = 0;
  socklen_t len = sizeof value;
  return getsockopt(fd, SOL_SOCKET, option, &value, &len) == 0 ? value : -1;
}

/* Closes what is in a socket.  After the shutdown nothing is added, so this
 * ends; 0 is the end of a stream, but also a datagram of no bytes. */
static void empty_socket(int fd, int depth) {
  int n_empty = socket_option(fd, SO_TYPE) == SOCK_STREAM ? 0 : MAX_EMPTY;
  char bytes[4096];
  int fds[SEND_MAX];
  unsigned n_fds;
  bool cut;
  ssize_t n;
  shutdown(fd, SHUT_RD);
  do {
    n = receive(fd, bytes, sizeof bytes, fds, &n_fds, &cut);
    for (unsigned i = 0; i < n_fds; i++)
      close_at_once(fds[i], depth);
  } while (n > 0 || n_fds || (n == 0 && n_empty-- > 0));
}

/* Only questions that do not wait may be asked of a descriptor that a peer
 * sent: fstat(2) is none. */
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

/* Moves a few descriptors that were received to `out`. */
static void keep(const int *fds, unsigned n, struct rights *out) {
  for (unsigned i = 0; i < n; i++) {
    out->fds[i] = fd_above_std(fds[i]);
    out->cut |= out->fds[i] < 0;
  }
  out->n = n;
}

ssize_t rights_recv(int fd, void *buf, size_t len, struct rights *out,
                    unsigned *n_refused) {
  int fds[SEND_MAX];
  unsigned n_fds;
  *n_refused = 0;
  ssize_t n = receive(fd, buf, len, fds, &n_fds, &out->cut);
  out->n = 0;
  if (n_fds > RIGHTS_MAX) {
    *n_refused = n_fds;
    for (unsigned i = 0; i < n_fds; i++)
      close_at_once(fds[i], 0);
  } else {
    keep(fds, n_fds, out);
  }
  return n;
}

bool rights_are_memory(const struct rights *r) {
  for (unsigned i = 0; i < r->n; i++)
    if (fcntl(r->fds[i], F_GET_SEALS) < 0)
      return false;
  return true;
}

void rights_close(struct rights *r) {
  for (unsigned i = 0; i < r->n; i++)
    if (r->fds[i] >= 0)
      close_at_once(r->fds[i], 0);
  r->n = 0;
}

void rights_close_socket(int fd) { close_at_once(fd, 0); }

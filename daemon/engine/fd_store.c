#include "daemon/engine/fd_store.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A path, or, behind an @, a name that is in no file system. */
static int parse_address(struct fd_store *store, const char *address) {
  size_t len = strlen(address);
  if ((address[0] != '/' && address[0] != '@') || len < 2 ||
      len >= sizeof store->at.sun_path)
    return -EINVAL;
  store->at = (struct sockaddr_un){.sun_family = AF_UNIX};
  memcpy(store->at.sun_path, address, len);
  if (address[0] == '@')
    store->at.sun_path[0] = '\0';
  store->at_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
  return 0;
}

int fd_store_init(struct fd_store *store, const char *address) {
  *store = (struct fd_store){.fd = -1};
  if (!address)
    return 0;
  int r = parse_address(store, address);
  if (r < 0)
    return r;
  store->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  return store->fd < 0 ? -errno : 0;
}

void fd_store_fini(struct fd_store *store) {
  if (store->fd >= 0)
    close(store->fd);
  store->fd = -1;
}

static int send_text(const struct fd_store *store, char *text, size_t len,
                     const int *fds, unsigned n) {
  union {
    struct cmsghdr align;
    char room[CMSG_SPACE(FD_STORE_MAX_FDS * sizeof(int))];
  } control = {0};
  struct iovec iov = {text, len};
  struct msghdr msg = {.msg_name = (void *)(uintptr_t)&store->at,
                       .msg_namelen = store->at_len,
                       .msg_iov = &iov,
                       .msg_iovlen = 1};
  if (n > 0) {
    msg.msg_control = &control;
    msg.msg_controllen = CMSG_SPACE(n * sizeof *fds);
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(n * sizeof *fds);
    memcpy(CMSG_DATA(c), fds, n * sizeof *fds);
  }
  ssize_t sent;
  do
    sent = sendmsg(store->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  return sent < 0 ? -errno : 0;
}

int fd_store_add(const struct fd_store *store, const char *name, const int *fds,
                 unsigned n) {
  char text[128];
  assert(n > 0 && n <= FD_STORE_MAX_FDS);
  if (store->fd < 0)
    return -ENOTCONN;
  /* FDPOLL=0: the manager is not to drop a process's descriptor when that is
   * gone, since we remove what has one name together. */
  int len = snprintf(text, sizeof text, "FDSTORE=1\nFDNAME=%s\nFDPOLL=0", name);
  return send_text(store, text, (size_t)len, fds, n);
}

int fd_store_remove(const struct fd_store *store, const char *name) {
  char text[128];
  if (store->fd < 0)
    return -ENOTCONN;
  int len = snprintf(text, sizeof text, "FDSTOREREMOVE=1\nFDNAME=%s", name);
  return send_text(store, text, (size_t)len, NULL, 0);
}

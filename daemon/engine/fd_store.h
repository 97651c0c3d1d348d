/* The service manager's descriptor store (sd_pid_notify_with_fds(3)).  The
 * manager passes the descriptors in it to the next process of the service, even
 * if this one is killed.
 *
 * A message is one datagram.  No call waits until the manager reads it, so a
 * thread that serves may send one.
 *
 * Any thread. */
#ifndef DAEMON_ENGINE_FD_STORE_H
#define DAEMON_ENGINE_FD_STORE_H

#include <sys/socket.h>
#include <sys/un.h>

#ifdef __cplusplus
extern "C" {
#endif

struct fd_store {
  int fd; /* a socket; -1: there is no store */
  struct sockaddr_un at;
  socklen_t at_len;
};

enum { FD_STORE_MAX_FDS = 4 };

/* `address` is $NOTIFY_SOCKET; NULL: there is no store, and each call returns
 * -ENOTCONN.  0; or a negative errno, and then it is as for NULL. */
int fd_store_init(struct fd_store *store, const char *address);
void fd_store_fini(struct fd_store *store);

/* Stores descriptors under one name; the caller keeps its own.  0 or a negative
 * errno; -EAGAIN: the manager has no room for a message now. */
int fd_store_add(const struct fd_store *store, const char *name, const int *fds,
                 unsigned n);

/* Removes all descriptors that are stored under a name.  Likewise. */
int fd_store_remove(const struct fd_store *store, const char *name);

#ifdef __cplusplus
}
#endif

#endif

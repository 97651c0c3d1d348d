/* The service manager's descriptor store (sd_pid_notify_with_fds(3)): what is
 * in it is handed to the next process of the service, also if this one is
 * killed.
 *
 * A message is one datagram, and no call waits for the manager to read it: a
 * serving thread may make it.
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

/* `address` is $NOTIFY_SOCKET; NULL: there is no store, and each call says
 * -ENOTCONN.  0 or a negative errno: as for NULL. */
int fd_store_init(struct fd_store *store, const char *address);
void fd_store_fini(struct fd_store *store);

/* Stores descriptors under one name; the caller keeps his own.  0 or a negative
 * errno; -EAGAIN: the manager has too much to read just now. */
int fd_store_add(const struct fd_store *store, const char *name, const int *fds,
                 unsigned n);

/* Removes all that were stored under a name.  Likewise. */
int fd_store_remove(const struct fd_store *store, const char *name);

#ifdef __cplusplus
}
#endif

#endif

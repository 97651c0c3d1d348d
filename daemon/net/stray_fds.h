/* Descriptors that a peer sends along and that nobody asked for (SCM_RIGHTS).
 *
 * They lie in the receive queue of a Unix socket with the byte that they came
 * with.  A call that takes that byte, or closes the socket, drops them; and the
 * kernel closes a descriptor that is dropped for good in that same call.  That
 * may take as long as the peer likes: a TCP socket with unsent bytes and
 * SO_LINGER, a file of a network file system.  So no thread that serves may do
 * either:
 *
 *   D1  Where the kernel can refuse them (socket_allow_fds(), Linux 6.16), a
 *       socket that listens does so, and those that connect to it from then on
 *       inherit that.  Then the peer's sendmsg(2) fails with EPERM.
 *   D2  Else a socket is looked into before bytes are taken out of it, and
 *       before it is closed.  One that holds descriptors is closed by the
 *       closer.
 *
 * Any thread. */
#ifndef DAEMON_NET_STRAY_FDS_H
#define DAEMON_NET_STRAY_FDS_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/stream.h"

/* Whether some can come, or be there already, in an accepted Unix socket.  If
 * so it is made ready for what follows. */
bool stray_fds_may_come(int fd);

/* As socket_io, but leaves everything where it is, and says that it is stray,
 * if there are descriptors among the bytes that it is asked for. */
extern const struct stream_io stray_fds_io;

/* Shuts the socket down and takes all out of it that has come; `bytes` is room
 * for that.  False: there are descriptors, and closing it may take time. */
bool stray_fds_drain(int fd, void *bytes, size_t len);

#endif

/* The plain socket as a stream's transport, and descriptors that come along
 * with bytes on a Unix socket.
 *
 * A peer may send descriptors unasked, and there are files whose close waits: a
 * socket that lingers over what it has not sent (SO_LINGER) is the one that
 * anybody can make.  The kernel closes what a receiver has no room for inside
 * of its recv(2), and what was not received inside of its close(2): on a thread
 * that has promised time-outs.  So
 *
 *   - where the kernel can (Linux 6.16), peers cannot send any but while it is
 *     allowed;
 *   - else all that come are received, and what is not wanted, or is still in
 *     the socket when it is closed, is closed such that it does not linger.
 *
 * What that leaves, on an older kernel or in the place of what was asked for,
 * is a file whose close waits for another reason (one of a FUSE file system
 * whose server hangs), and what comes while no descriptor is free here.  A
 * thread that may not wait even for that does as daemon/net/stray_fds.h says.
 */
#ifndef PROTO_SOCKET_H
#define PROTO_SOCKET_H

#include <stdbool.h>

#include "proto/stream.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The transport is a pointer to the socket's descriptor.  Descriptors that come
 * along are never 0, 1 or 2.  The kernel ends a read before bytes that have
 * descriptors of their own, so they belong to the bytes that were read last. */
extern const struct stream_io socket_io;

/* The same for a socket on which none can come: it makes no room for them,
 * which would be some per cent of what a short answer costs. */
extern const struct stream_io socket_plain_io;

/* Calls of both, for a transport that receives in another way. */
ssize_t socket_send(void *transport, const struct iovec *iovs, size_t n_iovs,
                    const int *fds, unsigned n_fds);
void socket_close_fd(void *transport, int fd, bool came);

/* Whether the peer of a Unix socket, or of those that a listening one accepts,
 * may send descriptors.  False: the kernel cannot refuse them. */
bool socket_allow_fds(int fd, bool allow);

/* What was said last.  True on a kernel that cannot refuse them. */
bool socket_allows_fds(int fd);

/* Closes a stream socket with all that came and was not received, without
 * waiting for what that has not sent. */
void socket_close(int fd);

#ifdef __cplusplus
}
#endif

#endif

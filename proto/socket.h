/* The plain socket as the transport of a stream, and the descriptors that peers
 * send on a Unix socket.
 *
 * A peer may send descriptors that nobody requested, and the close of a file
 * may block.  For example, anybody can make a socket that lingers until its
 * data is sent (SO_LINGER).  The kernel closes the descriptors for which a
 * receiver has no room inside its recv(2), and those that were not received
 * inside its close(2): on a thread that must keep its time-outs.  Therefore
 *
 *   - on Linux 6.16 and later, peers can send descriptors only while they are
 *     allowed to;
 *   - on earlier kernels, all descriptors are received.  Those that are not
 *     wanted, or are still in the socket when it is closed, are closed such
 *     that they do not linger.
 *
 * On an earlier kernel, or in place of descriptors that were requested, a close
 * can still block for another reason (a file of a FUSE file system whose server
 * hangs, or descriptors that arrive while no descriptor is free here).  A
 * thread that must not wait even then follows daemon/net/stray_fds.h. */
#ifndef PROTO_SOCKET_H
#define PROTO_SOCKET_H

#include <stdbool.h>

#include "proto/stream.h"

#ifdef __cplusplus
extern "C" {
#endif

/* `transport` points to the descriptor of the socket.  Received descriptors are
 * never 0, 1 or 2.  The kernel ends a read before bytes that have descriptors
 * of their own, so descriptors belong to the bytes that were read last. */
extern const struct stream_io socket_io;

/* The same for a socket on which no descriptors can arrive.  It provides no
 * room for them, which saves a few per cent of the cost of a short answer. */
extern const struct stream_io socket_plain_io;

/* The calls of both, for a transport that receives in another way. */
ssize_t socket_send(void *transport, const struct iovec *iovs, size_t n_iovs,
                    const int *fds, unsigned n_fds);
void socket_close_fd(void *transport, int fd, bool came);

/* Sets whether the peer of a Unix socket, or of those that a listening socket
 * accepts, may send descriptors.  Returns false if the kernel cannot refuse
 * them. */
bool socket_allow_fds(int fd, bool allow);

/* The last setting.  True on a kernel that cannot refuse descriptors. */
bool socket_allows_fds(int fd);

/* Closes a stream socket with everything in it that was not received, without
 * waiting until that has sent its data. */
void socket_close(int fd);

#ifdef __cplusplus
}
#endif

#endif

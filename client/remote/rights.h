/* Rights: descriptors that come along with bytes on a Unix socket.
 *
 * A peer may send them unasked, and there are files whose close waits: a socket
 * that lingers over what it has not sent (SO_LINGER) is the one that anybody
 * can make.  The kernel closes what a receiver has no room for inside of its
 * recv(2), and what was not received inside of its close(2): on the thread that
 * has promised time-outs.  So
 *
 *   - where the kernel can (Linux 6.16), peers cannot send any but while it is
 *     allowed;
 *   - else all that come are received, and what is not wanted, or is still in
 *     the socket when it is closed, is closed such that it does not linger.
 *
 * What that leaves, on an older kernel or in the place of what was asked for,
 * is a file whose close waits for another reason (one of a FUSE file system
 * whose server hangs), and what comes while no descriptor is free here. */
#ifndef CLIENT_REMOTE_RIGHTS_H
#define CLIENT_REMOTE_RIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { RIGHTS_MAX = 4 };

struct rights {
  int fds[RIGHTS_MAX];
  unsigned n;
  bool cut; /* some were lost: there was no free descriptor here */
};

/* Whether the peer of a Unix socket may send descriptors.  True until it is
 * said otherwise, and always on a kernel that cannot. */
void rights_allow(int fd, bool allow);

/* Like recv(2), and does not wait.  `*out` is what came along; no descriptor is
 * 0, 1 or 2.  More than RIGHTS_MAX are none: `*n_refused` counts those that
 * were closed.  The kernel ends a read before bytes that have descriptors of
 * their own, so they belong to the bytes that were read last. */
ssize_t rights_recv(int fd, void *buf, size_t len, struct rights *out,
                    unsigned *n_refused);

/* Whether all of them are memory from memfd_create(2), of which a close does
 * not wait.  Does not wait to find out. */
bool rights_are_memory(const struct rights *r);

/* Closes them, without waiting for what they have not sent. */
void rights_close(struct rights *r);

/* Closes a stream socket, likewise, with all that came and was not received. */
void rights_close_socket(int fd);

#ifdef __cplusplus
}
#endif

#endif

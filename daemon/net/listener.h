/* Listening sockets, Unix and TCP, the latter with TLS or without.
 *
 *   L1  A Unix socket that somebody answers on is never taken away; one that
 *       nobody answers on (stale) is replaced; what is no socket is left
 *       alone.  Two daemons that start at once cannot take each other's:
 *       probing, binding and listening happen under a lock on PATH.lock, which
 *       only their user can open.
 *   L2  A socket file is removed at the end only while it is still ours.
 *   L3  A listener lives until the last reference to it is gone.  Each
 *       connection has one, so that what it came through can be asked about
 *       after it was closed.
 *
 * One thread at a time opens, adopts, ends and closes it.  All else: any
 * thread. */
#ifndef DAEMON_NET_LISTENER_H
#define DAEMON_NET_LISTENER_H

#include <stdbool.h>
#include <sys/types.h>

#include "daemon/net/address.h"

#ifdef __cplusplus
extern "C" {
#endif

struct listener;
struct tls_context;

/* Binds and listens.  0, or a negative errno with the reason in `err`, and the
 * caller has the one reference.  For a `tls:` address listener_set_tls() is due
 * before it is served. */
int listener_open(const struct address *address, struct listener **out,
                  char *err, size_t err_len);

/* Of a socket that is taken over. */
enum listener_flags {
  LISTENER_TLS = 1,      /* its connections speak TLS */
  LISTENER_INSECURE = 2, /* it need not be one that address_check() allows */
};

/* Takes over a listening socket that was inherited (sd_listen_fds(3)); the
 * descriptor is the listener's from here, also on failure.  `flags` are of enum
 * listener_flags.  As above. */
int listener_adopt(int fd, unsigned flags, struct listener **out, char *err,
                   size_t err_len);

/* Another listener on the socket of one that is not local, for connections that
 * speak TLS or do not, as `address` says.  As listener_open(). */
int listener_share(const struct listener *l, const struct address *address,
                   struct listener **out, char *err, size_t err_len);

/* Has the connections that are accepted from now on speak TLS with that
 * context, of which it takes a reference.  Of one that is for TLS. */
void listener_set_tls(struct listener *l, struct tls_context *context);

/* Listens no more, and removes the socket file that listener_open() made.
 * What other threads may ask about it stays.  The last step is the caller's: it
 * closes the descriptor that this returns, if that may have to wait for a peer
 * (see stray_fds.h); else -1. */
int listener_end(struct listener *l);

struct listener *listener_ref(struct listener *l);

/* The last reference closes and frees it.  NULL is fine. */
void listener_unref(struct listener *l);

int listener_fd(const struct listener *l);

/* The address as it is bound (a port 0 is a real one now), as text. */
const char *listener_text(const struct listener *l);

/* The address: where it is bound, and whether it is for TLS. */
const struct address *listener_address(const struct listener *l);

/* Whether it is bound so that connections to this address come to it, with TLS
 * or without.  Then no other socket can be bound there. */
bool listener_covers(const struct listener *l, const struct address *address);

/* Whether its connections speak TLS.  There are three kinds of listeners: Unix,
 * TCP, and TCP with TLS.  Only connections of the last begin with a TLS
 * handshake. */
bool listener_is_tls(const struct listener *l);

/* A reference to the context of its connections, which the caller drops; NULL:
 * they speak no TLS. */
struct tls_context *listener_tls(struct listener *l);

/* Whether its peers are processes with credentials (a Unix socket). */
bool listener_is_local(const struct listener *l);

/* Whether its peers are on this machine for certain: a Unix socket, or a
 * loopback address without TLS. */
bool listener_is_here(const struct listener *l);

/* The group that owns the socket file now; false if there is no file.  It looks
 * at an open descriptor, not at a path. */
bool listener_group(const struct listener *l, gid_t *out);

#ifdef __cplusplus
}
#endif

#endif

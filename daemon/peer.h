/* Peers: the identity of the process at the other end of a connection.
 *
 *   P1  It is learned once, when the connection begins, and never changes.
 *   P2  The kernel, or a verified certificate, vouches for all of it.
 *   P3  The id that the kernel shows for ids of another user namespace is no
 *       identity, and is left out.
 *
 * One thread at a time. */
#ifndef DAEMON_PEER_H
#define DAEMON_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct tls;

enum {
  /* What the kernel shows for ids of other user namespaces. */
  PEER_OVERFLOW_ID = 65534,
  /* Names that are taken from a certificate: each is compared with each
   * rule. */
  PEER_MAX_NAMES = 64,
};

struct peer_name {
  char *text;
  bool any_case; /* a host's name, which is the same in either case */
};

/* Zeroed: a peer on another machine, without an identity. */
struct peer {
  bool is_here;  /* its bytes do not leave the machine */
  bool has_ids;  /* the next three are known */
  uid_t uid;     /* or PEER_OVERFLOW_ID */
  gid_t *groups; /* all its groups, ascending, without PEER_OVERFLOW_ID */
  size_t n_groups;
  struct peer_name *names; /* of its certificate */
  size_t n_names;
};

/* Learns the identity that the process at the other end of a Unix socket had
 * when it connected.  0 or -ENOMEM; the caller owes a peer_fini() in both
 * cases, and after the next call. */
int peer_learn_process(struct peer *peer, int fd);

/* Learns the names in the certificate that the peer showed over TLS, if any.
 * The handshake is complete. */
int peer_learn_certificate(struct peer *peer, const struct tls *tls);

void peer_fini(struct peer *peer);

/* The memory that the peer takes beside its struct. */
size_t peer_held(const struct peer *peer);

/* Whether the peer is this user, is in this group, or has this name. */
bool peer_is_user(const struct peer *peer, uid_t uid);
bool peer_is_in_group(const struct peer *peer, gid_t gid);
bool peer_is_named(const struct peer *peer, const char *name);

#ifdef __cplusplus
}
#endif

#endif

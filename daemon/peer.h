/* Peers: what is known of the process at the other end of a connection.
 *
 *   P1  It is learned once, when the connection begins, and fixed from there.
 *   P2  All of it was vouched for: by the kernel, or by a certificate that was
 *       verified.
 *   P3  An id that the kernel shows in place of those that it cannot name here
 *       is nobody's, and is left out.
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
  /* Names that are taken of a certificate: each rule is held against all. */
  PEER_MAX_NAMES = 64,
};

struct peer_name {
  char *text;
  bool any_case; /* a host's name, which is the same in either case */
};

/* Zeroed, it is a peer on another machine of which nothing is known. */
struct peer {
  bool is_here;  /* what it sends and gets does not leave the machine */
  bool has_ids;  /* the next three are known */
  uid_t uid;     /* or PEER_OVERFLOW_ID */
  gid_t *groups; /* all that it is in, rising, without PEER_OVERFLOW_ID */
  size_t n_groups;
  struct peer_name *names; /* of its certificate */
  size_t n_names;
};

/* Learns of the process at the other end of a Unix socket, as of when it
 * connected.  0 or -ENOMEM; peer_fini() is due in either case, as after the
 * next. */
int peer_learn_process(struct peer *peer, int fd);

/* Learns the names of the certificate that was shown over TLS, if one was.
 * The handshake is complete. */
int peer_learn_certificate(struct peer *peer, const struct tls *tls);

void peer_fini(struct peer *peer);

/* The memory that it takes beside its struct. */
size_t peer_held(const struct peer *peer);

/* Whether it is known to be this user, to be in this group, or to have this
 * name. */
bool peer_is_user(const struct peer *peer, uid_t uid);
bool peer_is_in_group(const struct peer *peer, gid_t gid);
bool peer_is_named(const struct peer *peer, const char *name);

#ifdef __cplusplus
}
#endif

#endif

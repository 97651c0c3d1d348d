#include "daemon/serve/access.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
  /* What the kernel shows for ids of other user namespaces: anybody's. */
  OVERFLOW_ID = 65534,
};

/* Whether one of the peer's supplementary groups is `group`. */
static bool peer_is_in_group(int fd, gid_t group) {
  socklen_t len = 0;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &len) == 0 || len == 0)
    return false; /* it has none */
  gid_t *groups = malloc(len);
  if (!groups)
    return false;
  bool found = false;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) == 0)
    for (size_t i = 0; i < len / sizeof *groups && !found; i++)
      found = groups[i] == group;
  free(groups);
  return found;
}

bool access_may_invalidate(const struct connection *c) {
  struct ucred peer;
  socklen_t len = sizeof peer;
  gid_t group;
  if (!listener_is_local(c->listener) ||
      getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
    return false;
  if (peer.uid == 0 || (peer.uid == geteuid() && peer.uid != OVERFLOW_ID))
    return true;
  if (!listener_group(c->listener, &group) || group == OVERFLOW_ID)
    return false;
  return peer.gid == group || peer_is_in_group(c->fd, group);
}

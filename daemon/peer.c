#include "daemon/peer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "proto/tls.h"

/* ---- Processes ----------------------------------------------------------- */

static int by_number(const void *a, const void *b) {
  gid_t left = *(const gid_t *)a, right = *(const gid_t *)b;
  return (left > right) - (left < right);
}

/* Puts the groups in order, each once, and takes out those of nobody. */
static void sort_groups(struct peer *peer) {
  size_t n = 0;
  qsort(peer->groups, peer->n_groups, sizeof(gid_t), by_number);
  for (size_t i = 0; i < peer->n_groups; i++) {
    gid_t group = peer->groups[i];
    if (group != PEER_OVERFLOW_ID && (n == 0 || peer->groups[n - 1] != group))
      peer->groups[n++] = group;
  }
  peer->n_groups = n;
}

int peer_learn_process(struct peer *peer, int fd) {
  struct ucred ids;
  socklen_t len = sizeof ids, groups_len = 0;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &ids, &len) < 0 ||
      ids.uid == (uid_t)-1)
    return 0; /* the latter is what a socket of another kind has */
  /* Without room for them it says how much they need. */
  getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, NULL, &groups_len);
  peer->groups = malloc(groups_len + sizeof(gid_t));
  if (!peer->groups)
    return -ENOMEM;
  if (groups_len &&
      getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, peer->groups, &groups_len) < 0)
    groups_len = 0;
  peer->n_groups = groups_len / sizeof(gid_t);
  peer->groups[peer->n_groups++] = ids.gid;
  peer->has_ids = true;
  peer->uid = ids.uid;
  sort_groups(peer);
  return 0;
}

/* ---- Certificates -------------------------------------------------------- */

/* As tls_peer_names() wants it. */
static int take_name(void *arg, const char *text, bool is_dns) {
  struct peer *peer = arg;
  if (peer->n_names == PEER_MAX_NAMES)
    return 0;
  if (!peer->names &&
      !(peer->names = calloc(PEER_MAX_NAMES, sizeof *peer->names)))
    return -ENOMEM;
  struct peer_name *name = &peer->names[peer->n_names];
  *name = (struct peer_name){.text = strdup(text), .any_case = is_dns};
  if (!name->text)
    return -ENOMEM;
  peer->n_names++;
  return 0;
}

int peer_learn_certificate(struct peer *peer, const struct tls *tls) {
  return tls_peer_names(tls, take_name, peer);
}

/* ---- What is known ------------------------------------------------------- */

void peer_fini(struct peer *peer) {
  for (size_t i = 0; i < peer->n_names; i++)
    free(peer->names[i].text);
  free(peer->names);
  free(peer->groups);
  *peer = (struct peer){.is_here = false};
}

size_t peer_held(const struct peer *peer) {
  size_t held = peer->n_groups * sizeof(gid_t);
  if (peer->names)
    held += PEER_MAX_NAMES * sizeof *peer->names;
  for (size_t i = 0; i < peer->n_names; i++)
    held += strlen(peer->names[i].text) + 1;
  return held;
}

bool peer_is_user(const struct peer *peer, uid_t uid) {
  return peer->has_ids && uid != PEER_OVERFLOW_ID && peer->uid == uid;
}

bool peer_is_in_group(const struct peer *peer, gid_t gid) {
  return peer->has_ids && bsearch(&gid, peer->groups, peer->n_groups,
                                  sizeof gid, by_number) != NULL;
}

bool peer_is_named(const struct peer *peer, const char *name) {
  for (size_t i = 0; i < peer->n_names; i++) {
    const struct peer_name *own = &peer->names[i];
    if ((own->any_case ? strcasecmp : strcmp)(own->text, name) == 0)
      return true;
  }
  return false;
}

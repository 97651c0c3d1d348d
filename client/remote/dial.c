#include "client/remote/dial.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "client/error.h"
#include "proto/socket.h"

/* ---- Names --------------------------------------------------------------- */

static enum cachet_status resolve_unix(struct dial *d, const struct uri *u,
                                       struct cachet_error *err) {
  struct sockaddr_un *at = (struct sockaddr_un *)&d->addresses[0].at;
  if (strlen(u->path) >= sizeof at->sun_path)
    return error_set(err, CACHET_E_INVAL, 0,
                     "socket \"%.80s...\": path longer than %zu bytes", u->path,
                     sizeof at->sun_path - 1);
  at->sun_family = AF_UNIX;
  memcpy(at->sun_path, u->path, strlen(u->path) + 1);
  d->addresses[0].len = sizeof *at;
  d->n_addresses = 1;
  return CACHET_OK;
}

static enum cachet_status resolve_tcp(struct dial *d, const struct uri *u,
                                      struct cachet_error *err) {
  char port[8];
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                           .ai_flags = AI_NUMERICSERV};
  struct addrinfo *list = NULL;
  snprintf(port, sizeof port, "%u", u->port);
  int r = getaddrinfo(u->host, port, &hints, &list);
  if (r != 0)
    return error_set(err, r == EAI_MEMORY ? CACHET_E_NOMEM : CACHET_E_CONN, 0,
                     "host \"%.100s\": %s", u->host, gai_strerror(r));
  for (struct addrinfo *a = list; a && d->n_addresses < DIAL_MAX_ADDRESSES;
       a = a->ai_next) {
    struct dial_address *to = &d->addresses[d->n_addresses++];
    memcpy(&to->at, a->ai_addr, a->ai_addrlen);
    to->len = a->ai_addrlen;
  }
  freeaddrinfo(list);
  return CACHET_OK;
}

enum cachet_status dial_resolve(struct dial *d, const struct uri *u,
                                struct cachet_error *err) {
  *d = (struct dial){0};
  return u->kind == URI_UNIX ? resolve_unix(d, u, err) : resolve_tcp(d, u, err);
}

bool dial_is_same(const struct dial *a, const struct dial *b) {
  unsigned i = 0;
  while (i < a->n_addresses && i < b->n_addresses &&
         a->addresses[i].len == b->addresses[i].len &&
         !memcmp(&a->addresses[i].at, &b->addresses[i].at, a->addresses[i].len))
    i++;
  return i == a->n_addresses && i == b->n_addresses;
}

/* ---- Sockets ------------------------------------------------------------- */

/* A daemon that went away without a word is noticed as late as an answer that
 * does not come. */
static void set_tcp_options(int fd, int request_timeout_ms) {
  int on = 1;
  unsigned timeout_ms = (unsigned)request_timeout_ms;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  if (request_timeout_ms <= 0)
    return;
  /* Half of the time-out until the first probe, two more in the other half. */
  int half_s = request_timeout_ms / 2000, most_s = 32767, n = 2;
  int idle_s = half_s < 1 ? 1 : half_s < most_s ? half_s : most_s;
  int interval_s = idle_s > n ? idle_s / n : 1;
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &n, sizeof n);
  setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
}

int dial_connect(const struct dial *d, unsigned i, int request_timeout_ms,
                 int *fd) {
  const struct dial_address *a = &d->addresses[i];
  int family = a->at.ss_family;
  int s = fd_above_std(
      socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (s < 0)
    return errno;
  if (family == AF_UNIX)
    socket_allow_fds(s, false);
  else
    set_tcp_options(s, request_timeout_ms);
  int r = connect(s, (const struct sockaddr *)&a->at, a->len) ? errno : 0;
  if (r == 0 || r == EINPROGRESS)
    *fd = s;
  else
    close(s);
  return r;
}

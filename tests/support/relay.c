#include "tests/support/relay.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

enum { CHUNK_LEN = 256 << 10, MAX_PAIRS = 64, BACKLOG = 64 };

/* Bytes that came at once. */
struct chunk {
  STAILQ_ENTRY(chunk) link;
  uint64_t due_ns;
  size_t start, end; /* of `bytes`: what is to be sent */
  uint8_t bytes[CHUNK_LEN];
};

STAILQ_HEAD(chunk_list, chunk);

/* One direction of a connection. */
struct lane {
  int from, to;
  struct chunk_list chunks;
  size_t len;   /* bytes in them */
  bool ended;   /* nothing more comes */
  bool is_over; /* and the other side was told */
  bool is_full; /* the other side takes nothing for now */
};

struct pair {
  int client, server; /* -1: the pair is free */
  struct lane up, down;
  bool has_answered; /* since bytes of the client came */
};

struct relay {
  int listener, stopper;
  uint16_t port, to_port;
  uint64_t delay_ns;
  uint64_t n_turns; /* atomic */
  struct pair pairs[MAX_PAIRS];
  struct chunk_list spare; /* the last one used first: it is in the cache */
};

/* ---- Chunks -------------------------------------------------------------- */

static struct chunk *chunk_take(struct relay *r) {
  struct chunk *c = STAILQ_FIRST(&r->spare);
  if (c)
    STAILQ_REMOVE_HEAD(&r->spare, link);
  else if (!(c = malloc(sizeof *c)))
    abort();
  return c;
}

static void chunk_give(struct relay *r, struct chunk *c) {
  STAILQ_INSERT_HEAD(&r->spare, c, link);
}

/* ---- Lanes --------------------------------------------------------------- */

static void lane_begin(struct lane *l, int from, int to) {
  *l = (struct lane){.from = from, .to = to};
  STAILQ_INIT(&l->chunks);
}

static void lane_drop(struct relay *r, struct lane *l) {
  struct chunk *c;
  while ((c = STAILQ_FIRST(&l->chunks))) {
    STAILQ_REMOVE_HEAD(&l->chunks, link);
    chunk_give(r, c);
  }
}

static bool lane_takes(const struct lane *l) {
  return !l->ended && l->len < RELAY_LANE_LEN;
}

/* False: the connection is lost. */
static bool lane_receive(struct relay *r, struct lane *l) {
  struct chunk *c = chunk_take(r);
  ssize_t n = recv(l->from, c->bytes, sizeof c->bytes, MSG_DONTWAIT);
  if (n <= 0) {
    chunk_give(r, c);
    l->ended = n == 0;
    return n == 0 || errno == EAGAIN || errno == EINTR;
  }
  c->start = 0;
  c->end = (size_t)n;
  c->due_ns = clock_now_ns() + r->delay_ns;
  STAILQ_INSERT_TAIL(&l->chunks, c, link);
  l->len += c->end;
  return true;
}

/* Sends what is due.  False: the connection is lost. */
static bool lane_send(struct relay *r, struct lane *l, uint64_t now_ns) {
  struct chunk *c;
  l->is_full = false;
  while ((c = STAILQ_FIRST(&l->chunks)) && c->due_ns <= now_ns) {
    ssize_t n = send(l->to, c->bytes + c->start, c->end - c->start,
                     MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) {
      l->is_full = errno == EAGAIN;
      return l->is_full || errno == EINTR;
    }
    c->start += (size_t)n;
    l->len -= (size_t)n;
    if (c->start < c->end)
      continue;
    STAILQ_REMOVE_HEAD(&l->chunks, link);
    chunk_give(r, c);
  }
  if (l->ended && !c && !l->is_over) {
    shutdown(l->to, SHUT_WR);
    l->is_over = true;
  }
  return true;
}

/* When the lane has something to send; UINT64_MAX: nothing that time brings. */
static uint64_t lane_due(const struct lane *l) {
  const struct chunk *c = STAILQ_FIRST(&l->chunks);
  return c && !l->is_full ? c->due_ns : UINT64_MAX;
}

/* ---- Connections --------------------------------------------------------- */

static struct sockaddr_in loopback(uint16_t port) {
  return (struct sockaddr_in){.sin_family = AF_INET,
                              .sin_port = htons(port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void set_no_delay(int fd) {
  int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static void pair_end(struct relay *r, struct pair *p) {
  lane_drop(r, &p->up);
  lane_drop(r, &p->down);
  close(p->client);
  close(p->server);
  p->client = p->server = -1;
}

static struct pair *pair_find_free(struct relay *r) {
  for (unsigned i = 0; i < MAX_PAIRS; i++)
    if (r->pairs[i].client < 0)
      return &r->pairs[i];
  return NULL;
}

/* To a port of this host, so that it does not wait. */
static int connect_to(uint16_t port) {
  struct sockaddr_in to = loopback(port);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) == 0)
    return fd;
  close(fd);
  return -1;
}

static void relay_accept(struct relay *r) {
  struct pair *p = pair_find_free(r);
  int client = accept4(r->listener, NULL, NULL, SOCK_CLOEXEC);
  if (client < 0)
    return;
  int server = p ? connect_to(r->to_port) : -1;
  if (server < 0) {
    close(client);
    return;
  }
  set_no_delay(client);
  set_no_delay(server);
  *p = (struct pair){.client = client, .server = server};
  lane_begin(&p->up, client, server);
  lane_begin(&p->down, server, client);
}

static void pair_count(struct relay *r, struct pair *p, size_t up_before) {
  if (p->up.len > up_before && p->has_answered) {
    p->has_answered = false;
    __atomic_fetch_add(&r->n_turns, 1, __ATOMIC_RELAXED);
  }
}

/* One round of a pair; `client` and `server` are what poll(2) saw of each. */
static void pair_move(struct relay *r, struct pair *p, short client,
                      short server) {
  const short in = POLLIN | POLLHUP | POLLERR;
  size_t up = p->up.len, down = p->down.len;
  bool ok = true;
  if (client & in && lane_takes(&p->up))
    ok = lane_receive(r, &p->up);
  pair_count(r, p, up);
  if (ok && server & in && lane_takes(&p->down))
    ok = lane_receive(r, &p->down);
  p->has_answered |= p->down.len > down;
  uint64_t now = clock_now_ns();
  ok = ok && lane_send(r, &p->up, now) && lane_send(r, &p->down, now);
  if (!ok || (p->up.is_over && p->down.is_over))
    pair_end(r, p);
}

/* ---- Life ---------------------------------------------------------------- */

static struct relay *relay_give_up(struct relay *r) {
  int e = errno;
  relay_free(r);
  errno = e;
  return NULL;
}

struct relay *relay_new(uint16_t to_port, unsigned delay_us) {
  struct sockaddr_in at = loopback(0);
  socklen_t len = sizeof at;
  struct relay *r = calloc(1, sizeof *r);
  if (!r)
    return NULL;
  STAILQ_INIT(&r->spare);
  for (unsigned i = 0; i < MAX_PAIRS; i++)
    r->pairs[i].client = r->pairs[i].server = -1;
  r->to_port = to_port;
  r->delay_ns = delay_us * UINT64_C(1000);
  r->stopper = eventfd(0, EFD_CLOEXEC);
  r->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (r->stopper < 0 || r->listener < 0 ||
      bind(r->listener, (struct sockaddr *)&at, len) < 0 ||
      listen(r->listener, BACKLOG) < 0 ||
      getsockname(r->listener, (struct sockaddr *)&at, &len) < 0)
    return relay_give_up(r);
  r->port = ntohs(at.sin_port);
  return r;
}

uint16_t relay_port(const struct relay *r) { return r->port; }

uint64_t relay_turns(const struct relay *r) {
  return __atomic_load_n(&r->n_turns, __ATOMIC_RELAXED);
}

static short events_of(const struct lane *in, const struct lane *out) {
  return (lane_takes(in) ? POLLIN : 0) | (out->is_full ? POLLOUT : 0);
}

/* Waits for bytes, for room, or until a chunk is due. */
static void wait_for(struct pollfd *fds, nfds_t n, uint64_t due_ns) {
  uint64_t now = clock_now_ns();
  uint64_t left = due_ns > now ? due_ns - now : 0;
  struct timespec t = {.tv_sec = (time_t)(left / 1000000000),
                       .tv_nsec = (long)(left % 1000000000)};
  if (ppoll(fds, n, due_ns == UINT64_MAX ? NULL : &t, NULL) < 0)
    for (nfds_t i = 0; i < n; i++)
      fds[i].revents = 0;
}

void relay_run(struct relay *r) {
  struct pollfd fds[2 + 2 * MAX_PAIRS];
  struct pair *pairs[MAX_PAIRS];
  prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
  for (;;) {
    uint64_t due = UINT64_MAX;
    unsigned n = 0;
    fds[0] = (struct pollfd){.fd = r->stopper, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = r->listener, .events = POLLIN};
    for (unsigned i = 0; i < MAX_PAIRS; i++) {
      struct pair *p = &r->pairs[i];
      if (p->client < 0)
        continue;
      uint64_t up = lane_due(&p->up), down = lane_due(&p->down);
      due = up < due ? up : due;
      due = down < due ? down : due;
      fds[2 + 2 * n] = (struct pollfd){.fd = p->client,
                                       .events = events_of(&p->up, &p->down)};
      fds[3 + 2 * n] = (struct pollfd){.fd = p->server,
                                       .events = events_of(&p->down, &p->up)};
      pairs[n++] = p;
    }
    wait_for(fds, 2 + 2 * n, due);
    if (fds[0].revents)
      return;
    for (unsigned i = 0; i < n; i++)
      pair_move(r, pairs[i], fds[2 + 2 * i].revents, fds[3 + 2 * i].revents);
    if (fds[1].revents)
      relay_accept(r);
  }
}

void relay_stop(struct relay *r) { eventfd_write(r->stopper, 1); }

void relay_free(struct relay *r) {
  struct chunk *c;
  for (unsigned i = 0; i < MAX_PAIRS; i++)
    if (r->pairs[i].client >= 0)
      pair_end(r, &r->pairs[i]);
  while ((c = STAILQ_FIRST(&r->spare))) {
    STAILQ_REMOVE_HEAD(&r->spare, link);
    free(c);
  }
  close(r->listener);
  close(r->stopper);
  free(r);
}

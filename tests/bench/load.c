#include "tests/bench/load.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/bench/histogram.h"
#include "tests/bench/rig.h"

enum {
  RX_LEN = 256 << 10, /* stays in the second cache */
  N_EVENTS = 128,
  MAX_CONNS = 1024,
};

#define WARM_UP 0.1
#define STALLED_NS 30e9

/* A read that is under way. */
struct slot {
  double due_ns;
  uint64_t offset;
  uint32_t got;
  bool is_aside;
};

struct conn {
  struct protocol_conn wire;
  const struct load_group *group;
  double next_due_ns; /* of a group with a rate */

  struct slot *slots;
  uint32_t *free, *order;   /* rings of tags: free ones; those under way, as
                               they were asked for */
  uint64_t n_begun, n_done; /* reads */

  struct answer answer;      /* the piece being received */
  uint64_t payload, trailer; /* what is missing of it */

  uint8_t *out; /* requests that are not sent */
  size_t out_len;
  bool is_blocked;
  size_t n_rest; /* of half a header */
  uint8_t rest[PROTOCOL_MAX_HEADER];
};

/* One run. */
struct load {
  struct conn *conns[MAX_CONNS];
  unsigned n_conns;
  int epoll_fd;
  const struct load_group *measured;
  const uint8_t *bytes; /* what the answers should be; NULL: nobody looks */
  uint64_t n_left;      /* reads that may begin */
  uint64_t n_under_way;
  bool is_paced, is_counting;
  uint64_t n_counted;
  struct histogram latencies;
  /* From the start of a page: the speed of a copy depends on that. */
  _Alignas(4096) uint8_t rx[PROTOCOL_MAX_HEADER + RX_LEN];
};

static double now_ns(void) { return rig_now_ns(CLOCK_MONOTONIC); }

/* ---- Connecting ---------------------------------------------------------- */

static int open_socket(const struct load_target *t) {
  struct sockaddr_un un = {.sun_family = AF_UNIX};
  struct sockaddr_in in = {.sin_family = AF_INET,
                           .sin_port = htons(t->port),
                           .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  const struct sockaddr *addr = (struct sockaddr *)&in;
  socklen_t len = sizeof in;
  int on = 1;
  if (t->socket) {
    snprintf(un.sun_path, sizeof un.sun_path, "%s", t->socket);
    addr = (struct sockaddr *)&un;
    len = sizeof un;
  }
  int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0 && !t->socket)
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (fd >= 0 && connect(fd, addr, len) < 0) {
    close(fd);
    return -1;
  }
  return fd;
}

bool load_try_connect(const struct load_target *t, struct protocol_conn *out,
                      char *err, size_t err_len) {
  *out = (struct protocol_conn){.fd = open_socket(t), .len = RIG_PAGE};
  if (out->fd < 0)
    snprintf(err, err_len, "%s: connect: %s", t->name, strerror(errno));
  else
    t->protocol->begin(out);
  return out->fd >= 0;
}

struct protocol_conn load_connect(const struct load_target *t) {
  struct protocol_conn c;
  char err[160];
  if (!load_try_connect(t, &c, err, sizeof err))
    rig_fail("%s", err);
  return c;
}

static struct conn *conn_open(struct load *l, const struct load_group *g) {
  struct conn *c = calloc(1, sizeof *c);
  if (!c)
    rig_fail("no memory");
  c->group = g;
  c->slots = calloc(g->depth, sizeof *c->slots);
  c->free = calloc(g->depth, sizeof *c->free);
  c->order = calloc(g->depth, sizeof *c->order);
  c->out = malloc((size_t)g->depth * PROTOCOL_MAX_REQUEST);
  if (!c->slots || !c->free || !c->order || !c->out)
    rig_fail("no memory");
  for (uint32_t tag = 0; tag < g->depth; tag++)
    c->free[tag] = tag;
  c->wire = load_connect(g->target);
  c->wire.len = g->len;
  fcntl(c->wire.fd, F_SETFL, O_NONBLOCK);
  struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
  if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, c->wire.fd, &ev) < 0)
    rig_fail("epoll: %s", strerror(errno));
  return c;
}

static void conn_close(struct conn *c) {
  close(c->wire.fd);
  free(c->slots);
  free(c->free);
  free(c->order);
  free(c->out);
  free(c);
}

/* ---- Asking -------------------------------------------------------------- */

/* Puts one more request behind those that are to be sent. */
static void conn_ask(struct load *l, struct conn *c, double due_ns) {
  const struct load_group *g = c->group;
  struct load_read read = {0};
  g->pick(g->arg, &read);
  uint32_t tag = c->free[c->n_begun % g->depth];
  c->order[c->n_begun++ % g->depth] = tag;
  c->slots[tag] = (struct slot){
      .due_ns = due_ns, .offset = read.offset, .is_aside = read.is_aside};
  c->out_len += g->target->protocol->request(&c->wire, tag, read.offset, g->len,
                                             c->out + c->out_len);
  l->n_under_way++;
  l->n_left--;
}

static void conn_send(struct load *l, struct conn *c) {
  if (c->out_len == 0)
    return;
  ssize_t n = send(c->wire.fd, c->out, c->out_len, MSG_NOSIGNAL);
  if (n < 0 && errno != EAGAIN)
    rig_fail("%s: send: %s", c->group->target->name, strerror(errno));
  if (n > 0) {
    c->out_len -= (size_t)n;
    memmove(c->out, c->out + n, c->out_len);
  }
  if (c->is_blocked != (c->out_len > 0)) {
    c->is_blocked = c->out_len > 0;
    struct epoll_event ev = {.events = EPOLLIN | (c->is_blocked ? EPOLLOUT : 0),
                             .data.ptr = c};
    epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, c->wire.fd, &ev);
  }
}

/* Asks for what may be asked for now.  There is room for it: requests that are
 * not sent are reads under way. */
static void conn_go_on(struct load *l, struct conn *c, double now) {
  double interval = c->group->rate > 0 ? 1e9 / c->group->rate : 0;
  while (c->n_begun - c->n_done < c->group->depth && l->n_left > 0) {
    if (interval > 0 && c->next_due_ns > now)
      break;
    conn_ask(l, c, interval > 0 ? c->next_due_ns : now);
    c->next_due_ns += interval;
  }
  conn_send(l, c);
}

/* ---- Answers ------------------------------------------------------------- */

static void finish(struct load *l, struct conn *c, uint32_t tag, double now) {
  struct slot *s = &c->slots[tag];
  if (s->got != c->group->len)
    rig_fail("%s: an answer of %u bytes, not %u", c->group->target->name,
             s->got, c->group->len);
  c->free[c->n_done++ % c->group->depth] = tag;
  l->n_under_way--;
  if (!l->is_counting || s->is_aside || c->group != l->measured)
    return;
  l->n_counted++;
  histogram_add(&l->latencies, (uint64_t)(now - s->due_ns));
}

/* A header: whose answer it is, and what follows. */
static size_t take_header(struct conn *c, const uint8_t *in, size_t len) {
  const struct protocol *p = c->group->target->protocol;
  size_t n = p->answer(&c->wire, in, len, &c->answer);
  if (n == 0)
    return 0;
  if (p->in_order)
    c->answer.tag = c->order[c->n_done % c->group->depth];
  if (c->answer.tag >= c->group->depth || c->n_begun == c->n_done)
    rig_fail("%s: an answer to nothing", c->group->target->name);
  c->payload = c->answer.payload;
  c->trailer = c->answer.trailer;
  return n;
}

/* Some of what follows a header. */
static size_t take_body(struct load *l, struct conn *c, const uint8_t *in,
                        size_t len) {
  struct slot *s = &c->slots[c->answer.tag];
  size_t n = len < c->payload ? len : c->payload;
  size_t rest = len - n < c->trailer ? len - n : c->trailer;
  if (l->bytes && memcmp(in, l->bytes + s->offset + s->got, n) != 0)
    rig_fail("%s: other bytes than the file's", c->group->target->name);
  s->got += (uint32_t)n;
  c->payload -= n;
  c->trailer -= rest;
  return n + rest;
}

static void take_bytes(struct load *l, struct conn *c, size_t len, double now) {
  size_t at = 0;
  for (;;) {
    if (c->payload + c->trailer > 0) {
      at += take_body(l, c, l->rx + at, len - at);
      if (c->payload + c->trailer > 0)
        break;
      if (c->answer.last)
        finish(l, c, c->answer.tag, now);
    }
    size_t n = at < len ? take_header(c, l->rx + at, len - at) : 0;
    if (n == 0)
      break;
    at += n;
  }
  c->n_rest = len - at;
  assert(c->n_rest <= sizeof c->rest);
  memcpy(c->rest, l->rx + at, c->n_rest);
}

static void conn_receive(struct load *l, struct conn *c) {
  memcpy(l->rx, c->rest, c->n_rest);
  ssize_t n = recv(c->wire.fd, l->rx + c->n_rest, RX_LEN, 0);
  if (n < 0 && errno == EAGAIN)
    return;
  if (n <= 0)
    rig_fail("%s: receive: %s", c->group->target->name,
             n ? strerror(errno) : "closed");
  take_bytes(l, c, c->n_rest + (size_t)n, now_ns());
}

/* ---- Runs ---------------------------------------------------------------- */

static struct load *load_begin(const struct load_group *groups,
                               unsigned n_groups) {
  static struct load the_load;
  struct load *l = &the_load;
  l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  l->measured = groups;
  l->n_conns = 0;
  l->n_left = UINT64_MAX;
  l->bytes = NULL;
  l->is_paced = l->is_counting = false;
  l->n_counted = l->n_under_way = 0;
  histogram_clear(&l->latencies);
  for (unsigned i = 0; i < n_groups; i++) {
    l->is_paced |= groups[i].rate > 0;
    for (unsigned k = 0; k < groups[i].n_conns && l->n_conns < MAX_CONNS; k++)
      l->conns[l->n_conns++] = conn_open(l, &groups[i]);
  }
  return l;
}

static void load_end(struct load *l) {
  for (unsigned i = 0; i < l->n_conns; i++)
    conn_close(l->conns[i]);
  close(l->epoll_fd);
}

static void start_all(struct load *l) {
  for (unsigned i = 0; i < l->n_conns; i++) {
    l->conns[i]->next_due_ns = now_ns();
    conn_go_on(l, l->conns[i], now_ns());
  }
}

/* Serves the connections until then, or until no read is under way.  Where
 * reads have a rate it does not sleep: it would not wake up in time. */
static void run_until(struct load *l, double end_ns) {
  double heard_ns = now_ns();
  while (l->n_under_way > 0 || l->is_paced) {
    struct epoll_event events[N_EVENTS];
    int n = epoll_wait(l->epoll_fd, events, N_EVENTS, l->is_paced ? 0 : 100);
    for (int i = 0; i < n; i++) {
      struct conn *c = events[i].data.ptr;
      conn_receive(l, c);
      conn_go_on(l, c, now_ns());
    }
    double now = now_ns();
    for (unsigned i = 0; l->is_paced && i < l->n_conns; i++)
      conn_go_on(l, l->conns[i], now);
    if (n > 0)
      heard_ns = now;
    else if (now - heard_ns > STALLED_NS)
      rig_fail("%s: no answer for 30 s", l->measured->target->name);
    if (now >= end_ns)
      return;
  }
}

/* Lets what is under way be answered, so that no work is left for others'
 * turns. */
static void drain(struct load *l) {
  l->n_left = 0;
  l->is_counting = l->is_paced = false;
  run_until(l, now_ns() + STALLED_NS);
}

/* All of the process's threads, to the nanosecond. */
static double cpu_ns(pid_t pid) {
  clockid_t clock;
  int r = clock_getcpuclockid(pid, &clock);
  if (r)
    rig_fail("processor time of %d: %s", (int)pid, strerror(r));
  return rig_now_ns(clock);
}

/* Of what was counted in `took_ns`. */
static struct load_result result_of(const struct load *l, double took_ns,
                                    double cpu) {
  double n = (double)l->n_counted;
  if (l->n_counted == 0) {
    fprintf(stderr, "%s: nothing was answered for %.2f s\n",
            l->measured->target->name, took_ns / 1e9);
    return (struct load_result){0, NAN, NAN, NAN};
  }
  return (struct load_result){
      .rate = n / took_ns * 1e9,
      .p50_us = (double)histogram_value(&l->latencies, 0.50) / 1e3,
      .p99_us = (double)histogram_value(&l->latencies, 0.99) / 1e3,
      .cpu_us = cpu / n / 1e3};
}

struct load_result load_run(const struct load_group *groups, unsigned n_groups,
                            double seconds) {
  struct load *l = load_begin(groups, n_groups);
  pid_t pid = groups->target->pid;
  start_all(l);
  run_until(l, now_ns() + WARM_UP * seconds * 1e9);
  double start = now_ns(), cpu = cpu_ns(pid);
  l->is_counting = true;
  run_until(l, start + seconds * 1e9);
  l->is_counting = false;
  struct load_result result = result_of(l, now_ns() - start, cpu_ns(pid) - cpu);
  drain(l);
  load_end(l);
  return result;
}

void load_verify(const struct load_target *target, const uint8_t *bytes,
                 uint64_t size, uint32_t len, unsigned n) {
  struct load_random random;
  struct load_group group = {.target = target,
                             .n_conns = 2,
                             .depth = 4,
                             .len = len,
                             .pick = load_pick_random,
                             .arg = &random};
  load_random_init(&random, size, len, RIG_PAGE);
  struct load *l = load_begin(&group, 1);
  l->bytes = bytes;
  l->n_left = n;
  start_all(l);
  run_until(l, now_ns() + STALLED_NS);
  load_end(l);
}

/* ---- Addresses ----------------------------------------------------------- */

void load_random_init(struct load_random *r, uint64_t size, uint32_t len,
                      uint32_t step) {
  *r = (struct load_random){
      .state = 1, .n_places = (size - len) / step + 1, .step = step};
}

void load_pick_random(void *arg, struct load_read *out) {
  struct load_random *r = arg;
  out->offset = rig_random(&r->state) % r->n_places * r->step;
}

/* ---- One read ----------------------------------------------------------- */

void load_read_once(const struct load_target *t,
                    const struct protocol_conn *c) {
  static uint8_t bytes[PROTOCOL_MAX_HEADER + RIG_PAGE];
  size_t len = t->protocol->request(c, 0, 0, RIG_PAGE, bytes), header = 0;
  struct answer answer;
  protocol_send(c->fd, bytes, len);
  for (len = 0; header == 0;) {
    ssize_t n = recv(c->fd, bytes + len, sizeof bytes - len, 0);
    if (n <= 0)
      rig_fail("%s: receive: %s", t->name, n ? strerror(errno) : "closed");
    len += (size_t)n;
    header = t->protocol->answer(c, bytes, len, &answer);
  }
  len -= header;
  if (answer.payload != RIG_PAGE || len > RIG_PAGE + answer.trailer)
    rig_fail("%s: not the page that was asked for", t->name);
  protocol_receive(c->fd, bytes, RIG_PAGE + answer.trailer - len);
}

/* ---- Idle connections ---------------------------------------------------- */

struct load_idle {
  unsigned n;
  int fds[];
};

struct load_idle *load_idle_open(const struct load_target *t, unsigned n) {
  struct load_idle *idle = malloc(sizeof *idle + n * sizeof *idle->fds);
  if (!idle)
    rig_fail("no memory");
  idle->n = n;
  for (unsigned i = 0; i < n; i++) {
    struct protocol_conn c = load_connect(t);
    load_read_once(t, &c);
    idle->fds[i] = c.fd;
  }
  return idle;
}

void load_idle_close(struct load_idle *idle) {
  for (unsigned i = 0; i < idle->n; i++)
    close(idle->fds[i]);
  free(idle);
}

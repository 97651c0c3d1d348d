/* bare: the least that a server can do which sends pages over sockets.
 *
 *   bare FILE SOCKET PORT [CACHE_SIZE]
 *
 * Its idea: the answer is in memory, and one call hands it to the socket.  One
 * thread, one epoll set.  A connection that is readable is received from once;
 * its whole requests are answered by one sendmsg of headers and of bytes of a
 * copy of FILE.  The copy was read at the start into this program's own memory,
 * in huge pages where the kernel gives them.  A mapping of FILE itself would be
 * a worse floor: each of its pages needs an entry of the page table, whose
 * first use may cost a fault of the machine below.  There is no cache, no
 * look-up, no check but of bounds, no version, no eviction: what a cache daemon
 * takes beyond this server is what it has to answer for.
 *
 * With CACHE_SIZE, in bytes, there is no copy.  Requests are of one page each,
 * and their bytes come out of the least that a cache can be (bare_cache.h): so
 * it is the floor of misses.  As with cachetd, about 24 KiB go by one sendmsg.
 *
 * Answers that the socket does not take wait as requests, not as bytes; a
 * connection that has some is not received from. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/bench/bare.h"
#include "tests/bench/bare_cache.h"

enum {
  RX_LEN = 64 << 10,
  MAX_REQUESTS = RX_LEN / sizeof(struct bare_request) + 1,
  BATCH = 512,     /* answers of one writev: half of IOV_MAX */
  CACHE_BATCH = 6, /* the same, out of the cache */
  N_EVENTS = 128,
  HUGE_LEN = 2 << 20,
};

struct conn {
  int fd;
  bool is_listener, is_blocked;
  size_t n_rest; /* of half a request */
  uint8_t rest[sizeof(struct bare_request)];
  struct bare_request *waiting; /* NULL: none */
  size_t n_waiting;
  size_t sent; /* bytes of the first one's answer */
};

static bool has_cache;
static uint8_t *copy; /* without a cache */
static uint64_t file_len;
static int epoll_fd;

static void fail(const char *what) {
  fprintf(stderr, "bare: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void watch(struct conn *c, int op, uint32_t events) {
  struct epoll_event ev = {.events = events, .data.ptr = c};
  if (epoll_ctl(epoll_fd, op, c->fd, &ev) < 0)
    fail("epoll_ctl");
}

static void add(int fd, bool is_listener) {
  struct conn *c = calloc(1, sizeof *c);
  if (!c)
    fail("calloc");
  c->fd = fd;
  c->is_listener = is_listener;
  watch(c, EPOLL_CTL_ADD, EPOLLIN);
}

static void drop(struct conn *c) {
  close(c->fd);
  free(c->waiting);
  free(c);
}

/* ---- Answering ----------------------------------------------------------- */

static size_t answer_len(const struct bare_request *r) {
  return sizeof(struct bare_answer) + r->len;
}

/* The bytes for the answer of number `i` in a batch. */
static uint8_t *bytes_of(const struct bare_request *r, size_t i) {
  static uint8_t pages[CACHE_BATCH][BARE_CACHE_PAGE];
  if (!has_cache)
    return copy + r->offset;
  bare_cache_read(r->offset, pages[i]);
  return pages[i];
}

static ssize_t send_batch(int fd, const struct bare_request *requests, size_t n,
                          size_t skip) {
  static struct bare_answer headers[BATCH];
  static struct iovec iovs[2 * BATCH];
  for (size_t i = 0; i < n; i++) {
    const struct bare_request *r = &requests[i];
    headers[i].tag = r->tag;
    headers[i].len = r->len;
    iovs[2 * i] = (struct iovec){&headers[i], sizeof headers[i]};
    iovs[2 * i + 1] = (struct iovec){bytes_of(r, i), r->len};
  }
  size_t first = skip >= sizeof *headers;
  skip -= first ? sizeof *headers : 0;
  iovs[first].iov_base = (uint8_t *)iovs[first].iov_base + skip;
  iovs[first].iov_len -= skip;
  struct msghdr msg = {.msg_iov = iovs + first, .msg_iovlen = 2 * n - first};
  return sendmsg(fd, &msg, MSG_NOSIGNAL);
}

/* Sends until the socket takes no more.  Returns how many requests are
 * answered whole; the next one's part is in c->sent.  -1: the connection is
 * broken. */
static ssize_t answer(struct conn *c, const struct bare_request *requests,
                      size_t n) {
  size_t done = 0, most = has_cache ? CACHE_BATCH : BATCH;
  while (done < n) {
    size_t batch = n - done < most ? n - done : most;
    ssize_t sent = send_batch(c->fd, requests + done, batch, c->sent);
    if (sent < 0)
      return errno == EAGAIN ? (ssize_t)done : -1;
    c->sent += (size_t)sent;
    while (done < n && c->sent >= answer_len(&requests[done]))
      c->sent -= answer_len(&requests[done++]);
  }
  return (ssize_t)done;
}

/* What the socket did not take.  `requests` may be those that waited before. */
static void keep_waiting(struct conn *c, const struct bare_request *requests,
                         size_t n) {
  struct bare_request *kept = n ? malloc(n * sizeof *kept) : NULL;
  if (n && !kept)
    fail("malloc");
  if (n)
    memcpy(kept, requests, n * sizeof *kept);
  free(c->waiting);
  c->waiting = kept;
  c->n_waiting = n;
  if (c->is_blocked == (n > 0))
    return;
  c->is_blocked = n > 0;
  watch(c, EPOLL_CTL_MOD, n > 0 ? EPOLLOUT : EPOLLIN);
}

static void serve(struct conn *c, const struct bare_request *requests,
                  size_t n) {
  ssize_t done = answer(c, requests, n);
  if (done < 0)
    drop(c);
  else if ((size_t)done < n || c->is_blocked)
    keep_waiting(c, requests + done, n - (size_t)done);
}

/* ---- Receiving ----------------------------------------------------------- */

static bool is_page(const struct bare_request *r) {
  return r->len == BARE_CACHE_PAGE && r->offset % BARE_CACHE_PAGE == 0;
}

static bool is_allowed(const struct bare_request *requests, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (requests[i].offset > file_len ||
        requests[i].len > file_len - requests[i].offset ||
        (has_cache && !is_page(&requests[i])))
      return false;
  return true;
}

static void receive(struct conn *c) {
  static struct bare_request requests[MAX_REQUESTS];
  uint8_t *bytes = (uint8_t *)requests;
  memcpy(bytes, c->rest, c->n_rest);
  ssize_t got = recv(c->fd, bytes + c->n_rest, RX_LEN, 0);
  if (got < 0 && errno == EAGAIN)
    return;
  if (got <= 0) {
    drop(c);
    return;
  }
  size_t len = c->n_rest + (size_t)got, n = len / sizeof *requests;
  c->n_rest = len % sizeof *requests;
  memcpy(c->rest, &requests[n], c->n_rest);
  if (is_allowed(requests, n))
    serve(c, requests, n);
  else
    drop(c);
}

/* ---- Setting up ---------------------------------------------------------- */

static void listen_at(const struct sockaddr *addr, socklen_t len) {
  int on = 1;
  int fd =
      socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (fd < 0 || bind(fd, addr, len) < 0 || listen(fd, 1024) < 0)
    fail("listen");
  add(fd, true);
}

static void accept_one(const struct conn *listener) {
  int on = 1;
  int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0)
    return;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* if it is one */
  add(fd, false);
}

static void read_file(const char *path) {
  struct stat st;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &st) < 0)
    fail(path);
  file_len = (uint64_t)st.st_size;
  void *at;
  if (posix_memalign(&at, HUGE_LEN, file_len) != 0)
    fail("posix_memalign");
  madvise(at, file_len, MADV_HUGEPAGE); /* it does without */
  copy = at;
  for (uint64_t done = 0; done < file_len;) {
    ssize_t n = pread(fd, copy + done, file_len - done, (off_t)done);
    if (n <= 0)
      fail(path);
    done += (uint64_t)n;
  }
  close(fd);
}

static void handle(struct conn *c) {
  if (c->is_listener)
    accept_one(c);
  else if (c->is_blocked)
    serve(c, c->waiting, c->n_waiting);
  else
    receive(c);
}

int main(int argc, char **argv) {
  struct sockaddr_un unix_addr = {.sun_family = AF_UNIX};
  struct sockaddr_in tcp_addr = {.sin_family = AF_INET,
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (argc != 4 && argc != 5) {
    fputs("usage: bare FILE SOCKET PORT [CACHE_SIZE]\n", stderr);
    return 2;
  }
  has_cache = argc == 5;
  if (has_cache)
    file_len = bare_cache_open(argv[1], strtoull(argv[4], NULL, 10));
  else
    read_file(argv[1]);
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  snprintf(unix_addr.sun_path, sizeof unix_addr.sun_path, "%s", argv[2]);
  tcp_addr.sin_port = htons((uint16_t)atoi(argv[3]));
  listen_at((struct sockaddr *)&unix_addr, sizeof unix_addr);
  listen_at((struct sockaddr *)&tcp_addr, sizeof tcp_addr);
  for (;;) {
    struct epoll_event events[N_EVENTS];
    int n = epoll_wait(epoll_fd, events, N_EVENTS, -1);
    for (int i = 0; i < n; i++)
      handle(events[i].data.ptr);
  }
}

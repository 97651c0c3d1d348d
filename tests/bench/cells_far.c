/* Clients that are far: everything goes through a relay that keeps each byte
 * for 10 ms, in both directions; nbdcopy from nbdkit through one like it.
 *
 * Small reads beside a sequential reader are held against those of the bare
 * server as well: what these wait for is the relay, and processors. */
#include "tests/bench/cells.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/tls_server.h"
#include "tests/support/relay.h"

static const char section[] = "Far, 20 ms of round trip, 256 MiB";
static const char rate_metric[] = "GB/s";
static const char ms_metric[] = "ms";
static const char copy_row[] = "all of it";
static const char pages_row[] = "page by page, cachet_next()";
static const char long_row[] = "one read of 16 MiB";
static const char warm_row[] = "cachet_warm() of all, which is cached there";
static const char alone_row[] = "4 KiB alone, p50";
static const char same_row[] =
    "4 KiB beside a sequential reader, p99, one handle";
static const char other_row[] =
    "4 KiB beside a sequential reader, p99, two handles";
static const char cachetd[] = "cachetd";
static const char by_tls[] = "cachetd, TLS";
static const char nbdcopy[] = "nbdcopy from nbdkit";
static const char bare[] = "bare";

enum {
  DELAY_MS = 10,
  LONG_LEN = 16 << 20,
  SEQUENTIAL_LEN = 256 << 10,
  SEQUENTIAL_DEPTH = 64, /* of the bare server's: 16 MiB under way */
  MAX_SMALL = 200,
  N_RELAYS = 4,
};

/* A way to the image. */
struct way {
  const char *column; /* NULL: there is none */
  char uri[TLS_SERVER_URI_LEN];
};

struct far {
  struct bench *bench;
  pid_t relays[N_RELAYS];
  size_t n_relays;
  struct way plain, tls;
  char nbd_uri[64];
  struct load_target bare;
  struct tls_server tls_server;
};

/* ---- Relays -------------------------------------------------------------- */

static pid_t start_relay(uint16_t to_port, uint16_t *port) {
  struct relay *r = relay_new(to_port, DELAY_MS * 1000);
  if (!r)
    rig_fail("a relay: no port, or no memory");
  *port = relay_port(r);
  pid_t pid = rig_fork(SIGKILL);
  if (pid == 0)
    relay_run(r);
  relay_free(r);
  return pid;
}

static void stop(pid_t pid) {
  kill(pid, SIGKILL);
  waitpid(pid, NULL, 0);
}

/* ---- One handle ---------------------------------------------------------- */

static cachet *open_far(const struct way *w) {
  struct cachet_options options = CACHET_OPTIONS_INIT;
  struct cachet_error err;
  cachet *c;
  if (cachet_open(w->uri, &options, &c, &err) != CACHET_OK)
    rig_fail("%s", err.message);
  return c;
}

static void add(const struct far *f, const char *metric, const char *row,
                const char *column, double value) {
  struct report_key key = {section, metric, row, column};
  report_add(f->bench->report, key, value);
}

static void add_rate(const struct far *f, const char *row, const char *column,
                     double ns) {
  add(f, rate_metric, row, column, (double)f->bench->servers.rig->size / ns);
}

static void run_program(const struct far *f, const char *column,
                        const char *const args[]) {
  double start = rig_now_ns(CLOCK_MONOTONIC);
  if (!rig_run(args, NULL, 0))
    rig_fail("%s failed", args[0]);
  add_rate(f, copy_row, column, rig_now_ns(CLOCK_MONOTONIC) - start);
}

static void copy_all(const struct far *f, const struct way *w) {
  char path[PATH_MAX];
  rig_find_program("client/cachet", path);
  const char *const cat[] = {path, "cat", w->uri, NULL};
  run_program(f, w->column, cat);
}

static void copy_by_nbd(const struct far *f) {
  char copy[RIG_PATH_LEN];
  if (!f->nbd_uri[0] || !servers_find("nbdcopy", copy))
    return;
  const char *const args[] = {copy, f->nbd_uri, "null:", NULL};
  run_program(f, nbdcopy, args);
}

static void read_pages(const struct far *f, const struct way *w) {
  double start = rig_now_ns(CLOCK_MONOTONIC);
  cachet *c = open_far(w);
  struct cachet_slice s;
  uint64_t at = 0;
  enum cachet_status status = cachet_load(c, 0, 0, &s);
  for (; status == CACHET_OK; status = cachet_next(c, &s, &s)) {
    if (memcmp(s.data, f->bench->servers.map + at, 64) != 0)
      rig_fail("wrong bytes at %llu", (unsigned long long)at);
    at += s.length;
    cachet_release(c, &s);
  }
  if (status != CACHET_END)
    rig_fail_call(c, status);
  cachet_close(c);
  add_rate(f, pages_row, w->column, rig_now_ns(CLOCK_MONOTONIC) - start);
}

static void read_long(const struct far *f, const struct way *w) {
  uint8_t *buf = calloc(1, LONG_LEN);
  cachet *c = open_far(w);
  if (!buf)
    rig_fail("no memory");
  memset(buf, 1, LONG_LEN); /* its pages are there */
  double start = rig_now_ns(CLOCK_MONOTONIC);
  rig_check(c, cachet_read(c, LONG_LEN, buf, LONG_LEN));
  double ns = rig_now_ns(CLOCK_MONOTONIC) - start;
  if (memcmp(buf, f->bench->servers.map + LONG_LEN, LONG_LEN) != 0)
    rig_fail("wrong bytes");
  cachet_close(c);
  free(buf);
  add(f, ms_metric, long_row, w->column, ns / 1e6);
}

/* The daemon has nothing to do for it but to look. */
static void warm_all(const struct far *f, const struct way *w) {
  cachet *c = open_far(w);
  double start = rig_now_ns(CLOCK_MONOTONIC);
  rig_check(c, cachet_warm(c, 0, CACHET_TO_END));
  double ns = rig_now_ns(CLOCK_MONOTONIC) - start;
  cachet_close(c);
  add(f, ms_metric, warm_row, w->column, ns / 1e6);
}

/* ---- Small reads --------------------------------------------------------- */

/* In the second half, in which no sequential reader is. */
static uint64_t pick_small(const struct far *f, uint64_t *random) {
  uint64_t half = f->bench->servers.rig->size / 2;
  return half + rig_random(random) % (half / RIG_PAGE) * RIG_PAGE;
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double percentile(double *ns, unsigned n, unsigned percent) {
  qsort(ns, n, sizeof *ns, compare);
  return ns[(n - 1) * percent / 100] / 1e6;
}

static unsigned n_small(const struct far *f) {
  return f->bench->is_quick ? MAX_SMALL / 4 : MAX_SMALL;
}

static double read_small(const struct far *f, const struct way *w,
                         unsigned percent) {
  double ns[MAX_SMALL];
  uint64_t random = 1;
  uint8_t buf[RIG_PAGE];
  cachet *c = open_far(w);
  unsigned n = n_small(f);
  for (unsigned i = 0; i < n; i++) {
    double start = rig_now_ns(CLOCK_MONOTONIC);
    rig_check(c, cachet_read(c, pick_small(f, &random), buf, sizeof buf));
    ns[i] = rig_now_ns(CLOCK_MONOTONIC) - start;
  }
  cachet_close(c);
  return percentile(ns, n, percent);
}

static void read_beside_another(const struct far *f, const struct way *w) {
  pid_t reader = rig_fork(SIGKILL);
  if (reader == 0) {
    uint8_t *buf = malloc(SEQUENTIAL_LEN);
    cachet *c = open_far(w);
    for (uint64_t at = 0;; at += SEQUENTIAL_LEN) {
      at %= f->bench->servers.rig->size / 2;
      rig_check(c, cachet_read(c, at, buf, SEQUENTIAL_LEN));
    }
  }
  add(f, ms_metric, other_row, w->column, read_small(f, w, 99));
  stop(reader);
}

/* One handle with two readers. */
struct beside {
  const struct far *far;
  cachet *c;
  uint8_t *long_buf, small_buf[RIG_PAGE];
  uint64_t at, random;
  double start, ns[MAX_SMALL];
  unsigned n;
  bool is_over;
};

static void go_on(void *arg, enum cachet_status status) {
  struct beside *b = arg;
  if (b->is_over)
    return; /* cancelled by the close */
  rig_check(b->c, status);
  uint64_t at = b->at;
  b->at = (at + SEQUENTIAL_LEN) % (b->far->bench->servers.rig->size / 2);
  rig_check(b->c, cachet_read_async(b->c, at, b->long_buf, SEQUENTIAL_LEN,
                                    go_on, b, NULL));
}

static void ask_small(struct beside *b);

static void small_came(void *arg, enum cachet_status status) {
  struct beside *b = arg;
  rig_check(b->c, status);
  b->ns[b->n++] = rig_now_ns(CLOCK_MONOTONIC) - b->start;
  if (b->n < n_small(b->far))
    ask_small(b);
}

static void ask_small(struct beside *b) {
  b->start = rig_now_ns(CLOCK_MONOTONIC);
  rig_check(b->c, cachet_read_async(b->c, pick_small(b->far, &b->random),
                                    b->small_buf, sizeof b->small_buf,
                                    small_came, b, NULL));
}

static void read_beside_itself(const struct far *f, const struct way *w) {
  struct beside b = {.far = f,
                     .c = open_far(w),
                     .long_buf = malloc(SEQUENTIAL_LEN),
                     .random = 1};
  if (!b.long_buf)
    rig_fail("no memory");
  go_on(&b, CACHET_OK);
  ask_small(&b);
  while (b.n < n_small(f)) {
    struct pollfd p = {.fd = cachet_fd(b.c), .events = cachet_events(b.c)};
    poll(&p, 1, cachet_timeout_ms(b.c));
    rig_check(b.c, cachet_dispatch(b.c));
  }
  b.is_over = true;
  cachet_close(b.c);
  free(b.long_buf);
  add(f, ms_metric, same_row, w->column, percentile(b.ns, b.n, 99));
}

/* ---- Small reads of the bare server -------------------------------------- */

static void pick_small_bare(void *arg, struct load_read *out) {
  static uint64_t random = 1;
  out->offset = pick_small(arg, &random);
}

static void pick_next_bare(void *arg, struct load_read *out) {
  static uint64_t at;
  const struct far *f = arg;
  out->offset = at;
  at = (at + SEQUENTIAL_LEN) % (f->bench->servers.rig->size / 2);
}

/* As many reads, if each takes no more than a round trip. */
static void read_bare(const struct far *f, const char *row,
                      const struct load_group *groups, unsigned n_groups) {
  double seconds = n_small(f) * 2 * DELAY_MS / 1e3;
  struct load_result r = load_run(groups, n_groups, seconds);
  add(f, ms_metric, row, bare, r.p99_us / 1e3);
}

static void read_all_bare(struct far *f) {
  const struct load_group small = {.target = &f->bare,
                                   .n_conns = 1,
                                   .depth = 1,
                                   .len = RIG_PAGE,
                                   .pick = pick_small_bare,
                                   .arg = f};
  const struct load_group sequential = {.target = &f->bare,
                                        .n_conns = 1,
                                        .depth = SEQUENTIAL_DEPTH,
                                        .len = SEQUENTIAL_LEN,
                                        .pick = pick_next_bare,
                                        .arg = f};
  const struct load_group both[] = {small, sequential};
  read_bare(f, same_row, both, 2);
  pid_t reader = rig_fork(SIGKILL);
  if (reader == 0)
    load_run(&sequential, 1, 1e6);
  read_bare(f, other_row, &small, 1);
  stop(reader);
}

/* ---- Judging ------------------------------------------------------------- */

static void judge(struct bench *b) {
  struct report_key key = {section, rate_metric, copy_row, cachetd};
  struct report_key nbd = {section, rate_metric, copy_row, nbdcopy};
  report_target(b->report, REPORT_AT_LEAST, 1 / 1.2,
                report_ratio_to(b->report, key, nbdcopy),
                "far, cachet cat: bytes/s, by nbdcopy's");
  key.row = pages_row;
  report_target(b->report, REPORT_AT_LEAST, 0.6,
                report_ratio(b->report, key, nbd),
                "far, page by page: bytes/s, by nbdcopy's");
  key = (struct report_key){section, ms_metric, long_row, cachetd};
  double transfer_ms = LONG_LEN / report_median(b->report, nbd) / 1e6;
  report_target(b->report, REPORT_AT_MOST, 1,
                report_median(b->report, key) / (4 * DELAY_MS + transfer_ms),
                "far, one read of 16 MiB: time, by two round trips' and its "
                "part of nbdcopy's");
  struct report_key alone = {section, ms_metric, alone_row, cachetd};
  const char *const rows[] = {same_row, other_row};
  for (size_t i = 0; i < 2; i++) {
    key.row = rows[i];
    report_target(b->report, REPORT_AT_MOST, 1.5,
                  report_ratio(b->report, key, alone), "far, %s: by one alone",
                  rows[i]);
  }
}

/* Through a relay of its own to a server, if that is there. */
static struct load_target far_target(struct far *f, enum system system) {
  struct load_target t = f->bench->servers.by_tcp[system];
  if (t.pid)
    f->relays[f->n_relays++] = start_relay(t.port, &t.port);
  return t;
}

/* The command looks for the part of the library that TLS needs. */
static void find_tls_library(void) {
  char path[PATH_MAX];
  rig_find_program("client", path);
  setenv("LD_LIBRARY_PATH", path, 1);
}

static void far_start(struct far *f) {
  struct load_target t = far_target(f, CACHETD);
  f->plain.column = cachetd;
  snprintf(f->plain.uri, sizeof f->plain.uri, "cachet://127.0.0.1:%u/image",
           t.port);
  t = far_target(f, NBDKIT);
  if (t.pid)
    snprintf(f->nbd_uri, sizeof f->nbd_uri, "nbd://127.0.0.1:%u", t.port);
  f->bare = far_target(f, BARE);
  if (!tls_server_start(&f->tls_server, f->bench->servers.rig)) {
    report_note(f->bench->report, "Missing", "openssl, and so TLS");
    return;
  }
  uint16_t port;
  f->relays[f->n_relays++] = start_relay(f->tls_server.tls_port, &port);
  find_tls_library();
  f->tls.column = by_tls;
  tls_server_uri(&f->tls_server, port, f->tls.uri);
}

static void far_stop(struct far *f) {
  while (f->n_relays)
    stop(f->relays[--f->n_relays]);
  if (f->tls.column)
    tls_server_stop(&f->tls_server);
}

static void measure(const struct far *f, const struct way *w) {
  if (!w->column)
    return;
  copy_all(f, w);
  read_pages(f, w);
  read_long(f, w);
  warm_all(f, w);
  add(f, ms_metric, alone_row, w->column, read_small(f, w, 50));
  read_beside_itself(f, w);
  read_beside_another(f, w);
}

void cells_far(struct bench *b) {
  struct far f = {.bench = b};
  far_start(&f);
  for (unsigned round = 0; round < b->n_rounds; round++) {
    measure(&f, &f.plain);
    copy_by_nbd(&f);
    read_all_bare(&f);
    measure(&f, &f.tls);
  }
  far_stop(&f);
  judge(b);
}

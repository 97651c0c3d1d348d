/* Reads that no memory has the bytes of: neither the daemon's nor the kernel's.
 *
 * Before each run the file is dropped from the kernel's memory, which is
 * checked, and each run has a fresh daemon. */
#include "tests/bench/cells.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char seq_section[] = "Cold, from front to back";
static const char seq_metric[] = "GB/s";
static const char random_section[] =
    "Cold, random 4 KiB, one connection, 32 under way";
static const char single_section[] =
    "Cold, random 4 KiB, one connection, one under way";
static const char random_metric[] = "thousand reads/s";

enum { DEPTH = 32 };

struct cold {
  char path[RIG_PATH_LEN];
  int fd;
  uint64_t size;
  char row[32]; /* the report's name of it */
};

/* ---- The kernel's memory ------------------------------------------------- */

/* The part of the file that the kernel has. */
static double warm_part(const struct cold *c) {
  size_t n_pages = c->size / RIG_PAGE, n = 0;
  unsigned char *vec = malloc(n_pages);
  void *map = mmap(NULL, c->size, PROT_READ, MAP_SHARED, c->fd, 0);
  if (!vec || map == MAP_FAILED || mincore(map, c->size, vec) < 0)
    rig_fail("%s: mincore: %s", c->path, strerror(errno));
  for (size_t i = 0; i < n_pages; i++)
    n += vec[i] & 1;
  munmap(map, c->size);
  free(vec);
  return (double)n / (double)n_pages;
}

static void drop(const struct cold *c) {
  if (fdatasync(c->fd) < 0)
    rig_fail("%s: %s", c->path, strerror(errno));
  posix_fadvise(c->fd, 0, 0, POSIX_FADV_DONTNEED);
  if (warm_part(c) > 0.001)
    rig_fail("%s: the kernel keeps it in memory", c->path);
}

static struct rig_server *start_daemon(struct rig *rig, const struct cold *c,
                                       struct load_target *out) {
  return servers_start_daemon(rig, c->path, c->size + RIG_SPARE_CACHE, out);
}

/* ---- From front to back -------------------------------------------------- */

static void add_seq(struct bench *b, const struct cold *c, const char *column,
                    double ns) {
  struct report_key key = {seq_section, seq_metric, c->row, column};
  report_add(b->report, key, (double)c->size / ns);
}

static void read_client(struct bench *b, const struct cold *c) {
  struct load_target t;
  drop(c);
  struct rig_server *server = start_daemon(b->servers.rig, c, &t);
  char *buf = malloc(RIG_CHUNK);
  if (!buf)
    rig_fail("no memory");
  double start = rig_now_ns(CLOCK_MONOTONIC);
  cachet *client = rig_open(server->socket, 0);
  if (!cachet_is_shared(client))
    rig_fail("the daemon does not share its memory");
  for (uint64_t done = 0; done < c->size; done += RIG_CHUNK)
    rig_check(client, cachet_read(client, done, buf, RIG_CHUNK));
  add_seq(b, c, "cachetd, shared memory", rig_now_ns(CLOCK_MONOTONIC) - start);
  cachet_close(client);
  free(buf);
  rig_server_stop(server);
}

static void read_program(struct bench *b, const struct cold *c,
                         const char *column, const char *const args[]) {
  drop(c);
  double start = rig_now_ns(CLOCK_MONOTONIC);
  if (!rig_run(args, NULL, 0))
    rig_fail("%s failed", args[0]);
  add_seq(b, c, column, rig_now_ns(CLOCK_MONOTONIC) - start);
}

static void read_nbdcopy(struct bench *b, const struct cold *c) {
  const char *const nbdkit_args[] = {"file", c->path, NULL};
  char nbdcopy[RIG_PATH_LEN], uri[RIG_PATH_LEN + 32];
  struct load_target t;
  struct rig_server *server =
      servers_start_nbdkit(b->servers.rig, nbdkit_args, &t);
  if (!server)
    return;
  snprintf(uri, sizeof uri, "nbd+unix:///?socket=%s", t.socket);
  if (servers_find("nbdcopy", nbdcopy)) {
    const char *const args[] = {nbdcopy, uri, "null:", NULL};
    read_program(b, c, "nbdcopy from nbdkit", args);
  }
  rig_server_stop(server);
}

static void judge_seq(struct bench *b, const struct cold *c) {
  struct report_key key = {seq_section, seq_metric, c->row,
                           "cachetd, shared memory"};
  report_target(b->report, REPORT_AT_LEAST, 1,
                report_ratio_to(b->report, key, "nbdcopy from nbdkit"),
                "cold %s, one shared-memory client: bytes/s, by nbdcopy's",
                c->row);
  report_target(b->report, REPORT_AT_LEAST, 2,
                report_ratio_to(b->report, key, "cat"),
                "cold %s, one shared-memory client: bytes/s, by cat's", c->row);
}

/* ---- At random ----------------------------------------------------------- */

/* Every page once, by a generator of full period. */
struct once {
  uint64_t page, n_pages; /* a power of two */
};

static void pick_once(void *arg, struct load_read *out) {
  struct once *o = arg;
  o->page = (o->page * 1664525 + 1013904223) & (o->n_pages - 1);
  out->offset = o->page * RIG_PAGE;
}

static void read_random(struct bench *b, const struct cold *c,
                        const char *section, unsigned depth, double seconds) {
  struct load_target t;
  struct once once = {.page = 1, .n_pages = c->size / RIG_PAGE};
  struct load_group group = {.target = &t,
                             .n_conns = 1,
                             .depth = depth,
                             .len = RIG_PAGE,
                             .pick = pick_once,
                             .arg = &once};
  drop(c);
  struct rig_server *server = start_daemon(b->servers.rig, c, &t);
  struct load_result result = load_run(&group, 1, seconds);
  rig_server_stop(server);
  struct report_key key = {section, random_metric, c->row, "cachetd"};
  report_add(b->report, key, result.rate / 1e3);
  key.metric = "p99, us";
  report_add(b->report, key, result.p99_us);
  key.metric = "server CPU, us a read";
  report_add(b->report, key, result.cpu_us);
}

/* The reads per second, the eighth of the fields.  NAN: fio failed. */
static double run_fio(const char *fio, const struct cold *c, const char *engine,
                      double seconds) {
  char file[RIG_PATH_LEN + 16], runtime[32], out[4096], *rest = out;
  snprintf(file, sizeof file, "--filename=%s", c->path);
  snprintf(runtime, sizeof runtime, "--runtime=%.0fms", seconds * 1e3);
  const char *const args[] = {fio,
                              "--name=cold",
                              file,
                              "--readonly",
                              "--rw=randread",
                              "--bs=4k",
                              "--direct=1",
                              "--iodepth=32",
                              "--minimal",
                              "--randseed=1",
                              engine,
                              runtime,
                              NULL};
  if (!rig_run(args, out, sizeof out))
    return -1;
  const char *field = NULL;
  for (int i = 0; i < 8 && rest; i++)
    field = strsep(&rest, ";");
  return rest ? strtod(field, NULL) : -1;
}

static void read_fio(struct bench *b, const struct cold *c, double seconds) {
  static const char *const engines[] = {"--ioengine=io_uring",
                                        "--ioengine=libaio"};
  static size_t engine; /* of which the ones before failed */
  char fio[RIG_PATH_LEN];
  if (!servers_find("fio", fio))
    return;
  double rate = -1;
  drop(c);
  for (; engine < 2; engine++)
    if ((rate = run_fio(fio, c, engines[engine], seconds)) >= 0)
      break;
  if (rate < 0)
    return;
  struct report_key key = {random_section, random_metric, c->row,
                           engine ? "fio, libaio" : "fio, io_uring"};
  report_add(b->report, key, rate / 1e3);
}

static void judge_random(struct bench *b, const struct cold *c) {
  static const char *const except[] = {NULL};
  struct report_key key = {random_section, random_metric, c->row, "cachetd"};
  const char *best = "fio";
  double ratio = report_ratio_to_best(b->report, key, true, except, &best);
  report_target(b->report, REPORT_AT_LEAST, 0.8, ratio,
                "cold random 4 KiB, 32 under way: reads/s, by %s, direct",
                best);
}

void cells_cold(struct bench *b) {
  static struct cold c; /* the report names its rows by it */
  static const char *const cat[] = {"/bin/cat", c.path, NULL};
  double seconds = b->is_quick ? 0.5 : 2;
  c.size = b->is_quick ? 256 << 20 : 1 << 30;
  snprintf(c.row, sizeof c.row, "%" PRIu64 " MiB", c.size >> 20);
  rig_path(b->servers.rig, "cold", c.path);
  c.fd = rig_make_file(c.path, c.size, RIG_CHUNK);
  for (unsigned round = 0; round < b->n_rounds; round++) {
    read_client(b, &c);
    read_program(b, &c, "cat", cat);
    read_nbdcopy(b, &c);
    read_random(b, &c, single_section, 1, seconds / 2);
    read_random(b, &c, random_section, DEPTH, seconds);
    read_fio(b, &c, seconds);
  }
  judge_seq(b, &c);
  judge_random(b, &c);
  close(c.fd);
  unlink(c.path);
}

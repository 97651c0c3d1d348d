/* Large images, many images, many processes. */
#include "tests/bench/cells.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static const char start_section[] = "Start, with a cache of 64 MiB";
static const char start_metric[] = "ms to the first page";
static const char memory_section[] = CELLS_MEMORY_SECTION;
static const char memory_metric[] = CELLS_MEMORY_METRIC;

/* ---- Start --------------------------------------------------------------- */

enum { N_IMAGES = 64, MANY_LEN_SHIFT = 35, HUGE_LEN_SHIFT = 41 };

static const struct start {
  const char *row;
  unsigned n_images, len_shift;
} starts[] = {
    {"an image of 256 MiB", 1, 28},
    {"an image of 2 TiB, sparse", 1, HUGE_LEN_SHIFT},
    {"64 images of 32 GiB, sparse", N_IMAGES, MANY_LEN_SHIFT},
};

enum { N_STARTS = sizeof starts / sizeof *starts };

/* From before fork(2) to the first page of one image.  All images are the
 * same file: to the daemon they are as many as it has names for them. */
static void measure_start(struct bench *b, const struct start *s,
                          const char *path) {
  static char images[N_IMAGES][256];
  const char *args[2 * N_IMAGES + 16] = {"cachetd", "--config", "/dev/null"};
  char listen[RIG_PATH_LEN + 8], err[160];
  size_t n = 3;
  struct rig_server *server = rig_server_new(b->servers.rig, "start");
  struct load_target t = {.name = "cachetd",
                          .protocol = &protocol_cachet,
                          .socket = server->socket};
  snprintf(images[0], sizeof images[0], "image=%s", path);
  for (unsigned i = 0; i < s->n_images; i++) {
    if (i > 0)
      snprintf(images[i], sizeof images[i], "image%u=%s", i, path);
    args[n++] = "--image";
    args[n++] = images[i];
  }
  snprintf(listen, sizeof listen, "unix:%s", server->socket);
  const char *const more[] = {"--listen", listen,        "--cache-size",
                              "64M",      "--log-level", "error"};
  memcpy(args + n, more, sizeof more);
  double begin = rig_now_ns(CLOCK_MONOTONIC);
  rig_server_start(server, "daemon/cachetd", args, false);
  t.pid = server->pid;
  if (!servers_wait(&t, err, sizeof err))
    rig_fail("%s", err);
  struct protocol_conn c = load_connect(&t);
  load_read_once(&t, &c);
  double took = rig_now_ns(CLOCK_MONOTONIC) - begin;
  close(c.fd);
  struct report_key key = {start_section, start_metric, s->row, "cachetd"};
  report_add(b->report, key, took / 1e6);
  key.metric = "MiB RSS then";
  report_add(b->report, key,
             (double)rig_memory_kib(t.pid, "status", "VmRSS:") / 1024);
  rig_server_stop(server);
}

static void measure_starts(struct bench *b) {
  char paths[N_STARTS][RIG_PATH_LEN], name[16];
  for (int i = 0; i < N_STARTS; i++) {
    snprintf(name, sizeof name, "sparse%d", i);
    rig_path(b->servers.rig, name, paths[i]);
    close(rig_make_sparse(paths[i], UINT64_C(1) << starts[i].len_shift));
  }
  for (unsigned round = 0; round < b->n_rounds; round++)
    for (int i = 0; i < N_STARTS; i++)
      measure_start(b, &starts[i], paths[i]);
  for (int i = 0; i < N_STARTS; i++) {
    struct report_key key = {start_section, start_metric, starts[i].row,
                             "cachetd"};
    report_target(b->report, REPORT_AT_MOST, 1000,
                  report_median(b->report, key), "start, %s: ms",
                  starts[i].row);
    unlink(paths[i]);
  }
}

/* ---- Processes ----------------------------------------------------------- */

enum { MAX_PROCESSES = 32 };
#define READ_LEN (UINT64_C(64) << 20)

static const struct count {
  const char *name;
  unsigned n;
} counts[] = {{"1", 1}, {"2", 2}, {"4", 4}, {"8", 8}, {"16", 16}, {"32", 32}};

enum { N_COUNTS = sizeof counts / sizeof *counts };

enum way { SHARED, OF_ITS_OWN, MAPPED, N_WAYS };

static const char *const ways[N_WAYS] = {
    "cachetd, shared memory", "a cache in each process", "a mapping in each"};

static void read_handle(cachet *c) {
  static uint8_t buf[64 << 10];
  for (uint64_t at = 0; at < READ_LEN; at += sizeof buf)
    rig_check(c, cachet_read(c, at, buf, sizeof buf));
}

static void read_mapping(const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  const uint8_t *map = mmap(NULL, READ_LEN, PROT_READ, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED)
    rig_fail("%s: map: %s", path, strerror(errno));
  for (uint64_t at = 0; at < READ_LEN; at += RIG_PAGE)
    __asm__ volatile("" : : "r"(map[at]) : "memory");
}

/* What a process does.  What it read with is left to it: its memory is about to
 * be counted. */
static void read_all(const char *path, enum way way,
                     struct rig_server *daemon) {
  struct cachet_options options = {.struct_size = sizeof options,
                                   .cache_size = READ_LEN + (16 << 20)};
  struct cachet_error err;
  cachet *c;
  if (way == MAPPED)
    read_mapping(path);
  else if (way == SHARED)
    read_handle(rig_open(daemon->socket, 0));
  else if (cachet_open(path, &options, &c, &err) == CACHET_OK)
    read_handle(c);
  else
    rig_fail("%s", err.message);
}

/* Tells by a byte that it has read everything, and lives until the other end of
 * `until` is closed. */
static pid_t start_process(const char *path, enum way way,
                           struct rig_server *daemon, int told,
                           const int until[2]) {
  pid_t pid = rig_fork(SIGKILL);
  if (pid > 0)
    return pid;
  char byte = 0;
  close(until[1]);
  read_all(path, way, daemon);
  if (write(told, &byte, 1) == 1 && read(until[0], &byte, 1) == 0)
    _exit(0);
  _exit(1);
}

static void measure_memory(struct bench *b, const char *path, enum way way,
                           const struct count *count) {
  struct load_target t;
  struct rig_server *daemon = NULL;
  if (way == SHARED)
    daemon = servers_start_daemon(b->servers.rig, path,
                                  READ_LEN + RIG_SPARE_CACHE, &t);
  pid_t pids[MAX_PROCESSES];
  int told[2], until[2];
  char byte;
  if (pipe2(told, O_CLOEXEC) < 0 || pipe2(until, O_CLOEXEC) < 0)
    rig_fail("pipe: %s", strerror(errno));
  uint64_t kib = 0;
  for (unsigned i = 0; i < count->n; i++) {
    pids[i] = start_process(path, way, daemon, told[1], until);
    if (read(told[0], &byte, 1) != 1)
      rig_fail("a process failed");
  }
  for (unsigned i = 0; i < count->n; i++)
    kib += rig_memory_kib(pids[i], "smaps_rollup", "Pss:");
  if (daemon)
    kib += rig_memory_kib(daemon->pid, "smaps_rollup", "Pss:");
  struct report_key key = {memory_section, memory_metric, count->name,
                           ways[way]};
  report_add(b->report, key, (double)kib / 1024);
  close(told[0]);
  close(told[1]);
  close(until[0]);
  close(until[1]);
  for (unsigned i = 0; i < count->n; i++)
    waitpid(pids[i], NULL, 0);
  if (daemon)
    rig_server_stop(daemon);
}

/* The file is nobody else's, so that all of its memory is counted. */
static void measure_memories(struct bench *b) {
  char path[RIG_PATH_LEN];
  rig_path(b->servers.rig, "small", path);
  close(rig_make_file(path, READ_LEN, RIG_CHUNK));
  for (int i = 0; i < N_COUNTS; i++)
    for (enum way way = SHARED; way < N_WAYS; way++)
      measure_memory(b, path, way, &counts[i]);
  unlink(path);
}

void cells_scale(struct bench *b) {
  measure_starts(b);
  measure_memories(b);
}

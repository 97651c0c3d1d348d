/* remote: one image of a server of HTTP, read by many processes at once.
 *
 *   remote [--rounds N] [--size SIZE] [--delay MS] [--processes N]
 *          [--json FILE]
 *
 * Makes a file of SIZE bytes (256M), which an nginx on loopback serves.  1, 8
 * and 32 processes each read all of it from front to back, as programs of their
 * own whose output goes nowhere:
 *
 *   cachetd  `cachet cat` of an image whose source is that URL, from a daemon
 *            whose cache has room for it
 *   nbdkit   nbdcopy to nowhere from nbdkit's curl plugin under its cache
 *            filter, with cache-on-read=true
 *   curl     curl, each for itself
 *
 * Cold: the daemon or nbdkit is fresh.  Warm: once more.  Then as many
 * processes that stay have a handle of the library's, or one of libnbd's, read
 * all of it by that, and read pages at random for half a second.  Each is done
 * with 0, 1 and 20 ms added to each request, by a relay before nginx that keeps
 * each byte for half of that in both directions.  All take turns, round by
 * round.
 * --delay and --processes leave all others out.
 *
 * What was fetched is what nginx's log says.  Memory is PSS (proc(5)), the most
 * that all processes had together while they read warm, by a round of its own,
 * without the cache: cachetd's is shared memory, and nbdkit's a file, whose
 * pages are the kernel's.
 *
 * Targets are reported and judge nothing: exit status 0 unless something
 * failed, then 1; 2 for a bad command line. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libnbd.h>

#include "tests/bench/card.h"
#include "tests/bench/report.h"
#include "tests/bench/rig.h"
#include "tests/bench/servers.h"
#include "tests/bench/store.h"
#include "tests/support/relay.h"

enum { MAX_READERS = 32, N_DELAYS = 3, URL_LEN = 64, ARG_LEN = 160 };

#define STAY_NS 5e8 /* half a second */

static const char cold_metric[] = "cold, MB/s of all together";
static const char warm_metric[] = "warm, MB/s of all together";
static const char stay_metric[] = "warm, pages at random, MB/s of all together";
static const char fetched_metric[] = "fetched cold, images";
static const char memory_metric[] = "memory beside the cache, MiB";

static const char *const sections[N_DELAYS] = {"0 ms added", "1 ms added",
                                               "20 ms added"};
static const unsigned delays_ms[N_DELAYS] = {0, 1, 20};

static const unsigned counts[] = {1, 8, MAX_READERS};
static const char *const rows[] = {"1 process", "8 processes", "32 processes"};
enum { N_COUNTS = sizeof counts / sizeof *counts };

static const char of_cachetd[] = "cachetd", of_nbdkit[] = "nbdkit",
                  of_curl[] = "curl";

struct bench {
  struct rig *rig;
  struct report *report;
  struct store store;
  pid_t relays[N_DELAYS];
  char urls[N_DELAYS][URL_LEN];
  char curl[RIG_PATH_LEN], nbdkit[RIG_PATH_LEN], nbdcopy[RIG_PATH_LEN];
};

/* ---- The store ----------------------------------------------------------- */

static uint16_t start_relay(struct bench *b, uint16_t to_port, unsigned i) {
  struct relay *r = relay_new(to_port, delays_ms[i] * 1000 / 2);
  if (!r)
    rig_fail("a relay: no port, or no memory");
  uint16_t port = relay_port(r);
  b->relays[i] = rig_fork(SIGKILL);
  if (b->relays[i] == 0)
    relay_run(r);
  relay_free(r);
  return port;
}

static void start_store(struct bench *b) {
  if (!servers_find("curl", b->curl) || !servers_find("nbdkit", b->nbdkit) ||
      !servers_find("nbdcopy", b->nbdcopy))
    rig_fail("curl, nbdkit and nbdcopy have to be installed");
  store_start(&b->store, b->rig);
  for (unsigned i = 0; i < N_DELAYS; i++)
    snprintf(b->urls[i], URL_LEN, "http://127.0.0.1:%u/image",
             delays_ms[i] ? start_relay(b, b->store.port, i) : b->store.port);
}

/* ---- Processes that stay ------------------------------------------------- */

/* A process with a handle. */
struct stayer {
  cachet *c; /* or */
  struct nbd_handle *nbd;
  uint8_t page[RIG_PAGE];
};

static void open_cachetd(struct stayer *s, const struct rig_server *server) {
  s->c = rig_open(server->socket, 0);
}

static void read_cachetd(struct stayer *s, uint64_t offset) {
  rig_check(s->c, cachet_read(s->c, offset, s->page, RIG_PAGE));
}

static void open_nbdkit(struct stayer *s, const struct rig_server *server) {
  s->nbd = nbd_create();
  if (!s->nbd || nbd_connect_unix(s->nbd, server->socket) < 0)
    rig_fail("%s", nbd_get_error());
}

static void read_nbdkit(struct stayer *s, uint64_t offset) {
  if (nbd_pread(s->nbd, s->page, RIG_PAGE, offset, 0) < 0)
    rig_fail("%s", nbd_get_error());
}

/* ---- Ways to the image --------------------------------------------------- */

struct stayer;

/* What a reader runs, and the server that it asks; NULL: the store itself. */
struct way {
  const char *column;
  struct rig_server *server;
  /* For processes that stay: opens, and reads.  NULL: there are none. */
  void (*open)(struct stayer *s, const struct rig_server *server);
  void (*read)(struct stayer *s, uint64_t offset);
  const char *args[8];
  char program[PATH_MAX], uri[ARG_LEN];
};

static void start_cachetd(struct bench *b, const char *url, struct way *w) {
  char image[ARG_LEN], listen[ARG_LEN], cache[32];
  w->column = of_cachetd;
  w->open = open_cachetd;
  w->read = read_cachetd;
  w->server = rig_server_new(b->rig, "daemon");
  snprintf(image, sizeof image, "image=%s", url);
  snprintf(listen, sizeof listen, "unix:%s", w->server->socket);
  snprintf(cache, sizeof cache, "%" PRIu64, b->rig->size + RIG_SPARE_CACHE);
  const char *const args[] = {"cachetd",     "--config",     "/dev/null",
                              "--image",     image,          "--listen",
                              listen,        "--cache-size", cache,
                              "--log-level", "error",        NULL};
  rig_server_start(w->server, "daemon/cachetd", args, false);
  rig_find_program("client/cachet", w->program);
  snprintf(w->uri, sizeof w->uri, "cachet+unix:///image?socket=%s",
           w->server->socket);
  const char *const cat[] = {w->program, "cat", w->uri, NULL};
  memcpy(w->args, cat, sizeof cat);
  cachet_close(rig_open(w->server->socket, 0));
}

static void start_nbdkit(struct bench *b, const char *url, struct way *w) {
  char source[ARG_LEN];
  w->column = of_nbdkit;
  w->open = open_nbdkit;
  w->read = read_nbdkit;
  w->server = rig_server_new(b->rig, "nbdkit");
  snprintf(source, sizeof source, "url=%s", url);
  const char *const args[] = {"nbdkit",
                              "-f",
                              "-U",
                              w->server->socket,
                              "--filter=cache",
                              "curl",
                              source,
                              "cache-on-read=true",
                              NULL};
  rig_server_start(w->server, b->nbdkit, args, false);
  for (int tries = 0; access(w->server->socket, F_OK) < 0; tries++) {
    if (tries == 500)
      rig_fail("nbdkit does not come up");
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
  }
  snprintf(w->uri, sizeof w->uri, "nbd+unix:///?socket=%s", w->server->socket);
  const char *const copy[] = {b->nbdcopy, w->uri, "null:", NULL};
  memcpy(w->args, copy, sizeof copy);
}

static void start_curl(struct bench *b, const char *url, struct way *w) {
  w->column = of_curl;
  snprintf(w->uri, sizeof w->uri, "%s", url);
  const char *const get[] = {b->curl, "-sf", "-o", "/dev/null", w->uri, NULL};
  memcpy(w->args, get, sizeof get);
}

static void (*const starts[])(struct bench *b, const char *url,
                              struct way *w) = {start_cachetd, start_nbdkit,
                                                start_curl};
enum { N_WAYS = sizeof starts / sizeof *starts };

/* ---- Readers ------------------------------------------------------------- */

__attribute__((noreturn)) static void become_reader(const struct way *w) {
  int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (null >= 0 && dup2(null, STDOUT_FILENO) >= 0)
    execv(w->args[0], (char *const *)w->args);
  perror(w->args[0]);
  _exit(127);
}

/* But for the cache itself, which is shared memory.  0: it has just ended. */
static uint64_t own_kib(pid_t pid) {
  char path[64], line[128];
  uint64_t all = 0, shared = 0;
  snprintf(path, sizeof path, "/proc/%d/smaps_rollup", (int)pid);
  FILE *file = fopen(path, "re");
  while (file && fgets(line, sizeof line, file))
    if (sscanf(line, "Pss: %" SCNu64, &all) != 1)
      sscanf(line, "Pss_Shmem: %" SCNu64, &shared);
  if (file)
    fclose(file);
  return all - shared;
}

static uint64_t sum_memory_kib(const struct way *w, const pid_t *pids,
                               unsigned n) {
  uint64_t total = w->server ? own_kib(w->server->pid) : 0;
  for (unsigned i = 0; i < n; i++)
    total += own_kib(pids[i]);
  return total;
}

/* Runs `n` readers to their ends; how long that took.  `memory_kib` is the most
 * that they had, or NULL. */
static double read_all(const struct way *w, unsigned n, uint64_t *memory_kib) {
  pid_t pids[MAX_READERS];
  double start = rig_now_ns(CLOCK_MONOTONIC);
  for (unsigned i = 0; i < n; i++) {
    pids[i] = rig_fork(SIGKILL);
    if (pids[i] == 0)
      become_reader(w);
  }
  for (unsigned i = 0; i < n; i++) {
    int status;
    while (memory_kib && waitpid(pids[i], &status, WNOHANG) == 0) {
      uint64_t now = sum_memory_kib(w, pids + i, n - i);
      *memory_kib = now > *memory_kib ? now : *memory_kib;
    }
    if (!memory_kib && waitpid(pids[i], &status, 0) != pids[i])
      rig_fail("wait: %s", strerror(errno));
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
      rig_fail("%s: a reader failed", w->column);
  }
  return rig_now_ns(CLOCK_MONOTONIC) - start;
}

/* Says by `ready` that it has read all of it once, waits for the end of
 * `start`, and says by `ready` again how many pages it then read. */
__attribute__((noreturn)) static void become_stayer(const struct bench *b,
                                                    const struct way *w,
                                                    uint64_t seed, int ready,
                                                    int start) {
  struct stayer s = {.c = NULL};
  uint64_t n_pages = b->rig->size / RIG_PAGE, n = 0;
  w->open(&s, w->server);
  for (uint64_t page = 0; page < n_pages; page++)
    w->read(&s, page * RIG_PAGE);
  bool ok = write(ready, &n, sizeof n) == sizeof n && read(start, &n, 1) == 0;
  double end = rig_now_ns(CLOCK_MONOTONIC) + STAY_NS;
  for (n = 0; ok && (n % 64 > 0 || rig_now_ns(CLOCK_MONOTONIC) < end); n++)
    w->read(&s, rig_random(&seed) % n_pages * RIG_PAGE);
  _exit(ok && write(ready, &n, sizeof n) == sizeof n ? 0 : 1);
}

/* A number of each of them, and the sum. */
static uint64_t hear(int fd, unsigned n) {
  uint64_t sum = 0, one;
  for (unsigned i = 0; i < n; i++) {
    if (read(fd, &one, sizeof one) != sizeof one)
      rig_fail("a process that stays has failed");
    sum += one;
  }
  return sum;
}

/* Has `n` of them read; how many pages they read in STAY_NS. */
static uint64_t stay(const struct bench *b, const struct way *w, unsigned n) {
  int ready[2], start[2];
  pid_t pids[MAX_READERS];
  if (pipe(ready) < 0 || pipe(start) < 0)
    rig_fail("pipe: %s", strerror(errno));
  for (unsigned i = 0; i < n; i++) {
    pids[i] = rig_fork(SIGKILL);
    if (pids[i] > 0)
      continue;
    close(ready[0]);
    close(start[1]);
    become_stayer(b, w, i + 1, ready[1], start[0]);
  }
  close(ready[1]);
  close(start[0]);
  hear(ready[0], n);
  close(start[1]);
  uint64_t n_pages = hear(ready[0], n);
  close(ready[0]);
  for (unsigned i = 0; i < n; i++)
    waitpid(pids[i], NULL, 0);
  return n_pages;
}

static void add(struct bench *b, unsigned delay, unsigned count,
                const char *metric, const struct way *w, double value) {
  const struct report_key key = {sections[delay], metric, rows[count],
                                 w->column};
  report_add(b->report, key, value);
}

static double megabytes_a_second(const struct bench *b, unsigned n, double ns) {
  return (double)b->rig->size * n / ns * 1e3;
}

static void measure(struct bench *b, unsigned delay, unsigned count,
                    unsigned way, bool memory) {
  struct way w = {.server = NULL};
  unsigned n = counts[count];
  double image = (double)b->rig->size;
  starts[way](b, b->urls[delay], &w);
  uint64_t before = store_sent(&b->store);
  double ns = read_all(&w, n, NULL);
  add(b, delay, count, cold_metric, &w, megabytes_a_second(b, n, ns));
  add(b, delay, count, fetched_metric, &w,
      (double)(store_sent(&b->store) - before) / image);
  if (w.server) {
    ns = read_all(&w, n, NULL);
    add(b, delay, count, warm_metric, &w, megabytes_a_second(b, n, ns));
    double bytes = (double)stay(b, &w, n) * RIG_PAGE;
    add(b, delay, count, stay_metric, &w, bytes / STAY_NS * 1e3);
  }
  if (memory) {
    uint64_t kib = 0;
    read_all(&w, n, &kib);
    add(b, delay, count, memory_metric, &w, (double)kib / 1024);
  }
  if (w.server)
    rig_server_stop(w.server);
}

static void measure_all(struct bench *b, unsigned delay, unsigned count,
                        bool memory) {
  for (unsigned way = 0; way < N_WAYS; way++)
    measure(b, delay, count, way, memory);
}

/* ---- Judging ------------------------------------------------------------- */

static void judge(struct bench *b, unsigned delay, unsigned count) {
  struct report_key key = {sections[delay], cold_metric, rows[count],
                           of_cachetd};
  report_target(b->report, REPORT_AT_LEAST, 1.5,
                report_ratio_to(b->report, key, of_nbdkit),
                "%s, %s: cold, by nbdkit's", sections[delay], rows[count]);
  key.metric = warm_metric;
  report_target(b->report, REPORT_AT_LEAST, 10,
                report_ratio_to(b->report, key, of_nbdkit),
                "%s, %s: warm, by nbdkit's", sections[delay], rows[count]);
  key.metric = stay_metric;
  report_target(b->report, REPORT_AT_LEAST, 10,
                report_ratio_to(b->report, key, of_nbdkit),
                "%s, %s: warm, at random, by nbdkit's", sections[delay],
                rows[count]);
  key.metric = fetched_metric;
  report_target(b->report, REPORT_AT_MOST, 1.02, report_median(b->report, key),
                "%s, %s: fetched, in images", sections[delay], rows[count]);
  if (delays_ms[delay] < 20 || counts[count] > 1)
    return;
  key.metric = cold_metric;
  report_target(b->report, REPORT_AT_LEAST, 0.8,
                report_ratio_to(b->report, key, of_curl),
                "%s, %s: cold, by one curl's", sections[delay], rows[count]);
}

/* ---- The command line ---------------------------------------------------- */

enum { ALL = 1000 };

struct options {
  uint64_t size, n_rounds;
  uint64_t delay_ms, n_processes; /* ALL, or those alone */
  const char *json;               /* or NULL */
};

static bool parse(int argc, char **argv, struct options *out) {
  *out = (struct options){
      .size = 256 << 20, .n_rounds = 3, .delay_ms = ALL, .n_processes = ALL};
  for (int i = 1; i < argc; i += 2) {
    const char *value = i + 1 < argc ? argv[i + 1] : "";
    bool ok = false;
    if (strcmp(argv[i], "--rounds") == 0)
      ok = rig_parse_number(value, 1, REPORT_MAX_ROUNDS, &out->n_rounds);
    else if (strcmp(argv[i], "--size") == 0)
      ok = rig_parse_number(value, 1 << 20, 1ull << 34, &out->size);
    else if (strcmp(argv[i], "--delay") == 0)
      ok = rig_parse_number(value, 0, ALL, &out->delay_ms);
    else if (strcmp(argv[i], "--processes") == 0)
      ok = rig_parse_number(value, 1, ALL, &out->n_processes);
    else if (strcmp(argv[i], "--json") == 0)
      ok = *(out->json = value) != 0;
    if (!ok)
      return false;
  }
  return true;
}

static bool is_wanted(uint64_t wanted, unsigned one) {
  return wanted == ALL || wanted == one;
}

int main(int argc, char **argv) {
  struct options options;
  if (!parse(argc, argv, &options)) {
    fputs("usage: remote [--rounds N] [--size SIZE] [--delay MS] "
          "[--processes N]\n"
          "              [--json FILE]\n",
          stderr);
    return 2;
  }
  struct bench b = {.rig = rig_make(options.size, RIG_CHUNK),
                    .report = report_new()};
  /* Where nbdkit's cache lies. */
  setenv("TMPDIR", b.rig->dir, 1);
  card_add(b.report, b.rig);
  start_store(&b);
  for (unsigned round = 0; round < options.n_rounds; round++)
    for (unsigned i = 0; i < N_DELAYS; i++)
      for (unsigned k = 0; k < N_COUNTS; k++)
        if (is_wanted(options.delay_ms, delays_ms[i]) &&
            is_wanted(options.n_processes, counts[k]))
          measure_all(&b, i, k, round == 0);
  for (unsigned i = 0; i < N_DELAYS; i++)
    for (unsigned k = 0; k < N_COUNTS; k++)
      if (is_wanted(options.delay_ms, delays_ms[i]) &&
          is_wanted(options.n_processes, counts[k]))
        judge(&b, i, k);
  report_print(b.report);
  if (options.json)
    report_write_json(b.report, options.json);
  report_free(b.report);
  for (unsigned i = 0; i < N_DELAYS; i++)
    if (b.relays[i] > 0)
      kill(b.relays[i], SIGKILL);
  rig_server_stop(b.store.nginx);
  return 0;
}

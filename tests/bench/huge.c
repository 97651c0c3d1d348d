/* huge: what huge pages change, for hits, first use, fills and memory.
 *
 *   huge [--rounds N] [--size SIZE]
 *
 * Makes a file of SIZE bytes (1G).  In each round a daemon for each kind of
 * pages reads it from the disk, for one client that reads from front to back;
 * cat and nbdcopy do the same.  A second client then uses each page for the
 * first time, and reads at random.  The kinds of pages take turns, and a row
 * has the medians of its rounds.
 *
 * It needs root, because it changes what kind of memory the kernel gives shared
 * memory (shmem_enabled).  It puts the setting back when it ends.
 *
 * A guest that tells its host of free memory (free page reporting) loses it
 * within seconds, in pieces of 2 MiB, and pays for it at the next use: 30 times
 * the fill of a huge page.  So the program uses as much memory as it is going
 * to need just before each daemon starts.
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
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/card.h"
#include "tests/bench/rig.h"
#include "tests/bench/servers.h"

#define LEAST_BY_NBDCOPY 1.0
#define LEAST_BY_CAT 2.0

enum { MAX_ROUNDS = 50, N_RANDOM = 4000000, CACHE_SPARE = 512 << 20 };

struct options {
  uint64_t size, n_rounds;
};

/* ---- The kernel's setting ------------------------------------------------ */

#define SETTING "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

static char saved[16]; /* "": it was not read */
static pid_t owner;

static bool write_setting(const char *value) {
  FILE *f = fopen(SETTING, "w");
  bool is_written = f && fputs(value, f) >= 0;
  return f && fclose(f) == 0 && is_written;
}

static void put_back(void) {
  if (saved[0] && getpid() == owner)
    write_setting(saved);
}

static void on_signal(int signal) {
  (void)signal;
  exit(1);
}

/* The setting is the word in brackets. */
static void save_setting(void) {
  char line[128] = "";
  FILE *f = fopen(SETTING, "r");
  if (!f || !fgets(line, sizeof line, f) ||
      sscanf(line, "%*[^[][%15[^]]", saved) != 1)
    rig_fail("%s: cannot be read", SETTING);
  fclose(f);
  owner = getpid();
  atexit(put_back);
  signal(SIGINT, on_signal);
  signal(SIGTERM, on_signal);
}

static void set(bool is_on) {
  if (!write_setting(is_on ? "advise" : "never"))
    rig_fail("%s: %s", SETTING, strerror(errno));
}

/* ---- Kinds of pages, and figures ----------------------------------------- */

struct kind {
  const char *name, *options; /* behind the image's source */
  bool is_huge;
};

static const struct kind kinds[] = {{"4 KiB", "", false},
                                    {"64 KiB", ",page-size=64K", false},
                                    {"2 MiB", ",page-size=2M", false},
                                    {"huge", ",huge=on", true}};
enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

enum figure {
  FILL_GBS,
  FILL_CPU_S,
  FIRST_USE_NS, /* a page of 4 KiB */
  TOUCH_NS,
  GET_NS,
  LOAD_NS,
  TABLES_KIB, /* of the client's page tables */
  ANON_MIB,   /* of the daemon, after the fills */
  N_FIGURES,
};

static const char *const figure_names[N_FIGURES] = {
    "cold, GB/s",
    "daemon's processor, s",
    "first use, ns a 4 KiB",
    "touch, ns",
    "get_u8, ns",
    "load + release, ns",
    "page tables, KiB",
    "daemon's anonymous memory, MiB"};

struct figures {
  double values[N_FIGURES];
};

struct bench {
  struct rig *rig;
  char path[RIG_PATH_LEN]; /* of a file that no process maps */
  int fd;
  size_t n_rounds;
  double of_kind[N_KINDS][N_FIGURES][MAX_ROUNDS];
  double cat[MAX_ROUNDS], nbdcopy[MAX_ROUNDS];
  double by_cat[N_KINDS][MAX_ROUNDS], by_nbdcopy[N_KINDS][MAX_ROUNDS];
};

/* ---- A client ------------------------------------------------------------ */

static volatile uint64_t sink; /* so that the bytes are read */

static cachet *open_shared(const struct rig_server *daemon) {
  cachet *c = rig_open(daemon->socket, 0);
  if (!cachet_is_shared(c))
    rig_fail("the daemon does not share its memory");
  return c;
}

static void read_all(const struct rig *rig, const struct rig_server *daemon,
                     struct figures *f) {
  char *buf = malloc(RIG_CHUNK);
  clockid_t its_clock;
  if (!buf || clock_getcpuclockid(daemon->pid, &its_clock) != 0)
    rig_fail("no memory, or no clock");
  double cpu = rig_now_ns(its_clock), start = rig_now_ns(CLOCK_MONOTONIC);
  cachet *c = open_shared(daemon);
  for (uint64_t at = 0; at < rig->size; at += RIG_CHUNK)
    rig_check(c, cachet_read(c, at, buf, RIG_CHUNK));
  f->values[FILL_GBS] =
      (double)rig->size / (rig_now_ns(CLOCK_MONOTONIC) - start);
  f->values[FILL_CPU_S] = (rig_now_ns(its_clock) - cpu) / 1e9;
  f->values[ANON_MIB] =
      (double)rig_memory_kib(daemon->pid, "smaps_rollup", "Anonymous:") / 1024;
  cachet_close(c);
}

static double use_first(const struct rig *rig, cachet *c) {
  double start = rig_now_ns(CLOCK_MONOTONIC);
  for (uint64_t at = 0; at < rig->size; at += RIG_PAGE) {
    uint8_t byte;
    rig_check(c, cachet_get_u8(c, at, &byte));
    sink += byte;
  }
  return (rig_now_ns(CLOCK_MONOTONIC) - start) / (double)(rig->size / RIG_PAGE);
}

/* Where the daemon's memory is in this process. */
static const uint8_t *find_memory(cachet *c) {
  struct cachet_slice s;
  rig_check(c, cachet_load(c, 0, 1, &s));
  const uint8_t *at = s.data;
  cachet_release(c, &s);
  return at;
}

static uint64_t any_byte(const struct rig *rig, uint64_t *random) {
  return rig_random(random) % rig->size;
}

static double touch(const struct rig *rig, cachet *c) {
  const uint8_t *memory = find_memory(c);
  uint64_t random = 1;
  double start = rig_now_ns(CLOCK_THREAD_CPUTIME_ID);
  for (int i = 0; i < N_RANDOM; i++)
    sink += memory[any_byte(rig, &random)];
  return (rig_now_ns(CLOCK_THREAD_CPUTIME_ID) - start) / N_RANDOM;
}

static double get(const struct rig *rig, cachet *c) {
  uint64_t random = 1;
  uint8_t byte;
  double start = rig_now_ns(CLOCK_THREAD_CPUTIME_ID);
  for (int i = 0; i < N_RANDOM; i++) {
    rig_check(c, cachet_get_u8(c, any_byte(rig, &random), &byte));
    sink += byte;
  }
  return (rig_now_ns(CLOCK_THREAD_CPUTIME_ID) - start) / N_RANDOM;
}

static double load(const struct rig *rig, cachet *c) {
  uint64_t random = 1;
  struct cachet_slice s;
  double start = rig_now_ns(CLOCK_THREAD_CPUTIME_ID);
  for (int i = 0; i < N_RANDOM; i++) {
    uint64_t at = any_byte(rig, &random);
    rig_check(c, cachet_load(c, at, 1, &s));
    sink += s.data[at - s.offset];
    cachet_release(c, &s);
  }
  return (rig_now_ns(CLOCK_THREAD_CPUTIME_ID) - start) / N_RANDOM;
}

static void hit(const struct rig *rig, const struct rig_server *daemon,
                struct figures *f) {
  cachet *c = open_shared(daemon);
  uint64_t before = rig_memory_kib(getpid(), "status", "VmPTE:");
  f->values[FIRST_USE_NS] = use_first(rig, c);
  f->values[TABLES_KIB] =
      (double)(rig_memory_kib(getpid(), "status", "VmPTE:") - before);
  f->values[TOUCH_NS] = touch(rig, c);
  f->values[GET_NS] = get(rig, c);
  f->values[LOAD_NS] = load(rig, c);
  cachet_close(c);
}

/* In a process of its own, whose page tables are empty. */
static void run_client(void (*work)(const struct rig *rig,
                                    const struct rig_server *daemon,
                                    struct figures *f),
                       const struct rig *rig, const struct rig_server *daemon,
                       struct figures *f) {
  int status;
  pid_t pid = rig_fork(SIGKILL);
  if (pid == 0) {
    work(rig, daemon, f);
    _exit(0);
  }
  if (waitpid(pid, &status, 0) < 0 || status != 0)
    rig_fail("a client failed");
}

/* ---- Rounds -------------------------------------------------------------- */

static void drop(const struct bench *b) {
  if (fdatasync(b->fd) < 0 ||
      posix_fadvise(b->fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
    rig_fail("%s: %s", b->path, strerror(errno));
}

/* Has the host give memory. */
static void use_memory(uint64_t len) {
  uint8_t *at = mmap(NULL, len, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED)
    rig_fail("no memory");
  madvise(at, len, MADV_HUGEPAGE);
  for (uint64_t i = 0; i < len; i += RIG_PAGE)
    at[i] = 1;
  munmap(at, len);
}

static struct rig_server *start_daemon(const struct bench *b,
                                       const struct kind *kind) {
  char image[160], listen[128], cache[32];
  struct rig_server *s = rig_server_new(b->rig, "huge");
  snprintf(image, sizeof image, "image=%s%s", b->path, kind->options);
  snprintf(listen, sizeof listen, "unix:%s", s->socket);
  snprintf(cache, sizeof cache, "%" PRIu64, b->rig->size * 5 / 4 + CACHE_SPARE);
  const char *args[] = {"cachetd", "--config",    "/dev/null", "--image",
                        image,     "--listen",    listen,      "--cache-size",
                        cache,     "--log-level", "error",     NULL};
  rig_server_start(s, "daemon/cachetd", args, false);
  return s;
}

static void run_kind(struct bench *b, const struct kind *kind,
                     struct figures *shared) {
  drop(b);
  set(kind->is_huge);
  use_memory(b->rig->size * 5 / 4);
  struct rig_server *daemon = start_daemon(b, kind);
  run_client(read_all, b->rig, daemon, shared);
  run_client(hit, b->rig, daemon, shared);
  rig_server_stop(daemon);
}

static double run_program(const struct bench *b, const char *const args[]) {
  double start = rig_now_ns(CLOCK_MONOTONIC);
  if (!rig_run(args, NULL, 0))
    rig_fail("%s failed", args[0]);
  return (double)b->rig->size / (rig_now_ns(CLOCK_MONOTONIC) - start);
}

static double run_cat(struct bench *b) {
  const char *const args[] = {"/bin/cat", b->path, NULL};
  drop(b);
  return run_program(b, args);
}

static double run_nbdcopy(struct bench *b) {
  const char *const nbdkit_args[] = {"file", b->path, NULL};
  char nbdcopy[RIG_PATH_LEN], uri[RIG_PATH_LEN + 32];
  struct load_target t;
  drop(b);
  struct rig_server *s = servers_start_nbdkit(b->rig, nbdkit_args, &t);
  if (!s || !servers_find("nbdcopy", nbdcopy))
    rig_fail("nbdkit and nbdcopy are needed");
  snprintf(uri, sizeof uri, "nbd+unix:///?socket=%s", t.socket);
  const char *const args[] = {nbdcopy, uri, "null:", NULL};
  double rate = run_program(b, args);
  rig_server_stop(s);
  return rate;
}

static void run_round(struct bench *b, struct figures *shared, size_t round) {
  b->cat[round] = run_cat(b);
  b->nbdcopy[round] = run_nbdcopy(b);
  for (size_t k = 0; k < N_KINDS; k++) {
    run_kind(b, &kinds[k], shared);
    for (int i = 0; i < N_FIGURES; i++)
      b->of_kind[k][i][round] = shared->values[i];
    b->by_cat[k][round] = shared->values[FILL_GBS] / b->cat[round];
    b->by_nbdcopy[k][round] = shared->values[FILL_GBS] / b->nbdcopy[round];
  }
}

/* ---- The report ---------------------------------------------------------- */

static const char *judge(double is, double least) {
  return is >= least ? "reached" : "**missed**";
}

static void print_figures(struct bench *b) {
  printf("\n| pages |");
  for (int i = 0; i < N_FIGURES; i++)
    printf(" %s |", figure_names[i]);
  printf("\n| --- |");
  for (int i = 0; i < N_FIGURES; i++)
    printf(" ---: |");
  for (size_t k = 0; k < N_KINDS; k++) {
    printf("\n| %s |", kinds[k].name);
    for (int i = 0; i < N_FIGURES; i++)
      printf(" %.3g |", rig_median(b->of_kind[k][i], b->n_rounds));
  }
  printf("\n");
}

static void print_fills(struct bench *b) {
  printf("\ncat: %.2f GB/s; nbdcopy from nbdkit: %.2f GB/s\n\n"
         "| a cold read | by nbdcopy's | at least %.0f | by cat's "
         "| at least %.0f |\n| --- | ---: | --- | ---: | --- |\n",
         rig_median(b->cat, b->n_rounds), rig_median(b->nbdcopy, b->n_rounds),
         LEAST_BY_NBDCOPY, LEAST_BY_CAT);
  for (size_t k = 0; k < N_KINDS; k++) {
    double by_nbdcopy = rig_median(b->by_nbdcopy[k], b->n_rounds);
    double by_cat = rig_median(b->by_cat[k], b->n_rounds);
    printf("| %s | %.2f | %s | %.2f | %s |\n", kinds[k].name, by_nbdcopy,
           judge(by_nbdcopy, LEAST_BY_NBDCOPY), by_cat,
           judge(by_cat, LEAST_BY_CAT));
  }
}

static bool parse(int argc, char **argv, struct options *o) {
  *o = (struct options){.size = 1 << 30, .n_rounds = 5};
  for (int i = 1; i + 1 < argc; i += 2)
    if (strcmp(argv[i], "--rounds") == 0
            ? !rig_parse_number(argv[i + 1], 1, MAX_ROUNDS, &o->n_rounds)
            : strcmp(argv[i], "--size") != 0 ||
                  !rig_parse_number(argv[i + 1], 1 << 26, 1ull << 34, &o->size))
      return false;
  return argc % 2 == 1;
}

int main(int argc, char **argv) {
  static struct bench b;
  struct options o;
  if (!parse(argc, argv, &o)) {
    fputs("usage: huge [--rounds N] [--size SIZE]\n", stderr);
    return 2;
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  b.rig = rig_make(o.size & ~((uint64_t)RIG_CHUNK - 1), RIG_CHUNK);
  b.n_rounds = o.n_rounds;
  rig_path(b.rig, "cold", b.path);
  b.fd = rig_make_file(b.path, b.rig->size, RIG_CHUNK);
  card_print(b.rig);
  save_setting();
  struct figures *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED)
    rig_fail("no memory");
  for (size_t round = 0; round < b.n_rounds; round++)
    run_round(&b, shared, round);
  print_figures(&b);
  print_fills(&b);
  return 0;
}

/* fanout: what many processes that read one image through one daemon cost.
 *
 *   fanout [--rounds N] [--ops N] [--size SIZE] [--piece SIZE]
 *
 * Makes a file of SIZE bytes (256M) and starts a daemon over it, the cache of
 * which has room for all of it.  Then, for 1, 8 and 32 processes: so many
 * clients and, as a yardstick, as many processes with a mapping of the file
 * copy N random pages together, each its share of them.  Clients and yardstick
 * take turns, round by round; a round lasts from the first process's beginning
 * to the last one's end.
 *
 * Memory is PSS (proc(5)), the clients' and the daemon's together, after the
 * rounds: each client has read all of the image by then.
 *
 * --piece is what is written of the file at once (1M): rig_make() says what
 * that does to a plain mapping.
 *
 * Targets are reported and judge nothing: exit status 0 unless something
 * failed, then 1; 2 for a bad command line. */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/card.h"
#include "tests/bench/rig.h"

enum { MAX_READERS = 32, KIB_A_PROCESS = 1024 };

#define LEAST_RATE 0.8

struct options {
  uint64_t size, piece, n_ops, n_rounds;
};

/* What a group's processes share. */
struct board {
  pthread_barrier_t start; /* the readers and the parent */
  bool stop;               /* written before the barrier */
  struct {
    double begin, end; /* of the last round, by CLOCK_MONOTONIC */
  } times[MAX_READERS];
};

/* Processes that do the same. */
struct group {
  struct board *board;
  unsigned n;
  pid_t pids[MAX_READERS];
  int fds[MAX_READERS]; /* a byte from a reader: ready, or done */
};

/* One process's work. */
struct reader {
  const struct rig *rig;
  cachet *c;          /* or */
  const uint8_t *map; /* of the file */
  uint64_t n_ops, random;
  uint8_t buf[RIG_PAGE];
};

/* ---- A reader ------------------------------------------------------------ */

static void read_pages(struct reader *r) {
  uint64_t n_pages = r->rig->size / RIG_PAGE;
  for (uint64_t i = 0; i < r->n_ops; i++) {
    uint64_t addr = rig_random(&r->random) % n_pages * RIG_PAGE;
    if (r->c)
      rig_check(r->c, cachet_read(r->c, addr, r->buf, RIG_PAGE));
    else
      memcpy(r->buf, r->map + addr, RIG_PAGE);
    __asm__ volatile("" : : "r"(r->buf) : "memory");
  }
}

static void tell(int fd) {
  if (write(fd, "", 1) != 1)
    _exit(1);
}

__attribute__((noreturn)) static void
run_reader(struct reader *r, struct board *board, unsigned i, int fd) {
  tell(fd);
  for (;;) {
    pthread_barrier_wait(&board->start);
    if (board->stop)
      break;
    board->times[i].begin = rig_now_ns(CLOCK_MONOTONIC);
    read_pages(r);
    board->times[i].end = rig_now_ns(CLOCK_MONOTONIC);
    tell(fd);
  }
  cachet_close(r->c);
  _exit(0);
}

static void open_shared(struct reader *r, struct rig_server *daemon) {
  r->c = rig_open(daemon->socket, 0);
  if (!cachet_is_shared(r->c))
    rig_fail("the daemon does not share its memory");
  rig_warm(r->rig, r->c);
  rig_expect_resident(r->rig, r->c);
}

/* ---- Groups -------------------------------------------------------------- */

static struct board *board_new(unsigned n) {
  struct board *board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  pthread_barrierattr_t attr;
  if (board == MAP_FAILED)
    rig_fail("no memory");
  pthread_barrierattr_init(&attr);
  pthread_barrierattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
  pthread_barrier_init(&board->start, &attr, n + 1);
  pthread_barrierattr_destroy(&attr);
  return board;
}

/* A reader ends before its time by failing only, and has said why then. */
static void hear_from_all(const struct group *g) {
  char byte;
  for (unsigned i = 0; i < g->n; i++)
    if (read(g->fds[i], &byte, 1) != 1)
      exit(1);
}

/* Of the daemon's clients, or, NULL, of readers of a mapping. */
static void group_start(struct group *g, const struct rig *rig,
                        struct rig_server *daemon, unsigned n, uint64_t n_ops) {
  *g = (struct group){.n = n, .board = board_new(n)};
  for (unsigned i = 0; i < n; i++) {
    int fds[2];
    if (pipe(fds) < 0)
      rig_fail("pipe: %s", strerror(errno));
    g->pids[i] = rig_fork(SIGKILL);
    if (g->pids[i] == 0) {
      struct reader r = {.rig = rig, .n_ops = n_ops / n, .random = i + 1};
      close(fds[0]);
      if (daemon)
        open_shared(&r, daemon);
      else
        r.map = rig_map(rig);
      run_reader(&r, g->board, i, fds[1]);
    }
    close(fds[1]);
    g->fds[i] = fds[0];
  }
  hear_from_all(g);
}

/* One round: how long it took. */
static double group_run(struct group *g) {
  pthread_barrier_wait(&g->board->start);
  hear_from_all(g);
  double begin = g->board->times[0].begin, end = g->board->times[0].end;
  for (unsigned i = 1; i < g->n; i++) {
    if (g->board->times[i].begin < begin)
      begin = g->board->times[i].begin;
    if (g->board->times[i].end > end)
      end = g->board->times[i].end;
  }
  return end - begin;
}

static void group_stop(struct group *g) {
  g->board->stop = true;
  pthread_barrier_wait(&g->board->start);
  for (unsigned i = 0; i < g->n; i++) {
    waitpid(g->pids[i], NULL, 0);
    close(g->fds[i]);
  }
  munmap(g->board, sizeof *g->board);
}

/* ---- Memory -------------------------------------------------------------- */

static uint64_t pss_kib(pid_t pid) {
  return rig_memory_kib(pid, "smaps_rollup", "Pss:");
}

/* The buffers of fills are all that the daemon has in huge pages, where the
 * kernel gives these only on request.  It returns them once they were unused
 * for a while. */
static void await_idle_buffers(const struct rig_server *daemon) {
  double end = rig_now_ns(CLOCK_MONOTONIC) + 10e9;
  while (rig_memory_kib(daemon->pid, "smaps_rollup", "AnonHugePages:") > 0) {
    if (rig_now_ns(CLOCK_MONOTONIC) > end) {
      puts("  the daemon keeps huge pages: they are counted");
      return;
    }
    nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
  }
}

/* The daemon is one of the processes. */
static void print_memory(const struct rig *rig, const struct rig_server *daemon,
                         const struct group *clients) {
  await_idle_buffers(daemon);
  uint64_t of_daemon = pss_kib(daemon->pid), total = of_daemon;
  for (unsigned i = 0; i < clients->n; i++)
    total += pss_kib(clients->pids[i]);
  double beyond = (double)total - (double)(rig->size >> 10);
  double each = beyond / (clients->n + 1);
  printf("  PSS: %" PRIu64 " KiB with the daemon; beyond one copy, %.0f KiB a "
         "process, at most %d: %s\n",
         total, each, KIB_A_PROCESS,
         each <= KIB_A_PROCESS ? "reached" : "MISSED");
  printf("  the daemon's %" PRIu64 " KiB left out, %.0f KiB a client\n",
         of_daemon, (beyond - (double)of_daemon) / clients->n);
}

/* ---- Measuring ----------------------------------------------------------- */

static void measure(const struct options *o, const struct rig *rig,
                    struct rig_server *daemon, unsigned n) {
  struct group clients, plain;
  double *ratios = calloc(o->n_rounds, sizeof *ratios);
  double *ns = calloc(2 * o->n_rounds, sizeof *ns);
  if (!ratios || !ns)
    rig_fail("no memory");
  double *plain_ns = ns + o->n_rounds;
  uint64_t n_ops = o->n_ops / n * n;
  group_start(&clients, rig, daemon, n, n_ops);
  group_start(&plain, rig, NULL, n, n_ops);
  for (uint64_t i = 0; i < o->n_rounds; i++) {
    ns[i] = group_run(&clients) / (double)n_ops;
    plain_ns[i] = group_run(&plain) / (double)n_ops;
    ratios[i] = plain_ns[i] / ns[i];
  }
  double rate = 1e6 / rig_median(ns, o->n_rounds);
  double plain_rate = 1e6 / rig_median(plain_ns, o->n_rounds);
  double ratio = rig_median(ratios, o->n_rounds);
  printf("%u process%s\n", n, n > 1 ? "es" : "");
  printf("  cachet_read 4 KiB: %.0f thousand a second together; %.2f x mmap's "
         "%.0f, at least %.1f: %s\n",
         rate, ratio, plain_rate, LEAST_RATE,
         ratio >= LEAST_RATE ? "reached" : "MISSED");
  print_memory(rig, daemon, &clients);
  group_stop(&plain);
  group_stop(&clients);
  free(ratios);
  free(ns);
}

/* ---- The command line ---------------------------------------------------- */

static bool parse(int argc, char **argv, struct options *out) {
  *out = (struct options){256 << 20, RIG_CHUNK, 640000, 9};
  for (int i = 1; i < argc; i += 2) {
    const char *value = i + 1 < argc ? argv[i + 1] : "";
    bool ok = false;
    if (strcmp(argv[i], "--rounds") == 0)
      ok = rig_parse_number(value, 1, 1000, &out->n_rounds);
    else if (strcmp(argv[i], "--ops") == 0)
      ok = rig_parse_number(value, 1000, 100000000, &out->n_ops);
    else if (strcmp(argv[i], "--size") == 0)
      ok = rig_parse_number(value, 1 << 20, 1ull << 40, &out->size);
    else if (strcmp(argv[i], "--piece") == 0)
      ok = rig_parse_piece(value, &out->piece);
    if (!ok)
      return false;
  }
  return true;
}

int main(int argc, char **argv) {
  static const unsigned counts[] = {1, 8, MAX_READERS};
  struct options options;
  if (!parse(argc, argv, &options)) {
    fputs("usage: fanout [--rounds N] [--ops N] [--size SIZE] [--piece SIZE]\n",
          stderr);
    return 2;
  }
  struct rig *rig = rig_make(options.size, options.piece);
  card_print(rig);
  struct rig_server *daemon =
      rig_start_daemon(rig, "daemon", rig->size + RIG_SPARE_CACHE);
  printf("%" PRIu64 " rounds of %" PRIu64 " pages, a file of %" PRIu64
         " MiB, written %" PRIu64 " KiB at a time\n\n",
         options.n_rounds, options.n_ops, rig->size >> 20, options.piece >> 10);
  fflush(stdout); /* what is buffered is not the children's to print */
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    measure(&options, rig, daemon, counts[i]);
    fflush(stdout);
  }
  return 0;
}

/* A miss asks the daemon, which reads the source into memory that both share,
 * and then the client reads that memory.  So the least it can cost, its floor,
 * is a round trip over a Unix socket, the read, the write of the page into a
 * hole of a memfd, and its first touch in the process that reads it.
 *
 * Everybody is on one processor, the daemon and the other end of the bare round
 * trip included: to wake another one costs many times what is measured here,
 * and more or less of it from one moment to the next.
 *
 * The source is warm in the kernel.  One daemon's cache has room for all of it
 * and begins empty; another's holds an eighth, and is full, so that its misses
 * pay for evictions, too.  Pages that are resident are passed over.  Like the
 * warm rows, each operation consumes a byte. */
#include "tests/bench/miss.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/bench/echo.h"

enum { N_ROUNDS = 61, N_OPS = 300 };

#define MOST_TIMES 1.25

struct miss {
  struct rig *rig;
  cachet *empty, *full; /* to the one daemon and the other */
  int memfd;            /* as large as the file, and mapped */
  const uint8_t *map;
  uint64_t n_written, n_touched; /* of the pages of the memfd */
  struct echo echo;
  uint64_t random;
};

static volatile uint8_t sink;

static void stay_on_this_processor(void) {
  cpu_set_t set;
  int cpu = sched_getcpu();
  CPU_ZERO(&set);
  CPU_SET(cpu < 0 ? 0 : cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) < 0)
    rig_fail("stay on one processor: %s", strerror(errno));
}

/* ---- The rows ------------------------------------------------------------ */

static void round_trip(struct miss *b) { echo_round_trip(&b->echo); }

static uint64_t random_page(struct miss *b) {
  return rig_random(&b->random) % (b->rig->size / RIG_PAGE) * RIG_PAGE;
}

static void read_page(struct miss *b) {
  static uint8_t page[RIG_PAGE];
  if (pread(b->rig->fd, page, RIG_PAGE, (off_t)random_page(b)) != RIG_PAGE)
    rig_fail("%s: read: %s", b->rig->file, strerror(errno));
  sink = page[0];
}

/* The nth of distinct pages of the memfd, each far from the one before. */
static uint64_t nth_page(const struct miss *b, uint64_t n) {
  return n * 40503 % (b->rig->size / RIG_PAGE) * RIG_PAGE;
}

static void write_hole(struct miss *b) {
  static const uint8_t page[RIG_PAGE] = {1};
  off_t offset = (off_t)nth_page(b, b->n_written++);
  if (pwrite(b->memfd, page, RIG_PAGE, offset) != RIG_PAGE)
    rig_fail("memfd: write: %s", strerror(errno));
}

/* Of what write_hole() wrote in the same round. */
static void touch_first(struct miss *b) {
  sink = b->map[nth_page(b, b->n_touched++)];
}

static uint64_t random_absent(struct miss *b, cachet *c) {
  uint64_t addr;
  do
    addr = random_page(b);
  while (cachet_is_cached(c, addr));
  return addr;
}

static void miss_read(struct miss *b) {
  static uint8_t page[RIG_PAGE];
  rig_check(b->empty,
            cachet_read(b->empty, random_absent(b, b->empty), page, RIG_PAGE));
  sink = page[0];
}

static void miss(struct miss *b, cachet *c) {
  struct cachet_slice s;
  rig_check(c, cachet_load(c, random_absent(b, c), 1, &s));
  sink = s.data[0];
  cachet_release(c, &s);
}

static void miss_empty(struct miss *b) { miss(b, b->empty); }

static void miss_full(struct miss *b) { miss(b, b->full); }

/* ---- Measuring ----------------------------------------------------------- */

static const struct row {
  const char *name;
  void (*run)(struct miss *b);
  bool is_miss;
} rows[] = {
    {"round trip of 64 bytes", round_trip, false},
    {"pread 4 KiB", read_page, false},
    {"pwrite 4 KiB into a hole", write_hole, false},
    {"first touch of that", touch_first, false},
    {"cachet_read 4 KiB, a miss, shared", miss_read, true},
    {"cachet_load, a miss, shared", miss_empty, true},
    {"cachet_load, a miss, full cache", miss_full, true},
};

/* The first rows make the floor together. */
enum { N_ROWS = sizeof rows / sizeof *rows, N_FLOOR = 4 };

static double time_ns(struct miss *b, void (*act)(struct miss *b)) {
  act(b);
  double start = rig_now_ns(CLOCK_MONOTONIC);
  for (int i = 0; i < N_OPS; i++)
    act(b);
  return (rig_now_ns(CLOCK_MONOTONIC) - start) / N_OPS;
}

static cachet *open_shared(struct rig *rig, const char *name,
                           uint64_t cache_size) {
  struct rig_server *daemon = rig_start_daemon(rig, name, cache_size);
  cachet *c = rig_open(daemon->socket, CACHET_NO_READAHEAD);
  if (!cachet_is_shared(c))
    rig_fail("the daemon does not share its memory");
  return c;
}

static void make_memfd(struct miss *b) {
  b->memfd = memfd_create("miss", MFD_CLOEXEC);
  if (b->memfd < 0 || ftruncate(b->memfd, (off_t)b->rig->size) < 0)
    rig_fail("memfd: make: %s", strerror(errno));
  void *map = mmap(NULL, b->rig->size, PROT_READ, MAP_SHARED, b->memfd, 0);
  if (map == MAP_FAILED)
    rig_fail("memfd: map: %s", strerror(errno));
  b->map = map;
}

static void open_all(struct miss *b) {
  make_memfd(b);
  echo_start(&b->echo);
  b->empty = open_shared(b->rig, "empty", 2 * b->rig->size);
  b->full = open_shared(b->rig, "full", b->rig->size / 8);
  rig_warm(b->rig, b->full);
}

static void close_all(struct miss *b) {
  cachet_close(b->empty);
  cachet_close(b->full);
  echo_stop(&b->echo);
}

static double floor_ns(double ns[N_ROWS][N_ROUNDS], int round) {
  double sum = 0;
  for (int row = 0; row < N_FLOOR; row++)
    sum += ns[row][round];
  return sum;
}

/* The times of all rows: of row r in round i, at [r][i]. */
static void print_row(double ns[N_ROWS][N_ROUNDS], int row) {
  double scratch[N_ROUNDS];
  memcpy(scratch, ns[row], sizeof scratch);
  double middle = rig_median(scratch, N_ROUNDS);
  printf("%-34s %9.1f %9.1f %9.1f", rows[row].name, middle, scratch[0],
         scratch[N_ROUNDS - 1]);
  if (rows[row].is_miss) {
    for (int i = 0; i < N_ROUNDS; i++)
      scratch[i] = ns[row][i] / floor_ns(ns, i);
    double ratio = rig_median(scratch, N_ROUNDS);
    printf("  %.2f x the sum of the first four, at most %.2f: %s", ratio,
           MOST_TIMES, ratio <= MOST_TIMES ? "reached" : "MISSED");
  }
  printf("\n");
}

void miss_measure(struct rig *rig) {
  struct miss b = {.rig = rig, .random = 3};
  static double ns[N_ROWS][N_ROUNDS];
  stay_on_this_processor();
  open_all(&b);
  uint64_t misses = cachet_misses(b.empty) + cachet_misses(b.full);
  for (int i = 0; i < N_ROUNDS; i++)
    for (int row = 0; row < N_ROWS; row++)
      ns[row][i] = time_ns(&b, rows[row].run);
  misses = cachet_misses(b.empty) + cachet_misses(b.full) - misses;
  if (misses != (N_ROWS - N_FLOOR) * N_ROUNDS * (N_OPS + 1))
    rig_fail("a page was there that should have been missed");
  printf("%d rounds of %d operations, all on one processor\n\n", N_ROUNDS,
         N_OPS);
  printf("%-34s %9s %9s %9s\n", "ns for each operation", "median", "min",
         "max");
  for (int row = 0; row < N_ROWS; row++)
    print_row(ns, row);
  close_all(&b);
}

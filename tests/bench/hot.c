/* hot: what a warm read costs, beside what it is measured against; and a miss.
 *
 *   hot [--rounds N] [--ops N] [--size SIZE] [--piece SIZE] [--groups N]
 *
 * Makes a file of SIZE bytes (256M) and reads it at random: from a plain
 * mapping, with memcpy and pread, through a handle in this process, and from a
 * daemon: through shared memory, and over the socket alone.  Everything is
 * resident before the first round: the subject is the hit.  All rows read the
 * same pages in the same order and consume a byte of each.
 *
 * The last row has a daemon of its own (gate.c) that holds 64 misses of another
 * connection at a shut gate for as long as the rows run: hits must not wait for
 * them.
 *
 * Rows that are held against each other run interleaved, round by round, since
 * a machine's speed drifts, and in each round twice, timed the second time:
 * what the row before left in the processor's caches is no row's gain or loss.
 * Rows that stream through all of memory come after those that do not.  A row
 * that waits for nobody is timed by its thread's own clock, so that other
 * programs' turns on the processor do not count.  A row shows the median of its
 * rounds, and the median of its ratios to its yardsticks in the same round.
 *
 * The miss comes last, on one processor: miss.c.
 *
 * --groups N is to run the first N of the groups of rows that are interleaved,
 * and no miss: 1 is the hits of single pages, which take a few seconds.
 *
 * --piece is what is written of the file at once (1M): rig_make() says what
 * that does to a plain mapping.
 *
 * Targets are reported and judge nothing: exit status 0 unless something
 * failed, then 1; 2 for a bad command line. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/card.h"
#include "tests/bench/gate.h"
#include "tests/bench/miss.h"
#include "tests/bench/rig.h"

struct options {
  uint64_t size, piece; /* of the file */
  size_t n_ops;         /* in a row and round */
  size_t n_rounds;
  size_t n_groups; /* N_GROUPS: and the miss */
};

/* How a row reads. */
enum access {
  PLAIN, /* without a handle */
  LOCAL, /* the file, in this process */
  SHARED,
  SOCKET,
  GATED, /* over the socket, from the daemon with the gate */
  N_ACCESSES,
};

/* What the rows work on. */
struct bench {
  struct rig *rig;
  size_t n_ops;
  uint32_t *order;             /* n_ops random page numbers */
  const uint8_t *map, *mirror; /* of the file; of the daemon's memory */
  cachet *handles[N_ACCESSES]; /* PLAIN: NULL */
  uint8_t *buf;                /* RIG_PAGE bytes */

  struct rig_server *daemon, *gate;
  cachet *behind; /* has GATE_N_CELLS reads at the gate */
  int n_behind;   /* of them not answered */
};

/* Where the bytes go that rows read, so that they have to. */
static volatile uint64_t sink;

/* ---- The rows ------------------------------------------------------------ */

/* A byte of each page, not the same in all. */
static inline uint64_t address_in(uint32_t page) {
  return (uint64_t)page * RIG_PAGE + (page * 0x9e3779b1u >> 20);
}

static void run_touch(struct bench *b, cachet *c, size_t n) {
  (void)c;
  for (size_t i = 0; i < n; i++)
    sink = b->map[address_in(b->order[i])];
}

/* The same of the daemon's memory: what the library adds to. */
static void run_touch_mirror(struct bench *b, cachet *c, size_t n) {
  (void)c;
  for (size_t i = 0; i < n; i++)
    sink = b->mirror[address_in(b->order[i])];
}

static void run_load(struct bench *b, cachet *c, size_t n) {
  for (size_t i = 0; i < n; i++) {
    uint64_t addr = address_in(b->order[i]);
    struct cachet_slice s;
    rig_check(c, cachet_load(c, addr, 1, &s));
    sink = s.data[addr - s.offset];
    cachet_release(c, &s);
  }
}

static void run_get_u8(struct bench *b, cachet *c, size_t n) {
  for (size_t i = 0; i < n; i++) {
    uint8_t byte;
    rig_check(c, cachet_get_u8(c, address_in(b->order[i]), &byte));
    sink = byte;
  }
}

static void run_walk(struct bench *b, cachet *c, size_t n) {
  const uint8_t *page = b->map + (uint64_t)b->order[0] * RIG_PAGE;
  (void)c;
  for (size_t i = 0; i < n; i++)
    sink = page[i % RIG_PAGE];
}

static void run_get_u8_walk(struct bench *b, cachet *c, size_t n) {
  uint64_t page = (uint64_t)b->order[0] * RIG_PAGE;
  for (size_t i = 0; i < n; i++) {
    uint8_t byte;
    rig_check(c, cachet_get_u8(c, page + i % RIG_PAGE, &byte));
    sink = byte;
  }
}

/* Takes a byte of the buffer; the compiler must think that all are used. */
static inline void consume(struct bench *b, size_t i) {
  __asm__ volatile("" : : "r"(b->buf) : "memory");
  sink = b->buf[i % RIG_PAGE];
}

static void run_memcpy(struct bench *b, cachet *c, size_t n) {
  (void)c;
  for (size_t i = 0; i < n; i++) {
    memcpy(b->buf, b->map + (uint64_t)b->order[i] * RIG_PAGE, RIG_PAGE);
    consume(b, i);
  }
}

static void run_pread(struct bench *b, cachet *c, size_t n) {
  (void)c;
  for (size_t i = 0; i < n; i++) {
    off_t offset = (off_t)b->order[i] * RIG_PAGE;
    if (pread(b->rig->fd, b->buf, RIG_PAGE, offset) != RIG_PAGE)
      rig_fail("%s: read: %s", b->rig->file, strerror(errno));
    consume(b, i);
  }
}

static void run_read(struct bench *b, cachet *c, size_t n) {
  for (size_t i = 0; i < n; i++) {
    uint64_t addr = (uint64_t)b->order[i] * RIG_PAGE;
    rig_check(c, cachet_read(c, addr, b->buf, RIG_PAGE));
    consume(b, i);
  }
}

/* Where a chunk begins that is all within the file. */
static inline uint64_t chunk_address(const struct bench *b, size_t i) {
  uint64_t n_places = (b->rig->size - RIG_CHUNK) / RIG_PAGE + 1;
  return b->order[i] % n_places * RIG_PAGE;
}

/* All of a chunk; not inlined, so that both rows run the very same loop. */
static uint64_t __attribute__((noinline)) sum_chunk(const uint8_t *bytes) {
  uint64_t sum = 0;
  for (size_t i = 0; i < RIG_CHUNK; i += sizeof sum) {
    uint64_t word;
    memcpy(&word, bytes + i, sizeof word);
    sum += word;
  }
  return sum;
}

static void run_sum(struct bench *b, cachet *c, size_t n) {
  (void)c;
  for (size_t i = 0; i < n; i++)
    sink = sum_chunk(b->map + chunk_address(b, i));
}

static void run_map(struct bench *b, cachet *c, size_t n) {
  for (size_t i = 0; i < n; i++) {
    struct cachet_slice s;
    rig_check(c, cachet_map(c, chunk_address(b, i), RIG_CHUNK, &s));
    sink = sum_chunk(s.data);
    cachet_release(c, &s);
  }
}

enum row_id {
  TOUCH,
  TOUCH_MIRROR,
  LOAD,
  SHARED_LOAD,
  GET,
  SHARED_GET,
  WALK,
  GET_WALK,
  SHARED_GET_WALK,
  MEMCPY,
  READ,
  SHARED_READ,
  PREAD,
  SUM,
  SHARED_MAP,
  SOCKET_READ,
  GATED_READ,
  N_ROWS,
};

/* Where each group of rows begins that run interleaved. */
static const enum row_id groups[] = {TOUCH, MEMCPY, SUM, SOCKET_READ, N_ROWS};

enum { N_GROUPS = sizeof groups / sizeof *groups - 1 };

/* What a row is held against; itself: no more of those. */
struct yardstick {
  enum row_id row;
  double most; /* times that row; 0: as it comes */
};

static const struct row {
  const char *name;
  void (*run)(struct bench *b, cachet *c, size_t n);
  enum access access;
  unsigned divisor; /* of the number of operations: slow ones run fewer */
  double most_ns;   /* 0: no such target */
  struct yardstick yardsticks[2];
} rows[N_ROWS] = {
    [TOUCH] = {"mmap, touch a byte", run_touch, PLAIN, 1, 0, {{TOUCH}}},
    [TOUCH_MIRROR] = {"the daemon's memory, touch a byte",
                      run_touch_mirror,
                      PLAIN,
                      1,
                      0,
                      {{TOUCH}, {TOUCH_MIRROR}}},
    [LOAD] = {"cachet_load + release, in process",
              run_load,
              LOCAL,
              1,
              0,
              {{TOUCH, 3.0}, {LOAD}}},
    [SHARED_LOAD] = {"cachet_load + release, shared",
                     run_load,
                     SHARED,
                     1,
                     0,
                     {{TOUCH, 2.0}, {SHARED_LOAD}}},
    [GET] = {"cachet_get_u8, in process",
             run_get_u8,
             LOCAL,
             1,
             0,
             {{TOUCH}, {GET}}},
    [SHARED_GET] = {"cachet_get_u8, shared",
                    run_get_u8,
                    SHARED,
                    1,
                    0,
                    {{TOUCH}, {SHARED_GET}}},
    [WALK] = {"mmap, walk in one page", run_walk, PLAIN, 1, 0, {{WALK}}},
    [GET_WALK] = {"cachet_get_u8 walk, in process",
                  run_get_u8_walk,
                  LOCAL,
                  1,
                  0,
                  {{WALK}, {GET_WALK}}},
    [SHARED_GET_WALK] = {"cachet_get_u8 walk, shared",
                         run_get_u8_walk,
                         SHARED,
                         1,
                         3.0,
                         {{WALK}, {SHARED_GET_WALK}}},
    [MEMCPY] = {"mmap, memcpy 4 KiB", run_memcpy, PLAIN, 1, 0, {{MEMCPY}}},
    [READ] = {"cachet_read 4 KiB, in process",
              run_read,
              LOCAL,
              1,
              0,
              {{MEMCPY, 1.3}, {READ}}},
    [SHARED_READ] = {"cachet_read 4 KiB, shared",
                     run_read,
                     SHARED,
                     1,
                     0,
                     {{MEMCPY, 1.15}, {PREAD, 0.6}}},
    [PREAD] = {"pread 4 KiB", run_pread, PLAIN, 1, 0, {{MEMCPY}, {PREAD}}},
    [SUM] = {"mmap, read 1 MiB", run_sum, PLAIN, 200, 0, {{SUM}}},
    [SHARED_MAP] = {"cachet_map 1 MiB + read, shared",
                    run_map,
                    SHARED,
                    200,
                    0,
                    {{SUM, 1.1}, {SHARED_MAP}}},
    [SOCKET_READ] = {"cachet_read 4 KiB, socket",
                     run_read,
                     SOCKET,
                     50,
                     0,
                     {{PREAD}, {SOCKET_READ}}},
    [GATED_READ] = {"the same, 64 misses waiting",
                    run_read,
                    GATED,
                    50,
                    0,
                    {{SOCKET_READ}, {GATED_READ}}},
};

/* ---- Setting up ---------------------------------------------------------- */

static void make_order(struct bench *b) {
  uint64_t state = 2, n_pages = b->rig->size / RIG_PAGE;
  b->order = calloc(b->n_ops, sizeof *b->order);
  b->buf = aligned_alloc(RIG_PAGE, RIG_PAGE);
  if (!b->order || !b->buf)
    rig_fail("no memory");
  for (size_t i = 0; i < b->n_ops; i++)
    b->order[i] = (uint32_t)(rig_random(&state) % n_pages);
}

/* A cache with room for everything. */
static void open_local(struct bench *b) {
  struct cachet_options options = {.struct_size = sizeof options,
                                   .cache_size =
                                       b->rig->size + b->rig->size / 4};
  struct cachet_error err;
  if (cachet_open(b->rig->file, &options, &b->handles[LOCAL], &err) !=
      CACHET_OK)
    rig_fail("%s", err.message);
  rig_warm(b->rig, b->handles[LOCAL]);
  rig_expect_resident(b->rig, b->handles[LOCAL]);
}

static void open_daemon(struct bench *b) {
  b->daemon =
      rig_start_daemon(b->rig, "daemon", b->rig->size + RIG_SPARE_CACHE);
  cachet *shared = rig_open(b->daemon->socket, 0);
  if (!cachet_is_shared(shared))
    rig_fail("the daemon does not share its memory");
  rig_warm(b->rig, shared);
  rig_expect_resident(b->rig, shared);
  b->handles[SHARED] = shared;
  struct cachet_slice s;
  rig_check(shared, cachet_load(shared, 0, 1, &s));
  b->mirror = s.data; /* nothing is evicted here: no pin */
  cachet_release(shared, &s);
  b->handles[SOCKET] = rig_open(b->daemon->socket,
                                CACHET_NO_SHARED_MEMORY | CACHET_NO_READAHEAD);
  rig_warm(b->rig, b->handles[SOCKET]);
}

static void read_behind_gate_done(void *arg, enum cachet_status status) {
  struct bench *b = arg;
  rig_check(b->behind, status);
  b->n_behind--;
}

/* A daemon with 64 misses at its gate. */
static void open_gated(struct bench *b) {
  static uint8_t bytes[GATE_N_CELLS];
  uint32_t flags = CACHET_NO_SHARED_MEMORY | CACHET_NO_READAHEAD;
  b->gate = rig_server_new(b->rig, "gate");
  const char *args[] = {"gate", b->rig->file, b->gate->socket, NULL};
  rig_server_start(b->gate, "tests/bench/gate", args, true);
  b->behind = rig_open(b->gate->socket, flags);
  b->handles[GATED] = rig_open(b->gate->socket, flags);
  rig_warm(b->rig, b->handles[GATED]);
  for (int i = 0; i < GATE_N_CELLS; i++) {
    uint64_t addr = b->rig->size + (uint64_t)i * GATE_CELL_LEN;
    rig_check(b->behind, cachet_read_async(b->behind, addr, &bytes[i], 1,
                                           read_behind_gate_done, b, NULL));
    b->n_behind++;
  }
  /* A connection's requests are taken in order: when this one is answered,
   * the others wait. */
  rig_check(b->behind, cachet_read(b->behind, 0, b->buf, RIG_PAGE));
}

/* Waits for the reads at the gate: they must all be answered now. */
static void open_gate(struct bench *b) {
  if (b->n_behind != GATE_N_CELLS)
    rig_fail("a read passed the shut gate");
  if (write(b->gate->stdin_fd, "", 1) != 1)
    rig_fail("open the gate: %s", strerror(errno));
  while (b->n_behind > 0) {
    struct pollfd p = {.fd = cachet_fd(b->behind),
                       .events = cachet_events(b->behind)};
    poll(&p, 1, cachet_timeout_ms(b->behind));
    rig_check(b->behind, cachet_dispatch(b->behind));
  }
}

static void close_all(struct bench *b) {
  for (int i = 0; i < N_ACCESSES; i++)
    cachet_close(b->handles[i]);
  cachet_close(b->behind);
  rig_server_stop(b->daemon);
  rig_server_stop(b->gate);
}

/* ---- Measuring ----------------------------------------------------------- */

static double run_row(struct bench *b, const struct row *row) {
  size_t n = b->n_ops / row->divisor;
  cachet *c = b->handles[row->access];
  bool waits = row->access == SOCKET || row->access == GATED;
  clockid_t clock = waits ? CLOCK_MONOTONIC : CLOCK_THREAD_CPUTIME_ID;
  row->run(b, c, n);
  double start = rig_now_ns(clock);
  row->run(b, c, n);
  return (rig_now_ns(clock) - start) / (double)n;
}

static const char *judge(double value, double most) {
  return value <= most ? "reached" : "MISSED";
}

/* The times of all rows: of row r in round i, at [r * n_rounds + i]. */
static void print_row(const double *ns, enum row_id id, size_t n_rounds,
                      double *scratch) {
  const struct row *row = &rows[id];
  const double *mine = ns + id * n_rounds;
  memcpy(scratch, mine, n_rounds * sizeof *mine);
  double middle = rig_median(scratch, n_rounds);
  printf("%-34s %9.1f %9.1f %9.1f", row->name, middle, scratch[0],
         scratch[n_rounds - 1]);
  if (row->most_ns > 0)
    printf("  at most %.1f ns: %s", row->most_ns, judge(middle, row->most_ns));
  for (int i = 0; i < 2 && row->yardsticks[i].row != id; i++) {
    const struct yardstick *y = &row->yardsticks[i];
    const double *theirs = ns + y->row * n_rounds;
    for (size_t round = 0; round < n_rounds; round++)
      scratch[round] = mine[round] / theirs[round];
    double ratio = rig_median(scratch, n_rounds);
    printf("%s  %.2f x %s", i ? ";" : "", ratio, rows[y->row].name);
    if (y->most > 0)
      printf(", at most %.2f: %s", y->most, judge(ratio, y->most));
  }
  printf("\n");
}

static void measure(struct bench *b, size_t n_rounds, size_t n_groups) {
  double *ns = calloc(N_ROWS * n_rounds, sizeof *ns);
  double *scratch = calloc(n_rounds, sizeof *scratch);
  const cachet *shared = b->handles[SHARED], *socket = b->handles[SOCKET];
  if (!ns || !scratch)
    rig_fail("no memory");
  uint64_t misses = cachet_misses(shared), kept = cachet_hits(socket);
  for (size_t group = 0; group < n_groups; group++)
    for (size_t round = 0; round < n_rounds; round++)
      for (size_t row = groups[group]; row < groups[group + 1]; row++)
        ns[row * n_rounds + round] = run_row(b, &rows[row]);
  if (cachet_misses(shared) != misses)
    rig_fail("pages left the daemon's cache meanwhile");
  printf("%-34s %9s %9s %9s\n", "ns for each operation", "median", "min",
         "max");
  for (size_t row = 0; row < groups[n_groups]; row++)
    print_row(ns, row, n_rounds, scratch);
  if (n_groups == N_GROUPS)
    printf("Of %zu reads over the socket the client's own cache had %" PRIu64
           ".\n\n",
           2 * n_rounds * (b->n_ops / rows[SOCKET_READ].divisor),
           cachet_hits(socket) - kept);
  free(ns);
  free(scratch);
}

/* ---- The command line ---------------------------------------------------- */

static int usage(void) {
  fputs("usage: hot [--rounds N] [--ops N] [--size SIZE] [--piece SIZE]"
        " [--groups N]\n",
        stderr);
  return 2;
}

static bool parse(int argc, char **argv, struct options *out) {
  uint64_t size = 256 << 20, n_ops = 100000, n_rounds = 21, piece = RIG_CHUNK;
  uint64_t n_groups = N_GROUPS;
  for (int i = 1; i < argc; i += 2) {
    const char *value = i + 1 < argc ? argv[i + 1] : "";
    bool ok = false;
    if (strcmp(argv[i], "--rounds") == 0)
      ok = rig_parse_number(value, 1, 1000, &n_rounds);
    else if (strcmp(argv[i], "--ops") == 0)
      ok = rig_parse_number(value, 1000, 100000000, &n_ops);
    else if (strcmp(argv[i], "--size") == 0)
      ok = rig_parse_number(value, 128 << 20, 1ull << 40, &size);
    else if (strcmp(argv[i], "--groups") == 0)
      ok = rig_parse_number(value, 1, N_GROUPS, &n_groups);
    else if (strcmp(argv[i], "--piece") == 0)
      ok = rig_parse_piece(value, &piece);
    if (!ok)
      return false;
  }
  *out = (struct options){size, piece, n_ops, n_rounds, n_groups};
  return true;
}

int main(int argc, char **argv) {
  struct options options;
  static struct bench b;
  if (!parse(argc, argv, &options))
    return usage();
  b.rig = rig_make(options.size, options.piece);
  card_print(b.rig);
  b.n_ops = options.n_ops;
  b.map = rig_map(b.rig);
  make_order(&b);
  open_local(&b);
  open_daemon(&b);
  open_gated(&b);
  printf("%zu rounds of %zu operations, a file of %" PRIu64
         " MiB, written %" PRIu64 " KiB at a time\n\n",
         options.n_rounds, options.n_ops, b.rig->size >> 20,
         options.piece >> 10);
  measure(&b, options.n_rounds, options.n_groups);
  open_gate(&b);
  close_all(&b);
  if (options.n_groups == N_GROUPS)
    miss_measure(b.rig);
  return 0;
}

/* hot: what a warm read costs, beside what it is measured against.
 *
 *   hot [--rounds N] [--ops N] [--size SIZE]
 *
 * Makes a file of SIZE bytes (256M) and reads it at random: from a plain
 * mapping, with memcpy and pread, through a handle in this process, and from a
 * daemon over a Unix socket.  Everything is resident before the first round:
 * the subject is the hit.  All rows read the same pages in the same order and
 * consume a byte of each.
 *
 * The last row has a daemon of its own (gate.c) that holds 64 misses of another
 * connection at a shut gate for as long as the rows run: hits must not wait for
 * them.
 *
 * Rows run interleaved, round by round, since a machine's speed drifts, and in
 * each round twice, timed the second time: what the row before left in the
 * processor's caches is no row's gain or loss.  A row shows the median of its
 * rounds, and the median of its ratios to its yardstick in the same round.
 *
 * Targets are reported and judge nothing: exit status 0 unless something
 * failed, then 1; 2 for a bad command line. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cachet/cachet.h>

#include "tests/bench/gate.h"

enum { PAGE = 4096, CHUNK = 1 << 20 };

struct options {
  uint64_t size; /* of the file */
  size_t n_ops;  /* in a row and round */
  size_t n_rounds;
};

/* What the rows work on. */
struct bench {
  char dir[64], file[80], socket[80], gate_socket[80];
  uint64_t size;
  size_t n_ops;
  uint32_t *order; /* n_ops random page numbers */
  int fd;
  const uint8_t *map;
  cachet *local;  /* the file, in this process */
  cachet *remote; /* the same, from a daemon */
  pid_t daemon;

  pid_t gate;  /* another daemon, over the same file */
  int gate_fd; /* its standard input: a byte opens the gate, the end ends it */
  cachet *behind; /* has GATE_N_CELLS reads at the gate */
  int n_behind;   /* of them not answered */
  cachet *gated;  /* reads what is resident from the same daemon */

  uint8_t *buf; /* PAGE bytes */
};

/* Where the bytes go that rows read, so that they have to. */
static volatile uint8_t sink;

/* ---- Failure and cleaning up --------------------------------------------- */

static struct bench bench = {.fd = -1, .gate_fd = -1};

static void clean_up(void) {
  if (bench.daemon > 0) {
    kill(bench.daemon, SIGTERM);
    waitpid(bench.daemon, NULL, 0);
  }
  if (bench.gate > 0) {
    close(bench.gate_fd);
    waitpid(bench.gate, NULL, 0);
  }
  if (*bench.file)
    unlink(bench.file);
  if (*bench.socket)
    unlink(bench.socket);
  if (*bench.gate_socket)
    unlink(bench.gate_socket);
  if (*bench.dir)
    rmdir(bench.dir);
}

__attribute__((format(printf, 1, 2), noreturn)) static void
fail(const char *format, ...) {
  va_list args;
  va_start(args, format);
  fputs("hot: ", stderr);
  vfprintf(stderr, format, args);
  fputs("\n", stderr);
  va_end(args);
  exit(1);
}

static void check(cachet *c, enum cachet_status status) {
  if (status != CACHET_OK)
    fail("%s: %s", cachet_strerror(status), cachet_errmsg(c));
}

/* ---- The rows ------------------------------------------------------------ */

/* A byte of each page, not the same in all. */
static inline uint64_t address_in(uint32_t page) {
  return (uint64_t)page * PAGE + (page * 0x9e3779b1u >> 20);
}

static void run_touch(struct bench *b, size_t n) {
  for (size_t i = 0; i < n; i++)
    sink = b->map[address_in(b->order[i])];
}

static void run_load(struct bench *b, size_t n) {
  for (size_t i = 0; i < n; i++) {
    uint64_t addr = address_in(b->order[i]);
    struct cachet_slice s;
    check(b->local, cachet_load(b->local, addr, 1, &s));
    sink = s.data[addr - s.offset];
    cachet_release(b->local, &s);
  }
}

static void run_get_u8(struct bench *b, size_t n) {
  for (size_t i = 0; i < n; i++) {
    uint8_t byte;
    check(b->local, cachet_get_u8(b->local, address_in(b->order[i]), &byte));
    sink = byte;
  }
}

static void run_touch_walk(struct bench *b, size_t n) {
  const uint8_t *page = b->map + (uint64_t)b->order[0] * PAGE;
  for (size_t i = 0; i < n; i++)
    sink = page[i % PAGE];
}

static void run_get_u8_walk(struct bench *b, size_t n) {
  uint64_t page = (uint64_t)b->order[0] * PAGE;
  for (size_t i = 0; i < n; i++) {
    uint8_t byte;
    check(b->local, cachet_get_u8(b->local, page + i % PAGE, &byte));
    sink = byte;
  }
}

/* Takes a byte of the buffer; the compiler must think that all are used. */
static inline void consume(struct bench *b, size_t i) {
  __asm__ volatile("" : : "r"(b->buf) : "memory");
  sink = b->buf[i % PAGE];
}

static void run_memcpy(struct bench *b, size_t n) {
  for (size_t i = 0; i < n; i++) {
    memcpy(b->buf, b->map + (uint64_t)b->order[i] * PAGE, PAGE);
    consume(b, i);
  }
}

static void run_pread(struct bench *b, size_t n) {
  for (size_t i = 0; i < n; i++) {
    off_t offset = (off_t)b->order[i] * PAGE;
    if (pread(b->fd, b->buf, PAGE, offset) != PAGE)
      fail("%s: read: %s", b->file, strerror(errno));
    consume(b, i);
  }
}

static void read_pages(struct bench *b, cachet *c, size_t n) {
  for (size_t i = 0; i < n; i++) {
    check(c, cachet_read(c, (uint64_t)b->order[i] * PAGE, b->buf, PAGE));
    consume(b, i);
  }
}

static void run_read(struct bench *b, size_t n) { read_pages(b, b->local, n); }

static void run_socket(struct bench *b, size_t n) {
  read_pages(b, b->remote, n);
}

static void run_gated(struct bench *b, size_t n) { read_pages(b, b->gated, n); }

enum row_id {
  TOUCH,
  LOAD,
  GET_U8,
  TOUCH_WALK,
  GET_U8_WALK,
  MEMCPY,
  READ,
  PREAD,
  SOCKET,
  GATED,
  N_ROWS,
};

/* Rows of a microsecond and more run fewer operations a round. */
static const struct row {
  const char *name;
  void (*run)(struct bench *b, size_t n);
  enum row_id yardstick; /* itself: none */
  double target;         /* most times the yardstick; 0: none */
  unsigned divisor;      /* of the number of operations */
} rows[N_ROWS] = {
    [TOUCH] = {"mmap, touch a byte", run_touch, TOUCH, 0, 1},
    [LOAD] = {"cachet_load + release", run_load, TOUCH, 3.0, 1},
    [GET_U8] = {"cachet_get_u8", run_get_u8, TOUCH, 0, 1},
    [TOUCH_WALK] = {"mmap, walk in one page", run_touch_walk, TOUCH_WALK, 0, 1},
    [GET_U8_WALK] = {"cachet_get_u8, the same", run_get_u8_walk, TOUCH_WALK, 0,
                     1},
    [MEMCPY] = {"mmap, memcpy 4 KiB", run_memcpy, MEMCPY, 0, 1},
    [READ] = {"cachet_read 4 KiB", run_read, MEMCPY, 1.3, 1},
    [PREAD] = {"pread 4 KiB", run_pread, MEMCPY, 0, 1},
    [SOCKET] = {"cachet_read 4 KiB, socket", run_socket, PREAD, 0, 20},
    [GATED] = {"the same, 64 misses waiting", run_gated, SOCKET, 0, 20},
};

/* ---- Setting up ---------------------------------------------------------- */

/* xorshift64*: the same pages and bytes in every run. */
static uint64_t next_random(uint64_t *state) {
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return *state * 0x2545f4914f6cdd1d;
}

static void make_file(struct bench *b) {
  uint64_t state = 1;
  static uint64_t chunk[CHUNK / sizeof(uint64_t)];
  const char *tmp = getenv("TMPDIR");
  /* Short enough for the address of a socket. */
  if (!tmp || strlen(tmp) > 32)
    tmp = "/tmp";
  char dir[sizeof b->dir];
  snprintf(dir, sizeof dir, "%s/cachetd-hot.XXXXXX", tmp);
  if (!mkdtemp(dir))
    fail("%s: make a directory: %s", dir, strerror(errno));
  memcpy(b->dir, dir, sizeof dir);
  snprintf(b->file, sizeof b->file, "%s/image", b->dir);
  snprintf(b->socket, sizeof b->socket, "%s/socket", b->dir);
  snprintf(b->gate_socket, sizeof b->gate_socket, "%s/gate", b->dir);
  b->fd = open(b->file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (b->fd < 0)
    fail("%s: create: %s", b->file, strerror(errno));
  for (uint64_t done = 0; done < b->size; done += CHUNK) {
    for (size_t i = 0; i < CHUNK / sizeof *chunk; i++)
      chunk[i] = next_random(&state);
    if (write(b->fd, chunk, CHUNK) != CHUNK)
      fail("%s: write: %s", b->file, strerror(errno));
  }
}

static void map_file(struct bench *b) {
  void *map =
      mmap(NULL, b->size, PROT_READ, MAP_SHARED | MAP_POPULATE, b->fd, 0);
  if (map == MAP_FAILED)
    fail("%s: map: %s", b->file, strerror(errno));
  b->map = map;
}

static void make_order(struct bench *b) {
  uint64_t state = 2, n_pages = b->size / PAGE;
  b->order = calloc(b->n_ops, sizeof *b->order);
  b->buf = aligned_alloc(PAGE, PAGE);
  if (!b->order || !b->buf)
    fail("no memory");
  for (size_t i = 0; i < b->n_ops; i++)
    b->order[i] = (uint32_t)(next_random(&state) % n_pages);
}

/* Reads all of it, and holds it against the mapping. */
static void warm(struct bench *b, cachet *c) {
  uint8_t *chunk = malloc(CHUNK);
  if (!chunk)
    fail("no memory");
  for (uint64_t done = 0; done < b->size; done += CHUNK) {
    check(c, cachet_read(c, done, chunk, CHUNK));
    if (memcmp(chunk, b->map + done, CHUNK) != 0)
      fail("%s: other bytes were read than are there", b->file);
  }
  free(chunk);
}

/* A cache with room for everything. */
static void open_local(struct bench *b) {
  struct cachet_options options = {.struct_size = sizeof options,
                                   .cache_size = b->size + b->size / 4};
  struct cachet_error err;
  if (cachet_open(b->file, &options, &b->local, &err) != CACHET_OK)
    fail("%s", err.message);
  warm(b, b->local);
  for (uint64_t addr = 0; addr < b->size; addr += PAGE) {
    if (!cachet_is_cached(b->local, addr))
      fail("%s: page %" PRIu64 " is not resident", b->file, addr / PAGE);
  }
}

/* Where a program is that was built beside this one.  Bazel puts what a
 * program needs at run time into PROGRAM.runfiles. */
static void find_program(const char *name, char path[PATH_MAX]) {
  char self[PATH_MAX - 64];
  ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  self[n > 0 ? n : 0] = '\0';
  snprintf(path, PATH_MAX, "%s.runfiles/cachetd/%s", self, name);
}

/* Runs a program, with its standard input from `stdin_fd` if that is not -1;
 * it ends with this one. */
static pid_t spawn(const char *const argv[], int stdin_fd) {
  pid_t pid = fork();
  if (pid < 0)
    fail("fork: %s", strerror(errno));
  if (pid > 0)
    return pid;
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (stdin_fd < 0 || dup2(stdin_fd, STDIN_FILENO) == STDIN_FILENO)
    execv(argv[0], (char *const *)argv);
  fprintf(stderr, "hot: %s: %s\n", argv[0], strerror(errno));
  _exit(127);
}

/* A client that keeps next to nothing, so that each read goes to the daemon,
 * `*pid`, which may still have to come up.  It has no time-out: reads at the
 * gate take as long as the rows do. */
static cachet *open_client(const char *socket, const char *image, pid_t *pid) {
  char uri[160];
  snprintf(uri, sizeof uri, "cachet+unix:///%s?socket=%s", image, socket);
  struct cachet_options options = {.struct_size = sizeof options,
                                   .flags = CACHET_NO_SHARED_MEMORY |
                                            CACHET_NO_READAHEAD,
                                   .cache_size = 64 << 10,
                                   .request_timeout_ms = -1};
  struct cachet_error err;
  for (int tries = 0;; tries++) {
    cachet *c;
    enum cachet_status status = cachet_open(uri, &options, &c, &err);
    if (status == CACHET_OK)
      return c;
    if (waitpid(*pid, NULL, WNOHANG) != 0) {
      *pid = 0;
      fail("the daemon that serves %s ended", image);
    }
    if (status != CACHET_E_CONN || tries == 1000)
      fail("%s", err.message);
    nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
  }
}

static void open_remote(struct bench *b) {
  char path[PATH_MAX], image[128], listen[128], cache[32];
  find_program("daemon/cachetd", path);
  snprintf(image, sizeof image, "hot=%s", b->file);
  snprintf(listen, sizeof listen, "unix:%s", b->socket);
  snprintf(cache, sizeof cache, "%" PRIu64, b->size + b->size / 4);
  const char *argv[] = {
      path,           "--image", image,         "--listen", listen,
      "--cache-size", cache,     "--log-level", "error",    NULL};
  b->daemon = spawn(argv, -1);
  b->remote = open_client(b->socket, "hot", &b->daemon);
  warm(b, b->remote);
}

static void read_behind_gate_done(void *arg, enum cachet_status status) {
  struct bench *b = arg;
  check(b->behind, status);
  b->n_behind--;
}

/* A daemon with 64 misses at its gate. */
static void open_gated(struct bench *b) {
  static uint8_t bytes[GATE_N_CELLS];
  char path[PATH_MAX];
  int fds[2];
  find_program("tests/bench/gate", path);
  const char *argv[] = {path, b->file, b->gate_socket, NULL};
  if (pipe2(fds, O_CLOEXEC) < 0)
    fail("pipe: %s", strerror(errno));
  b->gate_fd = fds[1];
  b->gate = spawn(argv, fds[0]);
  close(fds[0]);
  b->behind = open_client(b->gate_socket, "gate", &b->gate);
  b->gated = open_client(b->gate_socket, "gate", &b->gate);
  warm(b, b->gated);
  for (int i = 0; i < GATE_N_CELLS; i++) {
    uint64_t addr = b->size + (uint64_t)i * GATE_CELL_LEN;
    check(b->behind, cachet_read_async(b->behind, addr, &bytes[i], 1,
                                       read_behind_gate_done, b, NULL));
    b->n_behind++;
  }
  /* A connection's requests are taken in order: when this one is answered,
   * the others wait. */
  check(b->behind, cachet_read(b->behind, 0, b->buf, PAGE));
}

/* Waits for the reads at the gate: they must all be answered now. */
static void close_gated(struct bench *b) {
  if (b->n_behind != GATE_N_CELLS)
    fail("a read passed the shut gate");
  if (write(b->gate_fd, "", 1) != 1)
    fail("open the gate: %s", strerror(errno));
  while (b->n_behind > 0) {
    struct pollfd p = {.fd = cachet_fd(b->behind),
                       .events = cachet_events(b->behind)};
    poll(&p, 1, cachet_timeout_ms(b->behind));
    check(b->behind, cachet_dispatch(b->behind));
  }
  cachet_close(b->gated);
  cachet_close(b->behind);
}

/* ---- Measuring ----------------------------------------------------------- */

static double now_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static int compare_doubles(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Sorts, and returns the middle. */
static double median(double *values, size_t n) {
  qsort(values, n, sizeof *values, compare_doubles);
  return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static double run_row(struct bench *b, const struct row *row) {
  size_t n = b->n_ops / row->divisor;
  row->run(b, n);
  double start = now_ns();
  row->run(b, n);
  return (now_ns() - start) / (double)n;
}

static void print_row(const struct row *row, double *ns, double *ratios,
                      size_t n_rounds) {
  double middle = median(ns, n_rounds), ratio = median(ratios, n_rounds);
  printf("%-28s %10.1f %10.1f %10.1f", row->name, middle, ns[0],
         ns[n_rounds - 1]);
  if (row != &rows[row->yardstick])
    printf("  %6.2f x %s", ratio, rows[row->yardstick].name);
  if (row->target > 0)
    printf(", at most %.1f: %s", row->target,
           ratio <= row->target ? "reached" : "MISSED");
  printf("\n");
}

static void measure(struct bench *b, size_t n_rounds) {
  double *ns = calloc(N_ROWS * n_rounds, sizeof *ns);
  double *ratios = calloc(N_ROWS * n_rounds, sizeof *ratios);
  if (!ns || !ratios)
    fail("no memory");
  uint64_t hits = cachet_hits(b->remote), misses = cachet_misses(b->remote);
  for (size_t round = 0; round < n_rounds; round++) {
    for (size_t row = 0; row < N_ROWS; row++)
      ns[row * n_rounds + round] = run_row(b, &rows[row]);
  }
  hits = cachet_hits(b->remote) - hits;
  misses = cachet_misses(b->remote) - misses;

  for (size_t row = 0; row < N_ROWS; row++) {
    for (size_t round = 0; round < n_rounds; round++)
      ratios[row * n_rounds + round] =
          ns[row * n_rounds + round] /
          ns[rows[row].yardstick * n_rounds + round];
  }
  printf("%-28s %10s %10s %10s\n", "ns for each operation", "median", "min",
         "max");
  for (size_t row = 0; row < N_ROWS; row++)
    print_row(&rows[row], ns + row * n_rounds, ratios + row * n_rounds,
              n_rounds);
  printf("\nOf %" PRIu64 " reads over the socket the client's own cache had "
         "%" PRIu64 ".\n",
         hits + misses, hits);
  free(ns);
  free(ratios);
}

/* ---- The command line ---------------------------------------------------- */

static int usage(void) {
  fputs("usage: hot [--rounds N] [--ops N] [--size SIZE]\n", stderr);
  return 2;
}

/* A number from `min` to `max`, with K, M or G behind it. */
static bool parse_number(const char *arg, uint64_t min, uint64_t max,
                         uint64_t *out) {
  char *end;
  errno = 0;
  uint64_t value = strtoull(arg, &end, 10), unit = 1;
  if (arg[0] < '0' || arg[0] > '9' || errno)
    return false;
  const char *units = "KMG", *found = *end ? strchr(units, *end) : NULL;
  if (found) {
    unit <<= 10 * (found - units + 1);
    end++;
  }
  if (*end || __builtin_mul_overflow(value, unit, &value))
    return false;
  *out = value;
  return value >= min && value <= max;
}

static bool parse(int argc, char **argv, struct options *out) {
  uint64_t size = 256 << 20, n_ops = 200000, n_rounds = 9;
  for (int i = 1; i < argc; i += 2) {
    const char *value = i + 1 < argc ? argv[i + 1] : "";
    bool ok = false;
    if (strcmp(argv[i], "--rounds") == 0)
      ok = parse_number(value, 1, 1000, &n_rounds);
    else if (strcmp(argv[i], "--ops") == 0)
      ok = parse_number(value, 1000, 100000000, &n_ops);
    else if (strcmp(argv[i], "--size") == 0)
      ok = parse_number(value, CHUNK, 1ull << 40, &size);
    if (!ok)
      return false;
  }
  *out = (struct options){size / CHUNK * CHUNK, n_ops, n_rounds};
  return true;
}

int main(int argc, char **argv) {
  struct options options;
  if (!parse(argc, argv, &options))
    return usage();
  struct bench *b = &bench;
  b->size = options.size;
  b->n_ops = options.n_ops;
  atexit(clean_up);
  make_file(b);
  map_file(b);
  make_order(b);
  open_local(b);
  open_remote(b);
  open_gated(b);
  printf("%zu rounds of %zu operations, a file of %" PRIu64 " MiB\n\n",
         options.n_rounds, options.n_ops, options.size >> 20);
  measure(b, options.n_rounds);
  close_gated(b);
  cachet_close(b->remote);
  cachet_close(b->local);
  return 0;
}

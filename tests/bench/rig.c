#include "tests/bench/rig.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static struct rig the_rig = {.fd = -1};
static pid_t owner; /* whose rig it is: not a forked child's */

/* ---- Failure and cleaning up --------------------------------------------- */

static int remove_entry(const char *path, const struct stat *st, int type,
                        struct FTW *where) {
  (void)st;
  (void)type;
  (void)where;
  remove(path);
  return 0;
}

static void clean_up(void) {
  struct rig *rig = &the_rig;
  if (getpid() != owner)
    return;
  for (unsigned i = 0; i < RIG_MAX_SERVERS; i++)
    rig_server_stop(&rig->servers[i]);
  nftw(rig->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

void rig_fail(const char *format, ...) {
  va_list args;
  va_start(args, format);
  fprintf(stderr, "%s: ", program_invocation_short_name);
  vfprintf(stderr, format, args);
  fputs("\n", stderr);
  va_end(args);
  exit(1);
}

void rig_fail_call(const cachet *c, enum cachet_status status) {
  rig_fail("%s: %s", cachet_strerror(status), cachet_errmsg(c));
}

/* ---- The file ------------------------------------------------------------ */

/* xorshift64*. */
uint64_t rig_random(uint64_t *state) {
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return *state * 0x2545f4914f6cdd1d;
}

/* By way of a copy: `out` may be the rig's. */
void rig_path(const struct rig *rig, const char *name, char out[RIG_PATH_LEN]) {
  char path[RIG_PATH_LEN];
  snprintf(path, sizeof path, "%s/%s", rig->dir, name);
  memcpy(out, path, sizeof path);
}

static void make_dir(struct rig *rig) {
  const char *tmp = getenv("TMPDIR");
  /* Short enough for the address of a socket. */
  if (!tmp || strlen(tmp) > 32)
    tmp = "/tmp";
  snprintf(rig->dir, sizeof rig->dir, "%s/cachetd-bench.XXXXXX", tmp);
  if (!mkdtemp(rig->dir))
    rig_fail("%s: make a directory: %s", rig->dir, strerror(errno));
  owner = getpid();
  atexit(clean_up);
}

static void write_chunk(int fd, const char *path, const uint64_t *chunk,
                        size_t piece) {
  for (size_t i = 0; i < RIG_CHUNK; i += piece)
    if (write(fd, (const char *)chunk + i, piece) != (ssize_t)piece)
      rig_fail("%s: write: %s", path, strerror(errno));
}

/* A file that somebody has open for writing is read again every two seconds:
 * so the benchmark, which only reads from here on, must not. */
static int open_to_read(const char *path, int fd) {
  close(fd);
  fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    rig_fail("%s: open: %s", path, strerror(errno));
  return fd;
}

int rig_make_file(const char *path, uint64_t size, size_t piece) {
  uint64_t state = 1, *chunk = malloc(RIG_CHUNK);
  int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0)
    rig_fail("%s: create: %s", path, strerror(errno));
  if (!chunk)
    rig_fail("no memory");
  for (uint64_t done = 0; done < size; done += RIG_CHUNK) {
    for (size_t i = 0; i < RIG_CHUNK / sizeof *chunk; i++)
      chunk[i] = rig_random(&state);
    write_chunk(fd, path, chunk, piece);
  }
  free(chunk);
  return open_to_read(path, fd);
}

int rig_make_sparse(const char *path, uint64_t size) {
  int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
    rig_fail("%s: create: %s", path, strerror(errno));
  return open_to_read(path, fd);
}

int rig_make_unwritten(const char *path, uint64_t size) {
  int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0 || fallocate(fd, 0, 0, (off_t)size) < 0)
    rig_fail("%s: allocate: %s", path, strerror(errno));
  return open_to_read(path, fd);
}

struct rig *rig_make(uint64_t size, size_t piece) {
  struct rig *rig = &the_rig;
  make_dir(rig);
  rig->size = size / RIG_CHUNK * RIG_CHUNK;
  rig_path(rig, "image", rig->file);
  rig->fd = rig_make_file(rig->file, rig->size, piece);
  return rig;
}

const uint8_t *rig_map(const struct rig *rig) {
  void *map =
      mmap(NULL, rig->size, PROT_READ, MAP_SHARED | MAP_POPULATE, rig->fd, 0);
  if (map == MAP_FAILED)
    rig_fail("%s: map: %s", rig->file, strerror(errno));
  return map;
}

/* ---- Programs ------------------------------------------------------------ */

pid_t rig_fork(int death) {
  pid_t pid = fork();
  if (pid < 0)
    rig_fail("fork: %s", strerror(errno));
  if (pid == 0)
    prctl(PR_SET_PDEATHSIG, death);
  return pid;
}

/* Goes on as that program, or says why not. */
__attribute__((noreturn)) static void become(const char *path,
                                             const char *const args[]) {
  execv(path, (char *const *)args);
  fprintf(stderr, "%s: %s\n", path, strerror(errno));
  _exit(127);
}

/* What a system's program says there is not this program's report. */
static void hide_stdout(void) {
  int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (fd >= 0)
    dup2(fd, STDOUT_FILENO);
}

/* Everything up to the end; what there is no room for is dropped. */
static void read_all(int fd, char *out, size_t out_len) {
  char dropped[4096];
  size_t len = 0;
  ssize_t n;
  do {
    bool full = len + 1 >= out_len;
    n = read(fd, full ? dropped : out + len,
             full ? sizeof dropped : out_len - 1 - len);
    len += n > 0 && !full ? (size_t)n : 0;
  } while (n > 0);
  out[len] = '\0';
}

bool rig_run(const char *const args[], char *out, size_t out_len) {
  int fds[2] = {-1, -1}, status;
  if (out && pipe2(fds, O_CLOEXEC) < 0)
    rig_fail("pipe: %s", strerror(errno));
  pid_t pid = rig_fork(SIGTERM);
  if (pid == 0) {
    if (out)
      dup2(fds[1], STDOUT_FILENO);
    else
      hide_stdout();
    become(args[0], args);
  }
  if (out) {
    close(fds[1]);
    read_all(fds[0], out, out_len);
    close(fds[0]);
  }
  waitpid(pid, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* ---- Servers ------------------------------------------------------------- */

/* Where a program is that was built beside this one.  Bazel puts what a
 * program needs at run time into PROGRAM.runfiles. */
void rig_find_program(const char *name, char path[PATH_MAX]) {
  char self[PATH_MAX - 64];
  if (name[0] == '/') {
    snprintf(path, PATH_MAX, "%s", name);
    return;
  }
  ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
  self[n > 0 ? n : 0] = '\0';
  snprintf(path, PATH_MAX, "%s.runfiles/cachetd/%s", self, name);
}

struct rig_server *rig_server_new(struct rig *rig, const char *name) {
  static unsigned n_servers;
  char path[16];
  struct rig_server *s = rig->servers;
  while (s < rig->servers + RIG_MAX_SERVERS && s->taken)
    s++;
  if (s == rig->servers + RIG_MAX_SERVERS)
    rig_fail("%s: too many servers", name);
  *s = (struct rig_server){.taken = true, .stdin_fd = -1};
  /* A path that none before had: some leave their sockets behind. */
  snprintf(path, sizeof path, "s%u", n_servers++);
  rig_path(rig, path, s->socket);
  return s;
}

void rig_server_start(struct rig_server *s, const char *program,
                      const char *const args[], bool has_stdin) {
  char path[PATH_MAX];
  int fds[2] = {-1, -1};
  rig_find_program(program, path);
  if (has_stdin && pipe2(fds, O_CLOEXEC) < 0)
    rig_fail("pipe: %s", strerror(errno));
  s->pid = rig_fork(SIGTERM);
  if (s->pid == 0) {
    if (program[0] == '/')
      hide_stdout();
    if (has_stdin && dup2(fds[0], STDIN_FILENO) < 0) {
      perror("dup2");
      _exit(127);
    }
    become(path, args);
  }
  if (has_stdin)
    close(fds[0]);
  s->stdin_fd = fds[1];
}

struct rig_server *rig_start_daemon(struct rig *rig, const char *name,
                                    uint64_t cache_size) {
  char image[128], listen[128], cache[32];
  struct rig_server *s = rig_server_new(rig, name);
  snprintf(image, sizeof image, "image=%s", rig->file);
  snprintf(listen, sizeof listen, "unix:%s", s->socket);
  snprintf(cache, sizeof cache, "%" PRIu64, cache_size);
  const char *args[] = {"cachetd", "--config",    "/dev/null", "--image",
                        image,     "--listen",    listen,      "--cache-size",
                        cache,     "--log-level", "error",     NULL};
  rig_server_start(s, "daemon/cachetd", args, false);
  return s;
}

void rig_server_stop(struct rig_server *s) {
  if (s->pid > 0) {
    if (s->stdin_fd >= 0)
      close(s->stdin_fd);
    else
      kill(s->pid, SIGTERM);
    waitpid(s->pid, NULL, 0);
  }
  s->pid = 0;
  s->taken = false;
}

/* ---- Clients ------------------------------------------------------------- */

cachet *rig_open(const char *socket, uint32_t flags) {
  char uri[160];
  snprintf(uri, sizeof uri, "cachet+unix:///image?socket=%s", socket);
  struct cachet_options options = {.struct_size = sizeof options,
                                   .flags = flags,
                                   .cache_size = 64 << 10,
                                   .request_timeout_ms = -1};
  struct cachet_error err;
  for (int tries = 0;; tries++) {
    cachet *c;
    enum cachet_status status = cachet_open(uri, &options, &c, &err);
    if (status == CACHET_OK)
      return c;
    if (status != CACHET_E_CONN || tries == 1000)
      rig_fail("%s", err.message);
    nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
  }
}

void rig_warm(const struct rig *rig, cachet *c) {
  /* Not from malloc(3), which may keep it: memory is a subject here. */
  uint8_t *read = mmap(NULL, 2 * RIG_CHUNK, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (read == MAP_FAILED)
    rig_fail("no memory");
  uint8_t *want = read + RIG_CHUNK;
  for (uint64_t done = 0; done < rig->size; done += RIG_CHUNK) {
    rig_check(c, cachet_read(c, done, read, RIG_CHUNK));
    if (pread(rig->fd, want, RIG_CHUNK, (off_t)done) != RIG_CHUNK)
      rig_fail("%s: read: %s", rig->file, strerror(errno));
    if (memcmp(read, want, RIG_CHUNK) != 0)
      rig_fail("%s: other bytes were read than are there", rig->file);
  }
  munmap(read, 2 * RIG_CHUNK);
}

void rig_expect_resident(const struct rig *rig, const cachet *c) {
  for (uint64_t addr = 0; addr < rig->size; addr += RIG_PAGE)
    if (!cachet_is_cached(c, addr))
      rig_fail("%s: page %" PRIu64 " is not resident", rig->file,
               addr / RIG_PAGE);
}

static void choose_cpus(const cpu_set_t *all, enum rig_cpus which,
                        cpu_set_t *out) {
  *out = *all;
  int first = 0, last = CPU_SETSIZE - 1;
  while (!CPU_ISSET(first, all))
    first++;
  while (!CPU_ISSET(last, all))
    last--;
  if (which == RIG_ALL_CPUS)
    return;
  CPU_ZERO(out);
  CPU_SET(which == RIG_FIRST_CPU ? first : last, out);
}

static void place_threads(pid_t pid, const cpu_set_t *set) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
  DIR *dir = opendir(path);
  if (!dir)
    rig_fail("%s: %s", path, strerror(errno));
  for (struct dirent *entry; (entry = readdir(dir));)
    if (entry->d_name[0] != '.')
      sched_setaffinity(atoi(entry->d_name), sizeof *set, set);
  closedir(dir);
}

void rig_place(pid_t server, enum rig_cpus its, enum rig_cpus ours) {
  static cpu_set_t all;
  cpu_set_t chosen;
  if (CPU_COUNT(&all) == 0 && sched_getaffinity(0, sizeof all, &all) < 0)
    rig_fail("processors: %s", strerror(errno));
  choose_cpus(&all, ours, &chosen);
  sched_setaffinity(0, sizeof chosen, &chosen);
  choose_cpus(&all, its, &chosen);
  place_threads(server, &chosen);
}

uint64_t rig_memory_kib(pid_t pid, const char *file, const char *field) {
  char path[64], line[256];
  uint64_t kib = 0;
  bool found = false;
  snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
  FILE *in = fopen(path, "re");
  while (in && !found && fgets(line, sizeof line, in))
    found = strncmp(line, field, strlen(field)) == 0 &&
            sscanf(line + strlen(field), "%" SCNu64, &kib) == 1;
  if (!found)
    rig_fail("%s: no %s in it", path, field);
  fclose(in);
  return kib;
}

/* ---- Numbers ------------------------------------------------------------- */

double rig_now_ns(clockid_t clock) {
  struct timespec ts;
  clock_gettime(clock, &ts);
  return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static int compare_doubles(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

double rig_median(double *values, size_t n) {
  qsort(values, n, sizeof *values, compare_doubles);
  return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

bool rig_parse_number(const char *arg, uint64_t min, uint64_t max,
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

bool rig_parse_piece(const char *arg, uint64_t *out) {
  return rig_parse_number(arg, RIG_PAGE, RIG_CHUNK, out) &&
         (*out & (*out - 1)) == 0;
}

/* Each cost is the mean of a few hundred operations in a row, and the card
 * shows the median of the rounds.  Nothing else of the benchmark runs
 * meanwhile. */
#include "tests/bench/card.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "tests/bench/echo.h"

static const char section[] = "The machine";
static const char metric[] = "us each";
static const char column[] = "this machine";

enum {
  N_ROUNDS = 9,
  N_PAGES = 4096, /* of the memfd */
  AROUND = 16,    /* pages that a fault maps at once (fault_around_bytes) */
  DEPTH = 32,
};

struct card {
  const struct rig *rig;
  const uint8_t *file; /* mapped */
  uint8_t *buf;        /* RIG_CHUNK bytes, aligned */
  int memfd;           /* N_PAGES pages, resident */
  int direct;          /* the file past the kernel's memory; -1: it cannot be */
  aio_context_t aio;
  struct echo echo;
  uint64_t random;
};

static volatile uint8_t sink;

static uint64_t random_offset(struct card *c, uint64_t size, uint64_t unit) {
  return rig_random(&c->random) % (size / unit) * unit;
}

/* ---- Processor and memory ------------------------------------------------ */

static void call_nothing(struct card *c, int n) {
  (void)c;
  for (int i = 0; i < n; i++)
    syscall(SYS_getppid);
}

static void touch_random(struct card *c, int n) {
  for (int i = 0; i < n; i++)
    sink = c->file[random_offset(c, c->rig->size, RIG_PAGE)];
}

static void copy_random(struct card *c, int n) {
  for (int i = 0; i < n; i++) {
    uint64_t at = random_offset(c, c->rig->size, RIG_PAGE);
    memcpy(c->buf, c->file + at, RIG_PAGE);
    __asm__ volatile("" : : "r"(c->buf) : "memory");
  }
}

static void pread_random(struct card *c, int n) {
  for (int i = 0; i < n; i++) {
    uint64_t at = random_offset(c, c->rig->size, RIG_PAGE);
    if (pread(c->rig->fd, c->buf, RIG_PAGE, (off_t)at) != RIG_PAGE)
      rig_fail("%s: read: %s", c->rig->file, strerror(errno));
  }
}

/* ---- Pages of a memfd ---------------------------------------------------- */

static int make_memfd(void) {
  int fd = memfd_create("card", MFD_CLOEXEC);
  if (fd < 0 || ftruncate(fd, (off_t)N_PAGES * RIG_PAGE) < 0)
    rig_fail("memfd: make: %s", strerror(errno));
  return fd;
}

static void write_pages(const struct card *c, int fd, int n) {
  for (int i = 0; i < n; i++)
    if (pwrite(fd, c->buf, RIG_PAGE, (off_t)i * RIG_PAGE) != RIG_PAGE)
      rig_fail("memfd: write: %s", strerror(errno));
}

static const uint8_t *map_memfd(const struct card *c) {
  size_t len = (size_t)N_PAGES * RIG_PAGE;
  void *map = mmap(NULL, len, PROT_READ, MAP_SHARED, c->memfd, 0);
  if (map == MAP_FAILED)
    rig_fail("memfd: map: %s", strerror(errno));
  return map;
}

static double timed_touches(const uint8_t *map, int step) {
  double start = rig_now_ns(CLOCK_MONOTONIC);
  for (int i = 0; i < N_PAGES; i += step)
    sink = map[(size_t)i * RIG_PAGE];
  return (rig_now_ns(CLOCK_MONOTONIC) - start) / (N_PAGES / step);
}

static double time_fault(struct card *c) {
  const uint8_t *map = map_memfd(c);
  double ns = timed_touches(map, AROUND);
  munmap((void *)map, (size_t)N_PAGES * RIG_PAGE);
  return ns;
}

static double time_first_use(struct card *c) {
  size_t len = (size_t)N_PAGES * RIG_PAGE;
  const uint8_t *map = map_memfd(c);
  if (madvise((void *)map, len, MADV_POPULATE_READ) < 0)
    rig_fail("memfd: populate: %s", strerror(errno));
  double ns = timed_touches(map, 1);
  munmap((void *)map, len);
  return ns;
}

static double time_hole(struct card *c) {
  int fd = make_memfd();
  double start = rig_now_ns(CLOCK_MONOTONIC);
  write_pages(c, fd, N_PAGES / 4);
  double ns = (rig_now_ns(CLOCK_MONOTONIC) - start) / (N_PAGES / 4.0);
  close(fd);
  return ns;
}

/* ---- Round trips --------------------------------------------------------- */

/* With the other end on the first processor, or on the last, and this one on
 * the first.  To place them is not a part of the trips. */
static double time_trips(const struct card *c, enum rig_cpus its) {
  enum { N = 500 };
  rig_place(c->echo.pid, its, RIG_FIRST_CPU);
  double start = rig_now_ns(CLOCK_MONOTONIC);
  for (int i = 0; i < N; i++)
    echo_round_trip(&c->echo);
  double ns = (rig_now_ns(CLOCK_MONOTONIC) - start) / N;
  rig_place(c->echo.pid, RIG_ALL_CPUS, RIG_ALL_CPUS);
  return ns;
}

static double time_near(struct card *c) { return time_trips(c, RIG_FIRST_CPU); }

static double time_far(struct card *c) { return time_trips(c, RIG_LAST_CPU); }

/* ---- The disk ------------------------------------------------------------ */

static void read_direct(struct card *c, size_t len, uint64_t at) {
  if (pread(c->direct, c->buf, len, (off_t)at) != (ssize_t)len)
    rig_fail("%s: read past the kernel's memory: %s", c->rig->file,
             strerror(errno));
}

static void read_disk_one(struct card *c, int n) {
  for (int i = 0; i < n; i++)
    read_direct(c, RIG_PAGE, random_offset(c, c->rig->size, RIG_PAGE));
}

static void read_disk_through(struct card *c, int n) {
  uint64_t at = random_offset(c, c->rig->size, RIG_CHUNK);
  for (int i = 0; i < n; i++, at = (at + RIG_CHUNK) % c->rig->size)
    read_direct(c, RIG_CHUNK, at);
}

static void submit(struct card *c, struct iocb *request, uint64_t slot) {
  *request = (struct iocb){
      .aio_data = slot,
      .aio_lio_opcode = IOCB_CMD_PREAD,
      .aio_fildes = (uint32_t)c->direct,
      .aio_buf = (uintptr_t)(c->buf + slot * RIG_PAGE),
      .aio_nbytes = RIG_PAGE,
      .aio_offset = (int64_t)random_offset(c, c->rig->size, RIG_PAGE)};
  struct iocb *list[] = {request};
  if (syscall(SYS_io_submit, c->aio, 1, list) != 1)
    rig_fail("io_submit: %s", strerror(errno));
}

static void read_disk_many(struct card *c, int n) {
  struct iocb requests[DEPTH];
  int n_sent = 0;
  for (; n_sent < DEPTH; n_sent++)
    submit(c, &requests[n_sent], (uint64_t)n_sent);
  for (int n_done = 0; n_done < n;) {
    struct io_event events[DEPTH];
    long got = syscall(SYS_io_getevents, c->aio, 1, DEPTH, events, NULL);
    if (got < 0)
      rig_fail("io_getevents: %s", strerror(errno));
    for (long i = 0; i < got; i++, n_done++) {
      if (events[i].res != RIG_PAGE)
        rig_fail("%s: a read of the disk failed", c->rig->file);
      if (n_sent == n)
        continue;
      submit(c, &requests[events[i].data], events[i].data);
      n_sent++;
    }
  }
}

/* ---- Rows ---------------------------------------------------------------- */

enum need { NOTHING, TWO_CPUS, DISK };

/* Either acts `n` times and is timed, or times itself. */
static const struct row {
  const char *name;
  void (*act)(struct card *c, int n);
  int n;
  double (*time)(struct card *c); /* ns for each */
  enum need need;
} rows[] = {
    {"an empty system call", call_nothing, 20000, NULL, NOTHING},
    {"a random touch of the file's mapping", touch_random, 20000, NULL,
     NOTHING},
    {"memcpy of 4 KiB of it", copy_random, 2000, NULL, NOTHING},
    {"pread of 4 KiB of it", pread_random, 2000, NULL, NOTHING},
    {"a minor fault, which maps 16 pages", NULL, 0, time_fault, NOTHING},
    {"first use after MADV_POPULATE_READ", NULL, 0, time_first_use, NOTHING},
    {"pwrite of 4 KiB into a memfd's hole", NULL, 0, time_hole, NOTHING},
    {"a round trip over a Unix socket, one processor", NULL, 0, time_near,
     NOTHING},
    {"the same, two processors", NULL, 0, time_far, TWO_CPUS},
    {"disk, 4 KiB at random", read_disk_one, 50, NULL, DISK},
    {"disk, 4 KiB at random, 32 under way", read_disk_many, 500, NULL, DISK},
    {"disk, 1 MiB front to back", read_disk_through, 8, NULL, DISK},
};

static bool can(const struct card *c, enum need need) {
  return need == DISK ? c->direct >= 0
                      : need == NOTHING || sysconf(_SC_NPROCESSORS_ONLN) > 1;
}

static double time_row(struct card *c, const struct row *row) {
  if (row->time)
    return row->time(c);
  double start = rig_now_ns(CLOCK_MONOTONIC);
  row->act(c, row->n);
  return (rig_now_ns(CLOCK_MONOTONIC) - start) / row->n;
}

/* ---- Names --------------------------------------------------------------- */

/* The value behind a field of a file of lines; empty: there is none. */
static void read_field(const char *path, const char *field, char *out,
                       size_t out_len) {
  char line[512];
  FILE *in = fopen(path, "re");
  *out = '\0';
  while (in && !*out && fgets(line, sizeof line, in)) {
    const char *value = line + strlen(field);
    if (strncmp(line, field, strlen(field)) == 0)
      snprintf(out, out_len, "%s", value + strspn(value, " \t:"));
  }
  out[strcspn(out, "\n")] = '\0';
  if (in)
    fclose(in);
}

/* A guest's processor says that it is one; the firmware names whose. */
static void name_hypervisor(char out[256]) {
  char flags[512], vendor[80], product[80];
  read_field("/proc/cpuinfo", "flags", flags, sizeof flags);
  read_field("/sys/class/dmi/id/sys_vendor", "", vendor, sizeof vendor);
  read_field("/sys/class/dmi/id/product_name", "", product, sizeof product);
  snprintf(out, 256, "%s%s%s%s%s", vendor, *vendor ? " " : "", product,
           *product ? ", " : "",
           strstr(flags, " hypervisor") ? "a virtual machine"
                                        : "no hypervisor");
}

static void add_names(struct report *r) {
  char processor[128], hypervisor[256];
  struct utsname kernel;
  read_field("/proc/cpuinfo", "model name", processor, sizeof processor);
  name_hypervisor(hypervisor);
  uname(&kernel);
  report_note(r, section, "%s, %ld processors; %s; %s %s",
              *processor ? processor : kernel.machine,
              sysconf(_SC_NPROCESSORS_ONLN), hypervisor, kernel.sysname,
              kernel.release);
}

/* ---- The card ------------------------------------------------------------ */

/* What was just written goes to the disk first. */
static void open_disk(struct card *c) {
  c->direct = fsync(c->rig->fd) == 0
                  ? open(c->rig->file, O_RDONLY | O_DIRECT | O_CLOEXEC)
                  : -1;
  if (c->direct >= 0 && syscall(SYS_io_setup, DEPTH, &c->aio) < 0)
    rig_fail("io_setup: %s", strerror(errno));
}

static void open_all(struct card *c) {
  if (posix_memalign((void **)&c->buf, RIG_PAGE, RIG_CHUNK) != 0)
    rig_fail("no memory");
  memset(c->buf, 1, RIG_CHUNK);
  c->file = rig_map(c->rig);
  c->memfd = make_memfd();
  write_pages(c, c->memfd, N_PAGES);
  open_disk(c);
  echo_start(&c->echo);
}

static void close_all(struct card *c) {
  echo_stop(&c->echo);
  if (c->direct >= 0) {
    syscall(SYS_io_destroy, c->aio);
    close(c->direct);
  }
  close(c->memfd);
  munmap((void *)c->file, c->rig->size);
  free(c->buf);
}

void card_add(struct report *r, const struct rig *rig) {
  struct card c = {.rig = rig, .random = 7};
  open_all(&c);
  for (int round = 0; round < N_ROUNDS; round++)
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
      struct report_key key = {section, metric, rows[i].name, column};
      if (can(&c, rows[i].need))
        report_add(r, key, time_row(&c, &rows[i]) / 1e3);
    }
  add_names(r);
  if (!can(&c, DISK))
    report_note(r, section, "%s: its file system has no O_DIRECT", rig->file);
  close_all(&c);
}

void card_print(const struct rig *rig) {
  struct report *r = report_new();
  card_add(r, rig);
  report_print(r);
  report_free(r);
  printf("\n");
}

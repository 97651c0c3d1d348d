/* punch: what it costs to give pages of a memfd back to the kernel while many
 * processes have it mapped, and what this costs a thread that writes.
 *
 *   punch [--seconds N]
 *
 * The kernel holds the lock of a memfd's inode while it punches, and goes
 * through every mapping of the range.  A write into the memfd waits for that
 * lock.  Three tables:
 *
 *   1 A punch by itself.  The rows differ in how many processes have the memfd
 *     mapped, and in what they have read of it.
 *   2 A thread that writes 4 KiB into holes, now and then, beside one that
 *     punches single pages without a pause.  The memory is one memfd, or
 *     several that lie side by side in one mapping.
 *   3 The page cache itself: one thread misses random pages, and the evictor
 *     makes room.  The linker takes the cache's writes and its calls of
 *     fallocate through this program (--wrap), which times them.  Huge pages
 *     have rows if the kernel is set to give them.
 *
 * Targets are reported and judge nothing: exit status 0 unless something
 * failed, then 1; 2 for a bad command line. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache/page_state.h"
#include "cache/shared_pins.h"
#include "tests/bench/card.h"
#include "tests/bench/histogram.h"
#include "tests/bench/memory_cache.h"
#include "tests/bench/rig.h"

enum {
  PAGE_SHIFT = 12,
  N_PAGES = 1 << 14, /* that are punched */
  BLOCK = 512,       /* pages of one page table */
  N_BLOCKS = N_PAGES / BLOCK,
  MAX_PROCESSES = 256,
  MAX_MEMFDS = 64,
  PAUSE_NS = 20000, /* between two writes */
};

#define LEAST_EVICTED 50000
#define WRITE_MOST_US 100

static void check_call(long r, const char *what) {
  if (r < 0)
    rig_fail("%s: %s", what, strerror(errno));
}

/* ---- Memory -------------------------------------------------------------- */

/* N_PAGES pages that have memory, and as many holes behind them.  Both parts
 * are spread over the memfds alike: each memfd begins with pages, and ends with
 * holes. */
struct memory {
  int fds[MAX_MEMFDS];
  unsigned n_fds;
};

static size_t memfd_len(const struct memory *m) {
  return ((size_t)2 * N_PAGES << PAGE_SHIFT) / m->n_fds;
}

/* Where page `page` is: of the pages, or of the holes. */
static int find_page(const struct memory *m, unsigned page, bool is_hole,
                     off_t *at) {
  unsigned each = N_PAGES / m->n_fds;
  *at = (off_t)(page % each + (is_hole ? each : 0)) << PAGE_SHIFT;
  return m->fds[page / each];
}

static void make_memory(struct memory *m, unsigned n_fds) {
  static uint8_t bytes[RIG_PAGE];
  memset(bytes, 1, sizeof bytes);
  m->n_fds = n_fds;
  for (unsigned i = 0; i < n_fds; i++) {
    m->fds[i] = memfd_create("punch", MFD_CLOEXEC);
    check_call(m->fds[i], "memfd");
    check_call(ftruncate(m->fds[i], (off_t)memfd_len(m)), "memfd");
  }
  for (unsigned page = 0; page < N_PAGES; page++) {
    off_t at;
    int fd = find_page(m, page, false, &at);
    check_call(pwrite(fd, bytes, sizeof bytes, at), "write");
  }
}

static void drop_memory(struct memory *m) {
  for (unsigned i = 0; i < m->n_fds; i++)
    close(m->fds[i]);
}

static void punch(const struct memory *m, unsigned page, unsigned count) {
  off_t at;
  int fd = find_page(m, page, false, &at);
  check_call(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at,
                       (off_t)count << PAGE_SHIFT),
             "punch");
}

static uint8_t *map_memory(const struct memory *m, int prot) {
  size_t len = memfd_len(m);
  uint8_t *base = mmap(NULL, len * m->n_fds, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED)
    rig_fail("map: %s", strerror(errno));
  for (unsigned i = 0; i < m->n_fds; i++)
    if (mmap(base + len * i, len, prot, MAP_SHARED | MAP_FIXED, m->fds[i], 0) ==
        MAP_FAILED)
      rig_fail("map: %s", strerror(errno));
  return base;
}

/* ---- Processes that read it ---------------------------------------------- */

enum use {
  USE_NOTHING, /* it is mapped */
  USE_BESIDE,  /* they have read the first pages of each block */
  USE_ALL,     /* they have read all pages */
};

static const char *const use_names[] = {"nothing", "pages beside", "all"};

struct readers {
  pid_t pids[MAX_PROCESSES];
  unsigned n;
};

static volatile uint8_t sink;

/* The kernel maps up to 16 pages around one that is read. */
static void read_memory_of(const struct memory *m, enum use use) {
  const uint8_t *base = map_memory(m, PROT_READ);
  unsigned each = N_PAGES / m->n_fds;
  unsigned step = use == USE_ALL ? 1 : BLOCK;
  for (unsigned page = 0; use != USE_NOTHING && page < N_PAGES; page += step)
    sink = base[((size_t)page / each * 2 * each + page % each) << PAGE_SHIFT];
}

/* Starts processes that call `read` once, and waits until all have done so.
 * They stay until stop_readers(). */
static void start_readers(struct readers *r, unsigned n,
                          void (*read_once)(void *arg), void *arg) {
  int ready[2];
  check_call(pipe2(ready, O_CLOEXEC), "pipe");
  for (r->n = 0; r->n < n; r->n++) {
    r->pids[r->n] = rig_fork(SIGKILL);
    check_call(r->pids[r->n], "fork");
    if (r->pids[r->n] == 0) {
      read_once(arg);
      check_call(write(ready[1], "", 1), "pipe");
      for (;;)
        pause();
    }
  }
  for (unsigned i = 0; i < n; i++) {
    char byte;
    if (read(ready[0], &byte, 1) != 1)
      rig_fail("pipe: %s", strerror(errno));
  }
  close(ready[0]);
  close(ready[1]);
}

static void stop_readers(struct readers *r) {
  for (unsigned i = 0; i < r->n; i++)
    kill(r->pids[i], SIGKILL);
  for (unsigned i = 0; i < r->n; i++)
    waitpid(r->pids[i], NULL, 0);
  r->n = 0;
}

struct memory_use {
  const struct memory *memory;
  enum use use;
};

static void use_memory(void *arg) {
  const struct memory_use *u = arg;
  read_memory_of(u->memory, u->use);
}

/* ---- 1: a punch ---------------------------------------------------------- */

/* The places of the punches in a block.  Its first 64 pages are those that
 * USE_BESIDE reads. */
enum {
  ONE_AT = 64,
  ADVISED_AT = 96,
  FEW_AT = 128,
  MANY_AT = 192,
  SPARSE_AT = 256,
  SPARSE_LEN = 256, /* a page in 16 of them has memory */
};

/* The us of a punch, in the mean of one for each block. */
static double time_punches(const struct memory *m, unsigned at,
                           unsigned count) {
  double begin = rig_now_ns(CLOCK_THREAD_CPUTIME_ID);
  for (unsigned i = 0; i < N_BLOCKS; i++)
    punch(m, i * BLOCK + at, count);
  return (rig_now_ns(CLOCK_THREAD_CPUTIME_ID) - begin) / N_BLOCKS / 1e3;
}

static double time_advice(const struct memory *m) {
  size_t len = memfd_len(m) * m->n_fds;
  uint8_t *base = map_memory(m, PROT_READ | PROT_WRITE);
  double begin = rig_now_ns(CLOCK_THREAD_CPUTIME_ID);
  for (unsigned i = 0; i < N_BLOCKS; i++)
    check_call(madvise(base + ((size_t)i * BLOCK + ADVISED_AT) * RIG_PAGE,
                       RIG_PAGE, MADV_REMOVE),
               "MADV_REMOVE");
  double us = (rig_now_ns(CLOCK_THREAD_CPUTIME_ID) - begin) / N_BLOCKS / 1e3;
  munmap(base, len);
  return us;
}

static void make_sparse(const struct memory *m) {
  for (unsigned i = 0; i < N_BLOCKS; i++)
    for (unsigned k = 0; k < SPARSE_LEN; k += 16)
      punch(m, i * BLOCK + SPARSE_AT + k + 1, 15);
}

static void run_punches(unsigned n_processes, enum use use) {
  struct memory m;
  struct readers r;
  make_memory(&m, 1);
  struct memory_use u = {&m, use};
  start_readers(&r, n_processes, use_memory, &u);
  make_sparse(&m);
  double one = time_punches(&m, ONE_AT, 1), few = time_punches(&m, FEW_AT, 16),
         many = time_punches(&m, MANY_AT, 64),
         sparse = time_punches(&m, SPARSE_AT, SPARSE_LEN);
  printf("| %u | %s | %.1f | %.1f | %.1f | %.1f | %.1f | %.0f | %.0f |\n",
         n_processes, n_processes ? use_names[use] : "", one, time_advice(&m),
         few, many, sparse, 1e3 / one, 64e3 / many);
  stop_readers(&r);
  drop_memory(&m);
}

static void measure_punches(void) {
  static const unsigned counts[] = {64, 256};
  printf("\nA punch, us\n\n| processes | have read | 1 page | 1 page, "
         "MADV_REMOVE | 16 pages | 64 pages | 16 pages spread over 256 "
         "| thousand pages/s, by 1 | by 64 |\n"
         "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
  run_punches(0, USE_NOTHING);
  for (int use = USE_NOTHING; use <= USE_ALL; use++)
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
      run_punches(counts[i], (enum use)use);
}

/* ---- 2: a write beside it ------------------------------------------------ */

enum way {
  WAY_OTHER,   /* into a memfd that nobody maps or punches */
  WAY_PWRITE,  /* into the one that is punched */
  WAY_MAPPING, /* the same, through a mapping, by MADV_POPULATE_WRITE */
};

static const char *const way_names[] = {"pwrite, into another", "pwrite",
                                        "through a mapping"};

struct puncher {
  const struct memory *memory;
  _Atomic bool stop;      /* relaxed: a request, or that all are punched */
  _Atomic bool has_begun; /* relaxed: the start of the measurement */
  double seconds;
  unsigned n_pages;
};

/* Punches all pages, in an order in which none is near the one before. */
static void *punch_all(void *arg) {
  struct puncher *p = arg;
  double begin = rig_now_ns(CLOCK_MONOTONIC);
  atomic_store_explicit(&p->has_begun, true, memory_order_relaxed);
  while (p->n_pages < N_PAGES &&
         !atomic_load_explicit(&p->stop, memory_order_relaxed))
    punch(p->memory, p->n_pages++ * 6151u % N_PAGES, 1);
  p->seconds = (rig_now_ns(CLOCK_MONOTONIC) - begin) / 1e9;
  atomic_store_explicit(&p->stop, true, memory_order_relaxed);
  return NULL;
}

/* The us that a write into a hole takes. */
static double write_hole(const struct memory *m, uint8_t *mapped,
                         unsigned page) {
  static const uint8_t bytes[RIG_PAGE] = {1};
  off_t at;
  int fd = find_page(m, page, true, &at);
  double begin = rig_now_ns(CLOCK_MONOTONIC);
  if (mapped) {
    uint8_t *to = mapped + memfd_len(m) * (page / (N_PAGES / m->n_fds)) + at;
    check_call(madvise(to, RIG_PAGE, MADV_POPULATE_WRITE), "populate");
    memcpy(to, bytes, RIG_PAGE);
  } else {
    check_call(pwrite(fd, bytes, sizeof bytes, at), "write");
  }
  return rig_now_ns(CLOCK_MONOTONIC) - begin;
}

static void pause_for(double ns) {
  double end = rig_now_ns(CLOCK_MONOTONIC) + ns;
  while (rig_now_ns(CLOCK_MONOTONIC) < end)
    ;
}

static void write_beside(struct puncher *p, const struct memory *to,
                         uint8_t *mapped, double seconds, struct histogram *h) {
  pthread_t thread;
  uint64_t random = 5;
  histogram_clear(h);
  if (pthread_create(&thread, NULL, punch_all, p) != 0)
    rig_fail("thread");
  while (!atomic_load_explicit(&p->has_begun, memory_order_relaxed))
    ;
  double end = rig_now_ns(CLOCK_MONOTONIC) + seconds * 1e9;
  while (!atomic_load_explicit(&p->stop, memory_order_relaxed)) {
    unsigned page = (unsigned)(rig_random(&random) % N_PAGES);
    histogram_add(h, (uint64_t)write_hole(to, mapped, page));
    pause_for(PAUSE_NS);
    if (rig_now_ns(CLOCK_MONOTONIC) > end)
      atomic_store_explicit(&p->stop, true, memory_order_relaxed);
  }
  pthread_join(thread, NULL);
}

static void run_writes(enum use use, unsigned n_fds, enum way way,
                       double seconds) {
  struct memory m, other;
  struct readers r;
  struct histogram h;
  make_memory(&m, n_fds);
  make_memory(&other, 1);
  uint8_t *mapped = NULL;
  if (way == WAY_MAPPING)
    mapped = map_memory(&m, PROT_READ | PROT_WRITE);
  struct memory_use u = {&m, use};
  struct puncher p = {.memory = &m};
  start_readers(&r, MAX_PROCESSES, use_memory, &u);
  write_beside(&p, way == WAY_OTHER ? &other : &m, mapped, seconds, &h);
  printf("| %s | %u | %s | %.1f | %.1f | %.1f |\n", use_names[use], n_fds,
         way_names[way], p.n_pages / p.seconds / 1e3,
         (double)histogram_value(&h, 0.5) / 1e3,
         (double)histogram_value(&h, 0.99) / 1e3);
  stop_readers(&r);
  if (mapped)
    munmap(mapped, memfd_len(&m) * n_fds);
  drop_memory(&m);
  drop_memory(&other);
}

static void measure_writes(double seconds) {
  printf("\nA write of 4 KiB beside a thread that punches single pages, with "
         "%d processes\n\n"
         "| have read | memfds | the write | thousand pages punched/s "
         "| us: p50 | p99 |\n"
         "| --- | ---: | --- | ---: | ---: | ---: |\n",
         MAX_PROCESSES);
  for (int use = USE_NOTHING; use <= USE_ALL; use++) {
    run_writes((enum use)use, 1, WAY_OTHER, seconds);
    run_writes((enum use)use, 1, WAY_PWRITE, seconds);
    run_writes((enum use)use, 16, WAY_PWRITE, seconds);
    run_writes((enum use)use, MAX_MEMFDS, WAY_PWRITE, seconds);
    run_writes((enum use)use, 1, WAY_MAPPING, seconds);
  }
}

/* ---- 3: the page cache --------------------------------------------------- */

/* The calls of the thread that misses, or of all threads. */
static __thread struct histogram *writes;
static _Atomic uint64_t n_punches, punch_ns; /* relaxed: statistics */

int __real_mirror_write(struct mirror *m, uint64_t page, const void *bytes,
                        size_t len);
int __real_fallocate(int fd, int mode, off_t at, off_t len);
int __wrap_mirror_write(struct mirror *m, uint64_t page, const void *bytes,
                        size_t len);
int __wrap_fallocate(int fd, int mode, off_t at, off_t len);

int __wrap_mirror_write(struct mirror *m, uint64_t page, const void *bytes,
                        size_t len) {
  double begin = rig_now_ns(CLOCK_MONOTONIC);
  int r = __real_mirror_write(m, page, bytes, len);
  if (writes)
    histogram_add(writes, (uint64_t)(rig_now_ns(CLOCK_MONOTONIC) - begin));
  return r;
}

int __wrap_fallocate(int fd, int mode, off_t at, off_t len) {
  double begin = rig_now_ns(CLOCK_MONOTONIC);
  int r = __real_fallocate(fd, mode, at, len);
  uint64_t ns = (uint64_t)(rig_now_ns(CLOCK_MONOTONIC) - begin);
  atomic_fetch_add_explicit(&n_punches, 1, memory_order_relaxed);
  atomic_fetch_add_explicit(&punch_ns, ns, memory_order_relaxed);
  return r;
}

struct cache {
  struct memory_cache memory;
  struct mirror_fds lent;
  struct shared_pins *tables[MAX_PROCESSES]; /* of the processes */
  unsigned n_tables;
  enum use use;
};

enum { IMAGE_PAGES = 4 * N_PAGES };

static void lend_cache(struct cache *c, unsigned n_processes) {
  struct mirror *m = c->memory.mirror;
  memory_cache_check(mirror_lend(m, &c->lent), "lend");
  for (; c->n_tables < n_processes; c->n_tables++)
    memory_cache_check(shared_pins_new(m, &c->tables[c->n_tables]),
                       "pin table");
}

static void close_cache(struct cache *c) {
  mirror_fds_close(&c->lent);
  while (c->n_tables)
    shared_pins_free(c->tables[--c->n_tables]);
  memory_cache_close(&c->memory);
}

/* An attached process that has read resident pages.  No page is evicted
 * meanwhile, so it needs no pins.  It must not take the cache's lock, which
 * another thread may have held at the fork. */
static void use_cache(void *arg) {
  struct cache *c = arg;
  const struct mirror *of = c->memory.mirror;
  struct mirror *m;
  memory_cache_check(
      mirror_borrow(&c->lent, of->size, of->page_shift, of->epoch, &m),
      "borrow");
  for (uint64_t at = 0; c->use == USE_ALL && at < of->size; at += RIG_PAGE)
    if (page_state_look(&m->states[at >> of->page_shift]) == PAGE_RESIDENT)
      sink = m->base[at];
}

/* Misses until the time is over, or most of the pages that were read are
 * evicted. */
static double miss_for(struct cache *c, uint32_t n_pages, double seconds,
                       const struct page_cache_stats *before,
                       struct page_cache_stats *after) {
  double begin = rig_now_ns(CLOCK_MONOTONIC), ns;
  do {
    for (int i = 0; i < 64; i++)
      memory_cache_miss(&c->memory, n_pages);
    page_cache_get_stats(c->memory.cache, after);
    ns = rig_now_ns(CLOCK_MONOTONIC) - begin;
  } while (ns < seconds * 1e9 &&
           (after->n_evicted_pages - before->n_evicted_pages)
                   << (c->memory.page_shift - PAGE_SHIFT) <
               N_PAGES * 3 / 4);
  return ns / 1e9;
}

struct pages {
  const char *name;
  unsigned shift;
  bool is_huge;
};

/* All counts that it prints are of 4 KiB. */
static void run_cache(const struct pages *pages, unsigned n_processes,
                      enum use use, uint32_t n_pages, double seconds) {
  struct cache c = {.use = use};
  const unsigned shift = pages->shift - PAGE_SHIFT;
  struct readers r;
  struct histogram h;
  struct page_cache_stats before, after;
  memory_cache_open(&c.memory, pages->shift, N_PAGES >> shift,
                    IMAGE_PAGES >> shift, NULL);
  c.memory.mirror->is_huge = pages->is_huge;
  for (unsigned i = 0; i < (2 * N_PAGES >> shift) / n_pages; i++)
    memory_cache_miss(&c.memory, n_pages); /* fills the cache */
  lend_cache(&c, n_processes);
  start_readers(&r, n_processes, use_cache, &c);
  histogram_clear(&h);
  uint64_t n_before = atomic_load(&n_punches),
           ns_before = atomic_load(&punch_ns);
  page_cache_get_stats(c.memory.cache, &before);
  writes = &h;
  double took = miss_for(&c, n_pages, seconds, &before, &after);
  writes = NULL;
  double n = (double)(atomic_load(&n_punches) - n_before);
  double us = (double)(atomic_load(&punch_ns) - ns_before) / n / 1e3;
  double evicted =
      (double)((after.n_evicted_pages - before.n_evicted_pages) << shift);
  double p99 = (double)histogram_value(&h, 0.99) / 1e3;
  printf("| %s | %u | %s | %u | %.1f | %s | %.2f | %.1f | %.1f | %.1f | %s |\n",
         pages->name, n_processes, n_processes ? use_names[use] : "",
         n_pages << shift, evicted / took / 1e3,
         evicted / took >= LEAST_EVICTED ? "reached" : "**missed**",
         evicted / n, us, (double)histogram_value(&h, 0.5) / 1e3, p99,
         p99 <= WRITE_MOST_US ? "reached" : "**missed**");
  stop_readers(&r);
  close_cache(&c);
}

static void measure_cache(double seconds) {
  printf("\nThe page cache, in pages of 4 KiB\n\n| of the cache "
         "| processes | have read | pages a miss "
         "| thousand pages evicted/s | at least %d | pages a punch "
         "| us a punch | a write, us: p50 | p99 | at most %d |\n"
         "| --- | ---: | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: "
         "| --- |\n",
         LEAST_EVICTED / 1000, WRITE_MOST_US);
  static const struct pages all[] = {{"4 KiB", 12, false},
                                     {"64 KiB", 16, false},
                                     {"2 MiB", 21, false},
                                     {"huge", 21, true}};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
    for (uint32_t n = 1; n <= (i ? 1 : 16); n *= 16) {
      if (all[i].is_huge && !mirror_may_be_huge())
        continue;
      run_cache(&all[i], 0, USE_NOTHING, n, seconds);
      run_cache(&all[i], MAX_PROCESSES, USE_NOTHING, n, seconds);
      run_cache(&all[i], MAX_PROCESSES, USE_ALL, n, seconds);
    }
}

int main(int argc, char **argv) {
  double seconds = 1;
  char none[] = "", *end = none;
  if (argc == 3 && strcmp(argv[1], "--seconds") == 0)
    seconds = strtod(argv[2], &end);
  if ((argc != 1 && argc != 3) || *end || !(seconds > 0)) {
    fputs("usage: punch [--seconds N]\n", stderr);
    return 2;
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  card_print(rig_make(RIG_CHUNK * UINT64_C(64), RIG_CHUNK));
  measure_punches();
  measure_writes(seconds);
  measure_cache(seconds);
  return 0;
}

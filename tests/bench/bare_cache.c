#include "tests/bench/bare_cache.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef RWF_DONTCACHE
#define RWF_DONTCACHE 0x80
#endif

/* As cachetd's evictor has them: see EVICT_MAX_BATCH, and budget_high_free().
 */
enum { BATCH = 256, RESERVE_PART = 32, MIN_PAGES = 2 * BATCH };

enum { ABSENT, RESIDENT, EVICTING };

static struct {
  int fd, memfd;
  _Atomic uint8_t *states; /* of each page */

  /* The pages that are in the memfd, the oldest at `n_evicted`, the youngest
   * before `n_filled`: a ring of `n_pages`. */
  uint32_t *queue;
  uint64_t n_pages, n_reserve;
  _Atomic uint64_t n_filled, n_evicted;

  pthread_mutex_t lock;
  pthread_cond_t wanted;
} cache = {.lock = PTHREAD_MUTEX_INITIALIZER,
           .wanted = PTHREAD_COND_INITIALIZER};

static void fail(const char *what) {
  fprintf(stderr, "bare: %s: %s\n", what, strerror(errno));
  exit(1);
}

/* ---- Evicting ------------------------------------------------------------ */

static uint64_t n_used(void) {
  return atomic_load(&cache.n_filled) - atomic_load(&cache.n_evicted);
}

static int compare_pages(const void *a, const void *b) {
  const uint32_t *x = a, *y = b;
  return *x < *y ? -1 : *x > *y;
}

static void punch(uint32_t page, uint32_t n) {
  if (fallocate(cache.memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                (off_t)page * BARE_CACHE_PAGE, (off_t)n * BARE_CACHE_PAGE) < 0)
    fail("fallocate");
}

static void evict_batch(void) {
  uint32_t pages[BATCH], n;
  uint64_t first = atomic_load(&cache.n_evicted);
  for (uint32_t i = 0; i < BATCH; i++) {
    pages[i] = cache.queue[(first + i) % cache.n_pages];
    atomic_store(&cache.states[pages[i]], EVICTING);
  }
  qsort(pages, BATCH, sizeof *pages, compare_pages);
  syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0);
  for (uint32_t i = 0; i < BATCH; i += n) {
    for (n = 1; i + n < BATCH && pages[i + n] == pages[i] + n;)
      n++;
    punch(pages[i], n);
  }
  for (uint32_t i = 0; i < BATCH; i++)
    atomic_store(&cache.states[pages[i]], ABSENT);
  atomic_store(&cache.n_evicted, first + BATCH);
}

/* The reserve is filled up when half of it is left. */
static bool is_short_of(uint64_t n_free) {
  return n_used() + n_free > cache.n_pages;
}

static void *evict(void *arg) {
  (void)arg;
  for (;;) {
    pthread_mutex_lock(&cache.lock);
    while (!is_short_of(cache.n_reserve / 2))
      pthread_cond_wait(&cache.wanted, &cache.lock);
    pthread_mutex_unlock(&cache.lock);
    while (is_short_of(cache.n_reserve))
      evict_batch();
  }
  return NULL;
}

/* ---- Reading ------------------------------------------------------------- */

static void note_filled(uint32_t page) {
  uint64_t n = atomic_load(&cache.n_filled);
  cache.queue[n % cache.n_pages] = page;
  atomic_store(&cache.states[page], RESIDENT);
  pthread_mutex_lock(&cache.lock);
  atomic_store(&cache.n_filled, n + 1);
  bool is_short = is_short_of(cache.n_reserve / 2);
  pthread_mutex_unlock(&cache.lock);
  if (is_short)
    pthread_cond_signal(&cache.wanted);
}

static void read_page(int fd, uint64_t offset, void *buf) {
  if (pread(fd, buf, BARE_CACHE_PAGE, (off_t)offset) != BARE_CACHE_PAGE)
    fail("pread");
}

static void fill(uint64_t offset, void *buf) {
  const int flags = RWF_NOWAIT | RWF_DONTCACHE;
  struct iovec v = {buf, BARE_CACHE_PAGE};
  struct stat st;
  while (n_used() == cache.n_pages)
    sched_yield();
  if (preadv2(cache.fd, &v, 1, (off_t)offset, flags) != BARE_CACHE_PAGE)
    read_page(cache.fd, offset, buf); /* the kernel is older, or must wait */
  if (fstat(cache.fd, &st) < 0 ||
      pwrite(cache.memfd, buf, BARE_CACHE_PAGE, (off_t)offset) < 0)
    fail("fill");
}

void bare_cache_read(uint64_t offset, void *buf) {
  uint32_t page = (uint32_t)(offset / BARE_CACHE_PAGE);
  uint8_t state;
  while ((state = atomic_load(&cache.states[page])) == EVICTING)
    sched_yield();
  if (state == RESIDENT) {
    read_page(cache.memfd, offset, buf);
    return;
  }
  fill(offset, buf);
  note_filled(page);
}

/* ---- Opening ------------------------------------------------------------- */

uint64_t bare_cache_open(const char *path, uint64_t cache_len) {
  struct stat st;
  pthread_t thread;
  cache.fd = open(path, O_RDONLY | O_CLOEXEC);
  if (cache.fd < 0 || fstat(cache.fd, &st) < 0)
    fail(path);
  if (cache_len / BARE_CACHE_PAGE < MIN_PAGES) {
    errno = EINVAL;
    fail("the size of the cache");
  }
  cache.memfd = memfd_create("bare", MFD_CLOEXEC);
  if (cache.memfd < 0 || ftruncate(cache.memfd, st.st_size) < 0)
    fail("memfd");
  cache.n_pages = cache_len / BARE_CACHE_PAGE;
  cache.n_reserve = cache.n_pages / RESERVE_PART;
  cache.states = calloc((size_t)st.st_size / BARE_CACHE_PAGE, 1);
  cache.queue = calloc(cache.n_pages, sizeof *cache.queue);
  if (!cache.states || !cache.queue)
    fail("calloc");
  syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0);
  if ((errno = pthread_create(&thread, NULL, evict, NULL)))
    fail("pthread_create");
  return (uint64_t)st.st_size;
}

#include "cache/mirror.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

/* The states start behind the header, on a page of their own. */
#define STATES_OFFSET MIRROR_HEADER_LEN

static size_t round_up(size_t n, size_t to) { return (n + to - 1) & ~(to - 1); }

/* ftruncate(2) or write(2) past RLIMIT_FSIZE kills a process that does not
 * ignore SIGXFSZ, so the limit is checked before. */
static int check_file_size(uint64_t len) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
      len > limit.rlim_cur)
    return -EFBIG;
  return 0;
}

void mirror_print_limit(uint64_t size, char *text, size_t len) {
  struct rlimit limit;
  int n = snprintf(text, len, "it has %llu bytes; ", (unsigned long long)size);
  if (n < 0 || (size_t)n >= len)
    return;
  if (size <= MIRROR_MAX_SIZE && getrlimit(RLIMIT_FSIZE, &limit) == 0 &&
      limit.rlim_cur != RLIM_INFINITY)
    snprintf(text + n, len - (size_t)n,
             "the limit of file sizes (ulimit -f) is %llu bytes",
             (unsigned long long)limit.rlim_cur);
  else
    snprintf(text + n, len - (size_t)n, "an image may have %llu (64 TiB)",
             (unsigned long long)MIRROR_MAX_SIZE);
}

CLEANUP_FUNCTION(struct mirror *, mirror_free)

/* ---- What the machine is set to ------------------------------------------ */

/* Reads the first `len` - 1 bytes of a file of settings; "" if there is none.
 */
static void read_setting(const char *path, char *buf, size_t len) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : read(fd, buf, len - 1);
  buf[n > 0 ? n : 0] = '\0';
  if (fd >= 0)
    close(fd);
}

#define HUGE_PAGES "/sys/kernel/mm/transparent_hugepage/"

static struct {
  pthread_once_t once;
  bool is_strict;   /* vm.overcommit_memory = 2 */
  bool is_huge;     /* a write into a hole gives it a huge page */
  bool may_be_huge; /* it gives one that is asked for */
} machine = {.once = PTHREAD_ONCE_INIT};

static bool gives_unasked(const char *text) {
  return strstr(text, "[always]") || strstr(text, "[within_size]") ||
         strstr(text, "[force]");
}

static bool gives_if_asked(const char *text) {
  return gives_unasked(text) || strstr(text, "[advise]");
}

/* `all`: the setting for all sizes.  Before Linux 6.10 it is the only one.
 * With "never" the kernel does not align mappings, whatever the other says. */
static bool look_at_huge_pages(const char *all) {
  char text[128];
  read_setting(HUGE_PAGES "hugepages-2048kB/shmem_enabled", text, sizeof text);
  bool inherits = !text[0] || strstr(text, "[inherit]");
  if (inherits || strstr(all, "[force]"))
    return inherits && gives_if_asked(all);
  return gives_if_asked(text) && gives_if_asked(all);
}

static void look_at_machine(void) {
  char text[128];
  read_setting("/proc/sys/vm/overcommit_memory", text, sizeof text);
  machine.is_strict = text[0] == '2';
  read_setting(HUGE_PAGES "shmem_enabled", text, sizeof text);
  machine.is_huge = gives_unasked(text);
  machine.may_be_huge = !machine.is_strict && look_at_huge_pages(text);
}

bool mirror_is_overcommit_strict(void) {
  pthread_once(&machine.once, look_at_machine);
  return machine.is_strict;
}

bool mirror_is_shmem_huge(void) {
  pthread_once(&machine.once, look_at_machine);
  return machine.is_huge;
}

bool mirror_may_be_huge(void) {
  pthread_once(&machine.once, look_at_machine);
  return machine.may_be_huge;
}

/* Gives a memfd memory for all its bytes.  With vm.overcommit_memory = 2 the
 * kernel may have none left at the first use of a hole, which is then a SIGBUS.
 */
static int allocate(int fd, size_t len) {
  int r;
  do
    r = fallocate(fd, 0, 0, (off_t)len);
  while (r < 0 && errno == EINTR);
  return r < 0 ? -errno : 0;
}

/* ---- Making -------------------------------------------------------------- */

/* A sparse memfd of `len` bytes.  No process can resize it, and only root and
 * our own uid can reopen it for writing through /proc.  F_SEAL_FUTURE_WRITE
 * cannot be used: it would forbid punching to this process too. */
int mirror_memfd(const char *name, size_t len, enum memfd_use use) {
  int r = check_file_size(len);
  if (r < 0)
    return r;
  int fd =
      memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
  if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
    fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
  fd = fd_above_std(fd);
  if (fd < 0)
    return -errno;
  if (ftruncate(fd, (off_t)len) < 0 || fchmod(fd, 0400) < 0 ||
      fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
    r = -errno;
  else if (use == MEMFD_LOOKED_AT && mirror_is_overcommit_strict())
    r = allocate(fd, len);
  if (r < 0) {
    close(fd);
    return r;
  }
  return fd;
}

/* Keeps the kernel from locking a mapping.  A container may filter the call
 * (EPERM); it then filters mlockall(2) as well, and nothing is locked. */
static int unlock(void *at, size_t len) {
  return munlock(at, len) < 0 && errno != EPERM ? -errno : 0;
}

/* Maps a part of a sparse memfd without filling its holes, and keeps it out of
 * core dumps.  The order matters: with PROT_NONE mlockall(MCL_FUTURE) finds
 * nothing to lock, then the lock is taken off, and only then is the memory made
 * accessible. */
static void *map_part(int fd, off_t from, size_t len, int prot) {
  void *at = mmap(NULL, len, PROT_NONE, MAP_SHARED | MAP_NORESERVE, fd, from);
  if (at == MAP_FAILED)
    return NULL;
  if (unlock(at, len) < 0 || madvise(at, len, MADV_DONTDUMP) < 0 ||
      mprotect(at, len, prot) < 0) {
    munmap(at, len);
    return NULL;
  }
  return at;
}

/* Maps all of it, so that the use of a hole allocates no huge page. */
static void *map_sparse(int fd, size_t len, int prot) {
  void *at = map_part(fd, 0, len, prot);
  if (at)
    madvise(at, len, MADV_NOHUGEPAGE); /* it fails in a kernel without them */
  return at;
}

static int make_pages(struct mirror *m) {
  m->pages_fd = mirror_memfd("cachet-pages", m->pages_len, MEMFD_SPARSE);
  return m->pages_fd < 0 ? m->pages_fd : 0;
}

/* A memfd of states or accessed bytes, mapped for reading and writing. */
static int make_meta(const char *name, size_t len, bool is_solid, int *fd,
                     uint8_t **at) {
  *fd = mirror_memfd(name, len, is_solid ? MEMFD_LOOKED_AT : MEMFD_SPARSE);
  if (*fd < 0)
    return *fd;
  *at = map_sparse(*fd, len, PROT_READ | PROT_WRITE);
  return *at ? 0 : -ENOMEM;
}

/* Maps states that no thread writes.  Reads of such a mapping take no
 * memory. */
static int make_no_states(struct mirror *m) {
  uint8_t *at = mmap(NULL, m->states_len, PROT_READ,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED)
    return -ENOMEM;
  m->header = (struct mirror_header *)at;
  return mprotect(at, MIRROR_HEADER_LEN, PROT_READ | PROT_WRITE) < 0 ? -errno
                                                                     : 0;
}

static int alloc_blocks(struct mirror *m) {
  m->n_blocks =
      (size_t)((m->n_pages + STATES_PER_BLOCK - 1) / STATES_PER_BLOCK);
  m->blocks = calloc(m->n_blocks + 1, sizeof *m->blocks);
  return m->blocks ? 0 : -ENOMEM;
}

static int make_states(struct mirror *m) {
  uint8_t *at;
  int r = alloc_blocks(m);
  if (r < 0)
    return r;
  r = make_meta("cachet-states", m->states_len, m->is_solid, &m->states_fd,
                &at);
  if (r < 0)
    return r;
  m->header = (struct mirror_header *)at;
  return make_meta("cachet-accessed", m->accessed_len, m->is_solid,
                   &m->accessed_fd, &m->accessed);
}

static void write_header(struct mirror *m, bool membarrier) {
  m->states = (uint8_t *)m->header + STATES_OFFSET;
  *m->header = (struct mirror_header){
      .magic = "cachetd",
      .layout = MIRROR_LAYOUT,
      .page_size = 1u << m->page_shift,
      .image_size = m->size,
      .epoch = m->epoch,
      .states_offset = STATES_OFFSET,
      .membarrier = membarrier,
  };
}

static int mirror_alloc(uint64_t size, unsigned page_shift, uint64_t epoch,
                        struct mirror **out) {
  uint64_t page_size = 1ull << page_shift;
  if (size > MIRROR_MAX_SIZE)
    return -EFBIG;
  struct mirror *m = calloc(1, sizeof *m);
  if (!m)
    return -ENOMEM;
  m->epoch = epoch;
  m->size = size;
  m->n_pages = (size + page_size - 1) >> page_shift;
  m->page_shift = page_shift;
  m->is_huge = page_shift == PAGE_SHIFT_MAX && mirror_may_be_huge();
  m->n_refs = 1;
  m->pages_fd = m->states_fd = m->accessed_fd = -1;
  uint64_t n = m->n_pages ? m->n_pages : 1;
  m->pages_len = n << page_shift;
  m->states_len = STATES_OFFSET + round_up(n, 4096);
  m->accessed_len = round_up(n, 4096);
  *out = m;
  return 0;
}

static int mirror_make(uint64_t size, unsigned page_shift, uint64_t epoch,
                       bool membarrier, bool is_pageless, struct mirror **out) {
  CLEANUP(mirror_freep) struct mirror *m = NULL;
  int r = mirror_alloc(size, page_shift, epoch, &m);
  if (r < 0)
    return r;
  m->is_pageless = is_pageless;
  m->is_solid = !is_pageless && mirror_is_overcommit_strict();
  r = is_pageless ? make_no_states(m) : make_pages(m);
  if (r == 0 && !is_pageless)
    r = make_states(m);
  if (r < 0)
    return r;
  write_header(m, membarrier);
  *out = STEAL(m);
  return 0;
}

int mirror_new(uint64_t size, unsigned page_shift, uint64_t epoch,
               bool membarrier, struct mirror **out) {
  return mirror_make(size, page_shift, epoch, membarrier, false, out);
}

int mirror_new_pageless(uint64_t size, unsigned page_shift, uint64_t epoch,
                        struct mirror **out) {
  return mirror_make(size, page_shift, epoch, false, true, out);
}

/* Maps the pages for reading.  One entry of a page table may map a page that is
 * as long as a huge page.  The advice of map_sparse() would forbid that. */
static const uint8_t *map_readable(const struct mirror *m, int fd) {
  return m->page_shift == PAGE_SHIFT_MAX
             ? map_part(fd, 0, m->pages_len, PROT_READ)
             : map_sparse(fd, m->pages_len, PROT_READ);
}

const uint8_t *mirror_map_pages(const struct mirror *m) {
  return m->pages_fd < 0 ? NULL : map_readable(m, m->pages_fd);
}

void mirror_unmap_pages(const struct mirror *m, const uint8_t *base) {
  if (base)
    munmap((void *)(uintptr_t)base, m->pages_len);
}

static void close_fd(int fd) {
  if (fd >= 0)
    close(fd);
}

/* ---- Lending ------------------------------------------------------------- */

/* Opens the memfd once more, for reading only, because another process that
 * gets the descriptor could otherwise map it for writing.  Needs /proc. */
static int reopen_read_only(int fd) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  int again = fd_above_std(open(path, O_RDONLY | O_CLOEXEC));
  return again < 0 ? -errno : again;
}

void mirror_fds_close(struct mirror_fds *fds) {
  close_fd(fds->pages);
  close_fd(fds->states);
  close_fd(fds->accessed);
  *fds = (struct mirror_fds){-1, -1, -1};
}

int mirror_lend(struct mirror *m, struct mirror_fds *out) {
  struct mirror_fds fds = {
      .pages = reopen_read_only(m->pages_fd),
      .states = reopen_read_only(m->states_fd),
      .accessed = fcntl(m->accessed_fd, F_DUPFD_CLOEXEC, 3),
  };
  int r = 0;
  if (fds.accessed < 0)
    r = -errno;
  if (fds.states < 0)
    r = fds.states;
  if (fds.pages < 0)
    r = fds.pages;
  if (r < 0) {
    mirror_fds_close(&fds);
    return r;
  }
  /* Relaxed: a reclaimer that misses it sees it in its next round. */
  __atomic_store_n(&m->was_lent, true, __ATOMIC_RELAXED);
  if (m->on_lent)
    m->on_lent(m);
  *out = fds;
  return 0;
}

/* Whether a descriptor of another process is that of a memfd of `len` bytes
 * that no process can shorten: an access past the end would be a SIGBUS. */
static bool is_fixed_memfd(int fd, size_t len) {
  struct stat st;
  int seals = fcntl(fd, F_GET_SEALS);
  return seals >= 0 && (seals & F_SEAL_SHRINK) && fstat(fd, &st) == 0 &&
         (uint64_t)st.st_size == len;
}

static bool header_is_right(const struct mirror *m) {
  const struct mirror_header *h = m->header;
  return memcmp(h->magic, "cachetd", sizeof h->magic) == 0 &&
         h->layout == MIRROR_LAYOUT && h->page_size == 1u << m->page_shift &&
         h->image_size == m->size && h->epoch == m->epoch &&
         h->states_offset == STATES_OFFSET;
}

static int map_all(struct mirror *m, const struct mirror_fds *fds) {
  if (!is_fixed_memfd(fds->states, m->states_len) ||
      !is_fixed_memfd(fds->pages, m->pages_len) ||
      !is_fixed_memfd(fds->accessed, m->accessed_len))
    return -EPROTO;
  uint8_t *at = map_sparse(fds->states, m->states_len, PROT_READ);
  if (!at)
    return -errno;
  m->header = (struct mirror_header *)at;
  m->states = at + STATES_OFFSET;
  if (!header_is_right(m))
    return -EPROTO;
  m->base = map_readable(m, fds->pages);
  if (!m->base)
    return -errno;
  m->accessed =
      map_sparse(fds->accessed, m->accessed_len, PROT_READ | PROT_WRITE);
  return m->accessed ? 0 : -errno;
}

int mirror_borrow(struct mirror_fds *fds, uint64_t size, unsigned page_shift,
                  uint64_t epoch, struct mirror **out) {
  CLEANUP(mirror_freep) struct mirror *m = NULL;
  int r = mirror_alloc(size, page_shift, epoch, &m);
  if (r == 0)
    r = map_all(m, fds);
  if (r == 0) { /* for mirror_copy() */
    m->pages_fd = fds->pages;
    fds->pages = -1;
  }
  mirror_fds_close(fds);
  if (r < 0)
    return r;
  *out = STEAL(m);
  return 0;
}

bool mirror_copy(const struct mirror *m, uint64_t offset, void *buf,
                 size_t len) {
  int fd = __atomic_load_n(&m->pages_fd, __ATOMIC_RELAXED);
  return fd >= 0 && pread(fd, buf, len, (off_t)offset) == (ssize_t)len;
}

bool mirror_fd_is(const struct mirror *m, dev_t dev, ino_t ino) {
  struct stat st;
  int fd = __atomic_load_n(&m->pages_fd, __ATOMIC_RELAXED);
  return fd >= 0 && fstat(fd, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

int mirror_set_fd(struct mirror *m, int fd) {
  return __atomic_exchange_n(&m->pages_fd, fd, __ATOMIC_RELAXED);
}

/* ---- Adopting ------------------------------------------------------------ */

bool mirror_is_own_memfd(int fd, size_t len) {
  const int ours = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  struct stat st;
  int seals = fcntl(fd, F_GET_SEALS), flags = fcntl(fd, F_GETFL);
  return seals >= 0 && (seals & ours) == ours && flags >= 0 &&
         (flags & O_ACCMODE) == O_RDWR && fstat(fd, &st) == 0 &&
         (uint64_t)st.st_size == len && st.st_uid == geteuid() &&
         (st.st_mode & 07777) == 0400;
}

/* As make_meta(), but of memory that an earlier process left. */
static int adopt_meta(const struct mirror *m, int fd, size_t len,
                      uint8_t **at) {
  int r = m->is_solid ? allocate(fd, len) : 0;
  if (r < 0)
    return r;
  *at = map_sparse(fd, len, PROT_READ | PROT_WRITE);
  return *at ? 0 : -ENOMEM;
}

static int adopt_memory(struct mirror *m) {
  uint8_t *at;
  if (!mirror_is_own_memfd(m->pages_fd, m->pages_len) ||
      !mirror_is_own_memfd(m->states_fd, m->states_len) ||
      !mirror_is_own_memfd(m->accessed_fd, m->accessed_len))
    return -EPROTO;
  int r = alloc_blocks(m);
  if (r == 0)
    r = adopt_meta(m, m->states_fd, m->states_len, &at);
  if (r < 0)
    return r;
  m->header = (struct mirror_header *)at;
  m->states = at + STATES_OFFSET;
  if (!header_is_right(m))
    return -EPROTO;
  return adopt_meta(m, m->accessed_fd, m->accessed_len, &m->accessed);
}

int mirror_adopt(struct mirror_remains *remains, struct mirror **out) {
  CLEANUP(mirror_freep) struct mirror *m = NULL;
  bool fits = remains->page_shift >= PAGE_SHIFT_MIN &&
              remains->page_shift <= PAGE_SHIFT_MAX;
  int r = fits ? mirror_alloc(remains->size, remains->page_shift,
                              remains->epoch, &m)
               : -EPROTO;
  if (r < 0) {
    mirror_fds_close(&remains->fds);
    return r;
  }
  m->pages_fd = remains->fds.pages;
  m->states_fd = remains->fds.states;
  m->accessed_fd = remains->fds.accessed;
  remains->fds = (struct mirror_fds){-1, -1, -1};
  m->is_solid = mirror_is_overcommit_strict();
  m->was_lent = true; /* the process before may have lent it */
  r = adopt_memory(m);
  if (r < 0)
    return r;
  *out = STEAL(m);
  return 0;
}

void mirror_retire_remains(const struct mirror_fds *fds) {
  struct stat st;
  if (fstat(fds->states, &st) < 0 || st.st_size < MIRROR_HEADER_LEN ||
      !mirror_is_own_memfd(fds->states, (size_t)st.st_size))
    return;
  struct mirror_header *h =
      mmap(NULL, MIRROR_HEADER_LEN, PROT_READ | PROT_WRITE, MAP_SHARED,
           fds->states, 0);
  if (h == MAP_FAILED)
    return;
  __atomic_store_n(&h->retired, 1, __ATOMIC_RELEASE);
  munmap(h, MIRROR_HEADER_LEN);
}

void mirror_free(struct mirror *m) {
  if (!m)
    return;
  mirror_unmap_pages(m, m->base);
  mirror_unmap_pages(m, m->writable);
  if (m->header)
    munmap(m->header, m->states_len);
  if (m->accessed)
    munmap(m->accessed, m->accessed_len);
  close_fd(m->pages_fd);
  close_fd(m->states_fd);
  close_fd(m->accessed_fd);
  free(m->blocks);
  free(m->stale);
  free(m);
}

/* ---- References ---------------------------------------------------------- */

struct mirror *mirror_ref(struct mirror *m) {
  unsigned before = __atomic_fetch_add(&m->n_refs, 1, __ATOMIC_RELAXED);
  assert(before > 0); /* mirror_ref_live() is for what may have none */
  return m;
}

bool mirror_ref_live(struct mirror *m) {
  unsigned n = __atomic_load_n(&m->n_refs, __ATOMIC_RELAXED);
  while (n > 0)
    if (__atomic_compare_exchange_n(&m->n_refs, &n, n + 1, false,
                                    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
      return true;
  return false;
}

void mirror_unref(struct mirror *m) {
  /* Release our use of it; acquire everybody's before we free it. */
  unsigned before = m ? __atomic_fetch_sub(&m->n_refs, 1, __ATOMIC_ACQ_REL) : 2;
  assert(before > 0);
  if (before == 1)
    m->released(m);
}

/* ---- Pages --------------------------------------------------------------- */

/* Copies into a mapping of holes, which begins at a page.  A page fault without
 * memory would be a SIGBUS; this fails instead. 0 or a negative errno. */
static int copy_to_holes(void *to, const char *from, size_t len) {
  if (madvise(to, round_up(len, 4096), MADV_POPULATE_WRITE) < 0)
    return -errno;
  memcpy(to, from, len);
  return 0;
}

/* Asks the kernel for a huge page, and writes it.  The kernel aligns mappings
 * of this length as huge pages are.  False: nothing is written; or the page
 * has memory, and the caller writes it in another way. */
static bool write_huge_page(struct mirror *m, const char *from, size_t len,
                            off_t at) {
  const size_t page_size = mirror_page_size(m);
  uint8_t *to = map_part(m->pages_fd, at, page_size, PROT_READ | PROT_WRITE);
  if (!to)
    return false;
  bool is_written = madvise(to, page_size, MADV_HUGEPAGE) == 0 &&
                    copy_to_holes(to, from, len) == 0;
  munmap(to, page_size);
  return is_written;
}

/* Returns how many bytes it has written: whole pages, or all. */
static size_t write_huge_pages(struct mirror *m, const char *from, size_t len,
                               off_t at) {
  size_t n, done = 0;
  for (; done < len; done += n) {
    n = len - done < mirror_page_size(m) ? len - done : mirror_page_size(m);
    if (!write_huge_page(m, from + done, n, at + (off_t)done))
      break;
  }
  return done;
}

/* On a machine where a write(2) into a hole makes a huge page of 2 MiB, pages
 * are written through a mapping that has huge pages off. */
static int write_mapped(struct mirror *m, const char *from, size_t len,
                        off_t at) {
  size_t whole = round_up(len, 4096);
  void *to =
      mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_SHARED, m->pages_fd, at);
  if (to == MAP_FAILED)
    return -errno;
  int r = madvise(to, whole, MADV_NOHUGEPAGE) < 0 ? -errno : 0;
  if (r == 0)
    r = copy_to_holes(to, from, len);
  munmap(to, whole);
  return r;
}

static bool survives_file_limit;

void mirror_survives_file_limit(void) { survives_file_limit = true; }

/* The mapping through which pages are written beside slow punches.  NULL: the
 * process may not map so much. */
static uint8_t *map_writable(struct mirror *m) {
  /* Acquire, release: the mapping is made before its address is known. */
  uint8_t *at = __atomic_load_n(&m->writable, __ATOMIC_ACQUIRE), *known = NULL;
  if (at)
    return at;
  at = map_sparse(m->pages_fd, m->pages_len, PROT_READ | PROT_WRITE);
  if (!at || __atomic_compare_exchange_n(&m->writable, &known, at, false,
                                         __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
    return at;
  mirror_unmap_pages(m, at); /* another thread was first */
  return known;
}

/* Writes without the lock of the memfd's inode, which a punch holds while it
 * goes through the mappings of all processes.  False: nothing is written; or
 * the hole has memory, and the caller writes it in another way.
 *
 * If the mirror is retired meanwhile, the hole may be punched before the copy,
 * which then makes the memory again.  With strict overcommit that could be a
 * SIGBUS, so a solid mirror is not written in this way. */
static bool write_beside_punches(struct mirror *m, const char *from, size_t len,
                                 off_t at) {
  uint8_t *to = map_writable(m);
  return to && copy_to_holes(to + at, from, len) == 0;
}

void mirror_begin_slow_punches(struct mirror *m) {
  __atomic_fetch_add(&m->n_slow_punches, 1, __ATOMIC_RELAXED);
}

void mirror_end_slow_punches(struct mirror *m) {
  __atomic_fetch_sub(&m->n_slow_punches, 1, __ATOMIC_RELAXED);
}

/* Relaxed: both ways of writing are right at any time. */
static bool is_punched_slowly(const struct mirror *m) {
  return __atomic_load_n(&m->n_slow_punches, __ATOMIC_RELAXED) > 0;
}

int mirror_write(struct mirror *m, uint64_t page, const void *bytes,
                 size_t len) {
  const char *from = bytes;
  off_t at = (off_t)(page << m->page_shift);
  int r = survives_file_limit ? 0 : check_file_size((uint64_t)at + len);
  if (r < 0)
    return r;
  if (m->is_huge) {
    size_t n = write_huge_pages(m, from, len, at);
    from += n;
    at += (off_t)n;
    len -= n;
  }
  if (len > 0 && mirror_is_shmem_huge())
    return write_mapped(m, from, len, at);
  if (len > 0 && !m->is_solid && is_punched_slowly(m) &&
      write_beside_punches(m, from, len, at))
    return 0;
  while (len > 0) {
    ssize_t n = pwrite(m->pages_fd, from, len, at);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return -errno;
    from += n;
    at += n;
    len -= (size_t)n;
  }
  return 0;
}

static int punch(int fd, off_t at, off_t len) {
  int r;
  do
    r = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, len);
  while (r < 0 && errno == EINTR);
  return r < 0 ? -errno : 0;
}

int mirror_punch(struct mirror *m, uint64_t page, uint64_t count) {
  return punch(m->pages_fd, (off_t)(page << m->page_shift),
               (off_t)(count << m->page_shift));
}

int mirror_punch_states(struct mirror *m, uint64_t first, uint64_t end) {
  off_t len = (off_t)round_up(end - first, 4096);
  int r = punch(m->accessed_fd, (off_t)first, len);
  return r < 0 ? r : punch(m->states_fd, (off_t)(STATES_OFFSET + first), len);
}

bool mirror_next_data(const struct mirror *m, uint64_t *first, uint64_t *end) {
  off_t from = lseek(m->pages_fd, (off_t)(*first << m->page_shift), SEEK_DATA);
  if (from < 0)
    return false;
  off_t to = lseek(m->pages_fd, from, SEEK_HOLE);
  if (to < 0)
    return false;
  *first = (uint64_t)from >> m->page_shift;
  *end = ((uint64_t)to + mirror_page_size(m) - 1) >> m->page_shift;
  if (*end > m->n_pages)
    *end = m->n_pages;
  return *first < *end;
}

static uint64_t allocated(int fd) {
  struct stat st;
  return fstat(fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

uint64_t mirror_page_bytes(const struct mirror *m) {
  return allocated(m->pages_fd);
}

uint64_t mirror_meta_bytes(const struct mirror *m) {
  return allocated(m->states_fd) + allocated(m->accessed_fd);
}

uint64_t mirror_meta_len(const struct mirror *m) {
  return m->states_len + m->accessed_len;
}

/* The first page from `page` on whose byte, at `offset` plus its number, is in
 * memory. */
static uint64_t next_bytes(const struct mirror *m, int fd, uint64_t offset,
                           uint64_t page) {
  if (page >= m->n_pages)
    return m->n_pages;
  off_t at = lseek(fd, (off_t)(offset + page), SEEK_DATA);
  if (at < 0) /* ENXIO: only a hole is left */
    return errno == ENXIO ? m->n_pages : page;
  uint64_t next = (uint64_t)at - offset;
  return next < m->n_pages ? next : m->n_pages;
}

uint64_t mirror_next_states(const struct mirror *m, uint64_t page) {
  uint64_t a = next_bytes(m, m->states_fd, STATES_OFFSET, page);
  uint64_t b = next_bytes(m, m->accessed_fd, 0, page);
  return a < b ? a : b;
}

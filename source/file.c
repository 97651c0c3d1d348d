/* Any number of threads may read one struct file_source at once.  They take a
 * lock only to look for holes.  These rules make that right:
 *
 *   - The version is taken before the first read, and compared after every
 *     read.  A change between the two fails the read.
 *   - read_at is set before the first byte is read, so no byte is older than it
 *     says.
 *   - dontcache, no_ring_direct, n_direct, the skips and has_holes choose
 *     between ways of reading that return the same bytes.  A thread that loads
 *     an old value loses time. */
#include "source/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/container_of.h"
#include "base/fd.h"
#include "base/format.h"
#include "base/lock.h"
#include "source/beneath.h"
#include "source/ring.h"
#include "source/version.h"
#include "source/zero_map.h"

#ifndef RWF_DONTCACHE
#define RWF_DONTCACHE 0x80 /* Linux 6.14 */
#endif

enum {
  DIRECT_MIN_LEN = 64 << 10,
  DIRECT_ALIGN = 4096, /* no disk asks for more */
  DIRECT_RUN = 15,     /* so one long read in 16 asks the kernel: read_long() */
  RING_RUN = 63,       /* so one short one in 64 does: start_direct() */
  RING_MAX_SKIPS = 64,
};

/* How many reads to make in another way after a read that a ring could not
 * make, and how many of them are still to come.  Relaxed: two threads that
 * count at once may lose a step. */
struct skips {
  atomic_uint n, n_left;
};

/* Times are in nanoseconds of CLOCK_BOOTTIME, which also counts while the host
 * sleeps: bytes that were read before the sleep age meanwhile. */
struct file_source {
  struct source base;
  struct version version;
  int64_t settles_at; /* when `version` is settled; 0: it was from the start.
                         Bytes read before may be of another content. */
  int64_t rests_at;   /* when it is at rest; 0: it was from the start */
  int64_t max_age_ns; /* how long bytes that were read are valid; 0: for ever */
  bool doubts_writers;
  atomic_bool has_writer;  /* version_has_writer(), as of the last check.
                              Relaxed: a read that misses a change of it is
                              checked by the next reopen() */
  atomic_bool lost_writer; /* there was one, and something was read beside it.
                              Relaxed; never set back to false */
  _Atomic int64_t read_at; /* when the first read began; 0: there was none.
                              Relaxed: it is set once, and orders no other
                              store. */
  int fd;
  int writes_fd; /* version_open_writes() of it */
  enum file_reading how;
  atomic_bool dontcache;      /* relaxed: it goes to false once, for good */
  int direct_fd;              /* the same file, with O_DIRECT; or -1 */
  bool is_for_ring;           /* direct reads of it need no thread that waits */
  atomic_bool no_ring_direct; /* its file system refuses direct reads by a ring.
                                 Relaxed: it goes to true once, for good */
  atomic_uint n_direct; /* how many reads to make directly before the kernel is
                            asked again.  Relaxed: two threads that count down
                            at once may lose a step */
  struct skips ring_skips;  /* after a direct read: no read goes to a ring */
  struct skips begun_skips; /* after one that the kernel had begun: no such */
  atomic_bool has_holes;    /* relaxed: it goes to false once, for good */
  pthread_mutex_t holes_lock;
  struct zero_map holes; /* guarded by holes_lock: the file system's answers */
  int64_t holes_since;   /* likewise: no answer is older than this */
  uint64_t n_forgotten;  /* likewise: how often `holes` was emptied */
  size_t directory_len;  /* the file is opened only beneath this part of the
                            path; 0: wherever the path leads */
  char path[];           /* relative if the directory had no absolute path */
};

/* Where a file is: see struct file_source. */
struct where {
  const char *path;
  size_t directory_len;
};

static struct file_source *file_of(struct source *src) {
  return (struct file_source *)src;
}

static int64_t now_ns(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---- Reading ------------------------------------------------------------- */

/* Every read calls this before it reads.  Two first reads may call it at once;
 * either time is then before both of them read. */
static void note_read(struct file_source *f) {
  int64_t never = 0;
  if (!atomic_load_explicit(&f->read_at, memory_order_relaxed))
    atomic_compare_exchange_strong_explicit(
        &f->read_at, &never, now_ns(CLOCK_BOOTTIME), memory_order_relaxed,
        memory_order_relaxed);
}

/* How long bytes that were read are valid; 0: for ever. */
static int64_t max_age_ns(const struct file_source *f) {
  const int64_t with_writer = INT64_C(2000000000);
  return atomic_load_explicit(&f->has_writer, memory_order_relaxed)
             ? with_writer
             : f->max_age_ns;
}

/* Whether bytes have to be read again although the version is the same.  That
 * is so if they were read before the version had settled, and it has settled by
 * now; if a writer that was there when they were read is gone; or if they are
 * too old. */
static bool is_due(const struct file_source *f) {
  int64_t read_at = atomic_load_explicit(&f->read_at, memory_order_relaxed);
  int64_t max_age = max_age_ns(f);
  if (atomic_load_explicit(&f->lost_writer, memory_order_relaxed))
    return true;
  if (!read_at || (read_at >= f->settles_at && !max_age))
    return false;
  int64_t now = now_ns(CLOCK_BOOTTIME);
  return (read_at < f->settles_at && now >= f->settles_at) ||
         (max_age && now - read_at >= max_age);
}

/* preadv2(2) with one buffer.  Without RWF_DONTCACHE once the kernel or the
 * file system has refused that. */
static ssize_t read_some(struct file_source *f, uint64_t offset, void *buf,
                         size_t len, int flags) {
  struct iovec v = {buf, len};
  if (atomic_load_explicit(&f->dontcache, memory_order_relaxed)) {
    ssize_t n = preadv2(f->fd, &v, 1, (off_t)offset, flags | RWF_DONTCACHE);
    /* The refused flag may also be RWF_NOWAIT.  The caller then calls read(),
     * which has no other flag. */
    if (n >= 0 || errno != EOPNOTSUPP || flags)
      return n;
    /* From now on the kernel keeps what is read, so it may read ahead. */
    atomic_store_explicit(&f->dontcache, false, memory_order_relaxed);
    posix_fadvise(f->fd, 0, 0, POSIX_FADV_NORMAL);
  }
  return flags ? preadv2(f->fd, &v, 1, (off_t)offset, flags)
               : pread(f->fd, buf, len, (off_t)offset);
}

static int read_all(struct file_source *f, uint64_t offset, char *buf,
                    size_t len) {
  while (len > 0) {
    ssize_t n = read_some(f, offset, buf, len, 0);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return -errno;
    if (n == 0) /* shorter than it was */
      return -ESTALE;
    buf += n;
    offset += (uint64_t)n;
    len -= (size_t)n;
  }
  return 0;
}

/* Checks the version after a read, whose result is `r`.  A change that comes
 * after this check comes after the read, so it is not in the bytes. */
static int check_version(const struct file_source *f, int r) {
  struct version now;
  int s = version_of(f->fd, f->writes_fd, &now);
  if (s < 0)
    return s;
  /* If earlier bytes are due, the image must not mix them with these. */
  if (!version_same(&now, &f->version) || is_due(f))
    return -ESTALE;
  /* The file is shorter than its version says, and the version is the same: so
   * the kernel or the file system is wrong. */
  return r == -ESTALE ? -EIO : 0;
}

/* Makes a long read with O_DIRECT, which costs less CPU time and leaves nothing
 * in the kernel's page cache.  But bytes that are in that cache come faster
 * from there.  So the first long read asks the kernel with RWF_NOWAIT.  If the
 * bytes were not in its cache, the next DIRECT_RUN long reads are direct, and
 * then one asks again.  RWF_NOWAIT makes the kernel begin to read; so this read
 * is left to read_all(), which waits for the kernel, and a direct read would
 * make the disk read the bytes twice.
 *
 * Returns how many bytes it has read; the caller reads the rest with
 * read_all(). */
static size_t read_long(struct file_source *f, uint64_t offset, char *buf,
                        size_t len) {
  unsigned left = atomic_load_explicit(&f->n_direct, memory_order_relaxed);
  bool ask = left == 0;
  ssize_t n = ask ? read_some(f, offset, buf, len, RWF_NOWAIT)
                  : pread(f->direct_fd, buf, len, (off_t)offset);
  if (ask && n != (ssize_t)len)
    left = DIRECT_RUN;
  else if (ask || n != (ssize_t)len) /* in the cache; or O_DIRECT failed */
    left = 0;
  else
    left--;
  atomic_store_explicit(&f->n_direct, left, memory_order_relaxed);
  return n > 0 ? (size_t)n : 0;
}

/* ---- Holes --------------------------------------------------------------- */

/* How long an answer of the file system about holes is remembered.
 *
 * A write(2) moves the stamps of the file when it begins, and may fill a hole
 * later.  A read that runs beside it returns the bytes of its moment.  But a
 * remembered hole would hide bytes that are written afterwards, and the version
 * would not show it.  So the source remembers no hole before the version is at
 * rest, because until then a write is likely to be under way.  A write that
 * takes even longer hides its bytes for this time at most. */
#define MAX_HOLES_AGE_NS INT64_C(2000000000)

/* A file whose size is fully allocated has no holes, or too few to be worth a
 * system call per read.  A device has none. */
static bool may_have_holes(int fd) {
  struct stat st;
  return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
         (uint64_t)st.st_blocks * 512 < (uint64_t)st.st_size;
}

static bool has_holes(const struct file_source *f) {
  return atomic_load_explicit(&f->has_holes, memory_order_relaxed);
}

/* The first offset for which `holes` has no answer, and how often `holes` had
 * been emptied then.  The file system is asked without the lock; if `holes` is
 * emptied meanwhile, the answer is older than that, and is not stored. */
struct hole_question {
  uint64_t at;
  uint64_t n_forgotten;
};

static void forget_holes_locked(struct file_source *f) {
  lock_assert_held(&f->holes_lock);
  zero_map_fini(&f->holes);
  f->n_forgotten++;
}

static enum zero_answer look_for_hole(struct file_source *f, uint64_t begin,
                                      uint64_t end, struct hole_question *q) {
  int64_t now = now_ns(CLOCK_BOOTTIME);
  pthread_mutex_lock(&f->holes_lock);
  if (now - f->holes_since >= MAX_HOLES_AGE_NS) {
    forget_holes_locked(f);
    f->holes_since = now;
  }
  enum zero_answer answer = zero_map_look(&f->holes, begin, end, &q->at);
  q->n_forgotten = f->n_forgotten;
  pthread_mutex_unlock(&f->holes_lock);
  return answer;
}

/* The offset of the first data at or after `from`, or the size if there is
 * none.  It moves the file offset of `fd`, which no other function uses.
 * Negative: the file system cannot tell, and is not asked again. */
static off_t find_data(struct file_source *f, uint64_t from) {
  off_t at = lseek(f->fd, (off_t)from, SEEK_DATA);
  if (at < 0 && errno == ENXIO)
    at = (off_t)f->base.size;
  if (at < 0)
    atomic_store_explicit(&f->has_holes, false, memory_order_relaxed);
  return at;
}

/* Asks the file system whether a hole or data begins at `q->at`, and where it
 * ends, and stores the answer.  A file system without holes says that there is
 * data up to the end.  False: nothing was stored, because the file system
 * cannot tell, `holes` was emptied meanwhile, or there is no memory. */
static bool ask_at(struct file_source *f, const struct hole_question *q) {
  uint64_t at = q->at;
  off_t end = find_data(f, at);
  bool is_zero = end > (off_t)at;
  if (end >= 0 && !is_zero)
    end = lseek(f->fd, (off_t)at, SEEK_HOLE);
  if (end <= (off_t)at) {
    atomic_store_explicit(&f->has_holes, false, memory_order_relaxed);
    return false;
  }
  pthread_mutex_lock(&f->holes_lock);
  bool is_noted = f->n_forgotten == q->n_forgotten &&
                  zero_map_add(&f->holes, at, (uint64_t)end, is_zero);
  pthread_mutex_unlock(&f->holes_lock);
  return is_noted;
}

static bool is_at_rest(const struct file_source *f) {
  return !f->rests_at || now_ns(CLOCK_BOOTTIME) >= f->rests_at;
}

/* Whether a range is a hole.  May wait for the file system.
 *
 * The loop ends: each turn stores an answer for at least one more byte of the
 * range, or ends it. */
static bool is_hole(struct file_source *f, uint64_t offset, size_t len) {
  enum zero_answer answer;
  struct hole_question q;
  if (!has_holes(f))
    return false;
  if (!is_at_rest(f))
    return find_data(f, offset) >= (off_t)(offset + len);
  do
    answer = look_for_hole(f, offset, offset + len, &q);
  while (answer == ZERO_UNKNOWN && ask_at(f, &q));
  return answer == ZERO_ALL;
}

/* Ends the read of a hole.  The version is checked after the hole was found, as
 * it is after bytes were read. */
static int end_hole(const struct file_source *f) {
  int r = check_version(f, 0);
  return r < 0 ? r : SOURCE_ZEROS;
}

/* ---- Reads --------------------------------------------------------------- */

static bool is_aligned(uint64_t offset, const void *buf, size_t len) {
  return ((offset | (uintptr_t)buf | len) & (DIRECT_ALIGN - 1)) == 0;
}

static bool is_for_direct(const struct file_source *f, uint64_t offset,
                          const void *buf, size_t len) {
  return f->direct_fd >= 0 && len >= DIRECT_MIN_LEN &&
         is_aligned(offset, buf, len);
}

static int file_read(struct source *src, uint64_t offset, void *buf,
                     size_t len) {
  struct file_source *f = file_of(src);
  note_read(f);
  if (is_hole(f, offset, len))
    return end_hole(f);
  size_t n =
      is_for_direct(f, offset, buf, len) ? read_long(f, offset, buf, len) : 0;
  int r = read_all(f, offset + n, (char *)buf + n, len - n);
  if (r < 0 && r != -ESTALE)
    return r;
  return check_version(f, r);
}

/* ---- By a ring ----------------------------------------------------------- */

struct read_by_ring {
  struct ring_read read;
  struct file_source *f;
  struct source_read *asked;
};

/* Whether to skip this read. */
static bool skips_take(struct skips *s) {
  unsigned left = atomic_load_explicit(&s->n_left, memory_order_relaxed);
  if (left > 0)
    atomic_store_explicit(&s->n_left, left - 1, memory_order_relaxed);
  return left > 0;
}

/* After a read that was not skipped.  One that the ring could not make doubles
 * the number of reads that do not ask it: the disk may be slow, or broken. */
static void skips_note(struct skips *s, bool could) {
  unsigned n = atomic_load_explicit(&s->n, memory_order_relaxed);
  if (could && n == 0)
    return;
  n = could ? 0 : n == 0 ? 1 : n < RING_MAX_SKIPS ? 2 * n : n;
  atomic_store_explicit(&s->n, n, memory_order_relaxed);
  atomic_store_explicit(&s->n_left, n, memory_order_relaxed);
}

static bool may_use_ring(struct file_source *f, const struct source_read *r) {
  return r->ring && f->is_for_ring && is_aligned(r->offset, r->buf, r->len) &&
         !skips_take(&f->ring_skips);
}

/* A file system that does not support such a read refuses all of them. */
static void note_direct_end(struct file_source *f, ssize_t n, bool could) {
  if (n == -EOPNOTSUPP || n == -EINVAL)
    atomic_store_explicit(&f->no_ring_direct, true, memory_order_relaxed);
  else
    skips_note(&f->ring_skips, could);
}

/* One check is good for neighbours of one turn: see K3 in ring.h. */
static int check_in_turn(const struct file_source *f, struct ring *ring) {
  if (ring->checked != f) {
    ring->checked_status = check_version(f, 0);
    ring->checked = f;
  }
  return ring->checked_status;
}

/* A short read, an error, and a read that would have had to wait: read() can
 * tell them apart, so it reads again. */
static void ring_ended(struct ring_read *read, ssize_t n) {
  struct read_by_ring *b = container_of(read, struct read_by_ring, read);
  struct source_read *asked = b->asked;
  bool could = n == (ssize_t)asked->len;
  if (read->fd == b->f->direct_fd)
    note_direct_end(b->f, n, could);
  else
    skips_note(&b->f->begun_skips, could);
  asked->status = could ? check_in_turn(b->f, asked->ring) : SOURCE_UNREAD;
  free(b);
  asked->done(asked);
}

/* False: the ring is full, or there is no memory. */
static bool give_to_ring(struct file_source *f, struct source_read *r, int fd,
                         int flags) {
  struct read_by_ring *b = malloc(sizeof *b);
  if (!b)
    return false;
  *b = (struct read_by_ring){.read = {.fd = fd,
                                      .flags = flags,
                                      .offset = r->offset,
                                      .buf = r->buf,
                                      .len = r->len,
                                      .ended = ring_ended},
                             .f = f,
                             .asked = r};
  bool given = ring_give(r->ring, &b->read);
  if (!given)
    free(b);
  return given;
}

/* A kernel without RWF_DONTCACHE reads ahead, and a direct read would go past
 * what it has read ahead. */
static bool may_ring_direct(const struct file_source *f) {
  return atomic_load_explicit(&f->dontcache, memory_order_relaxed) &&
         !atomic_load_explicit(&f->no_ring_direct, memory_order_relaxed);
}

/* Reads past the kernel's memory, unless the kernel is to be asked: see
 * read_long().  With RWF_NOWAIT, a read that has to wait before it reaches the
 * disk ends with EAGAIN.  So a disk that hangs takes threads of the pool, and
 * none that other images need. */
static bool start_direct(struct file_source *f, struct source_read *r) {
  unsigned left = atomic_load_explicit(&f->n_direct, memory_order_relaxed);
  if (left == 0 || !may_ring_direct(f) ||
      !give_to_ring(f, r, f->direct_fd, RWF_NOWAIT))
    return false;
  atomic_store_explicit(&f->n_direct, left - 1, memory_order_relaxed);
  return true;
}

/* The kernel has begun to read it into its memory.  If such reads fail, the
 * next ones go the way of a thread without a ring, which tries less and less
 * often too (J3 in fill_dispatch.h). */
static bool start_begun(struct file_source *f, struct source_read *r) {
  bool dontcache = atomic_load_explicit(&f->dontcache, memory_order_relaxed);
  atomic_store_explicit(&f->n_direct, RING_RUN, memory_order_relaxed);
  return !skips_take(&f->begun_skips) &&
         give_to_ring(f, r, f->fd, dontcache ? RWF_DONTCACHE : 0);
}

/* ---- Starts -------------------------------------------------------------- */

/* Reads what the kernel has in memory.  RWF_NOWAIT makes the kernel begin to
 * read the rest.  So the disk gets all misses of the thread at once, and the
 * ring, the next start() or read() finds the bytes.  A file system without
 * RWF_NOWAIT gives BLOCKS. */
static enum source_outcome start_read(struct file_source *f,
                                      struct source_read *r) {
  bool by_ring = may_use_ring(f, r);
  if (by_ring && start_direct(f, r))
    return SOURCE_PENDING;
  ssize_t n = read_some(f, r->offset, r->buf, r->len, RWF_NOWAIT);
  if (n < 0 && errno != EAGAIN)
    return SOURCE_BLOCKS; /* read() finds the error again, and returns it */
  if (n != (ssize_t)r->len)
    return by_ring && start_begun(f, r) ? SOURCE_PENDING : SOURCE_RETRY;
  r->status = check_version(f, 0);
  return SOURCE_DONE;
}

/* start() must not ask the file system about holes, because that may wait.  It
 * uses the answers that read() has stored. */
static enum source_outcome file_start(struct source *src,
                                      struct source_read *r) {
  struct file_source *f = file_of(src);
  struct hole_question q;
  enum zero_answer hole = ZERO_NOT;
  if (has_holes(f))
    hole = is_at_rest(f) ? look_for_hole(f, r->offset, r->offset + r->len, &q)
                         : ZERO_UNKNOWN;
  if (hole == ZERO_UNKNOWN || (hole == ZERO_NOT && r->len > SOURCE_MAX_COPY))
    return SOURCE_BLOCKS;
  note_read(f);
  if (hole == ZERO_ALL) {
    r->status = end_hole(f);
    return SOURCE_DONE;
  }
  return start_read(f, r);
}

static void file_advise(struct source *src, uint64_t offset, uint64_t len) {
  posix_fadvise(file_of(src)->fd, (off_t)offset, (off_t)len,
                POSIX_FADV_WILLNEED);
}

static void file_forget(struct source *src) {
  struct file_source *f = file_of(src);
  pthread_mutex_lock(&f->holes_lock);
  forget_holes_locked(f);
  pthread_mutex_unlock(&f->holes_lock);
}

/* ---- Opening ------------------------------------------------------------- */

/* A source that was made half way has -1 for what was not opened. */
static void file_free(struct file_source *f) {
  if (f->direct_fd >= 0)
    close(f->direct_fd);
  if (f->writes_fd >= 0)
    close(f->writes_fd);
  if (f->fd >= 0)
    close(f->fd);
  zero_map_fini(&f->holes);
  pthread_mutex_destroy(&f->holes_lock);
  free(f);
}
CLEANUP_FUNCTION(struct file_source *, file_free)

static void file_close(struct source *src) { file_free(file_of(src)); }

static const struct source_ops file_ops;

static struct where where_is(const struct file_source *f) {
  return (struct where){f->path, f->directory_len};
}

/* Opens a path.  Returns a descriptor, or a negative errno. */
static int open_path(const struct where *at, int flags) {
  if (!at->directory_len) {
    int fd = fd_above_std(open(at->path, flags | O_CLOEXEC));
    return fd < 0 ? -errno : fd;
  }
  char directory[PATH_MAX];
  snprintf(directory, sizeof directory, "%.*s", (int)at->directory_len,
           at->path);
  CLEANUP(cleanup_close) int beneath = beneath_open_directory(directory);
  if (beneath < 0)
    return beneath;
  return beneath_open(beneath, at->path + at->directory_len + 1, flags);
}

/* Opens the very file that `fd` is open on, whatever its path names by now.
 * Returns as open_path(); -ENOENT: there is no /proc. */
static int open_again(int fd, int flags) {
  char self[40];
  snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
  int again = fd_above_std(open(self, flags | O_CLOEXEC));
  return again < 0 ? -errno : again;
}

/* Finds out when the version is settled.  It waits for that if it is a matter
 * of a tick of the kernel's clock, because bytes that are read before are read
 * twice.  It does not wait for a clock whose step is a second or more, nor for
 * a process that writes all the time. */
static int settle(struct file_source *f) {
  enum {
    MAX_WAIT_NS = 20000000, /* the longest tick, of CONFIG_HZ=100, is 10 ms */
    MAX_VERSIONS = 2,       /* as many changes are seen before it gives up */
    MAX_WAITS = 20,         /* a bound, because a signal ends a wait early */
  };
  bool foreign = version_is_foreign(f->fd);
  struct timespec tick, now;
  clock_getres(CLOCK_REALTIME_COARSE, &tick);
  for (int n_waits = 0, n_versions = 0;; n_waits++) {
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    int64_t ns = version_unsettled_ns(&f->version, foreign, now, tick.tv_nsec);
    f->settles_at = ns ? now_ns(CLOCK_BOOTTIME) + ns : 0;
    if (ns == 0 || ns > MAX_WAIT_NS || n_versions == MAX_VERSIONS ||
        n_waits == MAX_WAITS)
      return 0;
    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
    struct version before = f->version;
    int r = version_of(f->fd, f->writes_fd, &f->version);
    if (r < 0)
      return r;
    n_versions += !version_same(&f->version, &before);
  }
}

/* Takes over what the source before it knows of the version.  A version that
 * was not settled for the one before is not settled here either. */
static void inherit(struct file_source *f, const struct file_source *before) {
  f->max_age_ns = before->max_age_ns;
  f->doubts_writers = before->doubts_writers;
  if (before->settles_at > now_ns(CLOCK_BOOTTIME))
    f->settles_at = before->settles_at;
}

static void look_for_writers(struct file_source *f) {
  bool is = f->doubts_writers && version_has_writer(f->fd);
  bool was = atomic_exchange_explicit(&f->has_writer, is, memory_order_relaxed);
  if (was && !is && atomic_load_explicit(&f->read_at, memory_order_relaxed))
    atomic_store_explicit(&f->lost_writer, true, memory_order_relaxed);
}

static int64_t find_rest(const struct file_source *f) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  int64_t ns = version_unrested_ns(&f->version, version_is_foreign(f->fd), now);
  return ns ? now_ns(CLOCK_BOOTTIME) + ns : 0;
}

/* Takes the version, and finds out when it is settled and at rest.  It looks
 * for writers before anything is read: a writer that is gone by then cannot
 * change what is read later. */
static int identify(struct file_source *f, const struct file_source *before) {
  f->writes_fd = version_open_writes(f->fd);
  int r = version_of(f->fd, f->writes_fd, &f->version);
  if (before)
    inherit(f, before);
  look_for_writers(f);
  /* If the source before it had this version already, the version is settled
   * earlier than its stamps alone can tell. */
  if (r == 0 && !(before && version_same(&f->version, &before->version)))
    r = settle(f);
  if (r == 0)
    f->rests_at = find_rest(f);
  return r;
}

static struct file_source *alloc(const struct where *at,
                                 enum file_reading how) {
  size_t path_len = strlen(at->path) + 1;
  struct file_source *f = calloc(1, sizeof *f + path_len);
  if (!f)
    return NULL;
  memcpy(f->path, at->path, path_len);
  f->directory_len = at->directory_len;
  f->base.ops = &file_ops;
  f->fd = f->writes_fd = f->direct_fd = -1;
  f->how = how;
  atomic_init(&f->dontcache, how == FILE_DONTCACHE);
  atomic_init(&f->n_direct, 0);
  atomic_init(&f->no_ring_direct, false);
  atomic_init(&f->read_at, 0);
  atomic_init(&f->has_writer, false);
  atomic_init(&f->lost_writer, false);
  atomic_init(&f->has_holes, false);
  lock_init(&f->holes_lock);
  return f;
}

/* Makes a source over `fd`, which it owns, also on failure; `before` is the
 * source that the new one succeeds, or NULL. */
static int make(const struct where *at, int fd, enum file_reading how,
                const struct file_source *before, struct source **out) {
  CLEANUP(cleanup_close) int ours = fd;
  CLEANUP(file_freep) struct file_source *f = alloc(at, how);
  if (!f)
    return -ENOMEM;
  f->fd = steal_fd(&ours);
  int r = identify(f, before);
  if (r < 0)
    return r;
  if (how == FILE_DONTCACHE) {
    f->direct_fd = open_again(fd, O_RDONLY | O_DIRECT | O_NONBLOCK);
    /* This turns the kernel's readahead off, which makes large folios.
     * RWF_DONTCACHE drops a whole folio after a read of a part of it, and the
     * disk would have to read the rest again. */
    posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
    /* Some file systems make a direct read through the kernel's memory. */
    if (f->direct_fd >= 0)
      posix_fadvise(f->direct_fd, 0, 0, POSIX_FADV_RANDOM);
    f->is_for_ring = f->direct_fd >= 0 && !version_is_foreign(fd);
  }
  f->base.size = f->version.size;
  atomic_init(&f->has_holes, may_have_holes(fd));
  *out = &STEAL(f)->base;
  return 0;
}

/* Opens a file or a device, and nothing else.  It looks at the type through an
 * O_PATH descriptor first, because opening a FIFO might wait for a writer, and
 * then opens what it looked at, because the path may lead elsewhere by then.
 * O_NONBLOCK in place of that would make the open fail while another program
 * has a lease on the file (fcntl(2)).  Without /proc there is no other way. */
static int open_readable(const struct where *at) {
  CLEANUP(cleanup_close) int node = open_path(at, O_PATH);
  struct stat st;
  if (node < 0)
    return node;
  if (fstat(node, &st) < 0)
    return -errno;
  if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
    return S_ISDIR(st.st_mode) ? -EISDIR : -ENODEV;
  int fd = open_again(node, O_RDONLY);
  return fd == -ENOENT ? open_path(at, O_RDONLY | O_NONBLOCK) : fd;
}

/* ---- Opening again ------------------------------------------------------- */

/* Makes a source of the file that is open already, if its version has changed
 * or something of it is due. */
static int reopen_held(struct file_source *f, struct source **out) {
  struct version now;
  look_for_writers(f); /* first, so the version shows what they wrote */
  int r = version_of(f->fd, f->writes_fd, &now);
  if (r < 0 || (version_same(&now, &f->version) && !is_due(f)))
    return r;
  int fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 3);
  struct where at = where_is(f);
  return fd < 0 ? -errno : make(&at, fd, f->how, f, out);
}

/* Whether the path names another file than the one that is open.  It opens no
 * file, because it is called about once a second for each image. */
static bool path_is_of_another(const struct file_source *f) {
  bool same = false;
  struct where at = where_is(f);
  if (f->path[0] != '/')
    return false;
  if (!at.directory_len)
    return version_of_path(f->path, &f->version, &same) < 0 || !same;
  CLEANUP(cleanup_close) int node = open_path(&at, O_PATH);
  return node < 0 || version_of_node(node, &f->version, &same) < 0 || !same;
}

static int file_reopen(struct source *src, struct source **out) {
  struct file_source *f = file_of(src);
  struct source *fresh;
  *out = NULL;
  if (path_is_of_another(f)) {
    struct where at = where_is(f);
    int fd = open_readable(&at);
    if (fd >= 0 && make(&at, fd, f->how, f, &fresh) == 0) {
      if (!version_same(&file_of(fresh)->version, &f->version)) {
        *out = fresh;
        return 0;
      }
      file_close(fresh);
    }
  }
  /* The path may be gone or not known, or the daemon may no longer open it.
   * Then the file that is open is still the image. */
  return reopen_held(f, out);
}

/* ---- For a later process ------------------------------------------------- */

/* Each field has eight bytes, so that there is no padding, whose bytes would be
 * compared too. */
struct file_identity {
  uint64_t dev, ino, size, diskseq, n_writes;
  int64_t mtime_s, mtime_ns, ctime_s, ctime_ns;
  int64_t settles_at, read_at; /* of struct file_source; read_at is not 0 */
};

_Static_assert(sizeof(struct file_identity) <= SOURCE_IDENTITY_MAX, "it fits");

static struct file_identity identity_of(const struct version *v) {
  return (struct file_identity){
      .dev = v->dev,
      .ino = v->ino,
      .size = v->size,
      .diskseq = v->diskseq,
      .n_writes = v->n_writes,
      .mtime_s = v->mtime.tv_sec,
      .mtime_ns = v->mtime.tv_nsec,
      .ctime_s = v->ctime.tv_sec,
      .ctime_ns = v->ctime.tv_nsec,
  };
}

/* Gives no identity while a writer may have changed the file without a change
 * of its version: the next process could not find out how long that was so. */
static void file_identify(struct source *src, struct source_identity *out) {
  struct file_source *f = file_of(src);
  if (atomic_load_explicit(&f->has_writer, memory_order_relaxed) ||
      atomic_load_explicit(&f->lost_writer, memory_order_relaxed))
    return;
  struct file_identity id = identity_of(&f->version);
  /* The time is taken before read_at is loaded: a first read that begins in
   * between is then later than the time that the identity states. */
  int64_t now = now_ns(CLOCK_BOOTTIME);
  id.settles_at = f->settles_at;
  id.read_at = atomic_load_explicit(&f->read_at, memory_order_relaxed);
  if (!id.read_at)
    id.read_at = now;
  memcpy(out->bytes, &id, sizeof id);
  out->len = sizeof id;
}

/* Refuses bytes that were read before the version had settled, or beside a
 * writer.  read_at is copied, so that the bytes keep their age. */
static bool file_resume(struct source *src, const struct source_identity *id) {
  struct file_source *f = file_of(src);
  struct file_identity then, now = identity_of(&f->version);
  if (id->len != sizeof then)
    return false;
  memcpy(&then, id->bytes, sizeof then);
  int64_t read_at = then.read_at;
  if (then.settles_at > read_at || read_at > now_ns(CLOCK_BOOTTIME) ||
      f->settles_at ||
      atomic_load_explicit(&f->has_writer, memory_order_relaxed))
    return false;
  then.settles_at = then.read_at = 0;
  if (memcmp(&then, &now, sizeof now) != 0)
    return false;
  atomic_store_explicit(&f->read_at, read_at, memory_order_relaxed);
  return true;
}

static const struct source_ops file_ops = {
    .kind = "file",
    .read = file_read,
    .start = file_start,
    .reopen = file_reopen,
    .identify = file_identify,
    .resume = file_resume,
    .advise = file_advise,
    .forget = file_forget,
    .close = file_close,
};

char *file_source_absolute(const char *path) {
  char *dir = path[0] == '/' ? NULL : getcwd(NULL, 0), *whole = NULL;
  if (!dir || dir[0] != '/')
    whole = strdup(path);
  else if (asprintf(&whole, "%s/%s", dir, path) < 0)
    whole = NULL;
  free(dir);
  return whole;
}

int file_source_open(const char *path, enum file_reading how,
                     struct source **out) {
  CLEANUP(cleanup_free) char *whole = file_source_absolute(path);
  if (!whole)
    return -ENOMEM;
  int fd = open_readable(&(struct where){.path = path});
  return fd < 0 ? fd : make(&(struct where){.path = whole}, fd, how, NULL, out);
}

int file_source_open_beneath(const char *directory, const char *name,
                             enum file_reading how, struct source **out) {
  char *path;
  if (asprintf(&path, "%s/%s", directory, name) < 0)
    return -ENOMEM;
  struct where at = {path, strlen(directory)};
  int fd = at.directory_len < PATH_MAX ? open_readable(&at) : -ENAMETOOLONG;
  int r = fd < 0 ? fd : make(&at, fd, how, NULL, out);
  free(path);
  return r;
}

const char *file_source_format(struct source *src) {
  char head[FORMAT_PEEK_LEN];
  ssize_t n = read_some(file_of(src), 0, head, sizeof head, 0);
  return n > 0 ? format_of(head, (size_t)n) : NULL;
}

/* ---- A file that cannot be opened yet ------------------------------------ */

static int absent_read(struct source *src, uint64_t offset, void *buf,
                       size_t len) {
  (void)src;
  (void)offset;
  (void)buf;
  (void)len;
  return -EIO; /* its size is 0, so no caller reads it */
}

static int absent_reopen(struct source *src, struct source **out) {
  const struct file_source *f = file_of(src);
  *out = NULL;
  struct where at = where_is(f);
  int fd = open_readable(&at);
  return fd < 0 ? fd : make(&at, fd, f->how, f, out);
}

static const struct source_ops absent_ops = {
    .kind = "file",
    .read = absent_read,
    .reopen = absent_reopen,
    .close = file_close,
};

int file_source_open_later(const char *path, enum file_reading how,
                           struct source **out) {
  CLEANUP(cleanup_free) char *whole = file_source_absolute(path);
  struct where at = {.path = whole};
  struct file_source *f = whole ? alloc(&at, how) : NULL;
  if (!f)
    return -ENOMEM;
  f->base.ops = &absent_ops;
  *out = &f->base;
  return 0;
}

void file_source_set_max_age(struct source *src, unsigned seconds) {
  file_of(src)->max_age_ns = (int64_t)seconds * 1000000000;
}

void file_source_doubt_writers(struct source *src) {
  file_of(src)->doubts_writers = true;
  look_for_writers(file_of(src));
}

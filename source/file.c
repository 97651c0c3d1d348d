#include "source/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fd.h"

#ifndef RWF_DONTCACHE
#define RWF_DONTCACHE 0x80 /* Linux 6.14 */
#endif

enum {
  DIRECT_MIN_LEN = 64 << 10,
  DIRECT_ALIGN = 4096, /* as much as any disk wants */
  DIRECT_RUN = 15,
};

/* What tells one version of a file from another. */
struct version {
  dev_t dev;
  ino_t ino;
  uint64_t size;
  struct timespec mtime, ctime; /* 0 for a block device: opening it, or writing
                                   elsewhere, may change them */
};

struct file_source {
  struct source base;
  struct version version;
  int fd;
  enum file_reading how;
  atomic_bool dontcache; /* relaxed: it goes to false once, for good */
  int direct_fd;         /* the same file, with O_DIRECT; or -1 */
  atomic_uint n_direct;  /* relaxed: how many long reads to make directly
                            before the kernel is asked again what it has */
  char path[];           /* relative if it is not known from the root on */
};

static int make(const char *path, int fd, enum file_reading how,
                struct source **out);

static struct file_source *file_of(struct source *src) {
  return (struct file_source *)src;
}

static bool same_time(struct timespec a, struct timespec b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool same_version(const struct version *a, const struct version *b) {
  return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
         same_time(a->mtime, b->mtime) && same_time(a->ctime, b->ctime);
}

/* Of what `st` tells of; `fd` is the same file's.  0 or a negative errno. */
static int version_from(const struct stat *st, int fd, struct version *out) {
  *out = (struct version){.dev = st->st_dev, .ino = st->st_ino};
  if (S_ISBLK(st->st_mode))
    return ioctl(fd, BLKGETSIZE64, &out->size) < 0 ? -errno : 0;
  if (S_ISDIR(st->st_mode))
    return -EISDIR;
  if (!S_ISREG(st->st_mode))
    return -ENODEV;
  out->size = (uint64_t)st->st_size;
  out->mtime = st->st_mtim;
  /* A rename or a link changes the ctime too, not the content; but a writer
   * can put an mtime back. */
  out->ctime = st->st_ctim;
  return 0;
}

/* 0 or a negative errno. */
static int version_of(int fd, struct version *out) {
  struct stat st;
  return fstat(fd, &st) < 0 ? -errno : version_from(&st, fd, out);
}

/* preadv2(2) with one buffer; where DONTCACHE is not known, without that. */
static ssize_t read_some(struct file_source *f, uint64_t offset, void *buf,
                         size_t len, int flags) {
  struct iovec v = {buf, len};
  if (atomic_load_explicit(&f->dontcache, memory_order_relaxed)) {
    ssize_t n = preadv2(f->fd, &v, 1, (off_t)offset, flags | RWF_DONTCACHE);
    /* With RWF_NOWAIT it may be that, and the read() that follows will tell. */
    if (n >= 0 || errno != EOPNOTSUPP || flags)
      return n;
    /* The kernel keeps what is read: so let it read ahead. */
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

/* After a read, so that what was read is of this version, or of a later one.
 * `r` is the read's result. */
static int check_version(const struct file_source *f, int r) {
  struct version now;
  int s = version_of(f->fd, &now);
  if (s < 0)
    return s;
  if (!same_version(&now, &f->version))
    return -ESTALE;
  /* Short, and yet unchanged: it is our view of it that is wrong. */
  return r == -ESTALE ? -EIO : 0;
}

/* A long read past the kernel's memory: less work for the processor, and
 * nothing is left behind.  But what the kernel has comes faster from there, so
 * it is asked first, now and then while it had not.  The question makes it
 * begin to read; so its answer is waited for, and only the next reads are
 * direct.  Returns how many bytes are read; the rest is for read_all(). */
static size_t read_long(struct file_source *f, uint64_t offset, char *buf,
                        size_t len) {
  unsigned left = atomic_load_explicit(&f->n_direct, memory_order_relaxed);
  bool ask = left == 0;
  ssize_t n = ask ? read_some(f, offset, buf, len, RWF_NOWAIT)
                  : pread(f->direct_fd, buf, len, (off_t)offset);
  if (ask && n != (ssize_t)len)
    left = DIRECT_RUN;
  else if (ask || n != (ssize_t)len) /* it has it; or it cannot be done */
    left = 0;
  else
    left--;
  atomic_store_explicit(&f->n_direct, left, memory_order_relaxed);
  return n > 0 ? (size_t)n : 0;
}

static bool is_for_direct(const struct file_source *f, uint64_t offset,
                          const void *buf, size_t len) {
  return f->direct_fd >= 0 && len >= DIRECT_MIN_LEN &&
         ((offset | (uintptr_t)buf | len) & (DIRECT_ALIGN - 1)) == 0;
}

static int file_read(struct source *src, uint64_t offset, void *buf,
                     size_t len) {
  struct file_source *f = file_of(src);
  size_t n =
      is_for_direct(f, offset, buf, len) ? read_long(f, offset, buf, len) : 0;
  int r = read_all(f, offset + n, (char *)buf + n, len - n);
  if (r < 0 && r != -ESTALE)
    return r;
  return check_version(f, r);
}

/* What the kernel has in memory; a file system that cannot tell says so.  What
 * it has not it begins to read: so the disk has all that is missed at once, and
 * the next try, or a read(), finds it. */
static int file_try_read(struct source *src, uint64_t offset, void *buf,
                         size_t len) {
  struct file_source *f = file_of(src);
  ssize_t n = read_some(f, offset, buf, len, RWF_NOWAIT);
  if (n < 0 && errno != EAGAIN)
    return -errno;
  if (n != (ssize_t)len)
    return -EAGAIN;
  return check_version(f, 0);
}

/* The path may be gone, or no longer ours to open, or not known.  What we hold
 * open is the image then, in whatever version it is by now. */
static int reopen_held(const struct file_source *f, struct source **out) {
  struct version now;
  int r = version_of(f->fd, &now);
  if (r < 0 || same_version(&now, &f->version))
    return r;
  int fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 3);
  if (fd < 0)
    return -errno;
  return make(f->path, fd, f->how, out);
}

/* Whether the path still names the version that we hold open.  Opens nothing:
 * this is asked once a second of every image. */
static bool path_is_held(const struct file_source *f) {
  struct stat st;
  struct version now;
  return f->path[0] == '/' && stat(f->path, &st) == 0 &&
         st.st_dev == f->version.dev && st.st_ino == f->version.ino &&
         version_from(&st, f->fd, &now) == 0 && same_version(&now, &f->version);
}

static int file_reopen(struct source *src, struct source **out) {
  struct file_source *f = file_of(src);
  struct source *fresh;
  *out = NULL;
  if (path_is_held(f))
    return 0;
  if (f->path[0] != '/' || file_source_open(f->path, f->how, &fresh) < 0)
    return reopen_held(f, out);
  if (same_version(&file_of(fresh)->version, &f->version))
    fresh->ops->close(fresh);
  else
    *out = fresh;
  return 0;
}

static void file_advise(struct source *src, uint64_t offset, uint64_t len) {
  posix_fadvise(file_of(src)->fd, (off_t)offset, (off_t)len,
                POSIX_FADV_WILLNEED);
}

static void file_close(struct source *src) {
  struct file_source *f = file_of(src);
  if (f->direct_fd >= 0)
    close(f->direct_fd);
  close(f->fd);
  free(f);
}

static const struct source_ops file_ops = {
    .kind = "file",
    .read = file_read,
    .try_read = file_try_read,
    .reopen = file_reopen,
    .advise = file_advise,
    .close = file_close,
};

/* -1: the file system cannot, or the path is another file's by now. */
static int open_direct(const char *path, const struct version *version) {
  struct version now;
  int fd = fd_above_std(
      open(path, O_RDONLY | O_DIRECT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (fd >= 0 && (version_of(fd, &now) < 0 || !same_version(&now, version))) {
    close(fd);
    fd = -1;
  }
  return fd;
}

/* Makes a source over `fd`, which it owns, also on failure. */
static int make(const char *path, int fd, enum file_reading how,
                struct source **out) {
  size_t path_len = strlen(path) + 1;
  struct file_source *f = calloc(1, sizeof *f + path_len);
  int r = f ? version_of(fd, &f->version) : -ENOMEM;
  if (r < 0) {
    close(fd);
    free(f);
    return r;
  }
  memcpy(f->path, path, path_len);
  f->fd = fd;
  f->how = how;
  atomic_init(&f->dontcache, how == FILE_DONTCACHE);
  atomic_init(&f->n_direct, 0);
  f->direct_fd = how == FILE_DONTCACHE ? open_direct(path, &f->version) : -1;
  /* No readahead: what a read drops are whole folios, and so the rest of a
   * large one would be read again. */
  if (how == FILE_DONTCACHE)
    posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
  f->base.ops = &file_ops;
  f->base.size = f->version.size;
  *out = &f->base;
  return 0;
}

/* The path from the root on, in memory from malloc(3): the process may change
 * its directory.  Links stay what they are, since they may be changed to say
 * what the image is.  A directory that has no path leaves it as it is. */
static char *absolute(const char *path) {
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
  /* O_NONBLOCK: opening a FIFO must not wait for a writer. */
  int fd =
      fd_above_std(open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (fd < 0)
    return -errno;
  char *whole = absolute(path);
  if (!whole) {
    close(fd);
    return -ENOMEM;
  }
  int r = make(whole, fd, how, out);
  free(whole);
  return r;
}

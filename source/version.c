#include "source/version.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fd.h"

#define NS_PER_S INT64_C(1000000000)

/* ---- Files --------------------------------------------------------------- */

static bool same_time(struct timespec a, struct timespec b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

bool version_same(const struct version *a, const struct version *b) {
  return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
         same_time(a->mtime, b->mtime) && same_time(a->ctime, b->ctime) &&
         a->diskseq == b->diskseq && a->n_writes == b->n_writes;
}

static struct version version_of_file(const struct stat *st) {
  return (struct version){
      .dev = st->st_dev,
      .ino = st->st_ino,
      .size = (uint64_t)st->st_size,
      .mtime = st->st_mtim,
      /* A rename or a link changes the ctime too, not the content; but a writer
       * can put an mtime back. */
      .ctime = st->st_ctim,
  };
}

/* ---- Devices ------------------------------------------------------------- */

/* Opens an attribute that sysfs has of a device. */
static int open_attribute(dev_t device, const char *name) {
  char path[80];
  snprintf(path, sizeof path, "/sys/dev/block/%u:%u/%s", major(device),
           minor(device), name);
  return fd_above_std(open(path, O_RDONLY | O_CLOEXEC));
}

/* Reads an attribute from its start.  False: it cannot be read. */
static bool read_attribute(int fd, char *text, size_t len) {
  ssize_t n = fd < 0 ? -1 : pread(fd, text, len - 1, 0);
  if (n <= 0)
    return false;
  text[n] = '\0';
  return true;
}

int version_open_writes(int fd) {
  struct stat st;
  if (fstat(fd, &st) < 0 || !S_ISBLK(st.st_mode))
    return -1;
  return open_attribute(st.st_rdev, "stat");
}

/* The sum of the counts of writes and discards, which changes with each of
 * them.  See the kernel's Documentation/block/stat.rst. */
static uint64_t sum_writes(const char *counts) {
  enum { WRITES = 4, WRITE_SECTORS = 6, DISCARDS = 11, DISCARD_SECTORS = 13 };
  uint64_t sum = 0;
  for (int i = 0; i <= DISCARD_SECTORS; i++) {
    char *end;
    uint64_t n = strtoull(counts, &end, 10);
    if (end == counts) /* an older kernel does not count discards */
      break;
    counts = end;
    if (i == WRITES || i == WRITE_SECTORS || i == DISCARDS ||
        i == DISCARD_SECTORS)
      sum += n;
  }
  return sum;
}

static int version_of_device(int fd, int writes_fd, const struct stat *st,
                             struct version *out) {
  char counts[512];
  /* Both are needed.  The mtime is that of the node that we opened, and changes
   * at a write(2) through this node.  The counts change when the device gets
   * the bytes, through whatever node. */
  *out = (struct version){.dev = st->st_rdev, .mtime = st->st_mtim};
  if (ioctl(fd, BLKGETSIZE64, &out->size) < 0)
    return -errno;
  if (ioctl(fd, BLKGETDISKSEQ, &out->diskseq) < 0)
    out->diskseq = 0;
  if (read_attribute(writes_fd, counts, sizeof counts))
    out->n_writes = sum_writes(counts);
  return 0;
}

/* The number of the medium that the device has now; 0: not known.  Unlike
 * BLKGETDISKSEQ it is not that of the medium which was there at open. */
static uint64_t present_diskseq(dev_t device) {
  char text[32];
  int fd = open_attribute(device, "diskseq");
  if (fd < 0) /* a partition: its disk has it */
    fd = open_attribute(device, "../diskseq");
  uint64_t diskseq =
      read_attribute(fd, text, sizeof text) ? strtoull(text, NULL, 10) : 0;
  if (fd >= 0)
    close(fd);
  return diskseq;
}

static uint64_t present_device_size(dev_t device) {
  char text[32];
  int fd = open_attribute(device, "size");
  uint64_t sectors =
      read_attribute(fd, text, sizeof text) ? strtoull(text, NULL, 10) : 0;
  if (fd >= 0)
    close(fd);
  return sectors * 512; /* sysfs counts 512 bytes for every device */
}

/* ---- Either -------------------------------------------------------------- */

int version_of(int fd, int writes_fd, struct version *out) {
  struct stat st;
  if (fstat(fd, &st) < 0)
    return -errno;
  if (S_ISBLK(st.st_mode))
    return version_of_device(fd, writes_fd, &st, out);
  if (!S_ISREG(st.st_mode))
    return S_ISDIR(st.st_mode) ? -EISDIR : -ENODEV;
  *out = version_of_file(&st);
  return 0;
}

static bool stat_is_of(const struct stat *st, const struct version *v) {
  if (S_ISBLK(st->st_mode)) {
    uint64_t diskseq = present_diskseq(st->st_rdev);
    return v->ino == 0 && v->dev == st->st_rdev &&
           (!diskseq || !v->diskseq || diskseq == v->diskseq);
  }
  struct version now = version_of_file(st);
  return S_ISREG(st->st_mode) && version_same(&now, v);
}

int version_of_path(const char *path, const struct version *v, bool *same) {
  struct stat st;
  if (stat(path, &st) < 0)
    return -errno;
  *same = stat_is_of(&st, v);
  return 0;
}

int version_of_node(int fd, const struct version *v, bool *same) {
  struct stat st;
  if (fstat(fd, &st) < 0)
    return -errno;
  *same = stat_is_of(&st, v);
  return 0;
}

int version_peek_size(int fd, uint64_t *size) {
  struct stat st;
  if (fstat(fd, &st) < 0)
    return -errno;
  if (S_ISBLK(st.st_mode))
    *size = present_device_size(st.st_rdev);
  else if (S_ISREG(st.st_mode))
    *size = (uint64_t)st.st_size;
  else
    return S_ISDIR(st.st_mode) ? -EISDIR : -ENODEV;
  return 0;
}

/* ---- File systems -------------------------------------------------------- */

/* The type of the file system of `fd`, as statfs(2) states it; 0: unknown. */
static uint32_t type_of_fs(int fd) {
  struct statfs fs;
  return fstatfs(fd, &fs) < 0 ? 0 : (uint32_t)fs.f_type;
}

static bool is_of_another_machine(uint32_t fs) {
  switch (fs) {
  case 0:
  case NFS_SUPER_MAGIC:
  case SMB_SUPER_MAGIC:
  case SMB2_SUPER_MAGIC:
  case CIFS_SUPER_MAGIC:
  case V9FS_MAGIC:
  case AFS_SUPER_MAGIC:
  case AFS_FS_MAGIC:
  case CODA_SUPER_MAGIC:
  case FUSE_SUPER_MAGIC:
  case CEPH_SUPER_MAGIC:
    return true;
  }
  return false;
}

bool version_is_foreign(int fd) {
  return is_of_another_machine(type_of_fs(fd));
}

/* ---- Writers ------------------------------------------------------------- */

/* Whether the kernel has pages of the file that it has not written back.  A
 * store through a mapping of such a page moves no stamp.  True if that is
 * unknown. */
static bool has_dirty_pages(int fd, uint32_t fs) {
  /* cachestat(2), Linux 6.5: <linux/mman.h> of Debian 12 lacks it. */
  enum { SYSCALL_CACHESTAT = 451 };
  struct {
    uint64_t offset, len; /* 0: to the end */
  } range = {0};
  struct {
    uint64_t n_cached, n_dirty, n_writeback, n_evicted, n_recently_evicted;
  } pages;
  /* Other file systems may count no page as dirty, as tmpfs does. */
  if (fs != EXT4_SUPER_MAGIC && fs != XFS_SUPER_MAGIC &&
      fs != BTRFS_SUPER_MAGIC)
    return true;
  return syscall(SYSCALL_CACHESTAT, fd, &range, &pages, 0) < 0 ||
         pages.n_dirty + pages.n_writeback > 0;
}

/* The kernel gives a lease for reading only if no process has the file open for
 * writing. */
static bool is_open_for_writing(int fd) {
  if (fcntl(fd, F_SETSIG, SIGURG) < 0)
    return false;
  if (fcntl(fd, F_SETLEASE, F_RDLCK) < 0)
    return errno == EAGAIN;
  fcntl(fd, F_SETLEASE, F_UNLCK);
  return false;
}

bool version_has_writer(int fd) {
  if (!is_open_for_writing(fd))
    return false;
  /* NFS and SMB refuse a lease for reasons of the server's. */
  uint32_t fs = type_of_fs(fd);
  return !is_of_another_machine(fs) && has_dirty_pages(fd, fs);
}

/* ---- Settling ------------------------------------------------------------ */

/* For stamps that the file system keeps in full.  After one tick the clock of
 * the stamps has moved on.  The kernel adjusts the length of a tick a little
 * all the time, so half of a tick is enough to know that it is another one. */
static int64_t fine_unsettled_ns(int64_t age, int64_t tick_ns) {
  return age >= tick_ns / 2 ? 0 : tick_ns - (age > 0 ? age : 0);
}

static int64_t coarse_unsettled_ns(int64_t age) {
  const int64_t grain = 2 * NS_PER_S;
  return age >= grain ? 0 : grain - (age > 0 ? age : 0);
}

/* Whether the file system keeps stamps in full.  A stamp that is a multiple of
 * 10 ms may have been rounded: exFAT keeps 10 ms, ext3 a second, and FAT
 * two. */
static bool stamp_is_fine(struct timespec stamp) {
  return stamp.tv_nsec % 10000000 != 0;
}

/* The age of a stamp.  It is limited to an hour, so that it cannot overflow. */
static int64_t age_ns(struct timespec stamp, struct timespec now) {
  int64_t s = (int64_t)now.tv_sec - stamp.tv_sec;
  if (s > 3600 || s < -3600)
    s = s > 0 ? 3600 : -3600;
  return s * NS_PER_S + (now.tv_nsec - stamp.tv_nsec);
}

/* No program can set the ctime, as it can the mtime. */
static struct timespec stamp_of(const struct version *v) {
  return v->ino ? v->ctime : v->mtime;
}

static int64_t age_of(const struct version *v, bool foreign,
                      struct timespec now) {
  int64_t age = age_ns(stamp_of(v), now);
  /* The clock of another machine is assumed to agree with ours within a
   * minute. */
  return foreign && age < 60 * NS_PER_S ? 0 : age;
}

int64_t version_unsettled_ns(const struct version *v, bool foreign,
                             struct timespec now, int64_t tick_ns) {
  int64_t age = age_of(v, foreign, now);
  return stamp_is_fine(stamp_of(v)) && !foreign
             ? fine_unsettled_ns(age, tick_ns)
             : coarse_unsettled_ns(age);
}

int64_t version_unrested_ns(const struct version *v, bool foreign,
                            struct timespec now) {
  return coarse_unsettled_ns(age_of(v, foreign, now));
}

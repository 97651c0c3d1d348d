/* Versions of a file or a block device.
 *
 * A version is what the kernel says of the content without its being read.  Two
 * contents can have the same version: stamps of a write come from a clock that
 * moves in steps (a tick of the kernel, a second or two on some file systems),
 * and a write in the same step as the one before leaves them as they are.  So a
 * version is *settled* once that clock has moved past its stamp: from then on
 * no write(2) can begin and leave it unchanged.  One that is under way then,
 * and stays so, can: its stamps are of its start.
 *
 * No version tells of stores through a mapping that was written through before
 * (until the kernel has written the page back), nor of a write to a device that
 * another machine makes. */
#ifndef SOURCE_VERSION_H
#define SOURCE_VERSION_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

struct version {
  dev_t dev; /* of a device: itself */
  ino_t ino; /* 0 for a device */
  uint64_t size;
  struct timespec mtime;
  struct timespec ctime; /* 0 for a device: opening one may change it */
  uint64_t diskseq;      /* which medium a device has, as the kernel numbers
                            them (Linux 5.15); 0: not known */
  uint64_t n_writes;     /* to a device, as this kernel counts them */
};

/* The version of what `fd` is open on; `writes_fd` is version_open_writes() of
 * it.  0, or a negative errno: -EISDIR for a directory, -ENODEV for something
 * that is neither a file nor a block device. */
int version_of(int fd, int writes_fd, struct version *out);

/* The kernel's counts of the device that `fd` is open on, as a descriptor; -1
 * where there are none, as for a file. */
int version_open_writes(int fd);

bool version_same(const struct version *a, const struct version *b);

/* Whether `path` is of that version still, or of one that is found without
 * opening it: then `*same` says.  0 or a negative errno.  For a device it is
 * whether the path names that device, with that medium. */
int version_of_path(const char *path, const struct version *v, bool *same);

/* The same of what `fd`, opened by O_PATH, is of. */
int version_of_node(int fd, const struct version *v, bool *same);

/* The size of what such a descriptor is of, as far as it is known without its
 * being opened: 0 for a device where there is no sysfs.  0 or a negative errno,
 * as version_of(). */
int version_peek_size(int fd, uint64_t *size);

/* Whether stamps of the file come from another machine's clock. */
bool version_is_foreign(int fd);

/* Whether another process may change the file unseen: it has it open for
 * writing, and a store through a mapping need not move a stamp now.  That is so
 * until the kernel has written back the pages that were stored into before, and
 * on tmpfs always.  Only the file's owner, and a holder of CAP_LEASE, can tell;
 * false if we cannot, as of a network file system.
 *
 * A process that opens the file for writing during the call waits for its end,
 * and we get SIGURG: it must not be caught. */
bool version_has_writer(int fd);

/* How many nanoseconds have to pass until the version is settled, as of `now`,
 * the time by CLOCK_REALTIME_COARSE after the version was taken; 0: it is.
 * `tick_ns` is that clock's step. */
int64_t version_unsettled_ns(const struct version *v, bool foreign,
                             struct timespec now, int64_t tick_ns);

/* The same until it is at rest: until its stamps are two seconds old, which is
 * longer than all but a few writes take. */
int64_t version_unrested_ns(const struct version *v, bool foreign,
                            struct timespec now);

#ifdef __cplusplus
}
#endif

#endif

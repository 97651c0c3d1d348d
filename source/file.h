/* The file source: a regular file or a block device, read with preadv2(2).
 *
 * Never mapped: a file that is truncated under us is an error code, not a
 * SIGBUS.  A version of the file is {device, inode, size, mtime, ctime}; each
 * read is followed by an fstat(2), so bytes of a file that changed meanwhile
 * are never handed on (as far as the file system's time stamps can tell). */
#ifndef SOURCE_FILE_H
#define SOURCE_FILE_H

#include "cache/source.h"

#ifdef __cplusplus
extern "C" {
#endif

enum file_reading {
  FILE_CACHED, /* the kernel keeps what was read */
  /* It drops it again, but for what it had before (RWF_DONTCACHE, Linux 6.14),
   * and does not read ahead: for who does both himself.  Of reads of 64 KiB and
   * more to memory that is aligned to 4096 most are past its memory (O_DIRECT,
   * where the file system can). */
  FILE_DONTCACHE,
};

/* Opens `path`.  0, or a negative errno: -EISDIR for a directory, -ENODEV for
 * something that is neither a file nor a block device. */
int file_source_open(const char *path, enum file_reading how,
                     struct source **out);

#ifdef __cplusplus
}
#endif

#endif

/* The file source: a regular file or a block device, read with preadv2(2).
 *
 * Never mapped: a file that is truncated under us is an error code, not a
 * SIGBUS.  Each read is followed by a look at the version of what is open
 * (source/version.h), so bytes of a file that changed meanwhile are never
 * handed on, as far as a version can tell.
 *
 * What was read before the version had settled is read again: then the first
 * read() or reopen() after it has settled finds the content changed, even if
 * the version is the same.  So it is with what is older than a maximum age. */
#ifndef SOURCE_FILE_H
#define SOURCE_FILE_H

#include "cache/source.h"

#ifdef __cplusplus
extern "C" {
#endif

enum file_reading {
  FILE_CACHED, /* the kernel keeps what was read */
  /* It drops it again, but for what it had before (RWF_DONTCACHE, Linux 6.14),
   * and does not read ahead: for a caller that does both itself.  Of reads of
   * 64 KiB and more to memory that is aligned to 4096 most are past its memory
   * (O_DIRECT, where the file system can). */
  FILE_DONTCACHE,
};

/* The path from the root on, in memory from malloc(3): the process may change
 * its directory.  Links stay what they are, since they may be changed to say
 * what the image is.  A directory that has no path leaves it as it is.  NULL:
 * no memory. */
char *file_source_absolute(const char *path);

/* Opens `path`.  0, or a negative errno: -EISDIR for a directory, -ENODEV for
 * something that is neither a file nor a block device. */
int file_source_open(const char *path, enum file_reading how,
                     struct source **out);

/* Opens the file of that name in `directory`, a path from the root on without a
 * slash at its end, as source/beneath.h does: also whenever it is opened again,
 * a link that leads out of the directory is not followed.  Likewise; -EXDEV: it
 * is such a link. */
int file_source_open_beneath(const char *directory, const char *name,
                             enum file_reading how, struct source **out);

/* A source for a path that cannot be opened now: it has no bytes.  reopen()
 * gives its successor once the path can be opened, and until then says why not.
 * 0 or -ENOMEM. */
int file_source_open_later(const char *path, enum file_reading how,
                           struct source **out);

/* The container format that the file begins as, by name, or NULL: see
 * base/format.h.  Reads from it; may wait. */
const char *file_source_format(struct source *src);

/* From now on nothing that was read longer ago than `seconds` is good any more:
 * for what changes without its version's changing.  0, as at first: it is good
 * for ever.  Before the source is given to an image; its successors have it
 * from it. */
void file_source_set_max_age(struct source *src, unsigned seconds);

/* From now on nothing that was read while another process could change the file
 * unseen (version_has_writer()) is good for longer than 2 seconds, nor when
 * that is over.  It costs two system calls a look, and SIGURG must not be
 * caught. Otherwise as file_source_set_max_age(). */
void file_source_doubt_writers(struct source *src);

#ifdef __cplusplus
}
#endif

#endif

/* The file source: a regular file or a block device, read with preadv2(2).
 *
 * It does not map the file, so a file that is truncated causes an error and not
 * a SIGBUS.  After each read it checks the version of the open file
 * (source/version.h).  So it returns no bytes of a file that changed meanwhile,
 * as far as the version shows the change.
 *
 * Bytes that were read before the version had settled are read again: the first
 * read() or reopen() after it has settled reports that the content changed,
 * even if the version is the same.  The same applies to bytes that are older
 * than a maximum age. */
#ifndef SOURCE_FILE_H
#define SOURCE_FILE_H

#include "cache/source.h"

#ifdef __cplusplus
extern "C" {
#endif

enum file_reading {
  FILE_CACHED, /* the kernel keeps what was read */
  /* The kernel drops the pages that were read, except those that it had before
   * (RWF_DONTCACHE, Linux 6.14), and does not read ahead: for a caller that
   * caches and reads ahead itself.  If the file system supports O_DIRECT, most
   * reads into memory that is aligned to 4096 bypass the page cache: those of
   * 64 KiB and more, and shorter ones by a ring (source/ring.h) whose offset
   * and length are multiples of 4096. */
  FILE_DONTCACHE,
};

/* Returns the absolute path, in memory from malloc(3), because the process may
 * change its directory.  Links are not resolved, because they may later be
 * changed to select another image.  If the current directory has no path, the
 * path is unchanged.  NULL: no memory. */
char *file_source_absolute(const char *path);

/* Opens `path`.  0, or a negative errno: -EISDIR for a directory, -ENODEV for
 * something that is neither a file nor a block device. */
int file_source_open(const char *path, enum file_reading how,
                     struct source **out);

/* Opens the file of that name in `directory`, an absolute path without a slash
 * at its end, as source/beneath.h does.  It never follows a link that leads out
 * of the directory, also when the file is opened again. 0, or a negative errno
 * as file_source_open(); -EXDEV: it is such a link. */
int file_source_open_beneath(const char *directory, const char *name,
                             enum file_reading how, struct source **out);

/* Makes a source for a path that cannot be opened now.  The source has no
 * bytes. reopen() returns its successor when the path can be opened, and until
 * then the reason why not. 0 or -ENOMEM. */
int file_source_open_later(const char *path, enum file_reading how,
                           struct source **out);

/* The name of the container format that the first bytes of the file indicate,
 * or NULL: see base/format.h.  Reads from the file, and may wait. */
const char *file_source_format(struct source *src);

/* From now on, bytes that were read more than `seconds` ago are invalid: for
 * content that changes without a change of its version. 0, the initial value:
 * bytes stay valid.  To be called before the source is given to an image; its
 * successors inherit it. */
void file_source_set_max_age(struct source *src, unsigned seconds);

/* From now on, bytes that were read while another process could change the file
 * unnoticed (version_has_writer()) are valid for 2 seconds only, and not after
 * that process has closed the file.  It costs two system calls per check, and
 * SIGURG must not be caught.  Otherwise as file_source_set_max_age(). */
void file_source_doubt_writers(struct source *src);

#ifdef __cplusplus
}
#endif

#endif

/* The directories of [images]: each regular file and each block device in a
 * directory is an image with the name of the file.
 *
 *   D1  A name is that of a file in the directory, or of a link to such a file
 *       (source/beneath.h).  Links that lead out of the directory are ignored,
 *       and so are names that no image may have.
 *   D2  If several directories have a name, the first one counts.
 *   D3  A hidden name is ignored until the next directories_set().
 *   D4  Nothing is stored for a name before a client opens it: each part of a
 *       list reads the directory again.
 *
 * Any thread, except for the calls that make and end them. */
#ifndef DAEMON_DIRECTORIES_H
#define DAEMON_DIRECTORIES_H

#include "daemon/config.h"
#include "daemon/engine/finder_place.h"

#ifdef __cplusplus
extern "C" {
#endif

struct directories;

/* The reason for -ENOSYS of directories_set(). */
#define DIRECTORIES_NEED                                                       \
  "images of a directory take openat2(2), which Linux has from 5.6 on"

/* No directories at first.  NULL: out of memory. */
struct directories *directories_new(void);
void directories_free(struct directories *d); /* NULL is fine */

/* For the server, which ends first. */
const struct finder_place *directories_place(const struct directories *d);

/* Sets the directories of a configuration.  Opens those that are new, and so
 * may wait for a file system.  Logs each that cannot be opened now; it counts
 * all the same.  0, with `*differs`: the directories, or whether
 * their images are shared, have changed; or a negative errno, and then nothing
 * has changed; -ENOSYS: the kernel cannot confine a lookup to a directory. */
int directories_set(struct directories *d, const struct config *config,
                    bool *differs);

/* Hides a name that a directory has now.  May wait for a file system.  0;
 * -ENOENT: none has it; -ENOSPC: too many names are hidden; -ENOMEM. */
int directories_hide(struct directories *d, const char *name);

#ifdef __cplusplus
}
#endif

#endif

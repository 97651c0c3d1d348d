/* The directories of [images]: each regular file and each block device in one
 * is an image by its file name.
 *
 *   D1  A name is that of a file that lies in the directory, or of a link that
 *       leads to one there (source/beneath.h); what leads out of it, and what
 *       is called as no image may be, is not there.
 *   D2  Of a name that several have it is the first one's.
 *   D3  A name that was hidden is not there until the next directories_set().
 *   D4  Nothing is kept of a name before somebody opens it: a directory is read
 *       again for each part of a list.
 *
 * Any thread, but for what makes and ends them. */
#ifndef DAEMON_DIRECTORIES_H
#define DAEMON_DIRECTORIES_H

#include "daemon/config.h"
#include "daemon/engine/finder_place.h"

#ifdef __cplusplus
extern "C" {
#endif

struct directories;

/* Why directories_set() said -ENOSYS. */
#define DIRECTORIES_NEED                                                       \
  "images of a directory take openat2(2), which Linux has from 5.6 on"

/* None at first.  NULL: no memory. */
struct directories *directories_new(void);
void directories_free(struct directories *d); /* NULL is fine */

/* For the server, which ends first. */
const struct finder_place *directories_place(const struct directories *d);

/* Those of a configuration from now on.  Logs which cannot be opened now, and
 * is kept all the same.  0, with `*differs`: they, or whether their images are
 * shared, are not what they were; or a negative errno, and all is as before;
 * -ENOSYS: the kernel cannot keep to a directory. */
int directories_set(struct directories *d, const struct config *config,
                    bool *differs);

/* Hides a name that one of them has now.  May wait for a file system.  0;
 * -ENOENT: none has it; -ENOSPC: too many are hidden; -ENOMEM. */
int directories_hide(struct directories *d, const char *name);

#ifdef __cplusplus
}
#endif

#endif

/* Opening sources at start, each on a thread of its own: so a source that
 * hangs, for example because its server is gone, delays no other image.
 *
 * If the caller gives up, the thread continues, and closes what it opened. */
#ifndef DAEMON_OPENING_H
#define DAEMON_OPENING_H

#include <time.h>

#include "cache/source.h"
#include "daemon/remotes.h"
#include "source/remote.h"

struct opening;

/* Begins to open a file.  NULL: out of memory.  If no thread can be made, it
 * waits for the source. */
struct opening *opening_begin(const char *path);

/* Begins to open a remote source, which takes no longer than until
 * `deadline`. */
struct opening *opening_begin_remote(struct remote *remote,
                                     const struct timespec *deadline);

/* Waits until `deadline`, of the monotonic clock, and ends the opening.  0; or
 * a negative errno, with a reason in `fault` if there is one beside the errno;
 * -ETIMEDOUT if the source is not open by then.  `*format` is that of
 * file_source_format(). */
int opening_end(struct opening *o, const struct timespec *deadline,
                struct source **out, const char **format,
                struct source_fault *fault);

#endif

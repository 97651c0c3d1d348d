/* Opening sources at start, each on a thread of its own: so one that hangs,
 * such as on a server that is gone, keeps no other image from being served.
 *
 * The thread of one that is given up goes on, and closes what it opened. */
#ifndef DAEMON_OPENING_H
#define DAEMON_OPENING_H

#include <time.h>

#include "cache/source.h"
#include "daemon/remotes.h"
#include "source/remote.h"

struct opening;

/* Of a file.  NULL: out of memory.  Where there is no thread it waits for the
 * source. */
struct opening *opening_begin(const char *path);

/* Of a remote source, which is not waited for longer than until `deadline`. */
struct opening *opening_begin_remote(struct remote *remote,
                                     const struct timespec *deadline);

/* Waits until `deadline`, of the monotonic clock.  0, or a negative errno, with
 * words in `fault` if there are more to be said; -ETIMEDOUT if the source is
 * not open by then.  `*format` is what file_source_format() says.  Ends the
 * opening.
 */
int opening_end(struct opening *o, const struct timespec *deadline,
                struct source **out, const char **format,
                struct source_fault *fault);

#endif

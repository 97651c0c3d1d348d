/* Opening sources at start, each on a thread of its own: so a source that
 * hangs, for example because its server is gone, delays no other image.
 *
 * If the caller gives up, the thread continues, and closes what it opened. */
#ifndef DAEMON_OPENING_H
#define DAEMON_OPENING_H

#include <stddef.h>
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

/* Waits until the result of one of them is there, at most until `deadline`, of
 * the monotonic clock.  Returns its index; or `n`: it is that late. */
size_t opening_await_any(struct opening *const *all, size_t n,
                         const struct timespec *deadline);

/* Ends the opening.  0; or a negative errno, with a reason in `fault` if there
 * is one beside the errno; -ETIMEDOUT if its result is not there yet.
 * `*format` is that of file_source_format(). */
int opening_end(struct opening *o, struct source **out, const char **format,
                struct source_fault *fault);

#endif

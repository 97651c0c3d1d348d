/* The sources of images as a configuration names them: opened all at once, so
 * that those that hang are waited for together.
 *
 * Any thread. */
#ifndef DAEMON_IMAGE_SOURCES_H
#define DAEMON_IMAGE_SOURCES_H

#include <stddef.h>

#include "daemon/config.h"
#include "daemon/remotes.h"
#include "daemon/server.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Opens the sources of `n` images of `config`.  Those that cannot be opened now
 * are logged, and are `missing`: they can once they are there.  The strings of
 * `out` are the config's.  What is open
 * lives by `remotes`.
 *
 * 0; or -EINVAL, with each reason logged as `event`, and nothing is open. */
int image_sources_open(const struct config *config,
                       const struct config_image *const *images, size_t n,
                       struct remotes *remotes, const char *event,
                       struct server_image *out);

/* Says in the log that a file has a disk in it, and is none; NULL: nothing. */
void image_sources_warn_of_format(const char *name, const char *format);

/* Closes them, if no server took them over. */
void image_sources_close(const struct server_image *images, size_t n);

#ifdef __cplusplus
}
#endif

#endif

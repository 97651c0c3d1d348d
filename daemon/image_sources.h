/* The sources of a configuration's images: they are opened at the same time, so
 * that the daemon waits for all that hang together.
 *
 * Any thread. */
#ifndef DAEMON_IMAGE_SOURCES_H
#define DAEMON_IMAGE_SOURCES_H

#include <stddef.h>

#include "daemon/config.h"
#include "daemon/config_errors.h"
#include "daemon/remotes.h"
#include "daemon/server.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Loads the module that verifies images (source/verifier.h) if the
 * configuration has an image to verify.  Adds an error if that fails. */
void image_sources_check_module(const struct config *config,
                                struct config_errors *errors);

enum {
  /* How long a start waits for sources that cannot be opened at once, and how
   * long a reload or a command does.  Clients wait for a start. */
  IMAGE_SOURCES_START_MS = 2500,
  IMAGE_SOURCES_CHANGE_MS = 5000,
};

/* Opens the sources of `n` images of `config`.  A source that cannot be opened
 * within `patience_ms`, or has not all of the image's window, is logged, and
 * its image is `missing` until that changes.  The strings of `out` belong to
 * the config.  Open sources need `remotes`.
 *
 * 0; or -EINVAL, with each reason logged as `event`, and nothing is open. */
int image_sources_open(const struct config *config,
                       const struct config_image *const *images, size_t n,
                       int patience_ms, struct remotes *remotes,
                       const char *event, struct server_image *out);

/* Describes an image whose source can be opened, but not be served, for the
 * reason `error` (an errno), and `why` in words; that is logged.  It is
 * `missing` until that changes.  Otherwise as above. */
int image_sources_open_missing(const struct config *config,
                               const struct config_image *image,
                               struct remotes *remotes, int error,
                               const char *why, const char *event,
                               struct server_image *out);

/* Logs that a file is a container format; NULL: it is none. */
void image_sources_warn_of_format(const char *name, const char *format);

/* Closes the sources, if no server took them over. */
void image_sources_close(const struct server_image *images, size_t n);

#ifdef __cplusplus
}
#endif

#endif

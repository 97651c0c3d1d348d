/* Checks the rules that concern several values of a configuration.  The caller
 * has read all files and the command line before.
 *
 *   K1  A message names the origin of the value that the user has to change.
 *   K2  If a value was refused, no check reports it as missing in addition.
 *   K3  A check opens no file and no source.  So it neither waits nor changes
 *       anything. */
#ifndef DAEMON_CONFIG_CHECK_H
#define DAEMON_CONFIG_CHECK_H

#include "daemon/config.h"
#include "daemon/config_errors.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Checks the whole configuration. */
void config_check(const struct config *config, struct config_errors *errors);

/* Checks the source of an image as far as that is possible without opening it.
 * 0; -EINVAL with the reason in `why`, and in `*origin` that of the wrong
 * setting. */
int config_check_source(const struct config_image *image,
                        struct config_origin *origin, char why[CONFIG_WHY_LEN]);

/* Checks the page size of an image: `huge` must not contradict it, and the
 * cache must have room for two pages, also when it has shrunk.  0; -EINVAL with
 * the reason in `why`. */
int config_check_page_size(const struct config *config,
                           const struct config_image *image,
                           char why[CONFIG_WHY_LEN]);

#ifdef __cplusplus
}
#endif

#endif

/* The daemon's certificate, and the authorities that it trusts, from the files
 * of its configuration.  TLS is in a module (base/module.h), which is loaded
 * when it is needed.
 *
 * Any thread that may wait. */
#ifndef DAEMON_CERTIFICATES_H
#define DAEMON_CERTIFICATES_H

#include <stddef.h>

#include "daemon/config.h"
#include "daemon/config_errors.h"

struct tls_context;

/* Reads the files of a configuration in which certificates_check() found no
 * error, for a socket that needs them.  Warns of a key that every user can
 * read, and of a certificate that is not valid now.  0, or a negative errno
 * with the reason in `err`. */
int certificates_open(const struct config *config, struct tls_context **out,
                      char *err, size_t err_len);

/* Loads the module if the configuration has an address for TLS.  Adds an error
 * if that fails, with the place of the address. */
void certificates_check_module(const struct config *config,
                               struct config_errors *errors);

/* Adds errors for files that are missing or wrong, with the place of the
 * setting that the user has to look at.  `needed_by` is a socket that needs
 * them, for a message, although the configuration may have none of these
 * settings.  NULL: a configuration with none of them is right. */
void certificates_check(const struct config *config, const char *needed_by,
                        struct config_errors *errors);

#endif

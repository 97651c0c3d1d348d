/* The certificates that the daemon shows and believes, from the files that its
 * configuration names. */
#ifndef DAEMON_CERTIFICATES_H
#define DAEMON_CERTIFICATES_H

#include <stddef.h>

#include "daemon/config.h"

struct tls_context;

/* Reads the files, if an address of the checked configuration needs them; else
 * `*out` is NULL.  Warns of a key that everybody can read.  0, or a negative
 * errno with the reason in `err`. */
int certificates_open(const struct config *config, struct tls_context **out,
                      char *err, size_t err_len);

#endif

/* The sockets that the daemon listens on: inherited ones, which stay as long as
 * it runs, and those of its configuration.
 *
 *   H1  All sockets and certificates of a new configuration are opened and
 *       checked before any present socket changes.
 *   H2  A socket whose address is still named stays as it is.
 *   H3  Nothing is opened for an address at which an inherited socket listens:
 *       the address is that socket.
 *
 * Main thread, or, once the server runs, the reloader's. */
#ifndef DAEMON_LISTENERS_H
#define DAEMON_LISTENERS_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/config.h"
#include "daemon/config_errors.h"
#include "daemon/inherited.h"
#include "daemon/net/listener.h"

enum { LISTENERS_MAX = 2 * CONFIG_MAX_LISTEN };

/* Zeroed: there are none. */
struct listeners {
  struct listener *all[LISTENERS_MAX];  /* references; inherited ones first */
  struct address asked[LISTENERS_MAX];  /* as configured, port 0 among them */
  const char *names[CONFIG_MAX_LISTEN]; /* of inherited ones, the caller's */
  unsigned n_inherited, n;
  struct tls_context *tls; /* of those that are opened or kept; NULL: none */
};

/* Takes over the sockets that systemd passed: one with the name "tls" or
 * "cachetd-tls.socket" is for TLS.  Their names are used as long as `inherited`
 * has them.  0, or a negative errno with the reason in `err`; the caller owes a
 * listeners_fini() in both cases. */
int listeners_adopt(struct listeners *l, const struct config *config,
                    struct inherited *inherited, char *err, size_t err_len);

/* Adds an error for each address at which an inherited socket listens that is
 * for TLS while the address is not, or the reverse; and, if an address or an
 * inherited socket is for TLS, the errors of certificates_check(). */
void listeners_check(const struct listeners *l, const struct config *config,
                     struct config_errors *errors);

/* Makes `now` the sockets of a configuration in which listeners_check() finds
 * no error, from those of `before` and new ones.  Until listeners_commit()
 * clients are accepted with the old certificates.  0, and the caller owes a
 * listeners_fini(); or a negative errno with the reason in `err`;
 * -EDESTADDRREQ: there is no default address. */
int listeners_open(const struct listeners *before, const struct config *config,
                   struct listeners *now, char *err, size_t err_len);

/* Makes the sockets use the certificates that were read. */
void listeners_commit(struct listeners *l);

bool listeners_have(const struct listeners *l, const struct listener *listener);

/* Gives the references up. */
void listeners_fini(struct listeners *l);

#endif

/* The sockets that the daemon listens on: those that it inherited, which stay
 * as long as it runs, and those that its configuration names.
 *
 *   H1  What a configuration wants is opened and checked as a whole, files of
 *       certificates with it, before anything of what there is changes.
 *   H2  A socket whose address is still named stays as it is.
 *
 * Main thread, or, once the server runs, the reloader's. */
#ifndef DAEMON_LISTENERS_H
#define DAEMON_LISTENERS_H

#include <stdbool.h>
#include <stddef.h>

#include "daemon/config.h"
#include "daemon/inherited.h"
#include "daemon/net/listener.h"

enum { LISTENERS_MAX = 2 * CONFIG_MAX_LISTEN };

/* Zeroed: there are none. */
struct listeners {
  struct listener *all[LISTENERS_MAX]; /* references; inherited ones first */
  struct address asked[LISTENERS_MAX]; /* as configured, port 0 among them */
  unsigned n_inherited, n;
  struct tls_context *tls; /* of those that are opened or kept; NULL: none */
};

/* Takes over what systemd opened for us: a socket that is named "tls" or
 * "cachetd-tls.socket" is for TLS.  0, or a negative errno with the reason in
 * `err`; listeners_fini() is due in either case. */
int listeners_adopt(struct listeners *l, const struct config *config,
                    struct inherited *inherited, char *err, size_t err_len);

/* Makes `now` what the configuration wants, of `before` and of what has to be
 * opened.  Nobody is accepted with other certificates than before until
 * listeners_commit().  0, and listeners_fini() is due; or a negative errno with
 * the reason in `err`: -EDESTADDRREQ: there is no default address. */
int listeners_open(const struct listeners *before, const struct config *config,
                   struct listeners *now, char *err, size_t err_len);

/* Has them use the certificates that were read. */
void listeners_commit(struct listeners *l);

bool listeners_have(const struct listeners *l, const struct listener *listener);

/* Gives the references up. */
void listeners_fini(struct listeners *l);

#endif

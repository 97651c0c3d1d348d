/* Dialing: a connection to an NBD server, up to where it takes requests.
 *
 * It is made on a thread of its own, which ends with it.  Libnbd looks up the
 * name of a host while it waits, reads certificates from files, and goes on for
 * as long as a server sends lines of a handshake: none of which the reactor's
 * thread has time for.
 *
 *   D1  done() comes once, on the reactor's thread, unless the dial is given up
 *       before; then it never does.
 *   D2  A caller that gives a dial up waits for nothing.  Its thread then ends
 *       at the latest with its deadline, or with the look-up of a name if that
 *       takes longer, and touches neither the dialer nor the reactor.
 *
 * The reactor's thread only, where nothing else is said. */
#ifndef SOURCE_NBD_DIAL_H
#define SOURCE_NBD_DIAL_H

#include <stdint.h>

#include "source/nbd_target.h"
#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

struct nbd_dial;

/* How it ended: `h`, which takes requests and is the dialer's; or NULL, and
 * `status` and `fault` say why. */
struct nbd_dialed {
  struct nbd_handle *h;
  int status; /* as a read's: source/remote.h */
  struct source_fault fault;
};

/* Begins one; `target` is copied, `deadline` as in base/deadline.h.  0 or a
 * negative errno: no thread. */
int nbd_dial_start(struct reactor *reactor, const struct nbd_target *target,
                   int64_t deadline,
                   void (*done)(void *arg, const struct nbd_dialed *end),
                   void *arg, struct nbd_dial **out);

/* Gives it up, before done(). */
void nbd_dial_give_up(struct nbd_dial *d);

/* A handle for connections to a target, which has not begun to connect.  Any
 * thread.  NULL, with `status` and `fault` set: there is none. */
struct nbd_handle *nbd_dial_handle(const struct nbd_target *t, int *status,
                                   struct source_fault *fault);

/* Brings a handle that has begun to connect to where it takes requests; waits
 * until `deadline` at most.  Any thread that may wait.  0, or the status with
 * `fault` set; the handle stays the caller's. */
int nbd_dial_shake_hands(struct nbd_handle *h, int64_t deadline,
                         struct source_fault *fault);

/* What the failure of the last call of libnbd's, on this thread, means for a
 * connection and its reads: a negative errno, and words for people. */
int nbd_dial_failure(struct source_fault *fault);

#ifdef __cplusplus
}
#endif

#endif

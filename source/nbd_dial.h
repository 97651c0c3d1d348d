/* Dialing: makes a connection to an NBD server that is ready for requests.
 *
 * A thread of its own makes the connection, and then ends.  The reactor's
 * thread cannot do it, because libnbd blocks while it looks up a host name,
 * reads certificates from files, and continues as long as a server sends lines
 * of a handshake.
 *
 *   D1  done() is called once, on the reactor's thread.  If the caller gives
 *       the dial up before, it is never called.
 *   D2  A caller that gives a dial up does not wait.  The dial's thread then
 *       ends at its deadline at the latest, or after the lookup of a name if
 *       that takes longer, and uses neither the dialer nor the reactor.
 *
 * Only the reactor's thread may call these functions, unless a comment says
 * otherwise. */
#ifndef SOURCE_NBD_DIAL_H
#define SOURCE_NBD_DIAL_H

#include <stdint.h>

#include "source/nbd_target.h"
#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

struct nbd_dial;

/* The result: `h`, which is ready for requests and belongs to the dialer; or
 * NULL, and `status` and `fault` have the reason. */
struct nbd_dialed {
  struct nbd_handle *h;
  int status; /* as a read's: source/remote.h */
  struct source_fault fault;
};

/* Begins a dial.  `target` is copied; `deadline` is as in base/deadline.h. 0 or
 * a negative errno: no thread. */
int nbd_dial_start(struct reactor *reactor, const struct nbd_target *target,
                   int64_t deadline,
                   void (*done)(void *arg, const struct nbd_dialed *end),
                   void *arg, struct nbd_dial **out);

/* Gives it up, before done(). */
void nbd_dial_give_up(struct nbd_dial *d);

/* Makes a handle for connections to a target, which has not begun to connect.
 * Any thread.  NULL, with `status` and `fault` set: there is none. */
struct nbd_handle *nbd_dial_handle(const struct nbd_target *t, int *status,
                                   struct source_fault *fault);

/* Completes the connection of a handle, and waits until `deadline` at most.
 * Any thread that may wait. 0, or the status with `fault` set; the handle still
 * belongs to the caller. */
int nbd_dial_shake_hands(struct nbd_handle *h, int64_t deadline,
                         struct source_fault *fault);

/* The meaning, for a connection and its reads, of the failure of the last
 * libnbd call on this thread: a negative errno and a message for people. */
int nbd_dial_failure(struct source_fault *fault);

#ifdef __cplusplus
}
#endif

#endif

/* Dialing: making a connection to a parent.
 *
 * The host's name is looked up, and certificates are read from files: each time
 * anew, as either may have changed, and on a thread of its own, which ends with
 * it, as neither knows a deadline.  What is made has not begun to connect.
 *
 *   D1  done() comes once, on the reactor's thread, unless the dial is given up
 *       before; then it never does.
 *   D2  A caller that gives a dial up waits for nothing.  Its thread then ends
 *       with the look-up of the name, and touches neither the dialer nor the
 *       reactor.
 *
 * The reactor's thread only. */
#ifndef SOURCE_PARENT_DIAL_H
#define SOURCE_PARENT_DIAL_H

#include <cachet/cachet.h>

#include "client/remote/connection.h"
#include "source/parent_target.h"

#ifdef __cplusplus
extern "C" {
#endif

struct parent_dial;
struct reactor;

/* Begins one, to number `i` of the target.  `owner` is the connection's.
 * `done` is given the connection, which is the dialer's; or NULL, and the
 * reason.  0 or a negative errno: no thread. */
int parent_dial_start(struct reactor *reactor, struct parent_target *target,
                      unsigned i, const struct connection_owner *owner,
                      void (*done)(void *arg, struct connection *c,
                                   const struct cachet_error *why),
                      struct parent_dial **out);

/* Gives it up, before done(). */
void parent_dial_give_up(struct parent_dial *d);

#ifdef __cplusplus
}
#endif

#endif

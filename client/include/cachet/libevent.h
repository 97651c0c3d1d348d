/* Driving a cachet handle from a libevent loop.  Link libcachet-client-libevent
 * (and libevent) beside libcachet-client. */
#ifndef CACHET_LIBEVENT_H
#define CACHET_LIBEVENT_H

#include <cachet/cachet.h>

struct event_base;

#ifdef __cplusplus
extern "C" {
#endif

/* Lets `base` call cachet_dispatch() whenever the handle needs it, also after
 * it reconnected.  One base a handle.  The handle, the base and the loop
 * belong to one thread.  CACHET_E_NOMEM when libevent has no memory,
 * CACHET_E_INVAL if the handle is attached already.  Loads nothing. */
CACHET_API enum cachet_status cachet_event_attach(cachet *c,
                                                  struct event_base *base);

/* Ends that, before cachet_close() or event_base_free(); outstanding requests
 * stay outstanding.  A handle that is not attached is left alone. */
CACHET_API enum cachet_status cachet_event_detach(cachet *c);

#ifdef __cplusplus
}
#endif

#endif /* CACHET_LIBEVENT_H */

/* Runs the asynchronous calls of a cachet handle in a libevent loop.  A program
 * that uses this links libcachet-client-libevent, libcachet-client and
 * libevent. */
#ifndef CACHET_LIBEVENT_H
#define CACHET_LIBEVENT_H

#include <cachet/cachet.h>

struct event_base;

#ifdef __cplusplus
extern "C" {
#endif

/* Makes `base` call cachet_dispatch() whenever the handle needs it, also after
 * the handle has connected again.  A handle has at most one base.  The handle,
 * the base and its loop must be used by one thread.  Does not wait, and loads
 * no page.  CACHET_E_NOMEM: libevent has no memory.  CACHET_E_INVAL: the handle
 * is attached already. */
CACHET_API enum cachet_status cachet_event_attach(cachet *c,
                                                  struct event_base *base);

/* Detaches the handle from its base.  Must be called before cachet_close() and
 * event_base_free().  Requests that have not completed stay outstanding.  Does
 * nothing if the handle is not attached.  Returns CACHET_OK. */
CACHET_API enum cachet_status cachet_event_detach(cachet *c);

#ifdef __cplusplus
}
#endif

#endif /* CACHET_LIBEVENT_H */

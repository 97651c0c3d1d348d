/* The libevent adapter: one event for the descriptor, one for the time-out,
 * both kept in step with the handle through its watch.
 *
 * Uses the public calls only.  A callback of the caller's may detach the
 * handle: then the adapter lives until the dispatch that it runs in is over. */
#include <cachet/libevent.h>

#include <event2/event.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>

struct adapter {
  cachet *c;
  struct event_base *base;
  struct event *io; /* NULL: there is no descriptor */
  struct event *timer;
  int fd;
  short events;
  bool in_dispatch, is_detached;
};

static void adapter_free(struct adapter *a) {
  if (a->io)
    event_free(a->io);
  if (a->timer)
    event_free(a->timer);
  free(a);
}

static void adapter_dispatch(struct adapter *a);

static void on_event(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  adapter_dispatch(arg);
}

static void adapter_watch_fd(struct adapter *a) {
  int fd = cachet_fd(a->c);
  short events = cachet_events(a->c);
  if (fd == a->fd && events == a->events && (a->io || fd < 0))
    return;
  if (a->io)
    event_free(a->io);
  a->io = NULL;
  a->fd = fd;
  a->events = events;
  if (fd < 0)
    return;
  short what = (short)(EV_PERSIST | (events & POLLIN ? EV_READ : 0) |
                       (events & POLLOUT ? EV_WRITE : 0));
  a->io = event_new(a->base, fd, what, on_event, a);
  /* Without memory for it the timer has to do: try again soon. */
  if (a->io && event_add(a->io, NULL) < 0) {
    event_free(a->io);
    a->io = NULL;
  }
}

static void adapter_update(void *arg) {
  enum { TRY_AGAIN_MS = 100 };
  struct adapter *a = arg;
  adapter_watch_fd(a);
  int timeout_ms = cachet_timeout_ms(a->c);
  if (a->fd >= 0 && !a->io && (timeout_ms < 0 || timeout_ms > TRY_AGAIN_MS))
    timeout_ms = TRY_AGAIN_MS;
  if (timeout_ms < 0) {
    event_del(a->timer);
    return;
  }
  struct timeval t = {.tv_sec = timeout_ms / 1000,
                      .tv_usec = timeout_ms % 1000 * 1000};
  event_add(a->timer, &t);
}

static void adapter_dispatch(struct adapter *a) {
  a->in_dispatch = true;
  cachet_dispatch(a->c);
  a->in_dispatch = false;
  if (a->is_detached)
    adapter_free(a);
  else
    adapter_update(a);
}

enum cachet_status cachet_event_attach(cachet *c, struct event_base *base) {
  if (cachet_watch_arg(c))
    return CACHET_E_INVAL;
  struct adapter *a = calloc(1, sizeof *a);
  if (!a)
    return CACHET_E_NOMEM;
  a->c = c;
  a->base = base;
  a->fd = -1;
  a->timer = evtimer_new(base, on_event, a);
  if (!a->timer) {
    adapter_free(a);
    return CACHET_E_NOMEM;
  }
  cachet_set_watch(c, adapter_update, a);
  adapter_update(a);
  return CACHET_OK;
}

enum cachet_status cachet_event_detach(cachet *c) {
  struct adapter *a = cachet_watch_arg(c);
  if (!a)
    return CACHET_OK;
  cachet_set_watch(c, NULL, NULL);
  if (!a->in_dispatch) {
    adapter_free(a);
    return CACHET_OK;
  }
  /* The events go now, the rest when the dispatch is over. */
  if (a->io)
    event_free(a->io);
  a->io = NULL;
  event_del(a->timer);
  a->is_detached = true;
  return CACHET_OK;
}

#include "daemon/acceptor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "daemon/admit.h"
#include "daemon/log.h"

enum {
  /* Connections accepted before timers and signals get a turn. */
  ACCEPT_BATCH = 64,
  /* How many of these a socket gets that is to be closed: as many as may wait
   * in it. */
  LAST_BATCHES = 16,
  /* How long no connection is accepted when descriptors have run out, or
   * refused ones wait to be closed. */
  ACCEPT_PAUSE_MS = 100,
};

/* A listening socket. */
struct acceptor_endpoint {
  TAILQ_ENTRY(acceptor_endpoint) in; /* the acceptor's, or those removed */
  struct acceptor *acceptor;
  struct listener *listener; /* a reference */
  struct event event;
};

/* ---- Accepting ----------------------------------------------------------- */

/* The connections that wait stay readable, so the loop would turn without end
 * if it went on to watch their sockets.  No event says when there are
 * descriptors again, hence the timer. */
static void pause_accepting(struct acceptor *a, const char *reason) {
  struct timeval tv = {.tv_usec = ACCEPT_PAUSE_MS * 1000};
  if (!a->paused)
    log_event(LEVEL_WARN, "accept-paused", LOG_TEXT("reason", reason));
  a->paused = true;
  struct acceptor_endpoint *endpoint;
  TAILQ_FOREACH(endpoint, &a->endpoints, in)
    event_del(&endpoint->event);
  event_add(&a->resume, &tv);
}

static void on_resume(evutil_socket_t fd, short what, void *arg) {
  struct acceptor *a = arg;
  (void)fd;
  (void)what;
  struct acceptor_endpoint *endpoint;
  TAILQ_FOREACH(endpoint, &a->endpoints, in)
    event_add(&endpoint->event, NULL);
}

/* Lets a batch in.  False: no more wait, or none is taken now. */
static bool accept_batch(struct acceptor_endpoint *endpoint) {
  struct acceptor *a = endpoint->acceptor;
  int fd = listener_fd(endpoint->listener);
  for (int i = 0; i < ACCEPT_BATCH; i++) {
    if (!admit_may_refuse(a->context)) {
      pause_accepting(a, "sockets that were refused cannot be closed");
      return false;
    }
    int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (peer >= 0) {
      a->paused = false;
      admit_socket(a->context, endpoint->listener, peer);
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
               errno == ENOMEM) {
      pause_accepting(a, strerror(errno));
      return false;
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return false;
    }
    /* Else the peer was gone before it was accepted: take the next. */
  }
  return true;
}

static void on_connect(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  accept_batch(arg);
}

/* ---- Endpoints ----------------------------------------------------------- */

static void endpoint_free(struct acceptor_endpoint *endpoint) {
  if (event_initialized(&endpoint->event))
    event_del(&endpoint->event);
  listener_unref(endpoint->listener);
  free(endpoint);
}

static void endpoints_free(struct acceptor_endpoints *endpoints) {
  struct acceptor_endpoint *endpoint;
  while ((endpoint = TAILQ_FIRST(endpoints))) {
    TAILQ_REMOVE(endpoints, endpoint, in);
    endpoint_free(endpoint);
  }
}

static struct acceptor_endpoint *endpoint_find(struct acceptor *a,
                                               const struct listener *l) {
  struct acceptor_endpoint *endpoint;
  TAILQ_FOREACH(endpoint, &a->endpoints, in)
    if (endpoint->listener == l)
      return endpoint;
  return NULL;
}

/* Accepts what connects to `l`, too; while it is paused, from the end of that
 * on.  0 or -ENOMEM. */
static int endpoint_add(struct acceptor *a, struct listener *l) {
  struct acceptor_endpoint *endpoint = calloc(1, sizeof *endpoint);
  if (!endpoint)
    return -ENOMEM;
  endpoint->acceptor = a;
  endpoint->listener = listener_ref(l);
  event_assign(&endpoint->event, a->base, listener_fd(l), EV_READ | EV_PERSIST,
               on_connect, endpoint);
  if (!event_pending(&a->resume, EV_TIMEOUT, NULL) &&
      event_add(&endpoint->event, NULL) < 0) {
    endpoint_free(endpoint);
    return -ENOMEM;
  }
  TAILQ_INSERT_TAIL(&a->endpoints, endpoint, in);
  return 0;
}

/* Takes an endpoint out, for the caller to close, after the clients that have
 * connected to it were let in. */
static void endpoint_take(struct acceptor_endpoint *endpoint,
                          struct acceptor_endpoints *to) {
  for (int i = 0; i < LAST_BATCHES && accept_batch(endpoint); i++)
    ;
  event_del(&endpoint->event);
  TAILQ_REMOVE(&endpoint->acceptor->endpoints, endpoint, in);
  TAILQ_INSERT_TAIL(to, endpoint, in);
}

/* Those that wait to be accepted may have brought descriptors, and end with
 * the listening socket. */
static void endpoint_close(struct acceptor_endpoint *endpoint) {
  int fd = listener_end(endpoint->listener);
  if (fd >= 0)
    closer_add_socket(endpoint->acceptor->context->closer, fd);
}

/* Adds those of `listeners` that are not there, or none of them.  Those that it
 * added are the last. */
static int endpoints_add(struct acceptor *a, struct listener *const *listeners,
                         unsigned n) {
  struct acceptor_endpoint *last, *added;
  last = TAILQ_LAST(&a->endpoints, acceptor_endpoints);
  int r = 0;
  for (unsigned i = 0; i < n && r == 0; i++)
    if (!endpoint_find(a, listeners[i]))
      r = endpoint_add(a, listeners[i]);
  while (r < 0 &&
         (added = TAILQ_LAST(&a->endpoints, acceptor_endpoints)) != last) {
    TAILQ_REMOVE(&a->endpoints, added, in);
    endpoint_free(added);
  }
  return r;
}

static bool is_wanted(struct listener *const *listeners, unsigned n,
                      const struct listener *l) {
  for (unsigned i = 0; i < n; i++)
    if (listeners[i] == l)
      return true;
  return false;
}

int acceptor_set(struct acceptor *a, struct listener *const *listeners,
                 unsigned n, struct acceptor_endpoints *removed) {
  struct acceptor_endpoint *endpoint, *next;
  int r = endpoints_add(a, listeners, n);
  for (endpoint = TAILQ_FIRST(&a->endpoints); r == 0 && endpoint;
       endpoint = next) {
    next = TAILQ_NEXT(endpoint, in);
    if (!is_wanted(listeners, n, endpoint->listener))
      endpoint_take(endpoint, removed);
  }
  return r;
}

void acceptor_close(struct acceptor_endpoints *removed) {
  struct acceptor_endpoint *endpoint;
  TAILQ_FOREACH(endpoint, removed, in)
    endpoint_close(endpoint);
  endpoints_free(removed);
}

/* ---- All of it ----------------------------------------------------------- */

void acceptor_init(struct acceptor *a, struct server_context *context) {
  *a = (struct acceptor){.context = context};
  TAILQ_INIT(&a->endpoints);
}

int acceptor_start(struct acceptor *a, struct event_base *base,
                   struct listener *const *listeners, unsigned n) {
  a->base = base;
  event_assign(&a->resume, base, -1, 0, on_resume, a);
  return endpoints_add(a, listeners, n);
}

void acceptor_end(struct acceptor *a) {
  struct acceptor_endpoint *endpoint;
  TAILQ_FOREACH(endpoint, &a->endpoints, in) {
    event_del(&endpoint->event);
    endpoint_close(endpoint);
  }
}

void acceptor_fini(struct acceptor *a) {
  endpoints_free(&a->endpoints);
  if (event_initialized(&a->resume))
    event_del(&a->resume);
}

#include "daemon/http_server.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <event2/http.h>
#include <event2/listener.h>

#include "daemon/net/listener.h"
#include "daemon/sandbox.h"

enum {
  MAX_HEAD_LEN = 8 << 10, /* of a request */
  MAX_BODY_LEN = 0,       /* no request needs a body */
  /* How long the server accepts nothing after descriptors have run out, or
   * while it has its most connections. */
  ACCEPT_PAUSE_MS = 10,
  /* How long a connection that was shut down may take to be gone. */
  END_MS = 100,
};

/* evhttp is told to allow methods that this server refuses: if evhttp itself
 * refused one, it would keep the connection open.  It keeps the connection of a
 * CONNECT in any case, until the deadline. */
#define ALL_METHODS                                                            \
  (EVHTTP_REQ_GET | EVHTTP_REQ_HEAD | EVHTTP_REQ_POST | EVHTTP_REQ_PUT |       \
   EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS | EVHTTP_REQ_TRACE |                 \
   EVHTTP_REQ_PATCH)

#define TEXT_TYPE "text/plain; charset=utf-8"

/* A connection, and its one request. */
struct http_exchange {
  struct http_server *server;
  LIST_ENTRY(http_exchange) link;
  /* Shared with evhttp.  When evhttp gives it up it clears the callbacks.  If
   * no request has come, nothing else shows that the connection has ended. */
  struct bufferevent *bev;
  struct event deadline;
  struct evhttp_request *request; /* NULL: none has come, or it was answered */
  struct http_parts parts;        /* without `next`: it is no stream */
  bool is_open;                   /* evhttp will tell of its end */
};

LIST_HEAD(http_exchange_list, http_exchange);

struct http_server {
  struct http_server_options options;
  struct listener *listener;
  struct event_base *base;
  struct evhttp *http;
  struct evconnlistener *acceptor; /* of `http` */
  struct evbuffer *part;
  struct event stop, resume;
  int stop_fd; /* an eventfd */
  pthread_t thread;
  bool started;

  struct http_exchange_list exchanges;
  unsigned n_exchanges;
  bool ends;
};

static struct timeval timeval_of_ms(int ms) {
  return (struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
}

/* ---- Exchanges ----------------------------------------------------------- */

static void exchange_set_deadline(struct http_exchange *x, int ms) {
  struct timeval tv = timeval_of_ms(ms);
  event_add(&x->deadline, &tv);
}

/* After a change; H1. */
static void check_exchanges(const struct http_server *s) {
  (void)s;
#ifdef CACHETD_DEBUG_CHECKS
  const struct http_exchange *x;
  unsigned n = 0;
  LIST_FOREACH(x, &s->exchanges, link) {
    assert(x->server == s);
    n++;
  }
  assert(n == s->n_exchanges && n <= s->options.max_connections);
#endif
}

static void exchange_end_parts(struct http_exchange *x) {
  if (!x->parts.next)
    return;
  x->parts.next = NULL;
  x->parts.end(x->parts.arg);
}

/* Ends an exchange whose connection is gone and whose request will not be
 * answered. */
static void exchange_free(struct http_exchange *x) {
  struct http_server *s = x->server;
  exchange_end_parts(x);
  event_del(&x->deadline);
  LIST_REMOVE(x, link);
  bufferevent_decref(x->bev);
  free(x);
  if (s->n_exchanges-- == s->options.max_connections && !s->ends)
    evconnlistener_enable(s->acceptor);
  check_exchanges(s);
}

static bool exchange_is_gone(const struct http_exchange *x) {
  bufferevent_event_cb on_event;
  bufferevent_getcb(x->bev, NULL, NULL, &on_event, NULL);
  return !x->is_open && !x->request && !on_event;
}

/* Frees the exchanges whose connections have ended without a request. */
static void sweep(struct http_server *s) {
  for (struct http_exchange *x = LIST_FIRST(&s->exchanges), *next; x;
       x = next) {
    next = LIST_NEXT(x, link);
    if (exchange_is_gone(x))
      exchange_free(x);
  }
}

/* Shuts the socket down.  evhttp then finds its end, and closes it. */
static void on_deadline(evutil_socket_t fd, short what, void *arg) {
  struct http_exchange *x = arg;
  (void)fd;
  (void)what;
  if (exchange_is_gone(x)) {
    exchange_free(x);
    return;
  }
  shutdown(bufferevent_getfd(x->bev), SHUT_RDWR);
  exchange_set_deadline(x, END_MS);
}

/* evhttp gives up the connection of a request.  If evhttp will not free the
 * request, the exchange owns it until it is answered, and lives until then. */
static void on_close(struct evhttp_connection *conn, void *arg) {
  struct http_exchange *x = arg;
  (void)conn;
  x->is_open = false;
  bool is_ours = x->request && !evhttp_request_get_connection(x->request);
  if (is_ours && !x->parts.next && !x->server->ends)
    return; /* a later answer finds out */
  if (is_ours)
    evhttp_request_free(x->request);
  exchange_free(x);
}

static void pause_accepting(struct http_server *s) {
  struct timeval tv = timeval_of_ms(ACCEPT_PAUSE_MS);
  evconnlistener_disable(s->acceptor);
  event_add(&s->resume, &tv);
}

/* Makes the bufferevent of a new connection for evhttp. */
static struct bufferevent *on_accept(struct event_base *base, void *arg) {
  struct http_server *s = arg;
  sweep(s);
  struct http_exchange *x = calloc(1, sizeof *x);
  struct bufferevent *bev =
      x ? bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE) : NULL;
  if (!bev) {
    free(x);
    return NULL; /* it makes one itself, or fails */
  }
  bufferevent_incref(bev);
  x->server = s;
  x->bev = bev;
  event_assign(&x->deadline, base, -1, 0, on_deadline, x);
  exchange_set_deadline(x, s->options.request_timeout_ms);
  LIST_INSERT_HEAD(&s->exchanges, x, link);
  if (++s->n_exchanges == s->options.max_connections)
    pause_accepting(s);
  check_exchanges(s);
  return bev;
}

static struct http_exchange *find_exchange(struct http_server *s,
                                           struct evhttp_connection *conn) {
  struct bufferevent *bev = evhttp_connection_get_bufferevent(conn);
  struct http_exchange *x;
  LIST_FOREACH(x, &s->exchanges, link)
    if (x->bev == bev)
      return x;
  return NULL;
}

static const struct http_route *find_route(const struct http_server *s,
                                           const struct evhttp_request *req) {
  const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(req);
  const char *path = uri ? evhttp_uri_get_path(uri) : NULL;
  const struct http_route *route = s->options.routes;
  while (route->path && (!path || strcmp(route->path, path) != 0))
    route++;
  return route->path ? route : NULL;
}

static bool is_head(const struct evhttp_request *req) {
  return evhttp_request_get_command(req) == EVHTTP_REQ_HEAD;
}

static bool reads(const struct evhttp_request *req) {
  return is_head(req) || evhttp_request_get_command(req) == EVHTTP_REQ_GET;
}

static void on_request(struct evhttp_request *req, void *arg) {
  struct http_server *s = arg;
  struct evhttp_connection *conn = evhttp_request_get_connection(req);
  struct http_exchange *x = find_exchange(s, conn);
  if (!x || x->is_open) { /* there was no memory, or it is a second one */
    evhttp_send_error(req, HTTP_INTERNAL, NULL);
    return;
  }
  x->request = req;
  x->is_open = true;
  evhttp_connection_set_closecb(conn, on_close, x);
  exchange_set_deadline(x, s->options.answer_timeout_ms);
  const struct http_route *route = find_route(s, req);
  if (!reads(req)) {
    evbuffer_add_printf(s->part, "only GET and HEAD are answered\n");
    http_server_reply(x, HTTP_BADMETHOD, "Method Not Allowed", s->part);
  } else if (!route) {
    evbuffer_add_printf(s->part, "there is nothing here\n");
    http_server_reply(x, HTTP_NOTFOUND, "Not Found", s->part);
  } else {
    route->answer(s->options.arg, x);
  }
}

/* ---- Answers ------------------------------------------------------------- */

/* Takes the request of an exchange that is to be answered now.  NULL: its
 * connection was lost, and the exchange is gone. */
static struct evhttp_request *begin_answer(struct http_exchange *x,
                                           const char *type) {
  struct evhttp_request *req = x->request;
  assert(req);
  if (!x->is_open) {
    evhttp_request_free(req);
    x->request = NULL;
    exchange_free(x);
    return NULL;
  }
  struct evkeyvalq *headers = evhttp_request_get_output_headers(req);
  evhttp_add_header(headers, "Content-Type", type);
  evhttp_add_header(headers, "Cache-Control", "no-store");
  evhttp_add_header(headers, "Connection", "close");
  return req;
}

void http_server_reply(struct http_exchange *x, int status, const char *reason,
                       struct evbuffer *text) {
  struct evhttp_request *req = begin_answer(x, TEXT_TYPE);
  if (req) {
    char length[24];
    snprintf(length, sizeof length, "%zu", evbuffer_get_length(text));
    evhttp_add_header(evhttp_request_get_output_headers(req), "Content-Length",
                      length);
    x->request = NULL; /* evhttp's */
    evhttp_send_reply(req, status, reason, is_head(req) ? NULL : text);
  }
  evbuffer_drain(text, evbuffer_get_length(text));
}

/* The socket has taken the part before. */
static void send_part(struct evhttp_connection *conn, void *arg) {
  struct http_exchange *x = arg;
  struct evbuffer *part = x->server->part;
  (void)conn;
  if (x->parts.next(x->parts.arg, part) && evbuffer_get_length(part)) {
    evhttp_send_reply_chunk_with_cb(x->request, part, send_part, x);
    return;
  }
  struct evhttp_request *req = x->request;
  exchange_end_parts(x);
  x->request = NULL; /* evhttp's */
  evhttp_send_reply_end(req);
}

void http_server_stream(struct http_exchange *x, const char *type,
                        const struct http_parts *parts) {
  struct evhttp_request *req = begin_answer(x, type);
  if (!req) {
    parts->end(parts->arg);
    return;
  }
  x->parts = *parts;
  evhttp_send_reply_start(req, HTTP_OK, "OK");
  if (!is_head(req)) {
    send_part(NULL, x);
    return;
  }
  exchange_end_parts(x);
  x->request = NULL;
  evhttp_send_reply_end(req);
}

/* ---- The thread ---------------------------------------------------------- */

static void on_stop(evutil_socket_t fd, short what, void *arg) {
  struct http_server *s = arg;
  (void)fd;
  (void)what;
  event_base_loopbreak(s->base);
}

static void on_resume(evutil_socket_t fd, short what, void *arg) {
  struct http_server *s = arg;
  (void)fd;
  (void)what;
  sweep(s);
  if (s->n_exchanges < s->options.max_connections)
    evconnlistener_enable(s->acceptor);
  else
    pause_accepting(s);
}

/* The server of this thread.  libevent calls on_accept_error() with an argument
 * of evhttp, which does not lead to it. */
static _Thread_local struct http_server *of_thread;

/* Pauses: the socket stays readable, so libevent would call this again at once.
 */
static void on_accept_error(struct evconnlistener *acceptor, void *arg) {
  struct http_server *s = of_thread;
  (void)arg;
  (void)acceptor;
  pause_accepting(s);
}

static void *http_server_thread(void *arg) {
  struct http_server *s = arg;
  of_thread = s;
  pthread_setname_np(pthread_self(), s->options.thread_name);
  sandbox_enter(SANDBOX_METRICS);
  event_base_dispatch(s->base);
  return NULL;
}

/* ---- Life ---------------------------------------------------------------- */

static int http_server_init(struct http_server *s) {
  s->base = event_base_new();
  s->http = s->base ? evhttp_new(s->base) : NULL;
  s->part = evbuffer_new();
  s->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (!s->http || !s->part || s->stop_fd < 0)
    return -ENOMEM;
  event_assign(&s->stop, s->base, s->stop_fd, EV_READ, on_stop, s);
  event_assign(&s->resume, s->base, -1, 0, on_resume, s);
  struct evconnlistener *acceptor = evconnlistener_new(
      s->base, NULL, NULL, LEV_OPT_CLOSE_ON_EXEC, 0, listener_fd(s->listener));
  if (!acceptor || event_add(&s->stop, NULL) < 0)
    return -ENOMEM;
  if (!evhttp_bind_listener(s->http, acceptor)) {
    evconnlistener_free(acceptor);
    return -ENOMEM;
  }
  s->acceptor = acceptor;
  evconnlistener_set_error_cb(acceptor, on_accept_error);
  evhttp_set_allowed_methods(s->http, ALL_METHODS);
  evhttp_set_max_headers_size(s->http, MAX_HEAD_LEN);
  evhttp_set_max_body_size(s->http, MAX_BODY_LEN);
  evhttp_set_bevcb(s->http, on_accept, s);
  evhttp_set_gencb(s->http, on_request, s);
  return 0;
}

int http_server_new(struct listener *listener,
                    const struct http_server_options *options,
                    struct http_server **out) {
  struct http_server *s = calloc(1, sizeof *s);
  if (!s) {
    listener_unref(listener);
    return -ENOMEM;
  }
  s->options = *options;
  s->listener = listener;
  s->stop_fd = -1;
  LIST_INIT(&s->exchanges);
  int r = http_server_init(s);
  if (r < 0)
    http_server_free(s);
  else
    *out = s;
  return r;
}

struct event_base *http_server_base(struct http_server *s) {
  return s->base;
}

int http_server_start(struct http_server *s) {
  int r = pthread_create(&s->thread, NULL, http_server_thread, s);
  s->started = r == 0;
  return -r;
}

/* Frees the exchanges that evhttp has given up. */
static void free_rest(struct http_server *s) {
  struct http_exchange *x;
  while ((x = LIST_FIRST(&s->exchanges))) {
    if (x->request)
      evhttp_request_free(x->request);
    exchange_free(x);
  }
}

void http_server_stop(struct http_server *s) {
  if (!s->started)
    return;
  eventfd_write(s->stop_fd, 1); /* one that is 0 takes it */
  pthread_join(s->thread, NULL);
  s->started = false;
}

void http_server_free(struct http_server *s) {
  if (!s)
    return;
  http_server_stop(s);
  s->ends = true;
  if (s->http)
    evhttp_free(s->http);
  free_rest(s);
  if (event_initialized(&s->stop)) {
    event_del(&s->stop);
    event_del(&s->resume);
  }
  if (s->base)
    event_base_free(s->base);
  if (s->part)
    evbuffer_free(s->part);
  if (s->stop_fd >= 0)
    close(s->stop_fd);
  listener_unref(s->listener);
  free(s);
}

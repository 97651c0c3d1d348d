/* A small HTTP server: libevent's evhttp, on a thread of its own, for GET and
 * HEAD of a few paths.  What is asked of it holds up nobody else.
 *
 *   H1  There are at most `max_connections`; others wait to be accepted.
 *   H2  A connection brings one request that is answered, whose head and body
 *       are bounded, within `request_timeout_ms` from when it was accepted, and
 *       takes its answer within `answer_timeout_ms`; then it is closed,
 *       whatever it sent meanwhile.
 *   H3  An exchange gets one answer, at once or later.
 *
 * Functions of an exchange and of a route: its thread only. */
#ifndef DAEMON_HTTP_SERVER_H
#define DAEMON_HTTP_SERVER_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct evbuffer;
struct event_base;
struct http_exchange;
struct http_server;
struct listener;

enum { HTTP_SERVER_MAX_CONNECTIONS = 32 };

struct http_route {
  const char *path;
  /* Answers, or has it answered later. */
  void (*answer)(void *arg, struct http_exchange *x);
};

struct http_server_options {
  const struct http_route *routes; /* the last has no path */
  void *arg;                       /* of the routes */
  const char *thread_name;
  unsigned max_connections;
  int request_timeout_ms, answer_timeout_ms;
};

static inline struct http_server_options
http_server_options_default(const struct http_route *routes, void *arg) {
  struct http_server_options o = {};
  o.routes = routes;
  o.arg = arg;
  o.thread_name = "metrics";
  o.max_connections = HTTP_SERVER_MAX_CONNECTIONS;
  o.request_timeout_ms = 10000;
  o.answer_timeout_ms = 30000;
  return o;
}

/* Serves on the listener, which is its own from here, also on failure.  The
 * routes stay.  0 or a negative errno. */
int http_server_new(struct listener *listener,
                    const struct http_server_options *options,
                    struct http_server **out);

/* Its loop, for timers of the routes; before http_server_start(), too. */
struct event_base *http_server_base(struct http_server *s);

/* Starts its thread.  0 or a negative errno. */
int http_server_start(struct http_server *s);

/* Ends its thread: nothing of it is called any more but the `end` of parts. */
void http_server_stop(struct http_server *s);

/* Ends its thread and its connections.  NULL is fine. */
void http_server_free(struct http_server *s);

/* Answers with a whole text, which is left empty. */
void http_server_reply(struct http_exchange *x, int status, const char *reason,
                       struct evbuffer *text);

/* Answers with a text of parts, each made when the one before was taken:
 * next(arg, to) adds it, and is false if there is none.  end(arg) is called
 * once. */
struct http_parts {
  bool (*next)(void *arg, struct evbuffer *to);
  void (*end)(void *arg);
  void *arg;
};
void http_server_stream(struct http_exchange *x, const char *type,
                        const struct http_parts *parts);

#ifdef __cplusplus
}
#endif

#endif

#include "daemon/monitor.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/queue.h>

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/event_struct.h>

#include "base/clock.h"
#include "daemon/http_server.h"
#include "daemon/net/listener.h"
#include "daemon/serve/metrics_text.h"
#include "daemon/server.h"

enum {
  HTTP_OK = 200,
  HTTP_UNAVAILABLE = 503,
  /* The pauses between looks whether the loops have answered.  Each pause is
   * twice as long as the one before, up to the second number. */
  LOOK_LEAST_MS = 1,
  LOOK_MOST_MS = 100,
  /* Reasons in an answer of /readyz. */
  MAX_REASONS = 64,
};

/* An exchange that waits for loops to turn. */
struct waiter {
  struct http_exchange *exchange;
  SLIST_ENTRY(waiter) link;
};

struct monitor {
  struct server *server;
  struct http_server *http;
  struct evbuffer *text;

  /* The loops are asked one question at a time.  A request that comes meanwhile
   * waits for that answer.  A question that was not answered in time stays, so
   * that a hung loop is not asked again and again. */
  uint64_t question; /* 0: none is */
  uint64_t asked_ms;
  struct event look;
  int look_ms;
  SLIST_HEAD(, waiter) waiters;
};

/* "ok", or what was written so far as the reasons why not. */
static void reply(struct monitor *m, struct http_exchange *x) {
  if (evbuffer_get_length(m->text)) {
    http_server_reply(x, HTTP_UNAVAILABLE, "Service Unavailable", m->text);
    return;
  }
  evbuffer_add_printf(m->text, "ok\n");
  http_server_reply(x, HTTP_OK, "OK", m->text);
}

/* ---- /livez -------------------------------------------------------------- */

static bool is_answered(const struct monitor *m) {
  unsigned next = 0;
  return !server_next_silent(m->server, m->question, &next);
}

static bool is_late(const struct monitor *m) {
  return clock_now_ms() - m->asked_ms >= MONITOR_ALIVE_MS;
}

static void reply_livez(struct monitor *m, struct http_exchange *x) {
  const char *name;
  for (unsigned next = 0;
       (name = server_next_silent(m->server, m->question, &next));)
    evbuffer_add_printf(m->text, "thread %s has not turned for %d s\n", name,
                        MONITOR_ALIVE_MS / 1000);
  reply(m, x);
}

static void set_look(struct monitor *m) {
  struct timeval tv = {.tv_usec = m->look_ms * 1000};
  event_add(&m->look, &tv);
  m->look_ms = m->look_ms < LOOK_MOST_MS / 2 ? m->look_ms * 2 : LOOK_MOST_MS;
}

static void on_look(evutil_socket_t fd, short what, void *arg) {
  struct monitor *m = arg;
  struct waiter *w;
  (void)fd;
  (void)what;
  if (!is_answered(m) && !is_late(m)) {
    set_look(m);
    return;
  }
  while ((w = SLIST_FIRST(&m->waiters))) {
    SLIST_REMOVE_HEAD(&m->waiters, link);
    reply_livez(m, w->exchange);
    free(w);
  }
}

static void await_loops(struct monitor *m, struct http_exchange *x) {
  struct waiter *w = malloc(sizeof *w);
  if (!w) {
    evbuffer_add_printf(m->text, "there is no memory\n");
    reply(m, x);
    return;
  }
  w->exchange = x;
  if (SLIST_EMPTY(&m->waiters)) {
    m->look_ms = LOOK_LEAST_MS;
    set_look(m);
  }
  SLIST_INSERT_HEAD(&m->waiters, w, link);
}

static void answer_livez(void *arg, struct http_exchange *x) {
  struct monitor *m = arg;
  if (m->question == 0 || is_answered(m)) {
    m->question = server_ask_liveness(m->server);
    m->asked_ms = clock_now_ms();
  }
  if (is_late(m))
    reply_livez(m, x);
  else
    await_loops(m, x);
}

/* ---- /readyz ------------------------------------------------------------- */

struct reasons {
  struct evbuffer *text;
  unsigned n;
};

static void add_reason(void *arg, const char *reason) {
  struct reasons *r = arg;
  if (r->n++ < MAX_REASONS)
    evbuffer_add_printf(r->text, "%s\n", reason);
}

static void answer_readyz(void *arg, struct http_exchange *x) {
  struct monitor *m = arg;
  struct reasons reasons = {.text = m->text};
  server_list_unready(m->server, add_reason, &reasons);
  if (reasons.n > MAX_REASONS)
    evbuffer_add_printf(m->text, "and %u more\n", reasons.n - MAX_REASONS);
  reply(m, x);
}

/* ---- /metrics ------------------------------------------------------------ */

static bool next_part(void *arg, struct evbuffer *to) {
  return metrics_text_next(arg, to);
}

static void end_parts(void *arg) { metrics_text_free(arg); }

static void answer_metrics(void *arg, struct http_exchange *x) {
  struct monitor *m = arg;
  struct metrics_text *e = server_metrics_text(m->server);
  if (e) {
    const struct http_parts parts = {next_part, end_parts, e};
    http_server_stream(x, METRICS_TEXT_TYPE, &parts);
    return;
  }
  evbuffer_add_printf(m->text, "there is no memory\n");
  reply(m, x);
}

static const struct http_route routes[] = {
    {"/livez", answer_livez},
    {"/readyz", answer_readyz},
    {"/metrics", answer_metrics},
    {NULL, NULL},
};

/* ---- Life ---------------------------------------------------------------- */

void monitor_stop(struct monitor *m) {
  struct waiter *w;
  if (!m)
    return;
  if (m->http)
    http_server_stop(m->http);
  while ((w = SLIST_FIRST(&m->waiters))) { /* their exchanges have ended */
    SLIST_REMOVE_HEAD(&m->waiters, link);
    free(w);
  }
  if (event_initialized(&m->look))
    event_del(&m->look);
  http_server_free(m->http);
  if (m->text)
    evbuffer_free(m->text);
  free(m);
}

int monitor_start(struct server *server, struct listener *listener,
                  struct monitor **out) {
  struct monitor *m = calloc(1, sizeof *m);
  if (!m) {
    listener_unref(listener);
    return -ENOMEM;
  }
  const struct http_server_options options =
      http_server_options_default(routes, m);
  int r = http_server_new(listener, &options, &m->http);
  m->server = server;
  SLIST_INIT(&m->waiters);
  m->text = evbuffer_new();
  if (r == 0 && !m->text)
    r = -ENOMEM;
  if (r == 0) {
    event_assign(&m->look, http_server_base(m->http), -1, 0, on_look, m);
    r = http_server_start(m->http);
  }
  if (r < 0)
    monitor_stop(m);
  else
    *out = m;
  return r;
}

#include "source/http_client.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/container_of.h"
#include "base/version.h"
#include "source/curl_once.h"
#include "source/reactor.h"

TAILQ_HEAD(http_gets, http_get);

struct http_client {
  struct reactor *reactor;
  struct task end;
  char *ca;
  unsigned connections;

  /* All below: the reactor's thread alone. */
  CURLM *multi; /* NULL: there was no get yet */
  struct event timer;
  struct event resume; /* C4: the time has come */
  uint64_t not_before; /* C4, as clock_now_ms(); 0: at once */
  struct http_gets waiting, running;
  unsigned n_running;
};

/* A socket of libcurl's that events are wanted of. */
struct http_socket {
  struct event event;
};

static void client_pump(struct http_client *client);

/* ---- The end of a get ---------------------------------------------------- */

static void fail(struct http_get *get, int status, const char *why) {
  if (get->status)
    return; /* the first failure is the one that counts */
  get->status = status;
  snprintf(get->why, sizeof get->why, "%s", why);
}

static bool is_tls_failure(CURLcode code) {
  switch (code) {
  case CURLE_SSL_CONNECT_ERROR:
  case CURLE_PEER_FAILED_VERIFICATION:
  case CURLE_SSL_CACERT_BADFILE:
  case CURLE_SSL_CERTPROBLEM:
  case CURLE_SSL_CIPHER:
  case CURLE_SSL_ISSUER_ERROR:
  case CURLE_SSL_CLIENTCERT:
  case CURLE_USE_SSL_FAILED:
    return true;
  default:
    return false;
  }
}

static int status_of_curl(CURL *easy, CURLcode code) {
  long os = 0;
  curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &os);
  switch (code) {
  case CURLE_COULDNT_CONNECT:
    return os > 0 && os != EINPROGRESS ? -(int)os : -ECONNREFUSED;
  case CURLE_COULDNT_RESOLVE_HOST:
  case CURLE_COULDNT_RESOLVE_PROXY:
    return -EHOSTUNREACH;
  case CURLE_OPERATION_TIMEDOUT:
    return -ETIMEDOUT;
  case CURLE_OUT_OF_MEMORY:
    return -ENOMEM;
  case CURLE_PARTIAL_FILE:
  case CURLE_GOT_NOTHING:
  case CURLE_SEND_ERROR:
  case CURLE_RECV_ERROR:
  case CURLE_HTTP2:
  case CURLE_HTTP2_STREAM:
    return -ECONNRESET;
  case CURLE_SSL_CONNECT_ERROR:
    return os == ECONNRESET || os == EPIPE ? -(int)os : -EACCES;
  case CURLE_UNSUPPORTED_PROTOCOL:
  case CURLE_WEIRD_SERVER_REPLY:
  case CURLE_BAD_CONTENT_ENCODING:
  case CURLE_TOO_MANY_REDIRECTS:
    return -EPROTO;
  default:
    return is_tls_failure(code) ? -EACCES : -EREMOTEIO;
  }
}

/* For a certificate the message of libcurl says what is wrong with it.  For
 * other failures it is not used, because it may quote the URL, which may be
 * secret. */
static void fail_by_curl(struct http_get *get, CURLcode code) {
  bool has_words = is_tls_failure(code) && get->curl_error[0];
  fail(get, status_of_curl(get->easy, code),
       has_words ? get->curl_error : curl_easy_strerror(code));
}

/* Takes a get off the client, and returns it to its caller. */
static void end_get(struct http_get *get) {
  struct http_client *client = get->client;
  evtimer_del(&get->timer);
  if (get->easy) {
    curl_multi_remove_handle(client->multi, get->easy);
    curl_easy_cleanup(get->easy);
    get->easy = NULL;
    TAILQ_REMOVE(&client->running, get, link);
    client->n_running--;
  } else {
    TAILQ_REMOVE(&client->waiting, get, link);
  }
  curl_slist_free_all(get->headers);
  get->headers = NULL;
  get->ended(get);
}

/* ---- What comes of a server ---------------------------------------------- */

static size_t on_header(char *line, size_t size, size_t n, void *arg) {
  struct http_get *get = arg;
  get->n_window += size * n;
  http_answer_line(&get->answer, line, size * n);
  return size * n;
}

/* C4 */
static void note_wait(struct http_get *get) {
  int64_t wait_s = http_answer_wait_s(&get->answer, time(NULL));
  uint64_t until = clock_now_ms() + (uint64_t)wait_s * 1000;
  if (get->status == -EAGAIN && wait_s > 0 && until > get->client->not_before)
    get->client->not_before = until;
}

/* Decides by the head whether the body is used.  A body that is not used is
 * still received if it is short, so that the connection can be used again. */
static void judge_head(struct http_get *get) {
  const char *why = NULL;
  int failed;
  if (get->head_is_judged)
    return;
  get->head_is_judged = true;
  if (get->follows && http_answer_is_redirect(&get->answer))
    return;
  if (get->is_head)
    failed = http_answer_confirm(&get->answer, get->object, &why);
  else if (get->object)
    failed = http_answer_check(&get->answer, get->object, get->offset, get->len,
                               &get->skip, &get->n_body, &why);
  else
    failed = http_answer_learn(&get->answer, &get->learned, &why);
  get->body_is_good = !failed && get->object && !get->is_head;
  if (failed)
    fail(get, failed, why);
  note_wait(get);
}

/* Copies the bytes that belong into the buffer.  `bytes` begin at `n_received`
 * of the body. */
static void take_good(struct http_get *get, const char *bytes, size_t n) {
  uint64_t at = get->n_received, end = get->skip + get->len;
  uint64_t from = at < get->skip ? get->skip : at;
  uint64_t to = at + n < end ? at + n : end;
  if (from >= to)
    return;
  if (!get->first_ns)
    get->first_ns = clock_now_ns();
  memcpy(get->buf + (from - get->skip), bytes + (from - at), to - from);
}

static void take_vain(struct http_get *get, const char *bytes, size_t n) {
  size_t room = sizeof get->error_body - get->error_len;
  if (n > room)
    n = room;
  memcpy(get->error_body + get->error_len, bytes, n);
  get->error_len += n;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *arg) {
  struct http_get *get = arg;
  n *= size;
  judge_head(get);
  get->n_window += n;
  uint64_t most = get->body_is_good ? get->n_body : HTTP_VAIN_BODY;
  if (get->n_received + n > most) {
    /* A server may send a whole small object when only its size is asked for.
     * Those bytes are not used. */
    if (get->body_is_good)
      fail(get, -EPROTO, "the server sends more than it said");
    return CURL_WRITEFUNC_ERROR;
  }
  if (get->body_is_good)
    take_good(get, bytes, n);
  else
    take_vain(get, bytes, n);
  get->n_received += n;
  return n;
}

/* ---- A request ----------------------------------------------------------- */

static bool is_https(const char *url) {
  return strncasecmp(url, "https:", 6) == 0;
}

static bool add_header(struct http_get *get, const char *name,
                       const char *value) {
  char line[HTTP_ETAG_MAX + 64];
  snprintf(line, sizeof line, "%s: %s", name, value);
  struct curl_slist *longer = curl_slist_append(get->headers, line);
  if (longer)
    get->headers = longer;
  return longer != NULL;
}

static int make_headers(struct http_get *get) {
  const struct http_object *o = get->object;
  curl_slist_free_all(get->headers);
  get->headers = NULL;
  /* The bytes of a compressed answer would not be those of the object. */
  bool done = add_header(get, "Accept-Encoding", "identity");
  if (done && o && o->etag[0])
    done = add_header(get, "If-Match", o->etag);
  else if (done && o && o->last_modified[0])
    done = add_header(get, "If-Unmodified-Since", o->last_modified);
  if (!done)
    return -ENOMEM;
  return get->add_headers ? get->add_headers(get, &get->headers) : 0;
}

/* Sets what changes from one request of a get to the next. */
static int prepare(struct http_get *get, const char *url) {
  char range[64];
  uint64_t last = get->object ? get->offset + get->len - 1 : 0;
  snprintf(range, sizeof range, "%llu-%llu",
           (unsigned long long)(get->object ? get->offset : 0),
           (unsigned long long)last);
  http_answer_init(&get->answer);
  get->n_received = 0;
  get->error_len = 0;
  get->body_is_good = get->head_is_judged = false;
  int failed = make_headers(get);
  if (failed)
    return failed;
  CURL *e = get->easy;
  /* HTTP/2 is used only with TLS.  There a burst of requests waits for the
   * first connection, because they can share it. */
  bool is_tls = is_https(url);
  bool done =
      curl_easy_setopt(e, CURLOPT_URL, url) == CURLE_OK &&
      curl_easy_setopt(e, CURLOPT_FRESH_CONNECT, (long)get->anew) == CURLE_OK &&
      curl_easy_setopt(e, CURLOPT_RANGE, get->is_head ? NULL : range) ==
          CURLE_OK &&
      curl_easy_setopt(e, CURLOPT_NOBODY, (long)get->is_head) == CURLE_OK &&
      curl_easy_setopt(e, CURLOPT_HTTPHEADER, get->headers) == CURLE_OK &&
      curl_easy_setopt(e, CURLOPT_PIPEWAIT, (long)is_tls) == CURLE_OK &&
      curl_easy_setopt(e, CURLOPT_HTTP_VERSION,
                       is_tls ? (long)CURL_HTTP_VERSION_2TLS
                              : (long)CURL_HTTP_VERSION_1_1) == CURLE_OK;
  return done ? 0 : -ENOMEM;
}

static bool set_up_tls(struct http_get *get) {
  CURL *e = get->easy;
  const char *ca = get->client->ca;
  /* Certificates and their names are checked: libcurl's default. */
  return curl_easy_setopt(e, CURLOPT_SSLVERSION,
                          (long)CURL_SSLVERSION_TLSv1_2) == CURLE_OK &&
         (!ca || (curl_easy_setopt(e, CURLOPT_CAINFO, ca) == CURLE_OK &&
                  curl_easy_setopt(e, CURLOPT_PROXY_CAINFO, ca) == CURLE_OK));
}

static bool set_up_callbacks(struct http_get *get) {
  CURL *e = get->easy;
  return curl_easy_setopt(e, CURLOPT_PRIVATE, (char *)get) == CURLE_OK &&
         curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header) == CURLE_OK &&
         curl_easy_setopt(e, CURLOPT_HEADERDATA, get) == CURLE_OK &&
         curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body) == CURLE_OK &&
         curl_easy_setopt(e, CURLOPT_WRITEDATA, get) == CURLE_OK &&
         curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, curl_open_socket) ==
             CURLE_OK &&
         curl_easy_setopt(e, CURLOPT_ERRORBUFFER, get->curl_error) == CURLE_OK;
}

/* The time limit of the whole get for libcurl, should ours ever fail to end
 * it. */
static long longest_ms(const struct http_get *get) {
  return (long)(get->timeout_ms + 1000 +
                (uint64_t)get->len * 1000 / HTTP_MIN_RATE);
}

static int set_up(struct http_get *get) {
  CURL *e = get->easy = curl_easy_init();
  if (!e)
    return -ENOMEM;
  bool done =
      set_up_callbacks(get) && set_up_tls(get) &&
      curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
      /* libcurl must not wait for a thread that resolves a name. */
      curl_easy_setopt(e, CURLOPT_QUICK_EXIT, 1L) == CURLE_OK &&
      /* The signature is made of the URL as it is written, so libcurl must not
       * change it. */
      curl_easy_setopt(e, CURLOPT_PATH_AS_IS, 1L) == CURLE_OK &&
      curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
      curl_easy_setopt(e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L) == CURLE_OK &&
      curl_easy_setopt(e, CURLOPT_BUFFERSIZE, 128L << 10) == CURLE_OK &&
      curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, longest_ms(get)) == CURLE_OK &&
      curl_easy_setopt(e, CURLOPT_USERAGENT, "cachetd/" CACHETD_VERSION) ==
          CURLE_OK;
  return done ? prepare(get, get->url) : -ENOMEM;
}

/* ---- The end of a request ------------------------------------------------ */

/* Where a redirect leads, if it may be followed. */
static const char *next_url(struct http_get *get) {
  char *url = NULL, *here = NULL;
  if (!get->follows || !http_answer_is_redirect(&get->answer))
    return NULL;
  curl_easy_getinfo(get->easy, CURLINFO_REDIRECT_URL, &url);
  curl_easy_getinfo(get->easy, CURLINFO_EFFECTIVE_URL, &here);
  if (!url)
    fail(get, -EPROTO, "the server redirects to nowhere");
  else if (get->n_redirects++ == HTTP_MAX_REDIRECTS)
    fail(get, -EPROTO, "the server redirects too often");
  else if (is_https(here) && !is_https(url))
    fail(get, -EPROTO, "the server redirects from https to less");
  else
    return url;
  return NULL;
}

/* True: another request of the get is under way. */
static bool follow(struct http_get *get) {
  const char *next = next_url(get);
  if (!next)
    return false;
  /* A copy: the handle owns `next`, and is changed below. */
  char *url = strdup(next);
  int failed = url ? 0 : -ENOMEM;
  curl_multi_remove_handle(get->client->multi, get->easy);
  if (!failed)
    failed = prepare(get, url);
  free(url);
  if (!failed && curl_multi_add_handle(get->client->multi, get->easy))
    failed = -ENOMEM;
  if (failed)
    fail(get, failed, strerror(-failed));
  return !failed;
}

/* The whole body has come. */
static void judge_body(struct http_get *get) {
  judge_head(get);
  if (get->body_is_good && get->n_received != get->n_body)
    fail(get, -EPROTO, "the server sends less than it said");
}

/* Whether this client itself stopped a long body that is not used.  Then only
 * the head counts. */
static bool was_cut(const struct http_get *get, CURLcode code) {
  return code == CURLE_WRITE_ERROR && get->head_is_judged && !get->body_is_good;
}

static void on_done(struct http_get *get, CURLcode code) {
  if (code != CURLE_OK && !was_cut(get, code)) {
    fail_by_curl(get, code);
  } else {
    judge_body(get);
    if (!get->status && follow(get))
      return;
  }
  end_get(get);
}

static void client_reap(struct http_client *client) {
  CURLMsg *message;
  int left;
  while ((message = curl_multi_info_read(client->multi, &left))) {
    char *get = NULL;
    /* Copied first: the message is invalid once its handle was removed. */
    CURLcode code = message->data.result;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &get);
    on_done((struct http_get *)get, code);
  }
  client_pump(client);
}

/* ---- Sockets and timers -------------------------------------------------- */

static void on_ready(evutil_socket_t fd, short what, void *arg) {
  struct http_client *client = arg;
  int running, mask = (what & EV_READ ? CURL_CSELECT_IN : 0) |
                      (what & EV_WRITE ? CURL_CSELECT_OUT : 0);
  curl_multi_socket_action(client->multi, fd, mask, &running);
  client_reap(client);
}

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg,
                     void *of_socket) {
  struct http_client *client = arg;
  struct http_socket *s = of_socket;
  (void)easy;
  if (s)
    event_del(&s->event);
  if (what == CURL_POLL_REMOVE) {
    curl_multi_assign(client->multi, fd, NULL);
    free(s);
    return 0;
  }
  if (!s) {
    s = calloc(1, sizeof *s);
    if (!s || curl_multi_assign(client->multi, fd, s)) {
      free(s);
      return -1;
    }
  }
  short events = (short)(EV_PERSIST | (what & CURL_POLL_IN ? EV_READ : 0) |
                         (what & CURL_POLL_OUT ? EV_WRITE : 0));
  event_assign(&s->event, reactor_base(client->reactor), fd, events, on_ready,
               client);
  return event_add(&s->event, NULL);
}

static void on_timer(evutil_socket_t fd, short what, void *arg) {
  struct http_client *client = arg;
  int running;
  (void)fd;
  (void)what;
  curl_multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0, &running);
  client_reap(client);
}

static int on_set_timer(CURLM *multi, long timeout_ms, void *arg) {
  struct http_client *client = arg;
  (void)multi;
  return timeout_ms < 0
             ? evtimer_del(&client->timer)
             : reactor_set_timer(&client->timer, (uint64_t)timeout_ms);
}

/* ---- Which gets are under way -------------------------------------------- */

/* Starts a get that waits.  On failure it still waits. */
static int launch(struct http_get *get) {
  struct http_client *client = get->client;
  int failed = set_up(get);
  if (!failed && curl_multi_add_handle(client->multi, get->easy))
    failed = -ENOMEM;
  if (failed) {
    curl_easy_cleanup(get->easy);
    get->easy = NULL;
    return failed;
  }
  TAILQ_REMOVE(&client->waiting, get, link);
  TAILQ_INSERT_TAIL(&client->running, get, link);
  client->n_running++;
  get->sent_ns = clock_now_ns();
  return 0;
}

static void on_resume(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  client_pump(arg);
}

/* C4: for how long no get may begin. */
static uint64_t held_ms(const struct http_client *client) {
  uint64_t now = clock_now_ms();
  return client->not_before > now ? client->not_before - now : 0;
}

/* C2: those that run are no more than may, and the others wait. */
static void client_check(const struct http_client *client) {
  (void)client;
#ifdef CACHETD_DEBUG_CHECKS
  const struct http_get *get;
  unsigned n = 0;
  TAILQ_FOREACH(get, &client->running, link) {
    assert(get->client == client && get->easy);
    n++;
  }
  TAILQ_FOREACH(get, &client->waiting, link)
    assert(get->client == client && !get->easy);
  assert(n == client->n_running && n <= client->connections);
#endif
}

/* Must not be called in a callback of libcurl, which allows no such calls
 * there. */
static void client_pump(struct http_client *client) {
  struct http_get *get;
  uint64_t held = held_ms(client);
  if (held > 0 && !TAILQ_EMPTY(&client->waiting)) {
    reactor_set_timer(&client->resume, held);
    return;
  }
  while (client->n_running < client->connections &&
         (get = TAILQ_FIRST(&client->waiting))) {
    int failed = launch(get);
    if (failed) {
      fail(get, failed, strerror(-failed));
      end_get(get);
    }
  }
  client_check(client);
}

/* C3: until when a get is looked at next. */
static uint64_t window_ms(const struct http_get *get) {
  uint64_t now = clock_now_ms(), end = get->deadline_ms;
  if (!end || end >= now + get->timeout_ms)
    return get->timeout_ms;
  return end > now ? end - now : 0;
}

/* C3 */
static void on_window(evutil_socket_t fd, short what, void *arg) {
  struct http_get *get = arg;
  struct http_client *client = get->client;
  uint64_t next_ms = window_ms(get);
  (void)fd;
  (void)what;
  if (next_ms > 0 &&
      get->n_window >= (uint64_t)get->timeout_ms * HTTP_MIN_RATE / 1000) {
    get->n_window = 0;
    reactor_set_timer(&get->timer, next_ms);
    return;
  }
  if (!get->easy && held_ms(client) > 0)
    fail(get, -EAGAIN, "the server asks to be asked later");
  else
    fail(get, -ETIMEDOUT, "the server does not answer in time");
  end_get(get);
  client_pump(client);
}

static bool make_multi(struct http_client *client) {
  CURLM *m = client->multi = curl_multi_init();
  if (!m)
    return false;
  struct event_base *base = reactor_base(client->reactor);
  evtimer_assign(&client->timer, base, on_timer, client);
  evtimer_assign(&client->resume, base, on_resume, client);
  long n = (long)client->connections;
  curl_multi_setopt(m, CURLMOPT_SOCKETFUNCTION, on_socket);
  curl_multi_setopt(m, CURLMOPT_SOCKETDATA, client);
  curl_multi_setopt(m, CURLMOPT_TIMERFUNCTION, on_set_timer);
  curl_multi_setopt(m, CURLMOPT_TIMERDATA, client);
  curl_multi_setopt(m, CURLMOPT_MAX_TOTAL_CONNECTIONS, n);
  curl_multi_setopt(m, CURLMOPT_MAXCONNECTS, n);
  return true;
}

void http_client_start(struct http_client *client, struct http_get *get) {
  uint64_t first_ms = window_ms(get);
  assert(reactor_is_current(client->reactor) && get->len > 0);
  get->client = client;
  get->status = 0;
  get->n_window = 0;
  get->sent_ns = get->first_ns = 0;
  get->n_redirects = 0;
  TAILQ_INSERT_TAIL(&client->waiting, get, link);
  evtimer_assign(&get->timer, reactor_base(client->reactor), on_window, get);
  if (!client->multi && !make_multi(client))
    fail(get, -ENOMEM, strerror(ENOMEM));
  else if (held_ms(client) >= first_ms && first_ms > 0)
    fail(get, -EAGAIN, "the server asks to be asked later");
  else if (reactor_set_timer(&get->timer, first_ms) < 0)
    fail(get, -ENOMEM, strerror(ENOMEM));
  if (get->status)
    end_get(get);
  else
    client_pump(client);
}

/* ---- Making and freeing -------------------------------------------------- */

static void client_end(struct task *task) {
  struct http_client *client = container_of(task, struct http_client, end);
  assert(TAILQ_EMPTY(&client->waiting) && TAILQ_EMPTY(&client->running));
  if (client->multi) {
    curl_multi_cleanup(client->multi);
    evtimer_del(&client->timer);
    evtimer_del(&client->resume);
  }
  free(client->ca);
  free(client);
}

void http_client_free(struct http_client *client) {
  if (client)
    reactor_post(client->reactor, &client->end);
}

int http_client_new(struct reactor *r,
                    const struct http_client_options *options,
                    struct http_client **out) {
  curl_once();
  struct http_client *client = calloc(1, sizeof *client);
  if (client && options->ca) {
    client->ca = strdup(options->ca);
    if (!client->ca) {
      free(client);
      client = NULL;
    }
  }
  if (!client)
    return -ENOMEM;
  client->reactor = r;
  client->end.run = client_end;
  client->connections = options->connections;
  TAILQ_INIT(&client->waiting);
  TAILQ_INIT(&client->running);
  *out = client;
  return 0;
}

/* A client of HTTP, over libcurl's multi interface and the reactor's event
 * base: GETs of ranges of one object, each with a proof that it is that
 * object's (source/http_answer.h), and HEADs.
 *
 *   C1  A get is the client's from http_client_start() until ended(), which is
 *       called once.  Its buffer is written in between alone, and never past
 *       its length.
 *   C2  At most `connections` gets are under way; others wait in the order in
 *       which they came.  Where a server offers HTTP/2 they share a connection.
 *   C3  A get whose bytes are slower than HTTP_MIN_RATE for `timeout_ms`, or do
 *       not come, ends with -ETIMEDOUT, as does one at its deadline.  The
 *       clock begins at http_client_start() and does not depend on libcurl's.
 *   C4  After an answer that says so (Retry-After), no get begins before its
 *       time has come; one that would have to wait too long ends with -EAGAIN.
 *   C5  At most HTTP_MAX_REDIRECTS are followed, by http and https alone, and
 *       not from https to http.  The user and password of a URL go to its own
 *       host alone.
 *
 * All but http_client_new() and http_client_free() is for the reactor's thread
 * alone. */
#ifndef SOURCE_HTTP_CLIENT_H
#define SOURCE_HTTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <curl/curl.h>
#include <event2/event_struct.h>

#include "source/http_answer.h"

struct reactor;
struct http_client;

enum {
  HTTP_MAX_REDIRECTS = 5,
  HTTP_MIN_RATE = 16 << 10, /* bytes a second */
  HTTP_ERROR_BODY = 2048,   /* bytes that are kept of an error's body */
  /* Of a body that is in vain, so much is received to keep the connection. */
  HTTP_VAIN_BODY = 64 << 10,
};

/* What a client needs to know once. */
struct http_client_options {
  const char *ca;       /* a file of certificates; NULL: the system's */
  unsigned connections; /* at least 1 */
};

/* One GET.  The first part is the caller's, which zeroes the rest at first; a
 * get that has ended may be started again. */
struct http_get {
  const char *url;
  /* Adds what a request needs beside its range: called for each request, after
   * a redirect as well.  0 or a negative errno.  May be NULL. */
  int (*add_headers)(struct http_get *get, struct curl_slist **headers);
  uint64_t mark; /* the kind's: source/http_source.h */
  bool follows;  /* redirects */
  bool is_head;  /* a HEAD: whether `object` is still there, as it was */
  bool anew;     /* over a connection of its own */
  unsigned timeout_ms;
  uint64_t deadline_ms;             /* clock_now_ms(); 0: none */
  const struct http_object *object; /* NULL: its first byte is asked for, to
                                       learn what there is */
  uint64_t offset;
  uint8_t *buf;
  size_t len; /* > 0 */
  void (*ended)(struct http_get *get);

  /* For ended(): 0, and then all of `buf` has been written or `learned` is set;
   * or a negative errno, and `why` in words.  `answer` is the last that came.
   */
  int status;
  char why[CURL_ERROR_SIZE];
  uint64_t sent_ns, first_ns; /* clock_now_ns(): its first request was given to
                                 libcurl, the first byte of `buf` came; or 0 */
  struct http_object learned;
  struct http_answer answer;
  size_t error_len;
  char error_body[HTTP_ERROR_BODY]; /* of an answer that is no success */

  /* The client's. */
  struct http_client *client;
  TAILQ_ENTRY(http_get) link;
  CURL *easy; /* NULL: it waits */
  struct curl_slist *headers;
  struct event timer;
  uint64_t n_window;     /* bytes since the timer was set */
  uint64_t skip, n_body; /* of the body that is expected */
  uint64_t n_received;   /* of the present body */
  unsigned n_redirects;
  bool body_is_good, head_is_judged;
  char curl_error[CURL_ERROR_SIZE];
};

/* 0 or a negative errno.  The strings of `options` are copied.  Any thread. */
int http_client_new(struct reactor *r,
                    const struct http_client_options *options,
                    struct http_client **out);

/* Nothing of it is under way.  Any thread; the end itself comes later, on the
 * reactor's.  NULL is fine. */
void http_client_free(struct http_client *client);

void http_client_start(struct http_client *client, struct http_get *get);

#endif

/* What the answers of an HTTP server mean to a client that reads ranges of one
 * object: may its bytes be used, and if not, what kind of failure is it.
 *
 * Nothing here does I/O.  A transport hands in the lines of a head as they
 * come; every byte of them is the server's, which may be an attacker.
 *
 *   A1  The bytes of a body are good only if the answer proves that they are
 *       the range that was asked for, of the object that was opened: 206, a
 *       Content-Range of exactly that range and size, and the same validator.
 *       Or 200 of a small object, which is then the whole of it.
 *   A2  A validator is a strong ETag (RFC 9110, 8.8.3); where there is none, a
 *       Last-Modified.  One that is a time in whole seconds, as nginx's ETags
 *       are, does only if that lies more than a second before the Date of the
 *       first answer: another change within the same second would not show
 *       (8.8.2.2).
 *   A3  An answer without that proof is -ESTALE where the object may have
 *       changed, and -EPROTO where the server contradicts the request or
 *       itself. */
#ifndef SOURCE_HTTP_ANSWER_H
#define SOURCE_HTTP_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  /* A whole object is taken for a range of it up to this size: the rest of it
   * is received in vain. */
  HTTP_SMALL_OBJECT = 512 << 10,
  HTTP_ETAG_MAX = 255,
  HTTP_DATE_LEN = 29,            /* "Sun, 06 Nov 1994 08:49:37 GMT" */
  HTTP_RETRY_AFTER_MAX_S = 3600, /* a longer one is cut to it */
};

#define HTTP_SIZE_UNKNOWN UINT64_MAX

struct http_answer {
  int code;      /* 0: no status line has come */
  bool is_bad;   /* a line that matters has no meaning, or came twice */
  bool is_coded; /* by a Content-Encoding: the bytes are not the object's */
  bool has_range;
  uint64_t first, last; /* of the Content-Range; 1 and 0: "bytes * / SIZE" */
  uint64_t size;        /* of the object, by it; or HTTP_SIZE_UNKNOWN */
  uint64_t length;      /* Content-Length; or HTTP_SIZE_UNKNOWN */
  bool etag_is_weak;
  char etag[HTTP_ETAG_MAX + 1]; /* with its quotes; empty: there is none */
  char last_modified[HTTP_DATE_LEN + 1]; /* likewise */
  int64_t date;                          /* seconds since 1970; -1: none */
  int64_t retry_after_s; /* by a number; -1: none, or it is a date */
  int64_t retry_at;      /* by a date; -1 */
};

/* What was opened, and how to know it again. */
struct http_object {
  uint64_t size;
  char etag[HTTP_ETAG_MAX + 1]; /* strong; empty: `last_modified` it is */
  char last_modified[HTTP_DATE_LEN + 1];
};

void http_answer_init(struct http_answer *a);

/* Takes a line of a head, with its line end or without.  A status line begins a
 * new answer: a proxy's, an interim one's or a redirect's is forgotten. */
void http_answer_line(struct http_answer *a, const char *line, size_t len);

/* Whether the answer says that the object is elsewhere. */
bool http_answer_is_redirect(const struct http_answer *a);

/* How many seconds from now the server wants to be left alone; `now` is the
 * time by CLOCK_REALTIME, if the server gives no Date.  0: it does not say. */
int64_t http_answer_wait_s(const struct http_answer *a, int64_t now);

/* The seconds since 1970 of a date as HTTP writes it (IMF-fixdate), or -1. */
int64_t http_date_parse(const char *text, size_t len);

/* What is there, by the answer to a request for the object's first byte.  0; or
 * a negative errno, with `*why` for people, which is never freed: -EAGAIN if
 * the object was modified this moment, and otherwise as below. */
int http_answer_learn(const struct http_answer *a, struct http_object *out,
                      const char **why);

/* Whether the body that follows is `len` bytes from `offset` on of the object,
 * which it has.  0, and then they come after `*skip` others, and so many come
 * in all: `*n_body`.  Or a negative errno, with `*why` as above:
 *
 *   -ESTALE  412; another size or validator; no validator any more
 *   -EPROTO  a 206 without that range; a 200 of what is not small; a redirect
 *            (the transport follows those that it may); anything unheard-of
 *   -EACCES  401, 403, 407, 451            -ENOENT     404, 410
 *   -EAGAIN  429, 503                      -ETIMEDOUT  408
 *   -EREMOTEIO     any other 4xx or 5xx */
int http_answer_check(const struct http_answer *a, const struct http_object *o,
                      uint64_t offset, uint64_t len, uint64_t *skip,
                      uint64_t *n_body, const char **why);

/* Whether the answer to a HEAD proves that the object is the one that was
 * opened: 0, or a negative errno with `*why` as above.  Then it may still be.
 */
int http_answer_confirm(const struct http_answer *a,
                        const struct http_object *o, const char **why);

/* Whether two openings found the same content. */
bool http_object_same(const struct http_object *a, const struct http_object *b);

#ifdef __cplusplus
}
#endif

#endif

#include "source/http_answer.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* ---- Pieces of a line ---------------------------------------------------- */

struct text {
  const char *at, *end;
};

static bool is_space(char c) { return c == ' ' || c == '\t'; }

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static struct text trim(struct text t) {
  while (t.at < t.end && is_space(*t.at))
    t.at++;
  while (t.at < t.end &&
         (is_space(t.end[-1]) || t.end[-1] == '\r' || t.end[-1] == '\n'))
    t.end--;
  return t;
}

static size_t length_of(struct text t) { return (size_t)(t.end - t.at); }

static bool take(struct text *t, const char *word) {
  size_t len = strlen(word);
  if (length_of(*t) < len || strncasecmp(t->at, word, len) != 0)
    return false;
  t->at += len;
  return true;
}

static bool equals(struct text t, const char *word) {
  return take(&t, word) && t.at == t.end;
}

/* A number of decimal digits that fits a file's size. */
static bool take_number(struct text *t, uint64_t *out) {
  uint64_t n = 0;
  if (t->at == t->end || !is_digit(*t->at))
    return false;
  while (t->at < t->end && is_digit(*t->at)) {
    n = n * 10 + (uint64_t)(*t->at++ - '0');
    if (n > INT64_MAX / 10)
      return false;
  }
  *out = n;
  return true;
}

static bool whole_number(struct text t, uint64_t *out) {
  return take_number(&t, out) && t.at == t.end;
}

/* ---- Dates --------------------------------------------------------------- */

static bool two_digits(const char *text, int *out) {
  if (!is_digit(text[0]) || !is_digit(text[1]))
    return false;
  *out = (text[0] - '0') * 10 + (text[1] - '0');
  return true;
}

static int month_of(const char *text) {
  static const char names[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                    "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  for (int i = 0; i < 12; i++)
    if (memcmp(text, names[i], 3) == 0)
      return i;
  return -1;
}

/* strptime(3) cannot be used: it expects month names of the program's
 * locale. */
int64_t http_date_parse(const char *text, size_t len) {
  static const char form[] = "aaa, ?? ??? ???? ??:??:?? GMT";
  struct tm tm = {0};
  int century, year;
  if (len != HTTP_DATE_LEN)
    return -1;
  for (int i = 0; i < HTTP_DATE_LEN; i++)
    if (form[i] == 'a' ? !is_letter(text[i])
                       : form[i] != '?' && text[i] != form[i])
      return -1;
  tm.tm_mon = month_of(text + 8);
  if (tm.tm_mon < 0 || !two_digits(text + 5, &tm.tm_mday) ||
      !two_digits(text + 12, &century) || !two_digits(text + 14, &year) ||
      !two_digits(text + 17, &tm.tm_hour) ||
      !two_digits(text + 20, &tm.tm_min) || !two_digits(text + 23, &tm.tm_sec))
    return -1;
  if (century < 19 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour > 23 ||
      tm.tm_min > 59 || tm.tm_sec > 60)
    return -1;
  tm.tm_year = century * 100 + year - 1900;
  int64_t t = timegm(&tm);
  return t < 0 ? -1 : t;
}

/* ---- Lines --------------------------------------------------------------- */

void http_answer_init(struct http_answer *a) {
  *a = (struct http_answer){
      .size = HTTP_SIZE_UNKNOWN,
      .length = HTTP_SIZE_UNKNOWN,
      .date = -1,
      .retry_after_s = -1,
      .retry_at = -1,
  };
}

/* "HTTP/1.1 206 Partial Content", "HTTP/2 206". */
static void take_status(struct http_answer *a, struct text t) {
  uint64_t code;
  http_answer_init(a);
  while (t.at < t.end && !is_space(*t.at))
    t.at++;
  t = trim(t);
  if (take_number(&t, &code) && code >= 100 && code <= 999 &&
      (t.at == t.end || is_space(*t.at)))
    a->code = (int)code;
  else
    a->is_bad = true;
}

static bool take_dash_last(struct text *t, uint64_t *last) {
  return take(t, "-") && take_number(t, last);
}

/* "bytes 0-9/100", "bytes 0-9/" and a star, "bytes " and a star "/100". */
static bool take_range(struct http_answer *a, struct text t) {
  if (!take(&t, "bytes") || t.at == t.end || !is_space(*t.at))
    return false;
  t = trim(t);
  a->first = 1;
  a->last = 0;
  if (!take(&t, "*") && (!take_number(&t, &a->first) ||
                         !take_dash_last(&t, &a->last) || a->first > a->last))
    return false;
  if (!take(&t, "/"))
    return false;
  if (equals(t, "*"))
    return a->first <= a->last;
  return whole_number(t, &a->size) && (a->first > a->last || a->last < a->size);
}

/* Reads an entity-tag.  It is sent back later, so it must have no byte that
 * could end a line. */
static bool take_etag(struct http_answer *a, struct text t) {
  /* "w/" is not allowed (RFC 9110). */
  a->etag_is_weak = length_of(t) >= 2 && memcmp(t.at, "W/", 2) == 0;
  if (a->etag_is_weak)
    t.at += 2;
  size_t len = length_of(t);
  if (len < 2 || len > HTTP_ETAG_MAX || t.at[0] != '"' || t.end[-1] != '"')
    return false;
  for (size_t i = 1; i < len - 1; i++)
    if ((unsigned char)t.at[i] <= 0x20 || t.at[i] == '"' || t.at[i] == 0x7f)
      return false;
  memcpy(a->etag, t.at, len);
  a->etag[len] = '\0';
  return true;
}

/* A date in another form is ignored. */
static void take_last_modified(struct http_answer *a, struct text t) {
  if (http_date_parse(t.at, length_of(t)) < 0)
    return;
  memcpy(a->last_modified, t.at, HTTP_DATE_LEN);
  a->last_modified[HTTP_DATE_LEN] = '\0';
}

static void take_retry_after(struct http_answer *a, struct text t) {
  uint64_t seconds;
  if (whole_number(t, &seconds))
    a->retry_after_s = seconds < HTTP_RETRY_AFTER_MAX_S
                           ? (int64_t)seconds
                           : HTTP_RETRY_AFTER_MAX_S;
  else
    a->retry_at = http_date_parse(t.at, length_of(t));
}

static void take_length(struct http_answer *a, struct text t) {
  uint64_t length;
  if (!whole_number(t, &length) ||
      (a->length != HTTP_SIZE_UNKNOWN && a->length != length))
    a->is_bad = true;
  else
    a->length = length;
}

void http_answer_line(struct http_answer *a, const char *line, size_t len) {
  struct text t = {line, line + len};
  if (take(&t, "HTTP/")) {
    take_status(a, trim(t));
    return;
  }
  const char *colon = memchr(line, ':', len);
  if (!colon)
    return;
  struct text name = {line, colon};
  struct text value = trim((struct text){colon + 1, line + len});
  if (equals(name, "Content-Range")) {
    a->is_bad |= a->has_range || !take_range(a, value);
    a->has_range = true;
  } else if (equals(name, "ETag")) {
    a->is_bad |= a->etag[0] || !take_etag(a, value);
  } else if (equals(name, "Last-Modified")) {
    a->is_bad |= a->last_modified[0] != '\0';
    take_last_modified(a, value);
  } else if (equals(name, "Content-Length")) {
    take_length(a, value);
  } else if (equals(name, "Content-Encoding")) {
    a->is_coded |= !equals(value, "identity");
  } else if (equals(name, "Date")) {
    a->date = http_date_parse(value.at, length_of(value));
  } else if (equals(name, "Retry-After")) {
    take_retry_after(a, value);
  }
}

/* ---- Meaning ------------------------------------------------------------- */

bool http_answer_is_redirect(const struct http_answer *a) {
  switch (a->code) {
  case 301:
  case 302:
  case 303:
  case 307:
  case 308:
    return true;
  }
  return false;
}

int64_t http_answer_wait_s(const struct http_answer *a, int64_t now) {
  if (a->retry_after_s >= 0)
    return a->retry_after_s;
  if (a->retry_at < 0)
    return 0;
  int64_t wait = a->retry_at - (a->date >= 0 ? a->date : now);
  if (wait < 0)
    return 0;
  return wait < HTTP_RETRY_AFTER_MAX_S ? wait : HTTP_RETRY_AFTER_MAX_S;
}

/* The error of a status code; 0: it is a success, or a 416. */
static int failure_of(const struct http_answer *a, const char **why) {
  switch (a->code) {
  case 200:
  case 206:
  case 416:
    return 0;
  case 401:
  case 403:
  case 407:
  case 451:
    *why = "the server refuses access";
    return -EACCES;
  case 404:
  case 410:
    *why = "there is no such object";
    return -ENOENT;
  case 408:
    *why = "the server gave up waiting";
    return -ETIMEDOUT;
  case 412:
    *why = "the object changed";
    return -ESTALE;
  case 429:
  case 503:
    *why = "the server asks to be asked later";
    return -EAGAIN;
  }
  if (a->code >= 400 && a->code <= 599) {
    *why = "the server answers an error";
    return -EREMOTEIO;
  }
  *why = http_answer_is_redirect(a)
             ? "the server redirects, which is not followed"
             : "the server's answer has no meaning";
  return -EPROTO;
}

/* The error of a head, whatever was asked for. */
static int failure_of_head(const struct http_answer *a, const char **why) {
  int failed = failure_of(a, why);
  if (failed)
    return failed;
  if (a->is_bad) {
    *why = "the server's answer is malformed";
    return -EPROTO;
  }
  if (a->is_coded && a->code != 416) {
    *why = "the server compresses what it sends";
    return -EPROTO;
  }
  return 0;
}

static int stale(const char **why) {
  *why = "the object changed";
  return -ESTALE;
}

static int lie(const char **why, const char *what) {
  *why = what;
  return -EPROTO;
}

static bool has_strong_etag(const struct http_answer *a) {
  return a->etag[0] && !a->etag_is_weak;
}

static bool take_hex(struct text *t, uint64_t *out) {
  static const char digits[] = "0123456789abcdef";
  const char *digit;
  uint64_t n = 0;
  const char *begin = t->at;
  while (t->at < t->end && t->at - begin < 16 && *t->at &&
         (digit = strchr(digits, *t->at))) {
    n = n * 16 + (uint64_t)(digit - digits);
    t->at++;
  }
  *out = n;
  return t->at > begin;
}

/* Whether the ETag is as nginx makes them: the time of the change in seconds, a
 * dash, the size, in hexadecimal. */
static bool etag_is_time(const struct http_answer *a, int64_t modified) {
  uint64_t time, size;
  struct text t = {a->etag, a->etag + strlen(a->etag)};
  return modified >= 0 && take(&t, "\"") && take_hex(&t, &time) &&
         take(&t, "-") && take_hex(&t, &size) && equals(t, "\"") &&
         time == (uint64_t)modified;
}

/* A2 */
static int learn_validator(const struct http_answer *a, struct http_object *out,
                           const char **why) {
  int64_t modified = a->last_modified[0]
                         ? http_date_parse(a->last_modified, HTTP_DATE_LEN)
                         : -1;
  bool has_etag = has_strong_etag(a);
  if (!has_etag && (modified < 0 || a->date < 0)) {
    return lie(why, "the server gives neither a strong ETag nor a "
                    "Last-Modified and a Date: a change would not show");
  }
  int64_t age = a->date - modified;
  if ((!has_etag || etag_is_time(a, modified)) && age >= -1 && age <= 1) {
    *why = "the object was modified this moment: another change would not show";
    return -EAGAIN;
  }
  if (has_etag)
    memcpy(out->etag, a->etag, sizeof out->etag);
  else
    memcpy(out->last_modified, a->last_modified, sizeof out->last_modified);
  return 0;
}

static int learn_size(const struct http_answer *a, uint64_t *size,
                      const char **why) {
  switch (a->code) {
  case 206:
    if (a->has_range && a->first == 0 && a->last == 0 &&
        a->size != HTTP_SIZE_UNKNOWN &&
        (a->length == HTTP_SIZE_UNKNOWN || a->length == 1)) {
      *size = a->size;
      return 0;
    }
    return lie(why, "the server answers with another range");
  case 416:
    if (a->has_range && a->size == 0) { /* an empty object has no first byte */
      *size = 0;
      return 0;
    }
    return lie(why, "the server refuses a range that is there");
  default:
    if (!a->has_range && a->length <= HTTP_SMALL_OBJECT) {
      *size = a->length;
      return 0;
    }
    return lie(why, "the server sends no ranges of the object");
  }
}

int http_answer_learn(const struct http_answer *a, struct http_object *out,
                      const char **why) {
  *out = (struct http_object){0};
  int failed = failure_of_head(a, why);
  if (!failed)
    failed = learn_size(a, &out->size, why);
  if (!failed && (out->size > 0 || a->code != 416))
    failed = learn_validator(a, out, why);
  return failed;
}

static bool is_of_object(const struct http_answer *a,
                         const struct http_object *o) {
  if (o->etag[0])
    return has_strong_etag(a) && strcmp(a->etag, o->etag) == 0;
  return strcmp(a->last_modified, o->last_modified) == 0;
}

int http_answer_confirm(const struct http_answer *a,
                        const struct http_object *o, const char **why) {
  int failed = failure_of_head(a, why);
  if (failed)
    return failed;
  if (a->code != 200 || a->length != o->size)
    return lie(why, "the server does not say how long the object is");
  return is_of_object(a, o) ? 0 : stale(why);
}

static int check_partial(const struct http_answer *a,
                         const struct http_object *o, uint64_t offset,
                         uint64_t len, const char **why) {
  if (!a->has_range || a->size == HTTP_SIZE_UNKNOWN)
    return lie(why, "the server does not say which range it sends");
  if (a->size != o->size || !is_of_object(a, o))
    return stale(why);
  if (a->first != offset || a->last != offset + len - 1)
    return lie(why, "the server answers with another range");
  if (a->length != HTTP_SIZE_UNKNOWN && a->length != len)
    return lie(why, "the server's length is not the range's");
  return 0;
}

static int check_whole(const struct http_answer *a, const struct http_object *o,
                       const char **why) {
  if (!is_of_object(a, o))
    return stale(why);
  if (a->has_range || a->length == HTTP_SIZE_UNKNOWN ||
      o->size > HTTP_SMALL_OBJECT)
    return lie(why, "the server sends no ranges of the object");
  return a->length == o->size ? 0 : stale(why);
}

int http_answer_check(const struct http_answer *a, const struct http_object *o,
                      uint64_t offset, uint64_t len, uint64_t *skip,
                      uint64_t *n_body, const char **why) {
  int failed = failure_of_head(a, why);
  if (failed)
    return failed;
  switch (a->code) {
  case 206:
    *skip = 0;
    *n_body = len;
    return check_partial(a, o, offset, len, why);
  case 200:
    *skip = offset;
    *n_body = o->size;
    return check_whole(a, o, why);
  default: /* 416: it is shorter now, or the server is wrong */
    return a->has_range && a->size != o->size
               ? stale(why)
               : lie(why, "the server refuses a range that is there");
  }
}

bool http_object_same(const struct http_object *a,
                      const struct http_object *b) {
  return a->size == b->size && strcmp(a->etag, b->etag) == 0 &&
         strcmp(a->last_modified, b->last_modified) == 0;
}

#include "tests/bench/protocol.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/bench/bare.h"
#include "tests/bench/rig.h"

void protocol_send(int fd, const void *bytes, size_t len) {
  for (size_t done = 0; done < len;) {
    ssize_t n = send(fd, (const char *)bytes + done, len - done, MSG_NOSIGNAL);
    if (n < 0)
      rig_fail("send: %s", strerror(errno));
    done += (size_t)n;
  }
}

void protocol_receive(int fd, void *bytes, size_t len) {
  for (size_t done = 0; done < len;) {
    ssize_t n = recv(fd, (char *)bytes + done, len - done, 0);
    if (n <= 0)
      rig_fail("receive: %s", n ? strerror(errno) : "closed");
    done += (size_t)n;
  }
}

static void begin_nothing(struct protocol_conn *c) { (void)c; }

/* ---- The bare server ----------------------------------------------------- */

static size_t bare_request(const struct protocol_conn *c, uint32_t tag,
                           uint64_t offset, uint32_t len, uint8_t *out) {
  struct bare_request r = {.offset = offset, .len = len, .tag = tag};
  (void)c;
  memcpy(out, &r, sizeof r);
  return sizeof r;
}

static size_t bare_answer(const struct protocol_conn *c, const uint8_t *in,
                          size_t len, struct answer *out) {
  struct bare_answer a;
  (void)c;
  if (len < sizeof a)
    return 0;
  memcpy(&a, in, sizeof a);
  *out = (struct answer){.payload = a.len, .tag = a.tag, .last = true};
  return sizeof a;
}

const struct protocol protocol_bare = {
    .begin = begin_nothing, .request = bare_request, .answer = bare_answer};

/* ---- Text: memcached, redis, HTTP ---------------------------------------- */

/* A page's key: its number.  Returns its length. */
static size_t put_number(uint64_t n, char *out) {
  char digits[20];
  size_t len = 0;
  do
    digits[len++] = (char)('0' + n % 10);
  while (n /= 10);
  for (size_t i = 0; i < len; i++)
    out[i] = digits[len - 1 - i];
  return len;
}

static size_t put_text(const char *text, char *out) {
  size_t len = strlen(text);
  memcpy(out, text, len);
  return len;
}

/* The length of the line at `in`, its end included; 0: not all there. */
static size_t line_len(const uint8_t *in, size_t len) {
  const uint8_t *end = memchr(in, '\n', len);
  if (!end && len >= PROTOCOL_MAX_HEADER)
    rig_fail("an answer without an end of a line");
  return end ? (size_t)(end - in) + 1 : 0;
}

__attribute__((noreturn)) static void fail_answer(const uint8_t *in,
                                                  size_t len) {
  rig_fail("not the answer that was asked for: %.*s", len < 60 ? (int)len : 60,
           (const char *)in);
}

static size_t memcached_request(const struct protocol_conn *c, uint32_t tag,
                                uint64_t offset, uint32_t len, uint8_t *out) {
  char *at = (char *)out;
  (void)c;
  (void)tag;
  (void)len;
  at += put_text("get ", at);
  at += put_number(offset / RIG_PAGE, at);
  at += put_text("\r\n", at);
  return (size_t)(at - (char *)out);
}

/* VALUE <key> <flags> <length>\r\n<bytes>\r\nEND\r\n */
static size_t memcached_answer(const struct protocol_conn *c, const uint8_t *in,
                               size_t len, struct answer *out) {
  size_t line = line_len(in, len);
  if (line == 0)
    return 0;
  if (memcmp(in, "VALUE ", line < 6 ? line : 6) != 0)
    fail_answer(in, line);
  *out = (struct answer){.payload = c->len, .trailer = 7, .last = true};
  return line;
}

const struct protocol protocol_memcached = {.in_order = true,
                                            .begin = begin_nothing,
                                            .request = memcached_request,
                                            .answer = memcached_answer};

static size_t redis_request(const struct protocol_conn *c, uint32_t tag,
                            uint64_t offset, uint32_t len, uint8_t *out) {
  char key[20], *at = (char *)out;
  size_t key_len = put_number(offset / RIG_PAGE, key);
  (void)c;
  (void)tag;
  (void)len;
  at += put_text("*2\r\n$3\r\nGET\r\n$", at);
  at += put_number(key_len, at);
  at += put_text("\r\n", at);
  memcpy(at, key, key_len);
  at += key_len;
  at += put_text("\r\n", at);
  return (size_t)(at - (char *)out);
}

/* $<length>\r\n<bytes>\r\n */
static size_t redis_answer(const struct protocol_conn *c, const uint8_t *in,
                           size_t len, struct answer *out) {
  size_t line = line_len(in, len);
  if (line == 0)
    return 0;
  if (in[0] != '$' || in[1] == '-')
    fail_answer(in, line);
  *out = (struct answer){.payload = c->len, .trailer = 2, .last = true};
  return line;
}

const struct protocol protocol_redis = {.in_order = true,
                                        .begin = begin_nothing,
                                        .request = redis_request,
                                        .answer = redis_answer};

static size_t http_request(const struct protocol_conn *c, uint32_t tag,
                           uint64_t offset, uint32_t len, uint8_t *out) {
  char *at = (char *)out;
  (void)c;
  (void)tag;
  at += put_text("GET /image HTTP/1.1\r\nHost: bench\r\nRange: bytes=", at);
  at += put_number(offset, at);
  at += put_text("-", at);
  at += put_number(offset + len - 1, at);
  at += put_text("\r\n\r\n", at);
  return (size_t)(at - (char *)out);
}

static size_t http_answer(const struct protocol_conn *c, const uint8_t *in,
                          size_t len, struct answer *out) {
  const uint8_t *end = memmem(in, len, "\r\n\r\n", 4);
  if (!end && len >= PROTOCOL_MAX_HEADER)
    rig_fail("an answer without an end of its header");
  if (!end)
    return 0;
  if (memcmp(in, "HTTP/1.1 206 ", 13) != 0)
    fail_answer(in, len);
  *out = (struct answer){.payload = c->len, .last = true};
  return (size_t)(end + 4 - in);
}

const struct protocol protocol_http = {.in_order = true,
                                       .begin = begin_nothing,
                                       .request = http_request,
                                       .answer = http_answer};

/* ---- Filling the stores -------------------------------------------------- */

/* How many pages are stored ahead of the answers. */
enum { STORE_BATCH = 16 };

static size_t memcached_set(uint64_t page, char *out) {
  char *at = out;
  at += put_text("set ", at);
  at += put_number(page, at);
  at += put_text(" 0 0 4096\r\n", at);
  return (size_t)(at - out);
}

static size_t redis_set(uint64_t page, char *out) {
  char key[20], *at = out;
  size_t key_len = put_number(page, key);
  at += put_text("*3\r\n$3\r\nSET\r\n$", at);
  at += put_number(key_len, at);
  at += put_text("\r\n", at);
  memcpy(at, key, key_len);
  at += key_len;
  at += put_text("\r\n$4096\r\n", at);
  return (size_t)(at - out);
}

static void store(int fd, const uint8_t *pages, uint64_t n_pages,
                  size_t (*put_head)(uint64_t page, char *out),
                  const char *answer) {
  size_t answer_len = strlen(answer);
  char bytes[PROTOCOL_MAX_REQUEST];
  for (uint64_t first = 0; first < n_pages; first += STORE_BATCH) {
    uint64_t n = n_pages - first < STORE_BATCH ? n_pages - first : STORE_BATCH;
    for (uint64_t page = first; page < first + n; page++) {
      protocol_send(fd, bytes, put_head(page, bytes));
      protocol_send(fd, pages + page * RIG_PAGE, RIG_PAGE);
      protocol_send(fd, "\r\n", 2);
    }
    for (uint64_t i = 0; i < n; i++) {
      protocol_receive(fd, bytes, answer_len);
      if (memcmp(bytes, answer, answer_len) != 0)
        fail_answer((const uint8_t *)bytes, answer_len);
    }
  }
}

void protocol_store_memcached(int fd, const uint8_t *pages, uint64_t n_pages) {
  store(fd, pages, n_pages, memcached_set, "STORED\r\n");
}

void protocol_store_redis(int fd, const uint8_t *pages, uint64_t n_pages) {
  store(fd, pages, n_pages, redis_set, "+OK\r\n");
}

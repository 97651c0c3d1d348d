#include "source/s3_sign.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/percent.h"

#define ALGORITHM "AWS4-HMAC-SHA256"

enum { HASH_LEN = 32, HASH_HEX = 2 * HASH_LEN + 1, DATE_LEN = 8 };

struct s3_time s3_time_of(int64_t t) {
  struct s3_time out;
  struct tm tm;
  time_t seconds = t;
  gmtime_r(&seconds, &tm);
  strftime(out.text, sizeof out.text, "%Y%m%dT%H%M%SZ", &tm);
  return out;
}

/* ---- Text that grows ----------------------------------------------------- */

struct writer {
  FILE *file;
  char *text;
  size_t len;
};

static bool writer_init(struct writer *w) {
  *w = (struct writer){0};
  w->file = open_memstream(&w->text, &w->len);
  return w->file != NULL;
}

/* NULL: some of it found no memory. */
static char *writer_end(struct writer *w) {
  bool failed = ferror(w->file) != 0;
  failed |= fclose(w->file) != 0;
  if (!failed)
    return w->text;
  free(w->text);
  return NULL;
}

/* Unlike a path's, a slash of a query is encoded.  False: no memory. */
static bool write_encoded(struct writer *w, const char *text) {
  char *encoded = percent_encode(text);
  if (!encoded)
    return false;
  for (const char *c = encoded; *c; c++)
    if (*c == '/')
      fputs("%2F", w->file);
    else
      fputc(*c, w->file);
  free(encoded);
  return true;
}

/* ---- The canonical request ----------------------------------------------- */

static char *encode_pair(const struct s3_pair *pair) {
  struct writer w;
  if (!writer_init(&w))
    return NULL;
  bool done = write_encoded(&w, pair->name);
  fputc('=', w.file);
  done &= write_encoded(&w, pair->value);
  char *encoded = writer_end(&w);
  if (done)
    return encoded;
  free(encoded);
  return NULL;
}

/* By name, and pairs of the same name by value.  "a=" is before "a1=", though
 * '=' is behind '1'. */
static int by_encoded(const void *a, const void *b) {
  const char *x = *(char *const *)a, *y = *(char *const *)b;
  size_t x_len = strcspn(x, "="), y_len = strcspn(y, "=");
  int order = memcmp(x, y, x_len < y_len ? x_len : y_len);
  if (order || x_len == y_len)
    return order ? order : strcmp(x + x_len, y + y_len);
  return x_len < y_len ? -1 : 1;
}

char *s3_query(const struct s3_pair *pairs, size_t n) {
  char *encoded[S3_MAX_PAIRS];
  struct writer w;
  bool failed = !writer_init(&w);
  assert(n <= S3_MAX_PAIRS);
  for (size_t i = 0; i < n; i++) {
    encoded[i] = encode_pair(&pairs[i]);
    failed |= !encoded[i];
  }
  if (!failed) {
    qsort(encoded, n, sizeof *encoded, by_encoded);
    for (size_t i = 0; i < n; i++)
      fprintf(w.file, "%s%s", i ? "&" : "", encoded[i]);
  }
  for (size_t i = 0; i < n; i++)
    free(encoded[i]);
  char *query = w.file ? writer_end(&w) : NULL;
  if (!failed)
    return query;
  free(query);
  return NULL;
}

static int by_name(const void *a, const void *b) {
  const struct s3_pair *x = a, *y = b;
  return strcmp(x->name, y->name);
}

static void write_header(struct writer *w, const struct s3_pair *header) {
  const char *value = header->value;
  bool is_first = true;
  fprintf(w->file, "%s:", header->name);
  while (*(value += strspn(value, " \t"))) {
    size_t len = strcspn(value, " \t");
    fprintf(w->file, "%s%.*s", is_first ? "" : " ", (int)len, value);
    is_first = false;
    value += len;
  }
  fputc('\n', w->file);
}

struct sorted_headers {
  struct s3_pair pairs[S3_MAX_PAIRS];
};

static struct sorted_headers sort_headers(const struct s3_request *r) {
  struct sorted_headers sorted;
  assert(r->n_headers > 0 && r->n_headers <= S3_MAX_PAIRS);
  memcpy(sorted.pairs, r->headers, r->n_headers * sizeof *r->headers);
  qsort(sorted.pairs, r->n_headers, sizeof *sorted.pairs, by_name);
  return sorted;
}

static void write_names(struct writer *w, const struct sorted_headers *sorted,
                        size_t n) {
  for (size_t i = 0; i < n; i++)
    fprintf(w->file, "%s%s", i ? ";" : "", sorted->pairs[i].name);
}

char *s3_canonical_request(const struct s3_request *r) {
  struct sorted_headers sorted = sort_headers(r);
  struct writer w;
  char *query = s3_query(r->query, r->n_query);
  if (!query || !writer_init(&w)) {
    free(query);
    return NULL;
  }
  fprintf(w.file, "%s\n%s\n%s\n", r->method, r->path, query);
  for (size_t i = 0; i < r->n_headers; i++)
    write_header(&w, &sorted.pairs[i]);
  fputc('\n', w.file);
  write_names(&w, &sorted, r->n_headers);
  fprintf(w.file, "\n%s", r->payload_hash);
  free(query);
  return writer_end(&w);
}

/* ---- The signature ------------------------------------------------------- */

struct hash {
  unsigned char bytes[HASH_LEN];
};

static void to_hex(const struct hash *hash, char hex[HASH_HEX]) {
  for (int i = 0; i < HASH_LEN; i++)
    snprintf(hex + 2 * i, 3, "%02x", hash->bytes[i]);
}

static bool hmac(const void *key, size_t key_len, const char *text, size_t len,
                 struct hash *out) {
  return HMAC(EVP_sha256(), key, (int)key_len, (const unsigned char *)text, len,
              out->bytes, NULL) != NULL;
}

/* The key of a day, a region and a service. */
static bool derive_key(const struct s3_key *key, const struct s3_time *when,
                       struct hash *out) {
  char *secret;
  int len = asprintf(&secret, "AWS4%s", key->secret_key);
  if (len < 0)
    return false;
  bool done =
      hmac(secret, (size_t)len, when->text, DATE_LEN, out) &&
      hmac(out->bytes, HASH_LEN, key->region, strlen(key->region), out) &&
      hmac(out->bytes, HASH_LEN, key->service, strlen(key->service), out) &&
      hmac(out->bytes, HASH_LEN, "aws4_request", 12, out);
  OPENSSL_cleanse(secret, (size_t)len);
  free(secret);
  return done;
}

static bool sign(const char *canonical, const char *scope,
                 const struct s3_key *key, const struct s3_time *when,
                 char hex[HASH_HEX]) {
  struct hash hash, day_key;
  char *text;
  if (!EVP_Digest(canonical, strlen(canonical), hash.bytes, NULL, EVP_sha256(),
                  NULL))
    return false;
  to_hex(&hash, hex);
  int len = asprintf(&text, ALGORITHM "\n%s\n%s\n%s", when->text, scope, hex);
  if (len < 0)
    return false;
  bool done = derive_key(key, when, &day_key) &&
              hmac(day_key.bytes, HASH_LEN, text, (size_t)len, &hash);
  to_hex(&hash, hex);
  OPENSSL_cleanse(&day_key, sizeof day_key);
  free(text);
  return done;
}

static char *write_authorization(const struct s3_request *r,
                                 const struct s3_key *key, const char *scope,
                                 const char *signature) {
  struct sorted_headers sorted = sort_headers(r);
  struct writer w;
  if (!writer_init(&w))
    return NULL;
  fprintf(w.file,
          ALGORITHM " Credential=%s/%s, SignedHeaders=", key->access_key,
          scope);
  write_names(&w, &sorted, r->n_headers);
  fprintf(w.file, ", Signature=%s", signature);
  return writer_end(&w);
}

char *s3_authorization(const struct s3_request *r, const struct s3_key *key,
                       const struct s3_time *when) {
  char signature[HASH_HEX], *scope, *authorization = NULL;
  if (asprintf(&scope, "%.*s/%s/%s/aws4_request", DATE_LEN, when->text,
               key->region, key->service) < 0)
    return NULL;
  char *canonical = s3_canonical_request(r);
  if (canonical && sign(canonical, scope, key, when, signature))
    authorization = write_authorization(r, key, scope, signature);
  free(canonical);
  free(scope);
  return authorization;
}

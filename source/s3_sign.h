/* Signatures of requests to S3: AWS Signature Version 4, in a header.
 *
 * Nothing here does I/O or asks a clock.  The caller gives a request as it will
 * go over the wire, and gets the value of its Authorization header.  What is
 * signed must be what is sent:
 *
 *   G1  `path` is encoded once, by percent_encode(), and goes into the URL as
 *       it is: S3 wants it neither encoded twice nor made shorter.  A client
 *       that removes "/../" from a URL spoils the signature.
 *   G2  The query of the URL is s3_query() of the same pairs.
 *   G3  All headers that are given are signed.  "host" is one of them, with
 *       the port if the URL has one that is not its scheme's.  For S3
 *       "x-amz-content-sha256" is one too, with the value of `payload_hash`;
 *       and "x-amz-security-token", if the credentials have a token. */
#ifndef SOURCE_S3_SIGN_H
#define SOURCE_S3_SIGN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* SHA-256 of no bytes, as hex: of a request without a body. */
#define S3_EMPTY_PAYLOAD                                                       \
  "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

enum { S3_MAX_PAIRS = 16 };

struct s3_pair {
  const char *name, *value;
};

struct s3_request {
  const char *method;
  const char *path;
  const struct s3_pair *query;   /* not encoded */
  size_t n_query;                /* at most S3_MAX_PAIRS */
  const struct s3_pair *headers; /* names in small letters, each once */
  size_t n_headers;              /* likewise */
  const char *payload_hash;      /* SHA-256 of the body, as hex */
};

struct s3_key {
  const char *access_key, *secret_key;
  const char *region, *service;
};

/* The time as it is signed, "20130524T000000Z": also the value of the header
 * "x-amz-date". */
struct s3_time {
  char text[sizeof "20130524T000000Z"];
};

/* `t` is in seconds since 1970, before the year 10000. */
struct s3_time s3_time_of(int64_t t);

/* The results are strings in memory from malloc(3); NULL: no memory. */

/* The pairs as a query, encoded and in the order that is signed. */
char *s3_query(const struct s3_pair *pairs, size_t n);

/* What is hashed and signed of the request, by itself: for tests, and for
 * a person that compares it with what a server says it expected. */
char *s3_canonical_request(const struct s3_request *r);

/* The value of the header Authorization. */
char *s3_authorization(const struct s3_request *r, const struct s3_key *key,
                       const struct s3_time *when);

#ifdef __cplusplus
}
#endif

#endif

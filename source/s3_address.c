#include "source/s3_address.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/percent.h"
#include "source/common_options.h"
#include "source/s3_sign.h"

#define VERSION_ID "versionId"

/* The names in the URI. */
struct object_name {
  char *bucket, *key; /* decoded */
  char *version;      /* likewise; NULL */
};

/* ---- The URI ------------------------------------------------------------- */

static void name_fini(struct object_name *n) {
  free(n->bucket);
  free(n->key);
  free(n->version);
}

/* Whether it is the name of a bucket.  The name becomes a part of the host's,
 * so it must have no byte that ends one. */
static bool is_bucket(const char *name) {
  size_t len = strlen(name);
  return len >= 1 && len <= 255 &&
         strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                      "0123456789.-_") == len &&
         name[0] != '.' && name[0] != '-';
}

static int take_version(const char *query, struct object_name *out,
                        struct source_fault *fault) {
  const char name[] = VERSION_ID "=";
  if (strncmp(query, name, sizeof name - 1) != 0 || strchr(query, '&'))
    return remote_fault(fault, -EINVAL,
                        "an s3: URI takes ?" VERSION_ID
                        "=VERSION, and no other");
  query += sizeof name - 1;
  out->version = percent_decode(query, strlen(query));
  if (!out->version)
    return errno == ENOMEM
               ? remote_no_memory(fault)
               : remote_fault(fault, -EINVAL,
                              "a %% needs two hex digits behind it");
  return *out->version ? 0
                       : remote_fault(fault, -EINVAL, VERSION_ID " is empty");
}

static int take_name(const char *uri, struct object_name *out,
                     struct source_fault *fault) {
  const char *bucket = uri + strlen("s3:");
  *out = (struct object_name){0};
  if (strncmp(bucket, "//", 2) != 0)
    return remote_fault(fault, -EINVAL, "an s3: URI is s3://BUCKET/KEY");
  bucket += 2;
  size_t bucket_len = strcspn(bucket, "/?#");
  const char *key = bucket + bucket_len;
  if (*key != '/' || strchr(key, '#'))
    return remote_fault(fault, -EINVAL,
                        "an s3: URI is s3://BUCKET/KEY; # is written %%23");
  key++;
  size_t key_len = strcspn(key, "?");
  out->bucket = strndup(bucket, bucket_len);
  out->key = percent_decode(key, key_len);
  if (!out->bucket || (!out->key && errno == ENOMEM))
    return remote_no_memory(fault);
  if (!out->key)
    return remote_fault(fault, -EINVAL, "a %% needs two hex digits behind it");
  if (!*out->key)
    return remote_fault(fault, -EINVAL, "the object's key is empty");
  if (!is_bucket(out->bucket))
    return remote_fault(fault, -EINVAL, "the bucket's name is none");
  return key[key_len] ? take_version(key + key_len + 1, out, fault) : 0;
}

/* ---- Options ------------------------------------------------------------- */

/* An option, or the first of two variables. */
static const char *choose(const struct source_uri *uri, const char *option,
                          const char *first, const char *second) {
  const char *value = common_options_find(uri, option);
  if (!value)
    value = secure_getenv(first);
  if (!value || !*value)
    value = secure_getenv(second);
  return value && *value ? value : NULL;
}

static bool is_host_name(const char *text) {
  return *text && strspn(text, "abcdefghijklmnopqrstuvwxyz"
                               "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") ==
                      strlen(text);
}

/* "[::1]:80", "host:80", "host". */
static bool is_host_and_port(const char *text) {
  return *text && strspn(text, "abcdefghijklmnopqrstuvwxyz"
                               "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:[]") ==
                      strlen(text);
}

static void drop_default_port(struct s3_address *a) {
  const char *port = strcmp(a->scheme, "https") == 0 ? ":443" : ":80";
  size_t len = strlen(a->host), port_len = strlen(port);
  if (len > port_len && strcmp(a->host + len - port_len, port) == 0)
    a->host[len - port_len] = '\0';
}

static int take_endpoint(const char *endpoint, struct s3_address *out,
                         struct source_fault *fault) {
  bool is_tls = strncasecmp(endpoint, "https://", 8) == 0;
  if (!is_tls && strncasecmp(endpoint, "http://", 7) != 0)
    return remote_fault(fault, -EINVAL,
                        "endpoint: it is http://HOST[:PORT] or https:");
  const char *host = endpoint + (is_tls ? 8 : 7);
  size_t len = strcspn(host, "/");
  if (host[len] && host[len + 1])
    return remote_fault(fault, -EINVAL, "endpoint: it has no path");
  out->scheme = strdup(is_tls ? "https" : "http");
  out->host = strndup(host, len);
  if (!out->scheme || !out->host)
    return remote_no_memory(fault);
  if (!is_host_and_port(out->host))
    return remote_fault(fault, -EINVAL,
                        "endpoint: it is http://HOST[:PORT] or https:");
  drop_default_port(out);
  return 0;
}

static int amazons_endpoint(struct s3_address *out,
                            struct source_fault *fault) {
  out->scheme = strdup("https");
  if (!out->scheme ||
      asprintf(&out->host, "s3.%s.amazonaws.com", out->region) < 0) {
    out->host = NULL;
    return remote_no_memory(fault);
  }
  return 0;
}

/* Sets whether the bucket is in the path or in the host's name.  A certificate
 * for all buckets does not match names with a dot, so those go into the
 * path. */
static int take_style(const struct source_uri *uri, bool is_amazon,
                      const char *bucket, bool *in_path,
                      struct source_fault *fault) {
  const char *style = common_options_find(uri, "path-style");
  *in_path = !is_amazon || strchr(bucket, '.');
  if (!style)
    return 0;
  *in_path = strcmp(style, "yes") == 0;
  return *in_path || strcmp(style, "no") == 0
             ? 0
             : remote_fault(fault, -EINVAL, "path-style: it is yes or no");
}

/* ---- The address --------------------------------------------------------- */

/* "BUCKET.HOST" and "/KEY", or "/BUCKET/KEY". */
static bool place(struct s3_address *out, const struct object_name *name,
                  bool in_path) {
  char *key = percent_encode(name->key), *host = NULL;
  bool done =
      key && (in_path ? asprintf(&out->path, "/%s/%s", name->bucket, key)
                      : asprintf(&out->path, "/%s", key)) >= 0;
  if (key && !done)
    out->path = NULL;
  free(key);
  if (!done || in_path)
    return done;
  if (asprintf(&host, "%s.%s", name->bucket, out->host) < 0)
    return false;
  free(out->host);
  out->host = host;
  return true;
}

static bool write_url(struct s3_address *out, const struct object_name *name) {
  const struct s3_pair version = {VERSION_ID, name->version};
  char *query = s3_query(&version, name->version != NULL);
  bool done =
      query && asprintf(&out->url, "%s://%s%s%s%s", out->scheme, out->host,
                        out->path, *query ? "?" : "", query) >= 0;
  if (query && !done)
    out->url = NULL;
  free(query);
  return done;
}

static int take_address(const struct source_uri *uri, struct object_name *name,
                        struct s3_address *out, struct source_fault *fault) {
  const char *endpoint =
      choose(uri, "endpoint", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL");
  const char *region =
      choose(uri, "region", "AWS_REGION", "AWS_DEFAULT_REGION");
  bool in_path;
  out->region = strdup(region ? region : "us-east-1");
  if (!out->region)
    return remote_no_memory(fault);
  if (!is_host_name(out->region))
    return remote_fault(fault, -EINVAL, "region: it is no name of a region");
  int failed = endpoint ? take_endpoint(endpoint, out, fault)
                        : amazons_endpoint(out, fault);
  if (!failed)
    failed = take_style(uri, !endpoint, name->bucket, &in_path, fault);
  if (failed)
    return failed;
  if (!place(out, name, in_path) || !write_url(out, name))
    return remote_no_memory(fault);
  out->version = name->version;
  name->version = NULL;
  return 0;
}

int s3_address_take(const struct source_uri *uri, struct s3_address *out,
                    struct source_fault *fault) {
  struct object_name name;
  *out = (struct s3_address){0};
  int failed = take_name(uri->text, &name, fault);
  if (!failed)
    failed = take_address(uri, &name, out, fault);
  name_fini(&name);
  if (failed)
    s3_address_fini(out);
  return failed;
}

void s3_address_fini(struct s3_address *a) {
  free(a->region);
  free(a->scheme);
  free(a->host);
  free(a->path);
  free(a->version);
  free(a->url);
  *a = (struct s3_address){0};
}

#include "source/nbd_target.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libnbd.h>

#include "source/common_options.h"
#include "source/kinds.h"

enum {
  URI_MAX = 8192, /* a name of an export has up to 4096 bytes */
};

static const char *const schemes[] = {NBD_SCHEMES, NULL};

/* ---- The URI ------------------------------------------------------------- */

/* A part of the text of a URI. */
struct part {
  const char *text;
  size_t len;
};

static bool part_has(struct part p, char c) { return memchr(p.text, c, p.len); }

struct uri_parts {
  struct part scheme, authority, query;
  bool has_query;
};

/* The part that ends before one of `ends`. */
static struct part cut(const char **at, const char *ends) {
  struct part p = {*at, strcspn(*at, ends)};
  *at += p.len;
  return p;
}

/* Splits the text as far as this file needs it.  libnbd parses the rest. */
static bool split(const char *text, struct uri_parts *out) {
  *out = (struct uri_parts){.scheme = cut(&text, ":")};
  if (strncmp(text, "://", 3) != 0)
    return false;
  text += 3;
  out->authority = cut(&text, "/?#");
  cut(&text, "?#");
  out->has_query = *text == '?';
  text += out->has_query;
  out->query = cut(&text, "#");
  return *text == '\0';
}

static bool scheme_is_known(struct part scheme) {
  for (const char *const *s = schemes; *s; s++)
    if (strlen(*s) == scheme.len && strncmp(*s, scheme.text, scheme.len) == 0)
      return true;
  return false;
}

static bool ends_with_unix(struct part scheme) {
  return scheme.len > 5 &&
         strncmp(scheme.text + scheme.len - 5, "+unix", 5) == 0;
}

static bool is_plain_text(const char *text) {
  size_t len = strlen(text);
  for (size_t i = 0; i < len; i++)
    if (!isgraph((unsigned char)text[i]))
      return false;
  return len <= URI_MAX;
}

/* Allows only a socket in the query: libnbd would also take names of files
 * there, and read them. */
static int check_query(const struct uri_parts *u, bool is_unix,
                       struct source_fault *fault) {
  const char *const socket = "socket=";
  size_t len = strlen(socket);
  if (!is_unix && u->has_query)
    return remote_fault(fault, -EINVAL,
                        "the URI has a query, and one for TCP has none: what "
                        "TLS needs is given by options");
  if (is_unix &&
      (u->query.len <= len || part_has(u->query, '&') ||
       part_has(u->query, ';') || strncmp(u->query.text, socket, len) != 0))
    return remote_fault(fault, -EINVAL,
                        "the query of the URI is not socket=PATH, and nothing "
                        "else: what TLS needs is given by options");
  const char *path = is_unix ? u->query.text + len : "/";
  return strncasecmp(path, "%2F", 3) == 0
             ? 0
             : remote_check_path("socket", path, fault);
}

/* T1 */
static int check_tls(const struct nbd_target *t, const struct uri_parts *u,
                     bool is_unix, struct source_fault *fault) {
  if (!t->uses_tls)
    return t->certificates || t->psk_file
               ? remote_fault(fault, -EINVAL,
                              "options for TLS, but the scheme of the URI is "
                              "one without: use nbds")
               : 0;
  if (t->certificates && t->psk_file)
    return remote_fault(fault, -EINVAL,
                        "both tls-certificates and tls-psk-file: a server is "
                        "known by one of them");
  if (t->psk_file)
    return part_has(u->authority, '@')
               ? 0
               : remote_fault(fault, -EINVAL,
                              "the URI does not say which user of the "
                              "tls-psk-file asks: nbds://USER@HOST");
  if (is_unix)
    return remote_fault(fault, -EINVAL,
                        "TLS at a Unix socket needs tls-psk-file: there is no "
                        "name that a certificate could be compared with");
  return t->certificates
             ? 0
             : remote_fault(fault, -EINVAL,
                            "TLS needs tls-certificates, a directory with a "
                            "ca-cert.pem, or tls-psk-file");
}

static int check_uri(struct nbd_target *t, struct source_fault *fault) {
  struct uri_parts u;
  if (!is_plain_text(t->uri) || !split(t->uri, &u))
    return remote_fault(fault, -EINVAL,
                        "this is no URI: it has no ://, a fragment, or bytes "
                        "that would have to be encoded");
  if (!scheme_is_known(u.scheme))
    return remote_fault(fault, -EINVAL,
                        "the scheme is none of NBD's that are known here");
  bool is_unix = ends_with_unix(u.scheme);
  t->uses_tls = u.scheme.text[3] == 's';
  if (!is_unix &&
      (u.authority.len == 0 || u.authority.text[u.authority.len - 1] == '@'))
    return remote_fault(fault, -EINVAL, "the URI has no host");
  int r = check_query(&u, is_unix, fault);
  return r < 0 ? r : check_tls(t, &u, is_unix, fault);
}

/* ---- Options ------------------------------------------------------------- */

static int set_path(char **to, const struct source_option *o,
                    struct source_fault *fault) {
  if (!*o->value)
    return remote_fault(fault, -EINVAL, "an option has no value");
  if (*to)
    return remote_fault(fault, -EINVAL, "an option is given twice");
  int r = remote_check_path(o->key, o->value, fault);
  if (r < 0)
    return r;
  *to = strdup(o->value);
  return *to ? 0 : -ENOMEM;
}

static int set_option(struct nbd_target *t, const struct source_option *o,
                      struct source_fault *fault) {
  if (strcmp(o->key, "tls-certificates") == 0)
    return set_path(&t->certificates, o, fault);
  if (strcmp(o->key, "tls-psk-file") == 0)
    return set_path(&t->psk_file, o, fault);
  if (strcmp(o->key, "attempt-timeout") == 0)
    return common_options_take_timeout(o->value, &t->timeout_ms, fault);
  return remote_fault(fault, -EINVAL, "an option is not one of NBD's");
}

/* ---- Targets ------------------------------------------------------------- */

void nbd_target_free(struct nbd_target *t) {
  if (!t)
    return;
  free(t->uri);
  free(t->certificates);
  free(t->psk_file);
  free(t);
}

static int fill_in(struct nbd_target *t, const struct source_uri *uri,
                   struct source_fault *fault) {
  int r = 0;
  t->timeout_ms = COMMON_TIMEOUT_S * 1000;
  t->uri = strdup(uri->text);
  if (!t->uri)
    return -ENOMEM;
  for (size_t i = 0; r == 0 && i < uri->n_options; i++)
    r = set_option(t, &uri->options[i], fault);
  return r < 0 ? r : check_uri(t, fault);
}

int nbd_target_new(const struct source_uri *uri, struct nbd_target **out,
                   struct source_fault *fault) {
  struct nbd_target *t = calloc(1, sizeof *t);
  if (!t)
    return -ENOMEM;
  int r = fill_in(t, uri, fault);
  if (r < 0)
    nbd_target_free(t);
  else
    *out = t;
  return r;
}

struct nbd_target *nbd_target_copy(const struct nbd_target *t) {
  struct nbd_target *copy = calloc(1, sizeof *copy);
  if (!copy)
    return NULL;
  copy->uri = strdup(t->uri);
  copy->certificates = t->certificates ? strdup(t->certificates) : NULL;
  copy->psk_file = t->psk_file ? strdup(t->psk_file) : NULL;
  copy->timeout_ms = t->timeout_ms;
  copy->uses_tls = t->uses_tls;
  if (copy->uri && !copy->certificates == !t->certificates &&
      !copy->psk_file == !t->psk_file)
    return copy;
  nbd_target_free(copy);
  return NULL;
}

int nbd_target_check_files(const struct nbd_target *t,
                           struct source_fault *fault) {
  char ca[PATH_MAX];
  if (t->psk_file && access(t->psk_file, R_OK) < 0) {
    snprintf(fault->text, sizeof fault->text, "tls-psk-file: %m");
    return -EACCES;
  }
  if (!t->certificates)
    return 0;
  int n = snprintf(ca, sizeof ca, "%s/ca-cert.pem", t->certificates);
  if (n >= (int)sizeof ca)
    errno = ENAMETOOLONG;
  if (n >= (int)sizeof ca || access(ca, R_OK) < 0) {
    snprintf(fault->text, sizeof fault->text,
             "ca-cert.pem in the directory of tls-certificates: %m");
    return -EACCES;
  }
  return 0;
}

/* The error of the last call of libnbd. */
static int failure(void) {
  int error = nbd_get_errno();
  return error ? -error : -EINVAL;
}

int nbd_target_apply(const struct nbd_target *t, struct nbd_handle *h) {
  if (nbd_set_uri_allow_transports(h, LIBNBD_ALLOW_TRANSPORT_TCP |
                                          LIBNBD_ALLOW_TRANSPORT_UNIX) < 0 ||
      nbd_set_uri_allow_tls(h, t->uses_tls ? LIBNBD_TLS_REQUIRE
                                           : LIBNBD_TLS_DISABLE) < 0 ||
      nbd_set_uri_allow_local_file(h, false) < 0)
    return failure();
  if (t->certificates && nbd_set_tls_certificates(h, t->certificates) < 0)
    return failure();
  if (t->psk_file && nbd_set_tls_psk_file(h, t->psk_file) < 0)
    return failure();
  return 0;
}

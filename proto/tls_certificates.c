#include "proto/tls_certificates.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

void tls_certificates_why(char why[TLS_WHY_LEN], const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(why, TLS_WHY_LEN, format, args);
  va_end(args);
}

/* ---- Ours ---------------------------------------------------------------- */

/* Nobody is asked for the word to a key: a daemon has no terminal, and a
 * library has no business at one. */
static int refuse_password(char *buf, int size, int is_write, void *arg) {
  bool *is_encrypted = arg;
  (void)buf;
  (void)size;
  (void)is_write;
  *is_encrypted = true;
  return -1;
}

/* Tells what OpenSSL holds against a file: the first thing that went wrong. */
static int refuse_file(const char *what, const char *path, char *why) {
  unsigned long code = ERR_peek_error();
  const char *text = ERR_SYSTEM_ERROR(code) ? strerror(ERR_GET_REASON(code))
                                            : ERR_reason_error_string(code);
  if ((ERR_GET_LIB(code) == ERR_LIB_PEM &&
       ERR_GET_REASON(code) == PEM_R_NO_START_LINE) ||
      (ERR_GET_LIB(code) == ERR_LIB_X509 &&
       ERR_GET_REASON(code) == X509_R_NO_CERTIFICATE_OR_CRL_FOUND))
    text = "it holds none in PEM";
  tls_certificates_why(why, "%s %.120s: %s", what, path,
                       text ? text : "it cannot be read");
  return -EINVAL;
}

int tls_certificates_load(SSL_CTX *ctx, const struct tls_files *files,
                          char why[TLS_WHY_LEN]) {
  const char *key = files->key ? files->key : files->certificate;
  bool is_encrypted = false;
  SSL_CTX_set_default_passwd_cb(ctx, refuse_password);
  SSL_CTX_set_default_passwd_cb_userdata(ctx, &is_encrypted);
  if (SSL_CTX_use_certificate_chain_file(ctx, files->certificate) != 1)
    return refuse_file(TLS_WHY_CERTIFICATE, files->certificate, why);
  int ok = SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM);
  SSL_CTX_set_default_passwd_cb_userdata(ctx, NULL);
  if (ok == 1 && SSL_CTX_check_private_key(ctx) == 1)
    return 0;
  if (is_encrypted)
    tls_certificates_why(
        why,
        TLS_WHY_KEY " %.120s: it is encrypted, and there is nobody to ask for "
                    "the password",
        key);
  else if (ok == 1 || ERR_GET_LIB(ERR_peek_error()) == ERR_LIB_X509)
    tls_certificates_why(
        why, TLS_WHY_KEY " %.120s: it is not the key of certificate %.80s", key,
        files->certificate);
  else
    return refuse_file(TLS_WHY_KEY, key, why);
  return -EINVAL;
}

static void print_time(const ASN1_TIME *when, char text[TLS_TIME_LEN]) {
  struct tm tm = {.tm_mday = 1};
  ASN1_TIME_to_tm(when, &tm);
  strftime(text, TLS_TIME_LEN, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

const char *tls_certificates_check_own(const SSL_CTX *ctx,
                                       char until[TLS_TIME_LEN]) {
  const X509 *own = SSL_CTX_get0_certificate(ctx);
  print_time(X509_get0_notAfter(own), until);
  if (X509_cmp_current_time(X509_get0_notAfter(own)) <= 0)
    return "it has expired";
  return X509_cmp_current_time(X509_get0_notBefore(own)) > 0
             ? "it is not valid yet"
             : NULL;
}

/* ---- Authorities --------------------------------------------------------- */

/* Whether there is a list of certificates that were revoked. */
static bool has_crl(X509_STORE *store) {
  STACK_OF(X509_OBJECT) *all = X509_STORE_get0_objects(store);
  for (int i = 0; i < sk_X509_OBJECT_num(all); i++)
    if (X509_OBJECT_get_type(sk_X509_OBJECT_value(all, i)) == X509_LU_CRL)
      return true;
  return false;
}

int tls_certificates_load_ca(SSL_CTX *ctx, const char *path,
                             char why[TLS_WHY_LEN]) {
  X509_STORE *store = SSL_CTX_get_cert_store(ctx);
  if (SSL_CTX_load_verify_file(ctx, path) != 1)
    return refuse_file(TLS_WHY_CA, path, why);
  if (has_crl(store))
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
  return 0;
}

int tls_certificates_name_ca(SSL_CTX *ctx, const char *path,
                             char why[TLS_WHY_LEN]) {
  STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(path);
  if (!names)
    return refuse_file(TLS_WHY_CA, path, why);
  SSL_CTX_set_client_CA_list(ctx, names); /* which owns them now */
  return 0;
}

/* ---- A peer's ------------------------------------------------------------ */

int tls_certificates_set_host(SSL_CTX *ctx, const char *host, bool *is_name) {
  X509_VERIFY_PARAM *param = SSL_CTX_get0_param(ctx);
  unsigned char address[sizeof(struct in6_addr)];
  size_t bare_len = strcspn(host, "%"); /* fe80::1%eth0 */
  char bare[INET6_ADDRSTRLEN];
  bool is_address = false;
  if (bare_len < sizeof bare) {
    memcpy(bare, host, bare_len);
    bare[bare_len] = '\0';
    is_address = inet_pton(AF_INET, bare, address) == 1 ||
                 inet_pton(AF_INET6, bare, address) == 1;
  }
  X509_VERIFY_PARAM_set_hostflags(param,
                                  X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS |
                                      X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
  int ok = is_address ? X509_VERIFY_PARAM_set1_ip_asc(param, bare)
                      : X509_VERIFY_PARAM_set1_host(param, host, 0);
  *is_name = !is_address;
  return ok == 1 ? 0 : -ENOMEM;
}

/* The function that is called with them. */
struct name_taker {
  int (*fn)(void *arg, const char *name, bool is_dns);
  void *arg;
};

/* What is cut at a NUL would be another name than was signed. */
static int give_name(const struct name_taker *to, const void *bytes, int len,
                     bool is_dns) {
  if (len <= 0 || memchr(bytes, '\0', (size_t)len))
    return 0;
  char *name = strndup(bytes, (size_t)len);
  int r = name ? to->fn(to->arg, name, is_dns) : -ENOMEM;
  free(name);
  return r;
}

static int give_address(const struct name_taker *to,
                        const ASN1_OCTET_STRING *address) {
  char text[INET6_ADDRSTRLEN];
  int len = ASN1_STRING_length(address);
  int family = len == 4 ? AF_INET : AF_INET6;
  if ((len != 4 && len != 16) ||
      !inet_ntop(family, ASN1_STRING_get0_data(address), text, sizeof text))
    return 0;
  return to->fn(to->arg, text, false);
}

static int give_alternative(const struct name_taker *to,
                            const GENERAL_NAME *name) {
  int type;
  const ASN1_STRING *value = GENERAL_NAME_get0_value(name, &type);
  switch (type) {
  case GEN_DNS:
  case GEN_EMAIL:
  case GEN_URI:
    return give_name(to, ASN1_STRING_get0_data(value),
                     ASN1_STRING_length(value), type == GEN_DNS);
  case GEN_IPADD:
    return give_address(to, value);
  default:
    return 0;
  }
}

static int give_alternatives(const struct name_taker *to, const X509 *peer) {
  GENERAL_NAMES *names =
      X509_get_ext_d2i(peer, NID_subject_alt_name, NULL, NULL);
  int r = 0;
  for (int i = 0; r == 0 && i < sk_GENERAL_NAME_num(names); i++)
    r = give_alternative(to, sk_GENERAL_NAME_value(names, i));
  GENERAL_NAMES_free(names);
  return r;
}

static int give_common_names(const struct name_taker *to, const X509 *peer) {
  const X509_NAME *subject = X509_get_subject_name(peer);
  int r = 0;
  for (int at = -1; r == 0 && (at = X509_NAME_get_index_by_NID(
                                   subject, NID_commonName, at)) >= 0;) {
    unsigned char *text = NULL;
    int len = ASN1_STRING_to_UTF8(
        &text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    if (text)
      r = give_name(to, text, len, false);
    OPENSSL_free(text);
  }
  return r;
}

int tls_certificates_names(const X509 *certificate,
                           int (*fn)(void *arg, const char *name, bool is_dns),
                           void *arg) {
  const struct name_taker to = {fn, arg};
  int r = give_alternatives(&to, certificate);
  return r ? r : give_common_names(&to, certificate);
}

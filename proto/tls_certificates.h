/* Certificates, for TLS: reading ours and those of authorities from files, the
 * host that a peer's certificate must be for, and the names in it.
 *
 *   N1  Nobody is asked for a password: a key that is encrypted is refused.
 *   N2  With a revocation list in the file of authorities, each authority must
 *       have one, and a certificate that is on it is refused.
 *   N3  A name with a NUL in it is no name: what stands before the NUL is not
 *       what was signed.
 *
 * A function that fails leaves OpenSSL's error queue for its caller to clear.
 * Nothing here keeps state. */
#ifndef PROTO_TLS_CERTIFICATES_H
#define PROTO_TLS_CERTIFICATES_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { TLS_WHY_LEN = 256, TLS_TIME_LEN = 40 };

/* The beginnings of reasons that concern a file; the path follows. */
#define TLS_WHY_CERTIFICATE "certificate"
#define TLS_WHY_KEY "key"
#define TLS_WHY_CA "CA certificates"

/* Files in PEM format.  NULL: none is given. */
struct tls_files {
  const char *certificate; /* followed by the certificates that signed it */
  const char *key;         /* NULL: it is in `certificate` */
  const char *ca;          /* the authorities that sign peers' certificates, and
                              optionally revocation lists (CRL): then each
                              authority must have one */
};

/* OpenSSL's SSL_CTX and X509: a caller of tls.h needs no header of it. */
struct ssl_ctx_st;
struct x509_st;

/* Loads our certificate and its key.  0; or -EINVAL with the reason in `why`.
 */
int tls_certificates_load(struct ssl_ctx_st *ctx, const struct tls_files *files,
                          char why[TLS_WHY_LEN]);

/* Loads the authorities that sign the certificates of peers.  Likewise. */
int tls_certificates_load_ca(struct ssl_ctx_st *ctx, const char *path,
                             char why[TLS_WHY_LEN]);

/* Has a server tell its peers, in the handshake, the authorities whose
 * certificates it accepts.  Likewise. */
int tls_certificates_name_ca(struct ssl_ctx_st *ctx, const char *path,
                             char why[TLS_WHY_LEN]);

/* Requires a peer's certificate to be for this host: a name, or an address,
 * which is then compared as one.  0 or -ENOMEM.  `*is_name`: it is a name, and
 * may be sent as one (RFC 6066). */
int tls_certificates_set_host(struct ssl_ctx_st *ctx, const char *host,
                              bool *is_name);

/* Stores as text until when our certificate is valid.  Returns what is wrong
 * with it now, or NULL. */
const char *tls_certificates_check_own(const struct ssl_ctx_st *ctx,
                                       char until[TLS_TIME_LEN]);

/* Calls `fn` with each name in a certificate, see tls_peer_names(). */
int tls_certificates_names(const struct x509_st *certificate,
                           int (*fn)(void *arg, const char *name, bool is_dns),
                           void *arg);

#ifdef __cplusplus
}
#endif

#endif

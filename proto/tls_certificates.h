/* Certificates, for TLS: reads our certificate and those of authorities from
 * files, sets the host that a peer's certificate must be for, and reads the
 * names in a certificate.
 *
 *   N1  These functions refuse an encrypted key.  They ask nobody for its
 *       password.
 *   N2  If the file of authorities contains a revocation list, each authority
 *       must have one, and OpenSSL refuses certificates that are on it.
 *   N3  A name that contains a NUL is ignored, because the authority did not
 *       sign the part before the NUL as a name.
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

/* Sets a reason: for people, without secrets. */
__attribute__((format(printf, 2, 3))) void
tls_certificates_why(char why[TLS_WHY_LEN], const char *format, ...);

/* Files in PEM format.  NULL: none is given. */
struct tls_files {
  const char *certificate; /* followed by the certificates that signed it */
  const char *key;         /* NULL: it is in `certificate` */
  const char *ca;          /* the authorities that sign peers' certificates, and
                              optionally revocation lists (CRL): then each
                              authority must have one */
};

/* The structs behind OpenSSL's SSL_CTX and X509.  They are declared here so
 * that a file that includes tls.h needs no header of OpenSSL. */
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

/* Writes the end of our certificate's validity to `until`, as text.  Returns
 * NULL if the certificate is valid now, else the reason why it is not. */
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

/* TLS 1.3 as the transport of a stream, over another transport.
 *
 *   S1  It returns and sends no byte before the handshake is complete and the
 *       peer's certificate was checked as the context requires.
 *   S2  TLS 1.3 only: no renegotiation, no compression.  No session is kept or
 *       resumed, so there is no early data.
 *   S3  A stream that ends without the peer's close_notify was cut: that is an
 *       error, not the end.
 *   S4  A call processes a bounded number of records without data, so a peer
 *       that sends nothing else gets turns like any other.  A server does not
 *       read records ahead, because OpenSSL processes all bytes that it has.
 *   S5  tls_held() is the most memory that a connection takes here.
 *
 * It trusts nothing that it receives.  Any thread may use a context, one thread
 * at a time a connection. */
#ifndef PROTO_TLS_H
#define PROTO_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/stream.h"
#include "proto/tls_certificates.h"

#ifdef __cplusplus
extern "C" {
#endif

struct tls_context; /* shared by connections; reference-counted */
struct tls;         /* a connection */

/* Makes the context of a server.  With `ca`, it checks the certificates of
 * peers; `requires_peer`: each peer must present one, and `ca` is given.  Reads
 * the files, which may take time. 0, or a negative errno with the reason in
 * `why`. */
int tls_server(const struct tls_files *files, bool requires_peer,
               struct tls_context **out, char why[TLS_WHY_LEN]);

/* Makes the context of a client that connects to `host`, a name or an address:
 * the peer must present a certificate for it.  Without `ca` the system's
 * authorities are used.  Returns what tls_server() does. */
int tls_client(const struct tls_files *files, const char *host,
               struct tls_context **out, char why[TLS_WHY_LEN]);

/* Both, for a program that loads this code when it needs it.  All calls below
 * go through what they made, so a program that has made nothing needs no
 * OpenSSL. */
struct tls_makers {
  int (*server)(const struct tls_files *files, bool requires_peer,
                struct tls_context **out, char why[TLS_WHY_LEN]);
  int (*client)(const struct tls_files *files, const char *host,
                struct tls_context **out, char why[TLS_WHY_LEN]);
};

extern const struct tls_makers tls_makers;

/* The transport; its argument is a `struct tls`. recv() first completes the
 * handshake; send() accepts nothing before that.  If send() accepts
 * fewer bytes than it was given, the caller must give it the rest again, as a
 * stream does.
 *
 * recv() returns -ECONNABORTED if the stream was cut; -EACCES if the peer does
 * not accept our certificate or requires one; -EPROTO for all other errors of
 * TLS; and the errors of the transport below. */
extern const struct stream_io tls_io;

/* What the calls below do. */
struct tls_ops {
  const char *(*own_certificate)(const struct tls_context *context,
                                 char until[TLS_TIME_LEN]);
  struct tls_context *(*context_ref)(struct tls_context *context);
  void (*context_unref)(struct tls_context *context);
  int (*new_)(struct tls_context *context, const struct stream_io *below,
              void *transport, struct tls **out);
  void (*use_kernel)(struct tls *t, int fd);
  void (*free)(struct tls *t);
  int (*handshake)(struct tls *t);
  bool (*is_open)(const struct tls *t);
  int (*peer_names)(const struct tls *t,
                    int (*fn)(void *arg, const char *name, bool is_dns),
                    void *arg);
  const char *(*cipher)(const struct tls *t);
  bool (*kernel_sends)(const struct tls *t);
  bool (*peer_is_plain)(const struct tls *t);
  size_t (*held)(const struct tls *t);
  const char *(*why)(const struct tls *t);
  const struct stream_io *io;
};

/* Contexts and connections begin with it. */
struct tls_base {
  const struct tls_ops *ops;
};

static inline const struct tls_ops *tls_ops_of(const void *object) {
  return ((const struct tls_base *)object)->ops;
}

/* Stores as text until when our certificate is valid.  Returns what is wrong
 * with it now, or NULL.  The context must have a certificate. */
static inline const char *tls_own_certificate(const struct tls_context *context,
                                              char until[TLS_TIME_LEN]) {
  return tls_ops_of(context)->own_certificate(context, until);
}

static inline struct tls_context *tls_context_ref(struct tls_context *context) {
  return tls_ops_of(context)->context_ref(context);
}

/* NULL is fine. */
static inline void tls_context_unref(struct tls_context *context) {
  if (context)
    tls_ops_of(context)->context_unref(context);
}

/* Makes a connection over a transport.  0 or -ENOMEM. */
static inline int tls_new(struct tls_context *context,
                          const struct stream_io *below, void *transport,
                          struct tls **out) {
  return tls_ops_of(context)->new_(context, below, transport, out);
}

/* Makes the kernel encrypt what is sent after the handshake, if the kernel has
 * TLS and supports the cipher; otherwise changes nothing.  `fd` is the TCP
 * socket of the transport below, which must be non-blocking.  To be called
 * before the first tls_handshake() of a server, in a process that ignores
 * SIGPIPE.
 *
 * Then the keys stay the same: a peer that requests new ones gets no answer,
 * because kernels before Linux 6.14 cannot change them. */
static inline void tls_use_kernel(struct tls *t, int fd) {
  tls_ops_of(t)->use_kernel(t, fd);
}

/* Frees a connection, and sends nothing.  NULL is allowed. */
static inline void tls_free(struct tls *t) {
  if (t)
    tls_ops_of(t)->free(t);
}

/* tls_io of this connection. */
static inline const struct stream_io *tls_io_of(const struct tls *t) {
  return tls_ops_of(t)->io;
}

/* Continues the handshake. 0: it is complete. -EAGAIN: it waits, for room if
 * tls_io.wants() says so, otherwise for bytes.  Another negative errno, as from
 * recv(): it has failed. */
static inline int tls_handshake(struct tls *t) {
  return tls_ops_of(t)->handshake(t);
}

static inline bool tls_is_open(const struct tls *t) {
  return tls_ops_of(t)->is_open(t);
}

/* Calls `fn` with each name in the verified certificate of the peer: its
 * subject alternative names, with addresses as text, and its common names.
 * `is_dns`: the name is a host name, which ignores case.  Names with a NUL are
 * left out.  If no certificate was requested or presented, there are no names.
 * The handshake must be complete. 0; -ENOMEM; or the non-zero result of `fn`,
 * which ends the iteration. */
static inline int
tls_peer_names(const struct tls *t,
               int (*fn)(void *arg, const char *name, bool is_dns), void *arg) {
  return tls_ops_of(t)->peer_names(t, fn, arg);
}

/* The cipher of the connection.  The handshake must be complete. */
static inline const char *tls_cipher(const struct tls *t) {
  return tls_ops_of(t)->cipher(t);
}

/* Whether the kernel encrypts what is sent. */
static inline bool tls_kernel_sends(const struct tls *t) {
  return tls_ops_of(t)->kernel_sends(t);
}

/* Whether it has failed because the peer does not use TLS. */
static inline bool tls_peer_is_plain(const struct tls *t) {
  return tls_ops_of(t)->peer_is_plain(t);
}

/* Its memory, including OpenSSL's. */
static inline size_t tls_held(const struct tls *t) {
  return tls_ops_of(t)->held(t);
}

/* The reason of the last failure, after a call has returned an error. */
static inline const char *tls_why(const struct tls *t) {
  return tls_ops_of(t)->why(t);
}

#ifdef __cplusplus
}
#endif

#endif

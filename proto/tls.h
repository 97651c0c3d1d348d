/* TLS 1.3 as a stream's transport, over another transport.
 *
 *   S1  No byte is handed out, and none is sent, before the handshake is
 *       complete and the peer's certificate was checked as the context says.
 *   S2  TLS 1.3 and nothing before it: no renegotiation, no compression.  No
 *       session is kept or resumed, and so there is no early data.
 *   S3  A stream that ends without the peer's word for it (close_notify) was
 *       cut: that is an error, not the end.
 *   S4  A call handles a bounded number of records that carry no data, so a
 *       peer that sends nothing else takes turns like any other.  A server
 *       reads none ahead, since OpenSSL handles at once what it has.
 *   S5  tls_held() is as much memory as a connection takes here at most.
 *
 * Whatever is received is hostile.  A context: any thread.  A connection: one
 * thread at a time. */
#ifndef PROTO_TLS_H
#define PROTO_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/stream.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TLS_WHY_LEN = 256, TLS_TIME_LEN = 40 };

/* What a reason begins with that is about a file; then comes its path. */
#define TLS_WHY_CERTIFICATE "certificate"
#define TLS_WHY_KEY "key"
#define TLS_WHY_CA "CA certificates"

/* Files in PEM.  NULL: none is given. */
struct tls_files {
  const char *certificate; /* and behind it those that it was signed by */
  const char *key;         /* NULL: it is in `certificate` */
  const char *ca;          /* the authorities that sign peers' certificates; and
                              maybe lists of those that were revoked (CRL): then
                              each authority has to have one */
};

struct tls_context; /* what connections have in common; counted */
struct tls;         /* a connection */

/* The context of a server.  With `ca` the certificate that a peer shows is
 * checked; `requires_peer`: it has to show one, and there is a `ca`.  Reads the
 * files, which may take time.  0, or a negative errno with the reason in
 * `why`. */
int tls_server(const struct tls_files *files, bool requires_peer,
               struct tls_context **out, char why[TLS_WHY_LEN]);

/* The context of a client that connects to `host`, a name or an address: the
 * peer has to show a certificate for it.  Without `ca` the system's are used.
 * As above. */
int tls_client(const struct tls_files *files, const char *host,
               struct tls_context **out, char why[TLS_WHY_LEN]);

/* Until when the certificate is valid that we show, as text.  What is wrong
 * with it now, if anything is, else NULL.  Of a context that has one. */
const char *tls_own_certificate(const struct tls_context *context,
                                char until[TLS_TIME_LEN]);

struct tls_context *tls_context_ref(struct tls_context *context);

/* NULL is fine. */
void tls_context_unref(struct tls_context *context);

/* Makes a connection over a transport.  0 or -ENOMEM. */
int tls_new(struct tls_context *context, const struct stream_io *below,
            void *transport, struct tls **out);

/* Has the kernel encrypt what is sent once the handshake is complete, if it has
 * TLS and takes the cipher; else nothing is different.  `fd` is the TCP socket
 * that the transport below is over, which does not block.  Before the first
 * tls_handshake(), of a server, in a process that ignores SIGPIPE.
 *
 * The keys then stay: a peer that asks for new ones is not answered, as the
 * kernel can take none before Linux 6.14. */
void tls_use_kernel(struct tls *t, int fd);

/* Frees it, and sends nothing.  NULL is fine. */
void tls_free(struct tls *t);

/* Goes on with the handshake.  0: it is complete.  -EAGAIN: it waits for room
 * if tls_io.wants() says so, else for bytes.  Or another negative errno, as
 * recv() would return: it has failed. */
int tls_handshake(struct tls *t);

bool tls_is_open(const struct tls *t);

/* Calls `fn` with each name of the certificate that the peer has shown and that
 * was verified: its subject alternative names, an address of them as text, and
 * its common names.  `is_dns`: it is a host's, which is the same in either
 * case.  A name with a NUL in it is left out.  There is none where no
 * certificate was asked for or shown.  The handshake is complete.  0; -ENOMEM;
 * or what `fn` returned that is not 0, which ends it. */
int tls_peer_names(const struct tls *t,
                   int (*fn)(void *arg, const char *name, bool is_dns),
                   void *arg);

/* The cipher that was agreed on.  The handshake is complete. */
const char *tls_cipher(const struct tls *t);

/* Whether the kernel encrypts what is sent. */
bool tls_kernel_sends(const struct tls *t);

/* Whether it has failed because the peer does not speak TLS. */
bool tls_peer_is_plain(const struct tls *t);

/* The memory that it takes, OpenSSL's with it. */
size_t tls_held(const struct tls *t);

/* What went wrong, after a call has returned an error. */
const char *tls_why(const struct tls *t);

/* The transport, a `struct tls`.  recv() does the handshake first; send() takes
 * nothing until that is complete.  Bytes of which send() has taken a part, or
 * nothing, are to be offered again, as a stream does.
 *
 * recv() returns -ECONNABORTED for a stream that was cut; -EACCES where the
 * peer does not accept our certificate, or wants one; -EPROTO for all else that
 * is wrong with TLS; and what the transport below returns. */
extern const struct stream_io tls_io;

#ifdef __cplusplus
}
#endif

#endif

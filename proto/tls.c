#include "proto/tls.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

enum {
  /* How many bytes a peer may send before the handshake is complete, and how
   * many of them may be certificates.  A usual chain has 1 to 5 KiB. */
  MAX_HANDSHAKE = 32 << 10,
  MAX_CERTIFICATES = 8 << 10,
  /* The memory of a connection before its handshake is complete; the memory of
   * an idle connection; and the memory of each of its buffers while a record is
   * sent or received.  OpenSSL 3.5 needs 12 KiB more than 3.0 for the first
   * two. */
  HELD_HANDSHAKE = 92 << 10,
  HELD_IDLE = 36 << 10,
  HELD_BUFFER = 17 << 10,
  /* The first number includes so many bytes of certificates.  Each further byte
   * may need so much memory when it is parsed: names of one letter do. */
  USUAL_CERTIFICATES = 1024,
  HELD_PER_BYTE = 40,
  /* The most bytes of a record. */
  RECORD_LEN = SSL3_RT_MAX_PLAIN_LENGTH,
  /* A record adds a header, the type, and a tag to its bytes.  An answer to a
   * KeyUpdate, which may come before it, is shorter than the spare room. */
  RECORD_EXTRA = SSL3_RT_HEADER_LENGTH + 1 + EVP_GCM_TLS_TAG_LEN,
  RECORD_SPARE = 256,
  /* How many bytes of records are sent by one call: each call may wake the
   * peer, which then finds no more than these.  And how many a client receives
   * by one call; it has one connection, and much to receive. */
  BATCH_LEN = 64 << 10,
  AHEAD_LEN = 128 << 10,
  /* How many records without data one call handles (S4). */
  MAX_EMPTY = 16,
};

static const struct tls_ops ops;

struct tls_context {
  struct tls_base base; /* first */
  atomic_uint n_refs;   /* the last one acquires what the others released */
  SSL_CTX *ctx;
  BIO_METHOD *method;
  bool accepts;
  char *name;               /* that is asked for; NULL: none, or an address */
  _Atomic(uint8_t *) spare; /* for a batch; NULL: in use, or none yet */
};

struct tls {
  struct tls_base base; /* first */
  struct tls_context *context;
  const struct stream_io *below;
  void *transport;
  SSL *ssl;
  size_t handshake_left; /* bytes that may come before it is complete */
  size_t n_encrypted; /* of those that came: certificates, for the most part */
  struct {
    uint8_t start[9]; /* of a record: its header, and that of a message */
    unsigned n_start;
    size_t left; /* bytes of it that are to come */
  } record;      /* that is coming, before the handshake is complete */
  bool is_open;
  bool kernel_sends; /* what send() is given goes below as it is */
  bool is_sending;   /* a record that was not taken as a whole is OpenSSL's */
  bool is_sealing;   /* what OpenSSL writes goes into the batch */
  struct {
    uint8_t *bytes; /* NULL but in tls_send(); of BATCH_LEN */
    size_t len;
  } batch; /* records that tls_send() makes for the transport below */
  struct {
    uint8_t *bytes; /* NULL: there are none */
    size_t start, len;
  } rest;         /* of the batch: the transport below did not take it */
  size_t untaken; /* bytes in its last record that tls_send() did not count as
                    taken */
  bool is_dry;    /* the transport below had nothing more */
  bool at_end;    /* and never will */
  bool is_plain;  /* the peer does not speak TLS */
  bool has_ended; /* recv() has no more bytes to hand out, but `ended` */
  int ended, below_errno;
  enum stream_wants wants;
  char why[TLS_WHY_LEN];
};

/* ---- The transport below, as OpenSSL sees it ----------------------------- */

/* Checks the start of a record of the handshake.  OpenSSL allocates memory for
 * the length that a message claims, up to 128 KiB for a hello.  So a message
 * that is not encrypted must lie in one record, as honest peers send it.
 * False: it does not. */
static bool check_start(const uint8_t start[9]) {
  size_t record_len = (size_t)start[3] << 8 | start[4];
  size_t message_len =
      (size_t)start[6] << 16 | (size_t)start[7] << 8 | start[8];
  return record_len >= 4 && message_len <= record_len - 4;
}

/* Follows the records of the handshake.  False: one is refused. */
static bool follow_records(struct tls *t, const uint8_t *bytes, size_t n) {
  for (size_t i = 0; i < n; i++) {
    unsigned at = t->record.n_start;
    if (at < sizeof t->record.start)
      t->record.start[t->record.n_start++] = bytes[i];
    if (at == 4)
      t->record.left = (size_t)t->record.start[3] << 8 | t->record.start[4];
    else if (at > 4)
      t->record.left--;
    if (at == 8 && t->record.start[0] == SSL3_RT_HANDSHAKE &&
        !check_start(t->record.start))
      return false;
    t->n_encrypted += t->record.start[0] == SSL3_RT_APPLICATION_DATA;
    if (at >= 4 && !t->record.left)
      t->record.n_start = 0;
  }
  return true;
}

/* Counts `n` bytes of the handshake.  False: they are refused. */
static bool below_handshake(struct tls *t, const uint8_t *bytes, size_t n) {
  t->handshake_left -= n;
  if (follow_records(t, bytes, n))
    return true;
  t->below_errno = -EPROTO;
  t->handshake_left = 0;
  return false;
}

static int below_read(BIO *bio, char *bytes, int len) {
  struct tls *t = BIO_get_data(bio);
  struct stream_fds came; /* but for n, cut and stray not set */
  size_t most = (size_t)len;
  BIO_clear_retry_flags(bio);
  if (!t->is_open && most > t->handshake_left)
    most = t->handshake_left;
  if (!most) {
    t->below_errno = -EPROTO;
    return -1;
  }
  ssize_t n;
  do {
    came.n = 0;
    came.cut = came.stray = false;
    n = t->below->recv(t->transport, bytes, most, &came);
  } while (n == -EINTR);
  assert(!came.n);
  t->is_dry = n == -EAGAIN || n == -EWOULDBLOCK;
  t->at_end = n == 0;
  if (t->is_dry)
    BIO_set_retry_read(bio);
  else if (n < 0)
    t->below_errno = (int)n;
  else if (!t->is_open && !below_handshake(t, (uint8_t *)bytes, (size_t)n))
    n = -1;
  return n < 0 ? -1 : (int)n;
}

/* Returns how many bytes were sent, -EAGAIN, or another negative errno. */
static ssize_t below_send(struct tls *t, const void *bytes, size_t len) {
  struct iovec iov = {(void *)bytes, len};
  ssize_t n;
  do
    n = t->below->send(t->transport, &iov, 1, NULL, 0);
  while (n == -EINTR);
  if (n == -EWOULDBLOCK || n == -ENOBUFS)
    n = -EAGAIN;
  if (n < 0 && n != -EAGAIN)
    t->below_errno = (int)n;
  return n;
}

/* Sends the rest of a batch.  0: all of it was sent; or a negative errno. */
static int send_rest(struct tls *t) {
  if (!t->rest.bytes)
    return 0;
  ssize_t n =
      below_send(t, t->rest.bytes + t->rest.start, t->rest.len - t->rest.start);
  if (n < 0)
    return (int)n;
  t->rest.start += (size_t)n;
  if (t->rest.start < t->rest.len)
    return -EAGAIN;
  OPENSSL_free(t->rest.bytes);
  t->rest.bytes = NULL;
  return 0;
}

/* Begins a batch.  Connections of one context take turns with one buffer; those
 * that send at the same time, on other threads, make another. */
static bool take_batch(struct tls *t) {
  t->batch.len = 0;
  t->batch.bytes = atomic_exchange(&t->context->spare, NULL);
  if (!t->batch.bytes)
    t->batch.bytes = malloc(BATCH_LEN);
  return t->batch.bytes;
}

static void give_batch(struct tls *t) {
  free(atomic_exchange(&t->context->spare, t->batch.bytes));
  t->batch.bytes = NULL;
}

/* Sends the batch, and keeps what the transport did not take.  Returns as
 * send_rest(). */
static int send_batch(struct tls *t) {
  size_t len = t->batch.len;
  t->batch.len = 0;
  ssize_t n = len ? below_send(t, t->batch.bytes, len) : 0;
  if (n < 0 && n != -EAGAIN)
    return (int)n;
  size_t sent = n < 0 ? 0 : (size_t)n;
  if (sent == len)
    return 0;
  t->rest.start = 0;
  t->rest.len = len - sent;
  t->rest.bytes = OPENSSL_memdup(t->batch.bytes + sent, t->rest.len);
  if (t->rest.bytes)
    return -EAGAIN;
  return t->below_errno = -ENOMEM;
}

static int below_write(BIO *bio, const char *bytes, int len) {
  struct tls *t = BIO_get_data(bio);
  ssize_t n = len;
  BIO_clear_retry_flags(bio);
  if (!t->is_sealing) {
    n = send_rest(t);
    if (n == 0)
      n = below_send(t, bytes, (size_t)len);
  } else if ((size_t)len > BATCH_LEN - t->batch.len) {
    n = -EAGAIN;
  } else {
    memcpy(t->batch.bytes + t->batch.len, bytes, (size_t)len);
    t->batch.len += (size_t)len;
  }
  if (n == -EAGAIN)
    BIO_set_retry_write(bio);
  return n < 0 ? -1 : (int)n;
}

static long below_ctrl(BIO *bio, int what, long arg, void *pointer) {
  const struct tls *t = BIO_get_data(bio);
  (void)arg;
  (void)pointer;
  switch (what) {
  case BIO_CTRL_FLUSH:
    return 1; /* nothing is kept here */
  case BIO_CTRL_EOF:
    return t->at_end;
  default:
    return 0;
  }
}

static BIO_METHOD *below_method(void) {
  BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "transport");
  if (m && BIO_meth_set_read(m, below_read) &&
      BIO_meth_set_write(m, below_write) && BIO_meth_set_ctrl(m, below_ctrl))
    return m;
  BIO_meth_free(m);
  return NULL;
}

/* ---- Contexts ------------------------------------------------------------ */

/* Of the three ciphers that TLS 1.3 has here the one that takes the least time
 * comes first, where the processor has AES; else OpenSSL's order stands. */
static const char *ciphers_by_speed(void) {
#if defined(__x86_64__) || defined(__i386__)
  if (__builtin_cpu_supports("aes"))
    return "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:"
           "TLS_CHACHA20_POLY1305_SHA256";
#endif
  return TLS_DEFAULT_CIPHERSUITES;
}

static struct tls_context *context_ref(struct tls_context *c) {
  atomic_fetch_add_explicit(&c->n_refs, 1, memory_order_relaxed);
  return c;
}

static void context_unref(struct tls_context *c) {
  if (!c || atomic_fetch_sub_explicit(&c->n_refs, 1, memory_order_acq_rel) > 1)
    return;
  SSL_CTX_free(c->ctx);
  BIO_meth_free(c->method);
  free(atomic_load(&c->spare));
  free(c->name);
  free(c);
}

/* The common part of both. */
static int context_new(const SSL_METHOD *method, const struct tls_files *files,
                       struct tls_context **out, char *why) {
  struct tls_context *c = calloc(1, sizeof *c);
  tls_certificates_why(why, "no memory for TLS");
  if (!c)
    return -ENOMEM;
  *out = c;
  c->base.ops = &ops;
  atomic_init(&c->n_refs, 1);
  ERR_clear_error();
  c->ctx = SSL_CTX_new(method);
  c->method = below_method();
  if (!c->ctx || !c->method ||
      SSL_CTX_set_min_proto_version(c->ctx, TLS1_3_VERSION) != 1 ||
      SSL_CTX_set_max_proto_version(c->ctx, TLS1_3_VERSION) != 1 ||
      SSL_CTX_set_ciphersuites(c->ctx, ciphers_by_speed()) != 1)
    return -ENOMEM;
  SSL_CTX_set_options(c->ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION |
                                  SSL_OP_NO_TICKET);
#ifdef SSL_OP_NO_RX_CERTIFICATE_COMPRESSION /* OpenSSL 3.2 */
  /* The account computes the memory of a certificate from its received bytes,
   * so they must not be compressed. */
  SSL_CTX_set_options(c->ctx, SSL_OP_NO_RX_CERTIFICATE_COMPRESSION |
                                  SSL_OP_NO_TX_CERTIFICATE_COMPRESSION);
#endif
  SSL_CTX_set_num_tickets(c->ctx, 0);
  SSL_CTX_set_session_cache_mode(c->ctx, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_max_early_data(c->ctx, 0);
  SSL_CTX_set_max_cert_list(c->ctx, MAX_CERTIFICATES);
  SSL_CTX_set_mode(c->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
                               SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_clear_mode(c->ctx, SSL_MODE_AUTO_RETRY); /* S4 */
  return files->certificate ? tls_certificates_load(c->ctx, files, why) : 0;
}

static int set_up_server(struct tls_context *c, const struct tls_files *files,
                         bool requires_peer, char *why) {
  c->accepts = true;
  SSL_CTX_set_mode(c->ctx, SSL_MODE_RELEASE_BUFFERS); /* S5: they are many */
  if (!files->ca)
    return 0;
  int r = tls_certificates_load_ca(c->ctx, files->ca, why);
  if (r == 0)
    r = tls_certificates_name_ca(c->ctx, files->ca, why);
  if (r < 0)
    return r;
  SSL_CTX_set_verify(c->ctx,
                     requires_peer
                         ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT
                         : SSL_VERIFY_PEER,
                     NULL);
  return 0;
}

/* Hands a context over, or frees one that was made half way.  It clears the
 * error queue of OpenSSL, because the program may use that queue, too. */
static int context_done(struct tls_context *c, int r,
                        struct tls_context **out) {
  ERR_clear_error();
  if (r < 0)
    context_unref(c);
  else
    *out = c;
  return r;
}

int tls_server(const struct tls_files *files, bool requires_peer,
               struct tls_context **out, char why[TLS_WHY_LEN]) {
  struct tls_context *c = NULL;
  assert(files->certificate && (files->ca || !requires_peer));
  int r = context_new(TLS_server_method(), files, &c, why);
  if (r == 0)
    r = set_up_server(c, files, requires_peer, why);
  return context_done(c, r, out);
}

static int set_up_client(struct tls_context *c, const struct tls_files *files,
                         const char *host, char *why) {
  SSL_CTX_set_verify(c->ctx, SSL_VERIFY_PEER, NULL);
  SSL_CTX_set_default_read_buffer_len(c->ctx, AHEAD_LEN);
  bool is_name;
  int r = tls_certificates_set_host(c->ctx, host, &is_name);
  if (r == 0 && is_name && !(c->name = strdup(host)))
    r = -ENOMEM;
  if (r < 0) {
    tls_certificates_why(why, "no memory for TLS");
    return r;
  }
  if (files->ca)
    return tls_certificates_load_ca(c->ctx, files->ca, why);
  if (SSL_CTX_set_default_verify_paths(c->ctx) == 1)
    return 0;
  tls_certificates_why(why, "the system's CA certificates cannot be found");
  return -EINVAL;
}

int tls_client(const struct tls_files *files, const char *host,
               struct tls_context **out, char why[TLS_WHY_LEN]) {
  struct tls_context *c = NULL;
  assert(host && *host);
  int r = context_new(TLS_client_method(), files, &c, why);
  if (r == 0)
    r = set_up_client(c, files, host, why);
  return context_done(c, r, out);
}

static const char *own_certificate(const struct tls_context *c,
                                   char until[TLS_TIME_LEN]) {
  return tls_certificates_check_own(c->ctx, until);
}

/* ---- Connections --------------------------------------------------------- */

/* Returns 0 or -ENOMEM.  The caller calls connection_free() in either case. */
static int set_up(struct tls *t) {
  BIO *bio = BIO_new(t->context->method);
  t->ssl = SSL_new(t->context->ctx);
  if (!bio || !t->ssl) {
    BIO_free(bio);
    return -ENOMEM;
  }
  BIO_set_data(bio, t);
  BIO_set_init(bio, 1);
  SSL_set_bio(t->ssl, bio, bio); /* which owns it now */
  if (t->context->accepts)
    SSL_set_accept_state(t->ssl);
  else
    SSL_set_connect_state(t->ssl);
  const char *name = t->context->name;
  return !name || SSL_set_tlsext_host_name(t->ssl, name) == 1 ? 0 : -ENOMEM;
}

static void connection_free(struct tls *t) {
  SSL_free(t->ssl);
  OPENSSL_free(t->rest.bytes);
  context_unref(t->context);
  free(t);
}

static int connection_new(struct tls_context *context,
                          const struct stream_io *below, void *transport,
                          struct tls **out) {
  struct tls *t = calloc(1, sizeof *t);
  if (!t)
    return -ENOMEM;
  t->base.ops = &ops;
  t->context = context_ref(context);
  t->below = below;
  t->transport = transport;
  t->handshake_left = MAX_HANDSHAKE;
  int r = set_up(t);
  ERR_clear_error();
  if (r < 0)
    connection_free(t);
  else
    *out = t;
  return r;
}

/* ---- The kernel's TLS ---------------------------------------------------- */

/* The handshake uses OpenSSL's own BIO of a socket.  Only that BIO gives the
 * keys to the kernel, and marks records without data there. */
static void use_kernel(struct tls *t, int fd) {
  static const char name[] = "tls";
  static atomic_bool is_missing; /* relaxed: it saves asking again */
  assert(t->context->accepts && !t->is_open);
  if (atomic_load_explicit(&is_missing, memory_order_relaxed))
    return;
  if (setsockopt(fd, IPPROTO_TCP, TCP_ULP, name, sizeof name) < 0) {
    if (errno == ENOENT || errno == ENOPROTOOPT)
      atomic_store_explicit(&is_missing, true, memory_order_relaxed);
    return;
  }
  BIO *bio = BIO_new_socket(fd, BIO_NOCLOSE);
  if (bio) {
    SSL_set_options(t->ssl, SSL_OP_ENABLE_KTLS);
    SSL_set0_wbio(t->ssl, bio); /* which owns it now */
  }
  ERR_clear_error();
}

/* Called when the handshake is complete and all of it was sent.  If the kernel
 * has not taken the keys, output goes through the transport below again. */
static void leave_to_kernel(struct tls *t) {
  BIO *below = SSL_get_rbio(t->ssl), *now = SSL_get_wbio(t->ssl);
  if (now == below)
    return;
  t->kernel_sends = BIO_get_ktls_send(now);
  if (!t->kernel_sends && BIO_up_ref(below) == 1)
    SSL_set0_wbio(t->ssl, below); /* which owns it as well */
}

static bool kernel_sends(const struct tls *t) { return t->kernel_sends; }

static bool is_open(const struct tls *t) { return t->is_open; }

static const char *cipher(const struct tls *t) {
  return SSL_get_cipher_name(t->ssl);
}

/* Whether OpenSSL has a buffer for input.  It has one from the first byte of a
 * record until the last byte of that record was handed out.  If it has read
 * only a header, its state shows that. */
static bool has_input(const struct tls *t) {
  return SSL_has_pending(t->ssl) ||
         strcmp(SSL_rstate_string(t->ssl), "RB") == 0;
}

static bool peer_is_plain(const struct tls *t) { return t->is_plain; }

static size_t count_held(const struct tls *t) {
  size_t held = t->is_open ? HELD_IDLE : HELD_HANDSHAKE;
  if (!t->context->accepts)
    held += AHEAD_LEN + HELD_BUFFER; /* it keeps them */
  if (t->n_encrypted > USUAL_CERTIFICATES)
    held += (t->n_encrypted - USUAL_CERTIFICATES) * HELD_PER_BYTE;
  if (t->is_open && has_input(t))
    held += HELD_BUFFER;
  if (t->rest.bytes)
    held += t->rest.len;
  return held + (t->is_sending ? HELD_BUFFER : 0);
}

static const char *why_of(const struct tls *t) { return t->why; }

static int peer_names(const struct tls *t,
                      int (*fn)(void *arg, const char *name, bool is_dns),
                      void *arg) {
  const X509 *peer = SSL_get0_peer_certificate(t->ssl);
  assert(t->is_open);
  if (!peer || !(SSL_get_verify_mode(t->ssl) & SSL_VERIFY_PEER) ||
      SSL_get_verify_result(t->ssl) != X509_V_OK)
    return 0;
  int r = tls_certificates_names(peer, fn, arg);
  ERR_clear_error();
  return r;
}

/* ---- What a call came to ------------------------------------------------- */

/* Whether an alert is about our certificate. */
static bool is_refusal(int alert) {
  switch (alert) {
  case SSL_AD_BAD_CERTIFICATE:
  case SSL_AD_UNSUPPORTED_CERTIFICATE:
  case SSL_AD_CERTIFICATE_REVOKED:
  case SSL_AD_CERTIFICATE_EXPIRED:
  case SSL_AD_CERTIFICATE_UNKNOWN:
  case SSL_AD_UNKNOWN_CA:
  case SSL_AD_ACCESS_DENIED:
  case SSL_AD_CERTIFICATE_REQUIRED:
    return true;
  default:
    return false;
  }
}

/* Explains the alert of a peer that gave up. */
static int explain_alert(struct tls *t, int alert) {
  if (alert == SSL_AD_CERTIFICATE_REQUIRED) {
    tls_certificates_why(t->why, "it wants a certificate, and none was given");
    return -EACCES;
  }
  bool refused = is_refusal(alert);
  tls_certificates_why(t->why, "%s: %s",
                       refused ? "it refused the certificate" : "it gave up",
                       SSL_alert_desc_string_long(alert));
  return refused ? -EACCES : -EPROTO;
}

static int explain_cut(struct tls *t) {
  tls_certificates_why(t->why, "the connection was cut");
  return -ECONNABORTED;
}

static int explain(struct tls *t) {
  unsigned long code = ERR_peek_error();
  int what = ERR_GET_LIB(code) == ERR_LIB_SSL ? ERR_GET_REASON(code) : 0;
  const char *text = ERR_reason_error_string(code);
  long verified = SSL_get_verify_result(t->ssl);
  if (what > SSL_AD_REASON_OFFSET)
    return explain_alert(t, what - SSL_AD_REASON_OFFSET);
  switch (what) {
  case SSL_R_UNEXPECTED_EOF_WHILE_READING:
    return explain_cut(t);
  case SSL_R_CERTIFICATE_VERIFY_FAILED:
    tls_certificates_why(t->why, "its certificate is not accepted: %s",
                         X509_verify_cert_error_string(verified));
    break;
  case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
    tls_certificates_why(t->why, "it shows no certificate");
    break;
  case SSL_R_WRONG_VERSION_NUMBER:
  case SSL_R_HTTP_REQUEST:
  case SSL_R_HTTPS_PROXY_REQUEST:
    t->is_plain = true;
    tls_certificates_why(t->why, "it does not speak TLS");
    break;
  case SSL_R_UNSUPPORTED_PROTOCOL:
    tls_certificates_why(t->why, "it does not speak TLS 1.3");
    break;
  default:
    tls_certificates_why(t->why, "%s",
                         text ? text : "an error that has no name");
  }
  return -EPROTO;
}

/* The result of a call that was no success and returned `r`: -EAGAIN; 0 for the
 * end; or the negative errno of a failure, with its message in `why`. */
static int outcome(struct tls *t, int r) {
  switch (SSL_get_error(t->ssl, r)) {
  case SSL_ERROR_WANT_READ:
    return -EAGAIN;
  case SSL_ERROR_WANT_WRITE:
    t->wants = STREAM_WANTS_ROOM;
    return -EAGAIN;
  case SSL_ERROR_ZERO_RETURN:
    return 0;
  case SSL_ERROR_SYSCALL:
    if (!t->is_open && !t->handshake_left)
      tls_certificates_why(t->why, "its handshake is too long");
    else if (t->below_errno)
      tls_certificates_why(t->why, "%s", strerror(-t->below_errno));
    else
      return explain_cut(t); /* OpenSSL reports an earlier failure only once */
    return t->below_errno;
  default:
    return explain(t);
  }
}

/* ---- The transport above ------------------------------------------------- */

static int handshake(struct tls *t) {
  t->wants = STREAM_WANTS_NOTHING;
  if (t->is_open || t->has_ended)
    return t->has_ended ? t->ended : 0;
  ERR_clear_error();
  int r = SSL_do_handshake(t->ssl);
  r = r == 1 ? 0 : outcome(t, r);
  ERR_clear_error();
  if (r == 0 && SSL_is_init_finished(t->ssl)) {
    t->is_open = true;
    SSL_set_read_ahead(t->ssl, !t->context->accepts); /* S4 */
    leave_to_kernel(t);
    return 0;
  }
  if (r == -EAGAIN)
    return r;
  if (r == 0) { /* the peer ended it here */
    tls_certificates_why(t->why, "it closed the connection");
    r = -ECONNABORTED;
  }
  t->has_ended = true;
  t->ended = r;
  return r;
}

/* Reads, and handles up to MAX_EMPTY records without data on the way (S4). */
static int read_some(struct tls *t, uint8_t *bytes, size_t len, size_t *n) {
  for (unsigned n_empty = 0;; n_empty++) {
    ERR_clear_error();
    t->is_dry = false;
    int r = SSL_read_ex(t->ssl, bytes, len, n);
    if (r == 1)
      return 1;
    r = outcome(t, r);
    if (r != -EAGAIN || t->is_dry || t->wants == STREAM_WANTS_ROOM)
      return r;
    if (n_empty == MAX_EMPTY) {
      t->wants = STREAM_WANTS_TURN;
      return -EAGAIN;
    }
  }
}

static ssize_t tls_recv(void *transport, void *bytes, size_t len,
                        struct stream_fds *came) {
  struct tls *t = transport;
  size_t done = 0, n = 0;
  (void)came;
  int r = handshake(t);
  if (r < 0 || t->has_ended)
    return r;
  do {
    r = read_some(t, (uint8_t *)bytes + done, len - done, &n);
    if (r > 0)
      done += n;
  } while (r > 0 && done < len);
  ERR_clear_error();
  if (r <= 0 && r != -EAGAIN) {
    t->has_ended = true;
    t->ended = r;
  }
  if ((r > 0 && SSL_has_pending(t->ssl)) || (done && t->has_ended))
    t->wants = STREAM_WANTS_TURN;
  return done ? (ssize_t)done : r;
}

/* The bytes that tls_send() was given, and how far it has come. */
struct offer {
  const struct iovec *iovs;
  size_t n_iovs;
  size_t skip;     /* of the first that is left */
  size_t done;     /* bytes that are in records */
  size_t last_len; /* of the last record in the batch; 0: there is none */
};

static void offer_take(struct offer *o, size_t n) {
  o->done += n;
  o->last_len = n;
  for (; o->n_iovs && n >= o->iovs->iov_len - o->skip; o->iovs++, o->n_iovs--) {
    n -= o->iovs->iov_len - o->skip;
    o->skip = 0;
  }
  o->skip += n;
}

/* Finds the bytes of the next record, as many as fit.  A short header and the
 * page behind it are copied to `to`, so that they make one record.  0: nothing
 * is left. */
static size_t offer_look(const struct offer *o, uint8_t *to,
                         const void **bytes) {
  size_t len = 0, skip = o->skip;
  *bytes = to;
  for (size_t i = 0; i < o->n_iovs && len < RECORD_LEN; i++) {
    const uint8_t *from = (const uint8_t *)o->iovs[i].iov_base + skip;
    size_t n = o->iovs[i].iov_len - skip;
    if (n > RECORD_LEN - len)
      n = RECORD_LEN - len;
    if (n == RECORD_LEN)
      *bytes = from;
    else
      memcpy(to + len, from, n);
    len += n;
    skip = 0;
  }
  return len;
}

/* Makes records until the batch is full.  1, or what SSL_write_ex() has said
 * that is none. */
static int fill_batch(struct tls *t, struct offer *o) {
  uint8_t copy[RECORD_LEN];
  const void *bytes;
  size_t len, n = 0;
  int r = 1;
  o->last_len = 0;
  t->is_sealing = true;
  while (r == 1 &&
         t->batch.len + RECORD_LEN + RECORD_EXTRA + RECORD_SPARE <= BATCH_LEN &&
         (len = offer_look(o, copy, &bytes)) > 0) {
    ERR_clear_error();
    r = SSL_write_ex(t->ssl, bytes, len, &n);
    if (r == 1)
      offer_take(o, n);
  }
  t->is_sealing = false;
  return r;
}

/* If the transport below does not take the whole batch, the bytes of its last
 * record are not counted as taken, so that the sender waits for room.  The
 * sender offers them again first; they are in the rest of the batch already,
 * and are skipped then. */
static ssize_t tls_send(void *transport, const struct iovec *iovs,
                        size_t n_iovs, const int *fds, unsigned n_fds) {
  struct tls *t = transport;
  struct offer o = {.iovs = iovs, .n_iovs = n_iovs};
  enum stream_wants wants = t->wants;
  assert(!n_fds);
  if (t->kernel_sends)
    return t->below->send(t->transport, iovs, n_iovs, fds, n_fds);
  int r, failed, sent = t->is_open ? send_rest(t) : -EAGAIN;
  if (sent < 0)
    return sent;
  if (!take_batch(t))
    return t->below_errno = -ENOMEM;
  offer_take(&o, t->untaken);
  t->untaken = 0;
  do {
    r = fill_batch(t, &o);
    failed = r == 1 ? -EAGAIN : outcome(t, r);
    sent = send_batch(t);
  } while (r == 1 && sent == 0 && o.last_len);
  give_batch(t);
  t->is_sending = r != 1;
  ERR_clear_error();
  t->wants = wants; /* the sender waits for room to send */
  if (sent < 0 && sent != -EAGAIN)
    return sent;
  if (sent < 0)
    t->untaken = o.last_len;
  o.done -= t->untaken;
  return o.done ? (ssize_t)o.done : failed ? failed : -EPIPE;
}

static void tls_close_fd(void *transport, int fd, bool came) {
  const struct tls *t = transport;
  t->below->close_fd(t->transport, fd, came);
}

static enum stream_wants tls_wants(const void *transport) {
  return ((const struct tls *)transport)->wants;
}

static void tls_end(void *transport) {
  struct tls *t = transport;
  ERR_clear_error();
  if (t->is_open && !(t->has_ended && t->ended < 0))
    SSL_shutdown(t->ssl);
  ERR_clear_error();
}

const struct stream_io tls_io = {.recv = tls_recv,
                                 .send = tls_send,
                                 .close_fd = tls_close_fd,
                                 .wants = tls_wants,
                                 .end = tls_end};

static const struct tls_ops ops = {.own_certificate = own_certificate,
                                   .context_ref = context_ref,
                                   .context_unref = context_unref,
                                   .new_ = connection_new,
                                   .use_kernel = use_kernel,
                                   .free = connection_free,
                                   .handshake = handshake,
                                   .is_open = is_open,
                                   .peer_names = peer_names,
                                   .cipher = cipher,
                                   .kernel_sends = kernel_sends,
                                   .peer_is_plain = peer_is_plain,
                                   .held = count_held,
                                   .why = why_of,
                                   .io = &tls_io};

const struct tls_makers tls_makers = {.server = tls_server,
                                      .client = tls_client};

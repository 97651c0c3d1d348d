// TLS over a transport in memory, and over TCP where the kernel has a part in
// it.
#include "proto/tls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <malloc.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <numeric>
#include <string>
#include <vector>

#include "proto/socket.h"
#include "tests/support/certificates.h"

namespace {

using Bytes = std::vector<uint8_t>;

// ---- What OpenSSL allocates ------------------------------------------------

std::atomic<size_t> g_used, g_most;

void Count(void *p) {
  size_t now = g_used += malloc_usable_size(p);
  size_t most = g_most;
  while (now > most && !g_most.compare_exchange_weak(most, now)) {
  }
}

void *Allocate(size_t n, const char *, int) {
  void *p = malloc(n);
  Count(p);
  return p;
}
void *Reallocate(void *old, size_t n, const char *, int) {
  g_used -= malloc_usable_size(old);
  void *p = realloc(old, n);
  Count(p);
  return p;
}
void Free(void *p, const char *, int) {
  g_used -= malloc_usable_size(p);
  free(p);
}

// Before the first use of OpenSSL.
const int g_counts = CRYPTO_set_mem_functions(Allocate, Reallocate, Free);

// ---- A transport in memory -------------------------------------------------

// One direction.
struct Pipe {
  Bytes bytes;
  size_t n_read = 0;
  size_t room = SIZE_MAX; // how much may lie in it
  bool is_ended = false;

  size_t n_there() const { return bytes.size() - n_read; }
};

// One end of two pipes.
struct End {
  Pipe *in, *out;
  size_t step = SIZE_MAX; // bytes that one call moves
  int error = 0;          // else: an errno
  int n_sends = 0;

  static ssize_t Recv(void *transport, void *to, size_t len, stream_fds *) {
    auto *e = static_cast<End *>(transport);
    if (e->error)
      return -e->error;
    size_t n = std::min({len, e->step, e->in->n_there()});
    if (!n)
      return e->in->is_ended ? 0 : -EAGAIN;
    memcpy(to, &e->in->bytes[e->in->n_read], n);
    e->in->n_read += n;
    return static_cast<ssize_t>(n);
  }

  static ssize_t Send(void *transport, const iovec *iovs, size_t n_iovs,
                      const int *, unsigned) {
    auto *e = static_cast<End *>(transport);
    size_t done = 0;
    e->n_sends++;
    if (e->error)
      return -e->error;
    for (size_t i = 0; i < n_iovs; i++) {
      auto *from = static_cast<const uint8_t *>(iovs[i].iov_base);
      size_t there = e->out->n_there();
      size_t room = e->out->room > there ? e->out->room - there : 0;
      size_t n = std::min({iovs[i].iov_len, e->step - done, room});
      e->out->bytes.insert(e->out->bytes.end(), from, from + n);
      done += n;
    }
    return done ? static_cast<ssize_t>(done) : -EAGAIN;
  }

  static void CloseFd(void *, int, bool) {}
};

const stream_io kBelow = {End::Recv, End::Send, End::CloseFd, nullptr, nullptr};

struct TlsFree {
  void operator()(tls *t) const { tls_free(t); }
  void operator()(tls_context *c) const { tls_context_unref(c); }
};
using Tls = std::unique_ptr<tls, TlsFree>;
using Context = std::unique_ptr<tls_context, TlsFree>;

Bytes Counting(size_t n) {
  Bytes bytes(n);
  for (size_t i = 0; i < n; i++)
    bytes[i] = uint8_t(i * 2654435761u >> 24);
  return bytes;
}

class TlsTest : public testing::Test {
protected:
  static void SetUpTestSuite() {
    certificates_ = new Certificates;
    server_ = new std::string(
        certificates_->Make("server", "DNS:localhost,IP:127.0.0.1,IP:::1"));
    client_ = new std::string(certificates_->Make("client", "DNS:reader"));
  }
  static void TearDownTestSuite() {
    delete certificates_;
    delete server_;
    delete client_;
  }

  Context Server(const std::string &certificate, const std::string &ca = "",
                 bool requires_peer = false) {
    tls_files files = {certificate.c_str(), nullptr,
                       ca.empty() ? nullptr : ca.c_str()};
    tls_context *c = nullptr;
    EXPECT_EQ(tls_server(&files, requires_peer, &c, why_), 0) << why_;
    return Context(c);
  }

  Context Client(const std::string &host, const std::string &ca,
                 const std::string &certificate = "") {
    tls_files files = {certificate.empty() ? nullptr : certificate.c_str(),
                       nullptr, ca.empty() ? nullptr : ca.c_str()};
    tls_context *c = nullptr;
    EXPECT_EQ(tls_client(&files, host.c_str(), &c, why_), 0) << why_;
    return Context(c);
  }

  void Connect(const Context &server, const Context &client) {
    tls *s = nullptr, *c = nullptr;
    ASSERT_EQ(tls_new(server.get(), &kBelow, &at_server_, &s), 0);
    server_end_.reset(s);
    ASSERT_EQ(tls_new(client.get(), &kBelow, &at_client_, &c), 0);
    client_end_.reset(c);
  }

  // Both, until neither has anything to do.  What each came to last.
  void Shake() {
    size_t before;
    do {
      before =
          up_.bytes.size() + down_.bytes.size() + up_.n_read + down_.n_read;
      client_said_ = tls_handshake(client_end_.get());
      server_said_ = tls_handshake(server_end_.get());
    } while (before !=
             up_.bytes.size() + down_.bytes.size() + up_.n_read + down_.n_read);
  }

  void ConnectAndShake() {
    Connect(Server(*server_), Client("localhost", certificates_->ca()));
    Shake();
    ASSERT_EQ(client_said_, 0) << tls_why(client_end_.get());
    ASSERT_EQ(server_said_, 0) << tls_why(server_end_.get());
  }

  static ssize_t Send(const Tls &t, const Bytes &a, const Bytes &b = {}) {
    iovec iovs[2] = {{const_cast<uint8_t *>(a.data()), a.size()},
                     {const_cast<uint8_t *>(b.data()), b.size()}};
    return tls_io.send(t.get(), iovs, b.empty() ? 1 : 2, nullptr, 0);
  }

  static ssize_t Recv(const Tls &t, Bytes *to, size_t len = 100000) {
    stream_fds came = {};
    to->resize(len);
    ssize_t n = tls_io.recv(t.get(), to->data(), len, &came);
    to->resize(n > 0 ? size_t(n) : 0);
    return n;
  }

  // What the server knows the client by, each name marked if it is a host's.
  std::vector<std::string> NamesOfClient(const std::string &certificate,
                                         const std::string &ca) {
    Connect(Server(*server_, ca),
            Client("localhost", certificates_->ca(), certificate));
    Shake();
    EXPECT_EQ(server_said_, 0) << tls_why(server_end_.get());
    std::vector<std::string> names;
    auto take = [](void *arg, const char *name, bool is_dns) {
      static_cast<std::vector<std::string> *>(arg)->push_back(
          (is_dns ? "host " : "") + std::string(name));
      return 0;
    };
    EXPECT_EQ(tls_peer_names(server_end_.get(), take, &names), 0);
    EXPECT_EQ(ERR_peek_error(), 0u);
    return names;
  }

  // Both handshakes fail, or the client's is complete and it hears of it by
  // what it receives.
  void ExpectRefused(const char *by_client, const char *by_server) {
    Bytes bytes;
    Shake();
    client_said_ = Recv(client_end_, &bytes);
    server_said_ = Recv(server_end_, &bytes);
    EXPECT_LT(client_said_, 0);
    EXPECT_LT(server_said_, 0);
    EXPECT_NE(client_said_, -EAGAIN);
    EXPECT_NE(server_said_, -EAGAIN);
    EXPECT_NE(std::string(tls_why(client_end_.get())).find(by_client),
              std::string::npos)
        << tls_why(client_end_.get());
    EXPECT_NE(std::string(tls_why(server_end_.get())).find(by_server),
              std::string::npos)
        << tls_why(server_end_.get());
  }

  static Certificates *certificates_;
  static std::string *server_, *client_;

  Pipe up_, down_; // to the server, and from it
  End at_server_{&up_, &down_}, at_client_{&down_, &up_};
  Tls server_end_, client_end_;
  ssize_t server_said_ = 0, client_said_ = 0;
  char why_[TLS_WHY_LEN] = "";
};

Certificates *TlsTest::certificates_;
std::string *TlsTest::server_, *TlsTest::client_;

// ---- Handshakes ------------------------------------------------------------

TEST_F(TlsTest, BytesArriveInBothDirections) {
  ConnectAndShake();
  Bytes up = Counting(100), down = Counting(40000), got;
  EXPECT_EQ(Send(client_end_, up), 100);
  EXPECT_EQ(Recv(server_end_, &got), 100);
  EXPECT_EQ(got, up);
  EXPECT_EQ(Send(server_end_, down), 40000);
  EXPECT_EQ(Recv(client_end_, &got), 40000);
  EXPECT_EQ(got, down);
  EXPECT_EQ(Recv(client_end_, &got), -EAGAIN);
  EXPECT_EQ(tls_io.wants(client_end_.get()), STREAM_WANTS_NOTHING);
}

TEST_F(TlsTest, WhatIsSentCannotBeRead) {
  ConnectAndShake();
  Bytes secret(64, 's');
  EXPECT_EQ(Send(client_end_, secret), 64);
  EXPECT_EQ(std::search(up_.bytes.begin(), up_.bytes.end(), secret.begin(),
                        secret.begin() + 4),
            up_.bytes.end());
}

TEST_F(TlsTest, AByteAtATimeIsEnough) {
  at_server_.step = at_client_.step = 1;
  ConnectAndShake();
  Bytes sent = Counting(3000), all, got;
  size_t n_sent = 0;
  while (all.size() < sent.size()) {
    Bytes rest(sent.begin() + std::ptrdiff_t(n_sent), sent.end());
    ssize_t n = rest.empty() ? 0 : Send(server_end_, rest);
    n_sent += n > 0 ? size_t(n) : 0;
    if (Recv(client_end_, &got) > 0)
      all.insert(all.end(), got.begin(), got.end());
  }
  EXPECT_EQ(all, sent);
}

TEST_F(TlsTest, AHandshakeWaitsForRoomAndSaysSo) {
  Connect(Server(*server_), Client("localhost", certificates_->ca()));
  EXPECT_EQ(tls_handshake(client_end_.get()), -EAGAIN);
  EXPECT_EQ(tls_io.wants(client_end_.get()), STREAM_WANTS_NOTHING);
  down_.room = 10;
  EXPECT_EQ(tls_handshake(server_end_.get()), -EAGAIN);
  EXPECT_EQ(tls_io.wants(server_end_.get()), STREAM_WANTS_ROOM);
  down_.room = SIZE_MAX;
  Shake();
  EXPECT_EQ(server_said_, 0);
}

TEST_F(TlsTest, NothingIsSentBeforeTheHandshake) {
  Connect(Server(*server_), Client("localhost", certificates_->ca()));
  EXPECT_EQ(Send(client_end_, Counting(10)), -EAGAIN);
  EXPECT_TRUE(up_.bytes.empty());
  EXPECT_FALSE(tls_is_open(client_end_.get()));
}

TEST_F(TlsTest, AnythingThatIsNoHandshakeIsRefused) {
  using std::string_literals::operator""s;
  for (const auto &text :
       {"GET / HTTP/1.1\r\n\r\n"s, "\0\0\0\10\0\0\0\0hello"s,
        "\x16\x03\x01\0\4\1\0\0\1x"s, "\x17\x03\x03\0\1x"s}) {
    up_ = down_ = Pipe();
    Connect(Server(*server_), Client("localhost", certificates_->ca()));
    up_.bytes.assign(text.begin(), text.end());
    up_.is_ended = true;
    Bytes got;
    EXPECT_LT(Recv(server_end_, &got), 0);
    EXPECT_STRNE(tls_why(server_end_.get()), "");
    EXPECT_LT(Recv(server_end_, &got), 0) << "and stays refused";
  }
}

// A peer that speaks another version.
void MakeOther(const SSL_METHOD *method, const Bytes &in, Bytes *out) {
  SSL_CTX *ctx = SSL_CTX_new(method);
  SSL_CTX_set_max_proto_version(ctx, TLS1_2_VERSION);
  SSL *ssl = SSL_new(ctx);
  BIO *from = BIO_new_mem_buf(in.data(), int(in.size())),
      *to = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl, from, to);
  EXPECT_NE(SSL_connect(ssl), 1);
  char *bytes;
  long n = BIO_get_mem_data(to, &bytes);
  out->assign(bytes, bytes + n);
  SSL_free(ssl);
  SSL_CTX_free(ctx);
}

TEST_F(TlsTest, TLS12IsRefused) {
  Connect(Server(*server_), Client("localhost", certificates_->ca()));
  MakeOther(TLS_client_method(), {}, &up_.bytes);
  Bytes got;
  EXPECT_EQ(Recv(server_end_, &got), -EPROTO);
  EXPECT_STREQ(tls_why(server_end_.get()), "it does not speak TLS 1.3");
}

TEST_F(TlsTest, AHandshakeThatIsTooLongIsRefused) {
  Connect(Server(*server_), Client("localhost", certificates_->ca()));
  // A hello of 100000 bytes, in records of 16000.
  Bytes hello = {1, 1, 0x86, 0xa0};
  hello.resize(100004);
  for (size_t at = 0; at < hello.size(); at += 16000) {
    size_t n = std::min<size_t>(16000, hello.size() - at);
    Bytes header = {22, 3, 1, uint8_t(n >> 8), uint8_t(n)};
    up_.bytes.insert(up_.bytes.end(), header.begin(), header.end());
    up_.bytes.insert(up_.bytes.end(), hello.begin() + std::ptrdiff_t(at),
                     hello.begin() + std::ptrdiff_t(at + n));
  }
  Bytes got;
  EXPECT_EQ(Recv(server_end_, &got), -EPROTO);
  EXPECT_LE(up_.n_read, 16005u);
  EXPECT_STREQ(tls_why(server_end_.get()), "its handshake is too long");
}

// ---- Certificates ----------------------------------------------------------

struct HostCase {
  const char *host;
  bool matches;
};

TEST_F(TlsTest, TheNameOfTheHostIsChecked) {
  for (const HostCase &c : {HostCase{"localhost", true},
                            {"127.0.0.1", true},
                            {"::1", true},
                            {"example.org", false},
                            {"127.0.0.2", false},
                            {"server", false}}) {
    up_ = down_ = Pipe();
    Connect(Server(*server_), Client(c.host, certificates_->ca()));
    Shake();
    EXPECT_EQ(client_said_, c.matches ? 0 : -EPROTO) << c.host;
    EXPECT_EQ(tls_is_open(client_end_.get()), c.matches);
  }
  EXPECT_NE(std::string(tls_why(client_end_.get())).find("mismatch"),
            std::string::npos)
      << tls_why(client_end_.get());
}

TEST_F(TlsTest, AWildcardStandsForAWholeLabel) {
  std::string wild = certificates_->Make("wild", "DNS:*.example.org");
  for (const HostCase &c : {HostCase{"a.example.org", true},
                            {"example.org", false},
                            {"a.b.example.org", false}}) {
    up_ = down_ = Pipe();
    Connect(Server(wild), Client(c.host, certificates_->ca()));
    Shake();
    EXPECT_EQ(client_said_ == 0, c.matches) << c.host;
  }
}

TEST_F(TlsTest, ACertificateThatHasExpiredIsRefused) {
  std::string old =
      certificates_->Make("old", "DNS:localhost", Certificates::kExpired);
  Connect(Server(old), Client("localhost", certificates_->ca()));
  ExpectRefused("expired", "refused the certificate: certificate expired");
  EXPECT_EQ(server_said_, -EACCES);
}

TEST_F(TlsTest, ACertificateOfTheFutureIsRefused) {
  std::string early =
      certificates_->Make("early", "DNS:localhost", Certificates::kNotYet);
  Connect(Server(early), Client("localhost", certificates_->ca()));
  ExpectRefused("not yet valid", "refused the certificate");
}

TEST_F(TlsTest, ASelfSignedCertificateIsRefused) {
  std::string own =
      certificates_->Make("own", "DNS:localhost", Certificates::kSelfSigned);
  Connect(Server(own), Client("localhost", certificates_->ca()));
  ExpectRefused("self-signed", "unknown CA");
}

TEST_F(TlsTest, ACertificateOfAnotherAuthorityIsRefused) {
  Certificates other;
  Connect(Server(*server_), Client("localhost", other.ca()));
  ExpectRefused("certificate", "unknown CA");
}

TEST_F(TlsTest, TheSystemsAuthoritiesDoNotKnowIt) {
  Connect(Server(*server_), Client("localhost", ""));
  ExpectRefused("certificate", "unknown CA");
}

TEST_F(TlsTest, AClientWithACertificateIsTakenIn) {
  Connect(Server(*server_, certificates_->ca(), true),
          Client("localhost", certificates_->ca(), *client_));
  Shake();
  EXPECT_EQ(client_said_, 0) << tls_why(client_end_.get());
  EXPECT_EQ(server_said_, 0) << tls_why(server_end_.get());
}

TEST_F(TlsTest, AClientWithoutACertificateIsRefused) {
  Connect(Server(*server_, certificates_->ca(), true),
          Client("localhost", certificates_->ca()));
  ExpectRefused("wants a certificate", "shows no certificate");
  EXPECT_EQ(client_said_, -EACCES);
}

TEST_F(TlsTest, AClientWithoutACertificateIsTakenInWhereNoneIsRequired) {
  Connect(Server(*server_, certificates_->ca(), false),
          Client("localhost", certificates_->ca()));
  Shake();
  EXPECT_EQ(server_said_, 0);
}

TEST_F(TlsTest, AClientOfAnotherAuthorityIsRefusedRequiredOrNot) {
  Certificates other;
  std::string stranger = other.Make("stranger", "DNS:stranger");
  for (bool required : {true, false}) {
    up_ = down_ = Pipe();
    Connect(Server(*server_, certificates_->ca(), required),
            Client("localhost", certificates_->ca(), stranger));
    ExpectRefused("refused the certificate", "not accepted");
    EXPECT_EQ(client_said_, -EACCES);
  }
}

TEST_F(TlsTest, AClientWhoseCertificateWasRevokedIsRefusedAndNoOther) {
  std::string revoked = certificates_->Make("revoked", "DNS:revoked");
  std::string ca = certificates_->Revoke(revoked);
  Connect(Server(*server_, ca, true),
          Client("localhost", certificates_->ca(), revoked));
  ExpectRefused("refused the certificate", "revoked");
  EXPECT_EQ(client_said_, -EACCES);
  up_ = down_ = Pipe();
  Connect(Server(*server_, ca, true),
          Client("localhost", certificates_->ca(), *client_));
  Shake();
  EXPECT_EQ(server_said_, 0) << tls_why(server_end_.get());
}

TEST_F(TlsTest, AServerWhoseCertificateWasRevokedIsRefused) {
  std::string revoked = certificates_->Make("revoked-server", "DNS:localhost");
  Connect(Server(revoked),
          Client("localhost", certificates_->Revoke(revoked), *client_));
  ExpectRefused("revoked", "");
}

TEST_F(TlsTest, AClientIsKnownByAllNamesOfItsCertificate) {
  std::string path = certificates_->Make(
      "a common name",
      "DNS:Reader.Example,email:r@example,URI:spiffe://x/y,IP:192.0.2.1,"
      "IP:2001:DB8::1,RID:1.2.3,DNS:*.example");
  EXPECT_THAT(NamesOfClient(path, certificates_->ca()),
              testing::ElementsAre("host Reader.Example", "r@example",
                                   "spiffe://x/y", "192.0.2.1", "2001:db8::1",
                                   "host *.example", "a common name"));
}

TEST_F(TlsTest, AClientWithoutAlternativeNamesIsKnownByItsCommonName) {
  EXPECT_THAT(NamesOfClient(certificates_->Make("c\xc3\xb6mmon", ""),
                            certificates_->ca()),
              testing::ElementsAre("c\xc3\xb6mmon"));
}

TEST_F(TlsTest, ANameThatIsCutByANulIsNone) {
  // "reader\0x", and then "ok".
  std::string path = certificates_->Make("nul", "DER:300E"
                                                "8208726561646572"
                                                "0078"
                                                "82026F6B");
  EXPECT_THAT(NamesOfClient(path, certificates_->ca()),
              testing::ElementsAre("host ok", "nul"));
}

TEST_F(TlsTest, AnAddressOfAnotherLengthIsNoName) {
  std::string path = certificates_->Make("odd", "DER:300E"
                                                "8705C000020101"
                                                "8703C00002"
                                                "8700");
  EXPECT_THAT(NamesOfClient(path, certificates_->ca()),
              testing::ElementsAre("odd"));
}

TEST_F(TlsTest, NoCertificateThatWasAskedForIsNoName) {
  EXPECT_THAT(NamesOfClient("", certificates_->ca()), testing::IsEmpty());
  EXPECT_THAT(NamesOfClient(*client_, ""), testing::IsEmpty());
}

TEST_F(TlsTest, WhoIsGivenNamesMayEndIt) {
  Connect(Server(*server_, certificates_->ca()),
          Client("localhost", certificates_->ca(), *client_));
  Shake();
  int n = 0;
  auto refuse = [](void *arg, const char *, bool) {
    ++*static_cast<int *>(arg);
    return -ENOMEM;
  };
  EXPECT_EQ(tls_peer_names(server_end_.get(), refuse, &n), -ENOMEM);
  EXPECT_EQ(n, 1);
}

TEST_F(TlsTest, AClientsCertificateThatHasExpiredIsRefused) {
  std::string old =
      certificates_->Make("old-client", "", Certificates::kExpired);
  Connect(Server(*server_, certificates_->ca(), true),
          Client("localhost", certificates_->ca(), old));
  ExpectRefused("certificate expired", "expired");
}

// ---- Files -----------------------------------------------------------------

TEST_F(TlsTest, FilesThatAreNoGoodAreNamed) {
  std::string key = certificates_->SplitKey(*server_);
  std::string other_key = certificates_->SplitKey(*client_);
  std::string locked_from = certificates_->Make("locked", "");
  std::string locked = certificates_->SplitKey(locked_from, "word");
  std::string empty = certificates_->Write("empty", "");
  std::string text = certificates_->Write("text", "no certificate\n");
  struct {
    std::string certificate, key, ca;
    const char *why;
  } cases[] = {
      {"/nowhere/c.pem", "", "", "c.pem: No such file or directory"},
      {empty, "", "", "certificate"},
      {text, "", "", "certificate"},
      {*server_, "/nowhere/k.pem", "", "k.pem: No such file or directory"},
      {*server_, text, "", "key"},
      {*server_, other_key, "", "it is not the key of certificate"},
      {locked_from, locked, "", "encrypted"},
      {*server_, key, "/nowhere/ca.pem", "ca.pem"},
      {*server_, key, text, "CA certificates"},
      {*server_, key, empty, "CA certificates"},
  };
  for (const auto &c : cases) {
    tls_files files = {c.certificate.c_str(),
                       c.key.empty() ? nullptr : c.key.c_str(),
                       c.ca.empty() ? nullptr : c.ca.c_str()};
    tls_context *context = nullptr;
    EXPECT_EQ(tls_server(&files, false, &context, why_), -EINVAL);
    EXPECT_EQ(context, nullptr);
    EXPECT_NE(std::string(why_).find(c.why), std::string::npos) << why_;
    EXPECT_EQ(ERR_peek_error(), 0u);
  }
  tls_files files = {server_->c_str(), key.c_str(), nullptr};
  tls_context *context = nullptr;
  EXPECT_EQ(tls_server(&files, false, &context, why_), 0) << why_;
  tls_context_unref(context);
}

// ---- Streams ---------------------------------------------------------------

TEST_F(TlsTest, AStreamThatIsCutIsAnErrorAndOneThatIsEndedIsNot) {
  ConnectAndShake();
  Bytes got;
  Send(server_end_, Counting(10));
  tls_io.end(server_end_.get());
  EXPECT_EQ(Recv(client_end_, &got), 10);
  EXPECT_EQ(tls_io.wants(client_end_.get()), STREAM_WANTS_TURN);
  EXPECT_EQ(Recv(client_end_, &got), 0);
  up_.is_ended = true;
  EXPECT_EQ(Recv(server_end_, &got), -ECONNABORTED);
  EXPECT_EQ(Recv(server_end_, &got), -ECONNABORTED);
  EXPECT_STREQ(tls_why(server_end_.get()), "the connection was cut");
}

TEST_F(TlsTest, BytesBeforeACutAreHandedOutAndThenTheError) {
  ConnectAndShake();
  Bytes got;
  Send(server_end_, Counting(10));
  down_.is_ended = true;
  EXPECT_EQ(Recv(client_end_, &got), 10);
  EXPECT_EQ(tls_io.wants(client_end_.get()), STREAM_WANTS_TURN);
  EXPECT_EQ(Recv(client_end_, &got), -ECONNABORTED);
}

TEST_F(TlsTest, ABitThatIsChangedOnTheWayIsAnError) {
  ConnectAndShake();
  Bytes got;
  size_t at = down_.bytes.size() + 20;
  Send(server_end_, Counting(100));
  down_.bytes[at] ^= 1;
  EXPECT_EQ(Recv(client_end_, &got), -EPROTO);
  EXPECT_EQ(got.size(), 0u);
}

TEST_F(TlsTest, WhatTheCallerHadNoRoomForIsHandedOutNext) {
  ConnectAndShake();
  Bytes sent = Counting(10000), all, got;
  Send(server_end_, sent);
  do {
    EXPECT_GT(Recv(client_end_, &got, 999), 0);
    all.insert(all.end(), got.begin(), got.end());
  } while (tls_io.wants(client_end_.get()) == STREAM_WANTS_TURN);
  EXPECT_EQ(all, sent);
}

TEST_F(TlsTest, WhatWasReadAheadIsHandedOutThoughNothingMoreComes) {
  ConnectAndShake();
  Bytes sent = Counting(50000), all, got;
  Send(server_end_, sent);
  do { // each a record, so that none is handed out in part
    EXPECT_GT(Recv(client_end_, &got, SSL3_RT_MAX_PLAIN_LENGTH), 0);
    all.insert(all.end(), got.begin(), got.end());
  } while (tls_io.wants(client_end_.get()) == STREAM_WANTS_TURN);
  EXPECT_EQ(all, sent);
}

TEST_F(TlsTest, RecordsGoOutTogether) {
  ConnectAndShake();
  int before = at_server_.n_sends;
  EXPECT_EQ(Send(server_end_, Counting(100000)), 100000);
  EXPECT_LE(at_server_.n_sends - before, 3);
}

TEST_F(TlsTest, AnErrorBehindAPartOfABatchIsPassedOn) {
  ConnectAndShake();
  down_.room = 7000;
  EXPECT_EQ(Send(server_end_, Counting(40000)), 2 * SSL3_RT_MAX_PLAIN_LENGTH);
  at_server_.error = EPIPE;
  EXPECT_EQ(Send(server_end_, Counting(40000)), -EPIPE);
}

TEST_F(TlsTest, AnEndGoesBehindWhatIsLeftOfABatch) {
  ConnectAndShake();
  Bytes sent = Counting(40000), got;
  down_.room = 7000;
  ssize_t n = Send(server_end_, sent);
  ASSERT_GT(n, 0);
  down_.room = SIZE_MAX;
  tls_io.end(server_end_.get());
  down_.is_ended = true;
  EXPECT_EQ(Recv(client_end_, &got), 40000);
  EXPECT_EQ(got, sent);
  EXPECT_EQ(Recv(client_end_, &got), 0);
}

TEST_F(TlsTest, TheFastestCipherIsTaken) {
  if (!__builtin_cpu_supports("aes"))
    GTEST_SKIP() << "the processor has no AES";
  ConnectAndShake();
  EXPECT_STREQ(tls_cipher(client_end_.get()), "TLS_AES_128_GCM_SHA256");
  EXPECT_STREQ(tls_cipher(server_end_.get()), "TLS_AES_128_GCM_SHA256");
}

TEST_F(TlsTest, WhatTheTransportDoesNotTakeIsOfferedAgain) {
  ConnectAndShake();
  Bytes sent = Counting(100000), all, got;
  down_.room = 7000;
  size_t done = 0;
  while (all.size() < sent.size()) {
    // In two parts, and never fewer bytes than before: as a stream does.
    Bytes a(sent.begin() + std::ptrdiff_t(done),
            sent.begin() + std::ptrdiff_t(std::min(done + 5, sent.size())));
    Bytes b(sent.begin() + std::ptrdiff_t(done + a.size()), sent.end());
    if (done < sent.size()) {
      ssize_t n = Send(server_end_, a, b);
      ASSERT_TRUE(n > 0 || n == -EAGAIN) << tls_why(server_end_.get());
      done += n > 0 ? size_t(n) : 0;
    }
    ASSERT_NE(Recv(client_end_, &got), 0);
    all.insert(all.end(), got.begin(), got.end());
  }
  EXPECT_EQ(all, sent);
  EXPECT_EQ(tls_io.wants(server_end_.get()), STREAM_WANTS_NOTHING);
}

TEST_F(TlsTest, AnErrorOfTheTransportIsPassedOn) {
  ConnectAndShake();
  Bytes got;
  at_client_.error = EPIPE;
  EXPECT_EQ(Send(client_end_, Counting(10)), -EPIPE);
  at_server_.error = ECONNRESET;
  EXPECT_EQ(Recv(server_end_, &got), -ECONNRESET);
  EXPECT_STREQ(tls_why(server_end_.get()), "Connection reset by peer");
}

// A client of our own making, for what ours does not do.
class Peer {
public:
  Peer(Pipe *in, Pipe *out) : in_(in), out_(out) {
    ctx_ = SSL_CTX_new(TLS_client_method());
    ssl_ = SSL_new(ctx_);
    SSL_set_bio(ssl_, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(ssl_);
  }
  ~Peer() {
    SSL_free(ssl_);
    SSL_CTX_free(ctx_);
  }
  // Moves what came and what goes, and does the handshake.
  void Turn() {
    if (size_t n = in_->n_there())
      BIO_write(SSL_get_rbio(ssl_), &in_->bytes[in_->n_read], int(n));
    in_->n_read = in_->bytes.size();
    SSL_do_handshake(ssl_);
    char *bytes;
    long n = BIO_get_mem_data(SSL_get_wbio(ssl_), &bytes);
    out_->bytes.insert(out_->bytes.end(), bytes, bytes + n);
    EXPECT_EQ(BIO_reset(SSL_get_wbio(ssl_)), 1);
  }
  SSL *ssl() { return ssl_; }

private:
  Pipe *in_, *out_;
  SSL_CTX *ctx_;
  SSL *ssl_;
};

TEST_F(TlsTest, RecordsWithoutDataTakeTurns) {
  Connect(Server(*server_), Client("localhost", certificates_->ca()));
  Peer peer(&down_, &up_);
  Bytes got;
  for (int i = 0; i < 4; i++) {
    peer.Turn();
    Recv(server_end_, &got);
  }
  ASSERT_TRUE(tls_is_open(server_end_.get()));
  for (int i = 0; i < 100; i++) {
    SSL_key_update(peer.ssl(), SSL_KEY_UPDATE_NOT_REQUESTED);
    peer.Turn();
  }
  SSL_write(peer.ssl(), "x", 1);
  peer.Turn();
  int n_turns = 0;
  ssize_t n;
  while ((n = Recv(server_end_, &got)) == -EAGAIN &&
         tls_io.wants(server_end_.get()) == STREAM_WANTS_TURN)
    n_turns++;
  EXPECT_EQ(n, 1) << "after all of them";
  EXPECT_GE(n_turns, 5);
}

TEST_F(TlsTest, AnAnswerToAKeyUpdateGoesBeforeWhatIsSentNext) {
  Connect(Server(*server_), Client("localhost", certificates_->ca()));
  Peer peer(&down_, &up_);
  Bytes got;
  for (int i = 0; i < 4; i++) {
    peer.Turn();
    Recv(server_end_, &got);
  }
  SSL_key_update(peer.ssl(), SSL_KEY_UPDATE_REQUESTED);
  peer.Turn();
  SSL_write(peer.ssl(), "x", 1);
  peer.Turn();
  down_.room = 0;
  EXPECT_EQ(Recv(server_end_, &got), 1) << "it holds nothing up";
  EXPECT_EQ(tls_io.wants(server_end_.get()), STREAM_WANTS_NOTHING);
  EXPECT_EQ(Send(server_end_, Counting(7)), -EAGAIN);
  EXPECT_EQ(tls_io.wants(server_end_.get()), STREAM_WANTS_NOTHING);
  down_.room = SIZE_MAX;
  EXPECT_EQ(Send(server_end_, Counting(7)), 7);
  peer.Turn();
  char bytes[20];
  EXPECT_EQ(SSL_read(peer.ssl(), bytes, sizeof bytes), 7);
}

TEST_F(TlsTest, NoSessionIsOfferedForResumption) {
  ConnectAndShake();
  size_t n = down_.bytes.size();
  Send(server_end_, Counting(1));
  EXPECT_EQ(down_.bytes.size() - n, 1u + 22u) << "one record, and no ticket";
}

// ---- The kernel's TLS ------------------------------------------------------

// Both ends over TCP, with the server's sending left to the kernel.
class TlsKernelTest : public TlsTest {
protected:
  TlsKernelTest() {
    signal(SIGPIPE, SIG_IGN);
    sockaddr_in at = {};
    socklen_t len = sizeof at;
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    auto *name = reinterpret_cast<sockaddr *>(&at);
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(bind(listening, name, len), 0);
    EXPECT_EQ(listen(listening, 1), 0);
    EXPECT_EQ(getsockname(listening, name, &len), 0);
    client_fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(connect(client_fd_, name, len), 0);
    server_fd_ =
        accept4(listening, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    close(listening);
    context_ = Server(*server_);
    client_context_ = Client("localhost", certificates_->ca());
    tls *s = nullptr, *c = nullptr;
    tls_new(context_.get(), &socket_plain_io, &server_fd_, &s);
    tls_new(client_context_.get(), &socket_plain_io, &client_fd_, &c);
    server_end_.reset(s);
    client_end_.reset(c);
    tls_use_kernel(s, server_fd_);
  }
  ~TlsKernelTest() override {
    close(server_fd_);
    close(client_fd_);
  }

  void ShakeOverTcp() {
    int s = -EAGAIN, c = -EAGAIN;
    while (s == -EAGAIN || c == -EAGAIN) {
      c = tls_handshake(client_end_.get());
      s = tls_handshake(server_end_.get());
    }
    ASSERT_EQ(s, 0) << tls_why(server_end_.get());
    ASSERT_EQ(c, 0) << tls_why(client_end_.get());
  }

  // All that comes before the end, or an error.
  Bytes RecvAll(const Tls &t, size_t len) {
    Bytes all, got;
    while (all.size() < len) {
      ssize_t n = Recv(t, &got);
      if (n != -EAGAIN && n <= 0)
        break;
      all.insert(all.end(), got.begin(), got.end());
    }
    return all;
  }

  int server_fd_ = -1, client_fd_ = -1;
  Context context_, client_context_;
};

TEST_F(TlsKernelTest, BytesArriveInBothDirectionsWhoeverEncryptsThem) {
  ShakeOverTcp();
  Bytes up = Counting(3000), down = Counting(60000);
  EXPECT_EQ(Send(client_end_, up), 3000);
  EXPECT_EQ(RecvAll(server_end_, up.size()), up);
  EXPECT_EQ(Send(server_end_, down), 60000);
  EXPECT_EQ(RecvAll(client_end_, down.size()), down);
}

TEST_F(TlsKernelTest, AnEndIsToldByTheKernel) {
  ShakeOverTcp();
  if (!tls_kernel_sends(server_end_.get()))
    GTEST_SKIP() << "the kernel has no TLS, or its module is not loaded";
  Bytes down = Counting(100), got;
  EXPECT_EQ(Send(server_end_, down), 100);
  tls_io.end(server_end_.get());
  EXPECT_EQ(RecvAll(client_end_, 100), down);
  ssize_t n;
  while ((n = Recv(client_end_, &got)) == -EAGAIN)
    ;
  EXPECT_EQ(n, 0) << tls_why(client_end_.get());
}

TEST_F(TlsKernelTest, AWrongRecordIsAnErrorAndItsAlertArrives) {
  ShakeOverTcp();
  Bytes got;
  ASSERT_EQ(send(client_fd_,
                 "\x17\3\3\0\x20"
                 "01234567890123456789012345678901",
                 37, 0),
            37);
  ssize_t n;
  while ((n = Recv(server_end_, &got)) == -EAGAIN)
    ;
  EXPECT_EQ(n, -EPROTO);
  while ((n = Recv(client_end_, &got)) == -EAGAIN)
    ;
  EXPECT_EQ(n, -EPROTO);
  EXPECT_THAT(tls_why(client_end_.get()), testing::HasSubstr("bad record mac"));
}

// ---- Memory ----------------------------------------------------------------

// What is allocated in some of the calls.
struct Meter {
  size_t used = 0, most = 0;

  template <typename Call> void Run(Call call) {
    size_t before = g_used;
    g_most = before;
    call();
    most = std::max(most, used + (g_most - before));
    used += g_used - before;
  }
};

class TlsMemoryTest : public TlsTest {
protected:
  TlsMemoryTest()
      : context_(Server(*server_, certificates_->ca(), true)),
        warm_up_(Client("localhost", certificates_->ca(), *client_)) {
    Connect(context_, warm_up_);
    Shake(); // makes what OpenSSL makes once
    EXPECT_EQ(server_said_, 0);
    up_ = down_ = Pipe();
    server_end_.reset();
    tls *t = nullptr;
    meter_.Run([&] { tls_new(context_.get(), &kBelow, &at_server_, &t); });
    server_end_.reset(t);
    held_ = tls_held(t);
  }

  // A handshake of which the server's part is measured.
  void ShakeWith(const std::string &certificate) {
    Context client = Client("localhost", certificates_->ca(), certificate);
    tls *t = nullptr;
    tls_new(client.get(), &kBelow, &at_client_, &t);
    client_end_.reset(t);
    for (int i = 0; i < 3; i++) {
      tls_handshake(client_end_.get());
      meter_.Run([&] { server_said_ = tls_handshake(server_end_.get()); });
    }
  }

  void ExpectCounted() { EXPECT_LE(meter_.used, tls_held(server_end_.get())); }

  Context context_, warm_up_;
  Meter meter_;
  size_t held_; // before its handshake, by its own account
  Bytes got_;
};

TEST_F(TlsMemoryTest, AHandshakeTakesNoMoreThanIsCounted) {
  ASSERT_EQ(g_counts, 1);
  ExpectCounted();
  ShakeWith(*client_);
  ASSERT_EQ(server_said_, 0) << tls_why(server_end_.get());
  EXPECT_LE(meter_.most, held_);
}

TEST_F(TlsMemoryTest, TheLargestCertificateTakesNoMoreThanIsCounted) {
  std::string names = "DNS:r";
  for (int i = 0; i < 1800; i++)
    names += ",DNS:a";
  ShakeWith(certificates_->Make("large", names));
  ASSERT_EQ(server_said_, 0) << tls_why(server_end_.get());
  EXPECT_LE(meter_.most, held_ + tls_held(server_end_.get()));
  ExpectCounted();
}

TEST_F(TlsMemoryTest, TheLargestHelloTakesNoMoreThanIsCounted) {
  up_.bytes = {22, 3, 1, 64, 0, 1, 0, 63, 252, 3, 3};
  up_.bytes.resize(5 + 16384 - 1);
  meter_.Run([&] { Recv(server_end_, &got_); });
  EXPECT_LE(meter_.most, held_);
}

TEST_F(TlsMemoryTest, AnOpenConnectionTakesNoMoreThanIsCounted) {
  ShakeWith(*client_);
  ASSERT_EQ(server_said_, 0) << tls_why(server_end_.get());
  size_t idle = tls_held(server_end_.get());
  ExpectCounted();
  Bytes up = Counting(16384);
  // Each prefix of a record that buffers differ by.
  Send(client_end_, up);
  Bytes record(up_.bytes.begin() + std::ptrdiff_t(up_.n_read), up_.bytes.end());
  up_.bytes.resize(up_.n_read);
  size_t done = 0;
  for (size_t n : {size_t(1), size_t(5), size_t(6), record.size() - 1}) {
    up_.bytes.insert(up_.bytes.end(), record.begin() + std::ptrdiff_t(done),
                     record.begin() + std::ptrdiff_t(n));
    done = n;
    meter_.Run([&] { EXPECT_EQ(Recv(server_end_, &got_), -EAGAIN); });
    ExpectCounted();
    EXPECT_GT(tls_held(server_end_.get()), idle);
  }
  up_.bytes.push_back(record.back());
  meter_.Run([&] { EXPECT_EQ(Recv(server_end_, &got_, 1000), 1000); });
  ExpectCounted();
  meter_.Run([&] { EXPECT_EQ(Recv(server_end_, &got_), 15384); });
  ExpectCounted();
  EXPECT_EQ(tls_held(server_end_.get()), idle);
  down_.room = 100;
  Bytes down = Counting(30000);
  meter_.Run([&] { EXPECT_EQ(Send(server_end_, down), 16384); });
  ExpectCounted();
  EXPECT_GT(tls_held(server_end_.get()), idle);
  down_.room = SIZE_MAX;
  down.erase(down.begin(), down.begin() + 16384);
  meter_.Run([&] { EXPECT_EQ(Send(server_end_, down), 13616); });
  ExpectCounted();
  EXPECT_EQ(tls_held(server_end_.get()), idle);
}

} // namespace

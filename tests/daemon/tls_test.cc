// The server over TLS, for peers that keep to it and peers that do not.
#include <gtest/gtest.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>

#include "proto/socket.h"
#include "proto/status.h"
#include "proto/tls.h"
#include "tests/support/certificates.h"
#include "tests/support/test_rule.h"
#include "tests/support/test_server.h"

namespace {

constexpr uint64_t kSize = 4 << 20;
constexpr int kOpened = CACHET__WIRE__MESSAGE__BODY_OPENED;

struct ContextFree {
  void operator()(tls_context *c) const { tls_context_unref(c); }
};
using Context = std::unique_ptr<tls_context, ContextFree>;

class TlsTest : public testing::Test {
protected:
  TlsTest()
      : server_files_(certificates_.Make("server", "IP:127.0.0.1")),
        client_files_(certificates_.Make("client", "DNS:reader")) {}

  void Serve(bool requires_client = true) {
    std::string ca = certificates_.ca();
    tls_files files = {server_files_.c_str(), nullptr, ca.c_str()};
    tls_context *context = nullptr;
    char why[TLS_WHY_LEN];
    ASSERT_EQ(tls_server(&files, requires_client, &context, why), 0) << why;
    context_.reset(context);
    options_.tls = context;
    options_.allow = any_.get();
    server_ = std::make_unique<TestServer>(
        std::vector<std::pair<std::string, FakeSource *>>{{"disk", &disk_}},
        options_);
    good_ = std::make_unique<WireClient>(server_->Unix());
    ASSERT_EQ(good_->Start().kind, kOpened);
    client_ = Client(client_files_);
  }

  Context Client(const std::string &certificate) {
    std::string ca = certificates_.ca();
    tls_files files = {certificate.empty() ? nullptr : certificate.c_str(),
                       nullptr, ca.c_str()};
    tls_context *context = nullptr;
    char why[TLS_WHY_LEN];
    EXPECT_EQ(tls_client(&files, "127.0.0.1", &context, why), 0) << why;
    return Context(context);
  }

  WireClient Connect() {
    return WireClient::Tls(server_->tls_port(), client_.get());
  }
  WireClient ConnectPlain() { return WireClient::Tcp(server_->tls_port()); }

  void ExpectOthersAreServed() {
    EXPECT_EQ(good_->Read(1, 12345, 100).bytes, FakeSource::Bytes(12345, 100));
    WireClient client = Connect();
    Frame opened = client.Start();
    ASSERT_EQ(opened.kind, kOpened);
    EXPECT_EQ(client.Read(opened.image, 0, 100).bytes,
              FakeSource::Bytes(0, 100));
  }

  uint64_t Held() { return good_->Stats()["connections_held"]; }

  // Waits until as much is held as before, as connections have ended.
  void ExpectHeldAgain(uint64_t held) {
    while (Held() != held)
      usleep(1000);
  }

  Certificates certificates_;
  std::string server_files_, client_files_;
  FakeSource disk_{kSize};
  Rule any_{"any"};
  TestServer::Options options_;
  Context context_, client_;
  std::unique_ptr<TestServer> server_;
  std::unique_ptr<WireClient> good_;
};

TEST_F(TlsTest, AnImageIsReadThroughIt) {
  Serve();
  WireClient client = Connect();
  Frame opened = client.Start("disk");
  ASSERT_EQ(opened.kind, kOpened);
  EXPECT_EQ(opened.size, kSize);
  EXPECT_EQ(client.Read(opened.image, 0, kSize).bytes,
            FakeSource::Bytes(0, kSize));
  EXPECT_EQ(client.Read(opened.image, 4097, 3).bytes,
            FakeSource::Bytes(4097, 3));
}

TEST_F(TlsTest, MessagesThatComeAByteInARecordAreTaken) {
  Serve();
  WireClient client = Connect();
  Frame opened = client.Start();
  Cachet__Wire__List list = CACHET__WIRE__LIST__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  msg.id = 7;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_LIST;
  msg.list = &list;
  for (uint8_t byte : WireClient::Pack(msg))
    ASSERT_TRUE(client.SendRaw({byte}));
  EXPECT_EQ(client.Receive().kind, CACHET__WIRE__MESSAGE__BODY_IMAGES);
}

TEST_F(TlsTest, AnOrderlyEndIsAnsweredWhatWasAskedFor) {
  Serve();
  WireClient client = Connect();
  Frame opened = client.Start();
  disk_.ShutGate();
  client.SendRead(9, opened.image, {{0, 5000}});
  client.ShutdownWrites();
  disk_.OpenGate();
  EXPECT_EQ(client.ReceiveRead(9).bytes, FakeSource::Bytes(0, 5000));
  EXPECT_TRUE(client.Receive().is_end());
}

TEST_F(TlsTest, WhoShowsNoCertificateIsRefusedAndToldWhy) {
  Serve();
  Context nobody = Client("");
  WireClient client = WireClient::Tls(server_->tls_port(), nobody.get());
  EXPECT_TRUE(client.Start().is_end());
  EXPECT_EQ(client.tls_why(), "it wants a certificate, and none was given");
  ExpectOthersAreServed();
}

TEST_F(TlsTest, WhoseCertificateIsOfAnotherAuthorityIsRefusedAndToldWhy) {
  Serve();
  Certificates other;
  Context stranger = Client(other.Make("stranger", ""));
  WireClient client = WireClient::Tls(server_->tls_port(), stranger.get());
  EXPECT_TRUE(client.Start().is_end());
  EXPECT_EQ(client.tls_why(), "it refused the certificate: unknown CA");
  ExpectOthersAreServed();
}

TEST_F(TlsTest, WhereNoneIsRequiredNobodyNeedsOne) {
  Serve(false);
  Context nobody = Client("");
  WireClient client = WireClient::Tls(server_->tls_port(), nobody.get());
  EXPECT_EQ(client.Start().kind, kOpened);
}

TEST_F(TlsTest, WhoSpeaksPlainlyIsRefusedAndToldWhy) {
  Serve();
  WireClient client = ConnectPlain();
  client.SendHello();
  Frame error = client.Receive();
  EXPECT_EQ(error.status, WIRE_E_PROTO);
  EXPECT_EQ(error.id, 0u);
  EXPECT_EQ(error.message,
            "this address is for TLS; write cachets:// for cachet://");
  EXPECT_TRUE(client.AwaitClose());
  ExpectOthersAreServed();
}

TEST_F(TlsTest, ATLSClientAtAPlainPortIsToldSo) {
  Serve();
  WireClient client = WireClient::Tls(server_->plain_port(), client_.get());
  EXPECT_FALSE(client.SendHello());
  EXPECT_EQ(client.tls_why(), "it does not speak TLS");
  ExpectOthersAreServed();
}

TEST_F(TlsTest, AnInvalidationIsNotForPeersOnTheNetwork) {
  Serve();
  WireClient client = Connect();
  Frame opened = client.Start();
  client.SendInvalidate(5, opened.image, 0, 4096);
  EXPECT_EQ(client.Receive().status, WIRE_E_ACCESS);
}

TEST_F(TlsTest, HalfAHandshakeIsClosedAfterAWhile) {
  options_.limit.handshake_timeout_ms = 300;
  Serve();
  WireClient silent = ConnectPlain(), half = ConnectPlain();
  half.SendRaw({22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3});
  EXPECT_TRUE(silent.AwaitClose());
  EXPECT_TRUE(half.AwaitClose());
}

TEST_F(TlsTest, WhoStopsAfterTheHandshakeIsClosedAsWell) {
  options_.limit.handshake_timeout_ms = 3000; // TLS has time enough
  Serve();
  WireClient client = Connect();
  ASSERT_TRUE(client.SendRaw({1}));
  Frame frame = client.Receive();
  EXPECT_EQ(frame.status, WIRE_E_TIMEOUT) << frame.message;
}

TEST_F(TlsTest, HalfHandshakesAreCountedAndDoNotCrowdTheOthers) {
  Serve();
  uint64_t before = Held();
  std::vector<WireClient> half;
  for (int i = 0; i < 200; i++) {
    half.push_back(ConnectPlain());
    half.back().SendRaw({22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3});
  }
  // Each worker ends those that there is no room for: half of what may be held
  // is left to the others.
  WireClient last = ConnectPlain(), but_one = ConnectPlain();
  EXPECT_TRUE(last.AwaitClose());
  EXPECT_TRUE(but_one.AwaitClose());
  EXPECT_GT(Held(), before);
  EXPECT_LE(Held(), options_.cache_size / 4 / 2);
  EXPECT_EQ(good_->Read(1, 777, 100).bytes, FakeSource::Bytes(777, 100));
  half.clear();
  ExpectHeldAgain(before);
  ExpectOthersAreServed();
}

TEST_F(TlsTest, AllThatItHeldIsGivenBack) {
  Serve();
  uint64_t before = Held();
  {
    WireClient client = Connect();
    ASSERT_EQ(client.Start().kind, kOpened);
    EXPECT_GT(Held(), before);
  }
  ExpectHeldAgain(before);
}

TEST_F(TlsTest, WhoDoesNotReadHoldsNoMoreThanOthersAndGetsAllInTheEnd) {
  Serve();
  WireClient client = Connect();
  Frame opened = client.Start();
  for (uint64_t id = 10; id < 14; id++)
    client.SendRead(id, opened.image, {{0, kSize}});
  ExpectOthersAreServed();
  EXPECT_LE(Held(), options_.cache_size / 4);
  size_t n_bytes = 0;
  for (int n_done = 0; n_done < 4;) {
    Frame frame = client.Receive();
    ASSERT_TRUE(frame.is_data()) << client.tls_why();
    n_bytes += frame.payload.size();
    n_done += frame.last;
  }
  EXPECT_EQ(n_bytes, 4 * kSize);
}

// A peer that has OpenSSL to itself, for what ours does not do.
class Peer {
public:
  Peer(const WireClient &over, const std::string &certificate) {
    ctx_ = SSL_CTX_new(TLS_client_method());
    EXPECT_EQ(SSL_CTX_use_certificate_file(ctx_, certificate.c_str(),
                                           SSL_FILETYPE_PEM),
              1);
    EXPECT_EQ(SSL_CTX_use_PrivateKey_file(ctx_, certificate.c_str(),
                                          SSL_FILETYPE_PEM),
              1);
    ssl_ = SSL_new(ctx_);
    SSL_set_fd(ssl_, over.fd());
  }
  ~Peer() {
    SSL_free(ssl_);
    SSL_CTX_free(ctx_);
  }
  SSL *ssl() { return ssl_; }

private:
  SSL_CTX *ctx_;
  SSL *ssl_;
};

TEST_F(TlsTest, AFloodOfRecordsWithoutDataSlowsNobody) {
  Serve();
  WireClient socket = ConnectPlain();
  Peer peer(socket, client_files_);
  ASSERT_EQ(SSL_connect(peer.ssl()), 1);
  for (int i = 0; i < 5000; i++) {
    ASSERT_EQ(SSL_key_update(peer.ssl(), SSL_KEY_UPDATE_NOT_REQUESTED), 1);
    ASSERT_EQ(SSL_do_handshake(peer.ssl()), 1);
    if (i % 1000 == 0)
      ExpectOthersAreServed();
  }
  // And it is served itself.
  WireClient pack;
  Cachet__Wire__Hello hello = CACHET__WIRE__HELLO__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  hello.version_min = hello.version_max = 1;
  msg.id = 1;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_HELLO;
  msg.hello = &hello;
  std::vector<uint8_t> frame = WireClient::Pack(msg);
  EXPECT_EQ(SSL_write(peer.ssl(), frame.data(), int(frame.size())),
            int(frame.size()));
  uint8_t answer[FRAME_HEADER_LEN];
  EXPECT_GT(SSL_read(peer.ssl(), answer, sizeof answer), 0);
}

// What a client says first.
std::vector<uint8_t> ClientHello() {
  SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
  SSL *ssl = SSL_new(ctx);
  BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl, in, out);
  EXPECT_LT(SSL_connect(ssl), 0);
  char *bytes;
  long len = BIO_get_mem_data(out, &bytes);
  std::vector<uint8_t> hello(bytes, bytes + len);
  SSL_free(ssl);
  SSL_CTX_free(ctx);
  return hello;
}

// The record counts as certificates, for which the worker has no room: so the
// account ends the connection just before TLS would.
TEST_F(TlsTest, AHandshakeThatFailsWhereThereIsNoRoomEndsOnce) {
  options_.cache_size = 2 << 20;
  options_.n_workers = 1;
  Serve();
  uint64_t before = Held();
  std::vector<uint8_t> flight = ClientHello();
  const std::vector<uint8_t> start = {23, 3, 3, 0x40, 0};
  flight.insert(flight.end(), start.begin(), start.end());
  flight.insert(flight.end(), 0x4000, 0x5a);
  for (int i = 0; i < 10; i++) {
    WireClient client = ConnectPlain();
    ASSERT_TRUE(client.SendRaw(flight));
    EXPECT_TRUE(client.AwaitClose());
  }
  ExpectHeldAgain(before);
  ExpectOthersAreServed();
}

TEST_F(TlsTest, AConnectionThatIsCutIsNoOrderlyEnd) {
  Serve();
  uint64_t before = Held();
  WireClient client = Connect();
  Frame opened = client.Start();
  disk_.ShutGate();
  client.SendRead(9, opened.image, {{0, 5000}});
  shutdown(client.fd(), SHUT_WR); // and not a word
  EXPECT_TRUE(client.AwaitClose()) << "it does not wait for the answer";
  disk_.OpenGate();
  ExpectHeldAgain(before);
}

TEST_F(TlsTest, AStopEndsHandshakesThatAreUnderWay) {
  Serve();
  WireClient half = ConnectPlain();
  half.SendRaw({22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3});
  server_->BeginStop();
  EXPECT_TRUE(half.AwaitClose());
  server_->AwaitStop();
}

} // namespace

// Handles on a daemon through TLS.
#include <cachet/libevent.h>
#include <event2/event.h>
#include <sys/wait.h>

#include "client/uri.h"
#include "proto/tls.h"
#include "tests/client/handle.h"
#include "tests/support/certificates.h"
#include "tests/support/fake_source.h"
#include "tests/support/quiet_fork.h"
#include "tests/support/test_rule.h"
#include "tests/support/test_server.h"

namespace {

constexpr uint64_t kSize = 1 << 20;

struct ContextFree {
  void operator()(tls_context *c) const { tls_context_unref(c); }
};

class TlsClientTest : public testing::Test {
protected:
  TlsClientTest()
      : server_cert_(
            certificates_.Make("server", "IP:127.0.0.1,DNS:localhost")),
        client_cert_(certificates_.Make("client", "DNS:reader")) {}

  // What the server shows, and which CA it believes.
  void MakeContext(const std::string &certificate, bool requires_client,
                   const std::string &ca) {
    tls_files files = {certificate.c_str(), nullptr, ca.c_str()};
    tls_context *context = nullptr;
    char why[TLS_WHY_LEN];
    ASSERT_EQ(tls_server(&files, requires_client, &context, why), 0) << why;
    context_.reset(context);
  }

  // With a certificate of the server's other than the usual one.
  void Serve(const std::string &certificate, bool requires_client = true) {
    MakeContext(certificate, requires_client, certificates_.ca());
    TestServer::Options options;
    options.tls = context_.get();
    options.allow = any_.get();
    server_ = std::make_unique<TestServer>(
        std::vector<std::pair<std::string, FakeSource *>>{{"i", &source_}},
        options);
  }
  void Serve() { Serve(server_cert_); }

  std::string Uri(const std::string &query, const std::string &image = "i",
                  const std::string &host = "127.0.0.1") {
    return "cachets://" + host + ":" + std::to_string(server_->tls_port()) +
           "/" + image + query;
  }
  std::string Query(const std::string &certificate) {
    return "?ca=" + certificates_.ca() + "&cert=" + certificate;
  }
  std::string Uri() { return Uri(Query(client_cert_)); }

  void ExpectRefused(const std::string &uri, cachet_status status,
                     const std::string &why) {
    cachet *c = nullptr;
    cachet_error err = {};
    EXPECT_EQ(cachet_open(uri.c_str(), nullptr, &c, &err), status)
        << err.message;
    EXPECT_EQ(c, nullptr);
    EXPECT_NE(std::string(err.message).find(why), std::string::npos)
        << err.message;
    if (c)
      cachet_close(c);
  }

  // How many connections have come, with that which asks: behind all those that
  // came to the same port before.
  uint64_t Accepted() {
    cachet_admin *a = nullptr;
    cachet_error err = {};
    EXPECT_EQ(cachet_admin_open(Uri(Query(client_cert_), "").c_str(), nullptr,
                                &a, &err),
              CACHET_OK)
        << err.message;
    if (!a)
      return 0;
    uint64_t n = 0;
    auto take = [](void *arg, const char *, const char *name, uint64_t value) {
      if (strcmp(name, "connections_accepted") == 0)
        *static_cast<uint64_t *>(arg) = value;
      return 0;
    };
    EXPECT_EQ(cachet_admin_stats(a, take, &n), CACHET_OK);
    cachet_admin_close(a);
    return n;
  }

  static void ExpectRead(cachet *c, uint64_t addr, size_t len) {
    std::vector<uint8_t> bytes(len);
    ASSERT_EQ(cachet_read(c, addr, bytes.data(), len), CACHET_OK)
        << cachet_errmsg(c);
    EXPECT_EQ(bytes, FakeSource::Bytes(addr, len));
  }

  Certificates certificates_;
  std::string server_cert_, client_cert_;
  FakeSource source_{kSize};
  std::unique_ptr<tls_context, ContextFree> context_;
  Rule any_{"any"}; // TLS or not
  std::unique_ptr<TestServer> server_;
};

TEST_F(TlsClientTest, BytesAreReadThroughIt) {
  Serve();
  Handle c = Open(Uri(), Options());
  ASSERT_TRUE(c);
  EXPECT_FALSE(cachet_is_shared(c.get()));
  ExpectRead(c.get(), 0, kSize);
  ExpectRead(c.get(), 4095, 2);
  Handle copy = Copy(c.get());
  ExpectRead(copy.get(), 777777, 1000);
}

TEST_F(TlsClientTest, AHostMayBeAName) {
  Serve();
  Handle c = Open(Uri(Query(client_cert_), "i", "localhost"), Options());
  ASSERT_TRUE(c);
  ExpectRead(c.get(), 0, 100);
}

TEST_F(TlsClientTest, AWindowGoesWithIt) {
  Serve();
  Handle c =
      Open(Uri(Query(client_cert_) + "&offset=8K&length=100"), Options());
  ASSERT_TRUE(c);
  EXPECT_EQ(cachet_size(c.get()), 100u);
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_OK);
  EXPECT_EQ(byte, FakeSource::Bytes(8192, 1)[0]);
}

TEST_F(TlsClientTest, AnImageThatThereIsNotIsSaidSo) {
  Serve();
  ExpectRefused(Uri(Query(client_cert_), "other"), CACHET_E_NOIMAGE,
                "it serves i");
}

TEST_F(TlsClientTest, AnAdminHandleGoesThroughIt) {
  Serve();
  cachet_admin *a = nullptr;
  cachet_error err = {};
  ASSERT_EQ(cachet_admin_open(Uri(Query(client_cert_), "").c_str(), nullptr, &a,
                              &err),
            CACHET_OK)
      << err.message;
  std::string names;
  auto add = [](void *arg, const cachet_image_info *info) {
    *static_cast<std::string *>(arg) += info->name;
    return 0;
  };
  EXPECT_EQ(cachet_admin_list(a, add, &names), CACHET_OK);
  EXPECT_EQ(names, "i");
  cachet_admin_close(a);
}

// ---- Certificates ----------------------------------------------------------

TEST_F(TlsClientTest, AServerThatShowsAnotherNameIsRefused) {
  Serve(certificates_.Make("elsewhere", "DNS:example.org"));
  ExpectRefused(Uri(), CACHET_E_CONN, "mismatch");
}

TEST_F(TlsClientTest, AServerWhoseCertificateHasExpiredIsRefused) {
  Serve(certificates_.Make("old", "IP:127.0.0.1", Certificates::kExpired));
  ExpectRefused(Uri(), CACHET_E_CONN, "certificate has expired");
}

TEST_F(TlsClientTest, AServerThatSignedForItselfIsRefused) {
  Serve(certificates_.Make("own", "IP:127.0.0.1", Certificates::kSelfSigned));
  ExpectRefused(Uri(), CACHET_E_CONN, "self-signed");
}

TEST_F(TlsClientTest, TheSystemsAuthoritiesAreThoseWithoutACa) {
  Serve();
  ExpectRefused(Uri("?cert=" + client_cert_), CACHET_E_CONN,
                "certificate is not accepted");
}

TEST_F(TlsClientTest, WithoutACertificateOfOnesOwnItIsRefusedIfItHasToBe) {
  Serve();
  ExpectRefused(Uri("?ca=" + certificates_.ca()), CACHET_E_ACCESS,
                "it wants a certificate");
}

TEST_F(TlsClientTest, WithACertificateOfAnotherAuthorityItIsRefused) {
  Serve();
  Certificates other;
  ExpectRefused(Uri(Query(other.Make("stranger", ""))), CACHET_E_ACCESS,
                "refused the certificate: unknown CA");
}

TEST_F(TlsClientTest, WhoIsRefusedTriesOnce) {
  Serve();
  Certificates other;
  std::string stranger = other.Make("stranger", "");
  uint64_t before = Accepted();
  ExpectRefused(Uri("?ca=" + certificates_.ca()), CACHET_E_ACCESS,
                "it wants a certificate");
  EXPECT_EQ(Accepted() - before, 2u);
  ExpectRefused(Uri(Query(stranger)), CACHET_E_ACCESS, "unknown CA");
  EXPECT_EQ(Accepted() - before, 4u);
}

TEST_F(TlsClientTest, AReadHearsThatTheCertificateIsNotAcceptedAnyMore) {
  Serve();
  Certificates other;
  cachet_options o = Patience(60000); // or it would be tried for so long
  Handle c = Open(Uri(), o);
  ASSERT_TRUE(c);
  MakeContext(server_cert_, true, other.ca());
  server_->SetTls(context_.get());
  shutdown(cachet_fd(c.get()), SHUT_RDWR);
  uint8_t byte;
  EXPECT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_E_ACCESS);
  EXPECT_NE(std::string(cachet_errmsg(c.get())).find("unknown CA"),
            std::string::npos)
      << cachet_errmsg(c.get());
}

TEST_F(TlsClientTest, WithoutOneItIsServedWhereNoneIsRequired) {
  Serve(server_cert_, false);
  Handle c = Open(Uri("?ca=" + certificates_.ca()), Options());
  ASSERT_TRUE(c);
  ExpectRead(c.get(), 1, 3);
}

TEST_F(TlsClientTest, FilesThatCannotBeReadAreNamed) {
  Serve();
  ExpectRefused(Uri("?ca=/nowhere/ca.pem"), CACHET_E_INVAL,
                "/nowhere/ca.pem: No such file");
  ExpectRefused(Uri(Query("/nowhere/c.pem")), CACHET_E_INVAL,
                "/nowhere/c.pem: No such file");
}

// ---- Versions ---------------------------------------------------------------

TEST_F(TlsClientTest, ADaemonThatSpeaksPlainlyIsRefused) {
  Serve();
  ExpectRefused("cachets://127.0.0.1:" + std::to_string(server_->plain_port()) +
                    "/i" + Query(client_cert_),
                CACHET_E_CONN, "it does not speak TLS");
}

TEST_F(TlsClientTest, APlainHandleOnATLSPortFails) {
  Serve();
  cachet *c = nullptr;
  std::string uri =
      "cachet://127.0.0.1:" + std::to_string(server_->tls_port()) + "/i";
  cachet_error err = {};
  EXPECT_EQ(cachet_open(uri.c_str(), nullptr, &c, &err), CACHET_E_PROTO);
  EXPECT_NE(std::string(err.message).find("write cachets:// for cachet://"),
            std::string::npos)
      << err.message;
}

TEST_F(TlsClientTest, WhoNeverAnswersAHandshakeIsGivenUp) {
  Serve();
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(listen(fd, 5), 0);
  sockaddr_in at = {};
  socklen_t len = sizeof at;
  ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr *>(&at), &len), 0);
  std::string uri =
      "cachets://127.0.0.1:" + std::to_string(ntohs(at.sin_port)) + "/i" +
      Query(client_cert_);
  cachet_options o = Patience(1000, 200);
  cachet *c = nullptr;
  cachet_error err = {};
  EXPECT_EQ(cachet_open(uri.c_str(), &o, &c, &err), CACHET_E_TIMEOUT);
  EXPECT_TRUE(strstr(err.message, "does not answer") ||
              strstr(err.message, "no answer"))
      << err.message;
  close(fd);
}

// ---- Event loops -----------------------------------------------------------

struct Loads {
  cachet *c;
  event_base *base;
  int n_left;

  static void Done(void *arg, cachet_status status, cachet_slice *slice) {
    auto *l = static_cast<Loads *>(arg);
    EXPECT_EQ(status, CACHET_OK) << cachet_errmsg(l->c);
    if (slice) {
      EXPECT_EQ(std::vector<uint8_t>(slice->data, slice->data + slice->length),
                FakeSource::Bytes(slice->offset, slice->length));
      cachet_release(l->c, slice);
    }
    if (--l->n_left == 0)
      event_base_loopbreak(l->base);
  }
};

TEST_F(TlsClientTest, ItIsDrivenByLibevent) {
  Serve();
  Handle c = Open(Uri(), Options());
  ASSERT_TRUE(c);
  event_base *base = event_base_new();
  ASSERT_EQ(cachet_event_attach(c.get(), base), CACHET_OK);
  Loads loads = {c.get(), base, 16};
  for (uint64_t i = 0; i < 16; i++)
    ASSERT_EQ(
        cachet_load_async(c.get(), i * 40960, 0, Loads::Done, &loads, nullptr),
        CACHET_OK);
  event_base_dispatch(base);
  EXPECT_EQ(loads.n_left, 0);
  EXPECT_EQ(cachet_event_detach(c.get()), CACHET_OK);
  event_base_free(base);
}

TEST_F(TlsClientTest, AHandleReconnectsThroughIt) {
  Serve();
  Handle c = Open(Uri(), Options());
  ASSERT_TRUE(c);
  ExpectRead(c.get(), 0, 10);
  shutdown(cachet_fd(c.get()), SHUT_RDWR);
  ExpectRead(c.get(), 500000, 10);
}

TEST_F(TlsClientTest, AForkedChildSaysNothingToTheDaemon) {
  Serve();
  Handle c = Open(Uri(), Options());
  ASSERT_TRUE(c);
  ExpectRead(c.get(), 0, 10);
  pid_t pid = QuietFork();
  if (pid == 0) {
    cachet_close(c.release());
    _exit(0);
  }
  int status;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
  ExpectRead(c.get(), 500000, 10);
}

TEST_F(TlsClientTest, ALostConnectionDropsNothingUnlessANoticeWasMissed) {
  Serve();
  cachet *lost = nullptr, *other = nullptr;
  ASSERT_EQ(cachet_open(Uri().c_str(), nullptr, &lost, nullptr), CACHET_OK);
  ASSERT_EQ(
      cachet_open(("cachet+unix:///i?socket=" + server_->socket_path()).c_str(),
                  nullptr, &other, nullptr),
      CACHET_OK);
  constexpr uint64_t kKept = 100 << 10;
  auto read = [&](uint64_t addr) {
    uint8_t byte;
    EXPECT_EQ(cachet_get_u8(lost, addr, &byte), CACHET_OK)
        << cachet_errmsg(lost);
    EXPECT_EQ(byte, FakeSource::ByteAt(addr));
  };
  // A call that waits for the connection reads what it needs anew.
  auto read_over_loss = [&](bool misses_notice) {
    read(kKept);
    shutdown(cachet_fd(lost), SHUT_RDWR);
    if (misses_notice) {
      EXPECT_EQ(cachet_invalidate(other, 0, 1), CACHET_OK);
    }
    read(0);
    EXPECT_EQ(cachet_is_cached(lost, kKept), !misses_notice);
  };
  read_over_loss(false);
  EXPECT_EQ(cachet_invalidate(other, 0, 1), CACHET_OK);
  while (cachet_is_cached(lost, 0))
    cachet_dispatch(lost); // it is told
  read_over_loss(false);
  read_over_loss(true);
  cachet_close(lost);
  cachet_close(other);
}

} // namespace

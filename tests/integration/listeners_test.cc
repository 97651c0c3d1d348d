// The sockets of a daemon and its certificates, as SIGHUP changes them under
// connected clients.
#include <gtest/gtest.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "proto/tls.h"
#include "tests/support/certificates.h"
#include "tests/support/daemon_process.h"
#include "tests/support/wire_client.h"

namespace {

constexpr uint64_t kSize = 64 * 4096;
constexpr int kOpened = CACHET__WIRE__MESSAGE__BODY_OPENED;

struct ContextFree {
  void operator()(tls_context *c) const { tls_context_unref(c); }
};
using Context = std::unique_ptr<tls_context, ContextFree>;

sockaddr_in Loopback(int port, in_addr_t host = INADDR_LOOPBACK) {
  sockaddr_in a{};
  a.sin_family = AF_INET;
  a.sin_port = htons(uint16_t(port));
  a.sin_addr.s_addr = htonl(host);
  return a;
}

// A socket that listens on a port, as systemd has them.
int Listen(int port, in_addr_t host = INADDR_LOOPBACK) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  sockaddr_in a = Loopback(port, host);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr *>(&a), sizeof a), 0);
  EXPECT_EQ(listen(fd, 64), 0);
  return fd;
}

// The same at [::], where peers of IPv4 come too, as with ListenStream=PORT; or
// -1.
int ListenOnAll(int port) {
  int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), off = 0, on = 1;
  if (fd < 0)
    return -1;
  sockaddr_in6 a{};
  a.sin6_family = AF_INET6;
  a.sin6_port = htons(uint16_t(port));
  setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr *>(&a), sizeof a), 0);
  EXPECT_EQ(listen(fd, 64), 0);
  return fd;
}

int ListenAt(const std::string &path) {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un a{};
  a.sun_family = AF_UNIX;
  path.copy(a.sun_path, sizeof a.sun_path - 1);
  // As systemd has it: no longer than the path.
  socklen_t len = socklen_t(offsetof(sockaddr_un, sun_path) + path.size() + 1);
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr *>(&a), len), 0);
  EXPECT_EQ(listen(fd, 64), 0);
  return fd;
}

bool IsListenedOn(int port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in a = Loopback(port);
  bool is = connect(fd, reinterpret_cast<sockaddr *>(&a), sizeof a) == 0;
  close(fd);
  return is;
}

class ListenersTest : public testing::Test {
protected:
  ListenersTest()
      : certificate_(certificates_.Make("server", "IP:127.0.0.1")),
        reader_(certificates_.Make("reader", "")) {
    for (int &port : ports_)
      port = DaemonProcess::FreePort();
    bytes_ = WriteRandomFile(dir_ / "image", kSize, 1);
    std::string ca = certificates_.ca();
    tls_files files = {reader_.c_str(), nullptr, ca.c_str()};
    tls_context *context = nullptr;
    char why[TLS_WHY_LEN];
    EXPECT_EQ(tls_client(&files, "127.0.0.1", &context, why), 0) << why;
    context_.reset(context);
  }

  void TearDown() override {
    if (!daemon_)
      return;
    daemon_->Kill(SIGTERM);
    EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
  }

  std::string UnixAt(const std::string &name) const {
    return "unix:" + (dir_ / name);
  }
  std::string TcpAt(int i) const {
    return "tcp:127.0.0.1:" + std::to_string(ports_[i]);
  }
  std::string TlsAt(int i) const {
    return "tls:127.0.0.1:" + std::to_string(ports_[i]);
  }

  void Configure(const std::vector<std::string> &addresses,
                 const std::string &more = "") {
    std::string text = "[image image]\nsource = " + (dir_ / "image") +
                       "\n[tls]\ncertificate = " + certificate_ +
                       "\nclient-ca = " + certificates_.ca() +
                       "\n[images]\nallow = any\n[listen]\n";
    for (const std::string &address : addresses)
      text += "address = " + address + "\n";
    Write(dir_ / "cachetd.conf", text + more);
  }

  static void Write(const std::string &path, const std::string &text) {
    FILE *file = fopen(path.c_str(), "w");
    ASSERT_TRUE(file);
    fputs(text.c_str(), file);
    ASSERT_EQ(fclose(file), 0);
  }

  void Start(const Inheritance &passed = {}) {
    daemon_ = std::make_unique<DaemonProcess>(
        std::vector<std::string>{"--config", dir_ / "cachetd.conf"}, [] {},
        passed);
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  }

  // With sockets from systemd, which goes by these names.
  void StartWith(const std::vector<int> &fds, const std::string &names) {
    Start({{}, fds, names});
    for (int fd : fds)
      close(fd);
  }

  size_t Count(const std::string &event) const {
    return daemon_->CountInLog(event);
  }
  void Reload(const std::string &event = "event=reloaded") {
    size_t before = Count(event);
    daemon_->Kill(SIGHUP);
    daemon_->AwaitLog(event, before + 1);
  }

  // A look at the image opens its file for a moment, once a second.
  void ExpectFds(int n) const {
    const auto end =
        std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (daemon_->n_fds() != n && std::chrono::steady_clock::now() < end)
      usleep(1000);
    EXPECT_EQ(daemon_->n_fds(), n);
  }

  WireClient Unix(const std::string &name) {
    return Started(WireClient::Unix(dir_ / name));
  }
  WireClient Tcp(int i) { return Started(WireClient::Tcp(ports_[i])); }
  WireClient Tls(int i) {
    return Started(WireClient::Tls(ports_[i], context_.get()));
  }
  static WireClient Started(WireClient client) {
    EXPECT_EQ(client.Start("image").kind, kOpened);
    return client;
  }
  void ExpectServed(WireClient *client, uint64_t page = 3) {
    auto from = bytes_.begin() + long(page * 4096);
    EXPECT_EQ(client->Read(1, page * 4096, 4096).bytes,
              std::vector<uint8_t>(from, from + 4096));
  }

  // The common name of the certificate that is shown.
  std::string Shown(int i) {
    WireClient socket = WireClient::Tcp(ports_[i]);
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_use_certificate_file(ctx, reader_.c_str(), SSL_FILETYPE_PEM);
    SSL_CTX_use_PrivateKey_file(ctx, reader_.c_str(), SSL_FILETYPE_PEM);
    SSL *ssl = SSL_new(ctx);
    SSL_set_fd(ssl, socket.fd());
    char name[64] = "";
    if (SSL_connect(ssl) == 1)
      X509_NAME_get_text_by_NID(
          X509_get_subject_name(SSL_get0_peer_certificate(ssl)), NID_commonName,
          name, sizeof name);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    return name;
  }

  TempDir dir_;
  Certificates certificates_;
  std::string certificate_, reader_;
  std::vector<uint8_t> bytes_;
  Context context_;
  int ports_[4];
  std::unique_ptr<DaemonProcess> daemon_;
};

TEST_F(ListenersTest, AddressesComeAndGoAndWhoCameThroughThemStays) {
  Configure({UnixAt("a"), TcpAt(0), TlsAt(1)});
  Start();
  WireClient by_unix = Unix("a"), by_tcp = Tcp(0), by_tls = Tls(1);
  Configure({UnixAt("b"), TcpAt(2), TlsAt(3)});
  Reload();
  EXPECT_FALSE(IsListenedOn(ports_[0]));
  EXPECT_FALSE(IsListenedOn(ports_[1]));
  EXPECT_NE(access((dir_ / "a").c_str(), F_OK), 0) << "its file is gone";
  for (WireClient *client : {&by_unix, &by_tcp, &by_tls})
    ExpectServed(client);
  WireClient b = Unix("b"), tcp = Tcp(2), tls = Tls(3);
  for (WireClient *client : {&b, &tcp, &tls})
    ExpectServed(client, 5);
  EXPECT_EQ(Count("event=listener-removed"), 3u) << daemon_->log();
  EXPECT_EQ(Count("event=listener-added listen=" + TcpAt(2)), 1u);
  // And back, to where the first ones have just been.
  Configure({UnixAt("a"), TcpAt(0), TlsAt(1)});
  Reload();
  WireClient again = Tcp(0);
  ExpectServed(&again);
  for (WireClient *client : {&by_unix, &by_tcp, &by_tls, &b, &tcp, &tls})
    ExpectServed(client, 7);
}

TEST_F(ListenersTest, AnAddressThatStaysIsNotTouched) {
  Configure({UnixAt("a"), "tcp:127.0.0.1:0", TcpAt(0)});
  Start();
  std::string ready = daemon_->log();
  int n_fds = daemon_->n_fds();
  for (int i = 0; i < 20; i++)
    Reload();
  EXPECT_EQ(Count("event=listener-"), 0u) << daemon_->log();
  ExpectFds(n_fds);
}

TEST_F(ListenersTest, AnAddressThatIsInUseChangesNothingAndTheLogSaysSo) {
  Configure({UnixAt("a"), TcpAt(0)});
  Start();
  WireClient client = Tcp(0);
  int other = Listen(ports_[2]);
  Configure({UnixAt("b"), TcpAt(1), TcpAt(2)},
            "[image two]\nsource = " + (dir_ / "image") + "\n");
  Reload("event=reload-failed");
  EXPECT_EQ(Count(TcpAt(2) + ": bind: Address already in use"), 1u)
      << daemon_->log();
  EXPECT_FALSE(IsListenedOn(ports_[1]));
  EXPECT_NE(access((dir_ / "b").c_str(), F_OK), 0);
  EXPECT_EQ(Count("event=image-added"), 0u);
  ExpectServed(&client);
  WireClient fresh = Tcp(0), local = Unix("a");
  ExpectServed(&fresh);
  close(other);
  Reload();
  fresh = Tcp(2);
  EXPECT_EQ(Count("event=image-added"), 1u);
}

TEST_F(ListenersTest, APlainPortBecomesOneForTLSAndBack) {
  Configure({UnixAt("a"), TcpAt(0)});
  Start();
  WireClient plain = Tcp(0);
  Configure({UnixAt("a"), TlsAt(0)});
  Reload();
  WireClient through_tls = Tls(0);
  ExpectServed(&through_tls);
  ExpectServed(&plain);
  WireClient refused = WireClient::Tcp(ports_[0]);
  refused.SendHello();
  EXPECT_TRUE(refused.AwaitClose());
  Configure({UnixAt("a"), TcpAt(0)});
  Reload();
  WireClient again = Tcp(0);
  for (WireClient *client : {&again, &through_tls, &plain})
    ExpectServed(client, 5);
}

TEST_F(ListenersTest, TheFirstOnePlainAndTheFirstForTLSMayComeLater) {
  Configure({UnixAt("a")});
  Start();
  Configure({TlsAt(0)});
  Reload();
  WireClient client = Tls(0);
  ExpectServed(&client);
  EXPECT_NE(access((dir_ / "a").c_str(), F_OK), 0);
}

TEST_F(ListenersTest, WhatWasInheritedStaysAndItsNameSaysWhetherItIsForTLS) {
  Configure({});
  StartWith({Listen(ports_[0]), Listen(ports_[1]), Listen(ports_[2])},
            "tcp:tls:cachetd-tls.socket");
  WireClient plain = Tcp(0), tls = Tls(1), by_unit = Tls(2);
  Configure({TcpAt(3)});
  Reload();
  WireClient added = Tcp(3);
  Configure({});
  Reload();
  EXPECT_FALSE(IsListenedOn(ports_[3]));
  WireClient later = Tls(1);
  for (WireClient *client : {&plain, &tls, &by_unit, &added, &later})
    ExpectServed(client);
  EXPECT_EQ(Count("event=listener-removed"), 1u);
}

TEST_F(ListenersTest, TheAddressOfAnInheritedSocketIsThatSocket) {
  const std::vector<std::string> inherited = {UnixAt("a"), TcpAt(0), TlsAt(1)};
  Configure(inherited);
  StartWith({ListenAt(dir_ / "a"), Listen(ports_[0]), Listen(ports_[1])},
            "unix:tcp:tls");
  ASSERT_TRUE(daemon_->ready());
  EXPECT_EQ(
      Count("listen=" + UnixAt("a") + "," + TcpAt(0) + "," + TlsAt(1) + " "),
      1u)
      << daemon_->log();
  WireClient local = Unix("a"), plain = Tcp(0), tls = Tls(1);
  int n_fds = daemon_->n_fds();
  // The lines go, stay away, and come back beside another one.
  Configure({});
  Reload();
  Reload();
  ExpectFds(n_fds);
  EXPECT_EQ(Count("event=listener-"), 0u) << daemon_->log();
  Configure({UnixAt("a"), TcpAt(0), TlsAt(1), TcpAt(2)});
  Reload();
  EXPECT_EQ(Count("event=listener-added"), 1u) << daemon_->log();
  WireClient added = Tcp(2);
  Configure({});
  Reload();
  EXPECT_EQ(Count("event=listener-removed listen=" + TcpAt(2)), 1u);
  EXPECT_EQ(Count("event=listener-removed"), 1u) << daemon_->log();
  WireClient later = Unix("a"), later_plain = Tcp(0), later_tls = Tls(1);
  for (WireClient *client :
       {&local, &plain, &tls, &added, &later, &later_plain, &later_tls})
    ExpectServed(client);
  daemon_->Kill(SIGTERM);
  EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
  daemon_.reset();
  EXPECT_EQ(access((dir_ / "a").c_str(), F_OK), 0) << "it is systemd's";
}

TEST_F(ListenersTest, AnInheritedSocketAtAllHostsIsThatOfEachAddress) {
  int all = ListenOnAll(ports_[0]);
  if (all < 0)
    GTEST_SKIP() << "there is no IPv6";
  Configure({TlsAt(0), "tls:[::]:" + std::to_string(ports_[0]),
             "tls:192.0.2.1:" + std::to_string(ports_[0])});
  StartWith({all}, "tls");
  ASSERT_TRUE(daemon_->ready());
  WireClient client = Tls(0);
  ExpectServed(&client);
  EXPECT_EQ(Count("listen=tls:[::]:" + std::to_string(ports_[0]) + " "), 1u)
      << daemon_->log();
}

TEST_F(ListenersTest, AnAddressThatContradictsTheNameOfASocketIsAMistake) {
  struct {
    std::string name, address, mistake;
  } const cases[] = {
      {"tls", TcpAt(0),
       TcpAt(0) + ": systemd passed " + TlsAt(0) +
           " by the name \"tls\", which is for TLS; write tls: for tcp:, or "
           "FileDescriptorName=tcp in its socket unit"},
      {"cachetd-tcp.socket", TlsAt(0),
       TlsAt(0) + ": systemd passed " + TcpAt(0) +
           " by the name \"cachetd-tcp.socket\", which is not for TLS; write "
           "tcp: for tls:, or FileDescriptorName=tls in its socket unit"},
  };
  for (const auto &c : cases) {
    std::string place = (dir_ / "cachetd.conf") + ":10: address: ";
    int fd = Listen(ports_[0]);
    Configure({UnixAt("a"), c.address});
    DaemonProcess refused({"--config", dir_ / "cachetd.conf"}, [] {},
                          {{}, {fd}, c.name});
    EXPECT_EQ(refused.Wait(), 2) << refused.log();
    EXPECT_EQ(refused.CountInLog("cachetd: " + place + c.mistake), 1u)
        << refused.log();
    EXPECT_NE(access((dir_ / "a").c_str(), F_OK), 0);
    // By a reload, it changes nothing.
    Configure({});
    StartWith({fd}, c.name);
    ASSERT_TRUE(daemon_->ready());
    Configure({UnixAt("a"), c.address});
    Reload("event=reload-failed");
    EXPECT_EQ(Count(place + c.address), 1u) << daemon_->log();
    EXPECT_NE(access((dir_ / "a").c_str(), F_OK), 0);
    WireClient client = c.name == "tls" ? Tls(0) : Tcp(0);
    ExpectServed(&client);
    daemon_->Kill(SIGTERM);
    EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
    daemon_.reset();
  }
}

TEST_F(ListenersTest, AnInheritedSocketForTLSNeedsACertificate) {
  std::string conf = dir_ / "cachetd.conf", none = dir_ / "none.pem";
  std::string other = certificates_.Make("other", "");
  struct {
    std::string tls, mistake;
  } const cases[] = {
      {"", TlsAt(0) + ", which systemd passed by the name \"tls\": TLS needs a "
                      "certificate"},
      {"[tls]\nkey = " + other, conf + ":4: key: TLS needs a certificate"},
      {"[tls]\ncertificate = " + certificate_,
       conf + ":4: certificate: clients have to show a certificate"},
      {"[tls]\ncertificate = " + certificate_ + "\nclient-ca = " + none,
       conf + ":5: client-ca: CA certificates " + none + ": No such file"},
      {"[tls]\nclient-ca = " + certificates_.ca() + "\nkey = " + other +
           "\ncertificate = " + certificate_,
       conf + ":5: key: key " + other + ": it is not the key of"},
  };
  int fd = Listen(ports_[0]);
  for (const auto &c : cases) {
    const std::string text =
        "[image image]\nsource = " + (dir_ / "image") + "\n" + c.tls + "\n";
    Write(conf, text);
    DaemonProcess refused({"--config", conf}, [] {}, {{}, {fd}, "tls"});
    EXPECT_EQ(refused.Wait(), 2) << c.mistake;
    EXPECT_EQ(refused.CountInLog("cachetd: " + c.mistake), 1u) << refused.log();
    // A reload says the same, and changes nothing.
    Configure({});
    Start({{}, {fd}, "tls"});
    ASSERT_TRUE(daemon_->ready());
    Write(conf, text);
    Reload("event=reload-failed");
    daemon_->Kill(SIGTERM);
    EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
    std::string quoted = c.mistake;
    for (size_t at = 0; (at = quoted.find('"', at)) != std::string::npos;
         at += 2)
      quoted.insert(at, "\\");
    EXPECT_EQ(Count("event=reload-failed reason=\"" + quoted), 1u)
        << quoted << daemon_->log();
    daemon_.reset();
  }
  close(fd);
}

TEST_F(ListenersTest, CertificatesThatNoSocketNeedsAreNotRead) {
  Configure({TcpAt(0)}, "[tls]\nkey = " + (dir_ / "none") + "\n");
  Start();
  WireClient client = Tcp(0);
  Reload();
  ExpectServed(&client);
  EXPECT_EQ(Count("event=tls-"), 0u) << daemon_->log();
}

TEST_F(ListenersTest, AnInheritedSocketThatIsNotAllowedIsStatusTwo) {
  struct {
    int fd;
    std::string name, mistake;
  } const cases[] = {
      {ListenAt(dir_ / "a"), "tls",
       UnixAt("a") + ": a Unix socket speaks no TLS"},
      {Listen(ports_[0], INADDR_ANY), "tcp",
       "only loopback is allowed without"},
  };
  Configure({});
  for (const auto &c : cases) {
    DaemonProcess refused({"--config", dir_ / "cachetd.conf"}, [] {},
                          {{}, {c.fd}, c.name});
    close(c.fd);
    EXPECT_EQ(refused.Wait(), 2) << refused.log();
    EXPECT_EQ(refused.CountInLog(c.mistake), 1u) << refused.log();
  }
}

TEST_F(ListenersTest, InsecureIsHonouredForWhatWasInherited) {
  Configure({}, "insecure = yes\n");
  StartWith({Listen(ports_[0], INADDR_ANY)}, "tcp");
  Configure({});
  Reload("event=reload-failed");
  EXPECT_EQ(Count("insecure"), 1u) << daemon_->log();
  WireClient client = Tcp(0);
  Configure({UnixAt("a")}, "insecure = yes\n");
  Reload();
  ExpectServed(&client);
}

TEST_F(ListenersTest, NewHandshakesSeeTheNewCertificateOfTheSameFile) {
  Configure({TlsAt(0)});
  Start();
  WireClient before = Tls(0);
  EXPECT_EQ(Shown(0), "server");
  ASSERT_EQ(rename(certificates_.Make("renewed", "IP:127.0.0.1").c_str(),
                   certificate_.c_str()),
            0);
  EXPECT_EQ(Shown(0), "server");
  Reload();
  EXPECT_EQ(Shown(0), "renewed");
  WireClient after = Tls(0);
  ExpectServed(&before);
  ExpectServed(&after);
}

TEST_F(ListenersTest, NewHandshakesAreHeldAgainstTheNewAuthorities) {
  Configure({TlsAt(0)});
  Start();
  WireClient before = Tls(0);
  Certificates others;
  FILE *from = fopen(others.ca().c_str(), "r"),
       *to = fopen(certificates_.ca().c_str(), "w");
  char bytes[8192];
  size_t n = fread(bytes, 1, sizeof bytes, from);
  fwrite(bytes, 1, n, to);
  fclose(from);
  fclose(to);
  Reload();
  WireClient refused = WireClient::Tls(ports_[0], context_.get());
  EXPECT_TRUE(refused.Start().is_end());
  ExpectServed(&before);
}

TEST_F(ListenersTest, AWrongCertificateKeepsTheOldOneAndTheLogNamesTheFile) {
  Configure({TlsAt(0)});
  Start();
  std::string other = certificates_.Make("other", "IP:127.0.0.1");
  std::string key = certificates_.SplitKey(other);
  std::string locked =
      certificates_.SplitKey(certificates_.Make("locked", ""), "word");
  struct {
    std::string certificate, key, reason; // with the line, and the key
  } const cases[] = {
      {certificate_, key,
       "12: key: key " + key + ": it is not the key of certificate " +
           certificate_},
      {certificate_, locked, "12: key: key " + locked + ": it is encrypted"},
      {dir_ / "none.pem", key,
       "4: certificate: certificate " + (dir_ / "none.pem") +
           ": No such file or directory"},
      {dir_ / "image", key,
       "4: certificate: certificate " + (dir_ / "image") + ": it holds"},
      {other, certificates_.ca(), "12: key: key " + certificates_.ca() + ": "},
  };
  const std::string good = certificate_;
  for (const auto &c : cases) {
    certificate_ = c.certificate;
    Configure({TlsAt(0), TcpAt(1)}, "[tls]\nkey = " + c.key + "\n");
    Reload("event=reload-failed");
    EXPECT_EQ(Count((dir_ / "cachetd.conf") + ":" + c.reason), 1u)
        << c.reason << daemon_->log();
    EXPECT_EQ(Shown(0), "server");
    EXPECT_FALSE(IsListenedOn(ports_[1]));
  }
  certificate_ = good;
  Configure({TlsAt(0)});
  Reload();
}

TEST_F(ListenersTest, ACertificateThatIsNotValidNowIsWarnedOf) {
  Configure({TlsAt(0)});
  Start();
  EXPECT_EQ(Count("event=tls-certificate certificate=" + certificate_), 1u);
  EXPECT_EQ(Count("event=tls-certificate-invalid"), 0u);
  certificate_ = certificates_.Make("old", "", Certificates::kExpired);
  Configure({TlsAt(0)});
  Reload();
  EXPECT_EQ(Count("certificate=" + certificate_ + " reason=\"it has expired\""),
            1u)
      << daemon_->log();
  certificate_ = certificates_.Make("young", "", Certificates::kNotYet);
  Configure({TlsAt(0)});
  Reload();
  EXPECT_EQ(Count("reason=\"it is not valid yet\""), 1u) << daemon_->log();
}

// Readers that stay connected and readers that connect anew, by each way,
// through reloads that change all addresses but theirs, and all certificates.
TEST_F(ListenersTest, NobodyNoticesUnderLoad) {
  Configure({UnixAt("a"), TcpAt(0), TlsAt(1)});
  Start();
  std::atomic<bool> ended{false};
  std::atomic<uint64_t> n_read{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 6; i++)
    readers.emplace_back([&, i] {
      auto connect = [&] {
        return i % 3 == 0 ? Unix("a") : i % 3 == 1 ? Tcp(0) : Tls(1);
      };
      WireClient stays = connect();
      for (uint64_t n = uint64_t(i); !ended; n++) {
        ExpectServed(&stays, n % 64);
        WireClient fresh = connect();
        ExpectServed(&fresh, n % 64);
        n_read++;
      }
    });
  for (int round = 0; round < 60; round++) {
    if (round % 4 == 3) // one that is refused
      Configure({UnixAt("a"), TcpAt(0), TlsAt(1), TcpAt(0)});
    else
      Configure({UnixAt(round % 2 ? "b" : "c"), UnixAt("a"), TcpAt(0),
                 TcpAt(round % 2 + 2), TlsAt(1)});
    std::string name = "round-" + std::to_string(round);
    ASSERT_EQ(rename(certificates_.Make(name, "IP:127.0.0.1").c_str(),
                     certificate_.c_str()),
              0);
    Reload(round % 4 == 3 ? "event=reload-failed" : "event=reloaded");
    uint64_t seen = n_read;
    while (n_read < seen + 6 && !HasFailure())
      std::this_thread::yield();
  }
  ended = true;
  for (std::thread &reader : readers)
    reader.join();
  EXPECT_EQ(Count("event=listener-removed"), Count("event=listener-added") - 2);
}

} // namespace

// cachetd and cachet, as they are started, through TLS.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <signal.h>
#include <string>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/support/certificates.h"
#include "tests/support/daemon_process.h"

namespace {

using testing::HasSubstr;
using testing::Not;

struct Output {
  int status = -1;
  std::string text; // of both streams
};

// Runs a command of the shell.
Output Shell(const std::string &command) {
  Output out;
  FILE *f = popen((command + " 2>&1").c_str(), "r");
  char bytes[4096];
  size_t n;
  while ((n = fread(bytes, 1, sizeof bytes, f)) > 0)
    out.text.append(bytes, n);
  int status = pclose(f);
  out.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return out;
}

class TlsTest : public testing::Test {
protected:
  TlsTest()
      : server_(certificates_.Make("server", "IP:127.0.0.1")),
        client_(certificates_.Make("client", "DNS:reader")),
        image_(dir_ / "image"),
        port_(std::to_string(DaemonProcess::FreePort())) {
    std::ofstream(image_) << "the bytes of an image\n";
  }

  std::vector<std::string> Arguments(const std::string &key = "") {
    std::vector<std::string> args = {
        "--image",           image_,
        "--listen",          "tls:127.0.0.1:" + port_,
        "--tls-certificate", server_,
        "--tls-client-ca",   certificates_.ca(),
        "--allow",           "cert:reader"};
    if (!key.empty()) {
      args.push_back("--tls-key");
      args.push_back(key);
    }
    return args;
  }

  std::string Uri(const std::string &query = "") {
    return "'cachets://127.0.0.1:" + port_ + "/image?ca=" + certificates_.ca() +
           query + "'";
  }
  std::string Cat(const std::string &uri) {
    return DaemonProcess::Runfile("client/cachet") + " cat " + uri;
  }
  // Where the part of the library is found that has TLS.
  static std::string WithTls() {
    std::string so = DaemonProcess::Runfile("client/libcachet-client-tls.so.1");
    return "LD_LIBRARY_PATH=" + so.substr(0, so.rfind('/')) + " ";
  }

  TempDir dir_;
  Certificates certificates_;
  std::string server_, client_, image_, port_;
};

TEST_F(TlsTest, TheCommandReadsAnImageThroughIt) {
  std::string key = certificates_.SplitKey(server_);
  DaemonProcess daemon(Arguments(key));
  ASSERT_TRUE(daemon.ready()) << daemon.log();
  EXPECT_THAT(daemon.log(), HasSubstr("listen=tls:127.0.0.1:" + port_));
  Output out = Shell(WithTls() + Cat(Uri("&cert=" + client_)));
  EXPECT_EQ(out.status, 0);
  EXPECT_EQ(out.text, "the bytes of an image\n");
  out = Shell(WithTls() + Cat(Uri()));
  EXPECT_EQ(out.status, 1);
  EXPECT_THAT(out.text, HasSubstr("wants a certificate"));
  out = Shell(WithTls() + DaemonProcess::Runfile("client/cachet") +
              " ls --uri " + Uri("&cert=" + client_));
  EXPECT_EQ(out.status, 0) << out.text;
  EXPECT_THAT(out.text, HasSubstr("image"));
  out = Shell(Cat("cachet://127.0.0.1:" + port_ + "/image"));
  EXPECT_EQ(out.status, 1);
  EXPECT_THAT(out.text, HasSubstr("write cachets:// for cachet://"));
  daemon.Kill(SIGTERM);
  EXPECT_EQ(daemon.Wait(), 0);
  EXPECT_THAT(daemon.log(), HasSubstr("event=tls-failed"));
  EXPECT_THAT(daemon.log(), Not(HasSubstr("tls-key-exposed")));
  EXPECT_THAT(daemon.log(), Not(HasSubstr("PRIVATE")));
}

// How many connections the kernel has taken the sending of.  -1: it has no TLS.
static int64_t KernelSends() {
  std::ifstream in("/proc/net/tls_stat");
  std::string name;
  for (int64_t n; in >> name >> n;)
    if (name == "TlsTxSw" || name == "TlsTxDevice")
      return n;
  return -1;
}

TEST_F(TlsTest, TheKernelEncryptsWhatIsSent) {
  int64_t before = KernelSends();
  if (before < 0)
    GTEST_SKIP() << "the kernel has no TLS, or its module is not loaded";
  std::string bytes;
  for (int i = 0; i < 5 << 20; i++)
    bytes += char('a' + i % 23);
  std::ofstream(image_) << bytes;
  std::vector<std::string> args = Arguments();
  args.insert(args.end(), {"--log-level", "debug"});
  DaemonProcess daemon(args);
  ASSERT_TRUE(daemon.ready()) << daemon.log();
  for (int i = 0; i < 3; i++) {
    Output out = Shell(WithTls() + Cat(Uri("&cert=" + client_)));
    EXPECT_EQ(out.status, 0);
    EXPECT_TRUE(out.text == bytes);
  }
  EXPECT_GE(KernelSends(), before + 3);
  daemon.Kill(SIGTERM);
  EXPECT_EQ(daemon.Wait(), 0);
  EXPECT_THAT(daemon.log(), HasSubstr("sends=kernel"));
  EXPECT_THAT(daemon.log(), Not(HasSubstr("conn-failed")));
}

TEST_F(TlsTest, WithoutThatPartOfTheLibraryItSaysWhatIsMissing) {
  Output out = Shell(Cat(Uri("&cert=" + client_)));
  EXPECT_EQ(out.status, 1);
  EXPECT_THAT(out.text, HasSubstr("libcachet-client-tls.so.1"));
}

TEST_F(TlsTest, WhoUsesNoTLSLoadsNone) {
  for (const char *file : {"client/cachet", "client/libcachet-client.so"}) {
    Output out = Shell("readelf -d " + DaemonProcess::Runfile(file));
    ASSERT_EQ(out.status, 0) << out.text;
    EXPECT_THAT(out.text, HasSubstr("libprotobuf-c"));
    EXPECT_THAT(out.text, Not(HasSubstr("libssl")));
    EXPECT_THAT(out.text, Not(HasSubstr("libcrypto")));
  }
  Output out =
      Shell("nm -D --defined-only " +
            DaemonProcess::Runfile("client/libcachet-client-tls.so.1"));
  EXPECT_THAT(out.text, HasSubstr(" cachet_client_tls"));
  EXPECT_THAT(out.text, Not(HasSubstr("tls_new")));
}

TEST_F(TlsTest, AKeyThatEveryUserCanReadIsWarnedOf) {
  ASSERT_EQ(chmod(server_.c_str(), 0644), 0);
  DaemonProcess daemon(Arguments());
  ASSERT_TRUE(daemon.ready()) << daemon.log();
  EXPECT_THAT(daemon.log(), HasSubstr("event=tls-key-exposed"));
}

// Another start would fail again, so it is the status at which the service
// manager makes none.
TEST_F(TlsTest, AFileThatCannotBeUsedIsAMistakeOfItsSetting) {
  std::string other = certificates_.Make("other", "");
  std::string locked =
      certificates_.SplitKey(certificates_.Make("locked", ""), "word");
  struct {
    std::vector<std::string> arguments;
    std::string mistake;
  } const cases[] = {
      {{"--tls-key", locked}, "--tls-key: key " + locked + ": it is encrypted"},
      {{"--tls-key", other},
       "--tls-key: key " + other + ": it is not the key of certificate " +
           server_},
      {{"--tls-client-ca", dir_ / "none"},
       "--tls-client-ca: CA certificates " + (dir_ / "none") +
           ": No such file or directory"},
      {{"--tls-certificate", dir_ / "none"},
       "--tls-certificate: certificate " + (dir_ / "none") +
           ": No such file or directory"},
  };
  for (const auto &c : cases) {
    std::vector<std::string> args = Arguments();
    args.insert(args.end(), {"--image", dir_ / "missing"});
    args.insert(args.end(), c.arguments.begin(), c.arguments.end());
    DaemonProcess daemon(args);
    EXPECT_FALSE(daemon.ready());
    EXPECT_EQ(daemon.Wait(), 2);
    EXPECT_THAT(daemon.log(), HasSubstr("cachetd: " + c.mistake));
    EXPECT_EQ(daemon.CountInLog("event=image-missing"), 0u)
        << "before it opens anything: " << daemon.log();
  }
}

TEST_F(TlsTest, AnAddressForTLSWithoutCertificatesIsAMistake) {
  DaemonProcess daemon({"--image", image_, "--listen", "tls:"});
  EXPECT_EQ(daemon.Wait(), 2);
  EXPECT_THAT(daemon.log(), HasSubstr("--listen: TLS needs a certificate"));
}

} // namespace

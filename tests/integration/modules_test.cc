// Modules, the code of kinds of sources, of TLS and of verification: which of
// them a daemon has loaded, when that happens, and what it says of one that is
// not there or is not right.
#include <cachet/cachet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/certificates.h"
#include "tests/support/daemon_process.h"
#include "tests/support/nbd_server.h"
#include "tests/support/nginx.h"
#include "tests/support/verity_tree.h"

namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
namespace fs = std::filesystem;

constexpr uint64_t kSize = (1 << 20) + 77;

class ModulesTest : public testing::Test {
protected:
  ModulesTest() {
    bytes_ = WriteRandomFile(dir_ / "file", kSize, 1);
    nginx_.Put("x", std::string(bytes_.begin(), bytes_.end()));
    whole_pages_ = WriteRandomFile(dir_ / "pages", 1 << 20, 2);
    root_ = FormatVerity(dir_ / "pages", dir_ / "pages.verity");
    server_ = certificates_.Make("server", "IP:127.0.0.1");
    reader_ = certificates_.Make("reader", "DNS:reader");
  }

  std::vector<std::string> Arguments(std::vector<std::string> more) const {
    more.insert(more.end(), {"--image", "file=" + (dir_ / "file"), "--listen",
                             "unix:" + (dir_ / "socket")});
    return more;
  }

  void Start(const std::vector<std::string> &more) {
    daemon_ = std::make_unique<DaemonProcess>(Arguments(more));
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  }

  void Stop() {
    daemon_->Kill(SIGTERM);
    EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
  }

  // Which files it has mapped, as text.
  std::string Maps() const {
    std::ostringstream text;
    text << std::ifstream("/proc/" + std::to_string(daemon_->pid()) + "/maps")
                .rdbuf();
    return text.str();
  }

  std::string Uri(const std::string &image) const {
    return "cachet+unix:///" + image + "?socket=" + (dir_ / "socket");
  }

  // What the daemon says to an image of that name and source; "": it has it.
  std::string Add(const std::string &name, const std::string &source) {
    cachet_admin *admin;
    cachet_error err = {};
    EXPECT_EQ(cachet_admin_open(Uri("").c_str(), nullptr, &admin, &err),
              CACHET_OK)
        << err.message;
    const char *why = cachet_admin_add(admin, name.c_str(), source.c_str())
                          ? cachet_admin_errmsg(admin)
                          : "";
    std::string said = why;
    cachet_admin_close(admin);
    return said;
  }

  void ExpectServedAt(const std::string &uri,
                      const std::vector<uint8_t> &bytes) {
    cachet *c;
    cachet_error err = {};
    ASSERT_EQ(cachet_open(uri.c_str(), nullptr, &c, &err), CACHET_OK)
        << err.message << daemon_->log();
    std::vector<uint8_t> buf(bytes.size());
    EXPECT_EQ(cachet_read(c, 0, buf.data(), buf.size()), CACHET_OK)
        << cachet_errmsg(c);
    EXPECT_EQ(buf, bytes);
    cachet_close(c);
  }
  void ExpectServed(const std::string &image) {
    ExpectServedAt(Uri(image), bytes_);
  }

  // An image that is verified, as it is given behind the name and the =.
  std::string Verified() const {
    return dir_ / "pages" + ",verity-root=" + root_;
  }
  void ExpectVerifiedServed() { ExpectServedAt(Uri("v"), whole_pages_); }

  // The same in a configuration file, and an address for TLS.
  std::string VerifiedSection() const {
    return "[image v]\nsource = " + (dir_ / "pages") +
           "\nverity-root = " + root_ + "\n";
  }
  std::string TlsSections() const {
    return "[listen]\naddress = unix:" + (dir_ / "socket") +
           "\naddress = tls:127.0.0.1:" + port_ +
           "\n[tls]\ncertificate = " + server_ +
           "\nclient-ca = " + certificates_.ca() +
           "\n[images]\nallow = cert:reader\n";
  }
  std::vector<std::string> TlsArguments() const {
    return {"--listen",          "tls:127.0.0.1:" + port_,
            "--tls-certificate", server_,
            "--tls-client-ca",   certificates_.ca(),
            "--allow",           "cert:reader"};
  }
  void ExpectServedByTls() {
    ExpectServedAt("cachets://127.0.0.1:" + port_ +
                       "/file?ca=" + certificates_.ca() + "&cert=" + reader_,
                   bytes_);
  }

  // A daemon that is installed elsewhere, with modules of the test's own.
  std::string Install(const std::string &module = "source-http") {
    fs::create_directories(dir_ / "usr/bin");
    fs::create_directories(dir_ / "usr/lib/cachetd");
    fs::copy_file(DaemonProcess::Runfile("daemon/cachetd"), Installed(),
                  fs::copy_options::skip_existing);
    return dir_ / "usr/lib/cachetd/" + module + ".so";
  }
  void InstallWithModule(const std::string &module) {
    const std::string path = Install(module);
    fs::copy_file(DaemonProcess::Runfile("lib/cachetd/" + module + ".so"),
                  path);
  }
  std::string Installed() const { return dir_ / "usr/bin/cachetd"; }

  void StartInstalled(const std::vector<std::string> &more) {
    std::vector<std::string> args = Arguments(more);
    args.insert(args.begin(), {"cachetd", "--config=/dev/null"});
    daemon_ = std::make_unique<DaemonProcess>(
        std::vector<std::string>(),
        [this, &args] { Exec(Installed(), &args); });
  }

  // With an empty configuration file, so that a reload can change the
  // addresses, too.
  void StartReloadable(const std::string &program) {
    std::ofstream(config_) << "";
    std::vector<std::string> args = {"cachetd", "--config", config_, "--image",
                                     "file=" + (dir_ / "file")};
    daemon_ = std::make_unique<DaemonProcess>(
        std::vector<std::string>(), [this, &program, &args] {
          setenv("CACHET_SOCKET", (dir_ / "socket").c_str(), 1);
          Exec(program, &args);
        });
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  }
  void Reload(const std::string &config, const std::string &event) {
    std::ofstream(config_) << config;
    daemon_->Kill(SIGHUP);
    daemon_->AwaitLog("event=" + event);
  }

  static void Exec(const std::string &program, std::vector<std::string> *args) {
    std::vector<char *> argv;
    for (std::string &arg : *args)
      argv.push_back(arg.data());
    argv.push_back(nullptr);
    execv(program.c_str(), argv.data());
  }

  // It ends at once, for that reason.
  void ExpectRefusedStart(const std::vector<std::string> &more,
                          const std::string &why) {
    StartInstalled(more);
    EXPECT_EQ(daemon_->Wait(), 2);
    EXPECT_THAT(daemon_->log(), HasSubstr(why));
  }
  void ExpectRefused(const std::string &uri, const std::string &why) {
    ExpectRefusedStart({"--image", "d=" + uri}, "image \"d\": source: " + why);
  }
  void ExpectRefused(const std::string &why) {
    ExpectRefused(nginx_.Url("/x"), "http: " + why);
  }

  TempDir dir_;
  const std::string config_ = dir_ / "config";
  Nginx nginx_;
  Certificates certificates_;
  const std::string port_ = std::to_string(DaemonProcess::FreePort());
  std::vector<uint8_t> bytes_, whole_pages_;
  std::string root_, server_, reader_;
  std::unique_ptr<DaemonProcess> daemon_;
};

TEST_F(ModulesTest, ADaemonOfFilesLoadsNone) {
  Start({});
  ExpectServed("file");
  EXPECT_THAT(Maps(), AllOf(Not(HasSubstr("/source-")), Not(HasSubstr("curl")),
                            Not(HasSubstr("nbd")), Not(HasSubstr("gnutls")),
                            Not(HasSubstr("/tls.so")), Not(HasSubstr("libssl")),
                            Not(HasSubstr("libcrypto"))));
  Stop();
}

TEST_F(ModulesTest, AnImageLoadsTheModuleOfItsKindAlone) {
  Start({"--image", "d=" + nginx_.Url("/x")});
  ExpectServed("d");
  EXPECT_THAT(Maps(), AllOf(HasSubstr("source-http"), HasSubstr("libcurl"),
                            Not(HasSubstr("libnbd"))));
  Stop();
}

// By threads whose filters forbid code to be mapped: the reactor's may.
TEST_F(ModulesTest, AnImageThatIsAddedLoadsItsModule) {
  const std::string socket = dir_ / "nbd";
  NbdServer nbdkit({"nbdkit", "-f", "-U", socket, "-r", "file", dir_ / "file"},
                   socket);
  Start({});
  EXPECT_EQ(Add("d", nginx_.Url("/x")), "");
  EXPECT_EQ(Add("n", "nbd+unix:///?socket=" + socket), "");
  ExpectServed("d");
  ExpectServed("n");
  EXPECT_THAT(Maps(), AllOf(HasSubstr("libcurl"), HasSubstr("libnbd")));
  Stop();
}

TEST_F(ModulesTest, AReloadLoadsTheModuleOfANewImage) {
  const std::string config = dir_ / "config";
  std::ofstream(config) << "";
  Start({"--config", config});
  std::ofstream(config) << "[image d]\nsource = " << nginx_.Url("/x") << "\n";
  daemon_->Kill(SIGHUP);
  daemon_->AwaitLog("event=reloaded");
  ExpectServed("d");
  EXPECT_THAT(Maps(), HasSubstr("libcurl"));
  Stop();
}

TEST_F(ModulesTest, OneThatIsNotInstalledIsNamedWithItsPackage) {
  Install();
  ExpectRefused("it is not installed; install the package cachetd");
  ExpectRefused("rbd:pool/image",
                "rbd: it is not installed; install the package cachetd-rbd");
}

TEST_F(ModulesTest, OneThatIsInstalledMeanwhileIsFound) {
  const std::string module = Install();
  StartInstalled({});
  ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  EXPECT_THAT(Add("d", nginx_.Url("/x")), HasSubstr("it is not installed"));
  fs::copy_file(DaemonProcess::Runfile("lib/cachetd/source-http.so"), module);
  EXPECT_EQ(Add("d", nginx_.Url("/x")), "");
  ExpectServed("d");
  Stop();
}

TEST_F(ModulesTest, OneOfAnotherVersionIsRefused) {
  fs::copy_file(DaemonProcess::Runfile("tests/integration/old_module.so"),
                Install());
  ExpectRefused("its module is of version 0.0.1, the program of " +
                std::string(cachet_version()));
}

TEST_F(ModulesTest, WhatIsNoModuleIsRefused) {
  const std::string module = Install();
  std::ofstream(module) << "this is no shared object, whatever its name says";
  ExpectRefused("load its module: " + fs::canonical(dir_ / "usr/bin").string());
  fs::copy_file(DaemonProcess::Runfile("lib/cachetd/source-nbd.so"), module,
                fs::copy_options::overwrite_existing);
  ExpectRefused(fs::canonical(dir_ / "usr/bin").string() +
                "/../lib/cachetd/source-http.so is the module source-nbd; "
                "install the right one");
}

// ---- TLS and verification ---------------------------------------------------

TEST_F(ModulesTest, AnInstalledDaemonServesByTls) {
  InstallWithModule("tls");
  StartInstalled(TlsArguments());
  ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  ExpectServedByTls();
  EXPECT_THAT(Maps(), AllOf(HasSubstr("/tls.so"), HasSubstr("libssl")));
  Stop();
}

TEST_F(ModulesTest, AnInstalledDaemonVerifies) {
  InstallWithModule("source-verified");
  StartInstalled({"--image", "v=" + Verified()});
  ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  ExpectVerifiedServed();
  EXPECT_THAT(Maps(), AllOf(HasSubstr("/source-verified.so"),
                            HasSubstr("libcrypto"), Not(HasSubstr("libssl"))));
  Stop();
}

TEST_F(ModulesTest, AReloadLoadsTlsForTheFirstAddress) {
  StartReloadable(DaemonProcess::Runfile("daemon/cachetd"));
  EXPECT_THAT(Maps(), Not(HasSubstr("libssl")));
  Reload(TlsSections(), "reloaded");
  ExpectServedByTls();
  EXPECT_THAT(Maps(), HasSubstr("libssl"));
  Stop();
}

TEST_F(ModulesTest, AReloadLoadsWhatVerifiesForTheFirstImage) {
  StartReloadable(DaemonProcess::Runfile("daemon/cachetd"));
  EXPECT_THAT(Maps(), Not(HasSubstr("libcrypto")));
  Reload(VerifiedSection(), "reloaded");
  ExpectVerifiedServed();
  EXPECT_THAT(Maps(), HasSubstr("libcrypto"));
  Stop();
}

TEST_F(ModulesTest, AnImageThatIsAddedLoadsWhatVerifiesIt) {
  Start({});
  EXPECT_EQ(Add("v", Verified()), "");
  ExpectVerifiedServed();
  EXPECT_THAT(Maps(), HasSubstr("libcrypto"));
  Stop();
}

TEST_F(ModulesTest, AnAddressForTlsThatIsNotInstalledIsNamed) {
  Install();
  ExpectRefusedStart(TlsArguments(),
                     "--listen: tls:127.0.0.1:" + port_ +
                         ": TLS: it is not installed; install the package "
                         "cachetd");
}

TEST_F(ModulesTest, AnImageThatCannotBeVerifiedIsNamed) {
  Install();
  ExpectRefusedStart({"--image", "v=" + Verified()},
                     "image \"v\": verification: it is not installed; install "
                     "the package cachetd");
}

TEST_F(ModulesTest, AReloadSaysThatTlsIsNotInstalledAndChangesNothing) {
  Install();
  StartReloadable(Installed());
  Reload(TlsSections(), "reload-failed");
  EXPECT_THAT(daemon_->log(), HasSubstr("tls:127.0.0.1:" + port_ +
                                        ": TLS: it is not installed"));
  ExpectServed("file");
  Stop();
}

TEST_F(ModulesTest, AReloadNamesAnImageThatCannotBeVerified) {
  Install();
  StartReloadable(Installed());
  Reload(VerifiedSection(), "reload-failed");
  EXPECT_THAT(daemon_->log(),
              AllOf(HasSubstr("image=v"),
                    HasSubstr("verification: it is not installed")));
  ExpectServed("file");
  Stop();
}

} // namespace

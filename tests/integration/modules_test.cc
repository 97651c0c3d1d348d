// Modules, the code of kinds of sources: which of them a daemon has loaded,
// when that happens, and what it says of one that is not there or is not right.
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

#include "tests/support/daemon_process.h"
#include "tests/support/nbd_server.h"
#include "tests/support/nginx.h"

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

  void ExpectServed(const std::string &image) {
    cachet *c;
    cachet_error err = {};
    ASSERT_EQ(cachet_open(Uri(image).c_str(), nullptr, &c, &err), CACHET_OK)
        << err.message << daemon_->log();
    std::vector<uint8_t> buf(kSize);
    EXPECT_EQ(cachet_read(c, 0, buf.data(), buf.size()), CACHET_OK)
        << cachet_errmsg(c);
    EXPECT_EQ(buf, bytes_);
    cachet_close(c);
  }

  // A daemon that is installed elsewhere, with modules of the test's own.
  std::string Install() {
    fs::create_directories(dir_ / "usr/bin");
    fs::create_directories(dir_ / "usr/lib/cachetd");
    fs::copy_file(DaemonProcess::Runfile("daemon/cachetd"), Installed(),
                  fs::copy_options::skip_existing);
    return dir_ / "usr/lib/cachetd/source-http.so";
  }
  std::string Installed() const { return dir_ / "usr/bin/cachetd"; }

  void StartInstalled(const std::vector<std::string> &more) {
    std::vector<std::string> args = Arguments(more);
    args.insert(args.begin(), {"cachetd", "--config=/dev/null"});
    daemon_ = std::make_unique<DaemonProcess>(
        std::vector<std::string>(), [this, &args] {
          std::vector<char *> argv;
          for (std::string &arg : args)
            argv.push_back(arg.data());
          argv.push_back(nullptr);
          execv(Installed().c_str(), argv.data());
        });
  }

  // It ends at once, for that reason.
  void ExpectRefused(const std::string &uri, const std::string &why) {
    StartInstalled({"--image", "d=" + uri});
    EXPECT_EQ(daemon_->Wait(), 2);
    EXPECT_THAT(daemon_->log(), HasSubstr("image \"d\": source: " + why));
  }
  void ExpectRefused(const std::string &why) {
    ExpectRefused(nginx_.Url("/x"), "http: " + why);
  }

  TempDir dir_;
  Nginx nginx_;
  std::vector<uint8_t> bytes_;
  std::unique_ptr<DaemonProcess> daemon_;
};

TEST_F(ModulesTest, ADaemonOfFilesLoadsNone) {
  Start({});
  ExpectServed("file");
  EXPECT_THAT(Maps(), AllOf(Not(HasSubstr("/source-")), Not(HasSubstr("curl")),
                            Not(HasSubstr("nbd")), Not(HasSubstr("gnutls"))));
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
  ExpectRefused("its module does not have it");
}

} // namespace

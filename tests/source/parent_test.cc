// A source behind other daemons, which are real ones.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/source/parent_source.h"
#include "tests/support/certificates.h"
#include "tests/support/daemon_process.h"

namespace {

using Bytes = std::vector<uint8_t>;

constexpr uint64_t kSize = (4 << 20) + 777;

class ParentTest : public testing::Test {
protected:
  ParentTest() { Put(kSize, 1); }

  void Put(uint64_t size, uint64_t seed) {
    bytes_ = WriteRandomFile(dir_ / "new", size, seed);
    StampFinely(dir_ / "new");
    ASSERT_EQ(rename((dir_ / "new").c_str(), (dir_ / "image").c_str()), 0);
  }

  std::string Socket(int i = 0) const {
    return dir_ / ("s" + std::to_string(i));
  }
  std::string Uri(int i = 0) const {
    return "cachet+unix:///d?socket=" + Socket(i);
  }

  std::unique_ptr<DaemonProcess> Daemon(std::vector<std::string> listen) {
    std::vector<std::string> args = {"--image", "d=" + (dir_ / "image"),
                                     "--cache-size", "16M"};
    args.insert(args.end(), listen.begin(), listen.end());
    auto daemon = std::make_unique<DaemonProcess>(args);
    EXPECT_TRUE(daemon->ready()) << daemon->log();
    return daemon;
  }
  std::unique_ptr<DaemonProcess> Daemon(int i = 0) {
    return Daemon({"--listen", "unix:" + Socket(i)});
  }

  void ExpectRandomReads(int n) {
    std::mt19937_64 random(TestSeed());
    for (int i = 0; i < n; i++) {
      uint64_t offset = random() % kSize;
      size_t len =
          size_t(random() % std::min<uint64_t>(kSize - offset, 300000));
      s_.ExpectReads(bytes_, offset, len + (offset + len < kSize));
    }
  }

  // Until the source has seen that it is not what it was.
  void AwaitSuccessor() {
    bool has_changed = false;
    while (!has_changed) {
      s_.Reopen(&has_changed);
      usleep(1000);
    }
  }

  TempDir dir_;
  Bytes bytes_;
  ParentSource s_;
};

// ---- Reading
// -------------------------------------------------------------------

TEST_F(ParentTest, ReadsOverAUnixSocket) {
  auto parent = Daemon();
  ASSERT_EQ(s_.Open(Uri()), 0) << s_.fault();
  EXPECT_EQ(s_.get()->size, kSize);
  s_.ExpectReads(bytes_, 0, kSize);
  ExpectRandomReads(200);
}

TEST_F(ParentTest, ReadsOverTcp) {
  const std::string at =
      "127.0.0.1:" + std::to_string(DaemonProcess::FreePort());
  auto parent = Daemon({"--listen", "tcp:" + at});
  ASSERT_EQ(s_.Open("cachet://" + at), 0) << s_.fault(); // its only image
  ExpectRandomReads(200);
}

class ParentTlsTest : public ParentTest {
protected:
  ParentTlsTest()
      : at_("127.0.0.1:" + std::to_string(DaemonProcess::FreePort())) {}

  void Serve(const std::string &certificate,
             const std::vector<std::string> &more = {}) {
    std::vector<std::string> args = {"--listen", "tls:" + at_,
                                     "--tls-certificate", certificate};
    args.insert(args.end(), more.begin(), more.end());
    parent_ = Daemon(args);
  }
  std::string Uri() const { return "cachets://" + at_ + "/d"; }

  Certificates certificates_;
  std::string at_;
  std::unique_ptr<DaemonProcess> parent_;
};

TEST_F(ParentTlsTest, ReadsThroughTlsAndShowsACertificate) {
  Serve(certificates_.Make("server", "IP:127.0.0.1"),
        {"--tls-client-ca", certificates_.ca(), "--allow", "cert:rack"});
  const std::string own = certificates_.Make("client", "DNS:rack"),
                    key = certificates_.SplitKey(own);
  ASSERT_EQ(
      s_.Open(Uri(), {{"ca", certificates_.ca()}, {"cert", own}, {"key", key}}),
      0)
      << s_.fault();
  ExpectRandomReads(100);
  s_.Close();
  EXPECT_EQ(s_.Open(Uri(), {{"ca", certificates_.ca()}}), -EACCES);
}

TEST_F(ParentTlsTest, ACertificateThatIsNotGoodIsRefused) {
  const std::string files[] = {
      certificates_.Make("other", "IP:127.0.0.2"),
      certificates_.Make("expired", "IP:127.0.0.1", Certificates::kExpired),
      certificates_.Make("alone", "IP:127.0.0.1", Certificates::kSelfSigned)};
  for (const std::string &file : files) {
    parent_.reset();
    Serve(file, {"--tls-client-ca", certificates_.ca()});
    EXPECT_EQ(s_.Open(Uri(), {{"ca", certificates_.ca()}}), -EPROTO) << file;
    EXPECT_NE(s_.fault().find("its certificate is not accepted"),
              std::string::npos)
        << s_.fault();
  }
}

TEST_F(ParentTlsTest, ADaemonWithoutTlsIsNotReadThroughIt) {
  parent_ = Daemon({"--listen", "tcp:" + at_});
  EXPECT_LT(s_.Open(Uri(), {{"ca", certificates_.ca()}}), 0);
}

// ---- Not there
// -----------------------------------------------------------------

TEST_F(ParentTest, NoParentIsNoConnection) {
  EXPECT_EQ(s_.Open(Uri()), -ECONNREFUSED);
  EXPECT_EQ(s_.Open("cachet://127.0.0.1:" +
                    std::to_string(DaemonProcess::FreePort()) + "/d"),
            -ECONNREFUSED);
  EXPECT_EQ(s_.Open("cachet://no.such.host.invalid/d"), -EHOSTUNREACH);
  auto parent = Daemon();
  EXPECT_EQ(s_.Open("cachet+unix:///other?socket=" + Socket()), -ENOENT);
}

TEST_F(ParentTest, WhatCannotBeASourceIsRefusedUnasked) {
  struct {
    std::string uri;
    ParentSource::Options options;
  } wrong[] = {
      {"cachet:///d", {}},
      {"cachet://user@host/d", {}},
      {"cachet://host/d?offset=5", {}},
      {"cachet://host/d", {{"ca", "/ca.pem"}}},
      {"cachets://host/d", {{"ca", "ca.pem"}}},
      {"cachets://host/d?ca=ca.pem", {}},
      {"cachets://host/d?cert=c.pem", {}},
      {"cachets://host/d?cert=/c.pem&key=k.pem", {}},
      {"cachet+unix:///d?socket=s", {}},
      {"cachets://host/d", {{"key", "/key.pem"}}},
      {"cachet://host/d", {{"attempt-timeout", "0"}}},
      {"cachet://host/d", {{"attempt-timeout", "5s"}}},
      {"cachet://host/d", {{"parents", "cachet://host:10819/d"}}},
      {"cachet://host/d", {{"parents", "cachet://a/d /file"}}},
  };
  for (const auto &w : wrong)
    EXPECT_EQ(s_.Check(w.uri, w.options), -EINVAL) << w.uri;
  EXPECT_EQ(s_.Check("cachets://[::1]:5/d?ca=/x",
                     {{"parents", "cachet://a/d, cachet+unix:///d"},
                      {"cert", "/c.pem"}}),
            0);
}

// ---- Change
// --------------------------------------------------------------------

TEST_F(ParentTest, ANewEpochAtTheParentEndsTheSourceAndHasASuccessor) {
  auto parent = Daemon();
  ASSERT_EQ(s_.Open(Uri()), 0);
  s_.ExpectReads(bytes_, 0, kSize);
  Put(kSize / 2, 2);
  AwaitSuccessor(); // the parent looks by itself
  EXPECT_EQ(s_.get()->size, kSize / 2);
  s_.ExpectReads(bytes_, 0, kSize / 2);
}

// What is read while the parent changes is the one or the other.
TEST_F(ParentTest, NoReadMixesTwoVersions) {
  auto parent = Daemon();
  ASSERT_EQ(s_.Open(Uri()), 0);
  for (uint64_t seed = 2; seed < 6; seed++) {
    const Bytes before = bytes_;
    Put(kSize, seed);
    bool has_changed = false;
    while (!has_changed) {
      PendingRead r(s_.get(), 0, 1 << 20);
      int status = r.Wait();
      if (status == 0) {
        ASSERT_EQ(memcmp(r.bytes().data(), before.data(), 1 << 20), 0);
      } else {
        ASSERT_EQ(status, -ESTALE);
      }
      ASSERT_EQ(s_.Reopen(&has_changed), 0);
    }
    s_.ExpectReads(bytes_, 0, kSize);
  }
}

TEST_F(ParentTest, AParentThatIsKilledIsReadAgainWhenItIsBack) {
  auto parent = Daemon();
  ASSERT_EQ(s_.Open(Uri()), 0);
  parent->Kill(SIGKILL);
  parent->Wait();
  int status = s_.StatusOf(0, 4096);
  EXPECT_TRUE(status == -ECONNRESET || status == -ECONNREFUSED) << status;
  bool has_changed;
  EXPECT_LT(s_.Reopen(&has_changed), 0);
  parent = Daemon();
  while ((status = s_.StatusOf(0, 4096)) == -ECONNREFUSED)
    usleep(1000);
  EXPECT_EQ(status, -ESTALE); // another process has other epochs
  ASSERT_EQ(s_.Reopen(&has_changed), 0);
  EXPECT_TRUE(has_changed);
  s_.ExpectReads(bytes_, 0, kSize);
}

TEST_F(ParentTest, AParentThatIsStoppedTakesNoLongerThanAnAttempt) {
  auto parent = Daemon();
  ASSERT_EQ(s_.Open(Uri(), {{"attempt-timeout", "1"}}), 0);
  parent->Kill(SIGSTOP);
  EXPECT_EQ(s_.StatusOf(0, 4096), -ETIMEDOUT);
  EXPECT_EQ(s_.StatusOf(0, 4096), -ETIMEDOUT);
  parent->Kill(SIGCONT);
  while (s_.StatusOf(0, 4096) == -ETIMEDOUT)
    ;
  s_.ExpectReads(bytes_, 0, kSize); // and nothing has to be doubted
}

} // namespace

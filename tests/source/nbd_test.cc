// The NBD source, over servers of packages and over one that lies.
#include "source/nbd.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <fstream>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/deadline.h"
#include "cache/source.h"
#include "source/reactor.h"
#include "tests/support/certificates.h"
#include "tests/support/daemon_process.h"
#include "tests/support/nbd_server.h"
#include "tests/support/open_source.h"
#include "tests/support/pending_read.h"

namespace {

using Bytes = OpenSource::Bytes;
using Options = OpenSource::Options;

constexpr uint64_t kSize = 1 << 20;

using Read = PendingRead;

// A gate that a server waits at.
class Gate {
public:
  void Open() {
    std::lock_guard<std::mutex> lock(mutex_);
    is_open_ = true;
    cond_.notify_all();
  }
  void Pass() {
    std::unique_lock<std::mutex> lock(mutex_);
    n_waiting_++;
    cond_.notify_all();
    cond_.wait(lock, [this] { return is_open_; });
  }
  int n_waiting() {
    std::lock_guard<std::mutex> lock(mutex_);
    return n_waiting_;
  }
  void AwaitWaiting(int n) {
    std::unique_lock<std::mutex> lock(mutex_);
    cond_.wait(lock, [&] { return n_waiting_ >= n; });
  }

private:
  std::mutex mutex_;
  std::condition_variable cond_;
  bool is_open_ = false;
  int n_waiting_ = 0;
};

std::string BytesAt(uint64_t offset, size_t len) {
  std::string s(len, '\0');
  for (size_t i = 0; i < len; i++)
    s[i] = char((offset + i) * 131 >> 3);
  return s;
}

// A handler that has all bytes.
bool Answer(FakeNbd::Peer *peer, const FakeNbd::Request &r) {
  peer->Data(r, r.offset, BytesAt(r.offset, r.len), true);
  return true;
}

class NbdTest : public testing::Test, protected OpenSource {
protected:
  NbdTest() : OpenSource(nbd_source_kind) {}
  ~NbdTest() override {
    gate_.Open(); // also if an assertion has failed
    Close();      // before the server ends
  }

  int Open(const std::string &uri, const Options &options = {}) {
    int r = OpenSource::Open(uri, options, open_ms_);
    EXPECT_EQ(strstr(fault_.text, "alice"), nullptr) << fault_.text;
    return r;
  }

  std::string Socket() const { return dir_ / "s"; }
  std::string Uri(const std::string &name = "") const {
    return "nbd+unix:///" + name + "?socket=" + Socket();
  }

  // nbdkit on that socket.
  std::unique_ptr<NbdServer> Nbdkit(std::vector<std::string> args) {
    unlink(Socket().c_str());
    std::vector<std::string> command = {"nbdkit", "-f", "-r", "-U", Socket()};
    command.insert(command.end(), args.begin(), args.end());
    return std::make_unique<NbdServer>(command, Socket());
  }

  // One of the image, through an nbdkit filter with its parameters.
  std::unique_ptr<NbdServer>
  FileServer(const std::string &filter = "",
             const std::vector<std::string> &parameters = {}) {
    std::vector<std::string> args = {"file", dir_ / "image"};
    if (!filter.empty())
      args.insert(args.begin(), "--filter=" + filter);
    args.insert(args.end(), parameters.begin(), parameters.end());
    return Nbdkit(args);
  }

  Bytes MakeImage(uint64_t size = kSize) {
    return WriteRandomFile(dir_ / "image", size, 7);
  }

  // A server that answers with `handler`; open, with these options.
  void Fake(FakeNbd::Handler handler, const Options &options = {},
            const FakeNbd::Export &e = {}) {
    fake_ = std::make_unique<FakeNbd>(Socket(), std::move(handler));
    fake_->SetExport(e);
    ASSERT_EQ(Open(Uri(), options), 0) << fault_.text;
  }

  TempDir dir_;
  // The server's threads use these until it ends.
  Gate gate_;
  std::atomic<bool> answers_{false};
  std::unique_ptr<FakeNbd> fake_;
  long open_ms_ = 60000;
};

// ---- URIs ------------------------------------------------------------------

struct UriCase {
  const char *uri;
  Options options;
  bool is_good;
};

TEST(NbdUriTest, WhatNobodyCouldTrustOrReadIsRefusedBeforeItIsOpened) {
  const std::string ca = "tls-certificates", psk = "tls-psk-file";
  const std::vector<UriCase> cases = {
      {"nbd://host", {}, true},
      {"nbd://host:1/an/export", {}, true},
      {"nbd://[::1]:10809/x", {}, true},
      {"nbd+unix:///?socket=/s", {}, true},
      {"nbd+unix:///x?socket=/s", {{"attempt-timeout", "5"}}, true},
      {"nbd+unix:///x?socket=%2fs", {}, true},
      {"nbd+unix:///x?socket=s", {}, false},
      {"nbds+unix://alice@/x?socket=/s", {{psk, "f"}}, false},
      {"nbds://host/x", {{ca, "d"}}, false},
      {"nbds://host/x", {{ca, "/d"}}, true},
      {"nbds://alice@host/x", {{psk, "/f"}}, true},
      {"nbds+unix://alice@/x?socket=/s", {{psk, "/f"}}, true},
      // Nothing proves which server it is.
      {"nbds://host/x", {}, false},
      {"nbds+unix:///x?socket=/s", {{ca, "/d"}}, false},
      {"nbds://host/x", {{psk, "/f"}}, false},
      {"nbds://alice@host/x", {{psk, "/f"}, {ca, "/d"}}, false},
      // TLS that would not be.
      {"nbd://host/x", {{ca, "/d"}}, false},
      {"nbd://alice@host/x", {{psk, "/f"}}, false},
      // Files that a URI names.
      {"nbds://alice@host/x?tls-psk-file=/etc/shadow", {{psk, "/f"}}, false},
      {"nbds://host/x?tls-certificates=/d", {{ca, "/e"}}, false},
      {"nbd+unix:///x?socket=/s&tls-psk-file=/f", {}, false},
      {"nbd+unix:///x?socket=/s;tls-psk-file=/f", {}, false},
      {"nbd+unix:///x?tls-psk-file=/f", {}, false},
      {"nbd://host/x?socket=/s", {}, false},
      {"nbd+unix:///x", {}, false},
      {"nbd+unix:///x?socket=", {}, false},
      // No URIs, or of others.
      {"nbd:", {}, false},
      {"nbd://", {}, false},
      {"nbd:///x", {}, false},
      {"nbd://alice@/x", {}, false},
      {"nbd:/host/x", {}, false},
      {"nbd+vsock://2/x", {}, false},
      {"nbd://host/x#y", {}, false},
      {"nbd://host/x y", {}, false},
      {"nbd://host/x\n", {}, false},
      {"http://host/x", {}, false},
      // Options.
      {"nbd://host", {{"attempt-timeout", "0"}}, false},
      {"nbd://host", {{"attempt-timeout", "3601"}}, false},
      {"nbd://host", {{"attempt-timeout", "-1"}}, false},
      {"nbd://host", {{"attempt-timeout", "5s"}}, false},
      {"nbd://host", {{"attempt-timeout", ""}}, false},
      {"nbds://host/x", {{ca, ""}}, false},
      {"nbds://host/x", {{ca, "/d"}, {ca, "/e"}}, false},
      {"nbd://host", {{"nonsense", "1"}}, false},
  };
  for (const UriCase &c : cases) {
    std::vector<source_option> list;
    for (const auto &o : c.options)
      list.push_back({o.first.c_str(), o.second.c_str()});
    source_uri u = {c.uri, list.data(), list.size()};
    source_fault fault = {};
    EXPECT_EQ(nbd_source_kind.check(&u, &fault), c.is_good ? 0 : -EINVAL)
        << c.uri << ": " << fault.text;
    EXPECT_EQ(fault.text[0] == '\0', c.is_good) << c.uri;
  }
}

TEST(NbdUriTest, AUriOfAnyLengthIsChecked) {
  std::string uri = "nbd://host/" + std::string(9000, 'x');
  source_uri u = {uri.c_str(), nullptr, 0};
  source_fault fault = {};
  EXPECT_EQ(nbd_source_kind.check(&u, &fault), -EINVAL);
}

TEST_F(NbdTest, AUriThatLibnbdCannotParseIsNotShown) {
  EXPECT_EQ(Open("nbd://alice@[::1/x"), -EINVAL);
}

// ---- Reading ---------------------------------------------------------------

TEST_F(NbdTest, ReadsAnyRangeOfAFile) {
  Bytes content = MakeImage(kSize + 1234);
  auto server = FileServer();
  ASSERT_EQ(Open(Uri()), 0) << fault_.text;
  ASSERT_EQ(src_->size, content.size());
  ExpectReads(content, 0, content.size());
  ExpectReads(content, 4096, 131072);
  ExpectReads(content, 1, 1);
  ExpectReads(content, kSize + 1233, 1);
  ExpectReads(content, 12345, 67890);
}

TEST_F(NbdTest, ReadsManyAtOnce) {
  Bytes content = MakeImage(8 << 20);
  auto server = FileServer();
  ASSERT_EQ(Open(Uri()), 0) << fault_.text;
  std::vector<std::unique_ptr<Read>> reads;
  for (uint64_t i = 0; i < 2048; i++)
    reads.push_back(std::make_unique<Read>(src_, i * 4096, 4096));
  for (uint64_t i = 0; i < 2048; i++) {
    ASSERT_EQ(reads[i]->Wait(), 0);
    ASSERT_EQ(memcmp(reads[i]->bytes().data(), &content[i * 4096], 4096), 0);
  }
}

TEST_F(NbdTest, ReadsACompressedImageThroughQemu) {
  Bytes content = MakeImage();
  std::string image = dir_ / "image", packed = dir_ / "image.qcow2";
  ASSERT_EQ(
      system(("qemu-img convert -c -f raw -O qcow2 " + image + " " + packed)
                 .c_str()),
      0);
  NbdServer server({"qemu-nbd", "-r", "-t", "-f", "qcow2", "-x", "disk", "-k",
                    Socket(), packed},
                   Socket());
  ASSERT_EQ(Open(Uri("disk")), 0) << fault_.text;
  ASSERT_EQ(src_->size, content.size());
  ExpectReads(content, 0, content.size());
  ExpectReads(content, 777, 100000);
  Close();
  EXPECT_EQ(Open(Uri("another")), -ENOENT) << fault_.text;
}

TEST_F(NbdTest, AServerThatTakesWholeBlocksOnlyIsAskedForThose) {
  Bytes content = MakeImage();
  auto server =
      FileServer("blocksize-policy",
                 {"blocksize-minimum=64K", "blocksize-preferred=64K",
                  "blocksize-maximum=128K", "blocksize-error-policy=error"});
  ASSERT_EQ(Open(Uri()), 0) << fault_.text;
  ExpectReads(content, 0, kSize);
  ExpectReads(content, 4096, 4096);
  ExpectReads(content, 65535, 2);
  ExpectReads(content, 100, kSize - 200);
}

TEST_F(NbdTest, HolesAreZeros) {
  auto server = Nbdkit({"data", "@0x8000 1 @0x18000 2", "size=1M"});
  ASSERT_EQ(Open(Uri()), 0) << fault_.text;
  Bytes content(kSize);
  content[0x8000] = 1;
  content[0x18000] = 2;
  ExpectReads(content, 0, kSize);
}

TEST_F(NbdTest, ConnectsByTcp) {
  Bytes content = MakeImage();
  std::string port = std::to_string(DaemonProcess::FreePort());
  NbdServer server({"nbdkit", "-f", "-r", "-i", "127.0.0.1", "-p", port, "file",
                    dir_ / "image"},
                   port);
  ASSERT_EQ(Open("nbd://localhost:" + port), 0) << fault_.text;
  ExpectReads(content, 0, kSize);
}

TEST_F(NbdTest, ReadsThatMeetAreSpreadOverFourConnections) {
  FakeNbd::Export e;
  e.multi_conn = true;
  Fake(
      [&](FakeNbd::Peer *peer, const FakeNbd::Request &r) {
        gate_.Pass(); // a connection's thread: so each has one read at once
        return Answer(peer, r);
      },
      {{"attempt-timeout", "60"}}, e);
  std::vector<std::unique_ptr<Read>> reads;
  while (gate_.n_waiting() < 4) { // each finds every link with something to do
    reads.push_back(std::make_unique<Read>(src_, reads.size() * 100, 100));
    poll(nullptr, 0, 1);
  }
  gate_.Open();
  for (auto &r : reads)
    EXPECT_EQ(r->Wait(), 0);
  EXPECT_EQ(fake_->n_connections(), 4);
}

TEST_F(NbdTest, AServerThatDoesNotPromiseItHasOneConnection) {
  Fake([&](FakeNbd::Peer *peer, const FakeNbd::Request &r) {
    gate_.Pass();
    return Answer(peer, r);
  });
  std::vector<std::unique_ptr<Read>> reads;
  for (int i = 0; i < 16; i++)
    reads.push_back(std::make_unique<Read>(src_, i * 100, 100));
  gate_.AwaitWaiting(1);
  gate_.Open();
  for (auto &r : reads)
    EXPECT_EQ(r->Wait(), 0);
  EXPECT_EQ(fake_->n_connections(), 1);
}

// ---- Servers that fail -----------------------------------------------------

TEST_F(NbdTest, AnErrorOfTheServersIsAnErrorOfItsRangeAlone) {
  Bytes content(kSize);
  auto server = Nbdkit(
      {"eval", "get_size=echo 1M",
       "pread=if [ $4 -ge 65536 ] && [ $4 -lt 131072 ]; then echo EIO >&2; "
       "exit 1; fi; dd if=/dev/zero bs=$3 count=1 status=none"});
  ASSERT_EQ(Open(Uri()), 0) << fault_.text;
  ExpectReads(content, 0, 65536);
  EXPECT_EQ(StatusOf(65536, 4096), -EIO);
  EXPECT_EQ(StatusOf(131071, 1), -EIO);
  ExpectReads(content, 131072, 65536);
}

TEST_F(NbdTest, OfRandomErrorsNoneBecomesContent) {
  Bytes content = MakeImage();
  auto server =
      FileServer("error", {"error-pread=EIO", "error-pread-rate=20%"});
  ASSERT_EQ(Open(Uri()), 0) << fault_.text;
  int n_errors = 0;
  for (uint64_t at = 0; at < kSize; at += 4096) {
    for (;;) {
      Read r(src_, at, 4096);
      int status = r.Wait();
      if (status == 0) {
        ASSERT_EQ(memcmp(r.bytes().data(), &content[at], 4096), 0);
        break;
      }
      ASSERT_EQ(status, -EIO);
      n_errors++;
    }
  }
  EXPECT_GT(n_errors, 0);
}

TEST_F(NbdTest, AServerThatIsKilledFailsItsReadsAndTheNextOneConnectsAnew) {
  Bytes content = MakeImage();
  auto server = FileServer("delay", {"rdelay=3600"});
  ASSERT_EQ(Open(Uri()), 0) << fault_.text;
  Read a(src_, 0, 4096), b(src_, 4096, 4096);
  server->Kill();
  EXPECT_EQ(a.Wait(), -ECONNRESET);
  EXPECT_EQ(b.Wait(), -ECONNRESET);
  int status;
  while ((status = StatusOf(0, 4096)) != -ECONNREFUSED) // of more connections
    ASSERT_EQ(status, -ECONNRESET);
  server = FileServer();
  ExpectReads(content, 0, kSize);
}

TEST_F(NbdTest, AServerThatIsStoppedTakesNoLongerThanAnAttempt) {
  Bytes content = MakeImage();
  // By one thread: nbdkit 1.32 fails an assertion where two of them find that
  // their connection is lost.
  auto server = Nbdkit({"-t", "1", "file", dir_ / "image"});
  ASSERT_EQ(Open(Uri(), {{"attempt-timeout", "1"}}), 0) << fault_.text;
  ExpectReads(content, 0, 4096);
  server->Stop();
  int64_t begun = deadline_now();
  EXPECT_EQ(StatusOf(0, 4096), -ETIMEDOUT); // on a connection
  EXPECT_EQ(StatusOf(0, 4096), -ETIMEDOUT); // which is made, but not answered
  EXPECT_GE(deadline_now() - begun, 2000);
  server->Continue();
  int status;
  while ((status = StatusOf(0, 4096)) != 0) // while it catches up
    ASSERT_EQ(status, -ETIMEDOUT);
  ExpectReads(content, 0, kSize);
}

TEST_F(NbdTest, AReadIsOverByItsDeadlineHoweverLongAnAttemptMayTake) {
  Bytes content = MakeImage();
  auto server = Nbdkit({"-t", "1", "file", dir_ / "image"}); // as above
  ASSERT_EQ(Open(Uri(), {{"attempt-timeout", "3600"}}), 0) << fault_.text;
  server->Stop();
  Bytes bytes(4096);
  EXPECT_EQ(source_read_until(src_, 0, bytes.data(), bytes.size(),
                              clock_now_ms() + 100),
            -ETIMEDOUT);
  server->Continue();
  ExpectReads(content, 0, kSize);
}

TEST_F(NbdTest, ALateReadEndsItsConnectionAndTheOthersThereAreLost) {
  Fake(
      [&](FakeNbd::Peer *peer, const FakeNbd::Request &r) {
        if (answers_)
          peer->Data(r, r.offset, BytesAt(r.offset, r.len), true);
        else
          gate_.Pass();
        return true;
      },
      {{"attempt-timeout", "3"}});
  Read late(src_, 0, 4096);
  gate_.AwaitWaiting(1);
  for (int64_t now = deadline_now(); deadline_now() - now < 2000;)
    poll(nullptr, 0, 10); // a later deadline
  Read other(src_, 4096, 4096);
  EXPECT_EQ(late.Wait(), -ETIMEDOUT);
  EXPECT_EQ(other.Wait(), -ECONNRESET);
  // What the server says now comes to nobody.
  Bytes before = late.bytes();
  answers_ = true;
  gate_.Open();
  EXPECT_EQ(StatusOf(0, 4096), 0);
  EXPECT_EQ(late.bytes(), before);
}

TEST_F(NbdTest, AReadThatHadLittleTimeEndsNoOther) {
  Fake(
      [&](FakeNbd::Peer *peer, const FakeNbd::Request &r) {
        if (answers_)
          peer->Data(r, r.offset, BytesAt(r.offset, r.len), true);
        else
          gate_.Pass();
        return true;
      },
      {{"attempt-timeout", "60"}});
  Read other(src_, 4096, 4096);
  gate_.AwaitWaiting(1);
  answers_ = true; // on the next connection
  std::vector<uint8_t> bytes(4096);
  EXPECT_EQ(source_read_until(src_, 0, bytes.data(), bytes.size(),
                              clock_now_ms() + 200),
            -ETIMEDOUT);
  EXPECT_EQ(other.Wait(), 0);
  const std::string content = BytesAt(4096, 4096);
  EXPECT_EQ(other.bytes(), Bytes(content.begin(), content.end()));
  gate_.Open();
}

TEST_F(NbdTest, NoServerIsNoConnection) {
  EXPECT_EQ(Open(Uri()), -ECONNREFUSED) << fault_.text;
  int port = DaemonProcess::FreePort();
  EXPECT_EQ(Open("nbd://127.0.0.1:" + std::to_string(port)), -ECONNREFUSED)
      << fault_.text;
  EXPECT_EQ(Open("nbd://no-such-host.invalid/"), -EHOSTUNREACH) << fault_.text;
}

TEST_F(NbdTest, AServerThatSaysNothingIsOpenedNoLongerThanTheDeadline) {
  MakeImage();
  auto server = FileServer();
  server->Stop();
  open_ms_ = 200;
  EXPECT_EQ(Open(Uri()), -ETIMEDOUT) << fault_.text;
}

// libnbd does not come back from such a one: its connection has to be cut.
TEST_F(NbdTest, AHandshakeWithoutEndIsGivenUp) {
  std::atomic<bool> is_cut{false};
  fake_ = std::make_unique<FakeNbd>(
      Socket(), [](FakeNbd::Peer *, const FakeNbd::Request &) { return true; });
  FakeNbd::Export e;
  e.is_endless = &is_cut;
  fake_->SetExport(e);
  open_ms_ = 300;
  EXPECT_EQ(Open(Uri()), -ETIMEDOUT) << fault_.text;
  while (!is_cut)
    poll(nullptr, 0, 1);
}

// Not with nbdkit: 1.32 may abort when a connection ends in such a moment.
TEST_F(NbdTest, ASourceIsClosedWhileItConnects) {
  FakeNbd::Export e;
  e.multi_conn = true;
  fake_ = std::make_unique<FakeNbd>(Socket(), Answer);
  fake_->SetExport(e);
  for (int i = 0; i < 50; i++) {
    ASSERT_EQ(Open(Uri()), 0) << fault_.text;
    {
      Read a(src_, 0, 4096), b(src_, 4096, 4096); // one more connection helps
      EXPECT_EQ(a.Wait(), 0);
      EXPECT_EQ(b.Wait(), 0);
    }
    Close();
  }
}

// ---- Change ----------------------------------------------------------------

TEST_F(NbdTest, AServerThatComesBackWithAnotherSizeEndsTheSource) {
  MakeImage();
  auto server = FileServer();
  ASSERT_EQ(Open(Uri()), 0) << fault_.text;
  bool has_changed;
  ASSERT_EQ(Reopen(&has_changed), 0);
  EXPECT_FALSE(has_changed);
  server->Kill();
  Bytes content = MakeImage(kSize / 2);
  server = FileServer();
  int status;
  while ((status = StatusOf(0, 4096)) != -ESTALE) // first of the lost one
    ASSERT_EQ(status, -ECONNRESET);
  EXPECT_EQ(StatusOf(kSize - 4096, 4096), -ESTALE);
  ASSERT_EQ(Reopen(&has_changed), 0);
  ASSERT_TRUE(has_changed);
  EXPECT_EQ(src_->size, kSize / 2);
  ExpectReads(content, 0, kSize / 2);
}

TEST_F(NbdTest, AServerThatComesBackWithAnotherExportEndsTheSource) {
  FakeNbd::Export e;
  e.name = "monday";
  Fake(
      [&](FakeNbd::Peer *peer, const FakeNbd::Request &r) {
        if (r.offset == 0)
          return false;
        return Answer(peer, r);
      },
      {}, e);
  EXPECT_EQ(StatusOf(0, 1), -ECONNRESET);
  EXPECT_EQ(StatusOf(1, 1), 0); // the same one
  EXPECT_EQ(StatusOf(0, 1), -ECONNRESET);
  e.name = "tuesday";
  fake_->SetExport(e);
  EXPECT_EQ(StatusOf(1, 1), -ESTALE);
  bool has_changed;
  EXPECT_EQ(Reopen(&has_changed), 0);
  EXPECT_TRUE(has_changed);
  EXPECT_EQ(StatusOf(1, 1), 0);
}

TEST_F(NbdTest, WhatATruncatedExportHasNotIsAnError) {
  Bytes content = MakeImage();
  auto server = FileServer();
  ASSERT_EQ(Open(Uri()), 0) << fault_.text;
  ASSERT_EQ(truncate((dir_ / "image").c_str(), kSize / 2), 0);
  EXPECT_EQ(StatusOf(kSize - 4096, 4096), -EIO);
  EXPECT_EQ(StatusOf(kSize / 2 - 1, 2), -EIO);
  ExpectReads(content, 0, kSize / 2);
}

// ---- TLS -------------------------------------------------------------------

class NbdTlsTest : public NbdTest {
protected:
  NbdTlsTest() : port_(std::to_string(DaemonProcess::FreePort())) {
    content_ = MakeImage();
  }

  std::unique_ptr<NbdServer> TlsServer(std::vector<std::string> tls) {
    std::vector<std::string> command = {"nbdkit",    "-f", "-r", "-i",
                                        "127.0.0.1", "-p", port_};
    command.insert(command.end(), tls.begin(), tls.end());
    command.insert(command.end(), {"file", dir_ / "image"});
    return std::make_unique<NbdServer>(command, port_);
  }

  // A directory as libnbd and nbdkit want it.
  std::string Pki(const Certificates &c, const std::string &role,
                  const std::string &with_key) {
    std::string d = dir_ / (role + std::to_string(n_++));
    EXPECT_EQ(mkdir(d.c_str(), 0700), 0);
    EXPECT_EQ(symlink(c.ca().c_str(), (d + "/ca-cert.pem").c_str()), 0);
    for (std::string part : {"-cert.pem", "-key.pem"}) {
      std::string link = d + "/" + role + part;
      EXPECT_TRUE(with_key.empty() ||
                  symlink(with_key.c_str(), link.c_str()) == 0);
    }
    return d;
  }

  std::unique_ptr<NbdServer>
  CertifiedServer(const Certificates &c, const std::string &names,
                  Certificates::Flaw flaw = Certificates::kNone) {
    std::string made = c.Make("server" + std::to_string(n_), names, flaw);
    return TlsServer(
        {"--tls=require", "--tls-certificates=" + Pki(c, "server", made)});
  }

  std::string Psk(const std::string &line) {
    return certificates_.Write("psk" + std::to_string(n_++), line + "\n");
  }

  std::string HostUri(const std::string &user = "") const {
    return "nbds://" + user + "localhost:" + port_ + "/";
  }

  Certificates certificates_;
  std::string port_;
  Bytes content_;
  int n_ = 0;
};

TEST_F(NbdTlsTest, ReadsFromAServerWhoseCertificateItKnows) {
  auto server = CertifiedServer(certificates_, "DNS:localhost");
  ASSERT_EQ(
      Open(HostUri(), {{"tls-certificates", Pki(certificates_, "client", "")}}),
      0)
      << fault_.text;
  ExpectReads(content_, 0, kSize);
  ExpectReads(content_, 12345, 67890);
}

TEST_F(NbdTlsTest, ShowsItsOwnCertificateIfItIsAskedForOne) {
  std::string made = certificates_.Make("theirs", "DNS:localhost");
  auto server =
      TlsServer({"--tls=require", "--tls-verify-peer",
                 "--tls-certificates=" + Pki(certificates_, "server", made)});
  std::string mine = certificates_.Make("mine", "DNS:client");
  ASSERT_EQ(Open(HostUri(),
                 {{"tls-certificates", Pki(certificates_, "client", mine)}}),
            0)
      << fault_.text;
  ExpectReads(content_, 0, kSize);
  Close();
  EXPECT_LT(
      Open(HostUri(), {{"tls-certificates", Pki(certificates_, "client", "")}}),
      0);
}

TEST_F(NbdTlsTest, ACertificateOfAnotherNameIsRefused) {
  auto server = CertifiedServer(certificates_, "DNS:example.org");
  EXPECT_EQ(
      Open(HostUri(), {{"tls-certificates", Pki(certificates_, "client", "")}}),
      -EACCES);
}

TEST_F(NbdTlsTest, AnExpiredCertificateIsRefused) {
  auto server =
      CertifiedServer(certificates_, "DNS:localhost", Certificates::kExpired);
  EXPECT_EQ(
      Open(HostUri(), {{"tls-certificates", Pki(certificates_, "client", "")}}),
      -EACCES);
}

TEST_F(NbdTlsTest, ACertificateOfAnotherAuthorityIsRefused) {
  auto server = CertifiedServer(certificates_, "DNS:localhost");
  Certificates others;
  EXPECT_EQ(Open(HostUri(), {{"tls-certificates", Pki(others, "client", "")}}),
            -EACCES);
}

// libnbd would then believe whatever certificate comes.
TEST_F(NbdTlsTest, WithoutACertificateOfTheAuthorityNobodyIsBelieved) {
  auto server = CertifiedServer(certificates_, "DNS:localhost");
  std::string empty = dir_ / "empty";
  ASSERT_EQ(mkdir(empty.c_str(), 0700), 0);
  EXPECT_EQ(Open(HostUri(), {{"tls-certificates", empty}}), -EACCES);
  EXPECT_EQ(Open(HostUri(), {{"tls-certificates", dir_ / "none"}}), -EACCES);
}

TEST_F(NbdTlsTest, ReadsFromAServerThatHasTheSameKey) {
  std::string key(64, 'a');
  auto server =
      TlsServer({"--tls=require", "--tls-psk=" + Psk("alice:" + key)});
  ASSERT_EQ(Open(HostUri("alice@"), {{"tls-psk-file", Psk("alice:" + key)}}), 0)
      << fault_.text;
  ExpectReads(content_, 0, kSize);
  Close();
  std::string other(64, 'b');
  EXPECT_EQ(Open(HostUri("alice@"), {{"tls-psk-file", Psk("alice:" + other)}}),
            -EACCES);
  EXPECT_EQ(Open(HostUri("alice@"), {{"tls-psk-file", Psk("bob:" + key)}}),
            -EACCES);
  EXPECT_EQ(Open(HostUri("alice@"), {{"tls-psk-file", dir_ / "none"}}),
            -EACCES);
}

TEST_F(NbdTlsTest, AServerWithoutTlsIsRefused) {
  auto server = TlsServer({"--tls=off"});
  EXPECT_EQ(
      Open(HostUri(), {{"tls-certificates", Pki(certificates_, "client", "")}}),
      -EACCES);
}

TEST_F(NbdTlsTest, AServerThatWantsTlsIsNotReadWithoutIt) {
  auto server = CertifiedServer(certificates_, "DNS:localhost");
  EXPECT_EQ(Open("nbd://localhost:" + port_), -EACCES);
}

// ---- Zeros -----------------------------------------------------------------

// Of the export, which has 1 MiB, the second 256 KiB are data.  The first half
// of what it is asked is answered, the rest is for the next question.
class NbdZeroTest : public NbdTest {
protected:
  static constexpr uint32_t kQuarter = 256 << 10;

  ~NbdZeroTest() override { Close(); } // before what the server uses goes

  void FakeSparse(FakeNbd::Handler status, FakeNbd::Export e = {},
                  const Options &options = {}) {
    fake_ = std::make_unique<FakeNbd>(
        Socket(),
        [this](FakeNbd::Peer *peer, const FakeNbd::Request &r) {
          n_reads_++;
          return Answer(peer, r);
        },
        [this, status](FakeNbd::Peer *peer, const FakeNbd::Request &r) {
          n_questions_++;
          return status(peer, r);
        });
    e.has_status = true;
    fake_->SetExport(e);
    ASSERT_EQ(Open(Uri(), options), 0) << fault_.text;
  }

  // Reads, and says how it began.  What is known ends at once.
  source_outcome Start(uint64_t offset, Bytes *buf) {
    struct Started {
      source_read read;
      std::promise<void> ended;
    } r = {};
    r.read.offset = offset;
    r.read.buf = buf->data();
    r.read.len = buf->size();
    r.read.done = [](source_read *read) {
      reinterpret_cast<Started *>(read)->ended.set_value();
    };
    source_outcome outcome = source_start(src_, &r.read);
    if (outcome == SOURCE_PENDING)
      r.ended.get_future().wait();
    EXPECT_GE(r.read.status, 0);
    EXPECT_TRUE(outcome == SOURCE_PENDING || r.read.status == SOURCE_ZEROS);
    return outcome;
  }

  source_outcome Status(uint64_t offset, size_t len) {
    Bytes buf(len, 0xee);
    return Start(offset, &buf);
  }

  // Whether a read ends at once, with zeros; else it is read.
  bool IsKnown(uint64_t offset, size_t len) {
    Bytes buf(len, 0xee);
    bool was_known = source_knows_zeros(src_, offset, len);
    if (Start(offset, &buf) == SOURCE_DONE) {
      EXPECT_TRUE(source_knows_zeros(src_, offset, len));
      return true;
    }
    EXPECT_FALSE(was_known);
    std::string expected = BytesAt(offset, len);
    EXPECT_EQ(memcmp(buf.data(), expected.data(), len), 0);
    return false;
  }

  void AwaitKnown(uint64_t offset, size_t len) {
    while (!IsKnown(offset, len))
      usleep(1000);
  }

  std::atomic<int> n_reads_{0}, n_questions_{0};
};

TEST_F(NbdZeroTest, WhatTheServerSaysIsZerosIsNotAskedFor) {
  FakeSparse([](FakeNbd::Peer *peer, const FakeNbd::Request &r) {
    EXPECT_EQ(r.offset, 0u);
    EXPECT_EQ(r.len, kSize);
    peer->Extents(r, {kQuarter, 3, kQuarter, 0, 2 * kQuarter, 2});
    return true;
  });
  AwaitKnown(0, 4096);
  int n = n_reads_;
  EXPECT_TRUE(IsKnown(0, kQuarter));
  EXPECT_TRUE(IsKnown(2 * kQuarter, 2 * kQuarter));
  EXPECT_TRUE(IsKnown(kSize - 1, 1));
  EXPECT_EQ(n_reads_, n);
  EXPECT_FALSE(IsKnown(kQuarter, 4096));
  EXPECT_FALSE(IsKnown(kQuarter - 1, 2)) << "it is zeros in part";
  EXPECT_EQ(n_reads_, n + 2);
  EXPECT_EQ(n_questions_, 1);
}

TEST_F(NbdZeroTest, AnAnswerMaySayLessThanWasAsked) {
  FakeSparse([](FakeNbd::Peer *peer, const FakeNbd::Request &r) {
    if (r.offset == 0)
      peer->Extents(r, {kQuarter, 3});
    else
      peer->Extents(r, {kQuarter, 0, 2 * kQuarter, 2});
    return true;
  });
  AwaitKnown(0, 4096);
  EXPECT_FALSE(IsKnown(kQuarter, 1)); // the next question begins there
  AwaitKnown(kSize - 4096, 4096);
  EXPECT_EQ(n_questions_, 2);
}

TEST_F(NbdZeroTest, AReadOfHolesIsZeros) {
  Fake([](FakeNbd::Peer *peer, const FakeNbd::Request &r) {
    peer->Chunk(r, 2, FakeNbd::Big(r.offset, 8) + FakeNbd::Big(r.len / 2, 4),
                false);
    uint64_t middle = r.offset + r.len / 2;
    if (r.offset == 0)
      peer->Chunk(r, 2,
                  FakeNbd::Big(middle, 8) + FakeNbd::Big(r.len - r.len / 2, 4),
                  true);
    else
      peer->Data(r, middle, std::string(r.len - r.len / 2, '\0'), true);
    return true;
  });
  EXPECT_EQ(StatusOf(0, 8192), SOURCE_ZEROS);
  Read half(src_, 8192, 8192);
  EXPECT_EQ(half.Wait(), 0) << "data, whatever it is";
  EXPECT_EQ(half.bytes(), Bytes(8192, 0));
}

TEST_F(NbdZeroTest, AQuestionThatIsNeverAnsweredHoldsNothingUp) {
  FakeSparse([](FakeNbd::Peer *, const FakeNbd::Request &) { return true; });
  for (uint64_t at = 0; at < kSize; at += 65536)
    EXPECT_FALSE(IsKnown(at, 4096));
  EXPECT_EQ(n_questions_, 1);
}

TEST_F(NbdZeroTest, AServerThatComesBackIsAskedAnew) {
  std::atomic<bool> is_first{true};
  FakeSparse([&](FakeNbd::Peer *peer, const FakeNbd::Request &r) {
    uint32_t half = kSize / 2;
    peer->Extents(r, {half, is_first.exchange(false) ? 2u : 0u, half, 0});
    return true;
  });
  AwaitKnown(0, 4096);
  fake_->HangUp();
  while (StatusOf(kSize - 4096, 4096) != 0)
    ; // the first ones may have been lost
  EXPECT_FALSE(IsKnown(0, 4096));
}

TEST_F(NbdZeroTest, WhatItIsToForgetItAsksForAnew) {
  std::atomic<bool> is_first{true};
  FakeSparse([&](FakeNbd::Peer *peer, const FakeNbd::Request &r) {
    peer->Extents(r, {kSize, is_first.exchange(false) ? 2u : 0u});
    return true;
  });
  AwaitKnown(0, 4096);
  source_forget(src_);
  while (n_questions_ < 2)
    ASSERT_FALSE(IsKnown(0, 4096));
  EXPECT_FALSE(IsKnown(0, 4096));
}

TEST_F(NbdZeroTest, AnAnswerThatItIsToForgetBeforeItComesIsPassedBy) {
  FakeSparse([&](FakeNbd::Peer *peer, const FakeNbd::Request &r) {
    bool is_first = n_questions_ == 1;
    if (is_first)
      gate_.Pass();
    peer->Extents(r, {kSize, is_first ? 2u : 0u});
    return true;
  });
  EXPECT_FALSE(IsKnown(0, 4096));
  gate_.AwaitWaiting(1);
  source_forget(src_);
  gate_.Open();
  while (n_questions_ < 2)
    ASSERT_FALSE(IsKnown(0, 4096));
  EXPECT_FALSE(IsKnown(0, 4096));
}

TEST_F(NbdZeroTest, AServerThatSaysLittleIsNotAskedForEver) {
  FakeSparse([](FakeNbd::Peer *peer, const FakeNbd::Request &r) {
    peer->Extents(r, {512, 0});
    return true;
  });
  for (uint64_t at = 0; at < kSize; at += 4096)
    EXPECT_FALSE(IsKnown(at, 512));
  EXPECT_LE(n_questions_, 64);
}

// Far more extents than are remembered, in an export that is read twice.
TEST_F(NbdZeroTest, AServerOfManyTinyExtentsIsAskedOncePerRange) {
  constexpr uint32_t kPage = 4096, kLarge = 128 << 20, kHole = 8 << 20;
  FakeNbd::Export e;
  e.size = kLarge;
  FakeSparse(
      [](FakeNbd::Peer *peer, const FakeNbd::Request &r) {
        std::vector<uint32_t> extents;
        for (uint32_t at = 0; at < kLarge - kHole; at += 2 * kPage)
          extents.insert(extents.end(), {kPage, 2, kPage, 0});
        extents.insert(extents.end(), {kHole, 2});
        EXPECT_EQ(r.offset, 0u);
        peer->Extents(r, extents);
        return true;
      },
      e);
  EXPECT_FALSE(IsKnown(0, kPage));
  AwaitKnown(kLarge - kPage, kPage);
  int n = n_reads_;
  for (int round = 0; round < 2; round++)
    for (uint64_t at = 0; at < kLarge; at += 128 << 10)
      ASSERT_EQ(IsKnown(at, 128 << 10), at >= kLarge - kHole) << at;
  EXPECT_EQ(n_reads_, n + 2 * (kLarge - kHole) / (128 << 10));
  EXPECT_EQ(n_questions_, 1);
}

TEST_F(NbdZeroTest, ConnectionsDoNotAskTheSame) {
  FakeNbd::Export e;
  e.multi_conn = true;
  FakeSparse([](FakeNbd::Peer *, const FakeNbd::Request &) { return true; }, e);
  std::vector<std::unique_ptr<Read>> reads;
  while (fake_->n_connections() < 4) {
    reads.push_back(std::make_unique<Read>(src_, 4096, 4096));
    reads.push_back(std::make_unique<Read>(src_, 4096, 4096));
    poll(nullptr, 0, 1);
  }
  for (int i = 0; i < 100; i++)
    reads.push_back(std::make_unique<Read>(src_, 4096, 4096));
  for (auto &r : reads)
    EXPECT_EQ(r->Wait(), 0);
  EXPECT_EQ(n_questions_, 1);
}

// An answer without any extent ends the connection, for libnbd 1.14, and is an
// error of the question, for libnbd 1.22.
TEST_F(NbdZeroTest, AServerThatBreaksOverQuestionsIsReadWithoutThem) {
  FakeSparse([](FakeNbd::Peer *peer, const FakeNbd::Request &r) {
    peer->Extents(r, {});
    return true;
  });
  for (int i = 0; i < 100; i++)
    StatusOf(4096, 4096);
  EXPECT_LE(n_questions_, 3);
  EXPECT_EQ(StatusOf(4096, 4096), 0);
}

// Its answer, and all that is behind it on that connection, never comes.
TEST_F(NbdZeroTest, AServerThatHangsOverQuestionsIsReadWithoutThem) {
  FakeSparse(
      [this](FakeNbd::Peer *, const FakeNbd::Request &) {
        gate_.Pass();
        return true;
      },
      {}, {{"attempt-timeout", "1"}});
  int n_late = 0;
  for (int n_good = 0; n_good < 20;) {
    int status = StatusOf(4096, 4096);
    ASSERT_TRUE(status == 0 || status == -ETIMEDOUT) << status;
    n_good += status == 0;
    n_late += status < 0;
    ASSERT_LE(n_late, 3);
  }
  EXPECT_EQ(n_questions_, 3);
}

// Some versions of libnbd cut it, and others do not.
TEST_F(NbdZeroTest, AnExtentPastTheEndEndsThere) {
  FakeSparse([](FakeNbd::Peer *peer, const FakeNbd::Request &r) {
    peer->Extents(r, {4096, 0, 0xffffffff, 2, 0xffffffff, 2, 1024, 2});
    return true;
  });
  EXPECT_FALSE(IsKnown(0, 4096)); // a read, by which the question begins
  AwaitKnown(kSize - 4096, 4096);
  EXPECT_TRUE(IsKnown(4096, kSize - 4096));
  EXPECT_FALSE(IsKnown(0, 4096));
}

struct ExtentLie {
  const char *name;
  std::vector<uint32_t> extents; // to the whole export
  uint32_t context = FakeNbd::kContext;
};

class NbdExtentLieTest : public NbdZeroTest,
                         public testing::WithParamInterface<ExtentLie> {};

// And what it says of bytes is believed all the same: it may be a poor server.
TEST_P(NbdExtentLieTest, IsTheLastAnswerAndNoReadHangsOnIt) {
  FakeSparse([](FakeNbd::Peer *peer, const FakeNbd::Request &r) {
    peer->Extents(r, GetParam().extents, GetParam().context);
    return true;
  });
  for (int i = 0; i < 3; i++)
    for (uint64_t at = 4096; at < kSize; at += 64 << 10)
      EXPECT_FALSE(IsKnown(at, 4096)) << at;
}

const ExtentLie kExtentLies[] = {
    {"OfNoBytes", {0, 2, uint32_t(kSize), 2}},
    {"OfNoBytesAgainAndAgain", std::vector<uint32_t>(2000, 0)},
    {"OfAnotherContext", {uint32_t(kSize), 2}, 77},
};

INSTANTIATE_TEST_SUITE_P(All, NbdExtentLieTest, testing::ValuesIn(kExtentLies),
                         [](const testing::TestParamInfo<ExtentLie> &c) {
                           return c.param.name;
                         });

// What nbdkit was asked to read, by its log.
TEST_F(NbdZeroTest, NbdkitIsNotAskedToReadWhatItSaysIsAHole) {
  std::string log = dir_ / "log";
  constexpr uint64_t kLarge = 256 << 20, kData = 100 << 20;
  Bytes content = MakeImage(65536);
  std::string moved = dir_ / "sparse";
  int fd = open(moved.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_EQ(ftruncate(fd, kLarge), 0);
  ASSERT_EQ(pwrite(fd, content.data(), content.size(), kData), 65536);
  close(fd);
  auto server = Nbdkit({"--filter=log", "file", moved, "logfile=" + log});
  ASSERT_EQ(Open(Uri()), 0) << fault_.text;
  // The first of them may be asked for.
  while (Status(0, 65536) != SOURCE_DONE)
    usleep(1000);
  for (uint64_t at = 0; at < kLarge; at += 1 << 20) {
    if (at == kData)
      continue;
    EXPECT_EQ(Status(at, 65536), SOURCE_DONE) << at;
  }
  Read r(src_, kData, 65536);
  EXPECT_EQ(r.Wait(), 0);
  EXPECT_EQ(r.bytes(), content);
  std::ifstream lines(log);
  int n_reads = 0;
  for (std::string line; std::getline(lines, line);) {
    size_t at = line.find(" Read id="), offset = line.find("offset=0x");
    if (at == std::string::npos || offset == std::string::npos)
      continue;
    uint64_t asked = std::stoull(line.substr(offset + 9), nullptr, 16);
    EXPECT_TRUE(asked == 0 || asked == kData) << line;
    n_reads++;
  }
  EXPECT_GT(n_reads, 0);
}

// ---- Servers that lie ------------------------------------------------------

using Lie = bool (*)(FakeNbd::Peer *peer, const FakeNbd::Request &r);

struct LieCase {
  const char *name;
  Lie lie;
  int status;
  int other = 0; // what some versions of libnbd make of it; 0: the same
};

class NbdLieTest : public NbdTest,
                   public testing::WithParamInterface<LieCase> {};

TEST_P(NbdLieTest, IsNotBelieved) {
  std::atomic<int> n{0};
  Fake([&](FakeNbd::Peer *peer, const FakeNbd::Request &r) {
    if (n++ == 0)
      return GetParam().lie(peer, r);
    return Answer(peer, r);
  });
  int status = StatusOf(4096, 8192);
  EXPECT_TRUE(status == GetParam().status ||
              (GetParam().other && status == GetParam().other))
      << status;
  // It is no worse for what comes later.
  while ((status = StatusOf(4096, 8192)) != 0)
    ASSERT_EQ(status, -ECONNRESET);
}

const LieCase kLies[] = {
    {"FirstHalfTwice",
     [](FakeNbd::Peer *p, const FakeNbd::Request &r) {
       std::string half = BytesAt(r.offset, r.len / 2);
       p->Data(r, r.offset, half, false);
       p->Data(r, r.offset, half, true);
       return true;
     },
     -EPROTO},
    {"OneByteTwiceAndOneNever",
     [](FakeNbd::Peer *p, const FakeNbd::Request &r) {
       p->Data(r, r.offset, BytesAt(r.offset, r.len / 2), false);
       p->Data(r, r.offset + r.len / 2 - 1, BytesAt(0, r.len / 2), true);
       return true;
     },
     -EPROTO},
    {"HalfOfIt",
     [](FakeNbd::Peer *p, const FakeNbd::Request &r) {
       p->Data(r, r.offset, BytesAt(r.offset, r.len / 2), true);
       return true;
     },
     -EPROTO},
    {"Nothing",
     [](FakeNbd::Peer *p, const FakeNbd::Request &r) {
       p->Done(r);
       return true;
     },
     -EPROTO},
    {"BytesBeforeTheRange",
     [](FakeNbd::Peer *p, const FakeNbd::Request &r) {
       p->Data(r, r.offset - 1, BytesAt(r.offset - 1, r.len), true);
       return true;
     },
     -EPROTO},
    {"BytesBehindTheRange",
     [](FakeNbd::Peer *p, const FakeNbd::Request &r) {
       p->Data(r, r.offset + 1, BytesAt(r.offset + 1, r.len), true);
       return true;
     },
     -EPROTO},
    {"AHoleOver4GiB",
     [](FakeNbd::Peer *p, const FakeNbd::Request &r) {
       p->Chunk(r, 2, FakeNbd::Big(r.offset, 8) + FakeNbd::Big(0xffffffff, 4),
                true);
       return true;
     },
     -EPROTO},
    {"AnAnswerToNobody",
     [](FakeNbd::Peer *p, const FakeNbd::Request &r) {
       FakeNbd::Request other = r;
       other.cookie += 1000;
       p->Done(other);
       return false;
     },
     -EPROTO, -ECONNRESET}, // libnbd 1.22 passes it by
    {"NoReplyAtAll",
     [](FakeNbd::Peer *p, const FakeNbd::Request &) {
       p->Send(std::string(64, 'x'));
       return true;
     },
     -EPROTO},
    {"HalfAndThenAnError",
     [](FakeNbd::Peer *p, const FakeNbd::Request &r) {
       p->Data(r, r.offset, BytesAt(r.offset, r.len / 2), false);
       p->Chunk(r, 0x8001, FakeNbd::Big(5, 4) + FakeNbd::Big(0, 2), true);
       return true;
     },
     -EIO},
    {"HalfAndThenTheEnd",
     [](FakeNbd::Peer *p, const FakeNbd::Request &r) {
       p->Data(r, r.offset, BytesAt(r.offset, r.len / 2), false);
       return false;
     },
     -ECONNRESET},
    {"TheEndWithinAChunk",
     [](FakeNbd::Peer *p, const FakeNbd::Request &r) {
       p->Send(FakeNbd::ChunkHeader(r.cookie, 1, r.len + 8, true) +
               FakeNbd::Big(r.offset, 8) + BytesAt(r.offset, 100));
       return false;
     },
     -ECONNRESET},
};

INSTANTIATE_TEST_SUITE_P(All, NbdLieTest, testing::ValuesIn(kLies),
                         [](const testing::TestParamInfo<LieCase> &c) {
                           return c.param.name;
                         });

TEST_F(NbdTest, ChunksMayComeInAnyOrder) {
  Fake([](FakeNbd::Peer *peer, const FakeNbd::Request &r) {
    uint32_t third = r.len / 3;
    peer->Data(r, r.offset + 2 * third,
               BytesAt(r.offset + 2 * third, r.len - 2 * third), false);
    peer->Data(r, r.offset, BytesAt(r.offset, third), false);
    peer->Chunk(r, 2,
                FakeNbd::Big(r.offset + third, 8) + FakeNbd::Big(third, 4),
                false);
    peer->Done(r);
    return true;
  });
  Read r(src_, 300, 999);
  ASSERT_EQ(r.Wait(), 0);
  std::string expected = BytesAt(300, 999);
  memset(&expected[333], 0, 333);
  EXPECT_EQ(memcmp(r.bytes().data(), expected.data(), 999), 0);
}

TEST_F(NbdTest, ASizeThatNoFileCanHaveIsRefused) {
  FakeNbd::Export e;
  e.size = uint64_t(1) << 63;
  fake_ = std::make_unique<FakeNbd>(
      Socket(), [](FakeNbd::Peer *, const FakeNbd::Request &) { return true; });
  fake_->SetExport(e);
  EXPECT_EQ(Open(Uri()), -EPROTO) << fault_.text;
}

} // namespace

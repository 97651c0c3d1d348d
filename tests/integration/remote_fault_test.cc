// Images from servers that fail under load: a read has the right bytes or is an
// error, and hits go on.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "source/retrying.h"
#include "tests/support/daemon_process.h"
#include "tests/support/length.h"
#include "tests/support/nbd_server.h"
#include "tests/support/nginx.h"
#include "tests/support/readers.h"
#include "tests/support/scripted_http.h"

namespace {

using Bytes = std::vector<uint8_t>;
using Request = ScriptedHttp::Request;
using Peer = ScriptedHttp::Peer;

constexpr uint64_t kSize = 16 << 20;
constexpr int kReaders = 8, kReads = 100;
constexpr size_t kHot = 64 << 10; // bytes at the front, which are read early

class RemoteFaultTest : public testing::Test {
protected:
  RemoteFaultTest()
      : bytes_(WriteRandomFile(dir_ / "bytes", kSize, 1)),
        others_(WriteRandomFile(dir_ / "others", kHot, 2)) {}

  ~RemoteFaultTest() override {
    if (daemon_) {
      daemon_->Kill(SIGTERM);
      EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
    }
  }

  void Serve(const std::string &source, const std::string &cache_size) {
    daemon_ = std::make_unique<DaemonProcess>(std::vector<std::string>{
        "--image", "d=" + source, "--image", "other=" + (dir_ / "others"),
        "--cache-size", cache_size, "--listen", "unix:" + (dir_ / "socket")});
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  }

  std::string Uri(const std::string &image) const {
    return "cachet+unix:///" + image + "?socket=" + (dir_ / "socket");
  }
  cachet *Open(const std::string &image) const {
    cachet *c = nullptr;
    EXPECT_EQ(cachet_open(Uri(image).c_str(), nullptr, &c, nullptr), CACHET_OK);
    return c;
  }

  // Random ranges: false, if one is read and has other bytes.
  bool ReadsNothingWrong(cachet *c, uint64_t seed) const {
    std::mt19937_64 random(seed);
    for (int i = 0; i < kReads; i++) {
      const uint64_t addr = random() % (kSize - 40000);
      Bytes read(1 + random() % 40000);
      if (cachet_read(c, addr, read.data(), read.size()) == CACHET_OK &&
          memcmp(read.data(), &bytes_[addr], read.size()) != 0)
        return false;
    }
    return true;
  }

  // Of a server that is well again.
  void ExpectWhole() const {
    cachet *c = Open("d");
    for (uint64_t addr = 0; addr < kSize; addr += kHot) {
      Bytes read(kHot);
      while (cachet_read(c, addr, read.data(), kHot) != CACHET_OK)
        usleep(10000); // until the daemon asks again
      ASSERT_EQ(memcmp(read.data(), &bytes_[addr], kHot), 0) << addr;
    }
    cachet_close(c);
  }

  TempDir dir_;
  const Bytes bytes_, others_;
  std::unique_ptr<DaemonProcess> daemon_;
};

// Answers one request of five with a fault, as long as it is bad.
class FlakyHttp {
public:
  FlakyHttp(const Bytes &bytes, uint64_t seed)
      : bytes_(bytes), random_(seed),
        server_([this](const Request &r, Peer &p) { Answer(r, p); }) {}

  std::string Url() const { return server_.Url(); }
  size_t n_requests() const { return server_.requests().size(); }

  std::atomic<bool> is_bad{false};
  std::atomic<bool> fails{false};               // every request, and at once
  std::atomic<uint64_t> bad_byte{~uint64_t{0}}; // every range that has it

private:
  enum Fault { kError, kLater, kReset, kShort, kClose, kOtherRange, kNone };

  Fault Roll(const Request &r) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (fails || (r.first <= bad_byte && bad_byte <= r.last))
      return kError;
    return is_bad && random_() % 5 == 0 ? Fault(random_() % kNone) : kNone;
  }

  std::string Head(const Request &r, uint64_t first) const {
    return "HTTP/1.1 206 OK\r\nETag: \"1\"\r\nContent-Range: bytes " +
           std::to_string(first) + "-" +
           std::to_string(first + r.last - r.first) + "/" +
           std::to_string(kSize) +
           "\r\nContent-Length: " + std::to_string(r.last - r.first + 1) +
           "\r\n\r\n";
  }

  void Answer(const Request &r, Peer &peer) {
    const std::string body(bytes_.begin() + long(r.first),
                           bytes_.begin() + long(r.last) + 1);
    switch (Roll(r)) {
    case kError:
      peer.Send("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
      break;
    case kLater:
      peer.Send("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n");
      break;
    case kReset:
      peer.Send(Head(r, r.first) + body.substr(0, body.size() / 2));
      peer.Reset();
      break;
    case kShort:
      peer.Send(Head(r, r.first) + body.substr(0, body.size() - 1));
      peer.Close();
      break;
    case kClose:
      peer.Close();
      break;
    case kOtherRange:
      peer.Send(Head(r, r.first ? 0 : 1) + body);
      break;
    case kNone:
      peer.Send(Head(r, r.first) + body);
      break;
    }
  }

  const Bytes &bytes_;
  std::mutex mutex_;
  std::mt19937_64 random_;
  ScriptedHttp server_; // the last: its threads use the others
};

TEST_F(RemoteFaultTest, OfAnHttpServerThatFailsAtRandomNoByteIsWrong) {
  const uint64_t seed = TestSeed();
  FlakyHttp server(bytes_, seed);
  Serve(server.Url(), "4M");
  server.is_bad = true;
  std::vector<std::thread> readers;
  for (int i = 0; i < kReaders; i++)
    readers.emplace_back([&, i] {
      cachet *c = Open("d");
      EXPECT_TRUE(ReadsNothingWrong(c, seed + uint64_t(i)));
      cachet_close(c);
    });
  for (std::thread &t : readers)
    t.join();
  server.is_bad = false;
  ExpectWhole();
}

// A miss reads a block of 128 pages.  Were each of them asked for on its own,
// as of a disk with a bad sector, that would be more than a thousand requests.
TEST_F(RemoteFaultTest, AnErrorOfTheServerIsNotAskedForPageByPage) {
  FlakyHttp server(bytes_, 1);
  Serve(server.Url(), "4M");
  cachet *c = Open("d");
  server.fails = true;
  const size_t before = server.n_requests();
  uint8_t bytes[4096];
  EXPECT_EQ(cachet_read(c, 0, bytes, sizeof bytes), CACHET_E_IO);
  EXPECT_NE(strstr(cachet_errmsg(c), strerror(EREMOTEIO)), nullptr)
      << cachet_errmsg(c);
  // The block, and the page alone.
  EXPECT_LE(server.n_requests() - before, size_t{2 * RETRYING_ATTEMPTS});
  cachet_close(c);
  server.fails = false;
  ExpectWhole();
}

TEST_F(RemoteFaultTest, APageIsReadBesideOneThatTheServerCannotGive) {
  FlakyHttp server(bytes_, 1);
  Serve(server.Url(), "4M");
  cachet_options options{};
  options.struct_size = sizeof options;
  options.flags = CACHET_NO_READAHEAD;
  cachet *c = nullptr;
  ASSERT_EQ(cachet_open(Uri("d").c_str(), &options, &c, nullptr), CACHET_OK);
  server.bad_byte = 5 * 4096 + 100;
  for (uint64_t page = 0; page < 10; page++) {
    Bytes read(4096);
    EXPECT_EQ(cachet_read(c, page * 4096, read.data(), read.size()),
              page == 5 ? CACHET_E_IO : CACHET_OK)
        << page;
    if (page != 5) {
      EXPECT_EQ(memcmp(read.data(), &bytes_[page * 4096], read.size()), 0);
    }
  }
  cachet_close(c);
}

TEST_F(RemoteFaultTest, OfAnNbdServerThatFailsAtRandomNoByteIsWrong) {
  const uint64_t seed = TestSeed();
  const std::string socket = dir_ / "nbd", failing = dir_ / "failing";
  std::ofstream(failing).close(); // while it is there a fifth of reads fail
  NbdServer server({"nbdkit", "-f", "-r", "-U", socket, "--filter=error",
                    "file", dir_ / "bytes", "error-pread=EIO",
                    "error-pread-rate=20%", "error-pread-file=" + failing},
                   socket);
  Serve("nbd+unix:///?socket=" + socket, "4M");
  RunReaders(Uri("d"), 4 * kReaders, [&](cachet *c, int reader) {
    return ReadsNothingWrong(c, seed + uint64_t(reader));
  });
  unlink(failing.c_str());
  ExpectWhole();
}

// A server that is stopped while there is a miss.
class StoppedServerTest : public RemoteFaultTest {
protected:
  ~StoppedServerTest() override {
    nginx_.Continue();
    if (miss_.joinable())
      miss_.join();
    for (cachet *each : {c_, other_, missing_})
      cachet_close(each);
  }

  void Stop() {
    nginx_.Put("x", {reinterpret_cast<const char *>(bytes_.data()), kSize});
    ASSERT_NO_FATAL_FAILURE(Serve(nginx_.Url("/x"), "32M"));
    c_ = Open("d");
    other_ = Open("other");
    missing_ = Open("d");
    ReadHits();
    nginx_.Pause();
    miss_ = std::thread([this] {
      Bytes read(kHot);
      is_read_ =
          cachet_read(missing_, kSize - kHot, read.data(), kHot) == CACHET_OK;
      is_right_ = memcmp(read.data(), &bytes_[kSize - kHot], kHot) == 0;
      ended_ = true;
    });
  }

  void ReadHits() {
    EXPECT_TRUE(ReadsRight(c_, bytes_, 0, kHot));
    EXPECT_TRUE(ReadsRight(other_, others_, 0, kHot));
  }

  void AwaitMiss() {
    while (!ended_)
      usleep(1000);
  }

  Nginx nginx_;
  cachet *c_ = nullptr, *other_ = nullptr, *missing_ = nullptr;
  std::atomic<bool> ended_{false};
  bool is_read_ = false, is_right_ = false; // once it has ended
  std::thread miss_;
};

TEST_F(StoppedServerTest, HitsGoOnAndAMissWaits) {
  ASSERT_NO_FATAL_FAILURE(Stop());
  for (int i = 0; i < 300; i++)
    ReadHits();
  EXPECT_FALSE(ended_);
  nginx_.Continue();
  AwaitMiss();
  EXPECT_TRUE(is_read_ && is_right_);
}

// As long as all attempts of a read may take.
TEST_F(StoppedServerTest, For30SecondsNoByteIsWrongAndItIsReadAgain) {
  using std::chrono::steady_clock;
  if (TestLength(1) == 1)
    GTEST_SKIP() << "30 s: tests/run --long does this";
  ASSERT_NO_FATAL_FAILURE(Stop());
  const auto until = steady_clock::now() + std::chrono::seconds(30);
  while (steady_clock::now() < until) {
    ReadHits();
    usleep(1000);
  }
  nginx_.Continue();
  AwaitMiss();
  EXPECT_TRUE(!is_read_ || is_right_);
  ExpectWhole();
}

} // namespace

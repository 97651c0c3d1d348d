// An image that a daemon has from another one.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tests/support/certificates.h"
#include "tests/support/daemon_process.h"
#include "tests/support/nginx.h"
#include "tests/support/readers.h"

namespace {

constexpr uint64_t kSize = (32 << 20) + 4096;

class ParentImageTest : public testing::Test {
protected:
  ParentImageTest() {
    WriteRandomFile(dir_ / "file", 1, 1); // one is always there
    Put(kSize, 1);
  }
  ~ParentImageTest() override {
    Stop(std::move(child_));
    Stop(std::move(parent_));
  }

  static void Stop(std::unique_ptr<DaemonProcess> daemon) {
    if (!daemon)
      return;
    daemon->Kill(SIGTERM);
    EXPECT_EQ(daemon->Wait(), 0) << daemon->log();
  }

  void Put(uint64_t size, uint64_t seed) {
    bytes_ = WriteRandomFile(dir_ / "new", size, seed);
    StampFinely(dir_ / "new");
    ASSERT_EQ(rename((dir_ / "new").c_str(), (dir_ / "bytes").c_str()), 0);
  }

  std::unique_ptr<DaemonProcess>
  Daemon(const std::string &source, const std::string &cache_size,
         const std::vector<std::string> &listen) {
    std::vector<std::string> args = {"--image",      "d=" + source,
                                     "--image",      "file=" + (dir_ / "file"),
                                     "--cache-size", cache_size};
    args.insert(args.end(), listen.begin(), listen.end());
    auto daemon = std::make_unique<DaemonProcess>(args);
    EXPECT_TRUE(daemon->ready()) << daemon->log();
    return daemon;
  }

  void StartParent(std::vector<std::string> listen = {}) {
    if (listen.empty())
      listen = {"--listen", "unix:" + (dir_ / "parent")};
    parent_ = Daemon(dir_ / "bytes", "16M", listen);
  }
  void StartChild(const std::string &source, const std::string &cache_size) {
    child_ =
        Daemon(source, cache_size, {"--listen", "unix:" + (dir_ / "child")});
  }
  std::string Source() const {
    return "cachet+unix:///d?socket=" + (dir_ / "parent");
  }
  std::string Uri() const {
    return "cachet+unix:///d?socket=" + (dir_ / "child");
  }

  cachet *Open() {
    cachet *c = nullptr;
    EXPECT_EQ(cachet_open(Uri().c_str(), nullptr, &c, nullptr), CACHET_OK)
        << child_->log();
    return c;
  }

  void ReadAtRandom(int n_readers) {
    const uint64_t seed = TestSeed();
    RunReaders(Uri(), n_readers, [&](cachet *c, int reader) {
      return ReadsRandomRangesRight(c, bytes_, seed + uint64_t(reader), 300,
                                    40000);
    });
  }

  TempDir dir_;
  std::vector<uint8_t> bytes_;
  std::unique_ptr<DaemonProcess> parent_, child_;
};

TEST_F(ParentImageTest, RandomReadsThroughAQuarterOfTheImageAreRight) {
  StartParent();
  StartChild(Source(), "8M");
  ReadAtRandom(8);
}

TEST_F(ParentImageTest, ItIsReadOverTcp) {
  const std::string at =
      "localhost:" + std::to_string(DaemonProcess::FreePort());
  StartParent({"--listen", "tcp:127.0.0.1" + at.substr(at.find(':'))});
  StartChild("cachet://" + at + "/d", "8M");
  ReadAtRandom(2);
}

// By the name of a host, and with certificates from files: what the threads
// that make connections do must be what the daemon's sandbox lets them.
TEST_F(ParentImageTest, ItIsReadThroughTls) {
  Certificates certificates;
  const std::string port = std::to_string(DaemonProcess::FreePort());
  StartParent({"--listen", "tls:127.0.0.1:" + port, "--tls-certificate",
               certificates.Make("server", "DNS:localhost"), "--tls-client-ca",
               certificates.ca(), "--allow", "cert:rack"});
  StartChild("cachets://localhost:" + port + "/d,ca=" + certificates.ca() +
                 ",cert=" + certificates.Make("client", "DNS:rack"),
             "8M");
  ReadAtRandom(2);
}

TEST_F(ParentImageTest, AParentThatIsDownAtStartIsReadOnceItIsThere) {
  StartChild(Source(), "8M");
  EXPECT_EQ(child_->CountInLog("image-missing"), 1u) << child_->log();
  cachet *c = nullptr;
  EXPECT_NE(cachet_open(Uri().c_str(), nullptr, &c, nullptr), CACHET_OK);
  StartParent();
  child_->AwaitLog("image-back");
  c = Open();
  EXPECT_TRUE(ReadsRight(c, bytes_, 12345, 54321));
  cachet_close(c);
}

TEST_F(ParentImageTest, WhileTheParentIsGoneHitsGoOn) {
  StartParent();
  StartChild(Source(), "64M");
  cachet *c = Open();
  EXPECT_TRUE(ReadsRight(c, bytes_, 0, 100000));
  parent_->Kill(SIGKILL);
  parent_->Wait();
  parent_.reset();
  char byte;
  EXPECT_LT(cachet_read(c, kSize - 1, &byte, 1), 0);
  EXPECT_TRUE(ReadsRight(c, bytes_, 0, 100000));
  child_->AwaitLog("image-lost");
  StartParent();
  child_->AwaitLog("image-back");
  child_->AwaitLog("image-changed"); // it is another process
  EXPECT_TRUE(ReadsRight(c, bytes_, 0, kSize));
  cachet_close(c);
}

TEST_F(ParentImageTest, AChangeAtTheParentIsANewEpochHere) {
  StartParent();
  StartChild(Source(), "64M");
  cachet *c = Open();
  EXPECT_TRUE(ReadsRight(c, bytes_, 0, 100000));
  Put(kSize / 2, 2);
  child_->AwaitLog("image-changed");
  EXPECT_TRUE(ReadsRight(c, bytes_, 0, kSize / 2));
  EXPECT_EQ(cachet_size(c), kSize / 2);
  cachet_close(c);
}

// A handle's own cache, the child's, and processes that have mapped that.
TEST_F(ParentImageTest, AnInvalidationAtTheParentReachesClientsOfTheChild) {
  StartParent();
  const std::string port = std::to_string(DaemonProcess::FreePort());
  child_ = Daemon(Source(), "64M",
                  {"--listen", "unix:" + (dir_ / "child"), "--listen",
                   "tcp:127.0.0.1:" + port});
  cachet *near = Open(), *far = nullptr, *master = nullptr;
  ASSERT_EQ(cachet_open(("cachet://127.0.0.1:" + port + "/d").c_str(), nullptr,
                        &far, nullptr),
            CACHET_OK);
  ASSERT_EQ(cachet_open(Source().c_str(), nullptr, &master, nullptr),
            CACHET_OK);
  for (cachet *c : {near, far})
    EXPECT_TRUE(ReadsRight(c, bytes_, 0, 1 << 20));
  ASSERT_TRUE(cachet_is_cached(far, 5000));
  ASSERT_TRUE(cachet_is_cached(near, 5000));
  ASSERT_EQ(cachet_invalidate(master, 5000, 1), CACHET_OK)
      << cachet_errmsg(master);
  for (cachet *c : {near, far}) {
    while (cachet_is_cached(c, 5000)) {
      cachet_dispatch(c);
      usleep(1000);
    }
    EXPECT_TRUE(cachet_is_cached(c, 100000));
    EXPECT_TRUE(ReadsRight(c, bytes_, 0, 1 << 20));
  }
  EXPECT_EQ(child_->CountInLog("image-changed"), 0u);
  for (cachet *c : {near, far, master})
    cachet_close(c);
}

TEST_F(ParentImageTest, ADaemonThatIsItsOwnParentHangsNoClient) {
  StartChild(Uri(), "8M");
  cachet *c = nullptr;
  EXPECT_NE(cachet_open(Uri().c_str(), nullptr, &c, nullptr), CACHET_OK);
  ASSERT_EQ(
      cachet_open(("cachet+unix:///file?socket=" + (dir_ / "child")).c_str(),
                  nullptr, &c, nullptr),
      CACHET_OK);
  char byte;
  EXPECT_EQ(cachet_read(c, 0, &byte, 1), CACHET_OK);
  cachet_close(c);
}

// ---- Several parents ---------------------------------------------------------

// An object is replaced in place, and each of two parents sees that when it
// asks for a part that it has not.  Every read is of one version, and every
// epoch is.
TEST_F(ParentImageTest, ParentsThatSeeAChangeOneAfterTheOtherAreNotMixed) {
  constexpr size_t kObject = 24 << 20, kLen = 300000;
  Nginx store;
  std::vector<std::vector<uint8_t>> versions;
  auto put = [&] {
    versions.push_back(
        WriteRandomFile(dir_ / "new", kObject, versions.size() + 1));
    store.Put("d", {reinterpret_cast<char *>(versions.back().data()), kObject});
  };
  put();
  const std::string other = dir_ / "other";
  auto listen = [](const std::string &path) {
    return std::vector<std::string>{"--listen", "unix:" + path};
  };
  parent_ = Daemon(store.Url("/d"), "4M", listen(dir_ / "parent"));
  auto second = Daemon(store.Url("/d"), "4M", listen(other));
  StartChild(Source() + ",parents=cachet+unix:///d?socket=" + other, "4M");
  cachet *c = Open();
  std::mt19937_64 random(TestSeed());
  std::map<uint64_t, size_t> version_of; // each epoch
  std::vector<uint8_t> bytes(kLen);
  for (int i = 0; i < 4; i++) {
    size_t seen = 0;
    for (int n = 0; n < 40 || seen + 1 < versions.size(); n++) {
      size_t addr = random() % (kObject - kLen);
      uint64_t before = cachet_epoch(c);
      if (cachet_read(c, addr, bytes.data(), kLen) != CACHET_OK)
        continue; // it changed again and again
      uint64_t epoch = cachet_epoch(c);
      for (seen = 0; seen < versions.size(); seen++)
        if (memcmp(&versions[seen][addr], bytes.data(), kLen) == 0)
          break;
      ASSERT_LT(seen, versions.size()) << "of no version " << child_->log();
      if (before != epoch)
        continue;
      auto of = version_of.emplace(epoch, seen).first;
      ASSERT_EQ(of->second, seen) << "of two versions, in one epoch";
    }
    put();
  }
  cachet_close(c);
  Stop(std::move(second));
}

// ---- A boot storm --------------------------------------------------------------

constexpr int kHosts = 8, kReadersOfAHost = 3;
constexpr uint64_t kStormSize = (16 << 20) + 777, kStep = 64 << 10;

// All hosts, each with a daemon of its own, read one image at the same time,
// each reader from another place on.
TEST_F(ParentImageTest, HostsBehindOneParentFetchEachByteOnceFromTheStore) {
  Nginx store;
  bytes_ = WriteRandomFile(dir_ / "bytes", kStormSize, 7);
  store.Put("d", {reinterpret_cast<char *>(bytes_.data()), bytes_.size()});
  parent_ =
      Daemon(store.Url("/d"), "64M", {"--listen", "unix:" + (dir_ / "parent")});
  std::vector<std::unique_ptr<DaemonProcess>> hosts;
  std::vector<std::string> uris;
  for (int i = 0; i < kHosts; i++) {
    const std::string socket = dir_ / ("host" + std::to_string(i));
    hosts.push_back(Daemon(Source(), "64M", {"--listen", "unix:" + socket}));
    uris.push_back("cachet+unix:///d?socket=" + socket);
  }
  const uint64_t n_steps = (kStormSize + kStep - 1) / kStep;
  RunReaders(uris[0], kHosts * kReadersOfAHost, [&](cachet *, int reader) {
    cachet *c = nullptr;
    bool right = cachet_open(uris[size_t(reader % kHosts)].c_str(), nullptr, &c,
                             nullptr) == CACHET_OK;
    for (uint64_t i = 0; i < n_steps && right; i++) {
      uint64_t addr = (i + uint64_t(reader) * 11) % n_steps * kStep;
      right = ReadsRight(c, bytes_, addr,
                         size_t(std::min(kStep, kStormSize - addr)));
    }
    cachet_close(c);
    return right;
  });
  uint64_t n_fetched = 0;
  for (const Nginx::Line &line : store.StopAndReadLog())
    n_fetched += line.n_body;
  printf("%d hosts fetched %.4f of the image\n", kHosts,
         double(n_fetched) / double(kStormSize));
  EXPECT_GE(n_fetched, kStormSize);
  EXPECT_LE(n_fetched, kStormSize + kStormSize / 50);
  for (auto &host : hosts)
    Stop(std::move(host));
}

} // namespace

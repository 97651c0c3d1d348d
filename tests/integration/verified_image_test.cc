// Images with a hash tree, served by a daemon: from files that change, and by
// HTTP from a server that lies.
#include <cachet/cachet.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/daemon_process.h"
#include "tests/support/http_client.h"
#include "tests/support/nginx.h"
#include "tests/support/readers.h"
#include "tests/support/scripted_http.h"
#include "tests/support/verity_tree.h"

namespace {

using Bytes = std::vector<uint8_t>;

constexpr uint64_t kPage = 4096, kSize = 1500 * kPage;

struct Close {
  void operator()(cachet *c) const { cachet_close(c); }
};
using Handle = std::unique_ptr<cachet, Close>;

Bytes ReadFile(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(in), {});
}

// Flips a bit where a file has a byte.
void Flip(const std::string &path, off_t at) {
  int fd = open(path.c_str(), O_RDWR);
  uint8_t byte;
  ASSERT_EQ(pread(fd, &byte, 1, at), 1);
  byte ^= 1;
  ASSERT_EQ(pwrite(fd, &byte, 1, at), 1);
  close(fd);
}

class VerifiedImageTest : public testing::Test {
protected:
  VerifiedImageTest() {
    bytes_ = WriteRandomFile(data_, kSize, 1);
    root_ = FormatVerity(data_, tree_);
    StampFinely(data_);
    StampFinely(tree_);
  }

  ~VerifiedImageTest() override {
    if (daemon_) {
      daemon_->Kill(SIGTERM);
      EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
    }
  }

  void Serve(const std::vector<std::string> &args) {
    std::vector<std::string> all = {"--listen", "unix:" + (dir_ / "socket"),
                                    "--metrics", "unix:" + (dir_ / "metrics")};
    all.insert(all.end(), args.begin(), args.end());
    daemon_ = std::make_unique<DaemonProcess>(all);
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  }

  void ServeImage(const std::string &source, const std::string &size = "64M") {
    Serve({"--image", "d=" + source, "--cache-size", size});
  }

  std::string Uri() const {
    return "cachet+unix:///d?socket=" + (dir_ / "socket");
  }

  Handle Open() const {
    cachet *c = nullptr;
    EXPECT_EQ(cachet_open(Uri().c_str(), nullptr, &c, nullptr), CACHET_OK)
        << daemon_->log();
    return Handle(c);
  }

  std::string Sha256() const {
    uint8_t hash[32];
    EVP_Digest(bytes_.data(), bytes_.size(), hash, nullptr, EVP_sha256(),
               nullptr);
    std::string hex;
    char digits[3];
    for (uint8_t byte : hash) {
      snprintf(digits, sizeof digits, "%02x", byte);
      hex += digits;
    }
    return hex;
  }

  bool IsRight(cachet *c, uint64_t addr, size_t len) const {
    return ReadsRight(c, bytes_, addr, len);
  }

  static cachet_status StatusOf(cachet *c, uint64_t addr) {
    uint8_t byte;
    return cachet_read(c, addr, &byte, 1);
  }

  double Metric(const std::string &name) const {
    HttpClient client(dir_ / "metrics");
    MetricsText text(client.Get("/metrics").body);
    return text.values["cachetd_image_" + name + "{image=\"d\"}"];
  }

  TempDir dir_;
  const std::string data_ = dir_ / "data", tree_ = dir_ / "data.verity";
  std::string root_;
  Bytes bytes_;
  std::unique_ptr<DaemonProcess> daemon_;
};

// ---- Files -----------------------------------------------------------------

TEST_F(VerifiedImageTest, AFileIsReadByTheTreeBesideIt) {
  ServeImage(data_ + ",verity-root=" + root_);
  Handle c = Open();
  EXPECT_TRUE(IsRight(c.get(), 0, kSize));
  EXPECT_EQ(daemon_->CountInLog("image-corrupt"), 0u) << daemon_->log();
}

TEST_F(VerifiedImageTest, APageThatChangedIsAnErrorAndNoOtherPageIs) {
  ServeImage(data_ + ",verity-root=" + root_);
  Handle c = Open();
  EXPECT_TRUE(IsRight(c.get(), 0, 10 * kPage));
  Flip(data_, 77 * kPage + 5);
  // Also after the daemon has seen that the file is another one.
  for (int i = 0; i < 3; i++) {
    EXPECT_EQ(StatusOf(c.get(), 77 * kPage), CACHET_E_IO);
    EXPECT_TRUE(IsRight(c.get(), 60 * kPage, 17 * kPage));
    EXPECT_TRUE(IsRight(c.get(), 78 * kPage, 20 * kPage));
  }
  EXPECT_NE(strstr(cachet_errmsg(c.get()), "hash"), nullptr)
      << cachet_errmsg(c.get());
  daemon_->AwaitLog("event=image-corrupt image=d offset=315392 length=4096");
  Flip(data_, 77 * kPage + 5);
  EXPECT_TRUE(IsRight(c.get(), 0, kSize));
}

TEST_F(VerifiedImageTest, ATreeMayBeElsewhereAndInTheImageItself) {
  ASSERT_EQ(rename(tree_.c_str(), (dir_ / "elsewhere").c_str()), 0);
  const std::string both = dir_ / "both";
  WriteRandomFile(both, kSize, 1);
  const std::string root =
      FormatVerity(both, both, {"--hash-offset=" + std::to_string(kSize)});
  Serve({"--image",
         "d=" + data_ + ",verity-root=" + root_ +
             ",verity-tree=" + (dir_ / "elsewhere"),
         "--image",
         "both=" + both + ",verity-root=" + root +
             ",verity-offset=" + std::to_string(kSize)});
  Handle c = Open();
  EXPECT_TRUE(IsRight(c.get(), 0, kSize));
  cachet *opened;
  ASSERT_EQ(
      cachet_open(("cachet+unix:///both?socket=" + (dir_ / "socket")).c_str(),
                  nullptr, &opened, nullptr),
      CACHET_OK);
  c.reset(opened);
  EXPECT_EQ(cachet_size(c.get()), kSize);
  EXPECT_TRUE(IsRight(c.get(), 0, kSize));
}

// Of an image by HTTP, a tree in a file; and of one in a file, a tree by HTTP.
TEST_F(VerifiedImageTest, AnImageAndItsTreeMayBeInDifferentPlaces) {
  Nginx nginx;
  const Bytes tree = ReadFile(tree_);
  nginx.Put("d", {reinterpret_cast<char *>(bytes_.data()), bytes_.size()});
  nginx.Put("t", {reinterpret_cast<const char *>(tree.data()), tree.size()});
  for (const std::string &source :
       {nginx.Url("/d") + ",verity-tree=" + tree_,
        nginx.Url("/d") + ",verity-tree=file:" + tree_,
        data_ + ",verity-tree=" + nginx.Url("/t")}) {
    ServeImage(source + ",verity-root=" + root_);
    Handle c = Open();
    EXPECT_TRUE(IsRight(c.get(), 0, kSize)) << source << daemon_->log();
    c.reset();
    daemon_->Kill(SIGTERM);
    EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
  }
  // A bit of the tree is wrong, and then right again.
  Flip(tree_, off_t(tree.size()) - 1 - 32 * 7);
  StampFinely(tree_);
  ServeImage(nginx.Url("/d") + ",verity-tree=" + tree_ +
             ",verity-root=" + root_);
  Handle c = Open();
  bool fails = false;
  for (uint64_t page = 0; page < kSize / kPage; page++)
    fails = fails || StatusOf(c.get(), page * kPage) == CACHET_E_IO;
  EXPECT_TRUE(fails);
  Flip(tree_, off_t(tree.size()) - 1 - 32 * 7);
  while (!IsRight(c.get(), 0, kSize))
    usleep(10000);
}

TEST_F(VerifiedImageTest, APartOfAnImageIsVerified) {
  ServeImage(data_ + ",offset=1000,length=9000,verity-root=" + root_);
  Handle c = Open();
  Bytes part(9000);
  ASSERT_EQ(cachet_read(c.get(), 0, part.data(), part.size()), CACHET_OK);
  EXPECT_TRUE(memcmp(part.data(), &bytes_[1000], part.size()) == 0);
}

// A superblock of fewer blocks, over the tree that has the root.
TEST_F(VerifiedImageTest, AnImageThatIsCutShortIsRefusedByItsLength) {
  constexpr uint64_t kCut = 1400 * kPage;
  const uint64_t n_blocks = kCut / kPage;
  const int fd = open(tree_.c_str(), O_RDWR);
  ASSERT_EQ(pwrite(fd, &n_blocks, sizeof n_blocks, 72), 8);
  close(fd);
  ASSERT_EQ(truncate(data_.c_str(), kCut), 0);
  const std::string image = "d=" + data_ + ",verity-root=" + root_;
  {
    DaemonProcess refused({"--listen", "unix:" + (dir_ / "socket"), "--image",
                           image + ",length=" + std::to_string(kSize)});
    EXPECT_FALSE(refused.ready());
    EXPECT_NE(refused.Wait(), 0);
    EXPECT_EQ(refused.CountInLog("reaches past the end"), 1u) << refused.log();
  }
  Serve({"--image", image});
  Handle c = Open();
  EXPECT_TRUE(IsRight(c.get(), 0, kCut)) << "the root does not prove the size";
}

TEST_F(VerifiedImageTest, AnImageWhoseTreeIsMissingIsServedOnceItIsThere) {
  ASSERT_EQ(rename(tree_.c_str(), (dir_ / "elsewhere").c_str()), 0);
  Serve({"--image", "d=" + data_ + ",verity-root=" + root_, "--image",
         "other=" + data_});
  EXPECT_EQ(daemon_->CountInLog("image-missing"), 1u) << daemon_->log();
  EXPECT_EQ(daemon_->CountInLog("its hash tree: "), 1u) << daemon_->log();
  cachet *none = nullptr;
  EXPECT_EQ(cachet_open(Uri().c_str(), nullptr, &none, nullptr),
            CACHET_E_NOIMAGE);
  ASSERT_EQ(rename((dir_ / "elsewhere").c_str(), tree_.c_str()), 0);
  daemon_->AwaitLog("image-back");
  Handle c = Open();
  EXPECT_TRUE(IsRight(c.get(), 0, kSize));
}

TEST_F(VerifiedImageTest, AnImageThatIsNoWholeBlocksIsRefusedInWords) {
  ASSERT_EQ(truncate(data_.c_str(), kSize + 5), 0);
  Serve({"--image", "d=" + data_ + ",verity-root=" + root_, "--image",
         "other=" + data_});
  EXPECT_EQ(daemon_->CountInLog("fill it up with zeros to whole blocks"), 1u)
      << daemon_->log();
}

TEST_F(VerifiedImageTest, AReloadChangesTheRoot) {
  const std::string conf = dir_ / "conf";
  const auto configure = [&](const std::string &root) {
    std::ofstream(conf) << "[image d]\nsource = " << data_
                        << "\nverity-root = " << root << "\n";
  };
  configure(root_);
  Serve({"--config", conf});
  Handle c = Open();
  EXPECT_TRUE(IsRight(c.get(), 0, 5 * kPage));
  // Content that the root is not of is not served, also where pages of it were
  // resident.
  bytes_ = WriteRandomFile(data_, kSize, 2);
  const std::string next = FormatVerity(data_, tree_);
  configure(next);
  daemon_->Kill(SIGHUP);
  daemon_->AwaitLog("image-replaced");
  c = Open(); // one that is open may not know of it yet
  EXPECT_TRUE(IsRight(c.get(), 0, kSize));
  configure(root_);
  daemon_->Kill(SIGHUP);
  daemon_->AwaitLog("image-replaced", 2);
  c = Open();
  for (uint64_t page : {0, 1, 1000})
    EXPECT_EQ(StatusOf(c.get(), page * kPage), CACHET_E_IO);
}

TEST_F(VerifiedImageTest, FurtherParentsHaveTheTreeBesideTheirImages) {
  const std::string conf = dir_ / "conf";
  std::vector<std::unique_ptr<DaemonProcess>> parents;
  std::vector<std::string> uris;
  for (const char *name : {"first", "second"}) {
    parents.push_back(std::make_unique<DaemonProcess>(std::vector<std::string>{
        "--listen", "unix:" + (dir_ / name), "--image", "d=" + data_, "--image",
        "d.verity=" + tree_}));
    ASSERT_TRUE(parents.back()->ready()) << parents.back()->log();
    uris.push_back("cachet+unix:///d?socket=" + (dir_ / name));
  }
  std::ofstream(conf) << "[image d]\nsource = " << uris[0]
                      << "\nparents = " << uris[1]
                      << "\nverity-root = " << root_ << "\n";
  Serve({"--config", conf});
  EXPECT_EQ(daemon_->CountInLog("image-missing"), 0u) << daemon_->log();
  Handle c = Open();
  EXPECT_TRUE(IsRight(c.get(), 0, kSize));
}

// ---- Whole files -----------------------------------------------------------

TEST_F(VerifiedImageTest, AFileIsServedOnceItsHashIsRight) {
  ServeImage(data_ + ",sha256=" + Sha256());
  EXPECT_EQ(daemon_->CountInLog("event=image-checking image=d"), 1u);
  daemon_->AwaitLog("event=image-back image=d");
  Handle c = Open();
  EXPECT_TRUE(IsRight(c.get(), 0, 10 * kPage));
  Flip(data_, 77 * kPage + 5);
  EXPECT_EQ(StatusOf(c.get(), 77 * kPage), CACHET_E_IO);
  EXPECT_TRUE(IsRight(c.get(), 78 * kPage, 20 * kPage));
  Flip(data_, 77 * kPage + 5);
  EXPECT_TRUE(IsRight(c.get(), 0, kSize));
}

TEST_F(VerifiedImageTest, AReloadThatChangesItHashesItAgain) {
  const std::string conf = dir_ / "conf",
                    section = "[image d]\nsource = " + data_ +
                              "\nsha256 = " + Sha256() + "\n";
  std::ofstream(conf) << section;
  Serve({"--config", conf});
  daemon_->AwaitLog("event=image-back image=d");
  EXPECT_TRUE(cachet_is_shared(Open().get()));
  std::ofstream(conf) << section << "share = off\n";
  daemon_->Kill(SIGHUP);
  daemon_->AwaitLog("event=image-back image=d", 2);
  EXPECT_EQ(daemon_->CountInLog("event=reload-failed"), 0u) << daemon_->log();
  Handle c = Open();
  EXPECT_FALSE(cachet_is_shared(c.get()));
  EXPECT_TRUE(IsRight(c.get(), 0, kSize));
}

// Threads that hash may not map code.
TEST_F(VerifiedImageTest, AProviderOfOpenSslIsLoadedBeforeAThreadHashes) {
  const std::string right = Sha256(), conf = dir_ / "openssl.cnf";
  std::ofstream(conf) << "openssl_conf = start\n[start]\nproviders = all\n"
                         "[all]\ndefault = on\nlegacy = on\n"
                         "[on]\nactivate = 1\n";
  setenv("OPENSSL_CONF", conf.c_str(), 1);
  ServeImage(data_ + ",sha256=" + right);
  unsetenv("OPENSSL_CONF");
  daemon_->AwaitLog("event=image-back image=d");
  Handle c = Open();
  EXPECT_TRUE(IsRight(c.get(), 0, kSize));
  std::stringstream maps;
  maps << std::ifstream("/proc/" + std::to_string(daemon_->pid()) + "/maps")
              .rdbuf();
  if (maps.str().find("/legacy.so") == std::string::npos)
    GTEST_SKIP() << "OpenSSL has no legacy provider here";
}

TEST_F(VerifiedImageTest, AFileWithAnotherHashIsNotServedUntilItIsReplaced) {
  const std::string right = Sha256();
  Flip(data_, 77 * kPage + 5);
  Serve({"--image", "d=" + data_ + ",sha256=" + right, "--image",
         "other=" + data_});
  daemon_->AwaitLog("event=image-corrupt image=d");
  cachet *none = nullptr;
  EXPECT_EQ(cachet_open(Uri().c_str(), nullptr, &none, nullptr), CACHET_E_IO);
  EXPECT_EQ(daemon_->CountInLog("image-back"), 0u);
  Flip(data_, 77 * kPage + 5);
  daemon_->AwaitLog("event=image-back image=d");
  Handle c = Open();
  EXPECT_TRUE(IsRight(c.get(), 0, kSize));
}

TEST_F(VerifiedImageTest, AFileThatIsNotThereIsHashedOnceItIs) {
  const std::string right = Sha256();
  ASSERT_EQ(rename(data_.c_str(), (dir_ / "elsewhere").c_str()), 0);
  ServeImage(data_ + ",sha256=" + right);
  daemon_->AwaitLog("event=image-missing image=d");
  ASSERT_EQ(rename((dir_ / "elsewhere").c_str(), data_.c_str()), 0);
  daemon_->AwaitLog("event=image-back image=d");
  Handle c = Open();
  EXPECT_TRUE(IsRight(c.get(), 0, kSize));
}

// ---- HTTP ------------------------------------------------------------------

// Serves an image and its tree, and lies as it is told.
class Liar {
public:
  Liar(Bytes data, Bytes tree)
      : objects_{{"/d", std::move(data)}, {"/d.verity", std::move(tree)}},
        server_([this](const ScriptedHttp::Request &r,
                       ScriptedHttp::Peer &peer) { Answer(r, peer); }) {}

  std::string Url() const { return server_.Url("/d"); }
  const ScriptedHttp &server() const { return server_; }

  // The next `n` answers that have the byte have it wrong; -1: all.
  void Lie(const std::string &object, uint64_t at, int n) {
    std::lock_guard<std::mutex> lock(mutex_);
    lies_[object][at] = n;
  }

  void Repent() {
    std::lock_guard<std::mutex> lock(mutex_);
    lies_.clear();
  }

  // Each nth answer has a wrong bit somewhere.
  void LieEach(int nth) {
    std::lock_guard<std::mutex> lock(mutex_);
    each_ = nth;
  }

private:
  void Answer(const ScriptedHttp::Request &r, ScriptedHttp::Peer &peer) {
    std::string body, head;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      const auto object = objects_.find(r.target);
      if (object == objects_.end()) {
        peer.Send("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
        return;
      }
      const Bytes &bytes = object->second;
      body.assign(bytes.begin() + long(r.first),
                  bytes.begin() + long(r.last) + 1);
      for (auto &[at, n] : lies_[r.target])
        if (at >= r.first && at <= r.last && n != 0) {
          body[at - r.first] ^= 2;
          n -= n > 0;
        }
      if (each_ && ++n_answers_ % each_ == 0 && body.size() > 1)
        body[size_t(n_answers_) * 7919 % body.size()] ^= 1;
      head = "HTTP/1.1 206 Partial Content\r\nETag: \"v1\"\r\nContent-Range: "
             "bytes " +
             std::to_string(r.first) + "-" + std::to_string(r.last) + "/" +
             std::to_string(bytes.size()) +
             "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n";
    }
    peer.Send(head + body);
  }

  std::mutex mutex_; // of the rest, but the server
  std::map<std::string, Bytes> objects_;
  std::map<std::string, std::map<uint64_t, int>> lies_;
  int each_ = 0, n_answers_ = 0;
  ScriptedHttp server_;
};

class VerifiedHttpTest : public VerifiedImageTest {
protected:
  void Start(const std::string &more = "") {
    liar_ = std::make_unique<Liar>(bytes_, ReadFile(tree_));
    ServeImage(liar_->Url() + ",verity-root=" + root_ + more);
  }

  std::unique_ptr<Liar> liar_;
};

TEST_F(VerifiedHttpTest, AnImageIsReadByTheTreeBesideIt) {
  Start();
  Handle c = Open();
  EXPECT_TRUE(IsRight(c.get(), 0, kSize));
  EXPECT_EQ(Metric("source_mismatches_total"), 0);
}

TEST_F(VerifiedHttpTest, ABitThatIsFlippedOnceIsReadAgainByAnotherConnection) {
  Start();
  Handle c = Open();
  EXPECT_TRUE(IsRight(c.get(), 0, 1));
  const size_t before = liar_->server().n_connections();
  liar_->Lie("/d", 1000 * kPage + 7, 1);
  EXPECT_TRUE(IsRight(c.get(), 1000 * kPage, 1));
  EXPECT_EQ(Metric("source_mismatches_total"), 1);
  EXPECT_EQ(Metric("source_retries_total"), 1);
  EXPECT_GT(liar_->server().n_connections(), before);
  EXPECT_EQ(daemon_->CountInLog("event=image-corrupt image=d offset=4096000"),
            1u)
      << daemon_->log();
}

TEST_F(VerifiedHttpTest, ABitThatIsAlwaysFlippedIsAnErrorOfItsPageAlone) {
  Start();
  Handle c = Open();
  liar_->Lie("/d", 1000 * kPage + 7, -1);
  EXPECT_EQ(StatusOf(c.get(), 1000 * kPage), CACHET_E_IO);
  EXPECT_TRUE(IsRight(c.get(), 1001 * kPage, 20 * kPage));
  EXPECT_TRUE(IsRight(c.get(), 980 * kPage, 20 * kPage));
  // It was not kept: it is asked for again.
  const double n = Metric("source_mismatches_total");
  EXPECT_GE(n, 4);
  EXPECT_EQ(StatusOf(c.get(), 1000 * kPage), CACHET_E_IO);
  EXPECT_GE(Metric("source_mismatches_total"), n + 4);
  liar_->Repent();
  EXPECT_TRUE(IsRight(c.get(), 0, kSize));
}

TEST_F(VerifiedHttpTest, ATreeThatLiesIsAnErrorUntilItDoesNot) {
  Start(",fetch-size=64K"); // each page of a block is asked for by itself
  Handle c = Open();
  liar_->Lie("/d.verity", 3 * kPage + 7, -1);
  EXPECT_EQ(StatusOf(c.get(), 128 * kPage), CACHET_E_IO);
  liar_->Repent();
  EXPECT_TRUE(IsRight(c.get(), 0, kSize));
}

TEST_F(VerifiedHttpTest, AnObjectIsServedOnceItsHashIsRight) {
  liar_ = std::make_unique<Liar>(bytes_, Bytes());
  ServeImage(liar_->Url() + ",sha256=" + Sha256());
  daemon_->AwaitLog("event=image-back image=d");
  Handle c = Open();
  EXPECT_TRUE(IsRight(c.get(), 0, 10 * kPage));
  // What was right when it was hashed is compared each time.
  liar_->Lie("/d", 1000 * kPage + 7, 1);
  EXPECT_TRUE(IsRight(c.get(), 1000 * kPage, 1));
  EXPECT_EQ(Metric("source_mismatches_total"), 1);
  liar_->Lie("/d", 600 * kPage + 7, -1);
  EXPECT_EQ(StatusOf(c.get(), 600 * kPage), CACHET_E_IO);
  liar_->Repent();
  EXPECT_TRUE(IsRight(c.get(), 0, kSize));
}

TEST_F(VerifiedHttpTest, AnObjectWithAnotherHashIsNotServed) {
  liar_ = std::make_unique<Liar>(bytes_, Bytes());
  liar_->Lie("/d", 1000 * kPage + 7, 1);
  ServeImage(liar_->Url() + ",sha256=" + Sha256());
  daemon_->AwaitLog("event=image-corrupt image=d");
  cachet *none = nullptr;
  EXPECT_EQ(cachet_open(Uri().c_str(), nullptr, &none, nullptr), CACHET_E_IO);
}

TEST_F(VerifiedHttpTest, AnObjectWithAnotherHashIsServedOnceItIsReplaced) {
  const auto text = [this] {
    return std::string(bytes_.begin(), bytes_.end());
  };
  Nginx nginx;
  const std::string right = Sha256();
  bytes_[77 * kPage + 5] ^= 1;
  nginx.Put("d", text());
  ServeImage(nginx.Url("/d") + ",sha256=" + right);
  daemon_->AwaitLog("event=image-corrupt image=d");
  bytes_[77 * kPage + 5] ^= 1;
  nginx.Put("d", text());
  daemon_->AwaitLog("event=image-back image=d");
  Handle c = Open();
  EXPECT_TRUE(IsRight(c.get(), 0, kSize));
}

TEST_F(VerifiedHttpTest, AnObjectThatCannotBeReadToItsEndIsReadEverMoreRarely) {
  constexpr int kRounds = 4;
  std::mutex mutex;
  std::condition_variable begun;
  int n_begun = 0;
  ScriptedHttp server([&](const ScriptedHttp::Request &r,
                          ScriptedHttp::Peer &peer) {
    if (r.first > 0) { // it has changed
      peer.Send("HTTP/1.1 412 No\r\nContent-Length: 0\r\n\r\n");
      return;
    }
    if (r.last > 0) {
      std::lock_guard<std::mutex> lock(mutex);
      n_begun++;
      begun.notify_all();
    }
    const std::string body(bytes_.begin(), bytes_.begin() + long(r.last) + 1);
    peer.Send("HTTP/1.1 206 Partial Content\r\nETag: \"v1\"\r\n"
              "Content-Range: bytes 0-" +
              std::to_string(r.last) + "/" + std::to_string(kSize) +
              "\r\nContent-Length: " + std::to_string(body.size()) +
              "\r\n\r\n" + body);
  });
  const auto begin = std::chrono::steady_clock::now();
  ServeImage(server.Url("/d") + ",sha256=" + Sha256());
  std::unique_lock<std::mutex> lock(mutex);
  begun.wait(lock, [&] { return n_begun >= kRounds; });
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::seconds(7))
      << "pauses of 1, 2 and 4 seconds";
}

// The server has an older image, with the tree that was right for it.
TEST_F(VerifiedHttpTest, AnOlderImageWithItsOwnTreeIsNotBelieved) {
  const std::string root = root_;
  bytes_ = WriteRandomFile(data_, kSize, 2);
  FormatVerity(data_, tree_);
  Start(",fetch-size=64K"); // each page of a block is asked for by itself
  Handle c = Open();
  for (uint64_t page : {0, 700, 1499})
    EXPECT_EQ(StatusOf(c.get(), page * kPage), CACHET_E_IO);
}

TEST_F(VerifiedHttpTest, NoReaderOfALiarHasAWrongByte) {
  liar_ = std::make_unique<Liar>(bytes_, ReadFile(tree_));
  liar_->LieEach(13);
  ServeImage(liar_->Url() + ",fetch-size=64K,verity-root=" + root_, "2M");
  const uint64_t seed = TestSeed();
  std::vector<std::thread> readers;
  for (uint64_t i = 0; i < 4; i++)
    readers.emplace_back([&, i] {
      Handle c = Open();
      EXPECT_TRUE(
          ReadsRandomRangesRight(c.get(), bytes_, seed + i, 100, 40000));
    });
  for (std::thread &reader : readers)
    reader.join();
  EXPECT_GT(Metric("source_mismatches_total"), 0);
}

} // namespace

// Images of a Ceph cluster, read through librbd.
#include "source/rbd.h"

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <rados/librados.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/deadline.h"
#include "cache/source.h"
#include "source/reactor.h"
#include "tests/support/ceph_cluster.h"
#include "tests/support/daemon_process.h"
#include "tests/support/open_source.h"

// The last watch, and how to have the next ones fail.
static struct {
  rados_watcherrcb_t on_lost;
  void *arg;
  uint64_t cookie;
  bool fails;
} last_watch;

extern "C" int rados_watch3(rados_ioctx_t io, const char *object,
                            uint64_t *cookie, rados_watchcb2_t on_notice,
                            rados_watcherrcb_t on_lost, uint32_t timeout,
                            void *arg) {
  static const auto real = reinterpret_cast<decltype(&rados_watch3)>(
      dlsym(RTLD_NEXT, "rados_watch3"));
  int r = real(io, last_watch.fails ? "absent" : object, cookie, on_notice,
               on_lost, timeout, arg);
  last_watch.on_lost = on_lost;
  last_watch.arg = arg;
  last_watch.cookie = *cookie;
  return r;
}

namespace {

using Bytes = OpenSource::Bytes;
using Options = OpenSource::Options;

constexpr uint64_t kObject = 4 << 20; // of an image, unless it is told
constexpr uint64_t kSize = 5 * kObject + 4096;

// What is known to be zeros is over at once.
class Read : public PendingRead {
public:
  Read(source *src, uint64_t offset, size_t len)
      : PendingRead(src, offset, len, Start::kAny) {}
};

class RbdTest : public testing::Test, protected OpenSource {
protected:
  static void SetUpTestSuite() {
    cluster_ = new CephCluster(CephCluster::Gateway::kNone);
  }
  static void TearDownTestSuite() { delete cluster_; }

  RbdTest() : OpenSource(rbd_source_kind) {
    name_ = testing::UnitTest::GetInstance()->current_test_info()->name();
  }

  static bool Rbd(const std::string &arguments) {
    return cluster_->Run("rbd", arguments);
  }

  // An image of this test's name, with a snapshot "s"; returns its bytes.
  Bytes MakeImage(uint64_t seed = 1) {
    Bytes bytes = WriteRandomFile(dir_ / "bytes", kSize, seed);
    EXPECT_TRUE(Rbd("import " + (dir_ / "bytes") + " rbd/" + name_));
    EXPECT_TRUE(Rbd("snap create rbd/" + name_ + "@s"));
    return bytes;
  }

  // Overwrites the image's first object.
  void WriteOver() {
    EXPECT_TRUE(Rbd("bench --io-type write --io-size 1M --io-total 4M "
                    "--io-threads 1 rbd/" +
                    name_));
  }

  std::string Image() const { return "rbd:rbd/" + name_; }
  std::string Snapshot() const { return Image() + "@s"; }

  int Open(const std::string &uri, Options options = {}, long ms = 60000) {
    options.insert(options.begin(), {"conf", cluster_->conf()});
    return OpenSource::Open(uri, options, ms);
  }

  int StatusOf(uint64_t offset, size_t len) {
    return Read(src_, offset, len).Wait();
  }

  // What was opened is not what is there any more.
  void ExpectSuccessor() {
    bool has_changed;
    EXPECT_EQ(StatusOf(0, 4096), -ESTALE);
    EXPECT_EQ(Reopen(&has_changed), 0);
    EXPECT_TRUE(has_changed);
  }

  // Rights of a user of this name, in a file.
  std::string MakeUser(const std::string &id, const std::string &rights) {
    const std::string keyring = dir_ / id;
    EXPECT_TRUE(cluster_->Run("ceph", "auth get-or-create client." + id +
                                          " mon 'profile rbd' osd '" + rights +
                                          "' -o " + keyring));
    return keyring;
  }

  static CephCluster *cluster_;
  TempDir dir_;
  std::string name_;
};

CephCluster *RbdTest::cluster_;

// ---- Reading ---------------------------------------------------------------

TEST_F(RbdTest, ReadsAnyRange) {
  Bytes content = MakeImage();
  for (const std::string &uri : {Image(), Snapshot()}) {
    ASSERT_EQ(Open(uri), 0) << fault_.text;
    ASSERT_EQ(src_->size, kSize);
    ExpectReads(content, 0, kSize);
    ExpectReads(content, kObject - 3000, 6000);
    ExpectReads(content, 131072, 131072);
    ExpectReads(content, 1, 1);
    ExpectReads(content, kSize - 1, 1);
    Close();
  }
}

TEST_F(RbdTest, ReadsManyAtOnce) {
  Bytes content = MakeImage();
  ASSERT_EQ(Open(Snapshot()), 0) << fault_.text;
  std::vector<std::unique_ptr<Read>> reads;
  for (uint64_t i = 0; i < 2048; i++)
    reads.push_back(std::make_unique<Read>(src_, i * 4096, 4096));
  for (uint64_t i = 0; i < 2048; i++) {
    ASSERT_EQ(reads[i]->Wait(), 0);
    ASSERT_EQ(memcmp(reads[i]->bytes().data(), &content[i * 4096], 4096), 0);
  }
}

TEST_F(RbdTest, ASnapshotIsReadAsItWas) {
  Bytes content = MakeImage();
  WriteOver();
  ASSERT_EQ(Open(Snapshot()), 0) << fault_.text;
  ExpectReads(content, 0, kSize);
}

TEST_F(RbdTest, AnImageMayBeInANamespace) {
  Bytes content = WriteRandomFile(dir_ / "bytes", kSize, 2);
  ASSERT_TRUE(Rbd("namespace create rbd/space"));
  ASSERT_TRUE(Rbd("import " + (dir_ / "bytes") + " rbd/space/" + name_));
  ASSERT_EQ(Open("rbd:rbd/space/" + name_), 0) << fault_.text;
  ExpectReads(content, 0, kSize);
  Close();
  EXPECT_EQ(Open(Image()), -ENOENT);
}

TEST_F(RbdTest, ACloneIsReadThroughItsParent) {
  Bytes content = MakeImage();
  const std::string clone = "rbd/" + name_ + "-clone";
  ASSERT_TRUE(Rbd("snap protect rbd/" + name_ + "@s"));
  ASSERT_TRUE(Rbd("clone rbd/" + name_ + "@s " + clone));
  ASSERT_TRUE(Rbd("snap create " + clone + "@t"));
  ASSERT_EQ(Open("rbd:" + clone + "@t"), 0) << fault_.text;
  ExpectReads(content, 0, kSize);
}

TEST_F(RbdTest, ObjectsThatAreNotThereAreZerosOfWhichNobodyIsAsked) {
  const std::string image = "rbd/" + name_;
  ASSERT_TRUE(Rbd("create --size 64M " + image));
  WriteOver();
  ASSERT_TRUE(Rbd("snap create " + image + "@s"));
  ASSERT_EQ(Open(Snapshot()), 0) << fault_.text;
  Read zeros(src_, kObject, 1 << 20), last(src_, (64 << 20) - 1, 1);
  EXPECT_TRUE(source_knows_zeros(src_, kObject, 1 << 20));
  EXPECT_FALSE(zeros.was_asked());
  EXPECT_EQ(zeros.Wait(), SOURCE_ZEROS);
  EXPECT_EQ(last.Wait(), SOURCE_ZEROS);
  Read both(src_, kObject - 4096, 8192), data(src_, kObject - 1, 1);
  EXPECT_TRUE(both.was_asked());
  EXPECT_TRUE(data.was_asked());
  EXPECT_EQ(both.Wait(), 0);
  EXPECT_EQ(data.Wait(), 0);
  EXPECT_EQ(Bytes(both.bytes().begin() + 4096, both.bytes().end()),
            Bytes(4096, 0));
}

TEST_F(RbdTest, WithoutAMapOfObjectsZerosAreRead) {
  const std::string image = "rbd/" + name_;
  ASSERT_TRUE(Rbd("create --image-feature layering --size 64M " + image));
  ASSERT_TRUE(Rbd("snap create " + image + "@s"));
  ASSERT_EQ(Open(Snapshot()), 0) << fault_.text;
  ExpectReads(Bytes(8 << 20, 0), kObject - 4096, 8192);
}

// ---- What cannot be opened -------------------------------------------------

TEST_F(RbdTest, WhatIsNotThereIsNamed) {
  MakeImage();
  const struct {
    std::string uri, words;
  } cases[] = {{"rbd:nopool/x", "pool nopool: No such file"},
               {"rbd:rbd/absent", "image absent: No such file"},
               {"rbd:rbd/nospace/x", "image x: No such file"},
               {"rbd:rbd/" + name_ + "@none", "snapshot none: No such file"}};
  for (const auto &c : cases) {
    EXPECT_EQ(Open(c.uri), -ENOENT) << c.uri;
    EXPECT_NE(strstr(fault_.text, c.words.c_str()), nullptr) << fault_.text;
  }
}

TEST_F(RbdTest, AWrongKeyIsRefused) {
  MakeImage();
  const std::string keyring = dir_ / "keyring";
  ASSERT_EQ(system(("ceph-authtool --create-keyring " + keyring +
                    " --gen-key -n client.admin >/dev/null")
                       .c_str()),
            0);
  EXPECT_EQ(Open(Image(), {{"keyring", keyring}}), -EACCES);
  EXPECT_STREQ(fault_.text, "connecting as client.admin: Permission denied");
  EXPECT_EQ(Open(Image(), {{"id", "nobody"}}), -EACCES) << fault_.text;
}

TEST_F(RbdTest, FilesThatAreNotThereAreNamed) {
  EXPECT_EQ(Open(Image(), {{"conf", dir_ / "none"}}), -ENOENT);
  EXPECT_NE(strstr(fault_.text, "conf /"), nullptr) << fault_.text;
  EXPECT_EQ(Open(Image(), {{"keyring", dir_ / "none"}}), -ENOENT);
  EXPECT_NE(strstr(fault_.text, "keyring /"), nullptr) << fault_.text;
}

TEST_F(RbdTest, WhoMayOnlyReadMayHaveASnapshot) {
  Bytes content = MakeImage();
  const Options reader = {{"id", "reader"},
                          {"keyring", MakeUser("reader", "profile "
                                                         "rbd-read-only")}};
  EXPECT_EQ(Open(Image(), reader), -EACCES);
  EXPECT_NE(strstr(fault_.text, "has to be watched"), nullptr) << fault_.text;
  ASSERT_EQ(Open(Snapshot(), reader), 0) << fault_.text;
  ExpectReads(content, 0, kSize);
}

TEST_F(RbdTest, NoMonitorIsAnErrorInTime) {
  Bytes content = MakeImage();
  ASSERT_EQ(Open(Snapshot()), 0) << fault_.text;
  cluster_->Do("end mon");
  ExpectReads(content, 0, kSize); // a connected client needs none
  Close();
  EXPECT_EQ(Open(Snapshot(), {{"attempt-timeout", "1"}}), -ETIMEDOUT);
  EXPECT_STREQ(fault_.text,
               "connecting as client.admin: nobody answered in time");
  // A thread that waits no longer than that is not kept.
  const int64_t begin = deadline_now();
  EXPECT_EQ(Open(Snapshot(), {}, 200), -ETIMEDOUT);
  EXPECT_LT(deadline_now() - begin, 9000);
  cluster_->Do("start mon");
  ASSERT_EQ(Open(Snapshot()), 0) << fault_.text;
  ExpectReads(content, 0, kSize);
}

// ---- An OSD that does not answer -------------------------------------------

TEST_F(RbdTest, AnOsdThatIsStoppedTakesNoLongerThanAnAttempt) {
  Bytes content = MakeImage();
  ASSERT_EQ(Open(Snapshot(), {{"attempt-timeout", "1"}}), 0) << fault_.text;
  cluster_->Do("pause osd");
  Read late(src_, 0, 131072);
  EXPECT_EQ(late.Wait(), -ETIMEDOUT);
  EXPECT_EQ(late.bytes(), Bytes(131072, 0xee));
  cluster_->Do("continue osd");
  int r;
  while ((r = StatusOf(kObject, 4096)) == -ETIMEDOUT)
    ; // until it has caught up
  EXPECT_EQ(r, 0);
  ExpectReads(content, 0, kSize);
  EXPECT_EQ(late.bytes(), Bytes(131072, 0xee)); // what came late is nowhere
}

TEST_F(RbdTest, WhatIsGivenUpIsClosedAllTheSame) {
  MakeImage();
  ASSERT_EQ(Open(Snapshot(), {{"attempt-timeout", "1"}}), 0) << fault_.text;
  cluster_->Do("pause osd");
  {
    std::vector<std::unique_ptr<Read>> reads;
    for (uint64_t i = 0; i < 16; i++)
      reads.push_back(std::make_unique<Read>(src_, i * 131072, 131072));
    for (const auto &r : reads)
      EXPECT_EQ(r->Wait(), -ETIMEDOUT);
  }
  Close();
  cluster_->Do("continue osd");
}

// Nobody knows when librbd gives back what it was to write to.
TEST_F(RbdTest, OfWhatDoesNotComeNoMoreThanABoundIsHeld) {
  MakeImage();
  ASSERT_EQ(Open(Snapshot(), {{"attempt-timeout", "1"}}), 0) << fault_.text;
  cluster_->Do("pause osd");
  {
    constexpr int kBound = (64 << 20) / (1 << 20);
    std::vector<std::unique_ptr<Read>> reads;
    for (uint64_t i = 0; i < kBound + 8; i++)
      reads.push_back(std::make_unique<Read>(src_, i % 16 << 20, 1 << 20));
    for (size_t i = 0; i < reads.size(); i++)
      EXPECT_EQ(reads[i]->Wait(), i < kBound ? -ETIMEDOUT : -EAGAIN) << i;
  }
  cluster_->Do("continue osd");
  int r;
  while ((r = StatusOf(0, 4096)) == -ETIMEDOUT || r == -EAGAIN)
    ; // until it has caught up
  EXPECT_EQ(r, 0);
}

TEST_F(RbdTest, AnOsdThatEndsIsReadAgainWhenItIsBack) {
  Bytes content = MakeImage();
  ASSERT_EQ(Open(Snapshot(), {{"attempt-timeout", "1"}}), 0) << fault_.text;
  ExpectReads(content, 0, 4096);
  cluster_->Do("end osd");
  EXPECT_EQ(StatusOf(4096, 4096), -ETIMEDOUT);
  cluster_->Do("start osd");
  bool has_changed;
  int r;
  while ((r = StatusOf(4096, 4096)) == -ETIMEDOUT || r == -ESTALE)
    if (r == -ESTALE) // nobody watched meanwhile
      Reopen(&has_changed);
  EXPECT_EQ(r, 0);
  ExpectReads(content, 0, kSize);
}

// ---- Change ----------------------------------------------------------------

TEST_F(RbdTest, AnImageThatShrinksIsANewVersion) {
  Bytes content = MakeImage();
  ASSERT_EQ(Open(Image()), 0) << fault_.text;
  ExpectReads(content, 0, kSize);
  ASSERT_TRUE(Rbd("resize --allow-shrink --size 8M rbd/" + name_));
  ExpectSuccessor();
  EXPECT_EQ(src_->size, 8u << 20);
  ExpectReads(content, 0, 8 << 20);
}

TEST_F(RbdTest, AnImageThatIsRolledBackIsANewVersion) {
  Bytes content = MakeImage();
  WriteOver();
  ASSERT_EQ(Open(Image()), 0) << fault_.text;
  Read r(src_, 0, 4096);
  EXPECT_EQ(r.Wait(), 0);
  EXPECT_NE(memcmp(r.bytes().data(), content.data(), 4096), 0);
  ASSERT_TRUE(Rbd("snap rollback rbd/" + name_ + "@s"));
  ExpectSuccessor();
  ExpectReads(content, 0, kSize);
}

TEST_F(RbdTest, ASnapshotStaysWhatItIsWhenItsImageChanges) {
  Bytes content = MakeImage();
  ASSERT_EQ(Open(Snapshot()), 0) << fault_.text;
  ASSERT_TRUE(Rbd("snap create rbd/" + name_ + "@t"));
  ASSERT_TRUE(Rbd("resize --size 64M rbd/" + name_));
  // What is read now is not believed until somebody has looked.
  EXPECT_EQ(StatusOf(0, 4096), -ESTALE);
  bool has_changed;
  EXPECT_EQ(Reopen(&has_changed), 0);
  EXPECT_FALSE(has_changed);
  ExpectReads(content, 0, kSize);
}

TEST_F(RbdTest, ASnapshotThatIsRemovedIsNotReadAsZeros) {
  MakeImage();
  ASSERT_EQ(Open(Snapshot()), 0) << fault_.text;
  ASSERT_TRUE(Rbd("snap rm rbd/" + name_ + "@s"));
  bool has_changed;
  EXPECT_EQ(StatusOf(0, 4096), -ESTALE);
  EXPECT_EQ(Reopen(&has_changed), -ENOENT);
  EXPECT_EQ(StatusOf(0, 4096), -ESTALE);
  // One of the same name is another one.
  WriteOver();
  ASSERT_TRUE(Rbd("snap create rbd/" + name_ + "@s"));
  ExpectSuccessor();
  EXPECT_EQ(StatusOf(0, 4096), 0);
}

TEST_F(RbdTest, ASnapshotThatMayNotBeWatchedIsLookedAtNowAndThen) {
  MakeImage();
  const Options reader = {{"id", "reader"},
                          {"keyring", MakeUser("reader", "profile "
                                                         "rbd-read-only")}};
  ASSERT_EQ(Open(Snapshot(), reader), 0) << fault_.text;
  ASSERT_TRUE(Rbd("snap rm rbd/" + name_ + "@s"));
  bool has_changed;
  int r;
  while ((r = Reopen(&has_changed)) == 0)
    usleep(10000); // until ten seconds are over
  EXPECT_EQ(r, -ENOENT);
  EXPECT_EQ(StatusOf(0, 4096), -ESTALE);
}

TEST_F(RbdTest, AWatchThatFailsIsTriedAgainOrClosedWithout) {
  Bytes content = MakeImage();
  ASSERT_EQ(Open(Snapshot()), 0) << fault_.text;
  bool has_changed;
  last_watch.on_lost(last_watch.arg, last_watch.cookie, -ENOTCONN);
  last_watch.fails = true;
  for (int i = 0; i < 2; i++)
    EXPECT_EQ(Reopen(&has_changed), -ENOENT);
  EXPECT_EQ(StatusOf(0, 4096), -ESTALE);
  last_watch.fails = false;
  EXPECT_EQ(Reopen(&has_changed), 0);
  EXPECT_FALSE(has_changed);
  ExpectReads(content, 0, kSize);
  last_watch.on_lost(last_watch.arg, last_watch.cookie, -ENOTCONN);
  last_watch.fails = true;
  EXPECT_EQ(Reopen(&has_changed), -ENOENT);
  last_watch.fails = false;
  Close();
}

TEST_F(RbdTest, AnImageThatIsOpenIsNotRemoved) {
  Bytes content = MakeImage();
  ASSERT_TRUE(Rbd("snap rm rbd/" + name_ + "@s"));
  ASSERT_EQ(Open(Image()), 0) << fault_.text;
  EXPECT_FALSE(Rbd("rm rbd/" + name_));
  ExpectReads(content, 0, kSize);
  Close();
  while (!Rbd("rm rbd/" + name_))
    ; // until it is closed
  EXPECT_EQ(Open(Image()), -ENOENT);
}

TEST_F(RbdTest, WhoIsKeptOutComesBackAnew) {
  Bytes content = MakeImage();
  ASSERT_EQ(Open(Image()), 0) << fault_.text;
  ASSERT_EQ(system(("rbd -c " + cluster_->conf() + " status rbd/" + name_ +
                    " | sed -n 's/.*watcher=\\([^ ]*\\).*/\\1/p' | head -n 1 "
                    "| xargs ceph -c " +
                    cluster_->conf() + " osd blocklist add >/dev/null 2>&1")
                       .c_str()),
            0);
  int r;
  while ((r = StatusOf(0, 4096)) == 0)
    ; // until the OSD has heard of it
  EXPECT_TRUE(r == -ECONNRESET || r == -ESTALE) << r;
  ExpectSuccessor();
  ExpectReads(content, 0, kSize);
}

TEST_F(RbdTest, ASnapshotIsKnownAgainAndAnImageIsNot) {
  MakeImage();
  ASSERT_TRUE(Rbd("snap create rbd/" + name_ + "@t"));
  source_identity first = {}, again = {}, other = {}, none = {};
  ASSERT_EQ(Open(Snapshot()), 0) << fault_.text;
  source_identify(src_, &first);
  Close();
  ASSERT_EQ(Open(Image() + "@t"), 0) << fault_.text;
  source_identify(src_, &other);
  EXPECT_FALSE(source_resume(src_, &first));
  Close();
  ASSERT_EQ(Open(Image()), 0) << fault_.text;
  source_identify(src_, &none);
  EXPECT_EQ(none.len, 0u);
  EXPECT_FALSE(source_resume(src_, &none));
  Close();
  ASSERT_EQ(Open(Snapshot()), 0) << fault_.text;
  source_identify(src_, &again);
  EXPECT_TRUE(source_resume(src_, &first));
  EXPECT_GT(first.len, 0u);
  EXPECT_EQ(memcmp(&first, &again, sizeof first), 0);
  EXPECT_NE(memcmp(&first, &other, sizeof first), 0);
}

// ---- What librados would like to do ----------------------------------------

TEST_F(RbdTest, NeitherLogNorSocketIsMadeWhateverTheFileSays) {
  Bytes content = MakeImage();
  const std::string conf = dir_ / "conf", log = dir_ / "log",
                    socket = dir_ / "socket";
  std::ofstream(conf) << std::ifstream(cluster_->conf()).rdbuf()
                      << "[client]\nlog file = " << log
                      << "\nadmin socket = " << socket
                      << "\ndebug ms = 1\nlog to stderr = true\n";
  ASSERT_EQ(Open(Image(), {{"conf", conf}}), 0) << fault_.text;
  ExpectReads(content, 0, 4096);
  EXPECT_NE(access(log.c_str(), F_OK), 0);
  EXPECT_NE(access(socket.c_str(), F_OK), 0);
}

} // namespace

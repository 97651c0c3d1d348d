// Attachments: what a local client is given, for how long, and what it cannot
// do with it.
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <memory>

#include "cache/lease.h"
#include "proto/status.h"
#include "tests/support/test_server.h"

namespace {

constexpr uint64_t kSize = 4 << 20;
constexpr uint64_t kPage = 4096;
constexpr int kAttached = CACHET__WIRE__MESSAGE__BODY_ATTACHED;
enum { kPages, kWords, kTouched, kTable, kNFds };

int CountFds() {
  DIR *dir = opendir("/proc/self/fd");
  int n = 0;
  while (readdir(dir))
    n++;
  closedir(dir);
  return n;
}

void CloseAll(const std::vector<int> &fds) {
  for (int fd : fds)
    close(fd);
}

// A process that runs `run`, which tells when it is ready, and then waits for
// its end.
class Child {
public:
  explicit Child(const std::function<bool()> &run) {
    int ready[2];
    EXPECT_EQ(pipe2(ready, O_CLOEXEC), 0);
    pid_ = fork();
    if (pid_ == 0) {
      char ok = run() ? 'y' : 'n';
      if (write(ready[1], &ok, 1) != 1)
        _exit(1);
      for (;;)
        pause();
    }
    close(ready[1]);
    char ok = 'n';
    ok_ = read(ready[0], &ok, 1) == 1 && ok == 'y';
    close(ready[0]);
  }
  ~Child() { Kill(); }
  bool ok() const { return ok_; }
  void Kill() {
    if (pid_ <= 0)
      return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

private:
  pid_t pid_;
  bool ok_ = false;
};

class AttachTest : public testing::Test {
protected:
  void Serve() {
    server_ = std::make_unique<TestServer>(
        std::vector<std::pair<std::string, FakeSource *>>{{"disk", &disk_}},
        options_);
    other_ = std::make_unique<WireClient>(server_->Unix());
    opened_ = other_->Start();
    image_ = opened_.image;
  }

  Frame Attach(WireClient *client, uint64_t id = 77) {
    client->SendAttach(id, image_);
    return client->ReceiveAnswer();
  }

  // Attaches, and maps the table.
  pin_page *AttachTable(WireClient *client) {
    Frame frame = Attach(client);
    std::vector<int> fds = client->TakeFds();
    if (frame.kind != kAttached || fds.size() != kNFds)
      return nullptr;
    int table = fds[kTable];
    fds.pop_back();
    CloseAll(fds);
    pin_page *page = nullptr;
    pin_page_map(table, frame.range_capacity, &page);
    return page;
  }

  Frame Invalidate(uint64_t offset, uint64_t length) {
    other_->SendInvalidate(8, image_, offset, length);
    return other_->ReceiveAnswer();
  }

  void AwaitStat(const char *name, uint64_t value) {
    while (other_->Stats()[name] != value)
      ;
  }

  void ExpectOthersAreServed() {
    EXPECT_EQ(other_->Read(image_, 5, 100).bytes, FakeSource::Bytes(5, 100));
  }

  FakeSource disk_{kSize};
  TestServer::Options options_;
  std::unique_ptr<TestServer> server_;
  std::unique_ptr<WireClient> other_; // opened the image
  Frame opened_;
  uint32_t image_ = 0;
};

// ---- What is given ----------------------------------------------------------

TEST_F(AttachTest, ItGivesAMirrorToReadAndATableToWrite) {
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  Frame frame = Attach(&client);
  ASSERT_EQ(frame.kind, kAttached) << frame.message;
  EXPECT_EQ(frame.size, kSize);
  EXPECT_EQ(frame.epoch, opened_.epoch);
  std::vector<int> fds = client.TakeFds();
  ASSERT_EQ(fds.size(), static_cast<size_t>(kNFds));
  pin_page *table;
  ASSERT_EQ(pin_page_map(fds[kTable], frame.range_capacity, &table), 0);
  mirror_fds lent = {fds[kPages], fds[kWords], fds[kTouched]};
  mirror *m;
  ASSERT_EQ(mirror_borrow(&lent, kSize, 12, frame.epoch, &m), 0);
  __atomic_store_n(&table->slots[PIN_SLOT_CURSOR], pin_word(3, 1),
                   __ATOMIC_SEQ_CST);
  client.SendRead(7, image_, {{3 * kPage, kPage}}, 0, true);
  EXPECT_EQ(client.ReceiveAnswer().resident, kPage);
  EXPECT_EQ(std::vector<uint8_t>(m->base + 3 * kPage, m->base + 4 * kPage),
            FakeSource::Bytes(3 * kPage, kPage));
  mirror_free(m);
  pin_page_unmap(table);
}

TEST_F(AttachTest, NothingOfItCanBeResizedAndPagesAndWordsNotBeWritten) {
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  ASSERT_EQ(Attach(&client).kind, kAttached);
  std::vector<int> fds = client.TakeFds();
  ASSERT_EQ(fds.size(), static_cast<size_t>(kNFds));
  for (int fd : fds) {
    EXPECT_NE(ftruncate(fd, 0), 0);
    EXPECT_NE(ftruncate(fd, 1 << 30), 0);
    EXPECT_NE(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
  }
  for (int fd : {fds[kPages], fds[kWords]}) {
    uint8_t byte = 1;
    EXPECT_EQ(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    EXPECT_NE(pwrite(fd, &byte, 1, 0), 1);
    EXPECT_NE(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1),
              0);
    EXPECT_EQ(mmap(nullptr, kPage, PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    void *at = mmap(nullptr, kPage, PROT_READ, MAP_SHARED, fd, 0);
    ASSERT_NE(at, MAP_FAILED);
    EXPECT_NE(mprotect(at, kPage, PROT_READ | PROT_WRITE), 0);
    munmap(at, kPage);
  }
  CloseAll(fds);
}

TEST_F(AttachTest, AnotherUserCannotReopenItForWriting) {
  if (geteuid() != 0)
    GTEST_SKIP() << "becoming another user takes root";
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  ASSERT_EQ(Attach(&client).kind, kAttached);
  std::vector<int> fds = client.TakeFds();
  ASSERT_EQ(fds.size(), static_cast<size_t>(kNFds));
  Child stranger([&] {
    if (setresgid(54321, 54321, 54321) < 0 ||
        setresuid(54321, 54321, 54321) < 0 || prctl(PR_SET_DUMPABLE, 1) < 0)
      return false;
    for (int fd : fds) {
      std::string path = "/proc/self/fd/" + std::to_string(fd);
      if (open(path.c_str(), O_RDWR) >= 0 || errno != EACCES)
        return false;
      if (fchmod(fd, 0666) == 0)
        return false;
    }
    return true;
  });
  EXPECT_TRUE(stranger.ok());
  CloseAll(fds);
}

TEST_F(AttachTest, OverTcpItIsUnsupported) {
  Serve();
  WireClient client = server_->Tcp();
  client.SendHello();
  EXPECT_FALSE(client.Receive().share);
  client.SendOpen(2, "");
  client.Receive();
  EXPECT_EQ(Attach(&client).status, WIRE_E_UNSUPPORTED);
  EXPECT_EQ(client.Read(image_, 0, 10).status, 0);
}

TEST_F(AttachTest, WhereSharingIsOffItIsUnsupported) {
  options_.share = false;
  Serve();
  WireClient client = server_->Unix();
  client.SendHello();
  EXPECT_FALSE(client.Receive().share);
  client.SendOpen(2, "");
  client.Receive();
  EXPECT_EQ(Attach(&client).status, WIRE_E_UNSUPPORTED);
  EXPECT_TRUE(client.TakeFds().empty());
  EXPECT_EQ(client.Read(image_, 0, 10).status, 0);
}

TEST_F(AttachTest, AnImageThatWasNotOpenedIsRefused) {
  Serve();
  WireClient client = server_->Unix();
  client.SendHello();
  EXPECT_TRUE(client.Receive().share);
  EXPECT_EQ(Attach(&client).status, WIRE_E_NOIMAGE);
}

// ---- How long it lasts ------------------------------------------------------

TEST_F(AttachTest, ATableOutlivesItsConnectionButNotItsProcess) {
  Serve();
  Child reader([this] {
    WireClient client = server_->Unix();
    client.Start();
    pin_page *table = AttachTable(&client);
    if (!table)
      return false;
    __atomic_store_n(&table->slots[PIN_SLOT_CURSOR], pin_word(0, 1),
                     __ATOMIC_SEQ_CST);
    client.SendRead(7, image_, {{0, kPage}}, 0, true);
    return client.ReceiveAnswer().resident == kPage;
  });
  ASSERT_TRUE(reader.ok());
  AwaitStat("connections", 1); // only ours
  EXPECT_EQ(other_->Stats()["attachments"], 1u);
  Frame done = Invalidate(0, kPage);
  ASSERT_TRUE(done.is_done());
  EXPECT_NE(done.epoch, opened_.epoch); // the page is pinned
  reader.Kill();
  AwaitStat("attachments", 0);
  other_->Read(image_, 0, kPage);
  EXPECT_EQ(Invalidate(0, kPage).epoch, done.epoch);
}

TEST_F(AttachTest, WhoSaysItIsDoneIsFreedAtItsCloseAndAlsoBefore) {
  Serve();
  for (bool close_it : {true, false}) {
    WireClient client = server_->Unix();
    client.Start();
    pin_page *table = AttachTable(&client);
    ASSERT_NE(table, nullptr);
    AwaitStat("attachments", 1);
    pin_page_unmap(table);
    if (close_it)
      client.Close();
    AwaitStat("attachments", 0);
  }
}

TEST_F(AttachTest, DescriptorsThatAreNeverTakenEndWithTheProcess) {
  Serve();
  int before = CountFds();
  {
    Child hoarder([this] {
      WireClient client = server_->Unix();
      client.Start();
      for (uint64_t i = 0; i < 300; i++)
        client.SendAttach(100 + i, image_);
      return client.connected();
    });
    EXPECT_TRUE(hoarder.ok());
    ExpectOthersAreServed();
  }
  AwaitStat("connections", 1);
  AwaitStat("attachments", 0);
  EXPECT_EQ(CountFds(), before);
}

TEST_F(AttachTest, AThousandOfThemLeaveNoDescriptorBehind) {
  Serve();
  int before = CountFds();
  for (int i = 0; i < 1000; i++) {
    WireClient client = server_->Unix();
    client.Start();
    pin_page *table = AttachTable(&client);
    ASSERT_NE(table, nullptr) << i;
    pin_page_unmap(table);
    client.Close();
    AwaitStat("attachments", 0);
  }
  AwaitStat("connections", 1);
  EXPECT_EQ(CountFds(), before);
}

TEST_F(AttachTest, AServerThatEndsLeavesWhatIsMapped) {
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  Frame frame = Attach(&client);
  std::vector<int> fds = client.TakeFds();
  ASSERT_EQ(fds.size(), static_cast<size_t>(kNFds));
  pin_page *table;
  ASSERT_EQ(pin_page_map(fds[kTable], frame.range_capacity, &table), 0);
  table->slots[PIN_SLOT_CURSOR] = pin_word(3, 1);
  client.SendRead(7, image_, {{3 * kPage, kPage}}, 0, true);
  EXPECT_EQ(client.ReceiveAnswer().resident, kPage);
  server_.reset();
  std::vector<uint8_t> bytes(kPage);
  EXPECT_EQ(pread(fds[kPages], bytes.data(), kPage, 3 * kPage),
            static_cast<ssize_t>(kPage));
  EXPECT_EQ(bytes, FakeSource::Bytes(3 * kPage, kPage));
  pin_page_unmap(table);
  fds.pop_back();
  CloseAll(fds);
}

// ---- How many ---------------------------------------------------------------

class AttachLimitTest : public AttachTest {
protected:
  // One is granted, a second is not, and goes by the socket, with notices.
  void ExpectOneAndNoMore() {
    Serve();
    WireClient first = server_->Unix(), second = server_->Unix();
    first.Start();
    second.Start();
    EXPECT_EQ(Attach(&first).kind, kAttached);
    EXPECT_EQ(Attach(&second).status, WIRE_E_UNSUPPORTED);
    EXPECT_TRUE(second.TakeFds().empty());
    EXPECT_EQ(second.Read(image_, 0, 10).bytes, FakeSource::Bytes(0, 10));
    EXPECT_TRUE(Invalidate(0, kPage).is_done());
    EXPECT_EQ(second.Receive().kind, CACHET__WIRE__MESSAGE__BODY_INVALIDATED);
  }
};

TEST_F(AttachLimitTest, AProcessMayHaveSoMany) {
  options_.limit.max_process_attachments = 1;
  ExpectOneAndNoMore();
}

TEST_F(AttachLimitTest, AUserMayHaveSoMany) {
  options_.limit.max_user_attachments = 1;
  ExpectOneAndNoMore();
}

TEST_F(AttachLimitTest, ThereMayBeSoMany) {
  options_.limit.max_attachments = 1;
  ExpectOneAndNoMore();
}

TEST_F(AttachLimitTest, WhoAsksAgainAndAgainIsRefusedAndOthersAreServed) {
  options_.limit.max_process_attachments = 5;
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  for (uint64_t i = 0; i < 300; i++)
    ASSERT_TRUE(client.SendAttach(100 + i, image_));
  ExpectOthersAreServed();
  int n_attached = 0;
  for (int i = 0; i < 300; i++) {
    Frame frame = client.ReceiveAnswer();
    n_attached += frame.kind == kAttached;
    EXPECT_TRUE(frame.kind == kAttached || frame.status == WIRE_E_UNSUPPORTED);
  }
  std::vector<int> fds = client.TakeFds();
  EXPECT_GT(n_attached, 0);
  EXPECT_LE(n_attached, 5);
  EXPECT_EQ(fds.size(), static_cast<size_t>(n_attached) * kNFds);
  CloseAll(fds);
}

// ---- Reading ----------------------------------------------------------------

TEST_F(AttachTest, AReadInPlaceIsAnsweredWithoutBytes) {
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  pin_page *table = AttachTable(&client);
  ASSERT_NE(table, nullptr);
  __atomic_store_n(&table->slots[PIN_SLOT_RANGE], pin_word(0, 100),
                   __ATOMIC_SEQ_CST);
  client.SendRead(7, image_, {{5, 100 * kPage - 5}}, 0, true);
  uint64_t resident = 0;
  for (bool last = false; !last;) {
    Frame piece = client.ReceiveAnswer();
    ASSERT_TRUE(piece.is_data()) << piece.message;
    EXPECT_TRUE(piece.payload.empty());
    EXPECT_EQ(piece.offset, 5 + resident);
    resident += piece.resident;
    last = piece.last;
  }
  EXPECT_EQ(resident, 100 * kPage - 5);
  pin_page_unmap(table);
}

TEST_F(AttachTest, WhatCouldNotStayComesAsBytes) {
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  pin_page *table = AttachTable(&client);
  ASSERT_NE(table, nullptr);
  client.SendRead(6, image_, {{kPage, kPage}}, 0, true);
  EXPECT_EQ(client.ReceiveAnswer().resident, kPage);
  disk_.ShutGate();
  client.SendRead(7, image_, {{0, 2 * kPage}}, 0, true);
  disk_.AwaitReadsAtGate(1);
  EXPECT_TRUE(Invalidate(0, kPage).is_done()); // drops what comes in
  disk_.OpenGate();
  Frame bytes = client.ReceiveAnswer();
  EXPECT_EQ(bytes.payload, FakeSource::Bytes(0, kPage));
  EXPECT_EQ(bytes.resident, 0u);
  EXPECT_FALSE(bytes.last);
  Frame rest = client.ReceiveAnswer();
  EXPECT_EQ(rest.offset, kPage);
  EXPECT_EQ(rest.resident, kPage);
  EXPECT_TRUE(rest.last);
  pin_page_unmap(table);
}

TEST_F(AttachTest, InPlaceIsForThoseWhoAttached) {
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  client.SendRead(7, image_, {{0, 10}}, 0, true);
  EXPECT_EQ(client.ReceiveRead(7).bytes, FakeSource::Bytes(0, 10));
}

TEST_F(AttachTest, WhoIsAttachedGetsNoNoticesUntilItGoesByTheSocketAgain) {
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  ASSERT_EQ(Attach(&client).kind, kAttached);
  EXPECT_TRUE(Invalidate(0, kPage).is_done());
  uint8_t byte;
  EXPECT_EQ(recv(client.fd(), &byte, 1, MSG_DONTWAIT), -1);
  client.SendRead(7, image_, {{0, 10}});
  EXPECT_EQ(client.Receive().kind, CACHET__WIRE__MESSAGE__BODY_CHANGED);
  EXPECT_TRUE(client.Receive().is_data());
  EXPECT_TRUE(Invalidate(0, kPage).is_done());
  EXPECT_EQ(client.Receive().kind, CACHET__WIRE__MESSAGE__BODY_INVALIDATED);
  ASSERT_EQ(Attach(&client).kind, kAttached);
  client.SendOpen(9, "");
  client.ReceiveAnswer();
  EXPECT_TRUE(Invalidate(0, kPage).is_done());
  EXPECT_EQ(client.Receive().kind, CACHET__WIRE__MESSAGE__BODY_INVALIDATED);
}

} // namespace

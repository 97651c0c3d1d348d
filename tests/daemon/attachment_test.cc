// Attachments: what a local client is given, for how long, and what it cannot
// do with it.
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <random>

#include "cache/page_state.h"
#include "cache/shared_pins.h"
#include "proto/status.h"
#include "tests/support/quiet_fork.h"
#include "tests/support/test_server.h"

// Of the daemon's allocations the one that takes it to 0 fails; below 1, none.
static std::atomic<int> g_allocations_left{0};

static bool AllocationFails() {
  int left = g_allocations_left;
  while (left > 0)
    if (g_allocations_left.compare_exchange_weak(left, left - 1))
      return left == 1;
  return false;
}

// The linker puts it in the place of calloc(3) in what is linked into the test.
extern "C" {
void *__real_calloc(size_t n, size_t size);

void *__wrap_calloc(size_t n, size_t size) {
  return AllocationFails() ? nullptr : __real_calloc(n, size);
}
}

namespace {

constexpr uint64_t kSize = 4 << 20;
constexpr uint64_t kPage = 4096;
constexpr int kAttached = CACHET__WIRE__MESSAGE__BODY_ATTACHED;
enum { kPages, kStates, kAccessed, kTable, kNFds };

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
    pid_ = QuietFork();
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
    shared_pins_map(table, frame.range_capacity, &page);
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
  ASSERT_EQ(shared_pins_map(fds[kTable], frame.range_capacity, &table), 0);
  mirror_fds lent = {fds[kPages], fds[kStates], fds[kAccessed]};
  mirror *m;
  ASSERT_EQ(mirror_borrow(&lent, kSize, 12, frame.epoch, &m), 0);
  __atomic_store_n(&table->slots[PIN_SLOT_CURSOR], pin_word(3, 1),
                   __ATOMIC_SEQ_CST);
  client.SendRead(7, image_, {{3 * kPage, kPage}}, 0, true);
  EXPECT_EQ(client.ReceiveAnswer().resident, kPage);
  EXPECT_EQ(std::vector<uint8_t>(m->base + 3 * kPage, m->base + 4 * kPage),
            FakeSource::Bytes(3 * kPage, kPage));
  mirror_free(m);
  shared_pins_unmap(table);
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
  for (int fd : {fds[kPages], fds[kStates]}) {
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
  EXPECT_EQ(done.epoch, opened_.epoch);
  // The page is pinned: so it is read anew each time, and does not come in.
  uint64_t n_fills = other_->Stats()["fills"];
  EXPECT_EQ(other_->Read(image_, 0, kPage).status, 0);
  EXPECT_EQ(other_->Read(image_, 0, kPage).status, 0);
  EXPECT_EQ(other_->Stats()["fills"], n_fills + 2);
  reader.Kill();
  AwaitStat("attachments", 0);
  do { // until the reclaimer has seen it
    n_fills = other_->Stats()["fills"];
    EXPECT_EQ(other_->Read(image_, 0, kPage).status, 0);
  } while (other_->Stats()["fills"] > n_fills);
}

TEST_F(AttachTest, WhoSaysItIsDoneIsFreedAtItsCloseAndAlsoBefore) {
  Serve();
  for (bool close_it : {true, false}) {
    WireClient client = server_->Unix();
    client.Start();
    pin_page *table = AttachTable(&client);
    ASSERT_NE(table, nullptr);
    AwaitStat("attachments", 1);
    shared_pins_unmap(table);
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
    shared_pins_unmap(table);
    client.Close();
    AwaitStat("attachments", 0);
  }
  AwaitStat("connections", 1);
  EXPECT_EQ(CountFds(), before);
}

// An attachment that was left in a count would keep the next one out.
TEST_F(AttachTest, AnAllocationThatFailsRefusesOneAndLeavesNothingBehind) {
  options_.limit.max_process_attachments = 1;
  options_.limit.max_user_attachments = 1;
  options_.limit.max_attachments_sending = 1;
  Serve();
  const int before = CountFds();
  int n = 1;
  for (bool failed = true; failed; n++) {
    WireClient client = server_->Unix();
    client.Start();
    g_allocations_left = n;
    const Frame frame = Attach(&client);
    failed = g_allocations_left == 0;
    g_allocations_left = 0;
    CloseAll(client.TakeFds());
    if (!failed) {
      EXPECT_EQ(frame.kind, kAttached) << frame.message;
      break;
    }
    EXPECT_EQ(frame.status, WIRE_E_NOMEM) << n;
    pin_page *table = AttachTable(&client);
    ASSERT_NE(table, nullptr) << n;
    shared_pins_unmap(table);
    client.Close();
    AwaitStat("attachments", 0);
    AwaitStat("connections", 1);
    EXPECT_EQ(CountFds(), before) << n;
  }
  EXPECT_GE(n, 5);
}

TEST_F(AttachTest, AServerThatEndsLeavesWhatIsMapped) {
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  Frame frame = Attach(&client);
  std::vector<int> fds = client.TakeFds();
  ASSERT_EQ(fds.size(), static_cast<size_t>(kNFds));
  pin_page *table;
  ASSERT_EQ(shared_pins_map(fds[kTable], frame.range_capacity, &table), 0);
  table->slots[PIN_SLOT_CURSOR] = pin_word(3, 1);
  client.SendRead(7, image_, {{3 * kPage, kPage}}, 0, true);
  EXPECT_EQ(client.ReceiveAnswer().resident, kPage);
  server_.reset();
  std::vector<uint8_t> bytes(kPage);
  EXPECT_EQ(pread(fds[kPages], bytes.data(), kPage, 3 * kPage),
            static_cast<ssize_t>(kPage));
  EXPECT_EQ(bytes, FakeSource::Bytes(3 * kPage, kPage));
  shared_pins_unmap(table);
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

TEST_F(AttachLimitTest, SoManyAreOnTheirWayAndNoMore) {
  options_.limit.max_attachments_sending = 0;
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  EXPECT_EQ(Attach(&client).status, WIRE_E_UNSUPPORTED);
  EXPECT_EQ(client.Read(image_, 0, 10).bytes, FakeSource::Bytes(0, 10));
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

// ---- Shares -----------------------------------------------------------------

// What a client was given.
struct Table {
  uint64_t number = 0;
  pin_page *pins = nullptr;
  mirror *memory = nullptr;
  Frame frame;

  bool ok() const { return pins; }
  bool IsResident(uint64_t page) const {
    return page_state_look(&memory->states[page]) == PAGE_RESIDENT;
  }
};

class AttachShareTest : public AttachTest {
protected:
  AttachShareTest() { options_.cache_size = 2 << 20; }
  ~AttachShareTest() override {
    for (Table &t : tables_) {
      shared_pins_unmap(t.pins);
      mirror_free(t.memory);
    }
  }

  WireClient Client() {
    WireClient client = server_->Unix();
    client.Start();
    return client;
  }

  // Attaches with a small table, and maps all of it.
  Table Attach(WireClient *client, uint64_t replaces = 0,
               uint32_t page_slots = 4, uint32_t range_capacity = 1) {
    Table t;
    client->SendAttach(77, image_, replaces, page_slots, range_capacity);
    t.frame = client->ReceiveAnswer();
    std::vector<int> fds = client->TakeFds();
    if (t.frame.kind != kAttached || fds.size() != kNFds)
      return t;
    t.number = t.frame.table;
    mirror_fds lent = {fds[kPages], fds[kStates], fds[kAccessed]};
    EXPECT_EQ(mirror_borrow(&lent, t.frame.size, 12, t.frame.epoch, &t.memory),
              0);
    EXPECT_EQ(shared_pins_map(fds[kTable], t.frame.range_capacity, &t.pins), 0);
    tables_.push_back(t);
    return t;
  }

  void Pin(WireClient *client, const Table &t, unsigned slot, uint64_t page) {
    __atomic_store_n(&t.pins->slots[slot], pin_word(page, 1), __ATOMIC_SEQ_CST);
    client->SendRead(7, image_, {{page * kPage, kPage}}, t.frame.epoch, true);
    EXPECT_EQ(client->ReceiveAnswer().resident, kPage);
  }

  // Makes the daemon evict everything that may go.
  void Churn() {
    for (int i = 0; i < 3; i++)
      other_->Read(image_, 512 * kPage, 512 * kPage);
  }

  Frame Grow(WireClient *client, uint64_t table, uint32_t page_slots,
             uint32_t range_capacity) {
    client->SendGrow(78, table, page_slots, range_capacity);
    return client->ReceiveAnswer();
  }

  std::vector<Table> tables_;
};

TEST_F(AttachShareTest, ATableIsAsLargeAsWasAskedForAndGrows) {
  Serve();
  WireClient client = Client();
  Table t = Attach(&client, 0, 4, 1);
  ASSERT_TRUE(t.ok()) << t.frame.message;
  EXPECT_EQ(t.frame.page_slots, 4u);
  EXPECT_EQ(t.frame.range_capacity, 1u);
  EXPECT_EQ(t.frame.read_ahead, 16u) << "a 32nd of 512 pages";
  Frame grown = Grow(&client, t.number, 9, 1);
  EXPECT_EQ(grown.kind, CACHET__WIRE__MESSAGE__BODY_GROWN) << grown.message;
  EXPECT_EQ(grown.page_slots, 9u);
  EXPECT_EQ(grown.range_capacity, 1u);
  Pin(&client, t, 8, 3);
  Pin(&client, t, 9, 4); // which does not count
  Churn();
  EXPECT_TRUE(t.IsResident(3));
  EXPECT_FALSE(t.IsResident(4));
  EXPECT_EQ(Grow(&client, t.number, 0, 0).page_slots, 9u);
  Frame most = Grow(&client, t.number, UINT32_MAX, UINT32_MAX);
  EXPECT_LE(most.page_slots + 4 * most.range_capacity, 64u) << "an eighth";
}

TEST_F(AttachShareTest, WhoDoesNotSayHowMuchGetsAllSlotsOrNone) {
  Serve();
  WireClient client = Client();
  Table none = Attach(&client, 0, 0, 0);
  EXPECT_EQ(none.frame.status, WIRE_E_UNSUPPORTED) << "an eighth is 64 pages";
  options_.cache_size = 16 << 20;
  other_.reset();
  server_.reset();
  Serve();
  WireClient again = Client();
  Table all = Attach(&again, 0, 0, 0);
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(all.frame.page_slots, PIN_MAX_PAGE_SLOTS);
}

TEST_F(AttachShareTest, PinsOfATableThatWasReplacedStandUntilTheyAreCleared) {
  Serve();
  WireClient client = Client();
  Table old = Attach(&client);
  ASSERT_TRUE(old.ok());
  Pin(&client, old, 1, 3);
  Table t = Attach(&client, old.number);
  ASSERT_TRUE(t.ok()) << t.frame.message;
  EXPECT_NE(t.number, old.number);
  Pin(&client, t, 1, 5);
  __atomic_store_n(&old.pins->slots[2], pin_word(4, 1), __ATOMIC_SEQ_CST);
  other_->Read(image_, 4 * kPage, kPage);
  Churn();
  EXPECT_TRUE(old.IsResident(3));
  EXPECT_FALSE(old.IsResident(4)) << "it came too late";
  EXPECT_TRUE(t.IsResident(5));
  EXPECT_EQ(other_->Stats()["attachments"], 2u);
  old.pins->slots[1] = old.pins->slots[2] = 0;
  AwaitStat("attachments", 1);
  Churn();
  EXPECT_FALSE(old.IsResident(3));
  EXPECT_TRUE(t.IsResident(5));
}

TEST_F(AttachShareTest, ATableThatWasReplacedAndHoldsNoPinIsFreedAtOnce) {
  options_.limit.max_process_attachments = 2;
  Serve();
  WireClient client = Client();
  Table t = Attach(&client);
  for (int i = 0; i < 20; i++) {
    ASSERT_TRUE(t.ok()) << i << ": " << t.frame.message;
    EXPECT_EQ(other_->Stats()["attachments"], 1u);
    t = Attach(&client, t.number);
  }
}

TEST_F(AttachShareTest, ASliceOfAnEpochThatIsOverStands) {
  Serve();
  WireClient client = Client();
  Table old = Attach(&client);
  ASSERT_TRUE(old.ok());
  Pin(&client, old, 1, 3);
  disk_.Change(kSize);
  other_->Read(image_, 9 * kPage, 10); // finds it
  Table t = Attach(&client, old.number);
  ASSERT_TRUE(t.ok()) << t.frame.message;
  EXPECT_NE(t.frame.epoch, old.frame.epoch);
  Churn();
  const uint8_t *base = old.memory->base;
  EXPECT_EQ(std::vector<uint8_t>(base + 3 * kPage, base + 4 * kPage),
            FakeSource::Bytes(3 * kPage, kPage));
}

TEST_F(AttachShareTest, SharesGoOnToNewTablesEpochAfterEpoch) {
  Serve();
  std::vector<WireClient> clients;
  std::vector<Table> tables;
  do { // until none is left
    clients.push_back(Client());
    tables.push_back(Attach(&clients.back()));
  } while (tables.back().ok());
  EXPECT_EQ(tables.back().frame.status, WIRE_E_UNSUPPORTED);
  clients.pop_back();
  tables.pop_back();
  EXPECT_GT(tables.size(), 10u);
  for (int epoch = 0; epoch < 4; epoch++) {
    disk_.Change(kSize);
    other_->Read(image_, uint64_t(epoch) * kPage, 10);
    for (size_t i = 0; i < clients.size(); i++) {
      tables[i] = Attach(&clients[i], tables[i].number);
      ASSERT_TRUE(tables[i].ok()) << i << ": " << tables[i].frame.message;
    }
  }
  AwaitStat("attachments", clients.size());
}

TEST_F(AttachShareTest, AShareThatIsGivenBackIsGivenToTheNextWhoAsks) {
  Serve();
  std::vector<WireClient> clients;
  do
    clients.push_back(Client());
  while (Attach(&clients.back()).ok());
  tables_[0].pins->done = 1;
  AwaitStat("attachments", tables_.size() - 1);
  EXPECT_TRUE(Attach(&clients.back()).ok());
}

TEST_F(AttachShareTest, AThousandHandlesOfOneProcessShare256MiB) {
  rlimit limit;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  if (limit.rlim_max < 8192)
    GTEST_SKIP() << "only " << limit.rlim_max << " descriptors are allowed";
  limit.rlim_cur = limit.rlim_max;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  options_.cache_size = 256 << 20;
  Serve();
  std::vector<WireClient> clients;
  std::vector<uint64_t> numbers;
  for (int round = 0; round < 2; round++) {
    for (size_t i = 0; i < 1000; i++) {
      if (round == 0)
        clients.push_back(Client());
      clients[i].SendAttach(77, image_, round ? numbers[i] : 0, 4, 1);
      Frame frame = clients[i].ReceiveAnswer();
      ASSERT_EQ(frame.kind, kAttached) << i << ": " << frame.message;
      CloseAll(clients[i].TakeFds());
      if (round == 0)
        numbers.push_back(frame.table);
      clients[i].SendGrow(78, frame.table, 65, 64);
      EXPECT_EQ(clients[i].ReceiveAnswer().kind,
                CACHET__WIRE__MESSAGE__BODY_GROWN);
    }
    disk_.Change(kSize);
    other_->Read(image_, uint64_t(round) * kPage, 10);
  }
}

TEST_F(AttachShareTest, NoUserTakesTheLastShareFromAnother) {
  if (geteuid() != 0)
    GTEST_SKIP() << "becoming another user takes root";
  Serve();
  std::string path = server_->socket_path();
  ASSERT_EQ(chmod(path.c_str(), 0666), 0);
  ASSERT_EQ(chmod(path.substr(0, path.rfind('/')).c_str(), 0711), 0);
  std::vector<WireClient> clients;
  do {
    clients.push_back(Client());
    Table t = Attach(&clients.back());
    if (t.ok())
      Grow(&clients.back(), t.number, 65, 1000);
  } while (tables_.size() == clients.size());
  Child other([&] {
    if (setresgid(65534, 65534, 65534) < 0 ||
        setresuid(65534, 65534, 65534) < 0)
      return false;
    WireClient client = Client();
    return Attach(&client).ok();
  });
  EXPECT_TRUE(other.ok());
}

TEST_F(AttachShareTest, AUserLeavesAQuarterOfTheTablesToOthers) {
  options_.limit.max_attachments = 12;
  options_.cache_size = 16 << 20;
  Serve();
  std::vector<WireClient> clients;
  do
    clients.push_back(Client());
  while (Attach(&clients.back()).ok());
  EXPECT_EQ(tables_.size(), 9u);
}

TEST_F(AttachShareTest, ATableOfAnotherProcessIsNeitherReplacedNorGrown) {
  Serve();
  WireClient client = Client();
  Table t = Attach(&client);
  ASSERT_TRUE(t.ok());
  Child thief([&] {
    WireClient mine = Client();
    bool attached = Attach(&mine, t.number).ok();
    return attached && Grow(&mine, t.number, 9, 1).status == WIRE_E_INVAL;
  });
  EXPECT_TRUE(thief.ok());
  Pin(&client, t, 1, 3); // it counts, so the table was not replaced
  Churn();
  EXPECT_TRUE(t.IsResident(3));
  EXPECT_EQ(Grow(&client, t.number, 9, 1).page_slots, 9u);
}

TEST_F(AttachShareTest, ATableIsReplacedOnceAndABogusOneNever) {
  Serve();
  WireClient client = Client();
  Table t = Attach(&client);
  ASSERT_TRUE(t.ok());
  Pin(&client, t, 1, 3);
  for (uint64_t replaces : {t.number, t.number, t.number + 1, UINT64_MAX}) {
    Table next = Attach(&client, replaces);
    EXPECT_TRUE(next.ok()) << next.frame.message;
  }
  EXPECT_EQ(other_->Stats()["attachments"], 5u);
  Churn();
  EXPECT_TRUE(t.IsResident(3));
  EXPECT_EQ(Grow(&client, t.number, 9, 1).page_slots, 4u) << "no more";
  EXPECT_EQ(Grow(&client, 1, 9, 1).status, WIRE_E_INVAL);
  EXPECT_EQ(Grow(&client, 0, 9, 1).status, WIRE_E_INVAL);
  ExpectOthersAreServed();
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
  shared_pins_unmap(table);
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
  shared_pins_unmap(table);
}

// A page that is longer than a socket holds comes in parts, all of them bytes.
TEST_F(AttachTest, ALongPageThatCouldNotStayComesAsBytesToItsEnd) {
  constexpr uint64_t kLongPage = 2 << 20;
  FakeSource disk(2 * kLongPage);
  options_.page_size = kLongPage;
  options_.cache_size = 8ull << 30; // an eighth has room for all slots
  server_ = std::make_unique<TestServer>(
      std::vector<std::pair<std::string, FakeSource *>>{{"disk", &disk}},
      options_);
  WireClient client = server_->Unix(), other = server_->Unix();
  uint32_t image = image_ = client.Start().image;
  other.Start();
  pin_page *table = AttachTable(&client);
  ASSERT_NE(table, nullptr);
  disk.ShutGate();
  client.SendRead(7, image, {{0, 2 * kLongPage}}, 0, true);
  disk.AwaitReadsAtGate(1);
  other.SendInvalidate(9, image, 0, kLongPage); // drops what comes in
  EXPECT_TRUE(other.ReceiveAnswer().is_done());
  disk.OpenGate();
  uint64_t n_bytes = 0, n_resident = 0;
  std::vector<uint8_t> bytes;
  for (bool last = false; !last;) {
    Frame piece = client.ReceiveAnswer();
    ASSERT_TRUE(piece.is_data()) << piece.message;
    EXPECT_EQ(piece.offset, n_bytes + n_resident);
    bytes.insert(bytes.end(), piece.payload.begin(), piece.payload.end());
    n_bytes += piece.payload.size();
    n_resident += piece.resident;
    last = piece.last;
  }
  EXPECT_EQ(n_bytes, kLongPage);
  EXPECT_EQ(n_resident, kLongPage);
  EXPECT_EQ(bytes, FakeSource::Bytes(0, kLongPage));
  shared_pins_unmap(table);
  server_.reset(); // before its source
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

TEST_F(AttachTest, WhatAClientCountsIsItsImagesAndStays) {
  FakeSource second(kSize);
  Serve();
  ASSERT_EQ(server_->Add("second", &second), 0);
  WireClient client = server_->Unix();
  client.Start("disk");
  pin_page *table = AttachTable(&client);
  ASSERT_TRUE(table);
  pin_count_more(&table->counts, 5, 2);
  AwaitStat("shared_hits", 5);
  EXPECT_EQ(other_->Stats()["shared_misses"], 2u);
  pin_count_more(&table->counts, 3, 0);
  shared_pins_unmap(table); // it is done with it
  AwaitStat("attachments", 0);
  EXPECT_EQ(other_->Stats()["shared_hits"], 8u);
  ASSERT_TRUE(server_->Remove("disk"));
  WireClient another = server_->Unix();
  another.Start("second");
  EXPECT_EQ(another.Stats()["shared_hits"], 8u);
  server_.reset(); // before its sources
}

TEST_F(AttachTest, ATableThatOutlivesItsImageIsCounted) {
  FakeSource second(kSize);
  Serve();
  ASSERT_EQ(server_->Add("second", &second), 0);
  WireClient client = server_->Unix(), another = server_->Unix();
  client.Start("disk");
  another.Start("second");
  pin_page *table = AttachTable(&client);
  ASSERT_TRUE(table);
  ASSERT_TRUE(server_->Remove("disk"));
  pin_count_more(&table->counts, 5, 0);
  while (another.Stats()["shared_hits"] != 5)
    ;
  shared_pins_unmap(table);
  while (another.Stats()["attachments"] != 0)
    ;
  EXPECT_EQ(another.Stats()["shared_hits"], 5u);
  server_.reset(); // before its sources
}

TEST_F(AttachTest, ALiarAddsNoMoreThanItCouldHaveHit) {
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  auto begin = std::chrono::steady_clock::now();
  pin_page *table = AttachTable(&client);
  ASSERT_TRUE(table);
  uint64_t last = 0;
  std::mt19937_64 random(5);
  for (int looks = 0; looks < 5;) {
    __atomic_store_n(&table->counts.n_hits, random(), __ATOMIC_RELAXED);
    __atomic_store_n(&table->counts.n_misses, random() >> 40, __ATOMIC_RELAXED);
    uint64_t now = other_->Stats()["shared_hits"];
    uint64_t ns = uint64_t(
        std::chrono::nanoseconds(std::chrono::steady_clock::now() - begin)
            .count());
    ASSERT_GE(now, last);
    ASSERT_LE(now, ns + 1000); // its clock has steps of a microsecond
    looks += now != last;
    last = now;
  }
  shared_pins_unmap(table);
}

} // namespace

// Clients that read the daemon's memory: eviction all the time, clients and
// daemons that die at any moment, and clients that mean harm.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "client/handle.h"
#include "client/remote/shared_mirror.h"
#include "tests/support/daemon_process.h"
#include "tests/support/forbidden_call.h"
#include "tests/support/length.h"

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint64_t kPage = 4096;
constexpr uint64_t kSize = 64 << 20;
constexpr uint64_t kPages = kSize / kPage;
constexpr uint64_t kBudget = 6 << 20; // less than a tenth

// For what the daemon does within a second where it has the processor.
constexpr seconds kSoon(10);

// A request time-out that a test waits for, and that an answer is in time for
// on a busy machine all the same.
constexpr int kPatienceMs = 3000;

// Every 8 bytes name their address, so that a page carries its number and is
// its own checksum.
uint64_t WordAt(uint64_t addr) { return (addr + 1) * 0x9e3779b97f4a7c15ull; }

bool Correct(const uint8_t *data, uint64_t addr, size_t len) {
  for (size_t i = 0; i < len; i += 8) {
    uint64_t word;
    memcpy(&word, data + i, 8);
    if (word != WordAt(addr + i))
      return false;
  }
  return true;
}

// What a reader process exits with.
enum { READER_OK, READER_WRONG, READER_FAILED, READER_NOT_SHARED };

class SharedTest : public testing::Test {
protected:
  static void SetUpTestSuite() {
    dir_ = new TempDir;
    path_ = *dir_ / "disk.img";
    std::vector<uint64_t> words(kSize / 8);
    for (uint64_t i = 0; i < words.size(); i++)
      words[i] = WordAt(i * 8);
    int fd = open(path_.c_str(), O_WRONLY | O_CREAT, 0600);
    ASSERT_EQ(write(fd, words.data(), kSize), ssize_t(kSize));
    close(fd);
  }
  static void TearDownTestSuite() { delete dir_; }

  void SetUp() override {
    seed_ = TestSeed();
    Start();
  }
  void TearDown() override {
    for (pid_t pid : readers_) {
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
    daemon_.reset();
  }

  void Start() {
    daemon_ = std::make_unique<DaemonProcess>(std::vector<std::string>{
        "--image", path_, "--listen", "unix:" + Socket(), "--cache-size",
        std::to_string(kBudget)});
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  }

  static std::string Socket() { return *dir_ / "socket"; }

  static cachet *Open(int request_timeout_ms = 0, uint32_t flags = 0) {
    cachet_options options{};
    options.struct_size = sizeof options;
    options.flags = flags;
    options.request_timeout_ms = request_timeout_ms;
    cachet *c = nullptr;
    cachet_error err{};
    if (cachet_open(("cachet+unix:///disk.img?socket=" + Socket()).c_str(),
                    &options, &c, &err) != CACHET_OK)
      fprintf(stderr, "open: %s\n", err.message);
    return c;
  }

  struct AsyncRead {
    uint64_t addr;
    std::vector<uint8_t> buf;
    cachet_request *request;
    cachet_status status;
    bool is_done;
  };

  // More reads that wait than there are slots for, some of which are cancelled,
  // and getters between them.
  static int ReadSixAtOnce(cachet *c, std::mt19937_64 &random) {
    std::vector<AsyncRead> reads(6);
    auto done = [](void *arg, cachet_status status) {
      auto *r = static_cast<AsyncRead *>(arg);
      r->status = status;
      r->is_done = true;
    };
    int result = READER_OK;
    for (AsyncRead &r : reads) {
      r.buf.resize(8 * (1 + random() % 1000));
      r.addr = random() % ((kSize - r.buf.size()) / 8) * 8;
      r.status = cachet_read_async(c, r.addr, r.buf.data(), r.buf.size(), done,
                                   &r, &r.request);
      r.is_done = r.status != CACHET_OK;
    }
    uint64_t addr = random() % (kPages / 64) * kPage, word;
    for (AsyncRead &r : reads) {
      if (cachet_get_u64le(c, addr, &word) != CACHET_OK)
        result = READER_FAILED;
      else if (word != WordAt(addr))
        return READER_WRONG;
      if (random() % 2 && !r.is_done)
        cachet_cancel(c, r.request);
    }
    while (std::any_of(reads.begin(), reads.end(),
                       [](const AsyncRead &r) { return !r.is_done; })) {
      pollfd p = {cachet_fd(c), cachet_events(c), 0};
      poll(&p, 1, cachet_timeout_ms(c));
      cachet_dispatch(c);
    }
    for (const AsyncRead &r : reads)
      if (r.status == CACHET_OK && !Correct(r.buf.data(), r.addr, r.buf.size()))
        return READER_WRONG;
      else if (r.status != CACHET_OK && r.status != CACHET_E_CANCELED)
        result = READER_FAILED;
    return result;
  }

  // One random act of reading; what it was worth.
  static int ReadOnce(cachet *c, std::mt19937_64 &random,
                      std::vector<cachet_slice> &held) {
    uint64_t page = random() % kPages;
    cachet_slice s;
    cachet_status status;
    switch (random() % 8) {
    case 0: { // several pages at once
      uint64_t len = 8 * (1 + random() % 6000);
      uint64_t addr = random() % ((kSize - len) / 8) * 8;
      status = cachet_map(c, addr, len, &s);
      if (status == CACHET_OK && !Correct(s.data, addr, s.length))
        return READER_WRONG;
      break;
    }
    case 1: {
      std::vector<uint8_t> buf(8 * (1 + random() % 4000));
      uint64_t addr = random() % ((kSize - buf.size()) / 8) * 8;
      status = cachet_read(c, addr, buf.data(), buf.size());
      if (status == CACHET_OK && !Correct(buf.data(), addr, buf.size()))
        return READER_WRONG;
      return status == CACHET_OK ? READER_OK : READER_FAILED;
    }
    case 2: {
      uint64_t word;
      status = cachet_get_u64le(c, page * kPage + 64, &word);
      if (status == CACHET_OK && word != WordAt(page * kPage + 64))
        return READER_WRONG;
      return status == CACHET_OK ? READER_OK : READER_FAILED;
    }
    case 3:
      return ReadSixAtOnce(c, random);
    default:
      status = cachet_load(c, page * kPage, 8, &s);
      if (status == CACHET_OK && !Correct(s.data, s.offset, s.length))
        return READER_WRONG;
    }
    if (status != CACHET_OK)
      return READER_FAILED;
    held.push_back(s);
    if (held.size() > 20) { // an old one has not changed meanwhile
      size_t i = random() % held.size();
      bool right = Correct(held[i].data, held[i].offset, held[i].length);
      cachet_release(c, &held[i]);
      held.erase(held.begin() + long(i));
      if (!right)
        return READER_WRONG;
    }
    return READER_OK;
  }

  // Reads until it shares memory.  A cache that is full may have no room for a
  // pin table at the moment of the open.
  static bool AwaitShared(cachet *c) {
    std::mt19937_64 random(1);
    auto end = Clock::now() + kSoon;
    uint8_t byte;
    while (!cachet_is_shared(c))
      if (Clock::now() >= end ||
          cachet_get_u8(c, random() % kSize, &byte) != CACHET_OK)
        return false;
    return true;
  }

  // A process that reads until it is killed, or until `end`.
  pid_t Fork(uint64_t seed, Clock::time_point end, bool survives_daemon) {
    pid_t pid = fork();
    if (pid == 0)
      _exit(Read(seed, end, survives_daemon));
    return pid;
  }

  static int Read(uint64_t seed, Clock::time_point end, bool survives_daemon) {
    cachet *c = Open(survives_daemon ? 20000 : 0);
    if (!c)
      return READER_FAILED;
    if (!AwaitShared(c))
      return READER_NOT_SHARED;
    std::mt19937_64 random(seed);
    std::vector<cachet_slice> held;
    int result = READER_OK;
    while (result == READER_OK && Clock::now() < end)
      result = ReadOnce(c, random, held);
    if (result == READER_FAILED)
      fprintf(stderr, "reader: %s\n", cachet_errmsg(c));
    if (result == READER_OK)
      cachet_close(c);
    return result;
  }

  static int Wait(pid_t pid) {
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  // A number of the daemon's `stats`, by the command's library.
  uint64_t Stat(const std::string &name) {
    std::string command = DaemonProcess::Runfile("client/cachet") +
                          " stats --json --socket " + Socket();
    FILE *p = popen(command.c_str(), "r");
    std::string json;
    char buf[4096];
    for (size_t n; (n = fread(buf, 1, sizeof buf, p)) > 0;)
      json.append(buf, n);
    pclose(p);
    size_t at = json.find("\"" + name + "\"");
    return at == std::string::npos
               ? UINT64_MAX
               : strtoull(json.c_str() + json.find(':', at) + 1, nullptr, 10);
  }

  // Polls until it is true, for `limit` at most.
  template <typename F>
  static bool Eventually(F is, milliseconds limit = kSoon) {
    auto end = Clock::now() + limit;
    while (!is()) {
      if (Clock::now() >= end)
        return false;
      usleep(2000);
    }
    return true;
  }

  // Makes the daemon evict everything that may go.
  static void Churn(cachet *c) {
    std::vector<uint8_t> buf(1 << 20);
    for (uint64_t addr = 0; addr < kSize; addr += buf.size())
      ASSERT_EQ(cachet_read(c, addr, buf.data(), buf.size()), CACHET_OK)
          << cachet_errmsg(c);
  }

  static TempDir *dir_;
  static std::string path_;
  uint64_t seed_ = 0;
  std::unique_ptr<DaemonProcess> daemon_;
  std::vector<pid_t> readers_;
};

TempDir *SharedTest::dir_;
std::string SharedTest::path_;

TEST_F(SharedTest, EightProcessesUnderEvictionReadNoWrongByteForAMinute) {
  auto end = Clock::now() + seconds(TestLength(60));
  for (int i = 0; i < 8; i++)
    readers_.push_back(Fork(seed_ + uint64_t(i), end, false));
  uint64_t most = 0;
  while (Clock::now() < end) {
    most = std::max(most, daemon_->MemfdBytes());
    usleep(500);
  }
  for (pid_t pid : readers_)
    EXPECT_EQ(Wait(pid), READER_OK);
  readers_.clear();
  printf("%llu pages evicted, at most %llu bytes of memfds\n",
         (unsigned long long)Stat("evicted_pages"), (unsigned long long)most);
  EXPECT_LE(most, kBudget);
  EXPECT_GT(Stat("evicted_pages"), TestLength(10) * kBudget / kPage);
  EXPECT_TRUE(Eventually([&] { return Stat("attachments") == 0; }));
}

TEST_F(SharedTest, FiveHundredClientsAreKilledAtRandomMoments) {
  std::mt19937_64 random(seed_);
  auto end = Clock::now() + seconds(600);
  cachet *c = Open();
  Churn(c);
  cachet_close(c);
  ASSERT_TRUE(Eventually([&] { return Stat("connections") <= 1; }));
  int n_fds = daemon_->n_fds();
  for (int i = 0; i < 4; i++)
    readers_.push_back(Fork(seed_ + 1000 + uint64_t(i), end, false));
  for (int killed = 0; killed < TestLength(500); killed++) {
    usleep(useconds_t(random() % 8000));
    size_t victim = random() % readers_.size();
    // A child that ended by itself had found something wrong.
    ASSERT_EQ(waitpid(readers_[victim], nullptr, WNOHANG), 0);
    kill(readers_[victim], SIGKILL);
    Wait(readers_[victim]);
    readers_[victim] = Fork(random(), end, false);
  }
  for (pid_t pid : readers_) {
    kill(pid, SIGKILL);
    Wait(pid);
  }
  readers_.clear();
  EXPECT_TRUE(Eventually([&] { return Stat("attachments") == 0; }))
      << "the pins of the dead are gone";
  EXPECT_TRUE(Eventually([&] { return daemon_->n_fds() <= n_fds; }))
      << daemon_->n_fds() << " descriptors, " << n_fds << " before";
  EXPECT_LE(daemon_->MemfdBytes(), kBudget);
}

TEST_F(SharedTest, TwentyDaemonsAreKilledUnderEightReaders) {
  auto end = Clock::now() + seconds(600);
  for (int i = 0; i < 8; i++)
    readers_.push_back(Fork(seed_ + uint64_t(i), end, true));
  auto all_are_attached = [&] { return Stat("attachments") >= 8; };
  ASSERT_TRUE(Eventually(all_are_attached, seconds(20)))
      << "an open does not wait for a daemon";
  std::mt19937_64 random(seed_);
  for (int i = 0; i < TestLength(20); i++) {
    usleep(useconds_t(50000 + random() % 200000));
    daemon_->Kill(SIGKILL);
    daemon_->Wait();
    Start();
  }
  // All are connected again, and none had to give up.
  EXPECT_TRUE(Eventually(all_are_attached, seconds(20)));
  for (pid_t pid : readers_)
    EXPECT_EQ(waitpid(pid, nullptr, WNOHANG), 0);
}

TEST_F(SharedTest, WhatIsResidentOutlivesTheDaemon) {
  cachet *c = Open(kPatienceMs);
  ASSERT_NE(c, nullptr);
  cachet_slice held, again;
  ASSERT_EQ(cachet_load(c, 5 * kPage, 1, &held), CACHET_OK);
  ASSERT_EQ(cachet_load(c, 6 * kPage, 1, &again), CACHET_OK);
  cachet_release(c, &again);
  daemon_->Kill(SIGKILL);
  daemon_->Wait();
  EXPECT_TRUE(Correct(held.data, held.offset, held.length));
  ASSERT_EQ(cachet_load(c, 6 * kPage, 1, &again), CACHET_OK);
  EXPECT_TRUE(Correct(again.data, again.offset, again.length));
  EXPECT_TRUE(cachet_is_shared(c));
  uint64_t epoch = cachet_epoch(c);
  uint8_t byte;
  EXPECT_EQ(cachet_get_u8(c, 900 * kPage, &byte), CACHET_E_CONN)
      << cachet_errmsg(c);
  Start();
  EXPECT_EQ(cachet_get_u8(c, 900 * kPage, &byte), CACHET_OK)
      << cachet_errmsg(c);
  EXPECT_NE(cachet_epoch(c), epoch);
  EXPECT_TRUE(cachet_is_shared(c));
  EXPECT_TRUE(Correct(held.data, held.offset, held.length)) << "still held";
  cachet_close(c);
}

TEST_F(SharedTest, AnOrderlyStopLeavesSlicesAndEndsTheEpoch) {
  cachet *c = Open(kPatienceMs);
  cachet_slice held;
  uint8_t byte;
  ASSERT_EQ(cachet_load(c, 5 * kPage, 1, &held), CACHET_OK);
  ASSERT_EQ(cachet_get_u8(c, 6 * kPage, &byte), CACHET_OK);
  daemon_->Kill(SIGTERM);
  EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
  EXPECT_TRUE(Correct(held.data, held.offset, held.length));
  EXPECT_EQ(cachet_get_u8(c, 6 * kPage, &byte), CACHET_E_CONN)
      << "nobody tells it any more when the image changes";
  Start();
  EXPECT_EQ(cachet_get_u8(c, 6 * kPage, &byte), CACHET_OK) << cachet_errmsg(c);
  EXPECT_TRUE(Correct(held.data, held.offset, held.length));
  cachet_close(c);
}

TEST_F(SharedTest, AnOrderlyStopLeavesSlicesOfPastEpochs) {
  cachet *c = Open();
  cachet_slice held;
  uint8_t byte;
  ASSERT_EQ(cachet_load(c, 5 * kPage, 1, &held), CACHET_OK);
  uint64_t epoch = cachet_epoch(c);
  ASSERT_EQ(utimensat(AT_FDCWD, path_.c_str(), nullptr, 0), 0);
  EXPECT_TRUE(Eventually([&] {
    EXPECT_EQ(cachet_get_u8(c, 5 * kPage, &byte), CACHET_OK);
    return cachet_epoch(c) != epoch;
  }));
  daemon_->Kill(SIGTERM);
  EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
  EXPECT_TRUE(Correct(held.data, held.offset, held.length));
  cachet_close(c);
  Start();
}

TEST_F(SharedTest, AConnectionThatIsLostLeavesSlicesAsTheyAre) {
  cachet *c = Open(), *other = Open();
  std::vector<cachet_slice> held(40);
  for (size_t i = 0; i < held.size(); i++)
    ASSERT_EQ(cachet_load(c, i * 7 * kPage, 1, &held[i]), CACHET_OK);
  shutdown(cachet_fd(c), SHUT_RDWR);
  Churn(other);
  for (auto &s : held)
    EXPECT_TRUE(Correct(s.data, s.offset, s.length)) << s.offset;
  uint8_t byte;
  EXPECT_EQ(cachet_get_u8(c, 3000 * kPage, &byte), CACHET_OK)
      << "it reconnects: " << cachet_errmsg(c);
  Churn(other);
  for (auto &s : held)
    EXPECT_TRUE(Correct(s.data, s.offset, s.length)) << s.offset;
  cachet_close(c);
  cachet_close(other);
  EXPECT_TRUE(Eventually([&] { return Stat("attachments") == 0; }));
}

TEST_F(SharedTest, ASlicesBytesStayThroughInvalidationAndNewEpochs) {
  cachet *c = Open(), *other = Open();
  cachet_slice page, range;
  ASSERT_EQ(cachet_load(c, 5 * kPage, 1, &page), CACHET_OK);
  ASSERT_EQ(cachet_map(c, 100 * kPage, 30 * kPage, &range), CACHET_OK);
  for (int i = 0; i < 5; i++) {
    uint64_t epoch = cachet_epoch(c);
    ASSERT_EQ(cachet_invalidate(other, 5 * kPage, 1), CACHET_OK);
    uint8_t byte;
    ASSERT_EQ(cachet_get_u8(c, 5 * kPage, &byte), CACHET_OK);
    EXPECT_EQ(cachet_epoch(c), epoch);
    Churn(other);
    EXPECT_TRUE(Correct(page.data, page.offset, page.length));
    EXPECT_TRUE(Correct(range.data, range.offset, range.length));
    ASSERT_EQ(utimensat(AT_FDCWD, path_.c_str(), nullptr, 0), 0);
    EXPECT_TRUE(Eventually([&] {
      EXPECT_EQ(cachet_get_u8(c, 5 * kPage, &byte), CACHET_OK);
      return cachet_epoch(c) != epoch;
    }));
    EXPECT_TRUE(Correct(page.data, page.offset, page.length));
    EXPECT_TRUE(Correct(range.data, range.offset, range.length));
  }
  EXPECT_LE(daemon_->MemfdBytes(), kBudget);
  cachet_release(c, &page);
  cachet_release(c, &range);
  cachet_close(c);
  cachet_close(other);
}

TEST_F(SharedTest, AStoppedClientHoldsItsPinsAndNothingElse) {
  pid_t pid = Fork(seed_, Clock::now() + seconds(600), false);
  readers_.push_back(pid);
  ASSERT_TRUE(Eventually([&] { return Stat("attachments") == 1; }));
  kill(pid, SIGSTOP);
  cachet *c = Open();
  Churn(c);
  EXPECT_LE(daemon_->MemfdBytes(), kBudget);
  ASSERT_EQ(cachet_invalidate(c, 0, CACHET_TO_END), CACHET_OK);
  Churn(c);
  kill(pid, SIGCONT);
  EXPECT_EQ(waitpid(pid, nullptr, WNOHANG), 0) << "it reads on";
  cachet_close(c);
}

// The descriptors of pages of a daemon's mirrors that this process has: those
// of its own are open for writing, too.
int PageDescriptors() {
  int n = 0;
  DIR *dir = opendir("/proc/self/fd");
  while (const dirent *entry = dir ? readdir(dir) : nullptr) {
    char target[64] = "";
    ssize_t len =
        readlinkat(dirfd(dir), entry->d_name, target, sizeof target - 1);
    n += len > 0 && strstr(target, "cachet-pages") != nullptr &&
         (fcntl(atoi(entry->d_name), F_GETFL) & O_ACCMODE) == O_RDONLY;
  }
  if (dir)
    closedir(dir);
  return n;
}

TEST_F(SharedTest, AForkedChildDisturbsNothingAndOpensItsOwn) {
  cachet *c = Open();
  cachet_slice held;
  ASSERT_EQ(cachet_load(c, 5 * kPage, 1, &held), CACHET_OK);
  EXPECT_EQ(PageDescriptors(), 1);
  pid_t pid = fork();
  if (pid == 0) {
    uint8_t byte;
    if (PageDescriptors() != 0) // it may use the number for a file of its own
      _exit(3);
    if (cachet_get_u8(c, 5 * kPage, &byte) != CACHET_E_FORKED ||
        !Correct(held.data, held.offset, held.length))
      _exit(1);
    cachet_release(c, &held);
    cachet_close(c);
    cachet *own = Open();
    if (!own || !cachet_is_shared(own) ||
        cachet_get_u8(own, 9 * kPage, &byte) != CACHET_OK)
      _exit(2);
    if (PageDescriptors() != 1)
      _exit(4);
    cachet_close(own);
    _exit(0);
  }
  EXPECT_EQ(Wait(pid), 0);
  cachet *other = Open();
  Churn(other);
  EXPECT_TRUE(Correct(held.data, held.offset, held.length))
      << "the child released nothing of ours";
  cachet_close(other);
  EXPECT_EQ(PageDescriptors(), 1) << "both handles have one mapping";
  cachet_close(c);
  EXPECT_EQ(PageDescriptors(), 0);
}

TEST_F(SharedTest, PinsOfADeadClientGoThoughItsChildHoldsTheSocket) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  pid_t pid = fork();
  if (pid == 0) {
    cachet *c = Open();
    cachet_slice s;
    if (!c || cachet_load(c, 5 * kPage, 1, &s) != CACHET_OK)
      _exit(1);
    pid_t child = fork();
    if (child == 0)
      for (;;)
        pause();
    if (write(ready[1], &child, sizeof child) != sizeof child)
      _exit(1);
    for (;;)
      pause();
  }
  pid_t grandchild = 0;
  ASSERT_EQ(read(ready[0], &grandchild, sizeof grandchild),
            ssize_t(sizeof grandchild));
  EXPECT_EQ(Stat("attachments"), 1u);
  kill(pid, SIGKILL);
  Wait(pid);
  EXPECT_TRUE(Eventually([&] { return Stat("attachments") == 0; }));
  kill(grandchild, SIGKILL);
  close(ready[0]);
  close(ready[1]);
}

// Everything that memory shared with us allows a process to try.
void Attack(cachet *c, uint64_t seed, int round) {
  std::mt19937_64 random(seed);
  auto *a = reinterpret_cast<shared_mirror *>(c->backend->shared);
  if (!a)
    _exit(3);
  mirror *m = a->base.mirror;
  // Pins of every kind, most of them void.
  for (int i = 0; i < 200000; i++)
    __atomic_store_n(&a->page->slots[random() % PIN_N_SLOTS],
                     random() % 2 ? random() : pin_word(random() % kPages, 1),
                     __ATOMIC_RELEASE);
  // Every hole.
  volatile uint8_t sum = 0;
  for (uint64_t page = 0; page < kPages; page++)
    sum = sum + m->base[page * kPage];
  // Every touched byte, always.
  memset(m->accessed, 1, kPages);
  // What must not be possible.
  void *base = const_cast<uint8_t *>(m->base);
  if (mprotect(base, kSize, PROT_READ | PROT_WRITE) == 0 ||
      mprotect(m->header, 8192, PROT_READ | PROT_WRITE) == 0)
    _exit(4);
  uint8_t byte;
  for (int i = 0; i < 200; i++)
    cachet_get_u8(c, random() % kSize, &byte);
  if (round % 2)
    a->page->done = 1; // and reads on all the same
}

TEST_F(SharedTest, AHostileClientHarmsNobody) {
  if (geteuid() != 0)
    GTEST_SKIP() << "needs root, to become another user";
  ASSERT_EQ(chmod(Socket().c_str(), 0666), 0);
  ASSERT_EQ(chmod(dir_->path().c_str(), 0755), 0);
  auto end = Clock::now() + seconds(600);
  for (int i = 0; i < 4; i++)
    readers_.push_back(Fork(seed_ + uint64_t(i), end, false));
  for (int round = 0; round < TestLength(20); round++) {
    pid_t pid = fork();
    if (pid == 0) {
      if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
        _exit(2);
      cachet *c = Open(2000);
      if (!c || !AwaitShared(c))
        _exit(5);
      Attack(c, seed_ + uint64_t(round), round);
      _exit(0);
    }
    EXPECT_EQ(Wait(pid), 0);
  }
  EXPECT_TRUE(Eventually([&] { return daemon_->MemfdBytes() <= kBudget; }))
      << daemon_->MemfdBytes();
  for (pid_t pid : readers_)
    EXPECT_EQ(waitpid(pid, nullptr, WNOHANG), 0) << "it found a wrong byte";
}

// ---- Honest clients in narrow places ---------------------------------------

// Reads a while as a child process that `prepare` has put into its place;
// `is_shared` says whether memory can be shared there.
class NarrowPlace : public SharedTest {
protected:
  template <typename F> static void Check(F prepare, bool is_shared) {
    pid_t pid = fork();
    if (pid == 0) {
      if (prepare() != 0)
        _exit(100);
      cachet *c = Open();
      if (!c)
        _exit(101);
      if (cachet_is_shared(c) != is_shared)
        _exit(102);
      std::mt19937_64 random(7);
      std::vector<cachet_slice> held;
      for (int i = 0; i < 500; i++)
        if (int result = ReadOnce(c, random, held))
          _exit(result);
      cachet_close(c);
      _exit(0);
    }
    int status = Wait(pid);
    if (status == 100)
      GTEST_SKIP() << "not permitted here: " << strerror(errno);
    EXPECT_EQ(status, 0) << "101: no handle, 102: is it shared?";
  }

  static int Limit(int which, rlim_t value) {
    rlimit limit = {value, value};
    return setrlimit(__rlimit_resource(which), &limit);
  }

  // Runs `body` as a process; what it exits with.
  template <typename F> static int InChild(F body) {
    pid_t pid = fork();
    if (pid == 0)
      _exit(body());
    return Wait(pid);
  }

  // The limit that leaves `n` descriptors.
  static int LeaveDescriptors(int n) {
    int next = dup(0);
    close(next);
    rlimit limit;
    if (next < 0 || getrlimit(RLIMIT_NOFILE, &limit))
      return -1;
    limit.rlim_cur = rlim_t(next + n);
    return setrlimit(RLIMIT_NOFILE, &limit);
  }

  static bool ReadsWell(cachet *c) {
    std::vector<uint8_t> buf(100 * kPage);
    cachet_status status = cachet_read(c, 5 * kPage, buf.data(), buf.size());
    if (status != CACHET_OK)
      fprintf(stderr, "read: %d: %s\n", status, cachet_errmsg(c));
    return status == CACHET_OK && Correct(buf.data(), 5 * kPage, buf.size());
  }

  void TearDown() override {
    EXPECT_TRUE(Eventually([&] { return daemon_->MemfdBytes() <= kBudget; }));
    SharedTest::TearDown();
  }
};

TEST_F(NarrowPlace, NoRoomInTheAddressSpaceIsReadByTheSocket) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the sanitizer itself takes terabytes of address space";
#endif
  Check(
      [] { // room for everything but the image
        long pages = 0;
        FILE *f = fopen("/proc/self/statm", "r");
        int n = fscanf(f, "%ld", &pages);
        fclose(f);
        return n == 1 ? Limit(RLIMIT_AS, rlim_t(pages) * kPage + kSize / 2)
                      : -1;
      },
      false);
}

TEST_F(NarrowPlace, FewDescriptorsAreNoFaultOfTheDaemons) {
  int n_shared = 0, n_open = 0;
  for (int left = 0; left < 10; left++) {
    int status = InChild([&] {
      if (LeaveDescriptors(left))
        return 100;
      cachet_options options{};
      options.struct_size = sizeof options;
      cachet *c = nullptr;
      cachet_error err{};
      std::string uri = "cachet+unix:///disk.img?socket=" + Socket();
      if (cachet_open(uri.c_str(), &options, &c, &err) != CACHET_OK)
        return err.code != CACHET_E_PROTO && err.sys_errno == EMFILE ? 50 : 1;
      return !ReadsWell(c) ? 2 : cachet_is_shared(c) ? 51 : 52;
    });
    EXPECT_GE(status, 50) << left << " descriptors left: " << status;
    n_shared += status == 51;
    n_open += status >= 51;
  }
  EXPECT_GT(n_shared, 0);
  EXPECT_GT(n_open, n_shared) << "none fell back to the socket";
}

TEST_F(NarrowPlace, DescriptorsThatRunOutWhileAHandleIsUsedCostItsSharing) {
  for (int left : {0, 2, 4}) {
    int status = InChild([&] {
      cachet *c = Open(), *other = Open();
      cachet_slice held;
      if (!c || !cachet_is_shared(c) ||
          cachet_load(c, 5 * kPage, 1, &held) != CACHET_OK)
        return 101;
      // Of a page that is held: so the image gets a new epoch.
      rlimit before;
      if (cachet_invalidate(other, 5 * kPage, 1) != CACHET_OK ||
          getrlimit(RLIMIT_NOFILE, &before) || LeaveDescriptors(left))
        return 102;
      bool well = ReadsWell(c);
      // A cache of its own may take more descriptors than there are.
      if (!well && (left || !strstr(cachet_errmsg(c), strerror(EMFILE))))
        return 1;
      if (setrlimit(RLIMIT_NOFILE, &before) || !ReadsWell(c))
        return 2;
      return Correct(held.data, 5 * kPage, held.length) ? 0 : 3;
    });
    EXPECT_EQ(status, 0) << left << " descriptors left";
  }
}

TEST_F(NarrowPlace, ClosedStandardDescriptorsStayClosed) {
  std::string uri = "file:" + path_;
  EXPECT_EQ(InChild([&] {
              for (int fd = 0; fd < 3; fd++)
                close(fd);
              auto free_of_ours = [] {
                return fcntl(0, F_GETFD) < 0 && fcntl(1, F_GETFD) < 0 &&
                       fcntl(2, F_GETFD) < 0;
              };
              cachet *in_process = nullptr, *copy = nullptr;
              cachet_open(uri.c_str(), nullptr, &in_process, nullptr);
              cachet *handles[] = {Open(), Open(0, CACHET_NO_SHARED_MEMORY),
                                   in_process};
              if (!free_of_ours())
                return 3;
              for (cachet *c : handles) {
                cachet_slice held;
                if (!c || !ReadsWell(c) ||
                    cachet_load(c, 5 * kPage, 1, &held) != CACHET_OK)
                  return 101;
                // Of a page that is held: so the image gets new memory.
                if (cachet_invalidate(c, 5 * kPage, 1) != CACHET_OK ||
                    !ReadsWell(c) ||
                    cachet_copy(c, &copy, nullptr) != CACHET_OK ||
                    !ReadsWell(copy))
                  return 102;
                if (!free_of_ours())
                  return 4;
                cachet_close(copy);
                cachet_close(c);
              }
              return free_of_ours() ? 0 : 5;
            }),
            0);
}

TEST_F(NarrowPlace, ASmallFileSizeLimit) {
  Check([] { return Limit(RLIMIT_FSIZE, 1 << 20); }, true);
}

TEST_F(NarrowPlace, MembarrierDeniedByAFilter) {
  Check([] { return ForbidCall(SYS_membarrier, EPERM) ? 0 : 1; }, true);
}

TEST_F(NarrowPlace, AnotherUserAndPidNamespace) {
  Check(
      [] {
        if (unshare(CLONE_NEWUSER | CLONE_NEWPID))
          return -1;
        pid_t pid = fork(); // the first process of the new namespace
        if (pid > 0)
          _exit(Wait(pid));
        return 0;
      },
      true);
}

TEST_F(NarrowPlace, CoreDumpsLeaveTheMappingsOut) {
  Check(
      [] {
        cachet *c = Open();
        std::string smaps, line;
        FILE *f = fopen("/proc/self/smaps", "r");
        char buf[512];
        bool is_mirror = false, all = true;
        int n = 0;
        while (fgets(buf, sizeof buf, f)) {
          line = buf;
          if (line.find("/memfd:cachet-") != std::string::npos)
            is_mirror = line.find("cachet-pins") == std::string::npos;
          if (is_mirror && !line.compare(0, 8, "VmFlags:")) {
            all = all && line.find(" dd") != std::string::npos;
            is_mirror = false;
            n++;
          }
        }
        fclose(f);
        cachet_close(c);
        return n >= 3 && all ? 0 : 1;
      },
      true);
}

// As much as everybody may lock: an image of 2 MiB fits.
TEST_F(NarrowPlace, MlockallOfWhatComesLeavesHolesHoles) {
  ASSERT_EQ(truncate(path_.c_str(), 2 << 20), 0);
  daemon_.reset();
  Start();
  uint64_t before = daemon_->MemfdBytes();
  pid_t pid = fork();
  if (pid == 0) {
    if (mlockall(MCL_FUTURE))
      _exit(1);
    cachet *c = Open(0, CACHET_NO_READAHEAD);
    if (!c || !cachet_is_shared(c))
      _exit(2);
    uint8_t buf[64];
    for (uint64_t addr = 0; addr < (1 << 20); addr += kPage)
      if (cachet_read(c, addr, buf, 64) != CACHET_OK || !Correct(buf, addr, 64))
        _exit(3);
    _exit(0);
  }
  EXPECT_EQ(Wait(pid), 0);
  EXPECT_LE(daemon_->MemfdBytes(), before + (1 << 20) + 16 * kPage)
      << "the second half was not looked at";
  std::vector<uint64_t> words(kSize / 8);
  for (uint64_t i = 0; i < words.size(); i++)
    words[i] = WordAt(i * 8);
  int fd = open(path_.c_str(), O_WRONLY);
  ASSERT_EQ(write(fd, words.data(), kSize), ssize_t(kSize));
  close(fd);
}

} // namespace

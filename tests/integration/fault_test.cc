// Slow and failing sources, seen through the library: one server in this
// process over a fake source, clients on threads, over its Unix socket.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <poll.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "tests/support/daemon_process.h"
#include "tests/support/fake_source.h"
#include "tests/support/length.h"
#include "tests/support/test_server.h"

namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPages = 1024;

struct Close {
  void operator()(cachet *c) const { cachet_close(c); }
};
using Handle = std::unique_ptr<cachet, Close>;

// The parameter: flags of the handles, by shared memory or by the socket.
class FaultTest : public testing::TestWithParam<uint32_t> {
protected:
  static Handle OpenAt(const TestServer &server, uint32_t flags) {
    std::string uri = "cachet+unix:///fake?socket=" + server.socket_path();
    cachet_options options{};
    options.struct_size = sizeof options;
    options.flags = flags;
    cachet *c = nullptr;
    cachet_error err{};
    EXPECT_EQ(cachet_open(uri.c_str(), &options, &c, &err), CACHET_OK)
        << err.message;
    return Handle(c);
  }

  Handle Open() {
    Handle c = OpenAt(server_, GetParam());
    EXPECT_EQ(cachet_is_shared(c.get()), GetParam() == 0);
    return c;
  }

  // Reads a page and checks it.
  static cachet_status ReadPage(cachet *c, uint64_t page) {
    uint8_t buf[kPage];
    cachet_status status = cachet_read(c, page * kPage, buf, kPage);
    if (status == CACHET_OK) {
      EXPECT_EQ(
          memcmp(buf, FakeSource::Bytes(page * kPage, kPage).data(), kPage), 0);
    }
    return status;
  }

  // Serves a handle's callbacks until `done`.
  static void Dispatch(cachet *c, const std::function<bool()> &done) {
    while (!done()) {
      pollfd p = {cachet_fd(c), cachet_events(c), 0};
      ASSERT_GE(poll(&p, 1, cachet_timeout_ms(c)), 0);
      ASSERT_EQ(cachet_dispatch(c), CACHET_OK);
    }
  }

  // Enough that there is a share for each of 64 handles.
  static TestServer::Options Options() {
    TestServer::Options options;
    options.cache_size = 256 << 20;
    return options;
  }

  FakeSource source_{kPages * kPage};
  TestServer server_{{{"fake", &source_}}, Options()};
};

TEST_P(FaultTest, SixtyFourClientsOfOneAbsentPageAreOneRead) {
  source_.ShutGate();
  std::atomic<int> n_ok{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < 64; i++)
    clients.emplace_back([&] {
      Handle c = Open();
      n_ok += ReadPage(c.get(), 7) == CACHET_OK;
    });
  source_.AwaitReadsAtGate(1);
  source_.OpenGate();
  for (auto &client : clients)
    client.join();
  EXPECT_EQ(n_ok, 64);
  EXPECT_EQ(source_.n_reads(), 1);
}

TEST_P(FaultTest, AFailureIsEverybodysErrorAndTheNextLoadTriesAgain) {
  std::vector<Handle> handles;
  for (int i = 0; i < 64; i++)
    handles.push_back(Open());
  source_.FailReads(EIO);
  std::atomic<int> n_io{0};
  std::vector<std::thread> clients;
  for (auto &c : handles)
    clients.emplace_back([&n_io, &c] {
      n_io += ReadPage(c.get(), 7) == CACHET_E_IO;
      EXPECT_NE(strstr(cachet_errmsg(c.get()), "Input/output error"), nullptr)
          << cachet_errmsg(c.get());
    });
  for (auto &client : clients)
    client.join();
  EXPECT_EQ(n_io, 64);
  source_.FailReads(0);
  for (auto &c : handles)
    EXPECT_EQ(ReadPage(c.get(), 7), CACHET_OK);
}

// Sixty-four misses stand at a shut gate; a page that the daemon holds is
// answered all the same.
class HitsWhileMissesWait : public FaultTest {
protected:
  void SetUp() override {
    waiting_ = Open();
    ASSERT_EQ(ReadPage(Open().get(), 1000), CACHET_OK); // now it is warm
    source_.ShutGate();
    for (uint64_t page = 0; page < 64; page++)
      ASSERT_EQ(cachet_load_async(waiting_.get(), page * 2 * kPage, 1, Done,
                                  this, nullptr),
                CACHET_OK);
    source_.AwaitReadsAtGate(1);
  }

  void TearDown() override {
    EXPECT_EQ(n_done_, 0) << "none of them came before the gate was open";
    source_.OpenGate();
    Dispatch(waiting_.get(), [this] { return n_done_ == 64; });
  }

  static void Done(void *arg, cachet_status status, cachet_slice *slice) {
    auto *self = static_cast<HitsWhileMissesWait *>(arg);
    ASSERT_EQ(status, CACHET_OK);
    EXPECT_EQ(memcmp(slice->data,
                     FakeSource::Bytes(slice->offset, kPage).data(), kPage),
              0);
    cachet_release(self->waiting_.get(), slice);
    self->n_done_++;
  }

  Handle waiting_;
  int n_done_ = 0;
};

TEST_P(HitsWhileMissesWait, OnAnotherConnection) {
  EXPECT_EQ(ReadPage(Open().get(), 1000), CACHET_OK);
}

TEST_P(HitsWhileMissesWait, OnTheSameConnection) {
  EXPECT_EQ(ReadPage(waiting_.get(), 1000), CACHET_OK);
}

TEST_P(FaultTest, ReadErrorsUnderEightClientsHarmNobody) {
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> n_ok{0}, n_io{0}, n_other{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < 8; i++)
    clients.emplace_back([&, i] {
      Handle c = Open();
      std::mt19937_64 random(i);
      while (!stop) {
        switch (ReadPage(c.get(), random() % kPages)) {
        case CACHET_OK:
          n_ok++;
          break;
        case CACHET_E_IO:
          n_io++;
          break;
        default:
          n_other++;
        }
        if (random() % 64 == 0)
          cachet_prefetch(c.get(), 0, kPages * kPage);
      }
    });
  for (int round = 0; round < TestLength(30); round++) {
    source_.FailReads(EIO, 5);
    uint64_t until = n_ok + n_io + 300;
    while (n_ok + n_io < until && n_other == 0)
      std::this_thread::yield();
    // Dropped at the daemon and at every client, so that misses go on.
    Handle c = Open();
    ASSERT_EQ(cachet_invalidate(c.get(), 0, CACHET_TO_END), CACHET_OK)
        << cachet_errmsg(c.get());
  }
  stop = true;
  for (auto &client : clients)
    client.join();
  EXPECT_GT(n_io, 0u);
  EXPECT_GT(n_ok, 0u);
  EXPECT_EQ(n_other, 0u);
}

// Pages that cannot be read, among others that can: each is an error of its own
// and of nobody else.
class BadPages : public FaultTest {
protected:
  void SetUp() override {
    for (uint64_t page : kBad)
      source_.FailAt(page * kPage + 100, EIO);
  }

  static bool IsBad(uint64_t page) {
    return std::count(std::begin(kBad), std::end(kBad), page) > 0;
  }

  // What the message says of a page.
  static std::string Place(uint64_t page) {
    return "read 4096 bytes at " + std::to_string(page * kPage) + ": ";
  }

  static void CheckPage(cachet *c, uint64_t page) {
    cachet_slice s;
    cachet_status status = cachet_load(c, page * kPage, 1, &s);
    ASSERT_EQ(status, IsBad(page) ? CACHET_E_IO : CACHET_OK)
        << "page " << page << ": " << cachet_errmsg(c);
    if (status != CACHET_OK) {
      EXPECT_NE(strstr(cachet_errmsg(c), Place(page).c_str()), nullptr)
          << cachet_errmsg(c);
      return;
    }
    EXPECT_EQ(
        memcmp(s.data, FakeSource::Bytes(page * kPage, kPage).data(), kPage),
        0);
    cachet_release(c, &s);
  }

  static constexpr uint64_t kBad[] = {3, 64, 65, 700, 1023};
  TempDir out_;
};

TEST_P(BadPages, AFailedReadAheadIsNobodysError) {
  Handle c = Open();
  for (uint64_t page = 0; page < kPages; page++)
    CheckPage(c.get(), page);
}

TEST_P(BadPages, ALoadThatJoinsAFailedPrefetchAsksForItsOwnPage) {
  Handle c = Open();
  for (uint64_t page : {4, 3, 2}) {
    ASSERT_EQ(cachet_prefetch(c.get(), 0, 16 * kPage), CACHET_OK);
    CheckPage(c.get(), page);
    ASSERT_EQ(cachet_invalidate(c.get(), 0, CACHET_TO_END), CACHET_OK);
  }
}

TEST_P(BadPages, AReadOfManyPagesNamesTheOneThatFailed) {
  Handle c = Open();
  std::vector<uint8_t> buf(32 * kPage);
  for (int round = 0; round < 2; round++) { // absent, and but for one resident
    ASSERT_EQ(cachet_read(c.get(), 0, buf.data(), buf.size()), CACHET_E_IO);
    EXPECT_NE(strstr(cachet_errmsg(c.get()), Place(3).c_str()), nullptr)
        << cachet_errmsg(c.get());
  }
  ASSERT_EQ(cachet_read(c.get(), 4 * kPage, buf.data(), buf.size()), CACHET_OK)
      << cachet_errmsg(c.get());
}

TEST_P(BadPages, TheDaemonSendsWhatIsGoodBeforeThePageThatFailed) {
  WireClient wire = server_.Unix();
  uint32_t image = wire.Start().image;
  ASSERT_TRUE(wire.SendRead(7, image, {{100, 16 * kPage}}));
  std::vector<uint8_t> bytes;
  Frame f;
  while ((f = wire.ReceiveAnswer()).is_data()) {
    EXPECT_EQ(f.offset, 100 + bytes.size());
    bytes.insert(bytes.end(), f.payload.begin(), f.payload.end());
  }
  ASSERT_TRUE(f.is_error());
  EXPECT_EQ(f.status, CACHET_E_IO);
  EXPECT_NE(f.message.find(Place(3)), std::string::npos) << f.message;
  EXPECT_TRUE(bytes == FakeSource::Bytes(100, 3 * kPage - 100));
}

// Cats what the arguments name, from byte `from` of the image to page `bad`.
class BadPagesCat : public BadPages {
protected:
  void ExpectBytes(const std::string &args, uint64_t from, uint64_t bad) {
    std::string command = DaemonProcess::Runfile("client/cachet") + " cat " +
                          args + " 2>&1 >" + (out_ / "image");
    FILE *errors = popen(command.c_str(), "r");
    char line[512] = "";
    EXPECT_NE(fgets(line, sizeof line, errors), nullptr);
    EXPECT_EQ(WEXITSTATUS(pclose(errors)), 1);
    EXPECT_NE(strstr(line, Place(bad).c_str()), nullptr) << line;
    std::ifstream file(out_ / "image", std::ios::binary);
    std::vector<uint8_t> bytes{std::istreambuf_iterator<char>(file), {}};
    EXPECT_TRUE(bytes == FakeSource::Bytes(from, bad * kPage - from))
        << bytes.size();
  }
};

TEST_P(BadPagesCat, WritesWhatIsGoodBeforeItFails) {
  std::string args = "--socket " + server_.socket_path() + " fake --offset ";
  ExpectBytes(args + "1", 1, 3);
  ExpectBytes(args + std::to_string(4 * kPage + 1), 4 * kPage + 1, 64);
}

TEST_P(BadPagesCat, WritesWhatIsGoodOfAWindowWithinAPage) {
  std::string window =
      "'cachet+unix:///fake?socket=" + server_.socket_path() + "&offset=512'";
  ExpectBytes(window, 512, 3);
  ExpectBytes(window + " --offset " + std::to_string(4 * kPage),
              4 * kPage + 512, 64);
}

TEST_P(FaultTest, ANewVersionIsSeenByAllAndNoReadMixesTwo) {
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> n_mixed{0};
  std::atomic<uint64_t> seen[8] = {};
  std::vector<std::thread> clients;
  for (int i = 0; i < 8; i++)
    clients.emplace_back([&, i] {
      Handle c = Open();
      std::mt19937_64 random(i);
      std::vector<uint8_t> buf(3 * kPage);
      while (!stop) {
        uint64_t addr = random() % (kPages - 3) * kPage;
        if (cachet_read(c.get(), addr, buf.data(), buf.size()) != CACHET_OK)
          continue;
        uint64_t version = source_.version() + 1;
        while (--version > 0 &&
               buf != FakeSource::Bytes(addr, buf.size(), version))
          ;
        n_mixed += version == 0;
        seen[i] = std::max<uint64_t>(seen[i], version);
      }
    });
  for (int round = 0; round < TestLength(5); round++) {
    source_.Change(kPages * kPage);
    for (auto &s : seen)
      while (s < source_.version() && n_mixed == 0)
        std::this_thread::yield();
  }
  stop = true;
  for (auto &client : clients)
    client.join();
  EXPECT_EQ(n_mixed, 0u);
}

// What one client invalidates, another one that began to load afterwards sees
// anew, also from a cache of its own.
TEST_P(FaultTest, AnInvalidationReachesTheCachesOfOtherClients) {
  Handle one = Open(), other = Open();
  ASSERT_EQ(ReadPage(one.get(), 5), CACHET_OK);
  ASSERT_EQ(ReadPage(other.get(), 5), CACHET_OK);
  ASSERT_EQ(source_.n_reads(), 1);
  uint8_t byte;
  for (int i = 0; i < 100; i++) {
    ASSERT_EQ(cachet_get_u8(other.get(), 5 * kPage, &byte), CACHET_OK);
    int before = source_.n_reads();
    ASSERT_EQ(cachet_invalidate(one.get(), 5 * kPage, 1), CACHET_OK);
    ASSERT_EQ(cachet_get_u8(other.get(), 5 * kPage, &byte), CACHET_OK);
    ASSERT_EQ(source_.n_reads(), before + 1);
  }
}

// A reader that goes from front to back, page by page.
class ReadAheadTest : public FaultTest {
protected:
  // How often he has to wait.
  static uint64_t Misses(cachet *c, uint64_t from, uint64_t to) {
    uint64_t before = cachet_misses(c);
    for (uint64_t page = from; page < to; page++)
      EXPECT_EQ(ReadPage(c, page), CACHET_OK);
    return cachet_misses(c) - before;
  }

  // How many reads of the source 200 pages take.
  int ReadsOfTheSource(uint32_t flags) {
    Handle c = OpenAt(server_, flags);
    Misses(c.get(), 0, 200);
    return source_.n_reads();
  }
};

TEST_P(ReadAheadTest, AReaderFromFrontToBackIsReadAheadOf) {
  EXPECT_LT(ReadsOfTheSource(GetParam()), 40);
}

TEST_P(ReadAheadTest, UnlessItDoesNotWantThat) {
  EXPECT_EQ(ReadsOfTheSource(GetParam() | CACHET_NO_READAHEAD), 200);
}

TEST_P(ReadAheadTest, WhatIsReadAheadStaysUntilItIsRead) {
  // The client's own cache has 4 MiB, and so has the daemon's: an eighth.
  FakeSource large(8 * kPages * kPage);
  TestServer::Options options;
  options.cache_size = kPages * kPage;
  TestServer server({{"fake", &large}}, options);
  Handle c = OpenAt(server, GetParam());
  EXPECT_LT(Misses(c.get(), 0, 8 * kPages), kPages / 2);
}

// He has no reason to look at the socket, where the answers pile up.
TEST_P(ReadAheadTest, WhoNeverHasToWaitIsReadAheadOfToTheEnd) {
  FakeSource large(32 * kPages * kPage);
  TestServer server({{"fake", &large}}, Options());
  Handle c = OpenAt(server, GetParam());
  Misses(c.get(), 0, 64);
  uint64_t before = cachet_misses(c.get());
  for (uint64_t page = 64; page < 32 * kPages; page++) {
    auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!cachet_is_cached(c.get(), page * kPage)) {
      ASSERT_LT(std::chrono::steady_clock::now(), limit) << "page " << page;
      if (GetParam() == CACHET_NO_SHARED_MEMORY)
        cachet_dispatch(c.get()); // else nothing comes in
    }
    ASSERT_EQ(ReadPage(c.get(), page), CACHET_OK);
  }
  EXPECT_EQ(cachet_misses(c.get()), before);
}

TEST_P(ReadAheadTest, WhatWasReadAheadAndIsLostIsReadAheadAnew) {
  Handle c = Open();
  Misses(c.get(), 0, 600);
  ASSERT_EQ(cachet_invalidate(c.get(), 0, CACHET_TO_END), CACHET_OK);
  EXPECT_LT(Misses(c.get(), 600, 900), 200u);
}

const auto kWays = testing::Values(0u, uint32_t{CACHET_NO_SHARED_MEMORY});
std::string NameOf(const testing::TestParamInfo<uint32_t> &way) {
  return way.param ? "Socket" : "Shared";
}
INSTANTIATE_TEST_SUITE_P(By, FaultTest, kWays, NameOf);
INSTANTIATE_TEST_SUITE_P(By, BadPages, kWays, NameOf);
INSTANTIATE_TEST_SUITE_P(By, BadPagesCat, kWays, NameOf);
INSTANTIATE_TEST_SUITE_P(By, HitsWhileMissesWait, kWays, NameOf);
INSTANTIATE_TEST_SUITE_P(By, ReadAheadTest, kWays, NameOf);

} // namespace

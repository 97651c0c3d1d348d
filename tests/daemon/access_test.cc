// Access: which peer may read which image, with each call; what becomes of
// it when a rule changes; and that an image which may not be read is not there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "cache/mirror.h"
#include "proto/status.h"
#include "proto/tls.h"
#include "tests/support/certificates.h"
#include "tests/support/test_rule.h"
#include "tests/support/test_server.h"

namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr uint64_t kSize = 1 << 20;
constexpr uint64_t kPage = 4096;
constexpr int kOpened = CACHET__WIRE__MESSAGE__BODY_OPENED;
constexpr int kAttached = CACHET__WIRE__MESSAGE__BODY_ATTACHED;
constexpr int kChanged = CACHET__WIRE__MESSAGE__BODY_CHANGED;
constexpr uid_t kAnn = 54321, kBob = 54322;
constexpr gid_t kStaff = 54331, kGuests = 54332, kSocket = 54333;

struct ContextFree {
  void operator()(tls_context *c) const { tls_context_unref(c); }
};
using Context = std::unique_ptr<tls_context, ContextFree>;

// A connection of a process of that user.  In the kernel credentials belong to
// a thread, and a socket has those of the thread that connected it.
WireClient ConnectAs(uid_t uid, gid_t gid, gid_t further,
                     const std::string &path) {
  WireClient client;
  std::thread([&] {
    EXPECT_EQ(syscall(SYS_setgroups, 1, &further), 0);
    EXPECT_EQ(syscall(SYS_setresgid, gid, gid, gid), 0);
    EXPECT_EQ(syscall(SYS_setresuid, uid, uid, uid), 0);
    client = WireClient::Unix(path);
  }).join();
  return client;
}

void CloseAll(const std::vector<int> &fds) {
  for (int fd : fds)
    close(fd);
}

// Images by name, each with its rule; "": none of its own.
using Rules = std::vector<std::pair<std::string, std::string>>;

// A server for everybody on the machine, with a port for TLS.
class House {
public:
  House(const Rules &rules, const std::string &all,
        const Certificates &certificates) {
    static int n_servers;
    std::string ca = certificates.ca();
    std::string own = certificates.Make("server" + std::to_string(n_servers++),
                                        "IP:127.0.0.1");
    tls_files files = {own.c_str(), nullptr, ca.c_str()};
    TestServer::Options options;
    char why[TLS_WHY_LEN];
    EXPECT_EQ(tls_server(&files, false, &options.tls, why), 0) << why;
    context_.reset(options.tls);
    std::vector<std::pair<std::string, FakeSource *>> list;
    for (const auto &image : rules) {
      sources_[image.first] = std::make_unique<FakeSource>(kSize);
      list.emplace_back(image.first, source(image.first));
    }
    server_ = std::make_unique<TestServer>(list, options);
    std::string path = server_->socket_path();
    EXPECT_EQ(chown(path.c_str(), 0, kSocket), 0);
    EXPECT_EQ(chmod(path.c_str(), 0666), 0);
    EXPECT_EQ(chmod(path.substr(0, path.rfind('/')).c_str(), 0755), 0);
    Set(rules, all);
  }

  // Other rules, for those images that are named.
  void Set(const Rules &rules, const std::string &all) {
    std::vector<std::unique_ptr<Rule>> made;
    std::vector<image_rule> list;
    auto make = [&](const std::string &text) {
      if (text.empty())
        return static_cast<rule *>(nullptr);
      made.push_back(std::make_unique<Rule>(text));
      return made.back()->get();
    };
    for (const auto &image : rules)
      list.push_back({image.first.c_str(), make(image.second)});
    server_->SetRules(make(all), list);
  }

  const TestServer &server() { return *server_; }
  FakeSource *source(const std::string &name) {
    return sources_.at(name).get();
  }

private:
  Context context_;
  std::map<std::string, std::unique_ptr<FakeSource>> sources_;
  std::unique_ptr<TestServer> server_;
};

// Somebody, and the words of rules that are true of them.
struct Somebody {
  std::string name;
  std::set<std::string> words;
  bool is_here;
  std::function<WireClient(const TestServer &)> connect;

  bool May(const std::string &rule, const std::string &all) const {
    const std::string &effective = rule.empty() ? all : rule;
    if (effective.empty())
      return is_here;
    size_t at = 0;
    while (at < effective.size()) {
      size_t end = std::min(effective.find(' ', at), effective.size());
      if (words.count(effective.substr(at, end - at)))
        return true;
      at = end + 1;
    }
    return false;
  }
};

class AccessTest : public testing::Test {
protected:
  void SetUp() override {
    if (geteuid() != 0)
      GTEST_SKIP() << "it takes root to become somebody";
    AddProcess("root", 0, 0, 0,
               {"any", "uid:0", "user:root", "gid:0", "group:root"});
    AddProcess("ann", kAnn, kStaff, kSocket,
               {"any", "uid:54321", "gid:54331", "gid:54333"});
    AddProcess("bob", kBob, kGuests, kStaff,
               {"any", "uid:54322", "gid:54332", "gid:54331"});
    everybody_.push_back({"loopback", {"any"}, true, [](const TestServer &s) {
                            return s.Tcp();
                          }});
    AddCertificate(
        "carol", certificates_.Make("Carol", "DNS:carol.example"),
        {"any", "cert:Carol", "cert:carol.example", "cert:CAROL.example"});
    AddCertificate("dave", certificates_.Make("Dave", ""),
                   {"any", "cert:Dave"});
    AddCertificate("anonymous", "", {"any"});
  }

  void AddProcess(const std::string &name, uid_t uid, gid_t gid, gid_t further,
                  const std::set<std::string> &words) {
    auto connect = [=](const TestServer &server) {
      return ConnectAs(uid, gid, further, server.socket_path());
    };
    everybody_.push_back({name, words, true, connect});
  }

  void AddCertificate(const std::string &name, const std::string &path,
                      const std::set<std::string> &words) {
    std::string ca = certificates_.ca();
    tls_files files = {path.empty() ? nullptr : path.c_str(), nullptr,
                       ca.c_str()};
    tls_context *context = nullptr;
    char why[TLS_WHY_LEN];
    ASSERT_EQ(tls_client(&files, "127.0.0.1", &context, why), 0) << why;
    contexts_.emplace_back(context);
    auto connect = [=](const TestServer &server) {
      return WireClient::Tls(server.tls_port(), context);
    };
    everybody_.push_back({name, words, false, connect});
  }

  WireClient Connect(House *house, const std::string &name) {
    for (const Somebody &somebody : everybody_)
      if (somebody.name == name)
        return somebody.connect(house->server());
    abort();
  }

  // The same, and Hello.
  WireClient Greet(House *house, const std::string &name) {
    WireClient client = Connect(house, name);
    client.SendHello();
    client.Receive();
    return client;
  }

  Certificates certificates_;
  std::vector<Context> contexts_;
  std::vector<Somebody> everybody_;
};

// ---- The table --------------------------------------------------------------

const Rules kImages = {
    {"all", ""},
    {"ann", "uid:54321"},
    {"any", "any"},
    {"bob", "uid:54322"},
    {"carol", "cert:carol.example"},
    {"case", "cert:CAROL.example"},
    {"common", "cert:Carol"},
    {"dave", "cert:Dave cert:carol"},
    {"guests", "gid:54332"},
    {"mixed", "gid:54333 cert:Dave"},
    {"nobody", "uid:99 gid:99 cert:nobody"},
    {"root", "user:root"},
    {"staff", "gid:54331"},
    {"wheel", "group:root"},
};

const char *const kForAll[] = {"", "any", "uid:54321", "gid:54331 cert:Dave",
                               "gid:99"};

// What somebody is told, but for what differs each time: in words.
class Script {
public:
  Script(WireClient *client, const Rules &images) : client_(client) {
    client->SendHello(1);
    Note("hello", client->Receive());
    client->SendList(2);
    Note("list", client->ReceiveAnswer());
    client->SendGetStats(3);
    Note("stats", client->ReceiveAnswer());
    client->SendOpen(4, "");
    Note("open the only one", client->ReceiveAnswer());
    for (const auto &image : images)
      OpenBoth(image.first);
    for (uint32_t id = 0; id < images.size() + 5; id++)
      UseByNumber(id);
    client->SendList(5);
    Note("list again", client->ReceiveAnswer());
  }

  std::vector<std::string> said;

private:
  // Numbers that a server makes for itself are left out.
  void Note(const std::string &what, const Frame &f) {
    std::string line =
        what + ": kind " + std::to_string(f.kind) + ", image " +
        std::to_string(f.image) + ", status " + std::to_string(f.status) +
        ", errno " + std::to_string(f.sys_errno) + ", size " +
        std::to_string(f.size) + ", bytes " + std::to_string(f.payload.size()) +
        ", resident " + std::to_string(f.resident) + ", \"" + f.message + "\"";
    for (const std::string &name : f.names)
      line += " " + name;
    for (const auto &stat : f.stats)
      line += " " + stat.first;
    if (f.stats.count("images"))
      line += ", images " + std::to_string(f.stats.at("images"));
    said.push_back(line);
    CloseAll(client_->TakeFds());
  }

  // The image, and one that is nowhere: the same is said of both, but for the
  // name, unless the image may be read.
  void OpenBoth(const std::string &name) {
    client_->SendOpen(6, name);
    Frame answer = client_->ReceiveAnswer();
    Note("open " + name, answer);
    std::string other(name.size(), '-');
    client_->SendOpen(6, other);
    Frame none = client_->ReceiveAnswer();
    EXPECT_EQ(none.status, WIRE_E_NOIMAGE);
    if (answer.kind == kOpened)
      return;
    EXPECT_EQ(answer.status, none.status);
    EXPECT_EQ(answer.sys_errno, none.sys_errno);
    EXPECT_EQ(answer.message, "image \"" + name + "\": not served");
    EXPECT_EQ(none.message, "image \"" + other + "\": not served");
  }

  void UseByNumber(uint32_t id) {
    std::string number = " " + std::to_string(id);
    client_->SendRead(7, id, {{0, 10}});
    Note("read" + number, client_->ReceiveAnswer());
    client_->SendRead(7, id, {{0, 10}}, 0, true);
    Note("read in place" + number, client_->ReceiveAnswer());
    client_->SendWarm(7, id, {{0, kPage}});
    Note("warm" + number, client_->ReceiveAnswer());
    client_->SendInvalidate(7, id, 0, 1);
    Note("invalidate" + number, client_->ReceiveAnswer());
    client_->SendAttach(7, id);
    Note("attach" + number, client_->ReceiveAnswer());
    client_->SendGrow(7, id, 1, 1);
    Note("grow" + number, client_->ReceiveAnswer());
  }

  WireClient *client_;
};

class TableTest : public AccessTest,
                  public testing::WithParamInterface<const char *> {
protected:
  // The images that can be read, which are those that are listed.
  std::vector<std::string> ReadAndList(WireClient *client) {
    std::vector<std::string> opened;
    client->SendHello();
    client->Receive();
    for (const auto &image : kImages) {
      client->SendOpen(3, image.first);
      Frame frame = client->ReceiveAnswer();
      if (frame.kind != kOpened)
        continue;
      opened.push_back(image.first);
      EXPECT_EQ(client->Read(frame.image, 7, 9).bytes, FakeSource::Bytes(7, 9));
    }
    client->SendList(2);
    EXPECT_EQ(client->ReceiveAnswer().names, opened);
    return opened;
  }
};

// What is said to somebody is what a daemon says that has nothing but the
// images that they may read.
TEST_P(TableTest, WhatSomebodyMayNotReadIsNotThereForThem) {
  const std::string all = GetParam();
  House house(kImages, all, certificates_);
  for (const Somebody &somebody : everybody_) {
    SCOPED_TRACE(somebody.name + " where all is \"" + all + "\"");
    Rules own;
    std::vector<std::string> names;
    for (const auto &image : kImages)
      if (somebody.May(image.second, all)) {
        own.push_back(image);
        names.push_back(image.first);
      }
    WireClient client = somebody.connect(house.server());
    std::vector<std::string> said = Script(&client, kImages).said;
    client = somebody.connect(house.server());
    EXPECT_EQ(ReadAndList(&client), names);
    own.emplace_back("unseen", "uid:99"); // there is one in any daemon
    House own_house(own, all, certificates_);
    client = somebody.connect(own_house.server());
    EXPECT_EQ(said, Script(&client, kImages).said);
  }
}

INSTANTIATE_TEST_SUITE_P(Rules, TableTest, testing::ValuesIn(kForAll));

TEST_F(AccessTest, NoNameIsTheOnlyOneThatThePeerMayRead) {
  House house({{"a", "uid:54321"}, {"b", "uid:54322"}, {"c", "uid:54322"}}, "",
              certificates_);
  EXPECT_THAT(Connect(&house, "ann").Start().names, ElementsAre("a"));
  EXPECT_EQ(Connect(&house, "bob").Start().message,
            "no image is named, and 2 are served");
  EXPECT_EQ(Connect(&house, "carol").Start().message,
            "no image is named, and 0 are served");
}

TEST_F(AccessTest, TheDaemonsCountersAreForWhoMayReadInGeneral) {
  House house({{"a", "any"}, {"b", "uid:99"}}, "uid:54321", certificates_);
  EXPECT_EQ(Greet(&house, "ann").Stats()["images"], 1u);
  EXPECT_EQ(Greet(&house, "root").Stats()["images"], 1u) << "or changes things";
  WireClient bob = Greet(&house, "bob");
  bob.SendGetStats(2);
  Frame frame = bob.ReceiveAnswer();
  EXPECT_THAT(frame.stats, IsEmpty());
  EXPECT_THAT(frame.names, ElementsAre("a"));
  house.Set({}, "uid:54322");
  EXPECT_EQ(bob.Stats()["images"], 1u);
}

// ---- A rule that changes
// ------------------------------------------------------

// What stands in the memory that was lent to an attached client.
mirror_header Header(const std::vector<int> &fds) {
  mirror_header header = {};
  EXPECT_EQ(pread(fds.at(1), &header, sizeof header, 0),
            static_cast<ssize_t>(sizeof header));
  return header;
}

// Ann and Bob have opened an image that both may read.
class ChangeTest : public AccessTest {
protected:
  void Open(const Rules &rules, const std::string &all) {
    house_ = std::make_unique<House>(rules, all, certificates_);
    ann_ = Connect(house_.get(), "ann");
    bob_ = Connect(house_.get(), "bob");
    image_ = ann_.Start("disk").image;
    ASSERT_NE(image_, 0u);
    ASSERT_EQ(bob_.Start("disk").image, image_);
  }

  // What it was lent.
  std::vector<int> Attach(WireClient *client) {
    client->SendAttach(7, image_);
    EXPECT_EQ(client->ReceiveAnswer().kind, kAttached);
    return client->TakeFds();
  }

  std::unique_ptr<House> house_;
  WireClient ann_, bob_;
  uint32_t image_ = 0;
};

TEST_F(ChangeTest, WhoMayReadNoMoreIsToldThatThereIsNoImage) {
  Open({{"disk", "gid:54331"}}, "");
  ASSERT_EQ(bob_.Read(image_, 0, 10).status, 0);
  house_->Set({{"disk", "uid:54321"}}, "");
  EXPECT_EQ(bob_.Read(image_, 0, 10).status, WIRE_E_NOIMAGE);
  bob_.SendAttach(7, image_);
  EXPECT_EQ(bob_.ReceiveAnswer().status, WIRE_E_NOIMAGE);
  bob_.SendWarm(7, image_, {{0, 10}});
  EXPECT_EQ(bob_.ReceiveAnswer().status, WIRE_E_NOIMAGE);
  bob_.SendOpen(7, "disk");
  EXPECT_EQ(bob_.ReceiveAnswer().message, "image \"disk\": not served");
  bob_.SendList(7);
  EXPECT_THAT(bob_.ReceiveAnswer().names, IsEmpty());
  EXPECT_THAT(bob_.notices(), IsEmpty());
  EXPECT_EQ(ann_.Read(image_, 0, 10).bytes, FakeSource::Bytes(0, 10));
  ASSERT_EQ(ann_.notices().size(), 1u);
  EXPECT_EQ(ann_.notices()[0].kind, kChanged);
}

TEST_F(ChangeTest, WhoMayReadNoMoreHearsOfNoInvalidationEither) {
  Open({{"disk", "gid:54331"}}, "");
  house_->Set({{"disk", "uid:54321"}}, "");
  ann_.SendInvalidate(7, image_, 0, kSize);
  EXPECT_TRUE(ann_.ReceiveAnswer().is_done());
  bob_.SendList(7);
  bob_.ReceiveAnswer();
  EXPECT_THAT(bob_.notices(), IsEmpty());
}

TEST_F(ChangeTest, AReadThatWaitsEndsToo) {
  Open({{"disk", "gid:54331"}}, "");
  FakeSource *disk = house_->source("disk");
  disk->ShutGate();
  bob_.SendRead(7, image_, {{0, 10}});
  disk->AwaitReadsAtGate(1);
  house_->Set({{"disk", "uid:54321"}}, "");
  disk->OpenGate();
  EXPECT_EQ(bob_.ReceiveAnswer().status, WIRE_E_NOIMAGE);
}

TEST_F(ChangeTest, AnAttachedClientIsCutOffFromNewPages) {
  Open({{"disk", "gid:54331"}}, "");
  std::vector<int> lent = Attach(&bob_);
  ASSERT_EQ(lent.size(), 4u);
  ASSERT_EQ(Header(lent).retired, 0u);
  house_->Set({{"disk", "uid:54321"}}, "");
  EXPECT_EQ(Header(lent).retired, 1u);
  // Ann's pages are brought in elsewhere.
  ASSERT_EQ(ann_.Read(image_, 0, kSize).bytes, FakeSource::Bytes(0, kSize));
  std::vector<uint8_t> page(kPage, 1);
  ASSERT_EQ(pread(lent[0], page.data(), kPage, 0), static_cast<ssize_t>(kPage));
  EXPECT_EQ(page, std::vector<uint8_t>(kPage, 0));
  bob_.SendAttach(7, image_);
  EXPECT_EQ(bob_.ReceiveAnswer().status, WIRE_E_NOIMAGE);
  EXPECT_THAT(bob_.TakeFds(), IsEmpty());
  CloseAll(Attach(&ann_));
  CloseAll(lent);
}

TEST_F(ChangeTest, AWiderRuleChangesNothingForAnybody) {
  Open({{"disk", "gid:54331"}, {"other", ""}}, "");
  std::vector<int> lent = Attach(&ann_);
  house_->Set({{"disk", "gid:54331 cert:Dave"}}, "any");
  house_->Set({{"disk", "cert:Dave uid:1 gid:54331"}}, "any");
  house_->Set({{"disk", "any"}}, "any");
  house_->Set({{"disk", ""}}, "any");
  house_->Set({{"disk", "uid:1 any"}}, "uid:1");
  EXPECT_EQ(Header(lent).retired, 0u);
  EXPECT_EQ(bob_.Read(image_, 0, 10).status, 0);
  EXPECT_THAT(bob_.notices(), IsEmpty());
  CloseAll(lent);
}

TEST_F(ChangeTest, TheRuleForAllChangesForThoseThatHaveNoneOfTheirOwn) {
  Open({{"disk", ""}, {"own", "gid:54331"}}, "gid:54331");
  bob_.SendOpen(3, "own");
  uint32_t own = bob_.ReceiveAnswer().image;
  house_->Set({}, "uid:54321");
  EXPECT_EQ(bob_.Read(image_, 0, 10).status, WIRE_E_NOIMAGE);
  EXPECT_EQ(bob_.Read(own, 0, 10).status, 0);
  EXPECT_THAT(bob_.notices(), IsEmpty()) << "it has no new epoch";
  house_->Set({{"own", ""}}, "uid:54321");
  EXPECT_EQ(bob_.Read(own, 0, 10).status, WIRE_E_NOIMAGE);
}

TEST_F(ChangeTest, WhoMayReadAgainOpensAgain) {
  Open({{"disk", "gid:54331"}}, "");
  house_->Set({{"disk", "uid:54321"}}, "");
  ASSERT_EQ(bob_.Read(image_, 0, 10).status, WIRE_E_NOIMAGE);
  house_->Set({{"disk", "gid:54331"}}, "");
  bob_.SendOpen(7, "disk");
  Frame opened = bob_.ReceiveAnswer();
  ASSERT_EQ(opened.kind, kOpened);
  EXPECT_EQ(bob_.Read(opened.image, 0, 10).bytes, FakeSource::Bytes(0, 10));
}

// Rules that change all the time, under readers on every way.
TEST_F(ChangeTest, NobodyReadsWhatWasForbiddenBeforeTheyAsked) {
  const Rules open = {{"disk", "any"}};
  const Rules shut = {{"disk", "uid:54321"}}; // for Ann alone
  constexpr int kRounds = 60;
  House house(open, "", certificates_);
  std::atomic<bool> is_shut{false}; // set behind a change, and cleared before
  std::atomic<bool> ends{false};
  std::atomic<int> n_read{0}, n_refused{0}, n_leaks{0}, n_wrong{0};
  std::atomic<int> n_opened{0}; // how often it began to be opened
  auto use = [&](WireClient client, bool may_always, bool attaches) {
    for (uint64_t i = 1; !ends; i++) {
      int opened_before = n_opened;
      bool was_shut = is_shut;
      uint64_t offset = i * kPage % kSize;
      client.SendOpen(3, "disk");
      Frame opened = client.ReceiveAnswer();
      bool got = opened.kind == kOpened;
      if (got && attaches) {
        client.SendAttach(4, opened.image);
        got = client.ReceiveAnswer().kind == kAttached;
        CloseAll(client.TakeFds());
      } else if (got) {
        Answer answer = client.Read(opened.image, offset, 10);
        got = answer.status == 0;
        n_wrong += got && answer.bytes != FakeSource::Bytes(offset, 10);
      }
      was_shut = was_shut && opened_before == n_opened;
      n_leaks += got && was_shut && !may_always;
      n_wrong += !got && may_always && !attaches;
      if (!may_always)
        ++(got ? n_read : n_refused);
    }
  };
  std::vector<std::thread> threads;
  threads.emplace_back(use, Greet(&house, "ann"), true, false);
  threads.emplace_back(use, Greet(&house, "ann"), true, true);
  for (const char *name : {"bob", "loopback", "carol", "anonymous"})
    threads.emplace_back(use, Greet(&house, name), false, false);
  threads.emplace_back(use, Greet(&house, "bob"), false, true);
  for (int i = 0; i < kRounds; i++) {
    house.Set(shut, "");
    is_shut = true;
    int refused = n_refused;
    while (n_refused < refused + 5)
      std::this_thread::yield();
    is_shut = false;
    n_opened++;
    house.Set(open, "");
    int read = n_read;
    while (n_read < read + 5)
      std::this_thread::yield();
  }
  ends = true;
  for (std::thread &thread : threads)
    thread.join();
  EXPECT_EQ(n_leaks, 0);
  EXPECT_EQ(n_wrong, 0);
}

// ---- Time
// ---------------------------------------------------------------------

uint64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return uint64_t(now.tv_sec) * 1000000000 + uint64_t(now.tv_nsec);
}

// How often `a` took longer than `b`, of that many pairs, in which either goes
// first as chance has it.  Without a difference it is half of them, within some
// standard deviations, whatever else the machine does.
int TimesLonger(int n, const std::function<void()> &a,
                const std::function<void()> &b) {
  std::minstd_rand chance(12345);
  int longer = 0;
  auto time = [](const std::function<void()> &run) {
    uint64_t start = NowNs();
    run();
    return NowNs() - start;
  };
  for (int i = 0; i < n; i++) {
    bool a_first = chance() >> 16 & 1;
    uint64_t first = time(a_first ? a : b);
    uint64_t second = time(a_first ? b : a);
    uint64_t of_a = a_first ? first : second, of_b = a_first ? second : first;
    // Of equal times half are called longer.
    longer += of_a > of_b || (of_a == of_b && (i & 1));
  }
  return longer;
}

TEST_F(AccessTest, AnImageThatMayNotBeReadTakesAsLongAsOneThatIsNotThere) {
  constexpr int kPairs = 4000;
  const double kSigma = std::sqrt(kPairs) / 2;
#ifdef __SANITIZE_THREAD__
  constexpr double kMost = 16; // its instrumentation is measured, too
#else
  constexpr double kMost = 8;
#endif
  Rules images = {{"mine", "uid:54321"},
                  {"secret", "uid:54322"},
                  {"hidden", "cert:a cert:b gid:1 gid:2 uid:3"}};
  for (int i = 0; i < 100; i++)
    images.emplace_back("other" + std::to_string(i), i % 2 ? "" : "uid:1");
  House house(images, "uid:54323 gid:54332", certificates_);
  WireClient client = Connect(&house, "ann");
  ASSERT_EQ(client.Start("mine").kind, kOpened);
  auto open = [&](const char *name) {
    return [&client, name] {
      client.SendOpen(7, name);
      ASSERT_EQ(client.ReceiveAnswer().status, WIRE_E_NOIMAGE);
    };
  };
  for (const char *name : {"secret", "hidden"}) {
    int longer = TimesLonger(kPairs, open(name), open("absent"));
    EXPECT_LT(std::abs(longer - kPairs / 2), kMost * kSigma) << name;
  }
  auto open_and_list = [&] {
    open("absent")();
    client.SendList(8);
    client.ReceiveAnswer();
  };
  EXPECT_GT(TimesLonger(kPairs, open_and_list, open("absent")),
            kPairs / 2 + kMost * kSigma)
      << "a difference would be seen";
}

} // namespace

// Images that are found by their names: by a fake place, which finds what it is
// told to, and hangs.
#include "daemon/engine/finder_place.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "proto/status.h"
#include "tests/support/test_rule.h"
#include "tests/support/test_server.h"

namespace {

constexpr uint64_t kSize = 1 << 20, kPage = 4096;
constexpr int kOpened = CACHET__WIRE__MESSAGE__BODY_OPENED;

// Any method from any thread.
class FakePlace {
public:
  FakePlace() {
    place_.is_any = [](void *) { return true; };
    place_.open = [](void *arg, const char *name, found_image *out) {
      return static_cast<FakePlace *>(arg)->Open(name, out);
    };
    place_.is_current = [](void *arg, const char *path, bool share) {
      return static_cast<FakePlace *>(arg)->IsCurrent(path, share);
    };
    place_.list = [](void *arg, const char *after, found_name *names,
                     unsigned most) {
      return static_cast<FakePlace *>(arg)->List(after, names, most);
    };
    place_.arg = this;
  }
  const finder_place *place() const { return &place_; }

  FakeSource *Add(const std::string &name) {
    std::lock_guard<std::mutex> lock(mutex_);
    return (sources_[name] = std::make_unique<FakeSource>(kSize)).get();
  }
  // The struct sources that were opened live on: so the image stays ours.
  void Remove(const std::string &name) {
    std::lock_guard<std::mutex> lock(mutex_);
    gone_.push_back(std::move(sources_.at(name)));
    sources_.erase(name);
  }
  void Fail(int error) {
    std::lock_guard<std::mutex> lock(mutex_);
    error_ = error;
  }
  void SetShare(bool share) {
    std::lock_guard<std::mutex> lock(mutex_);
    share_ = share;
  }

  // Looks for the name hang.
  void Hang(const std::string &name) {
    std::lock_guard<std::mutex> lock(mutex_);
    hangs_.insert(name);
  }
  void Release() {
    std::lock_guard<std::mutex> lock(mutex_);
    hangs_.clear();
    changed_.notify_all();
  }
  void AwaitHanging(int n) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return n_hanging_ == n; });
  }
  int n_opens() const {
    std::lock_guard<std::mutex> lock(mutex_);
    return n_opens_;
  }

private:
  void AwaitRelease(const std::string &name,
                    std::unique_lock<std::mutex> *lock) {
    n_hanging_++;
    changed_.notify_all();
    changed_.wait(*lock, [&] { return !hangs_.count(name); });
    n_hanging_--;
  }

  int Open(const std::string &name, found_image *out) {
    std::unique_lock<std::mutex> lock(mutex_);
    n_opens_++;
    auto found = sources_.find(name);
    int r = found == sources_.end() ? -ENOENT : error_;
    if (r == 0)
      *out = {found->second->Open(), strdup(("/" + name).c_str()), share_};
    AwaitRelease(name, &lock);
    return r;
  }

  bool IsCurrent(const char *path, bool share) {
    std::lock_guard<std::mutex> lock(mutex_);
    return share == share_ && sources_.count(path + 1);
  }

  int List(const std::string &after, found_name *names, unsigned most) {
    std::unique_lock<std::mutex> lock(mutex_);
    unsigned n = 0;
    AwaitRelease("", &lock);
    for (auto i = sources_.upper_bound(after); i != sources_.end() && n < most;
         i++, n++) {
      strcpy(names[n].name, i->first.c_str());
      names[n].size = kSize;
    }
    return static_cast<int>(n);
  }

  finder_place place_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::unique_ptr<FakeSource>> sources_;
  std::vector<std::unique_ptr<FakeSource>> gone_;
  std::set<std::string> hangs_;
  int n_hanging_ = 0, n_opens_ = 0, error_ = 0;
  bool share_ = true;
};

class FinderTest : public testing::Test {
protected:
  void Serve() {
    options_.place = place_.place();
    server_ = std::make_unique<TestServer>(
        std::vector<std::pair<std::string, FakeSource *>>{
            {"configured", &configured_}},
        options_);
  }

  WireClient Greet() const {
    WireClient client = server_->Unix();
    client.SendHello();
    client.Receive();
    return client;
  }

  // Waits until so many images are in the table.
  void AwaitImages(uint64_t n) const {
    WireClient client = Greet();
    while (client.Stats()["images"] != n)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  FakePlace place_;
  FakeSource configured_{kSize};
  TestServer::Options options_;
  std::unique_ptr<TestServer> server_;
};

TEST_F(FinderTest, AnImageIsOpenedWhenItIsAskedForAndOnce) {
  place_.Add("one");
  Serve();
  EXPECT_EQ(place_.n_opens(), 0);
  WireClient first = server_->Unix(), second = server_->Tcp();
  Frame opened = first.Start("one");
  ASSERT_EQ(opened.kind, kOpened) << opened.message;
  EXPECT_EQ(opened.size, kSize);
  EXPECT_EQ(first.Read(opened.image, 5000, 100).bytes,
            FakeSource::Bytes(5000, 100));
  EXPECT_EQ(second.Start("one").epoch, opened.epoch);
  EXPECT_EQ(place_.n_opens(), 1);
}

TEST_F(FinderTest, ANameThatIsNotFoundIsAsOneThatIsNotServed) {
  Serve();
  WireClient client = Greet();
  for (const std::string &name :
       {std::string("none"), std::string(64, 'n'), std::string(65, 'n'),
        std::string(1000, 'n'), std::string("../x"), std::string("a b")}) {
    client.SendOpen(7, name);
    Frame frame = client.Receive();
    EXPECT_EQ(frame.status, WIRE_E_NOIMAGE);
    EXPECT_EQ(frame.message,
              "image \"" + name.substr(0, 64) + "\": not served");
  }
}

TEST_F(FinderTest, ForWhoMayNotReadThemThereAreNone) {
  Rule nobody("uid:4294967294");
  options_.allow = nobody.get();
  place_.Add("one");
  Serve();
  server_->SetRules(nobody.get(), {{"configured", Rule("any").get()}});
  WireClient client = Greet();
  client.SendOpen(7, "one");
  EXPECT_EQ(client.Receive().message, "image \"one\": not served");
  EXPECT_EQ(place_.n_opens(), 0);
  client.SendList(7);
  EXPECT_EQ(client.Receive().names, std::vector<std::string>{"configured"});
  client.SendOpen(7, "");
  EXPECT_EQ(client.Receive().kind, kOpened) << "it is the only one";
}

TEST_F(FinderTest, ARuleThatChangesEndsWhatItForbids) {
  place_.Add("one");
  Serve();
  WireClient client = server_->Unix();
  uint32_t image = client.Start("one").image;
  ASSERT_EQ(client.Read(image, 0, 10).status, 0);
  server_->SetRules(Rule("uid:4294967294").get(), {});
  EXPECT_EQ(client.Read(image, 0, 10).status, WIRE_E_NOIMAGE);
}

TEST_F(FinderTest, AConfiguredImageThatIsNotForThePeerHidesTheOneThatIsFound) {
  place_.Add("another");
  place_.Add("configured");
  Serve();
  server_->SetRules(nullptr, {{"configured", Rule("uid:4294967294").get()}});
  WireClient client = Greet();
  for (const char *name : {"configured", "nowhere"}) {
    client.SendOpen(7, name);
    Frame frame = client.Receive();
    EXPECT_EQ(frame.status, WIRE_E_NOIMAGE);
    EXPECT_EQ(frame.message, "image \"" + std::string(name) + "\": not served");
  }
  EXPECT_EQ(place_.n_opens(), 2) << "the one takes as long as the other";
  client.SendList(7);
  EXPECT_EQ(client.Receive().names, std::vector<std::string>{"another"});
}

TEST_F(FinderTest, WithoutANameNoneIsMeant) {
  Serve();
  WireClient client = server_->Unix();
  EXPECT_EQ(client.Start("").status, WIRE_E_NOIMAGE);
}

TEST_F(FinderTest, WhyAnImageCannotBeOpenedIsSaid) {
  place_.Add("one");
  place_.Fail(-EACCES);
  Serve();
  WireClient client = server_->Unix();
  Frame frame = client.Start("one");
  EXPECT_EQ(frame.status, WIRE_E_IO);
  EXPECT_EQ(frame.message, "image \"one\": open: Permission denied");
}

TEST_F(FinderTest, WhoAsksForOneNameAtTheSameTimeGetsOneLook) {
  place_.Add("slow");
  place_.Hang("slow");
  options_.n_workers = 4;
  Serve();
  std::vector<WireClient> clients;
  for (int i = 0; i < 32; i++) {
    clients.push_back(Greet());
    clients.back().SendOpen(7, "slow");
  }
  place_.AwaitHanging(1);
  for (WireClient &client : clients) { // it has taken the Open in
    client.SendGetStats(8);
    EXPECT_EQ(client.Receive().id, 8u);
  }
  place_.Release();
  for (WireClient &client : clients)
    EXPECT_EQ(client.Receive().kind, kOpened);
  EXPECT_EQ(place_.n_opens(), 1);
}

TEST_F(FinderTest, ALookThatHangsDelaysNeitherOthersNorHits) {
  place_.Add("good");
  for (int i = 0; i < 8; i++)
    place_.Hang("hang" + std::to_string(i));
  place_.Hang(""); // lists hang as well
  Serve();
  WireClient waits = Greet(), lists = Greet(), other = server_->Unix();
  for (uint64_t i = 0; i < 8; i++)
    waits.SendOpen(100 + i, "hang" + std::to_string(i));
  lists.SendList(7);
  place_.AwaitHanging(9);
  Frame opened = other.Start("good");
  ASSERT_EQ(opened.kind, kOpened);
  EXPECT_EQ(other.Read(opened.image, 0, 10).bytes, FakeSource::Bytes(0, 10));
  waits.SendOpen(7, "configured"); // nor this connection's other requests
  EXPECT_EQ(waits.Receive().kind, kOpened);
  place_.Release();
  for (int i = 0; i < 8; i++)
    EXPECT_EQ(waits.Receive().status, WIRE_E_NOIMAGE);
  EXPECT_EQ(lists.Receive().names,
            (std::vector<std::string>{"configured", "good"}));
}

TEST_F(FinderTest, OneConnectionHasSoManyLooksAndNoMore) {
  options_.limit.max_conn_jobs = 3;
  for (int i = 0; i < 4; i++)
    place_.Hang(std::to_string(i));
  Serve();
  WireClient client = Greet(), other = Greet();
  for (uint64_t i = 0; i < 4; i++)
    client.SendOpen(100 + i, std::to_string(i));
  Frame refused = client.Receive();
  EXPECT_EQ(refused.id, 103u);
  EXPECT_EQ(refused.status, WIRE_E_BUSY);
  other.SendOpen(7, "3");
  place_.AwaitHanging(4);
  place_.Release();
  for (int i = 0; i < 3; i++)
    EXPECT_EQ(client.Receive().status, WIRE_E_NOIMAGE);
  client.SendOpen(200, "0");
  EXPECT_EQ(client.Receive().status, WIRE_E_NOIMAGE) << "it may again";
}

TEST_F(FinderTest, AClientThatLeavesWhileItsImageIsLookedForIsForgotten) {
  options_.limit.refresh_ms = 1;
  place_.Add("slow");
  place_.Hang("slow");
  Serve();
  {
    WireClient client = Greet();
    client.SendOpen(7, "slow");
    place_.AwaitHanging(1);
  }
  place_.Release();
  AwaitImages(1); // it was opened for nobody
}

TEST_F(FinderTest, AStopWaitsForALookAndAnswersNobody) {
  place_.Add("slow");
  place_.Hang("slow");
  options_.limit.stop_timeout_ms = 1;
  Serve();
  WireClient client = Greet();
  client.SendOpen(7, "slow");
  place_.AwaitHanging(1);
  server_->BeginStop();
  EXPECT_TRUE(client.AwaitClose());
  place_.Release();
  server_->AwaitStop();
}

// ---- What is not used -------------------------------------------------------

TEST_F(FinderTest, AnImageLeavesWhenNobodyHasItOpenAndNothingIsCached) {
  options_.limit.refresh_ms = 1;
  FakeSource *one = place_.Add("one");
  Serve();
  WireClient client = server_->Unix();
  Frame opened = client.Start("one");
  client.Read(opened.image, 0, 10);
  WireClient watcher = Greet();
  int n_looks = one->n_looks();
  while (one->n_looks() < n_looks + 3) // it is looked at, and stays
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(watcher.Stats()["images"], 2u);
  client.Close();
  n_looks = one->n_looks();
  while (one->n_looks() < n_looks + 3)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(watcher.Stats()["images"], 2u) << "a page of it is cached";
  EXPECT_EQ(place_.n_opens(), 1);
  WireClient again = server_->Unix();
  opened = again.Start("one");
  again.SendInvalidate(7, opened.image, 0, kSize);
  EXPECT_TRUE(again.ReceiveAnswer().is_done());
  again.Close();
  AwaitImages(1);
  EXPECT_EQ(configured_.n_closed(), 0);
  while (one->n_closed() == 0)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(server_->Unix().Start("one").kind, kOpened);
  EXPECT_EQ(place_.n_opens(), 2);
}

TEST_F(FinderTest, WhereAsManyAreInUseAsMayBeAnOpenIsRefused) {
  options_.limit.max_found_images = 2;
  for (const char *name : {"a", "b", "c"})
    place_.Add(name);
  Serve();
  WireClient a = server_->Unix(), b = server_->Unix(), c = Greet();
  Frame of_a = a.Start("a");
  a.Read(of_a.image, 0, 10);
  b.Start("b");
  c.SendOpen(7, "c");
  Frame refused = c.Receive();
  EXPECT_EQ(refused.status, WIRE_E_BUSY);
  EXPECT_EQ(refused.message, "image \"c\": open: too many images are open");
  c.SendOpen(8, "configured"); // which is not one of them
  EXPECT_EQ(c.Receive().kind, kOpened);
  // It has pages that are cached, and so would stay: but another needs the
  // room.
  a.Close();
  Frame opened;
  do {
    c.SendOpen(9, "c");
    opened = c.ReceiveAnswer();
  } while (opened.status == WIRE_E_BUSY);
  EXPECT_EQ(opened.kind, kOpened);
  EXPECT_EQ(c.Stats()["images"], 3u);
}

// ---- Changes ----------------------------------------------------------------

TEST_F(FinderTest, AnImageThatIsConfiguredTakesThePlaceOfOneThatWasFound) {
  place_.Add("one");
  FakeSource other(kSize);
  other.Rewrite();
  Serve();
  WireClient client = server_->Unix();
  Frame opened = client.Start("one");
  EXPECT_EQ(client.Read(opened.image, 0, 100).bytes, FakeSource::Bytes(0, 100));
  ASSERT_EQ(server_->Add("one", &other), 0);
  EXPECT_EQ(client.Read(opened.image, 0, 100).bytes,
            FakeSource::Bytes(0, 100, 2));
  EXPECT_EQ(server_->Add("one", &other), -EEXIST) << "it is configured now";
}

// A peer reads one that is found; the one that takes its place is not for it.
TEST_F(FinderTest, AConfiguredImageHasItsRuleThoughItsNameIsInUse) {
  place_.Add("one");
  FakeSource secret(kSize);
  secret.Rewrite();
  Serve();
  WireClient client = server_->Unix();
  Frame opened = client.Start("one");
  ASSERT_EQ(server_->Add("one", &secret, Rule("uid:4294967294").get()), 0);
  EXPECT_EQ(client.Read(opened.image, 0, 100).status, WIRE_E_NOIMAGE);
  client.SendOpen(7, "one");
  EXPECT_EQ(client.ReceiveAnswer().message, "image \"one\": not served");
  EXPECT_EQ(secret.n_reads(), 0);
}

// As a reload does it: the rule comes first, and is the same one.
TEST_F(FinderTest, WhoMayReadTheConfiguredImageGoesOnWithIt) {
  place_.Add("one");
  FakeSource other(kSize);
  other.Rewrite();
  Serve();
  Rule any("any");
  WireClient client = server_->Unix();
  Frame opened = client.Start("one");
  server_->SetRules(nullptr, {{"one", any.get()}});
  ASSERT_EQ(server_->Add("one", &other, any.get()), 0);
  EXPECT_EQ(client.Read(opened.image, 0, 100).bytes,
            FakeSource::Bytes(0, 100, 2));
}

TEST_F(FinderTest, AConfiguredImageThatIsMissingIsNotAnEmptyOne) {
  place_.Add("one");
  FakeSource later(0);
  Serve();
  WireClient client = server_->Unix();
  Frame opened = client.Start("one");
  ASSERT_EQ(server_->Add("one", &later, nullptr, EACCES), 0);
  EXPECT_EQ(client.Read(opened.image, 0, 100).status, WIRE_E_NOIMAGE);
  client.SendOpen(7, "one");
  Frame answer = client.ReceiveAnswer();
  EXPECT_EQ(answer.status, WIRE_E_IO);
  EXPECT_THAT(answer.message, testing::HasSubstr("Permission denied"));
  std::vector<std::string> unready;
  auto note = [](void *arg, const char *reason) {
    static_cast<std::vector<std::string> *>(arg)->push_back(reason);
  };
  server_list_unready(server_->get(), note, &unready);
  EXPECT_THAT(unready, testing::ElementsAre(testing::HasSubstr("one")));
}

TEST_F(FinderTest, AReviewRemovesWhatIsNotFoundAnyMore) {
  place_.Add("goes");
  place_.Add("stays");
  Serve();
  WireClient goes = server_->Unix(), stays = server_->Unix();
  Frame gone = goes.Start("goes"), there = stays.Start("stays");
  place_.Remove("goes");
  server_->ReviewFound();
  goes.SendOpen(7, "goes");
  EXPECT_EQ(goes.ReceiveAnswer().status, WIRE_E_NOIMAGE);
  EXPECT_EQ(goes.Read(gone.image, 0, 10).status, WIRE_E_NOIMAGE);
  EXPECT_EQ(stays.Read(there.image, 0, 10).bytes, FakeSource::Bytes(0, 10));
  EXPECT_TRUE(stays.notices().empty()) << "it did not notice";
}

TEST_F(FinderTest, AReviewFindsAnewWhatIsFoundInAnotherWay) {
  place_.Add("one");
  Serve();
  WireClient client = server_->Unix();
  Frame opened = client.Start("one");
  place_.SetShare(false);
  server_->ReviewFound();
  EXPECT_EQ(client.Receive().kind, CACHET__WIRE__MESSAGE__BODY_CHANGED);
  client.SendAttach(7, opened.image);
  EXPECT_EQ(client.ReceiveAnswer().status, WIRE_E_UNSUPPORTED);
  EXPECT_EQ(client.Read(opened.image, 0, 10).bytes, FakeSource::Bytes(0, 10));
}

// What was opened before the change, and is put into the table after it.
TEST_F(FinderTest, AReviewBesideALookLeavesNothingThatIsNotServed) {
  place_.Add("one");
  place_.Hang("one");
  Serve();
  WireClient client = Greet();
  client.SendOpen(7, "one");
  place_.AwaitHanging(1);
  place_.Remove("one");
  server_->ReviewFound();
  place_.Release();
  EXPECT_EQ(client.Receive().status, WIRE_E_NOIMAGE);
}

// ---- Lists ------------------------------------------------------------------

TEST_F(FinderTest, AListHasWhatIsServedAndWhatCanBeFoundOnce) {
  for (const char *name : {"a", "b", "configured", "z"})
    place_.Add(name);
  Serve();
  WireClient client = server_->Unix();
  client.Start("b");
  client.SendList(7);
  Frame list = client.Receive();
  EXPECT_EQ(list.names,
            (std::vector<std::string>{"a", "b", "configured", "z"}));
  EXPECT_EQ(list.unopened, (std::vector<bool>{true, false, false, true}));
  EXPECT_EQ(list.sizes, std::vector<uint64_t>(4, kSize));
  EXPECT_FALSE(list.more);
}

TEST_F(FinderTest, AListOfThousandsComesInPartsThatFitAMessage) {
  std::vector<std::string> all = {"configured"}, got;
  for (int i = 0; i < 2000; i++) {
    std::string name = std::to_string(10000 + i) + std::string(59, 'x');
    place_.Add(name);
    all.push_back(name);
  }
  std::sort(all.begin(), all.end());
  Serve();
  WireClient client = Greet();
  Frame list;
  do {
    client.SendList(7, got.empty() ? "" : got.back());
    list = client.Receive();
    ASSERT_EQ(list.kind, CACHET__WIRE__MESSAGE__BODY_IMAGES) << list.message;
    got.insert(got.end(), list.names.begin(), list.names.end());
  } while (list.more);
  EXPECT_EQ(got, all);
}

// ---- All of it at once ------------------------------------------------------

TEST_F(FinderTest, ImagesComeAndGoUnderThoseWhoReadThem) {
  constexpr int kNames = 8, kThreads = 4, kRounds = 60;
  options_.limit.refresh_ms = 1;
  options_.limit.max_found_images = kNames / 2;
  for (int i = 0; i < kNames; i++)
    place_.Add(std::to_string(i));
  Serve();
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; t++)
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRounds; i++) {
        WireClient client = t % 2 ? server_->Unix() : server_->Tcp();
        Frame opened = client.Start(std::to_string((i * (t + 1)) % kNames));
        if (opened.kind != kOpened)
          continue;
        Answer answer = client.Read(opened.image, 0, kPage);
        if (answer.status == 0)
          EXPECT_EQ(answer.bytes, FakeSource::Bytes(0, kPage));
        else
          EXPECT_EQ(answer.status, WIRE_E_NOIMAGE);
      }
    });
  for (int i = 0; i < kRounds; i++) {
    std::string name = std::to_string(i % kNames);
    server_->Remove(name);
    if (server_->Add(name, &configured_) == 0)
      server_->Remove(name);
    server_->ReviewFound();
    WireClient client = Greet();
    client.SendList(7);
    EXPECT_EQ(client.Receive().names.size(), size_t(kNames + 1));
  }
  for (std::thread &thread : threads)
    thread.join();
}

} // namespace

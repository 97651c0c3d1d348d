// Images that come and go while the daemon serves.
#include <cachet/cachet.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "proto/status.h"
#include "tests/support/test_server.h"

namespace {

constexpr uint64_t kPage = 4096, kPages = 256;

class ImagesTest : public testing::Test {
protected:
  void Serve() {
    server_ = std::make_unique<TestServer>(
        std::vector<std::pair<std::string, FakeSource *>>{{"first", &first_}},
        options_);
  }

  // Reads a page of what a connection opened.
  void ExpectRead(WireClient &client, uint32_t image, uint64_t page,
                  const FakeSource &source) {
    Answer answer = client.Read(image, page * kPage, kPage);
    EXPECT_EQ(answer.status, WIRE_OK);
    EXPECT_EQ(answer.bytes,
              FakeSource::Bytes(page * kPage, kPage, source.version()));
  }

  int OpenStatus(WireClient &client, const std::string &name) {
    EXPECT_TRUE(client.SendOpen(77, name));
    Frame frame = client.ReceiveAnswer();
    return frame.is_error() ? frame.status : 0;
  }

  // An image goes off the threads that serve: some time after its last user.
  static void AwaitClosed(const FakeSource &source, int n) {
    while (source.n_closed() < n)
      std::this_thread::yield();
  }

  FakeSource first_{kPages * kPage}, second_{2 * kPages * kPage};
  TestServer::Options options_;
  std::unique_ptr<TestServer> server_;
};

TEST_F(ImagesTest, OneThatIsAddedIsServed) {
  Serve();
  WireClient early = server_->Unix();
  uint32_t first = early.Start("first").image;
  EXPECT_EQ(OpenStatus(early, "second"), WIRE_E_NOIMAGE);
  ASSERT_EQ(server_->Add("second", &second_), 0);
  WireClient late = server_->Unix();
  Frame second = late.Start("second");
  EXPECT_EQ(second.size, 2 * kPages * kPage);
  ExpectRead(late, second.image, 300, second_);
  ExpectRead(early, first, 3, first_);
  EXPECT_EQ(OpenStatus(early, "second"), 0);
}

TEST_F(ImagesTest, ANameIsGivenOnce) {
  Serve();
  EXPECT_EQ(server_->Add("first", &second_), -EEXIST);
  AwaitClosed(second_, 1);
  EXPECT_EQ(first_.n_closed(), 0);
}

TEST_F(ImagesTest, OneThatIsRemovedIsNotFoundAndLetGoOf) {
  Serve();
  ASSERT_EQ(server_->Add("second", &second_), 0);
  EXPECT_TRUE(server_->Remove("second"));
  EXPECT_FALSE(server_->Remove("second"));
  AwaitClosed(second_, 1);
  WireClient client = server_->Unix();
  EXPECT_EQ(client.Start("").size, kPages * kPage) << "there is one again";
  EXPECT_EQ(OpenStatus(client, "second"), WIRE_E_NOIMAGE);
}

TEST_F(ImagesTest, WhoHasOpenedItKeepsTheConnectionAndTheOthers) {
  Serve();
  ASSERT_EQ(server_->Add("second", &second_), 0);
  WireClient client = server_->Unix();
  uint32_t second = client.Start("second").image;
  ExpectRead(client, second, 7, second_);
  ASSERT_TRUE(client.SendOpen(5, "first"));
  Frame first = client.ReceiveAnswer();
  ASSERT_TRUE(server_->Remove("second"));
  AwaitClosed(second_, 1);
  EXPECT_EQ(client.Read(second, 7 * kPage, kPage).status, WIRE_E_NOIMAGE);
  ExpectRead(client, first.image, 7, first_);
}

TEST_F(ImagesTest, AReadThatIsUnderWayIsAnsweredWithoutItsBytes) {
  Serve();
  ASSERT_EQ(server_->Add("second", &second_), 0);
  WireClient client = server_->Unix(), other = server_->Unix();
  uint32_t second = client.Start("second").image;
  other.Start("first");
  second_.ShutGate();
  ASSERT_TRUE(client.SendRead(9, second, {{9 * kPage, kPage}}));
  second_.AwaitReadsAtGate(1);
  ASSERT_TRUE(server_->Remove("second"));
  EXPECT_EQ(OpenStatus(other, "second"), WIRE_E_NOIMAGE);
  EXPECT_EQ(second_.n_closed(), 0);
  second_.OpenGate();
  EXPECT_EQ(client.ReceiveAnswer().status, WIRE_E_NOIMAGE);
  AwaitClosed(second_, 1);
}

TEST_F(ImagesTest, ANameThatComesBackIsAnotherImage) {
  Serve();
  FakeSource again(5 * kPage);
  again.Change(5 * kPage);
  ASSERT_EQ(server_->Add("second", &second_), 0);
  WireClient client = server_->Unix();
  uint32_t old_id = client.Start("second").image;
  ExpectRead(client, old_id, 2, second_);
  ASSERT_TRUE(server_->Remove("second"));
  ASSERT_EQ(server_->Add("second", &again), 0);
  ASSERT_TRUE(client.SendOpen(5, "second"));
  Frame opened = client.ReceiveAnswer();
  EXPECT_EQ(opened.size, 5 * kPage);
  ExpectRead(client, opened.image, 2, again);
  server_.reset();
}

TEST_F(ImagesTest, AnInvalidationOfWhatWasRemovedEnds) {
  Serve();
  ASSERT_EQ(server_->Add("second", &second_), 0);
  cachet *c = nullptr;
  std::string uri = "cachet+unix:///second?socket=" + server_->socket_path();
  ASSERT_EQ(cachet_open(uri.c_str(), nullptr, &c, nullptr), CACHET_OK);
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c, 5, &byte), CACHET_OK);
  ASSERT_TRUE(server_->Remove("second"));
  EXPECT_NE(cachet_invalidate(c, 0, kPage), CACHET_OK);
  cachet_close(c);
}

// The mirror of what was removed is at its end for its readers
// themselves.
TEST_F(ImagesTest, WhoSharesItsMemoryIsCutOff) {
  Serve();
  ASSERT_EQ(server_->Add("second", &second_), 0);
  cachet *c = nullptr;
  std::string uri = "cachet+unix:///second?socket=" + server_->socket_path();
  ASSERT_EQ(cachet_open(uri.c_str(), nullptr, &c, nullptr), CACHET_OK);
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c, 5, &byte), CACHET_OK);
  ASSERT_TRUE(cachet_is_shared(c));
  ASSERT_TRUE(server_->Remove("second"));
  cachet_status status;
  while ((status = cachet_get_u8(c, 5, &byte)) == CACHET_OK)
    std::this_thread::yield(); // its epoch ends some time after the call
  EXPECT_EQ(status, CACHET_E_NOIMAGE);
  EXPECT_EQ(cachet_get_u8(c, 100 * kPage, &byte), CACHET_E_NOIMAGE);
  EXPECT_FALSE(cachet_is_shared(c));
  cachet_close(c);
  AwaitClosed(second_, 1);
}

TEST_F(ImagesTest, AnotherSourceIsAnotherEpochForWhoHasOpenedIt) {
  Serve();
  second_.Change(2 * kPages * kPage);
  std::string uri = "cachet+unix:///first?socket=" + server_->socket_path();
  cachet *c = nullptr;
  ASSERT_EQ(cachet_open(uri.c_str(), nullptr, &c, nullptr), CACHET_OK);
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c, 5, &byte), CACHET_OK);
  EXPECT_EQ(byte, FakeSource::ByteAt(5, 1));
  ASSERT_EQ(server_->Replace("first", &second_), 0);
  uint64_t absent = 100 * kPage; // a miss finds the new epoch
  ASSERT_EQ(cachet_get_u8(c, absent, &byte), CACHET_OK);
  EXPECT_EQ(byte, FakeSource::ByteAt(absent, 2));
  ASSERT_EQ(cachet_get_u8(c, 5, &byte), CACHET_OK);
  EXPECT_EQ(byte, FakeSource::ByteAt(5, 2));
  EXPECT_EQ(cachet_size(c), 2 * kPages * kPage);
  EXPECT_TRUE(cachet_is_shared(c));
  EXPECT_EQ(server_->Replace("none", &first_), -ENOENT);
  cachet_close(c);
  AwaitClosed(first_, 2);
}

TEST_F(ImagesTest, OneThatIsNoLongerSharedIsReadByTheSocket) {
  Serve();
  std::string uri = "cachet+unix:///first?socket=" + server_->socket_path();
  cachet *c = nullptr;
  ASSERT_EQ(cachet_open(uri.c_str(), nullptr, &c, nullptr), CACHET_OK);
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c, 5, &byte), CACHET_OK);
  ASSERT_TRUE(cachet_is_shared(c));
  ASSERT_EQ(server_->Replace("first", &second_, false), 0);
  ASSERT_EQ(cachet_get_u8(c, 100 * kPage, &byte), CACHET_OK);
  EXPECT_FALSE(cachet_is_shared(c));
  cachet_close(c);
}

TEST_F(ImagesTest, OneWhoseLookHangsIsRemovedAndTheOthersAreLookedAt) {
  options_.limit.refresh_ms = 5;
  Serve();
  second_.ShutLookGate();
  ASSERT_EQ(server_->Add("second", &second_), 0);
  second_.AwaitLookAtGate();
  ASSERT_TRUE(server_->Remove("second"));
  int n = first_.n_looks();
  while (first_.n_looks() < n + 3)
    std::this_thread::yield();
  EXPECT_EQ(second_.n_closed(), 0);
  second_.OpenLookGate();
  AwaitClosed(second_, 1);
}

TEST_F(ImagesTest, OneWhoseLookHangsGetsAnotherSource) {
  options_.limit.refresh_ms = 5;
  Serve();
  FakeSource good(kPages * kPage);
  good.Change(kPages * kPage);
  second_.ShutLookGate();
  ASSERT_EQ(server_->Add("second", &second_), 0);
  WireClient client = server_->Unix();
  uint32_t second = client.Start("second").image;
  second_.AwaitLookAtGate();
  ASSERT_EQ(server_->Replace("second", &good), 0);
  ExpectRead(client, second, 7, good);
  good.Change(kPages * kPage);
  ExpectRead(client, second, 8, good); // it finds the change by itself
  second_.OpenLookGate();
  server_.reset();
  EXPECT_EQ(good.n_closed(), 2);
}

TEST_F(ImagesTest, HundredsComeAndGoUnderReaders) {
  constexpr int kNames = 8, kRounds = 60, kReaders = 4;
  Serve();
  std::vector<std::unique_ptr<FakeSource>> sources;
  std::atomic<bool> ended{false};
  std::vector<std::thread> readers;
  std::atomic<uint64_t> n_read{0};
  for (int i = 0; i < kReaders; i++)
    readers.emplace_back([&, i] {
      std::mt19937 random(unsigned(i) + 1);
      WireClient client = i % 2 ? server_->Unix() : server_->Tcp();
      client.Start("first");
      while (!ended) {
        std::string name = "image" + std::to_string(random() % kNames);
        ASSERT_TRUE(client.SendOpen(5, name));
        Frame opened = client.ReceiveAnswer();
        if (opened.is_error()) {
          ASSERT_EQ(opened.status, WIRE_E_NOIMAGE);
          continue;
        }
        for (int n = 0; n < 4; n++) {
          uint64_t page = random() % kPages;
          Answer answer = client.Read(opened.image, page * kPage, kPage);
          if (answer.status != WIRE_OK) {
            ASSERT_EQ(answer.status, WIRE_E_NOIMAGE);
            break;
          }
          ASSERT_EQ(answer.bytes, FakeSource::Bytes(page * kPage, kPage));
          n_read++;
        }
      }
    });
  for (int round = 0; round < kRounds || n_read < 200; round++) {
    std::string name = "image" + std::to_string(round % kNames);
    server_->Remove(name);
    sources.push_back(
        std::make_unique<FakeSource>(kPages * kPage, FakeReads(round % 3)));
    ASSERT_EQ(server_->Add(name, sources.back().get()), 0);
    std::this_thread::yield();
  }
  ended = true;
  for (std::thread &reader : readers)
    reader.join();
  server_.reset();
  for (auto &source : sources)
    EXPECT_EQ(source->n_closed(), 1);
}

} // namespace

// Invalidations and epochs, as the connections of several workers see them.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <thread>

#include "proto/status.h"
#include "tests/support/test_rule.h"
#include "tests/support/test_server.h"

namespace {

constexpr uint64_t kSize = 4 << 20;
constexpr uint64_t kPage = 4096;
constexpr int kInvalidated = CACHET__WIRE__MESSAGE__BODY_INVALIDATED;
constexpr int kChanged = CACHET__WIRE__MESSAGE__BODY_CHANGED;

class NoticeTest : public testing::Test {
protected:
  void Serve() {
    server_ = std::make_unique<TestServer>(
        std::vector<std::pair<std::string, FakeSource *>>{{"disk", &disk_}},
        options_);
  }

  FakeSource disk_{kSize};
  TestServer::Options options_;
  std::unique_ptr<TestServer> server_;
};

TEST_F(NoticeTest, AnInvalidationMakesTheNextReadReadAgain) {
  Serve();
  WireClient client = server_->Unix();
  Frame opened = client.Start();
  client.Read(opened.image, 0, 10 * kPage);
  int n_reads = disk_.n_reads();
  client.SendInvalidate(7, opened.image, 2 * kPage + 5, 10);
  Frame notice = client.Receive();
  EXPECT_EQ(notice.kind, kInvalidated);
  EXPECT_EQ(notice.id, 0u);
  EXPECT_EQ(notice.image, opened.image);
  EXPECT_EQ(notice.ranges, (Ranges{{2 * kPage + 5, 10}}));
  Frame done = client.Receive();
  EXPECT_TRUE(done.is_done());
  EXPECT_EQ(done.epoch, opened.epoch); // nothing was pinned
  EXPECT_EQ(client.Read(opened.image, 0, 10 * kPage).bytes,
            FakeSource::Bytes(0, 10 * kPage));
  EXPECT_EQ(disk_.n_reads(), n_reads + 1);
}

TEST_F(NoticeTest, WhoComesBackSeesByANumberWhetherANoticeWasMissed) {
  options_.limit.refresh_ms = 10;
  Serve();
  WireClient caller = server_->Unix();
  Frame first = caller.Start();
  EXPECT_EQ(first.invalidations, 1u); // none, and one
  for (uint64_t n = 2; n < 4; n++) {
    caller.SendInvalidate(7, first.image, 0, kPage);
    Frame notice = caller.Receive();
    EXPECT_EQ(notice.kind, kInvalidated);
    EXPECT_EQ(notice.epoch, first.epoch);
    EXPECT_EQ(notice.invalidations, n);
    ASSERT_TRUE(caller.ReceiveAnswer().is_done());
    WireClient later = server_->Unix();
    Frame opened = later.Start();
    EXPECT_EQ(opened.epoch, first.epoch);
    EXPECT_EQ(opened.invalidations, n);
  }
  disk_.Change(kSize);
  Frame changed = caller.Receive();
  EXPECT_EQ(changed.kind, kChanged);
  EXPECT_EQ(changed.invalidations, 1u);
}

// Beside the longest name, in the one message that has to be short.
TEST_F(NoticeTest, WhatIsTheSameOnEveryMachineIsSaidOfAnEpoch) {
  options_.limit.refresh_ms = 10;
  disk_.SetContentLen(PROTO_MAX_IDENTITY);
  Serve();
  WireClient client = server_->Unix();
  Frame opened = client.Start();
  ASSERT_EQ(opened.identity.size(), size_t(PROTO_MAX_IDENTITY));
  EXPECT_EQ(server_->Unix().Start().identity, opened.identity);
  disk_.Change(kSize);
  Frame changed = client.Receive();
  EXPECT_EQ(changed.kind, kChanged);
  EXPECT_EQ(changed.identity.size(), size_t(PROTO_MAX_IDENTITY));
  EXPECT_NE(changed.identity, opened.identity);
  disk_.SetContentLen(PROTO_MAX_IDENTITY + 1);
  disk_.Change(kSize);
  EXPECT_EQ(client.Receive().identity, "");
  disk_.SetContentLen(0);
  disk_.Change(kSize);
  EXPECT_EQ(client.Receive().identity, "");
}

TEST_F(NoticeTest, AllWhoOpenedTheImageAreToldBeforeTheCallerIs) {
  options_.n_workers = 4;
  Serve();
  std::vector<WireClient> clients;
  uint32_t image = 0;
  for (int i = 0; i < 16; i++) {
    clients.push_back(i % 2 ? server_->Unix() : server_->Tcp());
    image = clients.back().Start().image;
  }
  WireClient bystander = server_->Unix(); // opened nothing
  bystander.SendHello();
  bystander.Receive();
  WireClient caller = server_->Unix();
  caller.Start();
  caller.SendInvalidate(7, image, 0, UINT64_MAX);
  ASSERT_TRUE(caller.ReceiveAnswer().is_done());
  for (WireClient &client : clients) {
    uint8_t byte; // it is there already: no waiting
    ASSERT_EQ(recv(client.fd(), &byte, 1, MSG_DONTWAIT | MSG_PEEK), 1);
    Frame notice = client.Receive();
    EXPECT_EQ(notice.kind, kInvalidated);
    EXPECT_EQ(notice.ranges, (Ranges{{0, kSize}}));
  }
  bystander.SendList(3);
  EXPECT_EQ(bystander.Receive().kind, CACHET__WIRE__MESSAGE__BODY_IMAGES);
}

TEST_F(NoticeTest, NothingToInvalidateIsDoneAtOnce) {
  Serve();
  WireClient client = server_->Unix();
  uint32_t image = client.Start().image;
  for (auto range : Ranges{{5, 0}, {kSize, 1}, {UINT64_MAX, UINT64_MAX}}) {
    client.SendInvalidate(7, image, range.first, range.second);
    EXPECT_TRUE(client.Receive().is_done());
  }
}

TEST_F(NoticeTest, AFillInFlightGoesToItsWaitersAndIsDropped) {
  Serve();
  WireClient waits = server_->Unix(), caller = server_->Unix();
  uint32_t image = waits.Start().image;
  caller.Start();
  disk_.ShutGate();
  waits.SendRead(7, image, {{0, 10}});
  disk_.AwaitReadsAtGate(1);
  caller.SendInvalidate(8, image, 0, kPage);
  EXPECT_TRUE(caller.ReceiveAnswer().is_done());
  disk_.OpenGate();
  EXPECT_EQ(waits.ReceiveRead(7).bytes, FakeSource::Bytes(0, 10));
  caller.Read(image, 0, 10);
  EXPECT_EQ(disk_.n_reads(), 2);
}

TEST_F(NoticeTest, AnInvalidationDoesNotWaitForFillsThatHang) {
  Serve();
  WireClient waits = server_->Unix(), caller = server_->Unix();
  uint32_t image = waits.Start().image;
  caller.Start();
  disk_.ShutGate();
  for (uint64_t i = 0; i < 64; i++)
    waits.SendRead(100 + i, image, {{i * 2 * kPage, 10}});
  waits.Stats();
  caller.SendInvalidate(8, image, 0, kSize);
  EXPECT_TRUE(caller.ReceiveAnswer().is_done());
  disk_.OpenGate();
}

TEST_F(NoticeTest, AWarmLoadsAgainWhatWasInvalidatedMeanwhile) {
  Serve();
  WireClient reads = server_->Unix(), warms = server_->Unix();
  uint32_t image = reads.Start().image;
  warms.Start();
  disk_.ShutGate();
  reads.SendRead(7, image, {{0, 10}});
  disk_.AwaitReadsAtGate(1);
  warms.SendInvalidate(8, image, 0, kPage);
  ASSERT_TRUE(warms.ReceiveAnswer().is_done());
  warms.SendWarm(9, image, {{0, kPage}});
  warms.Stats();
  disk_.OpenGate();
  EXPECT_TRUE(warms.ReceiveAnswer().is_done());
  EXPECT_EQ(disk_.n_reads(), 2);
  warms.Read(image, 0, 10);
  EXPECT_EQ(disk_.n_reads(), 2);
}

TEST_F(NoticeTest, OverTcpNobodyMayInvalidate) {
  Serve();
  WireClient client = server_->Tcp();
  uint32_t image = client.Start().image;
  client.SendInvalidate(7, image, 0, 1);
  EXPECT_EQ(client.Receive().status, WIRE_E_ACCESS);
}

TEST_F(NoticeTest, AnInvalidateWithoutARangeIsRefused) {
  Serve();
  WireClient client = server_->Unix();
  Cachet__Wire__Invalidate invalidate = CACHET__WIRE__INVALIDATE__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  invalidate.image = client.Start().image;
  msg.id = 7;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_INVALIDATE;
  msg.invalidate = &invalidate;
  client.SendMessage(msg);
  EXPECT_EQ(client.Receive().status, WIRE_E_INVAL);
}

// Connections of other users: credentials belong to a thread, in the kernel.
class PermissionTest : public NoticeTest {
protected:
  static constexpr uid_t kStranger = 54321;
  static constexpr gid_t kGroup = 54322;

  void SetUp() override {
    if (geteuid() != 0)
      GTEST_SKIP() << "becoming another user takes root";
    Serve();
    std::string path = server_->socket_path();
    ASSERT_EQ(chown(path.c_str(), 0, kGroup), 0);
    ASSERT_EQ(chmod(path.c_str(), 0666), 0);
    ASSERT_EQ(chmod(path.substr(0, path.rfind('/')).c_str(), 0755), 0);
  }

  // What Invalidate comes to for a peer of that user, group, and further
  // group.
  int StatusFor(uid_t uid, gid_t gid, gid_t further) {
    int status = 1;
    std::thread([&] {
      syscall(SYS_setgroups, 1, &further);
      syscall(SYS_setresgid, gid, gid, gid);
      syscall(SYS_setresuid, uid, uid, uid);
      WireClient client = server_->Unix();
      uint32_t image = client.Start().image;
      client.SendInvalidate(7, image, 0, 1);
      Frame answer = client.ReceiveAnswer();
      status = answer.is_done() ? 0 : answer.status;
    }).join();
    return status;
  }
};

TEST_F(PermissionTest, AStrangerMayNotInvalidate) {
  EXPECT_EQ(StatusFor(kStranger, kStranger, kStranger), WIRE_E_ACCESS);
}

TEST_F(PermissionTest, TheDaemonsOwnUserMay) {
  EXPECT_EQ(StatusFor(geteuid(), kStranger, kStranger), 0);
}

TEST_F(PermissionTest, ThePrimaryGroupOfTheSocketMay) {
  EXPECT_EQ(StatusFor(kStranger, kGroup, kStranger), 0);
}

TEST_F(PermissionTest, AFurtherGroupThatIsTheSocketsMay) {
  EXPECT_EQ(StatusFor(kStranger, kStranger, kGroup), 0);
}

TEST_F(PermissionTest, AGroupThatAnybodyMayHaveIsNoPermission) {
  // What ids of another user namespace are shown as.
  ASSERT_EQ(chown(server_->socket_path().c_str(), 0, 65534), 0);
  EXPECT_EQ(StatusFor(kStranger, 65534, 65534), WIRE_E_ACCESS);
}

TEST_F(PermissionTest, ARuleSaysWhoMayInPlaceOfTheGroup) {
  Rule rule("uid:54321 gid:54323");
  server_->SetAdmin(rule.get());
  EXPECT_EQ(StatusFor(kStranger, kStranger, kStranger), 0);
  EXPECT_EQ(StatusFor(kStranger + 1, kStranger, 54323), 0);
  EXPECT_EQ(StatusFor(kStranger + 1, kGroup, kGroup), WIRE_E_ACCESS);
  EXPECT_EQ(StatusFor(geteuid(), kStranger, kStranger), 0);
  server_->SetAdmin(nullptr);
  EXPECT_EQ(StatusFor(kStranger, kStranger, kStranger), WIRE_E_ACCESS);
  EXPECT_EQ(StatusFor(kStranger, kGroup, kStranger), 0);
}

TEST_F(NoticeTest, ARuleMayLetInvalidateOverTcp) {
  Rule any("any");
  options_.admin = any.get();
  Serve();
  WireClient client = server_->Tcp();
  uint32_t image = client.Start().image;
  client.SendInvalidate(7, image, 0, 1);
  EXPECT_TRUE(client.ReceiveAnswer().is_done());
}

// ---- What a source tells ----------------------------------------------------

TEST_F(NoticeTest, WhatASourceSaysIsInvalidIsDroppedAndToldToAll) {
  options_.n_workers = 4;
  Serve();
  std::vector<WireClient> clients;
  Frame opened;
  for (int i = 0; i < 8; i++) {
    clients.push_back(i % 2 ? server_->Unix() : server_->Tcp());
    opened = clients.back().Start();
  }
  clients[0].Read(opened.image, 0, 10 * kPage);
  int n_reads = disk_.n_reads();
  disk_.TellInvalid(2 * kPage + 5, 10);
  for (WireClient &client : clients) {
    Frame notice = client.Receive();
    EXPECT_EQ(notice.kind, kInvalidated);
    EXPECT_EQ(notice.ranges, (Ranges{{2 * kPage + 5, 10}}));
    EXPECT_EQ(notice.epoch, opened.epoch);
    EXPECT_EQ(notice.invalidations, 2u);
  }
  EXPECT_EQ(clients[0].Read(opened.image, 0, 10 * kPage).bytes,
            FakeSource::Bytes(0, 10 * kPage));
  EXPECT_EQ(disk_.n_reads(), n_reads + 1);
  disk_.TellInvalid(kSize - 1, 1);
  EXPECT_EQ(clients[0].Receive().ranges, (Ranges{{kSize - 1, 1}}));
}

TEST_F(NoticeTest, WhenASourceSaysThatItChangedItIsLookedAtAtOnce) {
  options_.limit.refresh_ms = 1000000;
  Serve();
  WireClient client = server_->Unix();
  Frame opened = client.Start();
  disk_.Change(kSize / 2);
  disk_.TellChanged();
  Frame notice = client.Receive();
  EXPECT_EQ(notice.kind, kChanged);
  EXPECT_EQ(notice.size, kSize / 2);
}

// It comes while the image is being looked at, which finds nothing yet.
TEST_F(NoticeTest, ALookThatIsUnderWayIsFollowedByAnother) {
  options_.limit.refresh_ms = 10;
  disk_.ShutLookGate();
  Serve();
  WireClient client = server_->Unix();
  client.Start();
  disk_.AwaitLookAtGate();
  int n_looks = disk_.n_looks();
  disk_.TellChanged();
  disk_.OpenLookGate();
  while (disk_.n_looks() == n_looks)
    usleep(1000);
}

// ---- Epochs -----------------------------------------------------------------

class EpochTest : public NoticeTest {
protected:
  EpochTest() { options_.limit.refresh_ms = 1000000; } // unless a test asks
};

TEST_F(EpochTest, AChangeIsNoticedByALookAndToldToAll) {
  options_.limit.refresh_ms = 10;
  Serve();
  WireClient local = server_->Unix(), remote = server_->Tcp();
  Frame opened = local.Start();
  remote.Start();
  disk_.Change(kSize / 2);
  for (WireClient *client : {&local, &remote}) {
    Frame notice = client->Receive();
    EXPECT_EQ(notice.kind, kChanged);
    EXPECT_EQ(notice.image, opened.image);
    EXPECT_EQ(notice.size, kSize / 2);
    EXPECT_NE(notice.epoch, opened.epoch);
  }
  EXPECT_EQ(local.Read(opened.image, 0, 10).bytes, FakeSource::Bytes(0, 10, 2));
}

TEST_F(EpochTest, ChangedComesBeforeTheFirstDataOfTheNewEpoch) {
  Serve();
  WireClient client = server_->Unix();
  Frame opened = client.Start();
  client.Read(opened.image, 0, 10);
  disk_.Change(kSize);
  client.SendRead(7, opened.image, {{0, kSize}}); // a fill will find out
  uint64_t told = opened.epoch;
  std::vector<uint8_t> bytes;
  for (bool last = false; !last;) {
    Frame frame = client.Receive();
    if (frame.kind == kChanged) {
      told = frame.epoch;
      continue;
    }
    ASSERT_TRUE(frame.is_data()) << frame.message;
    EXPECT_EQ(frame.epoch, told);
    EXPECT_EQ(frame.payload,
              FakeSource::Bytes(frame.offset, frame.payload.size(),
                                told == opened.epoch ? 1 : 2));
    last = frame.last;
  }
  EXPECT_NE(told, opened.epoch);
}

TEST_F(EpochTest, AReadThatInsistsOnItsEpochFailsAfterTheNotice) {
  Serve();
  WireClient client = server_->Unix();
  Frame opened = client.Start();
  disk_.Change(kSize);
  client.SendRead(7, opened.image, {{0, 10}}, opened.epoch);
  EXPECT_EQ(client.Receive().kind, kChanged);
  Frame answer = client.Receive();
  EXPECT_EQ(answer.id, 7u);
  EXPECT_EQ(answer.status, WIRE_E_CHANGED);
}

TEST_F(EpochTest, AReadPastTheEndOfAnImageThatShrankIsRefused) {
  Serve();
  WireClient client = server_->Unix();
  Frame opened = client.Start();
  disk_.Change(100);
  EXPECT_EQ(client.Read(opened.image, kSize - 10, 10).status, WIRE_E_BOUNDS);
  ASSERT_EQ(client.notices().size(), 1u);
  EXPECT_EQ(client.notices()[0].size, 100u);
}

TEST_F(EpochTest, AnImageThatNeverSettlesIsAnErrorNotAHang) {
  options_.limit.max_restarts = 3;
  Serve();
  WireClient client = server_->Unix();
  Frame opened = client.Start();
  disk_.FailReads(ESTALE); // each read, and no successor is ever found
  EXPECT_EQ(client.Read(opened.image, 0, 10).status, WIRE_E_CHANGED);
  disk_.FailReads(0);
  EXPECT_EQ(client.Read(opened.image, 0, 10).status, 0);
}

TEST_F(EpochTest, AnotherOpenDoesNotSwallowTheChanged) {
  options_.limit.refresh_ms = 5;
  Serve();
  WireClient client = server_->Unix();
  uint32_t image = client.Start().image;
  for (int i = 0; i < 30; i++) {
    uint64_t known = client.Read(image, 0, 1).epochs[0], id = 1000;
    client.notices().clear();
    disk_.Change(kSize);
    Frame opened;
    do {
      client.SendOpen(id++, "disk");
      opened = client.ReceiveAnswer();
    } while (opened.epoch == known);
    bool told = false;
    for (const Frame &notice : client.notices())
      told = told || notice.epoch == opened.epoch;
    ASSERT_TRUE(told);
  }
}

TEST_F(EpochTest, NoPieceMixesEpochsWhileTheImageChangesAllTheTime) {
  Serve();
  WireClient client = server_->Unix();
  Frame opened = client.Start();
  std::map<uint64_t, uint64_t> versions; // of each epoch
  for (uint64_t i = 0; i < 200; i++) {
    client.SendRead(100 + i, opened.image, {{0, 1 << 20}});
    if (i % 3 == 0)
      disk_.Change(kSize);
    for (bool last = false; !last;) {
      Frame piece = client.ReceiveAnswer();
      if (piece.is_error()) {
        EXPECT_EQ(piece.status, WIRE_E_CHANGED);
        break;
      }
      uint64_t version = versions[piece.epoch];
      for (uint64_t v = 1; version == 0 && v <= disk_.version(); v++)
        if (piece.payload[0] == FakeSource::ByteAt(piece.offset, v) &&
            piece.payload ==
                FakeSource::Bytes(piece.offset, piece.payload.size(), v))
          version = v;
      ASSERT_NE(version, 0u) << "a piece of no version";
      ASSERT_EQ(piece.payload,
                FakeSource::Bytes(piece.offset, piece.payload.size(), version));
      versions[piece.epoch] = version;
      last = piece.last;
    }
  }
}

} // namespace

// Handles on an image that changes: notices, epochs, invalidations.
#include "tests/client/fake_daemon.h"

namespace {

TEST(RemoteNoticeTest, ANoticeThatIsHereIsHeededByTheNextLoad) {
  Gate loaded, told;
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    p.Receive(&r);
    p.Answer(r);
    loaded.Await();
    {
      std::unique_lock<std::mutex> hold(p.image->lock);
      p.image->bytes[4096] ^= 0xff;
    }
    p.Invalidated(4096, 1);
    told.Open();
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  std::vector<uint8_t> old = d.image.bytes;
  uint8_t buf[3 * 4096];
  ASSERT_EQ(cachet_read(c.get(), 0, buf, sizeof buf), CACHET_OK);
  cachet_slice held;
  ASSERT_EQ(cachet_load(c.get(), 4096, 1, &held), CACHET_OK);
  loaded.Open();
  told.Await();
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c.get(), 4096, &byte), CACHET_OK);
  EXPECT_EQ(byte, d.image.bytes[4096]);
  EXPECT_EQ(held.data[0], old[4096]); // the slice keeps its bytes
  cachet_release(c.get(), &held);
}

TEST(RemoteNoticeTest, AHostileNoticeIsCutAtTheEnd) {
  FakeDaemon d({[&](Peer &p) {
    p.Handshake();
    p.Invalidated(~0ull, ~0ull);
    p.Invalidated(1ull << 63, 1ull << 63);
    p.Invalidated(0, ~0ull);
    p.Invalidated(0, 0);
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  ExpectContent(c.get(), d.image.bytes);
}

TEST(RemoteNoticeTest, AnAnswerFromBeforeAnInvalidationIsDeliveredButNotKept) {
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    p.Receive(&r);
    p.Invalidated(0, 4096);
    p.Answer(r);
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c.get(), 7, &byte), CACHET_OK);
  EXPECT_EQ(byte, d.image.bytes[7]);
  EXPECT_FALSE(cachet_is_cached(c.get(), 7));
}

// A read of two chunks, with an invalidation before the second is answered.
// How many requests it took.
int ReadAcrossInvalidation(uint64_t offset, uint64_t len) {
  int n_reads = 0;
  FakeDaemon d({[&](Peer &p) {
                 Request r;
                 p.Handshake();
                 while (p.Receive(&r)) {
                   if (++n_reads == 2) {
                     std::unique_lock<std::mutex> hold(p.image->lock);
                     std::vector<uint8_t> fresh = Content(129 * 4096, 2);
                     std::copy_n(&fresh[offset], len, &p.image->bytes[offset]);
                     p.Invalidated(offset, len);
                   }
                   p.Answer(r);
                 }
               }},
               129 * 4096);
  cachet_options options = Options();
  options.flags |= CACHET_NO_READAHEAD;
  Handle c = Open(d.Uri(), options);
  std::vector<uint8_t> buf(128 * 4096);
  EXPECT_EQ(cachet_read(c.get(), 0, buf.data(), buf.size()), CACHET_OK)
      << cachet_errmsg(c.get());
  EXPECT_EQ(memcmp(buf.data(), d.image.bytes.data(), buf.size()), 0);
  c.reset();
  d.Stop();
  return n_reads;
}

TEST(RemoteNoticeTest, AReadIsNotOfBeforeAndAfterAnInvalidation) {
  EXPECT_GT(ReadAcrossInvalidation(0, 128 * 4096), 2);
}

TEST(RemoteNoticeTest, AnInvalidationElsewhereDoesNotDisturbARead) {
  EXPECT_EQ(ReadAcrossInvalidation(128 * 4096, 4096), 2);
}

TEST(RemoteNoticeTest, AChangeRightBehindTheOpeningIsHeard) {
  FakeDaemon d({[](Peer &p) {
    Request r;
    p.Receive(&r);
    p.Welcome(r.id);
    p.Receive(&r);
    p.Cork();
    p.Opened(r.id);
    p.image->epoch = 78;
    p.Changed();
    p.Uncork();
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  EXPECT_EQ(cachet_epoch(c.get()), 78u);
  ExpectContent(c.get(), d.image.bytes);
}

TEST(RemoteNoticeTest, AHandleThatLagsBehindDoesNotTakeItsCopyBackWithIt) {
  Gate change, changed;
  FakeDaemon d({[&](Peer &p) {
                  p.Handshake();
                  change.Await();
                  for (uint64_t epoch : {78, 79}) {
                    std::unique_lock<std::mutex> hold(p.image->lock);
                    p.image->epoch = epoch;
                    p.Changed();
                  }
                  changed.Open();
                  p.Serve();
                },
                ServeAll()});
  Handle c = Open(d.Uri(), Options());
  change.Open();
  changed.Await();
  Handle copy = Copy(c.get()); // opens at 79
  EXPECT_EQ(cachet_epoch(copy.get()), 79u);
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_OK); // hears of 78, of 79
  EXPECT_EQ(cachet_epoch(c.get()), 79u);
  ExpectContent(copy.get(), d.image.bytes);
  ExpectContent(c.get(), d.image.bytes);
}

TEST(RemoteNoticeTest, AnEpochThatTheDaemonRefusesIsNotAskedForAgain) {
  // The copy is told of an epoch that is over, and is never told better.
  Gate told;
  FakeDaemon d({[&](Peer &p) {
                  p.Handshake();
                  p.Serve();
                },
                [&](Peer &p) {
                  auto pretend = [&](uint64_t epoch) {
                    std::unique_lock<std::mutex> hold(p.image->lock);
                    p.image->epoch = epoch;
                  };
                  pretend(70);
                  p.Handshake();
                  pretend(77);
                  told.Open();
                  p.Serve();
                }});
  Handle c = Open(d.Uri(), Options());
  Handle copy = Copy(c.get());
  told.Await();
  ExpectContent(c.get(), d.image.bytes);
  EXPECT_EQ(cachet_epoch(c.get()), 77u);
}

TEST(RemoteNoticeTest, ACopyTrustsNothingThatWasCachedBefore) {
  FakeDaemon d({ServeAll()});
  Handle c = Open(d.Uri(), Options());
  ExpectContent(c.get(), d.image.bytes);
  {
    std::unique_lock<std::mutex> hold(d.image.lock);
    d.image.bytes[0] ^= 1; // and its notice is still on its way to `c`
  }
  Handle copy = Copy(c.get());
  ExpectContent(copy.get(), d.image.bytes);
}

TEST(RemoteNoticeTest, AFloodOfNoticesHoldsUpNothingForEver) {
  std::atomic<bool> over{false};
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    p.Receive(&r);
    p.Cork();
    for (int i = 0; i < 1000; i++)
      p.Invalidated(9 * 4096, 1);
    std::vector<char> flood = p.TakeKept();
    while (!over)
      p.SendRaw(flood.data(), flood.size());
  }});
  Handle c = Open(d.Uri(), Patience(100));
  uint8_t byte;
  EXPECT_NE(cachet_get_u8(c.get(), 0, &byte), CACHET_OK);
  over = true;
}

TEST(RemoteNoticeTest, ManyRangesInOneNoticeAreAllDropped) {
  Gate loaded, told;
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    p.Receive(&r);
    p.Answer(r);
    loaded.Await();
    std::vector<std::pair<uint64_t, uint64_t>> ranges;
    for (uint64_t page = 9; page > 0; page--) { // 18 of them, pages 1 to 9
      ranges.emplace_back(page * 4096, 1);
      ranges.emplace_back(page * 4096 + 9, 0);
    }
    p.Invalidated(ranges);
    told.Open();
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  ExpectContent(c.get(), d.image.bytes);
  {
    std::unique_lock<std::mutex> hold(d.image.lock);
    for (uint64_t page = 1; page < 10; page++)
      d.image.bytes[page * 4096] ^= 1;
  }
  loaded.Open();
  told.Await();
  ExpectContent(c.get(), d.image.bytes);
  EXPECT_TRUE(cachet_is_cached(c.get(), 0));
}

TEST(RemoteNoticeTest, AReadThatSpansAChangeIsOfOneEpoch) {
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    p.Receive(&r);
    p.Data(r.id, 77, 0, 0, false, p.image->bytes.data(), 4096);
    std::unique_lock<std::mutex> hold(p.image->lock);
    p.image->bytes = Content(100000, 2);
    p.image->epoch = 78;
    p.Changed();
    p.Error(r.id, CACHET_E_CHANGED, "changed");
    hold.unlock();
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  std::vector<uint8_t> buf(64 << 10);
  ASSERT_EQ(cachet_read(c.get(), 0, buf.data(), buf.size()), CACHET_OK)
      << cachet_errmsg(c.get());
  EXPECT_EQ(memcmp(buf.data(), d.image.bytes.data(), buf.size()), 0);
  EXPECT_EQ(cachet_epoch(c.get()), 78u);
  EXPECT_EQ(cachet_size(c.get()), 100000u);
}

TEST(RemoteNoticeTest, AnImageThatNeverStandsStillIsChanged) {
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    while (p.Receive(&r))
      p.Error(r.id, CACHET_E_CHANGED, "changed");
  }});
  Handle c = Open(d.Uri(), Options());
  uint8_t byte;
  EXPECT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_E_CHANGED);
}

TEST(RemoteNoticeTest, APieceOfAnotherEpochIsNotMixedIn) {
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    p.Receive(&r);
    std::vector<uint8_t> other = Content(8192, 3);
    p.Data(r.id, 77, 0, 0, false, p.image->bytes.data(), 4096);
    p.Data(r.id, 99, 0, 4096, true, other.data(), 4096);
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  uint8_t buf[8192];
  ASSERT_EQ(cachet_read(c.get(), 0, buf, sizeof buf), CACHET_OK);
  EXPECT_EQ(memcmp(buf, d.image.bytes.data(), sizeof buf), 0);
}

TEST(RemoteNoticeTest, InvalidateDropsHereAndAtTheDaemon) {
  FakeDaemon d({ServeAll()});
  Handle c = Open(d.Uri(), Options());
  Handle copy = Copy(c.get());
  ExpectContent(c.get(), d.image.bytes);
  {
    std::unique_lock<std::mutex> hold(d.image.lock);
    d.image.bytes[5000] ^= 1;
  }
  ASSERT_EQ(cachet_invalidate(c.get(), 4096, 1), CACHET_OK);
  EXPECT_FALSE(cachet_is_cached(c.get(), 5000));
  EXPECT_TRUE(cachet_is_cached(c.get(), 0));
  EXPECT_TRUE(cachet_is_cached(c.get(), 8192));
  ExpectContent(copy.get(), d.image.bytes);
}

TEST(RemoteNoticeTest, AnInvalidateThatIsNotAllowedSaysSo) {
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    p.Receive(&r);
    p.Error(r.id, CACHET_E_ACCESS, "invalidate: not permitted");
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  EXPECT_EQ(cachet_invalidate(c.get(), 0, 1), CACHET_E_ACCESS);
  EXPECT_STREQ(cachet_errmsg(c.get()), "invalidate: not permitted");
}

} // namespace

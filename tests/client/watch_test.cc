// What the function of cachet_set_watch() hears: an event loop that asks for
// descriptor, events and time-out only there must not sleep too long.
#include "tests/client/fake_daemon.h"

#include <climits>

namespace {

// An event loop that has heard of a handle.
struct Watch {
  explicit Watch(cachet *watched) : c(watched) {
    cachet_set_watch(
        c, [](void *arg) { static_cast<Watch *>(arg)->Ask(); }, this);
    Ask();
  }
  ~Watch() { cachet_set_watch(c, nullptr, nullptr); }

  void Ask() {
    fd = cachet_fd(c);
    events = cachet_events(c);
    timeout_ms = cachet_timeout_ms(c);
  }

  // Time passes, so the handle's own time-out may be shorter.
  void ExpectTrue() const {
    auto limit = [](int ms) { return ms < 0 ? INT_MAX : ms; };
    EXPECT_EQ(fd, cachet_fd(c));
    EXPECT_EQ(events, cachet_events(c));
    EXPECT_EQ(timeout_ms < 0, cachet_timeout_ms(c) < 0);
    EXPECT_GE(limit(timeout_ms), limit(cachet_timeout_ms(c)));
  }

  void AwaitInput() const {
    struct pollfd p = {cachet_fd(c), POLLIN, 0};
    ASSERT_EQ(poll(&p, 1, -1), 1);
  }

  cachet *c;
  int fd, timeout_ms;
  short events;
};

// Takes in what has arrived, and does nothing else.
void Drain(cachet *c) { ASSERT_EQ(cachet_adopt_epoch(c), CACHET_OK); }

TEST(WatchTest, HearsWhenALostConnectionIsMadeAgain) {
  Gate end;
  FakeDaemon d({[](Peer &p) {
                  Request r;
                  p.Handshake();
                  p.Receive(&r);
                },
                [&](Peer &p) {
                  Request r;
                  p.Handshake();
                  p.Receive(&r);
                  end.Await();
                },
                ServeAll()});
  Outcome out;
  Handle c = Open(d.Uri(), Patience(60000));
  Watch watch(c.get());
  ASSERT_EQ(cachet_load_async(c.get(), 0, 0, Outcome::Loaded, &out, nullptr),
            CACHET_OK);
  // The load is sent over the second connection.
  RunUntil(c.get(), [&] {
    return d.n_connections == 2 && cachet_timeout_ms(c.get()) > 50000;
  });
  end.Open();
  watch.AwaitInput();
  Drain(c.get());
  EXPECT_EQ(watch.fd, -1);
  ASSERT_GE(watch.timeout_ms, 0);
  ASSERT_LE(watch.timeout_ms, 2);
  while (!out.n) {
    struct pollfd p = {watch.fd, watch.events, 0};
    ASSERT_GE(poll(&p, 1, watch.timeout_ms), 0);
    ASSERT_EQ(cachet_dispatch(c.get()), CACHET_OK);
  }
  EXPECT_EQ(out.status, CACHET_OK);
  cachet_release(c.get(), &out.slice);
}

TEST(WatchTest, HearsThatThereIsMoreToTakeIn) {
  Gate flood;
  FakeDaemon d({[&](Peer &p) {
    p.Handshake();
    flood.Await();
    p.Cork();
    for (int i = 0; i < 100; i++)
      p.Invalidated(4096, 1);
    p.Uncork();
    p.AwaitEnd();
  }});
  Handle c = Open(d.Uri(), Options());
  Watch watch(c.get());
  flood.Open();
  watch.AwaitInput();
  Drain(c.get());
  EXPECT_EQ(cachet_timeout_ms(c.get()), 0);
  EXPECT_EQ(watch.timeout_ms, 0);
  while (cachet_timeout_ms(c.get()) == 0)
    Drain(c.get());
  watch.ExpectTrue();
}

TEST(WatchTest, HearsOfBytesThatNobodyHasComeFor) {
  Gate answer;
  FakeDaemon d({[&](Peer &p) {
                 Request r;
                 p.Handshake();
                 p.Receive(&r);
                 p.Answer(r);
                 p.Receive(&r);
                 p.Answer(r);
                 answer.Await();
                 p.Serve();
               }},
               1 << 20);
  Handle c = Open(d.Uri(), Options());
  Watch watch(c.get());
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_OK);
  ASSERT_EQ(cachet_get_u8(c.get(), 4096, &byte), CACHET_OK);
  EXPECT_EQ(watch.timeout_ms, -1);
  answer.Open();
  while (cachet_timeout_ms(c.get()) < 0) {
    watch.AwaitInput();
    Drain(c.get());
  }
  watch.ExpectTrue();
}

} // namespace

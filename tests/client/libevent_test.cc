// The libevent adapter, with handles in process and on a daemon.
#include <cachet/libevent.h>
#include <event2/event.h>

#include "tests/client/fake_daemon.h"

namespace {

struct BaseFree {
  void operator()(event_base *base) const { event_base_free(base); }
};

class LibeventTest : public testing::Test {
protected:
  std::unique_ptr<event_base, BaseFree> base_{event_base_new()};
};

struct Loads {
  cachet *c;
  event_base *base;
  int n_left;
  const std::vector<uint8_t> *bytes;
  bool detach = false;

  static void Done(void *arg, cachet_status status, cachet_slice *slice) {
    auto *l = static_cast<Loads *>(arg);
    EXPECT_EQ(status, CACHET_OK) << cachet_errmsg(l->c);
    if (slice) {
      EXPECT_EQ(memcmp(slice->data, &(*l->bytes)[slice->offset], slice->length),
                0);
      cachet_release(l->c, slice);
    }
    if (l->detach) {
      EXPECT_EQ(cachet_event_detach(l->c), CACHET_OK);
    }
    if (--l->n_left == 0)
      event_base_loopbreak(l->base);
  }
};

TEST_F(LibeventTest, DrivesSixteenLoadsOfASource) {
  MadeSource source(Content(64 << 10));
  Handle c = source.Make();
  ASSERT_EQ(cachet_event_attach(c.get(), base_.get()), CACHET_OK);
  EXPECT_EQ(cachet_event_attach(c.get(), base_.get()), CACHET_E_INVAL);
  Loads loads = {c.get(), base_.get(), 16, &source.bytes};
  for (uint64_t i = 0; i < 16; i++)
    ASSERT_EQ(
        cachet_load_async(c.get(), i * 4096, 0, Loads::Done, &loads, nullptr),
        CACHET_OK);
  event_base_dispatch(base_.get());
  EXPECT_EQ(loads.n_left, 0);
  EXPECT_EQ(cachet_event_detach(c.get()), CACHET_OK);
  EXPECT_EQ(cachet_event_detach(c.get()), CACHET_OK);
}

TEST_F(LibeventTest, FollowsAHandleOverAReconnection) {
  FakeDaemon d({[](Peer &p) {
                  Request r;
                  p.Handshake();
                  for (int i = 0; i < 3; i++)
                    p.Receive(&r);
                },
                ServeAll()});
  Handle c = Open(d.Uri(), Options());
  ASSERT_EQ(cachet_event_attach(c.get(), base_.get()), CACHET_OK);
  Loads loads = {c.get(), base_.get(), 16, &d.image.bytes};
  for (uint64_t i = 0; i < 16; i++)
    ASSERT_EQ(
        cachet_load_async(c.get(), i * 4096, 0, Loads::Done, &loads, nullptr),
        CACHET_OK);
  event_base_dispatch(base_.get());
  EXPECT_EQ(loads.n_left, 0);
  EXPECT_EQ(d.n_connections, 2);
  cachet_event_detach(c.get());
}

TEST_F(LibeventTest, ACallbackMayDetachItsHandle) {
  MadeSource source(Content(64 << 10));
  Handle c = source.Make();
  ASSERT_EQ(cachet_event_attach(c.get(), base_.get()), CACHET_OK);
  Loads loads = {c.get(), base_.get(), 2, &source.bytes};
  loads.detach = true;
  for (uint64_t i = 0; i < 2; i++)
    cachet_load_async(c.get(), i * 4096, 0, Loads::Done, &loads, nullptr);
  event_base_dispatch(base_.get());
  EXPECT_EQ(loads.n_left, 0);
}

} // namespace

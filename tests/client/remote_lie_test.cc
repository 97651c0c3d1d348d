// Handles on the image of a daemon that answers what cannot be.
#include "tests/client/lies.h"

namespace {

class LieTest : public testing::TestWithParam<Lie> {};

TEST_P(LieTest, EndsTheConnectionWithAProtocolErrorAndTheNextCallWorks) {
  auto lie = [](Peer &p) {
    Request r;
    if (!p.Handshake() || !p.Receive(&r))
      return;
    GetParam().tell(p, r);
    p.AwaitEnd();
  };
  FakeDaemon d({lie, ServeAll()});
  Handle c = Open(d.Uri(), Options());
  std::vector<uint8_t> buf(8192);
  EXPECT_EQ(cachet_read(c.get(), 0, buf.data(), buf.size()), CACHET_E_PROTO)
      << cachet_errmsg(c.get());
  EXPECT_FALSE(cachet_is_cached(c.get(), 0));
  ExpectContent(c.get(), d.image.bytes);
  EXPECT_EQ(d.n_connections, 2);
}

INSTANTIATE_TEST_SUITE_P(All, LieTest, testing::ValuesIn(Lies()), LieName);

TEST(RemoteLieTest, AnErrorWithAStatusThatIsNoneIsAProtocolError) {
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    for (int status : {0, 1, -99}) {
      p.Receive(&r);
      p.Error(r.id, status, "");
    }
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  uint8_t byte;
  for (int i = 0; i < 3; i++)
    EXPECT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_E_PROTO);
}

} // namespace

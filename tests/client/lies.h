// What a daemon may say about a read that cannot be.
#ifndef TESTS_CLIENT_LIES_H
#define TESTS_CLIENT_LIES_H

#include "tests/client/fake_daemon.h"

struct Lie {
  const char *name;
  std::function<void(Peer &, const Request &)> tell;
};

// The read asked for bytes 0 to 8191.
inline std::vector<Lie> Lies() {
  static const std::vector<uint8_t> junk(1 << 20, 0xee);
  auto data = [](uint64_t id_off, uint32_t range, uint64_t offset, bool last,
                 size_t len) {
    return [=](Peer &p, const Request &r) {
      p.Data(r.id + id_off, 77, range, offset, last, junk.data(), len);
    };
  };
  return {
      {"AnIdThatWasNotAsked", data(1, 0, 0, true, 8192)},
      {"ARangeThatWasNotAsked", data(0, 1, 0, true, 8192)},
      {"ARangeFarAway", data(0, 0xffffffff, 0, true, 8192)},
      {"AnotherOffset", data(0, 0, 4096, true, 8192)},
      {"AnOffsetThatOverflows", data(0, 0, ~0ull, true, 8192)},
      {"MoreThanWasAsked", data(0, 0, 0, true, 8193)},
      {"MuchMoreThanWasAsked", data(0, 0, 0, true, 1 << 20)},
      {"TheEndTooEarly", data(0, 0, 0, true, 4096)},
      {"TheEndMissing", data(0, 0, 0, false, 8192)},
      {"NoBytes", data(0, 0, 0, false, 0)},
      {"TheSecondPieceTwice",
       [](Peer &p, const Request &r) {
         p.Data(r.id, 77, 0, 0, false, junk.data(), 4096);
         p.Data(r.id, 77, 0, 0, true, junk.data(), 4096);
       }},
      {"DoneForARead", [](Peer &p, const Request &r) { p.Done(r.id); }},
      {"WelcomeAgain", [](Peer &p, const Request &r) { p.Welcome(r.id); }},
      {"GarbageForAFrame",
       [](Peer &p, const Request &) { p.SendRaw("GET / HTTP/1.0\r\n", 16); }},
      {"AFrameThatIsTooLong",
       [](Peer &p, const Request &) {
         p.SendRaw("\xff\xff\xff\x7f\0\0\0\0", 8);
       }},
      {"APayloadThatIsTooLong",
       [](Peer &p, const Request &) {
         p.SendRaw("\x02\0\0\0\xff\xff\xff\xff\x08\x01", 10);
       }},
      {"AMessageWithoutABody",
       [](Peer &p, const Request &) {
         p.SendRaw("\x02\0\0\0\0\0\0\0\x08\x01", 10);
       }},
      {"ATruncatedMessage",
       [](Peer &p, const Request &) {
         p.SendRaw("\x02\0\0\0\0\0\0\0\x12\x7f", 10);
       }},
      {"ANoticeOfAnImageThatCannotBe",
       [](Peer &p, const Request &) {
         std::unique_lock<std::mutex> hold(p.image->lock);
         uint64_t epoch = p.image->epoch;
         p.image->epoch = 0;
         p.Changed();
         p.image->epoch = epoch;
       }},
  };
}

inline std::string LieName(const testing::TestParamInfo<Lie> &info) {
  return info.param.name;
}

#endif

// Streams over a transport that is scripted: no socket is made.
#include "proto/stream.h"

#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <string>

#include "tests/support/fake_transport.h"

namespace {

using Bytes = std::vector<uint8_t>;
using Step = FakeTransport::Step;

constexpr frame_limits kLimits = {1000, 5000};

Step Some(size_t n) { return {n, 0, 0, false, false}; }
Step Fails(int error) { return {0, error, 0, false, false}; }
Step WithFds(size_t n, unsigned n_fds) { return {n, 0, n_fds, false, false}; }

struct ArenaFree {
  void operator()(frame_arena *a) const { frame_arena_free(a); }
};

Bytes Payload(size_t len) {
  Bytes bytes(len);
  std::iota(bytes.begin(), bytes.end(), uint8_t(1));
  return bytes;
}

// A Data, with its payload behind it.
Bytes Data(uint64_t id, size_t payload_len = 0) {
  Cachet__Wire__Data data = CACHET__WIRE__DATA__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  msg.id = id;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_DATA;
  msg.data = &data;
  data.offset = 4096;
  Bytes bytes(frame_packed_len(&msg));
  frame_pack(&msg, uint32_t(payload_len), bytes.data());
  Bytes payload = Payload(payload_len);
  bytes.insert(bytes.end(), payload.begin(), payload.end());
  return bytes;
}

Bytes Joined(std::initializer_list<Bytes> parts) {
  Bytes all;
  for (const Bytes &part : parts)
    all.insert(all.end(), part.begin(), part.end());
  return all;
}

class StreamTest : public testing::Test {
protected:
  StreamTest() : buffer_(FRAME_HEADER_LEN + kLimits.max_message + 1) {
    stream_init(&s_, FakeTransport::Io(), &transport_, &kLimits);
    stream_lend(&s_, buffer_.data(), buffer_.size());
  }
  ~StreamTest() override {
    stream_fini(&s_);
    EXPECT_EQ(transport_.n_open(), 0u);
  }

  // Begins anew.
  void Restart(const Bytes &in, std::deque<Step> to_recv = {}) {
    stream_fini(&s_);
    stream_init(&s_, FakeTransport::Io(), &transport_, &kLimits);
    stream_lend(&s_, buffer_.data(), buffer_.size());
    transport_ = FakeTransport();
    transport_.in = in;
    transport_.to_recv = std::move(to_recv);
    said_.clear();
  }

  // Looks at all that is here, and notes it: "7" for a message, "(n)" for its
  // payload.
  stream_next Look() {
    for (;;) {
      frame_header header;
      wire_message *msg;
      stream_next next = stream_take(&s_, arena_.get(), &header, &msg);
      if (next == STREAM_MESSAGE) {
        said_ += std::to_string(msg->id);
        payload_.assign(header.payload_len, 0);
        if (header.payload_len)
          stream_place(&s_, wants_payload_ ? payload_.data() : nullptr);
      } else if (next == STREAM_PAYLOAD) {
        said_ += "(" + std::to_string(payload_.size()) + ")";
        if (wants_payload_) {
          EXPECT_EQ(payload_, Payload(payload_.size()));
        }
      } else {
        return next;
      }
    }
  }

  // Receives and looks until nothing comes.
  int ReceiveAll(bool keeps = false) {
    for (;;) {
      int r = stream_receive(&s_, SIZE_MAX);
      if (r != STREAM_CAME)
        return r;
      if (Look() != STREAM_MORE)
        return STREAM_CAME;
      if (keeps) {
        EXPECT_EQ(stream_keep_input(&s_, SIZE_MAX), 0);
        std::fill(buffer_.begin(), buffer_.end(), uint8_t(0xee));
        stream_lend(&s_, buffer_.data(), buffer_.size());
      }
    }
  }

  int Send(const Bytes &a, const Bytes &b = {}, size_t room = SIZE_MAX) {
    iovec iovs[2] = {{const_cast<uint8_t *>(a.data()), a.size()},
                     {const_cast<uint8_t *>(b.data()), b.size()}};
    return stream_send(&s_, iovs, b.empty() ? 1 : 2, room);
  }

  void GiveFds(unsigned n) {
    int fds[STREAM_MAX_FDS];
    for (unsigned i = 0; i < n; i++)
      fds[i] = transport_.NewFd();
    stream_give_fds(&s_, fds, n);
  }

  FakeTransport transport_;
  stream s_;
  Bytes buffer_, payload_;
  bool wants_payload_ = true;
  std::string said_;
  std::unique_ptr<frame_arena, ArenaFree> arena_{
      frame_arena_new(FRAME_ARENA_LEN)};
};

// ---- Input ------------------------------------------------------------------

TEST_F(StreamTest, TheSameComesOutHoweverTheBytesAreSplit) {
  Bytes in = Joined({Data(1), Data(2, 300), Data(3), Data(4, 3000), Data(5)});
  for (size_t piece = 1; piece <= in.size(); piece++) {
    std::deque<Step> steps(in.size() / piece + 1, Some(piece));
    Restart(in, steps);
    EXPECT_EQ(ReceiveAll(), STREAM_NOTHING);
    EXPECT_EQ(said_, "12(300)34(3000)5") << piece;
  }
}

TEST_F(StreamTest, TheSameComesOutWhenItIsKeptBetweenAnyTwoBytes) {
  Bytes in = Joined({Data(1), Data(2, 300), Data(3)});
  for (size_t cut = 1; cut < in.size(); cut++) {
    Restart(in, {Fails(EINTR), Some(cut), Fails(EINTR), Fails(EAGAIN)});
    EXPECT_EQ(ReceiveAll(true), STREAM_NOTHING);
    EXPECT_EQ(ReceiveAll(true), STREAM_NOTHING);
    EXPECT_EQ(said_, "12(300)3") << cut;
    EXPECT_EQ(stream_keep_input(&s_, 0), 0);
    EXPECT_EQ(stream_held(&s_), 0u);
  }
}

TEST_F(StreamTest, AnEndInsideOfAFrameIsAnEndAndNoMessage) {
  Bytes in = Joined({Data(1), Data(2, 300)});
  size_t first = Data(1).size(), second = in.size() - 300;
  for (size_t len = 0; len < in.size(); len++) {
    Restart({in.begin(), in.begin() + ssize_t(len)});
    transport_.ends = true;
    EXPECT_EQ(ReceiveAll(), STREAM_END);
    EXPECT_EQ(said_, len < first ? "" : len < second ? "1" : "12") << len;
  }
}

TEST_F(StreamTest, PayloadIsReceivedWhereItBelongs) {
  Bytes in = Data(1, 3000);
  Restart(in, {Some(in.size() - 3000), Some(1000), Some(1)});
  EXPECT_EQ(stream_receive(&s_, SIZE_MAX), STREAM_CAME);
  Look();
  for (size_t at : {0, 1000, 1001}) {
    EXPECT_EQ(stream_receive(&s_, SIZE_MAX), STREAM_CAME);
    EXPECT_EQ(transport_.recv_to, payload_.data() + at);
    EXPECT_EQ(Look(), STREAM_MORE);
  }
  EXPECT_EQ(said_, "1(3000)");
}

TEST_F(StreamTest, WhatFollowsAPayloadIsNotTakenForIt) {
  Restart(Joined({Data(1, 3000), Data(2)}), {Some(20)});
  EXPECT_EQ(ReceiveAll(), STREAM_NOTHING);
  EXPECT_EQ(said_, "1(3000)2");
}

TEST_F(StreamTest, APayloadWithoutAPlaceIsDropped) {
  wants_payload_ = false;
  Restart(Joined({Data(1, 3000), Data(2)}));
  EXPECT_EQ(ReceiveAll(), STREAM_NOTHING);
  EXPECT_EQ(said_, "1(3000)2");
}

TEST_F(StreamTest, ALengthOverItsLimitIsAnEnd) {
  Bytes in = Joined({Data(1), {0xe9, 3, 0, 0, 0, 0, 0, 0}}); // 1001
  Restart(in);
  EXPECT_EQ(stream_receive(&s_, SIZE_MAX), STREAM_CAME);
  EXPECT_EQ(Look(), STREAM_TOO_LONG);
  EXPECT_EQ(stream_missing(&s_), 0u);
  EXPECT_EQ(Look(), STREAM_TOO_LONG);
  EXPECT_EQ(said_, "1");
  Restart({1, 0, 0, 0, 0x89, 0x13, 0, 0}); // a payload of 5001
  EXPECT_EQ(stream_receive(&s_, SIZE_MAX), STREAM_CAME);
  EXPECT_EQ(Look(), STREAM_TOO_LONG);
}

TEST_F(StreamTest, AMessageThatIsNoneIsAnEnd) {
  Restart(Joined({Data(1), {1, 0, 0, 0, 0, 0, 0, 0, 0xff}, Data(2)}));
  EXPECT_EQ(stream_receive(&s_, SIZE_MAX), STREAM_CAME);
  EXPECT_EQ(Look(), STREAM_BAD);
  EXPECT_EQ(Look(), STREAM_BAD);
  EXPECT_EQ(said_, "1");
}

TEST_F(StreamTest, ItSaysHowMuchIsMissing) {
  Bytes in = Data(1);
  for (size_t len = 1; len <= in.size(); len++) {
    Restart(in, {Some(len)});
    EXPECT_EQ(stream_receive(&s_, SIZE_MAX), STREAM_CAME);
    EXPECT_EQ(stream_missing(&s_),
              (len < FRAME_HEADER_LEN ? FRAME_HEADER_LEN : in.size()) - len);
  }
  Restart(Data(1, 100), {Some(in.size() + 40)});
  EXPECT_EQ(stream_receive(&s_, SIZE_MAX), STREAM_CAME);
  EXPECT_EQ(Look(), STREAM_MORE);
  EXPECT_EQ(stream_missing(&s_), 60u);
}

TEST_F(StreamTest, NoMoreIsReceivedThanIsAskedFor) {
  Restart(Data(1, 100));
  EXPECT_EQ(stream_receive(&s_, 5), STREAM_CAME);
  EXPECT_EQ(transport_.n_received, 5u);
  EXPECT_FALSE(stream_is_drained(&s_));
  EXPECT_EQ(stream_receive(&s_, 1000), STREAM_CAME);
  EXPECT_TRUE(stream_is_drained(&s_));
}

TEST_F(StreamTest, ItKeepsOnlyWhatWasNotLookedAtAndWhatThereIsRoomFor) {
  Restart(Joined({Data(1), Bytes(4)}));
  EXPECT_EQ(ReceiveAll(), STREAM_NOTHING);
  EXPECT_TRUE(stream_has_input(&s_));
  EXPECT_EQ(stream_held(&s_), 0u);
  EXPECT_EQ(stream_keep_input(&s_, SIZE_MAX), 0);
  EXPECT_TRUE(stream_has_input(&s_));
  EXPECT_GE(stream_held(&s_), 4u);
  EXPECT_LE(stream_held(&s_), 512u);
  stream_drop_input(&s_);
  EXPECT_FALSE(stream_has_input(&s_));
  EXPECT_EQ(stream_held(&s_), 0u);

  Restart(Bytes(4));
  EXPECT_EQ(ReceiveAll(), STREAM_NOTHING);
  EXPECT_EQ(stream_keep_input(&s_, 3), -ENOMEM);
  EXPECT_EQ(stream_held(&s_), 0u);
}

TEST_F(StreamTest, AnErrorOfTheTransportIsPassedOn) {
  Restart({}, {Fails(ECONNRESET)});
  EXPECT_EQ(stream_receive(&s_, SIZE_MAX), -ECONNRESET);
}

// ---- Output -----------------------------------------------------------------

TEST_F(StreamTest, WhatTheTransportDoesNotTakeGoesOutFirst) {
  Bytes a = Payload(700), b = Payload(900), c = Payload(100);
  for (size_t n = 0; n <= a.size() + b.size(); n += 100) {
    Restart({});
    transport_.to_send = {Fails(EINTR), Some(n)};
    bool all = n == a.size() + b.size();
    EXPECT_EQ(Send(a, b), all ? STREAM_SENT : STREAM_KEPT);
    EXPECT_EQ(transport_.out.size(), n);
    EXPECT_EQ(stream_unsent(&s_), a.size() + b.size() - n);
    EXPECT_EQ(stream_held(&s_) > 0, !all);
    EXPECT_EQ(Send(c), all ? STREAM_SENT : STREAM_KEPT);
    EXPECT_EQ(transport_.out.size(), n + (all ? c.size() : 0));
    EXPECT_EQ(stream_flush(&s_), STREAM_SENT);
    EXPECT_EQ(transport_.out, Joined({a, b, c})) << n;
    EXPECT_EQ(stream_held(&s_), 0u);
  }
}

TEST_F(StreamTest, OneByteAtATimeGoesOutInOrder) {
  Bytes a = Payload(700), sent;
  Restart({});
  transport_.to_send = {Fails(ENOBUFS)};
  EXPECT_EQ(Send(a), STREAM_KEPT);
  for (size_t i = 1; i < a.size(); i++) {
    transport_.to_send = {Fails(EAGAIN), Some(1)};
    EXPECT_EQ(stream_flush(&s_), STREAM_KEPT);
    EXPECT_EQ(stream_flush(&s_), STREAM_KEPT);
    if (i % 100 == 0) {
      EXPECT_EQ(Send({uint8_t(i)}), STREAM_KEPT);
    }
  }
  EXPECT_EQ(stream_flush(&s_), STREAM_SENT);
  EXPECT_EQ(transport_.out,
            Joined({a, {100}, {200}, {44}, {144}, {244}, {88}}));
}

TEST_F(StreamTest, NoMoreIsKeptThanThereIsRoomFor) {
  transport_.to_send = {Some(1)};
  EXPECT_EQ(Send(Payload(2000), {}, 1998), -ENOMEM);
  EXPECT_EQ(stream_held(&s_), 0u);
  transport_.to_send = {Some(1)};
  EXPECT_EQ(Send(Payload(2000), {}, 2048), STREAM_KEPT);
  EXPECT_EQ(Send(Payload(2000), {}, 0), -ENOMEM);
  EXPECT_LE(stream_held(&s_), 2048u);
}

TEST_F(StreamTest, ATransportThatBreaksLeavesNothingUnsent) {
  transport_.to_send = {Some(1), Fails(EPIPE)};
  EXPECT_EQ(Send(Payload(2000)), STREAM_KEPT);
  EXPECT_EQ(stream_flush(&s_), -EPIPE);
  EXPECT_EQ(stream_unsent(&s_), 0u);
  EXPECT_EQ(stream_held(&s_), 0u);
  transport_.to_send = {Fails(EPIPE)};
  EXPECT_EQ(Send({1}), -EPIPE);
}

// ---- Descriptors ------------------------------------------------------------

TEST_F(StreamTest, DescriptorsGoWithTheNextByteAndAreClosedOnce) {
  GiveFds(3);
  transport_.to_send = {Fails(EAGAIN), Fails(EAGAIN), Some(1)};
  EXPECT_EQ(Send(Payload(10)), STREAM_KEPT);
  EXPECT_EQ(stream_flush(&s_), STREAM_KEPT);
  EXPECT_TRUE(stream_has_fds(&s_));
  EXPECT_EQ(transport_.n_open(), 3u);
  EXPECT_EQ(stream_flush(&s_), STREAM_KEPT);
  EXPECT_FALSE(stream_has_fds(&s_));
  EXPECT_EQ(transport_.n_open(), 0u);
  EXPECT_EQ(stream_flush(&s_), STREAM_SENT);
  EXPECT_EQ(transport_.fds_out_at, std::vector<size_t>{0});
  EXPECT_EQ(transport_.n_fds_out, 3u);
}

TEST_F(StreamTest, DescriptorsThatTheTransportRefusesAreNotLost) {
  GiveFds(4);
  transport_.to_send = {Fails(ETOOMANYREFS)};
  EXPECT_EQ(Send(Payload(10)), -ETOOMANYREFS);
  EXPECT_TRUE(stream_has_fds(&s_));
  stream_drop_fds(&s_);
  EXPECT_EQ(transport_.n_open(), 0u);
  EXPECT_EQ(Send(Payload(10)), STREAM_SENT);
  EXPECT_EQ(transport_.n_fds_out, 0u);
}

TEST_F(StreamTest, DescriptorsAreTakenOnWhateverByteTheyCome) {
  Bytes in = Data(1, 50);
  for (size_t at = 0; at < in.size(); at++) {
    Restart(in, {WithFds(at, 0), WithFds(SIZE_MAX, 2)});
    if (at == 0)
      transport_.to_recv.pop_front();
    stream_want_fds(&s_, true);
    EXPECT_EQ(ReceiveAll(), STREAM_NOTHING);
    EXPECT_EQ(said_, "1(50)");
    int fds[STREAM_MAX_FDS];
    bool cut;
    EXPECT_EQ(stream_take_fds(&s_, fds, &cut), 2u) << at;
    EXPECT_FALSE(cut);
    EXPECT_EQ(transport_.n_open(), 2u);
    transport_.Close(fds[0]);
    transport_.Close(fds[1]);
    EXPECT_EQ(stream_take_fds(&s_, fds, &cut), 0u);
  }
}

TEST_F(StreamTest, DescriptorsThatNobodyAskedForAreClosed) {
  Restart(Data(1), {WithFds(5, 1)});
  EXPECT_EQ(stream_receive(&s_, SIZE_MAX), STREAM_STRAY);
  EXPECT_EQ(transport_.n_open(), 0u);
  for (unsigned n : {STREAM_MAX_FDS + 1, int(STREAM_ANY_FDS)}) {
    Restart(Data(1), {WithFds(5, n)});
    stream_want_fds(&s_, true);
    EXPECT_EQ(stream_receive(&s_, SIZE_MAX), STREAM_STRAY);
    EXPECT_EQ(transport_.n_open(), 0u);
  }
}

TEST_F(StreamTest, DescriptorsThatWereLostAreAskedForOrStray) {
  const Step lost = {5, 0, 1, true, false};
  Restart(Data(1), {lost});
  EXPECT_EQ(stream_receive(&s_, SIZE_MAX), STREAM_STRAY);
  Restart(Data(1), {lost});
  stream_want_fds(&s_, true);
  EXPECT_EQ(stream_receive(&s_, SIZE_MAX), STREAM_CAME);
  int fds[STREAM_MAX_FDS];
  bool cut;
  EXPECT_EQ(stream_take_fds(&s_, fds, &cut), 1u);
  EXPECT_TRUE(cut);
  transport_.Close(fds[0]);
}

TEST_F(StreamTest, DescriptorsThatTheTransportDoesNotTakeAreStray) {
  Restart(Data(1), {{0, 0, 0, false, true}});
  stream_want_fds(&s_, true);
  EXPECT_EQ(stream_receive(&s_, SIZE_MAX), STREAM_STRAY);
}

TEST_F(StreamTest, DescriptorsThatNobodyTakesAreClosedByTheNext) {
  Restart(Data(1), {WithFds(1, 2), WithFds(1, 3)});
  stream_want_fds(&s_, true);
  EXPECT_EQ(stream_receive(&s_, SIZE_MAX), STREAM_CAME);
  EXPECT_EQ(stream_receive(&s_, SIZE_MAX), STREAM_CAME);
  EXPECT_EQ(transport_.n_open(), 3u);
}

TEST_F(StreamTest, AnEndClosesAllAndAnAbandonedOneNothing) {
  for (bool is_abandoned : {false, true}) {
    Restart(Data(1), {WithFds(1, 2)});
    stream_want_fds(&s_, true);
    EXPECT_EQ(stream_receive(&s_, SIZE_MAX), STREAM_CAME);
    GiveFds(3);
    transport_.to_send = {Fails(EAGAIN)};
    EXPECT_EQ(Send({1}), STREAM_KEPT);
    if (is_abandoned)
      stream_abandon(&s_);
    else
      stream_fini(&s_);
    EXPECT_EQ(transport_.n_open(), is_abandoned ? 5u : 0u);
    EXPECT_EQ(stream_held(&s_), 0u);
    transport_ = FakeTransport();
  }
}

} // namespace

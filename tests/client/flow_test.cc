// The window of a connection, on links that are made of numbers.
#include "client/remote/flow.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>

namespace {

constexpr uint64_t kSecond = 1000000000, kMs = 1000000;
constexpr uint64_t kChunk = 256 << 10;

// A reader that asks for as much as the window lets it, over a link of which
// the bytes wait for each other.
class Link {
public:
  Link(uint64_t bytes_a_second, uint64_t ns)
      : rate(bytes_a_second), round_trip_ns(ns) {
    flow_init(&flow);
  }

  void RunFor(uint64_t ns) {
    uint64_t end = now_ + ns;
    Ask();
    while (!due_.empty() && due_.front().done < end) {
      Answer a = due_.front();
      due_.pop_front();
      now_ = a.done;
      under_way_ -= kChunk;
      flow_round_trip(&flow, a.begun - a.asked, a.alone);
      flow_received(&flow, kChunk, now_);
      flow_check(&flow);
      n_bytes += kChunk;
      Ask();
    }
    now_ = end;
  }

  // Small requests, one after the other, that have the link to themselves.
  void Ping(int n) {
    due_.clear();
    under_way_ = 0;
    flow_idle(&flow);
    for (int i = 0; i < n; i++)
      flow_round_trip(&flow, round_trip_ns, true);
  }

  uint64_t Product() const {
    return rate / 1000 * (round_trip_ns / 1000) / 1000;
  }

  struct flow flow;
  uint64_t rate, round_trip_ns;
  uint64_t n_bytes = 0;

private:
  struct Answer {
    uint64_t asked, begun, done;
    bool alone;
  };

  void Ask() {
    while (under_way_ < flow.window) {
      uint64_t begun = std::max(free_at_, now_ + round_trip_ns / 2);
      free_at_ = begun + kChunk * 1000 / (rate / 1000000);
      uint64_t back = round_trip_ns / 2;
      due_.push_back({now_, begun + back, free_at_ + back, under_way_ == 0});
      under_way_ += kChunk;
    }
    flow_limited(&flow);
  }

  uint64_t now_ = kSecond, free_at_ = 0, under_way_ = 0;
  std::deque<Answer> due_;
};

struct Kind {
  uint64_t rate, round_trip_ns;
};

class FlowTest : public testing::TestWithParam<Kind> {};

TEST_P(FlowTest, TheWindowIsBandwidthTimesDelayAndLittleMore) {
  Link link(GetParam().rate, GetParam().round_trip_ns);
  link.RunFor(4 * kSecond);
  uint64_t least = std::min<uint64_t>(link.Product(), FLOW_MOST);
  EXPECT_GE(link.flow.window, least);
  EXPECT_LE(link.flow.window, least / 10 * 14 + FLOW_LEAST);
  EXPECT_LE(link.flow.window, uint64_t{FLOW_MOST});
}

TEST_P(FlowTest, TheLinkIsInUseNearlyAllTheTime) {
  Link link(GetParam().rate, GetParam().round_trip_ns);
  if (link.Product() > FLOW_MOST)
    GTEST_SKIP() << "more than may be under way";
  link.RunFor(4 * kSecond);
  EXPECT_GE(link.n_bytes, 4 * link.rate / 100 * 85);
}

TEST_P(FlowTest, TheWindowShrinksWithTheRate) {
  Link link(GetParam().rate, GetParam().round_trip_ns);
  link.RunFor(2 * kSecond);
  link.rate /= 10;
  link.RunFor(20 * kSecond);
  uint64_t least = std::min<uint64_t>(link.Product(), FLOW_MOST);
  EXPECT_LE(link.flow.window, least / 10 * 14 + FLOW_LEAST);
}

TEST_P(FlowTest, ALongerWayIsNoticedBetweenTwoReadsAndUnderLoad) {
  for (bool pings : {false, true}) {
    Link link(GetParam().rate, GetParam().round_trip_ns);
    link.RunFor(2 * kSecond);
    link.round_trip_ns *= 4;
    if (pings)
      link.Ping(8);
    link.RunFor(40 * kSecond);
    uint64_t least = std::min<uint64_t>(link.Product(), FLOW_MOST);
    EXPECT_GE(link.flow.window, least / 10 * 8) << pings;
  }
}

INSTANTIATE_TEST_SUITE_P(Links, FlowTest,
                         testing::Values(Kind{1000000000, 20 * kMs},
                                         Kind{100000000, 20 * kMs},
                                         Kind{12000000, 50 * kMs},
                                         Kind{2000000000, kMs / 20},
                                         Kind{2000000000, 100 * kMs}));

TEST(FlowOfALink, AReaderWhoTakesHisTimeDoesNotLowerTheRate) {
  Link link(100000000, 20 * kMs);
  link.RunFor(2 * kSecond);
  uint64_t window = link.flow.window;
  for (int i = 0; i < 100; i++) // not limited by the window
    flow_received(&link.flow, 1000, uint64_t(100 + i) * kSecond);
  EXPECT_EQ(link.flow.window, window);
}

TEST(FlowOfALink, TheTimeInWhichNothingIsUnderWayDoesNotCount) {
  Link link(100000000, 20 * kMs);
  link.RunFor(2 * kSecond);
  uint64_t window = link.flow.window;
  for (int i = 0; i < 20; i++) {
    link.Ping(1);
    link.RunFor(100 * kMs);
  }
  EXPECT_GE(link.flow.window, window / 10 * 9);
}

} // namespace

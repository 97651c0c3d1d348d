// Where slices are: what is pinned for them, and what a release of each ends.
#include "client/handle.h"

#include <map>
#include <random>
#include <vector>

#include "tests/client/handle.h"

namespace {

constexpr uint64_t kPage = 4096, kPages = 100;

// A handle all of whose pages are resident, and what is out of it.
class Slices {
public:
  Slices() : bytes_(Content(kPages * kPage)) {
    cachet_options o = Options();
    o.cache_size = 4 * kPages * kPage;
    c_ = Open(dir_.Write("image", bytes_), o);
    std::vector<uint8_t> all(kPages * kPage);
    EXPECT_EQ(cachet_read(c(), 0, all.data(), all.size()), CACHET_OK);
  }

  cachet *c() const { return c_.get(); }
  size_t n_held() const { return held_.size(); }
  const cachet_slice &held(size_t i) const { return held_[i]; }

  cachet_slice Load(uint64_t page) {
    cachet_slice s;
    EXPECT_EQ(cachet_load(c(), page * kPage + 7, 1, &s), CACHET_OK);
    held_.push_back(s);
    return s;
  }
  void Map(uint64_t page) {
    cachet_slice s;
    EXPECT_EQ(cachet_map(c(), page * kPage, 2 * kPage, &s), CACHET_OK);
    held_.push_back(s);
  }
  void Release(size_t i) {
    past_.push_back(held_[i]);
    cachet_release(c(), &held_[i]);
    held_.erase(held_.begin() + (long)i);
  }
  // A copy of one that was released.
  void ReleaseAgain(size_t i) {
    cachet_slice copy = past_[i];
    cachet_release(c(), &copy);
  }
  size_t n_past() const { return past_.size(); }

  // What is held is what is pinned, and reads as it should.
  void Check() {
    std::map<uint64_t, int> pinned;
    for (unsigned i = 0; i < PIN_N_PAGE_SLOTS; i++)
      if (uint64_t pin = c()->view.slots[PIN_SLOT_PAGE + i])
        pinned[pin_first(pin)]++;
    for (const cachet_slice &s : held_) {
      if (s.length == kPage)
        pinned[s.offset / kPage]--;
      ASSERT_EQ(memcmp(s.data, &bytes_[s.offset], s.length), 0);
    }
    for (const auto &[page, surplus] : pinned)
      ASSERT_EQ(surplus, 0) << "page " << page;
    slice_check(&c()->slices, c()->epoch);
  }

private:
  TempDir dir_;
  std::vector<uint8_t> bytes_;
  Handle c_;
  std::vector<cachet_slice> held_, past_;
};

TEST(SlicesTest, AHitAfterAReleaseTakesTheSamePlaceByAnotherToken) {
  Slices slices;
  cachet_slice first = slices.Load(1);
  slices.Release(0);
  cachet_slice second = slices.Load(2);
  EXPECT_EQ(first.pin & SLICE_PLACE_MASK, second.pin & SLICE_PLACE_MASK);
  EXPECT_NE(first.pin, second.pin);
  cachet_release(slices.c(), &first);
  slices.Check();
}

TEST(SlicesTest, ASliceStaysWhileLaterHitsTakeOtherPlaces) {
  Slices slices;
  slices.Load(1);
  slices.Load(2);
  slices.Load(3);
  slices.Check();
  slices.Release(1);
  slices.Load(4);
  slices.Check();
  slices.Release(0);
  slices.ReleaseAgain(0); // of 2, whose place 4 has now
  slices.Load(5);
  slices.ReleaseAgain(1);
  slices.Check();
}

TEST(SlicesTest, AReaderWithTwoSlicesAtATimeFindsAPlaceReady) {
  Slices slices;
  slices.Load(0);
  for (uint64_t page = 1; page < 10; page++) {
    slices.Load(page);
    EXPECT_FALSE(slice_is_ready(&slices.c()->slices));
    slices.Release(0);
    EXPECT_TRUE(slice_is_ready(&slices.c()->slices));
  }
  slices.Check();
}

TEST(SlicesTest, AllPlacesAreHandedOutByHits) {
  Slices slices;
  for (uint64_t i = 0; i < N_SLICES; i++)
    slices.Load(i);
  slices.Check();
  cachet_slice s;
  EXPECT_EQ(cachet_load(slices.c(), 0, 1, &s), CACHET_E_BUSY);
  slices.Release(40);
  slices.Load(7);
  slices.Check();
}

TEST(SlicesTest, AnyOrderOfLoadsAndReleasesLeavesPinnedWhatIsHeld) {
  Slices slices;
  std::mt19937 random(5);
  for (int step = 0; step < 20000; step++) {
    unsigned what = random() % 16;
    // Now and then few are held, and now and then nearly all.
    size_t most = step / 1000 % 2 ? N_SLICES : 3;
    if (what < 7 && slices.n_held() < most)
      slices.Load(random() % kPages);
    else if (what == 7 && slices.n_held() < most)
      slices.Map(random() % (kPages - 1));
    else if (what < 14 && slices.n_held() > 0)
      slices.Release(random() % slices.n_held());
    else if (slices.n_past() > 0)
      slices.ReleaseAgain(slices.n_past() - 1 -
                          random() % std::min<size_t>(slices.n_past(), 100));
    slices.Check();
    if (HasFatalFailure())
      return;
  }
}

} // namespace

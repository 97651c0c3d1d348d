// Steps of Reads, Warms and Attaches, one by one and without a socket.
#include <gtest/gtest.h>

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "proto/status.h"
#include "tests/support/fake_source.h"
#include "tests/support/step_rig.h"

namespace {

constexpr uint64_t kPage = 1 << STEP_RIG_PAGE_SHIFT;
constexpr uint64_t kSize = 256 * kPage;
constexpr size_t kMost = 1 << 20;

// The payload of a step.
std::vector<uint8_t> Payload(const rig_step &step) {
  std::vector<uint8_t> bytes;
  for (unsigned i = 0; i < step.n_segments; i++) {
    auto *at = static_cast<const uint8_t *>(step.segments[i].iov_base);
    bytes.insert(bytes.end(), at, at + step.segments[i].iov_len);
  }
  return bytes;
}

class ReadStepTest : public testing::Test {
protected:
  ~ReadStepTest() override { step_rig_free(rig_); }

  void Ask(step_rig_kind kind, std::vector<range> ranges) {
    ranges_ = std::move(ranges);
    step_rig_ask(rig_, kind, ranges_.data(),
                 static_cast<unsigned>(ranges_.size()));
  }

  rig_step Step(size_t most = kMost) { return step_rig_step(rig_, most); }

  // A step that fetches: pages first .. first+n-1.
  void ExpectMiss(uint64_t first, uint64_t n) {
    rig_step step = Step();
    ASSERT_STREQ(step.outcome, "MISS");
    EXPECT_EQ(step.missing, first);
    EXPECT_EQ(step.n_missing, n);
    step_rig_fetch(rig_);
  }

  // A step with a piece of the answer, which is the last one or not.
  rig_step ExpectPiece(uint64_t offset, bool last) {
    rig_step step = Step();
    EXPECT_STREQ(step.outcome, last ? "DONE" : "MORE");
    EXPECT_STREQ(step.answer, "DATA");
    EXPECT_EQ(step.offset, offset);
    EXPECT_EQ(step.last, last);
    EXPECT_EQ(step.epoch, step_rig_epoch(rig_));
    return step;
  }

  // The same, which sends `len` bytes; or which says that the peer has them.
  void ExpectData(uint64_t offset, uint64_t len, bool last) {
    rig_step step = ExpectPiece(offset, last);
    EXPECT_EQ(step.len, len);
    EXPECT_EQ(Payload(step), FakeSource::Bytes(offset, len, source_.version()));
  }
  void ExpectResident(uint64_t offset, uint64_t len, bool last) {
    rig_step step = ExpectPiece(offset, last);
    EXPECT_EQ(step.resident, len);
    EXPECT_EQ(step.n_segments, 0u);
  }

  void ExpectRefused(int status, const std::string &text) {
    rig_step step = Step();
    ASSERT_STREQ(step.outcome, "DONE");
    ASSERT_STREQ(step.answer, "REFUSED");
    EXPECT_EQ(step.status, status);
    EXPECT_EQ(step.text, text);
  }

  // Has pages first .. first+n-1 be resident.
  void Fill(uint64_t first, uint64_t n) {
    Ask(STEP_RIG_READ, {{first * kPage, n * kPage}});
    ExpectMiss(first, n);
    ExpectData(first * kPage, n * kPage, true);
    step_rig_send(rig_);
  }

  FakeSource source_{kSize, FakeReads::kBlock};
  std::vector<range> ranges_;
  step_rig *rig_ = step_rig_new(source_.Open());
};

TEST_F(ReadStepTest, WhatIsResidentIsOnePieceAndPinned) {
  Fill(0, 8);
  Ask(STEP_RIG_READ, {{10, 5 * kPage}});
  ExpectData(10, 5 * kPage, true);
  EXPECT_EQ(step_rig_n_pins(rig_), 1u); // a range
  step_rig_send(rig_);
  EXPECT_EQ(step_rig_n_pins(rig_), 0u);
  EXPECT_EQ(step_rig_hits(rig_), 6u);
}

// Whether a load from an address needs no page fault.
bool IsMapped(const void *at) {
  uint64_t entry = 0;
  auto page = static_cast<off_t>(reinterpret_cast<uintptr_t>(at) / 4096);
  int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  EXPECT_GE(fd, 0) << strerror(errno);
  EXPECT_EQ(pread(fd, &entry, sizeof entry, page * 8), 8);
  close(fd);
  return entry >> 63;
}

// So that the evictor need not unmap it.
TEST_F(ReadStepTest, AMissPaysForAHitThatMapsNoPage) {
  constexpr uint64_t kOther = 100; // too far to be mapped together
  std::vector<const uint8_t *> at;
  Fill(kOther, 1);
  Fill(2, 1);
  for (uint64_t page : {kOther, uint64_t(2), uint64_t(2)}) {
    Ask(STEP_RIG_READ, {{page * kPage + 5, kPage - 5}});
    rig_step step = Step();
    EXPECT_EQ(Payload(step), FakeSource::Bytes(page * kPage + 5, kPage - 5));
    at.push_back(static_cast<const uint8_t *>(step.segments[0].iov_base));
    step_rig_send(rig_);
  }
  EXPECT_EQ(at[0], at[1]); // a buffer, which the next batch uses again
  EXPECT_TRUE(IsMapped(at[2]));
  EXPECT_FALSE(IsMapped(at[2] + (kOther - 2) * kPage));
  EXPECT_EQ(step_rig_hits(rig_), 3u);
}

TEST_F(ReadStepTest, PagesBeyondTheBuffersOfABatchAreSentFromTheMapping) {
  constexpr uint64_t kPages = 40;
  std::vector<range> ranges;
  std::vector<iovec> pieces;
  for (uint64_t i = 0; i < kPages; i++) {
    Fill(3 * i, 1);
    ranges.push_back({3 * i * kPage, kPage});
  }
  Ask(STEP_RIG_READ, ranges);
  for (uint64_t i = 0; i < kPages; i++)
    pieces.push_back(Step().segments[0]);
  for (uint64_t i = 0; i < kPages; i++) { // all of them are in one batch
    auto *at = static_cast<const uint8_t *>(pieces[i].iov_base);
    EXPECT_EQ(std::vector<uint8_t>(at, at + pieces[i].iov_len),
              FakeSource::Bytes(3 * i * kPage, kPage));
  }
  auto distance = [&](size_t i) {
    return static_cast<uint8_t *>(pieces[i + 1].iov_base) -
           static_cast<uint8_t *>(pieces[i].iov_base);
  };
  EXPECT_EQ(distance(14), 4096) << "buffers";
  EXPECT_EQ(distance(16), 3 * kPage) << "pages of the mirror";
}

TEST_F(ReadStepTest, AMissAfterAPieceLeavesThatPieceInTheBatch) {
  Fill(0, 3);
  Ask(STEP_RIG_READ, {{0, 5 * kPage}});
  ExpectData(0, 3 * kPage, false);
  EXPECT_GT(step_rig_n_pins(rig_), 0u);
  ExpectMiss(3, 2);
  EXPECT_GT(step_rig_n_pins(rig_), 0u); // nothing was sent
  ExpectData(3 * kPage, 2 * kPage, true);
  EXPECT_EQ(step_rig_hits(rig_), 3u);
  EXPECT_EQ(step_rig_misses(rig_), 5u);
}

TEST_F(ReadStepTest, AFetchIsKeptUntilItsLastPieceIsSent) {
  Ask(STEP_RIG_READ, {{0, 3 * kPage}});
  ExpectMiss(0, 3);
  rig_step step = Step(kPage + 7); // what the socket takes
  ASSERT_STREQ(step.outcome, "MORE");
  EXPECT_EQ(Payload(step), FakeSource::Bytes(0, kPage + 7));
  step_rig_send(rig_);
  EXPECT_TRUE(step_rig_has_fetch(rig_));
  ExpectData(kPage + 7, 2 * kPage - 7, true);
  EXPECT_TRUE(step_rig_has_fetch(rig_)); // its bytes are in the batch
  step_rig_send(rig_);
  EXPECT_FALSE(step_rig_has_fetch(rig_));
  EXPECT_EQ(step_rig_hits(rig_), 0u);
}

TEST_F(ReadStepTest, AFullBatchIsToBeSentBeforeTheNextPiece) {
  Fill(0, 2);
  step_rig_set_batch_len(rig_, kPage);
  Ask(STEP_RIG_READ, {{0, kPage}, {kPage, kPage}});
  ExpectData(0, kPage, false);
  EXPECT_STREQ(Step().outcome, "FULL");
  EXPECT_STREQ(Step().outcome, "FULL"); // and nothing has changed
  step_rig_send(rig_);
  ExpectData(kPage, kPage, true);
}

// More pieces than there are pin slots: each pin is one page's.
TEST_F(ReadStepTest, ABatchIsFullWhenThereIsNoPinLeft) {
  Fill(0, 64);
  std::vector<range> ranges;
  for (uint64_t page = 0; page < 128; page++)
    ranges.push_back({page % 64 * kPage, kPage});
  Ask(STEP_RIG_READ, ranges);
  unsigned n_full = 0;
  for (size_t i = 0; i < ranges.size(); i++) {
    rig_step step = Step();
    if (step.outcome == std::string("FULL")) {
      n_full++;
      step_rig_send(rig_);
      step = Step();
    }
    ASSERT_EQ(Payload(step), FakeSource::Bytes(ranges[i].offset, kPage)) << i;
  }
  EXPECT_GT(n_full, 0u);
}

TEST_F(ReadStepTest, ANewEpochBetweenPiecesIsToldBeforeItsBytes) {
  Fill(0, 2);
  Ask(STEP_RIG_READ, {{0, kPage}, {kPage, kPage}});
  ExpectData(0, kPage, false);
  source_.Rewrite();
  step_rig_renew(rig_);
  EXPECT_STREQ(Step().outcome, "FULL"); // pins of the old one
  step_rig_send(rig_);
  EXPECT_STREQ(Step().outcome, "NEW_EPOCH");
  EXPECT_STREQ(Step().outcome, "NEW_EPOCH"); // until it has been told
  step_rig_enter_epoch(rig_);
  ExpectMiss(1, 1);
  ExpectData(kPage, kPage, true); // of the new version
}

TEST_F(ReadStepTest, AFetchOfAnEpochThatIsOverIsNotSent) {
  Ask(STEP_RIG_READ, {{0, kPage}});
  ExpectMiss(0, 1);
  source_.Rewrite();
  step_rig_renew(rig_);
  EXPECT_STREQ(Step().outcome, "NEW_EPOCH");
  step_rig_enter_epoch(rig_);
  EXPECT_FALSE(step_rig_has_fetch(rig_));
  ExpectMiss(0, 1);
  ExpectData(0, kPage, true);
}

// It changes whenever its bytes have been fetched.
TEST_F(ReadStepTest, ARequestThatMeetsTooManyEpochsIsRefused) {
  Ask(STEP_RIG_READ, {{0, kPage}});
  int n = 0;
  rig_step step = Step();
  for (; step.outcome == std::string("MISS") && n < 100; n++) {
    step_rig_fetch(rig_);
    step_rig_renew(rig_);
    ASSERT_STREQ(Step().outcome, "NEW_EPOCH");
    step_rig_enter_epoch(rig_);
    step = Step();
  }
  EXPECT_EQ(n, 17);
  ASSERT_STREQ(step.answer, "REFUSED");
  EXPECT_EQ(step.status, WIRE_E_CHANGED);
}

// Page 1 was resident when the fetch began, so that has no bytes of it.
TEST_F(ReadStepTest, APageThatWentDuringAFetchIsFetchedByItself) {
  Fill(1, 1);
  Ask(STEP_RIG_READ, {{0, 3 * kPage}});
  ExpectMiss(0, 3);
  EXPECT_EQ(step_rig_misses(rig_), 3u);
  step_rig_invalidate(rig_, 1, 1);
  ExpectData(0, kPage, false);
  step_rig_send(rig_);
  ExpectMiss(1, 2);
  ExpectData(kPage, 2 * kPage, true);
}

TEST_F(ReadStepTest, APageThatWasResidentWhenAFetchBeganIsPinned) {
  Fill(1, 1);
  Ask(STEP_RIG_READ, {{0, 3 * kPage}});
  ExpectMiss(0, 3);
  ExpectData(0, 3 * kPage, true);
  EXPECT_EQ(step_rig_n_pins(rig_), 1u);
  EXPECT_EQ(step_rig_hits(rig_), 1u);
}

TEST_F(ReadStepTest, ZerosAreSentWithoutAPin) {
  source_.SetZeros(0, 4 * kPage);
  Ask(STEP_RIG_WARM, {{0, 4 * kPage}});
  ExpectMiss(0, 4);
  EXPECT_STREQ(Step().outcome, "MORE");
  Ask(STEP_RIG_READ, {{kPage, 2 * kPage}});
  rig_step step = Step();
  ASSERT_STREQ(step.outcome, "DONE");
  EXPECT_EQ(step.n_segments, 1u);
  EXPECT_EQ(Payload(step), std::vector<uint8_t>(2 * kPage, 0));
  EXPECT_EQ(step_rig_n_pins(rig_), 0u);
}

TEST_F(ReadStepTest, AnAttachedPeerIsToldWhatItHas) {
  Fill(0, 2);
  step_rig_attach(rig_, true);
  Ask(STEP_RIG_READ_IN_PLACE, {{0, 4 * kPage}});
  ExpectResident(0, 2 * kPage, false);
  ExpectMiss(2, 2);
  ExpectResident(2 * kPage, 2 * kPage, true); // its pins keep them
  EXPECT_EQ(step_rig_n_pins(rig_), 0u);
  EXPECT_EQ(step_rig_hits(rig_), 2u);
  EXPECT_EQ(step_rig_misses(rig_), 4u);
}

// Pages that are gone from the mirror again go as the bytes that were fetched.
TEST_F(ReadStepTest, AnAttachedPeerIsSentWhatCouldNotStay) {
  step_rig_attach(rig_, true);
  Ask(STEP_RIG_READ_IN_PLACE, {{0, 4 * kPage}});
  ExpectMiss(0, 4);
  step_rig_invalidate(rig_, 0, 2);
  ExpectData(0, 2 * kPage, false);
  step_rig_send(rig_);
  EXPECT_TRUE(step_rig_has_fetch(rig_));
  ExpectResident(2 * kPage, 2 * kPage, true);
}

// Another fill brings the page in between its two parts.
TEST_F(ReadStepTest, TheRestOfAPageGoesToAnAttachedPeerAsItsBeginningDid) {
  step_rig_attach(rig_, true);
  Ask(STEP_RIG_READ_IN_PLACE, {{0, 2 * kPage}});
  ExpectMiss(0, 2);
  step_rig_invalidate(rig_, 0, 1);
  rig_step step = Step(100);
  ASSERT_STREQ(step.outcome, "MORE");
  EXPECT_EQ(Payload(step), FakeSource::Bytes(0, 100));
  step_rig_send(rig_);
  step_rig_fetch(rig_);
  ExpectData(100, kPage - 100, false);
  step_rig_send(rig_);
  ExpectResident(kPage, kPage, true);
}

TEST_F(ReadStepTest, APageLongerThanAPieceIsSentInSeveral) {
  step_rig_set_piece_len(rig_, 3000);
  Ask(STEP_RIG_READ, {{0, kPage + 10}});
  ExpectMiss(0, 1);
  ExpectData(0, 3000, false);
  EXPECT_TRUE(step_rig_has_fetch(rig_));
  ExpectData(3000, kPage - 3000, false);
  step_rig_send(rig_);
  ExpectMiss(1, 1);
  ExpectData(kPage, 10, true);
  EXPECT_EQ(step_rig_misses(rig_), 2u);
  EXPECT_EQ(step_rig_hits(rig_), 0u);
}

TEST_F(ReadStepTest, AnAttachedPeerIsToldOfNoEpoch) {
  Fill(0, 1);
  step_rig_attach(rig_, true);
  step_rig_renew(rig_);
  Ask(STEP_RIG_READ_IN_PLACE, {{0, kPage}});
  ExpectMiss(0, 1);
}

TEST_F(ReadStepTest, WarmingSaysNothingUntilItIsDone) {
  Fill(0, 2);
  Ask(STEP_RIG_WARM, {{0, 2 * kPage}, {8 * kPage, kPage}});
  rig_step step = Step();
  EXPECT_STREQ(step.outcome, "MORE");
  EXPECT_STREQ(step.answer, "NOTHING");
  ExpectMiss(8, 1);
  step = Step();
  EXPECT_STREQ(step.outcome, "MORE");
  EXPECT_STREQ(step.answer, "NOTHING");
  step = Step();
  EXPECT_STREQ(step.outcome, "DONE");
  EXPECT_STREQ(step.answer, "FINISHED");
  EXPECT_EQ(step.epoch, step_rig_epoch(rig_));
  EXPECT_EQ(step_rig_hits(rig_), 2u);
}

TEST_F(ReadStepTest, AReadOfNothingIsAnsweredByOneEmptyPiece) {
  Ask(STEP_RIG_READ, {{5, 0}, {7, 0}});
  rig_step step = Step(0);
  EXPECT_STREQ(step.outcome, "DONE");
  EXPECT_STREQ(step.answer, "DATA");
  EXPECT_EQ(step.offset, 5u);
  EXPECT_EQ(step.len, 0u);
  EXPECT_TRUE(step.last);
}

TEST_F(ReadStepTest, ALeaseGoesWithNothingBeforeIt) {
  Fill(0, 1);
  Ask(STEP_RIG_READ, {{0, kPage}});
  ExpectData(0, kPage, true);
  Ask(STEP_RIG_ATTACH, {});
  EXPECT_STREQ(Step().outcome, "FULL");
  step_rig_send(rig_);
  rig_step step = Step();
  EXPECT_STREQ(step.outcome, "DONE");
  EXPECT_STREQ(step.answer, "LEASE");
}

// The lease names its epoch itself.
TEST_F(ReadStepTest, AnAttachIsNotPrecededByANewEpoch) {
  Fill(0, 1);
  step_rig_renew(rig_);
  Ask(STEP_RIG_ATTACH, {});
  EXPECT_STREQ(Step().answer, "LEASE");
}

TEST_F(ReadStepTest, WhatIsNotThereIsRefused) {
  Ask(STEP_RIG_READ, {{kSize - 1, 2}});
  ExpectRefused(WIRE_E_BOUNDS,
                "image \"disk\": the range reaches past its end");
  step_rig_remove(rig_);
  Ask(STEP_RIG_READ, {{0, 1}});
  ExpectRefused(WIRE_E_NOIMAGE, "image \"disk\": it is no longer served");
}

// Pages 0 and 1 are good: they are sent before the error is told.
TEST_F(ReadStepTest, GoodPagesAreSentBeforeTheBadOneIsTold) {
  source_.FailAt(2 * kPage, 5);
  Ask(STEP_RIG_READ, {{0, 4 * kPage}});
  ExpectMiss(0, 4);
  ExpectData(0, 2 * kPage, false);
  step_rig_send(rig_);
  ExpectMiss(2, 2);
  ExpectRefused(WIRE_E_IO,
                "image \"disk\": read 4096 bytes at 8192: Input/output error");
}

} // namespace

// A read of a source that calls back, for a test to wait for.
#ifndef TESTS_SUPPORT_PENDING_READ_H
#define TESTS_SUPPORT_PENDING_READ_H

#include <gtest/gtest.h>

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

#include "cache/source.h"

class PendingRead {
public:
  enum class Start { kPending, kAny }; // kAny: it may be over at once

  PendingRead(source *src, uint64_t offset, size_t len,
              Start start = Start::kPending)
      : bytes_(len, 0xee) {
    read_.offset = offset;
    read_.buf = bytes_.data();
    read_.len = len;
    read_.done = [](source_read *r) {
      PendingRead *self = reinterpret_cast<PendingRead *>(r);
      std::lock_guard<std::mutex> lock(self->mutex_);
      self->ended_ = true;
      self->cond_.notify_all();
    };
    // Perhaps it has ended by then, by another thread.
    was_asked_ = source_start(src, &read_) == SOURCE_PENDING;
    EXPECT_TRUE(was_asked_ || start == Start::kAny);
    if (!was_asked_)
      ended_ = true;
  }
  ~PendingRead() { Wait(); }

  int Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    cond_.wait(lock, [this] { return ended_; });
    return read_.status;
  }
  bool was_asked() const { return was_asked_; } // somebody else
  const std::vector<uint8_t> &bytes() const { return bytes_; }

private:
  source_read read_{}; // the first, for the cast
  std::vector<uint8_t> bytes_;
  std::mutex mutex_;
  std::condition_variable cond_;
  bool ended_ = false, was_asked_ = false;
};

#endif

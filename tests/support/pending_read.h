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
  PendingRead(source *src, uint64_t offset, size_t len) : bytes_(len, 0xee) {
    read_.offset = offset;
    read_.buf = bytes_.data();
    read_.len = len;
    read_.done = [](source_read *r) {
      PendingRead *self = reinterpret_cast<PendingRead *>(r);
      std::lock_guard<std::mutex> lock(self->mutex_);
      self->ended_ = true;
      self->cond_.notify_all();
    };
    EXPECT_EQ(source_start(src, &read_), SOURCE_PENDING);
  }
  ~PendingRead() { Wait(); }

  int Wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    cond_.wait(lock, [this] { return ended_; });
    return read_.status;
  }
  const std::vector<uint8_t> &bytes() const { return bytes_; }

private:
  source_read read_{}; // the first, for the cast
  std::vector<uint8_t> bytes_;
  std::mutex mutex_;
  std::condition_variable cond_;
  bool ended_ = false;
};

#endif

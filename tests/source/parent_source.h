// A source behind other daemons, as tests open it.
#ifndef TESTS_SOURCE_PARENT_SOURCE_H
#define TESTS_SOURCE_PARENT_SOURCE_H

#include "source/parent.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "cache/source.h"
#include "source/reactor.h"
#include "tests/support/pending_read.h"

class ParentSource {
public:
  using Options = std::vector<std::pair<std::string, std::string>>;

  ParentSource() { EXPECT_EQ(reactor_new(&reactor_), 0); }
  ~ParentSource() {
    Close();
    reactor_free(reactor_);
  }

  int Open(const std::string &uri, const Options &options = {}) {
    return WithUri(uri, options, [&](const source_uri *u) {
      timespec deadline = clock_after_ms(open_ms);
      return parent_source_kind.open(reactor_, u, &deadline, &src_, &fault_);
    });
  }

  int Check(const std::string &uri, const Options &options = {}) {
    return WithUri(uri, options, [&](const source_uri *u) {
      return parent_source_kind.check(u, &fault_);
    });
  }

  void Close() {
    if (src_) {
      source_listen(src_, nullptr);
      src_->ops->close(src_);
    }
    src_ = nullptr;
  }

  // The successor, if there is one, takes the source's place.
  int Reopen(bool *has_changed) {
    source *fresh = nullptr;
    int r = src_->ops->reopen(src_, &fresh);
    *has_changed = fresh != nullptr;
    if (fresh) {
      Close();
      src_ = fresh;
    }
    return r;
  }

  // The status of a read of that many bytes.
  int Status(uint64_t offset, size_t len) {
    return PendingRead(src_, offset, len).Wait();
  }

  void ExpectReads(const std::vector<uint8_t> &content, uint64_t offset,
                   size_t len) {
    PendingRead r(src_, offset, len);
    ASSERT_EQ(r.Wait(), 0);
    ASSERT_EQ(memcmp(r.bytes().data(), &content[offset], len), 0)
        << offset << " " << len;
  }

  source *get() const { return src_; }

  // What it tells by itself, from Listen() on.
  void Listen() {
    listener_.owner = this;
    listener_.self.changed = [](source_listener *l) { Of(l)->Tell("changed"); };
    listener_.self.invalid = [](source_listener *l, uint64_t offset,
                                uint64_t len) {
      Of(l)->Tell(std::to_string(offset) + "+" + std::to_string(len));
    };
    source_listen(src_, &listener_.self);
  }
  // The next thing that it tells.
  std::string AwaitNews() {
    std::unique_lock<std::mutex> lock(mutex_);
    told_.wait(lock, [this] { return !news_.empty(); });
    std::string first = news_.front();
    news_.pop_front();
    return first;
  }

  std::string fault() const { return fault_.text; }

  long open_ms = 60000;

private:
  struct Listener {
    source_listener self; // the first, for the cast
    ParentSource *owner;
  };

  static ParentSource *Of(source_listener *l) {
    return reinterpret_cast<Listener *>(l)->owner;
  }
  void Tell(const std::string &what) {
    std::lock_guard<std::mutex> lock(mutex_);
    news_.push_back(what);
    told_.notify_all();
  }

  template <typename F>
  int WithUri(const std::string &uri, const Options &options, F call) {
    std::vector<source_option> list;
    for (const auto &o : options)
      list.push_back({o.first.c_str(), o.second.c_str()});
    source_uri u = {uri.c_str(), list.data(), list.size()};
    fault_ = {};
    int r = call(&u);
    EXPECT_EQ(r < 0, fault_.text[0] != '\0') << r << fault_.text;
    return r;
  }

  reactor *reactor_ = nullptr;
  source *src_ = nullptr;
  source_fault fault_ = {};
  Listener listener_ = {};
  std::mutex mutex_;
  std::condition_variable told_;
  std::deque<std::string> news_;
};

#endif

// A source behind other daemons, as tests open it.
#ifndef TESTS_SOURCE_PARENT_SOURCE_H
#define TESTS_SOURCE_PARENT_SOURCE_H

#include "source/parent.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>

#include "cache/source.h"
#include "tests/support/open_source.h"

class ParentSource : public OpenSource {
public:
  ParentSource() : OpenSource(parent_source_kind) {}
  ~ParentSource() { Close(); } // before what it tells is gone

  int Open(const std::string &uri, const Options &options = {}) {
    return OpenSource::Open(uri, options, open_ms);
  }

  // What it tells by itself, from Listen() on.
  void Listen() {
    listener_.owner = this;
    listener_.self.changed = [](source_listener *l) { Of(l)->Tell("changed"); };
    listener_.self.invalid = [](source_listener *l, uint64_t offset,
                                uint64_t len) {
      Of(l)->Tell(std::to_string(offset) + "+" + std::to_string(len));
    };
    listener_.self.remark = [](source_listener *l, const char *text) {
      Of(l)->Tell(text);
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

  bool HasNews() {
    std::lock_guard<std::mutex> lock(mutex_);
    return !news_.empty();
  }

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

  Listener listener_ = {};
  std::mutex mutex_;
  std::condition_variable told_;
  std::deque<std::string> news_;
};

#endif

// A remote source, as tests open it, with a reactor of its own.
#ifndef TESTS_SUPPORT_OPEN_SOURCE_H
#define TESTS_SUPPORT_OPEN_SOURCE_H

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "cache/source.h"
#include "source/reactor.h"
#include "source/remote.h"
#include "tests/support/pending_read.h"

class OpenSource {
public:
  using Bytes = std::vector<uint8_t>;
  using Options = std::vector<std::pair<std::string, std::string>>;

  explicit OpenSource(const source_kind &kind) : kind_(kind) {
    EXPECT_EQ(reactor_new(&reactor_), 0);
  }
  ~OpenSource() {
    Close();
    reactor_free(reactor_);
  }

  int Open(const std::string &uri, const Options &options = {},
           long ms = 60000) {
    return WithUri(uri, options, [&](const source_uri *u) {
      timespec deadline = clock_after_ms(ms);
      return kind_.open(reactor_, u, &deadline, &src_, &fault_);
    });
  }

  int Check(const std::string &uri, const Options &options = {}) {
    return WithUri(uri, options, [&](const source_uri *u) {
      return kind_.check(u, &fault_);
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

  int StatusOf(uint64_t offset, size_t len) {
    return PendingRead(src_, offset, len).Wait();
  }

  void ExpectReads(const Bytes &content, uint64_t offset, size_t len) {
    PendingRead r(src_, offset, len);
    ASSERT_EQ(r.Wait(), 0);
    ASSERT_EQ(memcmp(r.bytes().data(), &content[offset], len), 0)
        << offset << " " << len;
  }

  source *get() const { return src_; }
  std::string fault() const { return fault_.text; }

protected:
  reactor *reactor_ = nullptr;
  source *src_ = nullptr;
  source_fault fault_ = {};

private:
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

  const source_kind &kind_;
};

#endif

// Handles, files and sources for the tests of the client library.
#ifndef TESTS_CLIENT_HANDLE_H
#define TESTS_CLIENT_HANDLE_H

#include <cachet/cachet.h>

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

struct HandleClose {
  void operator()(cachet *c) const { cachet_close(c); }
};
using Handle = std::unique_ptr<cachet, HandleClose>;

inline cachet_options Options() {
  cachet_options o = {};
  o.struct_size = sizeof o;
  return o;
}

// A request time-out that a test waits for, and that an answer is in time for
// on a busy machine all the same.
constexpr int kPatienceMs = 3000;

// Options with these time-outs.
inline cachet_options Patience(int request_ms, int connect_ms = 5000) {
  cachet_options o = Options();
  o.request_timeout_ms = request_ms;
  o.connect_timeout_ms = connect_ms;
  return o;
}

// Bytes that differ from page to page and from place to place.
inline std::vector<uint8_t> Content(size_t size, unsigned seed = 1) {
  std::vector<uint8_t> bytes(size);
  std::mt19937_64 random(seed);
  for (size_t i = 0; i < size; i += 8) {
    uint64_t word = random();
    memcpy(&bytes[i], &word, std::min<size_t>(8, size - i));
  }
  return bytes;
}

// A directory whose name is short enough for a socket in it.
class TempDir {
public:
  TempDir() {
    char name[] = "/tmp/cachet-test-XXXXXX";
    path_ = mkdtemp(name);
  }
  ~TempDir() {
    std::string command = "rm -rf '" + path_ + "'";
    if (system(command.c_str()) != 0)
      perror("rm");
  }
  std::string File(const std::string &name) const { return path_ + "/" + name; }
  std::string Write(const std::string &name,
                    const std::vector<uint8_t> &bytes) const {
    std::string path = File(name);
    int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    EXPECT_GE(fd, 0);
    size_t done = 0;
    while (done < bytes.size()) {
      ssize_t n = write(fd, &bytes[done], bytes.size() - done);
      if (n <= 0) {
        ADD_FAILURE() << "write: " << strerror(errno);
        break;
      }
      done += static_cast<size_t>(n);
    }
    close(fd);
    return path;
  }

private:
  std::string path_;
};

inline Handle Open(const std::string &uri, const cachet_options &options) {
  cachet *c = nullptr;
  cachet_error err = {};
  EXPECT_EQ(cachet_open(uri.c_str(), &options, &c, &err), CACHET_OK)
      << err.message;
  return Handle(c);
}

inline Handle Copy(cachet *c) {
  cachet *copy = nullptr;
  cachet_error err = {};
  EXPECT_EQ(cachet_copy(c, &copy, &err), CACHET_OK) << err.message;
  return Handle(copy);
}

// What a callback was told.  `then` is called from inside it.
struct Outcome {
  std::function<void(Outcome &)> then;
  int n = 0;
  cachet_status status = CACHET_OK;
  cachet_slice slice = {};

  static void Loaded(void *arg, cachet_status status, cachet_slice *slice) {
    auto *o = static_cast<Outcome *>(arg);
    o->n++;
    o->status = status;
    EXPECT_EQ(slice != nullptr, status == CACHET_OK);
    if (slice)
      o->slice = *slice;
    if (o->then)
      o->then(*o);
  }
  static void Read(void *arg, cachet_status status) {
    auto *o = static_cast<Outcome *>(arg);
    o->n++;
    o->status = status;
    if (o->then)
      o->then(*o);
  }
};

// Dispatches until it is so.
inline void RunUntil(cachet *c, const std::function<bool()> &done) {
  while (!done()) {
    struct pollfd p = {cachet_fd(c), cachet_events(c), 0};
    ASSERT_GE(poll(&p, 1, cachet_timeout_ms(c)), 0);
    ASSERT_EQ(cachet_dispatch(c), CACHET_OK);
  }
}

// Reads it all and compares.
inline void ExpectContent(cachet *c, const std::vector<uint8_t> &bytes) {
  std::vector<uint8_t> buf(bytes.size());
  ASSERT_EQ(cachet_read(c, 0, buf.data(), buf.size()), CACHET_OK)
      << cachet_errmsg(c);
  EXPECT_TRUE(buf == bytes);
}

// A scripted source for cachet_make().
struct MadeSource {
  explicit MadeSource(std::vector<uint8_t> content)
      : bytes(std::move(content)) {}

  cachet_source Table() {
    cachet_source s = {};
    s.struct_size = sizeof s;
    s.size = bytes.size();
    s.ctx = this;
    s.map = [](void *ctx, uint64_t pos, size_t len, const void **out) {
      return static_cast<MadeSource *>(ctx)->Map(pos, len, out);
    };
    s.unmap = [](void *ctx, const void *, size_t) {
      static_cast<MadeSource *>(ctx)->n_unmaps++;
    };
    s.close = [](void *ctx) { static_cast<MadeSource *>(ctx)->n_closes++; };
    return s;
  }

  Handle Make(cachet_options options = Options()) {
    cachet_source table = Table();
    cachet *c = nullptr;
    cachet_error err = {};
    EXPECT_EQ(cachet_make(&table, &options, &c, &err), CACHET_OK)
        << err.message;
    return Handle(c);
  }

  ssize_t Map(uint64_t pos, size_t len, const void **out) {
    n_maps++;
    if (before_map)
      before_map(pos);
    if (fail_with)
      return -fail_with;
    if (pos >= bytes.size())
      return 0;
    *out = &bytes[pos];
    return static_cast<ssize_t>(
        std::min({len, bytes.size() - static_cast<size_t>(pos), longest}));
  }

  std::vector<uint8_t> bytes;
  int n_maps = 0, n_unmaps = 0, n_closes = 0;
  int fail_with = 0;
  size_t longest = SIZE_MAX;
  std::function<void(uint64_t)> before_map;
};

#endif

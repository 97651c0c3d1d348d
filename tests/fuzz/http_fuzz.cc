// What a server of HTTP sends, from hostile bytes, through libcurl.  The first
// byte says what they are the answer to:
//
//   0   the opening of an object, and reads of it if that succeeds
//   1   a read of an object that was opened by a right answer
//
// Whatever comes, an opening and a read end; nothing is written beside a read's
// buffer; and an object that was opened has a version.
//
// Each request goes to the server of this process, as its proxy: a redirect
// leads to no other.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "cache/source.h"
#include "source/http.h"
#include "source/reactor.h"

namespace {

void Require(bool right) {
  if (!right)
    abort();
}

// Answers each connection once, with the same bytes whatever it is asked.
class Server {
public:
  Server() {
    sockaddr_in addr = {};
    socklen_t len = sizeof addr;
    addr.sin_family = AF_INET;
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    auto *any = reinterpret_cast<sockaddr *>(&addr);
    Require(bind(fd_, any, len) == 0 && listen(fd_, 64) == 0);
    Require(getsockname(fd_, any, &len) == 0);
    const std::string proxy =
        "http://127.0.0.1:" + std::to_string(ntohs(addr.sin_port));
    for (const char *name : {"http_proxy", "https_proxy"})
      setenv(name, proxy.c_str(), 1);
    for (const char *name : {"no_proxy", "NO_PROXY"})
      unsetenv(name);
    std::thread([this] { Serve(); }).detach(); // as long as the process
  }

  void Answer(const std::string &bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    answer_ = bytes;
  }

private:
  void Serve() {
    for (;;) {
      int fd = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
      Require(fd >= 0);
      std::string head, answer;
      char bytes[4096];
      for (ssize_t n; head.find("\r\n\r\n") == std::string::npos &&
                      (n = recv(fd, bytes, sizeof bytes, 0)) > 0;)
        head.append(bytes, size_t(n));
      {
        std::lock_guard<std::mutex> lock(mutex_);
        answer = answer_;
      }
      send(fd, answer.data(), answer.size(), MSG_NOSIGNAL);
      shutdown(fd, SHUT_WR);
      while (recv(fd, bytes, sizeof bytes, 0) > 0)
        ;
      close(fd);
    }
  }

  int fd_;
  std::mutex mutex_;
  std::string answer_;
};

source *Open(reactor *r) {
  const source_option options[] = {{"attempt-timeout", "1"},
                                   {"connections", "1"}};
  const source_uri uri = {"http://server.invalid/x", options, 2};
  source_fault fault = {};
  timespec deadline;
  clock_gettime(CLOCK_MONOTONIC, &deadline);
  deadline.tv_sec += 1;
  source *src = nullptr;
  int status = http_source_kind.open(r, &uri, &deadline, &src, &fault);
  Require(status <= 0 && (status == 0) == (src != nullptr));
  Require(status == 0 || fault.text[0]);
  return src;
}

void Read(source *src, uint64_t offset, size_t len) {
  constexpr size_t kGuard = 32;
  std::vector<uint8_t> bytes(len + 2 * kGuard, 0xa5);
  Require(source_read_blocking(src, offset, bytes.data() + kGuard, len) <= 0);
  for (size_t i = 0; i < kGuard; i++)
    Require(bytes[i] == 0xa5 && bytes[kGuard + len + i] == 0xa5);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static Server *server = new Server;
  static reactor *r = [] {
    reactor *made = nullptr;
    Require(reactor_new(&made) == 0);
    return made;
  }();
  if (!size || data[0] > 1)
    return 0;
  const std::string answer(reinterpret_cast<const char *>(data) + 1, size - 1);
  server->Answer(data[0] ? "HTTP/1.1 206 OK\r\nETag: \"a\"\r\nContent-Range: "
                           "bytes 0-0/10000\r\nContent-Length: 1\r\n\r\nx"
                         : answer);
  source *src = Open(r);
  Require(src || data[0] == 0);
  if (!src)
    return 0;
  source_identity id;
  source_identify(src, &id);
  Require(id.len > 0 && src->size <= INT64_MAX);
  server->Answer(answer);
  if (src->size > 0)
    Read(src, 0, size_t(src->size < 100 ? src->size : 100));
  if (src->size >= 4196)
    Read(src, 4096, 100);
  src->ops->close(src);
  return 0;
}

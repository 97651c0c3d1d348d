// A whole server over a fake image, and a peer that sends hostile bytes.
//
// The first byte says whether a proper Hello and Open go first, so that what
// follows reaches the requests.  The peer then sends no more and reads all
// answers up to the end: a server that crashes, leaks or never ends the
// connection is found.  What it sends must be frames.
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "daemon/serve/change_maker.h"
#include "daemon/server.h"
#include "proto/frame.h"
#include "tests/support/fake_source.h"

namespace {

std::vector<uint8_t> Pack(const wire_message &msg) {
  std::vector<uint8_t> frame(frame_packed_len(&msg));
  frame_pack(&msg, 0, frame.data());
  return frame;
}

std::vector<uint8_t> Handshake() {
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  Cachet__Wire__Hello hello = CACHET__WIRE__HELLO__INIT;
  Cachet__Wire__Open open = CACHET__WIRE__OPEN__INIT;
  hello.version_min = hello.version_max = PROTO_VERSION;
  msg.id = UINT64_MAX;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_HELLO;
  msg.hello = &hello;
  auto frames = Pack(msg);
  msg.id = UINT64_MAX - 1;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_OPEN;
  msg.open = &open;
  auto second = Pack(msg);
  frames.insert(frames.end(), second.begin(), second.end());
  return frames;
}

// A server, and another one in its place when it was asked to drain, and has.
class Server {
public:
  Server() : source_(300 * 4096 + 17) {
    char dir[] = "/tmp/request_fuzz.XXXXXX";
    if (!mkdtemp(dir))
      abort();
    path_ = std::string(dir) + "/s";
    Make();
    thread_ = std::thread([this] { Serve(); });
  }

  ~Server() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      ends_ = true;
      server_stop(server_);
    }
    thread_.join();
    server_free(server_);
    rmdir(path_.substr(0, path_.rfind('/')).c_str());
  }

  // There is none for the moment between two servers.
  int Connect() const {
    sockaddr_un addr{};
    addr.sun_family = AF_UNIX;
    strcpy(addr.sun_path, path_.c_str());
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    while (connect(fd, reinterpret_cast<sockaddr *>(&addr), sizeof addr))
      if (errno != ENOENT && errno != ECONNREFUSED)
        Die("connect");
    return fd;
  }

private:
  void Make() {
    char err[256] = "";
    address address;
    listener *listener;
    server_image image = {"fake",  source_.Open(), true, 0,      nullptr,
                          nullptr, false,          0,    nullptr};
    server_config config{};
    if (address_unix(path_.c_str(), &address, err, sizeof err) ||
        listener_open(&address, &listener, err, sizeof err))
      Die(err);
    config.limits = limits_default();
    config.limits.max_read = 1 << 20;
    config.cache_size = 64 * 4096;
    config.page_size = 4096;
    config.n_workers = 1;
    config.images = &image;
    config.n_images = 1;
    config.listeners = &listener;
    config.n_listeners = 1;
    if (server_new(&config, &server_, err, sizeof err) || server_start(server_))
      Die(err);
    // It takes what is short, and says why not of the rest.
    change_maker maker = {};
    maker.add = [](void *, const char *name, const char *source, char *why) {
      snprintf(why, CHANGE_WHY_LEN, "%s%s", name, source);
      return strlen(source) < 8 ? 0 : -EINVAL;
    };
    maker.remove = [](void *, const char *name, char *why) {
      snprintf(why, CHANGE_WHY_LEN, "%s", name);
      return strlen(name) < 8 ? 0 : -ENOENT;
    };
    server_set_change_maker(server_, &maker);
    listener_unref(listener);
  }

  void Serve() {
    for (;;) {
      server_serve(server_);
      server_shutdown(server_);
      std::lock_guard<std::mutex> lock(mutex_);
      if (ends_)
        return;
      server_free(server_);
      Make();
    }
  }

  [[noreturn]] static void Die(const char *what) {
    perror(what);
    abort();
  }

  FakeSource source_;
  std::string path_;
  std::mutex mutex_; // of the two below, once the thread is there
  server *server_ = nullptr;
  bool ends_ = false;
  std::thread thread_;
};

// Sends `bytes` and reads until the server closes; returns what it said.
std::vector<uint8_t> Converse(int fd, const std::vector<uint8_t> &bytes) {
  std::vector<uint8_t> answer;
  size_t sent = 0;
  bool sending = true;
  for (;;) {
    pollfd p = {fd, short(POLLIN | (sending ? POLLOUT : 0)), 0};
    int n_ready = poll(&p, 1, 20000);
    if (n_ready < 0 && errno == EINTR)
      continue; // libFuzzer's alarm
    if (n_ready <= 0) {
      fprintf(stderr, "the server neither answers nor closes\n");
      abort();
    }
    if (sending && (p.revents & (POLLOUT | POLLERR | POLLHUP))) {
      ssize_t n = send(fd, bytes.data() + sent, bytes.size() - sent,
                       MSG_NOSIGNAL | MSG_DONTWAIT);
      sent += n > 0 ? size_t(n) : 0;
      if (sent == bytes.size() || (n < 0 && errno != EAGAIN)) {
        shutdown(fd, SHUT_WR);
        sending = false;
      }
    }
    if (p.revents & (POLLIN | POLLHUP | POLLERR)) {
      uint8_t buf[65536];
      ssize_t n = recv(fd, buf, sizeof buf, MSG_DONTWAIT);
      if (n == 0 || (n < 0 && errno != EAGAIN))
        return answer;
      if (n > 0)
        answer.insert(answer.end(), buf, buf + n);
    }
  }
}

void CheckFrames(const std::vector<uint8_t> &bytes) {
  static frame_arena *arena = frame_arena_new(FRAME_ARENA_LEN);
  const frame_limits limits = {1 << 20, FRAME_MAX_PAYLOAD};
  size_t at = 0;
  while (at < bytes.size()) {
    frame_header header;
    // The last may be cut short, when the server closed on a bad peer.
    if (frame_peek(&bytes[at], bytes.size() - at, &limits, &header) ==
        FRAME_PARTIAL)
      return;
    size_t len = FRAME_HEADER_LEN + header.message_len + header.payload_len;
    if (len > bytes.size() - at)
      return;
    wire_message *msg;
    if (frame_unpack(arena, &bytes[at + FRAME_HEADER_LEN], header.message_len,
                     &msg) != FRAME_OK)
      abort();
    if (header.payload_len > 0 &&
        msg->body_case != CACHET__WIRE__MESSAGE__BODY_DATA)
      abort();
    if (header.payload_len > 0) {
      std::vector<uint8_t> expect =
          FakeSource::Bytes(msg->data->offset, header.payload_len);
      if (memcmp(expect.data(),
                 &bytes[at + FRAME_HEADER_LEN + header.message_len],
                 header.payload_len))
        abort();
    }
    at += len;
  }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static Server server;
  static const std::vector<uint8_t> handshake = Handshake();
  if (size == 0)
    return 0;
  std::vector<uint8_t> bytes;
  if (data[0] & 1)
    bytes = handshake;
  bytes.insert(bytes.end(), data + 1, data + size);
  int fd = server.Connect();
  CheckFrames(Converse(fd, bytes));
  close(fd);
  return 0;
}

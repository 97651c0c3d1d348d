// A daemon that does as it is told: each connection runs a script.
#ifndef TESTS_CLIENT_FAKE_DAEMON_H
#define TESTS_CLIENT_FAKE_DAEMON_H

#include "cache/mirror.h"
#include "proto/frame.h"
#include "tests/client/handle.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

// What the daemon serves.  Tests change it under `lock`.
struct FakeImage {
  std::mutex lock;
  std::vector<uint8_t> bytes;
  uint64_t epoch = 77;
  uint64_t invalidations = 0; // as ImageInfo and Invalidated say them
  std::string identity;       // as ImageInfo says it
  uint32_t page_size = 4096;
  // What Welcome says.
  uint32_t max_ranges = 1024, max_requests = 64, max_message = 65536;
  uint64_t max_read = 16 << 20;
  uint32_t version = 1;
  bool share = false;
};

struct Request {
  uint64_t id = 0;
  Cachet__Wire__Message__BodyCase body = CACHET__WIRE__MESSAGE__BODY__NOT_SET;
  uint64_t epoch = 0;
  bool in_place = false;
  uint64_t replaces = 0; // an Attach
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
};

// The daemon's end of one connection.
class Peer {
public:
  Peer(int fd, FakeImage *served) : image(served), fd_(fd) {}

  // The next request; false when the client is gone.
  bool Receive(Request *out) {
    uint8_t header[8];
    if (!ReadAll(header, 8))
      return false;
    uint32_t len, payload_len;
    memcpy(&len, header, 4);
    memcpy(&payload_len, header + 4, 4);
    EXPECT_EQ(payload_len, 0u);
    EXPECT_LE(len, 65536u);
    std::vector<uint8_t> packed(len);
    if (!ReadAll(packed.data(), len))
      return false;
    wire_message *m =
        cachet__wire__message__unpack(nullptr, packed.size(), packed.data());
    EXPECT_NE(m, nullptr);
    *out = Request();
    out->id = m->id;
    out->body = m->body_case;
    if (m->body_case == CACHET__WIRE__MESSAGE__BODY_READ) {
      out->epoch = m->read->epoch;
      out->in_place = m->read->in_place;
      for (size_t i = 0; i < m->read->n_ranges; i++)
        out->ranges.emplace_back(m->read->ranges[i]->offset,
                                 m->read->ranges[i]->length);
    }
    if (m->body_case == CACHET__WIRE__MESSAGE__BODY_WARM)
      for (size_t i = 0; i < m->warm->n_ranges; i++)
        out->ranges.emplace_back(m->warm->ranges[i]->offset,
                                 m->warm->ranges[i]->length);
    if (m->body_case == CACHET__WIRE__MESSAGE__BODY_ATTACH)
      out->replaces = m->attach->replaces;
    if (m->body_case == CACHET__WIRE__MESSAGE__BODY_INVALIDATE)
      out->ranges.emplace_back(m->invalidate->range->offset,
                               m->invalidate->range->length);
    cachet__wire__message__free_unpacked(m, nullptr);
    return true;
  }

  // With descriptors on its first byte.
  void SendFds(const wire_message &msg, const std::vector<int> &fds) {
    std::vector<uint8_t> out(frame_packed_len(&msg));
    frame_pack(&msg, 0, out.data());
    std::vector<char> control(CMSG_SPACE(fds.size() * sizeof(int)));
    iovec bytes = {out.data(), out.size()};
    msghdr h = {};
    h.msg_iov = &bytes;
    h.msg_iovlen = 1;
    h.msg_control = control.data();
    h.msg_controllen = control.size();
    cmsghdr *c = CMSG_FIRSTHDR(&h);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    memcpy(CMSG_DATA(c), fds.data(), fds.size() * sizeof(int));
    EXPECT_EQ(sendmsg(fd_, &h, MSG_NOSIGNAL), ssize_t(out.size()));
  }

  void Send(const wire_message &msg, const void *payload = nullptr,
            size_t len = 0) {
    std::vector<uint8_t> out(frame_packed_len(&msg));
    frame_pack(&msg, static_cast<uint32_t>(len), out.data());
    const uint8_t *p = static_cast<const uint8_t *>(payload);
    out.insert(out.end(), p, p + len);
    SendRaw(out.data(), out.size());
  }

  // From here to Uncork() what is sent is kept, and then goes at once.
  void Cork() { corked_ = true; }
  void Uncork() {
    std::vector<char> kept = TakeKept();
    SendRaw(kept.data(), kept.size());
  }
  std::vector<char> TakeKept() {
    corked_ = false;
    return std::move(kept_);
  }

  // The client's next send fails; it can still receive.
  void StopReading() { shutdown(fd_, SHUT_RD); }

  // Waits until the client closes its end, also after StopReading().
  void AwaitLeave() {
    struct pollfd p = {fd_, 0, 0};
    while (poll(&p, 1, -1) < 0 || !(p.revents & POLLHUP))
      ;
  }

  void SendRaw(const void *bytes, size_t len) {
    const char *p = static_cast<const char *>(bytes);
    if (corked_) {
      kept_.insert(kept_.end(), p, p + len);
      return;
    }
    while (len) {
      ssize_t n = send(fd_, p, len, MSG_NOSIGNAL);
      if (n <= 0)
        return; // the client is gone: the test sees that on its side
      p += n;
      len -= static_cast<size_t>(n);
    }
  }

  void Welcome(uint64_t id) {
    Cachet__Wire__Welcome w = CACHET__WIRE__WELCOME__INIT;
    w.version = image->version;
    w.max_message = image->max_message;
    w.max_payload = 4 << 20;
    w.max_ranges = image->max_ranges;
    w.max_read = image->max_read;
    w.max_requests = image->max_requests;
    w.share = image->share;
    wire_message m = CACHET__WIRE__MESSAGE__INIT;
    m.id = id;
    m.body_case = CACHET__WIRE__MESSAGE__BODY_WELCOME;
    m.welcome = &w;
    Send(m);
  }

  void Info(Cachet__Wire__ImageInfo *info) {
    *info = CACHET__WIRE__IMAGE_INFO__INIT;
    info->image = 5;
    info->name = const_cast<char *>("disk");
    info->size = image->bytes.size();
    info->page_size = image->page_size;
    info->epoch = image->epoch;
    info->invalidations = image->invalidations;
    info->identity.len = image->identity.size();
    info->identity.data = reinterpret_cast<uint8_t *>(image->identity.data());
  }

  void Opened(uint64_t id) {
    Cachet__Wire__ImageInfo info;
    Info(&info);
    Cachet__Wire__Opened o = CACHET__WIRE__OPENED__INIT;
    o.info = &info;
    wire_message m = CACHET__WIRE__MESSAGE__INIT;
    m.id = id;
    m.body_case = CACHET__WIRE__MESSAGE__BODY_OPENED;
    m.opened = &o;
    Send(m);
  }

  // Without its descriptors.
  void Attached(uint64_t id) {
    Cachet__Wire__ImageInfo info;
    Info(&info);
    Cachet__Wire__Attached a = CACHET__WIRE__ATTACHED__INIT;
    a.info = &info;
    a.layout = MIRROR_LAYOUT;
    a.range_capacity = 1;
    wire_message m = CACHET__WIRE__MESSAGE__INIT;
    m.id = id;
    m.body_case = CACHET__WIRE__MESSAGE__BODY_ATTACHED;
    m.attached = &a;
    Send(m);
  }

  void Changed() {
    Cachet__Wire__ImageInfo info;
    Info(&info);
    Cachet__Wire__Changed c = CACHET__WIRE__CHANGED__INIT;
    c.info = &info;
    wire_message m = CACHET__WIRE__MESSAGE__INIT;
    m.body_case = CACHET__WIRE__MESSAGE__BODY_CHANGED;
    m.changed = &c;
    Send(m);
  }

  void Invalidated(uint64_t offset, uint64_t len) {
    Invalidated({{offset, len}});
  }

  void Invalidated(const std::vector<std::pair<uint64_t, uint64_t>> &what) {
    std::vector<Cachet__Wire__Range> ranges(what.size());
    std::vector<Cachet__Wire__Range *> list(what.size());
    for (size_t i = 0; i < what.size(); i++) {
      ranges[i] = CACHET__WIRE__RANGE__INIT;
      ranges[i].offset = what[i].first;
      ranges[i].length = what[i].second;
      list[i] = &ranges[i];
    }
    Cachet__Wire__Invalidated n = CACHET__WIRE__INVALIDATED__INIT;
    n.image = 5;
    n.epoch = image->epoch;
    n.invalidations = image->invalidations;
    n.n_ranges = list.size();
    n.ranges = list.data();
    wire_message m = CACHET__WIRE__MESSAGE__INIT;
    m.body_case = CACHET__WIRE__MESSAGE__BODY_INVALIDATED;
    m.invalidated = &n;
    Send(m);
  }

  void Error(uint64_t id, int status, const char *text, int sys_errno = 0) {
    Cachet__Wire__Error e = CACHET__WIRE__ERROR__INIT;
    e.status = status;
    e.sys_errno = static_cast<uint32_t>(sys_errno);
    e.message = const_cast<char *>(text);
    wire_message m = CACHET__WIRE__MESSAGE__INIT;
    m.id = id;
    m.body_case = CACHET__WIRE__MESSAGE__BODY_ERROR;
    m.error = &e;
    Send(m);
  }

  void Done(uint64_t id) {
    Cachet__Wire__Done d = CACHET__WIRE__DONE__INIT;
    wire_message m = CACHET__WIRE__MESSAGE__INIT;
    m.id = id;
    m.body_case = CACHET__WIRE__MESSAGE__BODY_DONE;
    m.done = &d;
    Send(m);
  }

  void Data(uint64_t id, uint64_t epoch, uint32_t range, uint64_t offset,
            bool last, const void *payload, size_t len) {
    Cachet__Wire__Data d = CACHET__WIRE__DATA__INIT;
    d.epoch = epoch;
    d.range = range;
    d.offset = offset;
    d.last = last;
    wire_message m = CACHET__WIRE__MESSAGE__INIT;
    m.id = id;
    m.body_case = CACHET__WIRE__MESSAGE__BODY_DATA;
    m.data = &d;
    Send(m, payload, len);
  }

  // A piece that is in the memory that the client has attached.
  void Resident(uint64_t id, uint64_t epoch, uint32_t range, uint64_t offset,
                bool last, uint64_t len) {
    Cachet__Wire__Data d = CACHET__WIRE__DATA__INIT;
    d.epoch = epoch;
    d.range = range;
    d.offset = offset;
    d.last = last;
    d.resident = len;
    wire_message m = CACHET__WIRE__MESSAGE__INIT;
    m.id = id;
    m.body_case = CACHET__WIRE__MESSAGE__BODY_DATA;
    m.data = &d;
    Send(m);
  }

  // Answers a Read as a daemon should, in pieces of `piece` bytes.
  void Answer(const Request &r, size_t piece = 8192) {
    std::unique_lock<std::mutex> hold(image->lock);
    if (r.epoch && r.epoch != image->epoch) {
      Error(r.id, CACHET_E_CHANGED, "changed");
      return;
    }
    for (size_t i = 0; i < r.ranges.size(); i++) {
      auto [offset, len] = r.ranges[i];
      ASSERT_LE(offset + len, image->bytes.size());
      for (uint64_t done = 0; done < len;) {
        size_t n = std::min<uint64_t>(piece, len - done);
        bool last = i + 1 == r.ranges.size() && done + n == len;
        Data(r.id, image->epoch, static_cast<uint32_t>(i), offset + done, last,
             &image->bytes[offset + done], n);
        done += n;
      }
    }
  }

  // Hello alone: of a client that opens no image.
  bool Greet() {
    Request r;
    if (!Receive(&r))
      return false;
    EXPECT_EQ(r.body, CACHET__WIRE__MESSAGE__BODY_HELLO);
    Welcome(r.id);
    return true;
  }

  // Hello and Open.
  bool Handshake() {
    Request r;
    if (!Greet() || !Receive(&r))
      return false;
    EXPECT_EQ(r.body, CACHET__WIRE__MESSAGE__BODY_OPEN);
    std::unique_lock<std::mutex> hold(image->lock);
    Opened(r.id);
    return true;
  }

  // Everything, until the client goes.
  void Serve() {
    Request r;
    while (Receive(&r)) {
      n_requests++;
      if (r.body == CACHET__WIRE__MESSAGE__BODY_READ) {
        Answer(r);
      } else if (r.body == CACHET__WIRE__MESSAGE__BODY_INVALIDATE) {
        Invalidated(r.ranges[0].first, r.ranges[0].second);
        Done(r.id);
      }
    }
  }

  // Waits until the client closes its end.
  void AwaitEnd() {
    char c;
    while (recv(fd_, &c, 1, 0) > 0)
      ;
  }

  int fd() const { return fd_; }

  FakeImage *image;
  int n_requests = 0;

private:
  bool ReadAll(void *buf, size_t len) {
    char *p = static_cast<char *>(buf);
    while (len) {
      ssize_t n = recv(fd_, p, len, 0);
      if (n <= 0)
        return false;
      p += n;
      len -= static_cast<size_t>(n);
    }
    return true;
  }

  int fd_;
  bool corked_ = false;
  std::vector<char> kept_;
};

using Script = std::function<void(Peer &)>;

inline Script ServeAll() {
  return [](Peer &p) {
    if (p.Handshake())
      p.Serve();
  };
}

// The n-th connection runs the n-th script, later ones the last.
class FakeDaemon {
public:
  explicit FakeDaemon(std::vector<Script> scripts, size_t size = 64 << 10)
      : path(dir_.File("s")), scripts_(std::move(scripts)) {
    image.bytes = Content(size);
    Listen();
  }
  ~FakeDaemon() { Stop(); }

  void Listen() {
    listener_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un at = {};
    at.sun_family = AF_UNIX;
    strcpy(at.sun_path, path.c_str());
    ASSERT_EQ(bind(listener_, reinterpret_cast<sockaddr *>(&at), sizeof at), 0);
    ASSERT_EQ(listen(listener_, 16), 0);
    acceptor_ = std::thread([this] { Accept(); });
  }

  // Goes away: no socket, no connection.
  void Stop() {
    if (listener_ < 0)
      return;
    shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    close(listener_);
    listener_ = -1;
    unlink(path.c_str());
    for (int fd : fds_)
      shutdown(fd, SHUT_RDWR);
    for (auto &t : threads_)
      t.join();
    for (int fd : fds_)
      close(fd);
    threads_.clear();
    fds_.clear();
  }

  std::string Uri() const { return "cachet+unix:///disk?socket=" + path; }

  FakeImage image;
  std::atomic<int> n_connections{0};

private:
  void Accept() {
    int fd;
    while ((fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0) {
      size_t i = static_cast<size_t>(n_connections++);
      const Script &script = scripts_[std::min(i, scripts_.size() - 1)];
      fds_.push_back(fd);
      threads_.emplace_back([this, fd, &script] {
        Peer peer(fd, &image);
        script(peer);
        shutdown(fd, SHUT_RDWR);
      });
    }
  }

  TempDir dir_;

public:
  std::string path;

private:
  std::vector<Script> scripts_;
  int listener_ = -1;
  std::thread acceptor_;
  std::vector<std::thread> threads_;
  std::vector<int> fds_;
};

// A port on an address of the loopback network.  The kernel accepts `backlog`
// connections and one, and then no more until Accept() has taken one.
class TcpListener {
public:
  explicit TcpListener(int backlog, const char *address = "127.0.0.1",
                       uint16_t at_port = 0)
      : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    int on = 1;
    sockaddr_in at = {};
    socklen_t len = sizeof at;
    at.sin_family = AF_INET;
    at.sin_port = htons(at_port);
    EXPECT_EQ(inet_pton(AF_INET, address, &at.sin_addr), 1);
    setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr *>(&at), len), 0);
    EXPECT_EQ(listen(fd_, backlog), 0);
    EXPECT_EQ(getsockname(fd_, reinterpret_cast<sockaddr *>(&at), &len), 0);
    port = ntohs(at.sin_port);
  }
  ~TcpListener() { close(fd_); }

  int Accept() { return accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC); }

  // Whether a connection waits to be accepted.
  bool IsAsked() const {
    pollfd p = {};
    p.fd = fd_;
    p.events = POLLIN;
    return poll(&p, 1, 0) > 0;
  }

  std::string Uri(const char *host = "127.0.0.1") const {
    return std::string("cachet://") + host + ":" + std::to_string(port) +
           "/disk";
  }

  uint16_t port = 0;

private:
  int fd_;
};

// Something that one thread waits for and another does.
class Gate {
public:
  void Open() {
    std::unique_lock<std::mutex> hold(lock_);
    open_ = true;
    changed_.notify_all();
  }
  void Await() {
    std::unique_lock<std::mutex> hold(lock_);
    changed_.wait(hold, [this] { return open_; });
  }

private:
  std::mutex lock_;
  std::condition_variable changed_;
  bool open_ = false;
};

#endif

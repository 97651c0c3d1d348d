#include "tests/support/wire_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/socket.h"

namespace {

// Far longer than anything takes, so that a daemon that forgets to answer
// fails a test instead of hanging it.
constexpr int kPatienceMs = 30000;

int Connect(const sockaddr *address, socklen_t len) {
  int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd >= 0 && connect(fd, address, len) < 0) {
    close(fd);
    fd = -1;
  }
  return fd;
}

void TakeInfo(const Cachet__Wire__ImageInfo *info, Frame *frame) {
  if (!info)
    return;
  frame->image = info->image;
  frame->size = info->size;
  frame->page_size = info->page_size;
  frame->epoch = info->epoch;
  frame->invalidations = info->invalidations;
  frame->identity.assign(reinterpret_cast<char *>(info->identity.data),
                         info->identity.len);
  frame->names.push_back(info->name);
  frame->sizes.push_back(info->size);
  frame->unopened.push_back(info->unopened);
}

void TakeMessage(const wire_message &msg, Frame *frame) {
  frame->id = msg.id;
  frame->kind = msg.body_case;
  switch (msg.body_case) {
  case CACHET__WIRE__MESSAGE__BODY_WELCOME:
    frame->max_requests = msg.welcome->max_requests;
    frame->share = msg.welcome->share;
    frame->change = msg.welcome->change;
    break;
  case CACHET__WIRE__MESSAGE__BODY_OPENED:
    TakeInfo(msg.opened->info, frame);
    break;
  case CACHET__WIRE__MESSAGE__BODY_ATTACHED:
    TakeInfo(msg.attached->info, frame);
    frame->range_capacity = msg.attached->range_capacity;
    frame->page_slots = msg.attached->page_slots;
    frame->table = msg.attached->table;
    frame->read_ahead = msg.attached->read_ahead;
    break;
  case CACHET__WIRE__MESSAGE__BODY_GROWN:
    frame->page_slots = msg.grown->page_slots;
    frame->range_capacity = msg.grown->range_capacity;
    break;
  case CACHET__WIRE__MESSAGE__BODY_CHANGED:
    TakeInfo(msg.changed->info, frame);
    break;
  case CACHET__WIRE__MESSAGE__BODY_DATA:
    frame->epoch = msg.data->epoch;
    frame->range = msg.data->range;
    frame->offset = msg.data->offset;
    frame->last = msg.data->last;
    frame->resident = msg.data->resident;
    break;
  case CACHET__WIRE__MESSAGE__BODY_DONE:
    frame->epoch = msg.done->epoch;
    break;
  case CACHET__WIRE__MESSAGE__BODY_IMAGES:
    for (size_t i = 0; i < msg.images->n_images; i++)
      TakeInfo(msg.images->images[i], frame);
    frame->more = msg.images->more;
    break;
  case CACHET__WIRE__MESSAGE__BODY_STATS:
    for (size_t i = 0; i < msg.stats->n_daemon; i++)
      frame->stats[msg.stats->daemon[i]->name] = msg.stats->daemon[i]->value;
    for (size_t i = 0; i < msg.stats->n_images; i++)
      frame->names.push_back(msg.stats->images[i]->name);
    break;
  case CACHET__WIRE__MESSAGE__BODY_ERROR:
    frame->status = msg.error->status;
    frame->sys_errno = msg.error->sys_errno;
    frame->message = msg.error->message;
    break;
  case CACHET__WIRE__MESSAGE__BODY_INVALIDATED:
    frame->image = msg.invalidated->image;
    frame->epoch = msg.invalidated->epoch;
    frame->invalidations = msg.invalidated->invalidations;
    for (size_t i = 0; i < msg.invalidated->n_ranges; i++)
      frame->ranges.emplace_back(msg.invalidated->ranges[i]->offset,
                                 msg.invalidated->ranges[i]->length);
    break;
  default:
    break;
  }
}

struct ArenaFree {
  void operator()(frame_arena *a) const { frame_arena_free(a); }
};

// Ranges as protobuf-c wants them.
struct PackedRanges {
  explicit PackedRanges(const Ranges &ranges) : list(ranges.size()) {
    for (size_t i = 0; i < ranges.size(); i++) {
      cachet__wire__range__init(&list[i]);
      list[i].offset = ranges[i].first;
      list[i].length = ranges[i].second;
      pointers.push_back(&list[i]);
    }
  }
  std::vector<Cachet__Wire__Range> list;
  std::vector<Cachet__Wire__Range *> pointers;
};

wire_message Request(uint64_t id, Cachet__Wire__Message__BodyCase kind) {
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  msg.id = id;
  msg.body_case = kind;
  return msg;
}

void TakeDescriptors(msghdr *msg, std::vector<int> *fds) {
  for (cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
      continue;
    for (size_t i = 0; CMSG_LEN((i + 1) * sizeof(int)) <= c->cmsg_len; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
      fds->push_back(fd);
    }
  }
}

} // namespace

WireClient::~WireClient() { Close(); }

WireClient::WireClient(WireClient &&other) noexcept
    : fd_(other.fd_), tls_(std::move(other.tls_)), next_id_(other.next_id_),
      notices_(std::move(other.notices_)), fds_(std::move(other.fds_)) {
  other.fd_ = -1;
}

WireClient &WireClient::operator=(WireClient &&other) noexcept {
  Close();
  fd_ = std::exchange(other.fd_, -1);
  tls_ = std::move(other.tls_);
  next_id_ = other.next_id_;
  notices_ = std::move(other.notices_);
  fds_ = std::move(other.fds_);
  return *this;
}

WireClient WireClient::Unix(const std::string &path) {
  WireClient client;
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  client.fd_ = Connect(reinterpret_cast<sockaddr *>(&address), sizeof address);
  return client;
}

WireClient WireClient::Tcp(int port) {
  WireClient client;
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  client.fd_ = Connect(reinterpret_cast<sockaddr *>(&address), sizeof address);
  return client;
}

WireClient WireClient::Tls(int port, tls_context *context) {
  WireClient client = Tcp(port);
  client.tls_ = std::make_unique<TlsEnd>();
  client.tls_->fd = client.fd_;
  if (tls_new(context, &socket_plain_io, &client.tls_->fd, &client.tls_->end) <
      0)
    abort();
  return client;
}

void WireClient::Close() {
  tls_.reset();
  if (fd_ >= 0)
    close(fd_);
  fd_ = -1;
  for (int fd : TakeFds())
    close(fd);
}

void WireClient::ShutdownWrites() {
  if (tls_)
    tls_io.end(tls_->end);
  shutdown(fd_, SHUT_WR);
}

// A call of the transport until it has something to say.
template <typename Call> static ssize_t Await(int fd, short events, Call call) {
  for (;;) {
    ssize_t n = call();
    if (n != -EAGAIN)
      return n;
    pollfd p = {fd, events, 0};
    if (poll(&p, 1, kPatienceMs) <= 0)
      return -ETIMEDOUT;
  }
}

ssize_t WireClient::ReceiveTls(void *buf, size_t len) {
  return Await(fd_, POLLIN, [&] {
    stream_fds came = {};
    return tls_io.recv(tls_->end, buf, len, &came);
  });
}

ssize_t WireClient::SendSome(const uint8_t *bytes, size_t len) {
  if (!tls_)
    return send(fd_, bytes, len, MSG_NOSIGNAL);
  ssize_t r = Await(fd_, POLLIN, [&] { return tls_handshake(tls_->end); });
  if (r < 0)
    return r;
  return Await(fd_, POLLOUT, [&] {
    iovec iov = {const_cast<uint8_t *>(bytes), len};
    return tls_io.send(tls_->end, &iov, 1, nullptr, 0);
  });
}

bool WireClient::SendRaw(const std::vector<uint8_t> &bytes) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    ssize_t n = SendSome(bytes.data() + sent, bytes.size() - sent);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return false;
    sent += static_cast<size_t>(n);
  }
  return true;
}

std::vector<uint8_t> WireClient::Pack(const wire_message &msg) {
  std::vector<uint8_t> frame(frame_packed_len(&msg));
  frame_pack(&msg, 0, frame.data());
  return frame;
}

bool WireClient::SendMessage(const wire_message &msg) {
  return SendRaw(Pack(msg));
}

bool WireClient::SendHello(uint64_t id, uint32_t min, uint32_t max) {
  Cachet__Wire__Hello hello = CACHET__WIRE__HELLO__INIT;
  hello.version_min = min;
  hello.version_max = max;
  wire_message msg = Request(id, CACHET__WIRE__MESSAGE__BODY_HELLO);
  msg.hello = &hello;
  return SendMessage(msg);
}

bool WireClient::SendOpen(uint64_t id, const std::string &name) {
  Cachet__Wire__Open open = CACHET__WIRE__OPEN__INIT;
  open.image = const_cast<char *>(name.c_str());
  wire_message msg = Request(id, CACHET__WIRE__MESSAGE__BODY_OPEN);
  msg.open = &open;
  return SendMessage(msg);
}

bool WireClient::SendRead(uint64_t id, uint32_t image, const Ranges &ranges,
                          uint64_t epoch, bool in_place) {
  PackedRanges packed(ranges);
  Cachet__Wire__Read read = CACHET__WIRE__READ__INIT;
  read.image = image;
  read.epoch = epoch;
  read.in_place = in_place;
  read.n_ranges = packed.pointers.size();
  read.ranges = packed.pointers.data();
  wire_message msg = Request(id, CACHET__WIRE__MESSAGE__BODY_READ);
  msg.read = &read;
  return SendMessage(msg);
}

bool WireClient::SendAttach(uint64_t id, uint32_t image, uint64_t replaces,
                            uint32_t page_slots, uint32_t range_capacity) {
  Cachet__Wire__Attach attach = CACHET__WIRE__ATTACH__INIT;
  attach.image = image;
  attach.replaces = replaces;
  attach.page_slots = page_slots;
  attach.range_capacity = range_capacity;
  wire_message msg = Request(id, CACHET__WIRE__MESSAGE__BODY_ATTACH);
  msg.attach = &attach;
  return SendMessage(msg);
}

bool WireClient::SendGrow(uint64_t id, uint64_t table, uint32_t page_slots,
                          uint32_t range_capacity) {
  Cachet__Wire__Grow grow = CACHET__WIRE__GROW__INIT;
  grow.table = table;
  grow.page_slots = page_slots;
  grow.range_capacity = range_capacity;
  wire_message msg = Request(id, CACHET__WIRE__MESSAGE__BODY_GROW);
  msg.grow = &grow;
  return SendMessage(msg);
}

bool WireClient::SendWarm(uint64_t id, uint32_t image, const Ranges &ranges) {
  PackedRanges packed(ranges);
  Cachet__Wire__Warm warm = CACHET__WIRE__WARM__INIT;
  warm.image = image;
  warm.n_ranges = packed.pointers.size();
  warm.ranges = packed.pointers.data();
  wire_message msg = Request(id, CACHET__WIRE__MESSAGE__BODY_WARM);
  msg.warm = &warm;
  return SendMessage(msg);
}

bool WireClient::SendInvalidate(uint64_t id, uint32_t image, uint64_t offset,
                                uint64_t length) {
  Cachet__Wire__Range range = CACHET__WIRE__RANGE__INIT;
  range.offset = offset;
  range.length = length;
  Cachet__Wire__Invalidate invalidate = CACHET__WIRE__INVALIDATE__INIT;
  invalidate.image = image;
  invalidate.range = &range;
  wire_message msg = Request(id, CACHET__WIRE__MESSAGE__BODY_INVALIDATE);
  msg.invalidate = &invalidate;
  return SendMessage(msg);
}

bool WireClient::SendAdd(uint64_t id, const std::string &name,
                         const std::string &source) {
  Cachet__Wire__Add add = CACHET__WIRE__ADD__INIT;
  add.name = const_cast<char *>(name.c_str());
  add.source = const_cast<char *>(source.c_str());
  wire_message msg = Request(id, CACHET__WIRE__MESSAGE__BODY_ADD);
  msg.add = &add;
  return SendMessage(msg);
}

bool WireClient::SendRemove(uint64_t id, const std::string &name) {
  Cachet__Wire__Remove remove = CACHET__WIRE__REMOVE__INIT;
  remove.name = const_cast<char *>(name.c_str());
  wire_message msg = Request(id, CACHET__WIRE__MESSAGE__BODY_REMOVE);
  msg.remove = &remove;
  return SendMessage(msg);
}

bool WireClient::SendList(uint64_t id, const std::string &after) {
  Cachet__Wire__List list = CACHET__WIRE__LIST__INIT;
  list.after = const_cast<char *>(after.c_str());
  wire_message msg = Request(id, CACHET__WIRE__MESSAGE__BODY_LIST);
  msg.list = &list;
  return SendMessage(msg);
}

bool WireClient::SendDrain(uint64_t id, int timeout_ms) {
  Cachet__Wire__Drain drain = CACHET__WIRE__DRAIN__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  drain.timeout_ms = timeout_ms;
  msg.id = id;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_DRAIN;
  msg.drain = &drain;
  return SendMessage(msg);
}

bool WireClient::SendGetStats(uint64_t id) {
  Cachet__Wire__GetStats get = CACHET__WIRE__GET_STATS__INIT;
  wire_message msg = Request(id, CACHET__WIRE__MESSAGE__BODY_GET_STATS);
  msg.get_stats = &get;
  return SendMessage(msg);
}

ssize_t WireClient::ReceiveSome(void *buf, size_t len) {
  if (tls_)
    return ReceiveTls(buf, len);
  pollfd p = {fd_, POLLIN, 0};
  if (poll(&p, 1, kPatienceMs) <= 0)
    return -1;
  alignas(cmsghdr) char control[CMSG_SPACE(16 * sizeof(int))];
  iovec iov = {buf, len};
  msghdr msg = {};
  msg.msg_iov = &iov;
  msg.msg_iovlen = 1;
  msg.msg_control = control;
  msg.msg_controllen = sizeof control;
  ssize_t n;
  do
    n = recvmsg(fd_, &msg, MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  if (n > 0)
    TakeDescriptors(&msg, &fds_);
  return n;
}

bool WireClient::ReceiveBytes(void *buf, size_t len) {
  auto *at = static_cast<uint8_t *>(buf);
  while (len > 0) {
    ssize_t n = ReceiveSome(at, len);
    if (n <= 0)
      return false;
    at += n;
    len -= static_cast<size_t>(n);
  }
  return true;
}

Frame WireClient::Receive() {
  Frame frame;
  uint8_t lengths[FRAME_HEADER_LEN];
  frame_header header;
  const frame_limits limits = {FRAME_MAX_MESSAGE, FRAME_MAX_PAYLOAD};
  if (!ReceiveBytes(lengths, sizeof lengths) ||
      frame_peek(lengths, sizeof lengths, &limits, &header) != FRAME_OK)
    return frame;
  std::vector<uint8_t> message(header.message_len);
  frame.payload.resize(header.payload_len);
  if (!ReceiveBytes(message.data(), message.size()) ||
      !ReceiveBytes(frame.payload.data(), frame.payload.size()))
    return frame;
  // One for all frames: to allocate it takes a sanitizer longer than the rest.
  static thread_local const std::unique_ptr<frame_arena, ArenaFree> arena(
      frame_arena_new(FRAME_ARENA_LEN));
  wire_message *msg;
  if (frame_unpack(arena.get(), message.data(), message.size(), &msg) ==
      FRAME_OK)
    TakeMessage(*msg, &frame);
  return frame;
}

Frame WireClient::ReceiveAnswer() {
  for (;;) {
    Frame frame = Receive();
    if (frame.kind != CACHET__WIRE__MESSAGE__BODY_INVALIDATED &&
        frame.kind != CACHET__WIRE__MESSAGE__BODY_CHANGED)
      return frame;
    notices_.push_back(std::move(frame));
  }
}

bool WireClient::AwaitClose() {
  char bytes[65536];
  for (;;) {
    pollfd p = {fd_, POLLIN, 0};
    if (poll(&p, 1, kPatienceMs) <= 0)
      return false;
    ssize_t n = recv(fd_, bytes, sizeof bytes, 0);
    if (n == 0 || (n < 0 && errno != EINTR))
      return true;
  }
}

Frame WireClient::Start(const std::string &image) {
  SendHello(1);
  if (Receive().kind != CACHET__WIRE__MESSAGE__BODY_WELCOME)
    return Frame();
  SendOpen(2, image);
  return Receive();
}

Answer WireClient::ReceiveRead(uint64_t id) {
  Answer answer;
  for (;;) {
    Frame frame = ReceiveAnswer();
    if (frame.is_end()) {
      answer.status = 1;
      return answer;
    }
    if (frame.id != id)
      continue;
    if (frame.is_error()) {
      answer.status = frame.status;
      return answer;
    }
    answer.bytes.insert(answer.bytes.end(), frame.payload.begin(),
                        frame.payload.end());
    answer.epochs.push_back(frame.epoch);
    if (frame.last)
      return answer;
  }
}

Answer WireClient::Read(uint32_t image, uint64_t offset, uint64_t length) {
  uint64_t id = next_id_++;
  SendRead(id, image, {{offset, length}});
  return ReceiveRead(id);
}

std::map<std::string, uint64_t> WireClient::Stats() {
  SendGetStats(next_id_++);
  return ReceiveAnswer().stats;
}

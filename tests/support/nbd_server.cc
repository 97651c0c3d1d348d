#include "tests/support/nbd_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

constexpr uint64_t kOptMagic = 0x49484156454F5054, kRepMagic = 0x3e889045565a9;
constexpr uint32_t kOptAbort = 2, kOptGo = 7, kOptStructured = 8,
                   kOptSetMeta = 10;
constexpr uint32_t kRepAck = 1, kRepInfo = 3, kRepMeta = 4,
                   kRepUnsupported = 0x80000001;
constexpr uint32_t kRequestMagic = 0x25609513, kChunkMagic = 0x668e33ef;

void Check(bool ok, const char *what) {
  if (ok)
    return;
  perror(what);
  abort();
}

sockaddr_un UnixAddress(const std::string &path) {
  sockaddr_un a = {};
  a.sun_family = AF_UNIX;
  snprintf(a.sun_path, sizeof a.sun_path, "%s", path.c_str());
  return a;
}

bool CanConnect(const std::string &where) {
  int r;
  int fd = socket(where[0] == '/' ? AF_UNIX : AF_INET,
                  SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (where[0] == '/') {
    sockaddr_un a = UnixAddress(where);
    r = connect(fd, reinterpret_cast<sockaddr *>(&a), sizeof a);
  } else {
    sockaddr_in a = {};
    a.sin_family = AF_INET;
    a.sin_port = htons(uint16_t(atoi(where.c_str())));
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    r = connect(fd, reinterpret_cast<sockaddr *>(&a), sizeof a);
  }
  close(fd);
  return r == 0;
}

uint64_t FromBig(const uint8_t *bytes, size_t n) {
  uint64_t v = 0;
  for (size_t i = 0; i < n; i++)
    v = v << 8 | bytes[i];
  return v;
}

std::string OptionReply(uint32_t option, uint32_t type,
                        const std::string &payload = "") {
  return FakeNbd::Big(kRepMagic, 8) + FakeNbd::Big(option, 4) +
         FakeNbd::Big(type, 4) + FakeNbd::Big(payload.size(), 4) + payload;
}

// "NBDMAGIC", "IHAVEOPT", fixed newstyle without zeros.
std::string Greeting() {
  return FakeNbd::Big(0x4e42444d41474943, 8) + FakeNbd::Big(kOptMagic, 8) +
         FakeNbd::Big(3, 2);
}

std::string AnswerToGo(const FakeNbd::Export &e) {
  const uint64_t flags = 1 | 2 | (e.multi_conn ? 1 << 8 : 0);
  std::string s = OptionReply(kOptGo, kRepInfo,
                              FakeNbd::Big(0, 2) + FakeNbd::Big(e.size, 8) +
                                  FakeNbd::Big(flags, 2));
  if (!e.name.empty())
    s += OptionReply(kOptGo, kRepInfo, FakeNbd::Big(1, 2) + e.name);
  return s + OptionReply(kOptGo, kRepAck);
}

} // namespace

NbdServer::NbdServer(const std::vector<std::string> &command,
                     const std::string &where) {
  std::vector<char *> argv;
  for (const std::string &arg : command)
    argv.push_back(const_cast<char *>(arg.c_str()));
  argv.push_back(nullptr);
  pid_ = fork();
  Check(pid_ >= 0, "fork");
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execvp(argv[0], argv.data());
    _exit(127);
  }
  while (!CanConnect(where)) {
    int status;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      fprintf(stderr, "%s ended: %d\n", argv[0], status);
      abort();
    }
    poll(nullptr, 0, 5); // nothing tells when it listens
  }
}

NbdServer::~NbdServer() { Kill(); }

void NbdServer::Stop() {
  int status;
  kill(pid_, SIGSTOP);
  Check(waitpid(pid_, &status, WUNTRACED) == pid_ && WIFSTOPPED(status),
        "stop a server");
}

void NbdServer::Continue() { kill(pid_, SIGCONT); }

void NbdServer::Kill() {
  if (pid_ <= 0)
    return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

std::string FakeNbd::Big(uint64_t value, size_t bytes) {
  std::string s;
  for (size_t i = bytes; i-- > 0;)
    s += char(value >> (8 * i));
  return s;
}

std::string FakeNbd::ChunkHeader(uint64_t cookie, uint16_t type, uint32_t len,
                                 bool is_last) {
  return Big(kChunkMagic, 4) + Big(is_last, 2) + Big(type, 2) + Big(cookie, 8) +
         Big(len, 4);
}

bool FakeNbd::Peer::Send(const std::string &bytes) {
  for (size_t done = 0; done < bytes.size();) {
    ssize_t n = send(fd_, &bytes[done], bytes.size() - done, MSG_NOSIGNAL);
    if (n < 0)
      return false;
    done += size_t(n);
  }
  return true;
}

void FakeNbd::Peer::Chunk(const Request &r, uint16_t type,
                          const std::string &payload, bool is_last) {
  Send(ChunkHeader(r.cookie, type, uint32_t(payload.size()), is_last) +
       payload);
}

void FakeNbd::Peer::Data(const Request &r, uint64_t offset,
                         const std::string &bytes, bool is_last) {
  Chunk(r, 1, Big(offset, 8) + bytes, is_last);
}

void FakeNbd::Peer::Extents(const Request &r,
                            const std::vector<uint32_t> &extents,
                            uint32_t context) {
  std::string payload = Big(context, 4);
  for (uint32_t n : extents)
    payload += Big(n, 4);
  Chunk(r, 5, payload, true);
}

void FakeNbd::Peer::Done(const Request &r) { Chunk(r, 0, "", true); }

bool FakeNbd::Peer::Recv(void *to, size_t len) {
  return len == 0 || recv(fd_, to, len, MSG_WAITALL) == ssize_t(len);
}

FakeNbd::FakeNbd(const std::string &path, Handler handler, Handler status)
    : handler_(std::move(handler)), status_(std::move(status)) {
  sockaddr_un a = UnixAddress(path);
  listen_fd_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  Check(bind(listen_fd_, reinterpret_cast<sockaddr *>(&a), sizeof a) == 0 &&
            listen(listen_fd_, 16) == 0,
        path.c_str());
  accept_ = std::thread([this] { Accept(); });
}

FakeNbd::~FakeNbd() {
  shutdown(listen_fd_, SHUT_RDWR);
  accept_.join();
  close(listen_fd_);
  for (int fd : fds_)
    shutdown(fd, SHUT_RDWR);
  for (std::thread &t : threads_)
    t.join();
  for (int fd : fds_)
    close(fd);
}

void FakeNbd::SetExport(const Export &e) {
  std::lock_guard<std::mutex> lock(mutex_);
  export_ = e;
}

void FakeNbd::HangUp() {
  std::lock_guard<std::mutex> lock(mutex_);
  for (int fd : fds_)
    shutdown(fd, SHUT_RDWR);
}

void FakeNbd::Accept() {
  for (;;) {
    int fd = accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0)
      return;
    std::lock_guard<std::mutex> lock(mutex_);
    fds_.push_back(fd);
    threads_.emplace_back([this, fd] { Serve(fd); });
  }
}

bool FakeNbd::ShakeHands(Peer *peer) {
  uint8_t flags[4], head[16];
  peer->Send(Greeting());
  if (!peer->Recv(flags, 4))
    return false;
  while (peer->Recv(head, 16)) {
    auto option = uint32_t(FromBig(head + 8, 4));
    std::string data(FromBig(head + 12, 4), '\0');
    if (FromBig(head, 8) != kOptMagic || !peer->Recv(&data[0], data.size()) ||
        option == kOptAbort)
      return false;
    std::unique_lock<std::mutex> lock(mutex_);
    const Export e = export_;
    lock.unlock();
    if (option == kOptGo) {
      const std::string info = OptionReply(kOptGo, kRepInfo, Big(9, 2));
      while (e.is_endless && peer->Send(info))
        ;
      if (e.is_endless)
        *e.is_endless = true;
      return peer->Send(AnswerToGo(e));
    }
    if (option == kOptSetMeta && e.has_status) {
      peer->Send(
          OptionReply(option, kRepMeta, Big(kContext, 4) + "base:allocation") +
          OptionReply(option, kRepAck));
      continue;
    }
    peer->Send(OptionReply(option, option == kOptStructured ? kRepAck
                                                            : kRepUnsupported));
  }
  return false;
}

void FakeNbd::Serve(int fd) {
  Peer peer(fd);
  uint8_t head[28];
  if (ShakeHands(&peer)) {
    n_connections_++;
    while (peer.Recv(head, sizeof head) && FromBig(head, 4) == kRequestMagic) {
      uint64_t type = FromBig(head + 6, 2);
      Request r = {FromBig(head + 8, 8), FromBig(head + 16, 8),
                   uint32_t(FromBig(head + 24, 4))};
      const Handler *handler = type == 0   ? &handler_
                               : type == 7 ? &status_
                                           : nullptr;
      if (!handler || !*handler || !(*handler)(&peer, r))
        break;
    }
  }
  shutdown(fd, SHUT_RDWR);
}

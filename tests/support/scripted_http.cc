#include "tests/support/scripted_http.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

std::string ScriptedHttp::Request::Field(const std::string &name) const {
  auto it = fields.find(name);
  return it == fields.end() ? "" : it->second;
}

bool ScriptedHttp::Peer::Send(const std::string &bytes) {
  for (size_t sent = 0; sent < bytes.size();) {
    ssize_t n =
        send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n <= 0)
      return false;
    sent += size_t(n);
  }
  return true;
}

void ScriptedHttp::Peer::Close() { closed_ = true; }

void ScriptedHttp::Peer::Reset() {
  const linger now = {1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  closed_ = true;
}

void ScriptedHttp::Peer::AwaitClose() {
  pollfd p = {fd_, POLLRDHUP, 0};
  poll(&p, 1, -1);
  closed_ = true;
}

ScriptedHttp::ScriptedHttp(Handler handler) : handler_(std::move(handler)) {
  sockaddr_in addr = {};
  socklen_t len = sizeof addr;
  addr.sin_family = AF_INET;
  addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  listen_fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listen_fd_ < 0 ||
      bind(listen_fd_, reinterpret_cast<sockaddr *>(&addr), len) < 0 ||
      listen(listen_fd_, 64) < 0 ||
      getsockname(listen_fd_, reinterpret_cast<sockaddr *>(&addr), &len) < 0) {
    perror("a listening socket");
    abort();
  }
  port_ = ntohs(addr.sin_port);
  acceptor_ = std::thread([this] { Accept(); });
}

ScriptedHttp::~ScriptedHttp() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    ends_ = true;
    for (int fd : fds_)
      shutdown(fd, SHUT_RDWR);
  }
  shutdown(listen_fd_, SHUT_RDWR);
  acceptor_.join();
  for (std::thread &t : threads_)
    t.join();
  close(listen_fd_);
}

std::string ScriptedHttp::Url(const std::string &path) const {
  return "http://127.0.0.1:" + std::to_string(port_) + path;
}

void ScriptedHttp::Handle(Handler handler) {
  std::lock_guard<std::mutex> lock(mutex_);
  handler_ = std::move(handler);
}

std::vector<ScriptedHttp::Request> ScriptedHttp::requests() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return requests_;
}

size_t ScriptedHttp::n_connections() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return n_connections_;
}

void ScriptedHttp::Accept() {
  for (int fd;
       (fd = accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC)) >= 0;) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (ends_) {
      close(fd);
      return;
    }
    n_connections_++;
    fds_.push_back(fd);
    threads_.emplace_back([this, fd] { Serve(fd); });
  }
}

void ScriptedHttp::Serve(int fd) {
  Peer peer(this, fd);
  std::string pending;
  Request request;
  while (!peer.closed_ && Receive(fd, &pending, &request)) {
    Handler handler;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      requests_.push_back(request);
      handler = handler_;
    }
    handler(request, peer);
  }
  std::lock_guard<std::mutex> lock(mutex_);
  fds_.remove(fd);
  close(fd);
}

namespace {

bool ReceiveMore(int fd, std::string *pending) {
  char bytes[4096];
  ssize_t n = recv(fd, bytes, sizeof bytes, 0);
  if (n > 0)
    pending->append(bytes, size_t(n));
  return n > 0;
}

} // namespace

// The next request of a connection, with a body if it says how long that is.
bool ScriptedHttp::Receive(int fd, std::string *pending, Request *out) {
  size_t end;
  while ((end = pending->find("\r\n\r\n")) == std::string::npos)
    if (!ReceiveMore(fd, pending))
      return false;
  const std::string head = pending->substr(0, end + 2);
  pending->erase(0, end + 4);
  *out = Request();
  for (size_t at = 0, next; at < head.size(); at = next + 2) {
    next = head.find("\r\n", at);
    const std::string line = head.substr(at, next - at);
    size_t colon = line.find(": ");
    if (at == 0) {
      out->method = line.substr(0, line.find(' '));
      out->target = line.substr(out->method.size() + 1);
      out->target.erase(out->target.find(' '));
    } else if (colon != std::string::npos) {
      std::string name = line.substr(0, colon);
      std::transform(name.begin(), name.end(), name.begin(), ::tolower);
      out->fields[name] = line.substr(colon + 2);
    }
  }
  const size_t n_body =
      strtoul(out->Field("content-length").c_str(), nullptr, 10);
  while (pending->size() < n_body)
    if (!ReceiveMore(fd, pending))
      return false;
  out->body = pending->substr(0, n_body);
  pending->erase(0, n_body);
  unsigned long long first, last;
  if (sscanf(out->Field("range").c_str(), "bytes=%llu-%llu", &first, &last) ==
      2) {
    out->first = first;
    out->last = last;
  }
  return true;
}

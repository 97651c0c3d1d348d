#include "tests/support/service_manager.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <sstream>

static int Bind(const std::string &path, int type) {
  int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
  sockaddr_un at{};
  at.sun_family = AF_UNIX;
  strncpy(at.sun_path, path.c_str(), sizeof at.sun_path - 1);
  if (fd < 0 || bind(fd, reinterpret_cast<sockaddr *>(&at), sizeof at))
    abort();
  return fd;
}

ServiceManager::ServiceManager()
    : listen_fd_(Bind(dir_ / "s", SOCK_STREAM)),
      notify_fd_(Bind(dir_ / "notify", SOCK_DGRAM)),
      stop_fd_(eventfd(0, EFD_CLOEXEC)) {
  if (listen(listen_fd_, 1024))
    abort();
}

ServiceManager::~ServiceManager() {
  daemon_ = nullptr;
  uint64_t one = 1;
  if (write(stop_fd_, &one, sizeof one) != sizeof one)
    abort();
  if (listener_.joinable())
    listener_.join();
  for (auto &kept : kept_)
    close(kept.second);
  close(listen_fd_);
  if (tls_fd_ >= 0)
    close(tls_fd_);
  close(notify_fd_);
  close(stop_fd_);
}

// ---- Listening --------------------------------------------------------------

int ServiceManager::ListenForTls() {
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t len = sizeof at;
  tls_fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (tls_fd_ < 0 || bind(tls_fd_, reinterpret_cast<sockaddr *>(&at), len) ||
      listen(tls_fd_, 1024) ||
      getsockname(tls_fd_, reinterpret_cast<sockaddr *>(&at), &len))
    abort();
  return ntohs(at.sin_port);
}

void ServiceManager::Listen() {
  pollfd fds[2] = {{notify_fd_, POLLIN, 0}, {stop_fd_, POLLIN, 0}};
  while (poll(fds, 2, -1) >= 0 && !fds[1].revents) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (!deaf_) {
      Hear();
      continue;
    }
    lock.unlock();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// Takes in what has come.
void ServiceManager::Hear() {
  for (;;) {
    char text[4096];
    alignas(cmsghdr) char control[CMSG_SPACE(16 * sizeof(int))];
    iovec iov = {text, sizeof text};
    msghdr msg{};
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control;
    msg.msg_controllen = sizeof control;
    ssize_t n = recvmsg(notify_fd_, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0)
      return;
    std::vector<int> fds;
    for (cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
      fds.resize((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
      memcpy(fds.data(), CMSG_DATA(c), fds.size() * sizeof(int));
    }
    Heed(std::string(text, size_t(n)), fds);
  }
}

void ServiceManager::Heed(const std::string &text,
                          const std::vector<int> &fds) {
  std::istringstream lines(text);
  std::string line, name;
  bool stores = false, removes = false;
  while (std::getline(lines, line)) {
    stores |= line == "FDSTORE=1";
    removes |= line == "FDSTOREREMOVE=1";
    if (line.rfind("FDNAME=", 0) == 0)
      name = line.substr(7);
  }
  if (removes)
    Remove(name);
  for (int fd : fds)
    if (stores)
      kept_.emplace_back(name, fd);
    else
      close(fd);
}

void ServiceManager::Remove(const std::string &name) {
  for (size_t i = kept_.size(); i-- > 0;)
    if (kept_[i].first == name) {
      close(kept_[i].second);
      kept_.erase(kept_.begin() + long(i));
    }
}

// ---- The daemon -------------------------------------------------------------

void ServiceManager::Stop(int signal) {
  daemon_->Kill(signal);
  daemon_->Wait();
  // As systemd hears what a process had to say before it notices its end.
  std::lock_guard<std::mutex> lock(mutex_);
  if (!deaf_)
    Hear();
}

void ServiceManager::Start(const std::vector<std::string> &args) {
  if (!listener_.joinable())
    listener_ = std::thread([this] { Listen(); });
  Inheritance passed;
  passed.environment = {"NOTIFY_SOCKET=" + (dir_ / "notify")};
  passed.fds = {listen_fd_};
  passed.fd_names = "unix";
  if (tls_fd_ >= 0) {
    passed.fds.push_back(tls_fd_);
    passed.fd_names += ":tls";
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    Hear(); // what the last one said before its end
    for (size_t i = kept_.size(); i-- > 0;) { // the order means nothing
      passed.fds.push_back(kept_[i].second);
      passed.fd_names += ":" + kept_[i].first;
    }
  }
  daemon_ = std::make_unique<DaemonProcess>(
      args, [] {}, passed);
}

// ---- What is kept -----------------------------------------------------------

std::vector<int> ServiceManager::Kept(const std::string &name,
                                      const std::string &memory) {
  std::lock_guard<std::mutex> lock(mutex_);
  Hear();
  std::vector<int> found;
  for (auto &kept : kept_) {
    char target[256] = "";
    std::string path = "/proc/self/fd/" + std::to_string(kept.second);
    if (readlink(path.c_str(), target, sizeof target - 1) < 0)
      continue;
    bool is = memory.empty() ||
              std::string(target).rfind("/memfd:" + memory + " ", 0) == 0;
    if (kept.first == name && is)
      found.push_back(kept.second);
  }
  return found;
}

size_t ServiceManager::n_kept() {
  std::lock_guard<std::mutex> lock(mutex_);
  Hear();
  return kept_.size();
}

std::vector<std::string> ServiceManager::names() {
  std::lock_guard<std::mutex> lock(mutex_);
  Hear();
  std::vector<std::string> names;
  for (auto &kept : kept_)
    names.push_back(kept.first);
  return names;
}

void ServiceManager::Lose(const std::string &name) {
  std::lock_guard<std::mutex> lock(mutex_);
  Hear();
  Remove(name);
}

void ServiceManager::SetDeaf(bool deaf) {
  std::lock_guard<std::mutex> lock(mutex_);
  deaf_ = deaf;
}

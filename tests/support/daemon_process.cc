#include "tests/support/daemon_process.h"

#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <set>

TempDir::TempDir() {
  char dir[] = "/tmp/cachetd-test.XXXXXX"; // short: sun_path is 107 bytes
  if (!mkdtemp(dir))
    abort();
  path_ = dir;
}

TempDir::~TempDir() {
  if (system(("rm -rf '" + path_ + "'").c_str()) != 0)
    fprintf(stderr, "could not remove %s\n", path_.c_str());
}

std::vector<uint8_t> WriteRandomFile(const std::string &path, uint64_t size,
                                     uint64_t seed) {
  std::vector<uint8_t> bytes((size + 7) / 8 * 8);
  std::mt19937_64 random(seed);
  for (size_t i = 0; i < bytes.size(); i += 8) {
    uint64_t word = random();
    memcpy(&bytes[i], &word, 8);
  }
  bytes.resize(size);
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char *>(bytes.data()),
             std::streamsize(size));
  return bytes;
}

void StampFinely(const std::string &path) {
  struct stat st;
  do
    if (chmod(path.c_str(), 0644) || stat(path.c_str(), &st))
      abort();
  while (st.st_ctim.tv_nsec % 10000000 == 0);
}

uint64_t TestSeed() {
  const char *text = getenv("TEST_SEED");
  uint64_t seed = text ? strtoull(text, nullptr, 0) : std::random_device()();
  printf("seed: TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

std::string DaemonProcess::Runfile(const std::string &path) {
  const char *dir = getenv("TEST_SRCDIR");
  const char *workspace = getenv("TEST_WORKSPACE");
  return dir ? std::string(dir) + "/" + workspace + "/" + path : path;
}

namespace {

// An Inheritance that is made before the fork, and taken up after it, where
// nothing may be allocated.
class Prepared {
public:
  explicit Prepared(const Inheritance &from) : fds_(from.fds) {
    for (char **variable = environ; *variable; variable++)
      variables_.push_back(*variable);
    for (const std::string &change : from.environment)
      Change(change);
    if (!fds_.empty()) {
      Change("LISTEN_FDS=" + std::to_string(fds_.size()));
      Change("LISTEN_FDNAMES=" + from.fd_names);
      Change(kPid + std::string(kPidLen, '\0'));
    }
    for (std::string &variable : variables_)
      environment_.push_back(&variable[0]);
    environment_.push_back(nullptr);
  }

  // In the new process.  Returns its environment.
  char **TakeUp() {
    if (fds_.empty())
      return environment_.data();
    const int first = 3, above = first + int(fds_.size());
    for (int &fd : fds_)
      fd = fcntl(fd, F_DUPFD_CLOEXEC, above);
    for (size_t i = 0; i < fds_.size(); i++)
      dup2(fds_[i], first + int(i));
    char *pid = &variables_.back()[sizeof kPid - 1];
    std::to_chars(pid, pid + kPidLen, getpid());
    return environment_.data();
  }

private:
  static constexpr char kPid[] = "LISTEN_PID=";
  static constexpr size_t kPidLen = 10;

  void Change(const std::string &variable) {
    const std::string name = variable.substr(0, variable.find('=')) + "=";
    variables_.erase(std::remove_if(variables_.begin(), variables_.end(),
                                    [&](const std::string &old) {
                                      return old.rfind(name, 0) == 0;
                                    }),
                     variables_.end());
    if (variable.size() >= name.size())
      variables_.push_back(variable);
  }

  std::vector<int> fds_;
  std::vector<std::string> variables_;
  std::vector<char *> environment_;
};

} // namespace

DaemonProcess::DaemonProcess(const std::vector<std::string> &args,
                             const std::function<void()> &before_exec,
                             const Inheritance &inheritance) {
  std::string program = Runfile("daemon/cachetd");
  std::vector<char *> argv = {const_cast<char *>(program.c_str()),
                              const_cast<char *>("--config=/dev/null")};
  for (const auto &arg : args)
    argv.push_back(const_cast<char *>(arg.c_str()));
  argv.push_back(nullptr);
  Prepared prepared(inheritance);
  int fds[2];
  if (pipe2(fds, O_CLOEXEC))
    abort();
  pid_ = fork();
  if (pid_ == 0) {
    dup2(fds[1], 2);
    before_exec();
    execve(argv[0], argv.data(), prepared.TakeUp());
    perror(argv[0]);
    _exit(127);
  }
  close(fds[1]);
  log_fd_ = fds[0];
  fcntl(log_fd_, F_SETPIPE_SZ, 1 << 20);
  // Up to the line that says ready, or to the end.
  char c;
  while (!ready_ && read(log_fd_, &c, 1) == 1) {
    log_ += c;
    ready_ = c == '\n' && log_.find("ready") != std::string::npos;
  }
  fcntl(log_fd_, F_SETFL, O_NONBLOCK);
}

// Takes in what stands in the pipe.
void DaemonProcess::ReadLog() const {
  char buf[4096];
  ssize_t n;
  while ((n = read(log_fd_, buf, sizeof buf)) > 0)
    log_.append(buf, size_t(n));
  log_ended_ = n == 0;
}

static size_t CountIn(const std::string &text, const std::string &what) {
  size_t n = 0;
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at++)
    n++;
  return n;
}

size_t DaemonProcess::CountInLog(const std::string &text) const {
  return CountIn(log(), text);
}

void DaemonProcess::AwaitLog(const std::string &text, size_t n) const {
  while (CountIn(log(), text) < n && AwaitOutput())
    ;
}

// Waits for more to stand in the pipe; false if nothing will.
bool DaemonProcess::AwaitOutput() const {
  pollfd pipe = {log_fd_, POLLIN, 0};
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (log_ended_)
      return false;
  }
  while (poll(&pipe, 1, -1) < 0)
    if (errno != EINTR)
      abort();
  return true;
}

DaemonProcess::~DaemonProcess() {
  if (status_ < 0) {
    Kill(SIGKILL);
    Wait();
  }
  close(log_fd_);
}

std::string DaemonProcess::log() const {
  std::lock_guard<std::mutex> lock(mutex_);
  ReadLog();
  return log_;
}

void DaemonProcess::Kill(int signal) {
  kill(pid_, signal);
  // Until its threads have stopped it goes on answering.
  siginfo_t info;
  if (signal == SIGSTOP)
    waitid(P_PID, static_cast<id_t>(pid_), &info, WSTOPPED);
}

int DaemonProcess::Wait() {
  if (status_ < 0) {
    do
      log();
    while (AwaitOutput());
    int status;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR)
      ;
    status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (status_ == 128 + SIGSYS) {
      fprintf(stderr,
              "cachetd made a system call that its sandbox forbids; the "
              "kernel's log has its number\n%s",
              log_.c_str());
      abort(); // whatever the test expects
    }
  }
  return status_;
}

// Calls `fn` with the path of each descriptor of the process.
template <typename F> static void ForEachFd(pid_t pid, F fn) {
  std::string dir = "/proc/" + std::to_string(pid) + "/fd";
  DIR *d = opendir(dir.c_str());
  if (!d)
    return;
  while (dirent *entry = readdir(d))
    if (entry->d_name[0] != '.')
      fn(dir + "/" + entry->d_name);
  closedir(d);
}

// A memfd counts once, although the daemon opens it again to give it to a
// client.
uint64_t DaemonProcess::MemfdBytes() const {
  uint64_t sum = 0;
  std::set<ino_t> counted;
  ForEachFd(pid_, [&](const std::string &path) {
    char target[256];
    ssize_t n = readlink(path.c_str(), target, sizeof target - 1);
    struct stat st;
    if (n > 7 && !strncmp(target, "/memfd:", 7) && !stat(path.c_str(), &st) &&
        counted.insert(st.st_ino).second)
      sum += uint64_t(st.st_blocks) * 512;
  });
  return sum;
}

int DaemonProcess::n_fds() const {
  int n = 0;
  ForEachFd(pid_, [&](const std::string &) { n++; });
  return n;
}

uint64_t DaemonProcess::AnonymousBytes() const {
  return strtoull(Status("RssAnon:").c_str(), nullptr, 10) * 1024;
}

std::string DaemonProcess::Link(const std::string &name) const {
  char target[4096];
  std::string path = "/proc/" + std::to_string(pid_) + "/" + name;
  ssize_t n = readlink(path.c_str(), target, sizeof target);
  return n < 0 ? "" : std::string(target, size_t(n));
}

std::string DaemonProcess::Status(const std::string &key) const {
  std::ifstream status("/proc/" + std::to_string(pid_) + "/status");
  std::string line;
  while (std::getline(status, line))
    if (!line.compare(0, key.size(), key))
      return line.substr(line.find_first_not_of(" \t", key.size()));
  return "";
}

// The socket stays bound: no other process is given the port, and one that sets
// SO_REUSEADDR, as servers do, can listen there.
int DaemonProcess::FreePort() {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
  sockaddr_in addr{};
  addr.sin_family = AF_INET;
  addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t len = sizeof addr;
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
      bind(fd, reinterpret_cast<sockaddr *>(&addr), len) ||
      getsockname(fd, reinterpret_cast<sockaddr *>(&addr), &len))
    abort();
  return ntohs(addr.sin_port);
}

#include "tests/support/nginx.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <sstream>

namespace {

int Listen(int *port) {
  sockaddr_in addr = {};
  socklen_t len = sizeof addr;
  addr.sin_family = AF_INET;
  addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr *>(&addr), len), 0);
  EXPECT_EQ(listen(fd, 128), 0);
  getsockname(fd, reinterpret_cast<sockaddr *>(&addr), &len);
  *port = ntohs(addr.sin_port);
  return fd;
}

std::string Configuration(const std::string &dir, const std::string &root,
                          int port, const Nginx::Options &options) {
  const std::string tls = options.certificate.empty() ? "" : " ssl http2";
  // As root it would give its directories to a user that a sandbox does not
  // know.
  std::string text = geteuid() == 0 ? "user root;\n" : "";
  text += "daemon off; pid " + dir +
          "/pid;\nevents { worker_connections 1024; }\nhttp {\n"
          "log_format bytes '$server_protocol $status "
          "$body_bytes_sent $request_uri';\naccess_log " +
          dir + "/log bytes;\nkeepalive_requests 1000000;\n";
  for (const char *name : {"client_body", "proxy", "fastcgi", "uwsgi", "scgi"})
    text += std::string(name) + "_temp_path " + dir + ";\n";
  text += "server {\nlisten 127.0.0.1:" + std::to_string(port) + tls +
          ";\nroot " + root + ";\n";
  if (!tls.empty())
    text += "ssl_certificate " + options.certificate +
            ";\nssl_certificate_key " + options.certificate + ";\n";
  return text + options.directives + "\n}\n}\n";
}

} // namespace

Nginx::Nginx(const Options &options) : has_tls_(!options.certificate.empty()) {
  listen_fd_ = Listen(&port_);
  std::ofstream(dir_ / "conf")
      << Configuration(dir_.path(), root_.path(), port_, options);
  Start();
}

static void AwaitStop(const std::string &pid) {
  for (;;) {
    std::ifstream stat("/proc/" + pid + "/stat");
    std::string line;
    if (!std::getline(stat, line) || line[line.rfind(')') + 2] == 'T')
      return;
    poll(nullptr, 0, 1); // nothing tells of another one's child
  }
}

Nginx::~Nginx() {
  Stop();
  close(listen_fd_);
}

void Nginx::Start() {
  // It is given its socket, so that one can connect from now on.
  const int place = 200;
  const std::string conf = dir_ / "conf", errors = dir_ / "errors";
  const std::string sockets = "NGINX=" + std::to_string(place) + ";";
  char *environment[] = {const_cast<char *>(sockets.c_str()), nullptr};
  const char *words[] = {"nginx", "-e",         errors.c_str(),
                         "-c",    conf.c_str(), nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, listen_fd_, place);
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  EXPECT_EQ(posix_spawn(&pid_, "/usr/sbin/nginx", &actions, &attributes,
                        const_cast<char **>(words), environment),
            0)
      << "nginx cannot be run: install nginx-light";
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
}

// Until they have stopped they go on answering.
void Nginx::Pause() {
  const std::string self = std::to_string(pid_);
  std::ifstream children("/proc/" + self + "/task/" + self + "/children");
  kill(-pid_, SIGSTOP);
  AwaitStop(self);
  for (std::string child; children >> child;)
    AwaitStop(child);
}

void Nginx::Continue() { kill(-pid_, SIGCONT); }

void Nginx::Kill() {
  kill(-pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

void Nginx::Stop() {
  if (pid_ <= 0)
    return;
  kill(pid_, SIGTERM);
  Continue(); // a stopped process ends when it goes on
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

std::string Nginx::Url(const std::string &path) const {
  return std::string(has_tls_ ? "https" : "http") +
         "://127.0.0.1:" + std::to_string(port_) + path;
}

void Nginx::Put(const std::string &name, std::string_view bytes) {
  const std::string fresh = root_ / "fresh";
  std::ofstream(fresh) << bytes;
  const timespec stamp = {modified_++, 0}, stamps[] = {stamp, stamp};
  EXPECT_EQ(utimensat(AT_FDCWD, fresh.c_str(), stamps, 0), 0);
  EXPECT_EQ(rename(fresh.c_str(), (root_ / name).c_str()), 0);
}

std::vector<Nginx::Line> Nginx::StopAndReadLog() {
  Stop();
  std::vector<Line> lines;
  std::ifstream log(dir_ / "log");
  for (Line l; log >> l.protocol >> l.status >> l.n_body >> l.target;)
    lines.push_back(l);
  return lines;
}

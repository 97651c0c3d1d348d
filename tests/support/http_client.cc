#include "tests/support/http_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <regex>
#include <set>
#include <sstream>

namespace {

int Connect(const sockaddr *at, socklen_t len) {
  int fd = socket(at->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  timeval limit = {60, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (connect(fd, at, len) == 0)
    return fd;
  close(fd);
  return -1;
}

// False: the chunks do not end.
bool TakeChunks(const std::string &text, std::string *to) {
  size_t at = 0;
  for (;;) {
    size_t end = text.find("\r\n", at);
    if (end == std::string::npos)
      return false;
    size_t len = strtoul(text.c_str() + at, nullptr, 16);
    if (len == 0)
      return text.compare(end, std::string::npos, "\r\n\r\n") == 0;
    at = end + 2;
    if (at + len + 2 > text.size())
      return false;
    to->append(text, at, len);
    at += len + 2;
  }
}

} // namespace

HttpClient::HttpClient(int port) {
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(uint16_t(port));
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  fd_ = Connect(reinterpret_cast<sockaddr *>(&at), sizeof at);
}

HttpClient::HttpClient(const std::string &socket_path) {
  sockaddr_un at{};
  at.sun_family = AF_UNIX;
  strncpy(at.sun_path, socket_path.c_str(), sizeof at.sun_path - 1);
  fd_ = Connect(reinterpret_cast<sockaddr *>(&at), sizeof at);
}

HttpClient::~HttpClient() { Close(); }

void HttpClient::Close() {
  if (fd_ >= 0)
    close(fd_);
  fd_ = -1;
}

bool HttpClient::Send(const std::string &text) {
  for (size_t at = 0; at < text.size();) {
    ssize_t n = send(fd_, text.data() + at, text.size() - at, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return false;
    at += size_t(n);
  }
  return true;
}

std::string HttpClient::ReceiveAll() {
  std::string all;
  char some[4096];
  ssize_t n;
  // The kernel interrupts a call with a time limit also for work that a ring of
  // io_uring has left, such as that of an earlier server of this process.
  while ((n = recv(fd_, some, sizeof some, 0)) > 0 || (n < 0 && errno == EINTR))
    if (n > 0)
      all.append(some, size_t(n));
  return all;
}

HttpReply HttpClient::Parse(const std::string &text) {
  HttpReply reply;
  size_t end = text.find("\r\n\r\n");
  if (sscanf(text.c_str(), "HTTP/1.%*1[01] %d", &reply.status) != 1 ||
      end == std::string::npos)
    return reply;
  reply.head = text.substr(0, end + 2);
  std::string rest = text.substr(end + 4);
  size_t length = reply.head.find("Content-Length: ");
  if (reply.head.find("Transfer-Encoding: chunked\r\n") != std::string::npos) {
    reply.is_whole = TakeChunks(rest, &reply.body);
    return reply;
  }
  reply.body = rest;
  reply.is_whole =
      length == std::string::npos ||
      strtoul(reply.head.c_str() + length + 16, nullptr, 10) == rest.size();
  return reply;
}

HttpReply HttpClient::Get(const std::string &path) {
  Send("GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n");
  return Parse(ReceiveAll());
}

MetricsText::MetricsText(const std::string &text) {
  static const std::regex help("# HELP ([a-z_0-9]+) (.+)"),
      type("# TYPE ([a-z_0-9]+) (counter|gauge)"),
      value("([a-z_0-9]+)(\\{image=\"((?:[^\"\\\\\n]|\\\\[\"\\\\n])*)\"\\})? "
            "([0-9]+)");
  std::istringstream lines(text);
  std::set<std::string> ended;
  std::string line, name;
  if (text.empty() || text.back() != '\n')
    errors.push_back("the last line does not end");
  while (std::getline(lines, line)) {
    std::smatch m;
    if (std::regex_match(line, m, help)) {
      ended.insert(name);
      name = m[1];
      if (ended.count(name) || !helps.emplace(name, m[2]).second)
        errors.push_back("a second time: " + line);
    } else if (std::regex_match(line, m, type)) {
      if (m[1] != name || !types.emplace(name, m[2]).second)
        errors.push_back("not behind its HELP: " + line);
    } else if (std::regex_match(line, m, value)) {
      if (m[1] != name || !types.count(name))
        errors.push_back("not behind its TYPE: " + line);
      if (!values.emplace(m[1].str() + m[2].str(), std::stod(m[4])).second)
        errors.push_back("a second value: " + line);
    } else {
      errors.push_back("neither: " + line);
    }
  }
}

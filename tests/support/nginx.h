// An nginx of a test's own, on loopback.
#ifndef TESTS_SUPPORT_NGINX_H
#define TESTS_SUPPORT_NGINX_H

#include <sys/types.h>

#include <cstdint>
#include <ctime>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/daemon_process.h"

// Its processes are a group.
class Nginx {
public:
  struct Options {
    std::string certificate; // a file of a certificate and its key: TLS, HTTP/2
    std::string directives;  // more of a "server" block
  };

  Nginx() : Nginx(Options()) {}
  explicit Nginx(const Options &options);
  ~Nginx();

  int port() const { return port_; }
  std::string Url(const std::string &path) const;

  // Puts a file there at once, also in the place of one.  It was modified long
  // ago, each another second: nginx tells no versions of one second apart.
  void Put(const std::string &name, std::string_view bytes);

  // While it is stopped, or gone, one can connect all the same, and is answered
  // when it is there again.
  void Pause();
  void Continue();
  void Kill();
  void Start();

  // A line of the log of requests that are answered in full: protocol, status,
  // bytes of the body, target.
  struct Line {
    std::string protocol, target;
    int status;
    uint64_t n_body;
  };
  // Ends the server, so that its log is whole.
  std::vector<Line> StopAndReadLog();

private:
  void Stop();

  TempDir dir_, root_;
  bool has_tls_;
  int port_ = 0;
  int listen_fd_;
  pid_t pid_ = -1;
  time_t modified_ = 1000000000;
};

#endif

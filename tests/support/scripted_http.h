// A server of HTTP/1.1 on loopback that answers as a test says: rightly, or
// with any fault.
#ifndef TESTS_SUPPORT_SCRIPTED_HTTP_H
#define TESTS_SUPPORT_SCRIPTED_HTTP_H

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

class ScriptedHttp {
public:
  struct Request {
    std::string method, target;
    std::map<std::string, std::string> fields; // names in small letters
    std::string body;
    // Of a Range of one range of bytes; else 1 and 0.
    uint64_t first = 1, last = 0;

    std::string Field(const std::string &name) const;
  };

  // A connection, for a handler; its thread's alone.
  class Peer {
  public:
    Peer(ScriptedHttp *server, int fd) : server_(server), fd_(fd) {}
    // False: the peer has closed, or the server ends.
    bool Send(const std::string &bytes);
    void Close(); // no answer follows on this connection
    void Reset(); // likewise, and not in peace
    // Waits until the peer has closed, or the server ends.
    void AwaitClose();

  private:
    friend class ScriptedHttp;
    ScriptedHttp *server_;
    int fd_;
    bool closed_ = false;
  };

  // Called for each request, on a thread of its connection.
  using Handler = std::function<void(const Request &, Peer &)>;

  explicit ScriptedHttp(Handler handler);
  ~ScriptedHttp();
  ScriptedHttp(const ScriptedHttp &) = delete;

  int port() const { return port_; }
  std::string Url(const std::string &path = "/x") const;
  void Handle(Handler handler); // from the next request on
  std::vector<Request> requests() const;
  size_t n_connections() const;

private:
  void Accept();
  void Serve(int fd);
  static bool Receive(int fd, std::string *pending, Request *out);

  int listen_fd_, port_ = 0;
  mutable std::mutex mutex_; // of all below
  Handler handler_;
  std::vector<Request> requests_;
  size_t n_connections_ = 0;
  bool ends_ = false;
  std::list<int> fds_; // that are open
  std::list<std::thread> threads_;
  std::thread acceptor_;
};

#endif

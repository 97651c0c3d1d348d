// A client of HTTP that sends whatever it is told to and shows all that comes.
#ifndef TESTS_SUPPORT_HTTP_CLIENT_H
#define TESTS_SUPPORT_HTTP_CLIENT_H

#include <map>
#include <string>
#include <vector>

struct HttpReply {
  int status = 0; // 0: the server closed without one
  std::string head;
  std::string body; // without its chunks
  bool is_whole = false;
};

class HttpClient {
public:
  // To a port on loopback, or a Unix socket.
  explicit HttpClient(int port);
  explicit HttpClient(const std::string &socket_path);
  ~HttpClient();
  HttpClient(const HttpClient &) = delete;

  // False: the server takes no more.
  bool Send(const std::string &text);
  // All that comes until the server closes; it has a minute for each byte.
  std::string ReceiveAll();
  // A GET of HTTP/1.1 and its answer, which ends the connection.
  HttpReply Get(const std::string &path);
  // Puts together what was received.
  static HttpReply Parse(const std::string &text);
  void Close();
  int fd() const { return fd_; }

private:
  int fd_ = -1;
};

// A text in the format of Prometheus, version 0.0.4.
struct MetricsText {
  // Values by "name" or "name{labels}".
  std::map<std::string, double> values;
  std::map<std::string, std::string> types, helps; // by name
  std::vector<std::string> errors; // what is wrong with the text

  explicit MetricsText(const std::string &text);
};

#endif

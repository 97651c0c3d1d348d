// The HTTP server: what it bounds, and what peers that mean harm come to.
#include <gtest/gtest.h>

#include <event2/buffer.h>
#include <signal.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "daemon/http_server.h"
#include "daemon/net/listener.h"
#include "tests/support/http_client.h"
#include "tests/support/listener_port.h"

namespace {

// What the routes work on.
struct Site {
  std::atomic<int> n_asked{0}, n_parts{0}, n_ended{0};
  http_exchange *kept = nullptr; // the server's thread
  std::atomic<bool> has_kept{false};
  evbuffer *text = evbuffer_new();
  ~Site() { evbuffer_free(text); }
};

void AnswerHello(void *arg, http_exchange *x) {
  auto *site = static_cast<Site *>(arg);
  site->n_asked++;
  evbuffer_add_printf(site->text, "hello\n");
  http_server_reply(x, 200, "OK", site->text);
}

// Never: only the end of the server ends it.
void Keep(void *arg, http_exchange *x) {
  auto *site = static_cast<Site *>(arg);
  site->kept = x;
  site->has_kept = true;
}

// Answers the one that was kept, whose peer may be gone, and its own.
void AnswerKept(void *arg, http_exchange *x) {
  auto *site = static_cast<Site *>(arg);
  evbuffer_add_printf(site->text, "late\n");
  http_server_reply(site->kept, 200, "OK", site->text);
  AnswerHello(arg, x);
}

bool NextPart(void *arg, evbuffer *to) {
  auto *site = static_cast<Site *>(arg);
  std::string part(10000, 'x');
  if (site->n_parts == 1000)
    return false;
  evbuffer_add(to, part.data(), part.size());
  site->n_parts++;
  return true;
}
void EndParts(void *arg) { static_cast<Site *>(arg)->n_ended++; }
void Stream(void *arg, http_exchange *x) {
  static_cast<Site *>(arg)->n_parts = 0;
  http_parts parts = {NextPart, EndParts, arg};
  http_server_stream(x, "text/plain", &parts);
}

const http_route kRoutes[] = {{"/hello", AnswerHello},
                              {"/keep", Keep},
                              {"/kept", AnswerKept},
                              {"/stream", Stream},
                              {nullptr, nullptr}};

class HttpServerTest : public testing::Test {
protected:
  void SetUp() override { signal(SIGPIPE, SIG_IGN); } // as the daemon does
  void TearDown() override { http_server_free(server_); }

  void Start(unsigned max_connections = 8, int request_timeout_ms = 600000,
             int answer_timeout_ms = 600000) {
    http_server_options options = http_server_options_default(kRoutes, &site_);
    options.max_connections = max_connections;
    options.request_timeout_ms = request_timeout_ms;
    options.answer_timeout_ms = answer_timeout_ms;
    address a;
    char err[256];
    listener *l;
    ASSERT_EQ(address_parse("tcp:127.0.0.1:0", &a, err, sizeof err), 0);
    ASSERT_EQ(listener_open(&a, &l, err, sizeof err), 0) << err;
    port_ = ListenerPort(l);
    ASSERT_EQ(http_server_new(l, &options, &server_), 0);
    ASSERT_EQ(http_server_start(server_), 0);
  }
  HttpReply Get(const std::string &path) { return HttpClient(port_).Get(path); }
  // What comes of bytes as they are.
  std::string Talk(const std::string &text) {
    HttpClient client(port_);
    client.Send(text);
    return client.ReceiveAll();
  }
  static void Await(const std::function<bool()> &condition) {
    while (!condition())
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  Site site_;
  http_server *server_ = nullptr;
  int port_ = 0;
};

TEST_F(HttpServerTest, AnswersGetAndHeadOfItsPaths) {
  Start();
  HttpReply reply = Get("/hello?query=1");
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.body, "hello\n");
  EXPECT_TRUE(reply.is_whole);
  std::string head = Talk("HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(HttpClient::Parse(head).status, 200);
  EXPECT_EQ(HttpClient::Parse(head).body, "");
  reply = HttpClient::Parse(Talk("GET /hello HTTP/1.0\r\n\r\n"));
  EXPECT_EQ(reply.body, "hello\n");
}

TEST_F(HttpServerTest, AnswersNothingElseAndSaysNoMoreThanThat) {
  Start(8, 1000); // libevent keeps the connection of what it does not know
  for (const char *path : {"/", "/hell", "/hello/", "/%68ello", "//hello",
                           "/../hello", "/hello%00", "/etc/passwd"}) {
    HttpReply reply = Get(path);
    EXPECT_EQ(reply.status, 404) << path;
    EXPECT_EQ(reply.body, "there is nothing here\n") << path;
  }
  for (const char *method :
       {"POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PATCH", "X"}) {
    int status = HttpClient::Parse(Talk(std::string(method) +
                                        " /hello HTTP/1.1\r\nHost: x\r\n\r\n"))
                     .status;
    EXPECT_GE(status, 400) << method;
  }
  EXPECT_EQ(site_.n_asked, 0);
}

TEST_F(HttpServerTest, StreamsWhatIsTooLongForOnePart) {
  Start();
  HttpReply reply = Get("/stream");
  EXPECT_EQ(reply.status, 200);
  EXPECT_TRUE(reply.is_whole);
  EXPECT_EQ(reply.body.size(), 1000u * 10000);
  EXPECT_EQ(site_.n_ended, 1);
  reply = HttpClient::Parse(Talk("GET /stream HTTP/1.0\r\n\r\n"));
  EXPECT_EQ(reply.body.size(), 1000u * 10000);
  std::string head = Talk("HEAD /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_EQ(HttpClient::Parse(head).body, "");
  EXPECT_EQ(site_.n_ended, 3);
}

TEST_F(HttpServerTest, MakesNoPartBeforeTheOneBeforeIsTaken) {
  Start();
  HttpClient client(port_);
  int small = 4096;
  setsockopt(client.fd(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  client.Send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  // It stands when the socket is full: others are served meanwhile.
  EXPECT_EQ(Get("/hello").status, 200);
  EXPECT_LT(site_.n_parts, 1000);
  client.Close();
  Await([&] { return site_.n_ended == 1; });
}

TEST_F(HttpServerTest, RefusesARequestThatIsTooLong) {
  Start(8, 1000);
  std::string head = "GET /hello HTTP/1.1\r\nHost: x\r\n";
  EXPECT_GE(HttpClient::Parse(
                Talk(head + "A: " + std::string(9000, 'a') + "\r\n\r\n"))
                .status,
            400);
  EXPECT_GE(HttpClient::Parse(
                Talk("GET /" + std::string(9000, 'a') + " HTTP/1.1\r\n\r\n"))
                .status,
            400);
  std::string many;
  for (int i = 0; i < 2000; i++)
    many += "H" + std::to_string(i) + ": v\r\n";
  EXPECT_GE(HttpClient::Parse(Talk(head + many + "\r\n")).status, 400);
  EXPECT_EQ(Talk(std::string(9000, 'a')).find("200"), std::string::npos);
  EXPECT_EQ(site_.n_asked, 0);
  EXPECT_EQ(Get("/hello").status, 200);
}

TEST_F(HttpServerTest, GivesOneAnswerToManyRequestsOfOneConnection) {
  Start();
  std::string one = "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n", many;
  for (int i = 0; i < 100; i++)
    many += one;
  std::string all = Talk(many);
  EXPECT_EQ(site_.n_asked, 1);
  EXPECT_EQ(all.find("HTTP/1.1", 1), std::string::npos);
}

TEST_F(HttpServerTest, EndsAPeerThatSendsByteByByteForTooLong) {
  Start(8, 300);
  HttpClient slow(port_);
  ASSERT_TRUE(slow.Send("GET /hello HTTP/1.1\r\nA: "));
  int n = 0;
  while (slow.Send("a")) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ASSERT_LT(++n, 6000);
  }
  EXPECT_EQ(site_.n_asked, 0);
}

TEST_F(HttpServerTest, EndsAPeerThatDoesNotTakeItsAnswer) {
  Start(8, 600000, 300);
  HttpClient slow(port_);
  int small = 4096;
  setsockopt(slow.fd(), SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  slow.Send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  Await([&] { return site_.n_ended == 1; });
  EXPECT_LT(site_.n_parts, 1000);
}

TEST_F(HttpServerTest, OthersWaitWhileThereAreTooManyConnections) {
  Start(2);
  HttpClient first(port_), second(port_);
  first.Send("GET /hello HTTP/1.1\r\n");
  second.Send("GET /hello HTTP/1.1\r\n");
  std::atomic<bool> answered{false};
  std::thread third([&] {
    EXPECT_EQ(Get("/hello").status, 200);
    answered = true;
  });
  second.Send("\r\n"); // its request is whole, and its end makes room
  EXPECT_EQ(HttpClient::Parse(second.ReceiveAll()).status, 200);
  third.join();
  EXPECT_TRUE(answered);
  first.Send("\r\n");
  EXPECT_EQ(HttpClient::Parse(first.ReceiveAll()).status, 200);
}

TEST_F(HttpServerTest, PeersThatComeAndGoTakeNoPlace) {
  Start(4);
  for (int i = 0; i < 50; i++)
    HttpClient peer(port_);
  for (int i = 0; i < 50; i++) {
    HttpClient peer(port_);
    peer.Send("GET /hello HTTP/1.1\r\nA");
  }
  for (int i = 0; i < 20; i++)
    EXPECT_EQ(Get("/hello").status, 200);
}

TEST_F(HttpServerTest, AnAnswerWhosePeerLeftIsDropped) {
  Start();
  {
    HttpClient gone(port_);
    gone.Send("GET /keep HTTP/1.1\r\nHost: x\r\n\r\n");
    Await([&] { return bool(site_.has_kept); });
  }
  EXPECT_EQ(Get("/kept").status, 200);
  EXPECT_EQ(Get("/hello").status, 200);
}

TEST_F(HttpServerTest, AnAnswerComesWhenItIsThere) {
  Start();
  HttpClient waits(port_);
  waits.Send("GET /keep HTTP/1.1\r\nHost: x\r\n\r\n");
  Await([&] { return bool(site_.has_kept); });
  EXPECT_EQ(Get("/kept").status, 200);
  EXPECT_EQ(HttpClient::Parse(waits.ReceiveAll()).body, "late\n");
}

TEST_F(HttpServerTest, EndsWhateverIsUnderWay) {
  Start();
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (const char *text :
       {"", "GET /he", "GET /keep HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n", "\r\n\r\n",
        "\x16\x03\x01"}) {
    clients.push_back(std::make_unique<HttpClient>(port_));
    clients.back()->Send(text);
  }
  Await([&] { return site_.has_kept && site_.n_parts > 0; });
  http_server_free(server_);
  server_ = nullptr;
  EXPECT_EQ(site_.n_ended, 1);
}

} // namespace

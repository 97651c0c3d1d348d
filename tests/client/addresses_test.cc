// Handles on a daemon whose host has several addresses, or another one later.
#include "tests/client/fake_daemon.h"

#include <dlfcn.h>
#include <netdb.h>

namespace {

// What the name "daemon" stands for.
std::mutex names_lock;
std::vector<std::string> addresses;
std::atomic<int> n_lookups{0};

void SetAddresses(std::vector<std::string> list) {
  std::lock_guard<std::mutex> hold(names_lock);
  addresses = std::move(list);
}

} // namespace

// In place of the C library's, whose lists are chains of nodes that
// freeaddrinfo(3) frees one by one.
extern "C" int getaddrinfo(const char *node, const char *service,
                           const addrinfo *hints, addrinfo **out) {
  static auto *real =
      reinterpret_cast<decltype(&getaddrinfo)>(dlsym(RTLD_NEXT, "getaddrinfo"));
  if (strcmp(node, "daemon") != 0)
    return real(node, service, hints, out);
  n_lookups++;
  std::lock_guard<std::mutex> hold(names_lock);
  for (const std::string &a : addresses) {
    int r = real(a.c_str(), service, hints, out);
    if (r != 0)
      return r;
    out = &(*out)->ai_next;
  }
  return 0;
}

namespace {

// A daemon at an address and a port.  The n-th connection runs the n-th script.
class TcpDaemon {
public:
  TcpDaemon(const char *address, uint16_t port, std::vector<Script> scripts)
      : listener_(8, address, port) {
    image.bytes = Content(64 << 10);
    server_ = std::thread([this, scripts] {
      for (const Script &script : scripts) {
        int fd = listener_.Accept();
        Peer p(fd, &image);
        script(p);
        close(fd);
      }
    });
  }
  ~TcpDaemon() { server_.join(); }

  std::string Uri() const { return listener_.Uri("daemon"); }
  uint16_t port() const { return listener_.port; }

  // Whether a connection is left over when all scripts have run.
  bool IsAsked() const { return listener_.IsAsked(); }

  FakeImage image;

private:
  TcpListener listener_;
  std::thread server_;
};

// An address that swallows packets: its queue is full, until LetIn().
class Swallower {
public:
  Swallower(const char *address, uint16_t port) : listener_(0, address, port) {
    sockaddr_in at = {};
    at.sin_family = AF_INET;
    at.sin_port = htons(port);
    inet_pton(AF_INET, address, &at.sin_addr);
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr *>(&at), sizeof at), 0);
  }
  ~Swallower() { close(fd_); }

  // Connections are made from here on, but nobody answers.
  void LetIn() { close(listener_.Accept()); }

  // Whether nobody has connected since.
  bool IsAlone() const { return !listener_.IsAsked(); }

private:
  TcpListener listener_;
  int fd_;
};

TEST(AddressesTest, OneThatSwallowsPacketsLeavesTimeForTheNext) {
  TcpDaemon daemon("127.0.0.1", 0, {ServeAll()});
  Swallower swallower("127.0.0.2", daemon.port());
  SetAddresses({"127.0.0.2", "127.0.0.1"});
  Handle c = Open(daemon.Uri(), Patience(20000, 4000));
  ExpectContent(c.get(), daemon.image.bytes);
}

TEST(AddressesTest, ARetryBeginsBehindTheOneThatTimedOut) {
  Gate end;
  TcpDaemon daemon("127.0.0.1", 0,
                   {[&](Peer &p) {
                      p.Handshake();
                      end.Await();
                    },
                    ServeAll()});
  Swallower swallower("127.0.0.2", daemon.port());
  SetAddresses({"127.0.0.2", "127.0.0.1"});
  Handle c = Open(daemon.Uri(), Patience(20000, 4000));
  swallower.LetIn(); // a connection to it would be silent
  end.Open();
  ExpectContent(c.get(), daemon.image.bytes);
  EXPECT_TRUE(swallower.IsAlone());
}

TEST(AddressesTest, AHostThatHasMovedIsFoundByACallThatWaits) {
  std::unique_ptr<TcpDaemon> before(
      new TcpDaemon("127.0.0.1", 0, {[](Peer &p) { p.Handshake(); }}));
  TcpDaemon after("127.0.0.2", before->port(), {ServeAll()});
  SetAddresses({"127.0.0.1"});
  Handle c = Open(before->Uri(), Patience(20000));
  before.reset();
  SetAddresses({"127.0.0.2"});
  ExpectContent(c.get(), after.image.bytes);
}

// Another daemon has the old address, and the program comes seldom.
TEST(AddressesTest, AHostThatHasMovedIsFoundBehindARefusal) {
  TcpDaemon before("127.0.0.1", 0,
                   {[](Peer &p) { p.Handshake(); },
                    [](Peer &p) {
                      Request r;
                      ASSERT_TRUE(p.Greet() && p.Receive(&r));
                      p.Error(r.id, CACHET_E_NOIMAGE, "no such image");
                    }});
  TcpDaemon after("127.0.0.2", before.port(), {ServeAll()});
  SetAddresses({"127.0.0.1"});
  Handle c = Open(before.Uri(), Patience(20000));
  uint8_t byte;
  EXPECT_EQ(cachet_read(c.get(), 0, &byte, 1), CACHET_E_NOIMAGE);
  SetAddresses({"127.0.0.2"});
  poll(nullptr, 0, 1500); // longer than it pauses, and looks up nothing
  ExpectContent(c.get(), after.image.bytes);
  EXPECT_FALSE(before.IsAsked());
}

TEST(AddressesTest, DispatchLooksUpNoHost) {
  std::unique_ptr<TcpDaemon> daemon(
      new TcpDaemon("127.0.0.1", 0, {[](Peer &p) { p.Handshake(); }}));
  SetAddresses({"127.0.0.1"});
  Outcome out;
  Handle c = Open(daemon->Uri(), Patience(1500));
  daemon.reset();
  int before = n_lookups;
  ASSERT_EQ(cachet_load_async(c.get(), 0, 0, Outcome::Loaded, &out, nullptr),
            CACHET_OK);
  RunUntil(c.get(), [&] { return out.n > 0; });
  EXPECT_EQ(out.status, CACHET_E_CONN);
  EXPECT_EQ(n_lookups, before);
}

} // namespace

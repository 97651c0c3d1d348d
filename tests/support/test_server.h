// The daemon's server inside a test's process, over fake sources, on a Unix
// socket and a TCP port of its own.
#ifndef TESTS_SUPPORT_TEST_SERVER_H
#define TESTS_SUPPORT_TEST_SERVER_H

#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "daemon/engine/finder_place.h"
#include "daemon/rule.h"
#include "daemon/serve/change_maker.h"
#include "daemon/server.h"
#include "tests/support/fake_source.h"
#include "tests/support/wire_client.h"

class TestServer {
public:
  struct Options {
    limits limit = limits_default();
    uint64_t cache_size = 16 << 20;
    uint32_t page_size = 4096;
    unsigned n_workers = 2;
    bool share = true;
    // Whether clients can send descriptors along, as they can everywhere
    // before Linux 6.16.
    bool pass_rights = false;
    // Where more images are found, which are as `share` says.
    const finder_place *place = nullptr;
    // Makes what peers want changed.
    const change_maker *maker = nullptr;
    // A port for TLS as well, with these certificates.
    tls_context *tls = nullptr;
    rule *allow = nullptr; // of images without a rule of their own
    bool warm = false;     // all images
    rule *admin = nullptr; // of peers that may change things
  };

  // Serves `images`, which outlive it.
  TestServer(const std::vector<std::pair<std::string, FakeSource *>> &images,
             const Options &options);
  ~TestServer(); // stops it, in good order

  WireClient Unix() const { return WireClient::Unix(socket_path_); }
  WireClient Tcp() const { return WireClient::Tcp(port_); }
  int plain_port() const { return port_; }
  int tls_port() const { return tls_port_; }
  const std::string &socket_path() const { return socket_path_; }

  // Adds an image, which outlives the server; removes one.  As server.h says.
  int Add(const std::string &name, FakeSource *image, rule *allow = nullptr,
          int missing = 0);
  int Replace(const std::string &name, FakeSource *image, bool share = true);
  bool Remove(const std::string &name);
  void ReviewFound();

  // For connections to come to the port for TLS, which there is.
  void SetTls(tls_context *context);
  void SetAdmin(rule *admin);
  void SetRules(rule *all, const std::vector<image_rule> &list);
  server *get() const { return server_; }

  // Begins an orderly stop; AwaitStop() waits for its end.
  void BeginStop();
  void AwaitStop();

private:
  std::string directory_, socket_path_;
  bool share_;
  int port_ = 0, tls_port_ = 0;
  listener *tls_ = nullptr;
  server *server_ = nullptr;
  std::thread thread_;
};

#endif

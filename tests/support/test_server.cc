#include "tests/support/test_server.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/listener_port.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

namespace {

listener *Listen(const std::string &text) {
  address a;
  listener *l = nullptr;
  char err[512];
  if (address_parse(text.c_str(), &a, err, sizeof err) < 0 ||
      listener_open(&a, &l, err, sizeof err) < 0) {
    fprintf(stderr, "%s\n", err);
    abort();
  }
  return l;
}

} // namespace

TestServer::TestServer(
    const std::vector<std::pair<std::string, FakeSource *>> &images,
    const Options &options)
    : share_(options.share) {
  signal(SIGPIPE, SIG_IGN);                      // as the daemon does
  char directory[] = "/tmp/cachetd-test-XXXXXX"; // sun_path is short
  if (!mkdtemp(directory))
    abort();
  directory_ = directory;
  socket_path_ = directory_ + "/socket";
  std::vector<listener *> listeners = {Listen("unix:" + socket_path_),
                                       Listen("tcp:127.0.0.1:0")};
  port_ = ListenerPort(listeners[1]);
  if (options.tls) {
    listeners.push_back(Listen("tls:127.0.0.1:0"));
    tls_ = listener_ref(listeners.back());
    SetTls(options.tls);
    tls_port_ = ListenerPort(listeners.back());
  }
  int on = 1;
  if (options.pass_rights) // fails where the kernel knows no way to refuse
    setsockopt(listener_fd(listeners[0]), SOL_SOCKET, SO_PASSRIGHTS, &on,
               sizeof on);
  std::vector<server_image> list;
  for (const auto &image : images)
    list.push_back({image.first.c_str(), image.second->Open(), options.share, 0,
                    nullptr, nullptr, options.warm, 0, nullptr});
  server_config config = {};
  config.limits = options.limit;
  config.cache_size = options.cache_size;
  config.page_size = options.page_size;
  config.n_workers = options.n_workers;
  config.images = list.data();
  config.n_images = static_cast<unsigned>(list.size());
  config.place = options.place;
  config.shares_found = options.place && options.share;
  config.listeners = listeners.data();
  config.n_listeners = static_cast<unsigned>(listeners.size());
  config.allow = options.allow;
  config.admin = options.admin;
  char err[512];
  if (server_new(&config, &server_, err, sizeof err) < 0) {
    fprintf(stderr, "%s\n", err);
    abort();
  }
  for (listener *l : listeners)
    listener_unref(l);
  if (options.maker)
    server_set_change_maker(server_, options.maker);
  if (server_start(server_) < 0)
    abort();
  thread_ = std::thread([this] {
    server_serve(server_);
    server_shutdown(server_);
  });
}

int TestServer::Add(const std::string &name, FakeSource *image, rule *allow,
                    int missing) {
  server_image add = {name.c_str(), image->Open(), share_, missing, nullptr,
                      allow,        false,         0,      nullptr};
  return server_add_image(server_, &add);
}

int TestServer::Replace(const std::string &name, FakeSource *image,
                        bool share) {
  server_image change = {name.c_str(), image->Open(), share, 0,      nullptr,
                         nullptr,      false,         0,     nullptr};
  return server_replace_image(server_, &change);
}

bool TestServer::Remove(const std::string &name) {
  return server_remove_image(server_, name.c_str());
}

void TestServer::SetTls(tls_context *context) {
  listener_set_tls(tls_, context);
}

void TestServer::SetAdmin(rule *admin) { server_set_admin(server_, admin); }

void TestServer::ReviewFound() { server_review_found(server_, share_); }

void TestServer::SetRules(rule *all, const std::vector<image_rule> &list) {
  server_set_rules(server_, all, list.data(), list.size());
}

void TestServer::BeginStop() { server_stop(server_); }

void TestServer::AwaitStop() {
  if (thread_.joinable())
    thread_.join();
}

TestServer::~TestServer() {
  BeginStop();
  AwaitStop();
  server_free(server_);
  if (tls_)
    listener_unref(tls_);
  rmdir(directory_.c_str());
}

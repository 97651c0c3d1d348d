// A service manager, as far as cachetd knows one: it listens for the daemon,
// keeps the descriptors that it sends, and hands them to the next one.  It has
// a thread from its first Start() on: a test that forks readers does so before.
#ifndef TESTS_SUPPORT_SERVICE_MANAGER_H
#define TESTS_SUPPORT_SERVICE_MANAGER_H

#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/support/daemon_process.h"

class ServiceManager {
public:
  ServiceManager();
  ~ServiceManager(); // kills the daemon

  // The socket that it listens at, and its address.
  std::string socket_path() const { return dir_ / "s"; }
  std::string uri(const std::string &image) const {
    return "cachet+unix:///" + image + "?socket=" + socket_path();
  }

  // Has it listen for TLS on a port of this host, too, which is returned.
  int ListenForTls();

  // Starts a daemon with all that was kept, and waits until it is ready.
  void Start(const std::vector<std::string> &args);
  // Ends it by a signal, and waits for its end.
  void Stop(int signal);
  DaemonProcess &daemon() { return *daemon_; }

  // The descriptors that are kept under a name, this object's own; those that
  // are of memory by that name, if there is one.
  std::vector<int> Kept(const std::string &name,
                        const std::string &memory = "");
  size_t n_kept();
  std::vector<std::string> names();
  // Loses those of a name.
  void Lose(const std::string &name);

  // While it is deaf it reads nothing that the daemon sends.
  void SetDeaf(bool deaf);

private:
  void Listen();
  void Hear();
  void Heed(const std::string &text, const std::vector<int> &fds);
  void Remove(const std::string &name);

  TempDir dir_;
  int listen_fd_, tls_fd_ = -1, notify_fd_, stop_fd_;
  std::unique_ptr<DaemonProcess> daemon_;
  std::mutex mutex_;
  bool deaf_ = false;                             // under mutex_
  std::vector<std::pair<std::string, int>> kept_; // under mutex_
  std::thread listener_;
};

#endif

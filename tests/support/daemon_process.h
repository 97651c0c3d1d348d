// A cachetd of its own process, for tests; and files for it to serve.
#ifndef TESTS_SUPPORT_DAEMON_PROCESS_H
#define TESTS_SUPPORT_DAEMON_PROCESS_H

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

// A directory that is gone with the object.
class TempDir {
public:
  TempDir();
  ~TempDir();
  const std::string &path() const { return path_; }
  std::string operator/(const std::string &name) const {
    return path_ + "/" + name;
  }

private:
  std::string path_;
};

// Writes a file of `size` bytes that follow from `seed`; returns them.
std::vector<uint8_t> WriteRandomFile(const std::string &path, uint64_t size,
                                     uint64_t seed);

// Gives the file a stamp of which one can see that its clock is fine: a version
// of the file is settled a tick later, and not two seconds.
void StampFinely(const std::string &path);

// The seed of a test's random numbers: $TEST_SEED, else one of this moment.
// Printed, so that a failure can be repeated.
uint64_t TestSeed();

// What a daemon inherits beside what the test itself has.
struct Inheritance {
  std::vector<std::string> environment; // NAME=VALUE; a NAME alone is not set
  std::vector<int> fds;                 // as systemd passes them: from 3 on,
  std::string fd_names;                 // by these names, with : between them
};

// It makes no thread, so that a test may fork readers beside it: what a thread
// holds at that moment, the allocator's lock for one, the child holds for ever.
// The log is read when a test asks for it; the pipe has room for 1 MiB.
class DaemonProcess {
public:
  // Starts bazel-bin/daemon/cachetd with `args`, and without the configuration
  // of this machine unless they name one, and waits until it is ready,
  // or has exited, or has no standard error.  `before_exec` runs in the new
  // process, to change what the daemon inherits beside that.  If the test has
  // threads it must not allocate: what they held, it cannot have.
  explicit DaemonProcess(
      const std::vector<std::string> &args,
      const std::function<void()> &before_exec = [] {},
      const Inheritance &inheritance = {});
  ~DaemonProcess(); // kills it if it is still there

  bool ready() const { return ready_; }
  pid_t pid() const { return pid_; }
  std::string log() const; // what it has written to standard error so far

  // How often the log says something; and waits until it does `n` times, or
  // the daemon has ended.
  size_t CountInLog(const std::string &text) const;
  void AwaitLog(const std::string &text, size_t n = 1) const;

  void Kill(int signal);
  // Its exit status, or 128 + the signal that ended it.  Waits for it.  One
  // that did what its sandbox forbids fails the test.
  int Wait();

  // Bytes that all its memfds have allocated, by fstat.
  uint64_t MemfdBytes() const;
  // Resident memory that no file backs, in bytes.
  uint64_t AnonymousBytes() const;
  int n_fds() const;
  // Where /proc/PID/`name` leads to.
  std::string Link(const std::string &name) const;
  // What /proc/PID/status says behind `key`.
  std::string Status(const std::string &key) const;

  // A TCP port that is kept free for a server of this test.
  static int FreePort();
  // The path of a file of the tree, in the runfiles.
  static std::string Runfile(const std::string &path);

private:
  void ReadLog() const;
  bool AwaitOutput() const;

  pid_t pid_ = -1;
  bool ready_ = false;
  int status_ = -1;
  int log_fd_ = -1;          // a pipe's end, which does not block
  mutable std::mutex mutex_; // of the two below
  mutable std::string log_;
  mutable bool log_ended_ = false;
};

#endif

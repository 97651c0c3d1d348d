// NBD servers: those of packages, each a process of its own; and one that does
// what a test says, which no server of a package would.
#ifndef TESTS_SUPPORT_NBD_SERVER_H
#define TESTS_SUPPORT_NBD_SERVER_H

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

// nbdkit, qemu-nbd or another program that listens where it is told.
class NbdServer {
public:
  // Starts it, and waits until it listens: on the Unix socket of that path,
  // or, if it begins with no '/', on that port of 127.0.0.1.
  NbdServer(const std::vector<std::string> &command, const std::string &where);
  ~NbdServer(); // kills it if it is still there

  void Stop(); // and waits until none of its threads runs any more
  void Continue();
  void Kill(); // and waits for its end

private:
  pid_t pid_ = -1;
};

// Speaks the fixed newstyle handshake and structured replies.  Each connection
// has a thread.
class FakeNbd {
public:
  struct Request {
    uint64_t cookie, offset;
    uint32_t len;
  };

  // What it says of its export; may be changed between connections.
  struct Export {
    uint64_t size = 1 << 20;
    bool multi_conn = false;
    std::string name;        // if not empty, it tells it
    bool has_status = false; // it can be asked which ranges are zeros
    // Not NULL: it tells of it for ever, and sets this when nobody listens.
    std::atomic<bool> *is_endless = nullptr;
  };

  // A connection, for a handler.
  class Peer {
  public:
    explicit Peer(int fd) : fd_(fd) {}
    bool Send(const std::string &bytes); // false: nobody listens
    // A chunk of a structured reply, with `payload`.
    void Chunk(const Request &r, uint16_t type, const std::string &payload,
               bool is_last);
    // An answer which ranges are zeros: lengths and flags.
    void Extents(const Request &r, const std::vector<uint32_t> &extents,
                 uint32_t context = kContext);
    // Bytes of the export from `offset` on, as a chunk.
    void Data(const Request &r, uint64_t offset, const std::string &bytes,
              bool is_last);
    void Done(const Request &r);
    bool Recv(void *to, size_t len);

  private:
    int fd_;
  };

  // Called for each read, on the connection's thread.  False: hang up.
  using Handler = std::function<bool(Peer *, const Request &)>;
  static constexpr uint32_t kContext = 5; // its number of base:allocation

  // `status` is called for each question which ranges are zeros.
  FakeNbd(const std::string &path, Handler handler, Handler status = nullptr);
  ~FakeNbd();

  void SetExport(const Export &e);
  void HangUp(); // on all clients
  int n_connections() const { return n_connections_; }

  static std::string Big(uint64_t value, size_t bytes);
  static std::string ChunkHeader(uint64_t cookie, uint16_t type, uint32_t len,
                                 bool is_last);

private:
  void Accept();
  void Serve(int fd);
  bool ShakeHands(Peer *peer);

  const Handler handler_, status_;
  std::mutex mutex_; // of the three below
  Export export_;
  std::vector<std::thread> threads_;
  std::vector<int> fds_;
  std::atomic<int> n_connections_{0};
  int listen_fd_;
  std::thread accept_;
};

#endif

// A client that speaks the protocol by hand, and may speak it badly: it sends
// whatever bytes it is told to and shows every frame that comes back.
#ifndef TESTS_SUPPORT_WIRE_CLIENT_H
#define TESTS_SUPPORT_WIRE_CLIENT_H

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "proto/frame.h"
#include "proto/tls.h"

// One frame of the daemon, unpacked.  What its message does not have is zero.
struct Frame {
  // CACHET__WIRE__MESSAGE__BODY__NOT_SET: the daemon closed, or said nothing
  // for far too long.
  int kind = CACHET__WIRE__MESSAGE__BODY__NOT_SET;
  uint64_t id = 0;
  uint64_t epoch = 0;         // Data, Done, Invalidated, and that of `info`
  uint64_t invalidations = 0; // Opened, Changed, Invalidated
  std::string identity;       // Opened, Changed
  uint32_t range = 0;         // Data
  uint64_t offset = 0;
  bool last = false;
  std::vector<uint8_t> payload;
  int status = 0; // Error
  uint32_t sys_errno = 0;
  std::string message;
  uint32_t image = 0; // Opened, Changed, Invalidated
  uint64_t size = 0;
  uint32_t page_size = 0;
  std::vector<std::pair<uint64_t, uint64_t>> ranges; // Invalidated
  std::vector<std::string> names;                    // Images, Stats,
  std::vector<uint64_t> sizes;                       // of each,
  std::vector<bool> unopened;                        // likewise;
  bool more = false;                                 // there are more
  std::map<std::string, uint64_t> stats;             // Stats, of the daemon
  uint32_t max_requests = 0;                         // Welcome
  bool share = false;                                // Welcome
  bool change = false;                               // Welcome
  uint64_t resident = 0;                             // Data
  uint32_t range_capacity = 0;                       // Attached, Grown
  uint32_t page_slots = 0;                           // Attached, Grown
  uint64_t table = 0;                                // Attached
  uint32_t read_ahead = 0;                           // Attached

  bool is_data() const { return kind == CACHET__WIRE__MESSAGE__BODY_DATA; }
  bool is_error() const { return kind == CACHET__WIRE__MESSAGE__BODY_ERROR; }
  bool is_done() const { return kind == CACHET__WIRE__MESSAGE__BODY_DONE; }
  bool is_end() const { return kind == CACHET__WIRE__MESSAGE__BODY__NOT_SET; }
};

// What came of a Read: its pieces put together, or an error.
struct Answer {
  int status = 0; // of the Error, 1 if the daemon closed
  std::vector<uint8_t> bytes;
  std::vector<uint64_t> epochs; // of each piece
};

using Ranges = std::vector<std::pair<uint64_t, uint64_t>>;

class WireClient {
public:
  WireClient() = default;
  ~WireClient();
  WireClient(WireClient &&other) noexcept;
  WireClient &operator=(WireClient &&other) noexcept;
  WireClient(const WireClient &) = delete;

  static WireClient Unix(const std::string &path);
  static WireClient Tcp(int port);
  // The same through TLS.  The handshake is the first thing that it waits for.
  static WireClient Tls(int port, tls_context *context);
  bool connected() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  // What went wrong with TLS.
  std::string tls_why() const { return ::tls_why(tls_->end); }

  // Bytes as they are; false if the daemon no longer takes them.
  bool SendRaw(const std::vector<uint8_t> &bytes);
  // A frame around a message, with lengths as they should be.
  bool SendMessage(const wire_message &msg);
  static std::vector<uint8_t> Pack(const wire_message &msg);

  bool SendHello(uint64_t id = 1, uint32_t min = 1, uint32_t max = 1);
  bool SendOpen(uint64_t id, const std::string &name);
  bool SendRead(uint64_t id, uint32_t image, const Ranges &ranges,
                uint64_t epoch = 0, bool in_place = false);
  bool SendAttach(uint64_t id, uint32_t image, uint64_t replaces = 0,
                  uint32_t page_slots = 0, uint32_t range_capacity = 0);
  bool SendGrow(uint64_t id, uint64_t table, uint32_t page_slots,
                uint32_t range_capacity);
  bool SendWarm(uint64_t id, uint32_t image, const Ranges &ranges);
  bool SendInvalidate(uint64_t id, uint32_t image, uint64_t offset,
                      uint64_t length);
  bool SendAdd(uint64_t id, const std::string &name, const std::string &source);
  bool SendRemove(uint64_t id, const std::string &name);
  bool SendList(uint64_t id, const std::string &after = "");
  bool SendGetStats(uint64_t id);
  bool SendDrain(uint64_t id, int timeout_ms);
  void ShutdownWrites();
  void Close();

  // The next frame.
  Frame Receive();
  // The next frame that is no notice; notices are kept in notices().
  Frame ReceiveAnswer();
  std::vector<Frame> &notices() { return notices_; }
  // The descriptors that came so far; the caller's.
  std::vector<int> TakeFds() { return std::exchange(fds_, {}); }
  // Whether the daemon closes; frames that come before are thrown away.
  bool AwaitClose();

  // Hello and Open, with their answers; the latter.
  Frame Start(const std::string &image = "");
  // A Read and all of its answer.
  Answer Read(uint32_t image, uint64_t offset, uint64_t length);
  // All of the answer to a Read that was sent.
  Answer ReceiveRead(uint64_t id);
  std::map<std::string, uint64_t> Stats();

private:
  // TLS over a socket, which is the client's.
  struct TlsEnd {
    ~TlsEnd() { tls_free(end); }
    int fd = -1;
    tls *end = nullptr;
  };

  bool ReceiveBytes(void *buf, size_t len);
  // What is there, waiting for it: 0 or less at the end, or after far too long.
  ssize_t ReceiveSome(void *buf, size_t len);
  ssize_t ReceiveTls(void *buf, size_t len);
  ssize_t SendSome(const uint8_t *bytes, size_t len);

  int fd_ = -1;
  std::unique_ptr<TlsEnd> tls_;
  uint64_t next_id_ = 1000000;
  std::vector<Frame> notices_;
  std::vector<int> fds_;
};

#endif

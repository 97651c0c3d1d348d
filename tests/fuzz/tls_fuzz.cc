// TLS over hostile bytes, and over a transport that does whatever one may do.
// The first byte says which side is fuzzed:
//
//   0   a server, to which the rest comes
//   1   a client, to which the rest comes
//   2   both, after a handshake; each byte of the rest is what happens next:
//       somebody sends, so many bytes go over, one of them is changed, or the
//       connection is cut
//
// Whatever comes, nothing is handed out before the handshake is complete, the
// account of memory is within what a connection may take, and an error stays.
// What is handed out is what was sent, in order, as far as nobody changed it;
// the end is not said of a stream that was cut.
#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "proto/tls.h"
#include "tests/support/certificates.h"

namespace {

using Bytes = std::vector<uint8_t>;

void Require(bool right) {
  if (!right)
    abort();
}

struct Pipe {
  Bytes bytes;     // that are on their way
  size_t here = 0; // of them, those that have arrived
  bool is_cut = false;
};

struct End {
  End(Pipe *from, Pipe *to) : in(from), out(to) {}
  ~End() { tls_free(t); }

  Pipe *in, *out;
  tls *t = nullptr;
  Bytes to_send, sent, received;
  bool has_failed = false;

  static ssize_t Recv(void *transport, void *to, size_t len, stream_fds *) {
    Pipe *in = static_cast<End *>(transport)->in;
    size_t n = std::min(len, in->here);
    if (!n)
      return in->is_cut && in->bytes.empty() ? 0 : -EAGAIN;
    memcpy(to, in->bytes.data(), n);
    in->bytes.erase(in->bytes.begin(), in->bytes.begin() + ssize_t(n));
    in->here -= n;
    return ssize_t(n);
  }

  static ssize_t Send(void *transport, const iovec *iov, size_t, const int *,
                      unsigned) {
    Pipe *out = static_cast<End *>(transport)->out;
    auto *from = static_cast<const uint8_t *>(iov->iov_base);
    size_t n = std::min<size_t>(iov->iov_len, 40000 - out->bytes.size());
    out->bytes.insert(out->bytes.end(), from, from + n);
    return n ? ssize_t(n) : -EAGAIN;
  }

  void SendSome(size_t n) {
    for (size_t i = 0; i < n; i++)
      to_send.push_back(uint8_t(sent.size() + to_send.size()));
    iovec iov = {to_send.data(), to_send.size()};
    ssize_t r = to_send.empty() ? 0 : tls_io.send(t, &iov, 1, nullptr, 0);
    if (r > 0) {
      sent.insert(sent.end(), to_send.begin(), to_send.begin() + r);
      to_send.erase(to_send.begin(), to_send.begin() + r);
    }
  }

  // 0 at the end; and bytes are added to `received`.
  ssize_t ReceiveSome() {
    uint8_t bytes[5000];
    stream_fds came = {};
    ssize_t n = tls_io.recv(t, bytes, sizeof bytes, &came);
    Require(n <= ssize_t(sizeof bytes));
    Require(n <= 0 || (tls_is_open(t) && !has_failed));
    Require(tls_held(t) < 512 << 10);
    if (n > 0)
      received.insert(received.end(), bytes, bytes + n);
    if (n < 0 && n != -EAGAIN) {
      Require(tls_why(t)[0] != '\0');
      has_failed = true;
    }
    Require(!has_failed || (n < 0 && n != -EAGAIN));
    return n;
  }
};

const stream_io kBelow = {End::Recv, End::Send, [](void *, int, bool) {},
                          nullptr, nullptr};

tls_context *Context(bool is_server) {
  static Certificates certificates;
  static std::string server = certificates.Make("server", "DNS:host");
  static std::string ca = certificates.ca();
  tls_files files = {server.c_str(), nullptr, ca.c_str()};
  tls_context *context = nullptr;
  char why[TLS_WHY_LEN];
  Require((is_server ? tls_server(&files, true, &context, why)
                     : tls_client(&files, "host", &context, why)) == 0);
  return context;
}

void Make(End *end, bool is_server) {
  static tls_context *contexts[] = {Context(false), Context(true)};
  Require(tls_new(contexts[is_server], &kBelow, end, &end->t) == 0);
}

void RunAlone(bool is_server, const uint8_t *data, size_t size) {
  Pipe in, out;
  End end(&in, &out);
  Make(&end, is_server);
  in.bytes.assign(data, data + size);
  in.is_cut = true;
  while (in.here < in.bytes.size()) {
    in.here = std::min(in.bytes.size(), in.here + 1000);
    size_t before = in.bytes.size();
    if (end.ReceiveSome() != -EAGAIN || in.bytes.size() == before)
      break;
    out.bytes.clear();
  }
  Require(end.received.empty());
}

// What was handed out is the beginning of what was sent.
void Compare(const End &from, const End &to) {
  Bytes all = from.sent;
  all.insert(all.end(), from.to_send.begin(), from.to_send.end());
  Require(to.received.size() <= all.size() &&
          std::equal(to.received.begin(), to.received.end(), all.begin()));
}

void RunBoth(const uint8_t *data, size_t size) {
  Pipe up, down;
  End server(&up, &down), client(&down, &up);
  Make(&server, true);
  Make(&client, false);
  for (int i = 0; i < 4; i++) {
    tls_handshake(client.t);
    up.here = up.bytes.size();
    tls_handshake(server.t);
    down.here = down.bytes.size();
  }
  Require(tls_is_open(server.t) && tls_is_open(client.t));
  bool ended[2] = {false, false};
  for (size_t i = 0; i < size; i++) {
    End &end = data[i] & 1 ? server : client;
    size_t n = data[i] >> 3;
    switch (data[i] >> 1 & 3) {
    case 0:
      if (!ended[data[i] & 1])
        end.SendSome(n * n * n);
      break;
    case 1:
      end.in->here = std::min(end.in->bytes.size(), end.in->here + n * n * n);
      Require(end.ReceiveSome() != 0 || ended[!(data[i] & 1)]);
      break;
    case 2:
      if (!end.out->bytes.empty())
        end.out->bytes[n * 97 % end.out->bytes.size()] ^= uint8_t(n | 1);
      break;
    case 3:
      if (n & 1) {
        end.out->is_cut = true;
      } else if (end.to_send.empty()) {
        tls_io.end(end.t);
        ended[data[i] & 1] = true;
      }
      break;
    }
    Compare(server, client);
    Compare(client, server);
  }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!size || size > 100000)
    return 0;
  if (data[0] == 2)
    RunBoth(data + 1, std::min<size_t>(size - 1, 2000));
  else
    RunAlone(data[0] == 0, data + 1, size - 1);
  return 0;
}

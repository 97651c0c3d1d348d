// What an NBD server may send, from its first byte on, through libnbd.
//
// The first byte says how long reads are and where they begin; the rest is the
// server's, which hangs up behind it.  Reads into memory of zeros and into
// memory of ones have to end alike: what a read that succeeded has not from the
// server, it has from its memory.
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include <event2/event.h>
#include <libnbd.h>

#include "base/deadline.h"
#include "cache/source.h"
#include "source/nbd_dial.h"
#include "source/nbd_link.h"

namespace {

constexpr size_t kMaxInput = 64 << 10; // a socket takes so much at once

void Require(bool right) {
  if (!right)
    abort();
}

struct Read {
  nbd_read read; // the first, for the cast
  std::vector<uint8_t> bytes;
  int n_done;
};

using Reads = std::vector<std::unique_ptr<Read>>;

struct Link {
  nbd_link link; // likewise
  bool is_lost;
  uint64_t told_to; // the end of what it was told
};

const nbd_link_calls kCalls = {
    [](nbd_link *l) { reinterpret_cast<Link *>(l)->is_lost = true; },
    [](nbd_link *l, uint64_t begin, uint64_t end, bool) {
      auto *link = reinterpret_cast<Link *>(l);
      Require(begin < end && end <= l->size && begin >= link->told_to);
      link->told_to = end;
    },
};

// A socket from which exactly these bytes come.
int SocketWith(const uint8_t *data, size_t size) {
  int ends[2];
  Require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
  Require(send(ends[1], data, size, MSG_DONTWAIT) == ssize_t(size));
  shutdown(ends[1], SHUT_WR);
  // Its other end stays open, so that what libnbd sends finds a place.
  static int other_end = -1;
  if (other_end >= 0)
    close(other_end);
  other_end = ends[1];
  return ends[0];
}

// A handle that takes requests, or NULL.
nbd_handle *Connect(const uint8_t *data, size_t size) {
  char uri[] = "nbd://localhost";
  const nbd_target target = {uri, nullptr, nullptr, 1000, false};
  int status;
  source_fault fault;
  nbd_handle *h = nbd_dial_handle(&target, &status, &fault);
  Require(h != nullptr);
  int fd = SocketWith(data, size);
  if (nbd_aio_connect_socket(h, fd) == 0 &&
      (status = nbd_dial_shake_hands(h, deadline_after(60000), &fault)) == 0)
    return h;
  Require(status <= 0 && status != -ETIMEDOUT);
  nbd_close(h);
  return nullptr;
}

void Begin(nbd_link *l, uint8_t layout, uint8_t memory, Reads *reads) {
  for (uint64_t i = 0; i < 3; i++) {
    uint64_t offset = std::min<uint64_t>(l->size, i * (layout >> 4) * 500);
    size_t len =
        size_t(std::min<uint64_t>(l->size - offset, (layout & 15) * 300 + 1));
    if (len == 0)
      continue;
    reads->emplace_back(new Read{{}, std::vector<uint8_t>(len, memory), 0});
    nbd_read *r = &reads->back()->read;
    r->offset = offset;
    r->buf = reads->back()->bytes.data();
    r->len = len;
    r->done = [](nbd_read *ended) {
      reinterpret_cast<Read *>(ended)->n_done++;
    };
    nbd_link_read(l, r);
  }
}

Reads Run(uint8_t layout, const uint8_t *data, size_t size, uint8_t memory) {
  Reads reads;
  nbd_handle *h = Connect(data, size);
  if (!h)
    return reads;
  static event_base *base = event_base_new();
  Link link = {};
  if (nbd_link_init(&link.link, base, h, &kCalls) < 0)
    return reads;
  Begin(&link.link, layout, memory, &reads);
  if (nbd_link_may_ask(&link.link) && link.link.size > 0)
    nbd_link_ask(&link.link, 0);
  while (!link.is_lost)
    event_base_loop(base, EVLOOP_ONCE);
  for (const auto &r : reads)
    Require(r->n_done == 1 && r->read.status <= SOURCE_ZEROS);
  return reads;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1 || size > kMaxInput)
    return 0;
  Reads zeros = Run(data[0], data + 1, size - 1, 0x00);
  Reads ones = Run(data[0], data + 1, size - 1, 0xff);
  Require(zeros.size() == ones.size());
  for (size_t i = 0; i < zeros.size(); i++) {
    Require(zeros[i]->read.status == ones[i]->read.status);
    Require(zeros[i]->read.status < 0 || zeros[i]->bytes == ones[i]->bytes);
  }
  return 0;
}

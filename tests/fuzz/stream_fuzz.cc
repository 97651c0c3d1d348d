// A stream over hostile bytes, and over a transport that does whatever one may
// do.  The first byte says how many bytes of script follow; a byte of script is
// what happens next: how much comes or goes out, errors, descriptors, and when
// the buffer is taken back.  The rest is what comes.
//
// Whatever the script, the stream says what frame_peek() and frame_unpack() say
// of the bytes in one piece, as far as it gets; what it takes packs to a frame
// again, which goes out whole and in order; it holds no more than the lent
// buffer and what is unsent; and each descriptor is closed once.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <utility>
#include <vector>

#include "proto/stream.h"
#include "tests/support/fake_transport.h"

namespace {

using Bytes = std::vector<uint8_t>;

constexpr frame_limits kLimits = {FRAME_MAX_MESSAGE, 10000};
constexpr size_t kPiece = 512; // in which memory is kept

void Require(bool right) {
  if (!right)
    abort();
}

frame_arena *Arena() {
  static frame_arena *arena = frame_arena_new(FRAME_ARENA_LEN);
  return arena;
}

// Not the same bytes (protobuf has many encodings), but a frame again.
Bytes Pack(const wire_message *msg, uint32_t payload_len) {
  Bytes packed(frame_packed_len(msg));
  frame_pack(msg, payload_len, packed.data());
  const frame_limits any = {UINT32_MAX, UINT32_MAX};
  frame_header same;
  Require(frame_peek(packed.data(), packed.size(), &any, &same) == FRAME_OK &&
          same.message_len == packed.size() - FRAME_HEADER_LEN &&
          same.payload_len == payload_len);
  return packed;
}

// A payload that its reader drops reads as zeros.
bool Drops(const wire_message *msg) { return msg->id & 1; }

// Messages, each packed, and payloads that are complete.
struct Contents {
  std::vector<Bytes> parts;
  stream_next end = STREAM_MORE;
};

// In one piece.
Contents Decode(const uint8_t *data, size_t size) {
  Contents out;
  for (;;) {
    frame_header header;
    frame_outcome outcome = frame_peek(data, size, &kLimits, &header);
    if (outcome == FRAME_TOO_LONG)
      out.end = STREAM_TOO_LONG;
    if (outcome != FRAME_OK)
      return out;
    Require(header.message_len <= kLimits.max_message &&
            header.payload_len <= kLimits.max_payload);
    data += FRAME_HEADER_LEN;
    size -= FRAME_HEADER_LEN;
    if (header.message_len > size)
      return out;
    // A copy of its own, so that a read past the end is seen.
    Bytes bytes(data, data + header.message_len);
    wire_message *msg;
    if (frame_unpack(Arena(), bytes.data(), bytes.size(), &msg) != FRAME_OK) {
      out.end = STREAM_BAD;
      return out;
    }
    data += header.message_len;
    size -= header.message_len;
    out.parts.push_back(Pack(msg, header.payload_len));
    if (header.payload_len > size)
      return out;
    if (header.payload_len && Drops(msg))
      out.parts.emplace_back(header.payload_len);
    else if (header.payload_len)
      out.parts.emplace_back(data, data + header.payload_len);
    data += header.payload_len;
    size -= header.payload_len;
  }
}

class Run {
public:
  Run(const uint8_t *script, size_t script_len, Bytes in)
      : script_(script), script_end_(script + script_len),
        buffer_(FRAME_HEADER_LEN + kLimits.max_message) {
    transport_.in = std::move(in);
    transport_.ends = true;
    stream_init(&s_, FakeTransport::Io(), &transport_, &kLimits);
    Lend();
  }

  Contents Go() {
    while (Step())
      ;
    while (stream_flush(&s_) == STREAM_KEPT)
      ;
    Require(stream_unsent(&s_) == 0 && transport_.out == sent_);
    stream_fini(&s_);
    Require(transport_.n_open() == 0 && stream_held(&s_) == 0);
    return std::move(got_);
  }

  bool was_stray() const { return was_stray_; }

private:
  uint8_t Next(uint8_t otherwise) {
    return script_ < script_end_ ? *script_++ : otherwise;
  }

  void Lend() { stream_lend(&s_, buffer_.data(), buffer_.size()); }

  // False at the end.
  bool Step() {
    uint8_t next = Next(0xf8); // all at once
    FakeTransport::Step step;
    size_t n = next >> 3;
    switch (next & 7) {
    case 0:
      step.most = n < 31 ? n + 1 : SIZE_MAX;
      break;
    case 1:
      step.most = 97 * n + 1;
      break;
    case 2:
      step.error = n & 1 ? EINTR : EAGAIN;
      break;
    case 3:
      step.most = 1;
      step.n_fds = unsigned(n < 7 ? n : n * 8);
      step.cut = n & 1;
      break;
    case 4:
      step.stray = n == 31;
      break;
    case 5:
      KeepInput();
      return true;
    case 6:
      stream_want_fds(&s_, n & 1);
      return true;
    default:
      TakeFds();
      return true;
    }
    transport_.to_recv = {step};
    int r = stream_receive(&s_, SIZE_MAX);
    was_stray_ = r == STREAM_STRAY;
    if (r == STREAM_NOTHING)
      return step.error == EAGAIN;
    Require(r >= 0);
    return r == STREAM_CAME && Look();
  }

  void KeepInput() {
    Require(stream_keep_input(&s_, SIZE_MAX) == 0);
    Require(stream_held(&s_) <= buffer_.size() + sent_.size() + 2 * kPiece);
    std::fill(buffer_.begin(), buffer_.end(), uint8_t(0xee));
    Lend();
  }

  void TakeFds() {
    int fds[STREAM_MAX_FDS];
    bool cut;
    for (unsigned n = stream_take_fds(&s_, fds, &cut); n > 0; n--)
      transport_.Close(fds[n - 1]);
  }

  // Looks at all that is here; false if nothing can follow.
  bool Look() {
    for (;;) {
      frame_header header;
      wire_message *msg;
      bool is_missing = stream_missing(&s_) > 0;
      stream_next next = stream_take(&s_, Arena(), &header, &msg);
      Require(is_missing == (next == STREAM_MORE));
      if (next == STREAM_MESSAGE) {
        got_.parts.push_back(Pack(msg, header.payload_len));
        Send(got_.parts.back());
        payload_.assign(header.payload_len, 0);
        payload_.shrink_to_fit();
        if (header.payload_len && !Drops(msg))
          stream_place(&s_, payload_.data());
      } else if (next == STREAM_PAYLOAD) {
        got_.parts.push_back(payload_);
        Send(payload_);
      } else {
        got_.end = next;
        return next == STREAM_MORE;
      }
    }
  }

  void Send(const Bytes &bytes) {
    static const int errors[] = {EAGAIN, EINTR, ENOBUFS};
    uint8_t next = Next(0xff);
    FakeTransport::Step step;
    if (next < 3)
      step.error = errors[next];
    else if (next < 0xf0)
      step.most = next;
    transport_.to_send = {step};
    if (next & 1 && !stream_unsent(&s_) && !stream_has_fds(&s_)) {
      int fds[STREAM_MAX_FDS];
      for (int &fd : fds)
        fd = transport_.NewFd();
      stream_give_fds(&s_, fds, STREAM_MAX_FDS);
    }
    size_t half = bytes.size() / 2;
    auto *at = const_cast<uint8_t *>(bytes.data());
    iovec iovs[2] = {{at, half}, {at + half, bytes.size() - half}};
    Require(stream_send(&s_, iovs, 2, SIZE_MAX) >= 0);
    sent_.insert(sent_.end(), bytes.begin(), bytes.end());
  }

  const uint8_t *script_, *script_end_;
  FakeTransport transport_;
  stream s_;
  Bytes buffer_, payload_, sent_;
  bool was_stray_ = false;
  Contents got_;
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!size)
    return 0;
  size_t script_len = std::min<size_t>(data[0], size - 1);
  const uint8_t *in = data + 1 + script_len;
  size -= 1 + script_len;
  Contents expected = Decode(in, size);
  Run run(data + 1, script_len, Bytes(in, in + size));
  Contents got = run.Go();
  if (run.was_stray()) {
    Require(got.parts.size() <= expected.parts.size());
    expected.parts.resize(got.parts.size());
  } else {
    Require(got.end == expected.end);
  }
  Require(got.parts == expected.parts);
  return 0;
}

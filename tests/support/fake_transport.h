// A transport for a stream, without a socket: what each of its calls does is
// scripted, and its descriptors are numbers that it keeps count of.
#ifndef TESTS_SUPPORT_FAKE_TRANSPORT_H
#define TESTS_SUPPORT_FAKE_TRANSPORT_H

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <set>
#include <vector>

#include "proto/stream.h"

class FakeTransport {
public:
  // One call of recv() or send().
  struct Step {
    size_t most = SIZE_MAX; // bytes that it moves
    int error = 0;          // else: an errno
    unsigned n_fds = 0;     // that come along with the bytes
    bool cut = false, stray = false;
  };

  static const stream_io *Io() {
    static const stream_io io = {Recv, Send, CloseFd, nullptr, nullptr};
    return &io;
  }

  int NewFd() {
    open_.insert(next_fd_);
    return next_fd_++;
  }
  // What has been handed over is closed by its receiver.
  void Close(int fd) {
    if (!open_.erase(fd))
      abort(); // it was closed before
  }
  size_t n_open() const { return open_.size(); }

  std::vector<uint8_t> in;  // what comes; then the end, if `ends`
  bool ends = false;        // else nothing more for now
  std::deque<Step> to_recv; // what is left of the script; then all at once
  std::deque<Step> to_send;
  std::vector<uint8_t> out;       // what has gone out
  std::vector<size_t> fds_out_at; // with which bytes descriptors have
  unsigned n_fds_out = 0;         // how many
  const void *recv_to = nullptr;  // where the last bytes went
  size_t n_received = 0;

private:
  static Step Next(std::deque<Step> *steps) {
    Step step;
    if (!steps->empty()) {
      step = steps->front();
      steps->pop_front();
    }
    return step;
  }

  static ssize_t Recv(void *transport, void *bytes, size_t len,
                      stream_fds *came) {
    auto *t = static_cast<FakeTransport *>(transport);
    Step step = Next(&t->to_recv);
    came->stray = step.stray;
    if (step.error || step.stray)
      return -(step.error ? step.error : EPROTO);
    size_t n = std::min({len, step.most, t->in.size() - t->n_received});
    if (!n)
      return t->ends && t->n_received == t->in.size() ? 0 : -EAGAIN;
    memcpy(bytes, &t->in[t->n_received], n);
    t->n_received += n;
    t->recv_to = bytes;
    while (came->n < step.n_fds)
      came->fds[came->n++] = t->NewFd();
    came->cut = step.cut;
    return static_cast<ssize_t>(n);
  }

  static ssize_t Send(void *transport, const iovec *iovs, size_t n_iovs,
                      const int *, unsigned n_fds) {
    auto *t = static_cast<FakeTransport *>(transport);
    Step step = Next(&t->to_send);
    if (step.error)
      return -step.error;
    size_t n = 0;
    if (n_fds && step.most) {
      t->fds_out_at.push_back(t->out.size());
      t->n_fds_out += n_fds;
    }
    for (size_t i = 0; i < n_iovs; i++) {
      auto *bytes = static_cast<const uint8_t *>(iovs[i].iov_base);
      size_t more = std::min(iovs[i].iov_len, step.most - n);
      t->out.insert(t->out.end(), bytes, bytes + more);
      n += more;
    }
    return n ? static_cast<ssize_t>(n) : -EAGAIN;
  }

  static void CloseFd(void *transport, int fd, bool) {
    static_cast<FakeTransport *>(transport)->Close(fd);
  }

  std::set<int> open_;
  int next_fd_ = 1000;
};

#endif // TESTS_SUPPORT_FAKE_TRANSPORT_H

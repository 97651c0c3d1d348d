#include "tests/support/fake_source.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <map>
#include <thread>
#include <utility>

struct FakeSource::State {
  mutable std::mutex mutex;
  std::condition_variable changed;
  uint64_t size = 0, version = 1, n_bytes = 0, worth = 0;
  uint64_t changed_at = 1; // the version that sources must be opened on
  int n_reads = 0, n_closed = 0, n_at_gate = 0;
  uint64_t shut_from = UINT64_MAX; // reads that wait; UINT64_MAX: none
  bool look_shut = false;
  source_fetch_size fetch_size = {};
  int n_looks = 0, n_looks_at_gate = 0;
  int answered_try = INT_MAX;
  int fail_error = 0, fail_left = 0, reopen_error = 0;
  std::map<uint64_t, int> bad, n_tries, n_rings;
  uint64_t zeros_from = 0, zeros_to = 0; // as it believes,
  uint64_t next_from = 0, next_to = 0;   // and as they are
  bool remembers = false, hides_zeros = false;
  size_t content_len = 0;
  int n_forgotten = 0;
  std::function<void()> on_forget;
  std::mutex news; // of the two below; listeners are called under it
  source *listened = nullptr;
  source_listener *listener = nullptr;
  const source_ops *ops = nullptr;  // fixed
  std::vector<std::thread> callers; // those that call back
};

namespace {

uint64_t Mix(uint64_t n) {
  n ^= n >> 33;
  n *= 0xff51afd7ed558ccdull;
  n ^= n >> 33;
  return n;
}

} // namespace

struct FakeOps {
  struct Opened {
    source base;
    std::shared_ptr<FakeSource::State> state;
    uint64_t version;
  };

  // Only the one that is listened to last can take its listener away.
  static void Listen(source *src, source_listener *l) {
    FakeSource::State &s = *Of(src)->state;
    std::unique_lock<std::mutex> lock(s.news);
    if (!l && s.listened != src)
      return;
    s.listened = src;
    s.listener = l;
  }

  static Opened *Of(source *src) { return reinterpret_cast<Opened *>(src); }

  static int Read(source *src, uint64_t offset, void *buf, size_t len) {
    Opened *o = Of(src);
    FakeSource::State &s = *o->state;
    std::unique_lock<std::mutex> lock(s.mutex);
    uint64_t version = s.version;
    s.n_reads++;
    s.n_at_gate++;
    s.changed.notify_all();
    s.changed.wait(lock, [&] { return offset < s.shut_from; });
    s.n_at_gate--;
    if (s.fail_left) {
      s.fail_left -= s.fail_left > 0;
      return -s.fail_error;
    }
    auto bad = s.bad.lower_bound(offset);
    if (bad != s.bad.end() && bad->first < offset + len)
      return -bad->second;
    uint64_t from = std::max(offset, s.zeros_from);
    uint64_t to = std::min(offset + len, s.zeros_to);
    bool all = from == offset && to == offset + len && !s.hides_zeros;
    s.n_bytes += all ? 0 : len;
    lock.unlock();
    if (!all)
      FakeSource::Fill(buf, offset, len, version);
    if (!all && from < to)
      memset(static_cast<char *>(buf) + (from - offset), 0, to - from);
    lock.lock();
    if (o->version < s.changed_at)
      return -ESTALE;
    return all ? SOURCE_ZEROS : 0;
  }

  static source_outcome Start(source *src, source_read *r) {
    FakeSource::State &s = *Of(src)->state;
    {
      std::lock_guard<std::mutex> lock(s.mutex);
      s.n_rings[r->offset] += r->ring != nullptr;
      if (++s.n_tries[r->offset] < s.answered_try)
        return SOURCE_RETRY;
    }
    r->status = Read(src, r->offset, r->buf, r->len);
    return r->status >= 0 || r->status == -ESTALE ? SOURCE_DONE : SOURCE_BLOCKS;
  }

  // The read may have ended before this returns.
  static source_outcome StartOnAThread(source *src, source_read *r) {
    FakeSource::State &s = *Of(src)->state;
    std::lock_guard<std::mutex> lock(s.mutex);
    s.n_tries[r->offset]++;
    s.n_rings[r->offset] += r->ring != nullptr;
    s.callers.emplace_back([src, r] {
      r->status = Read(src, r->offset, r->buf, r->len);
      r->done(r);
    });
    return SOURCE_PENDING;
  }

  static int Reopen(source *src, source **out) {
    Opened *o = Of(src);
    FakeSource::State &s = *o->state;
    std::unique_lock<std::mutex> lock(s.mutex);
    s.n_looks++;
    s.n_looks_at_gate++;
    s.changed.notify_all();
    s.changed.wait(lock, [&] { return !s.look_shut; });
    s.n_looks_at_gate--;
    *out = nullptr;
    if (o->state->reopen_error)
      return -o->state->reopen_error;
    if (o->version < o->state->changed_at)
      *out = Make(o->state);
    return 0;
  }

  static void Identify(source *src, source_identity *out) {
    std::lock_guard<std::mutex> lock(Of(src)->state->mutex);
    out->content_len = uint32_t(Of(src)->state->content_len);
    out->len = std::max(out->content_len, uint32_t(sizeof Of(src)->version));
    memcpy(out->bytes, &Of(src)->version, sizeof Of(src)->version);
  }

  static bool Resume(source *src, const source_identity *id) {
    return source_is_identity(src, id);
  }

  static uint64_t Worth(source *src) {
    std::lock_guard<std::mutex> lock(Of(src)->state->mutex);
    return Of(src)->state->worth;
  }

  static void Forget(source *src) {
    FakeSource::State &s = *Of(src)->state;
    if (s.on_forget)
      s.on_forget();
    std::lock_guard<std::mutex> lock(s.mutex);
    s.n_forgotten++;
    s.zeros_from = s.next_from;
    s.zeros_to = s.next_to;
  }

  static void Close(source *src) {
    Opened *o = Of(src);
    {
      std::lock_guard<std::mutex> lock(o->state->mutex);
      o->state->n_closed++;
    }
    delete o;
  }

  static source *Make(const std::shared_ptr<FakeSource::State> &state);
};

static source_ops MakeOps(decltype(source_ops::start) start,
                          decltype(source_ops::read) read) {
  source_ops ops{};
  ops.kind = "fake";
  ops.start = start;
  ops.read = read;
  ops.reopen = FakeOps::Reopen;
  ops.identify = FakeOps::Identify;
  ops.resume = FakeOps::Resume;
  ops.worth = FakeOps::Worth;
  ops.forget = FakeOps::Forget;
  ops.listen = FakeOps::Listen;
  ops.close = FakeOps::Close;
  return ops;
}

static const source_ops kEitherOps = MakeOps(FakeOps::Start, FakeOps::Read);
static const source_ops kBlockOps = MakeOps(nullptr, FakeOps::Read);
static const source_ops kCallBackOps =
    MakeOps(FakeOps::StartOnAThread, nullptr);

source *FakeOps::Make(const std::shared_ptr<FakeSource::State> &state) {
  auto *opened = new Opened{{}, state, state->version};
  opened->base.ops = state->ops;
  opened->base.size = state->size;
  return &opened->base;
}

void FakeSource::TellChanged() {
  std::unique_lock<std::mutex> lock(state_->news);
  if (state_->listener)
    state_->listener->changed(state_->listener);
}

void FakeSource::TellInvalid(uint64_t offset, uint64_t len) {
  std::unique_lock<std::mutex> lock(state_->news);
  if (state_->listener)
    state_->listener->invalid(state_->listener, offset, len);
}

const char *FakeReadsName(FakeReads reads) {
  static const char *const names[] = {"Either", "Block", "CallBack"};
  return names[int(reads)];
}

FakeSource::FakeSource(uint64_t size, FakeReads reads)
    : state_(std::make_shared<State>()) {
  state_->size = size;
  state_->ops = reads == FakeReads::kEither  ? &kEitherOps
                : reads == FakeReads::kBlock ? &kBlockOps
                                             : &kCallBackOps;
}

// Those that call back have been called for, and so come to their end.
FakeSource::~FakeSource() {
  for (std::thread &caller : state_->callers)
    caller.join();
}

source *FakeSource::Open() {
  std::lock_guard<std::mutex> lock(state_->mutex);
  source *src = FakeOps::Make(state_);
  src->fetch_size = state_->fetch_size;
  return src;
}

uint8_t FakeSource::ByteAt(uint64_t addr, uint64_t version) {
  return static_cast<uint8_t>(Mix(addr / 8 + version * 0x10001) >>
                              (addr % 8 * 8));
}

void FakeSource::Fill(void *buf, uint64_t addr, size_t len, uint64_t version) {
  auto *bytes = static_cast<uint8_t *>(buf);
  while (len > 0) {
    uint64_t word = Mix(addr / 8 + version * 0x10001) >> (addr % 8 * 8);
    size_t n = std::min(len, size_t(8 - addr % 8));
    memcpy(bytes, &word, n); // little-endian: 64-bit x86 and Arm
    bytes += n;
    addr += n;
    len -= n;
  }
}

std::vector<uint8_t> FakeSource::Bytes(uint64_t addr, size_t len,
                                       uint64_t version) {
  std::vector<uint8_t> bytes(len);
  Fill(bytes.data(), addr, len, version);
  return bytes;
}

void FakeSource::ShutGate(uint64_t from) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->shut_from = from;
}

void FakeSource::OpenGate() {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->shut_from = UINT64_MAX;
  state_->changed.notify_all();
}

void FakeSource::AwaitReadsAtGate(int n) {
  std::unique_lock<std::mutex> lock(state_->mutex);
  state_->changed.wait(lock, [&] { return state_->n_at_gate >= n; });
}

void FakeSource::ShutLookGate() {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->look_shut = true;
}

void FakeSource::OpenLookGate() {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->look_shut = false;
  state_->changed.notify_all();
}

void FakeSource::AwaitLookAtGate() {
  std::unique_lock<std::mutex> lock(state_->mutex);
  state_->changed.wait(lock, [&] { return state_->n_looks_at_gate > 0; });
}

int FakeSource::n_looks() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->n_looks;
}

void FakeSource::AnswerTry(int n) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->answered_try = n;
}

int FakeSource::n_rings(uint64_t addr) const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  auto rings = state_->n_rings.find(addr);
  return rings == state_->n_rings.end() ? 0 : rings->second;
}

int FakeSource::n_tries(uint64_t addr) const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  auto tries = state_->n_tries.find(addr);
  return tries == state_->n_tries.end() ? 0 : tries->second;
}

int FakeSource::n_reads() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->n_reads;
}

uint64_t FakeSource::n_bytes() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->n_bytes;
}

int FakeSource::n_closed() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->n_closed;
}

void FakeSource::FailReads(int error, int n) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->fail_error = error;
  state_->fail_left = error ? n : 0;
}

void FakeSource::FailAt(uint64_t addr, int error) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->bad[addr] = error;
}

void FakeSource::SetZeros(uint64_t from, uint64_t to) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->next_from = from;
  state_->next_to = to;
  if (state_->remembers)
    return;
  state_->zeros_from = from;
  state_->zeros_to = to;
}

void FakeSource::RememberZeros(std::function<void()> on_forget) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->remembers = true;
  state_->on_forget = std::move(on_forget);
}

int FakeSource::n_forgotten() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->n_forgotten;
}

void FakeSource::SetNoZeros() { SetZeros(0, 0); }

void FakeSource::HideZeros() {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->hides_zeros = true;
}

void FakeSource::SetContentLen(size_t len) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->content_len = len;
}

void FakeSource::Change(uint64_t new_size) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->changed_at = ++state_->version;
  state_->size = new_size;
}

void FakeSource::Rewrite() {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->version++;
}

void FakeSource::SetWorth(uint64_t worth) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->worth = worth;
}

void FakeSource::SetFetchSizes(uint32_t size, uint32_t max) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->fetch_size = {size, max};
}

void FakeSource::FailReopen(int error) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->reopen_error = error;
}

uint64_t FakeSource::version() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->version;
}

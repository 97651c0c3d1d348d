// A scripted source: its content follows from the address and a version, its
// reads can be held at a gate, counted, and made to fail.
//
// A FakeSource outlives the struct source that it hands out, which the cache
// owns.  Every method may be called from any thread.
#ifndef TESTS_SUPPORT_FAKE_SOURCE_H
#define TESTS_SUPPORT_FAKE_SOURCE_H

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "cache/source.h"

// How the reads of a fake source go.
enum class FakeReads {
  kEither,   // start() says RETRY until it is told else, and leaves what fails
             // to read(), which blocks
  kBlock,    // there is no start()
  kCallBack, // there is no read(): start() is PENDING, and the read ends on a
             // thread of its own
};

// For names of tests.
const char *FakeReadsName(FakeReads reads);

class FakeSource {
public:
  explicit FakeSource(uint64_t size, FakeReads reads = FakeReads::kEither);
  ~FakeSource();

  // A new struct source on the present version; for image_new().
  source *Open();

  // What byte `addr` is in `version`.  No two neighbouring pages are alike.
  static uint8_t ByteAt(uint64_t addr, uint64_t version = 1);
  static void Fill(void *buf, uint64_t addr, size_t len, uint64_t version = 1);
  static std::vector<uint8_t> Bytes(uint64_t addr, size_t len,
                                    uint64_t version = 1);

  // Reads begin, and wait until the gate is open: those from `from` on.
  void ShutGate(uint64_t from = 0);
  void OpenGate();
  // Waits until `n` reads stand at the gate.
  void AwaitReadsAtGate(int n);

  // The same for looks whether it changed: reopen().
  void ShutLookGate();
  void OpenLookGate();
  void AwaitLookAtGate();
  // How many looks there were.
  int n_looks() const;

  // Of the starts of a read at an address, the `n`th and those after it are
  // DONE.  Without this, none is.
  void AnswerTry(int n);
  // How many such there were.
  int n_tries(uint64_t addr) const;
  // Of these, how many had a ring.
  int n_rings(uint64_t addr) const;

  int n_reads() const;
  uint64_t n_bytes() const;
  int n_closed() const;

  // The next `n` reads fail; -1: all.
  void FailReads(int error, int n = -1);
  // Reads that touch the byte at `addr` fail.
  void FailAt(uint64_t addr, int error);

  // The bytes of [from, to) are zeros, in whatever version.  Of a range in
  // there a read says so, and writes nothing.
  void SetZeros(uint64_t from, uint64_t to);
  void SetNoZeros();
  // From now on no read says so: it writes the zeros.
  void HideZeros();
  // From now on it believes what it was told of zeros until it is to forget
  // that, forget(); and calls this before it does.
  void RememberZeros(std::function<void()> on_forget = nullptr);
  int n_forgotten() const;

  // What a read is worth from now on.
  void SetWorth(uint64_t worth);

  // The `fetch_size` of sources that Open() makes.
  void SetFetchSizes(uint32_t size, uint32_t max);

  // How many bytes of the version's identity are the same on every machine, of
  // sources that Open() makes: 0 at first.
  void SetContentLen(size_t len);

  // A new version: older sources fail with ESTALE, reopen() finds it.
  void Change(uint64_t new_size);
  void FailReopen(int error);
  // A new version in place, which nobody can notice, as on a device: reads that
  // begin from now on bring it.  Those that stand at the gate have their bytes.
  void Rewrite();
  uint64_t version() const;

  // What a source hears by itself: to the listener of the one that was given a
  // listener last.
  void TellChanged();
  void TellInvalid(uint64_t offset, uint64_t len);

private:
  struct State;
  friend struct FakeOps;
  std::shared_ptr<State> state_;
};

#endif

// A kind of remote source that does as it is told: fake: and fakes: URIs, with
// the options "ca" and "depth".  Its state is one for the program; a test that
// uses it makes a FakeKind, and only one at a time.
#ifndef TESTS_SUPPORT_FAKE_KIND_H
#define TESTS_SUPPORT_FAKE_KIND_H

#include <string>
#include <vector>

#include "source/remote.h"
#include "tests/support/fake_source.h"

// Up to NULL: this kind alone.
extern const source_kind *const fake_kinds[];

class FakeKind {
public:
  FakeKind();
  ~FakeKind();

  // The next openings fail with this error (not negative), and these words; 0:
  // they do not.
  void Fail(int error, const std::string &words);

  // Openings wait until they are let go, whatever their deadline.
  void ShutGate();
  void OpenGate();

  // What was given to openings: the URI, and KEY=VALUE of each option.
  std::vector<std::string> opened() const;

  // What they open.
  FakeSource source{1 << 20, FakeReads::kCallBack};
};

#endif

// How long a test goes on that goes on for a while.
//
// The environment variable CACHETD_TEST_LENGTH says how many times its usual
// length that is: 2 in `tests/run --long`, whose targets are those that are
// tagged "longer"; a fraction under the sanitizers, and in a machine that is
// emulated without KVM.
#ifndef TESTS_SUPPORT_LENGTH_H
#define TESTS_SUPPORT_LENGTH_H

#include <cstdlib>

// So many rounds, operations or seconds, instead of `usual`.
inline int TestLength(int usual) {
  const char *times = getenv("CACHETD_TEST_LENGTH");
  int length = times ? int(usual * atof(times)) : usual;
  return length > 1 ? length : 1;
}

#endif // TESTS_SUPPORT_LENGTH_H

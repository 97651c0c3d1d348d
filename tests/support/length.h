// How long a test goes on that goes on for a while.
//
// The environment variable CACHETD_TEST_LENGTH says how many times its usual
// length that is; `tests/run --long` sets it.  A target that asks is tagged
// "longer".
#ifndef TESTS_SUPPORT_LENGTH_H
#define TESTS_SUPPORT_LENGTH_H

#include <cstdlib>

// So many rounds, operations or seconds, instead of `usual`.
inline int TestLength(int usual) {
  const char *times = getenv("CACHETD_TEST_LENGTH");
  return times ? usual * atoi(times) : usual;
}

#endif // TESTS_SUPPORT_LENGTH_H

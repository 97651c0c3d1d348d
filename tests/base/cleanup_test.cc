// Undoing on each way out.
#include "base/cleanup.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <string>

namespace {

struct Thing {
  std::string *log;
  char name;
};

void thing_free(Thing *thing) { *thing->log += thing->name; }
CLEANUP_FUNCTION(Thing *, thing_free)

bool IsOpen(int fd) { return fcntl(fd, F_GETFD) >= 0; }

TEST(CleanupTest, AReturnUndoesInTheReverseOrder) {
  std::string log;
  Thing a{&log, 'a'}, b{&log, 'b'};
  auto fails = [&](bool early) {
    CLEANUP(thing_freep) Thing *first = &a;
    if (early)
      return first->name;
    CLEANUP(thing_freep) Thing *second = &b;
    return second->name;
  };
  EXPECT_EQ(fails(true), 'a');
  EXPECT_EQ(log, "a");
  EXPECT_EQ(fails(false), 'b');
  EXPECT_EQ(log, "aba");
}

TEST(CleanupTest, WhatIsStolenOrWasNeverMadeIsLeftAlone) {
  std::string log;
  Thing a{&log, 'a'};
  Thing *out = nullptr;
  {
    CLEANUP(thing_freep) Thing *made = &a;
    CLEANUP(thing_freep) Thing *none = nullptr;
    out = STEAL(made);
    EXPECT_EQ(made, nullptr);
    EXPECT_EQ(none, nullptr);
  }
  EXPECT_EQ(out, &a);
  EXPECT_EQ(log, "");
}

TEST(CleanupTest, ADescriptorIsClosedUnlessItIsStolen) {
  int closed, kept;
  {
    CLEANUP(cleanup_close) int a = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CLEANUP(cleanup_close) int b = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CLEANUP(cleanup_close) int none = -1;
    ASSERT_GE(a, 0);
    ASSERT_GE(b, 0);
    closed = a;
    kept = steal_fd(&b);
    EXPECT_EQ(b, -1);
    EXPECT_EQ(none, -1);
  }
  EXPECT_FALSE(IsOpen(closed));
  EXPECT_TRUE(IsOpen(kept));
  close(kept);
}

// The sanitizer for leaks looks at it.
TEST(CleanupTest, MemoryIsFreedUnlessItIsStolen) {
  char *kept = nullptr;
  {
    CLEANUP(cleanup_free) char *a = static_cast<char *>(malloc(10));
    CLEANUP(cleanup_free) char *b = static_cast<char *>(malloc(10));
    ASSERT_NE(a, nullptr);
    kept = STEAL(b);
  }
  ASSERT_NE(kept, nullptr);
  free(kept);
}

} // namespace

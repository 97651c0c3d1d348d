// The code of this process is locked in memory, and its data that grows is not.
#include "daemon/locked_code.h"

#include <gtest/gtest.h>

#include <sys/resource.h>

#include <cerrno>
#include <cstdint>
#include <fstream>
#include <string>

namespace {

// Whether the mapping that holds `address` is locked, by its flags.
bool IsLocked(const void *address) {
  std::ifstream maps("/proc/self/smaps");
  auto at = reinterpret_cast<uintptr_t>(address);
  bool is_it = false;
  for (std::string line; std::getline(maps, line);) {
    unsigned long begin, end;
    if (sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2)
      is_it = begin <= at && at < end;
    else if (is_it && line.rfind("VmFlags:", 0) == 0)
      return line.find(" lo") != std::string::npos;
  }
  ADD_FAILURE() << "no mapping holds the address";
  return false;
}

TEST(LockedCodeTest, TheProgramAndItsLibrariesStayInMemory) {
  int r = locked_code_keep();
  if (r == -ENOMEM || r == -EPERM)
    GTEST_SKIP() << "the limit of locked memory (ulimit -l) is too low";
  ASSERT_EQ(r, 0);
  EXPECT_TRUE(IsLocked(reinterpret_cast<void *>(&locked_code_keep)));
  EXPECT_TRUE(IsLocked(reinterpret_cast<void *>(&getrlimit))) << "libc";
  int on_the_stack = 0;
  EXPECT_FALSE(IsLocked(&on_the_stack));
}

} // namespace

// Where the kernel promises no more memory than there is, a look at memory that
// is not there yet is a SIGBUS once all is promised.  Only a machine that is
// set so can tell: vm.overcommit_memory=2, as one of the long tests sets it.
#include <sys/mman.h>
#include <sys/wait.h>

#include <cstdio>

#include "tests/client/handle.h"

namespace {

bool IsStrict() {
  FILE *f = fopen("/proc/sys/vm/overcommit_memory", "re");
  int value = 0;
  bool read = f && fscanf(f, "%d", &value) == 1;
  if (f)
    fclose(f);
  return read && value == 2;
}

// Takes all memory that may be promised yet, and gives `left` of it back.
void TakeAllBut(size_t left) {
  const size_t kStep = 1 << 20;
  std::vector<void *> taken(1 << 16);
  size_t n = 0;
  while (n < taken.size()) {
    void *at = mmap(nullptr, kStep, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
      break;
    taken[n++] = at;
  }
  for (size_t i = 0; i < left / kStep && n > 0; i++)
    munmap(taken[--n], kStep);
}

// Reads here and there in a process that has little memory left; 0: each read
// gave its bytes, or an error.
int ReadWithLittleLeft(const std::string &path, uint64_t size, size_t left,
                       bool open_first) {
  cachet *c = nullptr;
  cachet_options options = Options();
  if (open_first && cachet_open(path.c_str(), &options, &c, nullptr))
    return 10;
  TakeAllBut(left);
  if (!c && cachet_open(path.c_str(), &options, &c, nullptr))
    return 0; // an error
  for (uint64_t i = 0; i < 4000; i++) {
    uint64_t addr = i * 0x9e3779b97f4a7c15u % size;
    uint8_t byte = 1;
    cachet_slice s;
    if (cachet_get_u8(c, addr, &byte) == CACHET_OK && byte)
      return 11;
    if (cachet_is_cached(c, addr / 2) && i == 0)
      return 12;
    if (cachet_load(c, addr, 1, &s) == CACHET_OK)
      cachet_release(c, &s);
  }
  return 0;
}

TEST(Overcommit, LittleMemoryIsAnErrorAndNoSignal) {
  if (!IsStrict())
    GTEST_SKIP() << "vm.overcommit_memory is not 2";
  TempDir dir;
  std::string path = dir.Write("image", {});
  constexpr uint64_t kSize = uint64_t{64} << 30;
  ASSERT_EQ(truncate(path.c_str(), off_t(kSize)), 0);
  for (size_t left : {size_t{0}, size_t{4} << 20, size_t{40} << 20})
    for (bool open_first : {false, true}) {
      pid_t child = fork();
      if (child == 0)
        _exit(ReadWithLittleLeft(path, kSize, left, open_first));
      int status = 0;
      ASSERT_EQ(waitpid(child, &status, 0), child);
      EXPECT_TRUE(WIFEXITED(status))
          << "killed by signal " << WTERMSIG(status) << ", " << left
          << " bytes left, opened " << (open_first ? "before" : "after");
      EXPECT_EQ(WEXITSTATUS(status), 0);
    }
}

} // namespace

#include "tests/support/readers.h"

#include <gtest/gtest.h>

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <random>

namespace {

[[noreturn]] void RunReader(const std::string &uri, int gate[2], int reader,
                            const std::function<bool(cachet *, int)> &read) {
  char byte;
  cachet *c;
  close(gate[1]);
  if (::read(gate[0], &byte, 1) != 0 || // until all of them are there
      cachet_open(uri.c_str(), nullptr, &c, nullptr) != CACHET_OK)
    _exit(2);
  bool good = read(c, reader);
  cachet_close(c);
  _exit(!good);
}

} // namespace

void RunReaders(const std::string &uri, int n,
                const std::function<bool(cachet *c, int reader)> &read) {
  int gate[2];
  ASSERT_EQ(pipe(gate), 0);
  std::vector<pid_t> readers;
  for (int i = 0; i < n; i++) {
    pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid == 0)
      RunReader(uri, gate, i, read);
    readers.push_back(pid);
  }
  close(gate[0]);
  close(gate[1]);
  for (pid_t pid : readers) {
    int status = -1;
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_EQ(status, 0);
  }
}

bool ReadsRight(cachet *c, const std::vector<uint8_t> &image, uint64_t addr,
                size_t len) {
  std::vector<uint8_t> read(len);
  if (cachet_read(c, addr, read.data(), len) != CACHET_OK) {
    fprintf(stderr, "%s\n", cachet_errmsg(c));
    return false;
  }
  return memcmp(read.data(), image.data() + addr, len) == 0;
}

bool ReadsRandomRangesRight(cachet *c, const std::vector<uint8_t> &image,
                            uint64_t seed, int n, size_t max_len) {
  std::mt19937_64 rng(seed);
  for (int i = 0; i < n; i++) {
    uint64_t addr = rng() % image.size();
    size_t most = std::min(image.size() - addr, max_len);
    if (!ReadsRight(c, image, addr, 1 + rng() % most))
      return false;
  }
  return true;
}

#include "cache/mirror.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "cache/page_state.h"

namespace {

struct MirrorFree {
  void operator()(mirror *m) const { mirror_free(m); }
};
using MirrorPtr = std::unique_ptr<mirror, MirrorFree>;

MirrorPtr Make(uint64_t size, unsigned shift = 12) {
  mirror *m = nullptr;
  EXPECT_EQ(mirror_new(size, shift, 42, true, &m), 0);
  return MirrorPtr(m);
}

// Of the 1.5 TiB that tsan leaves to mappings, the kernel's choice of where
// they begin takes up to one.
#ifdef __SANITIZE_THREAD__
constexpr uint64_t kHuge = 1ull << 38;
#else
constexpr uint64_t kHuge = 1ull << 42;
#endif

TEST(Mirror, IsEmptyAndTakesNoMemoryForPages) {
  // Where the kernel overcommits strictly states have memory from the start.
  uint64_t size = mirror_is_overcommit_strict() ? 1ull << 34 : kHuge;
  auto m = Make(size);
  ASSERT_TRUE(m);
  EXPECT_EQ(m->n_pages, size >> 12);
  EXPECT_EQ(mirror_page_bytes(m.get()), 0u);
  EXPECT_LE(mirror_meta_bytes(m.get()),
            mirror_is_overcommit_strict() ? mirror_meta_len(m.get()) : 8192u);
  EXPECT_EQ(page_state_look(&m->states[m->n_pages - 1]), PAGE_ABSENT);
}

TEST(Mirror, TheHeaderSaysWhatALibraryNeedsToAttach) {
  auto m = Make(10000, 14);
  EXPECT_STREQ(m->header->magic, "cachetd");
  EXPECT_EQ(m->header->layout, uint32_t{MIRROR_LAYOUT});
  EXPECT_EQ(m->header->page_size, 16384u);
  EXPECT_EQ(m->header->image_size, 10000u);
  EXPECT_EQ(m->header->epoch, 42u);
  EXPECT_EQ((uint8_t *)m->header + m->header->states_offset, m->states);
  EXPECT_FALSE(mirror_is_retired(m.get()));
}

TEST(Mirror, SizesAreCutAtTheLastPage) {
  auto m = Make(4097);
  EXPECT_EQ(m->n_pages, 2u);
  EXPECT_EQ(mirror_page_len(m.get(), 0), 4096u);
  EXPECT_EQ(mirror_page_len(m.get(), 1), 1u);
  EXPECT_EQ(Make(0)->n_pages, 0u);
}

TEST(Mirror, WhatIsWrittenIsThereAndWhatIsPunchedIsGone) {
  auto m = Make(16 * 4096);
  std::string page(4096, 'x');
  ASSERT_EQ(mirror_write(m.get(), 3, page.data(), page.size()), 0);
  ASSERT_EQ(mirror_write(m.get(), 4, page.data(), page.size()), 0);
  EXPECT_EQ(mirror_page_bytes(m.get()), 8192u);
  m->base = mirror_map_pages(m.get());
  ASSERT_TRUE(m->base);
  EXPECT_EQ(memcmp(m->base + 3 * 4096, page.data(), 4096), 0);
  EXPECT_EQ(mirror_punch(m.get(), 3, 1), 0);
  EXPECT_EQ(mirror_page_bytes(m.get()), 4096u);
  EXPECT_EQ(m->base[3 * 4096], 0);
  EXPECT_EQ(m->base[4 * 4096], 'x');
}

// What a mirror of two pages, the last of them short, has after writes beside
// punches: the bytes, and zeros behind them.
std::string WriteBesidePunches(mirror *m) {
  std::string bytes(4096, 'x'), found(8192, '?');
  mirror_begin_slow_punches(m);
  EXPECT_EQ(mirror_write(m, 0, bytes.data(), 4096), 0);
  EXPECT_EQ(mirror_write(m, 1, bytes.data(), 100), 0);
  mirror_end_slow_punches(m);
  EXPECT_EQ(mirror_page_bytes(m), 8192u);
  EXPECT_EQ(pread(m->pages_fd, found.data(), 8192, 0), 8192);
  return found;
}

TEST(Mirror, BesideSlowPunchesItIsWrittenThroughAMapping) {
  auto m = Make(4196);
  EXPECT_EQ(WriteBesidePunches(m.get()),
            std::string(4196, 'x') + std::string(3996, '\0'));
  if (mirror_is_shmem_huge())
    GTEST_SKIP() << "every write goes through a mapping of its own";
  ASSERT_TRUE(m->writable);
  EXPECT_EQ(m->writable[4195], 'x');
  EXPECT_EQ(mirror_punch(m.get(), 0, 1), 0);
  EXPECT_EQ(mirror_page_bytes(m.get()), 4096u);
}

TEST(Mirror, OtherwiseItHasNoSuchMapping) {
  auto m = Make(4096);
  std::string page(4096, 'x');
  mirror_begin_slow_punches(m.get());
  mirror_end_slow_punches(m.get());
  EXPECT_EQ(mirror_write(m.get(), 0, page.data(), page.size()), 0);
  EXPECT_FALSE(m->writable);
}

class MirrorHugeTest : public testing::Test {
protected:
  // Pages 1, 2 and 3, the last of which is 100 bytes long, and the next one.
  void Write() {
    bytes_ = std::string(2 * size_ + 100, 'x');
    bytes_.back() = 'y';
    ASSERT_EQ(mirror_write(m_.get(), 1, bytes_.data(), bytes_.size()), 0);
  }

  const size_t size_ = size_t{1} << PAGE_SHIFT_MAX;
  MirrorPtr m_ = Make(3 * size_ + 100, PAGE_SHIFT_MAX);
  std::string bytes_;
};

// As where the kernel has no huge page to give.
TEST_F(MirrorHugeTest, WhatIsWrittenIsThereWhateverTheKernelGives) {
  m_->is_huge = true;
  Write();
  std::string found(3 * size_, '?');
  ASSERT_EQ(pread(m_->pages_fd, &found[0], found.size(), off_t(size_)),
            ssize_t(found.size()));
  EXPECT_TRUE(found == bytes_ + std::string(size_ - 100, '\0'));
  EXPECT_EQ(mirror_punch(m_.get(), 1, 2), 0);
  EXPECT_LE(mirror_page_bytes(m_.get()), size_);
  EXPECT_GE(mirror_page_bytes(m_.get()), 4096u);
  EXPECT_EQ(mirror_punch(m_.get(), 3, 1), 0);
  EXPECT_EQ(mirror_page_bytes(m_.get()), 0u);
}

// Such as the rest of a page whose punch failed.
TEST_F(MirrorHugeTest, APageThatHasMemoryIsWrittenOverIt) {
  ASSERT_EQ(pwrite(m_->pages_fd, "old", 3, off_t(size_) + 5000), 3);
  m_->is_huge = true;
  Write();
  std::string found(bytes_.size(), '?');
  ASSERT_EQ(pread(m_->pages_fd, &found[0], found.size(), off_t(size_)),
            ssize_t(found.size()));
  EXPECT_TRUE(found == bytes_);
}

TEST_F(MirrorHugeTest, EachPageIsHugeWhereTheKernelIsSetToIt) {
  if (!m_->is_huge)
    GTEST_SKIP() << "the kernel is set to give shared memory no huge pages";
  std::string name = "/sys/kernel/mm/transparent_hugepage/hugepages-" +
                     std::to_string(size_ >> 10) + "kB/stats/shmem_alloc";
  std::ifstream stats(name);
  uint64_t before = 0, after = 0;
  if (!(stats >> before))
    GTEST_SKIP() << "the kernel does not count them";
  Write();
  std::ifstream(name) >> after;
  EXPECT_GE(after - before, 3u);
  EXPECT_EQ(mirror_page_bytes(m_.get()), 3 * size_) << "also the short one";
}

TEST_F(MirrorHugeTest, AReaderMapsAHugePageByOneEntry) {
  if (!m_->is_huge)
    GTEST_SKIP() << "the kernel is set to give shared memory no huge pages";
  Write();
  m_->base = mirror_map_pages(m_.get());
  ASSERT_TRUE(m_->base);
  EXPECT_EQ(m_->base[3 * size_ + 99], 'y');
  std::ifstream smaps("/proc/self/smaps_rollup");
  std::string word;
  while (smaps >> word && word != "ShmemPmdMapped:")
    ;
  ASSERT_TRUE(smaps >> word);
  EXPECT_EQ(word, "2048") << "kB";
}

TEST(Mirror, WithoutAddressSpaceForTheMappingItIsWrittenAllTheSame) {
  pid_t pid = fork();
  if (pid == 0) {
    auto m = Make(4196);
    std::string room(64 << 10, 'x'); // for what is allocated below
    room.clear();
    room.shrink_to_fit();
    rlimit none = {1, RLIM_INFINITY};
    setrlimit(RLIMIT_AS, &none);
    bool is_right = WriteBesidePunches(m.get()) ==
                    std::string(4196, 'x') + std::string(3996, '\0');
    _exit(is_right && !m->writable ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(Mirror, NobodyCanResizeItOrSealItAgain) {
  auto m = Make(8192);
  for (int fd : {m->pages_fd, m->states_fd, m->accessed_fd}) {
    EXPECT_EQ(ftruncate(fd, 0), -1);
    EXPECT_EQ(ftruncate(fd, 1 << 20), -1);
    EXPECT_EQ(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    EXPECT_TRUE(fcntl(fd, F_GETFD) & FD_CLOEXEC);
  }
}

TEST(Mirror, AnotherUserCannotReopenItForWriting) {
  if (geteuid() != 0)
    GTEST_SKIP() << "needs root, to become another user";
  auto m = Make(8192);
  std::string path = "/proc/self/fd/" + std::to_string(m->pages_fd);
  pid_t pid = fork();
  if (pid == 0) {
    if (setresgid(65534, 65534, 65534) || setresuid(65534, 65534, 65534))
      _exit(2);
    _exit(open(path.c_str(), O_RDWR) < 0 && errno == EACCES ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

// Runs `body` in a child, since limits cannot be taken back.
int InChild(int (*body)()) {
  pid_t pid = fork();
  if (pid == 0)
    _exit(body());
  int status = 0;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST(Mirror, OverTheFileSizeLimitIsAnErrorNotASignal) {
  EXPECT_EQ(InChild([] {
              rlimit limit = {1 << 20, 1 << 20};
              setrlimit(RLIMIT_FSIZE, &limit);
              mirror *m = nullptr;
              return mirror_new(2 << 20, 12, 1, true, &m) == -EFBIG ? 0 : 1;
            }),
            0);
}

TEST(Mirror, LargerThanTheAddressSpaceIsAnError) {
  mirror *m = nullptr;
  EXPECT_EQ(mirror_new(UINT64_MAX, 12, 1, true, &m), -EFBIG);
  EXPECT_EQ(mirror_new(MIRROR_MAX_SIZE + 1, 12, 1, true, &m), -EFBIG);
  EXPECT_EQ(m, nullptr);
}

TEST(Mirror, NoDescriptorsLeftIsAnErrorAndLeaksNone) {
  EXPECT_EQ(InChild([] {
              rlimit limit = {64, 64};
              setrlimit(RLIMIT_NOFILE, &limit);
              std::vector<int> fds;
              for (int fd; (fd = dup(1)) >= 0;)
                fds.push_back(fd);
              // The first, the second, the third memfd fails.
              for (int free_fds = 0; free_fds < 3; free_fds++) {
                mirror *m = nullptr;
                if (mirror_new(8192, 12, 1, true, &m) != -EMFILE)
                  return 1;
                close(fds.back());
                fds.pop_back();
              }
              mirror *m = nullptr;
              return mirror_new(8192, 12, 1, true, &m) == 0 ? 0 : 2;
            }),
            0);
}

TEST(Mirror, UnderMlockallFutureItStaysSparse) {
  // Small enough for the 8 MiB that everybody may lock.
  EXPECT_EQ(InChild([] {
              if (mlockall(MCL_FUTURE))
                return 3;
              mirror *m = nullptr;
              if (mirror_new(1 << 20, 12, 1, true, &m) < 0 ||
                  !mirror_map_pages(m))
                return 1;
              return mirror_page_bytes(m) == 0 ? 0 : 2;
            }),
            0);
}

// The limit was high enough when the mirror was made.
TEST(Mirror, AWriteBeyondALimitThatCameLaterIsAnError) {
  EXPECT_EQ(InChild([] {
              mirror *m = nullptr;
              char page[4096] = "x";
              rlimit limit = {8192, 8192};
              if (mirror_new(1 << 20, 12, 1, true, &m) < 0 ||
                  setrlimit(RLIMIT_FSIZE, &limit) < 0)
                return 1;
              if (mirror_write(m, 0, page, sizeof page) != 0)
                return 2;
              return mirror_write(m, 2, page, sizeof page) == -EFBIG ? 0 : 3;
            }),
            0)
      << "137 or so: it was killed";
}

// The kernel itself is asked: no call looks at the limit before each write.
TEST(Mirror, AWriteBeyondALimitFailsInTheKernelIfTheProcessSurvivesThat) {
  EXPECT_EQ(InChild([] {
              static volatile sig_atomic_t n_signals;
              mirror *m = nullptr;
              char page[4096] = "x";
              rlimit limit = {8192, 8192};
              signal(SIGXFSZ, [](int) { n_signals = n_signals + 1; });
              mirror_survives_file_limit();
              if (mirror_new(1 << 20, 12, 1, true, &m) < 0 ||
                  setrlimit(RLIMIT_FSIZE, &limit) < 0)
                return 1;
              if (mirror_write(m, 2, page, sizeof page) != -EFBIG)
                return 2;
              return n_signals == 1 ? 0 : 3;
            }),
            0);
}

TEST(Mirror, APunchThatFailsIsAnError) {
  auto m = Make(16 * 4096);
  int fd = m->pages_fd;
  m->pages_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  EXPECT_LT(mirror_punch(m.get(), 3, 1), 0);
  close(m->pages_fd);
  m->pages_fd = fd;
}

TEST(Mirror, NextStatesSkipsWhatWasNeverLookedAt) {
  auto m = Make(1ull << 36);
  ASSERT_TRUE(page_state_move(&m->states[9000], PAGE_ABSENT, PAGE_FILLING));
  uint64_t next = mirror_next_states(m.get(), 0);
  EXPECT_LE(next, 9000u);
  EXPECT_GT(next, 0u);
  EXPECT_EQ(mirror_next_states(m.get(), 9000 + 8192), m->n_pages);
}

TEST(ResidencyDeathTest, AMoveThatTheTableDoesNotAllowIsABug) {
  uint8_t word = PAGE_ABSENT;
  EXPECT_DEATH(page_state_move(&word, PAGE_ABSENT, PAGE_RESIDENT), "allowed");
  EXPECT_DEATH(page_state_move(&word, PAGE_RESIDENT, PAGE_ABSENT), "allowed");
}

TEST(Residency, AMoveFromAnotherStateFailsAndChangesNothing) {
  uint8_t word = PAGE_RESIDENT;
  EXPECT_FALSE(page_state_move(&word, PAGE_ABSENT, PAGE_FILLING));
  EXPECT_EQ(word, PAGE_RESIDENT);
  EXPECT_TRUE(page_state_move(&word, PAGE_RESIDENT, PAGE_EVICTING));
  EXPECT_EQ(word, PAGE_EVICTING);
}

} // namespace

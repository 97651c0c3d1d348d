#include "source/file.h"
#include "source/ring.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#ifndef RWF_DONTCACHE
#define RWF_DONTCACHE 0x80
#endif

// Questions for holes, which fail if they are to.
static int g_seeks, g_seek_error;

extern "C" off_t lseek(int fd, off_t offset, int whence) noexcept {
  g_seeks++;
  if (g_seek_error) {
    errno = g_seek_error;
    return -1;
  }
  return syscall(SYS_lseek, fd, offset, whence);
}

// As a kernel before Linux 6.14 has it.
static bool g_no_dontcache;

// The disk brings nothing before a read that must not wait returns.
static bool g_is_slow;

extern "C" ssize_t preadv2(int fd, const iovec *v, int n, off_t offset,
                           int flags) {
  if (g_no_dontcache && flags & RWF_DONTCACHE) {
    errno = EOPNOTSUPP;
    return -1;
  }
  ssize_t r = syscall(SYS_preadv2, fd, v, n, offset, 0, flags);
  if (r < 0 || !g_is_slow || !(flags & RWF_NOWAIT))
    return r;
  errno = EAGAIN;
  return -1;
}

// Of the source's allocations the one that takes it to 0 fails; below 1, none.
static int g_allocations_left;

static bool AllocationFails() {
  return g_allocations_left > 0 && --g_allocations_left == 0;
}

// The linker puts these in the place of calloc(3) and strdup(3) in what is
// linked into the test.
extern "C" {
void *__real_calloc(size_t n, size_t size);
char *__real_strdup(const char *s);

void *__wrap_calloc(size_t n, size_t size) {
  return AllocationFails() ? nullptr : __real_calloc(n, size);
}

char *__wrap_strdup(const char *s) {
  return AllocationFails() ? nullptr : __real_strdup(s);
}
}

namespace {

struct Close {
  void operator()(source *src) const { src->ops->close(src); }
};
using SourcePtr = std::unique_ptr<source, Close>;

class FileTest : public testing::TestWithParam<file_reading> {
protected:
  void SetUp() override {
    char dir[] = "/tmp/file_test.XXXXXX";
    ASSERT_NE(mkdtemp(dir), nullptr);
    dir_ = dir;
    path_ = dir_ + "/disk.img";
    Write(std::string(10000, 'a'));
  }
  void TearDown() override { ASSERT_EQ(system(("rm -r " + dir_).c_str()), 0); }

  void Write(const std::string &content) { WriteTo(path_, content); }

  // A new file each time: another inode, other times.
  void WriteTo(const std::string &path, const std::string &content) {
    int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(write(fd, content.data(), content.size()),
              ssize_t(content.size()));
    close(fd);
    Tick(path);
  }

  // Gives a file a time stamp that no write in this test had, so that nothing
  // depends on how fine the file system's clock is.
  void Tick(const std::string &path) {
    timespec times[2] = {{++seconds_, 0}, {seconds_, 0}};
    ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  }

  // Waits until the kernel's clock for stamps has left the file's ctime, which
  // nobody can set: on Linux 6.1 it stands still for milliseconds.
  void AwaitAnotherCtime() {
    struct stat file, fresh;
    ASSERT_EQ(stat(path_.c_str(), &file), 0);
    do {
      WriteTo(dir_ + "/tick", "");
      ASSERT_EQ(stat((dir_ + "/tick").c_str(), &fresh), 0);
    } while (fresh.st_ctim.tv_sec == file.st_ctim.tv_sec &&
             fresh.st_ctim.tv_nsec == file.st_ctim.tv_nsec);
  }

  SourcePtr Open() {
    source *src = nullptr;
    EXPECT_EQ(file_source_open(path_.c_str(), GetParam(), &src), 0);
    return SourcePtr(src);
  }

  static int Read(const SourcePtr &src, uint64_t offset, size_t len,
                  std::string *out) {
    out->assign(len, '?');
    return src->ops->read(src.get(), offset, &(*out)[0], len);
  }

  static SourcePtr Reopen(const SourcePtr &src, int expect = 0) {
    source *fresh = nullptr;
    EXPECT_EQ(src->ops->reopen(src.get(), &fresh), expect);
    return SourcePtr(fresh);
  }

  static int CountDescriptors() {
    const std::filesystem::directory_iterator all("/proc/self/fd");
    return int(std::distance(begin(all), end(all)));
  }

  std::string dir_, path_, bytes_;
  time_t seconds_ = 1000000000;
};

TEST_P(FileTest, ReadsWhatIsThere) {
  auto src = Open();
  EXPECT_EQ(src->size, 10000u);
  EXPECT_EQ(Read(src, 9000, 1000, &bytes_), 0);
  EXPECT_EQ(bytes_, std::string(1000, 'a'));
  EXPECT_EQ(Reopen(src), nullptr) << "unchanged";
}

TEST_P(FileTest, AnEmptyFileIsAnImageOfNoBytes) {
  Write("");
  EXPECT_EQ(Open()->size, 0u);
}

TEST_P(FileTest, WhatIsNeitherFileNorBlockDeviceIsRefused) {
  source *src;
  EXPECT_EQ(file_source_open(dir_.c_str(), GetParam(), &src), -EISDIR);
  EXPECT_EQ(file_source_open((dir_ + "/none").c_str(), GetParam(), &src),
            -ENOENT);
  EXPECT_EQ(file_source_open("/dev/null", GetParam(), &src), -ENODEV);
  std::string fifo = dir_ + "/fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(file_source_open(fifo.c_str(), GetParam(), &src), -ENODEV);
}

// A file server (Samba) takes a lease to be asked before others open its file:
// then an open has to wait until it has let go.
TEST_P(FileTest, AFileThatIsLeasedIsOpenedWhenTheLeaseIsGivenBack) {
  sigset_t asked;
  sigemptyset(&asked);
  sigaddset(&asked, SIGIO);
  ASSERT_EQ(pthread_sigmask(SIG_BLOCK, &asked, nullptr), 0);
  int holder = open(path_.c_str(), O_WRONLY | O_CLOEXEC);
  ASSERT_GE(holder, 0);
  if (fcntl(holder, F_SETLEASE, F_WRLCK) < 0) {
    close(holder);
    GTEST_SKIP() << "no leases here: " << strerror(errno);
  }
  std::thread lessee([&] {
    int number;
    EXPECT_EQ(sigwait(&asked, &number), 0);
    EXPECT_EQ(fcntl(holder, F_SETLEASE, F_UNLCK), 0);
  });
  auto src = Open();
  kill(getpid(), SIGIO); // in case nobody asked
  lessee.join();
  close(holder);
  ASSERT_NE(src, nullptr);
  EXPECT_EQ(Read(src, 0, 100, &bytes_), 0);
}

TEST_P(FileTest, ATruncatedFileIsStaleNotAShortRead) {
  auto src = Open();
  ASSERT_EQ(truncate(path_.c_str(), 5000), 0);
  EXPECT_EQ(Read(src, 4096, 4096, &bytes_), -ESTALE);
  EXPECT_EQ(Read(src, 0, 4096, &bytes_), -ESTALE) << "also where bytes are";
  auto fresh = Reopen(src);
  ASSERT_NE(fresh, nullptr);
  EXPECT_EQ(fresh->size, 5000u);
  EXPECT_EQ(Read(fresh, 4096, 904, &bytes_), 0);
}

TEST_P(FileTest, AFileThatGrewIsStale) {
  auto src = Open();
  ASSERT_EQ(truncate(path_.c_str(), 20000), 0);
  EXPECT_EQ(Read(src, 0, 100, &bytes_), -ESTALE);
  EXPECT_EQ(Reopen(src)->size, 20000u);
}

TEST_P(FileTest, AFileThatWasRewrittenInPlaceIsStale) {
  auto src = Open();
  Write(std::string(10000, 'b'));
  EXPECT_EQ(Read(src, 0, 100, &bytes_), -ESTALE);
  auto fresh = Reopen(src);
  EXPECT_EQ(Read(fresh, 0, 100, &bytes_), 0);
  EXPECT_EQ(bytes_, std::string(100, 'b'));
}

// Once a second, for every image that a daemon serves.
TEST_P(FileTest, ALookAtAnUnchangedFileOpensNothing) {
  auto src = Open();
  int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  ASSERT_GE(inotify_add_watch(watch, path_.c_str(), IN_OPEN), 0);
  char events[4096];

  EXPECT_EQ(Reopen(src), nullptr);

  EXPECT_LT(read(watch, events, sizeof events), 0) << "it was opened";
  Tick(path_);
  EXPECT_NE(Reopen(src), nullptr);
  EXPECT_GT(read(watch, events, sizeof events), 0) << "this would be seen";
  close(watch);
}

TEST_P(FileTest, AFileThatIsNotThereYetIsFoundOnceItIs) {
  std::string path = dir_ + "/later";
  source *src = nullptr;
  ASSERT_EQ(file_source_open_later(path.c_str(), GetParam(), &src), 0);
  SourcePtr later(src);
  EXPECT_EQ(later->size, 0u);
  EXPECT_EQ(Reopen(later, -ENOENT), nullptr);
  ASSERT_EQ(mkdir(path.c_str(), 0700), 0);
  EXPECT_EQ(Reopen(later, -EISDIR), nullptr);
  ASSERT_EQ(rmdir(path.c_str()), 0);
  WriteTo(path, std::string(300, 'l'));

  auto there = Reopen(later);

  ASSERT_NE(there, nullptr);
  EXPECT_EQ(Read(there, 0, 300, &bytes_), 0);
  EXPECT_EQ(bytes_, std::string(300, 'l'));
}

TEST_P(FileTest, AReplacedFileIsFoundByReopenAndTheOldOneStillReads) {
  auto src = Open();
  WriteTo(dir_ + "/new", std::string(300, 'n'));
  AwaitAnotherCtime();
  ASSERT_EQ(link(path_.c_str(), (dir_ + "/kept").c_str()), 0);
  auto linked = Reopen(src); // another ctime: another version, same bytes
  ASSERT_NE(linked, nullptr);
  ASSERT_EQ(rename((dir_ + "/new").c_str(), path_.c_str()), 0);
  auto fresh = Reopen(linked);
  ASSERT_NE(fresh, nullptr);
  EXPECT_EQ(fresh->size, 300u);
  EXPECT_EQ(Read(fresh, 0, 300, &bytes_), 0);
  EXPECT_EQ(bytes_, std::string(300, 'n'));
}

// Puts the working directory back at its end.
class InDirectory {
public:
  explicit InDirectory(const std::string &dir)
      : before_(open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    EXPECT_EQ(chdir(dir.c_str()), 0);
  }
  ~InDirectory() {
    EXPECT_EQ(fchdir(before_), 0);
    close(before_);
  }

private:
  int before_;
};

TEST_P(FileTest, ARelativePathIsOfTheDirectoryItWasOpenedIn) {
  std::string other = dir_ + "/other";
  ASSERT_EQ(mkdir(other.c_str(), 0700), 0);
  WriteTo(other + "/disk.img", "not this");
  InDirectory in(dir_);
  path_ = "disk.img";
  auto src = Open();
  ASSERT_EQ(chdir(other.c_str()), 0);
  EXPECT_EQ(Reopen(src), nullptr) << "unchanged";
  WriteTo(dir_ + "/new", std::string(300, 'n'));
  ASSERT_EQ(rename("../new", "../disk.img"), 0);
  auto fresh = Reopen(src);
  ASSERT_NE(fresh, nullptr);
  EXPECT_EQ(Read(fresh, 0, 300, &bytes_), 0);
  EXPECT_EQ(bytes_, std::string(300, 'n'));
}

TEST_P(FileTest, AnAllocationThatFailsIsAnErrorAndLeavesNothingOpen) {
  const int n_open = CountDescriptors();
  for (const auto open : {file_source_open, file_source_open_later}) {
    int n = 1;
    for (bool failed = true; failed; n++) {
      source *src = nullptr;
      g_allocations_left = n;
      const int r = open(path_.c_str(), GetParam(), &src);
      failed = g_allocations_left == 0;
      g_allocations_left = 0;
      EXPECT_EQ(r, failed ? -ENOMEM : 0) << n;
      EXPECT_EQ(src != nullptr, !failed) << n;
      SourcePtr(src).reset();
      EXPECT_EQ(CountDescriptors(), n_open) << n;
    }
    EXPECT_GE(n, 3);
  }
}

TEST_P(FileTest, AnUnlinkedFileIsServedOn) {
  auto src = Open();
  AwaitAnotherCtime();
  ASSERT_EQ(unlink(path_.c_str()), 0);
  auto held = Reopen(src); // its ctime changed
  ASSERT_NE(held, nullptr);
  EXPECT_EQ(Read(held, 0, 100, &bytes_), 0);
  EXPECT_EQ(bytes_, std::string(100, 'a'));
  EXPECT_EQ(Reopen(held), nullptr) << "and that is settled";
}

TEST_P(FileTest, ReadsPastTheEndAreErrors) {
  auto src = Open();
  EXPECT_EQ(Read(src, 9999, 2, &bytes_), -EIO);
}

TEST_P(FileTest, AReadErrorIsPassedOn) {
  auto src = Open();
  EXPECT_EQ(src->ops->read(src.get(), 0, nullptr, 100), -EFAULT);
}

TEST_P(FileTest, AStartReadsWhatTheKernelHasOrSaysThatItWouldWait) {
  auto src = Open();
  Read(src, 0, 10000, &bytes_); // now the kernel has it
  std::string tried(1000, '?');
  source_read read{};
  read.offset = 9000;
  read.buf = &tried[0];
  read.len = tried.size();
  source_outcome outcome = source_start(src.get(), &read);
  // A file system without RWF_NOWAIT may always say that it would wait.
  if (outcome == SOURCE_DONE) {
    EXPECT_EQ(read.status, 0);
    EXPECT_EQ(tried, std::string(1000, 'a'));
  } else {
    EXPECT_EQ(outcome, SOURCE_RETRY);
  }
}

TEST_P(FileTest, AStartOfALongReadLeavesTheCopyToAThreadThatMayWait) {
  auto src = Open();
  std::string bytes(SOURCE_MAX_COPY + 1, '?');
  source_read read{};
  read.buf = &bytes[0];
  read.len = bytes.size();
  EXPECT_EQ(source_start(src.get(), &read), SOURCE_BLOCKS);
  EXPECT_EQ(bytes, std::string(SOURCE_MAX_COPY + 1, '?'));
}

// How many pages of a file the kernel has in memory.
size_t CountInKernel(const std::string &path, size_t n_pages) {
  int fd = open(path.c_str(), O_RDONLY);
  void *at = mmap(nullptr, n_pages * 4096, PROT_READ, MAP_SHARED, fd, 0);
  std::vector<unsigned char> is(n_pages);
  EXPECT_EQ(mincore(at, n_pages * 4096, is.data()), 0);
  munmap(at, n_pages * 4096);
  close(fd);
  return size_t(std::count(is.begin(), is.end(), 1));
}

void Forget(const std::string &path) {
  int fd = open(path.c_str(), O_RDONLY);
  EXPECT_EQ(fsync(fd), 0);
  EXPECT_EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
  close(fd);
}

void Warm(const std::string &path, size_t n_pages) {
  int fd = open(path.c_str(), O_RDONLY);
  char page[4096];
  for (size_t i = 0; i < n_pages; i++)
    EXPECT_EQ(pread(fd, page, sizeof page, off_t(i * sizeof page)),
              ssize_t(sizeof page));
  close(fd);
}

// Whether the kernel and the file system have it: Linux 6.14, and ext4 or XFS.
static bool KnowsDontcache(const std::string &path) {
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  char page[4096];
  iovec v = {page, sizeof page};
  bool knows = preadv2(fd, &v, 1, 0, RWF_DONTCACHE) == ssize_t(sizeof page);
  close(fd);
  return knows;
}

TEST_P(FileTest, TheKernelKeepsWhatItHadAndPerhapsNoMore) {
  constexpr size_t kPages = 256;
  Write(std::string(kPages * 4096, 'd'));
  Forget(path_);
  bool knows = KnowsDontcache(path_);
  Forget(path_);
  if (GetParam() == FILE_DONTCACHE && !knows)
    GTEST_SKIP() << "no RWF_DONTCACHE here";
  if (CountInKernel(path_, kPages) > 0)
    GTEST_SKIP() << "a file system that is all memory";
  auto src = Open();

  EXPECT_EQ(Read(src, 0, kPages * 4096, &bytes_), 0);
  EXPECT_EQ(bytes_, std::string(kPages * 4096, 'd'));
  EXPECT_EQ(CountInKernel(path_, kPages),
            GetParam() == FILE_DONTCACHE ? 0u : kPages);

  Warm(path_, kPages);
  EXPECT_EQ(Read(src, 0, kPages * 4096, &bytes_), 0);
  EXPECT_EQ(CountInKernel(path_, kPages), kPages);
}

// Long reads into memory that is aligned.
class LongReadTest : public FileTest {
protected:
  static constexpr size_t kPages = 1024, kRead = 64 << 10;

  void SetUp() override {
    FileTest::SetUp();
    content_.resize(kPages * 4096 + 1234);
    for (size_t i = 0; i < content_.size(); i++)
      content_[i] = char((i >> 12) * 31 + i);
    Write(content_);
    Forget(path_);
    buf_ = static_cast<char *>(aligned_alloc(4096, kRead));
  }
  void TearDown() override {
    free(buf_);
    FileTest::TearDown();
  }

  int ReadLong(const SourcePtr &src, uint64_t offset, size_t len = kRead) {
    memset(buf_, '?', kRead);
    return src->ops->read(src.get(), offset, buf_, len);
  }

  void ExpectAllRight(const SourcePtr &src) {
    for (uint64_t at = 0; at < content_.size(); at += kRead) {
      size_t len = std::min(kRead, content_.size() - at);
      ASSERT_EQ(ReadLong(src, at, len), 0) << at;
      ASSERT_EQ(memcmp(buf_, &content_[at], len), 0) << at;
    }
  }

  std::string content_;
  char *buf_;
};

TEST_P(LongReadTest, AreRightWhetherTheKernelHasThemOrNot) {
  auto src = Open();
  ExpectAllRight(src);
  Warm(path_, kPages);
  ExpectAllRight(src);
  Forget(path_);
  Warm(path_, kPages / 3);
  ExpectAllRight(src);
  for (uint64_t at : {1ul, 512ul, 4095ul, 4097ul}) {
    ASSERT_EQ(ReadLong(src, at), 0);
    EXPECT_EQ(memcmp(buf_, &content_[at], kRead), 0) << at;
  }
}

TEST_P(LongReadTest, LeaveNextToNothingInTheKernel) {
  if (CountInKernel(path_, kPages) > 0)
    GTEST_SKIP() << "a file system that is all memory";
  int fd = open(path_.c_str(), O_RDONLY | O_DIRECT);
  if (fd < 0)
    GTEST_SKIP() << "a file system without O_DIRECT";
  close(fd);
  ExpectAllRight(Open());
  if (GetParam() == FILE_DONTCACHE)
    EXPECT_LE(CountInKernel(path_, kPages), kPages / 8);
  else
    EXPECT_EQ(CountInKernel(path_, kPages), kPages);
}

TEST_P(LongReadTest, OfAFileThatChangedAreStale) {
  auto src = Open();
  ExpectAllRight(src);
  ASSERT_EQ(truncate(path_.c_str(), 100000), 0);
  for (int i = 0; i < 40; i++) {
    ASSERT_EQ(ReadLong(src, 0), -ESTALE);
    ASSERT_EQ(ReadLong(src, 65536), -ESTALE);  // beyond it in part,
    ASSERT_EQ(ReadLong(src, 262144), -ESTALE); // and wholly
  }
}

TEST_P(LongReadTest, WhoseFileWasReplacedAreStillOfTheOldOne) {
  auto src = Open();
  WriteTo(dir_ + "/new", std::string(content_.size(), 'n'));
  ASSERT_EQ(rename((dir_ + "/new").c_str(), path_.c_str()), 0);
  for (int i = 0; i < 40; i++) {
    // Its ctime has changed, as it lost its name.
    ASSERT_EQ(ReadLong(src, uint64_t(i) * kRead), -ESTALE);
    EXPECT_EQ(memcmp(buf_, &content_[size_t(i) * kRead], kRead), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(How, LongReadTest,
                         testing::Values(FILE_CACHED, FILE_DONTCACHE),
                         [](const testing::TestParamInfo<file_reading> &how) {
                           return how.param == FILE_DONTCACHE ? "Direct"
                                                              : "Cached";
                         });

TEST_P(FileTest, AStartFindsThatTheFileChanged) {
  auto src = Open();
  ASSERT_EQ(truncate(path_.c_str(), 5000), 0);
  char byte;
  source_read read{};
  read.buf = &byte;
  read.len = 1;
  // A kernel that does not know RWF_DONTCACHE leaves all of them to a read.
  source_outcome outcome = source_start(src.get(), &read);
  if (outcome == SOURCE_DONE)
    EXPECT_EQ(read.status, -ESTALE);
  else
    EXPECT_EQ(outcome, SOURCE_BLOCKS);
}

// ---- Holes ------------------------------------------------------------------

// Of 1 MiB, the fourth 64 KiB are data.
class HoleTest : public FileTest {
protected:
  static constexpr size_t kPart = 64 << 10, kSize = 16 * kPart;

  void SetUp() override {
    FileTest::SetUp();
    ASSERT_EQ(truncate(path_.c_str(), 0), 0);
    ASSERT_EQ(truncate(path_.c_str(), kSize), 0);
    WriteAt(3 * kPart, std::string(kPart, 'd'));
    g_seeks = 0;
    g_seek_error = 0;
  }
  void TearDown() override {
    g_seek_error = 0;
    FileTest::TearDown();
  }

  void WriteAt(size_t offset, const std::string &bytes) {
    int fd = open(path_.c_str(), O_WRONLY);
    ASSERT_GE(fd, 0);
    ASSERT_EQ(pwrite(fd, bytes.data(), bytes.size(), off_t(offset)),
              ssize_t(bytes.size()));
    close(fd);
    Tick(path_);
  }
};

TEST_P(HoleTest, IsZerosThatNobodyWrites) {
  auto src = Open();
  EXPECT_EQ(Read(src, 0, 3 * kPart, &bytes_), SOURCE_ZEROS);
  EXPECT_EQ(bytes_, std::string(3 * kPart, '?'));
  EXPECT_EQ(Read(src, 4 * kPart, 12 * kPart, &bytes_), SOURCE_ZEROS);
  EXPECT_EQ(Read(src, 3 * kPart, kPart, &bytes_), 0);
  EXPECT_EQ(bytes_, std::string(kPart, 'd'));
  EXPECT_EQ(Read(src, 2 * kPart, 3 * kPart, &bytes_), 0);
  EXPECT_EQ(bytes_, std::string(kPart, '\0') + std::string(kPart, 'd') +
                        std::string(kPart, '\0'));
}

TEST_P(HoleTest, ThatIsWrittenIsAChange) {
  auto src = Open();
  EXPECT_EQ(Read(src, 0, 4096, &bytes_), SOURCE_ZEROS);
  WriteAt(4096, "x");
  EXPECT_EQ(Read(src, 0, 4096, &bytes_), -ESTALE);
  auto fresh = Reopen(src);
  ASSERT_NE(fresh, nullptr);
  EXPECT_EQ(Read(fresh, 4096, 1, &bytes_), 0);
  EXPECT_EQ(bytes_, "x");
}

TEST_P(HoleTest, OfAFileThatIsCutIsStale) {
  auto src = Open();
  EXPECT_EQ(Read(src, 8 * kPart, 4096, &bytes_), SOURCE_ZEROS);
  ASSERT_EQ(truncate(path_.c_str(), 6 * kPart), 0);
  EXPECT_EQ(Read(src, 8 * kPart, 4096, &bytes_), -ESTALE);
  EXPECT_EQ(Read(src, 7 * kPart, 4096, &bytes_), -ESTALE);
}

TEST_P(HoleTest, IsReadWhereTheFileSystemCannotTell) {
  auto src = Open();
  g_seek_error = EINVAL;
  EXPECT_EQ(Read(src, kPart, 4096, &bytes_), 0);
  EXPECT_EQ(bytes_, std::string(4096, '\0'));
  EXPECT_EQ(g_seeks, 1);
  EXPECT_EQ(Read(src, 2 * kPart, 4096, &bytes_), 0);
  EXPECT_EQ(g_seeks, 1) << "it is not asked again";
}

TEST_P(HoleTest, OfNoFileThatIsFull) {
  Write(std::string(kSize, 'f'));
  auto src = Open();
  EXPECT_EQ(Read(src, 0, kSize, &bytes_), 0);
  EXPECT_EQ(g_seeks, 0);
}

INSTANTIATE_TEST_SUITE_P(How, HoleTest,
                         testing::Values(FILE_CACHED, FILE_DONTCACHE),
                         [](const testing::TestParamInfo<file_reading> &how) {
                           return how.param == FILE_DONTCACHE ? "Direct"
                                                              : "Cached";
                         });

// ---- Beneath a directory ----------------------------------------------------

class BeneathTest : public FileTest {
protected:
  void SetUp() override {
    FileTest::SetUp();
    outside_ = dir_ + ".outside";
    WriteTo(outside_, std::string(10000, 'x'));
  }
  void TearDown() override {
    unlink(outside_.c_str());
    FileTest::TearDown();
  }

  SourcePtr OpenBeneath(const std::string &name, int expect = 0) {
    source *src = nullptr;
    EXPECT_EQ(
        file_source_open_beneath(dir_.c_str(), name.c_str(), GetParam(), &src),
        expect)
        << name;
    return SourcePtr(src);
  }
  // The link takes the place of whatever has its name.
  void Link(const std::string &to, const std::string &name) {
    std::string fresh = dir_ + "/fresh";
    ASSERT_EQ(symlink(to.c_str(), fresh.c_str()), 0);
    ASSERT_EQ(rename(fresh.c_str(), (dir_ + "/" + name).c_str()), 0);
  }

  std::string outside_;
};

TEST_P(BeneathTest, WhatLeadsOutOfTheDirectoryIsRefused) {
  ASSERT_EQ(mkdir((dir_ + "/sub").c_str(), 0700), 0);
  Link(outside_, "absolute");
  Link("../" + outside_.substr(outside_.rfind('/') + 1), "relative");
  Link("sub/../../" + outside_.substr(outside_.rfind('/') + 1), "winding");
  Link("relative", "link-to-link");
  int fd = open(outside_.c_str(), O_RDONLY);
  Link("/proc/self/fd/" + std::to_string(fd), "magic");
  for (const char *name : {"absolute", "relative", "winding", "link-to-link",
                           "magic", "..", "../x", "sub/../../x"})
    OpenBeneath(name, -EXDEV);
  OpenBeneath(path_, -EXDEV); // from the root on
  OpenBeneath("sub", -EISDIR);
  OpenBeneath("none", -ENOENT);
  close(fd);
}

TEST_P(BeneathTest, ALinkThatStaysInTheDirectoryIsFollowed) {
  Link("disk.img", "link");
  auto src = OpenBeneath("link");
  ASSERT_NE(src, nullptr);
  ASSERT_EQ(Read(src, 0, 100, &bytes_), 0);
  EXPECT_EQ(bytes_, std::string(100, 'a'));
  EXPECT_EQ(Reopen(src), nullptr) << "unchanged";
  WriteTo(dir_ + "/other.img", std::string(500, 'b'));
  Link("other.img", "link");
  auto fresh = Reopen(src);
  ASSERT_NE(fresh, nullptr);
  EXPECT_EQ(fresh->size, 500u);
}

// Nor is one that comes later: what is open is read on.
TEST_P(BeneathTest, AFileThatBecomesALinkOutIsNotFollowed) {
  auto src = OpenBeneath("disk.img");
  ASSERT_NE(src, nullptr);
  int held = open(path_.c_str(), O_RDONLY);
  Link(outside_, "disk.img");
  auto fresh = Reopen(src); // its ctime has changed, as it lost its name
  const auto &now = fresh ? fresh : src;
  ASSERT_EQ(Read(now, 0, 100, &bytes_), 0);
  EXPECT_EQ(bytes_, std::string(100, 'a'));
  Link("../" + outside_.substr(outside_.rfind('/') + 1), "disk.img");
  auto later = Reopen(now);
  const auto &last = later ? later : now;
  ASSERT_EQ(Read(last, 0, 100, &bytes_), 0);
  EXPECT_EQ(bytes_, std::string(100, 'a'));
  close(held);
}

TEST_P(BeneathTest, NeitherFifoNorCharacterDeviceIsOpened) {
  std::string fifo = dir_ + "/fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  OpenBeneath("fifo", -ENODEV);
  auto src = OpenBeneath("disk.img");
  ASSERT_NE(src, nullptr);
  int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  ASSERT_GE(inotify_add_watch(watch, fifo.c_str(), IN_OPEN), 0);
  ASSERT_EQ(rename(fifo.c_str(), path_.c_str()), 0);
  Reopen(src);
  char events[4096];
  EXPECT_LT(read(watch, events, sizeof events), 0) << "it was opened";
  close(watch);
}

TEST_P(BeneathTest, ALookAtAnUnchangedFileOpensNothing) {
  auto src = OpenBeneath("disk.img");
  ASSERT_NE(src, nullptr);
  int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  ASSERT_GE(inotify_add_watch(watch, path_.c_str(), IN_OPEN), 0);
  EXPECT_EQ(Reopen(src), nullptr);
  char events[4096];
  EXPECT_LT(read(watch, events, sizeof events), 0);
  close(watch);
}

// ---- By a ring --------------------------------------------------------------

// One whose reads end when the test says so, and as it says.
class FakeRing {
public:
  FakeRing() {
    base_.read = [](ring *r, ring_read *read) {
      auto *self = reinterpret_cast<FakeRing *>(r);
      if (!self->is_full_)
        self->reads_.push_back(read);
      return !self->is_full_;
    };
  }
  ring *base() { return &base_; }
  size_t n_reads() const { return reads_.size(); }
  const ring_read &last() const { return *reads_.back(); }
  void Fill() { is_full_ = true; }

  // The kernel makes them.
  void Read() {
    results_.clear();
    for (ring_read *read : reads_)
      results_.push_back(
          pread(read->fd, read->buf, read->len, off_t(read->offset)));
  }
  // They are told; `result` in place of what they came to, unless it is 0.
  void Tell(ssize_t result = 0) {
    std::vector<ring_read *> reads;
    reads.swap(reads_);
    base_.checked = nullptr;
    for (size_t i = 0; i < reads.size(); i++)
      reads[i]->ended(reads[i], result ? result : results_[i]);
  }

private:
  ring base_{};
  bool is_full_ = false;
  std::vector<ring_read *> reads_;
  std::vector<ssize_t> results_;
};

// A read of a page that has a ring.
struct RingRead {
  source_read base{};
  int n_done = 0;
  source_outcome outcome = SOURCE_DONE;
  char *bytes = static_cast<char *>(aligned_alloc(4096, 4096));

  RingRead(const SourcePtr &src, FakeRing *ring, uint64_t page) {
    base.offset = page * 4096;
    base.buf = bytes;
    base.len = 4096;
    base.ring = ring ? ring->base() : nullptr;
    base.done = [](source_read *r) {
      reinterpret_cast<RingRead *>(r)->n_done++;
    };
    outcome = source_start(src.get(), &base);
  }
  RingRead(const RingRead &) = delete;
  ~RingRead() { free(bytes); }
  bool HasAll(char c) const {
    return std::string(bytes, 4096) == std::string(4096, c);
  }
};

class RingTest : public FileTest {
protected:
  static constexpr size_t kPages = 512;
  void SetUp() override {
    FileTest::SetUp();
    g_is_slow = true;
    std::string content;
    for (size_t i = 0; i < kPages; i++)
      content += std::string(4096, Letter(i));
    Write(content);
    if (!g_no_dontcache && !KnowsDontcache(path_))
      GTEST_SKIP() << "no RWF_DONTCACHE here, without which the first read "
                      "goes another way";
    Forget(path_);
    int direct = open(path_.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (direct < 0 || CountInKernel(path_, kPages) > 0)
      GTEST_SKIP() << "a file system that is all memory";
    close(direct);
  }
  void TearDown() override {
    g_no_dontcache = g_is_slow = false;
    FileTest::TearDown();
  }
  static char Letter(size_t page) { return char('a' + page % 26); }

  enum Way { kNotByRing, kBegun, kDirect };

  // Reads a page that nobody has read, and says which way.  `result` is what
  // the ring tells in place of what the read came to, unless it is 0.
  Way ReadNext(const SourcePtr &src, ssize_t result = 0) {
    size_t page = next_++;
    RingRead read(src, &ring_, page);
    if (read.outcome != SOURCE_PENDING)
      return kNotByRing;
    bool direct = fcntl(ring_.last().fd, F_GETFL) & O_DIRECT;
    EXPECT_EQ(!!(ring_.last().flags & RWF_NOWAIT), direct);
    ring_.Read();
    ring_.Tell(result);
    EXPECT_EQ(read.base.status, result ? int(SOURCE_UNREAD) : 0);
    EXPECT_TRUE(read.HasAll(Letter(page))) << page;
    return direct ? kDirect : kBegun;
  }

  FakeRing ring_;
  size_t next_ = 1;
};

TEST_P(RingTest, WhatTheKernelHasNotTheRingReads) {
  auto src = Open();
  for (size_t page : {40, 3, 17}) {
    RingRead read(src, &ring_, page);
    ASSERT_EQ(read.outcome, SOURCE_PENDING) << page;
    ASSERT_EQ(ring_.n_reads(), 1u);
    ring_.Read();
    EXPECT_EQ(read.n_done, 0);
    ring_.Tell();
    EXPECT_EQ(read.n_done, 1);
    EXPECT_EQ(read.base.status, 0);
    EXPECT_TRUE(read.HasAll(Letter(page))) << page;
  }
}

TEST_P(RingTest, WhatTheKernelHasIsThereAtOnce) {
  g_is_slow = false;
  Warm(path_, kPages);
  auto src = Open();
  RingRead read(src, &ring_, 9);
  EXPECT_EQ(read.outcome, SOURCE_DONE);
  EXPECT_TRUE(read.HasAll(Letter(9)));
  EXPECT_EQ(ring_.n_reads(), 0u);
}

// The kernel is asked first; the others ask nothing, and wait for no thread.
TEST_P(RingTest, TheReadsAfterAMissGoPastTheKernelsMemory) {
  auto src = Open();
  RingRead first(src, &ring_, 1);
  int asked = ring_.last().fd;
  RingRead second(src, &ring_, 30);
  ASSERT_EQ(ring_.n_reads(), 2u);
  EXPECT_NE(ring_.last().fd, asked);
  EXPECT_TRUE(fcntl(ring_.last().fd, F_GETFL) & O_DIRECT);
  EXPECT_EQ(ring_.last().flags, RWF_NOWAIT);
  ring_.Read();
  ring_.Tell();
  EXPECT_TRUE(first.HasAll(Letter(1)));
  EXPECT_TRUE(second.HasAll(Letter(30)));
}

TEST_P(RingTest, AChangeDuringReadsIsFoundForEachOfTheTurn) {
  auto src = Open();
  RingRead first(src, &ring_, 1), second(src, &ring_, 2);
  ring_.Read();
  int fd = open(path_.c_str(), O_WRONLY | O_CLOEXEC);
  ASSERT_EQ(pwrite(fd, "x", 1, 5000), 1);
  close(fd);
  Tick(path_);
  ring_.Tell();
  EXPECT_EQ(first.base.status, -ESTALE);
  EXPECT_EQ(second.base.status, -ESTALE);
}

TEST_P(RingTest, AChangeAfterATurnIsFoundInTheNext) {
  auto src = Open();
  RingRead first(src, &ring_, 1);
  ring_.Read();
  ring_.Tell();
  EXPECT_EQ(first.base.status, 0);
  RingRead second(src, &ring_, 2);
  ring_.Read();
  ASSERT_EQ(truncate(path_.c_str(), 9 * 4096), 0);
  ring_.Tell();
  EXPECT_EQ(second.base.status, -ESTALE);
}

TEST_P(RingTest, AFileThatIsCutDuringAReadIsLeftToARead) {
  auto src = Open();
  RingRead read(src, &ring_, 40);
  ASSERT_EQ(read.outcome, SOURCE_PENDING);
  ASSERT_EQ(truncate(path_.c_str(), 40 * 4096 + 100), 0);
  ring_.Tell(100);
  EXPECT_EQ(read.base.status, SOURCE_UNREAD);
  EXPECT_EQ(Read(src, 40 * 4096, 4096, &bytes_), -ESTALE);
}

TEST_P(RingTest, WhatTheRingCannotReadIsLeftToRead) {
  for (int error : {EAGAIN, EINVAL, EIO, EOPNOTSUPP}) {
    auto src = Open();
    EXPECT_EQ(ReadNext(src), kBegun);
    size_t page = next_;
    RingRead failed(src, &ring_, page);
    ASSERT_EQ(failed.outcome, SOURCE_PENDING) << strerror(error);
    ring_.Tell(-error);
    EXPECT_EQ(failed.base.status, SOURCE_UNREAD) << strerror(error);
    EXPECT_EQ(Read(src, page * 4096, 4096, &bytes_), 0);
    EXPECT_EQ(bytes_, std::string(4096, Letter(page)));
    next_++;
  }
}

TEST_P(RingTest, ARingThatFailsIsSparedForMoreAndMoreReads) {
  auto src = Open();
  EXPECT_EQ(ReadNext(src), kBegun);
  for (int n_spared : {1, 2, 4, 8, 16, 32, 64, 64}) {
    EXPECT_EQ(ReadNext(src, -EAGAIN), kDirect);
    for (int i = 0; i < n_spared; i++)
      EXPECT_EQ(ReadNext(src), kNotByRing) << i << " of " << n_spared;
  }
  EXPECT_EQ(ReadNext(src), kDirect);
  EXPECT_EQ(ReadNext(src, -EAGAIN), kDirect);
  EXPECT_EQ(ReadNext(src), kNotByRing);
  EXPECT_EQ(ReadNext(src), kDirect) << "after a good one it begins anew";
}

TEST_P(RingTest, AReadThatTheKernelHadBegunSaysNothingOfDirectOnes) {
  auto src = Open();
  EXPECT_EQ(ReadNext(src), kBegun);
  for (int i = 0; i < 62; i++)
    EXPECT_EQ(ReadNext(src), kDirect) << i;
  EXPECT_EQ(ReadNext(src, -EAGAIN), kDirect);
  EXPECT_EQ(ReadNext(src), kNotByRing);
  EXPECT_EQ(ReadNext(src), kBegun);
  EXPECT_EQ(ReadNext(src, -EAGAIN), kDirect);
  EXPECT_EQ(ReadNext(src), kNotByRing);
  EXPECT_EQ(ReadNext(src), kNotByRing);
  EXPECT_EQ(ReadNext(src), kDirect);
}

TEST_P(RingTest, ReadsThatTheKernelHadBegunAndThatFailAreSparedLikewise) {
  auto src = Open();
  EXPECT_EQ(ReadNext(src), kBegun);
  EXPECT_EQ(ReadNext(src, -EINVAL), kDirect); // from now on there are no such
  for (int n_spared : {1, 2, 4, 8, 16, 32, 64, 64}) {
    EXPECT_EQ(ReadNext(src, -EIO), kBegun);
    for (int i = 0; i < n_spared; i++)
      EXPECT_EQ(ReadNext(src), kNotByRing) << i << " of " << n_spared;
  }
  EXPECT_EQ(ReadNext(src), kBegun);
  EXPECT_EQ(ReadNext(src, -EIO), kBegun);
  EXPECT_EQ(ReadNext(src), kNotByRing);
  EXPECT_EQ(ReadNext(src), kBegun) << "after a good one it begins anew";
}

// A worker polls such a read.
TEST_P(RingTest, AnotherStartOfAReadIsNotCounted) {
  auto src = Open();
  EXPECT_EQ(ReadNext(src), kBegun);
  EXPECT_EQ(ReadNext(src, -EAGAIN), kDirect);
  for (int i = 0; i < 10; i++) {
    RingRead again(src, nullptr, next_);
    EXPECT_NE(again.outcome, SOURCE_PENDING);
  }
  next_++;
  EXPECT_EQ(ReadNext(src), kNotByRing);
  EXPECT_EQ(ReadNext(src), kDirect);
}

TEST_P(RingTest, AFileSystemThatRefusesDirectReadsIsAskedForNoMore) {
  for (int error : {EINVAL, EOPNOTSUPP}) {
    auto src = Open();
    EXPECT_EQ(ReadNext(src), kBegun);
    EXPECT_EQ(ReadNext(src, -error), kDirect);
    for (int i = 0; i < 100; i++)
      EXPECT_EQ(ReadNext(src), kBegun) << i;
  }
}

// A kernel without RWF_DONTCACHE, or one that is made to look like it.
class ReadAheadRingTest : public RingTest {
protected:
  void SetUp() override {
    g_no_dontcache = true;
    RingTest::SetUp();
  }
};

TEST_P(ReadAheadRingTest, WhereTheKernelReadsAheadNoReadGoesPastIt) {
  auto src = Open();
  RingRead first(src, &ring_, 0);
  EXPECT_EQ(first.outcome, SOURCE_BLOCKS);
  EXPECT_EQ(Read(src, 0, 4096, &bytes_), 0);
  next_ = 200; // beyond what was read ahead
  int n_begun = 0;
  for (; next_ < kPages; next_ += 9) {
    Way way = ReadNext(src);
    EXPECT_NE(way, kDirect) << next_;
    n_begun += way == kBegun;
  }
  EXPECT_GT(n_begun, 1);
}

TEST_P(RingTest, AFullRingLeavesTheOldWay) {
  ring_.Fill();
  auto src = Open();
  RingRead read(src, &ring_, 5);
  EXPECT_TRUE(read.outcome == SOURCE_RETRY || read.outcome == SOURCE_DONE);
  EXPECT_EQ(read.n_done, 0);
  EXPECT_EQ(Read(src, 5 * 4096, 4096, &bytes_), 0);
  EXPECT_EQ(bytes_, std::string(4096, Letter(5)));
}

INSTANTIATE_TEST_SUITE_P(How, RingTest, testing::Values(FILE_DONTCACHE),
                         [](const testing::TestParamInfo<file_reading> &) {
                           return "Direct";
                         });

INSTANTIATE_TEST_SUITE_P(How, ReadAheadRingTest,
                         testing::Values(FILE_DONTCACHE),
                         [](const testing::TestParamInfo<file_reading> &) {
                           return "Direct";
                         });

INSTANTIATE_TEST_SUITE_P(How, BeneathTest,
                         testing::Values(FILE_CACHED, FILE_DONTCACHE),
                         [](const testing::TestParamInfo<file_reading> &how) {
                           return how.param == FILE_DONTCACHE ? "Direct"
                                                              : "Cached";
                         });

INSTANTIATE_TEST_SUITE_P(How, FileTest,
                         testing::Values(FILE_CACHED, FILE_DONTCACHE),
                         [](const testing::TestParamInfo<file_reading> &how) {
                           return how.param == FILE_DONTCACHE ? "Direct"
                                                              : "Cached";
                         });

} // namespace

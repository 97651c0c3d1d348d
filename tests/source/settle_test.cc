// Versions that are believed too early, and bytes that are too old: on a file
// system that keeps whole seconds, and by a clock that the test moves.
#include "source/file.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>

#include "source/version.h"

namespace {

// What the file system says of each file, and by how much the clock was moved.
constexpr time_t kNow = 1700000000;
struct {
  bool faked;
  timespec stamp;
  int64_t passed_ms;
  int n_seeks; // questions for holes
} world;

void Fake(struct stat *st) {
  if (world.faked && S_ISREG(st->st_mode))
    st->st_mtim = st->st_ctim = world.stamp;
}

} // namespace

// These come before libc's for the code under test as well.
extern "C" int fstat(int fd, struct stat *st) noexcept {
  int r = fstatat(fd, "", st, AT_EMPTY_PATH);
  Fake(st);
  return r;
}

extern "C" int stat(const char *path, struct stat *st) noexcept {
  int r = fstatat(AT_FDCWD, path, st, 0);
  Fake(st);
  return r;
}

extern "C" int clock_gettime(clockid_t clock, timespec *t) noexcept {
  long r = syscall(SYS_clock_gettime, clock, t);
  if (!world.faked)
    return int(r);
  if (clock == CLOCK_REALTIME_COARSE)
    *t = {kNow + world.passed_ms / 1000, world.passed_ms % 1000 * 1000000};
  if (clock == CLOCK_BOOTTIME)
    *t = {1000 + world.passed_ms / 1000, world.passed_ms % 1000 * 1000000};
  return 0;
}

extern "C" off_t lseek(int fd, off_t offset, int whence) noexcept {
  world.n_seeks++;
  return syscall(SYS_lseek, fd, offset, whence);
}

namespace {

struct Close {
  void operator()(source *src) const { src->ops->close(src); }
};
using SourcePtr = std::unique_ptr<source, Close>;

class SettleTest : public testing::Test {
protected:
  void SetUp() override {
    dir_ = std::string(Root()) + "/settle_test.XXXXXX";
    ASSERT_NE(mkdtemp(dir_.data()), nullptr);
    path_ = dir_ + "/disk.img";
    fd_ = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ASSERT_GE(fd_, 0);
    Write('a');
    world = {true, {kNow, 0}, 0, 0};
  }
  void TearDown() override {
    world = {};
    close(fd_);
    EXPECT_EQ(unlink(path_.c_str()), 0);
    EXPECT_EQ(rmdir(dir_.c_str()), 0);
  }

  virtual const char *Root() { return "/tmp"; }

  void Write(char c) { ASSERT_EQ(pwrite(fd_, &c, 1, 0), 1); }

  SourcePtr Open() {
    source *src = nullptr;
    EXPECT_EQ(file_source_open(path_.c_str(), FILE_CACHED, &src), 0);
    return SourcePtr(src);
  }

  static int Read(const SourcePtr &src, char *out) {
    return src->ops->read(src.get(), 0, out, 1);
  }

  static char Content(const SourcePtr &src) {
    char c = '?';
    EXPECT_EQ(Read(src, &c), 0);
    return c;
  }

  static SourcePtr Reopen(const SourcePtr &src) {
    source *fresh = nullptr;
    EXPECT_EQ(src->ops->reopen(src.get(), &fresh), 0);
    return SourcePtr(fresh);
  }

  // Writes at a time that shows that the file system keeps small parts of a
  // second.  A whole multiple of 10 ms does not: so is each fifth where the
  // clock goes in steps of exactly 4.  False: it keeps none.
  bool WriteWithFineStamp(char c) {
    auto begin = std::chrono::steady_clock::now();
    struct stat st;
    do {
      Write(c);
      EXPECT_EQ(fstat(fd_, &st), 0);
      if (st.st_ctim.tv_nsec % 10000000 != 0)
        return true;
    } while (std::chrono::steady_clock::now() - begin <
             std::chrono::milliseconds(200));
    return false;
  }

  // Long after anything can be due because of the version.
  static void ExpectIsBelieved(const SourcePtr &src) {
    world.passed_ms += 100000;
    EXPECT_EQ(Reopen(src), nullptr);
    Content(src);
  }

  std::string dir_, path_;
  int fd_;
};

TEST_F(SettleTest, AWriteInTheSameSecondIsSeenOnceTheSecondIsOver) {
  auto src = Open();
  EXPECT_EQ(Content(src), 'a');
  Write('b'); // and the stamps are what they were
  EXPECT_EQ(Reopen(src), nullptr) << "nobody can know";
  world.passed_ms = 2100;
  auto fresh = Reopen(src);
  ASSERT_NE(fresh, nullptr) << "what was read is to be read again";
  EXPECT_EQ(Content(fresh), 'b');
  ExpectIsBelieved(fresh);
}

TEST_F(SettleTest, AReadAfterTheSecondDoesNotStandBesideOneWithinIt) {
  auto src = Open();
  EXPECT_EQ(Content(src), 'a');
  Write('b');
  world.passed_ms = 2100;
  char c;
  EXPECT_EQ(Read(src, &c), -ESTALE);
  source_read read{};
  read.buf = &c;
  read.len = 1;
  EXPECT_EQ(source_start(src.get(), &read), SOURCE_DONE);
  EXPECT_EQ(read.status, -ESTALE);
  EXPECT_EQ(Content(Reopen(src)), 'b');
}

TEST_F(SettleTest, WhatIsReadAfterTheSecondIsReadOnce) {
  auto src = Open();
  world.passed_ms = 2100;
  EXPECT_EQ(Reopen(src), nullptr) << "there is nothing to read again";
  EXPECT_EQ(Content(src), 'a');
  ExpectIsBelieved(src);
}

TEST_F(SettleTest, AFileThatIsOlderIsBelievedAtOnce) {
  world.passed_ms = 2000;
  auto src = Open();
  EXPECT_EQ(Content(src), 'a');
  ExpectIsBelieved(src);
}

TEST_F(SettleTest, AStampFromTheFutureIsDoubtedOnce) {
  world.stamp.tv_sec = kNow + 1000000;
  auto src = Open();
  EXPECT_EQ(Content(src), 'a');
  Write('b');
  world.passed_ms = 2100;
  auto fresh = Reopen(src);
  ASSERT_NE(fresh, nullptr);
  EXPECT_EQ(Content(fresh), 'b');
  for (int i = 0; i < 3; i++)
    ExpectIsBelieved(fresh);
}

TEST_F(SettleTest, ANewVersionIsDoubtedAsTheFirstWas) {
  world.passed_ms = 5000;
  auto src = Open();
  EXPECT_EQ(Content(src), 'a');
  Write('b');
  world.stamp.tv_sec = kNow + 5;
  auto second = Reopen(src);
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(Content(second), 'b');
  Write('c');
  world.passed_ms = 7100;
  auto third = Reopen(second);
  ASSERT_NE(third, nullptr);
  EXPECT_EQ(Content(third), 'c');
  ExpectIsBelieved(third);
}

// With the stamps of this machine: a program that makes a file and reads it.
TEST_F(SettleTest, ATickIsWaitedForAndNothingIsReadTwice) {
  world.faked = false;
  for (char c = 'c'; c < 'm'; c++) {
    if (!WriteWithFineStamp(c))
      GTEST_SKIP() << "a file system that keeps no small parts of a second";
    auto src = Open();
    EXPECT_EQ(Content(src), c);
    Write('!'); // at once: and yet with another stamp
    char now;
    EXPECT_EQ(Read(src, &now), -ESTALE) << c;
    auto fresh = Reopen(src);
    ASSERT_NE(fresh, nullptr) << c;
    EXPECT_EQ(Content(fresh), '!');
  }
}

// ---- Holes ------------------------------------------------------------------

// All but the file's first page is a hole, and the file at rest.
class HoleTest : public SettleTest {
protected:
  static constexpr uint64_t kHole = 512 << 10, kSize = 1 << 20;

  void SetUp() override {
    SettleTest::SetUp();
    ASSERT_EQ(ftruncate(fd_, kSize), 0);
    world.stamp = {kNow, 1}; // a file system that keeps them whole
    world.passed_ms = 5000;
  }

  // As of a write(2) that began when the stamps were made.
  void WriteOn(uint64_t offset) {
    ASSERT_EQ(pwrite(fd_, "b", 1, off_t(offset)), 1);
  }

  static bool IsHole(const SourcePtr &src, uint64_t offset) {
    char c = '?';
    int r = src->ops->read(src.get(), offset, &c, 1);
    EXPECT_TRUE(r == SOURCE_ZEROS || (r == 0 && (c == 'b' || c == '\0'))) << r;
    return r == SOURCE_ZEROS;
  }

  static source_outcome Start(const SourcePtr &src, uint64_t offset, size_t len,
                              int *status) {
    std::string buf(len, '?');
    source_read read{};
    read.offset = offset;
    read.buf = buf.data();
    read.len = len;
    source_outcome outcome = source_start(src.get(), &read);
    *status = read.status;
    EXPECT_TRUE(read.status != SOURCE_ZEROS || buf == std::string(len, '?'));
    return outcome;
  }
};

TEST_F(HoleTest, IsAskedForOnce) {
  auto src = Open();
  world.n_seeks = 0;
  EXPECT_TRUE(IsHole(src, kHole));
  int n = world.n_seeks;
  EXPECT_GT(n, 0);
  EXPECT_TRUE(IsHole(src, kHole + 4096));
  EXPECT_TRUE(IsHole(src, kSize - 1));
  EXPECT_EQ(world.n_seeks, n);
}

// A question may wait for the file system.
TEST_F(HoleTest, IsKnownToAStartOnceAReadHasAsked) {
  constexpr size_t kLong = 2 * SOURCE_MAX_COPY;
  auto src = Open();
  int status;
  world.n_seeks = 0;
  EXPECT_EQ(Start(src, kHole, 4096, &status), SOURCE_BLOCKS);
  EXPECT_EQ(world.n_seeks, 0);
  EXPECT_TRUE(IsHole(src, kHole));
  EXPECT_EQ(Start(src, kHole, 4096, &status), SOURCE_DONE);
  EXPECT_EQ(status, SOURCE_ZEROS);
  EXPECT_EQ(Start(src, kHole, kLong, &status), SOURCE_DONE);
  EXPECT_EQ(status, SOURCE_ZEROS) << "there is nothing to copy";
}

// Where the version does not move, as here, somebody has to say so.
TEST_F(HoleTest, ThatIsWrittenIsReadOnceItIsForgotten) {
  auto src = Open();
  EXPECT_TRUE(IsHole(src, kHole));
  WriteOn(kHole);
  EXPECT_TRUE(IsHole(src, kHole));
  source_forget(src.get());
  EXPECT_FALSE(IsHole(src, kHole));
}

TEST_F(HoleTest, OfAVersionThatIsOverIsStaleForAStart) {
  auto src = Open();
  int status;
  EXPECT_TRUE(IsHole(src, kHole));
  world.stamp.tv_nsec++;
  EXPECT_EQ(Start(src, kHole, 4096, &status), SOURCE_DONE);
  EXPECT_EQ(status, -ESTALE);
}

TEST_F(HoleTest, OfAFileThatMayBeWrittenNowIsNotRemembered) {
  world.passed_ms = 1900;
  auto src = Open();
  int status;
  EXPECT_TRUE(IsHole(src, kHole)) << "it is one now";
  EXPECT_EQ(Start(src, kHole, 1, &status), SOURCE_BLOCKS);
  WriteOn(kHole);
  EXPECT_FALSE(IsHole(src, kHole));
  EXPECT_FALSE(IsHole(src, 1));
  world.passed_ms = 2100;
  EXPECT_TRUE(IsHole(src, kSize - 1));
  EXPECT_EQ(Start(src, kSize - 1, 1, &status), SOURCE_DONE);
  EXPECT_EQ(status, SOURCE_ZEROS) << "from now on";
}

TEST_F(HoleTest, IsAskedForAgainAfterTwoSeconds) {
  auto src = Open();
  EXPECT_TRUE(IsHole(src, kHole));
  WriteOn(kHole); // by a write that takes for ever
  world.passed_ms += 2100;
  int status;
  EXPECT_EQ(Start(src, kHole, 1, &status), SOURCE_BLOCKS);
  EXPECT_FALSE(IsHole(src, kHole));
}

TEST_F(HoleTest, OfASuccessorIsRememberedOnceThatIsAtRest) {
  auto first = Open();
  file_source_set_max_age(first.get(), 1);
  EXPECT_TRUE(IsHole(first, kHole));
  world.stamp = {kNow + 4, 900000001};
  auto src = Reopen(first);
  ASSERT_NE(src, nullptr);
  EXPECT_TRUE(IsHole(src, kHole));
  world.passed_ms += 1500;
  auto next = Reopen(src); // of the same version, which is not older for that
  ASSERT_NE(next, nullptr);
  EXPECT_TRUE(IsHole(next, kHole));
  WriteOn(kHole);
  EXPECT_FALSE(IsHole(next, kHole));
}

// ---- Writers ----------------------------------------------------------------

// On tmpfs, where no store is ever seen.
class WriterTest : public SettleTest {
protected:
  const char *Root() override { return "/dev/shm"; }

  void SetUp() override {
    SettleTest::SetUp();
    world.passed_ms = 5000; // the version is believed
    int fd = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    bool told = fcntl(fd, F_SETLEASE, F_RDLCK) < 0 && errno == EAGAIN;
    close(fd);
    if (!told)
      GTEST_SKIP() << "no file system that tells of writers";
  }

  SourcePtr OpenDoubting() {
    auto src = Open();
    file_source_doubt_writers(src.get());
    return src;
  }

  void CloseWriter() {
    close(fd_);
    fd_ = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  }
};

TEST_F(WriterTest, WhatIsReadBesideAWriterIsReadAgainWhileItWrites) {
  auto src = OpenDoubting();
  EXPECT_EQ(Content(src), 'a');
  for (char c = 'b'; c < 'e'; c++) {
    Write(c); // as through a mapping: the stamps stay
    world.passed_ms += 1900;
    EXPECT_EQ(Reopen(src), nullptr);
    world.passed_ms += 200;
    src = Reopen(src);
    ASSERT_NE(src, nullptr);
    EXPECT_EQ(Content(src), c);
  }
}

TEST_F(WriterTest, AndOnceMoreWhenItIsGone) {
  auto src = OpenDoubting();
  EXPECT_EQ(Content(src), 'a');
  Write('b');
  CloseWriter();
  // The thread that looked may not have had the memory for another version.
  EXPECT_NE(Reopen(src), nullptr);
  auto fresh = Reopen(src);
  ASSERT_NE(fresh, nullptr);
  char c;
  EXPECT_EQ(Read(src, &c), -ESTALE);
  EXPECT_EQ(Content(fresh), 'b');
  ExpectIsBelieved(fresh);
}

TEST_F(WriterTest, WhatNobodyHasReadIsNotReadAgain) {
  auto src = OpenDoubting();
  CloseWriter();
  EXPECT_EQ(Reopen(src), nullptr);
  EXPECT_EQ(Content(src), 'a');
  ExpectIsBelieved(src);
}

TEST_F(WriterTest, OneThatComesLaterIsSeenByALook) {
  CloseWriter();
  auto src = OpenDoubting();
  EXPECT_EQ(Content(src), 'a');
  close(fd_);
  fd_ = open(path_.c_str(), O_RDWR | O_CLOEXEC); // it waits for no lease
  ASSERT_GE(fd_, 0);
  EXPECT_EQ(Reopen(src), nullptr);
  Write('b');
  world.passed_ms += 2100;
  auto fresh = Reopen(src);
  ASSERT_NE(fresh, nullptr);
  EXPECT_EQ(Content(fresh), 'b');
}

class DiskWriterTest : public WriterTest {
protected:
  const char *Root() override { return "/tmp"; }
};

// As of a virtual machine that is not doing anything: its next store will move
// a stamp.
TEST_F(DiskWriterTest, OfAFileThatIsWrittenBackIsTrusted) {
  ASSERT_EQ(fsync(fd_), 0);
  if (version_has_writer(fd_))
    GTEST_SKIP() << "a kernel, or a file system, that does not tell";
  auto src = OpenDoubting();
  EXPECT_EQ(Content(src), 'a');
  ExpectIsBelieved(src);
}

class MaxAgeTest : public SettleTest {
protected:
  void SetUp() override {
    SettleTest::SetUp();
    world.passed_ms = 5000; // the version is believed
  }

  SourcePtr OpenWithMaxAge(unsigned seconds) {
    auto src = Open();
    file_source_set_max_age(src.get(), seconds);
    return src;
  }
};

TEST_F(MaxAgeTest, WhatIsOlderIsReadAgain) {
  auto src = OpenWithMaxAge(10);
  EXPECT_EQ(Content(src), 'a');
  Write('b'); // as through a mapping: the stamps stay
  world.passed_ms += 9900;
  EXPECT_EQ(Reopen(src), nullptr);
  world.passed_ms += 200;
  char c;
  EXPECT_EQ(Read(src, &c), -ESTALE);
  auto fresh = Reopen(src);
  ASSERT_NE(fresh, nullptr);
  EXPECT_EQ(Content(fresh), 'b');
  Write('c');
  world.passed_ms += 10100;
  fresh = Reopen(fresh);
  ASSERT_NE(fresh, nullptr) << "the successor has the age of the first";
  EXPECT_EQ(Content(fresh), 'c');
}

TEST_F(MaxAgeTest, CountsFromTheFirstRead) {
  auto src = OpenWithMaxAge(10);
  world.passed_ms += 60000;
  EXPECT_EQ(Reopen(src), nullptr) << "an image that nobody reads";
  EXPECT_EQ(Content(src), 'a');
  world.passed_ms += 9900;
  EXPECT_EQ(Reopen(src), nullptr);
  EXPECT_EQ(Content(src), 'a');
  world.passed_ms += 200;
  EXPECT_NE(Reopen(src), nullptr);
}

TEST_F(MaxAgeTest, OfAFileThatIsReplacedIsThatOfTheNewOne) {
  auto src = OpenWithMaxAge(10);
  ASSERT_EQ(unlink(path_.c_str()), 0);
  close(fd_);
  fd_ = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_GE(fd_, 0);
  Write('n');
  world.stamp.tv_sec++;
  auto fresh = Reopen(src);
  ASSERT_NE(fresh, nullptr);
  EXPECT_EQ(Content(fresh), 'n');
  world.passed_ms += 10100;
  EXPECT_NE(Reopen(fresh), nullptr);
}

// A process to come, which has what this one read.
class ResumeTest : public SettleTest {
protected:
  void SetUp() override {
    SettleTest::SetUp();
    world.passed_ms = 5000; // the version is believed
  }

  static source_identity Identity(const SourcePtr &src) {
    source_identity id;
    source_identify(src.get(), &id);
    return id;
  }

  static bool Resume(const SourcePtr &src, const source_identity &id) {
    return source_resume(src.get(), &id);
  }
};

TEST_F(ResumeTest, WhatWasReadOfTheSameVersionIsGood) {
  auto before = Open();
  EXPECT_EQ(Content(before), 'a');
  source_identity id = Identity(before);
  world.passed_ms += 1000;
  auto src = Open();
  EXPECT_TRUE(Resume(src, id));
  ExpectIsBelieved(src);
}

TEST_F(ResumeTest, AfterAWriteItIsNot) {
  auto before = Open();
  source_identity id = Identity(before);
  Write('b');
  world.stamp.tv_sec = kNow + 5;
  world.passed_ms += 7000;
  EXPECT_FALSE(Resume(Open(), id));
}

TEST_F(ResumeTest, OfAFileInItsPlaceItIsNot) {
  auto before = Open();
  source_identity id = Identity(before);
  ASSERT_EQ(rename(path_.c_str(), (dir_ + "/old").c_str()), 0);
  int fd = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  ASSERT_EQ(write(fd, "b", 1), 1);
  close(fd);
  EXPECT_FALSE(Resume(Open(), id));
  unlink((dir_ + "/old").c_str());
}

TEST_F(ResumeTest, WhatWasReadBeforeTheVersionHadSettledIsNot) {
  world.passed_ms = 0;
  auto before = Open();
  EXPECT_EQ(Content(before), 'a');
  Write('b'); // and the stamps are what they were
  source_identity id = Identity(before);
  world.passed_ms = 5000;
  EXPECT_FALSE(Resume(Open(), id));
}

TEST_F(ResumeTest, WhatWasReadAfterItHadSettledIs) {
  world.passed_ms = 0;
  auto before = Open();
  world.passed_ms = 5000;
  EXPECT_EQ(Content(before), 'a');
  source_identity id = Identity(before);
  EXPECT_TRUE(Resume(Open(), id));
}

TEST_F(ResumeTest, WhatIsNotReadYetCountsAsReadNow) {
  world.passed_ms = 0;
  auto before = Open();
  source_identity id = Identity(before);
  world.passed_ms = 5000;
  EXPECT_FALSE(Resume(Open(), id)) << "it may have been read at once";
}

TEST_F(ResumeTest, ItsAgeCountsFromTheReadOfTheProcessBefore) {
  auto before = Open();
  EXPECT_EQ(Content(before), 'a');
  source_identity id = Identity(before);
  world.passed_ms += 9000;
  auto src = Open();
  file_source_set_max_age(src.get(), 10);
  ASSERT_TRUE(Resume(src, id));
  EXPECT_EQ(Reopen(src), nullptr);
  world.passed_ms += 1100;
  EXPECT_NE(Reopen(src), nullptr);
}

TEST_F(ResumeTest, WhatIsNoIdentityIsRefused) {
  auto src = Open();
  source_identity id{};
  EXPECT_FALSE(Resume(src, id));
  id = Identity(src);
  id.len--;
  EXPECT_FALSE(Resume(src, id));
  id.len = SOURCE_IDENTITY_MAX + 1;
  EXPECT_FALSE(Resume(src, id));
  id = Identity(src);
  id.bytes[20] ^= 1;
  EXPECT_FALSE(Resume(src, id));
}

class ResumeWriterTest : public WriterTest {};

TEST_F(ResumeWriterTest, NothingIsKeptBesideAWriter) {
  auto src = OpenDoubting();
  EXPECT_EQ(Content(src), 'a');
  source_identity id;
  source_identify(src.get(), &id);
  EXPECT_EQ(id.len, 0u);
}

TEST_F(ResumeWriterTest, NorIsItGoodBesideOneThatCameLater) {
  CloseWriter();
  auto before = OpenDoubting();
  EXPECT_EQ(Content(before), 'a');
  source_identity id;
  source_identify(before.get(), &id);
  ASSERT_GT(id.len, 0u);
  EXPECT_TRUE(source_resume(OpenDoubting().get(), &id));
  close(fd_);
  fd_ = open(path_.c_str(), O_RDWR | O_CLOEXEC);
  EXPECT_FALSE(source_resume(OpenDoubting().get(), &id));
}

} // namespace

// A worker's ring: what it reads, what it refuses, and how a thread fares that
// may have none.
#include "daemon/engine/uring.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/forbidden_call.h"

namespace {

// A read, and how it ended.
struct Read {
  ring_read base{};
  int n_ended = 0;
  ssize_t result = 0;
  std::string bytes;
  std::function<void()> on_end;

  Read(int fd, uint64_t offset, size_t len) : bytes(len, '?') {
    base.fd = fd;
    base.offset = offset;
    base.buf = &bytes[0];
    base.len = len;
    base.ended = [](ring_read *r, ssize_t n) {
      auto *self = reinterpret_cast<Read *>(r);
      self->n_ended++;
      self->result = n;
      if (self->on_end)
        self->on_end();
    };
  }
};

// Whether the kernel makes a ring as uring_init() asks for it.
bool KernelMakesRings() {
  io_uring_params params{};
  params.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_COOP_TASKRUN;
  long fd = syscall(SYS_io_uring_setup, URING_MAX_READS, &params);
  if (fd >= 0)
    close(int(fd));
  return fd >= 0;
}

class UringTest : public testing::Test {
protected:
  void SetUp() override {
    ASSERT_EQ(loop_init(&loop_, nullptr, nullptr), 0);
    if (!KernelMakesRings())
      GTEST_SKIP() << "no io_uring here";
    int r = uring_init(&uring_, &loop_);
    ASSERT_EQ(r, 0) << strerror(-r);
    fd_ = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    ASSERT_GE(fd_, 0);
    for (char c = 'a'; c < 'a' + 8; c++)
      content_ += std::string(4096, c);
    ASSERT_EQ(write(fd_, content_.data(), content_.size()),
              ssize_t(content_.size()));
    ASSERT_EQ(pipe2(pipe_, O_CLOEXEC), 0);
  }
  void TearDown() override {
    uring_fini(&uring_);
    loop_fini(&loop_);
    for (int fd : {fd_, pipe_[0], pipe_[1]})
      close(fd);
  }

  ring *Ring() { return uring_ring(&uring_); }
  // Until as many reads have ended.
  void Await(const Read &last) {
    while (!last.n_ended) {
      if (!uring_turn(&uring_))
        event_base_loop(loop_.base, EVLOOP_ONCE);
    }
  }

  // Has the kernel do something with no file.  Returns what it says.
  int Submit(int op, unsigned flags) {
    io_uring_sqe *sqe = io_uring_get_sqe(&uring_.io);
    if (!sqe)
      return 0;
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = uint8_t(op);
    sqe->flags = uint8_t(flags);
    sqe->fd = -1;
    io_uring_submit_and_wait(&uring_.io, 1);
    io_uring_cqe *cqe = nullptr;
    if (io_uring_wait_cqe(&uring_.io, &cqe) < 0)
      return 0;
    int r = cqe->res;
    io_uring_cqe_seen(&uring_.io, cqe);
    return r;
  }

  loop loop_{};
  uring uring_{};
  int fd_ = -1, pipe_[2] = {-1, -1};
  std::string content_;
};

TEST_F(UringTest, ReadsOfOneTurnEndWithTheirBytes) {
  std::vector<std::unique_ptr<Read>> reads;
  for (size_t i = 0; i < 40; i++) {
    reads.emplace_back(new Read(fd_, i % 8 * 4096, 4096));
    ASSERT_TRUE(ring_give(Ring(), &reads.back()->base));
    EXPECT_EQ(reads.back()->n_ended, 0) << "from within ring_give()";
  }
  EXPECT_FALSE(uring_is_submitted(&uring_));
  for (const auto &read : reads)
    Await(*read);
  EXPECT_TRUE(uring_is_submitted(&uring_));
  for (size_t i = 0; i < reads.size(); i++) {
    EXPECT_EQ(reads[i]->n_ended, 1) << i;
    EXPECT_EQ(reads[i]->result, 4096) << i;
    EXPECT_EQ(reads[i]->bytes, content_.substr(i % 8 * 4096, 4096)) << i;
  }
}

TEST_F(UringTest, ShortReadsAndErrorsAreToldAsTheyAre) {
  Read end(fd_, content_.size() - 100, 4096), beyond(fd_, 1 << 20, 4096),
      wrong(pipe_[1], 0, 4096);
  for (Read *read : {&end, &beyond, &wrong})
    ASSERT_TRUE(ring_give(Ring(), &read->base));
  for (Read *read : {&end, &beyond, &wrong})
    Await(*read);
  EXPECT_EQ(end.result, 100);
  EXPECT_EQ(beyond.result, 0);
  EXPECT_EQ(wrong.result, -EBADF);
}

// So a source that has checked its file in a turn checks it in the next too.
TEST_F(UringTest, EachTurnBeginsWithNothingChecked) {
  for (int turn = 0; turn < 2; turn++) {
    Read read(fd_, 0, 4096);
    read.on_end = [this] {
      EXPECT_EQ(Ring()->checked, nullptr);
      Ring()->checked = this;
    };
    ASSERT_TRUE(ring_give(Ring(), &read.base));
    Await(read);
  }
}

TEST_F(UringTest, AFullRingRefusesAReadAndGoesOnLater) {
  std::vector<std::unique_ptr<Read>> waiting;
  for (int i = 0; i < URING_MAX_READS; i++) {
    waiting.emplace_back(new Read(pipe_[0], -1, 1));
    ASSERT_TRUE(ring_give(Ring(), &waiting.back()->base));
  }
  Read more(fd_, 0, 4096);
  EXPECT_FALSE(ring_give(Ring(), &more.base));
  EXPECT_FALSE(uring_turn(&uring_)) << "nothing has ended";
  EXPECT_FALSE(ring_give(Ring(), &more.base));
  std::string bytes(URING_MAX_READS, 'x');
  ASSERT_EQ(write(pipe_[1], bytes.data(), bytes.size()), ssize_t(bytes.size()));
  for (const auto &read : waiting)
    Await(*read);
  EXPECT_EQ(more.n_ended, 0);
  ASSERT_TRUE(ring_give(Ring(), &more.base));
  Await(more);
  EXPECT_EQ(more.result, 4096);
}

TEST_F(UringTest, AReadThatEndsWakesALoopThatSleeps) {
  Read read(pipe_[0], -1, 1);
  ASSERT_TRUE(ring_give(Ring(), &read.base));
  EXPECT_FALSE(uring_turn(&uring_));
  uint64_t seen = loop_.n_events;
  std::thread writer([this] { EXPECT_EQ(write(pipe_[1], "x", 1), 1); });
  event_base_loop(loop_.base, EVLOOP_ONCE); // nothing else would wake it
  EXPECT_GT(loop_.n_events, seen);
  EXPECT_TRUE(uring_turn(&uring_));
  writer.join();
  EXPECT_EQ(read.result, 1);
}

// What an attacker would do that had taken the thread over.
TEST_F(UringTest, TheKernelTakesNothingButReads) {
  for (int op = 0; op < IORING_OP_LAST; op++) {
    if (op == IORING_OP_READ)
      continue;
    int r = Submit(op, 0);
    // A kernel may not know those that came after Linux 5.19.
    bool may_lack = op > IORING_OP_SOCKET;
    EXPECT_TRUE(r == -EACCES || (may_lack && r == -EINVAL)) << op << ": " << r;
  }
}

TEST_F(UringTest, TheKernelTakesNoReadWithFlags) {
  EXPECT_EQ(Submit(IORING_OP_READ, 0), -EBADF);
  EXPECT_EQ(Submit(IORING_OP_READ, IOSQE_FIXED_FILE), -EACCES);
  EXPECT_EQ(Submit(IORING_OP_READ, IOSQE_ASYNC), -EACCES);
}

TEST_F(UringTest, TheKernelLetsNobodyChangeTheRing) {
  io_uring_restriction any{};
  any.opcode = IORING_RESTRICTION_SQE_OP;
  any.sqe_op = IORING_OP_OPENAT;
  int fds[1] = {-1};
  EXPECT_EQ(syscall(SYS_io_uring_register, uring_.io.ring_fd,
                    IORING_REGISTER_RESTRICTIONS, &any, 1),
            -1);
  EXPECT_EQ(errno, EACCES);
  EXPECT_EQ(syscall(SYS_io_uring_register, uring_.io.ring_fd,
                    IORING_REGISTER_FILES, fds, 1),
            -1);
  EXPECT_EQ(errno, EACCES);
}

// ---- Without ----------------------------------------------------------------

// From here on the kernel takes no two reads at once; any other number it does.
bool ForbidTwoAtOnce() {
  return ForbidCallWith(SYS_io_uring_enter, 1, 2, EAGAIN);
}

// On a thread of its own, because a filter stays.
class RefusedTest : public UringTest {
public:
  void OnAThread(void (RefusedTest::*test)()) {
    std::thread([=] {
      if (!ForbidTwoAtOnce())
        GTEST_SKIP() << "no seccomp here";
      (this->*test)();
    }).join();
  }

  void AFewTimes();
  void ForGood();
};

void RefusedTest::AFewTimes() {
  for (int round = 0; round < 3; round++) {
    Read first(fd_, 0, 4096), second(fd_, 4096, 4096), third(fd_, 8192, 4096);
    ASSERT_TRUE(ring_give(Ring(), &first.base));
    ASSERT_TRUE(ring_give(Ring(), &second.base));
    for (int i = 1; i < URING_MAX_FAILED; i++)
      ASSERT_FALSE(uring_turn(&uring_)) << i;
    EXPECT_FALSE(uring_is_submitted(&uring_));
    ASSERT_TRUE(ring_give(Ring(), &third.base));
    for (Read *read : {&first, &second, &third}) {
      Await(*read);
      EXPECT_EQ(read->result, 4096);
    }
  }
}

TEST_F(RefusedTest, WhatTheKernelRefusesForAWhileItGetsLater) {
  OnAThread(&RefusedTest::AFewTimes);
}

void RefusedTest::ForGood() {
  Read taken(pipe_[0], -1, 1), first(fd_, 0, 4096), second(fd_, 0, 4096);
  ASSERT_TRUE(ring_give(Ring(), &taken.base));
  EXPECT_FALSE(uring_turn(&uring_));
  ASSERT_TRUE(ring_give(Ring(), &first.base));
  ASSERT_TRUE(ring_give(Ring(), &second.base));
  first.on_end = [&] { EXPECT_FALSE(ring_give(&uring_.base, &first.base)); };
  int n_turns = 1;
  for (; !uring_turn(&uring_) && n_turns < 2 * URING_MAX_FAILED; n_turns++)
    EXPECT_FALSE(uring_is_submitted(&uring_));
  EXPECT_EQ(n_turns, URING_MAX_FAILED);
  for (const Read *read : {&first, &second}) {
    EXPECT_EQ(read->n_ended, 1);
    EXPECT_EQ(read->result, -ECANCELED);
  }
  EXPECT_EQ(Ring(), nullptr);
  EXPECT_TRUE(uring_is_submitted(&uring_));
  EXPECT_EQ(taken.n_ended, 0);
  ASSERT_EQ(write(pipe_[1], "x", 1), 1);
  Await(taken);
  EXPECT_EQ(taken.result, 1);
}

TEST_F(RefusedTest, ARingThatTheKernelRefusesGivesUpAndEndsWhatItHas) {
  OnAThread(&RefusedTest::ForGood);
}

class ForbiddenTest : public testing::TestWithParam<int> {};

TEST_P(ForbiddenTest, AThreadGoesOnWithoutARing) {
  for (int error : {EPERM, ENOSYS}) {
    pid_t pid = fork();
    if (pid == 0) {
      loop loop{};
      uring uring{};
      if (!ForbidCall(GetParam(), error))
        _exit(77);
      if (loop_init(&loop, nullptr, nullptr) < 0)
        _exit(2);
      if (uring_init(&uring, &loop) != -error)
        _exit(3);
      bool is_none = !uring_ring(&uring) && !uring_turn(&uring) &&
                     uring_is_submitted(&uring);
      uring_fini(&uring);
      loop_fini(&loop);
      _exit(is_none ? 0 : 4);
    }
    int status = -1;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_TRUE(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77)
      GTEST_SKIP() << "no seccomp here";
    loop loop{};
    uring uring{};
    ASSERT_EQ(loop_init(&loop, nullptr, nullptr), 0);
    bool has = uring_init(&uring, &loop) == 0;
    uring_fini(&uring);
    loop_fini(&loop);
    if (has) {
      EXPECT_EQ(WEXITSTATUS(status), 0) << strerror(error);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Of, ForbiddenTest,
                         testing::Values(SYS_io_uring_setup,
                                         SYS_io_uring_register,
                                         SYS_io_uring_enter),
                         [](const testing::TestParamInfo<int> &i) {
                           return i.param == SYS_io_uring_setup ? "Setup"
                                  : i.param == SYS_io_uring_register
                                      ? "Register"
                                      : "Enter";
                         });

} // namespace

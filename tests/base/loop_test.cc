#include "base/loop.h"

#include <poll.h>

#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace {

class LoopTest : public testing::Test {
protected:
  LoopTest() { EXPECT_EQ(loop_init(&loop_, TasksRan, this), 0); }
  ~LoopTest() override { loop_fini(&loop_); }

  struct Note {
    struct task task;
    LoopTest *test;
    int number;
    struct task *posts; // when it runs; or null
  };

  Note Make(int number) {
    return Note{{Run, nullptr, false}, this, number, {}};
  }

  static void Run(struct task *task) {
    Note *note = reinterpret_cast<Note *>(task);
    note->test->ran_.push_back(note->number);
    if (note->posts)
      loop_post(&note->test->loop_, note->posts);
  }

  static void TasksRan(void *arg) {
    static_cast<LoopTest *>(arg)->n_batches_++;
  }

  void Turn() { event_base_loop(loop_.base, EVLOOP_ONCE | EVLOOP_NONBLOCK); }

  struct loop loop_;
  std::vector<int> ran_;
  int n_batches_ = 0;
};

TEST_F(LoopTest, RunsTasksInTheOrderOfTheirPosts) {
  Note a = Make(1), b = Make(2), c = Make(3);
  loop_post(&loop_, &b.task);
  loop_post(&loop_, &a.task);
  loop_post(&loop_, &c.task);
  Turn();
  EXPECT_EQ(ran_, (std::vector<int>{2, 1, 3}));
  EXPECT_EQ(n_batches_, 1);
  EXPECT_EQ(loop_.n_events, 1u);
}

TEST_F(LoopTest, ATaskThatIsPostedTwiceRunsOnce) {
  Note a = Make(1), b = Make(2);
  loop_post(&loop_, &a.task);
  loop_post(&loop_, &b.task);
  loop_post(&loop_, &a.task);
  Turn();
  Turn();
  EXPECT_EQ(ran_, (std::vector<int>{1, 2}));
}

TEST_F(LoopTest, ATaskMayPostItselfAgain) {
  Note a = Make(1);
  a.posts = &a.task;
  loop_post(&loop_, &a.task);
  Turn();
  EXPECT_GE(ran_.size(), 1u);
  a.posts = nullptr;
  size_t n = ran_.size();
  Turn();
  EXPECT_EQ(ran_.size(), n + 1);
}

// Else a thread that posts without end would keep sockets from their turn.
TEST_F(LoopTest, AnEndlessStreamOfTasksLeavesTurnsToOtherEvents) {
  Note a = Make(1);
  a.posts = &a.task;
  loop_post(&loop_, &a.task);
  Turn();
  EXPECT_EQ(n_batches_, 1); // came back, with the task still posted
  EXPECT_TRUE(a.task.posted);
}

TEST_F(LoopTest, APostFromAnotherThreadWakesASleepingLoop) {
  Note a = Make(1);
  std::thread other([&] { loop_post(&loop_, &a.task); });
  event_base_loop(loop_.base, EVLOOP_ONCE); // sleeps until it is posted
  other.join();
  EXPECT_EQ(ran_, (std::vector<int>{1}));
}

// ---- A thread that does other work as well ----------------------------------

class AwakeLoopTest : public LoopTest {
protected:
  // The thread has slept, and is awake.
  AwakeLoopTest() {
    loop_post(&loop_, &first_.task);
    loop_turn(&loop_, EVLOOP_ONCE);
    loop_run_tasks(&loop_);
    ran_.clear();
  }

  bool IsWoken() {
    pollfd p = {loop_.wake_fd, POLLIN, 0};
    return poll(&p, 1, 0) == 1;
  }

  Note first_ = Make(0);
};

TEST_F(AwakeLoopTest, APostDoesNotWakeAThreadThatIsAwake) {
  Note a = Make(1), b = Make(2);
  loop_post(&loop_, &a.task);
  loop_post(&loop_, &b.task);
  EXPECT_FALSE(IsWoken());
  EXPECT_TRUE(loop_run_tasks(&loop_));
  EXPECT_FALSE(loop_run_tasks(&loop_));
  EXPECT_EQ(ran_, (std::vector<int>{1, 2}));
}

TEST_F(AwakeLoopTest, TheThreadDoesNotSleepWhileThereAreTasks) {
  Note a = Make(1);
  loop_post(&loop_, &a.task);
  loop_turn(&loop_, EVLOOP_ONCE); // nothing would wake it
  EXPECT_TRUE(loop_run_tasks(&loop_));
  EXPECT_EQ(ran_, (std::vector<int>{1}));
}

TEST_F(AwakeLoopTest, APostFromAnotherThreadWakesItFromItsSleep) {
  Note a = Make(1), b = Make(2);
  std::thread other([&] { loop_post(&loop_, &a.task); });
  loop_turn(&loop_, EVLOOP_ONCE);
  other.join();
  loop_run_tasks(&loop_); // if it was posted before the sleep
  EXPECT_EQ(ran_, (std::vector<int>{1}));
  loop_post(&loop_, &b.task);
  EXPECT_FALSE(IsWoken());
  EXPECT_TRUE(loop_run_tasks(&loop_));
}

TEST_F(AwakeLoopTest, AThreadThatOnlyLooksForEventsStaysAwake) {
  Note a = Make(1);
  loop_turn(&loop_, EVLOOP_ONCE | EVLOOP_NONBLOCK);
  loop_post(&loop_, &a.task);
  EXPECT_FALSE(IsWoken());
  EXPECT_TRUE(loop_run_tasks(&loop_));
}

} // namespace

#include "source/reactor.h"

#include <condition_variable>
#include <csignal>
#include <mutex>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace {

class ReactorTest : public testing::Test {
protected:
  ReactorTest() { EXPECT_EQ(reactor_new(&reactor_), 0); }
  ~ReactorTest() override { reactor_free(reactor_); }

  struct Note {
    struct task task;
    ReactorTest *test;
    int number;
    int posts_again; // so many times, when it runs
  };

  Note Make(int number) { return {{Run, nullptr, false}, this, number, 0}; }

  static void Run(struct task *task) {
    Note *note = reinterpret_cast<Note *>(task);
    EXPECT_TRUE(reactor_is_current(note->test->reactor_));
    {
      std::lock_guard<std::mutex> guard(note->test->lock_);
      note->test->ran_.push_back(note->number);
    }
    if (note->posts_again > 0) {
      note->posts_again--;
      reactor_post(note->test->reactor_, task);
    }
  }

  // While its lock is held the reactor runs nothing that is posted after it.
  struct Gate {
    struct task task = {[](struct task *t) {
                          Gate *gate = reinterpret_cast<Gate *>(t);
                          std::lock_guard<std::mutex> wait(gate->lock);
                        },
                        nullptr, false};
    std::mutex lock;
  };

  // What was posted before has run.
  void AwaitPosts() {
    struct task last = {[](struct task *) {}, nullptr, false};
    reactor_run(reactor_, &last);
  }

  std::vector<int> ran() {
    std::lock_guard<std::mutex> guard(lock_);
    return ran_;
  }

  struct reactor *reactor_ = nullptr;
  std::mutex lock_;
  std::vector<int> ran_; // guarded by lock_
};

TEST_F(ReactorTest, RunsTasksInTheOrderOfTheirPosts) {
  Note a = Make(1), b = Make(2), c = Make(3);
  reactor_post(reactor_, &b.task);
  reactor_post(reactor_, &a.task);
  reactor_post(reactor_, &c.task);
  AwaitPosts();
  EXPECT_EQ(ran(), (std::vector<int>{2, 1, 3}));
}

TEST_F(ReactorTest, AWaitEndsWhenTheTaskHasRun) {
  Note a = Make(1);
  reactor_run(reactor_, &a.task);
  EXPECT_EQ(ran(), (std::vector<int>{1}));
  EXPECT_FALSE(reactor_is_current(reactor_));
}

// The reactor is kept from running anything while both are posted.
TEST_F(ReactorTest, ATaskThatIsPostedTwiceRunsOnce) {
  Gate gate;
  Note a = Make(1), b = Make(2);
  {
    std::lock_guard<std::mutex> shut(gate.lock);
    reactor_post(reactor_, &gate.task);
    reactor_post(reactor_, &a.task);
    reactor_post(reactor_, &b.task);
    reactor_post(reactor_, &a.task);
  }
  AwaitPosts();
  EXPECT_EQ(ran(), (std::vector<int>{1, 2}));
}

TEST_F(ReactorTest, GivesASignOfLifeWhenItTurns) {
  Gate gate;
  {
    std::lock_guard<std::mutex> shut(gate.lock);
    reactor_post(reactor_, &gate.task);
    reactor_ask(reactor_, 7);
    EXPECT_FALSE(reactor_has_answered(reactor_, 7));
  }
  AwaitPosts();
  EXPECT_TRUE(reactor_has_answered(reactor_, 7));
  EXPECT_FALSE(reactor_has_answered(reactor_, 8));
}

TEST_F(ReactorTest, ATaskMayPostItselfAgain) {
  Note a = Make(1);
  a.posts_again = 1000; // more than there are in a batch
  reactor_post(reactor_, &a.task);
  for (size_t n = 0; n < 1001; n = ran().size())
    AwaitPosts();
  EXPECT_EQ(ran().size(), 1001u);
}

TEST_F(ReactorTest, TasksOfManyThreadsEachRunOnce) {
  constexpr int kThreads = 4, kTasks = 500;
  std::vector<Note> notes;
  for (int i = 0; i < kThreads * kTasks; i++)
    notes.push_back(Make(i));
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; t++)
    threads.emplace_back([&, t] {
      for (int i = 0; i < kTasks; i++) {
        Note &note = notes[static_cast<size_t>(t * kTasks + i)];
        if (i % 7)
          reactor_post(reactor_, &note.task);
        else
          reactor_run(reactor_, &note.task);
      }
    });
  for (std::thread &thread : threads)
    thread.join();
  AwaitPosts();
  std::vector<int> last(kThreads, -1);
  ASSERT_EQ(ran().size(), notes.size());
  for (int number : ran()) {
    EXPECT_EQ(number % kTasks, last[static_cast<size_t>(number / kTasks)] + 1);
    last[static_cast<size_t>(number / kTasks)] = number % kTasks;
  }
}

TEST_F(ReactorTest, AnAlarmRingsOnItsThread) {
  struct Alarm {
    struct reactor_alarm alarm;
    struct reactor *reactor;
    std::mutex lock;
    std::condition_variable rang;
    bool on_thread;
  } alarm{};
  alarm.reactor = reactor_;
  alarm.alarm.ring = [](struct reactor_alarm *rings) {
    Alarm *a = reinterpret_cast<Alarm *>(rings);
    std::lock_guard<std::mutex> guard(a->lock);
    a->on_thread = reactor_is_current(a->reactor);
    a->rang.notify_one();
  };
  std::unique_lock<std::mutex> guard(alarm.lock);
  reactor_after(reactor_, &alarm.alarm, 1);
  alarm.rang.wait(guard, [&] { return alarm.on_thread; });
}

TEST_F(ReactorTest, AnAlarmMaySetItselfAgain) {
  struct Alarm {
    struct reactor_alarm alarm;
    struct reactor *reactor;
    int left;
    std::mutex lock;
    std::condition_variable ended;
  } alarm{};
  alarm.reactor = reactor_;
  alarm.left = 3;
  alarm.alarm.ring = [](struct reactor_alarm *rings) {
    Alarm *a = reinterpret_cast<Alarm *>(rings);
    std::lock_guard<std::mutex> guard(a->lock);
    if (--a->left)
      reactor_after(a->reactor, rings, 0);
    else
      a->ended.notify_one();
  };
  std::unique_lock<std::mutex> guard(alarm.lock);
  reactor_after(reactor_, &alarm.alarm, 0);
  alarm.ended.wait(guard, [&] { return alarm.left == 0; });
}

// A program's signals are for its own threads.
TEST_F(ReactorTest, ItsThreadTakesNoSignal) {
  struct Look {
    struct task task;
    sigset_t blocked;
  } look{};
  look.task.run = [](struct task *task) {
    pthread_sigmask(SIG_SETMASK, nullptr,
                    &reinterpret_cast<Look *>(task)->blocked);
  };
  reactor_run(reactor_, &look.task);
  EXPECT_EQ(sigismember(&look.blocked, SIGTERM), 1);
  EXPECT_EQ(sigismember(&look.blocked, SIGPIPE), 1);
}

TEST(ReactorEndTest, WhatIsPostedBeforeTheEndStillRuns) {
  struct reactor *reactor;
  struct Count {
    struct task task;
    bool ran;
  } counts[300] = {};
  ASSERT_EQ(reactor_new(&reactor), 0);
  for (Count &c : counts) {
    c.task.run = [](struct task *task) {
      reinterpret_cast<Count *>(task)->ran = true;
    };
    reactor_post(reactor, &c.task);
  }
  reactor_free(reactor);
  for (const Count &c : counts)
    EXPECT_TRUE(c.ran);
  reactor_free(nullptr);
}

} // namespace

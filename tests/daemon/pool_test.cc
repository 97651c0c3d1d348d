#include "daemon/pool.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace {

// A job that does what it is told.
struct TestJob {
  job base;
  std::function<void()> run, abandon;

  TestJob(std::function<void()> on_run, std::function<void()> on_abandon = {})
      : base{}, run(std::move(on_run)), abandon(std::move(on_abandon)) {
    base.run = [](job *j) { reinterpret_cast<TestJob *>(j)->run(); };
    if (abandon)
      base.abandon = [](job *j) { reinterpret_cast<TestJob *>(j)->abandon(); };
  }
};

// Where threads stand until it opens; counts who came.
class Gate {
public:
  void Pass() {
    std::unique_lock<std::mutex> lock(mutex_);
    n_came_++;
    changed_.notify_all();
    changed_.wait(lock, [this] { return open_; });
  }
  void Open() {
    std::lock_guard<std::mutex> lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void AwaitCame(int n) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return n_came_ >= n; });
  }

private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false;
  int n_came_ = 0;
};

using PoolPtr = std::unique_ptr<pool, decltype(&pool_free)>;

TEST(PoolTest, ALaneWhoseJobsHangLeavesAThreadToTheOthers) {
  PoolPtr p(pool_new(3, 2), pool_free);
  Gate gate, other;
  other.Open();
  std::vector<std::unique_ptr<TestJob>> stuck;
  TestJob free_job([&] { other.Pass(); });
  ASSERT_EQ(pool_start(p.get()), 0);
  for (int i = 0; i < 10; i++) {
    stuck.push_back(std::make_unique<TestJob>([&] { gate.Pass(); }));
    pool_submit(p.get(), 0, &stuck.back()->base);
  }
  gate.AwaitCame(2);

  pool_submit(p.get(), 1, &free_job.base);

  other.AwaitCame(1);
  gate.Open();
  pool_stop(p.get());
}

TEST(PoolTest, TheLastLaneHasAThreadHoweverManyOthersHang) {
  PoolPtr p(pool_new(4, 4), pool_free);
  Gate gate, other;
  other.Open();
  std::vector<std::unique_ptr<TestJob>> stuck;
  TestJob free_job([&] { other.Pass(); });
  ASSERT_EQ(pool_start(p.get()), 0);
  for (unsigned i = 0; i < 12; i++) {
    stuck.push_back(std::make_unique<TestJob>([&] { gate.Pass(); }));
    pool_submit(p.get(), i % 3, &stuck.back()->base);
  }
  gate.AwaitCame(3);

  pool_submit(p.get(), 3, &free_job.base);

  other.AwaitCame(1);
  gate.Open();
  pool_stop(p.get());
}

TEST(PoolTest, AnOnlyLaneHasAllThreads) {
  PoolPtr p(pool_new(3, 1), pool_free);
  Gate gate;
  std::vector<std::unique_ptr<TestJob>> jobs;
  ASSERT_EQ(pool_start(p.get()), 0);
  for (int i = 0; i < 3; i++) {
    jobs.push_back(std::make_unique<TestJob>([&] { gate.Pass(); }));
    pool_submit(p.get(), 0, &jobs.back()->base);
  }
  gate.AwaitCame(3);
  gate.Open();
  pool_stop(p.get());
}

TEST(PoolTest, AStopAbandonsWhatCanBeAndRunsTheRest) {
  PoolPtr p(pool_new(2, 1), pool_free); // not started: all is queued
  int n_run = 0, n_abandoned = 0;
  TestJob fill([&] { n_run += 100; }, [&] { n_abandoned++; });
  TestJob task([&] { n_run++; });
  pool_submit(p.get(), 0, &fill.base);
  pool_submit(p.get(), 0, &task.base);

  pool_stop(p.get());

  EXPECT_EQ(n_run, 1);
  EXPECT_EQ(n_abandoned, 1);
}

TEST(PoolTest, LanesTakeTurns) {
  PoolPtr p(pool_new(1, 3), pool_free);
  Gate gate, done;
  done.Open();
  std::vector<int> order; // one thread: no lock is needed
  std::vector<std::unique_ptr<TestJob>> jobs;
  ASSERT_EQ(pool_start(p.get()), 0);
  TestJob blocker([&] { gate.Pass(); });
  pool_submit(p.get(), 0, &blocker.base);
  gate.AwaitCame(1);
  for (int lane : {1, 1, 2, 2})
    jobs.push_back(std::make_unique<TestJob>([&order, &done, lane] {
      order.push_back(lane);
      done.Pass();
    }));
  pool_submit(p.get(), 1, &jobs[0]->base);
  pool_submit(p.get(), 1, &jobs[1]->base);
  pool_submit(p.get(), 2, &jobs[2]->base);
  pool_submit(p.get(), 2, &jobs[3]->base);

  gate.Open();

  done.AwaitCame(4);
  EXPECT_EQ(order, (std::vector<int>{1, 2, 1, 2}));
  pool_stop(p.get());
}

} // namespace

#include "daemon/engine/pool.h"

#include <gtest/gtest.h>

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

// How many of the next threads that this program makes cannot be made.
static std::atomic<int> n_refused_threads;

extern "C" int pthread_create(pthread_t *id, const pthread_attr_t *attr,
                              void *(*run)(void *), void *arg) noexcept {
  static auto real = reinterpret_cast<decltype(&pthread_create)>(
      dlsym(RTLD_NEXT, "pthread_create"));
  int n = n_refused_threads;
  while (n > 0 && !n_refused_threads.compare_exchange_weak(n, n - 1))
    ;
  return n > 0 ? EAGAIN : real(id, attr, run, arg);
}

namespace {

constexpr int kAll = 1 << 30;

// A job that does what it is told.
struct TestJob {
  pool_job base;
  std::function<void()> run, abandon;

  TestJob(std::function<void()> on_run, std::function<void()> on_abandon = {})
      : base{}, run(std::move(on_run)), abandon(std::move(on_abandon)) {
    base.run = [](pool_job *j) { reinterpret_cast<TestJob *>(j)->run(); };
    if (abandon)
      base.abandon = [](pool_job *j) {
        reinterpret_cast<TestJob *>(j)->abandon();
      };
  }
};

// Where threads stand until it opens; counts those that came.
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

class PoolTest : public testing::Test {
protected:
  void TearDown() override {
    n_refused_threads = 0;
    gate_.Open();
    Stop();
  }

  void Stop() {
    if (pool_)
      pool_stop(pool_.get());
    for (pool_lane *lane : lanes_)
      pool_lane_free(lane);
    lanes_.clear();
  }

  // Of the lanes, the last `n_apart` share no threads.
  void Make(unsigned n_lanes, unsigned n_shared, int idle_ms = 60000,
            unsigned n_apart = 0) {
    pool_options options = {n_shared, idle_ms};
    pool_.reset(pool_new(&options));
    ASSERT_TRUE(pool_);
    for (unsigned i = 0; i < n_lanes; i++) {
      lanes_.push_back(pool_lane_new(pool_.get(), 1, i + n_apart < n_lanes));
      ASSERT_TRUE(lanes_.back());
    }
  }

  void Start(unsigned n_lanes, unsigned n_shared, int idle_ms = 60000) {
    Make(n_lanes, n_shared, idle_ms);
    ASSERT_EQ(pool_start(pool_.get()), 0);
  }

  void Submit(unsigned lane, std::function<void()> run) {
    jobs_.push_back(std::make_unique<TestJob>(std::move(run)));
    pool_submit(lanes_.at(lane), &jobs_.back()->base);
  }

  // Jobs that hang until the test is over.
  void SubmitHanging(unsigned lane, int n) {
    for (int i = 0; i < n; i++)
      Submit(lane, [this] { gate_.Pass(); });
  }

  // Waits for what hangs, of which there is to be no more than that.
  void ExpectHanging(unsigned n) {
    gate_.AwaitCame(int(n));
    EXPECT_EQ(pool_n_threads(pool_.get()), n);
  }

  // One that lives until the pool has stopped.
  Gate &NewGate(bool open) {
    gates_.emplace_back();
    if (open)
      gates_.back().Open();
    return gates_.back();
  }

  void ExpectRuns(unsigned lane) {
    Gate &ran = NewGate(true);
    Submit(lane, [&ran] { ran.Pass(); });
    ran.AwaitCame(1);
  }

  struct Free {
    void operator()(pool *p) const { pool_free(p); }
  };
  std::unique_ptr<pool, Free> pool_;
  std::vector<pool_lane *> lanes_;
  std::vector<std::unique_ptr<TestJob>> jobs_;
  std::deque<Gate> gates_;
  Gate gate_;
};

TEST_F(PoolTest, HoweverManyLanesHangEachOtherOneRuns) {
  constexpr unsigned kLanes = 40, kShared = 4;
  Start(kLanes, kShared);
  for (unsigned lane = 0; lane + 1 < kLanes; lane++) {
    SubmitHanging(lane, 10);
    ExpectRuns(lane + 1);
    ExpectRuns(kLanes - 1);
  }
  EXPECT_LE(pool_n_threads(pool_.get()), kLanes + kShared);
}

TEST_F(PoolTest, ALaneThatHangsLeavesHalfOfTheSharedThreads) {
  Start(3, 8);
  SubmitHanging(0, 20);
  ExpectHanging(5); // its own and four
  SubmitHanging(1, 20);
  ExpectHanging(5 + 3); // its own and half of what was left
  SubmitHanging(2, 20);
  ExpectHanging(5 + 3 + 2);
}

TEST_F(PoolTest, ALaneThatIsSetApartHasItsOwnThreadsAndNoOthers) {
  Make(2, 8, 60000, 1);
  pool_lane_set_own(lanes_[1], 2);
  ASSERT_EQ(pool_start(pool_.get()), 0);
  SubmitHanging(1, 20);
  ExpectHanging(2);
  SubmitHanging(0, 20);
  ExpectHanging(2 + 5);
}

TEST_F(PoolTest, ALaneThatIsSetApartRunsHoweverManyOthersHang) {
  Make(4, 4, 60000, 1);
  ASSERT_EQ(pool_start(pool_.get()), 0);
  for (unsigned lane = 0; lane < 3; lane++)
    SubmitHanging(lane, 20);
  ExpectRuns(3);
}

TEST_F(PoolTest, ThreadsEndWhenTheyHaveNothingToDoButForOne) {
  Start(3, 8, 1);
  for (int round = 0; round < 20; round++) {
    Gate &gate = NewGate(false);
    for (unsigned lane : {0u, 1u, 2u, 2u})
      Submit(lane, [&gate] { gate.Pass(); });
    gate.AwaitCame(4);
    gate.Open();
    while (pool_n_threads(pool_.get()) > 1)
      std::this_thread::yield();
  }
}

TEST_F(PoolTest, WithoutAnyThreadThereIsNoStart) {
  Make(3, 8);
  n_refused_threads = kAll;
  EXPECT_EQ(pool_start(pool_.get()), -EAGAIN);
}

TEST_F(PoolTest, AJobForWhichNoThreadCanBeMadeIsRunByOneThatIsThere) {
  Start(3, 8);
  n_refused_threads = kAll;
  Gate &ran = NewGate(true);
  SubmitHanging(0, 1);
  for (unsigned lane = 0; lane < 3; lane++)
    Submit(lane, [&ran] { ran.Pass(); });
  ExpectHanging(1);
  gate_.Open();
  ran.AwaitCame(3);
}

TEST_F(PoolTest, OnceThreadsCanBeMadeAgainTheNextSubmitMakesWhatWasMissing) {
  Start(4, 8);
  SubmitHanging(0, 1);
  ExpectHanging(1);
  n_refused_threads = kAll;
  Gate &ran = NewGate(true);
  for (unsigned lane = 1; lane < 3; lane++)
    Submit(lane, [&ran] { ran.Pass(); });
  ExpectHanging(1);
  n_refused_threads = 0;
  Submit(3, [&ran] { ran.Pass(); });
  ran.AwaitCame(3);
}

TEST_F(PoolTest, LanesTakeTurnsWhereThereIsOneThread) {
  Start(3, 0);
  n_refused_threads = kAll;
  Gate &done = NewGate(true);
  std::vector<int> order; // one thread: no lock is needed
  SubmitHanging(0, 1);
  ExpectHanging(1);
  for (int lane : {1, 1, 2, 2})
    Submit(unsigned(lane), [&order, &done, lane] {
      order.push_back(lane);
      done.Pass();
    });
  gate_.Open();
  done.AwaitCame(4);
  EXPECT_EQ(order, (std::vector<int>{1, 2, 1, 2}));
}

TEST_F(PoolTest, ALaneThatGetsMoreThreadsRunsWhatWaitedForThem) {
  Start(0, 0);
  lanes_.push_back(pool_lane_new(pool_.get(), 1, false));
  SubmitHanging(0, 3);
  ExpectHanging(1);
  pool_lane_set_own(lanes_[0], 3);
  ExpectHanging(3);
  pool_lane_set_own(lanes_[0], 1); // the other jobs go on
}

TEST_F(PoolTest, ALaneThatIsFreedRunsWhatItHas) {
  Start(1, 0);
  SubmitHanging(0, 1);
  ExpectHanging(1);
  std::atomic<int> n_run{0};
  pool_lane *lane = pool_lane_new(pool_.get(), 1, true);
  Gate &gate = NewGate(false), &last = NewGate(true);
  for (int i = 0; i < 3; i++) {
    jobs_.push_back(std::make_unique<TestJob>([&, i] {
      gate.Pass();
      n_run++;
      if (i == 2)
        last.Pass();
    }));
    pool_submit(lane, &jobs_.back()->base);
  }
  gate.AwaitCame(1);
  pool_lane_free(lane);
  gate.Open();
  last.AwaitCame(1);
  EXPECT_EQ(n_run, 3);
}

TEST_F(PoolTest, AJobMayFreeItsLane) {
  Start(0, 0);
  pool_lane *lane = pool_lane_new(pool_.get(), 1, true);
  Gate &ran = NewGate(true);
  jobs_.push_back(std::make_unique<TestJob>([&] {
    pool_lane_free(lane);
    ran.Pass();
  }));
  pool_submit(lane, &jobs_.back()->base);
  ran.AwaitCame(1);
}

TEST_F(PoolTest, AStopAbandonsWhatCanBeAndRunsTheRest) {
  Make(1, 1); // not started: all is queued
  int n_run = 0, n_abandoned = 0;
  TestJob fill([&] { n_run += 100; }, [&] { n_abandoned++; });
  TestJob task([&] { n_run++; });
  pool_submit(lanes_[0], &fill.base);
  pool_submit(lanes_[0], &task.base);

  pool_stop(pool_.get());

  EXPECT_EQ(n_run, 1);
  EXPECT_EQ(n_abandoned, 1);
}

// Threads come and go, and sometimes cannot be made, while others submit.
TEST_F(PoolTest, EachJobIsRunOnceOrAbandonedOnce) {
  constexpr unsigned kLanes = 12, kSubmitters = 3, kRounds = 30;
  constexpr int kJobs = 100;
  for (unsigned round = 0; round < kRounds; round++) {
    Make(kLanes, 4, int(round % 2), 1);
    ASSERT_EQ(pool_start(pool_.get()), 0);
    std::vector<std::unique_ptr<TestJob>> jobs;
    std::vector<std::atomic<int>> n_ended(kSubmitters * kJobs);
    for (auto &n : n_ended)
      jobs.push_back(std::make_unique<TestJob>(
          [&n] {
            n++;
            std::this_thread::yield();
          },
          [&n] { n++; }));
    std::vector<std::thread> submitters;
    Gate &start = NewGate(false);
    for (unsigned s = 0; s < kSubmitters; s++)
      submitters.emplace_back([&, s] {
        std::mt19937 random(round * kSubmitters + s);
        start.Pass();
        for (int i = 0; i < kJobs; i++) {
          if (random() % 8 == 0)
            n_refused_threads = int(random() % 3);
          pool_submit(lanes_[random() % kLanes],
                      &jobs[s * kJobs + unsigned(i)]->base);
        }
      });
    start.AwaitCame(int(kSubmitters)); // they can all be made
    start.Open();
    for (auto &submitter : submitters)
      submitter.join();
    n_refused_threads = 0;
    Stop();
    for (auto &n : n_ended)
      ASSERT_EQ(n, 1);
  }
}

} // namespace

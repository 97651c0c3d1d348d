// Shrinking while memory is short: by a clock that the test sets, and with the
// thread over an eventfd in the trigger's place.
#include "daemon/pressure.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <vector>

#include "tests/support/daemon_process.h"

namespace {

constexpr uint64_t kSize = 1024, kLeast = 256;

class PlanTest : public testing::Test {
protected:
  PlanTest() { pressure_plan_init(&plan_, kSize, kLeast); }

  // Lets time go by, with a look at each moment that the plan asks for.
  void Pass(uint64_t ms) {
    for (uint64_t end = now_ms_ + ms;;) {
      int wait = pressure_plan_step(&plan_, now_ms_);
      if (wait < 0 || now_ms_ + uint64_t(wait) > end) {
        now_ms_ = end;
        return;
      }
      now_ms_ += uint64_t(wait);
    }
  }
  void Event() { pressure_plan_event(&plan_, now_ms_); }

  pressure_plan plan_;
  uint64_t now_ms_ = 1000000;
};

TEST_F(PlanTest, WithoutPressureThereIsNothingToDo) {
  EXPECT_EQ(pressure_plan_step(&plan_, now_ms_), -1);
  EXPECT_EQ(plan_.now, kSize);
}

TEST_F(PlanTest, AnEventTakesHalfOfTheRangeInStepsWithinASecond) {
  Event();
  std::vector<uint64_t> sizes;
  uint64_t begin = now_ms_;
  while (plan_.now > plan_.target) {
    int wait = pressure_plan_step(&plan_, now_ms_);
    ASSERT_GT(wait, 0);
    sizes.push_back(plan_.now);
    if (plan_.now > plan_.target)
      now_ms_ += uint64_t(wait);
  }
  EXPECT_EQ(plan_.now, (kSize + kLeast) / 2);
  EXPECT_EQ(sizes.size(), size_t{PRESSURE_STEPS});
  EXPECT_LT(now_ms_ - begin, 1000u);
}

TEST_F(PlanTest, MoreEventsTakeItToTheLeastAndNoFurther) {
  for (int i = 0; i < 10; i++) {
    Event();
    Pass(2000);
    EXPECT_GE(plan_.now, kLeast);
  }
  EXPECT_EQ(plan_.now, kLeast);
}

TEST_F(PlanTest, AnEventDuringAnotherGoesOnFromItsTarget) {
  Event();
  pressure_plan_step(&plan_, now_ms_);
  Event();
  Pass(1000);
  EXPECT_EQ(plan_.now, kLeast + (kSize - kLeast) / 4);
}

TEST_F(PlanTest, ItGrowsBackOnlyWhenThePressureIsOverForAWhile) {
  Event();
  Pass(1000);
  uint64_t low = plan_.now;
  Pass(PRESSURE_QUIET_MS - 2000);
  EXPECT_EQ(plan_.now, low);
  Event(); // and once more it is not over
  Pass(1000);
  low = plan_.now;
  Pass(PRESSURE_QUIET_MS - 2000);
  EXPECT_EQ(plan_.now, low);
  Pass(3000);
  EXPECT_GT(plan_.now, low);
  EXPECT_LT(plan_.now, kSize);
  Pass(20 * PRESSURE_GROW_MS);
  EXPECT_EQ(plan_.now, kSize);
  EXPECT_EQ(pressure_plan_step(&plan_, now_ms_), -1);
}

TEST_F(PlanTest, AnEventEndsTheGrowth) {
  Event();
  Pass(1000 + PRESSURE_QUIET_MS + 2 * PRESSURE_GROW_MS);
  uint64_t grown = plan_.now;
  Event();
  Pass(1000);
  EXPECT_LT(plan_.now, grown);
}

TEST(PlanOfNoRangeTest, ACacheThatMayNotShrinkKeepsItsSize) {
  pressure_plan plan;
  pressure_plan_init(&plan, kSize, kSize);
  pressure_plan_event(&plan, 1);
  EXPECT_EQ(pressure_plan_step(&plan, 1), -1);
  EXPECT_EQ(plan.now, kSize);
}

// What the thread has set, for a test that waits for it.
struct Sizes {
  std::mutex mutex;
  std::condition_variable changed;
  uint64_t now = kSize;

  static void Set(void *arg, uint64_t size) {
    auto *sizes = static_cast<Sizes *>(arg);
    std::lock_guard<std::mutex> lock(sizes->mutex);
    sizes->now = size;
    sizes->changed.notify_all();
  }
  void Await(uint64_t size) {
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [&] { return now == size; });
  }
};

TEST(PressureTest, TheThreadSetsTheSizesWhenTheTriggerTells) {
  Sizes sizes;
  int trigger = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  pressure_options options = {trigger, POLLIN,     kSize,
                              kLeast,  Sizes::Set, &sizes};
  pressure *p = pressure_start(&options);
  ASSERT_TRUE(p);
  ASSERT_EQ(eventfd_write(trigger, 1), 0);
  sizes.Await((kSize + kLeast) / 2);
  ASSERT_EQ(eventfd_write(trigger, 1), 0);
  sizes.Await(kLeast + (kSize - kLeast) / 4);
  pressure_stop(p);
}

TEST(PressureTest, ATriggerWhoseGroupIsGoneEndsNothingElse) {
  Sizes sizes;
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  ASSERT_EQ(write(ends[1], "12345678", 8), 8);
  ASSERT_EQ(close(ends[1]), 0); // one event, and then the end
  pressure_options options = {ends[0], POLLIN,     kSize,
                              kLeast,  Sizes::Set, &sizes};
  pressure *p = pressure_start(&options);
  ASSERT_TRUE(p);
  sizes.Await((kSize + kLeast) / 2); // by steps that come after the end
  pressure_stop(p);
}

TEST(PressureTest, TheGroupsFileIsTakenElseTheMachines) {
  TempDir dir;
  auto write_file = [&](const std::string &path, const std::string &text) {
    std::filesystem::path full = dir.path() + path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << text;
  };
  auto read_file = [&](const std::string &path) {
    std::string text;
    std::getline(std::ifstream(dir.path() + path), text, '\0');
    return text;
  };
  EXPECT_EQ(pressure_open(dir.path().c_str()), -ENOENT);
  write_file("/proc/self/cgroup", "0::/a\n");
  write_file("/proc/self/mountinfo",
             "35 24 0:30 / /cg rw - cgroup2 cgroup2 rw\n");
  write_file("/proc/pressure/memory", "");
  int fd = pressure_open(dir.path().c_str());
  ASSERT_GE(fd, 0);
  close(fd);
  EXPECT_EQ(read_file("/proc/pressure/memory"), "some 100000 2000000");
  write_file("/proc/pressure/memory", "");
  write_file("/cg/a/memory.pressure", "");
  fd = pressure_open(dir.path().c_str());
  ASSERT_GE(fd, 0);
  close(fd);
  EXPECT_EQ(read_file("/cg/a/memory.pressure"), "some 100000 2000000");
  EXPECT_EQ(read_file("/proc/pressure/memory"), "");
}

TEST(PressureTest, TheKernelTakesTheTrigger) {
  int fd = pressure_open("");
  if (fd < 0)
    GTEST_SKIP() << "the kernel gives no trigger: " << strerror(-fd);
  pollfd p = {fd, POLLPRI, 0};
  EXPECT_GE(poll(&p, 1, 0), 0);
  EXPECT_FALSE(p.revents & POLLERR);
  close(fd);
}

} // namespace

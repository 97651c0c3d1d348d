// Asking whether the calling thread holds a lock.
#include "base/lock.h"

#include <gtest/gtest.h>

#include <thread>

namespace {

class LockTest : public ::testing::Test {
protected:
  LockTest() { lock_init(&lock_); }
  ~LockTest() override { pthread_mutex_destroy(&lock_); }

  pthread_mutex_t lock_;
};

TEST_F(LockTest, ItIsHeldUntilItIsGivenBack) {
  pthread_mutex_lock(&lock_);
  lock_assert_held(&lock_);
  lock_assert_held(&lock_); // the question takes nothing
  EXPECT_EQ(pthread_mutex_unlock(&lock_), 0);
}

TEST_F(LockTest, AStaticOneIsHeldAsWell) {
  static pthread_mutex_t lock = LOCK_INITIALIZER;
  pthread_mutex_lock(&lock);
  lock_assert_held(&lock);
  pthread_mutex_unlock(&lock);
}

// The wait gives the lock back, and another thread holds it meanwhile.
TEST_F(LockTest, ItIsHeldAgainAfterAWait) {
  pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
  bool turned = false;
  pthread_mutex_lock(&lock_);
  std::thread other([&] {
    pthread_mutex_lock(&lock_);
    lock_assert_held(&lock_);
    turned = true;
    pthread_cond_signal(&cond);
    pthread_mutex_unlock(&lock_);
  });
  while (!turned)
    pthread_cond_wait(&cond, &lock_);
  lock_assert_held(&lock_);
  pthread_mutex_unlock(&lock_);
  other.join();
}

using LockDeathTest = LockTest;

TEST_F(LockDeathTest, OneThatIsFreeIsNotHeld) {
  EXPECT_DEATH(lock_assert_held(&lock_), "EDEADLK");
  pthread_mutex_lock(&lock_);
  pthread_mutex_unlock(&lock_);
  EXPECT_DEATH(lock_assert_held(&lock_), "EDEADLK");
}

// It ends the process, rather than to wait for the other thread.
TEST_F(LockDeathTest, AnotherThreadsIsNotHeld) {
  pthread_mutex_lock(&lock_);
  EXPECT_DEATH(std::thread([&] { lock_assert_held(&lock_); }).join(),
               "EDEADLK");
  pthread_mutex_unlock(&lock_);
}

// One that was made by pthread_mutex_init() does not know its holder.
TEST_F(LockDeathTest, AnyOtherMutexFailsAtOnce) {
  pthread_mutex_t plain = PTHREAD_MUTEX_INITIALIZER;
  pthread_mutex_lock(&plain);
  EXPECT_DEATH(lock_assert_held(&plain), "EDEADLK");
  pthread_mutex_unlock(&plain);
}

} // namespace

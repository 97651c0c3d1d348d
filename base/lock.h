/* Locks that can be asked whether the calling thread holds them.
 *
 * A function whose name ends in _locked begins with lock_assert_held().  The
 * question costs up to 10 ns, and a fill asks it for each of its pages, so it
 * is asked where CACHETD_DEBUG_CHECKS is defined: in all builds but those with
 * -c opt.
 *
 * In those builds such a lock is a mutex that checks for errors: the C library
 * keeps its owner, also over a pthread_cond_wait(3).  It is taken and given
 * back as any mutex.  But only its owner may give it back, and the child of a
 * fork() is another one: the child initialises it anew. */
#ifndef BASE_LOCK_H
#define BASE_LOCK_H

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <time.h>

#ifdef CACHETD_DEBUG_CHECKS

#define LOCK_INITIALIZER PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP

static inline void lock_init(pthread_mutex_t *lock) {
  pthread_mutexattr_t attr;
  pthread_mutexattr_init(&attr);
  pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
  pthread_mutex_init(lock, &attr);
  pthread_mutexattr_destroy(&attr);
}

/* Never waits: the time is over. */
static inline void lock_assert_held(const pthread_mutex_t *lock) {
  const struct timespec past = {0, 0};
  int r = pthread_mutex_timedlock((pthread_mutex_t *)(uintptr_t)lock, &past);
  assert(r == EDEADLK);
}

#else

#define LOCK_INITIALIZER PTHREAD_MUTEX_INITIALIZER

static inline void lock_init(pthread_mutex_t *lock) {
  pthread_mutex_init(lock, NULL);
}

static inline void lock_assert_held(const pthread_mutex_t *lock) { (void)lock; }

#endif

#endif

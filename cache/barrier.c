#include "cache/barrier.h"

#include <linux/membarrier.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool registered; /* written once, under `once` */

static void do_register(void) {
  long cmds = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
  if (cmds < 0 || !(cmds & MEMBARRIER_CMD_GLOBAL_EXPEDITED))
    return;
  registered =
      !syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0);
}

bool barrier_register(void) {
  pthread_once(&once, do_register);
  return registered;
}

bool barrier_run(void) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (!barrier_register())
    return true; /* readers fence themselves */
  return !syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0);
}

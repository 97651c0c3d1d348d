/* The evictor's side of the pin protocol's fences: membarrier(2).
 *
 * barrier_run() makes every running thread of every registered process execute
 * a full memory barrier.  So a reader needs none between storing its pin and
 * looking at the word: whatever it stored before is seen after barrier_run()
 * by its caller, or else the reader looks at the word after it, and sees what
 * the caller stored before.  Registration survives fork, not exec. */
#ifndef CACHE_BARRIER_H
#define CACHE_BARRIER_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Registers this process, once.  False where the kernel or a seccomp filter
 * says no: then readers fence themselves, and barrier_run() is a fence. */
bool barrier_register(void);

/* False if the kernel would not (no memory, or a filter that came later): then
 * nothing is known of other threads. */
bool barrier_run(void);

#ifdef __cplusplus
}
#endif

#endif

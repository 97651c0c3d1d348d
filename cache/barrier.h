/* membarrier(2): the fence that the evictor executes for all readers.
 *
 * barrier_run() makes every running thread of every registered process execute
 * a full memory barrier.  So a reader needs no fence between storing its pin
 * and loading the page state.  If the reader stored the pin before its barrier,
 * the caller sees the pin after barrier_run().  Otherwise the reader loads the
 * state after its barrier, and sees what the caller stored before
 * barrier_run().  Registration survives fork, not exec. */
#ifndef CACHE_BARRIER_H
#define CACHE_BARRIER_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Registers this process, once.  Returns false if the kernel or a seccomp
 * filter refuses.  Then readers execute fences of their own, and barrier_run()
 * is an ordinary fence. */
bool barrier_register(void);

/* Returns false if the kernel refused (no memory, or a filter that was
 * installed later).  Then the caller knows nothing about the pins of other
 * threads. */
bool barrier_run(void);

#ifdef __cplusplus
}
#endif

#endif

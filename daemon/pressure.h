/* Memory pressure: shrinks the cache while processes wait for memory, and lets
 * it grow back afterwards.
 *
 * The kernel reports pressure by a trigger (PSI): a descriptor with an event
 * when processes stalled for a tenth of a second within two seconds, at most
 * one event every two seconds.  A thread of its own waits for it.
 *
 *   Q1  Each event takes away half of what is between the present size and the
 *       least, in PRESSURE_STEPS steps of PRESSURE_STEP_MS: so memory comes
 *       back at once and not all readers miss at once.
 *   Q2  After PRESSURE_QUIET_MS without an event a sixteenth of the range
 *       comes back each PRESSURE_GROW_MS.  An event ends that. */
#ifndef DAEMON_PRESSURE_H
#define DAEMON_PRESSURE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  PRESSURE_STEPS = 4,
  PRESSURE_STEP_MS = 100,
  PRESSURE_QUIET_MS = 30000,
  PRESSURE_GROW_MS = 5000,
};

/* When to do what: without a thread, by the caller's clock. */
struct pressure_plan {
  uint64_t size, least; /* what was configured */
  uint64_t now, target; /* the present size, and where it is to go */
  uint64_t step;
  uint64_t next_ms; /* when the next step is due */
};

void pressure_plan_init(struct pressure_plan *plan, uint64_t size,
                        uint64_t least);

/* There was an event. */
void pressure_plan_event(struct pressure_plan *plan, uint64_t now_ms);

/* Takes a step if one is due.  Returns how long to wait for the next, in
 * milliseconds; -1: there is none until an event. */
int pressure_plan_step(struct pressure_plan *plan, uint64_t now_ms);

struct pressure;

struct pressure_options {
  int fd;       /* the trigger, which is the thread's from here */
  short events; /* of poll(2), by which it tells */
  uint64_t size, least;
  void (*set)(void *arg, uint64_t size); /* on the thread */
  void *arg;
};

/* Sets a trigger: on the control group's memory.pressure, or on that of the
 * machine.  `root` is "" except in tests.  Returns a descriptor with POLLPRI
 * events; or a negative errno: the kernel does not report pressure to us. */
int pressure_open(const char *root);

/* NULL: there is no thread; the descriptor is closed. */
struct pressure *pressure_start(const struct pressure_options *options);

/* Ends the thread.  NULL is fine. */
void pressure_stop(struct pressure *p);

#ifdef __cplusplus
}
#endif

#endif

/* A thread that must not hang, and is not the server's. */
#ifndef DAEMON_LIVENESS_THREAD_H
#define DAEMON_LIVENESS_THREAD_H

#include <stdbool.h>
#include <stdint.h>

struct liveness_thread {
  const char *name; /* NULL: there is none */
  /* Any thread; neither waits. */
  void (*ask)(void *arg, uint64_t question);
  bool (*has_answered)(void *arg, uint64_t question);
  void *arg;
};

#endif
